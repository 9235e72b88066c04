# SPDX-License-Identifier: BSD-3-Clause
"""`Masking`, and how a mask goes through a model: which steps of a sequence count.

A mask is an array of booleans, False for what is left out, laid out like the first two
axes of the data that it is for.  A `Masking`, or an `Embedding` with ``mask_zero``,
makes one; `Sequential` hands it to the layers that take one and asks each layer what
mask its output has; the last one's is the model's ``output_mask``, for the loss and the
metrics.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.nn.attributes import by, flag
from fastrnn.nn.axis_rule import BatchFirst
from fastrnn.nn.context import Context
from fastrnn.nn.module import Module
from fastrnn.util import checks
from fastrnn.util.typing import Array, Mask


class Masking(BatchFirst, Module):
    """Which steps count: those where not all features have one value.

    In a `Sequential`, recurrent layers leave out the other steps, and neither loss nor
    metrics count them: see the notes.

    Parameters
    ----------
    mask_value : float
    indices : bool
        The input is integers for an `Embedding`, one a step, and passes as it is;
        otherwise masked steps come out as zero. An `Embedding` with ``mask_zero`` needs
        no such layer.
    batch_first : bool
        Whether `mask` is called with (B, T, ...) or (T, B, ...). `forward` takes both.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    Notes
    -----
    As in Keras: a masked step changes no state, and its output is the one before it,
    or zero where a layer has both directions or ``zero_output_for_mask``. Layers that
    act on each step hand the mask on, a recurrent layer with ``return_sequences=False``
    gives the last output that counts and ends the mask. One with ``go_backwards`` hands
    it on as it is.

    A mask that reaches the output makes `fit` and `evaluate` leave out what it says:
    a batch's loss is the mean over the steps that count, weighted if there are weights,
    and zero if none does; an epoch's is the mean over its batches, each counting as
    many samples as it has. A metric is the mean over all steps that count.

    Examples
    --------
    >>> model = fastrnn.Sequential(Masking(), fastrnn.GRU(1, 4, seed=0),
    ...     fastrnn.Linear(4, 1, seed=0))
    >>> x = np.array([[[1.0], [0.0], [0.0]]])  # one step and padding
    >>> model.compile("mse")
    >>> padded = model.evaluate(x, [[[0.5], [9.0], [9.0]]], return_dict=True)
    >>> padded == model.evaluate(x[:, :1], [[[0.5]]], return_dict=True)
    True
    """

    supports_masking = True
    _changeable: ClassVar = {"mask_value": by(checks.finite), "batch_first": flag}

    def __init__(
        self, mask_value: float = 0.0, indices: bool = False, batch_first: bool = True
    ) -> None:
        who = type(self).__name__
        self.mask_value, self.batch_first = mask_value, batch_first
        self.indices = checks.flag(who, "indices", indices)

    def _differs(self, x):
        # A padding value may have been rounded to float32 on its way into `x`.
        return (x != self.mask_value) & (x != np.float32(self.mask_value))

    def compute_mask(self, x: ArrayLike, mask: ArrayLike | None = None) -> Mask:
        """The mask that `x` gives, laid out like it; another one ends here."""
        differs = self._differs(np.asarray(x))
        return differs if self.indices else differs.any(axis=-1)

    def mask(self, x: ArrayLike) -> Array:
        """The mask (B, T) that `x` gives recurrent layers: False is left out."""
        mask = self.compute_mask(x)
        return mask if self.batch_first else mask.T

    def forward(self, x: ArrayLike) -> Array:
        """Set masked steps to zero.

        Parameters
        ----------
        x : array_like, shape (B, T, features) or (T, B, features)
            Indices without the last axis.

        Returns
        -------
        ndarray, shape of `x`

        Raises
        ------
        ValueError, TypeError
            If `x` is not real numbers with these axes.
        """
        who = type(self).__name__
        if self.indices:
            self._keep(None)
            return np.asarray(x)
        x = checks.float_array(who, "x", x, checks.float_dtype(x))
        axes = ("B", "T") if self.batch_first else ("T", "B")
        checks.shape(who, "x", x, (*axes, "features"), (None, None, None))
        counts = self.compute_mask(x)[..., None]
        self._keep(counts)
        return np.where(counts, x, x.dtype.type(0))

    if TYPE_CHECKING:
        __call__ = forward

    def backward(self, dy: ArrayLike, *, context: Context | None = None) -> Array:
        """Gradient of the input: that of the output at the steps that count.

        Parameters
        ----------
        dy : array_like, shape of the output
            Gradient of the loss with respect to the output; None of indices.
        context : Context, optional
            What the forward in question left in ``context``. Default: the last one.

        Returns
        -------
        ndarray, shape of `dy`, or None

        Raises
        ------
        RuntimeError
            If there was no forward in training mode, or its context has been used.
        """
        context = self._context(context)
        counts = context.saved
        context.release()
        return None if counts is None else np.asarray(dy) * counts

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        indices = ", indices=True" if self.indices else ""
        return f"{self.mask_value:g}{indices}"


# -- through a model -------------------------------------------------------------------


@functools.cache
def takes_mask(cls):
    """Whether a layer's ``forward`` has an argument of that name."""
    return "mask" in inspect.signature(cls.forward).parameters


