# SPDX-License-Identifier: BSD-3-Clause
"""What a recurrent layer's options mean: arguments checked, and put for the kernels.

Functions take the layer's name as `who`, and raise `TypeError` for the wrong kind of
thing and `ValueError` for the wrong one of its kind.
"""

import collections.abc
import math
import numbers
from typing import Any, TypeAlias

import numpy as np

from fastrnn.native import celltable
from fastrnn.recurrent import leaving_out
from fastrnn.recurrent.connections import CONNECTIONS
from fastrnn.recurrent.merging import MERGE_MODES
from fastrnn.util import checks

# Defaults of the functions that have parameters: alpha, or alpha and beta.
PARAMETERS = {
    "hard_sigmoid": (0.2, 0.5),
    "elu": (1.0,),
    "leaky_relu": (0.01,),
    "thresholded_relu": (1.0,),
    "affine": (1.0, 0.0),
    "scaled_tanh": (1.0, 1.0),
}
SAME = {"identity": "affine", "linear": "affine"}  # affine with its defaults
NAMES = (*celltable.ACTIVATIONS, *SAME)
# What a layer takes as one function, or as one for each gate: a name, a name with its
# parameters, a dict, or a sequence of these.
Functions: TypeAlias = (
    str | collections.abc.Sequence[Any] | collections.abc.Mapping[str, Any]
)
# What the arguments are when they change nothing, in the order in which repr has them.
DEFAULTS = {
    "proj_size": 0,
    "peephole": False,
    "input_forget": False,
    "reset_after": True,
    "forget_gate": "sigmoid",
    "noise": 0.0,
    "heads": 1,
    "log_space": False,
    "rescale": False,
    "highway_bias": 0.0,
    "layer_norm": False,
    "rms_norm": False,
    "activation": None,
    "recurrent_activation": None,
    "cell_clip": None,
    "zoneout": 0.0,
    "recurrent_dropout": 0.0,
    "recurrent_dropout_mode": "h",
    "input_dropout": 0.0,
    "weight_drop": 0.0,
    "learn_initial_state": False,
    "forget_bias": None,
    "clip_state_grad": None,
    "merge_mode": "concat",
    "connection": None,
}
# What the kernels know as "masks".
MASKS = (
    "zoneout",
    "recurrent_dropout",
    "recurrent_dropout_mode",
    "input_dropout",
    "weight_drop",
)
# Those of them that only some cells know: a class that has one sets it as an attribute.
OWN = (
    "proj_size",
    "peephole",
    "input_forget",
    "reset_after",
    "forget_gate",
    "noise",
    "heads",
    "log_space",
    "rescale",
    "highway_bias",
    "layer_norm",
    "rms_norm",
)


def gates_of(cell):
    """Which functions of a cell an argument replaces, by the argument's name.

    `recurrent_activation` stands for functions that open and close a gate, which is
    what a sigmoid does in the plain cell, and `activation` for all the others. Indices
    are those of `celltable.Cell.activations`: gates in their order, then the function
    of c_t. An argument that stands for none is left out.
    """
    opens = [name == "sigmoid" for name in cell.activations]
    found = {
        "activation": tuple(k for k, one in enumerate(opens) if not one),
        "recurrent_activation": tuple(k for k, one in enumerate(opens) if one),
    }
    return {name: gates for name, gates in found.items() if gates}


def _meaning(cell, name):
    """In words, what the functions of an argument are applied to."""
    letters = [*cell.gates, "c_t"]
    found = [letters[k] for k in gates_of(cell)[name]]
    if name == "recurrent_activation":
        return f"gates {', '.join(found)}"
    return " and ".join(found)


