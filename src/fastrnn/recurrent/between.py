# SPDX-License-Identifier: BSD-3-Clause
"""Stacks with arithmetic between layers: merged directions, residual, highway.

The kernels run one layer and direction at a time; what is between them is NumPy and the
kernels' linear layer, each element on its own or a product in a fixed order, so results
keep their bits for any number of threads and in any batch.

That arithmetic is done where outputs are: at the steps that are computed, and where the
two directions show different steps side by side (`Places`).
"""

import numpy as np

from fastrnn.native.memory import aligned
from fastrnn.recurrent import ragged
from fastrnn.recurrent.blocks import Blocks

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


def open_gate(kernels, n_threads, x, weight, bias, a, t, work):
    """A highway's ``t = sigmoid(x W^T + b)``; `a` is room for what sigmoid is of."""
    kernels.linear_forward(n_threads, *x.shape, x.shape[1], x, weight, bias, a, work)
    kernels.activation("sigmoid", a.reshape(-1), t.reshape(-1))


def connection(layer, kernels, n_threads, k, B):
    """What goes around layer k of a connected stack, one step at a time.

    Returns
    -------
    callable
        Of arrays (B, S) h and x: h becomes the output, of the bits that `Layers` has.
    """
    if layer.connection == "residual":
        return lambda h, x: np.add(h, x, out=h)
    weight, bias = _gate(layer, k)
    width = layer._y_size
    a, t = (np.empty((B, width), layer.dtype) for _ in range(2))
    size = kernels.linear_work_size(False, B, width, width, n_threads)
    work = aligned(size, layer.dtype)

    def around(h, x):
        open_gate(kernels, n_threads, x, weight, bias, a, t, work)
        np.subtract(h, x, out=h)
        np.multiply(t, h, out=h)
        np.add(x, h, out=h)

    return around


def _gate(layer, k):
    """A copy of weight and bias of the highway around layer k."""
    return [layer._param[f"{name}_gate_l{k}"].copy() for name in ("weight", "bias")]


class Places:
    """Where outputs are merged and connected, if not just at the N computed steps.

    Masked steps that repeat the output before, and a last output, show the two
    directions at different steps: what they make together is at no step of its own.

    Attributes
    ----------
    shown : ndarray of int64, shape (D, M), or None
        Packed row that each place shows, by direction; -1 for zero.
    computed : ndarray of int64, shape (N,)
        Place of each packed row.
    result : ndarray of int64, or None
        Places that y is of, -1 for zero; all of them if None.
    """

    shown = computed = result = None

    @classmethod
    def of(cls, layer, rows, T, B):
        """The `Places` of a call, None where they are the computed steps, in order."""
        D, places = layer._directions, cls()
        if layer.return_sequences:
            if rows is None or len(rows.shown) == 1:
                return None
            places.shown, places.computed = rows.shown, rows.order
            if layer.batch_first:  # sums over places go as if it were not
                places.result = np.arange(T * B).reshape(T, B).T.ravel()
                places.shown = rows.shown[:, np.argsort(places.result)]
                places.computed = places.result[rows.order]
            return places
        if rows is None:  # the second direction's last output is at the first step
            N = T * B
            last = np.stack([np.arange(N - B, N), np.arange(B)])[:D]
        else:
            N, last = rows.n_packed, rows.last_steps(D)
        if D == 1:
            places.result = last[0]
            return places
        places.computed, places.result = np.arange(N), np.arange(N, N + B)
        places.shown = np.concatenate([np.tile(places.computed, (D, 1)), last], axis=1)
        return places


