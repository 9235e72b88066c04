# SPDX-License-Identifier: BSD-3-Clause
"""Which cases of the suite run: a choice by default, the whole grid, the peers' tests.

Many tests are multiplied by instruction set, type, threads, shape and options. A fault
hardly ever needs three of these at once, so the default run has, of each test, few
cases in which every two values of two parameters meet. ``--grid`` runs all cases. The
mark ``whole_grid`` keeps all cases of a test in every run, and ``only_grid`` keeps what
takes minutes to runs with ``--grid`` or by name.

Tests that need another library, a peer, ask for it by ``pytest.importorskip`` and are
skipped where it is missing. ``--peers`` runs these tests alone, and there a missing
peer is an error.
"""

import ast
import functools
import importlib

import pytest
from covering import covering

# What the extras torch, keras-tests, onnx-export, data, typing and build-tests of
# pyproject.toml install.
PEERS = {
    *("torch", "keras", "h5py", "onnx", "onnxscript", "onnxruntime"),
    *("sklearn", "pandas", "matplotlib", "mypy", "basedpyright", "Cython"),
}


def pytest_addoption(parser):
    group = parser.getgroup("fastrnn")
    group.addoption(
        "--grid",
        action="store_true",
        help="run every case of every test, not a choice in which all pairs meet",
    )
    group.addoption(
        "--peers",
        action="store_true",
        help="run only tests that need PyTorch, Keras, ONNX, scikit-learn, pandas or "
        "matplotlib, and fail where one of these is missing",
    )


@pytest.hookimpl(trylast=True)  # after -k, -m and node ids: what they name is kept
def pytest_collection_modifyitems(config, items):
    if config.option.peers:
        _keep(config, items, [item for item in items if needs_peer(item)])
    if not config.option.grid:
        among = len(items)
        _keep(config, items, chosen(items, _asked_for(config)))
        config.stash[_CHOICE] = f"{len(items)} of {among} cases, in which every pair"


def pytest_report_collectionfinish(config):
    choice = config.stash.get(_CHOICE, None)
    return [f"grid: {choice} of values meets; --grid runs all"] if choice else []


_CHOICE = pytest.StashKey[str]()


def _keep(config, items, kept):
    left_out = set(items) - set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = kept


# --- the choice of cases ---------------------------------------------------------


def chosen(items, asked_for=frozenset()):
    """The items of a run without ``--grid``, in their order.

    Parameters
    ----------
    items : list of pytest.Item
    asked_for : set of str
        Names of items, such as ``"test_step[adam-2thr]"``, that stay in any case.

    Returns
    -------
    list of pytest.Item
    """
    grids = {}
    for item in items:
        marked = item.get_closest_marker("whole_grid")
        marked = marked or item.get_closest_marker("only_grid")
        if hasattr(item, "callspec") and not marked:
            test = item.parent.nodeid, item.originalname
            grids.setdefault(test, []).append(item)
    left_out = {
        item
        for item in items
        if item.get_closest_marker("only_grid") and item.name not in asked_for
    }
    for cases in grids.values():
        rows = _rows(cases)
        kept = set(covering(rows, strength=2))
        left_out.update(
            case
            for k, case in enumerate(cases)
            if k not in kept and case.name not in asked_for
        )
    return [item for item in items if item not in left_out]


def _rows(cases):
    """The parameters of each case, as a number for each that varies.

    What one ``parametrize`` sets together is one parameter, as is each fixture.
    """
    together = []
    for mark in cases[0].iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        if isinstance(names, str):
            names = [name.strip() for name in names.split(",")]
        together.append(tuple(names))
    alone = set(cases[0].callspec.params) - {n for names in together for n in names}
    columns = []
    for names in [*together, *[(name,) for name in sorted(alone)]]:
        # By identity: all cases share the objects that were listed once.
        values = [tuple([id(case.callspec.params[n]) for n in names]) for case in cases]
        number = {value: k for k, value in enumerate(dict.fromkeys(values))}
        if len(number) > 1:
            columns.append([number[value] for value in values])
    return list(zip(*columns, strict=True)) or [()] * len(cases)


def _asked_for(config):
    """Names of tests given on the command line as ``file::test``."""
    return {arg.rpartition("::")[2] for arg in config.args if "::" in arg}


# --- tests that need a peer ------------------------------------------------------


def needs_peer(item):
    """Whether a test, or a fixture that it takes, calls ``pytest.importorskip``."""
    if item.path.suffix != ".py":
        return False
    asks = _asks_for_peer(item.path)
    of_fixtures = asks.union(
        *(
            _asks_for_peer(conftest)
            for folder in item.path.parents
            if (conftest := folder / "conftest.py").is_file()
        )
    )
    name = getattr(item, "originalname", item.name)
    fixtures = getattr(item, "fixturenames", ())
    return "" in asks or name in asks or not of_fixtures.isdisjoint(fixtures)


@functools.cache
def _asks_for_peer(path):
    """Functions of a file that call ``pytest.importorskip``; "" for the file itself.

    A function that names such a function, or takes it as a fixture, is one, too.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    uses = {"": set()}
    for node in tree.body:
        _collect_uses(node, "", uses)
    asks = {name for name, used in uses.items() if "importorskip" in used}
    while more := {name for name, used in uses.items() if used & asks} - asks:
        asks |= more
    return frozenset(asks)


def _collect_uses(node, inside, uses):
    """Add the names that a statement uses to those of the function that it is in."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        inside = inside or node.name
        uses.setdefault(inside, set()).update(arg.arg for arg in node.args.args)
    elif isinstance(node, ast.Name):
        uses[inside].add(node.id)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        uses[inside].add(node.func.attr)
    for child in ast.iter_child_nodes(node):
        _collect_uses(child, inside, uses)


def import_peer(name, *arguments, **options):
    """What `pytest.importorskip` is with ``--peers``: a missing peer is an error.

    Other packages, such as those with the data of some examples, may be missing.
    """
    if name.partition(".")[0] in PEERS:
        return importlib.import_module(name)
    return _importorskip(name, *arguments, **options)


_importorskip = pytest.importorskip


def set_up(config):
    """Say what the mark means, and let no peer be missing where --peers was given."""
    config.addinivalue_line(
        "markers", "whole_grid: every case in every run, also without --grid"
    )
    config.addinivalue_line(
        "markers", "only_grid: takes minutes, so only with --grid or by name"
    )
    if config.option.peers:
        pytest.importorskip = import_peer


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that is skipped for want of a peer has to be one that --peers runs."""
    report = yield
    if _lacked_a_peer(call.excinfo) and not needs_peer(item):
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} was skipped for want of a peer, and --peers does not find "
            "it: call pytest.importorskip in the test, its file or a fixture"
        )
    return report


def _lacked_a_peer(excinfo):
    """Whether what ended a test is `pytest.importorskip`, which found nothing."""
    if excinfo is None or not excinfo.errisinstance(pytest.skip.Exception):
        return False
    return excinfo.traceback[-1].name == "importorskip"
