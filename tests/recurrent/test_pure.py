# SPDX-License-Identifier: BSD-3-Clause
"""`recurrence`: judged by the cells' equations in float64 and their complex steps."""

import concurrent.futures
import gc
import weakref

import numpy as np
import option_cells
import pytest
import reference

import fastrnn
from fastrnn.native.layout import Layout
from fastrnn.recurrent import pure
from fastrnn.recurrent.packers import Packers
from fastrnn.recurrent.pure import Form, recurrence

STEP = 1e-30
I, H, B, T = 3, 17, 5, 7


def equations(cell, weights, x, h0, c0, mask, hold, act):
    """y and the last states of a masked sequence, from `reference`'s step."""
    w = dict(zip(("W", "R", "b_ih", "b_hh"), weights, strict=False))
    w = {"b_ih": 0.0 * weights[0][:, 0], "b_hh": 0.0 * weights[0][:, 0]} | w
    state, shown, ys = [h0] if c0 is None else [h0, c0], 0 * h0, []
    for x_t, computed in zip(x, mask[..., None], strict=True):
        new = reference.CELLS[cell].step(act, x_t, state, w)
        state = [np.where(computed, a, b) for a, b in zip(new, state, strict=True)]
        shown = np.where(computed, new[0], shown if hold else 0)
        ys.append(shown)
    return [np.stack(ys), *state]


def plain(cell):
    names = reference.CELLS[cell].functions
    return lambda k, a: reference.FUNCTIONS[names[k]](a)


def draw(form, masked, seed=0):
    """Weights, x, h0 and c0 of a form, and a mask."""
    random = np.random.default_rng(seed)
    found = recurrence(form)
    weights = [random.normal(size=shape) for shape in found.weight_shapes]
    x = random.normal(size=(T, B, I))
    states = [random.normal(size=(B, H)) for _ in range(found.n_states)]
    mask = np.ones((T, B), bool)
    if masked:
        mask = random.random((T, B)) < 0.6
        mask[:, 2] = False
    return found, weights, x, [*states, None][:2], mask


def check(form, masked, hold, act=None):
    """Values to rounding errors, gradients along random directions likewise."""
    found, weights, x, (h0, c0), mask = draw(form, masked)
    act = act or plain(form.cell)
    y, *ends, tape = found.forward(weights, x, h0, c0, mask=mask, hold=hold)
    ends = ends[: found.n_states]
    expected = equations(form.cell, weights, x, h0, c0, mask, hold, act)
    for ours, theirs in zip([y, *ends], expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)

    random = np.random.default_rng(1)
    gradients = [random.normal(size=part.shape) for part in (y, *ends)]
    got = found.backward(weights, x, h0, c0, y, tape, *gradients, mask=mask, hold=hold)
    dx, dh0, dc0, dweights = got
    inputs = [x, h0, *([] if c0 is None else [c0]), *weights]
    ours = [dx, dh0, *([] if c0 is None else [dc0]), *dweights]
    for k, gradient in enumerate(ours):
        direction = random.normal(size=gradient.shape)
        moved = list(inputs)
        moved[k] = inputs[k] + 1j * STEP * direction
        some, n = moved[1 : 1 + found.n_states], 1 + found.n_states
        results = equations(
            form.cell, moved[n:], moved[0], *[*some, None][:2], mask, hold, act
        )
        slope = sum(
            np.sum(d * part.imag) / STEP
            for d, part in zip(gradients, results, strict=True)
        )
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-9)


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "cell", ["rnn_tanh", "rnn_relu", "lstm", "gru", "mgu", "ligru"]
)
def test_values_and_gradients(cell, masked, hold):
    check(Form(cell, I, H, "float64"), masked, hold)


