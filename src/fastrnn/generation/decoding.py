# SPDX-License-Identifier: BSD-3-Clause
"""What `Generator` and `EncoderDecoder` share: how a decoder starts, how it writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import numpy as np

from fastrnn.nn.layers import Linear
from fastrnn.nn.module import Module
from fastrnn.recurrent import table
from fastrnn.recurrent.layer import Recurrent
from fastrnn.train.model import Model
from fastrnn.util import checks


class WritingModel(Model):
    """Base of the models that write tokens: sizes are known, a head gives logits."""

    _saved = False
    _default_loss = "sparse_categorical_crossentropy"

    def ends_in(self) -> Module:
        """The head, whose logits are the output."""
        return self.head

    def build(self, input_shape: Sequence[int]) -> Self:
        """Nothing: all sizes are known.

        Parameters
        ----------
        input_shape
            Not looked at.

        Returns
        -------
        Model
            Itself.
        """
        return self


def check_recurrent(who, name, layer):
    """Refuse what is no recurrent layer, or one that has no parameters yet."""
    if not isinstance(layer, Recurrent):
        raise TypeError(
            f"{who}: {name} must be an {table.named()} with an input size, "
            f"got {layer!r}"
        )


def check_decoder(who, name, layer):
    """Refuse a layer that cannot go on from its own output."""
    check_recurrent(who, name, layer)
    if layer.bidirectional:
        raise ValueError(f"{who}: {name} must not be bidirectional, got {layer!r}")


def check_token(who, name, token, size):
    """A start or end token as an int; None stays None."""
    if token is None:
        return None
    token = checks.integer(who, name, token)
    if not 0 <= token < size:
        raise ValueError(f"{who}: {name} must be in [0, {size}), got {token}")
    return token


class StartState(Module):
    """A recurrent layer's initial state as tanh(W v + b) of a vector.

    Of a cell that has other states than h and c, h alone is made so; the others, of
    which some may not be negative, are zero.
    """

    _saved = False

    _child_names = ("linear",)
    _not_kept = ("size", "recurrent")

    def __init__(self, size, recurrent, *, seed=None):
        n = recurrent._states
        parts = n if n <= 2 else 1, recurrent.num_layers, recurrent.hidden_size
        self._parts, self._zero = parts, n - parts[0]
        self.linear = Linear(size, math.prod(parts), dtype=recurrent.dtype, seed=seed)

    def forward(self, vector):
        """List of arrays (num_layers, B, hidden_size) from a vector (B, size)."""
        s = np.tanh(self.linear(vector))
        self._keep((s, self.linear.context))
        states, L, H = self._parts
        whole = s.reshape(-1, states, L, H).transpose(1, 2, 0, 3)
        made = [np.ascontiguousarray(part) for part in whole]
        return made + [np.zeros_like(made[0]) for _ in range(self._zero)]

    def backward(self, dparts, *, context=None):
        """Gradient of the vector from those of the state's arrays."""
        context = self._context(context)
        s, kept = context.saved
        ds = np.stack(dparts[: self._parts[0]]).transpose(2, 0, 1, 3).reshape(s.shape)
        dvector = self.linear.backward(ds * (1 - s * s), context=kept)
        context.release()
        return dvector


class Writer:
    """Rows of a decoder that write together, as `fastrnn.generation.search` needs them.

    Parameters
    ----------
    embedding : Embedding
        Of the tokens written.
    recurrent : recurrent layer, such as LSTM
    state : list of ndarray, shape (num_layers, B, hidden_size)
        What the recurrent layer starts from.
    copies : int
        Rows for each of the B sequences, side by side.
    read : callable
        Logits, and attention weights or None, of the recurrent layer's output.
    """

    def __init__(self, embedding, recurrent, state, copies, read):
        B = state[0].shape[1]
        self._embedding, self._read = embedding, read
        self._stream = recurrent.stream(B * copies)
        self._arrays = self._stream.state
        for array, part in zip(self._arrays, state, strict=True):
            array[...] = np.repeat(part, copies, axis=1)

    def step(self, tokens):
        """Logits of every row's next token, and attention weights or None."""
        return self._read(self._stream.step(self._embedding(tokens)))

    def reorder(self, rows):
        """Put the state of row ``rows[n]`` in place of row n's."""
        for array in self._arrays:
            array[...] = array[:, rows]
