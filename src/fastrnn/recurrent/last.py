# SPDX-License-Identifier: BSD-3-Clause
"""Inference of last states alone: outputs of all steps are never held at once.

The layer goes through x block after block, and the outputs of one block take the place
of those of the block before. A second direction begins at the end of the sequence. Then
one layer after the other goes through all blocks, and only the last layer's outputs are
dropped.
"""

import numpy as np

from fastrnn.recurrent import states
from fastrnn.recurrent.merging import merge

# Bytes of the buffer that takes the outputs of one block after the other.
_BLOCK_BYTES = 1 << 18


def last_states(runtime, plan, use, x, h0, c0):
    """The last states (n_states, n_cells, B, H) of all cells.

    Parameters
    ----------
    runtime : Runtime
    plan : arrays.ArrayPlan
    use : weights.Use
    x, h0, c0
        As `arrays.ArrayPlan.forward` takes them.
    """
    L, D = runtime.n_layers, runtime.n_directions
    end = np.empty(plan.state_shape, runtime.dtype)
    if D == 1:
        _run_blocks(runtime, plan, use, None, x, h0, c0, None, end)
        return end
    if runtime.layer_by_layer and plan.batch_first:  # single layers are not
        x = np.ascontiguousarray(x.swapaxes(0, 1))
    for k in range(L):
        y = None
        if k < L - 1:
            y = np.empty((*plan.inner_shape, D * runtime.h_size), runtime.dtype)
        for cell in range(k * D, (k + 1) * D):
            one = slice(cell, cell + 1)
            start = [states.of_cells(part, one) for part in (h0, c0)]
            last = np.empty((end.shape[0], 1, *end.shape[2:]), end.dtype)
            _run_blocks(runtime, plan, use, cell, x, *start, y, last)
            end[:, one] = last
        x = None if y is None else merge(runtime.merge_mode, y)
    return end


def _run_blocks(runtime, plan, use, cell, x, h0, c0, y, end):
    """All layers (`cell` is None) or a single cell, over all steps.

    Where `y` is None the outputs are dropped.
    """
    width = runtime.n_directions * runtime.h_size
    every = plan.T
    if y is None:
        row_bytes = plan.B * width * runtime.dtype.itemsize
        every = max(1, min(plan.T, _BLOCK_BYTES // row_bytes))
        y = np.empty(every * plan.B * width, runtime.dtype)
    which = (0, 0) if cell is None else (cell, 1)
    reverse = which[0] % runtime.n_directions
    begins = range(0, plan.T, every)
    for begin in reversed(begins) if reverse else begins:
        stop = min(begin + every, plan.T)
        block = runtime.part_of_plan(plan, begin, stop, *which, y_inside=True)
        if plan.offsets is None or plan.padded:
            x_at = begin * block.x_step
        else:
            x_at = plan.offsets[begin] * block.x_row
        block.forward(runtime.memory, use, x, x_at, h0, c0, None, 0.0, y, 0, end, False)
        h0, c0 = states.split(end)
