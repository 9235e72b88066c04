# SPDX-License-Identifier: BSD-3-Clause
"""`SLSTM`: both forget gates, large gates, states of its own, and parity."""

import gradcheck
import numpy as np
import pytest
import reference

import fastrnn

I, H = 3, 5


def unstabilised(p, x, forget):
    """Equations 8 to 14 of the paper, without m: large gates overflow."""
    c = n = h = np.zeros((x.shape[1], H))
    for x_t in x:
        a = x_t @ p["weight_ih_l0"].T + h @ p["weight_hh_l0"].T
        i, f, z, o = np.split(a + p["bias_ih_l0"] + p["bias_hh_l0"], 4, axis=-1)
        f = np.exp(f) if forget == "exponential" else 1 / (1 + np.exp(-f))
        c = f * c + np.exp(i) * np.tanh(z)
        n = f * n + np.exp(i)
        h = c / n / (1 + np.exp(-o))
        yield h


def layer_of(forget, **options):
    layer = fastrnn.SLSTM(I, H, forget_gate=forget, dtype="float64", seed=0, **options)
    rng = np.random.default_rng(1)
    layer.flat_parameters[:] = rng.standard_normal(layer.flat_parameters.size)
    return layer


both = pytest.mark.parametrize("forget", ["sigmoid", "exponential"])


@both
def test_the_stabiliser_changes_no_output(isa, forget, rng):
    layer, x = layer_of(forget), rng.standard_normal((7, 4, I))
    want = np.array([*unstabilised(layer.parameters, x, forget)])
    np.testing.assert_allclose(layer(x)[0], want, rtol=1e-11)


@both
def test_gradients_of_all_states(isa, forget, rng):
    """Exact where the loss sees m, too, and whichever of the two m is."""
    layer = layer_of(forget)
    x, dy = rng.standard_normal((6, 3, I)), rng.standard_normal((6, 3, H))
    start = rng.standard_normal((4, 1, 3, H))
    start[2] = np.abs(start[2]) + 0.5
    d_end = rng.standard_normal((4, 1, 3, H))
    arrays = {"x": x, **dict(zip("hcnm", start, strict=True))}
    arrays |= {name: view.copy() for name, view in layer.parameters.items()}
    act = reference.plain("slstm")

    def loss(a):
        w = {"W": a["weight_ih_l0"], "R": a["weight_hh_l0"]}
        w |= {"b_ih": a["bias_ih_l0"][..., None, :]}
        w |= {"b_hh": a["bias_hh_l0"][..., None, :]}
        w["exp_forget"] = forget == "exponential"
        state, total = tuple(a[k][..., 0, :, :] for k in "hcnm"), 0
        for t in range(6):
            x_t = a["x"][..., t, :, :]
            state = reference.CELLS["slstm"].step(act, x_t, state, w)
            total = total + (state[0] * dy[t]).sum(axis=(-2, -1))
        for part, d in zip(state, d_end, strict=True):
            total = total + (part * d[0]).sum(axis=(-2, -1))
        return total

    want = gradcheck.complex_step(loss, arrays, arrays)
    layer(x, tuple(start))
    dx, d_start = layer.backward(dy, tuple(d_end))
    found = {"x": dx, **dict(zip("hcnm", d_start, strict=True)), **layer.grads}
    for name, gradient in want.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-8, atol=1e-10)


@both
def test_large_gates_overflow_nowhere(isa, dtype, forget, rng):
    layer = fastrnn.SLSTM(I, H, forget_gate=forget, dtype=dtype, seed=0)
    layer.parameters["weight_ih_l0"][...] *= 1e4
    y, _ = layer((rng.standard_normal((50, 3, I)) * 100).astype(dtype))
    assert (np.abs(y) <= 1).all()
    dx, _ = layer.backward(np.ones_like(y))
    assert np.isfinite(dx).all()
    assert all(np.isfinite(gradient).all() for gradient in layer.grads.values())


