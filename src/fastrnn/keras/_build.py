# SPDX-License-Identifier: BSD-3-Clause
"""`load`: the layers of a Keras file as a `Sequential` of ours."""

import os

import numpy as np

from fastrnn import (
    GRU,
    LSTM,
    RNN,
    Dropout,
    Embedding,
    Linear,
    Sequential,
    _check,
    _extras,
)
from fastrnn.keras._activation import FUNCTIONS, Activation
from fastrnn.keras._options import EQUATIONS, OTHERS, SEQUENCE, TRAINING, refuse
from fastrnn.keras._read import Layer, read
from fastrnn.keras._weights import dense_state, recurrent_state

_CLASSES = {"SimpleRNN": RNN, "LSTM": LSTM, "GRU": GRU}


def load(path, *, inference=False):
    """Read a Keras model, weights and all, as a `Sequential`.

    Parameters
    ----------
    path : path-like
        A ``.keras`` or ``.h5`` file of a Sequential model, or of a functional one whose
        layers follow one another. Layers may be Embedding, SimpleRNN, LSTM, GRU,
        Bidirectional, Dense, TimeDistributed of a Dense, Dropout, Activation, ReLU and
        Softmax.
    inference : bool
        True returns the model in eval mode, and passes over what acts in training
        alone: ``dropout`` and ``recurrent_dropout`` of recurrent layers, noise.

    Returns
    -------
    Sequential
        Recurrent layers are ``batch_first``, as Keras's are. Activations other than
        linear are layers of their own, after the Dense that had them. float64 where
        the file's weights are, else float32.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, or has a layer or an option that fastrnn does not compute; the
        message names layer, option and value.
    ImportError
        If h5py is not installed.

    Notes
    -----
    Optimiser, loss, metrics, initialisers, regularisers and constraints are not read.

    Examples
    --------
    >>> model = fastrnn.keras.load("model.keras")  # doctest: +SKIP
    >>> y = model(x)  # (B, T, features), as in Keras  # doctest: +SKIP
    """
    who = "fastrnn.keras.load"
    inference = _check.flag(who, "inference", inference)
    h5py = _extras.require(who, "h5py", "keras")
    who = f"{who}: {os.fspath(path)}"
    with open(path, "rb") as file:
        data = file.read()
    with _extras.reading(who, "a .keras or .h5 file"):
        layers = read(who, h5py, data)
        doubles = any(a.dtype == np.float64 for layer in layers for a in layer.arrays)
        build = _Builder(who, "float64" if doubles else "float32", inference)
        model = Sequential(*(part for layer in layers for part in build(layer)))
    return model.eval() if inference else model


class _Builder:
    """Makes the layers that stand for one of Keras's; `kind` says which method."""

    def __init__(self, who, dtype, inference):
        self.who, self.dtype, self.inference = who, dtype, inference
        self.kinds = {
            "Activation": self._activation,
            "Bidirectional": self._bidirectional,
            "Dense": self._dense,
            "Dropout": self._dropout,
            "Embedding": self._embedding,
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
        return self.kinds[layer.kind](layer)

    def _check(self, layer, config, options):
        for option, accepted in options.items():
            value = config.get(option, accepted[0])
            refuse(self.who, layer, option, value, accepted)

    def _filled(self, layer, module, state):
        """`module` with the weights of `layer`."""
        try:
            module.load_state_dict(state)
        except ValueError as error:
            raise ValueError(f"{self.who}: {layer}: {error}") from error
        return module

    def _arrays(self, layer, *counts):
        if len(layer.arrays) not in counts:
            raise ValueError(
                f"{self.who}: {layer} must have {' or '.join(map(str, counts))} "
                f"weights, got {len(layer.arrays)}"
            )
        return layer.arrays

    # -- recurrent layers -------------------------------------------------------------

    def _recurrent(self, layer):
        self._check_recurrent(layer, layer.kind, layer.config)
        return [self._cell(layer, layer.kind, layer.config, 1)]

    def _check_recurrent(self, layer, kind, config):
        if kind == "GRU" and "reset_after" not in config:
            # Files older than the option have one bias, and mean False.
            config = {**config, "reset_after": False}
        self._check(layer, config, EQUATIONS[kind])
        self._check(layer, config, SEQUENCE)
        if not self.inference:
            self._check(layer, config, TRAINING)

    def _cell(self, layer, kind, config, directions):
        has_bias = config.get("use_bias", True)
        arrays = self._arrays(layer, directions * (2 + has_bias))
        if any(array.ndim != 2 for array in arrays[:2]):
            raise ValueError(f"{self.who}: {layer}: kernels must be matrices")
        found, state = recurrent_state(f"{self.who}: {layer}", arrays)
        if found != kind or config["units"] != arrays[1].shape[0]:
            raise ValueError(
                f"{self.who}: {layer}: weights must be those of {config['units']} "
                f"units, got a recurrent kernel of shape {arrays[1].shape}"
            )
        options = {"bias": has_bias, "bidirectional": directions == 2}
        if kind == "SimpleRNN":
            options["nonlinearity"] = config.get("activation", "tanh")
        module = _CLASSES[kind](
            arrays[0].shape[0],
            config["units"],
            batch_first=True,
            dtype=self.dtype,
            **options,
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
        self._check_recurrent(layer, kind, config)
        other = layer.config.get("backward_layer", inner)
        if other["class_name"] != kind:
            raise ValueError(
                f"{self.who}: {layer}: both directions must be of one class, "
                f"got {kind} and {other['class_name']}"
            )
        for option in (*EQUATIONS[kind], *SEQUENCE, "units", "use_bias"):
            if option == "go_backwards":  # the second direction's is the opposite
                continue
            if other["config"].get(option) != config.get(option):
                raise ValueError(
                    f"{self.who}: {layer}: both directions must have the same "
                    f"{option}, got {config.get(option)!r} and "
                    f"{other['config'].get(option)!r}"
                )
        return [self._cell(layer, kind, config, 2)]

    # -- other layers -----------------------------------------------------------------

    def _embedding(self, layer):
        self._check(layer, layer.config, OTHERS["Embedding"])
        (table,) = self._arrays(layer, 1)
        module = Embedding(*table.shape, dtype=self.dtype)
        return [self._filled(layer, module, {"weight": table})]

    def _dense(self, layer):
        state = dense_state(self._arrays(layer, 1 + layer.config.get("use_bias", True)))
        O, I = state["weight"].shape
        module = Linear(I, O, bias="bias" in state, dtype=self.dtype)
        return [self._filled(layer, module, state), *self._activation(layer)]

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
        if kind not in ("Activation", "Dense", "Dropout", "ReLU", "Softmax"):
            raise ValueError(
                f"{self.who}: {layer}: its layer must act on the last axis alone, as a "
                f"Dense does, got {kind}"
            )
        return self(Layer(f"{layer.name}/{kind}", kind, config, layer.arrays))
