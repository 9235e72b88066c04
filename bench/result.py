# SPDX-License-Identifier: BSD-3-Clause
"""Reading of a benchmark's result file, and the words in which results are shown."""

import json
import math
from pathlib import Path

from bench import adapters, cases

FORMAT = 2
CELL_NAMES = {cell: cases.label(cell) for cell in cases.KNOWN}
PASS_NAMES = {"train": "training step", "forward": "forward", "step": "single step"}


class FormatError(ValueError):
    """Raised for a file that is no result, or that another version of bench wrote."""


def load(path):
    """Read a result file; raise FormatError for a file of any other format."""
    try:
        result = json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise FormatError(f"bench.report: {path}: not JSON: {error}") from None
    found = result.get("format") if isinstance(result, dict) else None
    if found != FORMAT:
        raise FormatError(
            f"bench.report: {path}: format must be {FORMAT}, got {found!r}: measure "
            "again with this version of the benchmark"
        )
    return result


def _unit(value):
    """The unit that fits a time in milliseconds, and how many of it a ms has."""
    if value < 0.1:
        return 1e3, "µs"
    return (1, "ms") if value < 1000 else (1e-3, "s")


def milliseconds(value):
    """A time as text: three significant digits and a fitting unit."""
    factor, unit = _unit(value)
    return f"{factor * value:.3g} {unit}"


def time_and_spread(ms):
    """A time with its quartiles, to three digits: ``29.1 ms (29.0 to 29.9)``."""
    factor, unit = _unit(ms["median"])
    low, median, high = (factor * ms[name] for name in ("q1", "median", "q3"))
    digits = max(0, 2 - math.floor(math.log10(median)))
    return f"{median:.{digits}f} {unit} ({low:.{digits}f} to {high:.{digits}f})"


def markdown(rows):
    """A table of rows of texts, of which the first is the head."""
    head, *body = rows
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def threads(result):
    """The number of threads as text, such as ``2 threads``."""
    n = result["settings"]["threads"]
    return f"{n} thread{'' if n == 1 else 's'}"


def is_peer(record, name):
    """Whether a case has a time of this library by fastrnn's own.

    A library that runs on fastrnn is no peer of it, nor is one with narrower numbers.
    """
    if name in adapters.OWN or name in adapters.FLOAT32_OF:
        return False
    return "ratio" in record["libraries"].get(name, {})


def best_peer(record):
    """The peer of a case whose ratio has the smallest median, and that ratio.

    None where only the equations in float64 were compared with.
    """
    ratios = {
        name: entry["ratio"]
        for name, entry in record["libraries"].items()
        if is_peer(record, name)
    }
    if not ratios:
        return None
    name = min(ratios, key=lambda peer: ratios[peer]["median"])
    return {"name": name, "ratio": ratios[name]}
