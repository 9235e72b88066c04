# SPDX-License-Identifier: BSD-3-Clause
"""Draws from a softmax: temperature, the k likeliest, the likeliest with mass p."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.util import checks
from fastrnn.util.typing import Array, Seed


def check_options(who, temperature, top_k, top_p):
    """The three options as plain numbers (or None), refused where out of range."""
    temperature = checks.real_in(who, "temperature", temperature, "[0, inf)")
    if top_k is not None:
        top_k = checks.positive_int(who, "top_k", top_k)
    if top_p is not None:
        top_p = checks.real_in(who, "top_p", top_p, "(0, 1]")
    return temperature, top_k, top_p


def sample(
    logits: ArrayLike,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: Seed = None,
    *,
    from_logits: bool = True,
) -> Array:
    """Draw a class from each row of logits.

    Parameters
    ----------
    logits : array_like, shape (..., classes)
        Scores before the softmax; -inf for a class that must not be drawn.
        Probabilities with ``from_logits=False``.
    temperature : float >= 0
        Divides the logits: below 1 for likelier classes, above 1 for wilder ones, 0 to
        take the likeliest every time (the first of equals).
    top_k : int >= 1, optional
        Only the `top_k` likeliest classes may be drawn; of equals the first.
    top_p : float in (0, 1], optional
        Only the likeliest classes that together reach this probability may be drawn
        (nucleus sampling), after `temperature` and `top_k`.
    seed : None, int or numpy.random.Generator
        Where the draws come from: one number for each row, whatever the options.
    from_logits : bool
        False for the output of a model that ends in a `Softmax`.

    Returns
    -------
    ndarray of int64, shape (...)

    Raises
    ------
    ValueError
        If an option is out of range, there is no class, a row has NaN, +inf or nothing
        but -inf, or a probability is not in [0, 1].
    TypeError
        If `logits` are not real numbers, or an option is of the wrong type.

    References
    ----------
    .. [1] A. Fan, M. Lewis, Y. Dauphin, "Hierarchical Neural Story Generation", ACL
       2018 (top-k).
    .. [2] A. Holtzman, J. Buys, L. Du, M. Forbes, Y. Choi, "The Curious Case of Neural
       Text Degeneration", ICLR 2020 (top-p).

    Examples
    --------
    >>> logits = np.log([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    >>> sample(logits, temperature=0)
    array([0, 2])
    >>> draws = sample(np.tile(logits[0], (1000, 1)), top_p=0.8, seed=0)
    >>> np.bincount(draws, minlength=3) / 1000  # 0.6 and 0.3 out of 0.9
    array([0.642, 0.358, 0.   ])
    """
    who = "sample"
    options = check_options(who, temperature, top_k, top_p)
    logits = checks.float_array(who, "logits", logits, "float64")
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(
            f"{who}: logits must have shape (..., classes) with at least one class, "
            f"got {logits.shape}"
        )
    if not checks.flag(who, "from_logits", from_logits):
        wrong = logits[~((logits >= 0) & (logits <= 1))]
        if wrong.size:
            raise ValueError(
                f"{who}: logits must be probabilities in [0, 1] with "
                f"from_logits=False, got {wrong[0]}"
            )
        with np.errstate(divide="ignore"):
            logits = np.log(logits)
    return draw(who, logits, *options, checks.generator(who, seed))


def draw(who, logits, temperature, top_k, top_p, rng):
    """`sample` after the checks of its options."""
    z = logits.astype(np.float64)
    top = z.max(axis=-1, keepdims=True)
    if not np.isfinite(top).all():
        raise ValueError(
            f"{who}: logits must be finite or -inf, and not only -inf, in every row"
        )
    # One number a row in any case, so that a seed's draws stay in step.
    point = rng.random(z.shape[:-1])
    if temperature == 0:
        return z.argmax(axis=-1)
    with np.errstate(over="ignore"):  # a tiny temperature: -inf, a probability of 0
        weights = np.exp((z - top) / temperature)
    if top_k is not None or top_p is not None:
        _keep_likeliest(weights, top_k, top_p)
    total = np.cumsum(weights, axis=-1)
    whole = total[..., -1:]
    index = (total <= point[..., None] * whole).sum(axis=-1)
    # For a product that rounds up to the total: the last class that has any weight.
    return np.minimum(index, (total < whole).sum(axis=-1))


def _keep_likeliest(weights, top_k, top_p):
    """Set to zero, in place, what `top_k` and `top_p` leave out."""
    order = np.argsort(-weights, axis=-1, kind="stable")
    ranked = np.take_along_axis(weights, order, axis=-1)
    if top_k is not None:
        ranked[..., top_k:] = 0
    if top_p is not None:
        reached = np.cumsum(ranked, axis=-1)
        # A class stays while those before it have not reached p of the whole.
        before = reached - ranked
        ranked[before >= top_p * reached[..., -1:]] = 0
    np.put_along_axis(weights, order, ranked, axis=-1)
