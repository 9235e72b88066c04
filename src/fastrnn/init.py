# SPDX-License-Identifier: BSD-3-Clause
"""Initialisers: functions that fill a parameter in place.

A layer's argument `init` says what its parameters are at first: "keras" (what layers do
by default; an `Embedding` does "torch"), "torch", or any of these functions::

    LSTM(8, 64, init={"weight_hh": orthogonal_, "bias_hh": 0})

They also fill what there is already::

    orthogonal_(model.parameters["0.weight_hh_l0"], n_gates=4, seed=0)

Random numbers are drawn in float64 and rounded, from the generator or integer given as
`seed`: the same integer gives the same weights in both dtypes and on every machine,
orthogonal ones to the last bits.

The weights of a recurrent layer hold one matrix a gate, one below the other: 1 in an
RNN, 4 in an LSTM, 3 in a GRU. With ``n_gates`` an initialiser treats each on its own.
"""

from fastrnn.nn.init import (
    constant_,
    fan_in_uniform_,
    forget_gate_bias_,
    identity_,
    normal_,
    orthogonal_,
    uniform_,
    xavier_normal_,
    xavier_uniform_,
)

__all__ = [
    "constant_",
    "fan_in_uniform_",
    "forget_gate_bias_",
    "identity_",
    "normal_",
    "orthogonal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
]
