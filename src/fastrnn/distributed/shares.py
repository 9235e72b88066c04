# SPDX-License-Identifier: BSD-3-Clause
"""Who has which rows: every rank's part of each batch of an epoch.

Samples that all ranks have are cut into batches as one process cuts them, from one
order of samples, and each batch into one stretch of rows for each rank. Shards, of
which each rank has its own, are cut on each rank into as many parts as there are
batches, and a joint batch is what the ranks have of that number. A rank that has no row
of a batch runs the model on another row that counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastrnn.data.batches import Batches
from fastrnn.data.samples import Samples
from fastrnn.distributed.protocol import Communicator
from fastrnn.nn.joint import Share
from fastrnn.util.typing import Array

# Share of a batch; inputs (a tuple), targets and weights.
Part = tuple[Share, tuple[Any, ...], Any, Any]


# What samples can be, besides arrays.
_BATCHES, _LENGTHS = "batches", "sequences of many lengths"


def stretch(n: int, parts: int, i: int) -> tuple[int, int]:
    """Where part i of n things begins and ends, all parts being as long as they can.

    Examples
    --------
    >>> [stretch(7, 3, i) for i in range(3)]
    [(0, 2), (2, 4), (4, 7)]
    """
    return i * n // parts, (i + 1) * n // parts


class Shares:
    """How one set of samples goes to the ranks.

    Parameters
    ----------
    comm : Communicator
    samples : Samples or Batches
    batch_size : int
        Of the joint batch.
    sharded : bool
        Whether every rank has samples of its own.
    add : callable
        Sums an array of float64 over all ranks.

    Attributes
    ----------
    n : int or None
        Samples of all ranks; None of what gives batches.
    """

    def __init__(
        self,
        comm: Communicator,
        samples: Samples | Batches,
        batch_size: int,
        sharded: bool,
        add: Callable[[Array], Array],
    ) -> None:
        self._comm, self._samples, self._size = comm, samples, batch_size
        self._add, self.n = add, None
        kinds = {self._kind()} if not sharded else set(comm.allgather(self._kind()))
        if _BATCHES in kinds:
            if len(kinds) > 1:
                raise ValueError(
                    f"{samples.who}: x must give batches on all ranks or on none, got "
                    f"{' and '.join(sorted(kinds))}"
                )
            self._parts = self._iterated
            return
        counts = comm.allgather(samples.n) if sharded else [samples.n]
        self._counts, self.n = counts, sum(counts)
        if not sharded:
            self._parts = self._whole
        elif _LENGTHS in kinds:
            self._local = max(1, batch_size // comm.size)
            own = samples.count_batches(self._local)
            self._steps = max(comm.allgather(own))
            self._parts = self._ragged
        else:
            self._steps = -(-self.n // batch_size)
            self._parts = self._sharded

    def _kind(self):
        """What this rank's samples are."""
        if isinstance(self._samples, Batches):
            return _BATCHES
        of_lengths = self._samples.ragged or self._samples.pads
        return _LENGTHS if of_lengths else "arrays"

    def count(self) -> int | None:
        """Batches in an epoch, the same on all ranks; None where it is not known."""
        if self._parts in (self._whole, self._iterated):
            return self._samples.count_batches(self._size)
        return self._steps

    def sizes(self) -> list[int] | None:
        """How many rows this rank has of batches, each number once.

        None where ranks have shares of batches of many lengths.
        """
        if self._parts == self._whole:
            owns = map(self._own, self._samples.sizes(self._size))
        elif self._parts == self._sharded:
            n = self._samples.n
            owns = (stretch(n, self._steps, j) for j in range(self._steps))
        else:
            return None
        return sorted({end - begin for begin, end in owns})

    def _own(self, n):
        return stretch(n, self._comm.size, self._comm.rank)

    def epoch(self, rng: np.random.Generator | None) -> Iterator[Part]:
        """This rank's part of each batch."""
        return self._parts(rng)

    def _share(self, n, first, total, counts=True, stream=None):
        return Share(max(n, 1), first, total, counts and n > 0, stream, self._add)

    def _whole(self, rng):
        samples = self._samples
        for indices in samples.order(self._size, rng):
            begin, end = self._own(len(indices))
            share = self._share(end - begin, begin, len(indices))
            span = slice(begin, end) if share.counts else slice(0, 1)
            yield share, *samples.take_part(indices, span)

    def _sharded(self, rng):
        samples, rank = self._samples, self._comm.rank
        order = np.arange(samples.n) if rng is None else rng.permutation(samples.n)
        for j in range(self._steps):
            ends = [stretch(n, self._steps, j) for n in self._counts]
            sizes = [end - begin for begin, end in ends]
            share = self._share(sizes[rank], sum(sizes[:rank]), sum(sizes))
            own = order[slice(*ends[rank])] if share.counts else order[:1]
            yield share, *samples.take(own)

    def _ragged(self, rng):
        samples, rank = self._samples, self._comm.rank
        batches = samples.order(self._local, rng)
        for j in range(self._steps):
            own = batches[j] if j < len(batches) else batches[-1][:1]
            share = self._share(
                len(own), 0, len(own), counts=j < len(batches), stream=rank
            )
            yield share, *samples.take(own)

    def _iterated(self, rng):
        """Batches of each rank's own, until no rank has one left."""
        last, own = None, self._samples.epoch(self._size, rng)
        while True:
            batch = next(own, None)
            if not any(self._comm.allgather(batch is not None)):
                return
            last = last if batch is None else batch
            n = len(last[0][0])
            counts = batch is not None
            share = self._share(n, 0, n, counts=counts, stream=self._comm.rank)
            yield share, *last
