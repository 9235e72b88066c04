# SPDX-License-Identifier: BSD-3-Clause
"""Layers over memory that another library owns: its tensors in, its tensors out.

A tensor is what `views` can describe: PyTorch's.  Every call looks at each of its
tensors, in C, which takes some nanoseconds: type, device, sizes, strides and alignment
have to be what the method's docstring says, and what a plan, its packed weights and its
layers need.  A call that does not fit raises ValueError or TypeError before anything is
written.  A stack's weights lie apart, one tensor each.  Longer than other files because
each of a plan's two directions looks at all that it is given before it begins.
"""

cimport cython
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcmp, memset

import weakref

import numpy as np

from fastrnn.native.capi cimport (
    FR_MOST_AT_ONCE, fr_backward_args, fr_extent, fr_forward_args, fr_kernels,
    fr_pack_args, fr_shape,
)
from fastrnn.native.core cimport Kernels, check_offsets, size_of, team_of
from fastrnn.native.sizes cimport check_shape, check_threads
from fastrnn.native.views cimport View, description, is_dense, look_at, n_elements
from fastrnn.native.weights cimport (
    FINGERPRINT_WORDS, Layout, Memory, MemoryPool, Packed, round_up,
)

cdef enum:
    MOST_WEIGHTS = 5  # of a cell: W, R, two biases, W_hr

# All stacks share these: there is one as long as there is a stack.
_common = weakref.WeakValueDictionary()


cdef MemoryPool common_pool(str what, int most):
    return _common.setdefault(what, MemoryPool(most))


cdef char *dense(tensor, str what, char kind, ptrdiff_t size) except? NULL:
    """Where a tensor of `size` elements side by side lies; NULL for None."""
    cdef View v
    if tensor is None:
        return NULL
    look_at(&v, tensor, what, kind)
    if n_elements(&v) != size or not is_dense(&v):
        raise ValueError(
            f"{what} must have {size} elements side by side, got {description(&v)}")
    return v.data


cdef tuple as_tuple(tensors, str what, ptrdiff_t n):
    """A sequence of n, which nobody can change meanwhile."""
    cdef tuple found = tuple(tensors)
    if len(found) != n:
        raise ValueError(f"{what} must be {n}, got {len(found)}")
    return found


def is_series(tensor, kernels not None):
    """Whether `Plan` can read a tensor of the right sizes as it is.

    Elements of a row lie side by side, at a multiple of their size.
    """
    cdef View v
    cdef char kind = (<Kernels?>kernels).kind
    look_at(&v, tensor, "a tensor", kind, False)
    return (<size_t>v.data % <size_t>size_of(kind) == 0
            and (v.ndim == 0 or v.stride[v.ndim - 1] == 1))


def is_contiguous(tensor, kernels not None):
    """Whether a tensor's elements lie side by side, at a multiple of their size."""
    cdef View v
    cdef char kind = (<Kernels?>kernels).kind
    look_at(&v, tensor, "a tensor", kind, False)
    return is_dense(&v) and <size_t>v.data % <size_t>size_of(kind) == 0


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
        if self.owner is None:
            return
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
        if self.owner is None or kept.owner is None:
            raise ValueError("can_run_again: Packs come from Weights.take")
        if not 0 <= first < self.owner.layout.n_cells:
            raise ValueError(f"can_run_again: no such cell: {first}")
        if kept.owner is not self.owner:
            return False
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
        cdef int k, n
        cdef tuple weights
        team_of("make_backward", n_threads)
        if self.owner is None:
            raise ValueError("make_backward: Packs come from Weights.take")
        n = len(self.cells)
        weights = as_tuple(tensors, "tensors", n * self.owner.per_cell())
        for k in range(n):
            if self.form(k).table != kernels.table:
                raise ValueError("make_backward: packed by other kernels than given")
        for k in range(n):
            self.owner.add_backward(self.cells[k], k, n_threads, kernels, weights)

    cdef int check(self, str who, Layout layout, const fr_kernels *table, int first,
                   int n, bint backward) except -1:
        """Whether the forms of n cells are there, of this layout and these kernels."""
        cdef Packed packed
        cdef int k
        if self.owner is None or self.owner.layout is not layout:
            raise ValueError(f"{who}: packs must be of weights of the plan's layout")
        for k in range(first, first + n):
            packed = self.form(k)
            if packed.table != table or (
                    packed.backward is None if backward else packed.forward is None):
                raise ValueError(
                    f"{who}: packs must have what was made for it by the same kernels")
        return 0


