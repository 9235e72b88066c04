# SPDX-License-Identifier: BSD-3-Clause
"""What is found by looking: help(), completion, signatures; and what import costs.

These programs run where no optional package can be imported.
"""

import importlib
import inspect
import typing

import pytest
import without

import fastrnn

FACES = ("callbacks", "init", "metrics", "objectives", "schedules")
# The rooms that another package is for, and what there must be to import them.
ROOMS = {
    "jax": "jax",
    "keras": None,
    "onnx": None,
    "sklearn": "sklearn",
    "torch": "torch",
}


def test_help_shows_the_package():
    found = without.run("import fastrnn; help(fastrnn)")
    for wanted in ("class LSTM(", "class Sequential(", "clip_grad_norm_(", "PACKAGE"):
        assert wanted in found
    assert "fastrnn.sklearn needs" not in found


def test_pydoc_shows_the_package():
    found = without.run(
        "import runpy\n"
        "sys.argv = ['pydoc', 'fastrnn']\n"
        "runpy.run_module('pydoc', run_name='__main__')"
    )
    assert "class LSTM(" in found


def test_completion_finds_all_names():
    program = """
import fastrnn, rlcompleter
complete = rlcompleter.Completer({"fastrnn": fastrnn}).complete
found, state = set(), 0
while (match := complete("fastrnn.", state)) is not None:
    found.add(match.partition(".")[2].partition("(")[0])
    state += 1
print(*found)
"""
    found = set(without.run(program).split())
    assert {*fastrnn.__all__, *ROOMS} <= found


def test_rooms_whose_packages_are_missing():
    program = """
import fastrnn, inspect
names = [name for name, _ in inspect.getmembers(fastrnn)]
print("LSTM" in names, *[hasattr(fastrnn, room) for room in {rooms}])
""".replace("{rooms}", repr(tuple(ROOMS)))
    has = [package is None for package in ROOMS.values()]
    assert without.run(program).split() == [str(one) for one in (True, *has)]


@pytest.mark.parametrize("room", [room for room, needs in ROOMS.items() if needs])
def test_errors_say_what_to_install(room):
    program = """
import fastrnn
for statement in (
    "fastrnn.{room}", "import fastrnn.{room}", "from fastrnn import {room}"
):
    try:
        exec(statement)
    except (AttributeError, ImportError) as error:
        print(type(error).__name__, error)
""".replace("{room}", room)
    lines = without.run(program).splitlines()
    kinds = [line.partition(" ")[0] for line in lines]
    assert kinds == ["AttributeError", "ModuleNotFoundError", "ModuleNotFoundError"]
    for line in lines:
        assert f"fastrnn.{room} needs " in line
        assert "pip install 'fastrnn[" in line


def test_an_import_that_fails_in_another_way_is_told(tmp_path):
    """A PyTorch that is there and cannot be loaded is not called missing."""
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so is damaged')")
    program = f"""
sys.path.insert(0, {str(tmp_path)!r})
import fastrnn
try:
    fastrnn.torch
except AttributeError as error:
    print(error, "|", type(error.__cause__).__name__)
"""
    found = without.run(program, packages=())
    assert found == (
        "fastrnn.torch cannot be used: libtorch.so is damaged | ImportError\n"
    )


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'L'"):
        _ = fastrnn.L
    assert not hasattr(fastrnn, "LTSM")


def test_import_brings_nothing_that_few_runs_need():
    program = """
import numpy
before = set(sys.modules)
import fastrnn
print(*(set(sys.modules) - before))
"""
    new = set(without.run(program, packages=()).split())
    packages = {name.partition(".")[0] for name in new}
    late = {"asyncio", "decimal", "difflib", "email", "logging", "pathlib", "shutil"}
    late |= {"tqdm", "jax", "torch", "sklearn", "onnx", "h5py", "pandas", "matplotlib"}
    assert packages.isdisjoint(late)
    assert new.isdisjoint(
        {"importlib.metadata", "numpy.random", "fastrnn.util.keras_words"}
    )
    # 22 on Python 3.11; there were 115 while tqdm was imported with the package.
    assert len([name for name in new if not name.startswith("fastrnn")]) < 50


# -- signatures ------------------------------------------------------------------------


def public_functions(module):
    """Name and function of all that is public in a module, methods included."""
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isfunction(thing):
            yield name, thing
        if inspect.isclass(thing):
            for cls in thing.__mro__:
                if cls.__module__.startswith("fastrnn"):
                    yield from methods(cls)


def methods(cls):
    shown = {"__init__", "__call__", "__len__", "__iter__", "__getitem__"}
    for name, member in vars(cls).items():
        if name.startswith("_") and name not in shown:
            continue
        if isinstance(member, property):
            member = member.fget
        elif isinstance(member, classmethod | staticmethod):
            member = member.__func__
        if inspect.isfunction(member) and "namedtuple" not in member.__module__:
            yield f"{cls.__name__}.{name}", inspect.unwrap(member)


@pytest.mark.parametrize("name", ["", *FACES, *ROOMS])
def test_public_functions_are_annotated(name):
    if ROOMS.get(name):
        pytest.importorskip(ROOMS[name], reason=f"{ROOMS[name]} is not installed")
    module = importlib.import_module(f"fastrnn.{name}" if name else "fastrnn")
    without_types = {}
    for where, function in public_functions(module):
        signature = inspect.signature(function)
        wanted = [*signature.parameters.values()][1 if "." in where else 0 :]
        missing = [p.name for p in wanted if p.annotation is p.empty]
        if signature.return_annotation is signature.empty:
            missing.append("return")
        if missing:
            without_types[where] = missing
        typing.get_type_hints(function)  # every name in them is known
    assert without_types == {}


def test_classes_show_the_arguments_of_their_constructors():
    """What help() and editors show; a `__new__` of ours must not stand before it."""
    shown = list(inspect.signature(fastrnn.LSTM).parameters)
    assert shown[:3] == ["input_size", "hidden_size", "num_layers"]
    assert list(inspect.signature(fastrnn.ReLU).parameters) == []


@pytest.mark.parametrize("name", fastrnn.__all__)
def test_calls_of_layers_have_the_types_of_their_forward(name):
    cls = getattr(fastrnn, name)
    if inspect.isclass(cls) and issubclass(cls, fastrnn.Module):
        own = next(c for c in cls.__mro__ if "forward" in vars(c))
        assert "__call__ = forward" in inspect.getsource(own)
