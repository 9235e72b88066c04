# SPDX-License-Identifier: BSD-3-Clause
"""Recurrent cells as a PyTorch user writes them: a Python loop over time.

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


# -- LSTM ------------------------------------------------------------------------------


def lstm_c(a: Tensor, c: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """The new c, and the gate o, from the sums of all gates."""
    i, f, g, o = a.chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return c, torch.sigmoid(o)


def lstm_end(h: Tensor, c: Tensor, before: States, w: Weights) -> States:
    """The new state: h sees a c that zoneout has not touched (Krueger et al.)."""
    return [zoned(h, before[0], w, "zoneout_h"), zoned(c, before[1], w, "zoneout_c")]


@keep("lstm", inputs, "hc")
def lstm(a: Tensor, state: States, w: Weights) -> States:
    c, o = lstm_c(a + recurrent(state[0], w), state[1])
    return lstm_end(o * torch.tanh(c), c, state, w)


def normalised_lstms(norm, prefix):
    """The forms of an LSTM with layer normalisation, or with that of RMS."""

    def project(x: Tensor, w: Weights) -> Tensor:
        return norm(F.linear(x, w["weight_ih"]), w["weight_norm_ih"])

    def norm_c(c: Tensor, w: Weights) -> Tensor:
        c = norm(c, w["weight_norm_c"])
        return c + w["bias_norm_c"] if "bias_norm_c" in w else c

    def gates(a: Tensor, h: Tensor, w: Weights) -> Tensor:
        of_h = norm(product(h, w["weight_hh"]), w["weight_norm_hh"])
        return biases(a + of_h, w)

    @keep(f"{prefix}lstm_cell", project, "hc")
    def cell(a: Tensor, state: States, w: Weights) -> States:
        c, o = lstm_c(gates(a, state[0], w), state[1])
        return lstm_end(o * torch.tanh(norm_c(c, w)), c, state, w)

    @keep(f"{prefix}lstm_gates", project, "hc")
    def of_gates(a: Tensor, state: States, w: Weights) -> States:
        c, o = lstm_c(gates(a, state[0], w), state[1])
        return lstm_end(o * torch.tanh(c), c, state, w)

    @keep(f"{prefix}lstm_carried", project, "hc")
    def carried(a: Tensor, state: States, w: Weights) -> States:
        c, o = lstm_c(gates(a, state[0], w), state[1])
        c = norm_c(c, w)
        return lstm_end(o * torch.tanh(c), c, state, w)

    @keep(f"{prefix}lstm_per_gate", raw, "hc")
    def per_gate(a: Tensor, state: States, w: Weights) -> States:
        """Each gate's sum of both products is a row of its own, as is c."""
        weight = w["weight_norm_ih"].chunk(4)
        parts = (a + product(state[0], w["weight_hh"])).chunk(4, -1)
        normed = [norm(parts[k], weight[k]) for k in range(4)]
        c, o = lstm_c(biases(torch.cat(normed, -1), w), state[1])
        c = norm_c(c, w)
        return lstm_end(o * torch.tanh(c), c, state, w)

    @keep(f"{prefix}lstm_input", project, "hc")
    def of_input(a: Tensor, state: States, w: Weights) -> States:
        a = biases(a + product(state[0], w["weight_hh"]), w)
        c, o = lstm_c(a, state[1])
        return lstm_end(o * torch.tanh(c), c, state, w)


normalised_lstms(layer_norm, "layer_norm_")
normalised_lstms(rms_norm, "rms_norm_")


# -- GRU, MGU and LiGRU ----------------------------------------------------------------


@keep("gru", inputs)
def gru(a: Tensor, state: States, w: Weights) -> States:
    h = state[0]
    x_r, x_z, x_n = a.chunk(3, -1)
    h_r, h_z, h_n = recurrent(h, w).chunk(3, -1)
    z = torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n)
    return [zoned((1 - z) * n + z * h, h, w, "zoneout_h")]


