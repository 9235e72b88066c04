# SPDX-License-Identifier: BSD-3-Clause
"""Show a result that ``python -m bench --json FILE`` wrote.

``python -m bench.report FILE`` prints Markdown tables. With ``--plots DIR`` it writes
pictures instead, and ``--compare OLD NEW`` prints what changed from one result to
another, for a commit message.
"""

import argparse
import sys
from pathlib import Path

from bench import cases, narrow
from bench.adapters import NAMES, PLAIN_OF
from bench.result import (
    CELL_NAMES,
    PASS_NAMES,
    FormatError,
    best_peer,
    is_peer,
    load,
    markdown,
    milliseconds,
    threads,
    time_and_spread,
)

# What a table may be of: the passes of a layer's cases, whole models, programs.
PASSES = (*cases.PASSES, "model", "program")

# -- lines ----------------------------------------------------------------------------


def case_line(record):
    """One line for one case: fastrnn's time and share of peak, and peers' ratios.

    A case of narrow numbers has several, with a line for each library.
    """
    libraries = record["libraries"]
    if narrow.is_narrow(record):
        return narrow.text(record)
    if "share" not in record:
        errors = (
            f"{NAMES[name]} {entry['error']:.0e}"
            for name, entry in libraries.items()
            if "error" in entry
        )
        return f"{record['id']:36} results agree: {', '.join(errors)}"
    ratios = "  ".join(
        f"{NAMES[name]} {entry['ratio']['median']:.2f}"
        for name, entry in libraries.items()
        if "ratio" in entry
    )
    ours = milliseconds(libraries["fastrnn"]["ms"]["median"])
    return f"{record['id']:36} {ours:>9} {record['share']:4.0%} of peak  ratio {ratios}"


def where(result):
    """The machine, the settings and the versions in one sentence."""
    machine, settings = result["machine"], result["settings"]
    versions = {
        name: version
        for about in result["libraries"].values()
        for name, version in about["versions"].items()
    }
    peaks = sorted(record["peak_gflops"]["median"] for record in result["cases"])
    peak = f"FMA peak {peaks[0]:.0f} to {peaks[-1]:.0f} GFLOP/s, " if peaks else ""
    has = ", ".join(machine.get("instructions", []))
    isa = f"{machine['isa']} ({has})" if has else machine["isa"]
    return (
        f"{machine['cpu']}, {threads(result)}, {isa}, "
        f"{settings['dtype']}, {peak}"
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f", Python {machine['python']}, {result['date'][:10]}"
    )


def summary(result):
    """The text below the lines of the cases: where they were measured, and how."""
    if any(map(narrow.is_narrow, result["cases"])):
        return f"\n{where(result)}\n{narrow.COLUMNS}"
    return (
        f"\n{where(result)}\n"
        "Share of peak: of the FMA peak measured after each block of the same case.\n"
        "Ratio: a peer's time by fastrnn's, median of "
        f"{result['settings']['rounds']} interleaved rounds."
    )


# -- tables ---------------------------------------------------------------------------


def _row_name(record):
    if "published_name" in record:
        return record["published_name"]
    if record["kind"] == "layer":
        return f"T{record['T']} B{record['B']} I{record['I']} H{record['H']}"
    if record["kind"] == "program":
        return f"{record['label']} T{record['T']} B{record['B']} I{record['E']}"
    sizes = [f"V{record['V']} E{record['E']}"] if record["V"] else []
    layers = f" x{record['layers']}" if record["layers"] > 1 else ""
    sizes += [f"H{record['H']}{layers}", f"T{record['T']} B{record['B']}"]
    return f"{record['label']} {' '.join(sizes)}"


def _cell_and_row_name(record):
    cell = CELL_NAMES[record["cell"]] + " " if record["kind"] == "layer" else ""
    return cell + _row_name(record)


def _ratio(entry):
    if entry is None:  # no peer
        return ""
    return f"{entry['ratio']['median']:.2f}x"


def _ratio_and_spread(entry):
    """A peer's ratio with its quartiles; empty for a peer that has no such case."""
    if entry is None:
        return ""
    ratio = entry["ratio"]
    return f"{ratio['median']:.2f}x ({ratio['q1']:.2f} to {ratio['q3']:.2f})"


def _table(title, records, name=_row_name):
    """A table with a row for each case.

    It has fastrnn's time and share of peak, and the ratios of each peer and of the
    best. Times and peers' ratios have their quartiles behind them.
    """
    names = [p for p in NAMES if any(is_peer(r, p) for r in records)]
    rows = [[title, "fastrnn", "of peak", *(NAMES[p] for p in names), "best peer"]]
    for record in records:
        libraries = record["libraries"]
        rows.append(
            [
                name(record),
                time_and_spread(libraries["fastrnn"]["ms"]),
                f"{record['share']:.0%}",
                *(_ratio_and_spread(libraries.get(peer)) for peer in names),
                f"**{_ratio(best_peer(record))}**",
            ]
        )
    return markdown(rows)


