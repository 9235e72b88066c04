# SPDX-License-Identifier: BSD-3-Clause
"""recurrent/inputs.py and layer.py refuse bad input: each message word for word.

Every message names layer, argument, rule (in letters, then in numbers) and what came,
and nothing is changed when it is raised.
"""

import re

import numpy as np
import pytest

import fastrnn

KINDS = [fastrnn.RNN, fastrnn.LSTM, fastrnn.GRU]
NOT_INTEGERS = [2.5, "4", None, True]


def ones(*shape):
    return np.ones(shape, "float32")


def raises(error, message):
    return pytest.raises(error, match=f"^{re.escape(message)}$")


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers"])
@pytest.mark.parametrize(
    ("value", "error"),
    [*((n, ValueError) for n in (0, -3)), *((n, TypeError) for n in NOT_INTEGERS)],
)
def test_sizes(kind, name, value, error):
    if name == "input_size" and value is None:
        return  # found at the first call: test_build.py
    options = {"input_size": 3, "hidden_size": 4} | {name: value}
    who = kind.__name__
    message = f"{who}: {name} must be a positive integer, got {value!r}"
    with raises(error, message):
        kind(**options)


@pytest.mark.parametrize("name", ["bias", "batch_first", "bidirectional"])
@pytest.mark.parametrize("value", [1, None, "yes"])
def test_flags(kind, name, value):
    message = f"{kind.__name__}: {name} must be True or False, got {value!r}"
    with raises(TypeError, message):
        kind(3, 4, **{name: value})


@pytest.mark.parametrize(
    ("value", "error"),
    [
        *((p, ValueError) for p in (-0.1, 1.5, np.nan)),
        *((p, TypeError) for p in ("0.5", None, True)),
    ],
)
def test_dropout(kind, value, error):
    message = f"{kind.__name__}: dropout must be a number in [0, 1], got {value!r}"
    with raises(error, message):
        kind(3, 4, 2, dropout=value)


def test_dropout_of_a_single_layer_warns(kind):
    message = f"{kind.__name__}: dropout acts between layers, and num_layers is 1"
    with pytest.warns(UserWarning, match=f"^{message}$") as caught:
        kind(3, 4, dropout=0.5)
    assert caught[0].filename == __file__  # the line that made the layer


@pytest.mark.parametrize("value", ["float16", np.int32, None, "double precision", 5])
def test_dtype(kind, value):
    who = kind.__name__
    message = f"{who}: dtype must be 'float32' or 'float64', got {value!r}"
    with raises(ValueError, message):
        kind(3, 4, dtype=value)


@pytest.mark.parametrize("value", ["sigmoid", None, 1])
def test_nonlinearity(value):
    message = f"RNN: nonlinearity must be one of 'tanh', 'relu', got {value!r}"
    with raises(ValueError, message):
        fastrnn.RNN(3, 4, nonlinearity=value)


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), ("x", TypeError), (1.5, TypeError)]
)
def test_seed(kind, value, error):
    message = (
        f"{kind.__name__}: seed must be None, a non-negative integer or a "
        f"numpy.random.Generator, got {value!r}"
    )
    with raises(error, message):
        kind(3, 4, seed=value)


@pytest.mark.parametrize(
    ("x", "rule"),
    [
        (ones(5, 2, 27), "have shape (T, B, input_size) = (T, B, 28)"),
        (ones(28), "have shape (T, B, input_size) = (T, B, 28)"),
        (ones(1, 5, 2, 28), "have shape (T, B, input_size) = (T, B, 28)"),
        (np.float32(1), "have shape (T, B, input_size) = (T, B, 28)"),
        (ones(5, 27), "have shape (T, input_size) = (T, 28)"),
    ],
    ids=lambda value: str(getattr(value, "shape", "")),
)
def test_shape_of_x(kind, x, rule):
    layer = kind(28, 4)
    with raises(ValueError, f"{kind.__name__}: x must {rule}, got {np.shape(x)}"):
        layer(x)
    assert layer.context is None


def test_shape_of_x_batch_first(kind):
    who, rule = kind.__name__, "(B, T, input_size) = (B, T, 28)"
    with raises(ValueError, f"{who}: x must have shape {rule}, got (5, 2, 27)"):
        kind(28, 4, batch_first=True)(ones(5, 2, 27))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (0, 0, 3), (0, 3)])
def test_empty_x(kind, batch_first, shape):
    letters = "BT" if batch_first else "TB"
    if len(shape) == 2:
        letters = "T"
    letter = letters[shape.index(0)]
    message = f"{kind.__name__}: x must have {letter} >= 1, got shape {shape}"
    with raises(ValueError, message):
        kind(3, 4, batch_first=batch_first)(ones(*shape))


