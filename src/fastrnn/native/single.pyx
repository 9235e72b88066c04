# SPDX-License-Identifier: BSD-3-Clause
"""One cell in one direction, over arrays that the caller lays out, packs and keeps.

What a stream steps through (`OneStep`), and what the kernels are tested through: there
is a call for each thing that they do to a cell.
"""

cimport cython
from libc.string cimport memset

from fastrnn.native.addresses cimport (
    address, address_of_work, checked_offsets, offsets_in, required, size_of,
)
from fastrnn.native.calls cimport (
    PerCell, Run, Sequence, check_half, check_weights, per_cell, rows_of,
    sequence_of_array,
)
from fastrnn.native.capi cimport (
    FR_INT8, FR_WHOLE, fr_cell, fr_norm_parts, fr_pack_args, fr_quantized_args,
    fr_shape,
)
from fastrnn.native.celltable cimport (
    CellOptions, biased_of, cell_at, gates_of, norms_of, vectors_of,
)
from fastrnn.native.core cimport Kernels, level2_bytes, team, team_of
from fastrnn.native.draws cimport Draw, draw_of
from fastrnn.native.layout cimport (
    PART_B_HH, PART_B_IH, PART_NORM_C, PART_NORM_C_BIAS, PART_NORM_HH, PART_NORM_IH,
    PART_P, PART_R, PART_W, PART_W_HR,
)
from fastrnn.native.sizes cimport check_shape, check_threads


cdef class Shape:
    """What a recurrent call works on: cell, direction, T, B, I, H, and ragged offsets.

    `offsets` is None (every row lives for all T steps) or T + 1 integers: step t's
    active rows lie at offsets[t] .. offsets[t + 1] - 1 of packed (N, ...) arrays.
    """

    cdef fr_shape c
    cdef const fr_cell *of
    cdef object offsets  # keeps the memory that c.offsets points to
    cdef CellOptions options  # and c.options
    cdef readonly ptrdiff_t rows

    def __cinit__(self, int cell, bint reverse, ptrdiff_t T, ptrdiff_t B, ptrdiff_t I,
                  ptrdiff_t H, offsets=None, CellOptions options=None):
        self.of = cell_at("Shape", cell)
        memset(&self.c, 0, sizeof(self.c))
        self.c.cell, self.c.reverse, self.c.level2 = cell, reverse, level2_bytes()
        self.c.T, self.c.B, self.c.I, self.c.H, self.c.S = T, B, I, H, H
        self.options = options
        check_shape("Shape", &self.c, 1)
        if options is not None:
            options.check("Shape", self.of, H)
            if options.general:
                self.c.options = &options.c
            if options.proj_size:
                self.c.S = options.proj_size
            self.c.heads = options.heads
        if offsets is not None:
            address(offsets, "Shape: offsets", b"q", T + 1, False)
            self.offsets = checked_offsets(offsets, T, B)
            self.c.offsets = offsets_in(self.offsets)
        self.rows = rows_of(&self.c)

    cdef ptrdiff_t n_W(self) noexcept:
        """Elements of W."""
        return gates_of(self.of, self.c.I, self.c.H) * self.c.H * self.c.I

    cdef ptrdiff_t n_R(self) noexcept:
        """Elements of R; 0 for a cell that has none."""
        if self.of.is_scan:
            return 0
        return self.of.n_gates * self.c.H * self.c.S // max(1, self.c.heads)

    cdef ptrdiff_t n_bias(self) noexcept:
        return biased_of(self.of, self.c.I, self.c.H) * self.c.H

    cdef int n_vectors(self) noexcept:
        return vectors_of(self.of, self.c.options)


cdef class StridedArray:
    """A (T, B, width) array as the kernels see it: memory, first element, strides."""

    cdef object array
    cdef ptrdiff_t first, step, row

    def __cinit__(self, array not None, ptrdiff_t first, ptrdiff_t step,
                  ptrdiff_t row):
        self.array, self.first, self.step, self.row = array, first, step, row


