# SPDX-License-Identifier: BSD-3-Clause
"""Recurrent loops as a PyTorch user writes them: what any cell needs to run over time.

Autograd differentiates these loops, in float64, and so they judge the kernels' forward
and backward. The benchmark takes the same loops, scripted or compiled, as peers. Each
cell is written from its paper and knows nothing of fastrnn but the names of parameters.

A cell is two functions. ``project(x, w)`` computes for all steps at once what does not
depend on the state, (T, B, G H). ``step(a, state, w)`` advances by one step: `a` is one
step of that, `state` is a list of tensors (B, H), h first, and so is what it returns.
`w` has the parameters of one layer and direction by their names without a suffix, and
numbers of options as tensors: ``zoneout_h``, ``zoneout_c``, ``alpha``. A recurrent
matrix (G H, H / n) is that of n heads, block-diagonal.

All functions can be compiled by `torch.jit.script`, which is why the norm is chosen
when a step is made and everything else is found in `w`.
"""

from typing import Dict, List, NamedTuple, Tuple  # noqa: UP035  (TorchScript's names)

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = Dict[str, Tensor]  # noqa: UP006
States = List[Tensor]  # noqa: UP006


class Cell(NamedTuple):
    """What runs a cell: see the head of this file; `states` are the state's letters."""

    project: object
    step: object
    states: str


CELLS = {}


def keep(name, project, states="h"):
    """Decorate a step function: put it into `CELLS` with what belongs to it."""

    def put(step):
        CELLS[name] = Cell(project, step, states)
        return step

    return put


# -- products and norms ----------------------------------------------------------------


def inputs(x: Tensor, w: Weights) -> Tensor:
    """``x W + b_ih``, without the bias where there is none."""
    a = F.linear(x, w["weight_ih"])
    return a + w["bias_ih"] if "bias_ih" in w else a


def raw(x: Tensor, w: Weights) -> Tensor:
    """``x W``."""
    return F.linear(x, w["weight_ih"])


def product(h: Tensor, R: Tensor) -> Tensor:
    """``h R``, R dense or of heads."""
    width = R.size(1)
    if width == h.size(1):
        return F.linear(h, R)
    n = h.size(1) // width
    blocks = R.view(-1, n, width, width)
    of_heads = torch.einsum("bnj,gnij->bgni", h.view(-1, n, width), blocks)
    return of_heads.reshape(h.size(0), -1)


def recurrent(h: Tensor, w: Weights) -> Tensor:
    """``h R + b_hh``, without the bias where there is none."""
    a = product(h, w["weight_hh"])
    return a + w["bias_hh"] if "bias_hh" in w else a


def biases(a: Tensor, w: Weights) -> Tensor:
    """`a` with both biases added."""
    return a + w["bias_ih"] + w["bias_hh"] if "bias_ih" in w else a


def layer_norm(a: Tensor, weight: Tensor) -> Tensor:
    """Layer normalisation of rows, without a shift."""
    return F.layer_norm(a, [a.size(-1)], weight, None, 1e-5)


def rms_norm(a: Tensor, weight: Tensor) -> Tensor:
    """Rows divided by the root of their mean square."""
    return F.rms_norm(a, [a.size(-1)], weight, 1e-5)


def zoned(new: Tensor, before: Tensor, w: Weights, which: str) -> Tensor:
    """What zoneout leaves of a new state, in expectation."""
    if which in w:
        return w[which] * before + (1 - w[which]) * new
    return new


# -- over time, and over layers --------------------------------------------------------


def loop(cell):
    """The function that runs a cell of `CELLS` over all steps.

    It takes x (T, B, I), a list of states (B, H) and the weights, and returns y
    (T, B, H) and the list of the last states. `torch.jit.script` can compile it.
    """
    project, step = CELLS[cell].project, CELLS[cell].step

    def run(x: Tensor, state: States, w: Weights) -> Tuple[Tensor, States]:  # noqa: UP006
        a = project(x, w)
        ys = []
        for t in range(x.size(0)):
            state = step(a[t], state, w)
            ys.append(state[0])
        return torch.stack(ys), state

    return run


def zeros(cell, B, H, like):
    """The initial states of a cell of `CELLS`."""
    return [like.new_zeros(B, H) for _ in CELLS[cell].states]


def named(parameters, suffix="_l0"):
    """Of a layer's parameters by name, those of one cell, without their suffix."""
    return {
        name.removesuffix(suffix): value
        for name, value in parameters.items()
        if name.endswith(suffix) and value is not None
    }


def stack(cell, parameters, x, states=None, *, layers=1, directions=1, **more):
    """Run a stack of layers, as a layer of fastrnn does.

    Parameters
    ----------
    cell : str
        A name in `CELLS`.
    parameters : mapping of str to Tensor
        With a layer's names, as ``weight_ih_l0_reverse``.
    x : Tensor, shape (T, B, I)
    states : list of Tensor, shape (layers * directions, B, H), optional
    layers, directions : int
    more : Tensor
        Options of the cell, for all cells of the stack.

    Returns
    -------
    y : Tensor, shape (T, B, directions * H)
    states : list of Tensor
    """
    run, ends = loop(cell), []
    for k in range(layers):
        ys = []
        for d in range(directions):
            w = named(parameters, f"_l{k}" + ("_reverse" if d else "")) | more
            start = [part[k * directions + d] for part in states or ()]
            source = x.flip(0) if d else x
            start = start or zeros(cell, x.shape[1], units(cell, w), x)
            y, end = run(source, start, w)
            ys.append(y.flip(0) if d else y)
            ends.append(end)
        x = torch.cat(ys, -1)
    return x, [torch.stack(part) for part in zip(*ends, strict=True)]


GATES = {"rnn": 1, "leaky": 1, "indrnn": 1, "mgu": 2, "ligru": 2, "mingru": 2}
GATES |= {"gru": 3, "minlstm": 3, "lstm": 4, "slstm": 4}


def units(cell, w):
    """How many units a cell with these weights has."""
    if cell == "sru":
        return w["weight_c"].shape[0] // 2
    plain = cell.removeprefix("layer_norm_").removeprefix("rms_norm_")
    return w["weight_ih"].shape[0] // GATES[plain.split("_")[0]]