def normalised_grus(norm, prefix):
    """The forms of a GRU with layer normalisation, or with that of RMS."""

    def project(x: Tensor, w: Weights) -> Tensor:
        a = norm(F.linear(x, w["weight_ih"]), w["weight_norm_ih"])
        return a + w["bias_ih"] if "bias_ih" in w else a

    @keep(f"{prefix}gru_apart", project)
    def apart(a: Tensor, state: States, w: Weights) -> States:
        h = state[0]
        of_h = norm(product(h, w["weight_hh"]), w["weight_norm_hh"])
        of_h = of_h + w["bias_hh"] if "bias_hh" in w else of_h
        x_r, x_z, x_n = a.chunk(3, -1)
        h_r, h_z, h_n = of_h.chunk(3, -1)
        z = torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n)
        return [zoned((1 - z) * n + z * h, h, w, "zoneout_h")]

    @keep(f"{prefix}gru_joint", raw)
    def joint(a: Tensor, state: States, w: Weights) -> States:
        """Dreamer's: one row of [x, h] W; u is the share of what is new."""
        h = state[0]
        both = norm(a + product(h, w["weight_hh"]), w["weight_norm_ih"])
        r, z, n = biases(both, w).chunk(3, -1)
        u = torch.sigmoid(z - 1)
        n = torch.tanh(torch.sigmoid(r) * n)
        return [zoned(u * n + (1 - u) * h, h, w, "zoneout_h")]

    @keep(f"{prefix}gru_input", project)
    def of_input(a: Tensor, state: States, w: Weights) -> States:
        return gru(a, state, w)


normalised_grus(layer_norm, "layer_norm_")
normalised_grus(rms_norm, "rms_norm_")


@keep("mgu", inputs)
def mgu(a: Tensor, state: States, w: Weights) -> States:
    h = state[0]
    x_f, x_n = a.chunk(2, -1)
    R_f, R_n = w["weight_hh"].chunk(2)
    h_f = product(h, R_f)
    if "bias_hh" in w:
        b_f, b_n = w["bias_hh"].chunk(2)
        h_f, x_n = h_f + b_f, x_n + b_n
    f = torch.sigmoid(x_f + h_f)
    n = torch.tanh(x_n + product(f * h, R_n))
    return [(1 - f) * h + f * n]


@keep("ligru", inputs)
def ligru(a: Tensor, state: States, w: Weights) -> States:
    h = state[0]
    n, z = (a + recurrent(h, w)).chunk(2, -1)
    z = torch.sigmoid(z)
    return [z * h + (1 - z) * torch.relu(n)]


def normalised_input(x: Tensor, w: Weights) -> Tensor:
    """``LN(x W) + b_ih``."""
    a = layer_norm(F.linear(x, w["weight_ih"]), w["weight_norm_ih"])
    return a + w["bias_ih"] if "bias_ih" in w else a


CELLS["layer_norm_ligru"] = Cell(normalised_input, ligru, "h")


# -- RNN -------------------------------------------------------------------------------


@keep("rnn_tanh", inputs)
def rnn_tanh(a: Tensor, state: States, w: Weights) -> States:
    h = state[0]
    return [zoned(torch.tanh(a + recurrent(h, w)), h, w, "zoneout_h")]


@keep("rnn_relu", inputs)
def rnn_relu(a: Tensor, state: States, w: Weights) -> States:
    h = state[0]
    return [zoned(torch.relu(a + recurrent(h, w)), h, w, "zoneout_h")]


def normalised_rnns(norm, prefix):
    """The forms of a plain RNN with layer normalisation, or with that of RMS."""

    def project(x: Tensor, w: Weights) -> Tensor:
        return norm(F.linear(x, w["weight_ih"]), w["weight_norm_ih"])

    @keep(f"{prefix}rnn_tanh_apart", project)
    def apart(a: Tensor, state: States, w: Weights) -> States:
        h = state[0]
        of_h = norm(product(h, w["weight_hh"]), w["weight_norm_hh"])
        return [zoned(torch.tanh(biases(a + of_h, w)), h, w, "zoneout_h")]

    @keep(f"{prefix}rnn_tanh_input", project)
    def of_input(a: Tensor, state: States, w: Weights) -> States:
        h = state[0]
        a = biases(a + product(h, w["weight_hh"]), w)
        return [zoned(torch.tanh(a), h, w, "zoneout_h")]


normalised_rnns(layer_norm, "layer_norm_")
normalised_rnns(rms_norm, "rms_norm_")


