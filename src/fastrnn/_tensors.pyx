# SPDX-License-Identifier: BSD-3-Clause
"""Layers over memory that another library owns: its tensors in, its tensors out.

A tensor is any object whose `data_ptr()` is the address of its first element, and whose
`stride()` counts elements: PyTorch's.  That its type, size and strides are what a
method's docstring says is the caller's word; nothing here looks at them, which is what
makes a small network's step cheap.  A stack's weights lie apart, one tensor each.
"""

cimport cython
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcmp, memset

import weakref

import numpy as np

from fastrnn._capi cimport (
    FR_MOST_AT_ONCE, fr_backward_args, fr_extent, fr_forward_args, fr_kernels,
    fr_pack_args, fr_shape,
)
from fastrnn._core cimport Kernels, check_offsets, team
from fastrnn._weights cimport (
    FINGERPRINT_WORDS, Layout, Memory, MemoryPool, Packed, round_up,
)

cdef enum:
    MOST_WEIGHTS = 5  # of a cell: W, R, two biases, W_hr

# All stacks share these: there is one as long as there is a stack.
_common = weakref.WeakValueDictionary()


cdef MemoryPool common_pool(str what, int most):
    return _common.setdefault(what, MemoryPool(most))


cdef ptrdiff_t itemsize(Kernels kernels) noexcept:
    return 8 if kernels.kind == b"d" else 4


cdef char *pointer(tensor) except? NULL:
    """Where a tensor lies; NULL for None."""
    return NULL if tensor is None else <char *><size_t>tensor.data_ptr()


cdef ptrdiff_t strides(tensor, bint batch_first, ptrdiff_t *row) except? -1:
    """A series' step; and its row.  A packed one has no step."""
    cdef tuple found = tensor.stride()
    if len(found) == 2:
        row[0] = found[0]
        return 0
    row[0] = found[not batch_first]
    return found[batch_first]


# -- weights --------------------------------------------------------------------------

@cython.final
cdef class PackedCell:
    """The weights of one cell in the kernels' forms, and how to know them again."""

    cdef Packed packed
    cdef const void *weights[MOST_WEIGHTS]
    cdef int64_t versions[MOST_WEIGHTS]
    cdef uint32_t fingerprints[MOST_WEIGHTS][FINGERPRINT_WORDS]
    cdef bint has_fingerprints

    cdef bint same_marks(self, PackedCell other, int n) noexcept:
        """Whether nothing says that somebody wrote to the n weights in between."""
        return (self.packed.table == other.packed.table
                and memcmp(self.weights, other.weights, n * sizeof(void *)) == 0
                and memcmp(self.versions, other.versions, n * sizeof(int64_t)) == 0)

    cdef bint same_content(self, PackedCell other, int n) noexcept:
        """Whether the n weights of both are known to be the same numbers."""
        return (self.has_fingerprints and other.has_fingerprints
                and memcmp(self.fingerprints, other.fingerprints,
                           n * sizeof(self.fingerprints[0])) == 0)


@cython.final
@cython.no_gc  # __dealloc__ needs its attributes, and they lead to no Packs
cdef class Packs:
    """The packed weights of all cells of a stack, for one call and its backward."""

    cdef Weights owner
    cdef list cells  # PackedCell

    def __dealloc__(self):
        cdef PackedCell cell
        with cython.critical_section(self.owner):
            for cell in self.cells:
                cell.packed.users -= 1

    cdef Packed form(self, int k):
        return (<PackedCell>self.cells[k]).packed

    def can_run_again(self, int first, Packs kept not None):
        """Whether cells from `first` on can run forward with the weights of `kept`.

        They can in `kept` itself as long as no backward took the room of their forward
        forms, and else in what was packed of the same numbers.
        """
        cdef int k
        cdef bint same = True
        cdef PackedCell cell, other
        for k in range(first, len(self.cells)):
            cell, other = self.cells[k], kept.cells[k]
            same = same and cell.packed.forward is not None and (
                cell is other or cell.same_content(other, self.owner.per_cell()))
        return same

    def make_backward(self, Kernels kernels not None, int n_threads, tensors):
        """What `Plan.backward` reads; there is no forward after that.

        Parameters
        ----------
        tensors : sequence of tensor
            The weights, which may have changed since `Weights.take`.
        """
        cdef int k
        team(n_threads)
        for k in range(len(self.cells)):
            self.owner.add_backward(self.cells[k], k, n_threads, kernels, tensors)


