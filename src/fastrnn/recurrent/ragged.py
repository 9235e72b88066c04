# SPDX-License-Identifier: BSD-3-Clause
"""Which steps of a batch are computed, and where the kernels find them.

The kernels take ragged batches: rows sorted by length, and of each step the rows that
are still alive, one step after the other.  Sequences of different lengths, masked steps
and resets all come down to that.  A masked step is left out; a reset cuts a sequence in
segments, each of which is a row of its own; the steps of a row lie side by side in time
whatever was between them.
"""

import numpy as np

from fastrnn.util import checks


class Rows:
    """The rows that the kernels run for a batch of B sequences of T steps.

    Positions count the steps of the caller's array, in its order.

    Attributes
    ----------
    offsets : ndarray of intp, shape (longest + 1,)
        Where each step begins in packed arrays of N rows.
    n_rows, n_packed : int
        Rows (segments), and N.
    order : ndarray of int64, shape (N,)
        Position in x of each packed row.
    placed : ndarray of int64, shape (T * B,)
        Packed row of each position in x; -1 where there is none.
    shown : ndarray of int64, shape (D, T * B)
        Packed row that each position of y shows, by direction; -1 for zero. D is 1
        where the directions agree.
    padded : bool
        Whether the kernels work on the caller's arrays, whose rows are sorted by
        length: `order`, `placed` and `shown` are not set then.
    repeats : bool
        Whether several positions may show the same row.
    given : ndarray of int64, shape (B,)
        Row that starts from a sequence's initial state; -1 if none does.
    final : ndarray of int64, shape (B,)
        Row whose last state is the sequence's.
    last : ndarray of int64, shape (B,)
        Row with a sequence's last computed step; -1 if it has none.
    """

    def __init__(self, n_packed, offsets, n_rows):
        self.n_packed, self.offsets, self.n_rows = n_packed, offsets, n_rows
        self.repeats = self.padded = False

    def place(self, order, size):
        """Set `order`, and from it what is where."""
        self.order = order
        self.placed = np.full(size, -1, np.int64)
        self.placed[order] = np.arange(self.n_packed)
        self.shown = self.placed[None]

    def last_steps(self, directions):
        """Packed rows (directions, B) of each sequence's last outputs, -1 for none.

        The second direction's last is the first in time.
        """
        sizes = np.diff(self.offsets)  # rows that are alive, descending
        steps = np.searchsorted(-sizes, -self.last)  # of the rows, where one is
        at = np.stack([self.offsets[steps - 1] + self.last, self.last])
        return np.where(self.last >= 0, at, -1)[:directions]


# -- packed arrays --------------------------------------------------------------------


def gather(kernels, n_threads, array, indices):
    """Rows of an array of any number of axes, taken as (rows, width); zero for -1."""
    width = array.shape[-1]
    result = np.empty((len(indices), width), array.dtype)
    kernels.embedding_forward(
        n_threads, len(indices), array.size // width, width, indices, array, result,
        True,
    )  # fmt: skip
    return result


def _by_direction(shown):
    """Indices of rows that hold one direction, side by side in a row."""
    D = len(shown)
    if D == 1:
        return shown[0]
    both = shown.T * D + np.arange(D)
    both[shown.T < 0] = -1
    return both.ravel()


