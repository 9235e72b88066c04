# SPDX-License-Identifier: BSD-3-Clause
"""The C kernels as Python calls: pointers in, one nogil call, nothing decided here.

`kernels(dtype)` gives the table of the active target; its methods take NumPy arrays
(any object with the buffer protocol), check dtype, contiguity, alignment and length,
and pass addresses.  Whatever the arguments are, a call reads and writes nothing but
the arrays that it was given: sizes that do not fit them, indices, offsets and products
of sizes that wrap around are refused here (`sizes.pxd` has the bounds).
Shapes that make sense are the caller's business: `fastrnn.util.checks` has the rules.
Longer than other files because it has one method for each entry of the table.
"""

import collections
import contextlib
import os
import warnings

import numpy as np

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE,
    PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer,
)
from libc.string cimport memcpy

from libc.string cimport memcmp

from fastrnn.native.capi cimport *
from fastrnn.native.sizes cimport (
    MOST_ROWS, MOST_TILE, check_shape, check_threads, last_element, product,
)
from fastrnn.native.sizes cimport MOST_THREADS as _most_threads


cdef ptrdiff_t size_of(char kind) noexcept:
    """Bytes of an element."""
    return 4 if kind == b"f" else 1 if kind == b"B" else 8


cdef str format_order(const char *text):
    """What is unusual about a buffer's format; None for the machine's own way."""
    if text == NULL or text[0] not in b"=<>!^":
        return None
    name = text.decode("ascii", "replace")
    if text[0] in b"=^":
        return f"an array that is not aligned (buffer format {name!r})"
    return f"another byte order (buffer format {name!r})"


cdef void *address(object array, str what, char kind, ptrdiff_t size,
                   bint writable, bint at_least=False,
                   ptrdiff_t alignment=0) except? NULL:
    """Where `array` lies, once it is known to hold `size` elements of `kind`.

    The buffer is released at once: the caller holds a reference to `array` through the
    kernel call, so the memory stays.  None gives NULL.  An element lies at a multiple
    of `alignment` bytes, which are its own if not given.
    """
    cdef Py_buffer view
    cdef int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT
    cdef void *where
    cdef ptrdiff_t found, itemsize = size_of(kind)
    cdef char given
    cdef str order
    cdef bytes other = None
    if array is None:
        return NULL
    if not PyObject_CheckBuffer(array):
        raise TypeError(f"{what} must be an array, got {type(array).__name__}")
    if writable:
        flags |= PyBUF_WRITABLE
    try:
        PyObject_GetBuffer(array, &view, flags)
    except (ValueError, BufferError) as error:
        raise ValueError(f"{what} must be an array to pass on, but: {error}") from error
    where, found = view.buf, view.len // itemsize
    given = view.format[0] if view.format != NULL else b"B"
    order = format_order(view.format)
    if given == b"q" and sizeof(long) == sizeof(long long):
        given = b"l"  # NumPy has two names for int64
    if given != kind or view.itemsize != itemsize or (
            view.format != NULL and view.format[1] != 0):
        other = view.format if view.format != NULL else b"B"
    PyBuffer_Release(&view)
    if order is not None:
        raise TypeError(f"{what} must be aligned and in native byte order, got {order}")
    if other is not None:
        raise TypeError(
            f"{what} must have buffer format {chr(kind)!r}, got {other.decode()!r}")
    if found < size or (found != size and not at_least):
        raise ValueError(f"{what} must have {size} elements, got {found}")
    if found and <size_t>where % <size_t>max(itemsize, alignment):
        raise ValueError(
            f"{what} must lie at a multiple of {max(itemsize, alignment)} bytes")
    return where


def is_clear(array not None, ptrdiff_t begin, ptrdiff_t end):
    """Whether elements [begin, end) of a flat array of real numbers are +0.

    Fast where they are, as gradients mostly are before a backward.
    """
    cdef Py_buffer view
    cdef const char *at
    cdef ptrdiff_t n
    cdef bint clear = False
    PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS)
    if 0 <= begin <= end and end * view.itemsize <= view.len:
        at, n = <const char *>view.buf + begin * view.itemsize, end - begin
        n *= view.itemsize
        # The first byte is zero, and each one is what the one before is.
        clear = n == 0 or (at[0] == 0 and memcmp(at, at + 1, n - 1) == 0)
    PyBuffer_Release(&view)
    return clear


cdef void *address_of_work(work, str what, char kind, ptrdiff_t size) except NULL:
    """Scratch of `size` elements at least: it holds offsets, too."""
    return address(required(work, what), what, kind, size, True, True, sizeof(void *))


N_RATES = FR_N_RATES
STACK = FR_STACK  # bytes that a kernel may use on each thread
MOST_THREADS = _most_threads


ACTIVATIONS = {
    "tanh": FR_TANH,
    "sigmoid": FR_SIGMOID,
    "relu": FR_RELU,
    "hard_sigmoid": FR_HARD_SIGMOID,
    "hard_tanh": FR_HARD_TANH,
    "softsign": FR_SOFTSIGN,
    "softplus": FR_SOFTPLUS,
    "elu": FR_ELU,
    "leaky_relu": FR_LEAKY_RELU,
    "thresholded_relu": FR_THRESHOLDED_RELU,
    "affine": FR_AFFINE,
    "scaled_tanh": FR_SCALED_TANH,
    "gelu": FR_GELU,
}


Cell = collections.namedtuple("Cell", (
    "name", "index", "layer", "gates", "n_states", "activations", "options",
    "bias_apart", "paper",
), module=__name__)
Cell.__doc__ = """What a cell is, as the kernels' table of cells says.

Attributes
----------
name, index : str, int
    Of the cell; the index is what `Shape` takes.
layer : str
    Name of the class of layers made of this cell; several cells may be of one class.
gates : tuple of str
    A letter for each gate, in the order of their parts in weights and biases.
n_states : int
    1 for h, 2 for h and c.
activations : tuple of str
    The plain cell's function of each gate, followed by that of c_t if there is one.
options : tuple of str
    Arguments of `Options` that the cell knows.
bias_apart : str or None
    The gate whose recurrent bias is not simply added to its other bias.
paper : str
    The publication that introduced the cell.
"""

