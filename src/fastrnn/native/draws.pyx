# SPDX-License-Identifier: BSD-3-Clause
"""Where the random choices of a call come from."""

cimport cython
from libc.stdint cimport int64_t

import numpy as np

from fastrnn.native.addresses cimport address
from fastrnn.native.calls cimport rows_of
from fastrnn.native.capi cimport fr_draw, fr_shape
from fastrnn.native.sizes cimport MOST_CELLS


@cython.final
cdef class Draw:
    """What a call of a layer draws in training, for the kernels (`fr_draw`).

    Choices follow from the key, the cell, and the numbers that the caller's rows and
    steps have, whatever part of these a call of the kernels works on.

    Parameters
    ----------
    key : int in [0, 2**64)
        Of the layer's call: forward and backward have the same.
    first_step, first_row : int
        The caller's numbers of the call's step 0 and row 0.
    steps : array_like of int64, optional
        Of a ragged batch that is not padded: the number of the step of each active row,
        as they lie side by side.
    rows : array_like of int64, shape (B,), optional
        The numbers of all rows.
    cell : int
        The number of a plan's cell 0; plans count their layout's cells from there.
    """

    def __cinit__(self, key, int64_t first_step=0, int64_t first_row=0, steps=None,
                  rows=None, int cell=0):
        if not 0 <= key < 1 << 64:
            raise ValueError(f"Draw: key must be in [0, 2**64), got {key}")
        if not 0 <= cell < MOST_CELLS:
            raise ValueError(f"Draw: cell must be in [0, {MOST_CELLS}), got {cell}")
        self.c.on, self.c.key, self.c.cell = True, key, cell
        self.c.first_step, self.c.first_row = first_step, first_row
        # The copies are this object's own, and read-only, so that nothing moves.
        self.steps, self.rows = own_copy(steps), own_copy(rows)
        if steps is not None:
            self.c.steps = <const int64_t *>address(
                self.steps, "steps", b"q", len(self.steps), False)
        if rows is not None:
            self.c.rows = <const int64_t *>address(
                self.rows, "rows", b"q", len(self.rows), False)

    @property
    def key(self):
        """Of the layer's call."""
        return self.c.key

    def part(self, ptrdiff_t begin, ptrdiff_t place=0):
        """What a call draws that begins at this one's step `begin`.

        Parameters
        ----------
        place : int
            How many active rows lie before it, where steps have an array.
        """
        steps = self.steps
        if steps is not None:
            if not 0 <= place <= len(steps):
                raise ValueError(
                    f"Draw.part: place must be in [0, {len(steps)}], got {place}")
            steps = steps[place:]
        return Draw(self.c.key, self.c.first_step + begin, self.c.first_row, steps,
                    self.rows, self.c.cell)

    cdef int check(self, str who, const fr_shape *shape) except -1:
        """Whether there are numbers for all that a call of this shape works on."""
        if self.steps is not None:
            if shape.offsets == NULL or shape.padded:
                raise ValueError(f"{who}: draw has steps for a ragged batch")
            if len(self.steps) < rows_of(shape):
                raise ValueError(
                    f"{who}: draw must have {rows_of(shape)} steps, got "
                    f"{len(self.steps)}")
        if self.rows is not None and len(self.rows) < shape.B:
            raise ValueError(
                f"{who}: draw must have {shape.B} rows, got {len(self.rows)}")
        return 0


cdef object own_copy(numbers):
    if numbers is None:
        return None
    copy = np.array(numbers, np.int64, ndmin=1)
    copy.setflags(write=False)
    return copy


cdef fr_draw draw_of(Draw draw, str who, const fr_shape *shape, int cell) except *:
    """What a call of this shape draws for cell number `cell` of its layout; None: not.
    """
    cdef fr_draw c
    if draw is None:
        c.on, c.cell, c.key, c.first_step, c.first_row = False, 0, 0, 0, 0
        c.steps, c.rows = NULL, NULL
        return c
    draw.check(who, shape)
    c = draw.c
    c.cell += cell
    return c
