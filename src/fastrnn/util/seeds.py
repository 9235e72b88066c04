# SPDX-License-Identifier: BSD-3-Clause
"""Random generators for those who are given no seed, and what makes them repeatable."""

from __future__ import annotations

import numbers
import threading

import numpy as np

_lock = threading.Lock()
_root: np.random.SeedSequence | None = None


def set_seed(seed: int | None) -> None:
    """Make all that is drawn without a seed of its own repeatable from here on.

    Layers, `fit`, dropout, `sample` and whatever else takes a ``seed`` and is given
    none get generators of their own, one after the other, which follow from this
    number. What is given a seed is not concerned. PyTorch's and NumPy's own generators
    are left as they are, and with them the layers of `fastrnn.torch`.

    Parameters
    ----------
    seed : int or None
        At least 0. None goes back to generators that nobody can foresee.

    Raises
    ------
    TypeError, ValueError
        If `seed` is nothing of the kind.

    Notes
    -----
    Who draws first gets the first generator: where threads make layers at the same
    time, give each layer a seed.

    Examples
    --------
    >>> fastrnn.set_seed(0)
    >>> first = fastrnn.Linear(2, 2).parameters["weight"]
    >>> fastrnn.set_seed(0)
    >>> np.array_equal(first, fastrnn.Linear(2, 2).parameters["weight"])
    True
    >>> fastrnn.set_seed(None)
    """
    global _root
    if seed is not None:
        rule = f"set_seed: seed must be None or an integer >= 0, got {seed!r}"
        if isinstance(seed, bool | np.bool_) or not isinstance(seed, numbers.Integral):
            raise TypeError(rule)
        if seed < 0:
            raise ValueError(rule)
    root = None if seed is None else np.random.SeedSequence(int(seed))
    with _lock:
        _root = root


def unseeded() -> np.random.Generator:
    """A generator for something that was given no seed."""
    with _lock:
        sequence = None if _root is None else _root.spawn(1)[0]
    return np.random.Generator(np.random.PCG64(sequence))
