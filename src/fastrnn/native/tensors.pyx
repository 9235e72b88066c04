# SPDX-License-Identifier: BSD-3-Clause
"""Layers over memory that another library owns: its tensors in, its tensors out.

A tensor is what `views` can describe: PyTorch's, or an array of NumPy's.  Every call
looks at each of its tensors, in C, which takes some nanoseconds: type, device, sizes,
strides and alignment have to be what the method's docstring says, and what a plan, its
packed weights and its layers need.  A call that does not fit raises ValueError or
TypeError before anything is written.  A stack's weights lie apart, one tensor each.
"""

cimport cython
from libc.string cimport memset

from fastrnn.native.addresses cimport size_of
from fastrnn.native.calls cimport (
    PerCell, Plan, Run, Sequence, extent_of_sequence, per_cell, sequence_of_tensor,
)
from fastrnn.native.capi cimport FR_WHOLE, fr_shape
from fastrnn.native.core cimport Kernels, team_of
from fastrnn.native.draws cimport Draw, draw_of
from fastrnn.native.layout cimport N_PARTS, Layout, Parts
from fastrnn.native.memory cimport Loan, Pool, round_up
from fastrnn.native.sizes cimport check_threads
from fastrnn.native.views cimport View, as_tuple, dense, description, is_dense, look_at
from fastrnn.native.weights cimport Use


