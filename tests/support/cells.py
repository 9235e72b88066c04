# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of all cells share: cases, their data, their right answers.

Which cells there are, the table of cells says; what each computes, reference.py.

A `Case` is a layer and the shape of its input.  Its data follow from it alone and are
float32 numbers, so that one reference answer serves both dtypes and every target.
"""

import dataclasses
import functools
import zlib

import gradcheck
import numpy as np
import reference
import tolerances

import fastrnn
from fastrnn.native import celltable, core
from fastrnn.recurrent import table

CELLS = list(celltable.CELLS)
KINDS = table.kinds()  # classes of layers, by name
# Those that PyTorch has, too; its cells and classes have the names of ours.
PEERS = ["rnn_tanh", "rnn_relu", "lstm", "gru"]
GATES = {name: len(celltable.cell(name).gates) for name in CELLS}
N_STATES = {name: celltable.cell(name).n_states for name in CELLS}
STATES = {name: celltable.cell(name).states for name in CELLS}  # their letters

# (T, B, I, H): each of T = 1, 2, 5 with B = 1 and 3, and each of 1, V-1, V, V+1, 2V+3
# both as I and as H, where V is the number of lanes in a vector.
SHAPES = [
    (1, 1, "1", "V"),
    (1, 3, "V", "V-1"),
    (2, 1, "2V+3", "V+1"),
    (2, 3, "V-1", "2V+3"),
    (5, 1, "V", "1"),
    (5, 3, "V+1", "V"),
    (5, 3, "1", "1"),
]
SHAPE_IDS = [f"T{T}-B{B}-I{I}-H{H}" for T, B, I, H in SHAPES]

# Shapes large enough for every schedule, with threads that get work: rows shared out;
# weights larger than the cache; few rows and shared units; more than one block of steps
# forward (x W) and backward (da); more rows than a block.
LARGE_SHAPES = [
    (20, 33, 5, 70),
    (7, 64, 40, 130),
    (3, 16, 9, 530),
    (12, 2, 20, 300),
    (210, 1, 9, 70),
    (2, 300, 9, 50),
]
LARGE_SHAPE_IDS = ["T{}-B{}-I{}-H{}".format(*shape) for shape in LARGE_SHAPES]

# What a stack adds: layers, directions, no biases.
STACKS = {
    "2layers": {"num_layers": 2},
    "bidirectional": {"bidirectional": True},
    "2layers-bidirectional": {"num_layers": 2, "bidirectional": True},
    "no-bias": {"bias": False},
    "2layers-bidirectional-no-bias": {
        "num_layers": 2,
        "bidirectional": True,
        "bias": False,
    },
}


def size(text, dtype):
    """A size given in lanes of the active target, such as "2V+3"."""
    lanes = core.kernels(dtype).lanes
    sizes = {"1": 1, "V-1": lanes - 1, "V": lanes, "V+1": lanes + 1}
    sizes["2V+3"] = 2 * lanes + 3
    return sizes[text]


def nonlinearity_of(cell):
    """The argument that makes a layer of this cell, where its class has several."""
    about = celltable.cell(cell)
    several = len(table.cells_of(about.layer)) > 1
    return {"nonlinearity": about.activations[0]} if several else {}


def all_parameters(cell):
    """The arguments with which a layer of this cell has all parameters it can have."""
    return {"learn_alpha": True} if cell == "leaky" else {}


def state_of(parts):
    """A state, or the gradient of one, as a layer takes it: h, or the pair (h, c)."""
    return tuple(parts) if len(parts) > 1 else parts[0]


def parts_of(state):
    """The arrays of a state as a layer gives it: (h,) or (h, c)."""
    return state if isinstance(state, tuple) else (state,)


@dataclasses.dataclass(frozen=True)
class Case:
    cell: str  # its name in the table of cells
    T: int
    B: int
    I: int
    H: int
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True

    @property
    def directions(self):
        return 2 if self.bidirectional else 1

    def layer(self, dtype, **options):
        """The layer of this case, with this case's weights."""
        options = {
            "num_layers": self.num_layers,
            "bidirectional": self.bidirectional,
            "bias": self.bias,
            "dtype": dtype,
            **options,
        }
        options |= nonlinearity_of(self.cell) | all_parameters(self.cell)
        layer = getattr(fastrnn, celltable.cell(self.cell).layer)(
            self.I, self.H, **options
        )
        layer.load_state_dict(data(self).parameters)
        return layer

    def tolerance(self, dtype, backward):
        n_terms = tolerances.chain_terms(
            self.T,
            self.B,
            self.I,
            self.H,
            GATES[self.cell],
            self.num_layers,
            self.directions,
            backward,
        )
        return tolerances.relative(dtype, n_terms)


