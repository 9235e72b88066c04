# SPDX-License-Identifier: BSD-3-Clause
"""`load`: a `Sequential` of fastrnn's layers from the layers of a Keras file."""

from __future__ import annotations

import os

import numpy as np

from fastrnn.keras._options import (
    OTHERS,
    SEQUENCE,
    TRAINING,
    TWO_DIRECTIONS,
    cell_arguments,
    refuse,
    sequence_arguments,
)
from fastrnn.keras._read import Layer, read
from fastrnn.keras._weights import dense_state, recurrent_state
from fastrnn.nn.activation import FUNCTIONS, Activation
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.layers import Dropout, Linear
from fastrnn.nn.masking import Masking
from fastrnn.nn.norm import LayerNorm
from fastrnn.recurrent import GRU, LSTM, RNN
from fastrnn.recurrent.bidirectional import Bidirectional
from fastrnn.train.sequential import Sequential
from fastrnn.util import checks, extras, files
from fastrnn.util.typing import PathLike

_CLASSES = {"SimpleRNN": RNN, "LSTM": LSTM, "GRU": GRU}
# Layers that act on the last axis alone. Keras's TimeDistributed around one of them
# changes nothing, so it can be left out.
_LAST_AXIS = ("Activation", "Dense", "Dropout", "LayerNormalization", "ReLU", "Softmax")


def load(path: PathLike, *, inference: bool = False) -> Sequential:
    """Read a Keras model, weights and all, as a `Sequential`.

    Parameters
    ----------
    path : path-like
        A ``.keras`` or ``.h5`` file of a Sequential model, or of a functional one whose
        layers follow one another. Layers may be Embedding, Masking, SimpleRNN, LSTM,
        GRU, Bidirectional, Dense, LayerNormalization, Dropout, Activation, ReLU and
        Softmax, and TimeDistributed of one of the last six.
    inference : bool
        True returns the model in eval mode, and ignores options and layers that act in
        training alone: ``dropout`` and ``recurrent_dropout`` of recurrent layers, and
        layers of noise.

    Returns
    -------
    Sequential
        Recurrent layers are ``batch_first``, as Keras's are. An activation of a Dense,
        other than linear, is a layer of its own after the Dense. The model is float64
        if some weights in the file are, else float32. Masks go through the model as
        they do in Keras: see `Masking`.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is damaged, or has a layer or an option that fastrnn does not
        compute; the message names the layer, the option and its value.
    ImportError
        If h5py is not installed.

    Notes
    -----
    Optimiser, loss, metrics, initialisers, regularisers and constraints are not read.
    Features of HDF5 that Keras does not use (arrays in other files, links, filters,
    types that are not floating-point) are refused: `fastrnn.load_model` says what a
    file may do. Keras 3 has another "hard_sigmoid" than Keras 2: the layers get that of
    the Keras that wrote the file.

    Where Keras has one bias, fastrnn has two, of which the second is zero at first.
    Training changes both, so the sum of both takes steps of twice the size.

    Examples
    --------
    >>> model = fastrnn.keras.load("model.keras")  # doctest: +SKIP
    >>> y = model(x)  # (B, T, features), as in Keras  # doctest: +SKIP
    """
    who = "fastrnn.keras.load"
    inference = checks.flag(who, "inference", inference)
    h5py = extras.require(who, "h5py", "keras")
    who = f"{who}: {os.fspath(path)}"
    data = files.read_bytes(path)
    with files.reading(who, "a .keras or .h5 file"):
        version, layers = read(who, h5py, data)
        doubles = any(a.dtype == np.float64 for layer in layers for a in layer.arrays)
        build = _Builder(who, version, "float64" if doubles else "float32", inference)
        parts = [part for layer in layers for part in build(layer)]
        model = Sequential(*parts)
    return model.eval() if inference else model


