# SPDX-License-Identifier: BSD-3-Clause
"""Normalised cells that leave something out at random, or have several heads."""

import left_out
import numpy as np
import pytest
from recorded_bits import fused_targets

import fastrnn
from fastrnn.native import core

T, B, I, H = 7, 4, 5, 20
CELLS = {
    "lstm-cell": (fastrnn.LSTM, {"layer_norm": True}),
    "lstm-gates": (fastrnn.LSTM, {"rms_norm": "gates"}),
    "lstm-carried": (fastrnn.LSTM, {"layer_norm": "carried"}),
    "lstm-per-gate": (fastrnn.LSTM, {"layer_norm": "per_gate"}),
    "lstm-input": (fastrnn.LSTM, {"layer_norm": "input"}),
    "gru-apart": (fastrnn.GRU, {"layer_norm": True}),
    "gru-input": (fastrnn.GRU, {"rms_norm": "input"}),
    "gru-joint": (fastrnn.GRU, {"layer_norm": "joint"}),
    "rnn-apart": (fastrnn.RNN, {"layer_norm": True}),
    "rnn-joint": (fastrnn.RNN, {"rms_norm": "joint"}),
}
CANDIDATE = {"recurrent_dropout": 0.4, "recurrent_dropout_mode": "candidate"}
OPTIONS = {
    "zoneout": {"zoneout": 0.3},
    "h": {"recurrent_dropout": 0.4},
    "per_gate": {"recurrent_dropout": 0.4, "recurrent_dropout_mode": "per_gate"},
    "candidate": CANDIDATE,
    "input": {"input_dropout": 0.3},
    "heads": {"heads": 4},
    "all": {
        "zoneout": 0.2,
        "recurrent_dropout": 0.3,
        "recurrent_dropout_mode": "per_gate",
        "input_dropout": 0.2,
        "heads": 2,
    },
}
MORE = {
    "weight_drop": {"weight_drop": 0.5},
    "general": {"cell_clip": 1.5, "zoneout": 0.3, **CANDIDATE},
    "both": {"bidirectional": True, "num_layers": 2, "zoneout": 0.2, **CANDIDATE},
    "proj": {"proj_size": 6, "zoneout": 0.2, "recurrent_dropout": 0.3},
}


def cases(options):
    return [
        pytest.param(cls, norm | options[name], id=f"{cell}-{name}")
        for cell, (cls, norm) in CELLS.items()
        for name in options
        if cls is not fastrnn.RNN or "candidate" not in options[name].values()
        if cls is fastrnn.LSTM or "proj_size" not in options[name]
    ]


def series(*shape, seed=1, dtype="float64"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def made(cls, options, dtype="float64", **more):
    layer = cls(I, H, seed=3, dtype=dtype, **options, **more)
    rng = np.random.default_rng(2)
    for value in layer.parameters.values():
        value += 0.2 * rng.standard_normal(value.shape)
    return layer


@pytest.mark.parametrize(("cls", "options"), cases(OPTIONS))
def test_equations(cls, options):
    """The outputs of a step written from the papers, with the same choices."""
    layer, x = made(cls, options), series(T, B, I)
    for _ in range(2):  # each call has choices of its own
        key = left_out.next_key(layer)
        want = left_out.run(layer, x, key)
        np.testing.assert_allclose(layer(x)[0], want, atol=1e-11)


@pytest.mark.parametrize(("cls", "options"), cases(OPTIONS | MORE))
def test_gradients(cls, options, rng):
    """Central differences of the call that backward belongs to."""
    layer, x = made(cls, options), series(T, B, I)
    before = layer._dropout_seeds.bit_generator.state
    y, _ = layer(x)
    dy = series(*y.shape, seed=2)
    layer.zero_grad()
    dx, _ = layer.backward(dy)

    def loss():
        layer._dropout_seeds.bit_generator.state = before
        return float((layer(x)[0] * dy).sum())

    values = {"x": (x, dx)}
    values |= {
        name: (layer.parameters[name], layer.grads[name]) for name in layer.grads
    }
    for name, (array, gradient) in values.items():
        direction = rng.standard_normal(array.shape)
        losses = []
        for step in (1e-6, -2e-6):
            array += step * direction
            losses.append(loss())
        array += 1e-6 * direction
        want = (losses[0] - losses[1]) / 2e-6
        found = (gradient * direction).sum()
        assert found == pytest.approx(want, rel=1e-5, abs=1e-5), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cls", "options"), cases(OPTIONS | MORE))
def test_bits_depend_on_no_schedule(cls, options, dtype):
    """Nor on the target, on checkpoints or lengths; in inference, on a stream."""
    targets, found = fused_targets(), []
    before = fastrnn.get_num_threads()
    x = series(T, B, I, dtype=dtype)
    for target, n_threads, every in (
        (targets[0], 1, None), (targets[-1], 1, 3), (targets[0], 2, 2),
        (targets[-1], 7, None),
    ):  # fmt: skip
        fastrnn.set_num_threads(n_threads)
        with core.use_isa(target):
            layer = made(cls, options, dtype=dtype, checkpoint_every=every)
            got = []
            for lengths in (None, [T, 2, 4, 1]):
                y, _ = layer(x, lengths=lengths)
                layer.zero_grad()
                dx, _ = layer.backward(series(*y.shape, seed=2, dtype=dtype))
                got += [y, dx, *(grad.copy() for grad in layer.grads.values())]
            found.append(got)
    fastrnn.set_num_threads(before)
    for got in found[1:]:
        for one, other in zip(got, found[0], strict=True):
            np.testing.assert_array_equal(one, other)
    if layer.bidirectional:
        return
    whole, _ = layer.eval()(x)
    np.testing.assert_array_equal(layer(x[:, 1:2])[0], whole[:, 1:2])
    stream = layer.stream(B)
    np.testing.assert_array_equal([stream.step(step).copy() for step in x], whole)
