# SPDX-License-Identifier: BSD-3-Clause
"""RNN, LSTM and GRU layers: torch.nn's arguments, parameters and results, in NumPy."""

import warnings

import numpy as np

from fastrnn import _check, _core, _threads, init
from fastrnn._packed import PackedWeights
from fastrnn._pool import Pool
from fastrnn.module import Module
from fastrnn.stream import Stream

# Arrays that one layer and direction has in use between forward and backward at most.
_ARRAYS_PER_CELL = 8


class _Pass:
    """What the forward of one layer in one direction leaves for its backward."""

    __slots__ = ("h0", "packed", "shape", "suffix", "tape", "x", "y")


class _Recurrent(Module):
    """What RNN, LSTM and GRU have in common: everything but the cell."""

    _gates = 1
    _states = 1  # arrays in a state: (h,) or (h, c)
    _cell = "rnn_tanh"

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        bias=True,
        batch_first=False,
        dropout=0.0,
        bidirectional=False,
        *,
        dtype="float32",
        seed=None,
    ):
        who = type(self).__name__
        self.input_size = _check.positive_int(who, "input_size", input_size)
        self.hidden_size = _check.positive_int(who, "hidden_size", hidden_size)
        self.num_layers = _check.positive_int(who, "num_layers", num_layers)
        self.bias = _check.flag(who, "bias", bias)
        self.batch_first = _check.flag(who, "batch_first", batch_first)
        self.dropout = _check.probability(who, "dropout", dropout)
        self.bidirectional = _check.flag(who, "bidirectional", bidirectional)
        if self.dropout > 0 and self.num_layers == 1:
            inherited = type(self).__init__ is _Recurrent.__init__
            warnings.warn(
                f"{who}: dropout acts between layers, and num_layers is 1",
                stacklevel=2 if inherited else 3,
            )
        generator = _check.generator(who, seed)
        shapes = {}
        self._suffixes = []  # of the parameters of each layer and direction, in order
        self._spans = {}  # where a cell's parameters lie in this layer's
        G, H, stop = self._gates, self.hidden_size, 0
        for layer in range(self.num_layers):
            I = self.input_size if layer == 0 else H * self._directions
            for direction in ("", "_reverse")[: self._directions]:
                suffix, start = f"_l{layer}{direction}", stop
                self._suffixes.append(suffix)
                shapes[f"weight_ih{suffix}"] = (G * H, I)
                shapes[f"weight_hh{suffix}"] = (G * H, H)
                if self.bias:
                    shapes[f"bias_ih{suffix}"] = shapes[f"bias_hh{suffix}"] = (G * H,)
                stop += G * H * (I + H + 2 * self.bias)
                self._spans[suffix] = start, stop
        self._declare(shapes, _check.dtype_name(who, dtype))
        for view in self._param.values():
            init.fan_in_uniform_(view, H, seed=generator)
        self._dropout_seeds = generator.spawn(1)[0]
        self._pool = Pool(self.dtype, _ARRAYS_PER_CELL * len(self._suffixes))
        self._packed = PackedWeights(self._cell, self._pool)

    @property
    def _directions(self):
        return 2 if self.bidirectional else 1

    def extra_repr(self):
        defaults = {
            "num_layers": 1,
            "nonlinearity": "tanh",
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
        }
        shown = [str(self.input_size), str(self.hidden_size)]
        for name, default in defaults.items():
            value = getattr(self, name, default)
            if value != default:
                shown.append(f"{name}={value!r}")
        if self.dtype != "float32":
            shown.append(f"dtype={self.dtype!r}")
        return ", ".join(shown)

    # -- arguments --------------------------------------------------------------------

    def _sequences(self, who, name, value, width_name, width, outer=None):
        """`value` as (T, B, width) or, batch first, (B, T, width); and whether 2-D.

        `outer` is (T, B) or (B, T) where it is known; (T,) for unbatched arrays.
        """
        array = _check.float_array(who, name, value, self.dtype)
        unbatched = len(outer) == 1 if outer else array.ndim == 2
        axes = ("T",) if unbatched else ("B", "T") if self.batch_first else ("T", "B")
        letters = (*axes, width_name)
        _check.shape(who, name, array, letters, (*(outer or [None] * len(axes)), width))
        _check.not_empty(who, name, array, letters)
        if unbatched:
            array = array[None] if self.batch_first else array[:, None]
        return array, unbatched

    def _state(self, who, names, value, B, unbatched):
        """A state, or the gradient of one, as (L, B, H) arrays; None stays None."""
        if value is None:
            return [None] * self._states
        if self._states == 1:
            value = (value,)
        elif not isinstance(value, (tuple, list)) or len(value) != self._states:
            came = type(value).__name__
            if isinstance(value, (tuple, list)):
                came += f" of length {len(value)}"
            raise TypeError(
                f"{who}: {' and '.join(names)} must come as a pair, got {came}"
            )
        letters = ("num_layers * directions", "B", "hidden_size")
        sizes = (self.num_layers * self._directions, B, self.hidden_size)
        if unbatched:
            letters, sizes = letters[::2], sizes[::2]
        arrays = []
        for name, part in zip(names, value, strict=True):
            if part is not None:
                part = _check.float_array(who, name, part, self.dtype)
                _check.shape(who, name, part, letters, sizes)
                part = part.reshape(-1, B, self.hidden_size)
            arrays.append(part)
        return arrays

    def _series(self, array, direction=0):
        """An array of sequences as the kernels see it; a direction has its columns."""
        outer, inner = array.shape[1] * array.shape[2], array.shape[2]
        first = direction * self.hidden_size
        if self.batch_first:
            return _core.Series(array, first, inner, outer)
        return _core.Series(array, first, outer, inner)

    # -- forward ----------------------------------------------------------------------

    def forward(self, x, hx=None):
        """Run the layer over sequences.

        Parameters
        ----------
        x : array_like, shape (T, B, input_size) or (T, input_size)
            Input sequences; (B, T, input_size) with ``batch_first``.
        hx : array_like or pair of array_like, optional
            Initial state, each of shape (num_layers * directions, B, hidden_size),
            without B for unbatched x. ``h0``, or ``(h0, c0)`` for an LSTM. Zero if not
            given.

        Returns
        -------
        y : ndarray, shape (T, B, directions * hidden_size)
            Outputs of the last layer, laid out like x. Read-only in training mode:
            backward needs it as it is, and x too.
        state : ndarray or pair of ndarray
            Last state, ``h_n`` or ``(h_n, c_n)``, shaped like `hx`.

        Raises
        ------
        ValueError
            If a shape disagrees, or T or B is 0.
        TypeError
            If an argument is not real numbers.
        """
        who = type(self).__name__
        x, unbatched = self._sequences(who, "x", x, "input_size", self.input_size)
        T, B = x.shape[1::-1] if self.batch_first else x.shape[:2]
        names = ("h0", "c0") if self._states == 2 else ("hx",)
        given = self._state(who, names, hx, B, unbatched)
        L, H, D = self.num_layers * self._directions, self.hidden_size, self._directions
        # Copied: backward needs it, and a state is small enough not to ask for care.
        start = [np.zeros((L, B, H), self.dtype) for _ in given]
        for into, part in zip(start, given, strict=True):
            if part is not None:
                into[...] = part
        end = [np.empty((L, B, H), self.dtype) for _ in given]
        kernels, n_threads = _core.kernels(self.dtype), _threads.for_kernel()

        passes, masks = [], []
        for layer in range(self.num_layers):
            if layer > 0:
                x, mask = self._drop(kernels, n_threads, x)
                masks.append(mask)
            y = np.empty((*x.shape[:2], D * H), self.dtype)
            for direction in range(D):
                k = layer * D + direction
                shape = _core.Shape(
                    _core.CELLS[self._cell], direction, T, B, x.shape[2], H
                )
                passes.append(
                    self._run_cell(
                        kernels,
                        n_threads,
                        shape,
                        self._suffixes[k],
                        self._series(x),
                        self._series(y, direction),
                        [part[k] for part in start],
                        [part[k] for part in end],
                    )
                )
            x = y
        self._keep((kernels, x.shape[:2], unbatched, passes, masks))
        if self.training:
            y.flags.writeable = False
        if unbatched:
            y, end = y.reshape(T, -1), [s[:, 0] for s in end]
        return y, end[0] if self._states == 1 else tuple(end)

    def _weights(self, source, suffix):
        return [
            source.get(f"{name}{suffix}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]

    def _run_cell(self, kernels, n_threads, shape, suffix, x, y, start, end):
        """Forward of one layer in one direction."""
        weights = self._weights(self._param, suffix)
        span = slice(*(self._start + at for at in self._spans[suffix]))
        memory = self._buffers[0][span]
        packed = self._packed.take(kernels, suffix, memory, weights, self.training)
        work = self._pool.take(kernels.work_size(False, shape, n_threads))
        tape = self._pool.take(kernels.tape_size(shape)) if self.training else None
        c0, c_n = (start[1], end[1]) if self._states == 2 else (None, None)
        kernels.forward(
            shape,
            n_threads,
            x,
            packed.forward,
            start[0],
            c0,
            y,
            end[0],
            c_n,
            tape,
            work,
        )
        self._pool.give(work)
        if not self.training:
            self._packed.give(suffix, packed)
            return None
        kept = _Pass()
        kept.shape, kept.suffix, kept.x, kept.y = shape, suffix, x, y
        kept.h0, kept.tape, kept.packed = start[0], tape, packed
        return kept

    def _drop(self, kernels, n_threads, x):
        """Dropout between layers: the array that goes on, and what makes the mask."""
        if not self.training or self.dropout == 0:
            return x, None
        mask = int(self._dropout_seeds.integers(2**63)), self.dropout
        dropped = np.empty_like(x)
        kernels.dropout(n_threads, *mask, x, dropped)
        return dropped, mask

    def stream(self, batch_size=1):
        """Inference one time step at a time, the state kept inside.

        Parameters
        ----------
        batch_size : int
            Independent signals that step together.

        Returns
        -------
        Stream
            With ``step(x_t)`` and ``reset(mask=None)``; it has a copy of the weights.

        Raises
        ------
        ValueError
            If the layer is bidirectional.
        """
        return Stream(self, batch_size)

    # -- backward ---------------------------------------------------------------------

    def backward(self, dy, d_state=None, context=None):
        """Back-propagate through time; parameter gradients are added to `grads`.

        Parameters
        ----------
        dy : array_like or None
            Gradient of the loss with respect to y, shaped like y; None for zero.
        d_state : array_like or pair of array_like, optional
            Gradient with respect to the last state, shaped like it; zero if not given.
            In a pair either may be None.
        context : Context, optional
            Which forward: its ``layer.context``. Default: the last.

        Returns
        -------
        dx : ndarray
            Gradient with respect to x, shaped like x.
        d_hx : ndarray or pair of ndarray
            Gradient with respect to the initial state.

        Raises
        ------
        ValueError
            If a shape disagrees, or both `dy` and `d_state` are None.
        TypeError
            If an argument is not real numbers.
        RuntimeError
            If there was no forward in training mode, or its context was used before.
        """
        context = self._context(context)
        who = f"{type(self).__name__}.backward"
        kernels, outer, unbatched, passes, masks = context.saved
        L, H, D = self.num_layers * self._directions, self.hidden_size, self._directions
        B = outer[0 if self.batch_first else 1]
        names = ("d_h_n", "d_c_n") if self._states == 2 else ("d_state",)
        d_end = self._state(who, names, d_state, B, unbatched)
        if dy is None and all(part is None for part in d_end):
            raise ValueError(f"{who}: dy and d_state must not both be None")
        if dy is not None:
            known = (outer[0] * outer[1],) if unbatched else outer
            dy, _ = self._sequences(
                who, "dy", dy, "directions * hidden_size", D * H, known
            )
        d_start = [np.empty((L, B, H), self.dtype) for _ in d_end]
        n_threads = _threads.for_kernel()
        # From here on gradients are added: what fails now must not be added twice.
        context.release()

        for layer in reversed(range(self.num_layers)):
            width = self.input_size if layer == 0 else D * H
            dx = np.empty((*outer, width), self.dtype)
            for direction in range(D):
                k = layer * D + direction
                self._run_cell_backward(
                    kernels,
                    n_threads,
                    passes[k],
                    None if dy is None else self._series(dy, direction),
                    [None if part is None else part[k] for part in d_end],
                    self._series(dx),
                    direction == 1,
                    [part[k] for part in d_start],
                )
            if layer > 0 and masks[layer - 1] is not None:
                kernels.dropout(n_threads, *masks[layer - 1], dx, dx)
            dy = dx
        for kept in passes:
            self._packed.give(kept.suffix, kept.packed)
            self._pool.give(kept.tape)
        if unbatched:
            dx, d_start = dx.reshape(-1, width), [part[:, 0] for part in d_start]
        return dx, d_start[0] if self._states == 1 else tuple(d_start)

    def _run_cell_backward(
        self, kernels, n_threads, kept, dy, d_end, dx, dx_accumulate, d_start
    ):
        """Backward of one layer in one direction."""
        dc_n, dc0 = (d_end[1], d_start[1]) if self._states == 2 else (None, None)
        work = self._pool.take(kernels.work_size(True, kept.shape, n_threads))
        kernels.backward(
            kept.shape,
            n_threads,
            kept.x,
            kept.packed.backward,
            kept.h0,
            kept.y,
            kept.tape,
            dy,
            d_end[0],
            dc_n,
            dx,
            dx_accumulate,
            d_start[0],
            dc0,
            *self._weights(self._grad, kept.suffix),
            work,
        )
        self._pool.give(work)


class RNN(_Recurrent):
    """Elman network: ``h_t = tanh(x_t W^T + b_ih + h_{t-1} R^T + b_hh)``, or ReLU.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and of h.
    num_layers : int
        Layers stacked, each on the outputs of the one below.
    nonlinearity : {"tanh", "relu"}
    bias : bool
        False leaves b_ih and b_hh out.
    batch_first : bool
        x and y are (B, T, features) instead of (T, B, features); states are not.
    dropout : float in [0, 1]
        Share of a layer's outputs zeroed on the way to the next, in training mode.
    bidirectional : bool
        A second set of cells runs from the last step to the first; y holds both
        directions' outputs side by side.
    dtype : {"float32", "float64"}
    seed : int or numpy.random.Generator, optional
        For the initial weights, U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)), and for
        dropout.

    Notes
    -----
    Parameters: ``weight_ih_l{k} (H, I)``, ``weight_hh_l{k} (H, H)``, ``bias_ih_l{k}``
    and ``bias_hh_l{k} (H,)``, with ``_reverse`` appended for the second direction. A
    `torch.nn.RNN` state dict loads as it is. `init.identity_` on ``weight_hh`` makes
    the network of Le, Jaitly & Hinton out of a ReLU layer.

    References
    ----------
    .. [1] J. Elman, "Finding Structure in Time", Cognitive Science 14, 1990.
    .. [2] Q. Le, N. Jaitly, G. Hinton, "A Simple Way to Initialize Recurrent Networks
       of Rectified Linear Units", arXiv:1504.00941, 2015.

    Examples
    --------
    >>> import numpy as np
    >>> rnn = RNN(3, 5, seed=0)
    >>> y, h_n = rnn(np.ones((7, 2, 3), "f"))
    >>> y.shape, h_n.shape
    ((7, 2, 5), (1, 2, 5))
    >>> dx, d_h0 = rnn.backward(np.ones_like(y))
    >>> dx.shape
    (7, 2, 3)
    """

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        nonlinearity="tanh",
        bias=True,
        batch_first=False,
        dropout=0.0,
        bidirectional=False,
        *,
        dtype="float32",
        seed=None,
    ):
        _check.choice("RNN", "nonlinearity", nonlinearity, ("tanh", "relu"))
        self.nonlinearity = nonlinearity
        self._cell = f"rnn_{nonlinearity}"
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            dtype=dtype,
            seed=seed,
        )