def is_series(tensor, kernels not None):
    """Whether `TensorPlan` can read a tensor of the right sizes as it is.

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


@cython.final
cdef class TensorPlan(Plan):
    """What one call works on, layer by layer: T steps of B rows.

    Tensors have to be of these sizes, and a `Use` of this layout's weights.

    Outputs are (T, B, width), of any strides that inputs may have; states are
    (n_cells, B, S), contiguous, and those beside h, an LSTM's c, are one tensor
    ((n_states - 1) * n_cells, B, H), one state after the other. With `offsets` (T + 1
    of them), the kernels' ragged batches, sequences are (N, width).
    """

    cdef ptrdiff_t h_size, c_size
    cdef ptrdiff_t state_bytes  # from a cell's first state but h to the last one's end
    cdef ptrdiff_t tape  # bytes of a cell's: whole vectors

    def __cinit__(self, Kernels kernels not None, Layout layout not None, ptrdiff_t T,
                  ptrdiff_t B, offsets=None):
        if layout.merged:
            raise ValueError("TensorPlan: layout must not be merged")
        if kernels.weights != FR_WHOLE:
            raise ValueError(
                "TensorPlan: kernels must not be for weights of fewer bytes")
        self.set_shape("TensorPlan", kernels, layout, T, B, layout.I, T, offsets, False)
        self.h_size, self.c_size = B * layout.S, B * layout.H
        self.state_bytes = round_up(self.itemsize * self.c_size * (
            1 + max(0, layout.n_states - 2) * layout.n_cells))
        self.tape = kernels.table.tape_size(&self.shape) * self.itemsize

    @property
    def tape_size(self):
        """Elements that backward needs of all cells: so many for each row of a step.

        0 for a plain RNN.
        """
        return self.layout.n_cells * self.tape // self.itemsize

    cdef PerCell state_of(self, char *at, int first, bint of_c) noexcept:
        """Where cells have their parts of a state, from layer `first` on."""
        cdef ptrdiff_t n_bytes = self.itemsize * (self.c_size if of_c else self.h_size)
        if at != NULL:
            at += first * self.layout.n_directions * n_bytes
        return per_cell(at, n_bytes, False)

    cdef Run run(self, int first, int n_layers, int n_threads, Draw draw):
        """A `Run` of some layers."""
        cdef int D = self.layout.n_directions
        cdef Run run = Run.make(self.kernels.table, &self.shape, n_threads, n_layers, D,
                                self.itemsize)
        run.c_step = self.layout.n_cells * self.c_size
        run.at_once, run.chained = self.calls_at_once(n_layers, n_threads), D == 1
        run.draw = draw_of(draw, "TensorPlan", &self.shape, first * D)
        return run

    cdef ptrdiff_t work_size(self, Run run, bint backward) noexcept:
        """Bytes of a cell's work space."""
        cdef fr_shape shape = self.shape
        cdef ptrdiff_t size = 0
        cdef int i
        for i in range(run.n_layers):
            shape.I = run.x[i].width
            if backward:
                size = max(size, run.table.backward_work_size(&shape, run.n_threads))
            else:
                size = max(size, run.table.forward_work_size(&shape, run.n_threads))
        return round_up(size * self.itemsize)

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

    cdef int input(self, Sequence *s, tensor, str what, int layer,
                   bint batch_first, bint writable) except -1:
        """Set where a layer's inputs, or their gradients, lie."""
        return sequence_of_tensor(s, tensor, what, self.kind, &self.shape,
                                  self.layout.inputs(layer), batch_first, writable)

    cdef int set_layers(self, Run run, int first, tuple xs, bint batch_first,
                        tuple ys, bint writable) except -1:
        """Set where inputs and outputs lie, to which forward writes."""
        cdef int i
        for i in range(run.n_layers):
            self.input(&run.x[i], xs[i], "an input", first + i, batch_first and i == 0,
                       False)
            sequence_of_tensor(&run.y[i], ys[i], "an output", self.kind, &self.shape,
                               self.width, False, writable)
            if run.x[i].at == NULL or run.y[i].at == NULL:
                raise TypeError("an input and an output must be tensors, got None")
        return 0

    cdef char *state(self, tensor, str what, bint of_c,
                     bint writable) except? NULL:
        """Where a state of all cells lies, contiguous; NULL for None."""
        cdef View v
        cdef ptrdiff_t n = self.layout.n_cells
        cdef ptrdiff_t width = self.layout.H if of_c else self.layout.S
        cdef bint fits
        if tensor is None:
            return NULL
        if of_c:
            n *= self.layout.n_states - 1
        look_at(&v, tensor, what, self.kind, True, writable)
        fits = v.ndim >= 2 and v.shape[v.ndim - 1] == width and (
            v.shape[v.ndim - 2] == self.shape.B)
        if not fits or not is_dense(&v) or n != (v.shape[0] if v.ndim == 3 else 1):
            raise ValueError(
                f"{what} must be contiguous, of shape "
                f"{(n, self.shape.B, width)}, got {description(&v)}")
        return v.data

    cdef int check_layers(self, str who, int first, int n_threads, Use use,
                          Py_ssize_t n_layers, bint backward) except -1:
        """Whether there are such layers, and their packed weights."""
        cdef int D = self.layout.n_directions
        team_of(who, n_threads)
        if not 0 <= first < self.layout.n_layers or not (
                1 <= n_layers <= self.layout.n_layers - first):
            raise ValueError(
                f"{who}: there are {self.layout.n_layers} layers, got {n_layers} from "
                f"layer {first} on")
        use.check(who, self.layout, self.kernels)
        use.check_forms(who, first * D, n_layers * D, backward)
        return 0

    cdef char *tapes(self, tensor, bint needed) except? NULL:
        """Where the tapes of all cells lie; NULL where there are none.

        Backward needs them, forward writes to them.
        """
        if self.tape == 0 or (tensor is None and not needed):
            return NULL
        if tensor is None:
            raise TypeError("tapes must be a tensor, got None")
        return dense(tensor, "tapes", self.kind, self.tape_size, not needed)

    def forward(self, Pool pool not None, int first, int n_threads,
                Use use not None, list inputs, bint batch_first, h0, c0, list outputs,
                h_n, c_n, tapes, Draw draw=None):
        """Run layers, all their directions, from layer `first` on.

        Parameters
        ----------
        pool : Pool
            Of work space.
        use : Use
            From `Packer.take_tensors`; of all cells, as are `h0`, `c0`, `h_n`, `c_n`
            and `tapes`.
        inputs : list of tensor, shape (T, B, I) or (N, I)
            Of each layer, the first one's (B, T, I) with `batch_first`. Of any strides
            that are not negative, elements of a row side by side.
        h0, c0 : tensor or None
            None is zero.
        outputs : list of tensor
            Of each layer, (T, B, width) or (N, width), the next one's input. Written.
        c_n : tensor
            Written; None for cells that have h alone.
        h_n : tensor or None
            Written.
        tapes : tensor or None
            Of `tape_size` elements, from the start of a cache line; None where no
            backward follows.
        draw : Draw, optional
            What the cells draw; without one their choices have expectations. Backward
            gets the same.
        """
        cdef Layout layout = self.layout
        cdef ptrdiff_t state = self.state_bytes, size
        cdef int n_layers = len(outputs), k0 = first * layout.n_directions, k
        cdef bint has_c = layout.n_states > 1
        cdef char *ph0 = self.state(h0, "h0", False, False)
        cdef char *pc0 = self.state(c0, "c0", True, False) if has_c else NULL
        cdef char *ph_n = self.state(h_n, "h_n", False, True)
        cdef char *pc_n = self.state(c_n, "c_n", True, True) if has_c else NULL
        cdef char *tape = self.tapes(tapes, False)
        cdef Loan work
        cdef tuple xs = as_tuple(inputs, "inputs", n_layers)
        cdef Run run
        self.check_layers("TensorPlan.forward", first, n_threads, use, n_layers, False)
        if has_c and pc_n == NULL:
            raise TypeError("TensorPlan.forward: c_n must be a tensor, got None")
        run = self.run(first, n_layers, n_threads, draw)
        self.set_layers(
            run, first, xs, batch_first, as_tuple(outputs, "outputs", n_layers), True)
        size = self.work_size(run, False)
        work = pool.take((1 + run.at_once) * state + run.at_once * size)
        if ph0 == NULL or (has_c and pc0 == NULL):
            memset(work.start, 0, state)
        for k in range(run.n_layers * run.n_directions):
            run.packed[k] = use.packed_at(k0 + k, False)
        run.h0 = self.state_of(ph0, first, False)
        run.h_n = self.state_of(ph_n, first, False)
        if ph0 == NULL:
            run.h0 = per_cell(work.start, 0, False)
        if ph_n == NULL:
            run.h_n = per_cell(work.start + state, state, True)
        if has_c:
            run.c0 = self.state_of(pc0, first, True)
            run.c_n = self.state_of(pc_n, first, True)
            if pc0 == NULL:
                run.c0 = per_cell(work.start, 0, False)
        if tape != NULL:
            run.tape = per_cell(tape + k0 * self.tape, self.tape, False)
        run.work = per_cell(work.start + (1 + run.at_once) * state, size, True)
        with nogil:
            run.forward(run.x)

    def backward(self, Pool pool not None, int first, int n_threads,
                 Use use not None, list inputs, bint batch_first, h0, list outputs,
                 tapes, dy, dh_n, dc_n, list dinputs, dh0, dc0, dweights not None,
                 Draw draw=None):
        """Back-propagate through layers; see `forward` for what it shares with it.

        Parameters
        ----------
        use : Use
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
        cdef Layout layout = self.layout
        cdef ptrdiff_t state = self.state_bytes
        cdef bint has_c = layout.n_states > 1
        cdef int n_layers = len(outputs), k0 = first * layout.n_directions, i, k
        cdef ptrdiff_t size, dx_size = 0, sinks
        cdef char *ph0 = self.state(h0, "h0", False, False)
        cdef char *tape = self.tapes(tapes, True)
        cdef char *pdh_n = self.state(dh_n, "dh_n", False, False)
        cdef char *pdc_n = self.state(dc_n, "dc_n", True, False) if has_c else NULL
        cdef char *pdh0 = self.state(dh0, "dh0", False, True)
        cdef char *pdc0 = self.state(dc0, "dc0", True, True) if has_c else NULL
        cdef Loan work
        cdef tuple xs = as_tuple(inputs, "inputs", n_layers)
        cdef tuple dxs = as_tuple(dinputs, "dinputs", n_layers)
        cdef tuple dws = as_tuple(
            dweights, "dweights", layout.n_cells * layout.n_parts())
        cdef Run run
        self.check_layers("TensorPlan.backward", first, n_threads, use, n_layers, True)
        run = self.run(first, n_layers, n_threads, draw)
        self.set_layers(
            run, first, xs, batch_first, as_tuple(outputs, "outputs", n_layers), False)
        run.clear = True
        for i in range(n_layers):
            self.input(&run.dx[i], dxs[i], "dinputs", first + i, batch_first and i == 0,
                       True)
            # What a layer reads is what the one below puts out.
            sequence_of_tensor(
                &run.dy[i], dy if i == n_layers - 1 else dxs[i + 1], "dy", self.kind,
                &self.shape, self.width, False, False)
            if run.at_once == 2 and run.n_directions == 2 and run.dx[i].at != NULL:
                dx_size = max(dx_size, extent_of_sequence(&run.dx[i], &self.shape))
        for k in range(run.n_layers * run.n_directions):
            self.find_gradients(dws, k0 + k, &run.gradients[k])
            run.packed[k] = use.packed_at(k0 + k, True)
        size = self.work_size(run, True)
        dx_size = round_up(dx_size * self.itemsize)
        sinks = (1 + 2 * run.at_once) * state
        work = pool.take(sinks + dx_size + run.at_once * size)
        run.second_dx = work.start + sinks
        run.h0 = self.state_of(ph0, first, False)
        if ph0 == NULL:
            memset(work.start, 0, state)
            run.h0 = per_cell(work.start, 0, False)
        run.dh_n = self.state_of(pdh_n, first, False)
        run.dh0 = self.state_of(pdh0, first, False)
        if pdh0 == NULL:
            run.dh0 = per_cell(work.start + state, state, True)
        if has_c:
            run.dc_n = self.state_of(pdc_n, first, True)
            run.dc0 = self.state_of(pdc0, first, True)
            if pdc0 == NULL:
                run.dc0 = per_cell(work.start + (1 + run.at_once) * state, state, True)
        if tape != NULL:
            run.tape = per_cell(tape + k0 * self.tape, self.tape, False)
        run.work = per_cell(run.second_dx + dx_size, size, True)
        with nogil:
            run.backward()

    cdef int find_gradients(self, tuple dweights, int k, Parts *p) except -1:
        """Where the gradients of cell k's weights lie, NULL for None; their sizes."""
        cdef int i, j = k * self.layout.n_parts()
        self.layout.sizes(k, p)
        for i in range(N_PARTS):
            if p.size[i] > 0:
                p.at[i] = dense(
                    dweights[j], "a gradient of a weight", self.kind, p.size[i], True)
                j += 1
        return 0
