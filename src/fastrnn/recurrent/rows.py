# SPDX-License-Identifier: BSD-3-Clause
"""Which steps of a batch are computed, and in which rows the kernels compute them.

The kernels take ragged batches: rows sorted by length, the longest first, and at each
step the rows that have not ended yet. Sequences of different lengths, masked steps and
resets all become such rows. A masked step is left out, and the steps around it follow
one another. A reset cuts a sequence into segments, each of which is a row of its own.

The arrays that the kernels get are gathered from the caller's: first the computed rows'
first steps, then their second steps, and so on, N steps in all.
"""

import numpy as np

from fastrnn.native.arrays import ArrayPlan
from fastrnn.recurrent import gathering
from fastrnn.util import checks


class Rows:
    """The rows that the kernels run for a batch of B sequences of T steps.

    A position is the place of a step in the caller's array x, counted in the order in
    which x has its steps. A place among the gathered steps is a number in [0, N).

    Parameters
    ----------
    n_steps : int
        N, the number of steps that are computed, over all rows.
    offsets : ndarray of intp, shape (longest + 1,)
        Where the rows' first steps begin among the gathered ones, where their second
        steps begin, and so on.
    n_rows : int
        The number of rows: sequences, or segments of them.

    Attributes
    ----------
    T, B, batch_first
        Sizes and layout of x; `arrange` sets them.
    order : ndarray of int64, shape (N,)
        Position in x of each gathered step.
    placed : ndarray of int64, shape (T * B,)
        Gathered step of each position in x; -1 where none is computed.
    shown : ndarray of int64, shape (D, T * B)
        Gathered step whose output each position of y shows, for each direction; -1
        shows zero. D is 1 where all directions show the same.
    padded : bool
        Whether the kernels work on the caller's arrays themselves, because its rows are
        sorted by length already. Nothing is gathered then, and `order`, `placed` and
        `shown` are not set.
    repeats : bool
        Whether several positions of y may show the same step.
    start_row : ndarray of int64, shape (B,)
        Row that starts from a sequence's initial state; -1 if none does.
    end_row : ndarray of int64, shape (B,)
        Row whose last state is the sequence's last state.
    last_row : ndarray of int64, shape (B,)
        Row with a sequence's last computed step; -1 if it has none.
    """

    def __init__(self, n_steps, offsets, n_rows):
        self.n_steps, self.offsets, self.n_rows = n_steps, offsets, n_rows
        self.repeats = self.padded = False

    def place(self, order, size):
        """Set `order`, and `placed` and `shown` so that they agree with it."""
        self.order = order
        self.placed = np.full(size, -1, np.int64)
        self.placed[order] = np.arange(self.n_steps)
        self.shown = self.placed[None]

    @property
    def shape(self):
        """(T, B), or (B, T) if batch first: the first axes of x."""
        return (self.B, self.T) if self.batch_first else (self.T, self.B)

    def last_steps(self, directions):
        """Gathered steps (directions, B) with the sequences' last outputs, -1 for none.

        The second direction's last output is that of the first step in time.
        """
        sizes = np.diff(self.offsets)  # rows that have not ended, step by step
        steps = np.searchsorted(-sizes, -self.last_row)  # of the rows, where one is
        at = np.stack([self.offsets[steps - 1] + self.last_row, self.last_row])
        return np.where(self.last_row >= 0, at, -1)[:directions]

    def numbers(self):
        """The caller's step of each gathered step (N,), and sequence of each row."""
        if self.batch_first:
            sequence, step = np.divmod(self.order, self.T)
        else:
            step, sequence = np.divmod(self.order, self.B)
        of_rows = np.zeros(self.n_rows, np.int64)  # a row without steps draws nothing
        n = self.offsets[1]  # rows that have a first step
        of_rows[:n] = sequence[:n]
        return step, of_rows

    # -- sequences --------------------------------------------------------------------

    def plan(self, runtime, dense):
        """The `ArrayPlan` that runs the rows, with the threads of a `dense` plan."""
        where = {}
        if self.padded:
            where = {"padded": True, "length": self.T, "batch_first": self.batch_first}
        return ArrayPlan(
            dense.kernels,
            dense.n_threads,
            runtime.layout,
            len(self.offsets) - 1,
            self.n_rows,
            offsets=self.offsets,
            **where,
        )

    def gather_x(self, plan, x):
        """The computed steps of x."""
        return x if self.padded else gathering.gather(plan, x, self.order)

    def return_dx(self, plan, dx):
        """Gradient of x, zero at steps that were not computed, from that of `gather_x`.

        Of an array that is `padded` the kernels write the computed steps only, and the
        others have been zero before.
        """
        if self.padded:
            return dx
        return gathering.gather(plan, dx, self.placed).reshape(*self.shape, -1)

    def return_y(self, plan, y):
        """The caller's y from the outputs of the computed steps."""
        if self.padded:
            return y
        return gathering.gather_directions(plan, y, self.shown).reshape(*self.shape, -1)

    def gather_dy(self, plan, dy):
        """Gradient of the computed steps' outputs from that of the caller's y."""
        if self.padded:
            return dy
        if self.repeats:
            return gathering.add_directions(plan, dy, self.shown, self.n_steps)
        # `shown` says which step a position shows; here it is the other way round.
        position = np.empty(self.n_steps, np.int64)
        at = np.flatnonzero(self.shown[0] >= 0)
        position[self.shown[0][at]] = at
        return gathering.gather(plan, dy, position)

    # -- states -----------------------------------------------------------------------

    def gather_start(self, part):
        """States that rows begin with, from those of sequences (..., n_cells, B, H)."""
        if part is None:
            return None
        shape = (*part.shape[:-2], self.n_rows, part.shape[-1])
        result = np.zeros(shape, part.dtype)
        some = self.start_row >= 0
        result[..., self.start_row[some], :] = part[..., some, :]
        return result

    def return_d_start(self, part):
        """Gradient of the sequences' initial states from that of `gather_start`."""
        return _of_rows(part, self.start_row)

    def return_end(self, part):
        """The sequences' last states from those of rows."""
        return part[:, self.end_row]

    def gather_d_end(self, part):
        """Gradient of the rows' last states from that of the sequences'."""
        if part is None:
            return None
        shape = (*part.shape[:-2], self.n_rows, part.shape[-1])
        result = np.zeros(shape, part.dtype)
        result[..., self.end_row, :] = part
        return result

    def last_outputs(self, h):
        """Each sequence's last output, or zero, from the rows' last h (D, rows, S)."""
        return _of_rows(h, self.last_row)

    def add_to_last(self, d_h, d_last):
        """Add the gradient of `last_outputs` (D, B, S) to that of the rows' last h."""
        some = self.last_row >= 0
        d_h[:, self.last_row[some]] += d_last[:, some]