@keep("leaky_tanh", inputs)
def leaky_tanh(a: Tensor, state: States, w: Weights) -> States:
    h, alpha = state[0], w["alpha"]
    return [(1 - alpha) * h + alpha * torch.tanh(a + recurrent(h, w))]


@keep("leaky_relu", inputs)
def leaky_relu(a: Tensor, state: States, w: Weights) -> States:
    h, alpha = state[0], w["alpha"]
    return [(1 - alpha) * h + alpha * torch.relu(a + recurrent(h, w))]


# -- sLSTM -----------------------------------------------------------------------------


def stabilised(i: Tensor, log_f: Tensor, g: Tensor, o: Tensor, state: States) -> States:
    """c and n scaled by exp(-m), so that no exponential overflows."""
    c, n, m = state[1], state[2], state[3]
    # As the authors' program: there is nothing to forget where n is zero.
    m_new = torch.where(n == 0, i, torch.maximum(log_f + m, i))
    i, f = torch.exp(i - m_new), torch.exp(log_f + m - m_new)
    c, n = f * c + i * torch.tanh(g), f * n + i
    return [torch.sigmoid(o) * c / n, c, n, m_new]


@keep("slstm_sigmoid", inputs, "hcnm")
def slstm_sigmoid(a: Tensor, state: States, w: Weights) -> States:
    i, f, g, o = (a + recurrent(state[0], w)).chunk(4, -1)
    return stabilised(i, F.logsigmoid(f), g, o, state)


@keep("slstm_exp", inputs, "hcnm")
def slstm_exp(a: Tensor, state: States, w: Weights) -> States:
    i, f, g, o = (a + recurrent(state[0], w)).chunk(4, -1)
    return stabilised(i, f, g, o, state)


# -- cells whose recurrence is elementwise ---------------------------------------------


@keep("indrnn", inputs)
def indrnn(a: Tensor, state: States, w: Weights) -> States:
    return [torch.relu(a + w["weight_hh"] * state[0])]


@keep("mingru", inputs)
def mingru(a: Tensor, state: States, w: Weights) -> States:
    z, n = a.chunk(2, -1)
    z = torch.sigmoid(z)
    return [(1 - z) * state[0] + z * n]


def positive(a: Tensor) -> Tensor:
    """The function g of the paper's log-space form, which is never negative."""
    return torch.where(a >= 0, a + 0.5, torch.sigmoid(a))


@keep("mingru_log", inputs)
def mingru_log(a: Tensor, state: States, w: Weights) -> States:
    z, n = a.chunk(2, -1)
    z = torch.sigmoid(z)
    return [(1 - z) * state[0] + z * positive(n)]


@keep("minlstm", inputs)
def minlstm(a: Tensor, state: States, w: Weights) -> States:
    f, i, n = a.chunk(3, -1)
    f, i = torch.sigmoid(f), torch.sigmoid(i)
    return [(f * state[0] + i * n) / (f + i)]


@keep("minlstm_log", inputs)
def minlstm_log(a: Tensor, state: States, w: Weights) -> States:
    f, i, n = a.chunk(3, -1)
    f, i = torch.sigmoid(f), torch.sigmoid(i)
    return [(f * state[0] + i * positive(n)) / (f + i)]


def sru_inputs(x: Tensor, w: Weights) -> Tensor:
    """``x W``, biases on f and r, and x itself where W has no part for the highway."""
    a = F.linear(x, w["weight_ih"])
    H = w["weight_c"].size(0) // 2
    if "bias_ih" in w:
        a = a + F.pad(w["bias_ih"], [0, a.size(-1) - 2 * H])
    return a if a.size(-1) == 4 * H else torch.cat([a, x], -1)


@keep("sru", sru_inputs, "hc")
def sru(a: Tensor, state: States, w: Weights) -> States:
    """Gates in the order f, r, candidate; then the highway's x, not rescaled."""
    c = state[1]
    f, r, n, x = a.chunk(4, -1)
    v_f, v_r = w["weight_c"].chunk(2)
    f, r = torch.sigmoid(f + v_f * c), torch.sigmoid(r + v_r * c)
    c = f * c + (1 - f) * n
    return [r * c + (1 - r) * x, c]


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
