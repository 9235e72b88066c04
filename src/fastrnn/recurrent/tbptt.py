# SPDX-License-Identifier: BSD-3-Clause
"""Truncated back-propagation through time: a long sequence, window after window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.nn.attempt import Attempt
from fastrnn.nn.module import Module
from fastrnn.util import checks
from fastrnn.util.typing import Array


def tbptt(
    x: ArrayLike, k1: int, k2: int | None = None, *, batch_first: bool = False
) -> Iterator[Window]:
    """Go through a long sequence in windows, and carry the state from each to the next.

    Each window brings k1 new steps, and gradients go back through k2 steps at most.
    This is BPTT(k2; k1) of Williams & Peng [1]_. With k2 > k1 a window begins with
    k2 - k1 steps that were new in a window before. The layer runs them again with its
    weights as they are now, from the state that it had before these steps.

    Parameters
    ----------
    x : array_like, shape (T, B, ...) or (T, ...)
        Input of all steps; (B, T, ...) with `batch_first`.
    k1 : int
        New steps of a window. The last window has as many as are left.
    k2 : int, optional
        Steps that gradients go back through, at least `k1`. Default: `k1`.
    batch_first : bool
        Whether the second axis of x is that of time, as the layers' `batch_first` says.

    Returns
    -------
    iterator of Window

    Raises
    ------
    ValueError
        If k2 < k1, k1 < 1, or x has no step.
    TypeError
        If `k1` or `k2` is not an integer, or x is not an array.

    References
    ----------
    .. [1] R. Williams, J. Peng, "An Efficient Gradient-Based Algorithm for On-Line
       Training of Recurrent Network Trajectories", Neural Computation 2(4), 1990.

    Examples
    --------
    >>> lstm, readout = fastrnn.LSTM(1, 8, seed=0), fastrnn.Linear(8, 1, seed=1)
    >>> optimizer = fastrnn.SGD(fastrnn.Sequential(lstm, readout), lr=0.1)
    >>> x = np.sin(np.arange(1001.0)).reshape(-1, 1, 1)
    >>> for window in fastrnn.tbptt(x[:-1], 20, 50):
    ...     y = window.forward(lstm)
    ...     loss, dy = fastrnn.mse_loss(readout(y[window.new]), x[1:][window.steps])
    ...     optimizer.zero_grad()
    ...     dx = window.backward(lstm, readout.backward(dy))
    ...     optimizer.step()
    >>> window.start, window.stop, window.warm_up
    (950, 1000, 30)
    """
    array = checks.as_array("tbptt", "x", x)
    axis = 1 if batch_first else 0
    if array.ndim <= axis or array.shape[axis] == 0:
        raise ValueError(f"tbptt: x must have T >= 1, got shape {array.shape}")
    k1 = checks.positive_int("tbptt", "k1", k1)
    k2 = k1 if k2 is None else checks.positive_int("tbptt", "k2", k2)
    if k2 < k1:
        raise ValueError(f"tbptt: k2 must be at least k1 = {k1}, got {k2}")
    return _windows(array, k1, k2, axis)


def _windows(x, k1, k2, axis):
    T, states = x.shape[axis], {}
    for new in range(0, T, k1):
        stop = min(new + k1, T)
        start = max(0, new + k1 - k2)
        after = max(0, new + 2 * k1 - k2)  # where the next window begins
        yield Window(x, start, new, stop, min(after, stop), axis, states)


class Window:
    """Some steps of a sequence: what `tbptt` yields.

    Attributes
    ----------
    x : ndarray
        The window's part of the input, a view.
    start, stop : int
        The window's first step in the sequence, and the step after its last.
    warm_up : int
        How many steps at the window's beginning were new in a window before.
    new, steps : slice
        The window's new steps, counted in the window and in the sequence.

    Examples
    --------
    >>> for window in fastrnn.tbptt(np.ones((7, 2, 3)), 3, 4):
    ...     print(window, window.x.shape, window.new, window.steps)
    Window(start=0, stop=3, warm_up=0) (3, 2, 3) slice(0, 3, None) slice(0, 3, None)
    Window(start=2, stop=6, warm_up=1) (4, 2, 3) slice(1, 4, None) slice(3, 6, None)
    Window(start=5, stop=7, warm_up=1) (2, 2, 3) slice(1, 2, None) slice(6, 7, None)
    """

    def __init__(
        self,
        x: Any,
        start: Any,
        new: Any,
        stop: Any,
        after: Any,
        axis: Any,
        states: Any,
    ) -> None:
        self.start, self.stop, self.warm_up = start, stop, new - start
        self.new, self.steps = slice(new - start, stop - start), slice(new, stop)
        self._axis, self._cut = axis, after - start
        self._states = states  # by layer: (layer, the state that a window begins with)
        self._contexts = {}
        self.x = x[self._at(slice(start, stop))]

    def __repr__(self):
        return f"Window(start={self.start}, stop={self.stop}, warm_up={self.warm_up})"

    def _at(self, steps):
        return (slice(None), steps) if self._axis else (steps,)

    def state(self, layer: Module) -> Any:
        """The state that `layer` begins this window with; None for zero."""
        return self._states.get(id(layer), (layer, None))[1]

    def forward(self, layer: Module, x: ArrayLike | None = None) -> Array:
        """Run a recurrent layer over the window, from the state that it had there.

        Parameters
        ----------
        layer : RNN, LSTM or GRU
            A layer with ``return_sequences``, in one direction. It may run once in
            each window.
        x : array_like, optional
            The layer's input at the window's steps, such as the outputs of the layer
            below. Default: the window's `x`.

        Returns
        -------
        ndarray
            y of all steps of the window. Those of the new steps are ``y[window.new]``,
            or ``y[:, window.new]`` with ``batch_first``.

        Raises
        ------
        ValueError
            If x has not as many steps as the window, or the layer is of another kind.
        """
        self._check_layer("forward", layer)
        x = self.x if x is None else checks.as_array("Window.forward", "x", x)
        self._check_steps("forward", "x", x, self.stop - self.start)
        carried = state = self.state(layer)
        contexts, outputs = [], []
        for steps in (slice(0, self._cut), slice(self._cut, self.stop - self.start)):
            if steps.stop > steps.start:
                y, state = layer(x[self._at(steps)], state)
                outputs.append(y)
                contexts.append((steps, layer.context))
            if steps.stop == self._cut:
                carried = state
        # The layer is held until the sequence's end, so that no other gets its id.
        self._contexts[id(layer)] = contexts
        self._states[id(layer)] = layer, carried
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs, self._axis)

    def backward(self, layer: Module, dy: ArrayLike) -> Any:
        """Back-propagate through the window; gradients are added to the layer's.

        Parameters
        ----------
        layer : RNN, LSTM or GRU
            A layer that ran forward in this window, in training mode.
        dy : array_like
            Gradient with respect to y, of all steps of the window or of the new ones
            alone; it is then zero at the steps before.

        Returns
        -------
        ndarray
            Gradient with respect to the layer's x at all steps of the window.

        Raises
        ------
        ValueError
            If `dy` has another number of steps.
        RuntimeError
            If the layer has not run forward in this window.
        """
        self._check_layer("backward", layer)
        contexts = self._contexts.get(id(layer))
        if contexts is None or any(context is None for _, context in contexts):
            raise RuntimeError(
                "Window.backward: layer needs a forward of this window in training mode"
            )
        n = self.stop - self.start
        dy = checks.as_array("Window.backward", "dy", dy)
        self._check_steps("backward", "dy", dy, n, n - self.warm_up)
        if dy.shape[self._axis] != n:
            full = list(dy.shape)
            full[self._axis] = n
            whole = np.zeros(full, dy.dtype)
            whole[self._at(self.new)] = dy
            dy = whole
        d_state, parts = None, []
        with Attempt():
            for steps, context in reversed(contexts):
                dx, d_state = layer.backward(dy[self._at(steps)], d_state, context)
                parts.append(dx)
            if len(parts) == 1:
                return parts[0]
            return np.concatenate(parts[::-1], self._axis)

    def _check_layer(self, method, layer):
        who = f"Window.{method}"
        for name in ("bidirectional", "go_backwards", "stateful"):
            if getattr(layer, name, False):
                raise ValueError(f"{who}: layer must not be {name}, got {layer!r}")
        if not getattr(layer, "return_sequences", False):
            raise ValueError(
                f"{who}: layer must be recurrent and return sequences, got {layer!r}"
            )
        if layer.batch_first != bool(self._axis):
            raise ValueError(
                f"{who}: layer must have batch_first={bool(self._axis)}, as tbptt was "
                f"told, got {layer!r}"
            )

    def _check_steps(self, method, name, array, *allowed):
        found = array.shape[self._axis] if array.ndim > self._axis else 0
        if found not in allowed:
            counts = " or ".join(map(str, dict.fromkeys(allowed)))
            raise ValueError(
                f"Window.{method}: {name} must have the window's {counts} steps, "
                f"got shape {array.shape}"
            )
