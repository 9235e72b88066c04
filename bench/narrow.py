# SPDX-License-Identifier: BSD-3-Clause
"""Tables of narrow numbers: speed and accuracy of each library, side by side.

They are made of the results of the suites ``bf16`` and ``int8``, whose cases every
library computes in float32 and in each narrower way that it has.
"""

from bench.adapters import FLOAT32_OF, NAMES
from bench.result import (
    CELL_NAMES,
    PASS_NAMES,
    markdown,
    milliseconds,
    time_and_spread,
)

COLUMNS = (
    "Speed: the time of fastrnn's float32 by a library's, in the same rounds. Gain: "
    "the time of the same library's float32 by its own. Errors: the norm of the "
    "difference from results in float64, by the norm of these"
)
# The cases and the rows of the table that a page has of both suites.
BRIEF_CASES = ("lstm/train/T100-B64-I512-H512", "lstm/step/T1-B1-I512-H512")
BRIEF_ROWS = (
    "fastrnn",
    "fastrnn-compute-bfloat16",
    "fastrnn-compute-bfloat16-fast",
    "fastrnn-weights-int8",
    "torch",
    "torch-autocast",
    "torch-int8",
    "onnxruntime-int8",
)
ERRORS = {"y": "error of y", "dweight_hh_l0": "error of dR"}


def is_narrow(record):
    """Whether a case of a result has errors beside the equations in float64."""
    return any("errors" in entry for entry in record["libraries"].values())


def name_of(record, library):
    """A library's name in a row; of int8, with the variant that was the fastest."""
    name = NAMES[library]
    if library not in FLOAT32_OF:
        name += " float32"
    elif library in ("torch-int8", "onnxruntime-int8"):
        name += f" ({record['libraries'][library]['variant']})"
    return name


def speed(entry):
    """The time of fastrnn's float32 by that of a library, in the same rounds."""
    return 1 / entry["ratio"]["median"] if "ratio" in entry else 1.0


def _size(n_bytes):
    """Bytes as text: ``2.01 MiB``, or ``525 KiB``."""
    if n_bytes < 2**20:
        return f"{n_bytes / 2**10:.3g} KiB"
    return f"{n_bytes / 2**20:.3g} MiB"


def text(record):
    """A case and below it a line for each library, to be read while it is measured."""
    lines = [record["id"]]
    for name, entry in record["libraries"].items():
        line = f"  {name_of(record, name):42}"
        if "ms" in entry:
            line += f" {milliseconds(entry['ms']['median']):>8} {speed(entry):6.2f}x"
        errors = (f"{entry['errors'][k]:.1e}" for k in ERRORS if k in entry["errors"])
        lines.append(f"{line}  {'  '.join(errors)}")
    for name, reason in record["unsupported"].items():
        lines.append(f"  {NAMES[name]:42} {reason}")
    return "\n".join(lines)


def _rows(record, keys, has_weights):
    """The rows of a case; a library that cannot run it has a row that says why."""
    shape = f"T{record['T']} B{record['B']} H{record['H']}"
    for name, entry in record["libraries"].items():
        gain = entry.get("gain")
        yield [
            f"{shape}, {name_of(record, name)}",
            time_and_spread(entry["ms"]),
            f"{speed(entry):.2f}x",
            f"{gain['median']:.2f}x" if gain else "",
            *(f"{entry['errors'][key]:.1e}" for key in keys),
            *([_size(entry["weight_bytes"])] if has_weights else []),
        ]
    for name, reason in record["unsupported"].items():
        blank = [""] * (3 + len(keys) + has_weights)
        yield [f"{shape}, {NAMES[name]}: {reason}", *blank]


def tables(result):
    """A list of tables, one for each cell and pass.

    A row has a library's time with its quartiles, its speed and gain, the errors of y
    and, in training, of dR, and in inference the bytes of weights.
    """
    groups = {}
    for record in result["cases"]:
        if is_narrow(record) and "share" in record:
            groups.setdefault((record["cell"], record["pass"]), []).append(record)
    found = []
    for (cell, what), records in groups.items():
        keys = [k for k in ERRORS if k == "y" or what == "train"]
        has_weights = what != "train"
        title = f"{CELL_NAMES[cell]}, {PASS_NAMES[what]}"
        head = [title, "time", "speed", "gain", *(ERRORS[key] for key in keys)]
        rows = [head + ["weights"] * has_weights]
        for record in records:
            rows += _rows(record, keys, has_weights)
        found.append(markdown(rows))
    return found


def brief(bf16, int8):
    """One table of a case of each suite: training, and a step of one signal."""
    train, step = (
        next(record for record in result["cases"] if record["id"] == case_id)
        for result, case_id in zip((bf16, int8), BRIEF_CASES, strict=True)
    )
    rows = [
        [
            f"LSTM, {train['H']} units",
            f"training, T{train['T']} B{train['B']}",
            "error of dR",
            "one step, B1",
            "error of y",
            "weights",
        ]
    ]
    for name in BRIEF_ROWS:
        trained, stepped = (record["libraries"].get(name) for record in (train, step))
        row = [NAMES[name] + ("" if name in FLOAT32_OF else " float32")]
        row += _brief(trained, "dweight_hh_l0") + _brief(stepped, "y")
        rows.append([*row, _size(stepped["weight_bytes"]) if stepped else ""])
    return markdown(rows)


def _brief(entry, key):
    """The speed and an error of a library; two blanks where it has no such case."""
    if entry is None:
        return ["", ""]
    return [f"{speed(entry):.2f}x", f"{entry['errors'][key]:.1e}"]
