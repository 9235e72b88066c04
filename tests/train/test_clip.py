# SPDX-License-Identifier: BSD-3-Clause
"""Clipping against NumPy in float64, against PyTorch, and its fixed order of sums."""

import math

import numpy as np
import pytest

import fastrnn
from fastrnn.native import core
from fastrnn.nn.layers import Linear
from fastrnn.train.clip import clip_grad_norm_, clip_grad_value_

SIZES = [1, 2, 15, 31, 32, 33, 64 * 32 + 7, 7 * 16384 + 13]
POWERS = [2.0, 1.0, math.inf, 3.0, 0.5]


def model_with(grads, dtype):
    grads = np.asarray(grads, dtype)
    model = Linear(grads.size, 1, bias=False, dtype=dtype)
    model.flat_grads[:] = grads
    return model


@pytest.mark.parametrize("norm_type", POWERS)
@pytest.mark.parametrize("size", SIZES)
def test_norm_and_scaling(size, norm_type, dtype, isa, n_threads, rng):
    grads = rng.standard_normal(size).astype(dtype)
    model = model_with(grads, dtype)
    exact = np.linalg.norm(grads.astype(np.float64), norm_type)
    assert clip_grad_norm_(model, exact / 3, norm_type) == pytest.approx(exact, 1e-13)
    factor = exact / 3 / (exact + 1e-6)
    want = grads.astype(np.float64) * factor
    rtol = 2 * np.finfo(dtype).eps + 1e-13
    np.testing.assert_allclose(model.flat_grads, want, rtol=rtol, atol=0)
    # already below: not touched
    before = model.flat_grads.copy()
    clip_grad_norm_(model, exact, norm_type)
    np.testing.assert_array_equal(model.flat_grads, before)


@pytest.mark.parametrize("norm_type", POWERS)
def test_norm_has_the_same_bits_everywhere(norm_type, dtype, rng):
    grads = rng.standard_normal(SIZES[-1]).astype(dtype)
    norms = set()
    for isa in core.SUPPORTED:
        with core.use_isa(isa):
            kernels = core.kernels(dtype)
            norms |= {kernels.norm(n, grads, norm_type) for n in (1, 2, 3, 7, 100)}
    assert len(norms) == 1


@pytest.mark.parametrize("norm_type", POWERS)
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e9, math.inf])
@pytest.mark.parametrize(
    "special", [None, math.nan, math.inf, -math.inf], ids=lambda s: f"{s}"
)
def test_clip_grad_norm_is_pytorchs(norm_type, max_norm, special, dtype, rng):
    torch = pytest.importorskip("torch", reason="parity needs PyTorch")
    grads = rng.standard_normal(67).astype(dtype)
    if special is not None:
        grads[13] = special
    parameter = torch.nn.Parameter(torch.zeros(67, dtype=getattr(torch, dtype)))
    parameter.grad = torch.tensor(grads)
    want = torch.nn.utils.clip_grad_norm_([parameter], max_norm, norm_type)
    model = model_with(grads, dtype)
    got = clip_grad_norm_(model, max_norm, norm_type)
    rtol = 16 * np.finfo(dtype).eps
    np.testing.assert_allclose(got, want.item(), rtol=rtol)
    np.testing.assert_allclose(model.flat_grads, parameter.grad.numpy(), rtol=rtol)


@pytest.mark.parametrize("norm_type", POWERS)
@pytest.mark.parametrize("special", [math.nan, math.inf], ids=lambda s: f"{s}")
@pytest.mark.parametrize("at", [0, 5, 40, 66])
def test_nonfinite_norm(norm_type, special, at, isa, dtype):
    grads = np.linspace(-1, 1, 67).astype(dtype)
    grads[at] = special
    model = model_with(grads, dtype)
    with pytest.raises(RuntimeError, match=f"clip_grad_norm_: .* is {special}"):
        clip_grad_norm_(model, 1.0, norm_type, error_if_nonfinite=True)
    np.testing.assert_array_equal(model.flat_grads, grads)
    norm = clip_grad_norm_(model, 1.0, norm_type)
    assert norm == special or (math.isnan(norm) and math.isnan(special))
    others = np.delete(model.flat_grads, at)
    assert math.isnan(model.flat_grads[at])
    assert np.isnan(others).all() if math.isnan(special) else (others == 0).all()


