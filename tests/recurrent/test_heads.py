# SPDX-License-Identifier: BSD-3-Clause
"""`heads`: recurrent weights that are block-diagonal.

The judge is the layer of dense weights whose blocks off the diagonal are zero, which
other tests compare with references: outputs are the same, and gradients are those of
the blocks.
"""

import numpy as np
import pytest
from recorded_bits import fused_targets

import fastrnn
from fastrnn.native import core

KINDS = {
    "RNN": fastrnn.RNN,
    "LSTM": fastrnn.LSTM,
    "GRU": fastrnn.GRU,
    "SLSTM": fastrnn.SLSTM,
}
# (hidden_size, heads): whole vectors, heads that share vectors, one unit a head.
SIZES = [(64, 4), (32, 2), (48, 2), (24, 3), (12, 4), (7, 7), (150, 6)]


def dense(R, heads):
    """The matrix whose blocks on the diagonal are R's, gate by gate."""
    size = R.shape[1]
    H, G = heads * size, len(R) // (heads * size)
    full = np.zeros((G, H, H), R.dtype)
    for k in range(heads):
        at = slice(k * size, (k + 1) * size)
        full[:, at, at] = R.reshape(G, H, size)[:, at]
    return full.reshape(G * H, H)


def blocks(full, heads):
    """The blocks on the diagonal, as a layer with heads keeps them."""
    H = full.shape[1]
    G, size = len(full) // H, H // heads
    parts = full.reshape(G, heads, size, heads, size)
    own = np.stack([parts[:, k, :, k] for k in range(heads)], 1)
    return own.reshape(G * H, size)


def twins(kind, H, heads, **options):
    """A layer with heads, and the dense one of the same weights."""
    layer = KINDS[kind](5, H, heads=heads, seed=0, **options)
    other = KINDS[kind](5, H, seed=1, **options)
    for name, array in layer.parameters.items():
        other.parameters[name][...] = (
            dense(array, heads) if "_hh" in name and (array.ndim == 2) else array
        )
    return layer, other


def run(layer, x, **arguments):
    """Output, last state, dx and all gradients of one call."""
    rng = np.random.default_rng(3)
    y, _ = layer(x, **arguments)
    layer.zero_grad()
    dx, _ = layer.backward(rng.standard_normal(y.shape).astype(y.dtype))
    return y, dx, {name: grad.copy() for name, grad in layer.grads.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("H", "heads"), SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_like_dense_weights_with_zeros(kind, H, heads, dtype, rng):
    options = {"num_layers": 2, "bidirectional": True, "dtype": dtype}
    layer, other = twins(kind, H, heads, **options)
    gates = {"RNN": 1, "GRU": 3}.get(kind, 4)
    assert layer.parameters["weight_hh_l1"].shape == (gates * H, H // heads)
    x = rng.standard_normal((6, 9, 5)).astype(dtype)
    lengths = [6, 1, 3, 6, 2, 5, 6, 4, 6]
    close = {"float32": 2e-5, "float64": 1e-13}[dtype]
    for arguments in ({}, {"lengths": lengths}):
        y, dx, grads = run(layer, x, **arguments)
        y_dense, dx_dense, grads_dense = run(other, x, **arguments)
        np.testing.assert_allclose(y, y_dense, rtol=close, atol=close)
        np.testing.assert_allclose(dx, dx_dense, rtol=close, atol=close * 10)
        for name, grad in grads.items():
            expected = grads_dense[name]
            if "weight_hh" in name:
                expected = blocks(expected, heads)
            scale = np.abs(expected).max()
            np.testing.assert_allclose(grad, expected, atol=close * scale, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("H", "heads"), [(64, 4), (24, 3)])
def test_same_bits_however_it_is_run(kind, H, heads, rng):
    """Threads, instruction sets, checkpoints, a row alone and a stream."""
    x = rng.standard_normal((12, 7, 5)).astype("f")
    found = []
    before = fastrnn.get_num_threads()
    for target in fused_targets():
        for n_threads, every in ((1, None), (2, 5), (7, None)):
            fastrnn.set_num_threads(n_threads)
            with core.use_isa(target):
                layer = KINDS[kind](5, H, heads=heads, seed=0, checkpoint_every=every)
                y, dx, grads = run(layer, x)
            found.append([y, dx, *grads.values()])
    fastrnn.set_num_threads(before)
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, same)
    layer = KINDS[kind](5, H, heads=heads, seed=0).eval()
    alone, _ = layer(x[:, 3:4])
    np.testing.assert_array_equal(alone[:, 0], found[0][0][:, 3])
    stream = layer.stream(7)
    steps = [stream.step(step).copy() for step in x]
    np.testing.assert_array_equal(steps, found[0][0])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: fastrnn.LSTM(3, 8, heads=3), "multiple of heads"),
        (lambda: fastrnn.LSTM(3, 8, heads=0), "heads must be"),
        (lambda: fastrnn.LSTM(3, 8, heads=2, proj_size=4), "proj_size must be 0"),
        (lambda: fastrnn.GRU(3, 8, heads=2, reset_after=False), "reset_after must be"),
    ],
)
def test_heads_that_cannot_be(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    "options",
    [
        {"recurrent_dropout": 0.4},
        {"recurrent_dropout": 0.4, "recurrent_dropout_mode": "per_gate"},
        {"zoneout": 0.3},
        {"activation": "elu", "cell_clip": 2.0},
    ],
    ids=lambda options: "-".join(options),
)
def test_with_other_options(kind, options, rng):
    """What is drawn depends on the seed and the call, not on the heads."""
    layer, _ = twins(kind, 24, 3, **options)
    other = KINDS[kind](5, 24, seed=0, heads=1, **options)
    other._runtime.dropout_seeds = np.random.default_rng(11)
    layer._runtime.dropout_seeds = np.random.default_rng(11)
    for name, array in layer.parameters.items():
        is_R = "_hh" in name and array.ndim == 2
        other.parameters[name][...] = dense(array, 3) if is_R else array
    x = rng.standard_normal((6, 9, 5)).astype("f")
    y, dx, grads = run(layer, x)
    y_dense, dx_dense, grads_dense = run(other, x)
    np.testing.assert_allclose(y, y_dense, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(dx, dx_dense, rtol=2e-5, atol=2e-4)
    expected = blocks(grads_dense["weight_hh_l0"], 3)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(grads["weight_hh_l0"], expected, atol=2e-5 * scale)
