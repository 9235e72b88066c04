# SPDX-License-Identifier: BSD-3-Clause
"""Losses for `Model.compile`; `fastrnn.objectives` is their public name.

Plain mean squared error and cross-entropy are one call to a kernel; everything else
is NumPy on the model's output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.losses import ending, functions
from fastrnn.losses.base import Loss
from fastrnn.losses.crossentropy import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
)
from fastrnn.losses.sequences import (
    ConditionalRandomField,
    ConnectionistTemporalClassification,
)
from fastrnn.nn import masking
from fastrnn.nn.attributes import by
from fastrnn.nn.module import Module
from fastrnn.util import checks
from fastrnn.util.typing import Array


class MeanSquaredError(Loss):
    """Mean over the last axis of squared differences."""

    name = "mse"

    def rows(self, pred: Array, target: ArrayLike) -> tuple[Array, Array]:
        difference = pred - target
        width = pred.shape[-1]
        return np.mean(difference**2, axis=-1), difference * (2 / width)

    def mean(
        self, pred: Array, target: ArrayLike, weight: Array | None = None
    ) -> tuple[float, Array]:
        if weight is not None:
            return super().mean(pred, target, weight)
        return functions.mse_loss(*self.prepare(pred, target))


class MeanAbsoluteError(Loss):
    """Mean over the last axis of absolute differences."""

    name = "mae"

    def rows(self, pred: Array, target: ArrayLike) -> tuple[Array, Array]:
        difference = pred - target
        width = pred.shape[-1]
        return np.mean(abs(difference), axis=-1), np.sign(difference) * (1 / width)


class Huber(Loss):
    """Half the squared difference up to `delta`, linear from there on.

    Parameters
    ----------
    delta : float > 0

    Examples
    --------
    >>> loss, d = Huber()(np.array([[0.5], [3.0]]), [[0.0], [0.0]])
    >>> loss, d.tolist()
    (1.3125, [[0.25], [0.5]])
    """

    name = "huber"
    _changeable: ClassVar = {"delta": by(checks.real_in, "(0, inf)")}

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = delta

    def rows(self, pred: Array, target: ArrayLike) -> tuple[Array, Array]:
        difference = pred - target
        size, delta, width = abs(difference), self.delta, pred.shape[-1]
        near = 0.5 * difference**2
        values = np.where(size <= delta, near, delta * (size - 0.5 * delta))
        d = np.clip(difference, -delta, delta) * (1 / width)
        return np.mean(values, axis=-1), d


class MeanAbsolutePercentageError(Loss):
    """Mean over the last axis of absolute differences in percent of the target.

    A target nearer to zero than 1e-7 counts as 1e-7, as in Keras.

    Examples
    --------
    >>> MeanAbsolutePercentageError()(np.array([[3.0]]), [[2.0]])[0]
    50.0
    """

    name = "mape"

    def rows(self, pred: Array, target: ArrayLike) -> tuple[Array, Array]:
        scale = 100 / np.maximum(abs(target), pred.dtype.type(1e-7))
        difference = (pred - target) * scale
        d = np.sign(difference) * scale / pred.shape[-1]
        return np.mean(abs(difference), axis=-1), d


class MeanSquaredLogarithmicError(Loss):
    """Mean over the last axis of squared differences of ``log(1 + x)``.

    What is less than 1e-7 counts as 1e-7, as in Keras, and gets no gradient.

    Examples
    --------
    >>> round(MeanSquaredLogarithmicError()(np.array([[np.e - 1]]), [[0.0]])[0], 6)
    1.0
    """

    name = "msle"

    def rows(self, pred: Array, target: ArrayLike) -> tuple[Array, Array]:
        low = pred.dtype.type(1e-7)
        inside, above = pred >= low, np.maximum(pred, low)
        difference = np.log1p(above) - np.log1p(np.maximum(target, low))
        d = np.where(inside, difference * (2 / pred.shape[-1]) / (1 + above), 0)
        return np.mean(difference**2, axis=-1), d


class LogCosh(Loss):
    """Mean over the last axis of the logarithm of the difference's hyperbolic cosine.

    Examples
    --------
    >>> round(LogCosh()(np.array([[1.0]]), [[0.0]])[0], 4)
    0.4338
    """

    name = "log_cosh"

    def rows(self, pred: Array, target: ArrayLike) -> tuple[Array, Array]:
        difference = pred - target
        size = abs(difference)
        values = size + np.log1p(np.exp(-2 * size)) - pred.dtype.type(np.log(2))
        return np.mean(values, axis=-1), np.tanh(difference) / pred.shape[-1]


class Custom(Loss):
    """A function ``(pred, target) -> (loss, dpred)`` as a loss; no weights.

    Parameters
    ----------
    function : callable
        It is given ``mask=`` where the model's output has a mask, and must take it.
    """

    def __init__(self, function: Callable[..., tuple[float, Array]]) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)

    def attach(self, model: Module) -> None:
        """The function has what it needs; metrics ask what the model ends in."""
        self._end = ending.ending(model)

    def count(self, pred: Array, target: ArrayLike) -> int:
        return len(pred)

    def divisor(self, pred: Array, target: ArrayLike, mask: Array | None) -> int:
        """Samples, which the function's result is taken for a mean of."""
        return len(pred)

    def __call__(
        self,
        pred: Array,
        target: ArrayLike,
        weight: Array | None = None,
        mask: Array | None = None,
    ) -> tuple[float, Array]:
        if weight is not None:
            raise ValueError(
                f"{self.name}: weights go with the losses that have a name "
                f"({', '.join(LOSSES)}), got them with a function"
            )
        return masking.call(self.name, self.function, pred, target, mask)


