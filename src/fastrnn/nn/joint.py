# SPDX-License-Identifier: BSD-3-Clause
"""Rows of a joint batch: what a layer has to know where several processes share one.

In data-parallel training every process runs the model on some rows of a batch. Most
layers treat each row by itself. Those that do not ask here: dropout, whose choices are
those that one process would make for the whole batch, and batch normalisation, whose
means are over all rows. The share belongs to the thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastrnn.util.typing import Array


@dataclass(frozen=True)
class Share:
    """The rows of a joint batch that this process has.

    Attributes
    ----------
    n : int
        How many rows forward is given, at least one.
    first : int
        Number of the first one in the joint batch.
    total : int
        Rows of the joint batch.
    counts : bool
        False where this process has no row of the batch. It runs the model on one all
        the same, so that generators and exchanges go on as elsewhere, and that row
        counts for nothing.
    stream : int or None
        Where the processes' rows differ in shape, so that there is no joint array: the
        number of the process, which dropout then draws its own choices from.
    add : callable or None
        Sums an array of float64 over all processes.
    """

    n: int
    first: int = 0
    total: int = 1
    counts: bool = True
    stream: int | None = None
    add: Callable[[Array], Array] | None = None

    def seed(self, seed: int) -> int:
        """The seed of this process's choices, from that which all have drawn."""
        if self.stream is None:
            return seed
        mixed = np.random.SeedSequence([seed, self.stream])
        return int(mixed.generate_state(1, np.uint64)[0])


class _Now(threading.local):
    """Of each thread: the share of the batch that the model runs on, or None."""

    share: Share | None = None


now = _Now()


class sharing:  # called as a function; a generator would be slower
    """Within its body, models run on this share of a batch; None for all of it."""

    __slots__ = ("_before", "_share")

    def __init__(self, share: Share | None) -> None:
        self._share = share

    def __enter__(self) -> None:
        self._before, now.share = now.share, self._share

    def __exit__(self, *error: object) -> None:
        now.share = self._before


def choices(who: str, seed: int, x: Array) -> tuple[int, tuple[int, ...]]:
    """Seed and place in the joint array of the elements of `x`, for the dropout kernel.

    Parameters
    ----------
    who : str
        Whom errors name.
    seed : int
    x : ndarray
        Its first axis is that of samples, or samples and steps.

    Raises
    ------
    ValueError
        If it is not.
    """
    share = now.share
    if share is None:
        return seed, ()
    _check_rows(who, x.shape, share)
    place = (x.size, share.first * (x.size // share.n), 0)
    return share.seed(seed), place if share.stream is None else ()


def check_rows(who: str, shape: tuple[int, ...]) -> None:
    """Refuse an array whose first axis is not that of samples, in a joint batch."""
    if now.share is not None:
        _check_rows(who, shape, now.share)


def _check_rows(who, shape, share):
    if not shape or shape[0] % share.n:
        raise ValueError(
            f"{who}: x must have the axis of samples first in a distributed run, got "
            f"shape {shape} for {share.n} samples"
        )


def choices_of_steps(seed: int, B: int, width: int) -> tuple[int, tuple[int, ...]]:
    """As `choices`, of an array (T, B, width): time first, whatever the layer's axes.

    Within `TimeDistributed` a layer's B may be a multiple of the rows.
    """
    share = now.share
    if share is None or share.stream is not None:
        return (seed if share is None else share.seed(seed)), ()
    wide = width * (B // share.n)
    return seed, (share.n * wide, share.first * wide, share.total * wide)


def first_row(B: int) -> int:
    """The number that the first of a layer's B rows has in the joint batch.

    Within `TimeDistributed` a layer's B may be a multiple of the rows.
    """
    share = now.share
    if share is None or share.stream is not None:
        return 0
    return share.first * (B // share.n)


def summed(*arrays: Array) -> tuple[Array, ...]:
    """Arrays of float64 added over all processes of a joint batch, in one exchange."""
    share = now.share
    if share is None or share.add is None:
        return arrays
    flat = share.add(np.concatenate([np.ravel(one) for one in arrays]))
    ends = np.cumsum([np.size(one) for one in arrays])[:-1]
    parts = np.split(flat, ends)
    return tuple(p.reshape(np.shape(a)) for p, a in zip(parts, arrays, strict=True))
