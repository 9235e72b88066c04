# SPDX-License-Identifier: BSD-3-Clause
"""Layers that wait for their input size, and layers as JSON and back.

A layer is described by its class and its constructor's arguments, which it keeps in
attributes of the same names; any class that does so can be part of a saved model.
"""

import inspect
import re
from typing import ClassVar

import numpy as np

from fastrnn import _check
from fastrnn._attributes import flag
from fastrnn._axes import BatchFirst
from fastrnn.module import Module

# Not part of a description: weights and generators are saved as such.
_NOT_DESCRIBED = ("self", "seed")


class Unbuilt(Module):
    """A layer whose input size was given as None: it becomes that layer at first call.

    ``LSTM(None, 64)`` makes one. Arguments are checked at once; parameters are made, in
    place, by the first `forward` or by `build`.

    Parameters
    ----------
    cls : type
        The layer's class; its first argument is the input size.
    args, kwargs : tuple, dict
        The arguments, None standing for the input size.

    Examples
    --------
    >>> layer = fastrnn.LSTM(None, 4, seed=0)
    >>> layer
    LSTM(None, 4)
    >>> y, state = layer(np.zeros((7, 2, 3)))
    >>> layer
    LSTM(3, 4)
    """

    _others = ("layer_arguments", "layer_class", "given_batch_first")
    _not_kept = ("cls", "args", "kwargs")
    _changeable: ClassVar = {"batch_first": flag}

    def __init__(self, cls, args, kwargs):
        try:
            bound = inspect.signature(cls.__init__).bind(None, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{cls.__name__}: {error}") from None
        self.layer_class = cls
        self.layer_arguments = dict(list(bound.arguments.items())[1:])  # not self
        # Checked and not used yet: a generator must stay where it is.
        _check.generator(cls.__name__, self.layer_arguments.get("seed"))
        layer = self._trial()  # so that a wrong argument is found now
        self._dtype = layer.dtype
        if isinstance(layer, BatchFirst):
            vars(self)["batch_first"] = layer._batch_first

    def _layer(self, **changes):
        return self.layer_class(**self.layer_arguments | changes)

    def _trial(self):
        """A layer with one input, to be thrown away."""
        seed = {"seed": 0} if "seed" in _parameters(self.layer_class) else {}
        return self._layer(**{self.layer_class._input_size_name: 1}, **seed)

    def __setattr__(self, name, value):
        arguments = vars(self).get("layer_arguments")
        if arguments is None or hasattr(type(self), name) or name in vars(self):
            super().__setattr__(name, value)
            return
        # What the layer will not take it refuses as if it were made already.
        setattr(self._trial(), name, value)
        if name not in _parameters(self.layer_class):
            raise AttributeError(
                f"{self.layer_class.__name__}: {name} cannot be set before the layer "
                "knows its input size"
            )
        arguments[name] = value

    def __getstate__(self):
        return self.__dict__.copy()

    def __setstate__(self, state):
        self.__dict__.update(state)

    # Whoever asks for parameters, as an optimiser does, would see none of this layer's.
    @property
    def _shapes(self):
        raise ValueError(
            f"{self.layer_class.__name__}: its input size is not known yet, so it has "
            "no parameters; call the model, or its build, first"
        )

    def build(self, input_size):
        """Make the parameters; from now on this is the layer.

        Parameters
        ----------
        input_size : int

        Returns
        -------
        Module
            Itself.
        """
        layer = self._layer(**{self.layer_class._input_size_name: input_size})
        layer.training = self.training
        layer.trainable = self._trainable
        if "batch_first" in self.__dict__:  # it may have been set meanwhile
            layer.batch_first = self.__dict__["batch_first"]
        self.__class__ = self.layer_class
        self.__dict__.clear()
        self.__dict__.update(layer.__dict__)
        return self

    def forward(self, x, *args, **kwargs):
        """Become the layer for inputs as wide as `x`, and run it."""
        shape = np.shape(x)
        if not shape:
            raise ValueError(
                f"{self.layer_class.__name__}: x must have an axis of features, "
                "got shape ()"
            )
        return self.build(shape[-1]).forward(x, *args, **kwargs)

    @property
    def _has_parameters(self):
        return True

    def __repr__(self):
        # The first argument shown is the size, which is not 1 but unknown.
        return re.sub(r"\(1(?=[,)])", "(None", repr(self._trial()), count=1)


def is_built(model):
    """Whether every layer of a model has its parameters."""
    return not any(isinstance(module, Unbuilt) for module in model.modules())


def describe(layer, seen=None):
    """A layer as an object for JSON: its class and its arguments.

    Parameters
    ----------
    layer : Module
        Each argument of its constructor, but for ``seed``, must be an attribute of the
        same name: a number, a string, None, a flag, a layer or a list of these.
    seen : dict of int to int, optional
        Numbers of the layers described before, by their identity.

    Returns
    -------
    dict
        ``class`` and ``arguments``; of a layer that was described before, ``again``,
        its number in order of description.

    Raises
    ------
    TypeError
        If an argument is not kept, or of another kind.

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
    seen = {} if seen is None else seen
    if id(layer) in seen:
        return {"again": seen[id(layer)]}
    seen[id(layer)] = len(seen)
    arguments = {}
    for name, parameter in _parameters(cls).items():
        if name in _NOT_DESCRIBED:
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
        arguments[name] = _to_json(what, getattr(layer, kept), seen)
    return {"class": cls.__name__, "arguments": arguments}


def _parameters(cls):
    """What a constructor takes; object's, in a class without one, takes nothing."""
    if cls.__init__ is object.__init__:
        return {}
    return inspect.signature(cls.__init__).parameters


def _to_json(what, value, seen):
    if isinstance(value, Module):
        return describe(value, seen)
    if isinstance(value, (tuple, list)):
        return [_to_json(what, item, seen) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{what} must be a number, a string, a layer or a list of these to be saved, "
        f"got {type(value).__name__}"
    )


def construct(description, classes, made=None):
    """The layer that `describe` described, with parameters yet to be loaded.

    Parameters
    ----------
    description : dict
    classes : mapping of str to type
        Layers by name.
    made : list of Module, optional
        The layers constructed before, in order of description.

    Raises
    ------
    ValueError
        If the class is not among `classes`, or does not take the arguments.
    """
    made = [] if made is None else made
    if isinstance(description, dict) and set(description) == {"again"}:
        number = description["again"]
        if number not in range(len(made)) or made[number] is None:
            raise ValueError(f"a layer must be described before its use, got {number}")
        return made[number]
    if not isinstance(description, dict) or set(description) != {"class", "arguments"}:
        raise ValueError(
            f"a layer must be described by class and arguments, got {description!r}"
        )
    name, arguments = description["class"], description["arguments"]
    if name not in classes:
        raise ValueError(
            f"layer {name!r} is not one of fastrnn's: give its class as "
            f"custom_layers={{{name!r}: ...}}"
        )
    cls, place = classes[name], len(made)
    made.append(None)  # its parts come after it
    parameters = _parameters(cls)
    positional, named = [], {}
    for key, value in arguments.items():
        value = _from_json(value, classes, made)
        if key not in parameters:
            raise ValueError(f"layer {name!r} has no argument {key!r}")
        if parameters[key].kind is inspect.Parameter.VAR_POSITIONAL:
            positional = value
        else:
            named[key] = value
    if "seed" in parameters:
        named["seed"] = 0  # parameters are overwritten, generators set
    made[place] = cls(*positional, **named)
    return made[place]


def _from_json(value, classes, made):
    if isinstance(value, dict):
        return construct(value, classes, made)
    if isinstance(value, list):
        return tuple(_from_json(item, classes, made) for item in value)
    return value