@pytest.mark.parametrize("norm_type", POWERS)
def test_an_infinite_limit_only_measures_a_finite_norm(norm_type, isa, dtype):
    """As in PyTorch, inf / inf makes all gradients NaN."""
    torch = pytest.importorskip("torch", reason="parity needs PyTorch")
    for largest in (4.0, math.inf):
        grads = np.array([1, -2, largest, 3], dtype)
        parameter = torch.nn.Parameter(torch.zeros(4, dtype=getattr(torch, dtype)))
        parameter.grad = torch.tensor(grads)
        torch.nn.utils.clip_grad_norm_([parameter], math.inf, norm_type)
        model = model_with(grads, dtype)
        norm = clip_grad_norm_(model, math.inf, norm_type)
        assert math.isinf(norm) == math.isinf(largest)
        np.testing.assert_array_equal(model.flat_grads, parameter.grad.numpy())
        want = np.full(4, np.nan) if math.isinf(largest) else grads
        np.testing.assert_array_equal(model.flat_grads, want)


def test_float32_squares_do_not_overflow():
    model = model_with(np.full(5, 1e30), "float32")
    assert clip_grad_norm_(model, 1.0) == pytest.approx(math.sqrt(5) * 1e30)
    np.testing.assert_allclose(model.flat_grads, 1 / math.sqrt(5), rtol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("clip_value", [0.0, 0.3, math.inf])
def test_clip_grad_value(size, clip_value, dtype, isa, n_threads, rng):
    grads = rng.standard_normal(size).astype(dtype)
    grads[::7] = np.nan
    grads[::11] = np.inf
    grads[::13] = -np.inf
    model = model_with(grads, dtype)
    assert clip_grad_value_(model, clip_value) is None
    limit = np.dtype(dtype).type(clip_value)
    np.testing.assert_array_equal(model.flat_grads, np.clip(grads, -limit, limit))


def test_neighbours_in_the_buffer_are_left_alone(isa, dtype):
    model = fastrnn.nn.module.Module()
    model.a, model.b, model.c = (Linear(7, 1, bias=False, dtype=dtype) for _ in "abc")
    model.flat_grads[:] = 8
    clip_grad_value_(model.b, 1)
    assert model.flat_grads.tolist() == [8] * 7 + [1] * 7 + [8] * 7
    clip_grad_norm_(model.b, 0)
    assert model.flat_grads.tolist() == [8] * 7 + [0] * 7 + [8] * 7


def test_bad_arguments_change_nothing():
    model = model_with([3, 4], "float32")
    for call, error, message in [
        (
            lambda: clip_grad_norm_([1], 1),
            TypeError,
            "model must be a Module",
        ),
        (
            lambda: clip_grad_norm_(model, -1),
            ValueError,
            "max_norm must be",
        ),
        (lambda: clip_grad_norm_(model, math.nan), ValueError, "max_norm must be"),
        (lambda: clip_grad_norm_(model, 1, 0), ValueError, "norm_type must be"),
        (lambda: clip_grad_norm_(model, 1, "inf"), TypeError, "norm_type must be"),
        (lambda: clip_grad_norm_(model, 1, 2, 1), TypeError, "error_if_nonfinite must"),
        (lambda: clip_grad_value_(None, 1), TypeError, "model must be a Module"),
        (lambda: clip_grad_value_(model, -1), ValueError, "clip_value must be"),
    ]:
        with pytest.raises(error, match=message):
            call()
    assert model.flat_grads.tolist() == [3, 4]
