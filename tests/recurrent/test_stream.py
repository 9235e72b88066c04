# SPDX-License-Identifier: BSD-3-Clause
"""stream.py: steps give the bits of a forward, state in place, resets, refusals."""

import copy
import pickle

import numpy as np
import pytest
from cells import KINDS, parts_of, state_of

import fastrnn


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("B", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_give_the_bits_of_a_forward(kind, B, num_layers, isa, dtype, rng):
    layer = getattr(fastrnn, kind)(7, 19, num_layers, dtype=dtype, seed=3).eval()
    x = rng.standard_normal((6, B, 7)).astype(dtype)
    state = rng.standard_normal((layer._states, num_layers, B, 19)).astype(dtype)
    state[2:] = np.abs(state[2:])  # an sLSTM's n is positive
    y, last = layer(x, state_of(state))
    stream = layer.stream(B)
    of_stream = stream.state
    assert of_stream[0] is stream.h
    for part, given in zip(of_stream, state, strict=True):
        part[...] = given
    steps = np.array([stream.step(x_t).copy() for x_t in x])
    np.testing.assert_array_equal(steps, y)
    for part, want in zip(of_stream, parts_of(last), strict=True):
        np.testing.assert_array_equal(part, want)


@pytest.mark.parametrize("B", [1, 3, 30])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("RNN", {}),
        ("LSTM", {}),
        ("LSTM", {"proj_size": 70}),
        ("GRU", {}),
        ("GRU", {"reset_after": False}),
        ("MGU", {}),
        ("LiGRU", {}),
        ("LeakyRNN", {}),
        ("SLSTM", {}),
    ],
)
def test_the_order_of_panels_changes_no_bit(kind, options, B, isa, rng):
    """Every other step goes through the weights from their end: several panels."""
    layer = getattr(fastrnn, kind)(90, 150, seed=3, **options).eval()
    x = rng.standard_normal((3, B, 90)).astype("f")
    want = layer(x)[0]
    stream = layer.stream(B)
    for _ in range(2):  # three steps later the order is the other one
        stream.reset()
        for x_t, y_t in zip(x, want, strict=True):
            np.testing.assert_array_equal(stream.step(x_t), y_t)


def test_reset_of_some_signals(rng):
    lstm = fastrnn.LSTM(3, 5, seed=0)
    x = rng.standard_normal((2, 4, 3)).astype("f")
    stream = lstm.stream(4)
    first = stream.step(x[0]).copy()
    stream.reset([True, False, True, False])
    second = stream.step(x[0]).copy()
    np.testing.assert_array_equal(second[::2], first[::2])
    assert (second[1::2] != first[1::2]).any()
    stream.reset()
    np.testing.assert_array_equal(stream.step(x[0]), first)


def test_output_is_one_array_and_weights_are_a_copy(rng):
    gru = fastrnn.GRU(3, 5, seed=0)
    x = rng.standard_normal((1, 3)).astype("f")
    stream = gru.stream()
    first = stream.step(x)
    kept = first.copy()
    gru.flat_parameters[...] = 0
    stream.reset()
    assert stream.step(x) is first
    np.testing.assert_array_equal(first, kept)


def test_refusals_change_nothing(rng):
    lstm = fastrnn.LSTM(3, 5, seed=0)
    stream = lstm.stream(2)
    x = rng.standard_normal((2, 3)).astype("f")
    stream.step(x)
    before = stream.h.copy(), stream.c.copy()
    message = r"Stream\.step: x_t must have shape \(B, input_size\) = \(2, 3\)"
    with pytest.raises(ValueError, match=message):
        stream.step(x.T)
    message = r"Stream\.step: x_t must be a float32 array, got "
    with pytest.raises(TypeError, match=message + "float64"):
        stream.step(x.astype("d"))
    with pytest.raises(TypeError, match=message + "a list"):
        stream.step(x.tolist())
    with pytest.raises(TypeError, match=message + "a memoryview"):
        stream.step(memoryview(x.astype("d")))
    message = r"Stream\.step: x_t must be C-contiguous, got strides \(4, 8\)"
    with pytest.raises(ValueError, match=message):
        stream.step(np.asfortranarray(x))
    with pytest.raises(ValueError, match=r"mask must have shape \(B,\) = \(2,\)"):
        stream.reset([True])
    with pytest.raises(TypeError, match="mask must be bool, got int64"):
        stream.reset([1, 0])
    with pytest.raises(ValueError, match=r"LSTM\.stream: the layer must not be bidir"):
        fastrnn.LSTM(3, 5, bidirectional=True).stream()
    with pytest.raises(ValueError, match="batch_size must be a positive integer"):
        lstm.stream(0)
    np.testing.assert_array_equal(stream.h, before[0])
    np.testing.assert_array_equal(stream.c, before[1])


@pytest.mark.parametrize("small", [False, True])
def test_a_state_that_is_assigned_is_copied(small, rng):
    layer = fastrnn.LSTM(3, 5, num_layers=2, seed=0).eval()
    layer = layer.quantize("int8") if small else layer
    one, other = layer.stream(2), layer.stream(2)
    x = rng.standard_normal((6, 2, 3)).astype("f")
    for x_t in x[:3]:
        one.step(x_t)
    other.state = one.state
    for x_t in x[3:]:
        np.testing.assert_array_equal(one.step(x_t), other.step(x_t))
    kept = [part.copy() for part in other.state]
    for bad, message in (
        (3, "must have 2 arrays, got 1"),
        ((kept[0], kept[1][0]), r"must have shape \(2, 2, 5\), got \(2, 5\)"),
    ):
        with pytest.raises(ValueError, match=f"Stream.state: .*{message}"):
            other.state = bad
    for part, was in zip(other.state, kept, strict=True):
        np.testing.assert_array_equal(part, was)
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="Stream cannot be copied or pickled: make"):
            way(one)
