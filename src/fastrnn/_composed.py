# SPDX-License-Identifier: BSD-3-Clause
"""Stacks with arithmetic between layers: merged directions, residual, highway.

The kernels run one layer and direction at a time; what is between them is NumPy and the
kernels' linear layer, each element on its own or a product in a fixed order, so results
keep their bits for any number of threads and in any batch.
"""

import numpy as np

from fastrnn._blocks import Blocks
from fastrnn._pool import aligned

MERGE_MODES = ("concat", "sum", "mean", "ave", "mul")
CONNECTIONS = (None, "residual", "highway")


def merge(mode, raw):
    """Outputs of both directions, side by side in `raw`, as one array."""
    if mode == "concat":
        return raw
    one, other = np.split(raw, 2, axis=-1)
    if mode == "mul":
        return one * other
    both = one + other
    if mode != "sum":
        both *= both.dtype.type(0.5)
    return both


def merge_backward(mode, raw, d):
    """Gradient of `raw` from that of what `merge` made of it."""
    if mode == "concat":
        return d
    if mode == "mul":
        one, other = np.split(raw, 2, axis=-1)
        return np.concatenate([d * other, d * one], axis=-1)
    if mode != "sum":
        d = d * d.dtype.type(0.5)
    return np.concatenate([d, d], axis=-1)


class Layers(Blocks):
    """One forward, layer by layer, for its backward; arguments are those of `Blocks`.

    Parameters
    ----------
    training : bool
        Whether a backward will come.
    """

    def __init__(self, layer, plan, use, every, seeds, p, training):
        super().__init__(layer, plan, use, every, seeds, p)
        self._together, self._training = False, training
        self._kept, self._raw, self._sources, self._gates = [], [], [], {}

    def _cells(self, k):
        D = self._layer._directions
        return range(k * D, (k + 1) * D)

    def forward(self, plan, x, h0, c0, y, end):
        """Like `_stack.Stack.forward`; what backward needs stays here."""
        layer = self._layer
        if layer.batch_first:
            x = np.ascontiguousarray(x.swapaxes(0, 1))
        width = layer._h_size * layer._directions
        for k in range(layer.num_layers):
            raw = np.empty((self._T, self._B, width), y.dtype)
            for cell in self._cells(k):
                one = slice(cell, cell + 1)
                start = [None if part is None else part[one] for part in (h0, c0)]
                last = np.empty((end.shape[0], 1, *end.shape[2:]), end.dtype)
                self._run(plan, cell, x, *start, raw, last)
                end[:, one] = last
            out = merge(layer.merge_mode, raw)
            if k > 0 and layer.connection == "residual":
                out = out + x
            elif k > 0 and layer.connection == "highway":
                out = self._highway(plan, k, out, x)
            if self._training:
                self._raw.append(raw)
                self._sources.append(x)
            x = self._drop(plan, k, out) if k < layer.num_layers - 1 else out
        y[...] = x.swapaxes(0, 1) if layer.batch_first else x

    def _run(self, plan, cell, x, h0, c0, y, end):
        if len(self._starts) > 1:
            super()._run(plan, cell, x, h0, c0, y, end)
            return
        *_, block = self._block(plan, 0, cell)
        kept = block.forward(
            self._layer._memory, self._use, x, 0, h0, c0, None, 0.0, y, 0, end,
            self._training,
        )  # fmt: skip
        self._kept.append(kept)

    def backward(self, plan, x, dy, dh_n, dc_n, dx, d_start, flow=None):
        """Like `_stack.Stack.backward`."""
        layer = self._layer
        if dy is None:
            dy = np.zeros(plan.y_shape, dx.dtype)
        if layer.batch_first:
            dy = np.ascontiguousarray(dy.swapaxes(0, 1))
        for k in reversed(range(layer.num_layers)):
            source, raw = self._sources.pop(), self._raw.pop()
            past = None  # what reaches the layer's input on the way around it
            if k > 0 and layer.connection == "residual":
                past = dy
            elif k > 0 and layer.connection == "highway":
                dy, past = self._highway_backward(plan, k, raw, source, dy)
            d_raw = np.ascontiguousarray(merge_backward(layer.merge_mode, raw, dy))
            target = np.empty_like(source)
            for cell in self._cells(k):
                one = slice(cell, cell + 1)
                given = [None if part is None else part[one] for part in (dh_n, dc_n)]
                first = np.empty((d_start.shape[0], 1, *d_start.shape[2:]), dx.dtype)
                self._run_back(
                    plan, cell, source, d_raw, *given, target, first, flow, raw
                )
                d_start[:, one] = first
            if past is not None:
                target += past
            dy = self._drop(plan, k - 1, target) if k > 0 else target
        dx[...] = dy.swapaxes(0, 1) if layer.batch_first else dy

    def _run_back(self, plan, cell, x, dy, dh, dc, dx, d_start, flow, y=None):
        if len(self._starts) > 1:
            super()._run_back(plan, cell, x, dy, dh, dc, dx, d_start, flow)
            return
        layer = self._layer
        *_, block = self._block(plan, 0, cell)
        block.backward(
            layer._memory, self._use, self._kept[cell], x, 0, None, 0.0, y, 0,
            dy, dh, dc, dx, d_start, layer._buffers[1], layer._start,
            flow=flow, flow_at=cell * self._T * self._B,
        )  # fmt: skip
        self._kept[cell] = None

    # -- highway: y = x + t * (h - x), t = sigmoid(x W^T + b) --------------------------

    def _work(self, plan, backward, x):
        n, width = self._T * self._B, x.shape[-1]
        size = plan.kernels.linear_work_size(backward, n, width, width)
        return (plan.n_threads, n, width, width), aligned(size, x.dtype)

    def _highway(self, plan, k, h, x):
        sizes, work = self._work(plan, False, x)
        weight, bias = (
            self._layer._param[f"{name}_gate_l{k}"].copy()
            for name in ("weight", "bias")
        )
        a, t = np.empty_like(x), np.empty_like(x)
        plan.kernels.linear_forward(*sizes, x, weight, bias, a, work)
        plan.kernels.activation(0, a.reshape(-1), t.reshape(-1))
        if self._training:
            self._gates[k] = t, weight  # of this forward, should an optimiser step
        return x + t * (h - x)

    def _highway_backward(self, plan, k, raw, x, d):
        """Gradients of h and of x, and those of the gate's parameters added."""
        t, weight = self._gates.pop(k)
        sizes, work = self._work(plan, True, x)
        one = t.dtype.type(1)
        h = merge(self._layer.merge_mode, raw)
        da = d * (h - x) * t * (one - t)
        dx = np.empty_like(x)
        grads = self._layer._grad
        plan.kernels.linear_backward(
            *sizes, x, weight, da, dx, grads[f"weight_gate_l{k}"],
            grads[f"bias_gate_l{k}"], work,
        )  # fmt: skip
        dx += d * (one - t)
        return d * t, dx
