# SPDX-License-Identifier: BSD-3-Clause
"""Puts into each page of the gallery the result and the pictures of its example.

A result is a row of the table in examples/README.md. Pictures are
docs/pictures/NAME.png, of a whole run, and NAME_quick.png, of one with `--quick`.
"""

import functools
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
ROW = re.compile(r"^\| `(\w+)\.py` \|(.*)\|$", re.MULTILINE)
FIGURE = """
.. figure:: /pictures/{file}
   :alt: {what}, as {name}.py draws it
   :width: 100%

   {what}.
"""
KINDS = {
    "": "The whole run",
    "_quick": "A run with ``--quick``, of seconds: it shows the way, not the result",
}


@functools.cache
def rows():
    """What it does, baseline, result and time of each example, by its name."""
    table = (DOCS.parent / "examples" / "README.md").read_text(encoding="utf-8")
    return {name: rest.split(" | ") for name, rest in ROW.findall(table)}


def section(name):
    """The result of an example in reStructuredText, or nothing if it has none."""
    lines = []
    if name in rows():
        _, baseline, result, time = (
            text.strip().replace("`", "``") for text in rows()[name]
        )
        lines += [
            ".. list-table:: A whole run, on data held out",
            "   :stub-columns: 1",
            "   :widths: 15 85",
            "",
            f"   * - baseline\n     - {baseline}",
            f"   * - result\n     - {result}",
            f"   * - time\n     - {time}",
            "",
        ]
    for kind, what in KINDS.items():
        file = f"{name}{kind}.png"
        if (DOCS / "pictures" / file).is_file():
            lines.append(FIGURE.format(file=file, what=what, name=name))
    return "\n".join(lines)


def _add(app, docname, source):
    """The event source-read: the section goes before the program's code."""
    folder, _, name = docname.rpartition("/")
    if folder == "gallery" and name != "index":
        code = source[0].index(".. GENERATED FROM PYTHON SOURCE LINES", 1)
        first = source[0].index(".. code-block:: Python", code)
        source[0] = f"{source[0][:first]}{section(name)}\n\n{source[0][first:]}"


def setup(app):
    app.connect("source-read", _add)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