@pytest.mark.parametrize("dtype", ["complex64", "U3", "object", "datetime64[s]"])
def test_dtype_of_x(kind, dtype):
    x = np.zeros((2, 2, 3), dtype)
    with raises(
        TypeError, f"{kind.__name__}: x must be real numbers, got dtype {x.dtype}"
    ):
        kind(3, 4)(x)


@pytest.mark.parametrize(
    "x", [None, object(), {"a": 1}, "text"], ids=["None", "object", "dict", "str"]
)
def test_x_that_is_no_array(kind, x):
    dtype = np.asarray(x).dtype
    with raises(
        TypeError, f"{kind.__name__}: x must be real numbers, got dtype {dtype}"
    ):
        kind(3, 4)(x)


def test_ragged_x(kind):
    message = f"^{kind.__name__}: x must be a rectangular array of numbers, got list: "
    with pytest.raises(ValueError, match=message):
        kind(3, 4)([[[1.0, 2.0, 3.0]], [[1.0]]])


# What a state is called, on the way in and (its gradient) on the way back.
STATE_NAMES = [
    (fastrnn.RNN, ["hx"], ["d_state"]),
    (fastrnn.GRU, ["hx"], ["d_state"]),
    (fastrnn.LSTM, ["h0", "c0"], ["d_h_n", "d_c_n"]),
]
STATES = [
    (kind, position, names[position], d_names[position])
    for kind, names, d_names in STATE_NAMES
    for position in range(len(names))
]
STATE_IDS = [f"{kind.__name__}-{name}" for kind, _, name, _ in STATES]


def with_bad_state(kind, position, good, bad):
    """A state with `bad` in one position."""
    if kind is not fastrnn.LSTM:
        return bad
    return (bad, good) if position == 0 else (good, bad)


@pytest.mark.parametrize(("kind", "position", "name", "d_name"), STATES, ids=STATE_IDS)
@pytest.mark.parametrize("shape", [(2, 4), (1, 3, 4), (2, 3, 5), (2, 2, 4), (3, 2, 4)])
def test_shape_of_a_state(kind, position, name, d_name, shape):
    layer = kind(3, 4, num_layers=2)
    rule = "(num_layers * directions, B, hidden_size) = (2, 3, 4)"
    state = with_bad_state(kind, position, ones(2, 3, 4), ones(*shape))
    who = kind.__name__
    with raises(ValueError, f"{who}: {name} must have shape {rule}, got {shape}"):
        layer(ones(5, 3, 3), state)
    assert layer.context is None

    y, _ = layer(ones(5, 3, 3))
    context = layer.context
    who = f"{who}.backward"
    with raises(ValueError, f"{who}: {d_name} must have shape {rule}, got {shape}"):
        layer.backward(np.ones_like(y), state)
    assert layer.context is context
    assert not layer.flat_grads.any()
    layer.backward(np.ones_like(y))


@pytest.mark.parametrize(("kind", "position", "name", "d_name"), STATES, ids=STATE_IDS)
def test_shape_of_a_state_without_batch(kind, position, name, d_name):
    layer = kind(3, 4, bidirectional=True)
    rule = "(num_layers * directions, hidden_size) = (2, 4)"
    state = with_bad_state(kind, position, ones(2, 4), ones(2, 1, 4))
    message = f"{kind.__name__}: {name} must have shape {rule}, got (2, 1, 4)"
    with raises(ValueError, message):
        layer(ones(5, 3), state)


@pytest.mark.parametrize(("kind", "position", "name", "d_name"), STATES, ids=STATE_IDS)
def test_dtype_of_a_state(kind, position, name, d_name):
    layer = kind(3, 4)
    state = with_bad_state(kind, position, ones(1, 2, 4), np.ones((1, 2, 4), complex))
    who = kind.__name__
    message = f"{who}: {name} must be real numbers, got dtype complex128"
    with raises(TypeError, message):
        layer(ones(5, 2, 3), state)
    y, _ = layer(ones(5, 2, 3))
    message = f"{who}.backward: {d_name} must be real numbers, got dtype complex128"
    with raises(TypeError, message):
        layer.backward(np.ones_like(y), state)


