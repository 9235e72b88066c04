# SPDX-License-Identifier: BSD-3-Clause
"""The kernels as operators that PyTorch's compiler sees whole: ``fastrnn::recurrence``.

Eager calls do not come here: a dispatcher call costs more than the autograd function.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from fastrnn import _tensors
from fastrnn.torch import _stack, _weights
from fastrnn.torch._memory import kernels
from fastrnn.torch._spec import spec


def _call(x, weights, mode, num_layers, bidirectional, batch_first, single, dropout):
    """The `Call` that an operator's arguments stand for."""
    n_cells = num_layers * (2 if bidirectional else 1)
    (GH, I), S = weights[0].shape, weights[1].shape[1]
    per_cell = len(weights) // n_cells
    projected = per_cell % 2 == 1
    H = GH // 4 if projected else S
    which = spec(
        mode, I, H, num_layers, per_cell > 3, bidirectional, S if projected else 0
    )
    if isinstance(x, FakeTensor):
        home = _weights.Home(which)  # for the sizes only
    else:
        home = _weights.home(
            weights[0].untyped_storage(), which, weights[0].storage_offset()
        )
    return _stack.Call(home, x, batch_first, dropout, single=single)


@torch.library.custom_op(
    "fastrnn::recurrence",
    mutates_args=(),
    device_types="cpu",
    tags=[torch.Tag.nondeterministic_seeded],  # dropout
)
def recurrence(
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    mode: str,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    single: bool,
    dropout: float,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """y, h_n, c_n and what backward needs; what a cell does not have is empty."""
    weights = [w.contiguous() for w in weights]
    call = _call(
        x, weights, mode, num_layers, bidirectional, batch_first, single, dropout
    )
    y, h_n, c_n, kept = _stack.forward(call, x, h0, c0, weights, keep)
    nothing = [x.new_empty(0) if part is None else part for part in (h_n, c_n)]
    return y, *nothing, kept


@recurrence.register_fake
def _(
    x,
    h0,
    c0,
    weights,
    mode,
    num_layers,
    bidirectional,
    batch_first,
    single,
    dropout,
    keep,
):
    call = _call(
        x, weights, mode, num_layers, bidirectional, batch_first, single, dropout
    )
    which = call.spec
    outputs = [call.new_outputs(x) for _ in range(num_layers)]
    h_n = x.new_empty(0 if single else call.state_shape(which.S))
    c_n = x.new_empty(call.state_shape(which.H) if which.has_c else 0)
    kept = []
    if keep:
        for y in outputs[:-1]:
            kept += [y, y.clone(), y.clone()] if dropout else [y]
        row = _tensors.Plan(kernels(x.dtype), which.layout, 1, 1).tape_size
        if row:
            kept.append(x.new_empty(call.T * call.B * row))
    return outputs[-1], h_n, c_n, kept


@torch.library.custom_op(
    "fastrnn::recurrence_backward", mutates_args=(), device_types="cpu"
)
def recurrence_backward(
    x: Tensor,
    h0: Tensor | None,
    weights: Sequence[Tensor],
    y: Tensor,
    kept: Sequence[Tensor],
    dy: Tensor | None,
    dh_n: Tensor | None,
    dc_n: Tensor | None,
    wanted: Sequence[bool],
    mode: str,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    single: bool,
    dropout: float,
) -> list[Tensor]:
    """The gradients that `wanted` asks for: of x, h0, c0 and the weights."""
    weights = [w.contiguous() for w in weights]
    call = _call(
        x, weights, mode, num_layers, bidirectional, batch_first, single, dropout
    )
    call.prepare(x, weights, _stack.n_threads(), False, True)
    found = _stack.backward(call, x, h0, y, kept, weights, (dy, dh_n, dc_n), wanted)
    return [d for d in found if d is not None]


@recurrence_backward.register_fake
def _(
    x,
    h0,
    weights,
    y,
    kept,
    dy,
    dh_n,
    dc_n,
    wanted,
    mode,
    num_layers,
    bidirectional,
    batch_first,
    single,
    dropout,
):
    call = _call(
        x, weights, mode, num_layers, bidirectional, batch_first, single, dropout
    )
    found = [call.new_gradient(x)]
    found += [x.new_empty(call.state_shape(n)) for n in (call.spec.S, call.spec.H)]
    found += [w.new_empty(w.shape) for w in weights]
    return [d for d, want in zip(found, wanted, strict=True) if want]


def _save(ctx, inputs, output):
    x, h0, _, weights, *ctx.options, keep = inputs
    y, _, _, kept = output
    if not keep:
        raise RuntimeError("fastrnn::recurrence: keep must be True under autograd")
    ctx.n_weights = len(weights)
    if ctx.options[4]:
        # A loop over cells may write to the state, and a compiler's graph cannot run
        # the step again only where it does. States are small; most compilers see that
        # nobody needs this copy where nobody writes.
        y = y.clone()
    ctx.save_for_backward(x, h0, y, *weights, *kept)
    ctx.set_materialize_grads(False)


def _differentiate(ctx, dy, dh_n, dc_n, _):
    x, h0, y, *rest = ctx.saved_tensors
    weights, kept = rest[: ctx.n_weights], rest[ctx.n_weights :]
    want_x, want_h0, want_c0, want_weights = ctx.needs_input_grad[:4]
    wanted = [want_x, want_h0, want_c0, *want_weights]
    found = iter(
        recurrence_backward(
            x, h0, weights, y, kept, dy, dh_n, dc_n, wanted, *ctx.options
        )
    )
    dx, dh0, dc0, *dweights = [next(found) if want else None for want in wanted]
    return dx, dh0, dc0, dweights, *[None] * 7


recurrence.register_autograd(_differentiate, setup_context=_save)
