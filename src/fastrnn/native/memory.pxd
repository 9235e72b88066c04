# SPDX-License-Identifier: BSD-3-Clause
# What other Cython modules use of memory.pyx.

cdef ptrdiff_t round_up(ptrdiff_t n_bytes) noexcept nogil
cdef enum:
    LINE = 64  # bytes: a cache line, and the widest vector


cdef class Room:
    cdef object array
    cdef char *start
    cdef ptrdiff_t size


cdef class Loan:
    cdef Pool pool
    cdef Room room
    cdef char *start
    cdef ptrdiff_t size  # bytes that were asked for


cdef class Pool:
    cdef object __weakref__
    cdef list free
    cdef int most  # free rooms kept; the oldest goes first
    cdef ptrdiff_t free_bytes
    cdef ptrdiff_t in_use, peak, peak_before  # bytes asked for: now, and at most
    cdef int takes  # since the last window of takes ended
    cpdef Loan take(self, ptrdiff_t n_bytes)
    cdef int count(self, ptrdiff_t n_bytes) except -1
    cdef int trim(self, ptrdiff_t coming) except -1
    cdef int put(self, Room room, ptrdiff_t n_bytes) except -1
