# SPDX-License-Identifier: BSD-3-Clause
"""The examples in the docstrings of what `fastrnn.keras` has of Keras's own layers."""

import doctest
import importlib

import numpy as np
import pytest

import fastrnn
import fastrnn.keras

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")


@pytest.mark.parametrize(
    "name", ["layers", "_accelerate", "_explain", "paths", "forms"]
)
def test_docstring_examples(keras, name):
    if keras.backend.backend() != "torch":
        pytest.skip("the examples print the backend that they ran on")
    module = importlib.import_module(f"fastrnn.keras.drop_in.{name}")
    names = {"np": np, "fastrnn": fastrnn}
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testmod(module, extraglobs=names, optionflags=flags).failed == 0


@pytest.mark.parametrize("name", fastrnn.keras._DROP_IN)
def test_everything_public_is_documented(keras, name):
    assert ">>>" in getattr(fastrnn.keras, name).__doc__
    assert name in dir(fastrnn.keras)
