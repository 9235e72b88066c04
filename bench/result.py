# SPDX-License-Identifier: BSD-3-Clause
"""Reading of a benchmark's result file, and the words in which results are shown."""

import json
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


def threads(result):
    """The number of threads as text, such as ``2 threads``."""
    n = result["settings"]["threads"]
    return f"{n} thread{'' if n == 1 else 's'}"


def is_peer(record, name):
    """Whether a case has a time of this library by fastrnn's own.

    A library that runs on fastrnn is no peer of it.
    """
    return name not in adapters.PLAIN_OF and "ratio" in record["libraries"].get(
        name, {}
    )


def best_peer(record):
    """The peer of a case whose ratio has the smallest median, and that ratio."""
    ratios = {
        name: entry["ratio"]
        for name, entry in record["libraries"].items()
        if is_peer(record, name)
    }
    name = min(ratios, key=lambda peer: ratios[peer]["median"])
    return {"name": name, "ratio": ratios[name]}
