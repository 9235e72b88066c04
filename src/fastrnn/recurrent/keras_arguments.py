# SPDX-License-Identifier: BSD-3-Clause
"""For type checkers and editors: the arguments of recurrent layers by both ways.

A layer is made by ``(input_size, hidden_size, ...)``, or Keras's way by its units:
``(units, activation, ...)``. Each class has an overload of its constructor for either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.nn import schemes
from fastrnn.recurrent.arguments import Functions


class ScanOptions(TypedDict, total=False):
    """What all layers are given by name."""

    learn_initial_state: bool
    clip_state_grad: float | tuple[str, float] | None
    merge_mode: str
    connection: str | None
    return_sequences: bool
    checkpoint_every: int | None
    go_backwards: bool
    stateful: bool
    zero_output_for_mask: bool
    init: schemes.Init
    dtype: str
    compute: str | None
    seed: int | np.random.Generator | None


class Options(ScanOptions, total=False):
    """Of cells whose functions may be others, apart from `activation`."""

    cell_clip: float | None
    zoneout: float | tuple[float, float]
    recurrent_dropout: float
    recurrent_dropout_mode: str
    input_dropout: float
    weight_drop: float


class LogSpaceOptions(ScanOptions, total=False):
    """Of `MinGRU` and `MinLSTM`."""

    log_space: bool


class IndRNNOptions(ScanOptions, total=False):
    """Of `IndRNN`."""

    time_steps: int | None


class SRUOptions(ScanOptions, total=False):
    """Of `SRU`."""

    rescale: bool
    highway_bias: float


class NormOptions(Options, total=False):
    """Of cells that can be normalised."""

    layer_norm: bool | str
    rms_norm: bool | str


class GatedOptions(Options, total=False):
    """Of cells with gates."""

    recurrent_activation: Functions | None


class RNNOptions(NormOptions, total=False):
    """Of `RNN`."""

    quantized: str | None
    heads: int


class LSTMOptions(GatedOptions, NormOptions, total=False):
    """Of `LSTM`."""

    quantized: str | None
    proj_size: int
    peephole: bool
    input_forget: bool
    forget_bias: float | None
    heads: int


class GRUOptions(GatedOptions, NormOptions, total=False):
    """Of `GRU`."""

    quantized: str | None
    reset_after: bool
    heads: int


class LiGRUOptions(GatedOptions, NormOptions, total=False):
    """Of `LiGRU`."""


class LeakyOptions(Options, total=False):
    """Of `LeakyRNN`."""

    alpha: ArrayLike
    learn_alpha: bool
    sign: ArrayLike | None
    noise: float


class SLSTMOptions(ScanOptions, total=False):
    """Of `SLSTM`."""

    forget_gate: str
    heads: int


class Words(TypedDict, total=False):
    """Keras's words, and what may be given by name beside them."""

    use_bias: bool
    input_shape: Sequence[int | None]
    batch_input_shape: Sequence[int | None]
    input_dim: int
    num_layers: int
    batch_first: bool
    bidirectional: bool


class ByUnits(RNNOptions, Words, total=False):
    """Of `RNN`, made by its units."""


class GatedByUnits(GatedOptions, Words, total=False):
    """Of cells with gates, made by their units."""


class LiGRUByUnits(LiGRUOptions, Words, total=False):
    """Of `LiGRU`, made by its units."""


class LeakyByUnits(LeakyOptions, Words, total=False):
    """Of `LeakyRNN`, made by its units."""


class SLSTMByUnits(SLSTMOptions, Words, total=False):
    """Of `SLSTM`, made by its units."""


class LSTMByUnits(LSTMOptions, Words, total=False):
    """Of `LSTM`, made by its units."""


class GRUByUnits(GRUOptions, Words, total=False):
    """Of `GRU`, made by its units."""


class LogSpaceByUnits(LogSpaceOptions, Words, total=False):
    """Of `MinGRU` and `MinLSTM`, made by their units."""


class IndRNNByUnits(IndRNNOptions, Words, total=False):
    """Of `IndRNN`, made by its units."""

    nonlinearity: str


class SRUByUnits(SRUOptions, Words, total=False):
    """Of `SRU`, made by its units."""