cdef int find(Sequence *s, StridedArray a, str what, char kind, Shape shape,
              ptrdiff_t width, bint writable) except -1:
    """Set where a sequence lies; None gives a NULL address."""
    if a is None:
        s.at, s.step, s.row, s.width = NULL, 0, 0, width
        return 0
    return sequence_of_array(
        s, a.array, what, kind, &shape.c, a.first, a.step, a.row, width, writable)


cdef fr_shape shape_for(Kernels kernels, Shape shape) except *:
    """The shape of a call of these kernels."""
    cdef fr_shape c = shape.c
    c.half = kernels.table.half
    check_half("a call", &c)
    return c


cdef int check_kernels(Kernels kernels, bint backward, Shape shape) except -1:
    """Refuse weights of fewer bytes where no kernel reads them."""
    if backward and kernels.weights != FR_WHOLE:
        raise ValueError("weights of fewer bytes are for a forward, got a backward")
    return check_weights("a call", kernels, shape.of, &shape.c, shape.options)


def packed_size(Kernels kernels not None, bint backward, Shape shape not None):
    """Elements that `pack`, or `pack_quantized`, writes."""
    cdef fr_shape c = shape_for(kernels, shape)
    check_kernels(kernels, backward, shape)
    if kernels.weights != FR_WHOLE:
        return kernels.table.quantized_packed_size(&shape.c, kernels.weights)
    if backward:
        return kernels.table.packed_backward_size(&c)
    return kernels.table.packed_forward_size(&c)


cdef char *part(str who, bint known, value, str what, char kind, ptrdiff_t size,
                bint is_gradient=False) except? NULL:
    """Where a parameter is that some cells have, or its gradient.

    A gradient that is not wanted is None, and so is what the cell does not know.
    """
    if not known and value is not None:
        raise ValueError(f"{who}: {what} must be None for this cell, which has none")
    if known and not is_gradient:
        required(value, what)
    return <char *>address(value, what, kind, size, is_gradient)


def pack(Kernels kernels not None, bint backward, Shape shape not None, W, R, b_ih,
         b_hh, packed, P=None, W_hr=None, int n_threads=1, forward=None, norm_ih=None,
         norm_hh=None, norm_c=None, norm_c_bias=None):
    """Bring weights into the form that `forward` or `backward` reads.

    The backward form takes them from `forward`, a forward form, if that is given.
    """
    cdef fr_pack_args a
    cdef fr_norm_parts norms = norms_of(shape.c.options)
    cdef char kind = kernels.kind
    cdef ptrdiff_t H = shape.c.H, S = shape.c.S, GH = shape.of.n_gates * H
    if kernels.weights != FR_WHOLE:
        raise ValueError("pack: kernels must be for whole weights; see pack_quantized")
    if shape.of.is_scan and not (R is None and b_hh is None):
        raise ValueError("pack: R and b_hh must be None for a cell without R")
    if not shape.of.is_scan and (b_ih is None) != (b_hh is None):
        raise ValueError("pack: b_ih and b_hh are given together or not at all")
    memset(&a, 0, sizeof(a))
    a.shape, a.n_threads = shape_for(kernels, shape), team_of("pack", n_threads)
    a.shape.T = a.shape.B = 1
    a.shape.offsets, a.shape.reverse = NULL, False
    if not backward or forward is None:
        required(W, "W")
        if not shape.of.is_scan:
            required(R, "R")
    a.W = address(W, "W", kind, shape.n_W(), False)
    a.R = address(R, "R", kind, shape.n_R(), False)
    a.b_ih = address(b_ih, "b_ih", kind, shape.n_bias(), False)
    a.b_hh = address(b_hh, "b_hh", kind, shape.n_bias(), False)
    a.forward = address(
        forward, "forward", kind, packed_size(kernels, False, shape), False)
    a.P = part("pack", shape.n_vectors() > 0, P, "P", kind, shape.n_vectors() * H)
    a.W_hr = part("pack", S != H, W_hr, "W_hr", kind, S * H)
    a.norm_ih = part("pack", norms.ih, norm_ih, "norm_ih", kind, GH)
    a.norm_hh = part("pack", norms.hh, norm_hh, "norm_hh", kind, GH)
    a.norm_c = part("pack", norms.c, norm_c, "norm_c", kind, H)
    a.norm_c_bias = part("pack", norms.c_bias, norm_c_bias, "norm_c_bias", kind, H)
    a.packed = address(required(packed, "packed"), "packed", kind,
                       packed_size(kernels, backward, shape), True)
    with nogil:
        if backward:
            kernels.table.pack_backward(&a)
        else:
            kernels.table.pack_forward(&a)


