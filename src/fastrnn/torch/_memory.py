# SPDX-License-Identifier: BSD-3-Clause
"""Tensors whose memory the kernels can use, and memory that is used more than once."""

import torch

from fastrnn.native import core
from fastrnn.torch import _compat

_NAMES = {torch.float32: "float32", torch.float64: "float64"}
# From this size on, in bytes, tensors come from a pool. The C library's allocator keeps
# smaller pieces of memory by itself, and takes less time than the pool.
_LARGE = 1 << 20


def kernels(dtype, compute=None):
    """The kernel table for a torch dtype.

    `compute` names, for float32, one that rounds the operands of products.
    """
    return core.kernels(compute or _NAMES[dtype])


def plain(tensor):
    """The tensor, or a copy of it if its memory does not hold its values.

    PyTorch may negate a tensor by a mark that its readers have to heed, and may stand
    for zeros without memory. The kernels read memory alone.
    """
    if tensor.is_neg() or _compat.is_zerotensor(tensor):
        return tensor.clone().resolve_neg()
    return tensor


def empty_as(x, size, pool):
    """A 1-D tensor of the type of x, on a cache line and with arbitrary contents.

    A large tensor takes its memory from the pool, which hands out memory that earlier
    calls have used: writing to fresh memory costs a page fault for each page. The
    tensor's storage refers to the pool's memory, so the memory goes back to the pool
    when no tensor uses that storage any more.

    Parameters
    ----------
    x : Tensor
    size : int
        The number of elements.
    pool : fastrnn.native.memory.Pool
    """
    n_bytes = size * x.itemsize
    if n_bytes < _LARGE:
        return x.new_empty(size)
    return torch.frombuffer(pool.take(n_bytes), dtype=x.dtype)
