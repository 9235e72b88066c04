# SPDX-License-Identifier: BSD-3-Clause
"""Layers of Keras 1, and those for NVIDIA's cuDNN, as the layers of Keras 2.

Keras 1 has other names of options and classes, and an array for each gate of a
recurrent layer. The layers for cuDNN have weights in the order in memory that cuDNN
wants, and two biases.
"""

import numpy as np

# By class of Keras 1: its options that have other names.
_RECURRENT = {
    "output_dim": "units",
    "inner_activation": "recurrent_activation",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
}
_POOLING = {"pool_length": "pool_size", "stride": "strides", "border_mode": "padding"}
_OPTIONS = {
    "Conv1D": {
        "nb_filter": "filters",
        "filter_length": "kernel_size",
        "subsample_length": "strides",
        "border_mode": "padding",
        "bias": "use_bias",
    },
    "Dense": {"output_dim": "units", "bias": "use_bias"},
    "Dropout": {"p": "rate"},
    "SpatialDropout1D": {"p": "rate"},
    "AveragePooling1D": _POOLING,
    "MaxPooling1D": _POOLING,
    **dict.fromkeys(("SimpleRNN", "LSTM", "GRU"), _RECURRENT),
}
_CLASSES = {
    "BatchNormalizationV1": "BatchNormalization",  # so called in TensorFlow 1.13 to 2.0
    "BatchNormalizationV2": "BatchNormalization",
    "Convolution1D": "Conv1D",
    "CuDNNGRU": "GRU",
    "CuDNNLSTM": "LSTM",
    "UnifiedGRU": "GRU",
    "UnifiedLSTM": "LSTM",
}
_MERGE = {
    "concat": "Concatenate", "sum": "Add", "mul": "Multiply", "ave": "Average",
    "max": "Maximum",
}  # fmt: skip
# For each gate of Keras 2, in order, its place among the gates of Keras 1.
_GATES_OF_KERAS_1 = {"LSTM": (0, 2, 1, 3), "GRU": (0, 1, 2)}


def name_of(kind):
    """The name that a class has in Keras 2."""
    return _CLASSES.get(kind, kind)


def as_in_keras_2(who, layer):
    """A layer of any Keras as Keras 2 has it: class, options and weights.

    Raises
    ------
    ValueError
        If there is no such layer.
    """
    if layer.kind == "Merge":
        return _merger(who, layer)
    if layer.kind == "TimeDistributedDense":
        layer = layer._replace(kind="Dense")
    if layer.kind == "BatchNormalization":
        mode = layer.config.get("mode", 0)
        if mode != 0:
            raise ValueError(f"{who}: {layer}: mode must be 0, got {mode!r}")
    inner = layer.config.get("layer")
    if layer.kind != "Bidirectional" or not isinstance(inner, dict):
        return _plain(who, layer, layer.kind, 1)
    config, kind = dict(layer.config), inner["class_name"]
    found = _plain(who, layer._replace(config=inner["config"]), kind, 2)
    for name in ("layer", "backward_layer"):
        if isinstance(config.get(name), dict):
            own = dict(config[name])
            own["class_name"] = name_of(own["class_name"])
            own["config"] = _config(own["class_name"], kind, own["config"])
            config[name] = own
    return layer._replace(config=config, arrays=found.arrays)


def _plain(who, layer, kind, directions):
    """The layer with options and weights as in Keras 2."""
    ours = name_of(kind)
    config = _config(ours, kind, layer.config)
    arrays = layer.arrays
    if ours == "Conv1D" and arrays and arrays[0].ndim == 4:
        arrays = [_kernel(who, layer, config, arrays[0]), *arrays[1:]]
    n = len(arrays) // directions
    convert = None
    if kind.startswith("CuDNN"):
        convert = _of_cudnn
    elif n == 3 * len(_GATES_OF_KERAS_1.get(ours, ())):
        convert = _joined
    if n and convert is not None:
        arrays = [
            array
            for k in range(directions)
            for array in convert(who, layer, ours, arrays[k * n : (k + 1) * n])
        ]
    if layer.kind == kind:
        layer = layer._replace(kind=ours)
    return layer._replace(config=config, arrays=arrays)


