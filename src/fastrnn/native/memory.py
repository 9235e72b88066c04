# SPDX-License-Identifier: BSD-3-Clause
"""Memory that calls take and give back, so that a training loop stops allocating.

Fresh large arrays cost a page fault every 4 KiB when they are first written; a layer's
tape, packed weights and scratch are therefore used again.
"""

import os
import threading
import weakref

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


def aligned(size, dtype, allocate=np.empty):
    """A 1-D array that starts on a cache line, made by `allocate` (empty or zeros)."""
    dtype = np.dtype(dtype)
    room = allocate(size * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size * dtype.itemsize].view(dtype)


class Locked:
    """Base of what several threads share: a lock that a forked child has anew.

    A lock that some other thread held at the moment of the fork would never be opened
    in the child.
    """

    def __init__(self):
        self._lock = threading.Lock()
        _locked.add(self)


_locked = weakref.WeakSet()


def _renew_locks():
    for owner in _locked:
        owner._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


class Pool(Locked):
    """Aligned 1-D arrays of one dtype, kept for the next call of the same size."""

    def __init__(self, dtype, most):
        self._dtype = dtype
        self._most = most  # arrays kept; the oldest goes first
        self._free = []
        super().__init__()

    def __reduce__(self):
        return Pool, (self._dtype, self._most)  # a copy of a layer starts empty

    def take(self, size):
        """An array of exactly `size` elements, contents arbitrary."""
        with self._lock:
            for at, array in enumerate(self._free):
                if array.size == size:
                    return self._free.pop(at)
        return aligned(size, self._dtype)

    def give(self, *arrays):
        """Take back arrays that nobody uses any more; None is passed over."""
        with self._lock:
            self._free += [array for array in arrays if array is not None]
            del self._free[: -self._most]
