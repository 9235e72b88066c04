# SPDX-License-Identifier: BSD-3-Clause
"""The kernels as a function that autograd knows."""

import torch

from fastrnn.torch import _again, _stack


class _Recurrence(torch.autograd.Function):
    """A stack of layers: one node of the graph.

    What is saved is saved for backward as PyTorch's own operators do it, so writing to
    x, a state, a weight or y before backward raises.
    """

    @staticmethod
    def forward(ctx, call, x, h0, c0, *weights):
        y, h_n, c_n, kept = _stack.forward(call, x, h0, c0, weights, True)
        ctx.set_materialize_grads(False)
        ctx.call = call
        ctx.save_for_backward(x, h0, c0, *weights, y, *kept)
        return tuple([t for t in (y, h_n, c_n) if t is not None])

    @staticmethod
    def backward(ctx, *gradients):
        call, wanted = ctx.call, ctx.needs_input_grad[1:]
        if all(g is None for g in gradients):
            return (None,) * (len(wanted) + 1)
        gradients = call.as_outputs(gradients)
        stop = 3 + len(call.spec.shapes)
        saved = ctx.saved_tensors
        x, h0, c0, *weights = saved[:stop]
        y, *kept = saved[stop:]
        if torch.is_grad_enabled():
            noises = _stack.unpack_kept(call, x, y, kept)[2]
            found = _again.backward(call, x, h0, c0, weights, noises, gradients, wanted)
        else:
            found = _stack.backward(call, x, h0, y, kept, weights, gradients, wanted)
        return None, *found


def run(call, x, h0, c0, weights):
    """y, h_n and c_n as of `_stack.forward`, recorded for autograd where that is asked.

    Parameters
    ----------
    call : Call
    x : Tensor, shape (T, B, I), (B, T, I), (N, I) or (B, I)
    h0, c0 : Tensor or None
    weights : sequence of Tensor
        In PyTorch's flat order, contiguous.
    """
    if torch.is_grad_enabled():
        for tensor in (x, h0, c0, *weights):
            if tensor is not None and tensor.requires_grad:
                return call.as_outputs(_Recurrence.apply(call, x, h0, c0, *weights))
    return _stack.forward(call, x, h0, c0, weights, False)[:3]
