# SPDX-License-Identifier: BSD-3-Clause
"""`tbptt` against loops written by hand."""

import numpy as np
import pytest

import fastrnn
from fastrnn.recurrent import table

T, B, I, H = 23, 3, 4, 6


def make(kind, **options):
    return kind(I, H, num_layers=2, dtype="float64", seed=0, **options)


def series():
    rng = np.random.default_rng(1)
    return rng.standard_normal((T, B, I)), rng.standard_normal((T, B, H))


@pytest.mark.parametrize("k1", [1, 5, 23, 40])
@pytest.mark.parametrize("kind", table.classes().values())
def test_equal_windows_are_the_loop_with_a_carried_state(kind, k1):
    layer, same, (x, dy) = make(kind), make(kind), series()
    state = None
    for number, window in enumerate(fastrnn.tbptt(x, k1)):
        steps = slice(number * k1, min((number + 1) * k1, T))
        assert (window.start, window.stop, window.warm_up) == (
            steps.start,
            steps.stop,
            0,
        )
        y = window.forward(layer)
        want, state = same(x[steps], state)
        np.testing.assert_array_equal(y, want)
        dx = window.backward(layer, dy[window.steps])
        want_dx, _ = same.backward(dy[steps])
        np.testing.assert_array_equal(dx, want_dx)
        np.testing.assert_array_equal(layer.flat_grads, same.flat_grads)
        for one in (layer, same):  # the weights move, as in training
            one.flat_parameters[:] -= 0.01 * one.flat_grads
    assert steps.stop == T


@pytest.mark.parametrize("first", [False, True], ids=["", "batch_first"])
@pytest.mark.parametrize(("k1", "k2"), [(1, 4), (3, 5), (5, 10), (4, 13), (6, 99)])
@pytest.mark.parametrize("kind", table.classes().values())
def test_gradients_of_new_steps_go_back_k2(kind, k1, k2, first):
    """With weights that stay, each window is the end of one long forward."""
    layer, same, (x, dy) = make(kind, batch_first=first), make(kind), series()
    whole, _ = same(x)

    def turned(a):
        return a.swapaxes(0, 1) if first else a

    seen = []
    for window in fastrnn.tbptt(turned(x), k1, k2, batch_first=first):
        start = max(0, window.steps.start + k1 - k2)
        assert window.start == start
        state = None if start == 0 else same(x[:start])[1]
        y = turned(window.forward(layer))
        np.testing.assert_array_equal(y, whole[start : window.stop])
        layer.zero_grad()
        same.zero_grad()
        dx = turned(window.backward(layer, turned(dy[window.steps])))
        same(x[start : window.stop], state)
        padded = np.zeros((window.stop - start, B, H))
        padded[window.new] = dy[window.steps]
        want, _ = same.backward(padded)
        np.testing.assert_allclose(dx, want, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(
            layer.flat_grads, same.flat_grads, rtol=1e-11, atol=1e-12
        )
        seen += range(window.steps.start, window.steps.stop)
    assert seen == list(range(T))


def test_layers_on_top_of_each_other():
    """A stack made of two layers is the stack made of one."""
    x, dy = series()
    both = make(fastrnn.LSTM)
    lower, upper = (fastrnn.LSTM(n, H, dtype="float64", seed=0) for n in (I, H))
    for k, layer in enumerate((lower, upper)):
        for name, value in layer.parameters.items():
            value[...] = both.parameters[name.replace("_l0", f"_l{k}")]
    for window in fastrnn.tbptt(x, 3, 8):
        want = window.forward(both)
        got = window.forward(upper, window.forward(lower))
        np.testing.assert_array_equal(got, want)
        dx = window.backward(lower, window.backward(upper, dy[window.steps]))
        np.testing.assert_array_equal(dx, window.backward(both, dy[window.steps]))


def test_what_is_refused():
    x, layer = np.ones((6, 2, I)), make(fastrnn.GRU)
    for arguments, message in (
        ((x, 0), "k1 must be a positive integer, got 0"),
        ((x, 3, 2), "k2 must be at least k1 = 3, got 2"),
        ((x[:0], 3), "x must have T >= 1"),
    ):
        with pytest.raises(ValueError, match=f"tbptt: {message}"):
            fastrnn.tbptt(*arguments)
    with pytest.raises(TypeError, match="tbptt: k1 must be a positive integer"):
        fastrnn.tbptt(x, 2.0)
    window = next(fastrnn.tbptt(x, 3))
    with pytest.raises(RuntimeError, match="layer needs a forward of this window"):
        window.backward(layer, np.ones((3, 2, H)))
    with pytest.raises(ValueError, match="x must have the window's 3 steps"):
        window.forward(layer, x)
    window.forward(layer)
    with pytest.raises(ValueError, match="dy must have the window's 3 steps"):
        window.backward(layer, np.ones((2, 2, H)))
    for options, message in (
        ({"bidirectional": True}, "layer must not be bidirectional"),
        ({"stateful": True}, "layer must not be stateful"),
        ({"return_sequences": False}, "return sequences"),
        ({"batch_first": True}, "batch_first=False"),
    ):
        with pytest.raises(ValueError, match=message):
            window.forward(make(fastrnn.GRU, **options))
