# SPDX-License-Identifier: BSD-3-Clause
"""Results of a benchmark as a file has them, and the words that they are shown in."""

import json
from pathlib import Path

from bench import cases

FORMAT = 2
CELL_NAMES = {cell: cases.label(cell) for cell in cases.KNOWN}
PASS_NAMES = {"train": "training step", "forward": "forward", "step": "single step"}


class FormatError(ValueError):
    """The file is no result, or one of another version of the benchmark."""


def load(path):
    """Read a result file; FormatError if it is not one of this format."""
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
    """``2 threads``."""
    n = result["settings"]["threads"]
    return f"{n} thread{'' if n == 1 else 's'}"