def _timed(result, passes):
    """The cases of a result that were timed, of some passes.

    ``model`` and ``program`` are the passes of the cases that are of no layer.
    """
    return [
        record
        for record in result["cases"]
        if "share" in record
        and (record["pass"] if record["kind"] == "layer" else record["kind"]) in passes
    ]


def _title(record):
    if record["kind"] == "program":
        return "`train_on_batch`"
    if record["kind"] == "model":
        return "Whole training step"
    return f"{CELL_NAMES[record['cell']]}, {PASS_NAMES[record['pass']]}"


def machine(result):
    """Where a result was measured, and what stands in a row of its tables."""
    if any(map(narrow.is_narrow, result["cases"])):
        return f"{where(result)}. {narrow.COLUMNS}"
    return (
        f"{where(result)}. Each row: our time, its share of the FMA peak measured in "
        "the same run, and each library's time by ours; in brackets the quartiles of "
        f"{result['settings']['rounds']} rounds."
    )


def pass_tables(result, passes):
    """A list of tables: one for each cell and pass, for the models, for programs."""
    groups = {}
    for record in _timed(result, passes):
        groups.setdefault(_title(record), []).append(record)
    return [_table(title, records) for title, records in groups.items()]


def summary_table(result):
    """One table of the cases of `bench.cases.summary` that a result has."""

    found = {record["id"]: record for record in _timed(result, PASSES)}
    wanted = (case.id for case in cases.summary())
    records = [found[case_id] for case_id in wanted if case_id in found]
    return _table("Training step", records, _cell_and_row_name)


def gains_table(result):
    """One table of programs to which a line was added that lets them run on fastrnn.

    It has a row for each case and library: the times of the program without and with
    the line, their ratio, and the time of fastrnn's own layers or model.
    """
    head = ["with one line more", "program", "without", "with", "gain", "fastrnn alone"]
    rows = [head]
    for record in _timed(result, PASSES):
        libraries = record["libraries"]
        for name, plain in PLAIN_OF.items():
            if "gain" not in libraries.get(name, {}):
                continue
            gain = libraries[name]["gain"]
            rows.append(
                [
                    _cell_and_row_name(record),
                    NAMES[plain],
                    time_and_spread(libraries[plain]["ms"]),
                    time_and_spread(libraries[name]["ms"]),
                    f"**{gain['median']:.2f}x** ({gain['q1']:.2f} to {gain['q3']:.2f})",
                    time_and_spread(libraries["fastrnn"]["ms"]),
                ]
            )
    return markdown(rows) if len(rows) > 1 else ""


def tables(result):
    """The text of a whole result: where it was measured, then all tables.

    Each cell and pass has a table, and so have the models, the programs, and the gains
    of programs that were run with and without a line more.
    """
    if any(map(narrow.is_narrow, result["cases"])):
        parts = [machine(result), *narrow.tables(result)]
    else:
        parts = [machine(result), *pass_tables(result, PASSES), gains_table(result)]
    parts = [part for part in parts if part]
    for name, reason in result["absent"].items():
        parts.append(f"{NAMES[name]} was absent: {reason}.")
    return "\n\n".join(parts)


# -- comparison -----------------------------------------------------------------------


def compare(old, new):
    """Compare two results: ``id old -> new (change), shares, ratios`` on each line.

    The cases that both results have are compared.
    """
    before = {r["id"]: r for r in old["cases"] if "share" in r}
    lines = []
    for record in new["cases"]:
        if record["id"] not in before or "share" not in record:
            continue
        earlier = before[record["id"]]
        was, now = (r["libraries"]["fastrnn"]["ms"] for r in (earlier, record))
        change = now["median"] / was["median"] - 1
        # If the ranges between the quartiles overlap, the difference may be noise.
        is_apart = now["q1"] > was["q3"] or now["q3"] < was["q1"]
        lines.append(
            f"{record['id']:36} {milliseconds(was['median']):>9} -> "
            f"{milliseconds(now['median']):>9} ({change:+.1%}"
            f"{'' if is_apart else ', within the spread'}), "
            f"{earlier['share']:.0%} -> {record['share']:.0%} of peak, "
            f"{_ratio(best_peer(earlier))} -> {_ratio(best_peer(record))}"
        )
    return "\n".join(lines)


def main(arguments=None):
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench.report", description=__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--compare", action="store_true", help="FILE is OLD NEW")
    parser.add_argument(
        "--plots", type=Path, metavar="DIR", help="write PNG files there"
    )
    options = parser.parse_args(arguments)
    if len(options.files) != (2 if options.compare else 1):
        parser.error("one FILE, or --compare with two")
    try:
        results = [load(path) for path in options.files]
        if options.plots:
            from bench import plots  # it needs matplotlib, which the rest does not

            lines = plots.write(results[0], options.plots)
        elif options.compare:
            lines = [compare(*results)]
        else:
            lines = [tables(*results)]
    except FormatError as error:
        print(error, file=sys.stderr)
        return 1
    print(*lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