@cython.final
cdef class Weights:
    """Packs the weights of a stack, again only those of cells where they have changed.

    A tensor's version tells that it was written to, and then there is nothing to
    compare.  It does not tell of writes through other views of its memory: weights that
    seem the same are compared by their fingerprint.

    Attributes
    ----------
    tapes : _weights.MemoryPool
        Memory for what backward needs of a forward; all stacks have the same.
    """

    cdef readonly Layout layout
    cdef readonly MemoryPool tapes
    cdef MemoryPool pool, scratch
    cdef list cells  # PackedCell or None

    def __init__(self, Layout layout not None):
        self.layout, self.pool = layout, MemoryPool(2 * layout.n_cells)
        self.tapes = common_pool("tapes", 1024)
        self.scratch = common_pool("scratch", 8)
        self.cells = [None] * layout.n_cells

    @property
    def current(self):
        """What is packed at the moment: by cell, a `_weights.Packed` or None."""
        cdef PackedCell cell
        with cython.critical_section(self):
            return [None if cell is None else cell.packed for cell in self.cells]

    def take(self, Kernels kernels not None, int n_threads, tensors, versions,
             bint forward, bint backward):
        """What is packed of each cell's weights as they are now: `Packs`.

        Parameters
        ----------
        tensors : sequence of tensor
            Contiguous, of the sizes of the layout; weight_ih, weight_hh, the biases if
            there are any and weight_hr if there is one, cell after cell.
        versions : sequence of int
            Of each tensor; -1 where nobody counts them.
        forward, backward : bool
            What it is for: `Plan.forward`; `Packs.make_backward`, sooner or later.
        """
        cdef int k, per_cell = self.per_cell()
        cdef ptrdiff_t size = itemsize(kernels)
        cdef fr_pack_args a
        cdef PackedCell made, found
        cdef list cells
        cdef Packs packs = Packs.__new__(Packs)
        team(n_threads)
        packs.owner, packs.cells = self, []
        with cython.critical_section(self):
            cells = list(self.cells)
        for k in range(self.layout.n_cells):
            made = self.mark(k, n_threads, kernels, tensors, versions, &a)
            found = cells[k]
            if found is not None and found.same_marks(made, per_cell):
                self.take_fingerprints(made, k, n_threads, kernels)
                if found.same_content(made, per_cell):
                    made.packed = found.packed
            if found is not None and made.packed is not found.packed:
                self.put(k, None)
            found = cells[k] = None  # its memory, unless in use, serves what comes now
            with cython.critical_section(self):
                packs.cells.append(made)
                made.packed.users += 1
            if forward:
                made.packed.add_forward(self, self.pool, &a, size)
            if backward and made.packed.turns:
                if not made.has_fingerprints:  # what `make_backward` will ask for
                    self.take_fingerprints(made, k, n_threads, kernels)
            elif backward:
                made.packed.add_backward(self, self.pool, &a, size, True, False)
            self.put(k, made)
        return packs

    cdef int per_cell(self) noexcept:
        """Weights of a cell."""
        cdef Layout layout = self.layout
        return 2 + 2 * layout.bias + (layout.S != layout.H)

    cdef PackedCell mark(self, int k, int n_threads, Kernels kernels, tensors, versions,
                         fr_pack_args *a):
        """Cell k's weights as they are now, of which nothing is packed; how to."""
        cdef PackedCell cell = PackedCell.__new__(PackedCell)
        cdef ptrdiff_t sizes[MOST_WEIGHTS]
        cdef int i, n = self.per_cell()
        for i in range(n):
            cell.weights[i] = pointer(tensors[k * n + i])
            cell.versions[i] = versions[k * n + i]
        self.describe(a, cell, k, sizes)
        a.n_threads = n_threads
        cell.packed = Packed.make(kernels.table, &a.shape, itemsize(kernels))
        return cell

    cdef int put(self, int k, PackedCell cell) except -1:
        with cython.critical_section(self):
            self.cells[k] = cell
        return 0

    cdef ptrdiff_t describe(self, fr_pack_args *a, PackedCell cell, int k,
                            ptrdiff_t *sizes) noexcept:
        """The arguments that pack cell k; the elements of each of its weights."""
        cdef Layout layout = self.layout
        cdef ptrdiff_t GH = layout.gates * layout.H
        cdef int i = 2
        memset(a, 0, sizeof(a[0]))
        a.shape.cell, a.shape.H, a.shape.S = layout.cell, layout.H, layout.S
        a.shape.I = layout.inputs(k // layout.n_directions)
        a.W, a.R = cell.weights[0], cell.weights[1]
        sizes[0], sizes[1] = GH * a.shape.I, GH * layout.S
        if layout.bias:
            a.b_ih, a.b_hh = cell.weights[2], cell.weights[3]
            sizes[2] = sizes[3] = GH
            i = 4
        if layout.S != layout.H:
            a.W_hr, sizes[i] = cell.weights[i], layout.S * layout.H
            i += 1
        return i

    cdef int add_backward(self, PackedCell cell, int k, int n_threads, Kernels kernels,
                          tensors) except -1:
        """Make the backward form of cell k, unless there is one."""
        cdef fr_pack_args a
        cdef ptrdiff_t sizes[MOST_WEIGHTS]
        cdef int i, n = self.per_cell()
        cdef Packed packed = cell.packed
        cdef PackedCell now
        cdef bint same = packed.forward is None
        if packed.backward is not None:
            return 0
        self.describe(&a, cell, k, sizes)
        a.n_threads = n_threads
        if packed.turns and packed.users == 1 and not same:
            now = PackedCell.__new__(PackedCell)
            for i in range(n):
                now.weights[i] = pointer(tensors[k * n + i])
            if memcmp(now.weights, cell.weights, n * sizeof(void *)) == 0:
                self.take_fingerprints(now, k, n_threads, kernels)
                same = cell.same_content(now, n)
        packed.add_backward(self, self.pool, &a, itemsize(kernels), same, same)
        return 0

    cdef int take_fingerprints(self, PackedCell cell, int k, int n_threads,
                               Kernels kernels) except -1:
        cdef fr_pack_args a
        cdef ptrdiff_t sizes[MOST_WEIGHTS]
        cdef ptrdiff_t i, n = self.describe(&a, cell, k, sizes)
        cdef ptrdiff_t size = itemsize(kernels)
        with nogil:
            for i in range(n):
                kernels.table.fingerprint(
                    sizes[i] * size, cell.weights[i], n_threads,
                    cell.fingerprints[i])
        cell.has_fingerprints = True
        return 0


# -- calls ----------------------------------------------------------------------------

@cython.final
cdef class Plan:
    """What one call works on, layer by layer: T steps of B rows.

    Outputs are (T, B, width), contiguous; states are (n_cells, B, S) and, an LSTM's c,
    (n_cells, B, H), contiguous. With `offsets` (T + 1 of them), the kernels' ragged
    batches, sequences are (N, width).
    """

    cdef readonly Kernels kernels
    cdef readonly object offsets
    cdef Layout layout
    cdef fr_shape shape
    cdef ptrdiff_t itemsize, h_size, c_size, width
    cdef ptrdiff_t tape  # bytes of a cell's: whole vectors

    def __init__(self, Kernels kernels not None, Layout layout not None, ptrdiff_t T,
                 ptrdiff_t B, offsets=None):
        cdef const ptrdiff_t[::1] starts
        if min(T, B) < 1:
            raise ValueError(f"Plan: T and B must be >= 1, got {(T, B)}")
        self.kernels, self.layout = kernels, layout
        self.shape.cell, self.shape.H, self.shape.S = layout.cell, layout.H, layout.S
        self.shape.T, self.shape.B, self.shape.I = T, B, layout.I
        self.shape.offsets, self.shape.options = NULL, layout.cell_options()
        if offsets is not None:
            starts = self.offsets = np.array(offsets, np.intp)  # nobody can change it
            check_offsets(T, B, starts)
            self.shape.offsets = &starts[0]
        self.itemsize = itemsize(kernels)
        self.h_size, self.c_size = B * layout.S, B * layout.H
        self.width = layout.n_directions * layout.S
        self.tape = kernels.table.tape_size(&self.shape) * self.itemsize

    @property
    def tape_size(self):
        """Elements that backward needs of all cells: so many for each row of a step.

        0 for a plain RNN.
        """
        return self.layout.n_cells * self.tape // self.itemsize

    cdef char *of_cell(self, char *start, int k, ptrdiff_t size) noexcept nogil:
        """Where cell k's part of a state begins."""
        return NULL if start == NULL else start + k * size * self.itemsize

    cdef int calls_at_once(self, int n_layers, int n_threads) noexcept nogil:
        """Cells to run at once: a layer's two directions, or some of the layers."""
        cdef fr_shape shape = self.shape
        cdef int D = self.layout.n_directions
        shape.I = self.layout.inputs(self.layout.n_layers - 1)
        return self.kernels.table.calls_at_once(
            &shape, n_threads, 2 if D == 2 else n_layers, D == 1)

    def layers_at_once(self, int n_threads):
        """How many layers `forward` and `backward` should get in one call.

        More than one where that is faster; what lies between those is then needed
        whole, at once.
        """
        if self.layout.n_directions > 1:
            return 1
        return self.calls_at_once(self.layout.n_layers, n_threads)

    def forward(self, int first, int n_threads, Packs packs not None, list inputs,
                bint batch_first, h0, c0, list outputs, h_n, c_n, tapes):
        """Run layers, all their directions, from layer `first` on.

        Parameters
        ----------
        packs : Packs
            From `Weights.take`, of all cells, as are `h0`, `c0`, `h_n`, `c_n`, `tapes`.
        inputs : list of tensor, shape (T, B, I) or (N, I)
            Of each layer, the first one's (B, T, I) with `batch_first`. Of any strides
            that are not negative, elements of a row side by side.
        h0, c0 : tensor or None
            None is zero.
        outputs : list of tensor
            Of each layer, the next one's input. Written.
        c_n : tensor
            Written; None but for an LSTM.
        h_n : tensor or None
            Written.
        tapes : tensor or None
            Of `tape_size` elements, from the start of a cache line; None where no
            backward follows.
        """
        cdef fr_forward_args a
        cdef fr_forward_args calls[FR_MOST_AT_ONCE]
        cdef Layout layout = self.layout
        cdef const fr_kernels *table = self.kernels.table
        cdef ptrdiff_t state = round_up(self.c_size * self.itemsize), size = 0
        cdef int n_layers = len(outputs), D = layout.n_directions, n = 0, i, k
        cdef int direction, at_once = self.calls_at_once(n_layers, n_threads)
        cdef char *ph0 = pointer(h0)
        cdef char *pc0 = pointer(c0)
        cdef char *ph_n = pointer(h_n)
        cdef char *pc_n = pointer(c_n)
        cdef char *py
        cdef char *tape = pointer(tapes)
        cdef Memory work
        cdef bint has_c = layout.n_states == 2
        team(n_threads)
        a.shape, a.n_threads = self.shape, n_threads
        a.y_step, a.y_row = self.shape.B * self.width, self.width
        a.c0 = a.c_n = a.tape = NULL
        for i in range(min(n_layers, 2)):
            a.shape.I = layout.inputs(first + i)
            size = max(size, table.forward_work_size(&a.shape, n_threads))
        size = round_up(size * self.itemsize)
        work = packs.owner.scratch.take((1 + at_once) * state + at_once * size)
        if ph0 == NULL or (has_c and pc0 == NULL):
            memset(work.start, 0, state)
        for i in range(n_layers):
            a.shape.I = layout.inputs(first + i)
            a.x = pointer(inputs[i])
            a.x_step = strides(inputs[i], batch_first and i == 0, &a.x_row)
            py = pointer(outputs[i])
            for direction in range(D):
                k = (first + i) * D + direction
                a.shape.reverse = direction
                a.packed = packs.form(k).forward.start
                a.y = py + direction * layout.S * self.itemsize
                a.h0 = self.of_cell(ph0, k, self.h_size)
                a.h_n = self.of_cell(ph_n, k, self.h_size)
                if a.h0 == NULL:
                    a.h0 = work.start
                if a.h_n == NULL:
                    a.h_n = work.start + (1 + n) * state
                if has_c:
                    a.c0 = self.of_cell(pc0, k, self.c_size)
                    a.c_n = self.of_cell(pc_n, k, self.c_size)
                    if a.c0 == NULL:
                        a.c0 = work.start
                if tape != NULL:
                    a.tape = tape + k * self.tape
                a.work = work.start + (1 + at_once) * state + n * size
                calls[n] = a
                n += 1
                if n == at_once or (i, direction) == (n_layers - 1, D - 1):
                    with nogil:
                        table.forward(calls, n, D == 1)
                    n = 0

    def backward(self, int first, int n_threads, Packs packs not None, list inputs,
                 bint batch_first, h0, list outputs, tapes, dy, dh_n, dc_n,
                 list dinputs, dh0, dc0, dweights not None):
        """Back-propagate through layers; see `forward` for what it shares with it.

        Parameters
        ----------
        packs : Packs
            After `make_backward`.
        dy : tensor or None
            Of the last layer: (T, B, width) of any strides, as x; None is zero, as in
            `dh_n` and `dc_n`.
        dinputs : list of (tensor or None)
            Of each layer, laid out as its input may be; written, as are `dh0` and
            `dc0`. None of those and of the first layer's is not wanted.
        dweights : sequence of (tensor or None)
            Contiguous, in the order of the stack's weights; overwritten.
        """
        cdef fr_backward_args a
        cdef fr_backward_args calls[FR_MOST_AT_ONCE]
        cdef fr_extent extent
        cdef Layout layout = self.layout
        cdef const fr_kernels *table = self.kernels.table
        cdef ptrdiff_t state = round_up(self.c_size * self.itemsize)
        cdef ptrdiff_t GH = layout.gates * layout.H
        cdef bint has_c = layout.n_states == 2, projected = layout.S != layout.H
        cdef int per_cell = 2 + 2 * layout.bias + projected
        cdef int n_layers = len(outputs), D = layout.n_directions, n = 0, i, j, k
        cdef int direction, at_once = self.calls_at_once(n_layers, n_threads)
        cdef ptrdiff_t size = 0, dx_size = 0, sinks
        cdef bint both = D == 2 and at_once == 2
        cdef char *ph0 = pointer(h0)
        cdef char *py
        cdef char *tape = pointer(tapes)
        cdef char *pdy
        cdef char *pdh_n = pointer(dh_n)
        cdef char *pdc_n = pointer(dc_n)
        cdef char *pdh0 = pointer(dh0)
        cdef char *pdc0 = pointer(dc0)
        cdef char *d[MOST_WEIGHTS]
        cdef ptrdiff_t sizes[MOST_WEIGHTS]
        cdef Memory work
        team(n_threads)
        a.shape, a.n_threads = self.shape, n_threads
        a.y_step, a.y_row = self.shape.B * self.width, self.width
        a.tape = a.dc_n = a.dc0 = a.dP = NULL
        a.clip_value, a.clip_norm, a.flow = 0, 0, NULL
        a.db_sums, a.db_started, a.db_open = NULL, False, False
        for i in range(n_layers):
            a.shape.I = layout.inputs(first + i)
            size = max(size, table.backward_work_size(&a.shape, n_threads))
            if both:  # room for the second direction's
                dx_size = max(dx_size, self.series_size(
                    dinputs[i], batch_first and i == 0, a.shape.I))
        size = round_up(size * self.itemsize)
        dx_size = round_up(dx_size * self.itemsize)
        sinks = (1 + 2 * at_once) * state
        work = packs.owner.scratch.take(sinks + dx_size + at_once * size)
        if ph0 == NULL:
            memset(work.start, 0, state)
        extent.n_threads, extent.n_spans, extent.spans = n_threads, 0, NULL
        for i in range(n_layers - 1, -1, -1):
            a.shape.I = layout.inputs(first + i)
            sizes[0], sizes[1] = GH * a.shape.I, GH * layout.S
            sizes[2] = sizes[3] = GH
            sizes[per_cell - projected] = layout.S * layout.H
            a.x = pointer(inputs[i])
            a.x_step = strides(inputs[i], batch_first and i == 0, &a.x_row)
            a.dx, a.dx_step, a.dx_row = pointer(dinputs[i]), 0, 0
            if a.dx != NULL:
                a.dx_step = strides(dinputs[i], batch_first and i == 0, &a.dx_row)
            py, pdy, a.dy_step, a.dy_row = pointer(outputs[i]), pointer(dy), 0, 0
            a.dy = NULL
            if pdy != NULL:
                a.dy_step = strides(dy, False, &a.dy_row)
            for direction in range(D):
                k = (first + i) * D + direction
                for j in range(per_cell):
                    d[j] = pointer(dweights[k * per_cell + j])
                a.shape.reverse = direction
                a.packed = packs.form(k).backward.start
                a.h0 = self.of_cell(ph0, k, self.h_size)
                if a.h0 == NULL:
                    a.h0 = work.start
                a.y = py + direction * layout.S * self.itemsize
                if tape != NULL:
                    a.tape = tape + k * self.tape
                if pdy != NULL:
                    a.dy = pdy + direction * layout.S * self.itemsize
                a.dx_accumulate = direction and not both
                if direction and both and a.dx != NULL:
                    a.dx = work.start + sinks
                a.dh_n = self.of_cell(pdh_n, k, self.h_size)
                a.dh0 = self.of_cell(pdh0, k, self.h_size)
                if a.dh0 == NULL:
                    a.dh0 = work.start + (1 + n) * state
                if has_c:
                    a.dc_n = self.of_cell(pdc_n, k, self.c_size)
                    a.dc0 = self.of_cell(pdc0, k, self.c_size)
                    if a.dc0 == NULL:
                        a.dc0 = work.start + (1 + at_once + n) * state
                a.dW, a.dR = d[0], d[1]
                a.db_ih = d[2] if layout.bias else NULL
                a.db_hh = d[3] if layout.bias else NULL
                a.dW_hr = d[per_cell - 1] if projected else NULL
                with nogil:
                    for j in range(per_cell):
                        extent.n = sizes[j]
                        if d[j] != NULL:  # the kernel adds
                            table.clear(&extent, d[j])
                a.work = work.start + sinks + dx_size + n * size
                calls[n] = a
                n += 1
                if n == at_once or (i, direction) == (0, D - 1):
                    with nogil:
                        table.backward(calls, n, D == 1)
                    n = 0
            dy = dinputs[i]

    cdef ptrdiff_t series_size(self, tensor, bint batch_first,
                               ptrdiff_t width) except -1:
        """Elements from the first to the last of a series; 0 for None."""
        cdef ptrdiff_t step, row = 0
        if tensor is None:
            return 0
        step = strides(tensor, batch_first, &row)
        if self.shape.offsets != NULL:
            return (self.shape.offsets[self.shape.T] - 1) * row + width
        return (self.shape.T - 1) * step + (self.shape.B - 1) * row + width
