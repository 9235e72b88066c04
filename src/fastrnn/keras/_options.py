# SPDX-License-Identifier: BSD-3-Clause
"""Options of Keras layers: fastrnn's arguments for them, and which values it refuses.

The tables `SEQUENCE`, `TWO_DIRECTIONS` and `OTHERS` have for each option
the values that fastrnn's layers can compute. The first of them is the value that an
option has in a file that does not name it.
"""

# fastrnn's functions by the names of Keras 3.
FUNCTIONS = {
    "elu": "elu",
    "gelu": "gelu",
    "hard_sigmoid": ("hard_sigmoid", 1 / 6),
    "hard_tanh": "hard_tanh",
    "leaky_relu": ("leaky_relu", 0.2),
    "linear": "linear",
    "relu": "relu",
    "sigmoid": "sigmoid",
    "softplus": "softplus",
    "softsign": "softsign",
    "tanh": "tanh",
}
# The functions that were others in Keras 2: its hard_sigmoid is 0.2 x + 0.5.
KERAS_2 = {"hard_sigmoid": "hard_sigmoid"}

# Options about how sequences go through a recurrent layer, besides those that
# `sequence_arguments` translates.
SEQUENCE = {"time_major": (False,)}
# Of the forward layer inside a Bidirectional; the backward layer has True.
TWO_DIRECTIONS = {"go_backwards": (False,)}

# Options that act in training alone, and fastrnn's arguments for them; a model for
# inference may have any value of them.
TRAINING = {"dropout": "input_dropout", "recurrent_dropout": "recurrent_dropout"}
FOR_INFERENCE = (
    "; it acts in training alone: fastrnn.keras.load(path, inference=True) leaves it "
    "out, for predictions"
)

# Layers that act in training alone.
NOISE = ("AlphaDropout", "GaussianDropout", "GaussianNoise")

_CHANNELS_LAST = {"data_format": ("channels_last", None)}
OTHERS = {
    "AveragePooling1D": _CHANNELS_LAST,
    "BatchNormalization": {"renorm": (False,), "virtual_batch_size": (None,)},
    "Bidirectional": {"merge_mode": ("concat", "sum", "mul", "ave")},
    "Conv1D": {**_CHANNELS_LAST, "groups": (1,)},
    "Dropout": {"noise_shape": (None,)},
    "Flatten": _CHANNELS_LAST,
    "GlobalAveragePooling1D": _CHANNELS_LAST,
    "GlobalMaxPooling1D": _CHANNELS_LAST,
    "LayerNormalization": {"axis": ([-1], -1), "rms_scaling": (False,)},
    "MaxPooling1D": _CHANNELS_LAST,
    "ReLU": {"max_value": (None,), "negative_slope": (0,), "threshold": (0,)},
    "Softmax": {"axis": (-1,)},
}


def refuse(who, layer, option, value, accepted, hint=""):
    """Raise ValueError unless an option's value is one of those accepted."""
    if value not in accepted:
        listed = " or ".join(repr(one) for one in accepted)
        raise ValueError(
            f"{who}: {layer}: {option} must be {listed}, got {value!r}, "
            f"which fastrnn's layers do not compute{hint}"
        )


def _function(who, layer, config, option, default, version):
    """fastrnn's name of a function, or a pair of the name and a parameter."""
    name = config.get(option, default)
    name = "linear" if name is None else name
    refuse(who, layer, option, name, tuple(FUNCTIONS))
    return (KERAS_2 if version == 2 else {}).get(name, FUNCTIONS[name])


def cell_arguments(who, layer, kind, config, version):
    """The arguments that make a cell of fastrnn compute what a cell of Keras does.

    Parameters
    ----------
    who, layer : str
        The caller and the layer, for errors.
    kind : {"SimpleRNN", "LSTM", "GRU"}
    config : dict
        The configuration of the layer.
    version : int
        The version of Keras, 2 or 3.

    Returns
    -------
    dict
        Without arguments that would have their default values.

    Raises
    ------
    ValueError
        If the cell has a function that fastrnn does not have.
    """
    arguments = {}
    activation = _function(who, layer, config, "activation", "tanh", version)
    if kind == "SimpleRNN" and activation == "relu":
        return {"nonlinearity": "relu"}
    if activation != "tanh":
        arguments["activation"] = activation
    if kind == "SimpleRNN":
        return arguments
    gates = _function(who, layer, config, "recurrent_activation", "sigmoid", version)
    if gates != "sigmoid":
        arguments["recurrent_activation"] = gates
    # Files that are older than this option do not name it, and mean False.
    if kind == "GRU" and not config.get("reset_after", False):
        arguments["reset_after"] = False
    return arguments


def dropout_arguments(who, layer, kind, config):
    """The arguments for what a recurrent layer of Keras leaves out in training.

    Keras has a mask of h for each gate. With both options it has one of x for each
    gate, too, where fastrnn has one for all. It takes a probability of 1 for none at
    all, and None for 0.

    Raises
    ------
    ValueError
        If a probability is not a number in [0, 1].
    """
    arguments = {}
    for option, name in TRAINING.items():
        p = config.get(option)
        p = 0.0 if p is None else p
        is_number = isinstance(p, int | float) and not isinstance(p, bool)
        if not is_number or not 0 <= p <= 1:
            raise ValueError(
                f"{who}: {layer}: {option} must be a number in [0, 1], got "
                f"{p!r}{FOR_INFERENCE}"
            )
        if 0 < p < 1:
            arguments[name] = float(p)
    if "recurrent_dropout" in arguments and kind != "SimpleRNN":
        arguments["recurrent_dropout_mode"] = "per_gate"
    return arguments


def sequence_arguments(config, directions=1):
    """The arguments about how sequences go through a layer of one or two directions."""
    names = ["return_sequences", "go_backwards", "stateful"]
    # Keras's Bidirectional sets zero_output_for_mask of both of its layers, and a
    # fastrnn layer of two directions always does what it says.
    names += ["zero_output_for_mask"] if directions == 1 else []
    return {name: config.get(name, False) for name in names}
