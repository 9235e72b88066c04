# SPDX-License-Identifier: BSD-3-Clause
"""`compute="bfloat16"`: rounded operands, float32 sums, the same bits everywhere."""

import itertools

import half
import numpy as np
import pytest

import fastrnn
from fastrnn.native import core, weights

FUSED = [name for name in core.SUPPORTED if name.startswith("x86_v")]
# Every target, and every number of threads on one of them.
CASES = [*itertools.product(FUSED[:1], (1, 2, 7)), *itertools.product(FUSED[1:], (2,))]
# Odd numbers of rows, inputs and units; a block of more rows than are summed at a time.
SHAPES = [(5, 3, 3, 5), (9, 33, 17, 37), (2, 601, 5, 9), (40, 1, 6, 64)]
LAYERS = {
    "rnn": ("RNN", {}),
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {}),
    "mgu": ("MGU", {}),
    "ligru": ("LiGRU", {}),
    "leaky": ("LeakyRNN", {}),
    "slstm": ("SLSTM", {}),
    "mingru": ("MinGRU", {"num_layers": 2}),
    "minlstm": ("MinLSTM", {"bidirectional": True}),
    "indrnn": ("IndRNN", {}),
    "normalised": ("LSTM", {"layer_norm": True}),
    "normalised c": ("LSTM", {"layer_norm": "cell", "num_layers": 2}),
    "normalised input": ("GRU", {"layer_norm": "input"}),
    "normalised jointly": ("GRU", {"rms_norm": "joint"}),
    "reset before": ("GRU", {"reset_after": False}),
    "projection": ("LSTM", {"proj_size": 3}),
    "peephole": ("LSTM", {"peephole": True}),
    "stack": ("GRU", {"num_layers": 3}),
    "two directions": ("LSTM", {"num_layers": 2, "bidirectional": True}),
    "left out": (
        "LSTM",
        {"zoneout": 0.1, "recurrent_dropout": 0.2, "input_dropout": 0.2},
    ),
    "masks by gate": (
        "GRU",
        {"recurrent_dropout": 0.2, "recurrent_dropout_mode": "per_gate"},
    ),
    "late gate, masked": (
        "GRU",
        {
            "reset_after": False,
            "recurrent_dropout": 0.2,
            "recurrent_dropout_mode": "per_gate",
        },
    ),
}


def made(cls, I, H, **options):
    return getattr(fastrnn, cls)(I, H, seed=1, compute="bfloat16", **options)


def data(T, B, I):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, T + 1, B)
    lengths[0] = T
    return rng.standard_normal((T, B, I)).astype("f"), lengths


def results(layer, x, **arguments):
    """All that a forward and a backward give, as bytes."""
    y, state = layer(x, **arguments)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype("f")
    y = y.copy()
    layer.zero_grad()
    dx, dstate = layer.backward(dy)
    found = [y, dx, layer.flat_grads]
    for part in (state, dstate):
        found += part if isinstance(part, tuple) else [part]
    return [np.ascontiguousarray(one).tobytes() for one in found]


