# SPDX-License-Identifier: BSD-3-Clause
"""Imports of the package that go up a floor, or reach for its face.

The floors are those of import-linter's contract in pyproject.toml.  import-linter reads
no Cython and no stubs, so these files are held to the same list here.  Run as a script
this prints what is wrong and fails if anything is.
"""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
SUFFIXES = (".pyx", ".pxd", ".pyi")
_IMPORT = re.compile(
    r"^(?P<indent>[ \t]*)"
    r"(?:from (?P<of>fastrnn[\w.]*) c?import|c?import (?P<whole>fastrnn[\w.]*))",
    re.MULTILINE,
)


def floors():
    """Number of the floor of each room, 0 on the ground, from pyproject.toml."""
    with open(PROJECT / "pyproject.toml", "rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    return {
        room: height
        for height, layer in enumerate(reversed(layers))
        for room in re.split(r" [|:] ", layer)
    }


def wrong_imports(room, source, heights):
    """What a file of `room` may not import, statement by statement.

    Parameters
    ----------
    room : str
        Folder of the file below the package.
    source : str
        Text of the file.
    heights : dict of str to int
        What `floors` gives.

    Returns
    -------
    list of str
    """
    found = []
    for match in _IMPORT.finditer(source):
        name = match["of"] or match["whole"]
        _, _, inside = name.partition(".")
        other = inside.partition(".")[0]
        if not other:
            found.append(f"the face: {match[0].strip()}")
        elif other != room and heights[other] >= heights[room]:
            found.append(f"a room that is not below: {match[0].strip()}")
        elif match["indent"]:
            found.append(f"inside a function: {match[0].strip()}")
    return found


def main():
    package, heights, failed = PROJECT / "src" / "fastrnn", floors(), False
    files = [file for file in package.rglob("*") if file.suffix in SUFFIXES]
    for file in sorted(files):
        room = file.relative_to(package).parts[0]
        source = file.read_text(encoding="utf-8")
        for problem in wrong_imports(room, source, heights):
            print(f"{file.relative_to(PROJECT)} imports {problem}")
            failed = True
    return failed or not files


if __name__ == "__main__":
    sys.exit(main())