@pytest.mark.parametrize(
    ("state", "came"),
    [
        (ones(1, 2, 4), "ndarray"),
        ((ones(1, 2, 4),), "tuple of length 1"),
        ([ones(1, 2, 4)] * 3, "list of length 3"),
        ("hc", "str"),
    ],
    ids=["array", "one", "three", "string"],
)
def test_the_state_of_an_lstm_is_a_pair(state, came):
    layer = fastrnn.LSTM(3, 4)
    with raises(TypeError, f"LSTM: h0 and c0 must come as a pair, got {came}"):
        layer(ones(5, 2, 3), state)
    y, _ = layer(ones(5, 2, 3))
    message = f"LSTM.backward: d_h_n and d_c_n must come as a pair, got {came}"
    with raises(TypeError, message):
        layer.backward(np.ones_like(y), state)


@pytest.mark.parametrize(
    ("x", "dy", "rule"),
    [
        ((5, 2, 3), (5, 2, 5), "(T, B, directions * hidden_size) = (5, 2, 8)"),
        ((5, 2, 3), (4, 2, 8), "(T, B, directions * hidden_size) = (5, 2, 8)"),
        ((5, 2, 3), (5, 1, 8), "(T, B, directions * hidden_size) = (5, 2, 8)"),
        ((5, 1, 3), (5, 8), "(T, B, directions * hidden_size) = (5, 1, 8)"),
        ((5, 2, 3), (), "(T, B, directions * hidden_size) = (5, 2, 8)"),
        ((5, 3), (5, 7), "(T, directions * hidden_size) = (5, 8)"),
        ((5, 3), (4, 8), "(T, directions * hidden_size) = (5, 8)"),
        ((5, 3), (5, 1, 8), "(T, directions * hidden_size) = (5, 8)"),
    ],
)
def test_shape_of_dy(kind, x, dy, rule):
    layer = kind(3, 4, bidirectional=True)
    layer(ones(*x))
    context = layer.context
    message = f"{kind.__name__}.backward: dy must have shape {rule}, got {dy}"
    with raises(ValueError, message):
        layer.backward(ones(*dy))
    assert layer.context is context
    assert not layer.flat_grads.any()


def test_dtype_of_dy(kind):
    layer = kind(3, 4)
    layer(ones(5, 2, 3))
    message = f"{kind.__name__}.backward: dy must be real numbers, got dtype complex64"
    with raises(TypeError, message):
        layer.backward(np.ones((5, 2, 4), "complex64"))


def test_nothing_to_go_back_from(kind):
    layer = kind(3, 4)
    layer(ones(5, 2, 3))
    message = f"{kind.__name__}.backward: dy and d_state must not both be None"
    with raises(ValueError, message):
        layer.backward(None)
    if kind is fastrnn.LSTM:
        with raises(ValueError, message):
            layer.backward(None, (None, None))
    layer.backward(ones(5, 2, 4))


def test_context(kind):
    layer, other = kind(3, 4), kind(3, 4)
    who = kind.__name__
    needs = f"{who}: backward needs a forward in training mode"
    with raises(RuntimeError, needs):
        layer.backward(ones(5, 2, 4))
    layer(ones(5, 2, 3))
    other(ones(5, 2, 3))
    message = f"{who}.backward: context must come from this layer's own forward"
    with raises(ValueError, message):
        layer.backward(ones(5, 2, 4), context=other.context)
    message = f"{who}.backward: context must be one that forward kept, got int"
    with raises(TypeError, message):
        layer.backward(ones(5, 2, 4), context=1)
    layer.backward(ones(5, 2, 4))
    message = (
        f"{who}.backward: context was already used; run forward again before a second "
        "backward"
    )
    with raises(RuntimeError, message):
        layer.backward(ones(5, 2, 4))
    layer.eval()
    layer(ones(5, 2, 3))
    with raises(RuntimeError, needs):
        layer.backward(ones(5, 2, 4))


def test_sizes_that_no_machine_holds_are_refused():
    message = (
        r"LSTM: a layer must have at most 1,000,000,000,000 parameters, "
        r"got sizes that make 4,000,000,000,020,000,000,000,000"
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        fastrnn.LSTM(3, 10**12)


def test_a_nonlinearity_that_is_no_string_is_refused():
    with pytest.raises(ValueError, match="RNN: nonlinearity must be one of 'tanh'"):
        fastrnn.RNN(3, 4, nonlinearity=np.array(["tanh", "relu"]))


def test_pythons_own_errors_name_no_private_class():
    lstm = fastrnn.LSTM(3, 4)
    with pytest.raises(TypeError, match=r"^forward\(\) got an unexpected keyword"):
        lstm(np.zeros((2, 1, 3)), length=[2])
    with pytest.raises(TypeError, match=r"^backward\(\) missing 1 required"):
        lstm.backward()
    with pytest.raises(TypeError, match=r"^LSTM.__init__\(\) got multiple values for"):
        fastrnn.LSTM(3, 4, units=5)
