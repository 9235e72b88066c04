# SPDX-License-Identifier: BSD-3-Clause
"""Options of Keras layers: our arguments for them, and what is refused.

Each entry of a table of refusals is an option and the values that can be expressed; the
first is what a file means that does not name the option.
"""

# Keras's functions and ours.
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
KERAS_2 = {"hard_sigmoid": "hard_sigmoid"}  # where it differs: 0.2 x + 0.5

# How sequences go through a layer, beside what `sequence_arguments` takes over.
SEQUENCE = {"return_state": (False,), "time_major": (False,)}
TWO_DIRECTIONS = {"go_backwards": (False,)}  # the second one's is the opposite

# What acts in training alone; a model for inference may have them.
TRAINING = {"dropout": (0.0,), "recurrent_dropout": (0.0,)}

OTHERS = {
    "Bidirectional": {"merge_mode": ("concat", "sum", "mul", "ave")},
    "Dropout": {"noise_shape": (None,)},
    "LayerNormalization": {"axis": ([-1], -1), "rms_scaling": (False,)},
}


def refuse(who, layer, option, value, accepted):
    """Raise ValueError unless `value` is one of those accepted."""
    if value not in accepted:
        listed = " or ".join(repr(one) for one in accepted)
        raise ValueError(
            f"{who}: {layer}: {option} must be {listed}, got {value!r}, "
            "which fastrnn's layers do not compute"
        )


def _function(who, layer, config, option, default, version):
    """Our name of a function, perhaps with its parameter."""
    name = config.get(option, default)
    name = "linear" if name is None else name
    refuse(who, layer, option, name, tuple(FUNCTIONS))
    return (KERAS_2 if version == 2 else {}).get(name, FUNCTIONS[name])


def cell_arguments(who, layer, kind, config, version):
    """Arguments that make a cell of ours compute what Keras's does.

    Parameters
    ----------
    who, layer : str
        For errors.
    kind : {"SimpleRNN", "LSTM", "GRU"}
    config : dict
        The layer's.
    version : int
        Of Keras, 2 or 3.

    Returns
    -------
    dict
        Without those that a layer has anyway.

    Raises
    ------
    ValueError
        If a function is not one of ours.
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
    # Files older than this option have one bias, and mean False.
    if kind == "GRU" and not config.get("reset_after", False):
        arguments["reset_after"] = False
    return arguments


def sequence_arguments(config, directions=1):
    """Arguments of how sequences go through a layer, in one direction or two."""
    names = ["return_sequences", "go_backwards", "stateful"]
    # Around two directions Keras sets it anyway, and so does ours.
    names += ["zero_output_for_mask"] if directions == 1 else []
    return {name: config.get(name, False) for name in names}
