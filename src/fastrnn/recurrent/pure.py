# SPDX-License-Identifier: BSD-3-Clause
"""`recurrence`: one direction of one layer as two pure functions of NumPy's arrays.

For programs whose gradients another library keeps account of: all that backward needs
is among the arrays that forward was given or has returned, so a graph may hold them,
copy them, or compute them again. Weights have PyTorch's layout and order of gates,
each an array of its own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from fastrnn.native import celltable, core, memory, tensors, threads
from fastrnn.native.layout import Layout
from fastrnn.recurrent import rows as ragged
from fastrnn.recurrent.packers import Packers

_packers = Packers(most_bytes=256 << 20, least=8)


class Form(NamedTuple):
    """What a recurrence computes: its cell and sizes.

    Attributes
    ----------
    cell : str
        A name in the kernels' table of cells: "rnn_tanh", "rnn_relu", "lstm", "gru",
        "mgu".
    input_size, hidden_size : int
    dtype : {"float32", "float64"}
    bias : bool
        Whether there are `bias_ih` and `bias_hh`.
    activations : tuple of (str, float, float), optional
        The function of each gate, followed by that of c_t if the cell has one, each
        with its two parameters, as `celltable.CellOptions` takes them. The cell's own
        if not given.
    reset_before : bool
        Whether a GRU applies its reset gate before the product with the recurrent
        weights, as Keras's does with ``reset_after=False``.
    """

    cell: str
    input_size: int
    hidden_size: int
    dtype: str
    bias: bool = True
    activations: tuple[tuple[str, float, float], ...] | None = None
    reset_before: bool = False


class _Team(NamedTuple):
    """The kernels and the threads that a call runs on."""

    kernels: core.Kernels
    n_threads: int


class _Steps:
    """The computed steps of sequences of which a mask leaves some out.

    The kernels take these steps gathered, as `ragged.Rows` says; every method here
    takes or gives sequences and states as a caller of `Recurrence` has them.
    """

    def __init__(self, team, mask, hold, batch_major):
        T, B = mask.shape
        self._team, self._batch_major = team, batch_major
        self.rows = ragged.of_steps(
            np.full(B, T),
            mask.T,
            np.zeros((B, T), bool),
            batch_first=batch_major,
            backwards=False,
            zero_output=not hold,
            bidirectional=False,
        )
        self.rows.T, self.rows.B, self.rows.batch_first = T, B, batch_major

    def gather(self, x):
        """The computed steps of x, (N, width)."""
        return self.rows.gather_x(self._team, self._in_order(x))

    def gather_dy(self, dy):
        """The gradient of the computed steps' outputs; None for None."""
        if dy is None:
            return None
        return self.rows.gather_dy(self._team, self._in_order(dy))

    def scatter(self, y):
        """The sequence (T, B, width) that shows the outputs y of the computed steps."""
        return self._as_sequence(self.rows.return_y(self._team, y))

    def scatter_dx(self, dx):
        """The gradient of the whole sequence, zero at steps that are left out."""
        return self._as_sequence(self.rows.return_dx(self._team, dx))

    def _in_order(self, sequence):
        """A sequence in the order of axes in which `rows` counts, contiguous."""
        if self._batch_major:
            sequence = sequence.swapaxes(0, 1)
        return np.ascontiguousarray(sequence)

    def _as_sequence(self, found):
        return found.swapaxes(0, 1) if self._batch_major else found


