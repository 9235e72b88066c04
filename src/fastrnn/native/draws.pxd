# SPDX-License-Identifier: BSD-3-Clause
# What other Cython modules use of draws.pyx.

from fastrnn.native.capi cimport fr_draw, fr_shape


cdef class Draw:
    cdef fr_draw c
    # Copies, to which c points; None where it has none.
    cdef readonly object steps, rows
    cdef int check(self, str who, const fr_shape *shape) except -1


cdef fr_draw draw_of(Draw draw, str who, const fr_shape *shape, int cell) except *
