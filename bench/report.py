# SPDX-License-Identifier: BSD-3-Clause
"""From a result of ``python -m bench --json FILE`` to text.

``python -m bench.report FILE`` prints the README's tables;
``python -m bench.report --compare OLD NEW`` prints what changed, for a commit message.
"""

import argparse
import json
from pathlib import Path

CELL_NAMES = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN (tanh)"}
PASS_NAMES = {"train": "Training step", "forward": "Forward pass"}


def case_line(record, peak):
    """One line for one case: times, GFLOP/s, share of the peak, ratio."""
    if "ratio" not in record:
        return f"{record['id']:34} results agree to {record['error']:.1e}"
    ours, theirs, ratio = record["fastrnn_ms"], record["torch_ms"], record["ratio"]
    gflops = record["fastrnn_gflops"]
    return (
        f"{record['id']:34} {ours['median']:9.3f} ms {gflops:6.1f} GFLOP/s "
        f"{gflops / peak:4.0%} of peak   PyTorch {theirs['median']:9.3f} ms   "
        f"ratio {ratio['median']:5.2f} [{ratio['q1']:.2f}, {ratio['q3']:.2f}]"
    )


def where(result):
    """The machine and the settings in one sentence."""
    machine, settings = result["machine"], result["settings"]
    return (
        f"{machine['cpu']}, {settings['threads']} threads, {machine['isa']}, "
        f"{settings['dtype']}, FMA peak {result['peak_gflops']:.0f} GFLOP/s measured "
        f"in the same run; fastrnn {machine['fastrnn']}, PyTorch {machine['torch']}, "
        f"Python {machine['python']}, {result['date'][:10]}"
    )


def summary(result):
    """What the lines of the cases have in common."""
    return (
        f"\n{where(result)}\n"
        "GFLOP/s: forward 2 T B G H (I + H) operations, training step three times that "
        "(G = 1 RNN, 3 GRU, 4 LSTM).\n"
        "Ratio: PyTorch's time by fastrnn's, median [quartiles] of "
        f"{result['settings']['rounds']} interleaved rounds."
    )


def _shape_name(record):
    return f"T{record['T']} B{record['B']} I{record['I']} H{record['H']}"


def _entry(record, peak):
    share = record["fastrnn_gflops"] / peak
    time = record["fastrnn_ms"]["median"]
    return f"{time:.3g} ms, {share:.0%}, **{record['ratio']['median']:.2f}x**"


def table(result, direction):
    """A Markdown table of one pass: a row per shape, a column per cell."""
    records = [r for r in result["cases"] if r["pass"] == direction]
    cells = [cell for cell in CELL_NAMES if any(r["cell"] == cell for r in records)]
    shapes = list(dict.fromkeys(_shape_name(r) for r in records))
    found = {(_shape_name(r), r["cell"]): r for r in records}
    rows = [
        [PASS_NAMES[direction], *(CELL_NAMES[cell] for cell in cells)],
        ["---"] * (1 + len(cells)),
    ]
    for shape in shapes:
        entries = (found.get((shape, cell)) for cell in cells)
        peak = result["peak_gflops"]
        rows.append([shape, *(_entry(r, peak) if r else "" for r in entries)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def tables(result):
    """The README's section: where, both tables, the character model."""
    parts = [f"{where(result)}. Each entry: our time, share of peak, **ratio**."]
    for direction in PASS_NAMES:
        if any(r["pass"] == direction for r in result["cases"]):
            parts.append(table(result, direction))
    if "charmodel" in result:
        model = result["charmodel"]
        parts.append(
            f"Character model E{model['E']} H{model['H']} T{model['T']} B{model['B']}, "
            f"whole training step: {model['fastrnn']['median']:,.0f} characters/s "
            f"against {model['torch']['median']:,.0f}, "
            f"**{model['ratio']['median']:.2f}x**."
        )
    return "\n\n".join(parts)


def compare(old, new):
    """Lines ``id: old -> new ms (change)`` for the cases that both results have."""
    before = {r["id"]: r["fastrnn_ms"] for r in old["cases"]}
    lines = []
    for record in new["cases"]:
        if record["id"] not in before:
            continue
        was, now = before[record["id"]], record["fastrnn_ms"]
        change = now["median"] / was["median"] - 1
        # Quartile ranges that overlap: the difference may be noise.
        is_apart = now["q1"] > was["q3"] or now["q3"] < was["q1"]
        lines.append(
            f"{record['id']:34} {was['median']:9.3f} -> {now['median']:9.3f} ms "
            f"({change:+.1%}{'' if is_apart else ', within the spread'})"
        )
    return "\n".join(lines)


def load(path):
    """Read a result file."""
    return json.loads(Path(path).read_text())


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m bench.report", description=__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--compare", action="store_true", help="FILE is OLD NEW")
    options = parser.parse_args(arguments)
    if len(options.files) != (2 if options.compare else 1):
        parser.error("one FILE, or --compare with two")
    results = [load(path) for path in options.files]
    print(compare(*results) if options.compare else tables(*results))


if __name__ == "__main__":
    main()