class Layers(Blocks):
    """One forward, layer by layer, for its backward; arguments are those of `Blocks`.

    Parameters
    ----------
    training : bool
        Whether a backward will come.
    places : Places, optional

    Attributes
    ----------
    y_shape : tuple
        Of `forward`'s y.
    """

    def __init__(self, layer, plan, use, every, seeds, p, training, places=None):
        super().__init__(layer, plan, use, every, seeds, p)
        self._together, self._training = False, training
        self._kept, self._raw, self._sources, self._gates = [], [], [], {}
        self._rows = self._T * self._B if plan.offsets is None else plan.offsets[-1]
        self._rows = int(self._rows)
        self._places = places or Places()
        self.y_shape = plan.y_shape
        for several in (self._places.shown, self._places.result):
            if several is not None:
                self.y_shape = (several.shape[-1], plan.y_shape[-1])

    def _cells(self, k):
        D = self._layer._directions
        return range(k * D, (k + 1) * D)

    def _at_places(self, plan, raw):
        """Outputs of both directions, packed, at all places."""
        shown = self._places.shown
        if shown is None:
            return raw
        return ragged.show(plan.kernels, plan.n_threads, raw, shown)

    def _at_steps(self, plan, x):
        """What is at the places of packed rows."""
        computed = self._places.computed
        if computed is None:
            return x
        return ragged.gather(plan.kernels, plan.n_threads, x, computed)

    def forward(self, plan, x, h0, c0, y, end):
        """Like `stack.Stack.forward`; what backward needs stays here."""
        layer = self._layer
        if plan.batch_first:
            x = np.ascontiguousarray(x.swapaxes(0, 1))
        source = x.reshape(self._rows, -1)  # at computed steps; x at all places
        width = layer._h_size * layer._directions
        for k in range(layer.num_layers):
            raw = np.empty((self._rows, width), y.dtype)
            for cell in self._cells(k):
                one = slice(cell, cell + 1)
                start = [None if part is None else part[one] for part in (h0, c0)]
                last = np.empty((end.shape[0], 1, *end.shape[2:]), end.dtype)
                self._run(plan, cell, source, *start, raw, last)
                end[:, one] = last
            out = merge(layer.merge_mode, self._at_places(plan, raw))
            if k > 0 and layer.connection == "residual":
                out = out + x
            elif k > 0 and layer.connection == "highway":
                out = self._highway(plan, k, out, x)
            if self._training:
                self._raw.append(raw)
                self._sources.append((source, x))
            if k < layer.num_layers - 1:
                x = self._drop(plan, k, out)
                source = self._at_steps(plan, x)
        if self._places.result is not None:
            out = ragged.gather(plan.kernels, plan.n_threads, out, self._places.result)
        elif plan.batch_first:
            out = out.reshape(self._T, self._B, -1).swapaxes(0, 1)
        y[...] = out.reshape(y.shape)

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
        """Like `stack.Stack.backward`; may be called again should it fail."""
        layer, shown = self._layer, self._places.shown
        if dy is None:
            dy = np.zeros(self.y_shape, dx.dtype)
        d = self._d_result(plan, dy)
        for k in reversed(range(layer.num_layers)):
            (source, x), raw = self._sources[k], self._raw[k]
            there = self._at_places(plan, raw)
            past = None  # what reaches the layer's input on the way around it
            if k > 0 and layer.connection == "residual":
                past = d
            elif k > 0 and layer.connection == "highway":
                d, past = self._highway_backward(plan, k, there, x, d)
            d_raw = np.ascontiguousarray(merge_backward(layer.merge_mode, there, d))
            if shown is not None:
                d_raw = ragged.add_shown(
                    plan.kernels, plan.n_threads, d_raw, shown, self._rows
                )
            target = np.empty_like(source)
            for cell in self._cells(k):
                one = slice(cell, cell + 1)
                given = [None if part is None else part[one] for part in (dh_n, dc_n)]
                first = np.empty((d_start.shape[0], 1, *d_start.shape[2:]), dx.dtype)
                self._run_back(
                    plan, cell, source, d_raw, *given, target, first, flow, raw
                )
                d_start[:, one] = first
            if k > 0:
                if shown is not None:
                    at_steps, target = target, np.zeros_like(x)
                    target[self._places.computed] = at_steps
                if past is not None:
                    target += past
                d = self._drop(plan, k - 1, target)
        if plan.batch_first:
            target = target.reshape(self._T, self._B, -1).swapaxes(0, 1)
        dx[...] = target.reshape(dx.shape)

    def _d_result(self, plan, dy):
        """Gradient of y at all places."""
        result = self._places.result
        if result is not None:
            shown, some = self._places.shown, result >= 0
            n = self._rows if shown is None else shown.shape[1]
            d = np.zeros((n, dy.shape[-1]), dy.dtype)
            d[result[some]] = dy.reshape(len(result), -1)[some]
            return d
        if plan.batch_first:
            dy = np.ascontiguousarray(dy.swapaxes(0, 1))
        return dy.reshape(-1, dy.shape[-1])

    def _run_back(self, plan, cell, x, dy, dh, dc, dx, d_start, flow, y=None):
        if len(self._starts) > 1:
            super()._run_back(plan, cell, x, dy, dh, dc, dx, d_start, flow)
            return
        layer = self._layer
        *_, block = self._block(plan, 0, cell)
        block.backward(
            layer._memory, self._use, self._kept[cell], x, 0, None, 0.0, y, 0,
            dy, dh, dc, dx, d_start, layer._wanted_grads, layer._start,
            flow=flow, flow_at=cell * self._T * self._B,
        )  # fmt: skip

    # -- highway: y = x + t * (h - x), t = sigmoid(x W^T + b) --------------------------

    def _work(self, plan, backward, x):
        n, width = x.shape
        sizes = n, width, width
        size = plan.kernels.linear_work_size(backward, *sizes, plan.n_threads)
        return (plan.n_threads, *sizes), aligned(size, x.dtype)

    def _highway(self, plan, k, h, x):
        _, work = self._work(plan, False, x)
        weight, bias = _gate(self._layer, k)
        a, t = np.empty_like(x), np.empty_like(x)
        open_gate(plan.kernels, plan.n_threads, x, weight, bias, a, t, work)
        if self._training:
            self._gates[k] = t, weight  # of this forward, should an optimiser step
        return x + t * (h - x)

    def _highway_backward(self, plan, k, raw, x, d):
        """Gradients of h and of x, and those of the gate's parameters added."""
        t, weight = self._gates[k]
        sizes, work = self._work(plan, True, x)
        one = t.dtype.type(1)
        h = merge(self._layer.merge_mode, raw)
        da = d * (h - x) * t * (one - t)
        dx = np.empty_like(x)
        grads = None, None
        if self._layer._trainable:
            names = f"weight_gate_l{k}", f"bias_gate_l{k}"
            grads = [self._layer._grad[name] for name in names]
        plan.kernels.linear_backward(*sizes, x, weight, da, dx, *grads, work)
        dx += d * (one - t)
        return d * t, dx
