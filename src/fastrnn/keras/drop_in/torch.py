# SPDX-License-Identifier: BSD-3-Clause
"""Keras's layers on the torch backend, by the operator of `fastrnn.torch`."""

import torch

from fastrnn.keras.drop_in import forms
from fastrnn.torch import _autograd, _path, _weights
from fastrnn.torch._spec import of_form
from fastrnn.torch._stack import StackCall

SUPPORTS_JIT = True
SHOWS_INITIAL_STATE = False


def problem(layer, x, states, mask):
    """Why the kernels cannot run a call on this backend, or None; see `layers`."""
    if torch.compiler.is_compiling():
        return "torch.compile or torch.export traces the call"
    if found := _path.must_be_recorded():
        return found
    if torch.is_autocast_enabled("cpu"):
        return "torch.autocast is on"
    cell, dtype = layer.cell, getattr(torch, layer.compute_dtype)
    weights = [cell.kernel, cell.recurrent_kernel, cell.bias]
    weights = [_tensor(weight) for weight in weights if weight is not None]
    found = _path.tensor_problem("the input", x)
    for state in states:
        found = found or _path.tensor_problem("an initial state", state, dtype)
    for weight in weights:
        found = found or _path.tensor_problem("a weight", weight, dtype)
    if mask is not None:
        found = found or _path.tensor_problem("the mask", mask)
    return found


def _tensor(weight):
    """The tensor of a variable of Keras's; a tensor itself."""
    return weight if torch.is_tensor(weight) else weight.value


def rows(array, order):
    """Gates along the last axis as (G * H, ...) in our order; see `forms.rows`."""
    tensor = _tensor(array).t()  # itself, of a bias
    if forms.is_in_order(order):
        return tensor
    gates = tensor.chunk(len(order))
    return torch.cat([gates[k] for k in order])


def run(form, x, h0, c0, weights, mask, hold, site):
    """Run a recurrence on the kernels; see `layers`."""
    home = _weights.home(site, of_form(form))
    weights = [w.contiguous() for w in weights]
    h0, c0 = _own(h0), _own(c0)
    if mask is None or bool(mask.all()):
        y, h_n, c_n = _autograd.run(
            StackCall(home, x, batch_first=True),
            x,
            h0.unsqueeze(0),
            None if c0 is None else c0.unsqueeze(0),
            weights,
        )
        return y, h_n[0], None if c_n is None else c_n[0]
    return _masked(home, x, h0, c0, weights, mask, hold)


def _own(state):
    """A state as a tensor of its own, which nobody writes to before backward.

    A stateful layer starts from a variable, and writes the last state to it.
    """
    return state.clone() if isinstance(state, torch.nn.Parameter) else state


def _masked(home, x, h0, c0, weights, mask, hold):
    """Run the steps that a mask leaves, as rows of a packed sequence.

    The computed steps of a sequence are moved together, and sequences without any are
    left out, so that what the kernels see is like PyTorch's PackedSequence.
    """
    B, T, _ = x.shape
    H = home.spec.H
    lengths = mask.sum(1)
    order = torch.argsort(lengths, descending=True, stable=True)
    live = order[: int((lengths > 0).sum())]
    y = x.new_zeros(B, T, H)
    if not len(live):
        return y, h0, c0
    batch_sizes = (lengths[live].unsqueeze(1) > torch.arange(int(lengths.max()))).sum(0)
    begins = torch.cumsum(batch_sizes, 0) - batch_sizes
    # How many steps of its sequence are computed up to each step, that step included.
    counts = mask.cumsum(1)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(B)
    # The row of the packed sequence that a step is, or the last row before it.
    place = begins[(counts - 1).clamp(min=0)] + rank.unsqueeze(1)
    source = torch.empty(int(lengths.sum()), dtype=torch.int64)
    at = mask.nonzero()
    source[place[mask]] = at[:, 0] * T + at[:, 1]
    computed = x.reshape(B * T, -1).index_select(0, source)
    packed, h_live, c_live = _autograd.run(
        StackCall(home, computed, batch_sizes=batch_sizes),
        computed,
        h0[live].unsqueeze(0),
        None if c0 is None else c0[live].unsqueeze(0),
        weights,
    )
    shown = counts > 0 if hold else mask
    place = place.clamp(max=len(packed) - 1).flatten()
    y = packed.index_select(0, place).view(B, T, H)
    y = torch.where(shown.unsqueeze(-1), y, 0.0)
    h_n = h0.index_copy(0, live, h_live[0])
    return y, h_n, None if c0 is None else c0.index_copy(0, live, c_live[0])