_OPTIONS = {
    "activations": FR_OPTION_ACTIVATIONS,
    "clip": FR_OPTION_CLIP,
    "input_forget": FR_OPTION_INPUT_FORGET,
    "peephole": FR_OPTION_PEEPHOLE,
    "reset_before": FR_OPTION_RESET_BEFORE,
    "proj_size": FR_OPTION_PROJECTION,
}


cdef object described(int index, const fr_cell *c):
    """The `Cell` of an entry of the table."""
    kinds = {kind: name for name, kind in ACTIVATIONS.items()}
    gates = tuple(c.gates.decode().split())
    activations = [kinds[<int>c.activations[gate]] for gate in range(c.n_gates)]
    if c.output_activation >= 0:
        activations.append(kinds[c.output_activation])
    return Cell(
        c.name.decode(), index, c.layer.decode(), gates, c.n_states,
        tuple(activations),
        tuple(name for name, bit in _OPTIONS.items() if c.options & bit),
        gates[c.bias_apart] if c.bias_apart >= 0 else None, c.paper.decode())


def _all_cells():
    cdef int index = 0
    cdef const fr_cell *c = fr_target_kernels(0, 0).cell(index)
    while c != NULL:
        yield c.name.decode(), described(index, c)
        index += 1
        c = fr_target_kernels(0, 0).cell(index)


_cells = dict(_all_cells())
CELLS = {name: one.index for name, one in _cells.items()}


def cell(str name not None):
    """The `Cell` of this name.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in _cells:
        raise ValueError(f"cell: name must be among {', '.join(_cells)}, got {name!r}")
    return _cells[name]


cdef const fr_cell *cell_at(str who, int index) except NULL:
    """The entry of the kernels' table of cells; every target has the same."""
    cdef const fr_cell *found = fr_target_kernels(0, 0).cell(index)
    if found == NULL:
        raise ValueError(f"{who}: cell must be in [0, {len(CELLS)}), got {index}")
    return found


cdef int activations_of(const fr_cell *c) noexcept:
    """Functions that a cell has: one for each gate, and that of c_t."""
    return c.n_gates + (c.output_activation >= 0)


cdef refuse(str who, const fr_cell *of, str option):
    """Say that cells of this kind do not know an option, and which do."""
    able = [one.name for one in _cells.values() if option in one.options]
    raise ValueError(
        f"{who}: {option} is an option of {', '.join(able)}, not of {of.name.decode()}")


cdef class Options:
    """What makes a cell other than the plain one.

    `activations` are (name, alpha, beta) of each gate in gate order, followed by that
    of c_t where the cell has one; None for the plain cell, which may have a projection.
    """

    def __cinit__(self, activations=None, double clip=0, bint input_forget=False,
                  bint peephole=False, bint reset_before=False, ptrdiff_t proj_size=0):
        self.general, self.proj_size = activations is not None, proj_size
        activations = None if activations is None else tuple(activations)
        self.made_of = (
            activations, clip, input_forget, peephole, reset_before, proj_size)
        if not self.general and (clip or input_forget or peephole or reset_before):
            raise ValueError("Options: activations are needed with any other option")
        for i, (name, alpha, beta) in enumerate(activations or ()):
            if i > FR_MOST_GATES:
                raise ValueError(
                    f"Options: at most {FR_MOST_GATES + 1} activations")
            if name not in ACTIVATIONS:
                raise ValueError(
                    f"Options: an activation must be among {', '.join(ACTIVATIONS)}, "
                    f"got {name!r}")
            self.c.gate[i] = fr_activation(ACTIVATIONS[name], alpha, beta)
        self.n_activations = len(activations or ())
        self.c.clip, self.c.input_forget = clip, input_forget
        self.c.peephole, self.c.reset_before = peephole, reset_before

    cdef int check(self, str who, const fr_cell *of, ptrdiff_t H) except -1:
        """Whether such a cell, of H units, can have these options."""
        cdef int expected = activations_of(of)
        if self.general and self.n_activations != expected:
            raise ValueError(
                f"{who}: this cell has {expected} activations, got "
                f"{self.n_activations}")
        wanted = {
            "activations": self.general,
            "clip": self.c.clip != 0,
            "input_forget": self.c.input_forget != 0,
            "peephole": self.c.peephole != 0,
            "reset_before": self.c.reset_before != 0,
            "proj_size": self.proj_size != 0,
        }
        for name, bit in _OPTIONS.items():
            if wanted[name] and not of.options & <unsigned>bit:
                refuse(who, of, name)
        if self.proj_size and not 0 < self.proj_size < H:
            raise ValueError(
                f"{who}: proj_size must be in [1, {H}) or 0, got {self.proj_size}")
        return 0

    def __reduce__(self):
        return Options, self.made_of


cdef object required(object array, str what):
    if array is None:
        raise TypeError(f"{what} must be an array, got None")
    return array


cdef int team_of(str who, int n_threads) except -1:
    """`n_threads`, once it is known to be a team's size, and that there can be one."""
    return team(check_threads(who, n_threads))


