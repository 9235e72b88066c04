# SPDX-License-Identifier: BSD-3-Clause
"""Layers of small weights, judged by float64 and by layers of rounded weights."""

import copy
import pickle

import numpy as np
import pytest
from cells import parts_of

import fastrnn
from fastrnn.native import core, threads

KINDS = ("LSTM", "GRU", "RNN")
FORMATS = ("int8", "bfloat16")
LARGEST = 8191  # of the integers that x and h become


@pytest.fixture
def on_threads():
    """Sets the number of threads until the test ends."""
    before = threads.get_num_threads()
    yield threads.set_num_threads
    threads.set_num_threads(before)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def to_integers(M, most, least=1e-30):
    """Rows as integers up to `most`, and their scales, in float64."""
    bound = np.maximum(np.abs(M).max(axis=-1, keepdims=True), least)
    return np.rint(M / (bound / most)), bound / most


def times(x, M, least=1e-30):
    """x M^T of quantised rows of both, in float64."""
    (a, a_scale), (q, q_scale) = to_integers(x, LARGEST, least), to_integers(M, 127)
    return (a @ q.T) * a_scale * q_scale.T


def reference(kind, layer, x):
    """Outputs of one layer with int8 weights, written from the equations."""
    W, R, b_ih, b_hh = (p.astype(np.float64) for p in layer.parameters.values())
    h = c = np.zeros((x.shape[1], layer.hidden_size))
    outputs = []
    for x_t in x.astype(np.float64):
        ax, ah = times(x_t, W) + b_ih, times(h, R, 1.0) + b_hh
        if kind == "LSTM":
            i, f, g, o = np.split(ax + ah, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        elif kind == "GRU":
            (xr, xz, xn), (hr, hz, hn) = np.split(ax, 3, 1), np.split(ah, 3, 1)
            n, z = np.tanh(xn + sigmoid(xr + hr) * hn), sigmoid(xz + hz)
            h = n + z * (h - n)
        else:
            h = np.tanh(ax + ah)
        outputs.append(h)
    return np.array(outputs)


def relative(y, want):
    return np.sqrt(np.mean((y - want) ** 2) / np.mean(want**2))


@pytest.mark.parametrize("B", [1, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_int8_is_what_its_equations_say(kind, B, isa, rng):
    layer = getattr(fastrnn, kind)(23, 41, seed=1).eval()
    x = rng.standard_normal((9, B, 23)).astype("f")
    y, _ = layer.quantize("int8")(x)
    # Where a number is halfway between two integers, float32 may take the other one.
    assert relative(y, reference(kind, layer, x)) < 1e-4
    # Half of what ONNX Runtime's int8 is off, 1.0e-2 to 1.3e-2 in an LSTM.
    assert relative(y, layer(x)[0]) < {"LSTM": 6e-3, "GRU": 8e-3, "RNN": 2e-2}[kind]


@pytest.mark.parametrize("rows", [2, 20])
def test_more_rows_of_weights_than_32_bits_hold(rows, isa):
    """All numbers are the largest there are: one sum would leave int32."""
    layer = fastrnn.RNN(4100, 3, seed=1).eval()
    layer.flat_parameters[...] = 0
    layer.parameters["weight_ih_l0"][...] = 1e-4
    x = np.ones((1, rows, 4100), "f")
    want = np.tanh(0.41)
    np.testing.assert_allclose(layer.quantize("int8")(x)[0], want, rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_has_the_bits_of_rounded_weights(kind, options, isa, rng):
    layer = getattr(fastrnn, kind)(21, 37, seed=2, batch_first=True, **options).eval()
    x = rng.standard_normal((5, 6, 21)).astype("f")
    small = layer.quantize("bfloat16")
    got, want = small(x), rounded(layer)(x)
    np.testing.assert_array_equal(got[0], want[0])
    for a, b in zip(np.atleast_1d(got[1]), np.atleast_1d(want[1]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(
    not {"x86_v3", "x86_v4"} <= set(core.SUPPORTED), reason="needs two targets with FMA"
)
@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_targets_threads_rows_and_streams_have_the_same_bits(
    kind, weights, rng, on_threads
):
    layer = getattr(fastrnn, kind)(19, 150, 2, seed=3).eval()
    x = (3 * rng.standard_normal((5, 30, 19))).astype("f")
    want = layer.quantize(weights)(x)[0]
    for target in ("x86_v3", "x86_v4"):
        with core.use_isa(target):
            small = layer.quantize(weights)
        for n in (1, 2, 7):
            on_threads(n)
            np.testing.assert_array_equal(small(x)[0], want)
            np.testing.assert_array_equal(small(x[:, 4:5])[0], want[:, 4:5])
            np.testing.assert_array_equal(small(x[:, 4:7])[0], want[:, 4:7])
        stream = small.stream()
        steps = [stream.step(x_t[4:5]).copy() for x_t in x]
        np.testing.assert_array_equal(np.array(steps), want[:, 4:5])


@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize(("kind", "H"), [("LSTM", 800), ("GRU", 900), ("RNN", 1500)])
def test_threads_that_share_the_units_of_a_few_rows_have_the_same_bits(
    kind, H, weights, rng, on_threads
):
    """Megabytes of weights, of which each thread reads its own part in every step."""
    layer = getattr(fastrnn, kind)(16, H, seed=3).eval()
    x = rng.standard_normal((3, 3, 16)).astype("f")
    on_threads(1)
    small = layer.quantize(weights)
    want, end = small(x)
    ragged, ragged_end = small(x, lengths=[2, 3, 0])
    for n in (2, 3, 7):
        on_threads(n)
        y, state = small(x)
        np.testing.assert_array_equal(y, want)
        for a, b in zip(parts_of(state), parts_of(end), strict=True):
            np.testing.assert_array_equal(a, b)
        y, state = small(x, lengths=[2, 3, 0])
        np.testing.assert_array_equal(y, ragged)
        for a, b in zip(parts_of(state), parts_of(ragged_end), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(small(x[:, 1:2])[0], want[:, 1:2])
        stream = small.stream()
        steps = [stream.step(x_t[1:2]).copy() for x_t in x]
        np.testing.assert_array_equal(np.array(steps), want[:, 1:2])


@pytest.mark.parametrize("weights", FORMATS)
def test_a_state_is_taken_and_handed_on(weights, rng):
    """Larger than 1, too, where no bounded h comes from."""
    layer = fastrnn.LSTM(5, 20, 2, seed=4).eval()
    small = layer.quantize(weights)
    x = rng.standard_normal((6, 3, 5)).astype("f")
    start = tuple(2 * rng.standard_normal((2, 2, 3, 20)).astype("f"))
    y, end = small(x, start)
    first, between = small(x[:2], start)
    second, last = small(x[2:], between)
    np.testing.assert_array_equal(np.concatenate([first, second]), y)
    for a, b in zip(last, end, strict=True):
        np.testing.assert_array_equal(a, b)
    assert relative(y, layer(x, start)[0]) < 1e-2


@pytest.mark.parametrize("weights", FORMATS)
def test_nan_and_infinity_reach_their_own_row_alone(weights, rng):
    small = fastrnn.GRU(5, 20, seed=4).quantize(weights)
    x = rng.standard_normal((4, 3, 5)).astype("f")
    want = small(x)[0]
    x[1, 1, 2] = np.nan
    y = small(x)[0]
    assert np.isnan(y[1:, 1]).all()
    y[1:, 1] = want[1:, 1]
    np.testing.assert_array_equal(y, want)


def test_weights_are_small_and_the_layers_own():
    layer = fastrnn.LSTM(256, 256, seed=0)
    n_bytes = layer.flat_parameters.nbytes
    small = layer.quantize("int8")
    stored = small.state_dict()
    assert sum(array.nbytes for array in stored.values()) < 0.27 * n_bytes
    assert stored["weight_hh_l0"].dtype == np.int8
    assert repr(small) == "LSTM(256, 256, quantized='int8')"
    x = np.ones((2, 1, 256), "f")
    before = small(x)[0]
    layer.flat_parameters[...] = 0
    np.testing.assert_array_equal(small(x)[0], before)


@pytest.mark.parametrize(
    ("layer", "weights", "match"),
    [
        (lambda: fastrnn.LSTM(3, 4), "int4", "weights must be"),
        (lambda: fastrnn.LSTM(3, 4, dtype="float64"), "int8", "dtype='float64'"),
        (lambda: fastrnn.LSTM(3, 4, proj_size=2), "int8", "proj_size > 0"),
        (lambda: fastrnn.LSTM(3, 4, layer_norm=True), "int8", "layer_norm"),
        (lambda: fastrnn.GRU(3, 4, heads=2), "int8", "heads > 1"),
        (lambda: fastrnn.GRU(3, 4, reset_after=False), "int8", "reset_after=False"),
        (lambda: fastrnn.GRU(3, 4, zoneout=0.1), "int8", "zoneout"),
        (lambda: fastrnn.MGU(3, 4), "int8", "must be one of LSTM, GRU, RNN"),
        (lambda: fastrnn.RNN(3, 4).quantize(), "int8", "must have whole weights"),
    ],
)
def test_what_has_no_kernels_is_refused(layer, weights, match):
    with pytest.raises(ValueError, match=match):
        layer().quantize(weights)


def rounded(layer):
    """A copy whose W and R are of bfloat16: to nearest, ties to even."""
    made = copy.deepcopy(layer)
    for name, value in made.parameters.items():
        if name.startswith(("weight_ih", "weight_hh")):
            m, e = np.frexp(value.astype(np.float64))
            value[...] = np.ldexp(np.rint(np.ldexp(m, 8)), e - 8)
    return made


OPTIONS = [
    {},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"return_sequences": False, "num_layers": 2},
    {"go_backwards": True, "zero_output_for_mask": True},
    {"bidirectional": True, "merge_mode": "sum", "num_layers": 2},
    {"num_layers": 3, "connection": "highway"},
    {"num_layers": 2, "connection": "residual", "return_sequences": False},
    {"learn_initial_state": True, "bias": False},
    {"activation": "relu"},
    {"recurrent_dropout": 0.4, "input_dropout": 0.2, "weight_drop": 0.3},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_option_of_a_layer_and_of_a_call(kind, options, rng):
    """Of bfloat16 the bits are those of whole layers with rounded weights."""
    layer = getattr(fastrnn, kind)(21, 21, seed=2, **options).eval()
    if layer.learn_initial_state:
        layer.parameters["h_0"][...] = rng.standard_normal((1, 21))
    B, T = 4, 6
    x = rng.standard_normal((T, B, 21)).astype("f")
    x = x.swapaxes(0, 1) if layer.batch_first else x
    start = rng.standard_normal(
        (layer._states, layer.num_layers * layer._directions, B, 21)
    ).astype("f")
    calls = [
        {},
        {"hx": tuple(start) if kind == "LSTM" else start[0]},
        {"lengths": [3, 0, 6, 1]},
        {"mask": rng.random((B, T)) < 0.7},
    ]
    if not layer.bidirectional:
        calls.append({"resets": rng.random(x.shape[:2]) < 0.3})
    whole, small = rounded(layer), layer.quantize("bfloat16")
    exact, int8 = layer, layer.quantize("int8")
    for given in calls:
        want, got = whole(x, **given), small(x, **given)
        np.testing.assert_array_equal(got[0], want[0])
        for a, b in zip(parts_of(got[1]), parts_of(want[1]), strict=True):
            np.testing.assert_array_equal(a, b)
        assert relative(int8(x, **given)[0], exact(x, **given)[0]) < 3e-2


def test_a_stateful_layer_goes_on_from_its_state(rng):
    x = rng.standard_normal((6, 2, 3)).astype("f")
    layer = fastrnn.GRU(3, 8, stateful=True, seed=0).eval()
    layer(x[:2])
    small = layer.quantize("bfloat16")
    whole = rounded(layer)
    np.testing.assert_array_equal(small(x[2:])[0], whole(x[2:])[0])
    np.testing.assert_array_equal(small.state, whole.state)
    assert not np.array_equal(layer.state, whole.state)


def test_dropout_of_training_is_nothing_to_inference(rng):
    x = rng.standard_normal((5, 2, 3)).astype("f")
    options = {"recurrent_dropout": 0.4, "recurrent_dropout_mode": "candidate"}
    trained = fastrnn.GRU(3, 8, input_dropout=0.2, weight_drop=0.3, seed=0, **options)
    plain = fastrnn.GRU(3, 8, seed=0)
    want, got = (layer.eval().quantize("int8")(x)[0] for layer in (plain, trained))
    np.testing.assert_array_equal(got, want)


def test_weights_that_are_not_finite_are_refused_for_int8():
    layer = fastrnn.LSTM(3, 4)
    layer.flat_parameters[0] = np.inf
    with pytest.raises(ValueError, match="must be finite"):
        layer.quantize("int8")


@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle])
def test_copies_have_the_same_bits(way, weights, rng):
    small = fastrnn.LSTM(3, 5, 2, learn_initial_state=True, seed=0).quantize(weights)
    x = rng.standard_normal((4, 2, 3)).astype("f")
    want = small(x)[0]
    again = pickle.loads(pickle.dumps(small)) if way is pickle else way(small)
    np.testing.assert_array_equal(again(x)[0], want)
    np.testing.assert_array_equal(again.stream(2).step(x[0]), want[0])


@pytest.mark.parametrize("weights", FORMATS)
def test_state_dicts_and_files_are_loaded_exactly(weights, rng, tmp_path):
    small = fastrnn.GRU(3, 5, seed=0).quantize(weights)
    other = fastrnn.GRU(3, 5, seed=1).quantize(weights)
    x = rng.standard_normal((4, 2, 3)).astype("f")
    before = other(x)[0]  # packed once
    state = small.state_dict()
    other.load_state_dict(state)
    np.testing.assert_array_equal(other(x)[0], small(x)[0])
    state["weight_hh_l0"][...] = 0  # a copy
    np.testing.assert_array_equal(other(x)[0], small(x)[0])
    small.save(tmp_path / "small.safetensors")
    last = fastrnn.GRU(3, 5, seed=2, quantized=weights)
    last.load(tmp_path / "small.safetensors")
    np.testing.assert_array_equal(last(x)[0], small(x)[0])
    for name, wrong, match in (
        ("weight_ih_l0", state["weight_ih_l0"].astype("f"), "must be of type"),
        ("weight_ih_l0", state["weight_ih_l0"][:1], "must have shape"),
        ("bias_ih_l0", None, "missing bias_ih_l0"),
    ):
        given = {k: v for k, v in small.state_dict().items() if k != name}
        given |= {} if wrong is None else {name: wrong}
        with pytest.raises(ValueError, match=match):
            last.load_state_dict(given)
    if weights == "bfloat16":  # whose names are those of whole weights
        with pytest.raises(ValueError, match="must be numbers, got the bits"):
            fastrnn.GRU(3, 5).load_state_dict(small.state_dict())
    np.testing.assert_array_equal(last(x)[0], small(x)[0])
    assert not np.array_equal(before, small(x)[0])


def test_a_layer_can_be_made_small_from_the_start(rng):
    """It begins with the numbers that the whole layer begins with."""
    x = rng.standard_normal((4, 2, 3)).astype("f")
    made = fastrnn.LSTM(3, 5, forget_bias=1.0, seed=0, quantized="int8")
    want = fastrnn.LSTM(3, 5, forget_bias=1.0, seed=0).quantize("int8")
    np.testing.assert_array_equal(made(x)[0], want(x)[0])
    found_out = fastrnn.LSTM(None, 5, forget_bias=1.0, seed=0, quantized="int8")
    np.testing.assert_array_equal(found_out(x)[0], want(x)[0])
    with pytest.raises(ValueError, match="LSTM: quantized must be"):
        fastrnn.LSTM(3, 5, quantized="int4")
    with pytest.raises(ValueError, match="got compute='bfloat16'"):
        fastrnn.LSTM(3, 5, quantized="int8", compute="bfloat16")
    with pytest.raises(ValueError, match="not for quantized='int8'"):
        made.compute = "bfloat16"
    with pytest.raises(AttributeError, match="quantized is what the object was made"):
        made.quantized = None


def test_there_is_no_backward():
    small = fastrnn.LSTM(3, 5).quantize()
    y, _ = small.train()(np.ones((4, 2, 3), "f"))
    y[...] = 0  # nothing else needs it
    assert small.context is None
    with pytest.raises(RuntimeError, match="must have whole weights"):
        small.backward(np.ones_like(y))


def test_a_step_of_another_shape_is_refused():
    stream = fastrnn.LSTM(3, 4).quantize().stream(2)
    with pytest.raises(ValueError, match="x_t must have shape"):
        stream.step(np.zeros((1, 3), "f"))
    with pytest.raises(ValueError, match="must not be bidirectional"):
        fastrnn.LSTM(3, 4, bidirectional=True).quantize().stream()
