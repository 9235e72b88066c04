# SPDX-License-Identifier: BSD-3-Clause
"""Tables of which a step uses few rows: the work is done for those, the numbers stay.

A row that a step did not use has gradient zero. Clearing it, measuring it and clipping
it need no memory access at all. An optimiser may still move it (Adam's running means
go on), but nobody can tell when: the steps that a row has missed are noted, and taken
in one go, in registers, before anybody reads the row. They are the same operations on
the same numbers, so the bits are those of the dense form.

Who may read rows are the layer's forward, which asks for those it gathers, and whoever
was handed an array by `parameters` or `grads`. Such arrays are watched: while one of
them, or a view of it, is alive, its table is treated as a dense one.

The layer that has a table (`Embedding`) tells it which rows it reads, `catch_up`, and
to which gradients it adds, `mark`. Everybody else calls the functions at the end of
this file, which take any layers and pass over those without a table, and an optimiser
has its `Steps`.
"""

import math
import weakref

import numpy as np

from fastrnn.native import core, optimizers, threads
from fastrnn.native.memory import Locked

# Steps that a row may miss; their rates are kept.
CAPACITY = 1024


class Steps:
    """The last steps of one optimiser, as rows that have missed them need to know them.

    Attributes
    ----------
    kernel : str
        Name of the optimiser's kernel.
    options : (tuple, list of bool)
        Its arguments that do not change from step to step, and which of the arrays
        that it may keep it does not.
    rates : ndarray, shape (CAPACITY, N_RATES)
        Those that do; of step t at t % CAPACITY.
    now : int
        Steps noted so far.
    lagging : dict of Module to Lag
        The layers whose rows may have missed some.
    """

    def __init__(self, kernel, dtype):
        self.kernel = kernel
        self.options = None
        self.rates = np.zeros((CAPACITY, optimizers.N_RATES), dtype)
        self.now = 0
        self.lagging = {}

    def take(self, layers, rates, arrays, options):
        """Step the sparse tables among some layers, and say which spans remain.

        Rows that have missed steps have to take them with the arguments of the time.
        Rates are remembered; where anything else changes, or a rate is too large for
        the type, no row is left behind.

        Parameters
        ----------
        layers : list of Module
            All that have parameters, in order of the flat arrays.
        rates : tuple of float
            Arguments of the kernel that change from step to step.
        arrays : sequence of ndarray or None
            Flat arrays that the optimiser keeps.
        options : tuple
            The kernel's other arguments.

        Returns
        -------
        list of slice
            What the optimiser steps in full. Layers that are not trainable are neither
            stepped nor in there.
        """
        if all(layer._table is None and layer._trainable for layer in layers):
            return [slice(None)]
        options = options, [array is None for array in arrays]
        if options != self.options:
            self.settle()
            self.options = options
        with np.errstate(over="ignore"):
            may_lag = np.isfinite(np.array(rates, self.rates.dtype)).all()
        lazy, spans, at, dense_from = [], [], 0, 0
        for layer in layers:
            lags = layer._table is not None and may_lag and layer._table.may_lag()
            if lags and layer._trainable:
                lazy.append((layer, at))
            if lags or not layer._trainable:
                spans.append(slice(dense_from, at))
                dense_from = at + layer._size
            at += layer._size
        spans.append(slice(dense_from, at))
        self.settle(but=[layer for layer, _ in lazy])
        for layer, start in lazy:
            layer._table.join(layer, self, start, arrays)
        rows = [layer._table.rows_to_step() for layer, _ in lazy]
        self.rates[self.now % CAPACITY, : len(rates)] = rates
        self.now += 1
        for (layer, _), some in zip(lazy, rows, strict=True):
            layer._table.step(layer, *some)
        return [span for span in spans if span.start < span.stop]

    def settle(self, but=()):
        """Let all rows take the steps they have missed, except in some layers."""
        settle(set(self.lagging).difference(but))


class Lag:
    """Which of an optimiser's steps each row of a layer's table has taken.

    Attributes
    ----------
    steps : Steps
    at : int
        Where the table begins in the optimiser's flat arrays.
    state : list of ndarray or None
        The table's parts of those that are kept between steps.
    seen : ndarray of int64, shape (rows,)
        Steps that each row has taken.
    """

    def __init__(self, steps, at, arrays, layer):
        self.steps, self.at = steps, at
        end = at + layer._size
        self.state = [None if a is None else a[at:end] for a in arrays]
        self.seen = np.full(layer._table.n_rows, steps.now, np.int64)
        self._next = 0  # the row that is brought forward next so that none falls far

    def take(self, layer, rows, with_gradient=False):
        """Bring ascending rows forward to now."""
        steps = self.steps
        ((p,), (g,)) = layer._param.values(), layer._grad.values()
        width = p.shape[1]
        getattr(optimizers, steps.kernel)(
            core.kernels(layer.dtype),
            threads.for_kernel(),
            p.reshape(-1),
            g.reshape(-1),
            self.state,
            (),
            *steps.options[0],
            optimizers.TableRows(
                width, rows, self.seen, steps.now, steps.rates, with_gradient
            ),
        )

    def next_rows(self):
        """A few rows, so that each has its turn before CAPACITY steps are over."""
        n = self.seen.size
        return np.arange(self._next, min(n, self._next + math.ceil(n / (CAPACITY - 1))))

    def take_some(self, layer, rows):
        """Bring `next_rows` forward."""
        self.take(layer, rows)
        self._next = (self._next + rows.size) % self.seen.size