def test_an_empty_memory_takes_the_first_input_whole(isa, dtype):
    """However small the input gate is: nothing is divided by what vanished."""
    layer = fastrnn.SLSTM(I, H, dtype=dtype, seed=0)
    layer.parameters["bias_ih_l0"][:H] = -1000
    y, (_, c, n, m) = layer(np.ones((1, 2, I), dtype))
    assert np.isfinite(y).all()
    assert (n == 1).all()
    assert (m < -900).all()
    assert y.any()
    assert c.any()


@both
@pytest.mark.parametrize("every", [None, 3])
def test_lengths_masks_and_resets(forget, every, rng):
    """Each sequence, and each stretch from a reset on, has the bits of a call alone."""
    layer = layer_of(forget, num_layers=2, checkpoint_every=every)
    x, dy = rng.standard_normal((8, 3, I)), rng.standard_normal((8, 3, H))
    resets = np.zeros((8, 3), bool)
    resets[4, 1] = True
    y, end = layer(x, lengths=[8, 7, 0], resets=resets)
    dx, d_start = layer.backward(dy, tuple(np.ones_like(part) for part in end))
    assert len(end) == len(d_start) == 4
    assert not end[3][:, 2].any()
    np.testing.assert_array_equal([part[:, 2] for part in d_start], np.ones((4, 2, H)))
    cut, last = layer(x[4:7, 1:2])
    np.testing.assert_array_equal(y[4:7, 1:2], cut)
    for part, want in zip(end, last, strict=True):
        np.testing.assert_array_equal(part[:, 1:2], want)
    d_cut, _ = layer.backward(dy[4:7, 1:2], tuple(np.ones_like(p) for p in last))
    np.testing.assert_array_equal(dx[4:7, 1:2], d_cut)


def test_a_part_of_a_state_may_be_left_out(rng):
    layer, x = layer_of("sigmoid"), rng.standard_normal((4, 2, I))
    h = rng.standard_normal((1, 2, H))
    zero = np.zeros_like(h)
    y, _ = layer(x, (h, None, None, None))
    np.testing.assert_array_equal(y, layer(x, (h, zero, zero, zero))[0])
    with pytest.raises(TypeError, match="h0, c0, n0 and m0 must come as a tuple of 4"):
        layer(x, (h, zero))


def test_windows_and_stateful_calls_carry_all_states(rng):
    x = rng.standard_normal((9, 2, I))
    whole, _ = layer_of("sigmoid")(x)
    layer = layer_of("sigmoid", stateful=True)
    np.testing.assert_array_equal([*layer(x[:4])[0], *layer(x[4:])[0]], whole)
    layer.reset_state([True, False])
    assert not any(part[:, 0].any() for part in layer.state)
    assert all(part[:, 1].all() for part in layer.state)


@pytest.mark.parametrize("value", ["tanh", None])
def test_a_forget_gate_that_is_neither_is_refused(value):
    with pytest.raises(ValueError, match="SLSTM: forget_gate must be"):
        fastrnn.SLSTM(2, 3, forget_gate=value)


def test_parity_is_learned_and_holds_for_longer_sequences():
    """The paper's task of state tracking (its section 4.1): how many ones, odd or even.

    Trained on at most 40 steps, tried on 256, as there. A cell whose gates do not see
    its own state, such as a minGRU, cannot do it.
    """
    rng = np.random.default_rng(0)
    model = fastrnn.Sequential(
        fastrnn.SLSTM(2, 16, seed=0), fastrnn.Linear(16, 2, seed=1)
    )
    steps = fastrnn.Adam(model, lr=0.01)

    def sequences(T, n):
        bits = rng.integers(2, size=(T, n))
        return np.eye(2, dtype="f")[bits], bits.cumsum(axis=0) % 2

    for k in range(600):
        x, parity = sequences(min(40, 3 + k // 15), 64)
        logits = model[1](model[0](x)[0])
        _, d = fastrnn.cross_entropy(logits, parity)
        model.zero_grad()
        model[0].backward(model[1].backward(d))
        fastrnn.clip_grad_norm_(model, 1.0)
        steps.step()
    x, parity = sequences(256, 200)
    found = model[1](model[0](x)[0]).argmax(axis=-1)
    assert (found[-1] == parity[-1]).mean() > 0.9
    assert (found[:40] == parity[:40]).mean() > 0.99
