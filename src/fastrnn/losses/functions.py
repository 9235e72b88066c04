# SPDX-License-Identifier: BSD-3-Clause
"""Losses: each returns the loss and its gradient, from one call to a kernel.

The gradient is what a model's ``backward`` takes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.data.sequences import mask_from_lengths
from fastrnn.native import core, threads
from fastrnn.util import checks
from fastrnn.util.typing import Array

REDUCTIONS = ("mean", "sum")


def _counted(who, shape, lengths, mask, batch_first):
    """Which of the rows count, as booleans of `shape`; None for all."""
    if lengths is None and mask is None:
        return None
    if lengths is not None:
        if mask is not None:
            raise ValueError(f"{who}: lengths and mask must not both be given")
        batch_first = checks.flag(who, "batch_first", batch_first)
        if len(shape) < 2:
            raise ValueError(
                f"{who}: lengths need rows of shape (T, B), or (B, T) with "
                f"batch_first, got {checks.as_tuple(shape)}"
            )
        B, T = shape[:2] if batch_first else shape[1::-1]
        lengths = checks.integer_array(who, "lengths", lengths)
        checks.shape(who, "lengths", lengths, ("B",), (B,))
        mask = mask_from_lengths(lengths, T, batch_first)
    mask = checks.as_array(who, "mask", mask)
    if mask.dtype.kind not in "biu":
        raise TypeError(f"{who}: mask must be booleans, got dtype {mask.dtype}")
    if mask.shape != shape[: mask.ndim]:
        raise ValueError(
            f"{who}: mask must have shape {checks.as_tuple(shape)} or that of its "
            f"first axes, got {mask.shape}"
        )
    mask = mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim)) != 0
    return np.broadcast_to(mask, shape)


def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    ignore_index: int = -100,
    reduction: str = "mean",
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    batch_first: bool = False,
) -> tuple[float, Array]:
    """Cross-entropy between logits and class indices, in nats.

    Parameters
    ----------
    logits : array_like, shape (..., classes)
        Scores before the softmax; the class axis is the last. float64 stays so,
        everything else becomes float32.
    targets : array_like of int, shape (...)
        The right class of each row, in [0, classes), or `ignore_index`.
    ignore_index : int
        Rows with this target count for nothing.
    reduction : {"mean", "sum"}
        Over the rows that count.
    lengths : array_like of int, shape (B,), optional
        Steps that count of each sequence of a padded batch: rows are (T, B).
    mask : array_like of bool, shape (...), optional
        Instead: which rows count.
    batch_first : bool
        Whether the rows that `lengths` is for are (B, T).

    Returns
    -------
    loss : float
        Summed in float64. NaN for the mean when no row counts, as in PyTorch.
    dlogits : ndarray, shape of `logits`
        Gradient of `loss`; zero in rows that do not count.

    Raises
    ------
    ValueError
        If shapes do not match, there is no row or no class, a target is out of range,
        or `reduction` is unknown.
    TypeError
        If `logits` are not real numbers or `targets` not integers.

    Notes
    -----
    With :math:`p = \\mathrm{softmax}(z)`, a row's loss is :math:`-\\log p_j` and its
    gradient :math:`p - e_j`, the largest logit subtracted first so that nothing
    overflows. NaN or +inf in a row makes it NaN.

    Examples
    --------
    >>> loss, dlogits = cross_entropy([[0.0, 0.0], [5.0, 9.0]], [1, -100])
    >>> round(loss, 4), dlogits.tolist()
    (0.6931, [[0.5, -0.5], [0.0, 0.0]])
    """
    who = "cross_entropy"
    logits = checks.float_array(who, "logits", logits, checks.float_dtype(logits))
    targets = checks.integer_array(who, "targets", targets)
    ignore_index = checks.integer(who, "ignore_index", ignore_index)
    checks.choice(who, "reduction", reduction, REDUCTIONS)
    if logits.ndim == 0 or logits.size == 0:
        raise ValueError(
            f"{who}: logits must have shape (..., classes) with at least one row and "
            f"class, got {logits.shape}"
        )
    *shape, classes = logits.shape
    checks.same_shape(who, "targets", targets, "logits without its last axis", shape)
    counted = targets != ignore_index
    unmasked = _counted(who, tuple(shape), lengths, mask, batch_first)
    if unmasked is not None:
        counted = counted & unmasked
    wrong = targets[counted & ((targets < 0) | (targets >= classes))]
    if wrong.size:
        raise ValueError(
            f"{who}: targets must be in [0, classes) = [0, {classes}) or ignore_index "
            f"= {ignore_index}, got {wrong[0]}"
        )
    n_counted = np.count_nonzero(counted)
    weight = 1 / n_counted if reduction == "mean" and n_counted else 1
    if unmasked is not None:
        targets = np.where(counted, targets, ignore_index)
    dlogits = np.empty_like(logits)
    loss = core.kernels(logits.dtype).cross_entropy(
        threads.for_kernel(),
        targets.size,
        classes,
        logits,
        targets,
        ignore_index,
        weight,
        dlogits,
    )
    if reduction == "mean" and not n_counted:
        loss = float("nan")
    return loss, dlogits


def mse_loss(
    pred: ArrayLike,
    target: ArrayLike,
    reduction: str = "mean",
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    batch_first: bool = False,
) -> tuple[float, Array]:
    """Squared error.

    Parameters
    ----------
    pred : array_like, any shape
        Predictions. float64 stays so, everything else becomes float32.
    target : array_like, shape of `pred`
        Converted to the type of `pred`.
    reduction : {"mean", "sum"}
        Over all elements that count.
    lengths : array_like of int, shape (B,), optional
        Steps that count of each sequence of a padded batch, (T, B, ...).
    mask : array_like of bool, optional
        Instead: which elements count, in the shape of `pred` or of its first axes.
    batch_first : bool
        Whether the arrays that `lengths` is for are (B, T, ...).

    Returns
    -------
    loss : float
        Summed in float64. NaN for the mean when no element counts.
    dpred : ndarray, shape of `pred`
        Gradient of `loss` with respect to `pred`; zero where nothing counts.

    Raises
    ------
    ValueError
        If the shapes differ, there is no element, or `reduction` is unknown.
    TypeError
        If an array is not real numbers.

    Examples
    --------
    >>> loss, dpred = mse_loss([1.0, 2.0], [1.0, 4.0])
    >>> loss, dpred.tolist()
    (2.0, [0.0, -2.0])
    """
    who = "mse_loss"
    pred = checks.float_array(who, "pred", pred, checks.float_dtype(pred))
    target = checks.float_array(who, "target", target, pred.dtype)
    checks.choice(who, "reduction", reduction, REDUCTIONS)
    checks.same_shape(who, "target", target, "pred", pred.shape)
    if pred.size == 0:
        raise ValueError(f"{who}: pred must have elements, got shape {pred.shape}")
    counted = _counted(who, pred.shape, lengths, mask, batch_first)
    if counted is not None:
        return _masked_mse(pred, target, reduction, counted)
    dpred = np.empty_like(pred)
    loss = core.kernels(pred.dtype).mse(
        threads.for_kernel(),
        pred.size,
        pred,
        target,
        1 / pred.size if reduction == "mean" else 1,
        dpred,
    )
    return loss, dpred


def _masked_mse(pred, target, reduction, counted):
    """`mse_loss` of the elements that count; NaN elsewhere does no harm."""
    dpred = np.zeros_like(pred)
    if not counted.any():
        return (float("nan") if reduction == "mean" else 0.0), dpred
    loss, dpred[counted] = mse_loss(pred[counted], target[counted], reduction)
    return loss, dpred
