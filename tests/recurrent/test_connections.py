# SPDX-License-Identifier: BSD-3-Clause
"""Merged directions, residual and highway connections between stacked layers.

The judge is the same stack put together from layers of one, in float64, and central
differences for the gradients.
"""

import copy
import tracemalloc

import numpy as np
import pytest
from cells import KINDS, parts_of

import fastrnn

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
        elif "bias" in name:  # at 0 a ReLU has no derivative
            value[...] = 0.1 * rng.standard_normal(value.shape)
    return layer


def level(layer, k, width, **options):
    """Layer k of the stack by itself: both directions, side by side."""
    own = {}
    for suffix in ("", "_reverse")[: layer._directions]:
        for name, value in layer.parameters.items():
            if name.endswith(f"_l{k}{suffix}") and "gate" not in name:
                own[name.replace(f"_l{k}", "_l0")] = value
    if type(layer).__name__ == "LSTM":
        options["proj_size"] = 4
    options |= {"bidirectional": layer.bidirectional, "dtype": "float64"}
    one = type(layer)(width, 6, **options).eval()
    one.load_state_dict(own)
    return one


def merge(mode, raw):
    one, other = np.split(raw, 2, axis=-1)
    return {
        "concat": lambda: raw,
        "sum": lambda: one + other,
        "mean": lambda: (one + other) / 2,
        "ave": lambda: (one + other) / 2,
        "mul": lambda: one * other,
    }[mode]()


def reference(layer, x, **given):
    """The stack from layers of one, with NumPy between them.

    Without `return_sequences` each has its last output beside those of all steps.
    """
    p, results = layer.parameters, []
    for k in range(layer.num_layers):
        seen = [level(layer, k, x.shape[2])(x, **given)[0]]
        if not layer.return_sequences:
            last = level(layer, k, x.shape[2], return_sequences=False)
            seen.append(last(x, **given)[0])
        before, results = results, [merge(layer.merge_mode, raw) for raw in seen]
        for i, way_around in enumerate(before):
            if layer.connection == "residual":
                results[i] = results[i] + way_around
            elif layer.connection == "highway":
                a = way_around @ p[f"weight_gate_l{k}"].T + p[f"bias_gate_l{k}"]
                t = 1 / (1 + np.exp(-a))
                results[i] = t * results[i] + (1 - t) * way_around
        x = results[0]
    return results[-1]