def arguments(layer, mask):
    """What a layer's ``forward`` is given in addition, for a mask laid out like x."""
    return layer._mask_arguments(mask) if takes_mask(type(layer)) else {}


def makes_mask(module):
    """Whether a layer makes a mask of its input."""
    return isinstance(module, Masking) or getattr(module, "mask_zero", False)


def of_output(model):
    """The mask of the output of a model's last forward, or None.

    Raises
    ------
    ValueError
        If a part of a class of the user's makes a mask, and the class does not say
        what becomes of it.
    """
    if "output_mask" not in vars(model):
        _check_ended(model, model)
    return model.output_mask


def _check_ended(model, part):
    """Refuse masks in `part` that nobody has taken up."""
    for child in part._children.values():
        known = "output_mask" in vars(child)
        if known and child.output_mask is None:
            continue  # it has seen to its own
        if known or makes_mask(child):
            raise ValueError(
                f"{type(model).__name__}: forward must set self.output_mask, to the "
                "mask of the output or to None, where a part of the model makes a "
                f"mask, as its {type(child).__name__} does"
            )
        _check_ended(model, child)


def check(who, mask, shape):
    """A mask as booleans, refused unless it is for the first axes of `shape`."""
    mask = checks.as_array(who, "mask", mask)
    if mask.dtype != bool:
        raise TypeError(f"{who}: mask must be bool, got dtype {mask.dtype}")
    if mask.ndim == 0 or mask.shape != tuple(shape[: mask.ndim]):
        raise ValueError(
            f"{who}: mask must have the shape of the output's first axes, "
            f"{checks.as_tuple(shape[: mask.ndim])}, got {mask.shape}"
        )
    return mask


def call(who, function, pred, target, mask):
    """A loss or metric that is a function of the user's, with the mask if there is one.

    Raises
    ------
    ValueError
        If there is one, and the function does not take it: it would count all steps.
    """
    if mask is None:
        return function(pred, target)
    known = inspect.signature(function).parameters
    if "mask" not in known:
        raise ValueError(
            f"{who}: a function must have an argument mask for a model whose output "
            f"has a mask, got one of {', '.join(known)}"
        )
    return function(pred, target, mask=mask)


def counted_first(mask):
    """Order (N, T) that puts a sequence's steps that count first, and their number."""
    return np.argsort(~mask, axis=1, kind="stable"), np.count_nonzero(mask, axis=1)


def take_steps(array, order):
    """Steps of (N, T, ...) in an order (N, T)."""
    return np.take_along_axis(
        array, order.reshape(order.shape + (1,) * (array.ndim - 2)), 1
    )


def put_steps(array, order):
    """Back from an order that `take_steps` brought about."""
    return take_steps(array, np.argsort(order, axis=1))
