# SPDX-License-Identifier: BSD-3-Clause
"""The order in which a pre-activation is summed, as csrc/README.md promises it.

In float32 the bias 2^24 swallows each 1 that is added to it, and keeps a 2.  So the sum
of the bias and of ones tells whether the ones were added to each other before.
"""

import numpy as np
import pytest

import fastrnn

BIG = np.float32(2**24)
# Layers whose h_t is the pre-activation of one gate, where that is positive: the other
# gates, by their biases, are exactly 0 or 1.  The gate, and the biases of the others.
LAYERS = {
    "RNN": (lambda: fastrnn.RNN(2, 2, nonlinearity="relu"), 0, {}),
    "LSTM": (
        lambda: fastrnn.LSTM(2, 2, activation="relu"),
        2,
        {0: 200.0, 1: -200.0, 3: 200.0},
    ),
    "GRU": (lambda: fastrnn.GRU(2, 2, activation="relu"), 2, {0: 200.0, 1: -200.0}),
    "MGU": (lambda: fastrnn.MGU(2, 2, activation="relu"), 1, {0: 200.0}),
    "LiGRU": (lambda: fastrnn.LiGRU(2, 2), 0, {1: -200.0}),
}


def pre_activation(name, bias, x_weight, h_weight, batch):
    """Of x = 1, and h0 = 1 if it counts; a batch of one has its x W hoisted."""
    make, gate, others = LAYERS[name]
    layer = make().eval()
    p = layer.parameters
    for array in p.values():
        array[...] = 0
    for g, value in others.items():
        p["bias_ih_l0"][2 * g : 2 * g + 2] = value
    rows = slice(2 * gate, 2 * gate + 2)
    p["bias_ih_l0"][rows] = bias
    p["weight_ih_l0"][rows] = x_weight
    p["weight_hh_l0"][rows] = h_weight
    ones = np.ones((1, batch, 2), np.float32)
    h0 = ones if h_weight else np.zeros_like(ones)
    y = layer(ones, (h0, np.zeros_like(ones)) if name == "LSTM" else h0)[0]
    assert (y == y[0, 0, 0]).all()
    return y[0, 0, 0]


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("name", LAYERS)
def test_the_bias_comes_first(isa, name, batch):
    assert pre_activation(name, BIG, 1, 0, batch) == BIG
    assert pre_activation(name, BIG, 2, 0, batch) == BIG + 4


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "LiGRU"])
def test_one_sum_of_bias_x_and_h(isa, name, batch):
    assert pre_activation(name, BIG, 0, 1, batch) == BIG
    assert pre_activation(name, 0, BIG / 2, 1, batch) == BIG
    assert pre_activation(name, BIG, 0, 2, batch) == BIG + 4


@pytest.mark.parametrize("batch", [1, 9])
def test_a_gate_that_needs_h_R_apart(isa, batch):
    assert pre_activation("GRU", BIG, 0, 1, batch) == BIG + 2
