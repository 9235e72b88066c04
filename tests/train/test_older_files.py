# SPDX-License-Identifier: BSD-3-Clause
"""Files of older versions load, and give what they gave: see older_models.py."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from older_models import TOKENS, X, answer

import fastrnn

OLDER = Path(__file__).parents[1] / "support" / "older"
ANSWERS = safetensors.numpy.load_file(OLDER / "answers.safetensors")
SAMPLES = {
    "cells": X,
    "options": X,
    "tagger": TOKENS,
    "writer": TOKENS[:, :2],
    "translator": TOKENS,
}
# Only fused multiply-adds give the bits that the files were made with.
pytestmark = pytest.mark.skipif(
    fastrnn.native.core.active_target() == "baseline", reason="its bits are its own"
)


@pytest.mark.parametrize("name", SAMPLES)
def test_models(name):
    model = fastrnn.load_model(OLDER / f"{name}.safetensors")
    found = answer(model.predict(SAMPLES[name]))
    if name == "cells":  # NumPy computes its LayerNorm, and may round in another way
        np.testing.assert_allclose(found, ANSWERS[name], rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(found, ANSWERS[name])


def test_a_run_goes_on(tmp_path):
    path = OLDER / "run.safetensors"
    model = fastrnn.load_model(path)
    keep = fastrnn.callbacks.ModelCheckpoint(tmp_path / "model", "loss")
    model.fit(
        X, X[:, :, :1], epochs=4, batch_size=4, verbose=0, callbacks=[keep],
        resume=path,
    )  # fmt: skip
    # Gradients were summed in another order, and have other last digits.
    np.testing.assert_allclose(
        model.flat_parameters, ANSWERS["run"], rtol=1e-5, atol=1e-6
    )


def test_parameters_of_a_layer():
    layer = fastrnn.LSTM(3, 4, 2)
    layer.load(OLDER / "layer.safetensors")
    np.testing.assert_array_equal(layer.eval()(X)[0], ANSWERS["layer"])
