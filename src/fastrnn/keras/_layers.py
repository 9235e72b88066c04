# SPDX-License-Identifier: BSD-3-Clause
"""`Builder`: fastrnn's layers from a layer of Keras, by one method for each class."""

import numpy as np

from fastrnn.keras import _old
from fastrnn.keras._graph import MODELS, Layer
from fastrnn.keras._options import FOR_INFERENCE, NOISE, OTHERS, refuse
from fastrnn.keras._recurrent import CLASSES, RecurrentBuilder
from fastrnn.keras._weights import dense_state
from fastrnn.nn import merging, pooling, reshaping
from fastrnn.nn.activation import FUNCTIONS, Activation
from fastrnn.nn.batch_norm import BatchNormalization
from fastrnn.nn.convolution import Conv1D
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.layers import Dropout, Linear
from fastrnn.nn.masking import Masking
from fastrnn.nn.norm import LayerNorm
from fastrnn.nn.spatial_dropout import SpatialDropout1D
from fastrnn.nn.wrappers import TimeDistributed

# Layers that act on the last axis alone. Keras's TimeDistributed around one of them
# changes nothing, so it can be left out.
_LAST_AXIS = ("Activation", "Dense", "Dropout", "LayerNormalization", "ReLU", "Softmax")
_MERGING = ("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract")
_GLOBAL = ("GlobalAveragePooling1D", "GlobalMaxPooling1D")
_POOLING = ("AveragePooling1D", "MaxPooling1D")