def of_cell(cell):
    """Names of those arguments of a layer that change what its cells compute.

    Parameters
    ----------
    cell : celltable.Cell
        Its `options` are what the kernels know; some have other names in a layer.
    """
    found = [*gates_of(cell)] if "activations" in cell.options else []
    names = {
        "clip": "cell_clip",
        "reset_before": "reset_after",
        "exp_forget": "forget_gate",
        "fixed_vectors": cell.vectors,
        "skip_scale": "rescale",
    }
    found += [*MASKS] if "masks" in cell.options else []
    known = [
        option
        for option in cell.options
        if option not in ("activations", "masks", "candidate")
    ]
    if cell.norms:
        found += ["layer_norm", "rms_norm"]
    return found + [names.get(option, option) for option in known]


def check_known(who, cell, given):
    """Refuse an argument that says something and that the cell does not know."""
    known = of_cell(cell)
    for name, value in given.items():
        default = DEFAULTS[name]
        if name in known or (type(value) is type(default) and value == default):
            continue
        every = map(celltable.cell, celltable.CELLS)
        able = dict.fromkeys(one.layer for one in every if name in of_cell(one))
        raise ValueError(
            f"{who}: {name} is an option of {', '.join(able)}, not of {cell.layer}"
        )


def _is_function(value):
    """Whether this is one function: a name, (name, alpha[, beta]) or a dict."""
    if isinstance(value, str | collections.abc.Mapping):
        return True
    return (
        isinstance(value, tuple | list)
        and 2 <= len(value) <= 3
        and isinstance(value[0], str)
        and all(isinstance(number, numbers.Real) for number in value[1:])
    )


def _function(who, name, value):
    """(name of the kernels' function, alpha, beta)."""
    given = {}
    if isinstance(value, collections.abc.Mapping):
        given = dict(value)
        value = given.pop("name", None)
    elif not isinstance(value, str):
        value, *numbers_given = value
        given = dict(zip(("alpha", "beta"), numbers_given, strict=False))
    checks.choice(who, name, value, NAMES)
    defaults = dict(zip(("alpha", "beta"), PARAMETERS.get(value, ()), strict=False))
    if not given.keys() <= defaults.keys():
        has = " and ".join(defaults) or "no parameters"
        raise ValueError(
            f"{who}: {name}: {value!r} has {has}, got "
            + ", ".join(str(key) for key in given if key not in defaults)
        )
    for key, number in given.items():
        defaults[key] = checks.finite(who, f"{key} of {name}", number)
    if value in SAME:
        return SAME[value], *PARAMETERS[SAME[value]]
    return value, defaults.get("alpha", 0.0), defaults.get("beta", 0.0)


def _functions(who, cell, name, value):
    """A triple for each gate, from one function for all or a sequence of them."""
    n = len(gates_of(cell)[name])
    if _is_function(value):
        return [_function(who, name, value)] * n
    rule = f"{who}: {name} must be a name, (name, alpha[, beta]) or a dict"
    if n > 1:
        rule += f", or {n} of these for {_meaning(cell, name)}"
    if not isinstance(value, tuple | list):
        raise TypeError(f"{rule}, got {value!r}")
    if n == 1 or len(value) != n or not all(_is_function(one) for one in value):
        raise ValueError(f"{rule}, got {value!r}")
    return [_function(who, name, one) for one in value]


def functions(who, cell, activation=None, recurrent_activation=None):
    """(name, alpha, beta) of every gate of a cell; then of c_t where there is one.

    Parameters
    ----------
    cell : celltable.Cell
        It says which functions the plain cell has.
    activation, recurrent_activation
        As a layer takes them: in place of the plain cell's functions (`gates_of`).
    """
    given = {"activation": activation, "recurrent_activation": recurrent_activation}
    check_known(who, cell, given)
    result = [(name, 0.0, 0.0) for name in cell.activations]
    for name, gates in gates_of(cell).items():
        if given[name] is not None:
            found = _functions(who, cell, name, given[name])
            for gate, function in zip(gates, found, strict=True):
                result[gate] = function
    return result


