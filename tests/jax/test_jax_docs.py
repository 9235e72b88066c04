# SPDX-License-Identifier: BSD-3-Clause
"""The examples in the docstrings of fastrnn.jax."""

import doctest
import importlib
import pkgutil

import pytest

pytest.importorskip("jax", reason="JAX is not installed")

import fastrnn.jax

MODULES = [
    fastrnn.jax.__name__,
    *(
        f"fastrnn.jax.{module.name}"
        for module in pkgutil.iter_modules(fastrnn.jax.__path__)
    ),
]
# What a module needs beyond JAX.
NEEDS = {"fastrnn.jax._nnx": "flax"}


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]} is not installed")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", fastrnn.jax.__all__)
def test_everything_public_is_documented(name):
    assert getattr(fastrnn.jax, name).__doc__
