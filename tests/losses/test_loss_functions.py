# SPDX-License-Identifier: BSD-3-Clause
"""Losses against NumPy in float64, numeric derivatives, and PyTorch."""

import math

import numpy as np
import pytest
from gradcheck import assert_close, central_differences, complex_step
from tolerances import CENTRAL_RTOL, MARGIN

from fastrnn.losses import cross_entropy, mse_loss
from fastrnn.native import core

# Around the widest vector, its multiples, and the 16 partial sums of the softmax.
CLASSES = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 97]


def reference_cross_entropy(logits, targets, counted, weight):
    """Loss of (rows, classes) logits; any leading axes are copies."""
    exponentials = np.exp(logits)
    log_sum = np.log(exponentials.sum(axis=-1))
    rows = np.arange(len(targets))
    right = logits[..., rows, np.where(counted, targets, 0)]
    return weight * ((log_sum - right) * counted).sum(axis=-1)


def problem(rng, rows, classes, dtype, ignored=0.3):
    logits = (3 * rng.standard_normal((rows, classes))).astype(dtype)
    targets = rng.integers(classes, size=rows)
    counted = rng.random(rows) >= ignored
    counted[0] = True
    return logits, np.where(counted, targets, -100), counted


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("classes", CLASSES)
def test_cross_entropy_and_its_derivative(
    classes, reduction, dtype, isa, n_threads, rng
):
    logits, targets, counted = problem(rng, 5, classes, dtype)
    weight = 1 / counted.sum() if reduction == "mean" else 1

    def function(arrays):
        return reference_cross_entropy(arrays["logits"], targets, counted, weight)

    arrays = {"logits": logits.astype(np.float64)}
    loss, dlogits = cross_entropy(logits, targets, reduction=reduction)
    tolerance = MARGIN * np.finfo(dtype).eps
    scale = weight * (1 + np.abs(logits).sum())
    assert abs(loss - function(arrays)) <= tolerance * scale
    want = complex_step(function, arrays, ["logits"])["logits"]
    second = central_differences(function, arrays, ["logits"])["logits"]
    assert np.abs(want - second).max() <= CENTRAL_RTOL * scale
    assert dlogits.dtype == dtype
    assert np.abs(dlogits - want).max() <= tolerance * weight
    assert (dlogits[~counted] == 0).all()


def test_cross_entropy_check_fails_for_a_wrong_gradient(rng):
    logits, targets, counted = problem(rng, 4, 7, "float64")
    arrays = {"logits": logits}
    want = complex_step(
        lambda a: reference_cross_entropy(a["logits"], targets, counted, 1),
        arrays,
        ["logits"],
    )["logits"]
    got = cross_entropy(logits, targets, reduction="sum")[1]
    assert_close("dlogits", got, want, 1e-14)
    got[0, 3] *= 1.01
    with pytest.raises(AssertionError, match=r"dlogits\[0, 3\]"):
        assert_close("dlogits", got, want, 1e-14)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("ignored", ["none", "some", "all"])
def test_cross_entropy_is_pytorchs(ignored, reduction, dtype, isa, rng):
    torch = pytest.importorskip("torch", reason="parity needs PyTorch")
    logits = rng.standard_normal((6, 5, 97)).astype(dtype)
    targets = rng.integers(97, size=(6, 5))
    if ignored != "none":
        targets[:: 1 if ignored == "all" else 2] = 7
    their_logits = torch.tensor(logits, requires_grad=True)
    want = torch.nn.functional.cross_entropy(
        their_logits.reshape(30, 97),
        torch.tensor(targets.reshape(30)),
        ignore_index=7,
        reduction=reduction,
    )
    want.backward()
    loss, dlogits = cross_entropy(logits, targets, 7, reduction)
    rtol = MARGIN * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(loss, want.item(), rtol=rtol)
    np.testing.assert_allclose(
        dlogits, their_logits.grad.numpy(), rtol=rtol, atol=rtol / 30
    )