class _Builder:
    """Makes fastrnn's layers from a layer of Keras, by one method for each class.

    Parameters
    ----------
    who : str
        The caller and the file, for errors.
    version : int
        The version of the Keras that wrote the file, 2 or 3.
    dtype : {"float32", "float64"}
    inference : bool
        As `load` takes it.
    """

    def __init__(self, who, version, dtype, inference):
        self.who, self.version = who, version
        self.dtype, self.inference = dtype, inference
        self.kinds = {
            "Activation": self._activation,
            "Bidirectional": self._bidirectional,
            "Dense": self._dense,
            "Dropout": self._dropout,
            "Embedding": self._embedding,
            "LayerNormalization": self._layer_norm,
            "Masking": lambda layer: [Masking(float(layer.config["mask_value"]))],
            "ReLU": self._activation,
            "Softmax": self._activation,
            "TimeDistributed": self._time_distributed,
            **dict.fromkeys(_CLASSES, self._recurrent),
        }
        if inference:
            noise = ("GaussianDropout", "GaussianNoise", "SpatialDropout1D")
            self.kinds |= dict.fromkeys(noise, lambda layer: [])

    def __call__(self, layer):
        if layer.kind not in self.kinds:
            raise ValueError(
                f"{self.who}: {layer} is not one of the layers that can be read: "
                f"{', '.join(sorted(self.kinds))}"
            )
        parts = self.kinds[layer.kind](layer)
        inner = layer.config.get("layer", {}).get("config", {})
        if not all(one.get("trainable", True) for one in (layer.config, inner)):
            for part in parts:
                part.trainable = False
        return parts

    def _check(self, layer, config, options):
        """Refuse values of options other than those accepted, as in `_options`."""
        for option, accepted in options.items():
            value = config.get(option, accepted[0])
            refuse(self.who, layer, option, value, accepted)

    def _filled(self, layer, module, state):
        """Load weights, named as fastrnn's, into the module that stands for a layer."""
        try:
            module.load_state_dict(state)
        except ValueError as error:
            raise ValueError(f"{self.who}: {layer}: {error}") from error
        return module

    def _arrays(self, layer, *counts):
        """The arrays of a layer, whose number must be one of `counts`."""
        if len(layer.arrays) not in counts:
            raise ValueError(
                f"{self.who}: {layer} must have {' or '.join(map(str, counts))} "
                f"weights, got {len(layer.arrays)}"
            )
        return layer.arrays

    # -- recurrent layers -------------------------------------------------------------

    def _recurrent(self, layer):
        arguments = self._arguments(layer, layer.kind, layer.config)
        return [self._cell(layer, layer.kind, layer.config, 1, arguments)]

    def _arguments(self, layer, kind, config, directions=1):
        """The arguments of fastrnn's layer for the options of a layer of Keras."""
        self._check(layer, config, SEQUENCE)
        if not self.inference:
            self._check(layer, config, TRAINING)
        return {
            "bias": config.get("use_bias", True),
            **sequence_arguments(config, directions),
            **cell_arguments(self.who, layer, kind, config, self.version),
        }

    def _cell(self, layer, kind, config, directions, arguments):
        """The recurrent layer of fastrnn, with weights, for a layer of Keras."""
        has_bias = arguments["bias"]
        arrays = self._arrays(layer, directions * (2 + has_bias))
        if any(array.ndim != 2 for array in arrays[:2]):
            raise ValueError(f"{self.who}: {layer}: kernels must be matrices")
        found, state = recurrent_state(f"{self.who}: {layer}", arrays)
        if found != kind or config["units"] != arrays[1].shape[0]:
            raise ValueError(
                f"{self.who}: {layer}: weights must be those of {config['units']} "
                f"units, got a recurrent kernel of shape {arrays[1].shape}"
            )
        if kind == "GRU" and has_bias:
            after = arguments.get("reset_after", True)
            if (arrays[2].ndim == 2) != after:
                raise ValueError(
                    f"{self.who}: {layer}: the bias must have {1 + after} axes with "
                    f"reset_after={after}, got shape {arrays[2].shape}"
                )
        module = _CLASSES[kind](
            arrays[0].shape[0],
            config["units"],
            batch_first=True,
            bidirectional=directions == 2,
            dtype=self.dtype,
            **arguments,
        )
        return self._filled(layer, module, state)

    def _bidirectional(self, layer):
        self._check(layer, layer.config, OTHERS["Bidirectional"])
        inner = layer.config["layer"]
        kind, config = inner["class_name"], inner["config"]
        if kind not in _CLASSES:
            raise ValueError(
                f"{self.who}: {layer}: its layer must be one of "
                f"{', '.join(_CLASSES)}, got {kind}"
            )
        self._check(layer, config, TWO_DIRECTIONS)
        other = layer.config.get("backward_layer", inner)
        if other["class_name"] != kind:
            raise ValueError(
                f"{self.who}: {layer}: both directions must be of one class, "
                f"got {kind} and {other['class_name']}"
            )
        arguments, others = (
            {
                "units": one["units"],
                **self._arguments(layer, kind, {**one, "go_backwards": False}, 2),
            }
            for one in (config, other["config"])
        )
        for name in {**arguments, **others}:
            if arguments.get(name) != others.get(name):
                raise ValueError(
                    f"{self.who}: {layer}: both directions must have the same {name}, "
                    f"got {config.get(name)!r} and {other['config'].get(name)!r}"
                )
        del arguments["units"]
        module = self._cell(layer, kind, config, 2, arguments)
        mode = layer.config.get("merge_mode", "concat")
        return [module if mode == "concat" else Bidirectional(module, mode)]

    # -- other layers -----------------------------------------------------------------

    def _embedding(self, layer):
        (table,) = self._arrays(layer, 1)
        if table.ndim != 2:
            raise ValueError(
                f"{self.who}: {layer}: weights must be a matrix, got {table.shape}"
            )
        masks = layer.config.get("mask_zero", False)
        module = Embedding(*table.shape, mask_zero=masks, dtype=self.dtype)
        return [self._filled(layer, module, {"weight": table})]

    def _dense(self, layer):
        state = dense_state(self._arrays(layer, 1 + layer.config.get("use_bias", True)))
        O, I = state["weight"].shape
        module = Linear(I, O, bias="bias" in state, dtype=self.dtype)
        return [self._filled(layer, module, state), *self._activation(layer)]

    def _layer_norm(self, layer):
        self._check(layer, layer.config, OTHERS["LayerNormalization"])
        names = [
            ours
            for ours, theirs in (("weight", "scale"), ("bias", "center"))
            if layer.config.get(theirs, True)
        ]
        state = dict(zip(names, self._arrays(layer, len(names)), strict=True))
        if not names:
            raise ValueError(
                f"{self.who}: {layer} must have scale or center to say how wide it is"
            )
        width = len(state[names[0]])
        state.setdefault("weight", np.ones(width))
        epsilon = layer.config.get("epsilon", 1e-3)
        module = LayerNorm(width, epsilon, bias="bias" in state, dtype=self.dtype)
        return [self._filled(layer, module, state)]

    def _activation(self, layer):
        function = layer.config.get("activation", "linear")
        if layer.kind == "ReLU":
            defaults = {"max_value": (None,), "negative_slope": (0,), "threshold": (0,)}
            self._check(layer, layer.config, defaults)
            function = "relu"
        elif layer.kind == "Softmax":
            self._check(layer, layer.config, {"axis": (-1,)})
            function = "softmax"
        refuse(self.who, layer, "activation", function, ("linear", *FUNCTIONS))
        return [] if function == "linear" else [Activation(function)]

    def _dropout(self, layer):
        if self.inference:
            return []
        self._check(layer, layer.config, OTHERS["Dropout"])
        return [Dropout(float(layer.config["rate"]))]

    def _time_distributed(self, layer):
        inner = layer.config["layer"]
        kind, config = inner["class_name"], inner["config"]
        if kind not in _LAST_AXIS:
            raise ValueError(
                f"{self.who}: {layer}: its layer must be one of "
                f"{', '.join(_LAST_AXIS)}, got {kind}"
            )
        return self(Layer(f"{layer.name}/{kind}", kind, config, layer.arrays))
