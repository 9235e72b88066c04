# SPDX-License-Identifier: BSD-3-Clause
"""Subnormal numbers, infinities and NaN in whole layers, as docs/numerics.md says."""

import numpy as np
import pytest
from cells import CELLS, Case, data, run_backward, run_forward

import fastrnn


def test_subnormal_numbers_are_flushed_to_zero(isa, dtype):
    """A layer that gives back its input gives 0 for a subnormal, and keeps the rest."""
    layer = fastrnn.RNN(1, 1, nonlinearity="relu", bias=False, dtype=dtype).eval()
    layer.parameters["weight_ih_l0"][...] = 1
    layer.parameters["weight_hh_l0"][...] = 0
    info = np.finfo(dtype)
    x = np.array([info.tiny, info.tiny / 2, info.smallest_subnormal, 1], dtype)
    assert (x > 0).all()
    y, _ = layer(x[:, None, None])
    np.testing.assert_array_equal(y.ravel(), [x[0], 0, 0, 1])


@pytest.mark.parametrize("cell", CELLS)
def test_a_nan_of_one_row_reaches_no_other_row(isa, dtype, cell):
    """Forward and backward; gradients of parameters are sums over all rows."""
    case = Case(cell, T=5, B=3, I=4, H=9)
    d, results = data(case), []
    for bad in (False, True):
        layer = case.layer(dtype)
        x = d.x.astype(dtype)
        if bad:
            x[2, 1] = np.nan
        y = run_forward(layer, x, d.state(dtype))["y"]
        gradients = run_backward(layer, d.dy.astype(dtype), d.d_state(dtype))
        results.append((y, gradients))
    (y, clean), (y_bad, spoilt) = results
    np.testing.assert_array_equal(np.isnan(y_bad).any(axis=2).T[1], [0, 0, 1, 1, 1])
    for b in (0, 2):
        np.testing.assert_array_equal(y_bad[:, b], y[:, b])
        np.testing.assert_array_equal(spoilt["x"][:, b], clean["x"][:, b])
    assert np.isnan(spoilt["weight_ih_l0"]).any()


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_gates_saturate_at_infinity(isa, dtype, kind):
    """An infinite input drives gates to their limits, and the states stay finite."""
    layer = getattr(fastrnn, kind)(1, 5, seed=0, dtype=dtype).eval()
    for value in (np.inf, -np.inf):
        y, _ = layer(np.full((3, 2, 1), value, dtype))
        assert np.isfinite(y).all()
        assert (abs(y) <= 1).all()
