# SPDX-License-Identifier: BSD-3-Clause
# What other Cython modules use of layout.pyx.

from fastrnn.native.capi cimport fr_cell, fr_cell_options, fr_norm_parts, fr_pack_args
from fastrnn.native.celltable cimport CellOptions

cdef enum:
    N_PARTS = 10

cdef enum:  # the parameters of a cell, in the order of a layer's flat buffer
    PART_W = 0
    PART_R = 1
    PART_B_IH = 2
    PART_B_HH = 3
    PART_W_HR = 4
    PART_P = 5
    PART_NORM_IH = 6
    PART_NORM_HH = 7
    PART_NORM_C = 8
    PART_NORM_C_BIAS = 9


cdef struct Parts:
    # The parameters of a cell, or their gradients.
    char *at[N_PARTS]  # NULL where there is none
    ptrdiff_t size[N_PARTS]  # elements; 0 of a parameter that the cell does not have


cdef class Layout:
    cdef readonly int cell, n_layers, n_directions, n_cells, n_states
    cdef readonly ptrdiff_t I, H, S, heads
    cdef readonly bint merged
    cdef const fr_cell *of
    cdef int n_vectors
    cdef fr_norm_parts norms
    cdef bint bias, general
    cdef CellOptions options
    cdef double clip_value, clip_norm  # of dL/dh_t inside backward; 0 for none
    cdef tuple made_of
    cdef ptrdiff_t inputs(self, int layer) noexcept nogil
    cdef ptrdiff_t size(self, int k) noexcept nogil
    cdef ptrdiff_t start(self, int k) noexcept nogil
    cdef int n_parts(self) noexcept nogil
    cdef void sizes(self, int k, Parts *p) noexcept nogil
    cdef void find(self, int k, char *at, ptrdiff_t itemsize, Parts *p) noexcept nogil
    cdef void describe(self, fr_pack_args *a, int k, const Parts *p) noexcept nogil
    cdef const fr_cell_options *cell_options(self) noexcept nogil