cdef int team(int n_threads) except -1:
    """`n_threads`, once it is known that a call here can have so many.

    A call whose parts must all be done or none asks before the first of them.
    """
    cdef fr_team_report report
    cdef int state
    report.alone = 0
    state = fr_team_prepare(n_threads, &report)
    if report.alone > 0:
        warnings.warn(
            f"{report.alone} call(s) ran on one thread: there was no memory to start "
            "the others again", RuntimeWarning, stacklevel=1)
    if state == FR_TEAM_NO_MEMORY:
        raise MemoryError(f"no memory to start {n_threads} threads")
    if state == FR_TEAM_NO_THREADS:
        raise RuntimeError(
            f"{n_threads} threads are more than the system lets this process start; "
            "fastrnn.set_num_threads sets how many a call uses")
    if state == FR_TEAM_SMALL_STACK:
        raise RuntimeError(
            f"a call needs {report.needed} bytes of stack, and its thread has "
            f"{report.found} left; threading.stack_size sets what new threads get")
    if state == FR_TEAM_SMALL_STACKS:
        raise RuntimeError(
            f"a call needs {report.needed} bytes of stack on each of its threads, and "
            f"one that OpenMP made has {report.found}: set OMP_STACKSIZE to 64k or "
            "more before Python starts, or let calls use one thread: "
            "fastrnn.set_num_threads(1), torch.set_num_threads(1) for fastrnn.torch")
    return n_threads


def prepare(int n_threads):
    """See that this thread's calls can have so many threads, or say why not."""
    team_of("prepare", n_threads)


cdef class Shape:
    """What a recurrent call works on: cell, direction, T, B, I, H, and ragged offsets.

    `offsets` is None (every row lives for all T steps) or T + 1 integers: step t's
    active rows lie at offsets[t] .. offsets[t + 1] - 1 of packed (N, ...) arrays.
    """

    cdef fr_shape c
    cdef const fr_cell *of
    cdef object offsets  # keeps the memory that c.offsets points to
    cdef Options options  # and c.options
    cdef readonly ptrdiff_t rows

    def __cinit__(self, int cell, bint reverse, ptrdiff_t T, ptrdiff_t B, ptrdiff_t I,
                  ptrdiff_t H, offsets=None, Options options=None):
        cdef const void *given
        cdef ptrdiff_t[::1] starts
        self.of = cell_at("Shape", cell)
        self.c.cell, self.c.reverse = cell, reverse
        self.c.T, self.c.B, self.c.I, self.c.H, self.c.S = T, B, I, H, H
        self.c.offsets, self.c.options, self.options = NULL, NULL, options
        check_shape("Shape", &self.c, 1)
        if options is not None:
            options.check("Shape", self.of, H)
            if options.general:
                self.c.options = &options.c
            if options.proj_size:
                self.c.S = options.proj_size
        self.rows = T * B
        if offsets is not None:
            given = address(offsets, "Shape: offsets", b"l", T + 1, False)
            starts = np.empty(T + 1, np.intp)  # nobody else can change what is checked
            memcpy(&starts[0], given, (T + 1) * sizeof(ptrdiff_t))
            check_offsets(T, B, starts)
            self.offsets = starts
            self.c.offsets = &starts[0]
            self.rows = starts[T]


cdef check_offsets(ptrdiff_t T, ptrdiff_t B, const ptrdiff_t[::1] offsets):
    """Batch sizes must begin at most at B and never grow, or memory is not safe."""
    cdef ptrdiff_t t, before = B
    if offsets.shape[0] != T + 1 or offsets[0] != 0:
        raise ValueError("Shape: offsets must have T + 1 elements and begin with 0")
    for t in range(T):
        # The difference of an offset and a smaller one, not negative, cannot overflow.
        if offsets[t + 1] <= offsets[t] or offsets[t + 1] - offsets[t] > before:
            raise ValueError(
                f"Shape: batch sizes must be in [1, {before}] at t = {t}, got offsets "
                f"{offsets[t]} and {offsets[t + 1]}")
        before = offsets[t + 1] - offsets[t]


def offsets_of(batch_sizes not None, ptrdiff_t rows):
    """Where the rows of each step begin, (T + 1,), in arrays of `rows` rows; or None.

    Parameters
    ----------
    batch_sizes : ndarray of int64, 1-D
        Of each step, as a user gave them: None comes back unless they are positive,
        never grow and add up to `rows`.
    """
    cdef const int64_t[::1] sizes
    cdef ptrdiff_t[::1] offsets
    cdef ptrdiff_t t, T = len(batch_sizes), before = rows, left = rows
    if not 1 <= T <= rows:  # nothing large is allocated for sizes that do not fit
        return None
    sizes = np.array(batch_sizes)  # aligned, and nobody can change it
    if sizes.shape[0] != T:
        raise ValueError("offsets_of: batch_sizes must be an array")
    offsets = np.zeros(T + 1, np.intp)
    for t in range(T):
        if not 1 <= sizes[t] <= min(before, left):
            return None
        before = sizes[t]
        left -= before
        offsets[t + 1] = offsets[t] + before
    return None if left else np.asarray(offsets)


cdef class Series:
    """A (T, B, width) array as the kernels see it: memory, first element, strides."""

    cdef object array
    cdef ptrdiff_t first, step, row

    def __cinit__(self, array not None, ptrdiff_t first, ptrdiff_t step,
                  ptrdiff_t row):
        self.array, self.first, self.step, self.row = array, first, step, row

    cdef char *at(self, str what, char kind, Shape shape, ptrdiff_t width,
                  bint writable) except NULL:
        """Address of the first element, once the last one is known to be inside."""
        cdef ptrdiff_t end
        if shape.c.offsets == NULL:
            end = last_element(
                what, self.first, shape.c.T, self.step, shape.c.B, self.row)
        else:
            end = last_element(what, self.first, shape.rows, self.row, 1, self.step)
        return (<char *>address(self.array, what, kind, end + width, writable, True)
                + self.first * size_of(kind))