def norms_of(cell):
    """What `layer_norm` and `rms_norm` may be, by the kernels' name of each.

    The first one is what True stands for. A cell whose state c can be normalised, too,
    has "gates" for what is "apart" in other cells.
    """
    names = {norm: norm for norm in cell.norms}
    if "cell" in names:
        names["apart"] = "gates"
    default = next(name for name in ("cell", "apart", "input") if name in names)
    return {default: names[default], **names}


def norm(who, cell, layer_norm, rms_norm):
    """(the kernels' name of a norm or None, whether it is an RMS norm)."""
    given = {"layer_norm": layer_norm, "rms_norm": rms_norm}
    check_known(who, cell, given)
    chosen = {name: value for name, value in given.items() if value is not False}
    if not chosen:
        return None, False
    if len(chosen) == 2:
        raise ValueError(
            f"{who}: layer_norm and rms_norm must not both be given, got "
            f"{layer_norm!r} and {rms_norm!r}"
        )
    ((name, value),) = chosen.items()
    names = norms_of(cell)
    if value is True:
        value = next(iter(names.values()))
    elif not isinstance(value, str):
        raise TypeError(f"{who}: {name} must be True, False or a name, got {value!r}")
    checks.choice(who, name, value, tuple(names.values()))
    native = {shown: kernels for kernels, shown in names.items()}[value]
    return native, name == "rms_norm"


def cell_options(
    who,
    cell,
    hidden_size,
    *,
    activation=None,
    recurrent_activation=None,
    cell_clip=None,
    proj_size=0,
    peephole=False,
    input_forget=False,
    reset_after=True,
    forget_gate="sigmoid",
    noise=0.0,
    fixed_vectors=None,
    zoneout=0.0,
    recurrent_dropout=0.0,
    recurrent_dropout_mode="h",
    input_dropout=0.0,
    heads=1,
    log_space=False,
    rescale=False,
    highway_bias=0.0,
    layer_norm=False,
    rms_norm=False,
):
    """A layer's `celltable.CellOptions`; None where its cells are the plain ones.

    Arguments are those of `functions`, the layer's of the same names, and
    `fixed_vectors` as `CellOptions` takes them.
    """
    of_gates = functions(who, cell, activation, recurrent_activation)
    if cell_clip is not None:
        cell_clip = checks.real_in(who, "cell_clip", cell_clip, "(0, inf)")
    if isinstance(proj_size, bool | np.bool_) or not isinstance(
        proj_size, numbers.Integral
    ):
        raise TypeError(f"{who}: proj_size must be an integer, got {proj_size!r}")
    if not 0 <= proj_size < hidden_size:
        raise ValueError(
            f"{who}: proj_size must be 0 for none or less than hidden_size = "
            f"{hidden_size}, got {proj_size}"
        )
    heads = checks.positive_int(who, "heads", heads)
    if hidden_size % heads:
        raise ValueError(
            f"{who}: hidden_size must be a multiple of heads, got "
            f"hidden_size={hidden_size}, heads={heads}"
        )
    flags = {
        "peephole": checks.flag(who, "peephole", peephole),
        "input_forget": checks.flag(who, "input_forget", input_forget),
        "reset_after": checks.flag(who, "reset_after", reset_after),
        "log_space": checks.flag(who, "log_space", log_space),
        "rescale": checks.flag(who, "rescale", rescale),
    }
    sizes = {"proj_size": int(proj_size), "heads": heads}
    noise = checks.real_in(who, "noise", noise, "[0, inf)")
    checks.choice(who, "forget_gate", forget_gate, ("sigmoid", "exponential"))
    _, zoned = leaving_out.zoneout(who, cell, zoneout)
    masks = {
        "recurrent_dropout": checks.probability(
            who, "recurrent_dropout", recurrent_dropout
        ),
        "input_dropout": checks.probability(who, "input_dropout", input_dropout),
    }
    check_known(
        who,
        cell,
        {
            "cell_clip": cell_clip,
            **sizes,
            "forget_gate": forget_gate,
            "noise": noise,
            **flags,
            "zoneout": max(zoned),
            **masks,
        },
    )
    mode = leaving_out.recurrent_mode(who, cell, recurrent_dropout_mode)
    masks |= {"zoneout": zoned, "recurrent_mode": mode}
    for name, given in (("proj_size", proj_size), ("reset_after", reset_after)):
        if heads > 1 and given != DEFAULTS[name]:
            raise ValueError(
                f"{who}: {name} must be {DEFAULTS[name]!r} with several heads, got "
                f"{given!r} and heads={heads}"
            )
    more = {"clip": cell_clip or 0.0, "reset_before": not flags.pop("reset_after")}
    if flags.pop("rescale"):
        # At this scale the variance of h is that of x where a layer begins (Lei 2018).
        more["skip_scale"] = math.sqrt(1 + 2 * math.exp(highway_bias))
    more |= {"exp_forget": forget_gate == "exponential", "noise": noise} | flags
    more["norm"], more["rms"] = norm(who, cell, layer_norm, rms_norm)
    for name, refused in (
        ("input_forget=True", flags["input_forget"]),
        ("reset_after=False", more["reset_before"]),
    ):
        if more["norm"] and refused:
            raise ValueError(
                f"{who}: {'rms_norm' if more['rms'] else 'layer_norm'} does not go "
                f"with {name}, which leaves no row of all gates to normalise"
            )
    if fixed_vectors is not None:
        more["fixed_vectors"] = np.ascontiguousarray(fixed_vectors, np.float64)
    plain = list(cell.activations)
    if (
        fixed_vectors is not None
        or any(more.values())
        or [name for name, *_ in of_gates] != plain
    ):
        return celltable.CellOptions(of_gates, **more, **sizes, **masks)
    options = celltable.CellOptions(None, **sizes, **masks)
    return options if options.draws or proj_size or heads > 1 else None


