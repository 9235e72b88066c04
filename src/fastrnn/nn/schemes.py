# SPDX-License-Identifier: BSD-3-Clause
"""The argument `init` of a layer: which initialiser gives which parameter its values.

A scheme has an initialiser for each kind of parameter of a layer. A kind is the name of
a parameter without the number of its layer and its direction: ``weight_hh`` is the kind
of ``weight_hh_l1_reverse``.
"""

from __future__ import annotations

import inspect
import numbers
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastrnn.nn import init
from fastrnn.util import budget, checks

Initializer = Callable[..., Any]  # called with an array and, if it takes it, a seed
Init = str | Initializer | Mapping[str, str | float | Initializer]

# Two schemes that every layer has, and the one that most layers follow by default: on
# eight tasks recurrent and linear layers learned faster or as fast with it, and a table
# of vectors with the other (examples/initialisation.py).
SCHEMES = ("keras", "torch")
DEFAULT = "keras"


def kind_of(name: str) -> str:
    """The kind of a parameter, from its name.

    Examples
    --------
    >>> kind_of("weight_hh_l1_reverse")
    'weight_hh'
    """
    return re.sub(r"_l\d+(_reverse)?$", "", name)


def zeros_(array: np.ndarray) -> np.ndarray:
    """Fill with zero."""
    return init.constant_(array, 0.0)


def fill(
    who: str,
    given: Init,
    named: Mapping[str, np.ndarray],
    schemes: Mapping[str, Mapping[str, Initializer]],
    generator: np.random.Generator,
    n_gates: int = 1,
    default: str = DEFAULT,
) -> None:
    """Give the parameters of a layer their first values.

    Parameters
    ----------
    who : str
        The layer, for errors.
    given : str, callable or mapping
        The layer's argument `init`: a scheme's name; an initialiser of all its weights;
        or for some kinds of parameters, or parameters by name, a scheme's name, a
        number or an initialiser. What it does not mention follows `default`.
    named : mapping of str to ndarray
        All parameters by name, in the order in which they are filled.
    schemes : mapping of str to mapping of str to callable
        By scheme, by kind: the initialiser of the parameters of that kind.
    generator : numpy.random.Generator
        Where random numbers come from.
    n_gates : int
        Matrices stacked in each weight, for initialisers that take `n_gates`.
    default : str
        The layer's default scheme.

    Raises
    ------
    TypeError, ValueError
        If `given` is nothing of the kind, or names a scheme or a parameter that there
        is not; what an initialiser raises.
    """
    chosen = _chosen(who, given, named, schemes, default)
    if budget.values_follow():
        return
    for name, initializer in chosen.items():
        known = inspect.signature(initializer).parameters
        offered = {"seed": generator, "n_gates": n_gates}
        initializer(named[name], **{k: v for k, v in offered.items() if k in known})


def _chosen(who, given, named, schemes, default):
    """The initialiser of each parameter, by its name."""
    if isinstance(given, str):
        checks.choice(who, "init", given, SCHEMES)
        return {name: schemes[given][kind_of(name)] for name in named}
    found = {name: schemes[default][kind_of(name)] for name in named}
    if callable(given):
        return {
            name: given if kind_of(name).startswith("weight") else initializer
            for name, initializer in found.items()
        }
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{who}: init must be {_either(SCHEMES)}, an initialiser or a mapping from "
            f"parameters to these, got {given!r}"
        )
    known = {*named, *map(kind_of, named)}
    for key in given:
        if key not in known:
            kinds = dict.fromkeys(map(kind_of, named))
            raise ValueError(f"{who}: init must be for {', '.join(kinds)}, got {key!r}")
    for name in named:
        key = name if name in given else kind_of(name)
        if key in given:
            found[name] = _initializer(who, key, given[key], schemes, kind_of(name))
    return found


def _initializer(who, key, value, schemes, kind):
    what = f"init[{key!r}]"
    if isinstance(value, str):
        checks.choice(who, what, value, SCHEMES)
        return schemes[value][kind]
    if isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_):
        number = checks.finite(who, what, value)
        return lambda array: init.constant_(array, number)
    if not callable(value):
        raise TypeError(
            f"{who}: {what} must be {_either(SCHEMES)}, a number or an initialiser, "
            f"got {value!r}"
        )
    return value


def _either(names):
    return " or ".join(map(repr, names))