LOSSES = {
    cls.name: cls
    for cls in (
        MeanSquaredError,
        MeanAbsoluteError,
        Huber,
        MeanAbsolutePercentageError,
        MeanSquaredLogarithmicError,
        LogCosh,
        BinaryCrossentropy,
        CategoricalCrossentropy,
        SparseCategoricalCrossentropy,
        ConditionalRandomField,
        ConnectionistTemporalClassification,
    )
}
# Names that Keras has in addition.
_LONG = {
    "mean_squared_error": MeanSquaredError.name,
    "MSE": MeanSquaredError.name,
    "mean_absolute_error": MeanAbsoluteError.name,
    "MAE": MeanAbsoluteError.name,
    "huber_loss": Huber.name,
    "mean_absolute_percentage_error": MeanAbsolutePercentageError.name,
    "mean_squared_logarithmic_error": MeanSquaredLogarithmicError.name,
    "logcosh": LogCosh.name,
}
_FUNCTIONS = {
    functions.mse_loss: MeanSquaredError.name,
    functions.cross_entropy: SparseCategoricalCrossentropy.name,
}


def by_name(
    who: str,
    loss: str | Loss | Callable[..., tuple[float, Array]],
    from_logits: bool | None = None,
) -> Loss:
    """The loss that a name, an object or a function stands for.

    Parameters
    ----------
    who : str
    loss : str, Loss or callable
    from_logits : bool, optional
        For a loss by name that has this option.

    Raises
    ------
    ValueError
        If the name is unknown, or the loss does not take `from_logits`.
    TypeError
        If it is none of these.
    """
    if isinstance(loss, Loss):
        if from_logits is not None:
            raise ValueError(
                f"{who}: from_logits must be given to the loss object itself, got "
                f"{from_logits!r} beside {type(loss).__name__}"
            )
        return loss
    if callable(loss) and not isinstance(loss, type):
        loss = _FUNCTIONS.get(loss, loss)
        if callable(loss):
            made = Custom(loss)
            _check_takes(who, made, from_logits)
            return made
    if not isinstance(loss, str):
        raise TypeError(
            f"{who}: loss must be a name, an object of fastrnn.objectives or a "
            f"function, got {loss!r}"
        )
    loss = _LONG.get(loss, loss)
    cls = LOSSES[checks.choice(who, "loss", loss, tuple(LOSSES))]
    if _check_takes(who, cls, from_logits):
        return cls(from_logits=from_logits)
    return cls()


def _check_takes(who, loss, from_logits):
    """Whether there is a `from_logits`; refused for a loss that has no logits."""
    if from_logits is not None and loss.activation is None:
        named = [name for name, cls in LOSSES.items() if cls.activation is not None]
        raise ValueError(
            f"{who}: from_logits is for {', '.join(named)}, got {from_logits!r} with "
            f"{loss.name!r}"
        )
    return from_logits is not None


def class_weights(
    who: str, class_weight: Mapping[int, float] | str, loss: Loss, y: Any
) -> Any:
    """The weight of every row's class.

    Parameters
    ----------
    class_weight : mapping of int to float, or "balanced"
        Classes not named weigh 1. "balanced" gives each class the same share of the
        sum: rows / (classes * rows of the class).
    loss : Loss
    y : ndarray or list of ndarray
        All targets: class indices, or distributions over classes (the likeliest
        counts).

    Returns
    -------
    ndarray of float64, or list of these
        A weight for each row.

    Raises
    ------
    ValueError, TypeError
        If the loss has no classes, or a class or weight is not one.
    """
    if not isinstance(loss, Loss):
        raise TypeError(f"{who}: loss must be a Loss, got {type(loss).__name__}")
    if not loss.classes:
        raise ValueError(
            f"{who}: class_weight needs a loss with classes, got {loss.name!r}"
        )
    if isinstance(y, list):  # of many lengths
        ends = np.cumsum([len(one) for one in y])[:-1]
        flat = class_weights(who, class_weight, loss, np.concatenate(y))
        return np.split(flat, ends)
    if isinstance(loss, CategoricalCrossentropy):
        y = y.argmax(axis=-1)
    elif isinstance(loss, BinaryCrossentropy):
        y = np.asarray(y[..., 0] if y.ndim > 1 and y.shape[-1] == 1 else y)
        if y.size and not np.isin(y, (0, 1)).all():
            raise ValueError(f"{who}: class_weight needs y of 0 and 1")
        y = y.astype(np.int64)
    known = y != SparseCategoricalCrossentropy.ignore_index
    if isinstance(class_weight, str):
        checks.choice(who, "class_weight", class_weight, ("balanced",))
        found, counts = np.unique(y[known], return_counts=True)
        values = counts.sum() / (found.size * counts)
        class_weight = dict(zip(found.tolist(), values.tolist(), strict=True))
    if not isinstance(class_weight, Mapping):
        raise TypeError(
            f"{who}: class_weight must be a mapping of classes to weights or "
            f"'balanced', got {type(class_weight).__name__}"
        )
    weights = np.ones(y.shape)
    for label, value in class_weight.items():
        value = checks.real_in(who, f"class_weight[{label!r}]", value, "[0, inf)")
        weights[y == checks.integer(who, "a class of class_weight", label)] = value
    return weights
