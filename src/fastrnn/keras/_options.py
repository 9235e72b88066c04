# SPDX-License-Identifier: BSD-3-Clause
"""Options of Keras layers that fastrnn does not compute: the one table of them.

Each entry is an option and the values that can be expressed; the first is what a file
means that does not name the option. An entry goes when a layer gains the option.
"""

# What the cell's equations are: these matter to the meaning of the weights.
EQUATIONS = {
    "SimpleRNN": {"activation": ("tanh", "relu")},
    "LSTM": {"activation": ("tanh",), "recurrent_activation": ("sigmoid",)},
    "GRU": {
        "activation": ("tanh",),
        "recurrent_activation": ("sigmoid",),
        "reset_after": (True,),
    },
}

# How sequences go through the layer.
SEQUENCE = {
    "return_sequences": (True,),
    "return_state": (False,),
    "go_backwards": (False,),
    "stateful": (False,),
    "time_major": (False,),
}

# What acts in training alone; a model for inference may have them.
TRAINING = {"dropout": (0.0,), "recurrent_dropout": (0.0,)}

OTHERS = {
    "Bidirectional": {"merge_mode": ("concat",)},
    "Dropout": {"noise_shape": (None,)},
    "Embedding": {"mask_zero": (False,)},
}


def refuse(who, layer, option, value, accepted):
    """Raise ValueError unless `value` is one of those accepted."""
    if value not in accepted:
        listed = " or ".join(repr(one) for one in accepted)
        raise ValueError(
            f"{who}: {layer}: {option} must be {listed}, got {value!r}, "
            "which fastrnn's layers do not compute"
        )
