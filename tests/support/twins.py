# SPDX-License-Identifier: BSD-3-Clause
"""A PyTorch module and ours with its weights, and the same calls to both."""

import gradcheck
import tolerances
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import fastrnn.torch

KINDS = {
    "tanh": ("RNN", 1),
    "relu": ("RNN", 1),
    "LSTM": ("LSTM", 4),
    "GRU": ("GRU", 3),
}
CELLS = {
    "tanh": ("RNNCell", 1),
    "relu": ("RNNCell", 1),
    "LSTM": ("LSTMCell", 4),
    "GRU": ("GRUCell", 3),
}
LAYERS = {**KINDS, "projected": ("LSTM", 4)}
T, B, I, H, P = 5, 4, 3, 6, 2
LENGTHS = {"packed": [5, 3, 3, 1], "packed unsorted": [2, 5, 1, 4], "packed one": [5]}


def pair(kind, names=LAYERS, I=I, H=H, **options):
    """PyTorch's module, and ours with its state dict."""
    name, _ = names[kind]
    if kind == "projected":
        options["proj_size"] = P
    if name.startswith("RNN"):
        options["nonlinearity"] = kind
    theirs = getattr(torch.nn, name)(I, H, **options)
    ours = getattr(fastrnn.torch, name)(I, H, **options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def draw(rng, *shape, dtype=torch.float32):
    return torch.tensor(rng.standard_normal(shape), dtype=dtype)


def leaves(tensors):
    return [t.detach().clone().requires_grad_() for t in tensors]


def flat(value):
    """All tensors of an output, the data of a packed one first."""
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for part in value for tensor in flat(part)]


def packed(x, form, batch_first):
    return pack_padded_sequence(
        x,
        torch.tensor(LENGTHS[form]),
        batch_first=batch_first,
        enforce_sorted=form != "packed unsorted",
    )


def assert_same(name, got, want, dtype, n_terms):
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    allowed = 2 * tolerances.relative(dtype, n_terms)  # both sides round
    gradcheck.assert_close(name, got.detach().numpy(), want.detach().numpy(), allowed)


def assert_all_same(names, got, want, dtype, n_terms):
    assert len(got) == len(want) == len(names)
    for name, ours, theirs in zip(names, got, want, strict=True):
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            assert_same(name, ours, theirs, dtype, n_terms)
