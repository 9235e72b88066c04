# SPDX-License-Identifier: BSD-3-Clause
"""Cells whose recurrence is elementwise, for the loops of torch_loops.py."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_loops import States, Weights, inputs, keep


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
