# SPDX-License-Identifier: BSD-3-Clause
"""A stack of recurrent layers over NumPy's arrays, as one call.

A small network's step takes the kernels some ten microseconds, so what surrounds them
has to fit in a few: sizes and strides are worked out once for a shape, and all layers
and directions run without the interpreter in between.  Longer than most files, because
a plan looks at all that either direction is given before the direction begins.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_STRIDES,
    PyBuffer_IsContiguous, PyBuffer_Release, PyObject_GetBuffer,
)
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

import numpy as np

from fastrnn.native.addresses cimport address
from fastrnn.native.calls cimport (
    Plan, Run, Sequence, extent_of_sequence, per_cell, sequence_of_array,
)
from fastrnn.native.capi cimport FR_WHOLE, fr_shape
from fastrnn.native.core cimport Kernels, allowed, team
from fastrnn.native.draws cimport Draw, draw_of
from fastrnn.native.layout cimport Layout
from fastrnn.native.memory cimport Loan, Pool, round_up
from fastrnn.native.sizes cimport check_start, check_threads, product
from fastrnn.native.weights cimport Use

cdef object ndarray = np.ndarray


cdef bint is_plain(object array, char kind, tuple shape):
    """Whether `array` is a C-contiguous ndarray of this type and shape."""
    cdef Py_buffer view
    cdef int i
    cdef bint plain
    if type(array) is not ndarray:
        return False
    try:
        PyObject_GetBuffer(array, &view, PyBUF_FORMAT | PyBUF_STRIDES)
    except (ValueError, BufferError):  # a type that has no buffer, such as a date
        return False
    plain = (view.format[0] == kind and view.format[1] == 0
             and view.ndim == len(shape) and PyBuffer_IsContiguous(&view, b"C"))
    for i in range(view.ndim if plain else 0):
        plain = plain and view.shape[i] == <Py_ssize_t>shape[i]
    PyBuffer_Release(&view)
    return plain


cdef void copy_or_clear(char *to, const char *source, ptrdiff_t n_bytes) noexcept nogil:
    if source == NULL:
        memset(to, 0, n_bytes)
    else:
        memcpy(to, source, n_bytes)


@cython.final
cdef class OpenBlock:
    """What backward calls hand on that go through a sequence part by part.

    The kernels sum the parameters' gradients over blocks of rows, and a block may begin
    in one call and end in the next. From `ArrayPlan.take_block`; it is for plans of the
    same cells and the same B.
    """

    cdef Loan room
    cdef Kernels kernels
    cdef Layout layout
    cdef ptrdiff_t B, n_bytes  # those of a cell
    cdef int first, n_cells
    cdef bint started  # it has what a call has left


@cython.final
cdef class ArrayPlan(Plan):
    """Layers, each of one or two directions, over T steps of B rows.

    Their parameters, packed weights and states are those of a `Layout` from cell
    `first` on: of all its cells, or of a single one (`n_cells` = 1), when the caller
    goes through layers and directions itself.  Sequences are (T, B, width); a layer's
    own x and y are (B, T, width) when it is batch first.  They may be `length` steps
    long, of which a call takes T.  With `y_inside` the layer's y is laid out like those
    of inner layers.

    With `offsets` (T + 1 of them), the kernels' ragged batches, sequences are
    (N, width) arrays of the rows that are active, step by step; or, `padded`, arrays of
    all rows whose first ones are active. What a plan of the whole sequence writes
    beyond T steps, up to `length`, is then the caller's.

    Outputs of inner layers, and those of the last where the caller gives no `y`, are
    (T, B, width) in memory that forward returns (`kept`), after the initial states and
    the tapes.

    What a call gets has to fit the plan: arrays of the sizes that it needs, the weights
    of its own layout, what a forward of such a plan kept.  A call that does not fit
    raises before anything is written.
    """

    cdef readonly int n_threads
    cdef readonly ptrdiff_t T, B, length
    cdef readonly bint batch_first, padded
    cdef readonly bint is_whole  # a call takes all steps of the arrays
    cdef readonly tuple x_shape, y_shape, state_shape
    cdef int first, n_layers, n_directions, n_cells, n_states
    cdef readonly ptrdiff_t x_step, y_step, x_row, y_row
    cdef ptrdiff_t state, series, tape  # elements; bytes rounded up to lines; likewise
    cdef ptrdiff_t forward_work, backward_work, block_size
    cdef readonly int at_once  # cells: a layer's directions, or, `chained`, layers
    cdef bint chained

    def __cinit__(self, Kernels kernels not None, int n_threads,
                  Layout layout not None, ptrdiff_t T, ptrdiff_t B, *,
                  bint batch_first=False, ptrdiff_t length=0, int first=0,
                  int n_cells=0, offsets=None, bint y_inside=False,
                  bint padded=False):
        cdef bint own_x, own_y
        cdef int layer
        cdef ptrdiff_t D = layout.n_directions, size
        cdef fr_shape shape
        check_threads("ArrayPlan", n_threads)
        if n_cells not in (0, 1) or not 0 <= first < layout.n_cells or (
                n_cells == 0 and first):
            raise ValueError(f"ArrayPlan: no such cells: {(first, n_cells)}")
        length = max(length, T)
        self.set_shape("ArrayPlan", kernels, layout, T, B, layout.inputs(first // D),
                       length, offsets, padded)
        self.n_threads, self.T, self.B, self.length = n_threads, T, B, length
        self.batch_first, self.first, self.padded = batch_first, first, padded
        self.is_whole = length == T
        self.n_states = layout.n_states
        self.n_layers = layout.n_layers if n_cells == 0 else 1
        self.n_directions = layout.n_directions if n_cells == 0 else 1
        self.n_cells = self.n_layers * self.n_directions
        self.state_shape = (self.n_states, self.n_cells, B, layout.H)
        # The layer's own x and y may be batch first; all in between is not.
        layer = first // layout.n_directions
        own_x = layer == 0
        own_y = layer + self.n_layers == layout.n_layers and not y_inside
        size = length if padded else T  # of the arrays
        self.x_shape = (size, B, self.shape.I)
        self.x_step, self.x_row = B * self.shape.I, self.shape.I
        if batch_first and own_x:
            self.x_shape = (B, size, self.shape.I)
            self.x_step, self.x_row = self.shape.I, length * self.shape.I
        if layout.merged and n_cells == 0:  # not run: it has the shapes only
            self.width = layout.S
        self.y_shape = (size, B, self.width)
        self.y_step, self.y_row = B * self.width, self.width
        if batch_first and own_y:
            self.y_shape = (B, size, self.width)
            self.y_step, self.y_row = self.width, length * self.width
        if offsets is not None and not padded:
            self.x_shape = (self.rows, self.shape.I)
            self.y_shape = (self.rows, self.width)
        self.state = B * layout.H
        self.series = round_up(self.rows * self.width * self.itemsize)
        self.tape = round_up(kernels.table.tape_size(&self.shape) * self.itemsize)
        self.chained = self.n_directions == 1
        for layer in range(min(self.n_layers, 2)):
            shape = self.shape
            shape.I = self.shape.I if layer == 0 else self.width
            if kernels.weights != FR_WHOLE:
                size = kernels.table.quantized_work_size(
                    &shape, n_threads, kernels.weights)
            else:
                size = kernels.table.forward_work_size(&shape, n_threads)
            self.forward_work = max(self.forward_work, round_up(size * self.itemsize))
            size = kernels.table.backward_work_size(&shape, n_threads)
            self.backward_work = max(self.backward_work, round_up(size * self.itemsize))
            size = kernels.table.backward_block_size(&shape)
            self.block_size = max(self.block_size, round_up(size * self.itemsize))
        self.at_once = 1
        if kernels.weights == FR_WHOLE:
            self.at_once = kernels.table.calls_at_once(
                &shape, n_threads, self.n_layers if self.chained else 2, self.chained)

    def fits(self, Kernels kernels, int n_threads, bint batch_first, x):
        """Whether this is a plan for such a call, and x as `forward` needs it."""
        return (kernels is self.kernels and n_threads == self.n_threads
                and batch_first == self.batch_first
                and is_plain(x, self.kind, self.x_shape))

    @property
    def keeps(self):
        """Whether backward needs what grows with T, x and y aside.

        One layer of a plain RNN has its derivatives from y alone.
        """
        return self.tape > 0 or self.n_layers > 1

    @property
    def inner_shape(self):
        """Of outputs of inner layers, without their width."""
        if self.offsets is None or self.padded:
            return self.T, self.B
        return self.rows,

    def part(self, ptrdiff_t begin, ptrdiff_t end, int first=0, int n_cells=0,
             int n_threads=0, bint y_inside=False):
        """The plan of some of the steps of a ragged batch."""
        cdef object offsets
        if self.offsets is None or not 0 <= begin < end <= self.T:
            raise ValueError(
                f"ArrayPlan.part: needs a ragged plan and steps in [0, {self.T}], got "
                f"{(begin, end)}")
        offsets = self.offsets[begin:end + 1] - self.offsets[begin]
        return ArrayPlan(self.kernels, n_threads or self.n_threads, self.layout,
                         end - begin, self.B, batch_first=self.batch_first,
                         length=self.length, first=first, n_cells=n_cells,
                         offsets=offsets, y_inside=y_inside, padded=self.padded)

    def takes_dy(self, dy):
        """Whether dy is as `backward` needs it."""
        return is_plain(dy, self.kind, self.y_shape)

    cdef ptrdiff_t buffers(self, int at_once) noexcept nogil:
        """Sequences between layers that are in use at a time."""
        return min(self.n_layers - 1, at_once + 1 if self.chained else 2)

    cdef ptrdiff_t states(self) noexcept nogil:
        """Bytes of the states of all cells, in lines."""
        return round_up(self.n_states * self.n_cells * self.state * self.itemsize)

    cdef int outside_x(self, Sequence *s, array, str what, ptrdiff_t first,
                       bint writable) except -1:
        """Set where the first layer's inputs, or their gradients, lie."""
        return sequence_of_array(s, array, what, self.kind, &self.shape, first,
                                 self.x_step, self.x_row, self.shape.I, writable)

    cdef int outside_y(self, Sequence *s, array, str what, ptrdiff_t first,
                       bint writable) except -1:
        """Set where the last layer's outputs, or their gradients, lie."""
        return sequence_of_array(s, array, what, self.kind, &self.shape, first,
                                 self.y_step, self.y_row, self.width, writable)

    cdef void inside(self, Sequence *s, char *at) noexcept:
        """Set where a sequence lies that the caller does not see."""
        s.at, s.width = at, self.width
        s.step, s.row = self.shape.B * self.width, self.width

    cdef void inputs_inside(self, Run run, char *dropped) noexcept:
        """Layers but the first read outputs, or what dropout makes of them, if there is
        room for that.
        """
        cdef int layer
        for layer in range(1, self.n_layers):
            run.x[layer] = run.y[layer - 1]
            if dropped != NULL:
                run.x[layer].at = dropped + (layer - 1) * self.series

    cdef int set_cells(self, Run run, Use use, char *start, bint backward) except -1:
        """Set where packed weights and initial states lie."""
        cdef ptrdiff_t n_bytes = self.state * self.itemsize
        cdef int k
        for k in range(self.n_cells):
            run.packed[k] = use.packed_at(self.first + k, backward)
        run.h0 = per_cell(start, n_bytes, False)
        run.c_step = self.n_cells * self.state
        if self.n_states > 1:
            run.c0 = per_cell(start + self.n_cells * n_bytes, n_bytes, False)
        return 0

    cdef Run run(self, seeds, double p, Draw draw):
        """A `Run` of the plan's cells, with dropout between layers."""
        cdef Run run = Run.make(self.kernels.table, &self.shape, self.n_threads,
                                self.n_layers, self.n_directions, self.itemsize)
        run.reverse = self.first % self.layout.n_directions
        run.chained, run.weights = self.chained, self.kernels.weights
        # Dropout needs a layer's outputs of all steps.
        run.at_once = 1 if self.chained and seeds is not None else self.at_once
        run.seeds, run.p = self.seeds(seeds, p), p
        run.draw = draw_of(draw, "ArrayPlan", &self.shape, self.first)
        return run

    cdef int check_run(self) except -1:
        if self.layout.merged and self.n_directions == 2:
            raise ValueError(
                "ArrayPlan: directions that are merged run one cell at a time")
        return 0

    cdef const uint64_t *seeds(self, seeds, double p) except? NULL:
        if seeds is None:
            return NULL
        if not 0 <= p <= 1:
            raise ValueError(f"ArrayPlan: p must be in [0, 1], got {p}")
        return <const uint64_t *>address(seeds, "seeds", b"q", self.n_layers - 1, False)

    def forward(self, Pool pool not None, Use use not None, x, ptrdiff_t x_at,
                h0, c0, seeds, double p, y, ptrdiff_t y_at, end, bint training,
                Draw draw=None):
        """Run all cells; in training, the `kept` that backward asks for.

        Parameters
        ----------
        use : Use
            Of the weights of the whole layer. A backward may leave no forward form: see
            `Use.keep_forward`.
        x, y : ndarray
            Of `length` steps; the first of these T is at element `x_at`, `y_at`. `y`
            may be None in training.
        h0 : ndarray, shape (n_cells, B, H), or None for zero
        c0 : ndarray, shape (n_states - 1, n_cells, B, H), or None for zero
            They are copied. With a projection h is narrower, (B, S): those of a cell
            are the first B * S of its B * H elements, here and wherever a state comes.
        seeds : ndarray of int64, shape (n_layers - 1,), or None
            Of the dropout between layers; `p` is its probability.
        end : ndarray, shape (n_states, n_cells, B, H)
            Last states, written.
        draw : Draw, optional
            What the cells draw; without one their choices have expectations.
        """
        cdef ptrdiff_t size = self.itemsize
        cdef ptrdiff_t states = self.n_cells * self.state, n_bytes = states * size
        cdef int inner = self.n_layers - 1, layer
        cdef Run run = self.run(seeds, p, draw)
        cdef ptrdiff_t n_work = self.forward_work * run.at_once
        cdef ptrdiff_t buffers = self.buffers(run.at_once)
        cdef char *h = <char *>address(h0, "h0", self.kind, states, False)
        cdef char *c = <char *>address(
            c0, "c0", self.kind, max(1, self.n_states - 1) * states, False)
        cdef char *last = <char *>address(
            end, "end", self.kind, self.n_states * states, True)
        cdef Loan work, kept = None
        cdef char *start
        cdef char *outputs
        cdef char *dropped = NULL
        cdef char *scratch
        cdef bint own_y = y is None
        self.outside_x(&run.x[0], x, "x", x_at, False)
        self.outside_y(&run.y[inner], y, "y", y_at, True)
        if x is None or end is None or (own_y and not training):
            raise TypeError(
                "ArrayPlan.forward: x, end, and y in inference, must be arrays")
        if self.kernels.weights != FR_WHOLE and (training or draw is not None):
            raise ValueError(
                "ArrayPlan.forward: training must be False, and draw None, for weights "
                "of fewer bytes")
        team(self.n_threads)
        self.check_run()
        use.check("ArrayPlan.forward", self.layout, self.kernels)
        use.check_forms("ArrayPlan.forward", self.first, self.n_cells, False)
        if training:
            kept = self.take_kept(pool, own_y, run.seeds != NULL)
            work = pool.take(n_work)
            start, scratch = kept.start, work.start
            run.tape = per_cell(start + self.states(), self.tape, False)
            outputs = run.tape.at + self.n_cells * self.tape
            if run.seeds != NULL:
                dropped = outputs + (inner + own_y) * self.series
        else:
            work = pool.take(self.states() + buffers * self.series + n_work)
            start = work.start
            outputs = start + self.states()
            scratch = outputs + buffers * self.series
        for layer in range(inner + own_y):
            self.inside(&run.y[layer], outputs + (
                layer if training else layer % buffers) * self.series)
        self.inputs_inside(run, dropped)
        self.set_cells(run, use, start, False)
        run.h_n = per_cell(last, self.state * size, False)
        if self.n_states > 1:
            run.c_n = per_cell(last + n_bytes, self.state * size, False)
        run.work = per_cell(scratch, self.forward_work, True)
        with nogil:
            copy_or_clear(start, h, n_bytes)
            if self.n_states > 1:
                copy_or_clear(start + n_bytes, c, (self.n_states - 1) * n_bytes)
            run.forward(run.x)
        return kept

    cdef Loan take_kept(self, Pool pool, bint own_y, bint dropped):
        """Initial states, tapes, outputs of inner layers, the same after dropout."""
        return pool.take(self.kept_size(own_y, dropped))

    cdef ptrdiff_t kept_size(self, bint own_y, bint dropped) noexcept nogil:
        """Bytes of what forward keeps."""
        cdef ptrdiff_t inner = self.n_layers - 1
        return (self.states() + self.n_cells * self.tape
                + (inner + own_y + dropped * inner) * self.series)

    def backward(self, Pool pool not None, Use use not None, Loan kept not None,
                 x, ptrdiff_t x_at, seeds, double p, y, ptrdiff_t y_at, dy, dh_n, dc_n,
                 dx, d_start, grads, ptrdiff_t grads_start,
                 OpenBlock block=None, bint open=False, flow=None,
                 ptrdiff_t flow_at=0, Draw draw=None):
        """Back-propagate through all cells; see `forward` for what it shares with it.

        Parameters
        ----------
        kept : Loan
            What forward gave, with the same `use`, `x`, `seeds`, `p`, `y` and `draw`.
        dy : ndarray or None
            Laid out like y, even where `y` is None.
        dh_n : ndarray, shape (n_cells, B, H), or None for zero
        dc_n : ndarray, shape (n_states - 1, n_cells, B, H), or None for zero
        dx : ndarray
            Laid out like x. Overwritten; by the second direction alone, added to.
        d_start : ndarray, shape (n_states, n_cells, B, H)
            Gradients of the initial states, written.
        grads : ndarray, 1-D, or None
            The layer's begin at element `grads_start`; added to. None where nobody
            wants them: they are not computed.
        block : OpenBlock, optional
            The same in all calls, when the sequence comes in several, last steps first:
            `open` for all but the last, which may be followed by those of another
            sequence.
        flow : ndarray of float64, shape (n_cells, length, B), optional
            Squared norms of dL/dh_t, written; this call's begin at element `flow_at`.
        """
        cdef ptrdiff_t size = self.itemsize
        cdef ptrdiff_t states = self.n_cells * self.state, n_bytes = states * size
        cdef int inner = self.n_layers - 1, layer, k
        cdef Run run = self.run(seeds, p, draw)
        cdef char *dh = <char *>address(dh_n, "dh_n", self.kind, states, False)
        cdef char *dc = <char *>address(
            dc_n, "dc_n", self.kind, max(1, self.n_states - 1) * states, False)
        cdef char *first = <char *>address(
            d_start, "d_start", self.kind, self.n_states * states, True)
        cdef char *gradient = <char *>address(
            grads, "grads", self.kind,
            check_start("grads", grads_start)
            + self.layout.start(self.layout.n_cells), True, True)
        cdef ptrdiff_t flow_end = check_start("flow", flow_at) + product(
            "flow", self.B, (self.n_cells - 1) * self.length + self.shape.T)
        cdef double *pflow = <double *>address(flow, "flow", b"d", flow_end, True, True)
        cdef bint own_y = y is None
        cdef bint both = run.at_once == 2 and self.n_directions == 2
        cdef ptrdiff_t buffers = self.buffers(run.at_once)
        cdef ptrdiff_t dx_size = 0  # of a second direction that runs at once
        cdef char *outputs
        cdef char *dropped = NULL
        cdef Loan work
        self.outside_x(&run.x[0], x, "x", x_at, False)
        self.outside_x(&run.dx[0], dx, "dx", x_at, True)
        self.outside_y(&run.y[inner], y, "y", y_at, False)
        self.outside_y(&run.dy[inner], dy, "dy", y_at, False)
        if x is None or dx is None or d_start is None:
            raise TypeError("ArrayPlan.backward: x, dx and d_start must be arrays")
        if self.kernels.weights != FR_WHOLE:
            raise ValueError("ArrayPlan.backward: weights must be whole")
        team(self.n_threads)
        self.check_run()
        use.check("ArrayPlan.backward", self.layout, self.kernels)
        if kept.size != self.kept_size(own_y, run.seeds != NULL):
            raise ValueError(
                "ArrayPlan.backward: kept must be what forward gave for this plan, "
                "with y and seeds as they are here")
        if block is None and open:
            raise ValueError("ArrayPlan.backward: a part of a sequence needs a block")
        if block is not None and not self.takes(block):
            raise ValueError(
                "ArrayPlan.backward: block must be from take_block of a plan of the "
                "same cells and the same B")
        use.add_backward(self.first, self.n_cells, allowed(self.n_threads))
        if both:
            dx_size = extent_of_sequence(&run.dx[0], &self.shape)
            dx_size = max(round_up(dx_size * size), self.series)
        work = pool.take(buffers * self.series + dx_size
                         + self.backward_work * run.at_once)
        run.second_dx = work.start + buffers * self.series
        run.work = per_cell(run.second_dx + dx_size, self.backward_work, True)
        run.tape = per_cell(kept.start + self.states(), self.tape, False)
        outputs = run.tape.at + self.n_cells * self.tape
        if run.seeds != NULL:
            dropped = outputs + (inner + own_y) * self.series
        for layer in range(inner + own_y):
            self.inside(&run.y[layer], outputs + layer * self.series)
        self.inputs_inside(run, dropped)
        for layer in range(inner):
            self.inside(&run.dy[layer], work.start + layer % buffers * self.series)
            run.dx[layer + 1] = run.dy[layer]
        self.set_cells(run, use, kept.start, True)
        run.dh_n = per_cell(dh, self.state * size, False)
        run.dh0 = per_cell(first, self.state * size, False)
        if self.n_states > 1:
            run.dc_n = per_cell(dc, self.state * size, False)
            run.dc0 = per_cell(first + n_bytes, self.state * size, False)
        if gradient != NULL:  # none is wanted, unless there is room for it
            for k in range(self.n_cells):
                self.layout.find(
                    self.first + k,
                    gradient + (grads_start + self.layout.start(self.first + k)) * size,
                    size, &run.gradients[k])
        run.clip_value, run.clip_norm = self.layout.clip_value, self.layout.clip_norm
        if pflow != NULL:
            run.flow = per_cell(<char *>(pflow + flow_at),
                                self.length * self.B * sizeof(double), False)
        if block is not None:
            run.blocks = per_cell(block.room.start, block.n_bytes, False)
            run.started = block.started
            block.started = open
        run.open = open
        run.add_dx = run.reverse
        with nogil:
            run.backward()

    cdef bint takes(self, OpenBlock block) noexcept:
        """Whether the block has room for what backward calls of this plan hand on."""
        return (
            block.kernels is self.kernels and block.layout is self.layout
            and block.B == self.B and block.first == self.first
            and block.n_cells == self.n_cells)

    def take_block(self, Pool pool not None):
        """An `OpenBlock` for the backward calls of one sequence after another.

        Its room is that of 256 rows, or B if that is more, of x, h and the gates.
        """
        cdef OpenBlock block = OpenBlock.__new__(OpenBlock)
        block.room = pool.take(self.n_cells * self.block_size)
        block.kernels, block.layout, block.B = self.kernels, self.layout, self.B
        block.first, block.n_cells = self.first, self.n_cells
        block.n_bytes = self.block_size
        return block
