# SPDX-License-Identifier: BSD-3-Clause
"""The examples in the docstrings of fastrnn.torch."""

import doctest
import importlib
import pkgutil

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

import fastrnn.torch

MODULES = [
    fastrnn.torch.__name__,
    *(
        f"fastrnn.torch.{module.name}"
        for module in pkgutil.iter_modules(fastrnn.torch.__path__)
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", fastrnn.torch.__all__)
def test_everything_public_is_documented(name):
    assert getattr(fastrnn.torch, name).__doc__
