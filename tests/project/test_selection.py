# SPDX-License-Identifier: BSD-3-Clause
"""What runs by default, with --grid and with --peers, and on a bare machine."""

import doctest
import itertools
from pathlib import Path

import covering
import imports
import pytest
import selection

pytest_plugins = ["pytester"]
TESTS = Path(__file__).parents[1]


def test_nothing_is_imported_that_a_bare_machine_lacks():
    """A test module asks pytest.importorskip before it, or a helper, imports a peer."""
    files = [*TESTS.rglob("test_*.py"), *TESTS.rglob("conftest.py")]
    assert len(files) > 50
    lacking = {file.name: imports.needed(file) for file in files}
    assert {name: packages for name, packages in lacking.items() if packages} == {}


@pytest.mark.parametrize(
    ("source", "lacking"),
    [
        ("import torch", {"torch"}),
        ("from torch.nn import LSTM", {"torch"}),
        ("import json, numpy, pytest", set()),
        ("pytest.importorskip('torch')\nimport torch", set()),
        ("import torch\npytest.importorskip('torch')", {"torch"}),
        ("if True:\n    import pandas", {"pandas"}),
        ("class A:\n    import pandas", {"pandas"}),
        ("def test():\n    import pandas", set()),
        ("try:\n    import pandas\nexcept ImportError:\n    pandas = None", set()),
        ("import helper", {"onnx"}),
        ("pytest.importorskip('onnx')\nimport helper", set()),
        ("import fastrnn.torch", {"torch"}),
        ("from fastrnn import torch", {"torch"}),
    ],
)
def test_peers_of_a_file(tmp_path, source, lacking):
    (tmp_path / "helper.py").write_text("import package.part")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "part.py").write_text("from onnx import helper")
    file = tmp_path / "test_it.py"
    file.write_text(source)
    assert imports.needed(file, (*imports.ROOTS, tmp_path)) == lacking


# --- the choice of cases ---------------------------------------------------------


def test_every_pair_meets_in_few_rows():
    sizes = [3, 2, 4, 3, 2]
    rows = list(itertools.product(*map(range, sizes)))
    chosen = [rows[k] for k in covering.covering(rows)]
    for i, j in itertools.combinations(range(len(sizes)), 2):
        pairs = set(itertools.product(range(sizes[i]), range(sizes[j])))
        assert {(row[i], row[j]) for row in chosen} == pairs
    assert len(chosen) <= 15  # 4 * 3 are needed, of 144
    assert doctest.testmod(covering) == (0, 2)


def test_only_pairs_that_exist_have_to_meet():
    rows = [row for row in itertools.product(range(3), repeat=3) if sum(row) < 4]
    chosen = [rows[k] for k in covering.covering(rows)]
    for i, j in itertools.combinations(range(3), 2):
        assert {(r[i], r[j]) for r in chosen} == {(r[i], r[j]) for r in rows}


SUITE = """
    import pytest

    @pytest.fixture(params=["x86", "arm"])
    def isa(request):
        return request.param

    @pytest.mark.parametrize("size", [1, 2, 3])
    @pytest.mark.parametrize(("T", "B"), [(1, 1), (1, 2), (2, 1)])
    def test_grid(isa, size, T, B):
        pass

    @pytest.mark.whole_grid
    @pytest.mark.parametrize("size", [1, 2, 3])
    @pytest.mark.parametrize("n", [1, 2])
    def test_whole(isa, size, n):
        pass

    def test_plain():
        pass

    @pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.only_grid)])
    def test_long(n):
        pass
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    """A small suite with this suite's hooks, in a folder of its own."""
    monkeypatch.syspath_prepend(TESTS / "support")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a second each
    monkeypatch.setattr(pytest, "importorskip", pytest.importorskip)  # put back
    pytester.makeconftest(
        """
        import selection
        from selection import *

        def pytest_configure(config):
            selection.set_up(config)
        """
    )
    return pytester


def names(pytester, *arguments):
    """The tests that a run collects."""
    result = pytester.runpytest_inprocess("--collect-only", "-q", *arguments)
    return [line.partition("::")[2] for line in result.outlines if "::" in line]


def test_default_grid_and_cases_by_name(suite):
    suite.makepyfile(test_it=SUITE)
    default = names(suite)
    grid = [name for name in default if name.startswith("test_grid")]
    assert len(grid) == 9  # of 18: sizes by (T, B), each on one of the targets
    assert len([name for name in default if name.startswith("test_whole")]) == 12
    assert {"test_plain", "test_long[1]"} < set(default)
    everything = names(suite, "--grid")
    assert len(everything) == 18 + 12 + 1 + 2
    assert set(default) < set(everything)
    # What is asked for runs, whether the default has it or not.
    several = [name for name in everything if name.startswith("test_grid")]
    assert names(suite, *[f"test_it.py::{name}" for name in several]) == several
    assert names(suite, "test_it.py::test_long[2]") == ["test_long[2]"]
    left_out = next(name for name in several if name not in default)
    case = left_out.partition("[")[2].rstrip("]")
    assert names(suite, "-k", f"test_grid and {case}") == [left_out]
    suite.runpytest_inprocess("test_it.py").assert_outcomes(passed=23, deselected=10)


PEERS = """
    import pytest

    @pytest.fixture
    def peer():
        return pytest.importorskip("no_peer", reason="it is not installed")

    def helper():
        pytest.importorskip("no_peer", reason="it is not installed")

    def test_by_itself():
        pytest.importorskip("no_peer", reason="it is not installed")

    def test_by_a_fixture(peer):
        pass

    def test_by_a_helper():
        helper()

    class TestInAClass:
        def test_method(self):
            helper()

    def test_without():
        pass
"""


def test_peers_are_found_and_have_to_be_there(suite, monkeypatch):
    suite.makepyfile(test_it=PEERS)
    suite.runpytest_inprocess().assert_outcomes(skipped=4, passed=1)
    assert names(suite, "--peers") == [
        "test_by_itself",
        "test_by_a_fixture",
        "test_by_a_helper",
        "TestInAClass::test_method",
    ]
    suite.runpytest_inprocess("--peers").assert_outcomes(skipped=4, deselected=1)
    monkeypatch.setattr(selection, "PEERS", {"no_peer"})
    result = suite.runpytest_inprocess("--peers")
    result.assert_outcomes(failed=3, errors=1, deselected=1)


def test_a_file_that_asks_is_all_peers(suite):
    suite.makepyfile(
        test_it="""
        import pytest
        pytest.importorskip("json")

        def test_one():
            pass
        """
    )
    assert names(suite, "--peers") == ["test_one"]


def test_a_skip_that_peers_would_miss_fails(suite):
    suite.makepyfile(
        hidden="""
        import pytest

        def skip():
            pytest.importorskip("no_peer", reason="it is not installed")
        """,
        test_it="""
        import hidden

        def test_one():
            hidden.skip()
        """,
    )
    result = suite.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*was skipped for want of a peer*"])
