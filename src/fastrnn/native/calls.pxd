# SPDX-License-Identifier: BSD-3-Clause
# What other Cython modules use of calls.pyx: where things lie, and the calls for them.

from libc.stdint cimport uint64_t

from fastrnn.native.capi cimport fr_cell, fr_draw, fr_kernels, fr_shape
from fastrnn.native.celltable cimport CellOptions
from fastrnn.native.core cimport Kernels
from fastrnn.native.layout cimport Layout, Parts

cdef struct Sequence:
    # T steps of B rows, or the rows of a ragged batch; strides are in elements.
    char *at  # the first element; NULL where there is no such sequence
    ptrdiff_t step, row, width


cdef struct PerCell:
    # What each cell has of its own, one after the other.
    char *at  # the first cell's; NULL where there is none
    ptrdiff_t n_bytes  # to the next one's; 0 where all have the same
    bint by_slot  # there are only as many as there are cells that run at once


cdef int sequence_of_array(
    Sequence *s, object array, str what, char kind, const fr_shape *shape,
    ptrdiff_t first, ptrdiff_t step, ptrdiff_t row, ptrdiff_t width,
    bint writable) except -1

cdef int sequence_of_tensor(
    Sequence *s, object tensor, str what, char kind, const fr_shape *shape,
    ptrdiff_t width, bint batch_first, bint writable) except -1

cdef int check_half(str who, const fr_shape *shape) except -1
cdef int check_weights(str who, Kernels kernels, const fr_cell *of,
                       const fr_shape *shape, CellOptions options) except -1
cdef ptrdiff_t rows_of(const fr_shape *shape) noexcept nogil
cdef ptrdiff_t extent_of_sequence(
    const Sequence *s, const fr_shape *shape) noexcept nogil
cdef PerCell per_cell(char *at, ptrdiff_t n_bytes, bint by_slot) noexcept nogil


cdef class Run:
    cdef const fr_kernels *table
    cdef fr_shape shape  # I and reverse: each layer's, each direction's
    cdef int n_threads, n_layers, n_directions
    cdef ptrdiff_t itemsize
    cdef int weights  # of enum fr_weights; unless FR_WHOLE, one cell runs at once
    cdef bint reverse  # a single direction that goes backwards
    cdef int at_once  # cells
    cdef bint chained  # those are layers, not directions
    cdef ptrdiff_t steps_before  # of one sequence, by runs before: see fastrnn.h
    # Of each layer:
    cdef Sequence *x
    cdef Sequence *y
    cdef Sequence *dx
    cdef Sequence *dy
    # Of each cell:
    cdef void **packed
    cdef Parts *gradients  # of parameters; no addresses where nobody wants them
    cdef PerCell h0, c0, h_n, c_n, tape, work
    cdef PerCell dh_n, dc_n, dh0, dc0, flow, blocks
    cdef ptrdiff_t c_step  # elements between a cell's states beside h, as c0 has them
    # Dropout between layers:
    cdef const uint64_t *seeds  # of each layer but the last; NULL for none
    cdef double p
    cdef fr_draw draw  # of the first cell
    # Backward:
    cdef bint add_dx  # the first direction adds to dx, too
    cdef char *second_dx  # of a second direction that runs at once with the first
    cdef bint clear  # gradients are cleared first
    cdef double clip_value, clip_norm
    cdef bint started, open  # the sequence: a call came before, another one follows

    @staticmethod
    cdef Run make(const fr_kernels *table, const fr_shape *shape, int n_threads,
                  int n_layers, int n_directions, ptrdiff_t itemsize)
    cdef double flops(self) noexcept nogil
    cdef void drop(self, int layer, int n_threads, char *x, char *y) noexcept nogil
    cdef void forward(self, const Sequence *xs) noexcept nogil
    cdef void backward(self) noexcept nogil
    cdef void clear_gradients(self, int n_threads, const Parts *g) noexcept nogil


cdef class Plan:
    cdef readonly Kernels kernels
    cdef readonly object offsets  # a copy: `checked` has what the kernels read
    cdef object checked
    cdef Layout layout
    cdef char kind
    cdef fr_shape shape  # I: of the first layer
    cdef ptrdiff_t rows  # of a sequence: T * B, or N
    cdef ptrdiff_t width  # of an output: directions side by side
    cdef ptrdiff_t itemsize

    cdef int set_shape(self, str who, Kernels kernels, Layout layout, ptrdiff_t T,
                       ptrdiff_t B, ptrdiff_t I, ptrdiff_t length, offsets,
                       bint padded) except -1