def assert_judged(layer, **given):
    """Values and gradients of y are those of `reference`."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5, 3, 3))
    y, _ = layer(x, **given)
    np.testing.assert_allclose(y, reference(layer, x, **given), rtol=1e-12, atol=1e-13)
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
            sides.append((reference(layer, x, **given) * dy).sum())
        value[...] = kept
        want = (sides[0] - sides[1]) / 2e-6
        got = (gradient * direction).sum()
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients(isa, kind, case):
    assert_judged(make(kind, case))


MASK = np.array([[0, 1, 0, 1, 1], [1, 0, 0, 1, 1], [1, 1, 0, 0, 0]], bool)
RESETS = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0]], bool)
SOME_STEPS = {
    "all": {},
    "lengths": {"lengths": [3, 5, 0]},
    "mask": {"mask": MASK},
    "lengths and mask": {"lengths": [2, 5, 4], "mask": MASK},
    "zero": {"mask": MASK, "zero_output_for_mask": True},
    "resets": {"resets": RESETS},
    "nothing": {"lengths": [0, 0, 0]},
}


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("steps", SOME_STEPS)
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_some_steps_and_the_last_output(kind, case, steps, return_sequences):
    given = SOME_STEPS[steps]
    if steps == "resets":
        case = {"connection": case.get("connection", "highway")}
    assert_judged(make(kind, case, return_sequences=return_sequences), **given)


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_lengths_give_each_sequence_its_bits_alone(kind, case, dtype, return_sequences):
    lengths, rng = [3, 5, 1, 4], np.random.default_rng(2)
    layer = make(kind, case, dtype=dtype, return_sequences=return_sequences)
    x = rng.standard_normal((5, 4, 3)).astype(dtype)
    x[np.arange(5)[:, None] >= lengths] = np.nan
    y, state = layer(x, lengths=lengths)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx, d_hx = layer.backward(dy)
    shown, _ = copy.deepcopy(layer).eval()(x, lengths=lengths)
    np.testing.assert_array_equal(shown, y)
    for b, n in enumerate(lengths):
        steps = np.s_[:n, b : b + 1] if return_sequences else np.s_[b : b + 1]
        found, own = layer(x[:n, b : b + 1])
        np.testing.assert_array_equal(found, y[steps])
        d_found, d_own = layer.backward(np.ascontiguousarray(dy[steps]))
        np.testing.assert_array_equal(d_found, dx[:n, b : b + 1])
        assert not dx[n:, b].any()
        if return_sequences:
            assert not y[n:, b].any()
        for one, whole in ((own, state), (d_own, d_hx)):
            for part, of_all in zip(parts_of(one), parts_of(whole), strict=True):
                np.testing.assert_array_equal(part[:, 0], of_all[:, b])


@pytest.mark.parametrize("steps", ["all", "lengths", "mask"])
@pytest.mark.parametrize("return_sequences", [True, False])
def test_ragged_bits_with_checkpoints_threads_and_batch_first(
    case, dtype, steps, return_sequences
):
    options = {"dtype": dtype, "return_sequences": return_sequences}
    given, rng = SOME_STEPS[steps], np.random.default_rng(3)
    layer = make("LSTM", case, **options)
    x = rng.standard_normal((5, 3, 3)).astype(dtype)
    dy = rng.standard_normal(layer(x, **given)[0].shape).astype(dtype)
    want = step(layer, x, dy, **given)
    layer.checkpoint_every = 2
    before = fastrnn.get_num_threads()
    for n_threads in (1, 2):
        fastrnn.set_num_threads(n_threads)
        for got, expected in zip(step(layer, x, dy, **given), want, strict=True):
            np.testing.assert_array_equal(got, expected)
    fastrnn.set_num_threads(before)
    turned = make("LSTM", case, **options, batch_first=True)
    if return_sequences:
        dy = dy.swapaxes(0, 1)
    found = step(turned, x.swapaxes(0, 1), dy, **given)
    if return_sequences:
        found[0] = found[0].swapaxes(0, 1)
    found[1] = found[1].swapaxes(0, 1)
    for got, expected in zip(found, want, strict=True):
        np.testing.assert_array_equal(got, expected)


def step(layer, x, dy, **given):
    layer.zero_grad()
    y, state = layer(x, **given)
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


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("steps", ["all", "lengths", "mask"])
def test_dropout_between_layers_is_differentiated(case, steps, return_sequences):
    given, rng = SOME_STEPS[steps], np.random.default_rng(4)
    layer = make("GRU", case, dropout=0.4, return_sequences=return_sequences)
    same = [copy.deepcopy(layer) for _ in range(2)]
    x = rng.standard_normal((5, 3, 3))
    dy = rng.standard_normal(layer(x, **given)[0].shape)
    dx, _ = layer.backward(dy)
    move = 1e-6 * rng.standard_normal(x.shape)
    sides = [
        (one(at, **given)[0] * dy).sum()
        for one, at in zip(same, (x + move, x - move), strict=True)
    ]
    np.testing.assert_allclose(
        (sides[0] - sides[1]) / 2, (dx * move).sum(), rtol=1e-6, atol=1e-12
    )


def test_the_gate_of_a_highway_is_nearly_closed_at_first():
    layer = fastrnn.GRU(3, 6, 2, connection="highway", seed=0)
    assert layer.parameters["weight_gate_l1"].shape == (6, 6)
    assert (layer.parameters["bias_gate_l1"] == -1).all()


REFUSED = [
    ({"merge_mode": "max"}, "merge_mode must be one of 'concat', 'sum'"),
    ({"merge_mode": "sum"}, "merge_mode needs bidirectional=True, got 'sum'"),
    ({"connection": "residual"}, "needs num_layers >= 2, got 'residual' with 1"),
    ({"connection": "dense", "num_layers": 2}, "must be None, 'residual' or 'highway'"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
@pytest.mark.parametrize("kind", KINDS)
def test_refusals(kind, given, message):
    with pytest.raises(ValueError, match=f"^{kind}: .*{message}"):
        getattr(fastrnn, kind)(3, 5, **given)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("connection", ["residual", "highway"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_has_the_bits_of_forward(isa, kind, connection, dtype, batch_size):
    layer = make(kind, {"connection": connection}, dtype=dtype).eval()
    x = np.random.default_rng(0).standard_normal((6, batch_size, 3)).astype(dtype)
    stream = layer.stream(batch_size)
    for name in layer.parameters:  # the stream has its own
        if "gate" in name:
            layer.parameters[name][...] += 1
    other = layer.stream(batch_size)
    y, _ = layer(x)
    np.testing.assert_array_equal([other.step(x_t).copy() for x_t in x], y)
    other.reset()
    np.testing.assert_array_equal(other.step(x[0]), y[0])
    first = stream.step(x[0])
    assert np.array_equal(first, y[0]) == (connection == "residual")


def test_a_stream_of_connected_layers_allocates_nothing():
    layer = fastrnn.LSTM(64, 64, 3, connection="highway", seed=0)
    stream, x_t = layer.stream(8), np.ones((8, 64), "f")
    stream.step(x_t)
    tracemalloc.start()
    for _ in range(20):
        stream.step(x_t)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < x_t.nbytes
