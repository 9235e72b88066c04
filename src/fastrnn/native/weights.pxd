# SPDX-License-Identifier: BSD-3-Clause
# What stack.pyx and tensors.pyx use of weights.pyx.

from libc.stdint cimport uint32_t

from fastrnn.native.capi cimport fr_cell_options, fr_kernels, fr_pack_args, fr_shape
from fastrnn.native.core cimport Kernels, Options

cdef enum:
    FINGERPRINT_WORDS = 64
    TURNS_FROM = 4 << 20  # bytes: see `Packed`

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
    cdef ptrdiff_t size  # bytes that were asked for


cdef class MemoryPool:
    cdef object __weakref__
    cdef list free
    cdef int most  # free rooms kept; the oldest goes first
    cdef ptrdiff_t free_bytes
    cdef ptrdiff_t in_use, peak, peak_before  # bytes asked for: now, and at most
    cdef int takes  # since the last window of takes ended
    cpdef Memory take(self, ptrdiff_t n_bytes)
    cdef int count(self, ptrdiff_t n_bytes) except -1
    cdef int trim(self, ptrdiff_t coming) except -1
    cdef int put(self, Room room, ptrdiff_t n_bytes) except -1


cdef class Layout:
    cdef readonly int cell, n_layers, n_directions, n_cells, n_states
    cdef readonly ptrdiff_t I, H, S
    cdef readonly bint merged
    cdef int gates
    cdef bint bias, general, peephole
    cdef Options options
    cdef double clip_value, clip_norm  # of dL/dh_t inside backward; 0 for none
    cdef tuple made_of
    cdef ptrdiff_t inputs(self, int layer) noexcept nogil
    cdef ptrdiff_t size(self, int k) noexcept nogil
    cdef ptrdiff_t start(self, int k) noexcept nogil
    cdef void fill(self, fr_pack_args *a, int k, char *at,
                   ptrdiff_t itemsize) noexcept nogil
    cdef const fr_cell_options *cell_options(self) noexcept nogil


cdef class Packed:
    cdef readonly Memory forward, backward  # None where there is none at the moment
    cdef const fr_kernels *table
    cdef uint32_t fingerprint[FINGERPRINT_WORDS]
    cdef int users
    cdef bint turns

    @staticmethod
    cdef Packed make(const fr_kernels *table, const fr_shape *shape,
                     ptrdiff_t itemsize)

    cdef Memory room(self, MemoryPool pool, const fr_shape *shape, ptrdiff_t itemsize,
                     bint backward)
    cdef int add_forward(self, owner, MemoryPool pool, fr_pack_args *a,
                         ptrdiff_t itemsize) except -1
    cdef int add_backward(self, owner, MemoryPool pool, fr_pack_args *a,
                          ptrdiff_t itemsize, bint same, bint in_turn) except -1


cdef class Use:
    cdef Packer packer
    cdef tuple cells
    cdef void **forward  # addresses, by cell
    cdef void **backward  # NULL until made
    cdef Kernels kernels
    cdef object parameters  # the layer's begin at element `start`
    cdef ptrdiff_t start
    cdef bint runs_again
    cdef int check(self, str who, Layout layout, Kernels kernels) except -1
    cdef int check_forward(self, str who, int first, int n) except -1
    cdef int make_backward(self, int first, int n, int n_threads) except -1


cdef class Packer:
    cdef Layout layout
    cdef MemoryPool pool
    cdef list packed  # by cell: Packed or None
    cdef char *locate(self, str who, Kernels kernels, int n_threads, parameters,
                      ptrdiff_t start) except NULL
    cdef Use use(self, Kernels kernels, parameters, ptrdiff_t start,
                 bint with_backward)
