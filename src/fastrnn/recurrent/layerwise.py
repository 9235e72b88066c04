# SPDX-License-Identifier: BSD-3-Clause
"""Stacks with arithmetic between layers: merged directions, residual, highway.

The kernels know nothing of that arithmetic. Here they run one layer and direction at a
time, and `merging` and `connections` do what is between them.
"""

import numpy as np

from fastrnn.recurrent import gathering
from fastrnn.recurrent.blocks import Blocks
from fastrnn.recurrent.connections import Highway
from fastrnn.recurrent.merging import merge, merge_backward


class OutputPositions:
    """Where a layer's outputs are merged and connected, if not at the computed steps.

    In most calls the output of a layer belongs to the step that computed it, and is
    merged and connected there. It is different in two cases: at a masked step each
    direction repeats its own output before, and the last outputs of two directions are
    those of the last and of the first step. Such an output consists of what different
    steps computed. The layer above is connected around that output, and so on up to the
    last layer. Each layer therefore has M output positions, of which N are those of the
    computed steps.

    Attributes
    ----------
    shown : ndarray of int64, shape (D, M), or None
        Computed step whose output each position has, for each direction; -1 for zero.
        None if the positions are the computed steps.
    computed : ndarray of int64, shape (N,), or None
        Position of each computed step; None as above.
    result : ndarray of int64, or None
        Positions that the call's y consists of, -1 for zero; None for all of them.
    """

    def __init__(self, shown=None, computed=None, result=None):
        self.shown, self.computed, self.result = shown, computed, result

    @classmethod
    def of_sequences(cls, rows):
        """Those of a call that returns the outputs of all steps.

        Parameters
        ----------
        rows : Rows or None
            The rows that are computed; None for all steps.
        """
        if rows is None or len(rows.shown) == 1:
            return cls()
        if not rows.batch_first:
            return cls(rows.shown, rows.order)
        # Sums over positions have one order, whatever the layout: that of time first.
        result = np.arange(rows.T * rows.B).reshape(rows.T, rows.B).T.ravel()
        return cls(rows.shown[:, np.argsort(result)], result[rows.order], result)

    @classmethod
    def of_last_outputs(cls, rows, T, B, D):
        """Those of a call that returns the last output of each of B sequences."""
        if rows is None:  # the second direction's last output is at the first step
            N = T * B
            last = np.stack([np.arange(N - B, N), np.arange(B)])[:D]
        else:
            N, last = rows.n_steps, rows.last_steps(D)
        if D == 1:
            return cls(result=last[0])
        computed = np.arange(N)
        shown = np.concatenate([np.tile(computed, (D, 1)), last], axis=1)
        return cls(shown, computed, np.arange(N, N + B))


