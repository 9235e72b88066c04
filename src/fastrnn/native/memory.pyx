# SPDX-License-Identifier: BSD-3-Clause
"""Memory that calls take and give back, so that a training loop stops allocating.

Fresh large arrays cost a page fault every 4 KiB when they are first written; a layer's
tape, packed weights and scratch are therefore used again.  A `Pool` makes rooms and
lends them: a `Room` is a block of memory, a `Loan` is the right to use one.  A loan
ends when nobody refers to it: nothing needs to be given back by hand, and a context
that is dropped without a backward leaves no less behind than one that is spent.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo

import os
import threading
import weakref

import numpy as np

from fastrnn.native.addresses cimport address
from fastrnn.native.sizes cimport product

ALIGNMENT = LINE


def aligned(size, dtype, allocate=np.empty):
    """A 1-D array that starts on a cache line, made by `allocate` (empty or zeros)."""
    dtype = np.dtype(dtype)
    room = allocate(size * dtype.itemsize + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    return room[start : start + size * dtype.itemsize].view(dtype)


class Locked:
    """Base of what several threads share: a lock that a forked child has anew.

    A lock that some other thread held at the moment of the fork would never be opened
    in the child.
    """

    def __init__(self):
        lock_anew(self)


_locked = weakref.WeakSet()


def lock_anew(owner):
    """Give an object a `_lock`, now and in each forked child."""
    owner._lock = threading.Lock()
    _locked.add(owner)


def _renew_locks():
    for owner in _locked:
        owner._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


cdef ptrdiff_t round_up(ptrdiff_t n_bytes) noexcept nogil:
    """Whole cache lines."""
    return (n_bytes + LINE - 1) // LINE * LINE


@cython.final
cdef class Room:
    """Memory that a pool has made, from the start of a cache line."""


@cython.final
@cython.no_gc  # __dealloc__ needs its attributes, and they lead to no Loan
@cython.freelist(16)
cdef class Loan:
    """The right to use a room, from its start, until nobody refers to the loan.

    Its buffer is the bytes that were asked for: an array over it refers to the loan.
    """

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.start, self.size, False, flags)

    def __dealloc__(self):
        if self.pool is not None:
            self.pool.put(self.room, self.size)


cdef enum:
    WINDOW = 64  # takes: what none of so many needed goes
    ALWAYS = 1 << 20  # bytes that may be free in any case


@cython.final
cdef class Pool:
    """Rooms that were in use and wait for the next call that needs one of their size.

    Fresh large arrays cost a page fault every 4 KiB when they are first written. A room
    may be up to twice as large as what is asked for, so that sequences of many lengths
    need few rooms.

    All rooms together, free or in use, are at most twice what was in use at once in
    the last calls (between `WINDOW` and twice as many), or `ALWAYS` more than what is
    in use: the rooms that were free the longest go first. All are gone when nobody
    refers to the pool or to memory from it.
    """

    def __cinit__(self, int most):
        if most < 0:
            raise ValueError(f"Pool: most must be >= 0, got {most}")
        self.free, self.most = [], most

    def __reduce__(self):
        return Pool, (self.most,)  # a copy of a layer starts empty

    @property
    def held(self):
        """Bytes that were asked for and are in use, and those of rooms that are free.
        """
        with cython.critical_section(self):
            return self.in_use + self.free_bytes

    cpdef Loan take(self, ptrdiff_t n_bytes):
        """At least `n_bytes`, contents arbitrary; from a room at most twice as large.
        """
        cdef Loan taken
        cdef Room room, best = None
        cdef Py_ssize_t at, best_at = -1, below = 0, below_at = -1
        if n_bytes < 0:
            raise ValueError(f"take: n_bytes must be >= 0, got {n_bytes}")
        with cython.critical_section(self):
            for at in range(len(self.free)):
                room = <Room>self.free[at]
                if n_bytes <= room.size <= 2 * n_bytes and (
                        best_at < 0 or room.size < best.size):
                    best, best_at = room, at
                if below < room.size < n_bytes:
                    below, below_at = room.size, at
            if best_at < 0:
                best_at = below_at  # sequences got longer: what served them goes
            if best_at >= 0:
                room = <Room>self.free.pop(best_at)
                self.free_bytes -= room.size
            self.trim(n_bytes)
        if best is None:
            best = Room.__new__(Room)
            best.array, best.size = aligned(n_bytes, np.uint8), n_bytes
            best.start = <char *>address(
                best.array, "memory", b"B", n_bytes, True)
        with cython.critical_section(self):
            self.count(n_bytes)
        taken = Loan.__new__(Loan)
        taken.pool, taken.room, taken.start = self, best, best.start
        taken.size = n_bytes
        return taken

    def array(self, ptrdiff_t size, dtype):
        """A 1-D array of `size` elements in memory on loan, contents arbitrary."""
        dtype = np.dtype(dtype)
        return np.frombuffer(self.take(product("Pool", size, dtype.itemsize)), dtype)

    cdef int count(self, ptrdiff_t n_bytes) except -1:
        """Note that so many bytes more are in use."""
        self.takes += 1
        if self.takes == WINDOW:
            self.takes, self.peak_before, self.peak = 0, self.peak, self.in_use
        self.in_use += n_bytes
        self.peak = max(self.peak, self.in_use)
        return 0

    cdef int trim(self, ptrdiff_t coming) except -1:
        """Let free rooms go until there are no more than the class says.

        Parameters
        ----------
        coming : ptrdiff_t
            Bytes that will be in use besides those that are.
        """
        cdef ptrdiff_t in_use = self.in_use + coming
        cdef ptrdiff_t most = max(self.peak, self.peak_before, in_use)
        most = max(2 * most - in_use, ALWAYS)
        while self.free_bytes > most or len(self.free) > self.most:
            self.free_bytes -= (<Room>self.free.pop(0)).size
        return 0

    cdef int put(self, Room room, ptrdiff_t n_bytes) except -1:
        """Take back a room of which so many bytes were in use."""
        with cython.critical_section(self):
            self.in_use -= n_bytes
            self.free.append(room)
            self.free_bytes += room.size
            self.trim(0)
        return 0


_shared = weakref.WeakValueDictionary()


def shared_pool(str name not None, int most):
    """The pool of this name, one for all who hold it; gone when nobody does."""
    return _shared.setdefault(name, Pool(most))