def _of_rows(part, indices):
    """Those rows of an array (cells, rows, width), zero where an index is negative."""
    found = np.where(indices[:, None] >= 0, part[:, indices], 0)
    return found.astype(part.dtype, copy=False)


# -- which rows -----------------------------------------------------------------------


def _offsets(lengths):
    """Where each step of rows with these lengths begins; the lengths descend."""
    steps = np.arange(lengths[0])
    offsets = np.zeros(len(steps) + 1, np.intp)
    alive = len(lengths) - np.searchsorted(lengths[::-1], steps, side="right")
    np.cumsum(alive, out=offsets[1:])
    return offsets


def of_lengths(lengths, T, *, batch_first, backwards, may_pad):
    """The `Rows` of B sequences that differ in length only.

    With `may_pad` those of a batch that is sorted by length stay where they are in x.
    """
    B = len(lengths)
    by_length = row = np.arange(B)
    is_sorted = (lengths[1:] <= lengths[:-1]).all()
    if not is_sorted:
        by_length, row = np.argsort(-lengths, kind="stable"), np.empty(B, np.int64)
        row[by_length] = np.arange(B)
    descending = lengths[by_length]
    offsets = _offsets(descending)
    rows = Rows(int(offsets[-1]), offsets, B)
    rows.start_row = rows.end_row = row
    rows.last_row = np.where(lengths > 0, row, -1)
    rows.padded = bool(may_pad and is_sorted and rows.n_steps > 0)
    if rows.padded:
        return rows
    t = np.arange(descending[0])[:, None]
    alive = t < descending

    def place(t):
        by_step = by_length * T + t if batch_first else t * B + by_length
        rows.place(by_step[alive], T * B)

    place(t)
    if backwards:  # y is in the order of computation, x is not
        shown = rows.shown
        place(descending - 1 - t)
        rows.shown = shown
    return rows


def of_steps(
    lengths, mask, resets, *, batch_first, backwards, zero_output, bidirectional
):
    """The `Rows` of sequences with masked steps or resets.

    Parameters
    ----------
    lengths : ndarray of int64, shape (B,)
    mask, resets : ndarray of bool, shape (B, T)
    backwards : bool
        Whether steps are computed from each sequence's last to its first. Outputs come
        in the order of computation.
    zero_output : bool
        Whether y is zero at masked steps; else it repeats the output before.
    """
    B, T = mask.shape
    t = np.arange(T)
    alive = t < lengths[:, None]
    source = np.broadcast_to(t, (B, T))  # the step of x that is computed t-th
    if backwards:
        source = np.where(alive, lengths[:, None] - 1 - t, t)
        mask = np.take_along_axis(mask, source, 1)
        resets = np.take_along_axis(resets, source, 1)
    valid = mask & alive
    segment = np.cumsum(resets & alive, axis=1)
    begin = np.concatenate([[0], np.cumsum(segment[:, -1] + 1)])
    segment += begin[:-1, None]
    b, t = np.nonzero(valid)
    inside = segment[b, t]  # ascending
    sizes = np.bincount(inside, minlength=begin[-1])
    step = np.arange(len(b)) - (np.cumsum(sizes) - sizes)[inside]

    # A segment without a step needs no row, unless it is the last of its sequence: then
    # the sequence's last state is the one that the segment begins with.
    wanted = sizes > 0
    wanted[begin[1:] - 1] = True
    by_length = np.flatnonzero(wanted)
    by_length = by_length[np.argsort(-sizes[by_length], kind="stable")]
    row = np.full(begin[-1], -1, np.int64)
    row[by_length] = np.arange(len(by_length))
    offsets = _offsets(sizes[by_length])

    def position(b, t):
        return b * T + t if batch_first else t * B + b

    rows = Rows(len(b), offsets, len(by_length))
    gathered = offsets[step] + row[inside]
    order = np.empty(len(b), np.int64)
    order[gathered] = position(b, source[b, t])
    rows.place(order, T * B)
    shown = np.full((B, T), -1, np.int64)
    shown[b, t] = gathered
    rows.repeats = not (zero_output or valid[alive].all())
    views = [shown]
    if rows.repeats:
        views = [_hold(shown, valid)]
        if bidirectional:  # what the second direction put out before is later in time
            views.append(_hold(shown[:, ::-1], valid[:, ::-1])[:, ::-1])
        for view in views:
            view[~alive] = -1
    rows.shown = np.stack([(v if batch_first else v.T).ravel() for v in views])
    rows.start_row, rows.end_row = row[begin[:-1]], row[begin[1:] - 1]
    rows.last_row = np.full(B, -1, np.int64)
    rows.last_row[b] = row[inside]  # steps ascend: each sequence's last one stays
    return rows