class LSTM(_Recurrent):
    """Long short-term memory, with forget gate.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and of h.
    num_layers : int
        Layers stacked, each on the outputs of the one below.
    bias : bool
        False leaves b_ih and b_hh out.
    batch_first : bool
        x and y are (B, T, features) instead of (T, B, features); states are not.
    dropout : float in [0, 1]
        Share of a layer's outputs zeroed on the way to the next, in training mode.
    bidirectional : bool
        A second set of cells runs from the last step to the first; y holds both
        directions' outputs side by side.
    dtype : {"float32", "float64"}
    seed : int or numpy.random.Generator, optional
        For the initial weights, U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)), and for
        dropout.

    Notes
    -----
    With ``a = x_t W^T + b_ih + h_{t-1} R^T + b_hh`` in gates i, f, g, o::

        i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o);  g = tanh(a_g)
        c_t = f * c_{t-1} + i * g;  h_t = o * tanh(c_t)

    Parameters: ``weight_ih_l{k} (4 H, I)``, ``weight_hh_l{k} (4 H, H)``,
    ``bias_ih_l{k}`` and ``bias_hh_l{k} (4 H,)``, with ``_reverse`` appended for the
    second direction. A `torch.nn.LSTM` state dict loads as it is.

    References
    ----------
    .. [1] S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", Neural Computation
       9(8), 1997.
    .. [2] F. Gers, J. Schmidhuber, F. Cummins, "Learning to Forget", Neural Computation
       12(10), 2000.

    Examples
    --------
    >>> import numpy as np
    >>> lstm = LSTM(3, 5, seed=0)
    >>> y, (h_n, c_n) = lstm(np.ones((7, 2, 3), "f"))
    >>> y.shape, h_n.shape, c_n.shape
    ((7, 2, 5), (1, 2, 5), (1, 2, 5))
    >>> dx, (d_h0, d_c0) = lstm.backward(np.ones_like(y))
    >>> lstm.grads["weight_hh_l0"].shape
    (20, 5)
    """

    _gates = 4
    _states = 2
    _cell = "lstm"


