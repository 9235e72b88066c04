# SPDX-License-Identifier: BSD-3-Clause
"""`Unbuilt`: layers that wait for their input size."""

import inspect
import re
from typing import ClassVar

import numpy as np

from fastrnn.nn.attributes import flag
from fastrnn.nn.axis_rule import BatchFirst
from fastrnn.nn.module import Module
from fastrnn.nn.tree import structure_changed
from fastrnn.util import budget, checks
from fastrnn.util.words import SHAPE, arguments_of, note_shape, owners_of, taken


class Unbuilt(Module):
    """A layer whose input size was given as None: it becomes that layer at first call.

    ``LSTM(None, 64)`` makes one. Arguments are checked at once; parameters are made, in
    place, by the first `forward` or by `build`.

    Parameters
    ----------
    cls : type
        The layer's class; its first argument is the input size.
    args, kwargs : tuple, dict
        The arguments. That of the input size is None, or left out.

    Examples
    --------
    >>> layer = fastrnn.LSTM(None, 4, seed=0)
    >>> layer
    LSTM(None, 4)
    >>> y, state = layer(np.zeros((7, 2, 3)))
    >>> layer
    LSTM(3, 4)
    """

    _saved = False
    _others = ("layer_arguments", "layer_class")
    _not_kept = ("cls", "args", "kwargs")
    _changeable: ClassVar = {"batch_first": flag}

    def __init__(self, cls, args, kwargs):
        who, known = cls.__name__, [*arguments_of(cls.__init__), SHAPE]
        kwargs = taken(who, owners_of(cls), known, kwargs)
        note_shape(self, kwargs)
        try:
            bound = inspect.signature(cls.__init__).bind(None, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{cls.__name__}: {error}") from None
        self.layer_class = cls
        self.layer_arguments = dict(list(bound.arguments.items())[1:])  # not self
        # Checked and not used yet: a generator must stay where it is.
        checks.generator(cls.__name__, self.layer_arguments.get("seed"))
        layer = self._trial()  # so that a wrong argument is found now
        self._dtype = layer.dtype
        if isinstance(layer, BatchFirst):
            vars(self)["batch_first"] = layer._batch_first

    def _layer(self, **changes):
        return self.layer_class(**self.layer_arguments | changes)

    def _trial(self):
        """A layer with one input, to be thrown away."""
        seed = {"seed": 0} if "seed" in constructor_parameters(self.layer_class) else {}
        with budget.trial():
            return self._layer(**{self.layer_class._input_size_name: 1}, **seed)

    def first_parameter(self):
        """Name of the layer's first parameter, which knows its input size, or None."""
        return next(iter(self._trial().parameters), None)

    def __setattr__(self, name, value):
        arguments = vars(self).get("layer_arguments")
        if arguments is None or hasattr(type(self), name) or name in vars(self):
            super().__setattr__(name, value)
            return
        # What the layer will not take it refuses as if it were made already.
        setattr(self._trial(), name, value)
        if name not in constructor_parameters(self.layer_class):
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

    def quantize(self, weights="int8"):
        """Refused: there are no weights yet."""
        raise ValueError(
            f"{self.layer_class.__name__}.quantize: the input size must be known, got "
            f"{self!r}; call the layer first"
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
        # The user's model, its optimiser and the caller hold this object: it has to
        # become the layer itself. Without a change of class every layer would have to
        # ask at each call whether it has parameters already.
        self.__class__ = self.layer_class
        self.__dict__.clear()
        self.__dict__.update(layer.__dict__)
        structure_changed()
        return self

    def forward(self, x, *args, **kwargs):
        """Become the layer for inputs as wide as `x`, and run it."""
        shape = np.shape(x)
        if not shape:
            raise ValueError(
                f"{self.layer_class.__name__}: x must have an axis of features, "
                "got shape ()"
            )
        return self.build(self.input_size_of(shape)).forward(x, *args, **kwargs)

    def input_size_of(self, shape):
        """The input size that an input of a shape has."""
        axis = self.layer_arguments.get("axis", -1)
        if not isinstance(axis, int) or not -len(shape) <= axis < len(shape):
            axis = -1  # the layer itself says what is wrong
        return shape[axis]

    @property
    def _has_parameters(self):
        return True

    def __repr__(self):
        # The first argument shown is the size, which is not 1 but unknown.
        return re.sub(r"\((\w+=)?1(?=[,)])", r"(\1None", repr(self._trial()), count=1)


Module._deferred = Unbuilt


def is_built(model):
    """Whether every layer of a model has its parameters."""
    return not any(isinstance(module, Unbuilt) for module in model.modules())


def constructor_parameters(cls):
    """What a constructor takes; object's, in a class without one, takes nothing."""
    if cls.__init__ is object.__init__:
        return {}
    return inspect.signature(cls.__init__).parameters


def build_as_stored(model, arrays):
    """Build the layers of a model whose input sizes are None, as their weights say.

    Parameters
    ----------
    model : Module
    arrays : mapping of str to ndarray
        Parameters by name. An axis of a layer's first one, mostly the last, is as long
        as its input is wide.

    Raises
    ------
    ValueError
        If the parameters of such a layer are missing.
    """
    for prefix, module in model._walk():
        if not isinstance(module, Unbuilt):
            continue
        first = module.first_parameter()
        if first is None:
            continue  # nothing is stored of it: the first call builds it
        array = arrays.get(prefix + first)
        if array is None or array.ndim == 0:
            raise ValueError(f"the parameter {prefix}{first} must be a stored array")
        axis = module.layer_class._input_size_axis
        if array.ndim <= max(axis, 0):
            raise ValueError(f"the parameter {prefix}{first} must have more axes")
        module.build(array.shape[axis])
