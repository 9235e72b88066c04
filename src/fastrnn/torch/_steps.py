# SPDX-License-Identifier: BSD-3-Clause
"""Cells that PyTorch does not have, step by step out of PyTorch's operators.

They are LSTM, GRU and RNN with other functions than PyTorch's, and the GRU that applies
its reset gate before the product with the recurrent weights. `_again` runs them where
autograd has to see what is computed.
"""

import torch
from torch.nn import functional

# The functions of `celltable.ACTIVATIONS`: x, and the parameters alpha and beta.
_FUNCTIONS = {
    "tanh": lambda x, alpha, beta: torch.tanh(x),
    "sigmoid": lambda x, alpha, beta: torch.sigmoid(x),
    "relu": lambda x, alpha, beta: torch.relu(x),
    "hard_sigmoid": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "hard_tanh": lambda x, alpha, beta: functional.hardtanh(x),
    "softsign": lambda x, alpha, beta: functional.softsign(x),
    "softplus": lambda x, alpha, beta: functional.softplus(x, threshold=40),
    "elu": lambda x, alpha, beta: functional.elu(x, alpha),
    "leaky_relu": lambda x, alpha, beta: functional.leaky_relu(x, alpha),
    "thresholded_relu": lambda x, alpha, beta: functional.threshold(x, alpha, 0.0),
    "affine": lambda x, alpha, beta: alpha * x + beta,
    "scaled_tanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
    "gelu": lambda x, alpha, beta: functional.gelu(x),
}


def _apply(function, x):
    name, alpha, beta = function
    return _FUNCTIONS[name](x, alpha, beta)


def _rnn(spec, of_x, h, c, weight_hh, bias_hh):
    (function,) = spec.activations
    return _apply(function, of_x + functional.linear(h, weight_hh, bias_hh)), None


def _lstm(spec, of_x, h, c, weight_hh, bias_hh):
    a = (of_x + functional.linear(h, weight_hh, bias_hh)).chunk(4, -1)
    *of_gates, of_c = spec.activations
    i, f, g, o = map(_apply, of_gates, a)
    c = f * c + i * g
    return o * _apply(of_c, c), c


def _gru(spec, of_x, h, c, weight_hh, bias_hh):
    of_r, of_z, of_n = spec.activations
    x_r, x_z, x_n = of_x.chunk(3, -1)
    if spec.reset_before:
        H = spec.H
        gates, bias = weight_hh[: 2 * H], bias_hh
        b_gates, b_n = (None, None) if bias is None else (bias[: 2 * H], bias[2 * H :])
        h_r, h_z = functional.linear(h, gates, b_gates).chunk(2, -1)
        r, z = _apply(of_r, x_r + h_r), _apply(of_z, x_z + h_z)
        a_n = x_n + functional.linear(r * h, weight_hh[2 * H :], b_n)
    else:
        h_r, h_z, h_n = functional.linear(h, weight_hh, bias_hh).chunk(3, -1)
        r, z = _apply(of_r, x_r + h_r), _apply(of_z, x_z + h_z)
        a_n = x_n + r * h_n
    return (1 - z) * _apply(of_n, a_n) + z * h, None


_CELLS = {"RNN_TANH": _rnn, "RNN_RELU": _rnn, "LSTM": _lstm, "GRU": _gru}


def layer(spec, x, batch_sizes, h0, c0, weights):
    """Run one layer of one direction over the data of a PackedSequence.

    Parameters
    ----------
    spec : Spec
        With `activations`.
    x : Tensor, shape (N, I)
    batch_sizes : Tensor
    h0, c0 : Tensor, shape (1, B, H)
        c0 is None but for an LSTM.
    weights : list of Tensor

    Returns
    -------
    y, h_n, and of an LSTM c_n
        As PyTorch's operators for packed sequences return them.
    """
    step = _CELLS[spec.mode]
    weight_ih, weight_hh, bias_ih, bias_hh = [*weights, None, None][:4]
    of_x = functional.linear(x, weight_ih, bias_ih).split(batch_sizes.tolist())
    h, c, ys = h0[0], None if c0 is None else c0[0], []
    for part in of_x:
        B = len(part)
        h_new, c_new = step(
            spec, part, h[:B], None if c is None else c[:B], weight_hh, bias_hh
        )
        ys.append(h_new)
        h = torch.cat([h_new, h[B:]])
        c = None if c is None else torch.cat([c_new, c[B:]])
    states = [h] if c is None else [h, c]
    return torch.cat(ys), *[state.unsqueeze(0) for state in states]