@cython.final
cdef class Weights:
    """Packs the weights of a stack, again only those of cells where they have changed.

    A tensor's version tells that it was written to, and then there is nothing to
    compare.  It does not tell of writes through other views of its memory: weights that
    seem the same are compared by their fingerprint.

    Attributes
    ----------
    tapes : weights.MemoryPool
        Memory for what backward needs of a forward; all stacks have the same.
    """

    cdef readonly Layout layout
    cdef readonly MemoryPool tapes
    cdef MemoryPool pool, scratch
    cdef list cells  # PackedCell or None

    def __cinit__(self, Layout layout not None):
        if layout.general or layout.merged:
            raise ValueError("Weights: layout must be of plain cells, not merged")
        self.layout, self.pool = layout, MemoryPool(2 * layout.n_cells)
        self.tapes = common_pool("tapes", 1024)
        self.scratch = common_pool("scratch", 8)
        self.cells = [None] * layout.n_cells

    @property
    def current(self):
        """What is packed at the moment: by cell, a `weights.Packed` or None."""
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
        cdef int n = self.layout.n_cells * per_cell
        cdef ptrdiff_t size = size_of(kernels.kind)
        cdef fr_pack_args a
        cdef PackedCell made, found
        cdef list cells
        cdef Packs packs
        team_of("take", n_threads)
        tensors = as_tuple(tensors, "tensors", n)
        versions = as_tuple(versions, "versions", n)
        packs = Packs.__new__(Packs)
        packs.cells, packs.owner = [], self
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

    cdef PackedCell mark(self, int k, int n_threads, Kernels kernels, tuple tensors,
                         tuple versions, fr_pack_args *a):
        """Cell k's weights as they are now, of which nothing is packed; how to."""
        cdef PackedCell cell = PackedCell.__new__(PackedCell)
        cdef int i, n = self.per_cell()
        self.find(cell, k, kernels.kind, tensors)
        for i in range(n):
            cell.versions[i] = versions[k * n + i]
        self.describe(a, cell, k, NULL)
        a.n_threads = n_threads
        cell.packed = Packed.make(kernels.table, &a.shape, size_of(kernels.kind))
        return cell

    cdef int find(self, PackedCell cell, int k, char kind, tuple tensors) except -1:
        """Set where the weights of cell k lie."""
        cdef fr_pack_args a
        cdef ptrdiff_t sizes[MOST_WEIGHTS]
        cdef ptrdiff_t i, n = self.describe(&a, cell, k, sizes)
        for i in range(n):
            cell.weights[i] = dense(tensors[k * n + i], "a weight", kind, sizes[i])
            if cell.weights[i] == NULL:
                raise TypeError("a weight must be a tensor, got None")
        return 0

    cdef int put(self, int k, PackedCell cell) except -1:
        with cython.critical_section(self):
            self.cells[k] = cell
        return 0

    cdef ptrdiff_t describe(self, fr_pack_args *a, PackedCell cell, int k,
                            ptrdiff_t *sizes) noexcept:
        """The arguments that pack cell k; the elements of each of its weights."""
        cdef Layout layout = self.layout
        cdef ptrdiff_t GH = layout.gates * layout.H
        cdef ptrdiff_t unused[MOST_WEIGHTS]
        cdef int i = 2
        if sizes == NULL:
            sizes = unused
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
                          tuple tensors) except -1:
        """Make the backward form of cell k, unless there is one."""
        cdef fr_pack_args a
        cdef int n = self.per_cell()
        cdef Packed packed = cell.packed
        cdef PackedCell now
        cdef bint alone = packed.forward is None, same = alone
        if packed.backward is not None:
            return 0
        # Where the weights lay is known, not that they still do.
        now = PackedCell.__new__(PackedCell)
        if alone or (packed.turns and packed.users == 1):
            self.find(now, k, kernels.kind, tensors)
        if alone and memcmp(now.weights, cell.weights, n * sizeof(void *)) != 0:
            raise ValueError("make_backward: tensors must be those of Weights.take")
        if not alone and packed.turns and packed.users == 1 and (
                memcmp(now.weights, cell.weights, n * sizeof(void *)) == 0):
            self.take_fingerprints(now, k, n_threads, kernels)
            same = cell.same_content(now, n)
        self.describe(&a, now, k, NULL)
        a.n_threads = n_threads
        packed.add_backward(
            self, self.pool, &a, size_of(kernels.kind), same, same)
        return 0

    cdef int take_fingerprints(self, PackedCell cell, int k, int n_threads,
                               Kernels kernels) except -1:
        cdef fr_pack_args a
        cdef ptrdiff_t sizes[MOST_WEIGHTS]
        cdef ptrdiff_t i, n = self.describe(&a, cell, k, sizes)
        cdef ptrdiff_t size = size_of(kernels.kind)
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

    Tensors have to be of these sizes, and `packs` of this layout's weights.

    Outputs are (T, B, width), contiguous; states are (n_cells, B, S) and, an LSTM's c,
    (n_cells, B, H), contiguous. With `offsets` (T + 1 of them), the kernels' ragged
    batches, sequences are (N, width).
    """

    cdef readonly Kernels kernels
    cdef readonly object offsets  # a copy: `starts` has what was checked
    cdef const ptrdiff_t[::1] starts
    cdef Layout layout
    cdef fr_shape shape
    cdef ptrdiff_t rows  # of a sequence: T * B, or N
    cdef char kind
    cdef ptrdiff_t itemsize, h_size, c_size, width
    cdef ptrdiff_t tape  # bytes of a cell's: whole vectors

    def __cinit__(self, Kernels kernels not None, Layout layout not None, ptrdiff_t T,
                  ptrdiff_t B, offsets=None):
        cdef fr_shape widest
        if min(T, B) < 1:
            raise ValueError(f"Plan: T and B must be >= 1, got {(T, B)}")
        if layout.general or layout.merged:
            raise ValueError("Plan: layout must be of plain cells, not merged")
        self.kernels, self.layout, self.kind = kernels, layout, kernels.kind
        self.shape.cell, self.shape.H, self.shape.S = layout.cell, layout.H, layout.S
        self.shape.T, self.shape.B, self.shape.I = T, B, layout.I
        self.shape.offsets, self.shape.options = NULL, NULL
        self.width = layout.n_directions * layout.S
        widest = self.shape
        widest.I = max(layout.I, self.width)
        check_shape("Plan", &widest, layout.n_cells)
        self.rows = T * B
        if offsets is not None:
            self.starts = np.array(offsets, np.intp)
            check_offsets(T, B, self.starts)
            self.offsets = np.array(self.starts)
            self.shape.offsets = &self.starts[0]
            self.rows = self.starts[T]
        self.itemsize = size_of(kernels.kind)
        self.h_size, self.c_size = B * layout.S, B * layout.H
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
        check_threads("layers_at_once", n_threads)
        if self.layout.n_directions > 1:
            return 1
        return self.calls_at_once(self.layout.n_layers, n_threads)

    cdef char *series(self, tensor, str what, ptrdiff_t width, bint batch_first,
                      ptrdiff_t *step, ptrdiff_t *row,
                      bint contiguous=False) except? NULL:
        """Where a sequence lies, and its strides; NULL for None."""
        cdef View v
        cdef bint fits
        step[0] = row[0] = 0
        if tensor is None:
            return NULL
        look_at(&v, tensor, what, self.kind)
        if v.ndim == 2:  # packed rows, or those of one step
            fits = ((self.shape.T == 1 or self.shape.offsets != NULL)
                    and v.shape[0] == self.rows)
            row[0] = v.stride[0]
        else:
            fits = (v.ndim == 3 and self.shape.offsets == NULL
                    and v.shape[batch_first] == self.shape.T
                    and v.shape[not batch_first] == self.shape.B)
            if fits:
                step[0], row[0] = v.stride[batch_first], v.stride[not batch_first]
        if not fits or v.shape[v.ndim - 1] != width or v.stride[v.ndim - 1] != 1 or (
                contiguous and not is_dense(&v)):
            raise ValueError(
                f"{what} must be {self.shape.T} steps of {self.shape.B} rows, "
                f"{self.rows} rows in all, of {width} elements side by side"
                f"{', contiguous' if contiguous else ''}, got {description(&v)}")
        return v.data

    cdef char *output(self, tensor) except NULL:
        """Where a layer's outputs lie, contiguous."""
        cdef ptrdiff_t step, row
        cdef char *at = self.series(
            tensor, "an output", self.width, False, &step, &row, True)
        if at == NULL:
            raise TypeError("an output must be a tensor, got None")
        return at

    cdef char *input(self, tensor, int layer, bint batch_first, ptrdiff_t *step,
                     ptrdiff_t *row) except NULL:
        """Where a layer's inputs lie, and their strides."""
        cdef char *at = self.series(tensor, "an input", self.layout.inputs(layer),
                                    batch_first, step, row)
        if at == NULL:
            raise TypeError("an input must be a tensor, got None")
        return at

    cdef char *state(self, tensor, str what, bint of_c=False) except? NULL:
        """Where a state of all cells lies, contiguous; NULL for None."""
        cdef View v
        cdef ptrdiff_t n_cells = self.layout.n_cells
        cdef ptrdiff_t width = self.layout.H if of_c else self.layout.S
        cdef bint fits
        if tensor is None:
            return NULL
        look_at(&v, tensor, what, self.kind)
        fits = v.ndim >= 2 and v.shape[v.ndim - 1] == width and (
            v.shape[v.ndim - 2] == self.shape.B)
        if not fits or not is_dense(&v) or (
                n_cells != (v.shape[0] if v.ndim == 3 else 1)):
            raise ValueError(
                f"{what} must be contiguous, of shape "
                f"{(n_cells, self.shape.B, width)}, got {description(&v)}")
        return v.data

    cdef int check_layers(self, str who, int first, int n_threads, Packs packs,
                          Py_ssize_t n_layers, bint backward) except -1:
        """Whether there are such layers, and their packed weights."""
        cdef int D = self.layout.n_directions
        team_of(who, n_threads)
        if not 0 <= first < self.layout.n_layers or not (
                1 <= n_layers <= self.layout.n_layers - first):
            raise ValueError(
                f"{who}: there are {self.layout.n_layers} layers, got {n_layers} from "
                f"layer {first} on")
        packs.check(
            who, self.layout, self.kernels.table, first * D, n_layers * D, backward)
        return 0

    cdef char *tapes(self, tensor, bint needed) except? NULL:
        """Where the tapes of all cells lie; NULL where there are none."""
        if self.tape == 0 or (tensor is None and not needed):
            return NULL
        if tensor is None:
            raise TypeError("tapes must be a tensor, got None")
        return dense(tensor, "tapes", self.kind, self.tape_size)

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
        cdef int direction, at_once
        cdef bint has_c = layout.n_states == 2
        cdef char *ph0 = self.state(h0, "h0")
        cdef char *pc0 = self.state(c0, "c0", True) if has_c else NULL
        cdef char *ph_n = self.state(h_n, "h_n")
        cdef char *pc_n = self.state(c_n, "c_n", True) if has_c else NULL
        cdef char *py
        cdef char *tape = self.tapes(tapes, False)
        cdef Memory work
        cdef tuple xs = as_tuple(inputs, "inputs", n_layers)
        cdef tuple ys = tuple(outputs)
        cdef ptrdiff_t step, row
        self.check_layers("Plan.forward", first, n_threads, packs, len(ys), False)
        if has_c and pc_n == NULL:
            raise TypeError("Plan.forward: c_n must be a tensor, got None")
        for i in range(n_layers):  # nothing has been written if one does not fit
            self.input(xs[i], first + i, batch_first and i == 0, &step, &row)
            self.output(ys[i])
        at_once = self.calls_at_once(n_layers, n_threads)
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
            a.x = self.input(xs[i], first + i, batch_first and i == 0, &a.x_step,
                             &a.x_row)
            py = self.output(ys[i])
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
        cdef bint has_c = layout.n_states == 2, projected = layout.S != layout.H
        cdef int per_cell = 2 + 2 * layout.bias + projected
        cdef int n_layers = len(outputs), D = layout.n_directions, n = 0, i, j, k
        cdef int direction, at_once
        cdef ptrdiff_t size = 0, dx_size = 0, sinks, step, row
        cdef bint both
        cdef char *ph0 = self.state(h0, "h0")
        cdef char *py
        cdef char *tape = self.tapes(tapes, True)
        cdef char *pdy
        cdef char *pdh_n = self.state(dh_n, "dh_n")
        cdef char *pdc_n = self.state(dc_n, "dc_n", True) if has_c else NULL
        cdef char *pdh0 = self.state(dh0, "dh0")
        cdef char *pdc0 = self.state(dc0, "dc0", True) if has_c else NULL
        cdef char *d[MOST_WEIGHTS]
        cdef ptrdiff_t sizes[MOST_WEIGHTS]
        cdef Memory work
        cdef tuple xs = as_tuple(inputs, "inputs", n_layers)
        cdef tuple ys = tuple(outputs)
        cdef tuple dxs = as_tuple(dinputs, "dinputs", n_layers)
        cdef tuple dws = as_tuple(dweights, "dweights", layout.n_cells * per_cell)
        self.check_layers("Plan.backward", first, n_threads, packs, len(ys), True)
        at_once = self.calls_at_once(n_layers, n_threads)
        both = D == 2 and at_once == 2
        self.series(dy, "dy", self.width, False, &step, &row)
        for i in range(n_layers - 1, -1, -1):  # before anything is written
            a.shape.I = layout.inputs(first + i)
            self.input(xs[i], first + i, batch_first and i == 0, &step, &row)
            self.output(ys[i])
            self.series(dxs[i], "dinputs", a.shape.I, batch_first and i == 0,
                        &step, &row)
            for k in range((first + i) * D, (first + i + 1) * D):
                self.find_gradients(dws, k, d, sizes)
            if both and dxs[i] is not None:  # room for the second direction's
                dx_size = max(dx_size, a.shape.I + (
                    (self.shape.T - 1) * step + (self.shape.B - 1) * row
                    if self.shape.offsets == NULL else (self.rows - 1) * row))
        a.shape, a.n_threads = self.shape, n_threads
        a.y_step, a.y_row = self.shape.B * self.width, self.width
        a.tape = a.dc_n = a.dc0 = a.dP = NULL
        a.clip_value, a.clip_norm, a.flow = 0, 0, NULL
        a.db_sums, a.db_started, a.db_open = NULL, False, False
        for i in range(n_layers):
            a.shape.I = layout.inputs(first + i)
            size = max(size, table.backward_work_size(&a.shape, n_threads))
        size = round_up(size * self.itemsize)
        dx_size = round_up(dx_size * self.itemsize)
        sinks = (1 + 2 * at_once) * state
        work = packs.owner.scratch.take(sinks + dx_size + at_once * size)
        if ph0 == NULL:
            memset(work.start, 0, state)
        extent.n_threads, extent.n_spans, extent.spans = n_threads, 0, NULL
        for i in range(n_layers - 1, -1, -1):
            a.shape.I = layout.inputs(first + i)
            a.x = self.input(xs[i], first + i, batch_first and i == 0, &a.x_step,
                             &a.x_row)
            a.dx = self.series(dxs[i], "dinputs", a.shape.I, batch_first and i == 0,
                               &a.dx_step, &a.dx_row)
            py = self.output(ys[i])
            pdy = self.series(dy, "dy", self.width, False, &a.dy_step, &a.dy_row)
            a.dy = NULL
            for direction in range(D):
                k = (first + i) * D + direction
                self.find_gradients(dws, k, d, sizes)
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
            dy = dxs[i]

    cdef int find_gradients(self, tuple dweights, int k, char **d,
                            ptrdiff_t *sizes) except -1:
        """Where the gradients of cell k's weights lie, NULL for None; their sizes."""
        cdef Layout layout = self.layout
        cdef ptrdiff_t GH = layout.gates * layout.H
        cdef bint projected = layout.S != layout.H
        cdef int j, n = 2 + 2 * layout.bias + projected
        sizes[0], sizes[1] = GH * layout.inputs(k // layout.n_directions), GH * layout.S
        sizes[2] = sizes[3] = GH
        sizes[n - projected] = layout.S * layout.H
        for j in range(n):
            d[j] = dense(dweights[k * n + j], "a gradient of a weight", self.kind,
                         sizes[j])
        return 0