def _config(ours, kind, config):
    """The options by the names of Keras 2."""
    names = _OPTIONS.get(ours, {})
    found = {
        names[name] if name in names and names[name] not in config else name: value
        for name, value in config.items()
    }
    if kind.startswith("CuDNN"):
        found |= {"activation": "tanh", "recurrent_activation": "sigmoid"}
        found |= {"reset_after": True, "use_bias": True}
    return found


def _merger(who, layer):
    """The layer that merges in the way of a Merge of Keras 1."""
    if layer.config.get("layers"):
        raise ValueError(
            f"{who}: {layer}: layers must be connected by a functional model"
        )
    mode = layer.config.get("mode", "sum")
    if not isinstance(mode, str) or mode not in _MERGE:
        raise ValueError(
            f"{who}: {layer}: mode must be one of {', '.join(_MERGE)}, got {mode!r}"
        )
    config = {
        "name": layer.name,
        "axis": layer.config.get("concat_axis", -1),
    }
    return layer._replace(kind=_MERGE[mode], config=config)


def _kernel(who, layer, config, kernel):
    """A kernel of Keras 1's Convolution1D, an image's, as (size, channels, filters)."""
    size, filters = config.get("kernel_size"), config.get("filters")
    if kernel.shape[:2] == (size, 1) and kernel.shape[3] == filters:
        return kernel[:, 0]
    if kernel.shape[0] == filters and kernel.shape[2:] == (size, 1):
        return kernel[..., 0].transpose(2, 1, 0)
    raise ValueError(
        f"{who}: {layer}: the kernel must have shape ({size}, 1, channels, {filters}), "
        f"got {kernel.shape}"
    )


def _joined(who, layer, kind, arrays):
    """Kernel, recurrent kernel and bias, all gates side by side, of Keras 1's arrays.

    For each gate there are the three; the order of the gates is i c f o or z r h.
    """
    order = _GATES_OF_KERAS_1[kind]
    parts = [[arrays[3 * gate + k] for gate in order] for k in range(3)]
    if any(one.shape != part[0].shape for part in parts for one in part):
        raise ValueError(f"{who}: {layer}: weights of all gates must have one shape")
    return [np.concatenate(part, axis=-1) for part in parts]


def _of_cudnn(who, layer, kind, arrays):
    """The weights of Keras 2's LSTM or GRU from those of its layer for cuDNN.

    A gate's part of the kernel has the numbers of a matrix (H, I) in that order in
    memory, whatever its shape says, and the recurrent kernel's parts are transposed.
    There are two biases, one after the other.
    """
    gates = {"LSTM": 4, "GRU": 3}[kind]
    if len(arrays) != 3 or arrays[0].ndim != 2 or arrays[1].ndim != 2:
        raise ValueError(f"{who}: {layer}: weights must be two kernels and a bias")
    kernel, recurrent, bias = arrays
    I, width = kernel.shape
    H = width // gates
    if width != gates * H or recurrent.shape != (H, width):
        raise ValueError(
            f"{who}: {layer}: kernels must be of {gates} gates, got shapes "
            f"{kernel.shape} and {recurrent.shape}"
        )
    if bias.shape != (2 * width,):
        raise ValueError(
            f"{who}: {layer}: the bias must have shape ({2 * width},), got {bias.shape}"
        )
    kernels = [np.reshape(part, (H, I)).T for part in np.split(kernel, gates, axis=1)]
    recurrents = [part.T for part in np.split(recurrent, gates, axis=1)]
    both = bias.reshape(2, width)
    return [
        np.concatenate(kernels, axis=1),
        np.concatenate(recurrents, axis=1),
        both if kind == "GRU" else both.sum(axis=0),
    ]