def pack_quantized(Kernels kernels not None, Shape shape not None, W, R, W_scale,
                   R_scale, b_ih, b_hh, packed, P=None):
    """Bring weights of fewer bytes into the form that `forward` reads.

    W (G, H, I) and R (G, H, H) are int8 with a scale for each row, (G, H) each, or
    uint16 with the upper halves of float32 numbers, and no scales.
    """
    cdef fr_quantized_args a
    cdef ptrdiff_t I = shape.c.I, H = shape.c.H, G = shape.of.n_gates
    cdef bint is_int8 = kernels.weights == FR_INT8
    cdef char kind = b"b" if is_int8 else b"H"
    if kernels.weights == FR_WHOLE:
        raise ValueError(
            "pack_quantized: kernels must be for weights of fewer bytes; see pack")
    if (b_ih is None) != (b_hh is None):
        raise ValueError(
            "pack_quantized: b_ih and b_hh are given together or not at all")
    if (W_scale is None) == is_int8 or (R_scale is None) == is_int8:
        raise ValueError(
            "pack_quantized: W_scale and R_scale are given for int8, and for no other "
            "weights")
    memset(&a, 0, sizeof(a))
    a.shape, a.kind = shape.c, kernels.weights
    a.W = address(required(W, "W"), "W", kind, G * H * I, False)
    a.R = address(required(R, "R"), "R", kind, G * H * H, False)
    a.W_scale = address(W_scale, "W_scale", b"f", G * H, False)
    a.R_scale = address(R_scale, "R_scale", b"f", G * H, False)
    a.b_ih = address(b_ih, "b_ih", b"f", G * H, False)
    a.b_hh = address(b_hh, "b_hh", b"f", G * H, False)
    if shape.n_vectors() > 0:
        a.P = address(required(P, "P"), "P", b"f", shape.n_vectors() * H, False)
    a.packed = address(required(packed, "packed"), "packed", b"f",
                       packed_size(kernels, False, shape), True)
    with nogil:
        kernels.table.pack_quantized(&a)


def tape_size(Kernels kernels not None, Shape shape not None):
    """Elements that a forward in training keeps for its backward."""
    cdef fr_shape c = shape_for(kernels, shape)
    return kernels.table.tape_size(&c)


def work_size(Kernels kernels not None, bint backward, Shape shape not None,
              int n_threads):
    """Elements of scratch that `forward` or `backward` needs."""
    cdef fr_shape c = shape_for(kernels, shape)
    check_threads("work_size", n_threads)
    check_kernels(kernels, backward, shape)
    if kernels.weights != FR_WHOLE:
        return kernels.table.quantized_work_size(&shape.c, n_threads, kernels.weights)
    if backward:
        return kernels.table.backward_work_size(&c, n_threads)
    return kernels.table.forward_work_size(&c, n_threads)