cdef check_indices(str what, const int64_t *indices, ptrdiff_t n, ptrdiff_t size,
                   int64_t also):
    """Indices must be in [0, size) or `also`, or memory is not safe."""
    cdef ptrdiff_t i
    for i in range(n):
        if not 0 <= indices[i] < size and indices[i] != also:
            raise ValueError(f"{what} must be in [0, {size}), got {indices[i]}")


cdef fr_embedding_args embedding(int n_threads, ptrdiff_t n, ptrdiff_t rows,
                                 ptrdiff_t width, indices, int64_t padding) except *:
    """What both directions of the embedding share."""
    cdef fr_embedding_args a
    if n < 0 or min(rows, width) < 1:
        raise ValueError(
            f"embedding: n >= 0, rows, width >= 1, got {(n, rows, width)}")
    product("embedding", n, width)
    product("embedding", rows, width)
    a.n, a.rows, a.width = n, rows, width
    a.n_threads, a.padding = team_of("embedding", n_threads), padding
    a.indices = <const int64_t *>address(indices, "indices", b"l", n, False)
    return a


cdef int check_linear(ptrdiff_t N, ptrdiff_t I, ptrdiff_t O) except -1:
    """Sizes of a fully connected layer; a kernel divides by I and O."""
    if N < 0 or min(I, O) < 1 or max(I, O) > MOST_ROWS:
        raise ValueError(
            f"linear: N must be >= 0 and I, O in [1, {MOST_ROWS}], got {(N, I, O)}")
    product("linear", N + MOST_TILE, I + MOST_TILE)
    product("linear", N, O)
    product("linear", I + MOST_TILE, O + MOST_TILE)
    return 0


cdef ptrdiff_t pack_size(const fr_kernels *table, bint backward, Shape shape):
    """Elements of packed weights."""
    if backward:
        return table.packed_backward_size(&shape.c)
    return table.packed_forward_size(&shape.c)


cdef fr_extent extent_of(int n_threads, ptrdiff_t n, spans) except *:
    """All n elements, or those in ascending spans; the caller keeps `spans`."""
    cdef fr_extent a
    cdef ptrdiff_t i, m, before = 0
    a.n, a.n_spans, a.spans = n, 0, NULL
    a.n_threads = team_of("a flat array", n_threads)
    if spans is not None:
        m = len(spans)
        a.spans = <const int64_t *>address(spans, "spans", b"l", 2 * m, False)
        a.n_spans = m
        for i in range(2 * m):
            if not before <= a.spans[i] <= n:
                raise ValueError(f"spans must ascend within [0, {n}], got {a.spans[i]}")
            before = a.spans[i]
    return a


cdef class Rows:
    """Rows of a table, for an optimiser to bring forward to step `now`.

    `rows` ascend; `seen` has the steps that each row of the table has taken, and
    `rates`, (capacity, N_RATES), those of step t at t % capacity. All steps but the
    last have gradient zero, the last one, too, unless `with_gradient`.
    """

    def __cinit__(self, ptrdiff_t width, rows not None, seen not None, int64_t now,
                  rates not None, bint with_gradient):
        if width < 1:
            raise ValueError(f"Rows: width must be >= 1, got {width}")
        if now < 0:
            raise ValueError(f"Rows: now must be >= 0, got {now}")
        self.rows, self.seen, self.rates = rows, seen, rates
        self.c.width, self.c.now, self.c.with_gradient = width, now, with_gradient
        self.look()

    cdef int look(self) except -1:
        """Find the arrays and check what is in them."""
        cdef ptrdiff_t i, n = len(self.rows), size = len(self.seen)
        cdef int64_t row, before = -1, now = self.c.now
        self.size = product("Rows", size, self.c.width)
        self.c.n, self.c.capacity = n, len(self.rates)
        self.c.rows = <const int64_t *>address(self.rows, "rows", b"l", n, False)
        self.c.seen = <int64_t *>address(self.seen, "seen", b"l", size, True)
        if self.c.capacity < 1:
            raise ValueError("Rows: rates must be those of one step at least")
        for i in range(n):
            row = self.c.rows[i]
            if not before < row < size:
                raise ValueError(f"Rows: rows must ascend in [0, {size}), got {row}")
            if not max(0, now - self.c.capacity) <= self.c.seen[row]:
                raise ValueError(
                    f"Rows: row {row} has seen {self.c.seen[row]} steps, and only the "
                    f"last {self.c.capacity} of {now} are known")
            before = row
        return 0

    cdef const fr_rows *checked(self, char kind, ptrdiff_t P) except NULL:
        """The struct, once the table is known to have P elements."""
        self.look()  # the arrays may have changed since
        if self.size != P:
            raise ValueError(f"Rows: the table has {self.size} elements, and p {P}")
        self.c.rates = address(self.rates, "rates", kind,
                               self.c.capacity * FR_N_RATES, False)
        return &self.c


cdef object _made_here = object()  # what `Kernels` are made with


