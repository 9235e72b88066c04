# SPDX-License-Identifier: BSD-3-Clause
"""Tensors' memory as the kernels take it, and memory that is used again."""

import threading
import weakref

import numpy as np
import torch

from fastrnn import _core
from fastrnn._pool import aligned

_CPU = torch.device("cpu")
_NAMES = {torch.float32: "float32", torch.float64: "float64"}
# Below this the C library's allocator keeps memory by itself and costs less.
_LARGE = 1 << 20  # bytes
_MOST_FREE = 32  # large arrays kept for the next call; the oldest goes first


def kernels(dtype):
    """The kernel table for a torch dtype."""
    return _core.kernels(_NAMES[dtype])


def memory(tensor, size=None):
    """What a kernel takes for a tensor: its own memory, from its first element on.

    Parameters
    ----------
    size : int, optional
        Elements up to the last that is used, for a tensor that is not contiguous.
    """
    return _core.Memory(
        tensor,
        tensor.data_ptr(),
        tensor.numel() if size is None else size,
        tensor.dtype is torch.float64,
    )


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


def empty(size, dtype):
    """A 1-D tensor on a cache line, its contents arbitrary.

    Large ones come from memory used before: fresh pages cost a fault each. PyTorch
    holds the array as long as any tensor uses its storage.
    """
    if size * dtype.itemsize < _LARGE:
        return torch.empty(size, dtype=dtype, device=_CPU)
    return torch.from_numpy(_lend(size, _NAMES[dtype]))


class _Scratch(threading.local):
    """Arrays of a thread, by use and dtype, as large as the largest call so far."""

    def __init__(self):
        self.arrays = {}


_scratch = _Scratch()


def scratch(size, dtype, use="work"):
    """An array of at least `size` elements that is free again after the call."""
    arrays = _scratch.arrays
    array = arrays.get((use, dtype))
    if array is None or array.size < size:
        array = arrays[use, dtype] = aligned(size, _NAMES[dtype])
    return array


def unwanted(use, size, dtype):
    """Where a kernel may write `size` elements that nobody reads."""
    return scratch(size, dtype, use)[:size]


_zeros = {}


def zeros(size, dtype):
    """`size` zeros, to be read only."""
    array = _zeros.get(dtype)
    if array is None or array.size < size:
        array = _zeros[dtype] = np.zeros(size, _NAMES[dtype])
    return array[:size]
