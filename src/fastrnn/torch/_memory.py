# SPDX-License-Identifier: BSD-3-Clause
"""Tensors' memory as the kernels take it, and memory that is used again."""

import torch

from fastrnn.native import core
from fastrnn.torch import _compat

_NAMES = {torch.float32: "float32", torch.float64: "float64"}
# Below this the C library's allocator keeps memory by itself and costs less.
_LARGE = 1 << 20  # bytes


def kernels(dtype):
    """The kernel table for a torch dtype."""
    return core.kernels(_NAMES[dtype])


def plain(tensor):
    """`tensor`, or a copy where its memory does not hold its values as they are."""
    if tensor.is_neg() or _compat.is_zerotensor(tensor):
        return tensor.clone().resolve_neg()
    return tensor


def empty_as(x, size, pool):
    """A 1-D tensor of the type of x on a cache line, its contents arbitrary.

    Large ones come from memory used before: fresh pages cost a fault each. PyTorch
    holds that as long as any tensor uses its storage.

    Parameters
    ----------
    x : Tensor
    size : int
    pool : _weights.MemoryPool
    """
    n_bytes = size * x.itemsize
    if n_bytes < _LARGE:
        return x.new_empty(size)
    return torch.frombuffer(pool.take(n_bytes), dtype=x.dtype)