@dataclasses.dataclass(frozen=True)
class Data:
    """Inputs of a case, and the random projection that makes its outputs one number."""

    parameters: dict
    x: np.ndarray
    start: tuple  # the initial states, h first
    dy: np.ndarray
    d_end: tuple  # the gradients of the last ones

    @property
    def h0(self):
        return self.start[0]

    @property
    def c0(self):
        return self.start[1] if len(self.start) > 1 else None

    @property
    def dh_n(self):
        return self.d_end[0]

    @property
    def dc_n(self):
        return self.d_end[1] if len(self.d_end) > 1 else None

    def state(self, dtype):
        return as_state(self.start, dtype)

    def d_state(self, dtype):
        return as_state(self.d_end, dtype)


def as_state(parts, dtype):
    """A state in `dtype`, as a layer takes it."""
    return state_of([part.astype(dtype) for part in parts])


def weight_shapes(cell, width, H, bias=True):
    """Shape and scale of each parameter of a cell, by name, in a layer's order."""
    about = celltable.cell(cell)
    G = len(about.gates) - (about.skips and width == H)
    shapes = {"weight_ih": ((G * H, width), 0.7 / np.sqrt(width))}
    if not about.is_scan:
        shapes["weight_hh"] = ((G * H, H), 0.7 / np.sqrt(H))
    if bias:
        n = min(G, len(about.biased)) * H
        shapes["bias_ih"] = ((n,), 0.4)
        if not about.is_scan:
            shapes["bias_hh"] = ((n,), 0.4)
    if about.vectors and "peephole" not in about.options:
        shapes[about.vectors] = ((about.n_vectors * H,), 0.6)
    return shapes


LETTERS = {"weight_ih": "W", "weight_hh": "R", "bias_ih": "b_ih", "bias_hh": "b_hh"}


def by_letter(cell, parameters):
    """Of a case with one cell, its parameters by the names that `single` has."""
    letters = LETTERS | {celltable.cell(cell).vectors: "P"}
    return {letters[name.removesuffix("_l0")]: p for name, p in parameters.items()}


@functools.cache
def data(case):
    """Random inputs: nothing is zero, symmetric or one."""
    rng = np.random.default_rng(zlib.crc32(repr(case).encode()))
    D, H, letters = case.directions, case.H, STATES[case.cell]

    def normal(*shape, scale=1.0):
        return (scale * rng.standard_normal(shape)).astype("float32").astype("float64")

    parameters = {}
    for layer in range(case.num_layers):
        width = case.I if layer == 0 else D * H
        for suffix in ("", "_reverse")[:D]:
            # Pre-activations of size one: neither linear nor saturated.
            shapes = weight_shapes(case.cell, width, H, case.bias)
            for name, (shape, scale) in shapes.items():
                array = normal(*shape, scale=scale)
                if name == "alpha":  # rates
                    array = rng.uniform(0.1, 0.9, shape).astype("f").astype("d")
                parameters[f"{name}_l{layer}{suffix}"] = array
    states = (case.num_layers * D, case.B, H)
    x = normal(case.T, case.B, case.I)
    start = [normal(*states, scale=1.0 if k else 0.7) for k in range(len(letters))]
    if "n" in letters:  # it divides
        n = np.abs(start[letters.index("n")]) + np.float32(0.5)
        start[letters.index("n")] = n.astype("float32").astype("float64")
    return Data(
        parameters,
        x=x,
        start=tuple(start),
        dy=normal(case.T, case.B, D * H),
        d_end=tuple(normal(*states) for _ in letters),
    )


def reference_forward(case, arrays):
    """The reference on named arrays: x, h0, c0 and so on, and the parameters."""
    return reference.forward(
        case.cell,
        arrays["x"],
        tuple(arrays[f"{letter}0"] for letter in STATES[case.cell]),
        arrays,
        case.num_layers,
        case.bidirectional,
    )


def inputs(case):
    """Everything a gradient is taken of, by name, in float64."""
    d = data(case)
    return {"x": d.x, **named(case.cell, "0", d.start), **d.parameters}


def named(cell, end, parts):
    """The arrays of a state by name: h0 and so on, or with another end than "0"."""
    names = [f"{letter}{end}" for letter in STATES[cell]]
    return dict(zip(names, parts, strict=True))


def loss(case, with_dy=True):
    """The function whose gradient backward gives: outputs times random numbers."""
    d = data(case)

    def function(arrays):
        y, end = reference_forward(case, arrays)
        total = (y * d.dy).sum(axis=(-3, -2, -1)) if with_dy else 0
        for part, d_part in zip(end, d.d_end, strict=True):
            total = total + (part * d_part).sum(axis=(-3, -2, -1))
        return total

    return function


