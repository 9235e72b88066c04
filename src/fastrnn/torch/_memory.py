# SPDX-License-Identifier: BSD-3-Clause
"""Tensors' memory as the kernels take it, and memory that is used again."""

import weakref

import numpy as np
import torch

from fastrnn import _core
from fastrnn._pool import aligned

_NAMES = {torch.float32: "float32", torch.float64: "float64"}
# Below this the C library's allocator keeps memory by itself and costs less.
_LARGE = 1 << 20  # bytes
_MOST_FREE = 32  # large arrays kept for the next call; the oldest goes first


def kernels(dtype):
    """The kernel table for a torch dtype."""
    return _core.kernels(_NAMES[dtype])


def plain(tensor):
    """`tensor`, or a copy where its memory does not hold its values as they are."""
    if tensor.is_neg() or tensor._is_zerotensor():
        return tensor.clone().resolve_neg()
    return tensor


class _Block:
    """Memory that lies in the list of free ones, compared by identity."""

    __slots__ = ("array", "size")

    def __init__(self, size):
        self.size = size
        self.array = aligned(size, np.uint8)


_free = []
_lent = {}  # weak references die with what holds them: somebody has to


def _lend(size, name):
    """`size` elements as an array; its memory is free again when nobody uses it.

    No lock: the call back may come from a garbage collection inside any of these lines,
    and each operation on the list is atomic.
    """
    block = None
    n_bytes = size * np.dtype(name).itemsize
    for candidate in tuple(_free):
        if n_bytes <= candidate.size <= n_bytes + n_bytes // 4:
            try:
                _free.remove(candidate)
            except ValueError:  # another thread was quicker
                continue
            block = candidate
            break
    if block is None:
        # Batches of sequences differ a little in size: room for the next one, too.
        block = _Block(n_bytes + n_bytes // 8)
    array = block.array[:n_bytes].view(name)

    def back(reference):
        del _lent[id(reference)]
        _free.append(block)
        del _free[:-_MOST_FREE]

    # Nobody else holds this very object: NumPy's views refer to what owns the memory.
    reference = weakref.ref(array, back)
    _lent[id(reference)] = reference
    return array


def empty_as(x, size):
    """A 1-D tensor of the type of x on a cache line, its contents arbitrary.

    Large ones come from memory used before: fresh pages cost a fault each. PyTorch
    holds the array as long as any tensor uses its storage.
    """
    if size * x.itemsize < _LARGE:
        return x.new_empty(size)
    return torch.from_numpy(_lend(size, _NAMES[x.dtype]))
