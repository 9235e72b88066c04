# SPDX-License-Identifier: BSD-3-Clause
"""The one place that fills the kernels' argument structs, forward and backward.

An array and a tensor are the same to the kernels: an address, strides and a number of
rows.  `sequence_of_array` and `sequence_of_tensor` see that a sequence has the sizes
that a call needs, and note where it lies.  A `Run` takes layers and directions from
there: arrays (`arrays`), tensors (`tensors`) and one cell alone (`single`) all go
through `Run.forward` and `Run.backward`.
"""

cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastrnn.native.addresses cimport address, checked_offsets, offsets_in, size_of
from fastrnn.native.capi cimport (
    FR_MOST_AT_ONCE, FR_NO_NORM, FR_WHOLE, fr_backward_args, fr_cell, fr_dropout_args,
    fr_extent, fr_forward_args, fr_kernels, fr_shape,
)
from fastrnn.native.celltable cimport CellOptions, gates_of
from fastrnn.native.core cimport Kernels, allowed, began, ended, level2_bytes
from fastrnn.native.layout cimport (
    Layout, N_PARTS, PART_B_HH, PART_B_IH, PART_NORM_C, PART_NORM_C_BIAS, PART_NORM_HH,
    PART_NORM_IH, PART_P, PART_R, PART_W, PART_W_HR, Parts,
)
from fastrnn.native.sizes cimport check_shape, last_element
from fastrnn.native.views cimport View, description, look_at


# Whose cells may have weights of fewer bytes.
QUANTIZED_LAYERS = ("LSTM", "GRU", "RNN")


cdef int check_half(str who, const fr_shape *shape) except -1:
    """Which cells products of bfloat16 are not for."""
    if shape.half and shape.heads > 1:
        raise ValueError(f"{who}: cells with heads have no products of bfloat16")
    return 0


cdef int check_weights(str who, Kernels kernels, const fr_cell *of,
                       const fr_shape *shape, CellOptions options) except -1:
    """Which cells have no kernels for weights of fewer bytes."""
    if kernels.weights == FR_WHOLE:
        return 0
    if of.layer.decode() not in QUANTIZED_LAYERS:
        raise ValueError(
            f"{who}: no kernels have weights of fewer bytes for {of.name.decode()}")
    if options is not None and (
            shape.S != shape.H or shape.heads > 1 or options.draws
            or options.c.reset_before or options.c.norm != FR_NO_NORM):
        raise ValueError(
            f"{who}: no kernels have weights of fewer bytes for a cell with a "
            "projection, heads, a norm, a reset before the product or random choices")
    return 0


cdef ptrdiff_t rows_of(const fr_shape *shape) noexcept nogil:
    """Rows of a sequence: of all steps, or those that are active where only these are.
    """
    if shape.offsets != NULL and not shape.padded:
        return shape.offsets[shape.T]
    return shape.T * shape.B


cdef ptrdiff_t extent_of_sequence(const Sequence *s,
                                  const fr_shape *shape) noexcept nogil:
    """Elements from the first to the last of a sequence, once it was looked at."""
    if shape.offsets != NULL and not shape.padded:
        return (rows_of(shape) - 1) * s.row + s.width
    return (shape.T - 1) * s.step + (shape.B - 1) * s.row + s.width


cdef int sequence_of_array(
        Sequence *s, object array, str what, char kind, const fr_shape *shape,
        ptrdiff_t first, ptrdiff_t step, ptrdiff_t row, ptrdiff_t width,
        bint writable) except -1:
    """Set where a sequence lies in an array, whose first element is number `first`.

    The last one is known to be inside the array afterwards. None gives a NULL address.
    """
    cdef ptrdiff_t end
    s.at, s.step, s.row, s.width = NULL, step, row, width
    if array is None:
        return 0
    if shape.offsets != NULL and not shape.padded:
        end = last_element(what, first, rows_of(shape), row, 1, step)
    else:
        end = last_element(what, first, shape.T, step, shape.B, row)
    s.at = (<char *>address(array, what, kind, end + width, writable, True)
            + first * size_of(kind))
    return 0