cdef class Kernels:
    """The kernel table of one target and one dtype."""

    def __cinit__(self, *only_here):
        if only_here != (_made_here,):
            raise TypeError("Kernels: kernels(dtype) gives those that there are")

    @staticmethod
    cdef Kernels wrap(const fr_kernels *table):
        cdef Kernels self = Kernels.__new__(Kernels, _made_here)
        self.table = table
        self.target = table.target.decode()
        self.dtype = table.dtype.decode()
        self.kind = b"d" if self.dtype == "float64" else b"f"
        self.lanes = table.lanes
        return self

    def pack(self, bint backward, int cell, ptrdiff_t I, ptrdiff_t H, W, R, b_ih,
             b_hh, packed, Options options=None, P=None, W_hr=None, int n_threads=1,
             forward=None):
        """Bring weights into the form that `forward` or `backward` reads.

        The backward form takes them from `forward`, a forward form, if that is given.
        """
        cdef fr_pack_args a
        cdef Shape shape = Shape(cell, False, 1, 1, I, H, None, options)
        cdef ptrdiff_t G = shape.of.n_gates, S = shape.c.S
        if (b_ih is None) != (b_hh is None):
            raise ValueError("pack: b_ih and b_hh are given together or not at all")
        a.shape, a.n_threads = shape.c, team_of("pack", n_threads)
        if not backward or forward is None:
            required(W, "W")
            required(R, "R")
        a.W = address(W, "W", self.kind, G * H * I, False)
        a.R = address(R, "R", self.kind, G * H * S, False)
        a.b_ih = address(b_ih, "b_ih", self.kind, G * H, False)
        a.b_hh = address(b_hh, "b_hh", self.kind, G * H, False)
        a.P = a.W_hr = NULL
        a.forward = address(forward, "forward", self.kind,
                            self.packed_size(False, cell, I, H, options), False)
        if shape.c.options != NULL and shape.c.options.peephole:
            a.P = address(required(P, "P"), "P", self.kind, 3 * H, False)
        if S != H:
            a.W_hr = address(required(W_hr, "W_hr"), "W_hr", self.kind, S * H, False)
        a.packed = address(required(packed, "packed"), "packed", self.kind,
                           self.packed_size(backward, cell, I, H, options), True)
        with nogil:
            if backward:
                self.table.pack_backward(&a)
            else:
                self.table.pack_forward(&a)

    def fingerprint(self, x not None, int n_threads=1):
        """256 bytes that differ for another content of the 1-D array x."""
        cdef ptrdiff_t n = len(x)
        cdef const void *px = address(x, "x", self.kind, n, False)
        cdef uint32_t result[64]
        team_of("fingerprint", n_threads)
        n *= 8 if self.kind == b"d" else 4
        with nogil:
            self.table.fingerprint(n, px, n_threads, result)
        return (<char *>result)[:sizeof(result)]

    def packed_size(self, bint backward, int cell, ptrdiff_t I, ptrdiff_t H,
                    Options options=None):
        """Elements that `pack` writes."""
        return pack_size(
            self.table, backward, Shape(cell, False, 1, 1, I, H, None, options))

    def tape_size(self, Shape shape not None):
        """Elements that a forward in training keeps for its backward."""
        return self.table.tape_size(&shape.c)

    def work_size(self, bint backward, Shape shape not None, int n_threads):
        """Elements of scratch that `forward` or `backward` needs."""
        check_threads("work_size", n_threads)
        if backward:
            return self.table.backward_work_size(&shape.c, n_threads)
        return self.table.forward_work_size(&shape.c, n_threads)

    def forward(self, Shape shape not None, int n_threads, Series x not None, packed,
                h0, c0, Series y not None, h_n, c_n, tape, work):
        """Run one layer in one direction; `tape` is None in inference."""
        cdef fr_forward_args a
        cdef char kind = self.kind
        cdef ptrdiff_t S = shape.c.S, state = shape.c.B * S
        cdef ptrdiff_t c_state = shape.c.B * shape.c.H
        a.shape, a.n_threads = shape.c, team_of("forward", n_threads)
        a.x = x.at("x", kind, shape, shape.c.I, False)
        a.x_step, a.x_row = x.step, x.row
        a.packed = address(required(packed, "packed"), "packed", kind,
                           pack_size(self.table, False, shape), False)
        a.h0 = address(required(h0, "h0"), "h0", kind, state, False)
        a.c0 = a.c_n = NULL
        if shape.of.n_states == 2:
            a.c0 = address(required(c0, "c0"), "c0", kind, c_state, False)
            a.c_n = address(required(c_n, "c_n"), "c_n", kind, c_state, True)
        a.y = y.at("y", kind, shape, S, True)
        a.y_step, a.y_row = y.step, y.row
        a.h_n = address(required(h_n, "h_n"), "h_n", kind, state, True)
        a.tape = address(tape, "tape", kind, self.tape_size(shape), True)
        a.work = address_of_work(work, "work", kind,
                                 self.work_size(False, shape, n_threads))
        with nogil:
            self.table.forward(&a, 1, False)

    def backward(self, Shape shape not None, int n_threads, Series x not None, packed,
                 h0, Series y not None, tape, Series dy, dh_n, dc_n,
                 Series dx, bint dx_accumulate, dh0, dc0, dW, dR, db_ih, db_hh, work,
                 dP=None, dW_hr=None, double clip_value=0, double clip_norm=0,
                 flow=None):
        """Back-propagate through time.

        dy, dh_n, dc_n may be None for zero; dx and parameter gradients where they are
        not wanted.  `flow` is (T, B) float64.
        """
        cdef fr_backward_args a
        cdef char kind = self.kind
        cdef ptrdiff_t I = shape.c.I, H = shape.c.H, S = shape.c.S
        cdef ptrdiff_t G = shape.of.n_gates, state = shape.c.B * S
        cdef ptrdiff_t c_state = shape.c.B * H
        a.shape, a.n_threads = shape.c, team_of("backward", n_threads)
        a.x = x.at("x", kind, shape, I, False)
        a.x_step, a.x_row = x.step, x.row
        a.packed = address(required(packed, "packed"), "packed", kind,
                           pack_size(self.table, True, shape), False)
        a.h0 = address(required(h0, "h0"), "h0", kind, state, False)
        a.y = y.at("y", kind, shape, S, False)
        a.y_step, a.y_row = y.step, y.row
        a.tape = address(required(tape, "tape"), "tape", kind, self.tape_size(shape),
                         False)
        a.dy, a.dy_step, a.dy_row = NULL, 0, 0
        if dy is not None:
            a.dy = dy.at("dy", kind, shape, S, False)
            a.dy_step, a.dy_row = dy.step, dy.row
        a.dh_n = address(dh_n, "dh_n", kind, state, False)
        a.dx, a.dx_step, a.dx_row = NULL, 0, 0
        if dx is not None:
            a.dx = dx.at("dx", kind, shape, I, True)
            a.dx_step, a.dx_row = dx.step, dx.row
        a.dx_accumulate = dx_accumulate
        a.dh0 = address(required(dh0, "dh0"), "dh0", kind, state, True)
        a.dc_n = a.dc0 = NULL
        if shape.of.n_states == 2:
            a.dc_n = address(dc_n, "dc_n", kind, c_state, False)
            a.dc0 = address(required(dc0, "dc0"), "dc0", kind, c_state, True)
        a.dW = address(dW, "dW", kind, G * H * I, True)
        a.dR = address(dR, "dR", kind, G * H * S, True)
        a.db_ih = address(db_ih, "db_ih", kind, G * H, True)
        a.db_hh = address(db_hh, "db_hh", kind, G * H, True)
        a.dP = a.dW_hr = NULL
        if shape.c.options != NULL and shape.c.options.peephole:
            a.dP = address(dP, "dP", kind, 3 * H, True)
        if S != H:
            a.dW_hr = address(dW_hr, "dW_hr", kind, S * H, True)
        a.db_sums, a.db_started, a.db_open = NULL, 0, 0
        a.clip_value, a.clip_norm = clip_value, clip_norm
        a.flow = <double *>address(flow, "flow", b"d", shape.c.T * shape.c.B, True)
        a.work = address_of_work(work, "work", kind,
                                 self.work_size(True, shape, n_threads))
        with nogil:
            self.table.backward(&a, 1, False)

    def linear_work_size(self, bint backward, ptrdiff_t N, ptrdiff_t I, ptrdiff_t O,
                         int n_threads):
        """Elements of scratch that `linear_forward` or `linear_backward` needs."""
        check_linear(N, I, O)
        check_threads("linear_work_size", n_threads)
        return self.table.linear_work_size(backward, N, I, O, n_threads)

    def linear_forward(self, int n_threads, ptrdiff_t N, ptrdiff_t I, ptrdiff_t O,
                       x, W, b, y, work):
        """``y = x W^T + b`` for x (N, I), W (O, I), b (O,) or None."""
        cdef fr_linear_args a
        check_linear(N, I, O)
        a.n_threads, a.N, a.I, a.O = team_of("linear", n_threads), N, I, O
        a.x = address(required(x, "x"), "x", self.kind, N * I, False)
        a.W = address(required(W, "W"), "W", self.kind, O * I, False)
        a.b = address(b, "b", self.kind, O, False)
        a.y = address(required(y, "y"), "y", self.kind, N * O, True)
        a.work = address_of_work(work, "work", self.kind,
                                 self.linear_work_size(False, N, I, O, n_threads))
        with nogil:
            self.table.linear_forward(&a)

    def linear_backward(self, int n_threads, ptrdiff_t N, ptrdiff_t I, ptrdiff_t O,
                        x, W, dy, dx, dW, db, work):
        """``dx = dy W``, ``dW += dy^T x``, ``db += dy.sum(0)``; each may be None."""
        cdef fr_linear_args a
        check_linear(N, I, O)
        a.n_threads, a.N, a.I, a.O = team_of("linear", n_threads), N, I, O
        a.x = address(required(x, "x"), "x", self.kind, N * I, False)
        a.W = address(required(W, "W"), "W", self.kind, O * I, False)
        a.dy = address(required(dy, "dy"), "dy", self.kind, N * O, False)
        a.dx = address(dx, "dx", self.kind, N * I, True)
        a.dW = address(dW, "dW", self.kind, O * I, True)
        a.db = address(db, "db", self.kind, O, True)
        a.work = address_of_work(work, "work", self.kind,
                                 self.linear_work_size(True, N, I, O, n_threads))
        with nogil:
            self.table.linear_backward(&a)

    def activation(self, str name not None, x not None, y not None):
        """``y = f(x)`` with f the kernels' "sigmoid" or "tanh", as `name` says."""
        cdef ptrdiff_t n = len(x)
        cdef const void *px = address(x, "x", self.kind, n, False)
        cdef void *py = address(y, "y", self.kind, n, True)
        cdef fr_activation_kind kind = FR_TANH if name == "tanh" else FR_SIGMOID
        if name not in ("sigmoid", "tanh"):
            raise ValueError(
                f"activation: name must be 'sigmoid' or 'tanh', got {name!r}")
        with nogil:
            self.table.activation(kind, n, px, py)

    def fma_peak(self, int n_threads, ptrdiff_t n):
        """Floating-point operations in n rounds of FMAs on n_threads threads."""
        cdef double operations
        team_of("fma_peak", n_threads)
        if n < 0:
            raise ValueError(f"fma_peak: n must be >= 0, got {n}")
        with nogil:
            operations = self.table.fma_peak(n_threads, n)
        return operations

    cdef fr_step step(self, int n_threads, p, g, state, str names, rates,
                      double weight_decay, bint maximize, Rows rows) except *:
        """What all optimisers share; `names` says which state each of `state` is."""
        cdef fr_step a
        cdef int i
        a.P = len(p)
        a.n_threads = team_of("step", n_threads)
        a.maximize = maximize
        a.p = address(p, "p", self.kind, a.P, True)
        a.g = address(g, "g", self.kind, a.P, False)
        a.weight_decay = weight_decay
        rates, state = tuple(rates), tuple(state)
        for i in range(FR_N_RATES):
            a.rates[i] = rates[i] if i < len(rates) else 0
        a.rows = NULL
        if rows is not None:
            a.rows = rows.checked(self.kind, a.P)
        expected = names.split()
        if len(state) != len(expected):
            raise ValueError(f"state must be {names}, got {len(state)} arrays")
        for i in range(FR_N_STATE):
            a.state[i] = NULL
            if i < len(expected):
                what = expected[i].rstrip("?")
                if what == expected[i]:
                    required(state[i], what)
                a.state[i] = address(state[i], what, self.kind, a.P, True)
        return a

    def sgd(self, int n_threads, p not None, g not None, state, rates,
            double weight_decay, bint maximize, double momentum, double dampening,
            bint nesterov, bint first, rows=None):
        """One step of SGD; state: buffer, None without momentum; rates: lr."""
        cdef fr_sgd_args a
        a.step = self.step(n_threads, p, g, state, "buffer?", rates, weight_decay,
                           maximize, rows)
        a.momentum, a.dampening = momentum, dampening
        a.nesterov, a.first = nesterov, first
        with nogil:
            self.table.sgd(&a)

    def rmsprop(self, int n_threads, p not None, g not None, state, rates,
                double weight_decay, bint maximize, double alpha, double eps,
                double momentum, rows=None):
        """One step of RMSprop; state: square, mean (or None), buffer (or None)."""
        cdef fr_rmsprop_args a
        a.step = self.step(n_threads, p, g, state, "square mean? buffer?", rates,
                           weight_decay, maximize, rows)
        a.alpha, a.eps, a.momentum = alpha, eps, momentum
        with nogil:
            self.table.rmsprop(&a)

    def adagrad(self, int n_threads, p not None, g not None, state, rates,
                double weight_decay, bint maximize, double eps, rows=None):
        """One step of Adagrad; state: sum of squares; rates: lr, decayed already."""
        cdef fr_adagrad_args a
        a.step = self.step(n_threads, p, g, state, "square", rates, weight_decay,
                           maximize, rows)
        a.eps = eps
        with nogil:
            self.table.adagrad(&a)

    def adam(self, int n_threads, p not None, g not None, state, rates,
             double weight_decay, bint maximize, double beta1, double beta2, double eps,
             rows=None):
        """One step of Adam or AdamW; state: mean, square, largest (or None).

        rates: lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t), and what p is multiplied by.
        """
        cdef fr_adam_args a
        a.step = self.step(n_threads, p, g, state, "mean square largest?", rates,
                           weight_decay, maximize, rows)
        a.beta1, a.beta2, a.eps = beta1, beta2, eps
        with nogil:
            self.table.adam(&a)

    def norm(self, int n_threads, x not None, double power, spans=None):
        """``(sum |x|^power)^(1/power)``, power > 0; the largest |x| for inf.

        spans: (begin, end) of the stretches that may be other than zero; None: all.
        """
        cdef fr_extent extent = extent_of(n_threads, len(x), spans)
        cdef const void *px = address(x, "x", self.kind, extent.n, False)
        cdef double result
        if not power > 0:
            raise ValueError(f"norm: power must be > 0, got {power}")
        with nogil:
            result = self.table.norm(&extent, px, power)
        return result

    def scale(self, int n_threads, x not None, double factor, spans=None):
        """``x *= factor``, within the spans."""
        cdef fr_extent extent = extent_of(n_threads, len(x), spans)
        cdef void *px = address(x, "x", self.kind, extent.n, True)
        with nogil:
            self.table.scale(&extent, px, factor)

    def clamp(self, int n_threads, x not None, double limit, spans=None):
        """Bring every element of x, within the spans, into [-limit, limit]."""
        cdef fr_extent extent = extent_of(n_threads, len(x), spans)
        cdef void *px = address(x, "x", self.kind, extent.n, True)
        with nogil:
            self.table.clamp(&extent, px, limit)

    def clear(self, int n_threads, x not None, spans=None):
        """``x = 0``, within the spans."""
        cdef fr_extent extent = extent_of(n_threads, len(x), spans)
        cdef void *px = address(x, "x", self.kind, extent.n, True)
        with nogil:
            self.table.clear(&extent, px)

    def cross_entropy(self, int n_threads, ptrdiff_t rows, ptrdiff_t classes,
                      logits not None, targets not None, int64_t ignore_index,
                      double weight, dlogits not None):
        """``weight`` times the sum over rows; ``dlogits`` written."""
        cdef fr_cross_entropy_args a
        cdef double loss
        if rows < 0 or classes < 1:
            raise ValueError(
                f"cross_entropy: rows >= 0, classes >= 1, got {(rows, classes)}")
        product("cross_entropy", rows, classes)
        a.rows, a.classes = rows, classes
        a.n_threads = team_of("cross_entropy", n_threads)
        a.logits = address(logits, "logits", self.kind, rows * classes, False)
        a.targets = <const int64_t *>address(targets, "targets", b"l", rows, False)
        a.dlogits = address(dlogits, "dlogits", self.kind, rows * classes, True)
        a.ignore_index, a.weight = ignore_index, weight
        check_indices("targets", a.targets, rows, classes, ignore_index)
        with nogil:
            loss = self.table.cross_entropy(&a)
        return loss

    def mse(self, int n_threads, ptrdiff_t n, prediction not None, target not None,
            double weight, dprediction not None):
        """``weight`` times the sum of squared errors; ``dprediction`` written."""
        cdef fr_mse_args a
        cdef double loss
        if n < 0:
            raise ValueError(f"mse: n must be >= 0, got {n}")
        a.n, a.n_threads, a.weight = n, team_of("mse", n_threads), weight
        a.prediction = address(prediction, "prediction", self.kind, n, False)
        a.target = address(target, "target", self.kind, n, False)
        a.dprediction = address(dprediction, "dprediction", self.kind, n, True)
        with nogil:
            loss = self.table.mse(&a)
        return loss

    def embedding_forward(self, int n_threads, ptrdiff_t n, ptrdiff_t rows,
                          ptrdiff_t width, indices not None, weight not None,
                          y not None, bint with_none=False):
        """``y[i] = weight[indices[i]]``; `with_none`, zero where the index is -1."""
        cdef fr_embedding_args a
        a = embedding(n_threads, n, rows, width, indices, -1)
        a.weight = address(weight, "weight", self.kind, rows * width, False)
        a.y = address(y, "y", self.kind, n * width, True)
        check_indices("indices", a.indices, n, rows, -1 if with_none else 0)
        with nogil:
            self.table.embedding_forward(&a)

    def embedding_backward(self, int n_threads, ptrdiff_t n, ptrdiff_t rows,
                           ptrdiff_t width, indices not None, int64_t padding,
                           dy not None, dweight not None):
        """``dweight[indices[i]] += dy[i]`` where ``indices[i] != padding``."""
        cdef fr_embedding_args a
        a = embedding(n_threads, n, rows, width, indices, padding)
        a.dy = address(dy, "dy", self.kind, n * width, False)
        a.dweight = address(dweight, "dweight", self.kind, rows * width, True)
        check_indices("indices", a.indices, n, rows, padding)
        with nogil:
            self.table.embedding_backward(&a)

    def dropout(self, int n_threads, uint64_t seed, double p, x not None, y not None):
        """``y = x / (1 - p)``, or 0 with probability p; `seed` fixes which.

        `x` and `y` may have any shape, and may be the same array.
        """
        cdef fr_dropout_args a
        if not 0 <= p <= 1:
            raise ValueError(f"dropout: p must be in [0, 1], got {p}")
        a.n = memoryview(x).nbytes // size_of(self.kind)
        a.n_threads, a.p, a.seed = team_of("dropout", n_threads), p, seed
        a.x = address(x, "x", self.kind, a.n, False)
        a.y = address(y, "y", self.kind, a.n, True)
        with nogil:
            self.table.dropout(&a)