@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru"])
def test_without_biases(cell):
    check(Form(cell, I, H, "float64", bias=False), True, True)


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("lstm", ("hard_sigmoid", "hard_sigmoid", "relu", "hard_sigmoid", "relu")),
        ("gru", ("sigmoid", "sigmoid", "softsign")),
        ("rnn_tanh", ("affine",)),
    ],
)
def test_other_functions(cell, names):
    alpha, beta = option_cells.ALPHA, option_cells.BETA

    def act(k, a):
        if names[k] == "hard_sigmoid":  # numpy.clip takes no complex numbers
            a = alpha * a + beta
            return np.where(a.real <= 0, 0, np.where(a.real >= 1, 1, a))
        if names[k] == "softsign":
            return a / (1 + np.where(a.real < 0, -a, a))
        if names[k] in reference.FUNCTIONS and names[k] != "affine":
            return reference.FUNCTIONS[names[k]](a)
        return option_cells.FUNCTIONS[names[k]](a, alpha, beta)

    functions = tuple((name, alpha, beta) for name in names)
    check(Form(cell, I, H, "float64", activations=functions), True, True, act)


def test_reset_before_the_product():
    def act(k, a):
        return plain("gru")(k, a)

    form = Form("gru", I, H, "float64", reset_before=True)
    found, weights, x, (h0, _), mask = draw(form, True)
    y, h_n, _, _ = found.forward(weights, x, h0, mask=mask)
    state, ys, shown = h0, [], 0 * h0
    w = dict(zip(("W", "R", "b_ih", "b_hh"), weights, strict=True), reset_before=True)
    for x_t, computed in zip(x, mask[..., None], strict=True):
        (new,) = reference.CELLS["gru"].step(act, x_t, [state], w)
        state = np.where(computed, new, state)
        shown = np.where(computed, new, shown)
        ys.append(shown)
    np.testing.assert_allclose(y, np.stack(ys), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(h_n, state, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_layouts_and_outputs_that_are_given(masked):
    found, weights, x, (h0, c0), mask = draw(Form("lstm", I, H, "float64"), masked)
    usual = found.forward(weights, x, h0, c0, mask=mask)
    turned = [np.asfortranarray(w) for w in weights]
    others = {
        "batch major": np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1),
        "backwards in memory": np.ascontiguousarray(x[::-1])[::-1],
        "columns first": np.asfortranarray(x),
        "every other": np.repeat(x, 2, axis=2)[..., ::2],
    }
    dy = np.random.default_rng(2).normal(size=usual[0].shape)
    gradients = found.backward(weights, x, h0, c0, usual[0], usual[3], dy, mask=mask)
    for name, other in others.items():
        out = [np.full_like(part, np.nan) for part in usual]
        again = found.forward(turned, other, h0, c0, mask=mask, out=out)
        assert all(a is b for a, b in zip(again, out, strict=True)), name
        for a, b in zip(again[:3], usual[:3], strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
        into = [np.full_like(part, np.nan) for part in gradients[:3]]
        into.append([np.full_like(part, np.nan) for part in gradients[3]])
        found.backward(
            turned, other, h0, c0, again[0], again[3], dy, mask=mask, out=into
        )
        for a, b in zip(
            [*into[:3], *into[3]], [*gradients[:3], *gradients[3]], strict=True
        ):
            np.testing.assert_array_equal(a, b, err_msg=name)


def test_nothing_is_computed():
    found, weights, x, (h0, c0), mask = draw(Form("lstm", I, H, "float64"), False)
    y, h_n, c_n, tape = found.forward(weights, x, h0, c0, mask=~mask)
    assert not y.any()
    assert (h_n == h0).all()
    assert (c_n == c0).all()
    dx, dh0, dc0, dweights = found.backward(
        weights, x, h0, c0, y, tape, y + 1, h0, c0, mask=~mask
    )
    assert not dx.any()
    assert (dh0 == h0).all()
    assert (dc0 == c0).all()
    assert not any(dw.any() for dw in dweights)
    for empty in (x[:0], x[:, :0]):
        rows = empty.shape[1]
        y, h_n, _, tape = found.forward(weights, empty, h0[:rows], c0[:rows])
        assert y.shape == (*empty.shape[:2], H)
        assert tape.shape == (0,)
        np.testing.assert_array_equal(h_n, h0[:rows])


def test_what_may_not_be_written_to_is_refused():
    found, weights, x, _, _ = draw(Form("gru", I, H, "float64"), False)
    y = np.empty((T, B, H))
    y.setflags(write=False)
    with pytest.raises(ValueError, match="an output must be an array to pass on"):
        found.forward(weights, x, out=(y, None, None, None))
    with pytest.raises(ValueError, match=r"a weight must have 153 elements"):
        found.forward([weights[0][:, :2], *weights[1:]], x)
    with pytest.raises(ValueError, match="of the kernels' dtype"):
        found.forward(weights, x.astype(np.float32))


def test_a_site_packs_weights_again_only_when_they_change():
    found, weights, x, (h0, c0), _ = draw(Form("lstm", I, H, "float64"), False)
    first = found.forward(weights, x, h0, c0, site="here")[0]
    packer = pure._packers.get(found._layout, "here", 0)
    (packed,) = packer.current
    copies = [w.copy() for w in weights]  # the same numbers elsewhere
    again = found.forward(copies, x, h0, c0, site="here")[0]
    assert packer.current[0] is packed
    np.testing.assert_array_equal(again, first)
    weights[1][0, 0] += 1
    changed = found.forward(weights, x, h0, c0, site="here")[0]
    assert packer.current[0] is not packed
    assert (changed != first).any()


def test_packed_weights_go_when_they_are_too_many_or_their_site_goes():
    class Site:
        pass

    packers = Packers(most_bytes=100, least=2)
    lstm, gru = (Layout(cell, I, H, 1, 1, True) for cell in ("lstm", "gru"))
    first, second = packers.get(lstm, "a", 60), packers.get(gru, "a", 60)
    assert packers.get(lstm, "a", 60) is first  # two always stay
    assert packers.get(lstm, "b", 60) is not first
    assert packers.get(lstm, "a", 60) is first
    assert packers.get(gru, "a", 60) is not second  # it was not used the longest
    site = Site()
    packers = Packers(most_bytes=100, least=2)
    gone = weakref.ref(packers.get(lstm, site, 1))
    assert packers.get(lstm, site, 1) is gone()
    kept = packers.get(lstm, "a", 1)
    del site
    gc.collect()
    assert gone() is None
    assert packers.get(lstm, "a", 1) is kept


def test_threads_of_others_may_call_at_once():
    cases = []
    for seed in range(6):
        form = Form("lstm", I, H, "float64")
        found, weights, x, (h0, c0), mask = draw(form, bool(seed % 2), seed)
        cases.append((weights, x, h0, c0, mask))

    def run(case):
        weights, x, h0, c0, mask = case
        y, _, _, tape = found.forward(weights, x, h0, c0, mask=mask, site=0)
        return found.backward(weights, x, h0, c0, y, tape, y, mask=mask, site=0)[3][1]

    expected = [run(case) for case in cases]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            for dR, right in zip(pool.map(run, cases), expected, strict=True):
                np.testing.assert_array_equal(dR, right)


def test_the_bits_are_those_of_the_layer():
    lstm = fastrnn.LSTM(I, H, seed=3)
    weights = [w.copy() for w in lstm.parameters.values()]
    x = np.random.default_rng(4).normal(size=(T, B, I)).astype(np.float32)
    y, (h_n, c_n) = lstm(x)
    found = recurrence(Form("lstm", I, H, "float32")).forward(weights, x, keep=False)
    np.testing.assert_array_equal(found[0], y)
    np.testing.assert_array_equal(found[1], h_n[0])
    np.testing.assert_array_equal(found[2], c_n[0])
    assert found[3] is None


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_that_are_not_wanted(masked):
    form = Form("gru", I, H, "float64")
    found, weights, x, (h0, c0), mask = draw(form, masked)
    y, _, _, tape = found.forward(weights, x, h0, c0, mask=mask)
    arguments = weights, x, h0, c0, y, tape, y
    dx, dh0, _, dweights = found.backward(*arguments, mask=mask)
    for name in ("wants_dx", "wants_dweights"):
        some = found.backward(*arguments, mask=mask, **{name: False})
        got = {"wants_dx": some[3], "wants_dweights": [some[0]]}[name]
        expected = {"wants_dx": dweights, "wants_dweights": [dx]}[name]
        left_out = {"wants_dx": [some[0]], "wants_dweights": some[3]}[name]
        assert all(part is None for part in left_out)
        for a, b in zip([some[1], *got], [dh0, *expected], strict=True):
            np.testing.assert_array_equal(a, b)