cdef int sequence_of_tensor(
        Sequence *s, object tensor, str what, char kind, const fr_shape *shape,
        ptrdiff_t width, bint batch_first, bint writable) except -1:
    """Set where a sequence lies, of a tensor's own strides.

    None gives a NULL address.
    """
    cdef View v
    cdef bint fits, ragged = shape.offsets != NULL
    cdef ptrdiff_t rows = rows_of(shape)
    s.at, s.step, s.row, s.width = NULL, 0, 0, width
    if tensor is None:
        return 0
    look_at(&v, tensor, what, kind, True, writable)
    if v.ndim == 2:  # packed rows, or those of one step
        fits = (shape.T == 1 or ragged) and v.shape[0] == rows
        s.row = v.stride[0]
    else:
        fits = (v.ndim == 3 and not ragged and v.shape[batch_first] == shape.T
                and v.shape[not batch_first] == shape.B)
        if fits:
            s.step, s.row = v.stride[batch_first], v.stride[not batch_first]
    if not fits or v.shape[v.ndim - 1] != width or v.stride[v.ndim - 1] != 1:
        raise ValueError(
            f"{what} must be {shape.T} steps of {shape.B} rows, {rows} rows in all, of "
            f"{width} elements side by side, got {description(&v)}")
    s.at = v.data
    return 0


cdef PerCell per_cell(char *at, ptrdiff_t n_bytes, bint by_slot) noexcept nogil:
    cdef PerCell p
    p.at, p.n_bytes, p.by_slot = at, n_bytes, by_slot
    return p


cdef inline void *of_cell(const PerCell *p, int k, int slot) noexcept nogil:
    """Cell k's own, which runs as number `slot` of those at once; NULL for none."""
    if p.at == NULL:
        return NULL
    return p.at + (slot if p.by_slot else k) * p.n_bytes


