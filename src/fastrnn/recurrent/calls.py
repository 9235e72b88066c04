# SPDX-License-Identifier: BSD-3-Clause
"""Calls of a recurrent layer that compute some steps only, or return the last only.

`ragged` says which rows the kernels run.  Here the steps that are computed are gathered
from x, the layer runs on them packed, whatever its depth, and y is gathered back.
Gradients take the same ways in the other direction.
"""

import dataclasses

import numpy as np

from fastrnn.native import core, threads
from fastrnn.native.stack import Stack
from fastrnn.nn.module import Context
from fastrnn.recurrent import ragged, states
from fastrnn.recurrent.between import Places, merge, merge_backward
from fastrnn.util import checks

# Outputs that are not returned: bytes of the buffer that takes them block after block.
_BLOCK_BYTES = 1 << 18


@dataclasses.dataclass
class Call:
    """What backward needs of one forward."""

    plan: object  # of packed rows; None when there are none
    rows: object  # or None: all steps
    saved: tuple | None  # what `_Recurrent._run` saved
    sizes: tuple  # (T, B)
    unbatched: bool
    sequences: bool  # y was all outputs, not the last ones
    learned: list  # initial states that are parameters
    last: object  # outputs of the last steps, not merged, (B, D * S), where these are y


def forward(layer, x, hx, lengths, mask, resets, zero_output):
    """`_Recurrent.forward` where it is not all steps from a given state."""
    who = type(layer).__name__
    kernels, n_threads = core.kernels(layer.dtype), threads.for_kernel()
    x, unbatched = layer._sequences(who, "x", x, "input_size", layer.input_size)
    T, B = x.shape[1::-1] if layer.batch_first else x.shape[:2]
    rows = ragged.arrange(
        who, layer, T, B, unbatched, lengths, mask, resets, zero_output
    )
    if hx is None and layer.stateful and layer.state is not None:
        start = _state_before(who, layer, B)
    else:
        names = ("h0", "c0") if layer._states == 2 else ("hx",)
        start = layer._state(who, names, hx, B, unbatched)
    learned = []
    if layer.learn_initial_state:
        *start, learned = states.start(layer, *_pair(start), B)
        start = start[: layer._states]

    y, end, plan, saved, places, last = None, None, None, None, None, None
    from_end = not (layer.return_sequences or layer.connection)
    if rows is None:
        plan = layer._plan_for(kernels, n_threads, T, B)
    elif rows.n_packed:
        from_rows = [_states_in(part, rows) for part in start]
        if rows.padded:
            where = {"padded": True, "length": T, "batch_first": layer.batch_first}
        else:
            x, where = ragged.gather(kernels, n_threads, x, rows.order), {}
        plan = Stack(
            kernels, n_threads, layer._layout, len(rows.offsets) - 1, rows.n_rows,
            offsets=rows.offsets, **where,
        )  # fmt: skip
        start = from_rows
    if plan is None:
        end = _no_states(layer, rows.n_rows)
        for into, part in zip(end, start, strict=True):
            if part is not None:
                into[...] = _states_in(part, rows)
    elif layer.training or not from_end:
        if layer._composed and not from_end:
            places = Places.of(layer, rows, T, B)
        y, end, saved = layer._run(plan, x, *_pair(start), places)
    else:
        end = _last_state(layer, plan, x, *_pair(start))

    if from_end:
        last = _last_outputs(layer, rows, end)
        result = merge(layer.merge_mode, last)
    elif y is None:
        shape = _outer(layer, T, B) if layer.return_sequences else (B,)
        result = np.zeros((*shape, layer._y_size), layer.dtype)
    elif rows is None or not layer.return_sequences:
        result = y
    else:
        if not (places or rows.padded):
            y = ragged.show(kernels, n_threads, y, rows.shown)
        result = y.reshape(*_outer(layer, T, B), layer._y_size)
    call = Call(
        plan, rows, saved, (T, B), unbatched, layer.return_sequences, learned, last
    )
    if rows is not None:
        end = [part[:, rows.final] for part in end]
    if layer.stateful:
        layer.state = end[0].copy() if len(end) == 1 else (end[0].copy(), end[1].copy())
    layer._keep(call)
    if unbatched:
        result = result.reshape(-1, result.shape[-1])
        result = result if layer.return_sequences else result[0]
        end = [part[:, 0] for part in end]
    return result, end[0] if layer._states == 1 else (end[0], end[1])


