# SPDX-License-Identifier: BSD-3-Clause
# What other Cython modules use of celltable.pyx.

from fastrnn.native.capi cimport fr_cell, fr_cell_options, fr_norm_parts

cdef const fr_cell *cell_at(str who, int index) except NULL
cdef int gates_of(const fr_cell *of, ptrdiff_t I, ptrdiff_t H) noexcept nogil
cdef int biased_of(const fr_cell *of, ptrdiff_t I, ptrdiff_t H) noexcept nogil
cdef int vectors_of(const fr_cell *of, const fr_cell_options *options) noexcept nogil
cdef fr_norm_parts norms_of(const fr_cell_options *options) noexcept nogil


cdef class CellOptions:
    cdef fr_cell_options c
    cdef readonly bint general  # c is looked at
    cdef readonly ptrdiff_t proj_size, heads
    cdef int n_activations
    cdef Py_ssize_t n_fixed
    cdef object fixed  # the array that c.fixed_vectors points to, or None
    cdef tuple made_of
    cdef bint differs(self, const fr_cell *of) noexcept

    cdef int check(self, str who, const fr_cell *of, ptrdiff_t H) except -1
