# SPDX-License-Identifier: BSD-3-Clause
# What _stack.pyx and _tensors.pyx use of _weights.

from libc.stdint cimport uint32_t

from fastrnn._capi cimport fr_cell_options, fr_kernels, fr_pack_args
from fastrnn._core cimport Kernels, Options

cdef enum:
    FINGERPRINT_WORDS = 64

cdef ptrdiff_t LINE  # bytes: pieces of a Memory begin at a multiple
cdef ptrdiff_t round_up(ptrdiff_t n_bytes) noexcept nogil


cdef class Room:
    cdef object array
    cdef char *start
    cdef ptrdiff_t size


cdef class Memory:
    cdef MemoryPool pool
    cdef Room room
    cdef char *start


cdef class MemoryPool:
    cdef list free
    cdef int most  # rooms kept; the oldest goes first
    cdef Memory take(self, ptrdiff_t n_bytes)
    cdef int put(self, Room room) except -1


cdef class Layout:
    cdef readonly int cell, n_layers, n_directions, n_cells, n_states
    cdef readonly ptrdiff_t I, H, S
    cdef readonly bint merged
    cdef int gates
    cdef bint bias, general, peephole
    cdef Options options
    cdef double clip_value, clip_norm  # of dL/dh_t inside backward; 0 for none
    cdef ptrdiff_t inputs(self, int layer) noexcept nogil
    cdef ptrdiff_t size(self, int k) noexcept nogil
    cdef ptrdiff_t start(self, int k) noexcept nogil
    cdef void fill(self, fr_pack_args *a, int k, char *at,
                   ptrdiff_t itemsize) noexcept nogil
    cdef const fr_cell_options *cell_options(self) noexcept nogil


cdef class Packed:
    cdef readonly Memory forward, backward  # backward is None until training asks
    cdef const fr_kernels *table
    cdef uint32_t fingerprint[FINGERPRINT_WORDS]
    cdef int users


cdef class Use:
    cdef Packer packer
    cdef tuple cells
    cdef void **forward  # addresses, by cell
    cdef void **backward


cdef class Packer:
    cdef Layout layout
    cdef MemoryPool pool
    cdef list packed  # by cell: Packed or None
    cdef Use use(self, bint with_backward)
