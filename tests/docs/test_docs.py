# SPDX-License-Identifier: BSD-3-Clause
"""What is written is true: docstring examples, the README's Python, _core's stub."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import compiled
import keras_page
import numpy as np
import pytest

import fastrnn

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = Path(fastrnn.__file__).parent
MODULES = [
    "fastrnn",
    *(
        found.name
        for found in pkgutil.walk_packages([str(PACKAGE)], "fastrnn.")
        # Importing __main__ runs the command line; tests/torch has fastrnn.torch,
        # tests/jax fastrnn.jax, and tests/keras fastrnn.keras.drop_in.
        if not found.ispkg
        and found.name != "fastrnn.__main__"
        and not found.name.startswith(
            ("fastrnn.jax", "fastrnn.torch", "fastrnn.keras.drop_in")
        )
    ),
]
# What a module needs of optional packages.
NEEDS = {"fastrnn.sklearn": "sklearn", "fastrnn.onnx": "onnx"}
README = (PROJECT / "README.md").read_text(encoding="utf-8")
# What every example may take as imported, as in NumPy's and SciPy's docstrings.
NAMES = {"np": np, "fastrnn": fastrnn}
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # examples may write files
    for package, needed in NEEDS.items():
        if name.startswith(package):
            pytest.importorskip(needed, reason=f"{needed} is not installed")
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs=NAMES, optionflags=FLAGS)
    assert result.failed == 0


@pytest.mark.parametrize("name", fastrnn.__all__)
def test_everything_public_is_documented(name):
    thing = getattr(fastrnn, name)
    if not inspect.isclass(thing) and not callable(thing):
        return
    text = inspect.getdoc(thing)
    assert text, f"fastrnn.{name} has no docstring"
    assert ">>>" in text, f"the docstring of fastrnn.{name} has no example"


def test_readme_python_runs(tmp_path, monkeypatch, capsys):
    """All ```python blocks in order, as one program: later ones use earlier ones."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert blocks
    namespace = {"__name__": "readme"}
    for k, block in enumerate(blocks):
        if ">>>" in block:
            test = doctest.DocTestParser().get_doctest(
                block, namespace, f"README block {k}", "README.md", 0
            )
            runner = doctest.DocTestRunner(optionflags=FLAGS)
            runner.run(test, clear_globs=False)
            assert runner.failures == 0, capsys.readouterr().out
            namespace = test.globs
        else:
            exec(compile(block, f"README block {k}", "exec"), namespace)


def stub(module):
    """Names at the top of a module's stub, and those of each class's members."""
    path = PACKAGE / "native" / f"{module.__name__.rpartition('.')[2]}.pyi"
    tree = ast.parse(path.read_text(encoding="utf-8"))

    def names(body):
        found = {}
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = node
            elif isinstance(node, ast.AnnAssign):
                found[node.target.id] = node
        return found

    top = names(tree.body)
    classes = {n: names(d.body) for n, d in top.items() if isinstance(d, ast.ClassDef)}
    return top, classes


def public(thing):
    """Public names that `thing` itself defines (imported modules are not)."""
    return {
        name
        for name in vars(thing)
        if not name.startswith("_") and not inspect.ismodule(getattr(thing, name))
    }


@pytest.mark.parametrize("module", compiled.MODULES, ids=lambda module: module.__name__)
def test_a_stub_names_what_its_module_has(module):
    top, classes = stub(module)
    assert {name for name in top if not name.startswith("_")} == public(module)
    for name, members in classes.items():
        cls = getattr(module, name)
        assert {m for m in members if not m.startswith("_")} == public(cls), name


@pytest.mark.parametrize("module", compiled.MODULES, ids=lambda module: module.__name__)
def test_a_stub_has_the_arguments_that_its_module_has(module):
    _, classes = stub(module)
    for class_name, members in classes.items():
        for name, node in members.items():
            if not isinstance(node, ast.FunctionDef) or name.startswith("_"):
                continue
            method = getattr(getattr(module, class_name), name)
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            have = list(inspect.signature(method).parameters)
            assert [a.arg for a in arguments] == have, f"{class_name}.{name}"


def test_the_page_for_readers_of_keras_has_the_table():
    """`python tests/support/keras_page.py` brings it up to date."""
    text = keras_page.PAGE.read_text(encoding="utf-8")
    assert keras_page.with_tables(text) == text
    assert "| `Embedding` | `input_dim` | the same: `num_embeddings` |" in text
    block = re.search(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1]
    namespace = {}
    exec(compile(block, keras_page.PAGE.name, "exec"), namespace)
    assert namespace["model"](np.zeros((2, 60, 1))).shape == (2, 1)
    assert "(COMING_FROM_KERAS.md)" in README