cdef class Stepper:
    """One layer stepping through time, its state in place: nothing is allocated.

    Takes T = 1 shapes only. The arrays are those of `Kernels.forward`; `h` and `c` are
    initial and last state in one.
    """

    cdef Kernels kernels
    cdef fr_forward_args a
    cdef object kept  # what the addresses in `a` belong to
    cdef readonly object y

    def __cinit__(self, Kernels kernels not None, Shape shape not None, int n_threads,
                  packed, h, c, y not None, work):
        cdef char kind = kernels.kind
        cdef ptrdiff_t state = shape.c.B * shape.c.S, c_state = shape.c.B * shape.c.H
        if shape.c.T != 1 or shape.c.offsets != NULL:
            raise ValueError(f"Stepper: shape must have T = 1, got {shape.c.T}")
        self.kernels, self.y = kernels, y
        self.a.shape = shape.c
        self.a.n_threads = team_of("Stepper", n_threads)
        self.a.x_step = self.a.x_row = shape.c.I
        self.a.y_step = self.a.y_row = shape.c.S
        self.a.packed = address(
            required(packed, "packed"), "packed", kind,
            pack_size(kernels.table, False, shape), False)
        self.a.h0 = self.a.h_n = address(required(h, "h"), "h", kind, state, True)
        self.a.c0 = self.a.c_n = self.a.tape = NULL
        if shape.of.n_states == 2:
            self.a.c0 = self.a.c_n = address(required(c, "c"), "c", kind, c_state, True)
        self.a.y = address(y, "y", kind, state, True)
        self.a.work = address_of_work(
            work, "work", kind, kernels.work_size(False, shape, n_threads))
        # As long as somebody looks at it, an array that can grow stays where it is.
        self.kept = shape, [
            memoryview(array) for array in (packed, h, c, y, work) if array is not None]

    def step(self, x):
        """``y``, overwritten, for x of shape (B, I)."""
        cdef fr_forward_args a = self.a
        team(a.n_threads)
        a.x = address(required(x, "x"), "x", self.kernels.kind,
                      a.shape.B * a.shape.I, False)
        with nogil:
            self.kernels.table.forward(&a, 1, False)
        return self.y