class Recurrence:
    """Forward and backward of a form; `recurrence` makes it.

    Sequences are (T, B, width), of any strides that are not negative; a (B, T, width)
    array comes as ``x.swapaxes(0, 1)``. What cannot be read where it lies is copied.
    States are (B, hidden_size). Both functions may be called from several threads.

    Parameters
    ----------
    form : Form

    Attributes
    ----------
    form : Form
    n_states : int
        2 for an LSTM, whose state is h and c, else 1.
    weight_shapes : tuple of tuple of int
        Of `weight_ih`, `weight_hh` and, with a bias, `bias_ih` and `bias_hh`.
    """

    def __init__(self, form: Form) -> None:
        self.form, self.dtype = form, np.dtype(form.dtype)
        cell, options = celltable.cell(form.cell), None
        has_vectors = cell.vectors and "peephole" not in cell.options
        if cell.n_states > 2 or has_vectors:
            raise ValueError(
                f"Recurrence: cell must have no states but h and c, and weights that "
                f"are matrices and biases alone, got {form.cell!r}"
            )
        if form.activations is not None or form.reset_before:
            plain = [(name, 0.0, 0.0) for name in cell.activations]
            options = celltable.CellOptions(
                form.activations or plain, reset_before=form.reset_before
            )
        I, H = form.input_size, form.hidden_size
        self._layout = Layout(cell.name, I, H, 1, 1, form.bias, options)
        self.n_states, gates = cell.n_states, len(cell.gates) * H
        self.weight_shapes = ((gates, I), (gates, H), (gates,), (gates,))
        if not form.bias:
            self.weight_shapes = self.weight_shapes[:2]
        self._scratch = memory.shared_pool("scratch", 8)
        self._tapes = memory.shared_pool("tapes", 1024)
        n_weights = sum(math.prod(shape) for shape in self.weight_shapes)
        self._packed_bytes = 2 * n_weights * self.dtype.itemsize

    def tape_size(self, T: int, B: int) -> int:
        """Elements of the tape of T steps of B rows, all of which are computed.

        It is 0 for a cell that needs none, the plain RNN.
        """
        if not T * B:
            return 0
        return self._plan(core.kernels(self.form.dtype), T, B).tape_size

    def forward(
        self,
        weights: Sequence[np.ndarray],
        x: np.ndarray,
        h0: np.ndarray | None = None,
        c0: np.ndarray | None = None,
        *,
        mask: np.ndarray | None = None,
        hold: bool = True,
        keep: bool = True,
        site: Hashable = 0,
        out: Sequence[np.ndarray | None] = (None,) * 4,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Run the layer.

        Parameters
        ----------
        weights : sequence of ndarray
            Of the shapes `weight_shapes`.
        x : ndarray, shape (T, B, input_size)
        h0, c0 : ndarray, shape (B, hidden_size), or None for zero
        mask : ndarray of bool, shape (T, B), optional
            False at steps that are left out: the state stays as it is.
        hold : bool
            Whether y has the output before, or zero if there is none, at steps that are
            left out. Else it is zero there.
        keep : bool
            Whether a backward may follow.
        site : hashable
            Whose weights these are. Packed weights are kept for each site, see
            `Packers`, and packed again when they have changed.
        out : sequence of (ndarray or None)
            Where to write the results, which are made where there is None.

        Returns
        -------
        y : ndarray, shape (T, B, hidden_size)
        h_n, c_n : ndarray, shape (B, hidden_size)
            `c_n` is None but for an LSTM.
        tape : ndarray, shape (tape_size(T, B),), or None unless `keep`
            With a mask that leaves steps out only its beginning is used.
        """
        T, B, _ = x.shape
        y, h_n, c_n, tape = out
        y = _new_like(x, self.form.hidden_size) if y is None else y
        h_n = self._new_state(B) if h_n is None else h_n
        if self.n_states == 2 and c_n is None:
            c_n = self._new_state(B)
        if keep and tape is None:
            tape = self._tapes.array(self.tape_size(T, B), self.dtype)
        team = _team(self.form.dtype)
        states = [_readable(part, team.kernels) for part in (h0, c0)]
        steps = self._steps(team, mask, hold, x)
        if not x.size or (steps is not None and not steps.rows.n_steps):
            y[...] = 0
            for end, part in zip((h_n, c_n), states, strict=True):
                if end is not None:
                    end[...] = 0 if part is None else part
            return y, h_n, c_n, tape
        _, use = self._packed(weights, team, site, True, keep)
        if steps is None:
            plan, x = self._plan(team.kernels, T, B), _sequence(x, team.kernels)
            self._run(plan, team, use, x, states, y, (h_n, c_n), tape)
            return y, h_n, c_n, tape
        rows, plan = steps.rows, self._plan_of(team, steps.rows)
        states = [_start(rows, part) for part in states]
        ends = [self._new_state(rows.n_rows) for _ in range(self.n_states)]
        inside = np.empty((rows.n_steps, self.form.hidden_size), self.dtype)
        used = tape[: plan.tape_size] if keep else None
        self._run(plan, team, use, steps.gather(x), states, inside, ends, used)
        y[...] = steps.scatter(inside)
        for end, part in zip((h_n, c_n), ends, strict=False):
            end[...] = part[rows.end_row]
        return y, h_n, c_n, tape

    def backward(
        self,
        weights: Sequence[np.ndarray],
        x: np.ndarray,
        h0: np.ndarray | None,
        c0: np.ndarray | None,
        y: np.ndarray,
        tape: np.ndarray,
        dy: np.ndarray | None = None,
        dh_n: np.ndarray | None = None,
        dc_n: np.ndarray | None = None,
        *,
        mask: np.ndarray | None = None,
        hold: bool = True,
        site: Hashable = 0,
        wants_dx: bool = True,
        wants_dweights: bool = True,
        out: Sequence[np.ndarray | Sequence[np.ndarray | None] | None] = (None,) * 4,
    ) -> tuple[
        np.ndarray | None, np.ndarray, np.ndarray | None, list[np.ndarray | None]
    ]:
        """Back-propagate through the layer.

        Parameters
        ----------
        weights, x, h0, c0, mask, hold, site
            As `forward` was given them.
        y, tape : ndarray
            What `forward` returned.
        dy : ndarray, shape (T, B, hidden_size), or None for zero
        dh_n, dc_n : ndarray, shape (B, hidden_size), or None for zero
        wants_dx, wants_dweights : bool
            Whether these gradients are wanted; those that are not are None.
        out : sequence of (ndarray or None)
            As of `forward`; the last is a sequence of arrays or None, of each weight.

        Returns
        -------
        dx : ndarray, shape (T, B, input_size)
        dh0, dc0 : ndarray, shape (B, hidden_size)
            `dc0` is None but for an LSTM.
        dweights : list of ndarray
        """
        T, B, _ = x.shape
        dx, dh0, dc0, dweights = out
        if not wants_dx:
            dx = None
        elif dx is None:
            dx = _new_like(x, self.form.input_size)
        dh0 = self._new_state(B) if dh0 is None else dh0
        if self.n_states == 2 and dc0 is None:
            dc0 = self._new_state(B)
        if not wants_dweights:
            dweights = [None] * len(weights)
        else:
            dweights = [
                np.empty(shape, self.dtype) if dw is None else dw
                for dw, shape in zip(
                    dweights or (None,) * len(weights), self.weight_shapes, strict=True
                )
            ]
        team = _team(self.form.dtype)
        ends = [_readable(part, team.kernels) for part in (dh_n, dc_n)]
        starts = [dh0, dc0][: self.n_states]
        steps = self._steps(team, mask, hold, x)
        if not x.size or (steps is not None and not steps.rows.n_steps):
            for gradient in (dx, *dweights):
                if gradient is not None:
                    gradient[...] = 0
            for start, part in zip(starts, ends, strict=False):
                start[...] = 0 if part is None else part
            return dx, dh0, dc0, dweights
        weights, use = self._packed(weights, team, site, False, True)
        use.make_backward(*team, weights)
        h0 = _readable(h0, team.kernels)
        if steps is None:
            x, y, dy = (_sequence(part, team.kernels) for part in (x, y, dy))
            plan = self._plan(team.kernels, T, B)
            self._run_back(
                plan, team, use, x, h0, y, tape, dy, ends, dx, starts, dweights
            )
            return dx, dh0, dc0, dweights
        rows, plan = steps.rows, self._plan_of(team, steps.rows)
        gathered, inside, dy = steps.gather(x), steps.gather(y), steps.gather_dy(dy)
        ends = [_end_gradient(rows, part) for part in ends]
        found = [self._new_state(rows.n_rows) for _ in starts]
        d_gathered = np.empty_like(gathered) if wants_dx else None
        self._run_back(
            plan, team, use, gathered, _start(rows, h0), inside,
            tape[: plan.tape_size], dy, ends, d_gathered, found, dweights,
        )  # fmt: skip
        if wants_dx:
            dx[...] = steps.scatter_dx(d_gathered)
        for start, part in zip(starts, found, strict=True):
            start[...] = part[rows.start_row]
        return dx, dh0, dc0, dweights

    def _new_state(self, n_rows):
        return np.empty((n_rows, self.form.hidden_size), self.dtype)

    def _plan(self, kernels, T, B, offsets=None):
        return tensors.TensorPlan(kernels, self._layout, T, B, offsets)

    def _plan_of(self, team, rows):
        T = len(rows.offsets) - 1
        return self._plan(team.kernels, T, rows.n_rows, rows.offsets)

    def _steps(self, team, mask, hold, x):
        """The `_Steps` of a mask; None where all steps are computed."""
        if mask is None or mask.all():
            return None
        return _Steps(team, mask, hold, _is_batch_major(x))

    def _packed(self, given, team, site, forward, backward):
        """The weights as the kernels can read them, and their packed forms."""
        given = [_readable(weight, team.kernels) for weight in given]
        packer = _packers.get(self._layout, site, self._packed_bytes)
        return given, packer.take_tensors(*team, given, None, forward, backward)

    def _run(self, plan, team, use, x, states, y, ends, tape):
        plan.forward(
            self._scratch, 0, team.n_threads, use, [x], False, *states, [y], *ends,
            *(None,) * (2 - len(ends)), tape,
        )  # fmt: skip

    def _run_back(
        self, plan, team, use, x, h0, y, tape, dy, ends, dx, starts, dweights
    ):
        plan.backward(
            self._scratch, 0, team.n_threads, use, [x], False, h0, [y], tape, dy, *ends,
            [dx], *starts, *(None,) * (2 - len(starts)), dweights,
        )  # fmt: skip


@functools.lru_cache(maxsize=1024)
def recurrence(form: Form) -> Recurrence:
    """The `Recurrence` of a form: the same object for the same form.

    Parameters
    ----------
    form : Form

    Returns
    -------
    Recurrence

    Raises
    ------
    ValueError
        If there is no such cell, or if it cannot have these sizes or options.

    Examples
    --------
    >>> import numpy as np
    >>> lstm = recurrence(Form("lstm", input_size=2, hidden_size=3, dtype="float64"))
    >>> weights = [np.ones(shape) for shape in lstm.weight_shapes]
    >>> x = np.ones((4, 1, 2))
    >>> y, h_n, c_n, tape = lstm.forward(weights, x)
    >>> dx, dh0, dc0, dweights = lstm.backward(weights, x, None, None, y, tape, dy=y)
    >>> y.shape, dx.shape, len(dweights)
    ((4, 1, 3), (4, 1, 2), 4)
    """
    return Recurrence(form)


def _team(dtype):
    return _Team(core.kernels(dtype), threads.for_kernel())


def _readable(array, kernels):
    """The array itself if it is contiguous and aligned, else a copy; None for None."""
    if array is None or (
        array.flags.c_contiguous and tensors.is_contiguous(array, kernels)
    ):
        return array
    return np.array(array, order="C")


def _sequence(array, kernels):
    """The array itself if the kernels can read it as a sequence, else a copy."""
    if array is None or (min(array.strides) >= 0 and tensors.is_series(array, kernels)):
        return array
    return np.array(array, order="C")


def _is_batch_major(x):
    """Whether a row's steps lie side by side in memory, and not a step's rows."""
    return not x.flags.c_contiguous and x.swapaxes(0, 1).flags.c_contiguous


def _new_like(x, width):
    """An array for a sequence, in memory in the order of axes that x has there."""
    T, B, _ = x.shape
    if _is_batch_major(x):
        return np.empty((B, T, width), x.dtype).swapaxes(0, 1)
    return np.empty((T, B, width), x.dtype)


def _start(rows, state):
    """The state (rows, width) that rows begin with, from that of the caller's."""
    return None if state is None else rows.gather_start(state[None])[0]


def _end_gradient(rows, part):
    """The gradient of rows' last states, from that of the caller's."""
    return None if part is None else rows.gather_d_end(part[None])[0]