class Builder(RecurrentBuilder):
    """Makes fastrnn's layers from a layer of Keras.

    Parameters
    ----------
    who : str
        The caller and the file, for errors.
    version : int
        The version of the Keras that wrote the file, 2 or 3.
    dtype : {"float32", "float64"}
    inference : bool
        As `load` takes it.
    model_of : callable
        Makes a model of what `Layer.net` has: ``model_of(builder, net)``.
    """

    def __init__(self, who, version, dtype, inference, model_of):
        self.who, self.version = who, version
        self.dtype, self.inference = dtype, inference
        self.model_of = model_of
        self.kinds = {
            "Activation": self._activation,
            "BatchNormalization": self._batch_norm,
            "Bidirectional": self._bidirectional,
            "Concatenate": self._concatenate,
            "Conv1D": self._convolution,
            "Dense": self._dense,
            "Dropout": self._dropout,
            "Embedding": self._embedding,
            "Flatten": lambda layer: [reshaping.Flatten()],
            "LayerNormalization": self._layer_norm,
            "Masking": lambda layer: [Masking(float(layer.config["mask_value"]))],
            "Permute": lambda layer: [reshaping.Permute(layer.config["dims"])],
            "ReLU": self._activation,
            "RepeatVector": self._repeat,
            "Reshape": lambda layer: [reshaping.Reshape(layer.config["target_shape"])],
            "Softmax": self._activation,
            "SpatialDropout1D": self._spatial_dropout,
            "TimeDistributed": self._time_distributed,
            **dict.fromkeys(MODELS, lambda layer: [model_of(self, layer.net)]),
            **dict.fromkeys(CLASSES, self._recurrent),
            **dict.fromkeys(_GLOBAL, self._global_pooling),
            **dict.fromkeys(_MERGING, lambda layer: [getattr(merging, layer.kind)()]),
            **dict.fromkeys(_POOLING, self._pooling),
        }
        if inference:
            self.kinds |= dict.fromkeys(NOISE, lambda layer: [])

    def __call__(self, layer):
        """The layers of fastrnn, none or several, that stand for one of Keras."""
        layer = _old.as_in_keras_2(self.who, layer)
        if layer.kind not in self.kinds:
            hint = FOR_INFERENCE if layer.kind in NOISE else ""
            raise ValueError(
                f"{self.who}: {layer} is not one of the layers that can be read: "
                f"{', '.join(sorted(self.kinds))}{hint}"
            )
        self._check(layer, layer.config, OTHERS.get(layer.kind, {}))
        parts = self.kinds[layer.kind](layer)
        inner = layer.config.get("layer", {}).get("config", {})
        for one in (layer.config, inner):
            if isinstance(one, dict) and not one.get("trainable", True):
                for part in parts:
                    part.trainable = False
        return parts

    # -- layers with weights ----------------------------------------------------------

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

    def _convolution(self, layer):
        config = layer.config
        use_bias = config.get("use_bias", True)
        kernel, *bias = self._arrays(layer, 1 + use_bias)
        if kernel.ndim != 3:
            raise ValueError(
                f"{self.who}: {layer}: the kernel must have three axes, "
                f"got shape {kernel.shape}"
            )
        size, channels, filters = kernel.shape
        module = Conv1D(
            filters,
            size,
            self._one(layer, "strides", 1),
            config.get("padding", "valid"),
            self._one(layer, "dilation_rate", 1),
            use_bias=use_bias,
            in_channels=channels,
            batch_first=True,
            dtype=self.dtype,
        )
        state = {"weight": kernel.transpose(2, 1, 0)}
        state |= {"bias": bias[0]} if bias else {}
        return [self._filled(layer, module, state), *self._activation(layer)]

    def _one(self, layer, option, usual):
        """An option that is a number, or the only one in a list."""
        value = layer.config.get(option, usual)
        if isinstance(value, list):
            if len(value) != 1:
                raise ValueError(
                    f"{self.who}: {layer}: {option} must be one number, got {value!r}"
                )
            (value,) = value
        return value

    def _normalised(self, layer, *others):
        """The weights of a layer that normalises, by our names, and how wide it is."""
        names = [
            ours
            for ours, theirs in (("weight", "scale"), ("bias", "center"))
            if layer.config.get(theirs, True)
        ]
        names += others
        state = dict(zip(names, self._arrays(layer, len(names)), strict=True))
        if not names:
            raise ValueError(
                f"{self.who}: {layer} must have scale or center to say how wide it is"
            )
        return state, len(state[names[0]])

    def _layer_norm(self, layer):
        state, width = self._normalised(layer)
        state.setdefault("weight", np.ones(width))
        epsilon = layer.config.get("epsilon", 1e-3)
        module = LayerNorm(width, epsilon, bias="bias" in state, dtype=self.dtype)
        return [self._filled(layer, module, state)]

    def _batch_norm(self, layer):
        config = layer.config
        state, width = self._normalised(layer, "moving.mean", "moving.variance")
        module = BatchNormalization(
            self._one(layer, "axis", -1),
            config.get("momentum", 0.99),
            config.get("epsilon", 1e-3),
            config.get("center", True),
            config.get("scale", True),
            num_features=width,
            dtype=self.dtype,
        )
        return [self._filled(layer, module, state)]

    # -- layers without weights -------------------------------------------------------

    def _activation(self, layer):
        function = layer.config.get("activation", "linear")
        if layer.kind in ("ReLU", "Softmax"):
            function = layer.kind.lower()
        function = "linear" if function is None else function
        refuse(self.who, layer, "activation", function, ("linear", *FUNCTIONS))
        return [] if function == "linear" else [Activation(function)]

    def _dropout(self, layer):
        return [] if self.inference else [Dropout(float(layer.config["rate"]))]

    def _spatial_dropout(self, layer):
        if self.inference:
            return []
        return [SpatialDropout1D(float(layer.config["rate"]), batch_first=True)]

    def _repeat(self, layer):
        return [reshaping.RepeatVector(layer.config["n"], batch_first=True)]

    def _concatenate(self, layer):
        return [merging.Concatenate(layer.config.get("axis", -1))]

    def _global_pooling(self, layer):
        keepdims = bool(layer.config.get("keepdims", False))
        cls = getattr(pooling, layer.kind)
        return [cls(keepdims=keepdims, batch_first=True)]

    def _pooling(self, layer):
        size = self._one(layer, "pool_size", 2)
        strides = self._one(layer, "strides", None)
        padding = layer.config.get("padding", "valid")
        cls = getattr(pooling, layer.kind)
        return [cls(size, strides, padding, batch_first=True)]

    def _time_distributed(self, layer):
        inner = layer.config["layer"]
        kind, config = inner["class_name"], inner["config"]
        config = config if isinstance(config, dict) else {}
        whole = Layer(f"{layer.name}/{kind}", kind, config, layer.arrays, layer.net)
        if _old.name_of(kind) in CLASSES and config.get("stateful", False):
            raise ValueError(f"{self.who}: {whole}: stateful must be False")
        parts = self(whole)
        if kind in _LAST_AXIS:
            return parts
        return [TimeDistributed(part) for part in parts]
