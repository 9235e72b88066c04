# SPDX-License-Identifier: BSD-3-Clause
"""Layers as JSON and back.

A layer is described by its class and its constructor's arguments, which it keeps in
attributes of the same names; any class that does so can be part of a saved model.
"""

import inspect

import numpy as np

from fastrnn.nn.deferred import Unbuilt, constructor_parameters
from fastrnn.nn.module import Module

# Not part of a description: weights and generators are saved as such.
_NOT_DESCRIBED = ("self", "seed")

MOST_NESTED = 64  # layers within layers in a file
MOST_USES = 10**5  # of layers in one pass through a model in a file


def describe(layer, seen=None, depth=0):
    """A layer as an object for JSON: its class and its arguments.

    Parameters
    ----------
    layer : Module
        Each argument of its constructor, but for ``seed``, must be an attribute of the
        same name: a number, a string, None, a flag, a layer or a list of these.
    seen : dict of int to int, optional
        Numbers of the layers described before, by their identity.
    depth : int
        Layers that it is part of.

    Returns
    -------
    dict
        ``class`` and ``arguments``; of a layer that was described before, ``again``,
        its number in order of description.

    Raises
    ------
    TypeError
        If an argument is not kept, or of another kind.
    ValueError
        If layers are nested too deeply to be read again.

    Examples
    --------
    >>> describe(fastrnn.Dropout(0.25))
    {'class': 'Dropout', 'arguments': {'p': 0.25}}
    """
    cls = type(layer)
    if isinstance(layer, Unbuilt):
        raise TypeError(
            f"{layer.layer_class.__name__}: its input size is not known yet, so it "
            "cannot be described; call the model, or its build, first"
        )
    _check_depth(depth)
    seen = {} if seen is None else seen
    if id(layer) in seen:
        return {"again": seen[id(layer)]}
    seen[id(layer)] = len(seen)
    arguments = {}
    for name, parameter in constructor_parameters(cls).items():
        if name in (*_NOT_DESCRIBED, *cls._first_values):
            continue
        # Not written where nobody uses it, so that files stay those of older versions.
        if name in cls._later_arguments and getattr(layer, name) == parameter.default:
            continue
        # A layer may have the name of the argument that it was made from.
        kept = f"given_{name}" if hasattr(layer, f"given_{name}") else name
        if parameter.kind is parameter.VAR_KEYWORD or not hasattr(layer, kept):
            raise TypeError(
                f"{cls.__name__}: to be saved with its model, a layer must keep every "
                f"argument of its constructor in an attribute of that name, and has no "
                f"{name}; Module.save writes the parameters alone"
            )
        what = f"{cls.__name__}: {name}"
        arguments[name] = _to_json(what, getattr(layer, kept), seen, depth + 1)
    return {"class": cls.__name__, "arguments": arguments}


def _to_json(what, value, seen, depth):
    if isinstance(value, Module):
        return describe(value, seen, depth)
    if isinstance(value, (tuple, list)):
        return [_to_json(what, item, seen, depth) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{what} must be a number, a string, a layer or a list of these to be saved, "
        f"got {type(value).__name__}"
    )


def construct(description, classes):
    """The layer that `describe` described, with parameters yet to be loaded.

    Parameters
    ----------
    description : dict
    classes : mapping of str to type
        Layers by name.

    Raises
    ------
    ValueError
        If the class is not among `classes`, or does not take the arguments, or layers
        are nested or used again too often.
    """
    return _Construction(classes).layer(description)


class _Construction:
    """Layers made of descriptions, one after the other, those within others first."""

    def __init__(self, classes):
        self.classes = classes
        self.made = []  # in order of description; None while its parts are made
        self.uses = []  # layers on all ways down from each, itself included
        self.depth = 0

    def layer(self, description, above=None):
        """The layer of a description; `above` is the place in ``uses`` of its owner."""
        if isinstance(description, dict) and set(description) == {"again"}:
            place = description["again"]
            if not self._is_place(place) or self.made[place] is None:
                raise ValueError(
                    f"a layer must be described before its use, got {place!r}"
                )
        else:
            place = self._new(description)
        if above is not None:
            self.uses[above] += self.uses[place]
            if self.uses[above] > MOST_USES:
                raise ValueError(
                    f"a model must use its layers at most {MOST_USES:,} times in all, "
                    "got one that uses layers again within layers that are used again"
                )
        return self.made[place]

    def _is_place(self, value):
        return type(value) is int and 0 <= value < len(self.made)

    def _new(self, description):
        """Make a layer; its place."""
        if (
            not isinstance(description, dict)
            or set(description) != {"class", "arguments"}
            or not isinstance(description["class"], str)
            or not isinstance(description["arguments"], dict)
        ):
            raise ValueError(
                f"a layer must be described by class and arguments, got {description!r}"
            )
        name, arguments = description["class"], description["arguments"]
        if name not in self.classes:
            raise ValueError(
                f"layer {name!r} is not one of fastrnn's: give its class as "
                f"custom_layers={{{name!r}: ...}}"
            )
        cls, place = self.classes[name], len(self.made)
        self.made.append(None)  # its parts come after it
        self.uses.append(1)
        _check_depth(self.depth)
        self.depth += 1
        parameters = constructor_parameters(cls)
        positional, named = [], {}
        for key, value in arguments.items():
            value = self._value(value, place)
            if key not in parameters:
                raise ValueError(f"layer {name!r} has no argument {key!r}")
            if parameters[key].kind is not inspect.Parameter.VAR_POSITIONAL:
                named[key] = value
            elif isinstance(value, tuple):
                positional = value
            else:
                raise ValueError(f"layer {name!r}: {key} must be a list, got {value!r}")
        if "seed" in parameters:
            named["seed"] = 0  # parameters are overwritten, generators set
        self.made[place] = cls(*positional, **named)
        self.depth -= 1
        return place

    def _value(self, value, place, depth=0):
        if isinstance(value, dict):
            return self.layer(value, place)
        if isinstance(value, list):
            _check_depth(depth)
            return tuple(self._value(item, place, depth + 1) for item in value)
        return value


def _check_depth(depth):
    if depth >= MOST_NESTED:
        raise ValueError(
            f"layers must be nested at most {MOST_NESTED} deep to be saved and loaded"
        )