cdef Run run_of(Kernels kernels, bint backward, Shape shape, int n_threads,
                StridedArray x, StridedArray y, packed, work, Draw draw=None):
    """A `Run` of the cell, with what both directions of a call have."""
    cdef fr_shape c = shape_for(kernels, shape)
    cdef Run run = Run.make(
        kernels.table, &c, n_threads, 1, 1, size_of(kernels.kind))
    check_kernels(kernels, backward, shape)
    run.weights = kernels.weights
    run.c_step = shape.c.B * shape.c.H
    run.reverse = shape.c.reverse
    run.draw = draw_of(draw, "a call", &shape.c, 0)
    find(&run.x[0], x, "x", kernels.kind, shape, shape.c.I, False)
    find(&run.y[0], y, "y", kernels.kind, shape, shape.c.S, not backward)
    run.packed[0] = address(required(packed, "packed"), "packed", kernels.kind,
                            packed_size(kernels, backward, shape), False)
    run.work = per_cell(
        <char *>address_of_work(work, "work", kernels.kind,
                                work_size(kernels, backward, shape, n_threads)),
        0, False)
    return run


cdef char *state(array, str what, Kernels kernels, Shape shape, bint of_c,
                 bint writable) except? NULL:
    """Where a state lies; NULL for None, and for the c of a cell that has none.

    c stands for all states beside h: (n_states - 1, B, H).
    """
    cdef int other_states = shape.of.n_states - 1
    if of_c and other_states == 0:
        return NULL
    return <char *>address(array, what, kernels.kind, shape.c.B * (
        other_states * shape.c.H if of_c else shape.c.S), writable)


cdef PerCell one(void *at) noexcept:
    """What the only cell has of its own."""
    return per_cell(<char *>at, 0, False)


def forward(Kernels kernels not None, Shape shape not None, int n_threads,
            StridedArray x not None, packed, h0, c0, StridedArray y not None, h_n, c_n,
            tape, work, Draw draw=None):
    """Run the cell; `tape` is None in inference."""
    cdef char kind = kernels.kind
    cdef Run run
    team_of("forward", n_threads)
    run = run_of(kernels, False, shape, n_threads, x, y, packed, work, draw)
    if kernels.weights != FR_WHOLE and (tape is not None or draw is not None):
        raise ValueError(
            "forward: tape and draw must be None for weights of fewer bytes")
    required(h0, "h0")
    required(h_n, "h_n")
    if shape.of.n_states > 1:
        required(c0, "c0")
        required(c_n, "c_n")
    run.h0 = one(state(h0, "h0", kernels, shape, False, False))
    run.h_n = one(state(h_n, "h_n", kernels, shape, False, True))
    run.c0 = one(state(c0, "c0", kernels, shape, True, False))
    run.c_n = one(state(c_n, "c_n", kernels, shape, True, True))
    run.tape = one(address(tape, "tape", kind, tape_size(kernels, shape), True))
    with nogil:
        run.forward(run.x)


