# SPDX-License-Identifier: BSD-3-Clause
"""Normalised cells: their equations, gradients, bits and arguments."""

import norm_reference as reference
import numpy as np
import pytest

import fastrnn
from fastrnn import GRU, LSTM, RNN, LiGRU
from fastrnn.native import celltable, core, single
from fastrnn.recurrent import arguments

FORMS = {
    LSTM: ("input", "gates", "cell", "carried", "per_gate"),
    GRU: ("input", "apart", "joint"),
    RNN: ("input", "apart", "joint"),
    LiGRU: ("input",),
}
CASES = [
    pytest.param(cls, form, name, id=f"{cls.__name__}-{form}-{name}")
    for cls, forms in FORMS.items()
    for form in forms
    for name in ("layer_norm", "rms_norm")
]
STEPS = {LSTM: reference.lstm, GRU: reference.gru, RNN: reference.rnn}
STEPS[LiGRU] = reference.ligru


def make(cls, form, name, I, H, dtype="float64", **options):
    """A layer whose parameters all have some value of their own."""
    layer = cls(I, H, dtype=dtype, seed=1, **{name: form}, **options)
    rng = np.random.default_rng(2)
    for value in layer.parameters.values():
        value += 0.3 * rng.standard_normal(value.shape)
    return layer


def batch(cls, layer, T, B, I, H, seed=3):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((T, B, I)).astype(layer.dtype)
    state = [rng.standard_normal((1, B, H)).astype(layer.dtype) for _ in range(2)]
    return x, tuple(state) if cls is LSTM else state[0]


@pytest.mark.parametrize("H", [5, 19])
@pytest.mark.parametrize(("cls", "form", "name"), CASES)
def test_outputs_and_gradients_are_those_of_the_equations(cls, form, name, H):
    T, B, I = 4, 3, 6
    layer = make(cls, form, name, I, H)
    x, hx = batch(cls, layer, T, B, I, H)
    h0, c0 = (hx[0][0], hx[1][0]) if cls is LSTM else (hx[0], None)
    p = {key.removesuffix("_l0"): value for key, value in layer.parameters.items()}
    rms = name == "rms_norm"
    rng = np.random.default_rng(4)
    dy = rng.standard_normal((T, B, H))

    y, end = layer(x, hx)
    expected, _, c_n = reference.run(STEPS[cls], p, x, h0, c0, form, rms)
    np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-12)
    dc_n = None
    if cls is LSTM:
        np.testing.assert_allclose(end[1][0], c_n, rtol=1e-11, atol=1e-12)
        dc_n = rng.standard_normal((B, H))
    d_end = (np.zeros((1, B, H)), dc_n[None]) if cls is LSTM else None
    layer.zero_grad()
    dx, d_start = layer.backward(dy, d_end)

    found = {key.removesuffix("_l0"): value for key, value in layer.grads.items()}
    found["x"] = dx
    found["h0"] = d_start[0][0] if cls is LSTM else d_start[0]
    values = {**p, "x": x, "h0": h0}
    if cls is LSTM:
        found["c0"], values["c0"] = d_start[1][0], c0

    def loss(values):
        values = dict(values)
        x, h, c = (values.pop(key, None) for key in ("x", "h0", "c0"))
        y, _, c_n = reference.run(STEPS[cls], values, x, h, c, form, rms)
        return (y * dy).sum() + (0 if dc_n is None else (c_n * dc_n).sum())

    assert found.keys() == values.keys()
    for key, value in values.items():
        direction = rng.standard_normal(value.shape)
        step = loss({**values, key: value + 1e-30j * direction}).imag / 1e-30
        np.testing.assert_allclose(
            (found[key] * direction).sum(), step, rtol=1e-9, atol=1e-10, err_msg=key
        )


def results(cls, form, name, dtype, H=37, T=9, B=6, **options):
    layer = make(cls, form, name, 7, H, dtype, **options)
    rng = np.random.default_rng(5)
    x = rng.standard_normal((T, B, 7)).astype(dtype)
    layer.zero_grad()
    y, _ = layer(x)
    dx, _ = layer.backward(rng.standard_normal(y.shape).astype(dtype))
    return y, dx, {key: value.copy() for key, value in layer.grads.items()}