@functools.cache
def expected_outputs(case):
    y, end = reference_forward(case, inputs(case))
    return {"y": y, **named(case.cell, "_n", end)}


@functools.cache
def expected_gradients(case, with_dy=True):
    """By complex step, entry by entry: x, h0, c0 and every parameter."""
    arrays = inputs(case)
    return gradcheck.complex_step(loss(case, with_dy), arrays, arrays)


@functools.cache
def expected_directional_gradients(case):
    """For each input a random direction, and the derivative along it by complex step.

    One forward pass for each array instead of one for each of its entries, and all
    entries count: what large cases are judged by.
    """
    function = loss(case)
    arrays = {name: array.astype(complex) for name, array in inputs(case).items()}
    rng = np.random.default_rng(zlib.crc32(repr(case).encode()) + 1)
    expected = []
    for name in arrays:
        direction = rng.standard_normal(arrays[name].shape)
        step = gradcheck.COMPLEX_STEP * 1j
        moved = {**arrays, name: arrays[name] + step * direction}
        slope = function(moved).imag / gradcheck.COMPLEX_STEP
        expected.append((name, direction, slope))
    return expected


def run_forward(layer, x, state):
    """Outputs by name, whatever the cell."""
    y, state_n = layer(x, state)
    return {"y": y, **named(layer._cell, "_n", parts_of(state_n))}


def run_backward(layer, dy, d_state, context=None):
    """Gradients by name, whatever the cell; of the parameters, copies."""
    dx, d_hx = layer.backward(dy, d_state, context)
    states = named(layer._cell, "0", parts_of(d_hx))
    return {"x": dx, **states, **{k: g.copy() for k, g in layer.grads.items()}}


def run(case, dtype, layer=None):
    """Forward and backward of a case: two dicts, outputs and gradients."""
    d = data(case)
    layer = layer or case.layer(dtype)
    outputs = run_forward(layer, d.x.astype(dtype), d.state(dtype))
    return outputs, run_backward(layer, d.dy.astype(dtype), d.d_state(dtype))


def scales(arrays):
    """For each array of a call the size of the terms that its entries are sums of.

    In a small array all of these sums may cancel.  So the largest entry is taken of all
    arrays that are sums of like terms: gradients of x, h0 and c0; of the parameters.
    """
    kinds = dict.fromkeys(("x", "h0", "c0", "n0", "m0"), "data")
    kinds |= {name: name for name in ("c_n", "n_n", "m_n")}
    kinds |= {"y": "h", "h_n": "h"}  # h_n is in y, or in h0
    largest = {}
    for name, array in arrays.items():
        kind = kinds.get(name, "parameters")
        largest[kind] = max(largest.get(kind, 0), np.abs(array).max())
    return {name: largest[kinds.get(name, "parameters")] for name in arrays}


def assert_all_close(what, got, want, tolerance, least_scale=0.0):
    """Same names, and each array close to what it should be."""
    assert got.keys() == want.keys()
    scale = scales(want)
    for name, array in want.items():
        gradcheck.assert_close(
            f"{what} {name}",
            got[name],
            array,
            tolerance,
            max(scale[name], least_scale),
        )


def assert_correct(case, dtype, outputs, gradients):
    """Outputs and all gradients of a case agree with the reference."""
    for array in (*outputs.values(), *gradients.values()):
        assert array.dtype == dtype
    assert_all_close(
        "output", outputs, expected_outputs(case), case.tolerance(dtype, False)
    )
    assert_all_close(
        "gradient", gradients, expected_gradients(case), case.tolerance(dtype, True)
    )


def assert_correct_along_directions(case, dtype, gradients):
    """Like `assert_correct`, of gradients only, and for cases of any size."""
    tolerance = case.tolerance(dtype, backward=True)
    scale = scales(gradients)
    for name, direction, slope in expected_directional_gradients(case):
        got = (gradients[name].astype(np.float64) * direction).sum()
        # Errors of the entries are independent: they add up like the direction's.
        allowed = scale[name] * np.linalg.norm(direction)
        gradcheck.assert_close(f"slope along {name}", got, slope, tolerance, allowed)


def assert_same_bits(what, got, want):
    """Same names, shapes and dtypes, and every bit the same (so NaN is, too)."""
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert got[name].shape == array.shape, f"{what} {name}"
        assert got[name].dtype == array.dtype, f"{what} {name}"
        n_different = np.count_nonzero(bits(got[name]) != bits(array))
        assert n_different == 0, f"{what} {name}: {n_different} of {array.size} differ"


def bits(array):
    """The array's numbers as unsigned integers."""
    return np.ascontiguousarray(array).view(f"u{array.itemsize}")