def show(kernels, n_threads, packed, shown):
    """The rows that `shown` (D, n) names, each direction's part from its own."""
    width = packed.shape[-1]
    parts = packed.reshape(-1, width // len(shown))
    return gather(kernels, n_threads, parts, _by_direction(shown)).reshape(-1, width)


def add_shown(kernels, n_threads, d, shown, n_packed):
    """Gradient of packed rows: of one that `shown` names several times, the sum."""
    width, D = d.shape[-1], len(shown)
    packed = np.zeros((n_packed, width), d.dtype)
    indices = _by_direction(shown)
    kernels.embedding_backward(
        n_threads, len(indices), n_packed * D, width // D, indices, -1, d, packed
    )
    return packed


# -- which rows -----------------------------------------------------------------------


def _offsets(lengths):
    """Where each step of rows with these lengths, descending, begins."""
    steps = np.arange(lengths[0])
    offsets = np.zeros(len(steps) + 1, np.intp)
    alive = len(lengths) - np.searchsorted(lengths[::-1], steps, side="right")
    np.cumsum(alive, out=offsets[1:])
    return offsets


def of_lengths(lengths, T, *, batch_first, backwards, may_pad):
    """The `Rows` of B sequences that differ in length only.

    With `may_pad` those of a batch that is sorted by length are where they are in x.
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
    rows.given = rows.final = row
    rows.last = np.where(lengths > 0, row, -1)
    rows.padded = bool(may_pad and is_sorted and rows.n_packed > 0)
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
        From each sequence's last step to its first. Outputs come in that order.
    zero_output : bool
        Masked steps show zero, not the output before.
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

    # Segments without a step are nobody's, but for the state that a sequence ends with.
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
    packed = offsets[step] + row[inside]
    order = np.empty(len(b), np.int64)
    order[packed] = position(b, source[b, t])
    rows.place(order, T * B)
    shown = np.full((B, T), -1, np.int64)
    shown[b, t] = packed
    rows.repeats = not (zero_output or valid[alive].all())
    views = [shown]
    if rows.repeats:
        views = [_hold(shown, valid)]
        if bidirectional:  # what the second direction put out before is later in time
            views.append(_hold(shown[:, ::-1], valid[:, ::-1])[:, ::-1])
        for view in views:
            view[~alive] = -1
    rows.shown = np.stack([(v if batch_first else v.T).ravel() for v in views])
    rows.given, rows.final = row[begin[:-1]], row[begin[1:] - 1]
    rows.last = np.full(B, -1, np.int64)
    rows.last[b] = row[inside]  # the last of each b stays
    return rows


def _hold(shown, valid):
    """`shown`, where a step is not valid that of the last one that was."""
    at = np.where(valid, np.arange(valid.shape[1]), 0)
    return np.take_along_axis(shown, np.maximum.accumulate(at, axis=1), 1)


def arrange(who, layer, T, B, unbatched, lengths, mask, resets, zero_output):
    """Check what a call was given; its `Rows`, or None where all steps are computed.

    Parameters
    ----------
    who : str
    layer : RNN, LSTM or GRU
    lengths, mask, resets, zero_output
        As the caller gave them.
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
        if layer.bidirectional:
            raise ValueError(
                f"{who}: resets need a layer that is not bidirectional, got {layer!r}"
            )
        letters, sizes = ("T", "B"), (T, B)
        if layer.batch_first:
            letters, sizes = letters[::-1], sizes[::-1]
        if unbatched:
            letters, sizes = ("T",), (T,)
        resets = _booleans(who, "resets", resets, letters, sizes)
        resets = resets.reshape(B, T) if layer.batch_first else resets.reshape(T, B).T
    options = {"batch_first": layer.batch_first, "backwards": layer.go_backwards}
    some = np.full(B, T) if lengths is None else lengths
    holes = mask is not None and not mask.all()
    cuts = resets is not None and bool(resets.any())
    if not (holes or cuts or layer.go_backwards) and (some == T).all():
        return None
    if not (holes or cuts):
        may_pad = not (layer._composed or layer.go_backwards)
        return of_lengths(some, T, **options, may_pad=may_pad)
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
        last = 0 if layer.go_backwards else np.maximum(some - 1, 0)
        rows.last = np.where(mask[np.arange(B), last], rows.last, -1)
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


def _booleans(who, name, value, letters, sizes):
    array = checks.as_array(who, name, value)
    if array.dtype != bool:
        raise TypeError(f"{who}: {name} must be bool, got dtype {array.dtype}")
    checks.shape(who, name, array, letters, sizes)
    return array