def _supported():
    cdef int i
    for i in range(fr_n_targets()):
        if fr_target_supported(i):
            by_name = {
                "float32": Kernels.wrap(fr_target_kernels(i, 0)),
                "float64": Kernels.wrap(fr_target_kernels(i, 1)),
            }
            by_dtype = {np.dtype(name): one for name, one in by_name.items()}
            yield fr_target_name(i).decode(), by_name | by_dtype


BUILT = tuple(fr_target_name(i).decode() for i in range(fr_n_targets()))
_tables = dict(_supported())
SUPPORTED = tuple(_tables)
COMPILER = fr_compiler().decode()
OPENMP = bool(fr_has_openmp())


def openmp_is_shared():
    """Whether another library here needs the OpenMP runtime that the kernels use."""
    return bool(fr_openmp_is_shared())


def _choose():
    name = os.environ.get("FASTRNN_ISA")
    if not name:
        return SUPPORTED[0]
    if name not in _tables:
        reason = "this processor cannot run" if name in BUILT else "not a built target"
        raise ImportError(
            f"FASTRNN_ISA={name!r}: {reason}; valid here: {', '.join(SUPPORTED)}")
    return name


_active = _tables[_choose()]


def kernels(dtype):
    """The active target's kernels for float32 or float64: a name or a NumPy dtype.

    Working out a dtype's name takes longer than clearing a small layer's gradients.
    """
    return _active[dtype]


def active_target():
    """Name of the target in use."""
    return _active["float32"].target


@contextlib.contextmanager
def use_isa(name):
    """Run the body on target `name`; for tests, not thread-safe."""
    global _active
    if name not in _tables:
        raise ValueError(f"use_isa: name must be one of {SUPPORTED}, got {name!r}")
    before = _active
    _active = _tables[name]
    try:
        yield
    finally:
        _active = before
