# SPDX-License-Identifier: BSD-3-Clause
"""What cells there are, as the kernels' table says, and the options that they take."""

import collections

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
}


Cell = collections.namedtuple("Cell", (
    "name", "index", "layer", "gates", "n_states", "activations", "options",
    "bias_apart", "is_scan", "biased", "skips", "vectors", "n_vectors", "paper",
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
    cell that knows the option "peephole" has it with that option only.
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
    "log_space": FR_OPTION_LOG_SPACE,
    "skip_scale": FR_OPTION_SKIP_SCALE,
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
        gates[c.bias_apart] if c.bias_apart >= 0 else None,
        c.is_scan != 0, gates[:c.n_biased or c.n_gates], c.skips != 0,
        c.vectors.decode() if c.n_vectors else None, c.n_vectors, c.paper.decode())


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
    """Rows of the weights that multiply unit by unit, of a cell with these options."""
    if of.options & <unsigned>FR_OPTION_PEEPHOLE and (
            options == NULL or not options.peephole):
        return 0
    return of.n_vectors


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


cdef class CellOptions:
    """What makes a cell other than the plain one.

    `activations` are (name, alpha, beta) of each gate in gate order, followed by that
    of c_t where the cell has one; None for the plain cell, which may have a projection.
    """

    def __cinit__(self, activations=None, double clip=0, bint input_forget=False,
                  bint peephole=False, bint reset_before=False, ptrdiff_t proj_size=0,
                  bint log_space=False, double skip_scale=0):
        self.general, self.proj_size = activations is not None, proj_size
        activations = None if activations is None else tuple(activations)
        self.made_of = (
            activations, clip, input_forget, peephole, reset_before, proj_size,
            log_space, skip_scale)
        if not self.general and (clip or input_forget or peephole or reset_before
                                 or log_space or skip_scale):
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
        self.c.log_space, self.c.skip_scale = log_space, skip_scale

    cdef int check(self, str who, const fr_cell *of, ptrdiff_t H) except -1:
        """Whether such a cell, of H units, can have these options."""
        cdef int expected = activations_of(of)
        if self.general and self.n_activations != expected:
            raise ValueError(
                f"{who}: this cell has {expected} activations, got "
                f"{self.n_activations}")
        wanted = {
            "activations": self.general and (
                self.has_other_functions(of)
                or not (of.options & <unsigned>FR_OPTION_ACTIVATIONS
                        or any(self.made_of[1:]))),
            "clip": self.c.clip != 0,
            "input_forget": self.c.input_forget != 0,
            "peephole": self.c.peephole != 0,
            "reset_before": self.c.reset_before != 0,
            "proj_size": self.proj_size != 0,
            "log_space": self.c.log_space != 0,
            "skip_scale": self.c.skip_scale != 0,
        }
        for name, bit in _OPTIONS.items():
            if wanted[name] and not of.options & <unsigned>bit:
                refuse(who, of, name)
        if self.proj_size and not 0 < self.proj_size < H:
            raise ValueError(
                f"{who}: proj_size must be in [1, {H}) or 0, got {self.proj_size}")
        return 0

    cdef bint has_other_functions(self, const fr_cell *of) noexcept:
        """Whether a function is not the plain cell's, as far as its name tells."""
        cdef int k
        for k in range(of.n_gates):
            if self.c.gate[k].kind != <int>of.activations[k]:
                return True
        return of.output_activation >= 0 and (
            self.c.gate[of.n_gates].kind != of.output_activation)

    def __reduce__(self):
        return CellOptions, self.made_of