def backward(layer, context: Context, dy, d_state, record_flow):
    """`_Recurrent.backward` of such a call."""
    call, who = context.saved, f"{type(layer).__name__}.backward"
    rows, plan = call.rows, call.plan
    T, B = call.sizes
    kernels = core.kernels(layer.dtype) if plan is None else plan.kernels
    n_threads = threads.for_kernel()
    names = ("d_h_n", "d_c_n") if layer._states == 2 else ("d_state",)
    d_end = layer._state(who, names, d_state, B, call.unbatched)
    if dy is None and all(part is None for part in d_end):
        raise ValueError(f"{who}: dy and d_state must not both be None")
    width = layer._y_size
    if dy is not None and call.sequences:
        outer = (B, T) if layer.batch_first else (T, B)
        outer = (T,) if call.unbatched else outer
        dy, _ = layer._sequences(
            who, "dy", dy, "directions * hidden_size", width, outer
        )
    elif dy is not None:
        dy = checks.float_array(who, "dy", dy, layer.dtype)
        letters, shape = ("B", "directions * hidden_size"), (B, width)
        at = slice(1 if call.unbatched else 0, None)
        checks.shape(who, "dy", dy, letters[at], shape[at])

    if rows is not None:
        d_end = [_states_out(part, rows) for part in d_end]
    if dy is not None and call.last is not None:
        d_last = merge_backward(layer.merge_mode, call.last, dy.reshape(B, width))
        d_end[0] = _onto_last(layer, rows, d_last, d_end[0])
        dy = None
    n_cells = len(layer._suffixes)
    flow = None
    if plan is None:
        context.release()
        dx = np.zeros((*_outer(layer, T, B), layer.input_size), layer.dtype)
        d_start = _no_states(layer, rows.n_rows)
        for into, part in zip(d_start, d_end, strict=True):
            if part is not None:
                into[...] = part
    else:
        if dy is not None and rows is not None and call.sequences:
            dy = _d_shown(kernels, n_threads, layer, rows, dy)
        if record_flow:
            flow = np.zeros((n_cells, plan.length, plan.B))
        dx, d_start = layer._run_back(context, call.saved, dy, *_pair(d_end), flow)
        if rows is not None and not rows.padded:
            dx = ragged.gather(kernels, n_threads, dx, rows.placed)
            dx = dx.reshape(*_outer(layer, T, B), layer.input_size)
    if rows is not None:
        d_start = [_where(rows.given, part) for part in d_start]
    states.add_learned(layer, call.learned, d_start)
    if call.unbatched:
        dx, d_start = dx.reshape(T, -1), [part[:, 0] for part in d_start]
    d_hx = d_start[0] if layer._states == 1 else (d_start[0], d_start[1])
    if not record_flow:
        return dx, d_hx
    return dx, d_hx, _flow_of_steps(layer, call, flow, record_flow == "lag")


def flow_norms(layer, flow, by_lag):
    """Norms of the gradients of states (n_cells, T), of squares (n_cells, T, B)."""
    norms = np.sqrt(flow.sum(axis=2))
    if by_lag:  # the second direction ends with the first step
        for cell in range(0, len(norms), layer._directions):
            norms[cell] = norms[cell, ::-1].copy()
    return norms


def _flow_of_steps(layer, call, flow, by_lag):
    """`flow_norms` of steps as they are in x, or from each row's own end."""
    T, B = call.sizes
    rows = call.rows
    if flow is None:
        return np.zeros((len(layer._suffixes), T))
    if rows is None or (rows.padded and not by_lag):
        return flow_norms(layer, flow, by_lag)
    counts = np.diff(rows.offsets)
    total = np.zeros((len(flow), len(counts) if by_lag else T))
    step = np.repeat(np.arange(len(counts)), counts)
    row = np.arange(rows.n_packed) - rows.offsets[step]
    last = np.bincount(row) - 1  # of each row
    for cell, (into, found) in enumerate(zip(total, flow, strict=True)):
        if not by_lag:
            at = rows.order % T if layer.batch_first else rows.order // B
        else:
            at = step if cell % layer._directions else last[row] - step
        np.add.at(into, at, found[step, row])
    return np.sqrt(total)


def _state_before(who, layer, B):
    """What a stateful layer goes on from."""
    parts = layer.state if layer._states == 2 else (layer.state,)
    found = parts[0].shape[1]
    if found != B:
        raise ValueError(
            f"{who}: x must have B = {found}, as the state of the call before has, "
            f"got {B}; reset_state() begins anew"
        )
    return list(parts)


def _pair(parts):
    return parts if len(parts) == 2 else (parts[0], None)


def _no_states(layer, n_rows):
    """Zero states of rows."""
    widths = (layer._h_size, layer.hidden_size)[: layer._states]
    n_cells = len(layer._suffixes)
    return [np.zeros((n_cells, n_rows, width), layer.dtype) for width in widths]


def _where(rows, part):
    """Those rows of (cells, rows, width), zero where the index is negative."""
    found = np.where(rows[:, None] >= 0, part[:, rows], 0)
    return found.astype(part.dtype, copy=False)


def _outer(layer, T, B):
    return (B, T) if layer.batch_first else (T, B)


def _d_shown(kernels, n_threads, layer, rows, dy):
    """Gradient of the outputs that were computed, from that of those that y shows."""
    if rows.padded:
        return dy
    if layer._composed and len(rows.shown) > 1:  # `Places` are those of y
        return dy.reshape(-1, dy.shape[-1])
    if rows.repeats:
        return ragged.add_shown(kernels, n_threads, dy, rows.shown, rows.n_packed)
    # Where y is in the order of x, and where it is in that of computation.
    source = np.empty(rows.n_packed, np.int64)
    at = np.flatnonzero(rows.shown[0] >= 0)
    source[rows.shown[0][at]] = at
    return ragged.gather(kernels, n_threads, dy, source)


