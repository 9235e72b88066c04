# SPDX-License-Identifier: BSD-3-Clause
"""`QuantizedLayer`: a recurrent layer for inference, its weights in fewer bytes."""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.native import core, single, threads
from fastrnn.native.memory import aligned
from fastrnn.nn.module import Module
from fastrnn.recurrent import inputs
from fastrnn.recurrent.stream import KeepsState
from fastrnn.util import checks
from fastrnn.util.typing import Array, StateLike

FORMATS = ("int8", "bfloat16")


def to_int8(M: Array) -> tuple[Array, Array]:
    """A matrix (G, H, K) as integers of a byte, and a scale for each of its rows.

    The largest number of a row, whatever its sign, becomes 127.
    """
    scale = np.abs(M).max(axis=2, initial=0) / np.float32(127)
    divisor = np.where(scale > 0, scale, np.float32(1))[..., None]
    return np.rint(M / divisor).astype(np.int8), scale.astype(np.float32)


def to_bfloat16(M: Array) -> Array:
    """The upper halves of float32 numbers, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(M, np.float32).view(np.uint32)
    odd = bits >> 16 & 1
    rounded = (bits + np.uint32(0x7FFF) + odd) >> 16
    # A NaN could become an infinity: it keeps its upper half, made a NaN for sure.
    return np.where(np.isnan(M), bits >> 16 | 0x40, rounded).astype(np.uint16)


def _check(who, layer):
    """Refuse a layer that no kernel computes with weights of fewer bytes."""
    name, known = type(layer).__name__, ", ".join(single.QUANTIZED_LAYERS)
    if not hasattr(layer, "_runtime"):
        raise TypeError(
            f"{who}: the layer must be one of {known}, which knows its input size, got "
            f"{layer!r}"
        )
    cell = layer._runtime.cell
    refused = {
        f"dtype {layer.dtype}": layer.dtype != "float32",
        "a projection": layer._runtime.is_narrow,
        "several heads": getattr(layer, "heads", 1) > 1,
        "layer_norm or rms_norm": bool(
            getattr(layer, "layer_norm", False) or getattr(layer, "rms_norm", False)
        ),
        "reset_after=False": not getattr(layer, "reset_after", True),
        "zoneout": bool(np.any(getattr(layer, "zoneout", 0))),
        f"compute={layer.compute!r}": layer.compute is not None,
        "merge_mode or connection": layer._runtime.layer_by_layer,
        "go_backwards": layer.go_backwards,
        "return_sequences=False": not layer.return_sequences,
        "stateful=True": layer.stateful,
        "learn_initial_state": layer.learn_initial_state,
        "a mask that zeroes outputs": layer.zero_output_for_mask,
    }
    found = [what for what, is_so in refused.items() if is_so]
    if cell.layer not in single.QUANTIZED_LAYERS or found:
        raise ValueError(
            f"{who}: the layer must be one of {known}, in float32 and without "
            f"options that no kernel for such weights has, got {name}"
            + (f" with {', '.join(found)}" if found else "")
        )


class QuantizedLayer:
    """A recurrent layer for inference, with weights of one byte or two.

    The method ``quantize`` of LSTM, GRU and RNN makes it. Weights of int8 have a scale
    for each row of W and R; x and h are rounded to 14 bits, and products are exact
    integers. Weights of bfloat16 are widened, and all else is float32: results have the
    bits of a layer whose weights were rounded.

    Parameters
    ----------
    layer : RNN, LSTM or GRU
        Its weights are copied: later changes do not reach this object.
    weights : {"int8", "bfloat16"}

    Attributes
    ----------
    weights : str
    nbytes : int
        Bytes of all packed weights, scales and biases.

    Raises
    ------
    ValueError
        If the layer's cell or options have no such kernels, or a weight is not finite
        and `weights` is "int8".

    Notes
    -----
    There is no backward: training needs the layer itself. Files hold layers, which are
    quantized again when they are loaded. Results are the same for any
    number of threads, and for a row alone or in a batch.

    Examples
    --------
    >>> lstm = fastrnn.LSTM(3, 64, seed=0).eval()
    >>> small = lstm.quantize("int8")
    >>> x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype("f")
    >>> y, (h, c) = small(x)
    >>> bool(np.abs(y - lstm(x)[0]).max() < 0.01)
    True
    """

    __slots__ = (
        "_kernels",
        "_layer",
        "_packed",
        "_repr",
        "_runtime",
        "batch_first",
        "bidirectional",
        "hidden_size",
        "input_size",
        "nbytes",
        "weights",
    )

    def __init__(self, layer: Module, weights: str = "int8") -> None:
        who = f"{type(layer).__name__}.quantize"
        if weights not in FORMATS:
            raise ValueError(
                f"{who}: weights must be one of {', '.join(FORMATS)}, got {weights!r}"
            )
        _check(who, layer)
        self.weights, self._layer = weights, type(layer).__name__
        self._repr = layer.extra_repr()
        self._runtime = runtime = copy.copy(layer._runtime)  # without the parameters
        del runtime.packed_weights, runtime.memory
        if runtime.options is not None:
            runtime.options = runtime.options.in_inference()
        self.input_size, self.hidden_size = layer.input_size, layer.hidden_size
        self.batch_first, self.bidirectional = layer.batch_first, layer.bidirectional
        self._kernels = core.kernels("float32")
        of_cell = layer._runtime.weights_of
        self._packed = [self._pack(who, k, of_cell(k)) for k in range(runtime.n_cells)]
        self.nbytes = sum(packed.nbytes for packed in self._packed)

    def __repr__(self) -> str:
        return f"{self._layer}({self._repr}, quantized={self.weights!r})"

    def __reduce__(self):
        raise TypeError(
            f"{self!r} is packed for this processor, and cannot be copied or pickled: "
            "save the layer that it was made of, and quantize that again"
        )

    def _width(self, k):
        """The number of inputs of cell k."""
        D = self._runtime.n_directions
        return self.input_size if k < D else D * self.hidden_size

    def _shape(self, k, T, B):
        runtime = self._runtime
        reverse = bool(k % runtime.n_directions)
        return single.Shape(
            runtime.layout.cell, reverse, T, B, self._width(k), self.hidden_size,
            None, runtime.options, self.weights,
        )  # fmt: skip

    def _pack(self, who, k, parameters):
        """The packed weights of cell k."""
        W, R, b_ih, b_hh, P, *_ = parameters
        H, shape = self.hidden_size, self._shape(k, 1, 1)
        W, R = W.reshape(-1, H, W.shape[-1]), R.reshape(-1, H, H)
        scales = None, None
        if self.weights == "int8":
            if not (np.isfinite(W).all() and np.isfinite(R).all()):
                raise ValueError(f"{who}: all weights must be finite for int8")
            (W, W_scale), (R, R_scale) = to_int8(W), to_int8(R)
            scales = W_scale, R_scale
        else:
            W, R = to_bfloat16(W), to_bfloat16(R)
        packed = aligned(single.packed_size(self._kernels, False, shape), "float32")
        single.pack_quantized(
            self._kernels, shape, W, R, *scales, b_ih, b_hh, packed, P
        )
        return packed

    def __call__(
        self, x: ArrayLike, hx: StateLike | None = None
    ) -> tuple[Array, StateLike]:
        """Run the layer over sequences, as the layer's own ``forward`` does.

        Parameters
        ----------
        x : array_like, shape (T, B, input_size) or (T, input_size)
            (B, T, input_size) with ``batch_first``.
        hx : array_like or tuple of array_like, optional
            Initial state, as the layer takes it. Default: zero.

        Returns
        -------
        y : ndarray, shape (T, B, directions * hidden_size)
            Laid out like x.
        state : ndarray or pair of ndarray
            Last state, shaped like `hx`.

        Raises
        ------
        ValueError, TypeError
            If an argument is not as above.
        """
        who, runtime = self._layer, self._runtime
        H, D = self.hidden_size, runtime.n_directions
        x, unbatched = inputs.sequences(
            who, "x", x, runtime.dtype, self.batch_first, "input_size", self.input_size
        )
        B, T = x.shape[:2] if self.batch_first else x.shape[1::-1]
        start = np.zeros((runtime.n_states, runtime.n_cells, B, H), np.float32)
        if hx is not None:
            names = [f"{letter}0" for letter in runtime.cell.states]
            names = names if len(names) > 1 else ("hx",)
            given = inputs.state(who, names, hx, runtime, B, unbatched)
            for into, part in zip(start, given, strict=True):
                if part is not None:
                    into[...] = part
        end, n_threads = np.empty_like(start), threads.for_kernel()
        for k in range(runtime.n_cells):
            if k % D == 0:
                source = np.ascontiguousarray(x)
                x = np.empty((*source.shape[:2], D * H), np.float32)
            shape = self._shape(k, T, B)
            size = single.work_size(self._kernels, False, shape, n_threads)
            beside = [
                part[1:, k].copy() if len(part) > 1 else None for part in (start, end)
            ]
            single.forward(
                self._kernels, shape, n_threads, self._strided(source, 0, T),
                self._packed[k], start[0, k], beside[0],
                self._strided(x, k % D * H, T), end[0, k], beside[1], None,
                aligned(size, "float32"),
            )  # fmt: skip
            if beside[1] is not None:
                end[1:, k] = beside[1]
        if unbatched:
            x, end = x.reshape(T, -1), end[:, :, 0]
        return x, (tuple(end) if len(end) > 1 else end[0])

    def _strided(self, array, first, T):
        width = array.shape[2]
        step, row = width, T * width
        if not self.batch_first:
            step, row = array.shape[1] * width, width
        return single.StridedArray(array, first, step, row)

    def stream(self, batch_size: int = 1) -> QuantizedStream:
        """Prepare inference one time step at a time, with the state kept inside.

        Parameters
        ----------
        batch_size : int

        Returns
        -------
        QuantizedStream

        Raises
        ------
        ValueError
            If the layer is bidirectional.
        """
        return QuantizedStream(self, batch_size)


class QuantizedStream(KeepsState):
    """A `QuantizedLayer` with one time step in each call.

    A step has the bits of the same step in a call for the whole sequence.

    Parameters
    ----------
    layer : QuantizedLayer
    batch_size : int
        Independent signals, B, that step together.

    Attributes
    ----------
    state : tuple of ndarray, shape (num_layers, B, hidden_size)
        The state, h first, zero at first. It may be written to; what is assigned is
        copied into it.

    Raises
    ------
    ValueError, TypeError
        If `layer` is bidirectional or no `QuantizedLayer`, or `batch_size` no positive
        integer.

    Examples
    --------
    >>> stream = fastrnn.GRU(3, 8, seed=0).quantize("int8").stream()
    >>> stream.step(np.ones((1, 3))).shape
    (1, 8)
    """

    __slots__ = ("_beside", "_shape", "_steps")

    def __init__(self, layer: QuantizedLayer, batch_size: int = 1) -> None:
        if not isinstance(layer, QuantizedLayer):
            raise TypeError(
                f"QuantizedStream: layer must be a QuantizedLayer, got "
                f"{type(layer).__name__}"
            )
        who = f"{layer._layer}.stream"
        B = checks.positive_int(who, "batch_size", batch_size)
        if layer.bidirectional:
            raise ValueError(
                f"{who}: the layer must not be bidirectional, got {layer!r}"
            )
        runtime, n_threads = layer._runtime, threads.for_kernel()
        H, kernels = layer.hidden_size, layer._kernels
        h = np.zeros((runtime.n_cells, B, H), np.float32)
        self._beside = np.zeros(
            (runtime.n_cells, runtime.n_states - 1, B, H), np.float32
        )
        self._state = (h, *self._beside.swapaxes(0, 1))
        self._shape, self._steps = (B, layer.input_size), []
        for k, packed in enumerate(layer._packed):
            shape = layer._shape(k, 1, B)
            size = single.work_size(kernels, False, shape, n_threads)
            one = single.OneStep(
                kernels, shape, n_threads, packed, h[k],
                self._beside[k] if runtime.n_states > 1 else None,
                np.empty((B, H), np.float32), aligned(size, "float32"),
            )  # fmt: skip
            self._steps.append(one.step)

    def step(self, x_t: ArrayLike) -> Array:
        """Advance by one time step.

        Parameters
        ----------
        x_t : array_like, shape (B, input_size)

        Returns
        -------
        ndarray, shape (B, hidden_size)
            The last layer's output: one array, overwritten by the next step.

        Raises
        ------
        ValueError, TypeError
            If `x_t` is not such an array; the state has not changed then.
        """
        if np.shape(x_t) != self._shape:
            raise ValueError(
                f"QuantizedStream.step: x_t must have shape (B, input_size) = "
                f"{self._shape}, got {np.shape(x_t)}"
            )
        y = checks.float_array("QuantizedStream.step", "x_t", x_t, "float32")
        for step in self._steps:
            y = step(y)
        return y

    def reset(self) -> None:
        """Set the state to zero."""
        for part in self.state:
            part[...] = 0
