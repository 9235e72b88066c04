# SPDX-License-Identifier: BSD-3-Clause
"""`Input`, and the shape of a model's input as Keras's words give it."""

from collections.abc import Sequence
from typing import Any, NoReturn

from fastrnn.nn.deferred import Unbuilt
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.module import Module
from fastrnn.recurrent.layer import Recurrent
from fastrnn.util import checks
from fastrnn.util.words import SHAPE


class Input:
    """The shape of a sample, at the beginning of a `Sequential`.

    With it the model has its parameters at once; without it the first batch tells.

    Parameters
    ----------
    shape : tuple of int or None
        Of one sample: (T, F), or (T,) for indices of an `Embedding`. T may be None.
    batch_shape : tuple of int or None, optional
        Instead: the shape with the axis of samples before, whose size is not fixed.

    Raises
    ------
    ValueError, TypeError
        If a size is no positive integer, or not one of the two shapes is given.

    Examples
    --------
    >>> lstm, head = fastrnn.LSTM(8, seed=0), fastrnn.Dense(1, seed=1)
    >>> model = fastrnn.Sequential([Input((10, 3)), lstm, head])
    >>> model.flat_parameters.size
    425
    """

    def __init__(
        self,
        shape: Sequence[int | None] | None = None,
        *,
        batch_shape: Sequence[int | None] | None = None,
    ) -> None:
        if (shape is None) == (batch_shape is None):
            raise TypeError("Input: one of shape and batch_shape must be given")
        whole = shape if batch_shape is None else tuple(batch_shape)[1:]
        self.sample_shape = sample_shape("Input", "shape", whole)

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Nothing: layers are not called with it, as they are in Keras.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError(
            "an Input is the first layer of a Sequential; layers are connected by "
            "names in fastrnn.Functional(inputs, calls, outputs), or in a class that "
            "derives from fastrnn.Model, with forward and backward"
        )

    def __repr__(self) -> str:
        return f"Input({self.sample_shape})"


def sample_shape(who: str, name: str, shape: Any) -> tuple[int | None, ...]:
    """A shape of samples, once it is known to be one; None stands for any size."""
    if not isinstance(shape, (tuple, list)) or not shape:
        raise TypeError(f"{who}: {name} must be a tuple of integers, got {shape!r}")
    return tuple(
        None if size is None else checks.positive_int(who, f"{name}[{i}]", size)
        for i, size in enumerate(shape)
    )


def given_shape(layer: Module) -> tuple[int | None, ...] | None:
    """What the layer's words said of the shape of its input; None if nothing."""
    shape = vars(layer).get(SHAPE)
    if shape is None:  # it may have been said of the layer inside, as in Keras
        inside = vars(layer).get("layer")
        return given_shape(inside) if isinstance(inside, Module) else None
    cls = layer.layer_class if isinstance(layer, Unbuilt) else type(layer)
    return sample_shape(cls.__name__, "input_shape", shape)


def without_samples(
    model: Module, shape: tuple[int | None, ...]
) -> tuple[int | None, ...]:
    """A shape without the axis of samples, which Keras's ``build`` is given first.

    That axis is None, and one more than the model's first layer needs.
    """
    if shape[0] is not None or len(shape) == 1:
        return shape
    needs = 1
    for layer in model.modules():
        cls = layer.layer_class if isinstance(layer, Unbuilt) else type(layer)
        if issubclass(cls, (Recurrent, Embedding)):
            needs = 2 if issubclass(cls, Recurrent) else 1
            break
    return shape[1:] if len(shape) > needs else shape
