# SPDX-License-Identifier: BSD-3-Clause
"""What cells there are, as the kernels' table says, and the options that they take."""

import collections
from array import array as _array

from libc.math cimport INFINITY
from libc.string cimport memset

from fastrnn.native.addresses cimport address
from fastrnn.native.capi cimport *
from fastrnn.native.core cimport Kernels

from fastrnn.native import core

# Every target and both dtypes have the same table of cells.
cdef const fr_kernels *_table = (<Kernels?>core.kernels("float32")).table

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
    "exponential": FR_EXPONENTIAL,
}


Cell = collections.namedtuple("Cell", (
    "name", "index", "layer", "gates", "states", "n_states", "activations", "options",
    "bias_apart", "is_scan", "biased", "skips", "vectors", "n_vectors", "norms",
    "paper",
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
states : tuple of str
    A letter for each array of the state: h, which the cell puts out, then the others.
n_states : int
    How many these are.
activations : tuple of str
    The plain cell's function of each gate, followed by that of c_t if there is one.
options : tuple of str
    Arguments of `CellOptions` that the cell knows.
bias_apart : str or None
    The gate whose recurrent bias is not simply added to its other bias.
is_scan : bool
    Whether the recurrence is elementwise: there is no ``weight_hh`` that multiplies
    h, and no ``bias_hh``.
biased : tuple of str
    The gates that have a bias, the first ones.
skips : bool
    Whether the last gate is there only where a cell has not as many inputs as units:
    in its place the cell has x itself.
vectors, n_vectors : str or None, int
    Name of the parameter whose rows multiply unit by unit, and how many rows it has. A
    cell that knows the option "peephole" has it with that option only; with the option
    "fixed_vectors" the numbers are given, and there is no such parameter.
norms : tuple of str
    What may be normalised: values of `CellOptions`'s `norm` that the cell knows.
paper : str
    The publication that introduced the cell.
"""

NORMS = {
    "input": FR_NORM_INPUT,
    "apart": FR_NORM_APART,
    "cell": FR_NORM_CELL,
    "carried": FR_NORM_CARRIED,
    "per_gate": FR_NORM_PER_GATE,
    "joint": FR_NORM_JOINT,
}

_OPTIONS = {
    "activations": FR_OPTION_ACTIVATIONS,
    "clip": FR_OPTION_CLIP,
    "input_forget": FR_OPTION_INPUT_FORGET,
    "peephole": FR_OPTION_PEEPHOLE,
    "reset_before": FR_OPTION_RESET_BEFORE,
    "proj_size": FR_OPTION_PROJECTION,
    "fixed_vectors": FR_OPTION_FIXED_VECTORS,
    "exp_forget": FR_OPTION_EXP_FORGET,
    "noise": FR_OPTION_NOISE,
    "heads": FR_OPTION_HEADS,
    "log_space": FR_OPTION_LOG_SPACE,
    "skip_scale": FR_OPTION_SKIP_SCALE,
    "masks": FR_OPTION_MASKS,
    "candidate": FR_OPTION_CANDIDATE,
}
RECURRENT_MODES = {
    "h": FR_DROP_H,
    "per_gate": FR_DROP_PER_GATE,
    "candidate": FR_DROP_CANDIDATE,
}


cdef object described(int index, const fr_cell *c):
    """The `Cell` of an entry of the table."""
    kinds = {kind: name for name, kind in ACTIVATIONS.items()}
    gates = tuple(c.gates.decode().split())
    activations = [kinds[<int>c.activations[gate]] for gate in range(c.n_gates)]
    if c.output_activation >= 0:
        activations.append(kinds[c.output_activation])
    return Cell(
        c.name.decode(), index, c.layer.decode(), gates,
        tuple(c.states.decode().split()), c.n_states,
        tuple(activations),
        tuple(name for name, bit in _OPTIONS.items() if c.options & bit),
        gates[c.bias_apart] if c.bias_apart >= 0 else None,
        c.is_scan != 0, gates[:c.n_biased or c.n_gates], c.skips != 0,
        c.vectors.decode() if c.n_vectors else None, c.n_vectors,
        tuple(name for name, norm in NORMS.items() if c.norms >> <int>norm & 1),
        c.paper.decode())


def _all_cells():
    cdef int index = 0
    cdef const fr_cell *c = _table.cell(index)
    while c != NULL:
        yield c.name.decode(), described(index, c)
        index += 1
        c = _table.cell(index)


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
    cdef const fr_cell *found = _table.cell(index)
    if found == NULL:
        raise ValueError(f"{who}: cell must be in [0, {len(CELLS)}), got {index}")
    return found


cdef int activations_of(const fr_cell *c) noexcept:
    """Functions that a cell has: one for each gate, and that of c_t."""
    return c.n_gates + (c.output_activation >= 0)


cdef int vectors_of(const fr_cell *of, const fr_cell_options *options) noexcept nogil:
    """Rows of the parameters that multiply unit by unit, of a cell with these options.
    """
    if options != NULL and options.fixed_vectors != NULL:
        return 0
    if of.options & <unsigned>FR_OPTION_PEEPHOLE and (
            options == NULL or not options.peephole):
        return 0
    return of.n_vectors


cdef fr_norm norm_named(str who, str norm) except *:
    """The norm of this name; None is none."""
    if norm is None:
        return FR_NO_NORM
    if norm not in NORMS:
        raise ValueError(
            f"{who}: norm must be among {', '.join(NORMS)}, got {norm!r}")
    return <fr_norm><int>NORMS[norm]


cdef fr_norm_parts norms_of(const fr_cell_options *options) noexcept nogil:
    """Which of the parameters of a norm a cell with these options has."""
    return _table.norm_parts(options)


def norm_parts(str norm, bint rms):
    """The same for a norm of `NORMS`, or None: names among ih, hh, c, c_bias."""
    cdef fr_cell_options options
    cdef fr_norm_parts n
    memset(&options, 0, sizeof(options))
    options.norm = norm_named("norm_parts", norm)
    options.rms = rms
    n = norms_of(&options)
    has = {"ih": n.ih, "hh": n.hh, "c": n.c, "c_bias": n.c_bias}
    return tuple(name for name, part in has.items() if part)


cdef int gates_of(const fr_cell *of, ptrdiff_t I, ptrdiff_t H) noexcept nogil:
    """Gates of a cell of H units that has I inputs."""
    return of.n_gates - (of.skips != 0 and I == H)


cdef int biased_of(const fr_cell *of, ptrdiff_t I, ptrdiff_t H) noexcept nogil:
    """Gates of such a cell that have a bias."""
    return of.n_biased if of.n_biased else gates_of(of, I, H)


cdef refuse(str who, const fr_cell *of, str option):
    """Say that cells of this kind do not know an option, and which do."""
    able = [one.name for one in _cells.values() if option in one.options]
    raise ValueError(
        f"{who}: {option} is an option of {', '.join(able)}, not of {of.name.decode()}")


# What `CellOptions` takes, in order.
_ARGUMENTS = (
    "activations", "clip", "input_forget", "peephole", "reset_before", "proj_size",
    "zoneout", "recurrent_dropout", "recurrent_mode", "input_dropout", "fixed_vectors",
    "exp_forget", "noise", "heads", "log_space", "skip_scale", "norm", "rms")


cdef class CellOptions:
    """What makes a cell other than the plain one.

    `activations` are (name, alpha, beta) of each gate in gate order, followed by that
    of c_t where the cell has one; None for the plain cell, which may have a projection
    or heads.
    `fixed_vectors` are numbers in place of the parameters that multiply unit by unit,
    row after row, as an array of float64; they are copied.
    `zoneout` has the probabilities of c and of h, and `recurrent_mode` is one of
    `RECURRENT_MODES`.
    `norm` is one of `NORMS`, and `rms` makes it an RMS norm.
    """

    def __cinit__(self, activations=None, double clip=0, bint input_forget=False,
                  bint peephole=False, bint reset_before=False, ptrdiff_t proj_size=0,
                  zoneout=(0.0, 0.0), double recurrent_dropout=0,
                  str recurrent_mode not None="h", double input_dropout=0,
                  fixed_vectors=None, bint exp_forget=False, double noise=0,
                  ptrdiff_t heads=1, bint log_space=False, double skip_scale=0,
                  str norm=None, bint rms=False):
        cdef Py_ssize_t n_fixed = 0
        cdef double zoneout_h, zoneout_c
        zoneout_c, zoneout_h = zoneout
        self.proj_size, self.heads, self.c.plain = proj_size, heads, activations is None
        activations = None if activations is None else tuple(activations)
        if fixed_vectors is not None:
            n_fixed = memoryview(fixed_vectors).nbytes // sizeof(double)
            address(fixed_vectors, "CellOptions: fixed_vectors", b"d", n_fixed, False)
            self.fixed = _array("d", bytes(fixed_vectors))
            self.c.fixed_vectors = <const double *>address(
                self.fixed, "CellOptions: fixed_vectors", b"d", n_fixed, False)
        self.n_fixed, self.c.exp_forget = n_fixed, exp_forget
        self.made_of = (
            activations, clip, input_forget, peephole, reset_before, proj_size,
            (zoneout_c, zoneout_h), recurrent_dropout, recurrent_mode, input_dropout,
            None if self.fixed is None else self.fixed[:], exp_forget,
            noise, heads, log_space, skip_scale, norm, rms)
        if not 0 <= noise < INFINITY:
            raise ValueError(f"CellOptions: noise must be in [0, inf), got {noise}")
        self.c.noise = noise
        for p in (zoneout_h, zoneout_c, recurrent_dropout, input_dropout):
            if not 0 <= p <= 1:
                raise ValueError(
                    f"CellOptions: a probability must be in [0, 1], got {p}")
        if recurrent_mode not in RECURRENT_MODES:
            raise ValueError(
                f"CellOptions: recurrent_mode must be among "
                f"{', '.join(RECURRENT_MODES)}, got {recurrent_mode!r}")
        self.c.zoneout_h, self.c.zoneout_c = zoneout_h, zoneout_c
        self.c.recurrent_dropout = recurrent_dropout
        self.c.recurrent_mode = RECURRENT_MODES[recurrent_mode]
        self.c.input_dropout = input_dropout
        self.general = not self.c.plain or self.draws
        if self.c.plain and (clip or input_forget or peephole or reset_before
                             or exp_forget or self.fixed is not None or noise
                             or log_space or skip_scale or norm is not None):
            raise ValueError(
                "CellOptions: activations are needed with any other option")
        for i, (name, alpha, beta) in enumerate(activations or ()):
            if i > FR_MOST_GATES:
                raise ValueError(
                    f"CellOptions: at most {FR_MOST_GATES + 1} activations")
            if name not in ACTIVATIONS:
                raise ValueError(
                    f"CellOptions: an activation must be among "
                    f"{', '.join(ACTIVATIONS)}, got {name!r}")
            self.c.gate[i] = fr_activation(ACTIVATIONS[name], alpha, beta)
        self.n_activations = len(activations or ())
        self.c.clip, self.c.input_forget = clip, input_forget
        self.c.peephole, self.c.reset_before = peephole, reset_before
        if norm is None and rms:
            raise ValueError("CellOptions: rms needs a norm")
        if norm is not None and (input_forget or reset_before):
            raise ValueError(
                "CellOptions: norm does not go with input_forget or reset_before")
        self.c.norm = norm_named("CellOptions", norm)
        self.c.rms = rms
        self.c.log_space, self.c.skip_scale = log_space, skip_scale

    def in_inference(self):
        """These options where there is no dropout; None where none of them is left."""
        options = CellOptions(*[
            0.0 if name in ("recurrent_dropout", "input_dropout") else given
            for name, given in zip(_ARGUMENTS, self.made_of, strict=True)])
        has = options.general or options.proj_size or options.heads > 1
        return options if has else None

    @property
    def leaves_out(self):
        """Whether the cell has zoneout or dropout."""
        return (self.c.zoneout_h > 0 or self.c.zoneout_c > 0
                or self.c.recurrent_dropout > 0 or self.c.input_dropout > 0)

    @property
    def draws(self):
        """Whether the cell makes random choices in training: see `draws.Draw`."""
        return self.leaves_out or self.c.noise > 0

    cdef int check(self, str who, const fr_cell *of, ptrdiff_t H) except -1:
        """Whether such a cell, of H units, can have these options."""
        cdef int expected = activations_of(of)
        if not self.c.plain and self.n_activations != expected:
            raise ValueError(
                f"{who}: this cell has {expected} activations, got "
                f"{self.n_activations}")
        wanted = {
            "activations": not self.c.plain and self.differs(of),
            "clip": self.c.clip != 0,
            "input_forget": self.c.input_forget != 0,
            "peephole": self.c.peephole != 0,
            "reset_before": self.c.reset_before != 0,
            "proj_size": self.proj_size != 0,
            "fixed_vectors": self.fixed is not None,
            "exp_forget": self.c.exp_forget != 0,
            "noise": self.c.noise > 0,
            "masks": self.leaves_out,
            "candidate": self.c.recurrent_dropout > 0 and (
                self.c.recurrent_mode == FR_DROP_CANDIDATE),
            "heads": self.heads != 1,
            "log_space": self.c.log_space != 0,
            "skip_scale": self.c.skip_scale != 0,
        }
        for name, bit in _OPTIONS.items():
            if wanted[name] and not of.options & <unsigned>bit:
                refuse(who, of, name)
        # A scan cell is the plain one, or it has an option of its own.
        if of.is_scan and not self.c.plain and not (
                self.c.log_space or self.c.skip_scale):
            refuse(who, of, "activations")
        if self.c.zoneout_c > 0 and of.n_states == 1:
            raise ValueError(
                f"{who}: a {of.name.decode()} has no c for zoneout, got "
                f"{self.c.zoneout_c}")
        if self.c.norm != FR_NO_NORM and not of.norms >> <int>self.c.norm & 1:
            norm = [name for name, one in NORMS.items() if one == self.c.norm][0]
            raise ValueError(
                f"{who}: {of.name.decode()} does not know the norm {norm!r}")
        if self.proj_size and not 0 < self.proj_size < H:
            raise ValueError(
                f"{who}: proj_size must be in [1, {H}) or 0, got {self.proj_size}")
        if self.fixed is not None and self.n_fixed != of.n_vectors * H:
            raise ValueError(
                f"{who}: fixed_vectors must be {of.n_vectors} x {H} numbers, got "
                f"{self.n_fixed}")
        if self.heads < 1 or H % self.heads:
            raise ValueError(
                f"{who}: heads must be a number that {H} units are shared out to "
                f"evenly, got {self.heads}")
        if self.heads > 1 and (self.proj_size or self.c.reset_before):
            raise ValueError(
                f"{who}: a cell with {self.heads} heads can have neither proj_size nor "
                "reset_before")
        return 0

    cdef bint differs(self, const fr_cell *of) noexcept:
        """Whether a function is another than the plain cell's."""
        cdef int gate
        for gate in range(of.n_gates):
            if self.c.gate[gate].kind != <int>of.activations[gate]:
                return True
        return (of.output_activation >= 0
                and self.c.gate[of.n_gates].kind != of.output_activation)

    def __reduce__(self):
        return CellOptions, self.made_of