@pytest.mark.parametrize(
    "row",
    [
        [1e4, -1e4, 0, 5],
        [-1e4, -1e4, -1e4, -1e4],
        [1e30, 0, -1e30, 1],
        [3e38, 0, -1e37, 0],
        [-np.inf, 0, 1, 2],
        [0, -np.inf, 1, 2],
        [-np.inf] * 4,
        [np.inf, 0, 1, 2],
        [np.inf, np.inf, 1, 2],
        [np.nan, 0, 1, 2],
        [0, 1, 2, np.nan],
        [-88.5, 0, -87, -104],
    ],
    ids=str,
)
@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("classes", [4, 40])
def test_extreme_logits_are_as_in_pytorch(row, target, classes, dtype, isa):
    torch = pytest.importorskip("torch", reason="parity needs PyTorch")
    row = np.resize(np.array(row, dtype), classes)
    logits = np.stack([np.arange(classes, dtype=dtype), row])
    their_logits = torch.tensor(logits, requires_grad=True)
    targets = np.array([2, target])
    want = torch.nn.functional.cross_entropy(
        their_logits, torch.tensor(targets), reduction="sum"
    )
    want.backward()
    loss, dlogits = cross_entropy(logits, targets, reduction="sum")
    rtol = MARGIN * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(loss, want.item(), rtol=rtol)
    np.testing.assert_allclose(dlogits, their_logits.grad.numpy(), rtol=rtol, atol=rtol)
    assert np.isfinite(dlogits[0]).all()


def test_one_logit_far_above_the_others_is_found_anywhere(dtype, isa):
    """Had the search for the largest missed it, its exponential would be infinite."""
    height = 1000
    for classes in CLASSES:
        logits = height * np.eye(classes, dtype=dtype)
        loss, dlogits = cross_entropy(logits, np.arange(classes), reduction="sum")
        assert (loss, np.abs(dlogits).max()) == (0, 0)
        loss, dlogits = cross_entropy(logits, np.roll(np.arange(classes), 1))
        assert loss == (height if classes > 1 else 0)
        want = np.eye(classes) - np.eye(classes)[np.roll(np.arange(classes), 1)]
        np.testing.assert_array_equal(dlogits, (want / classes).astype(dtype))


def test_cross_entropy_has_the_same_bits_everywhere(dtype, rng):
    logits, targets, _ = problem(rng, 2000, 97, dtype)
    alone = cross_entropy(logits[17:18], targets[17:18], reduction="sum")[1]
    results = {}
    for isa in core.SUPPORTED:
        with core.use_isa(isa):
            for n_threads in (1, 2, 7, 100):
                dlogits = np.full_like(logits, np.nan)
                loss = core.kernels(dtype).cross_entropy(
                    n_threads, 2000, 97, logits, targets, -100, 1.0, dlogits
                )
                has_fma = isa != "baseline" or len(core.SUPPORTED) == 1
                results.setdefault(has_fma, set()).add((loss, dlogits.tobytes()))
    assert [len(bits) for bits in results.values()] == [1] * len(results)
    _, bits = next(iter(results[True]))
    dlogits = np.frombuffer(bits, dtype).reshape(logits.shape)
    assert dlogits[17].tobytes() == alone.tobytes()


def test_cross_entropy_converts_and_leaves_inputs_alone(rng):
    logits = rng.standard_normal((4, 6)).astype("float32")
    targets = np.array([0, 1, -100, 5])
    want = cross_entropy(logits, targets)
    before = logits.copy(), targets.copy()
    for these, those in [
        (logits.tolist(), targets.tolist()),
        (np.asfortranarray(logits), targets.astype(np.int8)),
        (np.repeat(logits, 2, axis=1)[:, ::2], targets.astype(np.longlong)),
        (logits.astype(">f4"), targets.astype(">i8")),
    ]:
        loss, dlogits = cross_entropy(these, those)
        assert loss == want[0]
        np.testing.assert_array_equal(dlogits, want[1])
    np.testing.assert_array_equal(logits, before[0])
    np.testing.assert_array_equal(targets, before[1])
    loss, dlogits = cross_entropy(logits[0], 3)  # one row without a batch axis
    assert dlogits.shape == (6,)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1, 2]], [2]), ValueError, r"\[0, classes\) = \[0, 2\) or .* -100, got 2"),
        (([[1, 2]], [-1]), ValueError, "got -1"),
        (([[1, 2]], [0, 1]), ValueError, r"targets must have the shape .* got \(2,\)"),
        (([[1, 2]], [0.0]), TypeError, "targets must be integers, got dtype float64"),
        (([["a", "b"]], [0]), TypeError, "logits must be real numbers"),
        (([[1j, 2]], [0]), TypeError, "logits must be real numbers"),
        ((np.zeros((0, 3)), np.zeros(0, int)), ValueError, r"got \(0, 3\)"),
        ((np.zeros((3, 0)), np.zeros(3, int)), ValueError, r"got \(3, 0\)"),
        ((1.0, 0), ValueError, r"at least one row and class, got \(\)"),
        (([[1, 2]], [0], -100, "none"), ValueError, "reduction must be one of 'mean'"),
        (([[1, 2]], [0], 1.5), TypeError, "ignore_index must be an integer"),
    ],
)
def test_cross_entropy_refuses(arguments, error, message):
    with pytest.raises(error, match=f"cross_entropy: .*{message}"):
        cross_entropy(*arguments)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("size", [1, 31, 32, 33, 64 * 32 + 7])
