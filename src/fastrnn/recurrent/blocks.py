# SPDX-License-Identifier: BSD-3-Clause
"""Training on long sequences block by block: states are kept instead of the tape.

The forward runs every block without a tape and keeps the states that each block began
with. The backward takes the last block first: it runs that block again, with a tape of
this block only, and goes back through it. The gradients have the bits that one call for
the whole sequence gives.
"""

import numpy as np

from fastrnn.nn import joint
from fastrnn.recurrent import states


class Blocks:
    """One forward in blocks, which its backward runs again.

    All layers of a stack go through a block together where that is possible. It is not
    when a second direction has to begin at the end of the sequence, or when dropout
    between layers is one choice over all steps. Then one layer after the other goes
    through all blocks, and the outputs of inner layers are kept.

    Parameters
    ----------
    runtime : Runtime
    plan : arrays.ArrayPlan
        Of the whole sequence.
    use : weights.Use
        The packed weights of this forward.
    every : int
        Steps in a block, fewer than those of the sequence; the last block may be
        shorter.
    seeds, p
        The dropout between layers: an int64 array with a seed for each inner layer, or
        None for no dropout, and the probability.
    draw : draws.Draw or None
        What the cells draw.
    """

    def __init__(self, runtime, plan, use, every, seeds, p, draw):
        self._runtime, self._use, self._draw = runtime, use, draw
        self._seeds, self._p = seeds, p
        self._T, self._B = plan.T, plan.B
        self._parts = {}  # plans of a ragged batch's blocks, which no other call needs
        self._begins = range(0, plan.T, every)
        if len(self._begins) > 1:
            use.keep_forward()
        self._together = seeds is None and runtime.n_directions == 1
        self._inner = []  # outputs of inner layers, unless layers run together
        # The states that blocks begin with, (blocks, n_states, n_cells, B, H): one
        # array for each cell, or one for all if layers run together.
        self._first_states = []

    def _block(self, plan, j, cell):
        """Block j of all cells (`cell` is None) or of one.

        Returns
        -------
        begin : int
            Its first step.
        x_at, y_at : int
            The elements of x and of y with which it begins.
        block : arrays.ArrayPlan
        """
        begin = self._begins[j]
        end = min(begin + self._begins.step, self._T)
        which = (0, 0) if cell is None else (cell, 1)
        if which[0] % self._runtime.n_directions:  # from the last step to the first
            begin, end = self._T - end, self._T - begin
        if plan.offsets is None:
            block = self._runtime.part_of_plan(plan, begin, end, *which)
            return begin, begin * block.x_step, begin * block.y_step, block
        key = plan.n_threads, begin, end, *which
        block = self._parts.get(key)
        if block is None:
            block = self._runtime.part_of_plan(plan, begin, end, *which)
            self._parts[key] = block
        if plan.padded:
            return begin, begin * block.x_step, begin * block.y_step, block
        row = plan.offsets[begin]
        return begin, row * block.x_row, row * block.y_row, block

    def _draw_of(self, plan, begin):
        """What a block draws that begins with step `begin` of the plan."""
        if self._draw is None:
            return None
        places = plan.offsets is not None and not plan.padded
        return self._draw.part(begin, int(plan.offsets[begin]) if places else 0)

    def _drop(self, plan, k, x):
        """Outputs of inner layer k, or their gradient, after dropout."""
        if self._seeds is None:
            return x
        dropped = np.empty_like(x)
        width = x.size // (self._T * self._B)
        seed, place = joint.choices_of_steps(int(self._seeds[k]), self._B, width)
        plan.kernels.dropout(plan.n_threads, seed, self._p, x, dropped, *place)
        return dropped

    def _cells(self, k):
        """The cells of layer k, one for each direction."""
        D = self._runtime.n_directions
        return range(k * D, (k + 1) * D)

    # -- forward ----------------------------------------------------------------------

    def forward(self, plan, x, h0, c0, y, end):
        """Run all blocks; the arguments are those of `arrays.ArrayPlan.forward`.

        What backward needs stays in this object.
        """
        if self._together:
            self._run(plan, None, x, h0, c0, y, end)
            return
        L = self._runtime.n_layers
        width = self._runtime.n_directions * self._runtime.h_size
        for k in range(L):
            out = y
            if k < L - 1:
                out = np.empty((*plan.inner_shape, width), y.dtype)
            self._run_layer(plan, k, x, h0, c0, out, end)
            if k < L - 1:
                self._inner.append(out)
                x = self._drop(plan, k, out)

    def _run_layer(self, plan, k, x, h0, c0, y, end):
        """Layer k, one direction after the other."""
        for cell in self._cells(k):
            one = slice(cell, cell + 1)
            start = [states.of_cells(part, one) for part in (h0, c0)]
            last = np.empty((end.shape[0], 1, *end.shape[2:]), end.dtype)
            self._run(plan, cell, x, *start, y, last)
            end[:, one] = last

    def _run(self, plan, cell, x, h0, c0, y, end):
        """All cells (`cell` is None) or a single one, through all blocks."""
        firsts = np.zeros((len(self._begins), *end.shape), end.dtype)
        for into, part in zip(firsts[0], states.listed(h0, c0), strict=False):
            if part is not None:
                into[...] = part
        for j in range(len(firsts)):
            begin, x_at, y_at, block = self._block(plan, j, cell)
            block.forward(
                self._runtime.memory, self._use,
                x, x_at, *states.split(firsts[j]), None, 0.0,
                y, y_at, firsts[j + 1] if j + 1 < len(firsts) else end,
                False, self._draw_of(plan, begin),
            )  # fmt: skip
        self._first_states.append(firsts)

    # -- backward ---------------------------------------------------------------------

    def backward(self, plan, x, dy, dh_n, dc_n, dx, d_start, grads, flow=None):
        """Back-propagate through all blocks; see `arrays.ArrayPlan.backward`.

        `grads` is the layer's flat buffer, or None where nobody wants the parameters'
        gradients. After a failure this method may be called again.
        """
        if self._together:
            self._run_back(plan, None, x, dy, dh_n, dc_n, dx, d_start, grads, flow)
            return
        for k in reversed(range(self._runtime.n_layers)):
            source = x if k == 0 else self._drop(plan, k - 1, self._inner[k - 1])
            target = dx if k == 0 else np.empty_like(source)
            self._run_layer_back(
                plan, k, source, None, dy, dh_n, dc_n, target, d_start, grads, flow
            )
            if k > 0:
                dy = self._drop(plan, k - 1, target)

    def _run_layer_back(self, plan, k, x, y, dy, dh_n, dc_n, dx, d_start, grads, flow):
        """Layer k backward, one direction after the other; `y` may be None."""
        for cell in self._cells(k):
            one = slice(cell, cell + 1)
            given = [states.of_cells(part, one) for part in (dh_n, dc_n)]
            first = np.empty((d_start.shape[0], 1, *d_start.shape[2:]), dx.dtype)
            self._run_back(plan, cell, x, dy, *given, dx, first, grads, flow, y)
            d_start[:, one] = first

    def _run_back(self, plan, cell, x, dy, dh, dc, dx, d_start, grads, flow, y=None):
        """All blocks, the last first, each forward again and then backward."""
        runtime, n_blocks = self._runtime, len(self._begins)
        firsts = self._first_states[cell or 0]
        end, handed_on = np.empty_like(d_start), None
        results = [d_start, np.empty_like(d_start)]  # block j's is results[j % 2]
        for j in reversed(range(n_blocks)):
            begin, x_at, y_at, block = self._block(plan, j, cell)
            handed_on = handed_on or block.take_block(runtime.memory)
            draw = self._draw_of(plan, begin)
            kept = block.forward(
                runtime.memory, self._use, x, x_at, *states.split(firsts[j]),
                None, 0.0, None, 0, end, True, draw,
            )  # fmt: skip
            block.backward(
                runtime.memory, self._use, kept, x, x_at, None, 0.0, None, y_at,
                dy, dh, dc, dx, results[j % 2], grads, runtime.start,
                handed_on, j > 0, flow, ((cell or 0) * plan.length + begin) * self._B,
                draw,
            )  # fmt: skip
            dh, dc = states.split(results[j % 2])
