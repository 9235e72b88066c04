# SPDX-License-Identifier: BSD-3-Clause
"""Training on long sequences: block by block, states kept instead of the whole tape.

Forward runs every block without a tape and keeps the states that it began with.
Backward takes the last block first: it runs the block again, with a tape that holds
this block only, and goes back through it.  Gradients have the bits of one call.
"""

import numpy as np


class Blocks:
    """One forward in blocks, for its backward.

    The layers of a stack go through a block together where they can. They cannot when a
    second direction has to begin at the end of the sequence, or when dropout between
    layers is one choice over all steps: then layer after layer goes through all blocks,
    and the outputs of inner layers are kept.

    Parameters
    ----------
    layer : RNN, LSTM or GRU
    plan : stack.Stack
        Of the whole sequence.
    use : weights.Use
    every : int
        Steps in a block, less than those of the sequence; the last one may be shorter.
    seeds, p
        The dropout between layers: an int64 array of seeds or None, and a probability.
    """

    def __init__(self, layer, plan, use, every, seeds, p):
        self._layer, self._use = layer, use
        self._seeds, self._p = seeds, p
        self._T, self._B = plan.T, plan.B
        self._parts = {}  # plans of a ragged batch, which no other call needs
        self._starts = range(0, plan.T, every)
        if len(self._starts) > 1:
            use.keep_forward()
        self._together = seeds is None and not layer.bidirectional
        self._inner = []  # outputs of inner layers, where these are not `together`
        self._states = []  # by cell, or once: (blocks, n_states, n_cells, B, H)

    def _block(self, plan, j, cell):
        """Where block j begins in time, x and y; its plan, of all cells or of one."""
        begin = self._starts[j]
        end = min(begin + self._starts.step, self._T)
        which = (0, 0) if cell is None else (cell, 1)
        if which[0] % self._layer._directions:  # runs from the last step to the first
            begin, end = self._T - end, self._T - begin
        if plan.offsets is None:
            block = self._layer._plan_for(
                plan.kernels, plan.n_threads, end - begin, self._B, self._T, *which
            )
            return begin, begin * block.x_step, begin * block.y_step, block
        key = plan.n_threads, begin, end, *which
        block = self._parts.get(key)
        if block is None:
            block = self._parts[key] = plan.part(begin, end, *which)
        if plan.padded:
            return begin, begin * block.x_step, begin * block.y_step, block
        row = plan.offsets[begin]
        return begin, row * block.x_row, row * block.y_row, block

    def _drop(self, plan, k, x):
        """Outputs of inner layer k, or their gradient, after dropout."""
        if self._seeds is None:
            return x
        dropped = np.empty_like(x)
        seed = int(self._seeds[k])
        plan.kernels.dropout(plan.n_threads, seed, self._p, x, dropped)
        return dropped

    # -- forward ----------------------------------------------------------------------

    def forward(self, plan, x, h0, c0, y, end):
        """Like `stack.Stack.forward`; what backward needs stays here."""
        if self._together:
            self._run(plan, None, x, h0, c0, y, end)
            return
        L, D = self._layer.num_layers, self._layer._directions
        for k in range(L):
            out = y
            if k < L - 1:
                out = np.empty((*plan.inner_shape, y.shape[-1]), y.dtype)
            for cell in range(k * D, (k + 1) * D):
                one = slice(cell, cell + 1)
                start = [None if part is None else part[one] for part in (h0, c0)]
                last = np.empty((end.shape[0], 1, *end.shape[2:]), end.dtype)
                self._run(plan, cell, x, *start, out, last)
                end[:, one] = last
            if k < L - 1:
                self._inner.append(out)
                x = self._drop(plan, k, out)

    def _run(self, plan, cell, x, h0, c0, y, end):
        """All blocks, forward."""
        layer = self._layer
        states = np.zeros((len(self._starts), *end.shape), end.dtype)
        for into, part in zip(states[0], (h0, c0), strict=False):
            if part is not None:
                into[...] = part
        for j in range(len(states)):
            _, x_at, y_at, block = self._block(plan, j, cell)
            block.forward(
                layer._memory, self._use,
                x, x_at, states[j, 0], self._c(states[j]), None, 0.0,
                y, y_at, states[j + 1] if j + 1 < len(states) else end,
                False,
            )  # fmt: skip
        self._states.append(states)

    @staticmethod
    def _c(state):
        return state[1] if len(state) == 2 else None

    # -- backward ---------------------------------------------------------------------

    def backward(self, plan, x, dy, dh_n, dc_n, dx, d_start, flow=None):
        """Like `stack.Stack.backward`; may be called again should it fail."""
        if self._together:
            self._run_back(plan, None, x, dy, dh_n, dc_n, dx, d_start, flow)
            return
        L, D = self._layer.num_layers, self._layer._directions
        for k in reversed(range(L)):
            source = x if k == 0 else self._drop(plan, k - 1, self._inner[k - 1])
            target = dx if k == 0 else np.empty_like(source)
            for cell in range(k * D, (k + 1) * D):
                one = slice(cell, cell + 1)
                given = [None if part is None else part[one] for part in (dh_n, dc_n)]
                first = np.empty((d_start.shape[0], 1, *d_start.shape[2:]), dx.dtype)
                self._run_back(plan, cell, source, dy, *given, target, first, flow)
                d_start[:, one] = first
            if k > 0:
                dy = self._drop(plan, k - 1, target)

    def _run_back(self, plan, cell, x, dy, dh, dc, dx, d_start, flow):
        """All blocks, last first, each forward again and then backward."""
        layer, n_blocks = self._layer, len(self._starts)
        states = self._states[cell or 0]
        end, sums = np.empty_like(d_start), None
        results = [d_start, np.empty_like(d_start)]  # block j's is results[j % 2]
        for j in reversed(range(n_blocks)):
            begin, x_at, y_at, block = self._block(plan, j, cell)
            sums = sums or block.take_sums(layer._memory)
            kept = block.forward(
                layer._memory, self._use, x, x_at, states[j, 0], self._c(states[j]),
                None, 0.0, None, 0, end, True,
            )  # fmt: skip
            block.backward(
                layer._memory, self._use, kept, x, x_at, None, 0.0, None, y_at,
                dy, dh, dc, dx, results[j % 2], layer._wanted_grads, layer._start,
                sums, j < n_blocks - 1, j > 0,
                flow, ((cell or 0) * plan.length + begin) * self._B,
            )  # fmt: skip
            dh, dc = results[j % 2][0], self._c(results[j % 2])
