# SPDX-License-Identifier: BSD-3-Clause
# What other Cython modules use of core.pyx.

from fastrnn.native.capi cimport fr_cell, fr_cell_options, fr_kernels, fr_rows, fr_step

cdef void *address(object array, str what, char kind, ptrdiff_t size,
                   bint writable, bint at_least=*,
                   ptrdiff_t alignment=*) except? NULL

cdef ptrdiff_t size_of(char kind) noexcept

cdef int team(int n_threads) except -1
cdef int team_of(str who, int n_threads) except -1

cdef const fr_cell *cell_at(str who, int index) except NULL

cdef check_offsets(ptrdiff_t T, ptrdiff_t B, const ptrdiff_t[::1] offsets)


cdef class Rows:
    cdef fr_rows c
    cdef ptrdiff_t size
    cdef object rows, seen, rates

    cdef int look(self) except -1
    cdef const fr_rows *checked(self, char kind, ptrdiff_t P) except NULL


cdef class Kernels:
    cdef const fr_kernels *table
    cdef char kind
    cdef readonly str target
    cdef readonly str dtype
    cdef readonly int lanes

    @staticmethod
    cdef Kernels wrap(const fr_kernels *table)

    cdef fr_step step(self, int n_threads, p, g, state, str names, rates,
                      double weight_decay, bint maximize, Rows rows) except *


cdef class Options:
    cdef fr_cell_options c
    cdef readonly bint general  # c is looked at
    cdef readonly ptrdiff_t proj_size
    cdef int n_activations
    cdef tuple made_of

    cdef int check(self, str who, const fr_cell *of, ptrdiff_t H) except -1