@pytest.mark.skipif(len(FUSED) < 2, reason="needs two targets that fuse")
@pytest.mark.parametrize("which", LAYERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_targets_and_threads_have_the_same_bits(which, shape):
    cls, options = LAYERS[which]
    T, B, I, H = shape
    x, lengths = data(T, B, I)
    for given in ({}, {"lengths": lengths}):
        found = []
        for target, n_threads in CASES:
            before = fastrnn.get_num_threads()
            fastrnn.set_num_threads(n_threads)
            try:
                with core.use_isa(target):
                    found.append(results(made(cls, I, H, **options), x, **given))
            finally:
                fastrnn.set_num_threads(before)
        assert all(one == found[0] for one in found)


@pytest.mark.parametrize("cls", half.CELLS)
def test_operands_are_rounded_and_nothing_else(cls):
    layer = made(cls, 33, 47)
    x, _ = data(4, 11, 33)
    y, _ = layer(x)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype("f")
    y = y.copy()
    dx, _ = layer.backward(dy)
    found = {
        "y": y,
        "dx": dx,
        "dW": layer.grads["weight_ih_l0"],
        "dR": layer.grads["weight_hh_l0"],
    }
    judge = half.run(cls, layer.parameters, x, dy, half.rounded)
    exact = half.run(cls, layer.parameters, x, dy, half.exact)
    for key, value in found.items():
        # A number at the middle of two bfloat16 may be rounded to the other one here.
        assert half.distance(value, judge[key]) < 3e-4, key
        assert half.distance(value, exact[key]) < (4e-3 if key == "y" else 5e-3), key
        assert half.distance(value, exact[key]) > 5e-4, key


@pytest.mark.parametrize("cls", half.CELLS)
def test_errors_of_a_long_sequence(cls):
    layer = made(cls, 64, 64)
    x, _ = data(50, 16, 64)
    y, _ = layer(x)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype("f")
    y = y.copy()
    layer.backward(dy)
    exact = half.run(cls, layer.parameters, x, dy, half.exact)
    assert half.distance(y, exact["y"]) <= 4e-3
    # The plain cell's R is orthogonal: errors of h go on as long as h does.
    bound = 6e-3 if cls == "RNN" else 5e-3
    assert half.distance(layer.grads["weight_hh_l0"], exact["dR"]) <= bound


@pytest.mark.parametrize("which", ["lstm", "projection", "reset before", "stack"])
def test_a_sequence_in_parts_has_the_same_bits(which):
    cls, options = LAYERS[which]
    x, lengths = data(23, 19, 7)
    whole = results(made(cls, 7, 13, **options), x, lengths=lengths)
    parts = made(cls, 7, 13, checkpoint_every=5, **options)
    assert results(parts, x, lengths=lengths) == whole
    # Blocks of rows that begin in one call and end in the next: an odd number of rows.
    x, _ = data(90, 3, 7)
    whole = results(made(cls, 7, 13, **options), x)
    parts = made(cls, 7, 13, checkpoint_every=7, **options)
    assert results(parts, x) == whole


@pytest.mark.parametrize("which", ["rnn", "lstm", "gru", "projection", "reset before"])
def test_a_stream_and_a_row_alone_have_the_same_bits(which):
    cls, options = LAYERS[which]
    layer = made(cls, 7, 13, **options).eval()
    x, _ = data(6, 5, 7)
    y, _ = layer(x)
    stream = layer.stream(5)
    for x_t, y_t in zip(x, y, strict=True):
        assert stream.step(np.ascontiguousarray(x_t)).tobytes() == y_t.tobytes()
    alone, _ = layer(x[:, 2:3])
    assert alone.tobytes() == y[:, 2:3].tobytes()


@pytest.mark.parametrize("target", FUSED)
def test_large_weights_that_share_their_room_have_the_same_bits(target):
    """Backward then packs what the forward pack has, or what it is given."""
    with core.use_isa(target):
        assert gradients_in_turns(0) == gradients_in_turns(1 << 40)


def gradients_in_turns(n_bytes):
    before = weights.set_turns_from(n_bytes)
    try:
        layer = made("LSTM", 9, 21, num_layers=2)
        x, _ = data(5, 3, 9)
        y, _ = layer(x)
        layer.parameters["weight_hh_l0"][:] *= 2  # backward is that of the forward
        layer.backward(np.ones_like(y))
        return layer.flat_grads.tobytes()
    finally:
        weights.set_turns_from(before)


@pytest.mark.parametrize("target", core.SUPPORTED)
def test_numbers_that_are_not_finite_stay_where_they_belong(target):
    with core.use_isa(target):
        layer = made("RNN", 3, 5)
        x, _ = data(4, 3, 3)
        x[1, 1, 0], x[2, 2, 1] = np.nan, np.inf
        y, _ = layer(x)
        assert np.isnan(y[1:, 1]).all()
        assert np.isfinite(y[:, 0]).all()
        assert np.isfinite(y[0]).all()
        assert np.isfinite(y[:, 2]).all()  # tanh of an infinity is 1
        layer.backward(np.ones_like(y))


def test_compute_may_change_between_calls():
    """Weights are packed again, though they are the same numbers."""
    x, _ = data(5, 3, 7)
    layer = made("GRU", 7, 9).eval()
    first = layer(x)[0].copy()
    layer.compute = "float32"
    assert layer.compute is None
    plain = layer(x)[0].copy()
    assert (plain != first).any()
    layer.compute = "bfloat16"
    assert layer(x)[0].tobytes() == first.tobytes()


@pytest.mark.parametrize("make", [fastrnn.LSTM, fastrnn.Linear])
def test_a_backward_goes_as_its_forward_did(make):
    """Though `compute` has changed since."""
    x = np.random.default_rng(0).standard_normal((5, 3, 7)).astype("f")
    found = []
    for changes in (False, True):
        layer = make(7, 9, seed=0, compute="bfloat16")
        y = layer(x)
        if changes:
            layer.compute = None
        dx = layer.backward(np.ones_like(y[0] if isinstance(y, tuple) else y))
        dx = dx[0] if isinstance(dx, tuple) else dx
        found.append([dx.tobytes(), layer.flat_grads.tobytes()])
    assert found[0] == found[1]


@pytest.mark.parametrize("target", FUSED)
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 3), (601, 33, 17), (40, 700, 3)])
def test_linear(shape, target):
    with core.use_isa(target):
        x, dy, want = half.check_linear(shape, "bfloat16")
    _, I, O = shape
    with core.use_isa(FUSED[-1]):
        other = fastrnn.Linear(I, O, seed=0, compute="bfloat16")
        found = other(x), other.backward(dy), other.flat_grads
    assert [one.tobytes() for one in found] == want


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        ("LSTM", {"dtype": "float64", "compute": "bfloat16"}, "only float32 layers"),
        ("GRU", {"compute": "float64"}, "only float32 layers"),
        ("Linear", {"compute": "half"}, "must be None, the layer's dtype or"),
        ("LSTM", {"compute": "bfloat16", "heads": 2}, "not for heads > 1"),
    ],
)
def test_what_cannot_be_is_refused(cls, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(fastrnn, cls)(4, 8, **arguments)


def test_a_name_is_asked_for():
    with pytest.raises(TypeError, match="compute must be None or a name"):
        fastrnn.LSTM(3, 4, compute=16)


def model():
    return fastrnn.Sequential(
        fastrnn.LSTM(5, 16, return_sequences=False, seed=0),
        fastrnn.Linear(16, 3, seed=1),
    )


def test_compile_sets_all_layers_or_none(tmp_path):
    one = model()
    one.compile("mse", compute="bfloat16")
    assert [layer.compute for layer in one] == ["bfloat16"] * 2
    one.save(tmp_path / "m.safetensors")
    again = fastrnn.load_model(tmp_path / "m.safetensors")
    assert [layer.compute for layer in again] == ["bfloat16"] * 2
    x, _ = data(8, 4, 5)
    assert again.predict(x).tobytes() == one.predict(x).tobytes()
    two = fastrnn.Sequential(
        fastrnn.Linear(5, 4, seed=0), fastrnn.LSTM(4, 8, heads=2, seed=0)
    )
    with pytest.raises(ValueError, match="not for heads"):
        two.compile("mse", compute="bfloat16")
    assert [layer.compute for layer in two] == [None, None]


def test_training_ends_where_float32_ends():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 12, 5)).astype("f")
    labels = (x.sum((1, 2)) > 0).astype(int) + (x[:, 0, 0] > 0)
    ends = []
    for compute in ("float32", "bfloat16"):
        one = model()
        one.compile("sparse_categorical_crossentropy", "adam", lr=0.01, compute=compute)
        history = one.fit(x, labels, epochs=20, batch_size=64, verbose=0, seed=0)
        ends.append(history.history["loss"][-1])
    assert ends[1] != ends[0]
    assert abs(ends[1] - ends[0]) < 0.01