def _hold(shown, valid):
    """`shown`, with what the last valid step before shows at steps that are not valid.

    Before the first valid step it is -1, as `shown` is there.
    """
    at = np.where(valid, np.arange(valid.shape[1]), 0)
    return np.take_along_axis(shown, np.maximum.accumulate(at, axis=1), 1)


def arrange(
    who, layer, T, B, unbatched, lengths, mask, resets, zero_output, *, may_pad
):
    """Check what a call was given; its `Rows`, or None where all steps are computed.

    Parameters
    ----------
    who : str
    layer : RNN, LSTM or GRU
    lengths, mask, resets, zero_output
        As the caller gave them.
    may_pad : bool
        Whether the kernels may work on x and y themselves, as `Rows.padded` says.
    """
    if zero_output is None:
        zero_output = layer.zero_output_for_mask
    zero_output = checks.flag(who, "zero_output_for_mask", zero_output)
    if lengths is not None:
        lengths = _lengths(who, lengths, T, B, unbatched)
    if mask is not None:
        letters, sizes = (("T",), (T,)) if unbatched else (("B", "T"), (B, T))
        mask = _booleans(who, "mask", mask, letters, sizes).reshape(B, T)
    if resets is not None:
        resets = _resets(who, layer, resets, T, B, unbatched)
    backwards = layer.go_backwards
    options = {"batch_first": layer.batch_first, "backwards": backwards}
    some = np.full(B, T) if lengths is None else lengths
    holes = mask is not None and not mask.all()
    cuts = resets is not None and bool(resets.any())
    if not (holes or cuts or backwards) and (some == T).all():
        return None
    if not (holes or cuts):
        rows = of_lengths(some, T, **options, may_pad=may_pad and not backwards)
    else:
        mask = np.ones((B, T), bool) if mask is None else mask
        rows = of_steps(
            some,
            mask,
            np.zeros((B, T), bool) if resets is None else resets,
            **options,
            zero_output=zero_output,
            bidirectional=layer.bidirectional,
        )
        if layer.zero_output_for_mask and not layer.bidirectional:
            last = 0 if backwards else np.maximum(some - 1, 0)
            rows.last_row = np.where(mask[np.arange(B), last], rows.last_row, -1)
    rows.T, rows.B, rows.batch_first = T, B, layer.batch_first
    return rows


def _lengths(who, value, T, B, unbatched):
    lengths = checks.integer_array(who, "lengths", value)
    if unbatched and lengths.ndim == 0:
        lengths = lengths.reshape(1)
    checks.shape(who, "lengths", lengths, ("B",), (B,))
    for extreme in (lengths.min(), lengths.max()):
        if not 0 <= extreme <= T:
            raise ValueError(
                f"{who}: lengths must be in [0, T] = [0, {T}], got {extreme}"
            )
    return lengths


def _resets(who, layer, value, T, B, unbatched):
    """`resets` as (B, T)."""
    if layer.bidirectional:
        raise ValueError(
            f"{who}: resets need a layer that is not bidirectional, got {layer!r}"
        )
    letters, sizes = ("T", "B"), (T, B)
    if layer.batch_first:
        letters, sizes = letters[::-1], sizes[::-1]
    if unbatched:
        letters, sizes = ("T",), (T,)
    resets = _booleans(who, "resets", value, letters, sizes)
    return resets.reshape(B, T) if layer.batch_first else resets.reshape(T, B).T


def _booleans(who, name, value, letters, sizes):
    array = checks.as_array(who, name, value)
    if array.dtype != bool:
        raise TypeError(f"{who}: {name} must be bool, got dtype {array.dtype}")
    checks.shape(who, name, array, letters, sizes)
    return array