def test_mse_loss(size, reduction, dtype, isa, n_threads, rng):
    pred, target = rng.standard_normal((2, size)).astype(dtype)
    weight = 1 / size if reduction == "mean" else 1
    loss, dpred = mse_loss(pred, target, reduction)
    error = pred.astype(np.float64) - target
    assert loss == pytest.approx(weight * (error**2).sum(), rel=1e-13)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(dpred, 2 * weight * error, rtol=4 * eps, atol=0)
    if size == 31:
        numeric = central_differences(
            lambda a: weight * ((a["pred"] - target.astype(np.float64)) ** 2).sum(-1),
            {"pred": pred.astype(np.float64)},
            ["pred"],
        )["pred"]
        np.testing.assert_allclose(dpred, numeric, rtol=1e-6, atol=1e-7)


def test_mse_loss_has_the_same_bits_everywhere(dtype, rng):
    size = 7 * 16384 + 13
    pred, target = rng.standard_normal((2, size)).astype(dtype)
    results = set()
    for isa in core.SUPPORTED:
        with core.use_isa(isa):
            for n_threads in (1, 2, 7, 100):
                dpred = np.full_like(pred, np.nan)
                loss = core.kernels(dtype).mse(
                    n_threads, size, pred, target, 0.1, dpred
                )
                results.add((loss, dpred.tobytes()))
    assert len(results) == 1


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_mse_loss_is_pytorchs(reduction, dtype, rng):
    torch = pytest.importorskip("torch", reason="parity needs PyTorch")
    pred, target = rng.standard_normal((2, 3, 5)).astype(dtype)
    theirs = torch.tensor(pred, requires_grad=True)
    want = torch.nn.functional.mse_loss(
        theirs, torch.tensor(target), reduction=reduction
    )
    want.backward()
    loss, dpred = mse_loss(pred, target, reduction)
    rtol = MARGIN * float(np.finfo(dtype).eps)
    assert loss == pytest.approx(want.item(), rel=rtol)
    np.testing.assert_allclose(dpred, theirs.grad.numpy(), rtol=rtol)


def test_mse_loss_special_values():
    loss, dpred = mse_loss([np.nan, 1.0, np.inf], [0.0, 0.5, 0.0])
    assert math.isnan(loss)
    np.testing.assert_array_equal(np.isnan(dpred), [True, False, False])
    loss, _ = mse_loss(np.zeros(3, np.float64), np.ones(3, np.int64))
    assert loss == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1, 2], [1]), ValueError, r"target must have the shape of pred, \(2,\)"),
        (([], []), ValueError, r"pred must have elements, got shape \(0,\)"),
        (([1], [1], "max"), ValueError, "reduction must be one of 'mean', 'sum'"),
        ((["a"], [1]), TypeError, "pred must be real numbers"),
        (([1], [None]), TypeError, "target must be real numbers"),
    ],
)
def test_mse_loss_refuses(arguments, error, message):
    with pytest.raises(error, match=f"mse_loss: {message}"):
        mse_loss(*arguments)