def backward(Kernels kernels not None, Shape shape not None, int n_threads,
             StridedArray x not None, packed, h0, StridedArray y not None, tape,
             StridedArray dy, dh_n, dc_n, StridedArray dx, bint dx_accumulate, dh0, dc0,
             dW, dR, db_ih, db_hh, work, dP=None, dW_hr=None,
             double clip_value=0.0, double clip_norm=0.0, flow=None, dnorm_ih=None,
             dnorm_hh=None, dnorm_c=None, dnorm_c_bias=None, Draw draw=None):
    """Back-propagate through time.

    dy, dh_n, dc_n may be None for zero; dx and parameter gradients where they are not
    wanted.  `flow` is (T, B) float64.
    """
    cdef char kind = kernels.kind
    cdef ptrdiff_t I = shape.c.I, H = shape.c.H, S = shape.c.S
    cdef char **gradient
    cdef fr_norm_parts norms = norms_of(shape.c.options)
    cdef Run run
    team_of("backward", n_threads)
    run = run_of(kernels, True, shape, n_threads, x, y, packed, work, draw)
    find(&run.dy[0], dy, "dy", kind, shape, S, False)
    find(&run.dx[0], dx, "dx", kind, shape, I, True)
    run.add_dx = dx_accumulate
    required(h0, "h0")
    required(dh0, "dh0")
    if shape.of.n_states > 1:
        required(dc0, "dc0")
    run.h0 = one(state(h0, "h0", kernels, shape, False, False))
    run.dh_n = one(state(dh_n, "dh_n", kernels, shape, False, False))
    run.dc_n = one(state(dc_n, "dc_n", kernels, shape, True, False))
    run.dh0 = one(state(dh0, "dh0", kernels, shape, False, True))
    run.dc0 = one(state(dc0, "dc0", kernels, shape, True, True))
    run.tape = one(address(
        required(tape, "tape"), "tape", kind, tape_size(kernels, shape), False))
    gradient = run.gradients[0].at
    if shape.of.is_scan and not (dR is None and db_hh is None):
        raise ValueError("backward: dR and db_hh must be None for a cell without R")
    gradient[PART_W] = <char *>address(dW, "dW", kind, shape.n_W(), True)
    gradient[PART_R] = <char *>address(dR, "dR", kind, shape.n_R(), True)
    gradient[PART_B_IH] = <char *>address(db_ih, "db_ih", kind, shape.n_bias(), True)
    gradient[PART_B_HH] = <char *>address(db_hh, "db_hh", kind, shape.n_bias(), True)
    gradient[PART_P] = part(
        "backward", shape.n_vectors() > 0, dP, "dP", kind, shape.n_vectors() * H, True)
    gradient[PART_W_HR] = part(
        "backward", S != H, dW_hr, "dW_hr", kind, S * H, True)
    gradient[PART_NORM_IH] = part(
        "backward", norms.ih, dnorm_ih, "dnorm_ih", kind, shape.of.n_gates * H, True)
    gradient[PART_NORM_HH] = part(
        "backward", norms.hh, dnorm_hh, "dnorm_hh", kind, shape.of.n_gates * H, True)
    gradient[PART_NORM_C] = part(
        "backward", norms.c, dnorm_c, "dnorm_c", kind, H, True)
    gradient[PART_NORM_C_BIAS] = part(
        "backward", norms.c_bias, dnorm_c_bias, "dnorm_c_bias", kind, H, True)
    run.clip_value, run.clip_norm = clip_value, clip_norm
    run.flow = one(address(flow, "flow", b"d", shape.c.T * shape.c.B, True))
    with nogil:
        run.backward()


@cython.final
cdef class OneStep:
    """A cell stepping through time, its state in place: nothing is allocated.

    Takes T = 1 shapes only. The arrays are those of `forward`; `h` and `c` are initial
    and last state in one.
    """

    cdef Kernels kernels
    cdef Run run
    cdef object kept  # what the addresses in `run` belong to
    cdef readonly object y

    def __cinit__(self, Kernels kernels not None, Shape shape not None, int n_threads,
                  packed, h, c, y not None, work):
        if shape.c.T != 1 or shape.c.offsets != NULL:
            raise ValueError(f"OneStep: shape must have T = 1, got {shape.c.T}")
        self.kernels, self.y = kernels, y
        team_of("OneStep", n_threads)
        self.run = run_of(kernels, False, shape, n_threads, None, None, packed, work)
        sequence_of_array(&self.run.y[0], y, "y", kernels.kind, &shape.c, 0,
                          shape.c.S, shape.c.S, shape.c.S, True)
        required(h, "h")
        self.run.h0 = self.run.h_n = one(state(h, "h", kernels, shape, False, True))
        if shape.of.n_states > 1:
            required(c, "c")
            self.run.c0 = self.run.c_n = one(state(c, "c", kernels, shape, True, True))
        # As long as somebody looks at it, an array that can grow stays where it is.
        self.kept = shape, [
            memoryview(array) for array in (packed, h, c, y, work) if array is not None]

    def step(self, x not None):
        """``y``, overwritten, for x of shape (B, I)."""
        cdef Run run = self.run
        cdef Sequence at  # not the run's: another thread may be here, too
        team(run.n_threads)
        at.at = <char *>address(x, "x", self.kernels.kind,
                                run.shape.B * run.shape.I, False)
        at.step = at.row = at.width = run.shape.I
        run.steps_before += 1
        with nogil:
            run.forward(&at)
        return self.y