class Table(Locked):
    """What a layer with one sparse table knows about its rows.

    Parameters
    ----------
    n_rows : int
    used : ndarray of bool, shape (n_rows,), optional
        Rows whose gradient may be other than zero.
    all_used : bool
        Whether any row's may: somebody was handed the gradients.
    """

    def __init__(self, n_rows, used=None, all_used=False):
        self.n_rows = n_rows
        self._used = np.zeros(n_rows, bool) if used is None else used
        self._all_used = all_used
        self._lag = None
        self.forget_views()
        super().__init__()

    def __reduce__(self):  # of a copy nobody has views, and its rows do not lag behind
        return Table, (self.n_rows, self._used.copy(), self._all_used)

    # -- arrays handed out ------------------------------------------------------------

    def forget_views(self):
        """Arrays handed out so far are not the layer's any more."""
        self._watched = {"_param": [], "_grad": []}

    def watch(self, which, root):
        """Note an array handed out; views of it keep it alive."""
        alive = [ref for ref in self._watched[which] if ref() is not None]
        self._watched[which] = [*alive, weakref.ref(root)]
        if which == "_grad":
            self._all_used = True

    def _has_views(self, which):
        return any(ref() is not None for ref in self._watched[which])

    # -- gradients --------------------------------------------------------------------

    def mark(self, indices):
        """Note that the gradients of these rows are about to be added to."""
        self._used[indices] = True

    def mark_all(self):
        """Note that the gradient of any row may be other than zero."""
        self._all_used = True

    def used_rows(self):
        """Rows whose gradient may be other than zero, ascending; None for any."""
        return None if self._all_used else np.flatnonzero(self._used)

    def note_cleared(self):
        """Note that all gradients are zero, until who has a view of them writes."""
        self._used[:] = False
        self._all_used = self._has_views("_grad")

    # -- steps of an optimiser --------------------------------------------------------

    def settle(self, layer):
        """Let all rows take the steps that they have missed."""
        with self._lock:
            lag = self._lag
            if lag is not None:
                lag.take(layer, np.arange(lag.seen.size))
                del lag.steps.lagging[layer]
                self._lag = None

    def catch_up(self, layer, indices):
        """Let these rows take the steps that they have missed."""
        with self._lock:
            lag = self._lag
            if lag is not None:
                late = indices[lag.seen[indices] < lag.steps.now]
                if late.size:
                    lag.take(layer, np.unique(late))

    def may_lag(self):
        """Whether rows may miss the next step: nobody would see it."""
        return not self._all_used and not self._has_views("_param")

    def join(self, layer, steps, at, arrays):
        """From the next step on, rows may miss steps of this optimiser.

        Parameters
        ----------
        layer : Module
        steps : Steps
        at : int
            Where the table begins in `arrays`.
        arrays : sequence of ndarray or None
            Flat arrays that the optimiser keeps.
        """
        lag = self._lag
        if lag is None or lag.steps is not steps or lag.at != at:
            self.settle(layer)
            self._lag = steps.lagging[layer] = Lag(steps, at, arrays, layer)

    def rows_to_step(self):
        """What `step` takes: rows with a gradient, and some whose turn it is."""
        return np.flatnonzero(self._used), self._lag.next_rows()

    def step(self, layer, used, some):
        """Take the step just noted: rows with a gradient at once, the others later."""
        with self._lock:
            self._lag.take(layer, used, with_gradient=True)
            self._lag.take_some(layer, some)


# -- layers with a table and without ---------------------------------------------------


def _with_tables(layers):
    return [layer for layer in layers if layer._table is not None]


def settle(layers):
    """Let all rows of the layers' tables take the steps that they have missed."""
    for layer in _with_tables(layers):
        layer._table.settle(layer)


def mark_all(layers):
    """Take any gradient of the layers' tables for one that may not be zero."""
    for layer in _with_tables(layers):
        layer._table.mark_all()


def note_cleared(layers):
    """Note that somebody has set all gradients of the layers to zero."""
    for layer in layers:
        if layer._table is not None:
            layer._table.note_cleared()


def forget_views(layer):
    """Note that arrays handed out so far are not the layer's any more."""
    if layer._table is not None:
        layer._table.forget_views()


def handed_out(which, array, layers):
    """A flat array of these layers, in a form that their tables, if any, can watch.

    Parameters
    ----------
    which : {"_param", "_grad"}
    array : ndarray, contiguous
    layers : sequence of Module

    Returns
    -------
    ndarray
        `array` itself if none of the layers has a table.
    """
    layers = _with_tables(layers)
    if not layers:
        return array
    if which == "_param":
        settle(layers)
    # Views of this array, and views of those, keep a reference to it and not to
    # `array`, because it does not own its memory through another ndarray.
    root = np.frombuffer(memoryview(array), array.dtype)
    for layer in layers:
        layer._table.watch(which, root)
    return root.reshape(array.shape)


def spans(layers, frozen_too=True):
    """Where gradients of layers that lie one after the other may be other than zero.

    Parameters
    ----------
    layers : sequence of Module
    frozen_too : bool
        Whether those of layers that are not trainable are asked for.

    Returns
    -------
    ndarray of int64, shape (n, 2), or None
        Begin and end of stretches of the flat gradients, ascending; None for all.
    """
    pieces, dense_from, at = [], 0, 0
    for layer in layers:
        rows = None if layer._table is None else layer._table.used_rows()
        if not (layer._trainable or frozen_too):
            pieces.append([[dense_from, at]])
            dense_from = at + layer._size
        elif rows is not None:
            pieces.append([[dense_from, at]])
            width = layer._size // layer._table.n_rows
            begin = at + rows * width
            pieces.append(np.stack([begin, begin + width], axis=1))
            dense_from = at + layer._size
        at += layer._size
    if not pieces:
        return None
    return np.concatenate([*pieces, [[dense_from, at]]])
