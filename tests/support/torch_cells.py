# SPDX-License-Identifier: BSD-3-Clause
"""Cells with a matrix from state to state, for the loops of torch_loops.py."""

from typing import Tuple  # noqa: UP035  (TorchScript's name)

import torch
import torch_scan_cells  # noqa: F401  (puts the other cells beside these)
from torch import Tensor
from torch.nn import functional as F
from torch_loops import (
    CELLS,
    Cell,
    States,
    Weights,
    biases,
    inputs,
    keep,
    layer_norm,
    product,
    raw,
    recurrent,
    rms_norm,
    zoned,
)

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