class LayerByLayer(Blocks):
    """One forward that goes layer by layer, for its backward.

    Parameters
    ----------
    runtime, plan, use, every, seeds, p, draw
        As of `Blocks`; `every` may be all steps.
    training : bool
        Whether a backward will come.
    positions : OutputPositions

    Attributes
    ----------
    y_shape : tuple
        Shape of the y that `forward` writes.
    """

    def __init__(self, runtime, plan, use, every, seeds, p, draw, training, positions):
        super().__init__(runtime, plan, use, every, seeds, p, draw)
        self._together, self._training = False, training
        self._kept = []  # of each cell, if the sequence is one block
        self._raw = []  # of each layer, its outputs before they are merged
        self._inputs = []  # of each layer, at the computed steps and at all positions
        self._highways = {}  # by layer
        self._n_steps = self._T * self._B
        if plan.offsets is not None:
            self._n_steps = int(plan.offsets[-1])
        self._positions = positions
        self.y_shape = plan.y_shape
        for several in (positions.shown, positions.result):
            if several is not None:
                self.y_shape = (several.shape[-1], plan.y_shape[-1])

    def _to_positions(self, plan, raw):
        """A layer's outputs at all positions, from those of the computed steps."""
        shown = self._positions.shown
        if shown is None:
            return raw
        return gathering.gather_directions(plan, raw, shown)

    def _at_steps(self, plan, x):
        """A layer's input at the computed steps, from that at all positions."""
        computed = self._positions.computed
        return x if computed is None else gathering.gather(plan, x, computed)

    # -- forward ----------------------------------------------------------------------

    def forward(self, plan, x, h0, c0, y, end):
        """Run all layers; the arguments are those of `arrays.ArrayPlan.forward`.

        What backward needs stays in this object.
        """
        runtime = self._runtime
        if plan.batch_first:
            x = np.ascontiguousarray(x.swapaxes(0, 1))
        at_steps = x.reshape(self._n_steps, -1)  # while x is at all positions
        width = runtime.h_size * runtime.n_directions
        for k in range(runtime.n_layers):
            raw = np.empty((self._n_steps, width), y.dtype)
            self._run_layer(plan, k, at_steps, h0, c0, raw, end)
            out = merge(runtime.merge_mode, self._to_positions(plan, raw))
            if k > 0:
                out = self._connect(plan, k, out, x)
            if self._training:
                self._raw.append(raw)
                self._inputs.append((at_steps, x))
            if k < runtime.n_layers - 1:
                x = self._drop(plan, k, out)
                at_steps = self._at_steps(plan, x)
        if self._positions.result is not None:
            out = gathering.gather(plan, out, self._positions.result)
        elif plan.batch_first:
            out = out.reshape(self._T, self._B, -1).swapaxes(0, 1)
        y[...] = out.reshape(y.shape)

    def _connect(self, plan, k, out, x):
        """The output of layer k with its input x added, as its connection says."""
        if self._runtime.connection == "residual":
            return out + x
        if self._runtime.connection == "highway":
            highway = Highway(self._runtime, k)
            if self._training:
                self._highways[k] = highway
            return highway.forward(plan, out, x)
        return out

    def _run(self, plan, cell, x, h0, c0, y, end):
        if len(self._begins) > 1:
            super()._run(plan, cell, x, h0, c0, y, end)
            return
        *_, block = self._block(plan, 0, cell)
        kept = block.forward(
            self._runtime.memory, self._use, x, 0, h0, c0, None, 0.0, y, 0, end,
            self._training, self._draw,
        )  # fmt: skip
        self._kept.append(kept)

    # -- backward ---------------------------------------------------------------------

    def backward(self, plan, x, dy, dh_n, dc_n, dx, d_start, grads, flow=None):
        """Back-propagate through all layers; see `Blocks.backward`."""
        runtime, shown = self._runtime, self._positions.shown
        if dy is None:
            dy = np.zeros(self.y_shape, dx.dtype)
        d = self._dy_at_positions(plan, dy)
        for k in reversed(range(runtime.n_layers)):
            (at_steps, x), raw = self._inputs[k], self._raw[k]
            there = self._to_positions(plan, raw)
            around = None  # what reaches the layer's input on the way around the layer
            if k > 0 and runtime.connection == "residual":
                around = d
            elif k > 0 and runtime.connection == "highway":
                merged = merge(runtime.merge_mode, there)
                d, around = self._highways[k].backward(
                    plan, runtime, merged, x, d, grads is not None
                )
            d_raw = np.ascontiguousarray(merge_backward(runtime.merge_mode, there, d))
            if shown is not None:
                d_raw = gathering.add_directions(plan, d_raw, shown, self._n_steps)
            target = np.empty_like(at_steps)
            self._run_layer_back(
                plan, k, at_steps, raw, d_raw, dh_n, dc_n, target, d_start, grads, flow
            )
            if k > 0:
                if shown is not None:
                    of_steps, target = target, np.zeros_like(x)
                    target[self._positions.computed] = of_steps
                if around is not None:
                    target += around
                d = self._drop(plan, k - 1, target)
        if plan.batch_first:
            target = target.reshape(self._T, self._B, -1).swapaxes(0, 1)
        dx[...] = target.reshape(dx.shape)

    def _dy_at_positions(self, plan, dy):
        """Gradient of the last layer's outputs at all positions, from that of y."""
        result = self._positions.result
        if result is not None:
            shown, some = self._positions.shown, result >= 0
            n = self._n_steps if shown is None else shown.shape[1]
            d = np.zeros((n, dy.shape[-1]), dy.dtype)
            d[result[some]] = dy.reshape(len(result), -1)[some]
            return d
        if plan.batch_first:
            dy = np.ascontiguousarray(dy.swapaxes(0, 1))
        return dy.reshape(-1, dy.shape[-1])

    def _run_back(self, plan, cell, x, dy, dh, dc, dx, d_start, grads, flow, y=None):
        if len(self._begins) > 1:
            super()._run_back(plan, cell, x, dy, dh, dc, dx, d_start, grads, flow)
            return
        runtime = self._runtime
        *_, block = self._block(plan, 0, cell)
        block.backward(
            runtime.memory, self._use, self._kept[cell], x, 0, None, 0.0, y, 0,
            dy, dh, dc, dx, d_start, grads, runtime.start,
            flow=flow, flow_at=cell * self._T * self._B, draw=self._draw,
        )  # fmt: skip