class GRU(_Recurrent):
    """Gated recurrent unit, the reset gate after the product (PyTorch's and cuDNN's).

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and of h.
    num_layers : int
        Layers stacked, each on the outputs of the one below.
    bias : bool
        False leaves b_ih and b_hh out.
    batch_first : bool
        x and y are (B, T, features) instead of (T, B, features); states are not.
    dropout : float in [0, 1]
        Share of a layer's outputs zeroed on the way to the next, in training mode.
    bidirectional : bool
        A second set of cells runs from the last step to the first; y holds both
        directions' outputs side by side.
    dtype : {"float32", "float64"}
    seed : int or numpy.random.Generator, optional
        For the initial weights, U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)), and for
        dropout.

    Notes
    -----
    With gates r, z, n::

        r, z = sigmoid(x_t W^T + b_ih + h_{t-1} R^T + b_hh), a part of it each
        n = tanh(x_t W_n^T + b_in + r * (h_{t-1} R_n^T + b_hn))
        h_t = (1 - z) * n + z * h_{t-1}

    Parameters: ``weight_ih_l{k} (3 H, I)``, ``weight_hh_l{k} (3 H, H)``,
    ``bias_ih_l{k}`` and ``bias_hh_l{k} (3 H,)``, with ``_reverse`` appended for the
    second direction. A `torch.nn.GRU` state dict loads as it is.

    References
    ----------
    .. [1] K. Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for
       Statistical Machine Translation", EMNLP 2014.

    Examples
    --------
    >>> import numpy as np
    >>> gru = GRU(3, 5, bidirectional=True, seed=0)
    >>> y, h_n = gru(np.ones((7, 2, 3), "f"))
    >>> y.shape, h_n.shape
    ((7, 2, 10), (2, 2, 5))
    """

    _gates = 3
    _cell = "gru"
