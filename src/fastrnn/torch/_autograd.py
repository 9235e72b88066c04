# SPDX-License-Identifier: BSD-3-Clause
"""The kernels as a function that autograd knows."""

import torch

from fastrnn.torch import _again, _compat, _path, _stack


class _Recurrence(torch.autograd.Function):
    """A stack of layers: one node of the graph.

    Writing to x, a state or a weight before backward raises, as with PyTorch's own
    operators, which save these, too. Those do not need their output, for the most part,
    and a user may write to it: backward then computes it again.
    """

    @staticmethod
    def forward(ctx, call, x, h0, c0, *weights):
        y, h_n, c_n, kept = _stack.forward(call, x, h0, c0, weights, True)
        ctx.set_materialize_grads(False)
        ctx.call = call
        ctx.y_writes = _WriteCounter(y)
        # What is saved shares y's memory, not its count of writes.
        ctx.save_for_backward(x, h0, c0, *weights, y.data, *kept)
        return tuple([t for t in (y, h_n, c_n) if t is not None])

    @staticmethod
    def backward(ctx, dy, *dstates):
        call, wanted = ctx.call, ctx.needs_input_grad[1:]
        if dy is None and all(d is None for d in dstates):
            return (None,) * (1 + len(wanted))
        gradients = call.as_outputs(dy, *dstates)
        x, h0, c0, *weights_and_kept = ctx.saved_tensors
        stop = len(call.spec.shapes)
        weights, (y, *kept) = weights_and_kept[:stop], weights_and_kept[stop:]
        if torch.is_grad_enabled() or _path.gradients_problem(gradients, x.dtype):
            noises = _stack.unpack_kept(call, x, y, kept)[2]
            found = _again.backward(call, x, h0, c0, weights, noises, gradients, wanted)
        else:
            if ctx.y_writes.found():
                y = _stack.last_output_again(call, x, h0, c0, kept, weights)
            found = _stack.backward(call, x, h0, y, kept, weights, gradients, wanted)
        return None, *found


class _WriteCounter:
    """Knows whether somebody has written to a tensor, or to a view of it, since then.

    It holds the tensor's count of writes, not its memory, which PyTorch's checkpoints
    would wait for.
    """

    __slots__ = ("_at_first", "_tensor")

    def __init__(self, tensor):
        self._tensor = tensor.detach()
        self._tensor.data = _NOTHING[tensor.dtype]
        self._at_first = tensor._version

    def found(self):
        """Whether there were writes."""
        return self._tensor._version != self._at_first


_NOTHING = {dtype: torch.empty(0, dtype=dtype) for dtype in _path.DTYPES}
_apply = _compat.apply_of(_Recurrence)


def run(call, x, h0, c0, weights, requires_grad=None):
    """y, h_n and c_n as of `_stack.forward`, recorded for autograd where that is asked.

    Parameters
    ----------
    call : Call
    x : Tensor, shape (T, B, I), (B, T, I), (N, I) or (B, I)
    h0, c0 : Tensor or None
    weights : sequence of Tensor
        In PyTorch's flat order, contiguous.
    requires_grad : bool, optional
        Whether any of the tensors does; looked up if not given.
    """
    if requires_grad is None:
        tensors = (x, h0, c0, *weights)
        requires_grad = any(t is not None and t.requires_grad for t in tensors)
    if requires_grad and torch.is_grad_enabled():
        return call.as_outputs(*_apply(call, x, h0, c0, *weights))
    return _stack.forward(call, x, h0, c0, weights, False)[:3]
