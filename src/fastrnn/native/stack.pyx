# SPDX-License-Identifier: BSD-3-Clause
"""A stack of recurrent layers as one call.

A small network's step takes the kernels some ten microseconds, so what surrounds them
has to fit in a few: sizes and strides are worked out once for a shape, and all layers
and directions run without the interpreter in between.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_STRIDES,
    PyBuffer_IsContiguous, PyBuffer_Release, PyObject_GetBuffer,
)
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

import numpy as np

from fastrnn.native.capi cimport (
    FR_MOST_AT_ONCE, FR_MOST_SUM_SLOTS, fr_backward_args, fr_dropout_args,
    fr_forward_args, fr_kernels, fr_pack_args, fr_shape,
)
from fastrnn.native.core cimport Kernels, address, check_offsets, size_of, team
from fastrnn.native.sizes cimport (
    check_shape, check_start, check_threads, last_element, product,
)
from fastrnn.native.weights cimport LINE, Layout, Memory, MemoryPool, Use, round_up

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
cdef class Stack:
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

    cdef readonly Kernels kernels
    cdef readonly int n_threads
    cdef readonly ptrdiff_t T, B, length
    cdef readonly object offsets  # a copy: `starts` has what was checked
    cdef const ptrdiff_t[::1] starts
    cdef readonly bint batch_first, padded
    cdef readonly tuple x_shape, y_shape, state_shape
    cdef Layout layout
    cdef char kind
    cdef int first, n_layers, n_directions, n_cells, n_states
    cdef fr_shape shape  # I: of the first layer
    cdef ptrdiff_t rows  # of a sequence: T * B, or N
    cdef ptrdiff_t width  # of an output: directions side by side
    cdef readonly ptrdiff_t x_step, y_step, x_row, y_row
    cdef ptrdiff_t state, series, tape  # elements; bytes rounded up to lines; likewise
    cdef ptrdiff_t itemsize, forward_work, backward_work
    cdef readonly int at_once  # cells: a layer's directions, or, `chained`, layers
    cdef bint chained

    def __cinit__(self, Kernels kernels not None, int n_threads,
                  Layout layout not None, ptrdiff_t T, ptrdiff_t B, *,
                  bint batch_first=False, ptrdiff_t length=0, int first=0,
                  int n_cells=0, offsets=None, bint y_inside=False,
                  bint padded=False):
        cdef bint own_x, own_y
        cdef int layer
        cdef ptrdiff_t D = layout.n_directions, S = layout.S, size
        cdef fr_shape shape
        if min(T, B) < 1 or n_threads < 1:
            raise ValueError(f"Stack: T, B and n_threads must be >= 1, "
                             f"got {(T, B, n_threads)}")
        check_threads("Stack", n_threads)
        if n_cells not in (0, 1) or not 0 <= first < layout.n_cells or (
                n_cells == 0 and first):
            raise ValueError(f"Stack: no such cells: {(first, n_cells)}")
        length = max(length, T)
        self.kernels, self.n_threads, self.layout = kernels, n_threads, layout
        self.kind, self.itemsize = kernels.kind, size_of(kernels.kind)
        self.batch_first, self.first, self.padded = batch_first, first, padded
        self.n_states = layout.n_states
        self.n_layers = layout.n_layers if n_cells == 0 else 1
        self.n_directions = layout.n_directions if n_cells == 0 else 1
        self.n_cells = self.n_layers * self.n_directions
        self.T, self.B = T, B
        self.shape.cell, self.shape.H, self.shape.S = layout.cell, layout.H, S
        self.shape.options = layout.cell_options()
        self.shape.T, self.shape.B, self.shape.offsets = T, B, NULL
        self.shape.I, self.width = layout.inputs(first // D), D * S
        shape = self.shape
        shape.T, shape.I = length, max(shape.I, self.width)
        check_shape("Stack", &shape, layout.n_cells)
        self.rows = T * B
        if offsets is not None:
            self.starts = np.array(offsets, np.intp)
            check_offsets(T, B, self.starts)
            self.offsets = np.array(self.starts)
            self.shape.offsets, self.shape.padded = &self.starts[0], padded
            if not padded:
                self.rows = self.starts[T]
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
            self.width = S
        self.y_shape = (size, B, self.width)
        self.y_step, self.y_row = B * self.width, self.width
        if batch_first and own_y:
            self.y_shape = (B, size, self.width)
            self.y_step, self.y_row = self.width, length * self.width
        if offsets is not None and not padded:
            self.x_shape = (self.rows, self.shape.I)
            self.y_shape = (self.rows, self.width)
        self.state, self.length = B * layout.H, length
        self.series = round_up(self.rows * self.width * self.itemsize)
        self.tape = round_up(kernels.table.tape_size(&self.shape) * self.itemsize)
        for layer in range(min(self.n_layers, 2)):
            shape = self.shape
            shape.I = self.shape.I if layer == 0 else self.width
            size = kernels.table.forward_work_size(&shape, n_threads)
            self.forward_work = max(self.forward_work, round_up(size * self.itemsize))
            size = kernels.table.backward_work_size(&shape, n_threads)
            self.backward_work = max(self.backward_work, round_up(size * self.itemsize))
        self.chained = self.n_directions == 1
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
                f"Stack.part: needs a ragged plan and steps in [0, {self.T}], got "
                f"{(begin, end)}")
        offsets = self.offsets[begin:end + 1] - self.offsets[begin]
        return Stack(self.kernels, n_threads or self.n_threads, self.layout,
                     end - begin, self.B, batch_first=self.batch_first,
                     length=self.length, first=first, n_cells=n_cells, offsets=offsets,
                     y_inside=y_inside, padded=self.padded)

    def takes_dy(self, dy):
        """Whether dy is as `backward` needs it."""
        return is_plain(dy, self.kind, self.y_shape)

    cdef int calls(self, bint dropped) noexcept nogil:
        """Cells to run at once; dropout needs a layer's outputs of all steps."""
        return 1 if self.chained and dropped else self.at_once

    cdef ptrdiff_t buffers(self, int at_once) noexcept nogil:
        """Sequences between layers that are in use at a time."""
        return min(self.n_layers - 1, at_once + 1 if self.chained else 2)

    cdef ptrdiff_t states(self) noexcept nogil:
        """Bytes of the states of all cells, in lines."""
        return round_up(self.n_states * self.n_cells * self.state * self.itemsize)

    cdef ptrdiff_t sums_size(self) noexcept nogil:
        """Bytes of a cell's running sums of da: in slots, of whole vectors of units."""
        return round_up(FR_MOST_SUM_SLOTS * (self.shape.H + LINE) * self.itemsize)

    cdef ptrdiff_t extent(self, ptrdiff_t step, ptrdiff_t row,
                          ptrdiff_t width) noexcept nogil:
        """Elements from the first to the last of T steps of B rows."""
        if self.shape.offsets != NULL and not self.padded:
            return (self.rows - 1) * row + width
        return (self.shape.T - 1) * step + (self.shape.B - 1) * row + width

    cdef char *at(self, array, str what, ptrdiff_t first, ptrdiff_t step, ptrdiff_t row,
                  ptrdiff_t width, bint writable) except? NULL:
        """Address of element `first`, from where T steps of B rows are inside."""
        cdef ptrdiff_t end
        if array is None:
            return NULL
        if self.shape.offsets != NULL and not self.padded:
            end = last_element(what, first, self.rows, row, 1, 0) + width
        else:
            end = last_element(what, first, self.T, step, self.B, row) + width
        return (<char *>address(array, what, self.kind, end, writable, True)
                + first * self.itemsize)

    cdef int check_run(self) except -1:
        if self.layout.merged and self.n_directions == 2:
            raise ValueError(
                "Stack: directions that are merged run one cell at a time")
        return 0

    cdef const uint64_t *seeds(self, seeds, double p) except? NULL:
        if seeds is None:
            return NULL
        if not 0 <= p <= 1:
            raise ValueError(f"Stack: p must be in [0, 1], got {p}")
        return <const uint64_t *>address(seeds, "seeds", b"l", self.n_layers - 1, False)

    cdef void drop(self, uint64_t seed, double p, char *x, char *y) noexcept nogil:
        """Dropout of an inner layer's outputs, or of their gradient."""
        cdef fr_dropout_args a
        a.n = self.rows * self.width
        a.n_threads, a.p, a.seed, a.x, a.y = self.n_threads, p, seed, x, y
        self.kernels.table.dropout(&a)

    def forward(self, MemoryPool pool not None, Use use not None, x, ptrdiff_t x_at,
                h0, c0, seeds, double p, y, ptrdiff_t y_at, end, bint training):
        """Run all cells; in training, the `kept` that backward asks for.

        Parameters
        ----------
        use : Use
            Of the weights of the whole layer. A backward may leave no forward form: see
            `Use.keep_forward`.
        x, y : ndarray
            Of `length` steps; the first of these T is at element `x_at`, `y_at`. `y`
            may be None in training.
        h0, c0 : ndarray, shape (n_cells, B, H), or None for zero
            They are copied. With a projection h is narrower, (B, S): those of a cell
            are the first B * S of its B * H elements, here and wherever a state comes.
        seeds : ndarray of int64, shape (n_layers - 1,), or None
            Of the dropout between layers; `p` is its probability.
        end : ndarray, shape (n_states, n_cells, B, H)
            Last states, written.
        """
        cdef fr_forward_args a
        cdef fr_forward_args calls[FR_MOST_AT_ONCE]
        cdef const fr_kernels *table = self.kernels.table
        cdef ptrdiff_t size = self.itemsize, S = self.shape.S
        cdef ptrdiff_t states = self.n_cells * self.state, n_bytes = states * size
        cdef ptrdiff_t inner = self.n_layers - 1
        cdef int at_once = self.calls(seeds is not None)
        cdef ptrdiff_t n_work = self.forward_work * at_once
        cdef ptrdiff_t buffers = self.buffers(at_once)
        cdef char *px = self.at(
            x, "x", x_at, self.x_step, self.x_row, self.shape.I, False)
        cdef char *py = self.at(
            y, "y", y_at, self.y_step, self.y_row, self.width, True)
        cdef char *h = <char *>address(h0, "h0", self.kind, states, False)
        cdef char *c = <char *>address(c0, "c0", self.kind, states, False)
        cdef char *last = <char *>address(
            end, "end", self.kind, self.n_states * states, True)
        cdef const uint64_t *seed = self.seeds(seeds, p)
        cdef Memory work, kept = None
        cdef char *start
        cdef char *tape = NULL
        cdef char *outputs
        cdef char *dropped
        cdef char *source
        cdef int layer, d, k = 0, n = 0
        cdef bint own_y = y is None
        if x is None or end is None or (own_y and not training):
            raise TypeError("Stack.forward: x, end, and y in inference, must be arrays")
        team(self.n_threads)
        self.check_run()
        use.check("Stack.forward", self.layout, self.kernels)
        use.check_forward("Stack.forward", self.first, self.n_cells)
        if training:
            kept = self.take_kept(pool, own_y, seed != NULL)
            work = pool.take(n_work)
            start, a.work = kept.start, work.start
            tape = start + self.states()
            outputs = tape + self.n_cells * self.tape
            dropped = outputs + (inner + own_y) * self.series
        else:
            work = pool.take(self.states() + buffers * self.series + n_work)
            start = work.start
            outputs = start + self.states()
            dropped = NULL
            a.work = outputs + buffers * self.series
        a.shape, a.n_threads = self.shape, self.n_threads
        a.x, a.x_step, a.x_row = px, self.x_step, self.x_row
        a.c0 = a.c_n = a.tape = NULL
        with nogil:
            copy_or_clear(start, h, n_bytes)
            if self.n_states == 2:
                copy_or_clear(start + n_bytes, c, n_bytes)
            for layer in range(self.n_layers):
                source = outputs
                if layer < inner or own_y:
                    source += (layer if training else layer % buffers) * self.series
                a.y_step, a.y_row = self.shape.B * self.width, self.width
                if layer == inner and not own_y:
                    source, a.y_step, a.y_row = py, self.y_step, self.y_row
                for d in range(self.n_directions):
                    a.shape.reverse = (self.first + d) % self.layout.n_directions
                    a.packed = use.forward[self.first + k]
                    a.y = source + a.shape.reverse * S * size
                    a.h0 = start + k * self.state * size
                    a.h_n = last + k * self.state * size
                    if self.n_states == 2:
                        a.c0, a.c_n = <char *>a.h0 + n_bytes, <char *>a.h_n + n_bytes
                    if training:
                        a.tape = tape + k * self.tape
                    k += 1
                    calls[n] = a
                    calls[n].work = <char *>a.work + n * self.forward_work
                    n += 1
                    if n == at_once or k == self.n_cells:
                        table.forward(calls, n, self.chained)
                        n = 0
                if layer == inner:
                    break
                a.x = source
                if seed != NULL:
                    if training:
                        a.x = dropped + layer * self.series
                    self.drop(seed[layer], p, source, <char *>a.x)
                a.shape.I = a.x_row = self.width
                a.x_step = self.shape.B * self.width
        return kept

    cdef Memory take_kept(self, MemoryPool pool, bint own_y, bint dropped):
        """Initial states, tapes, outputs of inner layers, the same after dropout."""
        return pool.take(self.kept_size(own_y, dropped))

    cdef ptrdiff_t kept_size(self, bint own_y, bint dropped) noexcept nogil:
        """Bytes of what forward keeps."""
        cdef ptrdiff_t inner = self.n_layers - 1
        return (self.states() + self.n_cells * self.tape
                + (inner + own_y + dropped * inner) * self.series)

    def backward(self, MemoryPool pool not None, Use use not None, Memory kept not None,
                 x, ptrdiff_t x_at, seeds, double p, y, ptrdiff_t y_at, dy, dh_n, dc_n,
                 dx, d_start, grads, ptrdiff_t grads_start,
                 Memory sums=None, bint started=False, bint open=False, flow=None,
                 ptrdiff_t flow_at=0):
        """Back-propagate through all cells; see `forward` for what it shares with it.

        Parameters
        ----------
        kept : Memory
            What forward gave, with the same `use`, `x`, `seeds`, `p` and `y`.
        dy : ndarray or None
            Laid out like y, even where `y` is None.
        dh_n, dc_n : ndarray, shape (n_cells, B, H), or None for zero
        dx : ndarray
            Laid out like x. Overwritten; by the second direction alone, added to.
        d_start : ndarray, shape (n_states, n_cells, B, H)
            Gradients of the initial states, written.
        grads : ndarray, 1-D, or None
            The layer's begin at element `grads_start`; added to. None where nobody
            wants them: they are not computed.
        sums : Memory, optional
            From `take_sums`, when the sequence comes in several calls, last steps
            first: `started` for all but the first, `open` for all but the last.
        flow : ndarray of float64, shape (n_cells, length, B), optional
            Squared norms of dL/dh_t, written; this call's begin at element `flow_at`.
        """
        cdef fr_backward_args a
        cdef fr_backward_args calls[FR_MOST_AT_ONCE]
        cdef fr_pack_args g
        cdef const fr_kernels *table = self.kernels.table
        cdef ptrdiff_t size = self.itemsize, S = self.shape.S
        cdef ptrdiff_t states = self.n_cells * self.state, n_bytes = states * size
        cdef ptrdiff_t inner = self.n_layers - 1
        cdef char *px = self.at(
            x, "x", x_at, self.x_step, self.x_row, self.shape.I, False)
        cdef char *py = self.at(
            y, "y", y_at, self.y_step, self.y_row, self.width, False)
        cdef char *pdy = self.at(
            dy, "dy", y_at, self.y_step, self.y_row, self.width, False)
        cdef char *pdx = self.at(
            dx, "dx", x_at, self.x_step, self.x_row, self.shape.I, True)
        cdef char *dh = <char *>address(dh_n, "dh_n", self.kind, states, False)
        cdef char *dc = <char *>address(dc_n, "dc_n", self.kind, states, False)
        cdef char *first = <char *>address(
            d_start, "d_start", self.kind, self.n_states * states, True)
        cdef char *gradient = <char *>address(
            grads, "grads", self.kind,
            check_start("grads", grads_start)
            + self.layout.start(self.layout.n_cells), True, True)
        cdef ptrdiff_t flow_end = check_start("flow", flow_at) + product(
            "flow", self.B, (self.n_cells - 1) * self.length + self.shape.T)
        cdef double *pflow = <double *>address(flow, "flow", b"d", flow_end, True, True)
        cdef const uint64_t *seed = self.seeds(seeds, p)
        cdef bint own_y = y is None
        cdef char *tape
        cdef char *outputs
        cdef char *dropped
        cdef char *scratch
        cdef char *second_dx
        cdef ptrdiff_t dx_size = 0  # of a second direction that runs at once
        cdef char *source
        cdef char *target
        cdef char *loss
        cdef Memory work
        cdef int layer, d, k, n = 0
        cdef int at_once = self.calls(seeds is not None)
        cdef ptrdiff_t buffers = self.buffers(at_once)
        cdef bint both = at_once == 2 and not self.chained
        if x is None or dx is None or d_start is None:
            raise TypeError("Stack.backward: x, dx and d_start must be arrays")
        team(self.n_threads)
        self.check_run()
        use.check("Stack.backward", self.layout, self.kernels)
        if kept.size != self.kept_size(own_y, seed != NULL):
            raise ValueError(
                "Stack.backward: kept must be what forward gave for this plan, with "
                "y and seeds as they are here")
        if sums is not None and sums.size != self.n_cells * self.sums_size():
            raise ValueError("Stack.backward: sums must be from take_sums of this plan")
        if sums is None and (started or open):
            raise ValueError("Stack.backward: a part of a sequence needs sums")
        tape = kept.start + self.states()
        outputs = tape + self.n_cells * self.tape
        dropped = outputs + (inner + own_y) * self.series
        use.make_backward(self.first, self.n_cells, self.n_threads)
        if both:
            dx_size = self.extent(self.x_step, self.x_row, self.shape.I)
            dx_size = max(round_up(dx_size * size), self.series)
        work = pool.take(buffers * self.series + dx_size
                         + self.backward_work * at_once)
        scratch = work.start
        second_dx = scratch + buffers * self.series
        a.work = second_dx + dx_size
        a.shape, a.n_threads = self.shape, self.n_threads
        a.clip_value, a.clip_norm = self.layout.clip_value, self.layout.clip_norm
        a.flow = NULL
        a.db_sums, a.db_started, a.db_open = NULL, started, open
        a.dc_n = a.dc0 = NULL
        memset(&g, 0, sizeof(g))  # no gradient is wanted, unless there is room for it
        if gradient != NULL:
            gradient += grads_start * size
        with nogil:
            for layer in range(inner, -1, -1):
                if layer == 0:
                    a.x, a.x_step, a.x_row = px, self.x_step, self.x_row
                    target, a.shape.I = pdx, self.shape.I
                else:
                    a.x = outputs if seed == NULL else dropped
                    a.x = <char *>a.x + (layer - 1) * self.series
                    a.x_step, a.x_row = self.shape.B * self.width, self.width
                    target = scratch + (layer - 1) % buffers * self.series
                    a.shape.I = self.width
                a.dx_step, a.dx_row = a.x_step, a.x_row
                source = outputs + layer * self.series
                a.y_step, a.y_row = self.shape.B * self.width, self.width
                a.dy_step, a.dy_row = a.y_step, a.y_row
                if layer < inner:
                    loss = scratch + layer % buffers * self.series
                else:
                    loss, a.dy_step, a.dy_row = pdy, self.y_step, self.y_row
                    if not own_y:
                        source, a.y_step, a.y_row = py, self.y_step, self.y_row
                for d in range(self.n_directions):
                    k = layer * self.n_directions + d
                    a.shape.reverse = (self.first + d) % self.layout.n_directions
                    a.packed = use.backward[self.first + k]
                    a.h0 = kept.start + k * self.state * size
                    a.tape = tape + k * self.tape
                    a.y = source + a.shape.reverse * S * size
                    a.dy = loss + a.shape.reverse * S * size if loss != NULL else NULL
                    a.dx, a.dx_accumulate = target, a.shape.reverse
                    a.dh_n = dh + k * self.state * size if dh != NULL else NULL
                    a.dh0 = first + k * self.state * size
                    if self.n_states == 2:
                        a.dc_n = dc + k * self.state * size if dc != NULL else NULL
                        a.dc0 = <char *>a.dh0 + n_bytes
                    if gradient != NULL:
                        self.layout.fill(
                            &g, self.first + k,
                            gradient + self.layout.start(self.first + k) * size, size)
                    a.dW, a.dR = <void *>g.W, <void *>g.R
                    a.db_ih, a.db_hh = <void *>g.b_ih, <void *>g.b_hh
                    a.dP, a.dW_hr = <void *>g.P, <void *>g.W_hr
                    if pflow != NULL:
                        a.flow = pflow + flow_at + k * self.length * self.B
                    if sums is not None:
                        a.db_sums = sums.start + k * self.sums_size()
                    calls[n] = a
                    calls[n].work = <char *>a.work + n * self.backward_work
                    if both:
                        calls[n].dx_accumulate = False
                        if d == 1:
                            calls[n].dx = second_dx
                    n += 1
                    if n == at_once or k == self.n_directions - 1:
                        table.backward(calls, n, self.chained)
                        n = 0
                if layer > 0 and seed != NULL:
                    self.drop(seed[layer - 1], p, target, target)

    def take_sums(self, MemoryPool pool not None):
        """Room for the sums that a chain of backward calls hands on."""
        return pool.take(self.n_cells * self.sums_size())