# -- states ---------------------------------------------------------------------------


def _states_in(part, rows):
    """States of sequences (n_cells, B, H) as those that rows begin with."""
    if part is None:
        return None
    result = np.zeros((part.shape[0], rows.n_rows, part.shape[2]), part.dtype)
    some = rows.given >= 0
    result[:, rows.given[some]] = part[:, some]
    return result


def _states_out(part, rows):
    """Gradients of last states of sequences as those of rows."""
    if part is None:
        return None
    result = np.zeros((part.shape[0], rows.n_rows, part.shape[2]), part.dtype)
    result[:, rows.final] = part
    return result


def _last_outputs(layer, rows, end):
    """(B, D * S): the last output of each direction, zero where nothing was computed.

    It is the h that a direction of the last layer ends with.
    """
    h = end[0][-layer._directions :]
    if rows is not None:
        h = _where(rows.last, h)
    return np.concatenate(list(h), axis=1)


def _onto_last(layer, rows, dy, dh_n):
    """The gradient of the last h, to which that of the last outputs is added."""
    B, D, H = len(dy), layer._directions, layer._h_size
    n_rows = B if rows is None else rows.n_rows
    total = np.zeros((len(layer._suffixes), n_rows, H), dy.dtype)
    if dh_n is not None:
        total += dh_n
    parts = dy.reshape(B, D, H).swapaxes(0, 1)
    if rows is None:
        total[-D:] += parts
    else:
        some = rows.last >= 0
        total[-D:, rows.last[some]] += parts[:, some]
    return total


def _last_state(layer, plan, x, h0, c0):
    """The last states of an inference whose outputs nobody asks for.

    It goes through x block after block, and one block's outputs take the place of those
    before. A second direction begins at the end: then layer after layer goes through
    all blocks, and only the last one's outputs are not kept.
    """
    L, D = layer.num_layers, layer._directions
    use = layer._packed.take(
        plan.kernels, plan.n_threads, layer._buffers[0], layer._start, False
    )
    end = np.empty(plan.state_shape, layer.dtype)
    if h0 is not None and layer._h_size != layer.hidden_size:
        h0 = states.widen(h0, layer.hidden_size)
    if D == 1:
        _run_blocks(layer, plan, use, None, x, h0, c0, None, end)
        return states.narrow(layer, end)
    if layer._composed and plan.batch_first:  # what lies between layers is not
        x = np.ascontiguousarray(x.swapaxes(0, 1))
    for k in range(L):
        y = None
        if k < L - 1:
            y = np.empty((*plan.inner_shape, D * layer._h_size), layer.dtype)
        for cell in range(k * D, (k + 1) * D):
            one = slice(cell, cell + 1)
            start = [None if part is None else part[one] for part in (h0, c0)]
            last = np.empty((end.shape[0], 1, *end.shape[2:]), end.dtype)
            _run_blocks(layer, plan, use, cell, x, *start, y, last)
            end[:, one] = last
        x = None if y is None else merge(layer.merge_mode, y)
    return states.narrow(layer, end)


def _run_blocks(layer, plan, use, cell, x, h0, c0, y, end):
    """All layers, or a single cell, over all steps; `y` may be None."""
    width = layer._directions * layer._h_size
    every = plan.T
    if y is None:
        row_bytes = plan.B * width * np.dtype(layer.dtype).itemsize
        every = max(1, min(plan.T, _BLOCK_BYTES // row_bytes))
    buffer = np.empty(every * plan.B * width, layer.dtype) if y is None else y
    which = (0, 0) if cell is None else (cell, 1)
    reverse = which[0] % layer._directions
    starts = range(0, plan.T, every)
    for begin in reversed(starts) if reverse else starts:
        stop = min(begin + every, plan.T)
        if plan.offsets is None:
            block = layer._plan_for(
                plan.kernels, plan.n_threads, stop - begin, plan.B, plan.T, *which, True
            )
            x_at = begin * block.x_step
        else:
            block = plan.part(begin, stop, *which, y_inside=True)
            x_at = plan.offsets[begin] * block.x_row
            if plan.padded:
                x_at = begin * block.x_step
        block.forward(
            layer._memory, use, x, x_at, h0, c0, None, 0.0, buffer, 0, end, False
        )
        h0, c0 = end[0], end[1] if len(end) == 2 else None


# -- stateful layers ------------------------------------------------------------------


def reset_state(layer, mask):
    """`_Recurrent.reset_state`."""
    if mask is None:
        layer.state = None
        return
    who = f"{type(layer).__name__}.reset_state"
    mask = checks.as_array(who, "mask", mask)
    if mask.dtype != bool:
        raise TypeError(f"{who}: mask must be bool, got dtype {mask.dtype}")
    if layer.state is None:
        raise ValueError(f"{who}: mask needs a state, and there is none")
    parts = layer.state if layer._states == 2 else (layer.state,)
    checks.shape(who, "mask", mask, ("B",), parts[0].shape[1:2])
    for part in parts:
        part[:, mask] = 0