@cython.final
@cython.no_gc  # it refers to no other object
@cython.freelist(8)
cdef class Run:
    """Layers, each of one or two directions, for the kernels to run one by one.

    Whoever makes one sets where everything lies, having checked it, keeps what it lies
    in, and has seen that there is a team of `n_threads`.  What is not set is absent.
    """

    def __dealloc__(self):
        free(self.x)  # the first of all that `make` has made room for

    @staticmethod
    cdef Run make(const fr_kernels *table, const fr_shape *shape, int n_threads,
                  int n_layers, int n_directions, ptrdiff_t itemsize):
        """A run of cells of this shape, with room for where all of theirs lie."""
        cdef Run self = Run.__new__(Run)
        cdef int n_cells = n_layers * n_directions
        self.table, self.shape, self.n_threads = table, shape[0], n_threads
        self.n_layers, self.n_directions = n_layers, n_directions
        self.itemsize, self.at_once = itemsize, 1
        self.x = <Sequence *>calloc(1, (
            4 * n_layers * sizeof(Sequence)
            + n_cells * (sizeof(Parts) + sizeof(void *))))
        if self.x == NULL:
            raise MemoryError
        self.y, self.dx = self.x + n_layers, self.x + 2 * n_layers
        self.dy = self.x + 3 * n_layers
        self.gradients = <Parts *>(self.x + 4 * n_layers)
        self.packed = <void **>(self.gradients + n_cells)
        return self

    cdef double flops(self) noexcept nogil:
        """Floating-point operations of the products of a forward."""
        cdef const fr_cell *of = self.table.cell(self.shape.cell)
        cdef ptrdiff_t I, H = self.shape.H
        cdef int layer
        cdef double weights = 0
        for layer in range(self.n_layers):
            I = self.x[layer].width
            weights += <double>(gates_of(of, I, H) * H) * (
                I + (0 if of.is_scan else self.shape.S // max(1, self.shape.heads)))
        return 2.0 * rows_of(&self.shape) * weights * self.n_directions

    cdef void drop(self, int layer, int n_threads, char *x, char *y) noexcept nogil:
        """Dropout of an inner layer's outputs, or of their gradient."""
        cdef fr_dropout_args a
        a.n = rows_of(&self.shape) * self.y[layer].width
        a.n_threads, a.p, a.seed = n_threads, self.p, self.seeds[layer]
        a.block, a.first, a.stride = a.n, 0, 0
        a.x, a.y = x, y
        self.table.dropout(&a)

    cdef void forward(self, const Sequence *xs) noexcept nogil:
        """Run all cells, as many at once as `at_once` says; `xs` are what layers read.
        """
        cdef fr_forward_args *a
        cdef fr_forward_args calls[FR_MOST_AT_ONCE]
        cdef const Sequence *x
        cdef const Sequence *y
        cdef int layer, d, k = 0, n = 0, n_threads = allowed(self.n_threads)
        cdef double flops = self.flops(), since = began(self.n_threads, flops)
        for layer in range(self.n_layers):
            x, y = &xs[layer], &self.y[layer]
            for d in range(self.n_directions):
                a = &calls[n]
                memset(a, 0, sizeof(a[0]))
                a.shape, a.n_threads = self.shape, n_threads
                a.steps_before = self.steps_before
                a.shape.I, a.shape.reverse = x.width, self.reverse or d
                a.x, a.x_step, a.x_row = x.at, x.step, x.row
                a.y_step, a.y_row = y.step, y.row
                # A second direction's columns are the last ones.
                a.y = y.at + a.shape.reverse * (
                    y.width - self.shape.S) * self.itemsize
                a.packed = self.packed[k]
                a.h0 = of_cell(&self.h0, k, n)
                a.c0 = of_cell(&self.c0, k, n)
                a.h_n = of_cell(&self.h_n, k, n)
                a.c_n = of_cell(&self.c_n, k, n)
                a.c_step = self.c_step
                a.tape = of_cell(&self.tape, k, n)
                a.work = of_cell(&self.work, k, n)
                a.draw = self.draw
                a.draw.cell += k
                k, n = k + 1, n + 1
                if n == self.at_once or k == self.n_layers * self.n_directions:
                    if self.weights:
                        self.table.quantized_forward(calls, self.weights)
                    else:
                        self.table.forward(calls, n, self.chained)
                    n = 0
            if self.seeds != NULL and layer < self.n_layers - 1:
                self.drop(layer, n_threads, y.at, xs[layer + 1].at)
        ended(since, n_threads, flops)

    cdef void backward(self) noexcept nogil:
        """Back-propagate through all cells, the last layer first."""
        cdef fr_backward_args *a
        cdef fr_backward_args calls[FR_MOST_AT_ONCE]
        cdef const Sequence *x
        cdef const Sequence *y
        cdef const Sequence *dx
        cdef const Sequence *dy
        cdef Parts *g
        cdef ptrdiff_t columns
        cdef int layer, d, k, n = 0, n_threads = allowed(self.n_threads)
        cdef double flops = self.flops(), since = began(self.n_threads, flops)
        cdef bint both = self.at_once == 2 and self.n_directions == 2
        for layer in range(self.n_layers - 1, -1, -1):
            x, y, dx, dy = (
                &self.x[layer], &self.y[layer], &self.dx[layer], &self.dy[layer])
            for d in range(self.n_directions):
                k = layer * self.n_directions + d
                g = &self.gradients[k]
                if self.clear:  # the kernels add
                    self.clear_gradients(n_threads, g)
                a = &calls[n]
                memset(a, 0, sizeof(a[0]))
                a.shape, a.n_threads = self.shape, n_threads
                a.shape.I, a.shape.reverse = x.width, self.reverse or d
                a.clip_value, a.clip_norm = self.clip_value, self.clip_norm
                a.started, a.open = self.started, self.open
                a.x, a.x_step, a.x_row = x.at, x.step, x.row
                a.y_step, a.y_row = y.step, y.row
                a.dx_step, a.dx_row = dx.step, dx.row
                a.dy_step, a.dy_row = dy.step, dy.row
                columns = a.shape.reverse * (y.width - self.shape.S) * self.itemsize
                a.y = y.at + columns
                a.dy = dy.at + columns if dy.at != NULL else NULL
                a.dx, a.dx_accumulate = dx.at, (self.add_dx or d) and not both
                if both and d and dx.at != NULL:
                    a.dx = self.second_dx
                a.packed = self.packed[k]
                a.h0 = of_cell(&self.h0, k, n)
                a.tape = of_cell(&self.tape, k, n)
                a.dh_n = of_cell(&self.dh_n, k, n)
                a.dc_n = of_cell(&self.dc_n, k, n)
                a.c_step = self.c_step
                a.dh0 = of_cell(&self.dh0, k, n)
                a.dc0 = of_cell(&self.dc0, k, n)
                a.flow = <double *>of_cell(&self.flow, k, n)
                a.block = of_cell(&self.blocks, k, n)
                a.work = of_cell(&self.work, k, n)
                a.draw = self.draw
                a.draw.cell += k
                a.dW, a.dR = g.at[PART_W], g.at[PART_R]
                a.db_ih, a.db_hh = g.at[PART_B_IH], g.at[PART_B_HH]
                a.dW_hr, a.dP = g.at[PART_W_HR], g.at[PART_P]
                a.dnorm_ih, a.dnorm_hh = g.at[PART_NORM_IH], g.at[PART_NORM_HH]
                a.dnorm_c = g.at[PART_NORM_C]
                a.dnorm_c_bias = g.at[PART_NORM_C_BIAS]
                n += 1
                if n == self.at_once or k == self.n_directions - 1:
                    self.table.backward(calls, n, self.chained)
                    n = 0
            if self.seeds != NULL and layer > 0:
                self.drop(layer - 1, n_threads, dx.at, dx.at)
        ended(since, n_threads, 2 * flops)

    cdef void clear_gradients(self, int n_threads, const Parts *g) noexcept nogil:
        cdef fr_extent extent
        cdef int i
        extent.n_threads, extent.n_spans, extent.spans = n_threads, 0, NULL
        for i in range(N_PARTS):
            if g.at[i] != NULL:
                extent.n = g.size[i]
                self.table.clear(&extent, g.at[i])


cdef class Plan:
    """What calls over T steps of B rows share, whatever their memory.

    With `offsets` (T + 1 of them), the kernels' ragged batches, sequences are
    (N, width): the rows that are active, step by step.
    """

    cdef int set_shape(self, str who, Kernels kernels, Layout layout, ptrdiff_t T,
                       ptrdiff_t B, ptrdiff_t I, ptrdiff_t length, offsets,
                       bint padded) except -1:
        """Set what the kernels are told of every cell, once it is known to fit.

        Parameters
        ----------
        I : ptrdiff_t
            Width of the first layer's inputs.
        length : ptrdiff_t
            Steps of the sequences, of which a call takes T.
        padded : bool
            See `arrays.ArrayPlan`.
        """
        cdef fr_shape widest
        if min(T, B) < 1:
            raise ValueError(f"{who}: T and B must be >= 1, got {(T, B)}")
        self.kernels, self.layout, self.kind = kernels, layout, kernels.kind
        self.itemsize = size_of(kernels.kind)
        self.shape.cell, self.shape.H, self.shape.S = layout.cell, layout.H, layout.S
        self.shape.heads = layout.heads
        self.shape.options = layout.cell_options()
        self.shape.level2 = level2_bytes()
        self.shape.half = kernels.table.half
        check_half(who, &self.shape)
        check_weights(who, kernels, layout.of, &self.shape, layout.options)
        self.shape.T, self.shape.B, self.shape.I = T, B, I
        self.width = layout.n_directions * layout.S
        widest = self.shape
        widest.T, widest.I = length, max(I, self.width)
        check_shape(who, &widest, layout.n_cells)
        if offsets is not None:
            self.checked = checked_offsets(offsets, T, B)
            self.offsets = self.checked.copy()
            self.shape.offsets, self.shape.padded = offsets_in(self.checked), padded
        self.rows = rows_of(&self.shape)
        return 0
