# SPDX-License-Identifier: BSD-3-Clause
"""Files of older versions load, and give what they gave: see older_models.py.

Tokens, tags and labels are the same.  Numbers are close: newer kernels add in another
order and have other sigmoids, so that their bits are not those of the version that
wrote the files.
"""

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
# A rounding error is 6e-8; a dozen steps, and four epochs, leave some of them.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.mark.parametrize("name", SAMPLES)
def test_models(name):
    model = fastrnn.load_model(OLDER / f"{name}.safetensors")
    found = answer(model.predict(SAMPLES[name]))
    if name in ("cells", "options"):
        np.testing.assert_allclose(found, ANSWERS[name], **CLOSE)
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
    np.testing.assert_allclose(model.flat_parameters, ANSWERS["run"], **CLOSE)


def test_parameters_of_a_layer():
    layer = fastrnn.LSTM(3, 4, 2)
    layer.load(OLDER / "layer.safetensors")
    np.testing.assert_allclose(layer.eval()(X)[0], ANSWERS["layer"], **CLOSE)