def state_clip(who, value):
    """(by value, by norm): bounds of dL/dh_t inside backward, 0 for none."""
    if value is None:
        return 0.0, 0.0
    kind = "value"
    if isinstance(value, tuple | list) and len(value) == 2:
        kind, value = value
    elif isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"{who}: clip_state_grad must be a number, ('value', number) or "
            f"('norm', number), got {value!r}"
        )
    checks.choice(who, "clip_state_grad's kind", kind, ("value", "norm"))
    bound = checks.real_in(who, "clip_state_grad", value, "(0, inf)")
    return (bound, 0.0) if kind == "value" else (0.0, bound)


def forget_bias(who, layer, value):
    """Bring biases of the forget gate, f, to `value` in sum; None leaves them."""
    if value is None:
        return None
    value = checks.finite(who, "forget_bias", value)
    for name, given in (("bias", not layer.bias), ("input_forget", layer.input_forget)):
        if given:
            raise ValueError(
                f"{who}: forget_bias needs a forget gate with biases of its own, got "
                f"{name}={getattr(layer, name)}"
            )
    gate, H = celltable.cell(layer._cell).gates.index("f"), layer.hidden_size
    forget = slice(gate * H, (gate + 1) * H)
    for suffix in layer._suffixes:
        layer._runtime.named[f"bias_ih{suffix}"][forget] = value
        layer._runtime.named[f"bias_hh{suffix}"][forget] = 0
    return value


def between_layers(who, layer):
    """Refuse a merge mode or a connection that the rest of the layer does not allow."""
    checks.choice(who, "merge_mode", layer.merge_mode, MERGE_MODES)
    if layer.connection not in CONNECTIONS:
        raise ValueError(
            f"{who}: connection must be None, 'residual' or 'highway', "
            f"got {layer.connection!r}"
        )
    if layer.merge_mode != "concat" and not layer.bidirectional:
        raise ValueError(
            f"{who}: merge_mode needs bidirectional=True, got {layer.merge_mode!r} "
            "with one direction"
        )
    if layer.connection and layer.num_layers == 1:
        raise ValueError(
            f"{who}: connection goes around the layers after the first and needs "
            f"num_layers >= 2, got {layer.connection!r} with 1"
        )
