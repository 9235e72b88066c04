# SPDX-License-Identifier: BSD-3-Clause
"""docs/numerics.md: every test that a promise stands on exists."""

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs" / "numerics.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)+)`", PAGE)))
SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]


def found(node, names):
    """Whether a module or class has this function, or this class and so on."""
    for child in ast.iter_child_nodes(node):
        if (
            isinstance(child, ast.FunctionDef | ast.ClassDef)
            and child.name == names[0]
            and (len(names) == 1 or found(child, names[1:]))
        ):
            return True
    return False


@pytest.mark.parametrize("named", NAMED)
def test_a_named_test_exists(named):
    path, *names = named.split("::")
    tree = ast.parse((PROJECT / path).read_text(encoding="utf-8"))
    assert found(tree, names), named
    assert names[-1].startswith("test_")


def test_a_test_that_does_not_exist_is_not_found():
    tree = ast.parse("class A:\n    def test_x(self): ...\n")
    assert found(tree, ["A", "test_x"])
    assert not found(tree, ["test_x"])
    assert not found(tree, ["A", "test_y"])


@pytest.mark.parametrize("section", SECTIONS, ids=lambda text: text.splitlines()[0])
def test_every_section_names_tests(section):
    assert "::test_" in section


def test_no_reference_is_written_in_another_way():
    """A path of the tests, with or without a name, is one that the tests above see."""
    for path in re.findall(r"`(tests/[^`]*)`", PAGE):
        assert path in NAMED or (PROJECT / path).is_file(), path
