# SPDX-License-Identifier: BSD-3-Clause
"""Merged directions, residual and highway connections between stacked layers.

The judge is the same stack put together from layers of one, in float64, and central
differences for the gradients.
"""

import copy

import numpy as np
import pytest

import fastrnn

KINDS = ["RNN", "LSTM", "GRU"]
CASES = [
    {"bidirectional": True, "merge_mode": "sum"},
    {"bidirectional": True, "merge_mode": "mean"},
    {"bidirectional": True, "merge_mode": "ave", "connection": "residual"},
    {"bidirectional": True, "merge_mode": "mul"},
    {"bidirectional": True, "merge_mode": "mul", "connection": "highway"},
    {"bidirectional": True, "connection": "residual"},
    {"connection": "residual"},
    {"connection": "highway"},
]


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(str, case.values())))
def case(request):
    return request.param


def make(kind, case, **more):
    arguments = {"num_layers": 3, "dtype": "float64", "seed": 2, **case, **more}
    if kind == "LSTM":
        arguments["proj_size"] = 4
    layer = getattr(fastrnn, kind)(3, 6, **arguments)
    rng = np.random.default_rng(0)
    for name, value in layer.parameters.items():
        if "gate" in name:  # neither open nor closed
            value[...] = rng.standard_normal(value.shape)
    return layer


def reference(layer, x):
    """The stack from layers of one, with NumPy between them."""
    p = layer.state_dict()
    for k in range(layer.num_layers):
        raw = []
        for suffix in ("", "_reverse")[: layer._directions]:
            own = {
                name.replace(f"_l{k}{suffix}", "_l0"): value
                for name, value in p.items()
                if name.endswith(f"_l{k}{suffix}") and "gate" not in name
            }
            more = {"proj_size": 4} if type(layer).__name__ == "LSTM" else {}
            one = type(layer)(x.shape[2], 6, dtype="float64", **more).eval()
            one.load_state_dict(own)
            raw.append(one(x[::-1])[0][::-1] if suffix else one(x)[0])
        y = {
            "concat": lambda raw: np.concatenate(raw, axis=-1),
            "sum": sum,
            "mean": lambda raw: sum(raw) / 2,
            "ave": lambda raw: sum(raw) / 2,
            "mul": lambda raw: raw[0] * raw[1],
        }[layer.merge_mode](raw)
        if k > 0 and layer.connection == "residual":
            y = y + x
        if k > 0 and layer.connection == "highway":
            a = x @ p[f"weight_gate_l{k}"].T + p[f"bias_gate_l{k}"]
            t = 1 / (1 + np.exp(-a))
            y = t * y + (1 - t) * x
        x = y
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients(isa, kind, case):
    layer = make(kind, case)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5, 2, 3))
    y, _ = layer(x)
    np.testing.assert_allclose(y, reference(layer, x), rtol=1e-12, atol=1e-13)
    dy = rng.standard_normal(y.shape)
    dx, _ = layer.backward(dy)
    for name, value, gradient in [
        ("x", x, dx),
        *((n, layer.parameters[n], layer.grads[n].copy()) for n in layer.parameters),
    ]:
        direction = rng.standard_normal(value.shape)
        kept, sides = value.copy(), []
        for step in (1e-6, -1e-6):
            value[...] = kept + step * direction
            sides.append((reference(layer, x) * dy).sum())
        value[...] = kept
        want = (sides[0] - sides[1]) / 2e-6
        got = (gradient * direction).sum()
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7, err_msg=name)


def step(layer, x, dy):
    layer.zero_grad()
    y, state = layer(x)
    dx, d_hx, flow = layer.backward(dy, record_flow=True)
    parts = [*state, *d_hx] if isinstance(state, tuple) else [state, d_hx]
    return [y, dx, flow, *parts, *(grad.copy() for grad in layer.grads.values())]


@pytest.mark.parametrize("kind", KINDS)
def test_bits_with_checkpoints_threads_batch_first_and_copies(isa, kind, case, dtype):
    layer = make(kind, case, dtype=dtype)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5, 2, 3)).astype(dtype)
    dy = rng.standard_normal(layer(x)[0].shape).astype(dtype)
    want = step(layer, x, dy)
    others = [copy.deepcopy(layer), copy.deepcopy(layer)]
    others[1].checkpoint_every = 2
    before = fastrnn.get_num_threads()
    for n_threads in (1, 2):
        fastrnn.set_num_threads(n_threads)
        for other in others:
            for got, expected in zip(step(other, x, dy), want, strict=True):
                np.testing.assert_array_equal(got, expected)
    fastrnn.set_num_threads(before)
    np.testing.assert_array_equal(copy.deepcopy(layer).eval()(x)[0], want[0])
    turned = make(kind, case, dtype=dtype, batch_first=True)
    found = step(turned, x.swapaxes(0, 1), dy.swapaxes(0, 1))
    np.testing.assert_array_equal(found[0].swapaxes(0, 1), want[0])
    np.testing.assert_array_equal(found[1].swapaxes(0, 1), want[1])
    for got, expected in zip(found[2:], want[2:], strict=True):
        np.testing.assert_array_equal(got, expected)


def test_dropout_between_layers_repeats_with_checkpoints(case):
    found = []
    for every in (None, 2):
        layer = make("GRU", case, dropout=0.4)
        layer.checkpoint_every = every
        x = np.random.default_rng(1).standard_normal((5, 2, 3))
        dy = np.ones_like(layer(x)[0])
        found.append(step(layer, x, dy))
    for got, want in zip(*found, strict=True):
        np.testing.assert_array_equal(got, want)


def test_the_gate_of_a_highway_is_nearly_closed_at_first():
    layer = fastrnn.GRU(3, 6, 2, connection="highway", seed=0)
    assert layer.parameters["weight_gate_l1"].shape == (6, 6)
    assert (layer.parameters["bias_gate_l1"] == -1).all()


REFUSED = [
    ({"merge_mode": "max"}, "merge_mode must be one of 'concat', 'sum'"),
    ({"merge_mode": "sum"}, "merge_mode needs bidirectional=True, got 'sum'"),
    ({"connection": "residual"}, "needs num_layers >= 2, got 'residual' with 1"),
    ({"connection": "dense", "num_layers": 2}, "must be None, 'residual' or 'highway'"),
    (
        {"connection": "residual", "num_layers": 2, "return_sequences": False},
        "need return_sequences=True",
    ),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
@pytest.mark.parametrize("kind", KINDS)
def test_refusals(kind, given, message):
    with pytest.raises(ValueError, match=f"^{kind}: .*{message}"):
        getattr(fastrnn, kind)(3, 5, **given)


def test_no_stream_of_connected_layers():
    with pytest.raises(ValueError, match=r"^GRU\.stream: the layer must have no conn"):
        fastrnn.GRU(3, 5, 2, connection="residual").stream()
