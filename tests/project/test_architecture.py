# SPDX-License-Identifier: BSD-3-Clause
"""The package is a house of rooms: none imports from above, and none its face."""

import ast
from pathlib import Path

import floors
import pytest

import fastrnn

PACKAGE = Path(fastrnn.__file__).parent
HEIGHTS = floors.floors()
ROOMS = [path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()]


def test_every_room_has_a_floor():
    assert set(ROOMS) < set(HEIGHTS)
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert files | set(ROOMS) == set(HEIGHTS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_from_below_alone(room):
    """In Python all imports count, those inside functions, too."""
    wrong = {}
    for file in (PACKAGE / room).rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        statements = [
            ast.unparse(node)
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        found = floors.wrong_imports(room, "\n".join(statements), HEIGHTS)
        if found:
            wrong[file.name] = found
    assert wrong == {}


def test_files_that_import_linter_does_not_read():
    assert floors.main() is False


@pytest.mark.parametrize("face", sorted(PACKAGE.rglob("__init__.py")))
def test_no_name_hides_a_module(face):
    """What a package has under the name of one of its files is that file."""
    package = ".".join(("fastrnn", *face.parent.relative_to(PACKAGE).parts))
    files = {path.stem for path in face.parent.iterdir() if path != face}
    hidden = []
    for node in ast.parse(face.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module != package:
            hidden += [(a.asname or a.name) for a in node.names]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            hidden.append(node.name)
        elif isinstance(node, ast.Assign):
            hidden += [ast.unparse(target) for target in node.targets]
    assert files.isdisjoint(hidden)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("from fastrnn.nn import module", None),
        ("from fastrnn.recurrent.layer cimport x", None),
        ("from fastrnn.train.model import Model", "not below"),
        ("cimport fastrnn.text.cli", "not below"),
        ("from fastrnn import LSTM", "the face"),
        ("import fastrnn", "the face"),
        ("def f():\n    from fastrnn.nn import module", "inside a function"),
    ],
)
def test_what_is_wrong_is_seen(source, problem):
    found = floors.wrong_imports("recurrent", source, HEIGHTS)
    assert [problem in one for one in found] == ([] if problem is None else [True])
