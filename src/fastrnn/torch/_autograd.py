# SPDX-License-Identifier: BSD-3-Clause
"""The kernels as one differentiable function of PyTorch's autograd."""

import torch

from fastrnn.torch import _again, _compat, _path, _stack


class _Recurrence(torch.autograd.Function):
    """A stack of layers as one node of autograd's graph.

    Backward raises if x, an initial state or a weight was written to after forward, as
    it does for PyTorch's own operators, which save these tensors, too. Most of
    PyTorch's operators do not save their output, so users may write to it. The kernels
    do need y in backward: where it was written to, backward computes it again.
    """

    @staticmethod
    def forward(ctx, call, x, h0, c0, *weights):
        y, h_n, c_n, kept = _stack.forward(call, x, h0, c0, weights, True)
        returned = _as_input(call, y)
        ctx.set_materialize_grads(False)
        ctx.call = call
        ctx.y_writes = _WriteCounter(returned)
        # y.data shares the memory of y but has a count of writes of its own. Saved so,
        # a y that was written to does not make PyTorch raise before backward can look.
        ctx.save_for_backward(x, h0, c0, *weights, y.data, *kept)
        return tuple([t for t in (returned, h_n, c_n) if t is not None])

    @staticmethod
    def backward(ctx, dy, *dstates):
        call, wanted = ctx.call, ctx.needs_input_grad[1:]
        if dy is None and all(d is None for d in dstates):
            return (None,) * (1 + len(wanted))
        if call.batch_first and dy is not None:
            dy = dy.transpose(0, 1)
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


def _as_input(call, y):
    """The outputs y in the order of axes of the input, as a tensor that is no view.

    PyTorch treats a view that is written to in ways of its own: hooks of the view are
    lost, as are those by which `fully_shard` gathers weights for backward, and a view
    that was made without gradients must not be written to with gradients.
    """
    return y.transpose(0, 1).data if call.batch_first else y


class _WriteCounter:
    """Tells whether a tensor was written to after the counter was made.

    PyTorch counts the writes to a tensor and to all of its views together, and a
    detached tensor shares the count. The counter keeps a detached tensor whose memory
    was replaced by an empty one: it must not keep the memory of y alive, which
    PyTorch's activation checkpoints free between forward and backward.
    """

    __slots__ = ("_at_first", "_tensor")

    def __init__(self, tensor):
        self._tensor = tensor.detach()
        self._tensor.data = _NOTHING[tensor.dtype]
        self._at_first = tensor._version

    def found(self):
        """Whether there were writes since the counter was made."""
        return self._tensor._version != self._at_first


_NOTHING = {dtype: torch.empty(0, dtype=dtype) for dtype in _path.DTYPES}
_apply = _compat.apply_of(_Recurrence)


def run(call, x, h0, c0, weights, requires_grad=None):
    """Run forward on the kernels, and record it for autograd if a gradient is needed.

    Parameters
    ----------
    call : StackCall
    x : Tensor, shape (T, B, I), (B, T, I), (N, I) or (B, I)
    h0, c0 : Tensor or None
    weights : sequence of Tensor
        In PyTorch's flat order, contiguous.
    requires_grad : bool, optional
        Whether any of the tensors requires a gradient; looked up if not given.

    Returns
    -------
    y, h_n, c_n
        As of `_stack.forward`, but that y has the order of axes of x.
    """
    if requires_grad is None:
        tensors = (x, h0, c0, *weights)
        requires_grad = any(t is not None and t.requires_grad for t in tensors)
    if requires_grad and torch.is_grad_enabled():
        return call.as_outputs(*_apply(call, x, h0, c0, *weights))
    y, h_n, c_n, _ = _stack.forward(call, x, h0, c0, weights, False)
    return _as_input(call, y), h_n, c_n