def assert_same_bits(one, other):
    for a, b in zip(one[:2], other[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    for key, value in one[2].items():
        np.testing.assert_array_equal(value, other[2][key], err_msg=key)


@pytest.mark.parametrize(("cls", "form", "name"), CASES)
def test_bits_depend_on_no_schedule(cls, form, name, dtype, n_threads):
    size = {"H": 67, "T": 12, "B": 5}
    found = []
    for isa in core.SUPPORTED:
        if isa == "baseline":  # it rounds twice where the others round once
            continue
        for every in (None, 5):
            with core.use_isa(isa):
                found.append(
                    results(cls, form, name, dtype, checkpoint_every=every, **size)
                )
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(1)
    expected = results(cls, form, name, dtype, **size)
    fastrnn.set_num_threads(before)
    if core.SUPPORTED[0] != "baseline":
        for one in found:
            assert_same_bits(expected, one)


@pytest.mark.parametrize(("cls", "form", "name"), CASES)
def test_a_row_alone_and_a_stream_have_the_bits_of_the_batch(cls, form, name):
    layer = make(cls, form, name, 4, 21, "float32", num_layers=2).eval()
    x = np.random.default_rng(6).standard_normal((6, 5, 4)).astype("float32")
    y, _ = layer(x)
    np.testing.assert_array_equal(layer(x[:, 2:3])[0], y[:, 2:3])
    stream = layer.stream(5)
    steps = np.stack([stream.step(now).copy() for now in x])
    np.testing.assert_array_equal(steps, y)
    ragged, _ = layer(x, lengths=[6, 2, 4, 0, 1])
    np.testing.assert_array_equal(ragged[:4, 2], y[:4, 2])


@pytest.mark.parametrize("cls", FORMS)
def test_sums_over_steps_depend_on_no_schedule(cls):
    """Of more steps than a chain of sums has, in a block that several calls share."""
    T, lengths = 53, [53, 50, 20]
    x = np.random.default_rng(8).standard_normal((T, 3, 7))
    dy = np.random.default_rng(9).standard_normal((T, 3, 35))
    form = FORMS[cls][-1]

    def gradients(dtype, n_threads, every):
        fastrnn.set_num_threads(n_threads)
        layer = make(cls, form, "layer_norm", 7, 35, dtype, checkpoint_every=every)
        layer.zero_grad()
        layer(x.astype(dtype), lengths=lengths)
        layer.backward(dy.astype(dtype))
        return layer.grads

    before = fastrnn.get_num_threads()
    exact, found = gradients("float64", 1, None), gradients("float32", 1, None)
    for n_threads, every in ((1, 7), (2, None), (2, 20), (7, 9)):
        other = gradients("float32", n_threads, every)
        for key, value in found.items():
            np.testing.assert_array_equal(value, other[key], err_msg=key)
    fastrnn.set_num_threads(before)
    for key, value in exact.items():
        error = np.abs(found[key] - value).max() / np.abs(value).max()
        assert error < 1e-4, key


@pytest.mark.parametrize("cls", FORMS)
def test_what_a_norm_may_be_is_said(cls):
    with pytest.raises(ValueError, match=r"layer_norm must be one of .* got 'joined'"):
        cls(3, 4, layer_norm="joined")
    with pytest.raises(TypeError, match="rms_norm must be True, False or a name"):
        cls(3, 4, rms_norm=2)
    with pytest.raises(ValueError, match="must not both be given"):
        cls(3, 4, layer_norm=True, rms_norm=True)
    layer = cls(3, 4, layer_norm=True)
    assert (layer.parameters["weight_norm_ih_l0"] == 1).all()
    assert "layer_norm=True" in repr(layer)


def test_native_calls_refuse_parts_that_a_cell_has_not():
    kernels, more = core.kernels("float64"), np.zeros(4)
    shape = single.Shape(celltable.CELLS["lstm"], False, 1, 1, 3, 4)
    packed = np.zeros(single.packed_size(kernels, False, shape))
    weights = np.zeros((16, 3)), np.zeros((16, 4)), None, None
    for name in ("P", "W_hr", "norm_ih", "norm_hh", "norm_c", "norm_c_bias"):
        with pytest.raises(ValueError, match=f"pack: {name} must be None for this"):
            single.pack(kernels, False, shape, *weights, packed, **{name: more})
    with pytest.raises(ValueError, match=r"norm must be among input, .* got 'layer'"):
        celltable.norm_parts("layer", False)
    assert celltable.norm_parts("carried", True) == ("ih", "hh", "c")
    assert celltable.norm_parts(None, False) == ()


def test_a_norm_needs_all_gates():
    with pytest.raises(ValueError, match="does not go with input_forget=True"):
        LSTM(3, 4, layer_norm=True, input_forget=True)
    with pytest.raises(ValueError, match="does not go with reset_after=False"):
        GRU(3, 4, rms_norm=True, reset_after=False)
    with pytest.raises(
        ValueError, match=r"layer_norm is an option of .*LSTM.*, not of MGU"
    ):
        arguments.cell_options("MGU", celltable.cell("mgu"), 4, layer_norm=True)


@pytest.mark.parametrize("form", FORMS[LSTM])
def test_a_norm_goes_with_other_options(form):
    options = {"peephole": True, "proj_size": 3, "cell_clip": 1.5}
    options["recurrent_activation"] = "hard_sigmoid"
    layer = make(LSTM, form, "layer_norm", 4, 9, **options)
    rng = np.random.default_rng(7)
    x, dy = rng.standard_normal((5, 3, 4)), rng.standard_normal((5, 3, 3))
    layer.zero_grad()
    layer(x)
    layer.backward(dy)
    for key, value in layer.parameters.items():
        direction = rng.standard_normal(value.shape)
        change = (layer.grads[key] * direction).sum()
        losses = []
        for step in (1e-6, -2e-6):
            value += step * direction
            losses.append((layer.eval()(x)[0] * dy).sum())
        value += 1e-6 * direction
        assert change == pytest.approx(
            (losses[0] - losses[1]) / 2e-6, rel=1e-5, abs=1e-6
        ), key
