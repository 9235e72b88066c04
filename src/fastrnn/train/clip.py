# SPDX-License-Identifier: BSD-3-Clause
"""Gradient clipping: one or two passes over a model's flat gradients.

Of a sparse table only the rows in use are read and written; the norm has the same bits.
Layers that are not trainable are left out of all.
"""

from __future__ import annotations

import math

from fastrnn.native import core, threads
from fastrnn.nn.module import Module
from fastrnn.util import checks


def _grads(who, model):
    if not isinstance(model, Module):
        raise TypeError(f"{who}: model must be a Module, got {type(model).__name__}")
    return *model._trained_grads(), core.kernels(model.dtype), threads.for_kernel()


def clip_grad_norm_(
    model: Module,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> float:
    """Scale all gradients so that their norm is at most `max_norm`.

    The norm is that of all gradients of trainable layers as one vector. They are
    multiplied by ``min(1, max_norm / (norm + 1e-6))``, as PyTorch does.

    Parameters
    ----------
    model : Module
        Whose gradients to scale.
    max_norm : float >= 0
        In the unit of the gradients; ``inf`` only measures, if the norm is finite.
    norm_type : float > 0
        Power of the norm; ``inf`` for the largest magnitude.
    error_if_nonfinite : bool
        Whether a norm that is NaN or infinite is an error. If not, a NaN norm makes all
        gradients NaN, and an infinite one makes them zero and the infinite ones NaN,
        or all NaN if `max_norm` is infinite, too.

    Returns
    -------
    float
        The norm before clipping, summed in float64. A model without parameters has 0.

    Raises
    ------
    TypeError
        If `model` is not a Module, or another argument is of the wrong type.
    ValueError
        If `max_norm` or `norm_type` is out of range.
    RuntimeError
        If the norm is not finite and `error_if_nonfinite`; gradients are unchanged.

    Examples
    --------
    >>> layer = fastrnn.Linear(2, 2, bias=False)
    >>> layer.flat_grads[:] = 3
    >>> clip_grad_norm_(layer, 1.0)
    6.0
    >>> float(np.linalg.norm(layer.flat_grads).round(4))
    1.0
    """
    who = "clip_grad_norm_"
    grads, spans, kernels, n_threads = _grads(who, model)
    max_norm = checks.real_in(who, "max_norm", max_norm, "[0, inf]")
    norm_type = checks.real_in(who, "norm_type", norm_type, "(0, inf]")
    error_if_nonfinite = checks.flag(who, "error_if_nonfinite", error_if_nonfinite)
    norm = kernels.norm(n_threads, grads, norm_type, spans)
    if error_if_nonfinite and not math.isfinite(norm):
        raise RuntimeError(
            f"{who}: the gradients' norm of order {norm_type:g} is {norm}, so they "
            "cannot be clipped; error_if_nonfinite=False scales them all the same"
        )
    factor = max_norm / (norm + 1e-6)
    if math.isnan(factor):  # which makes gradients that are zero NaN, too
        model._use_all_grads()
        spans = model._trained_grads()[1]
    if not factor >= 1:
        kernels.scale(n_threads, grads, factor, spans)
    return norm


def clip_grad_value_(model: Module, clip_value: float) -> None:
    """Bring every gradient into ``[-clip_value, clip_value]``; NaN stays NaN.

    Layers that are not trainable keep what they have.

    Parameters
    ----------
    model : Module
        Whose gradients to clip.
    clip_value : float >= 0
        In the unit of the gradients.

    Raises
    ------
    TypeError
        If `model` is not a Module, or `clip_value` is not a number.
    ValueError
        If `clip_value` is negative or NaN.

    Examples
    --------
    >>> layer = fastrnn.Linear(2, 1, bias=False)
    >>> layer.flat_grads[:] = -3, 0.5
    >>> clip_grad_value_(layer, 1.0)
    >>> layer.grads["weight"]
    array([[-1. ,  0.5]], dtype=float32)
    """
    who = "clip_grad_value_"
    grads, spans, kernels, n_threads = _grads(who, model)
    clip_value = checks.real_in(who, "clip_value", clip_value, "[0, inf]")
    kernels.clamp(n_threads, grads, clip_value, spans)
