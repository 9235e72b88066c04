# SPDX-License-Identifier: BSD-3-Clause
"""Docstring examples of fastrnn.keras and fastrnn.onnx, which need their packages."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import fastrnn
import fastrnn.keras
import fastrnn.onnx

MODULES = [
    (need, f"{package.__name__}.{found.name}")
    for need, package in (("h5py", fastrnn.keras), ("onnx", fastrnn.onnx))
    for found in pkgutil.iter_modules(package.__path__)
]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.mark.parametrize(("need", "name"), MODULES, ids=[name for _, name in MODULES])
def test_docstring_examples(need, name, tmp_path, monkeypatch):
    pytest.importorskip(need, reason=f"{need} is not installed")
    monkeypatch.chdir(tmp_path)  # examples may write files
    module = importlib.import_module(name)
    names = {"np": np, "fastrnn": fastrnn}
    assert doctest.testmod(module, extraglobs=names, optionflags=FLAGS).failed == 0


@pytest.mark.parametrize("name", ["keras", "onnx"])
def test_everything_public_is_documented(name):
    package = getattr(fastrnn, name)
    for public in package.__all__:
        assert getattr(package, public).__doc__, public
