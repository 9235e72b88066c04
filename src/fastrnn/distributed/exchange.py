# SPDX-License-Identifier: BSD-3-Clause
"""`Exchange`: the one exchange of a step, which adds the gradients of all ranks.

The flat buffer is cut into as many slices as there are ranks. Every rank sends slice q
to rank q, which adds its slice of all of them in ascending order of ranks, in float64,
and rounds the sum once; then each rank gets the sums of the others. MPI carries bytes
and adds nothing, so the result depends on the number of ranks alone, not on the
algorithm that an MPI chooses. Each rank sends and receives 2 (n - 1) / n of the buffer,
as in a ring, the least that there can be (R. Rabenseifner, "Optimization of collective
reduction operations", 2004).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastrnn.distributed.protocol import Communicator
from fastrnn.util.typing import Array

_LINE = 64  # bytes that slices are whole multiples of
_CHUNK = 8192  # numbers that are added at a time, so that they stay in the cache


class Exchange:
    """Sums over ranks of a buffer, and a few numbers of each rank beside it.

    Parameters
    ----------
    comm : Communicator
    size : int
        Numbers in the buffer.
    n_head : int
        Numbers of float64 that travel with it.
    dtype : dtype
        Of the buffer.

    Examples
    --------
    >>> class Alone:
    ...     rank, size = 0, 1
    ...     def Alltoall(self, sent, received): received[...] = sent
    ...     def Allgather(self, sent, received): received[...] = sent
    >>> exchange = Exchange(Alone(), 3, 1, np.dtype("f"))
    >>> buffer = np.array([1, 2, 3], "f")
    >>> exchange([buffer], [7.0], lambda heads: heads[:, 0])
    array([[7.]])
    >>> buffer
    array([ 7., 14., 21.], dtype=float32)
    """

    def __init__(
        self, comm: Communicator, size: int, n_head: int, dtype: np.dtype
    ) -> None:
        self._comm, self._size, n = comm, size, comm.size
        in_line = _LINE // dtype.itemsize
        self._slice = -(-size // (n * in_line)) * in_line
        head, body = 8 * n_head, self._slice * dtype.itemsize
        self._sent = np.zeros((n, head + body), np.uint8)
        self._received = np.empty_like(self._sent)
        self._heads = [b[:, :head].view(np.float64) for b in self._both()]
        self._slices = [b[:, head:].view(dtype) for b in self._both()]
        self._flat = np.empty((n, self._slice), dtype)
        self._mine = np.zeros(self._slice, dtype)
        self._chunks = np.empty((2, _CHUNK))

    def _both(self):
        return self._sent, self._received

    def __call__(
        self,
        parts: list[Array],
        head: list[float],
        weigh: Callable[[Array], Array],
    ) -> Array:
        """Replace a buffer by the weighted sum over all ranks.

        Parameters
        ----------
        parts : list of ndarray, 1-D
            The buffer, in pieces that are written to.
        head : list of float
            This rank's numbers.
        weigh : callable
            Given all ranks' numbers (n, n_head): the weight of each rank's buffer, one
            that is 0 not being looked at.

        Returns
        -------
        ndarray of float64, shape (n, n_head)
        """
        for part, begin, row, into in self._places(parts):
            size = min(part.size - begin, self._slice - into)
            self._slices[0][row, into : into + size] = part[begin : begin + size]
        self._heads[0][...] = head
        self._comm.Alltoall(self._sent, self._received)
        heads = self._heads[1].copy()
        self._add(weigh(heads))
        self._comm.Allgather(self._mine, self._flat)
        flat, at = self._flat.reshape(-1), 0
        for part in parts:
            part[...] = flat[at : at + part.size]
            at += part.size
        return heads

    def _places(self, parts):
        """Each stretch of a part that lies in one slice: where it begins, and where to.

        The end of the last slice is nobody's, and stays zero.
        """
        at = 0
        for part in parts:
            begin = 0
            while begin < part.size:
                row, into = divmod(at + begin, self._slice)
                yield part, begin, row, into
                begin += self._slice - into
            at += part.size

    def _add(self, weights):
        """The sum of this rank's slices, weighted, in ascending order of ranks."""
        some = [(w, s) for w, s in zip(weights, self._slices[1], strict=True) if w]
        with np.errstate(over="ignore", invalid="ignore"):  # who clips finds that
            for begin in range(0, self._slice, _CHUNK):
                span = slice(begin, min(begin + _CHUNK, self._slice))
                total, term = (one[: span.stop - begin] for one in self._chunks)
                total.fill(0)
                for weight, one in some:
                    term[...] = one[span]
                    term *= weight
                    total += term
                self._mine[span] = total
