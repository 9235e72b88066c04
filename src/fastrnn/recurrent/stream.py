# SPDX-License-Identifier: BSD-3-Clause
"""`Stream`: inference with one time step in each call, the state kept inside."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.native import core, single, threads
from fastrnn.native.memory import aligned
from fastrnn.nn.module import Module
from fastrnn.recurrent import connections, small_weights, states
from fastrnn.util import checks
from fastrnn.util.typing import Array, StateLike


class Stream:
    """A recurrent layer that runs on a live signal, with one time step in each call.

    The ``stream`` method of a layer makes it. A step allocates nothing, and gives the
    same bits as the layer's ``forward`` over the whole sequence.

    Parameters
    ----------
    layer : RNN, LSTM or GRU
        A layer in one direction. Its weights are copied: later changes of the layer's
        do not reach the stream.
    batch_size : int
        Independent signals, B, that step together.

    Attributes
    ----------
    state : tuple of ndarray, shape (num_layers, B, hidden_size)
        The state, h first: zero at first, or the initial state that the layer has
        learned. It may be written to; what is assigned is copied into it. With a
        projection h is ``proj_size`` wide.
    h, c : ndarray
        The first of these, and the second; `c` is None for cells that have h alone.

    Raises
    ------
    ValueError
        If the layer is bidirectional: the second direction needs the signal's end.
    TypeError
        If `layer` is not a recurrent layer.

    Notes
    -----
    One stream belongs to one thread at a time; streams of one layer are independent. A
    stream is not copied: make another one, and assign its `state`.

    Examples
    --------
    >>> lstm = fastrnn.LSTM(3, 5, seed=0)
    >>> stream = lstm.stream()
    >>> signal = np.ones((4, 1, 3), "f")
    >>> outputs = [stream.step(x_t).copy() for x_t in signal]
    >>> y, _ = lstm.eval()(signal)
    >>> bool((np.array(outputs) == y).all())
    True
    """

    __slots__ = ("_dtype", "_rest", "_shape", "_start", "_state", "_step")

    def __init__(self, layer: Module, batch_size: int = 1) -> None:
        if not hasattr(layer, "_runtime"):  # as all recurrent layers have it
            raise TypeError(
                "Stream: layer must be a recurrent layer, such as LSTM, got "
                f"{type(layer).__name__}"
            )
        who = f"{type(layer).__name__}.stream"
        B = checks.positive_int(who, "batch_size", batch_size)
        if layer.bidirectional:
            raise ValueError(
                f"{who}: the layer must not be bidirectional, got {layer!r}"
            )
        if layer.go_backwards:
            raise ValueError(f"{who}: the layer must not go backwards, got {layer!r}")
        kernels = core.kernels(layer.compute or layer._dtype, layer._quantized)
        n_threads = threads.for_kernel()
        runtime = layer._runtime
        cell, H, I = runtime.layout.cell, layer.hidden_size, layer.input_size
        S, options = runtime.h_size, runtime.options
        h, *_ = states.zeros(runtime, B)
        beside_h = np.zeros(
            (runtime.n_cells, runtime.n_states - 1, B, H), runtime.dtype
        )  # those of a cell side by side
        self._state = (h, *beside_h.swapaxes(0, 1))
        self._start = None
        if layer.learn_initial_state:
            self._start = [
                runtime.named[f"{letter}_0"][:, None].copy()
                for letter in runtime.cell.states
            ]
        self._dtype, self._shape = runtime.dtype, (B, layer.input_size)
        steps = []
        for k in range(runtime.n_cells):
            shape = single.Shape(cell, False, 1, B, I, H, None, options)
            packed = aligned(single.packed_size(kernels, False, shape), layer.dtype)
            _pack(layer, kernels, k, shape, packed)
            size = single.work_size(kernels, False, shape, n_threads)
            one = single.OneStep(
                kernels,
                shape,
                n_threads,
                packed,
                h[k],
                None if runtime.n_states == 1 else beside_h[k],
                np.empty((B, S), layer.dtype),
                aligned(size, layer.dtype),
            )
            step = one.step
            if k > 0 and layer.connection:
                around = connections.around_steps(runtime, kernels, n_threads, k, B)
                step = _connected(step, around)
            steps.append(step)
            I = S
        self._step, *self._rest = steps
        self.reset()

    @property
    def state(self) -> tuple[Array, ...]:
        """The arrays of the state, h first."""
        return self._state

    @state.setter
    def state(self, value: StateLike) -> None:
        """Copy arrays of the same shapes into the state, or change nothing."""
        who = f"{type(self).__name__}.state"
        parts = self._state
        given = list(value) if isinstance(value, tuple | list) else [value]
        if len(given) != len(parts):
            raise ValueError(f"{who}: must have {len(parts)} arrays, got {len(given)}")
        arrays = [
            checks.float_array(who, "state", one, parts[0].dtype) for one in given
        ]
        for array, part in zip(arrays, parts, strict=True):
            if array.shape != part.shape:
                raise ValueError(
                    f"{who}: an array must have shape {part.shape}, got {array.shape}"
                )
        for array, part in zip(arrays, parts, strict=True):
            part[...] = array

    def __reduce__(self):
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or pickled: make another one of "
            "its layer, and assign its state"
        )

    @property
    def h(self) -> Array:
        """The first array of the state."""
        return self._state[0]

    @property
    def c(self) -> Array | None:
        """The second array of the state; None for cells that have h alone."""
        return self._state[1] if len(self._state) > 1 else None

    def step(self, x_t: ArrayLike) -> Array:
        """Advance by one time step.

        Parameters
        ----------
        x_t : ndarray of the layer's dtype, shape (B, input_size), C-contiguous
            An array of another type or order of elements is refused, not converted.
            One that is not aligned or not in native byte order is copied first.

        Returns
        -------
        ndarray, shape (B, hidden_size)
            The last layer's output: one array, overwritten by the next step.

        Raises
        ------
        ValueError, TypeError
            If `x_t` is not such an array; the state has not changed then.
        """
        try:
            fits = x_t.shape == self._shape
        except AttributeError:
            raise self._wrong_type(f"a {type(x_t).__name__}") from None
        if not fits:
            raise ValueError(
                f"Stream.step: x_t must have shape (B, input_size) = {self._shape}, "
                f"got {x_t.shape}"
            )
        try:
            y = self._step(x_t)
        except (TypeError, ValueError):  # no state has changed
            y = self._step(self._readable(x_t))
        for step in self._rest:
            y = step(y)
        return y

    def _wrong_type(self, what):
        return TypeError(f"Stream.step: x_t must be a {self._dtype} array, got {what}")

    def _readable(self, x_t):
        """A copy that kernels read of what they refused, or an error that says why."""
        if not isinstance(x_t, np.ndarray):
            raise self._wrong_type(f"a {type(x_t).__name__}")
        if x_t.dtype.newbyteorder("=") != self._dtype:
            raise self._wrong_type(x_t.dtype)
        if not x_t.flags.c_contiguous:
            raise ValueError(
                "Stream.step: x_t must be C-contiguous, got strides "
                f"{x_t.strides}; np.ascontiguousarray(x_t) makes it so"
            )
        return x_t.astype(self._dtype)

    def reset(self, mask: ArrayLike | None = None) -> None:
        """Set the state to zero, or to the layer's learned initial state.

        Parameters
        ----------
        mask : array_like of bool, shape (B,), optional
            True for the signals that begin anew. Default: all of them.

        Raises
        ------
        ValueError, TypeError
            If `mask` is not such an array.
        """
        B = self._shape[0]
        mask = np.ones(B, bool) if mask is None else mask
        mask = checks.as_array("Stream.reset", "mask", mask)
        if mask.dtype != bool:
            raise TypeError(f"Stream.reset: mask must be bool, got {mask.dtype}")
        checks.shape("Stream.reset", "mask", mask, ("B",), (B,))
        start = self._start or [0] * len(self.state)
        for part, value in zip(self.state, start, strict=True):
            part[:, mask] = value


def _pack(layer, kernels, k, shape, packed):
    """Bring the weights of cell k into the form that kernels read."""
    runtime = layer._runtime
    if layer._quantized is not None:
        small_weights.pack(kernels, runtime, k, shape, packed)
        return
    W, R, b_ih, b_hh, P, W_hr, *norm = runtime.weights_of(k)
    names = ("norm_ih", "norm_hh", "norm_c", "norm_c_bias")
    of_norm = dict(zip(names, norm, strict=True))
    single.pack(kernels, False, shape, W, R, b_ih, b_hh, packed, P, W_hr, **of_norm)


def _connected(step, around):
    """A layer's step, and then the connection around the layer."""

    def connected_step(x):
        y = step(x)
        around(y, x)
        return y

    return connected_step
