# SPDX-License-Identifier: BSD-3-Clause
"""`Loss`: what `Model.fit` asks of a loss, and checks that losses share."""

import math

import numpy as np

from fastrnn import _check
from fastrnn._attributes import Attributes
from fastrnn.crf import CRF


def row_weights(who, weight, rows):
    """`weight` of shape (N,) or of the rows, as one number a row."""
    if weight.shape != rows[: weight.ndim]:
        raise ValueError(
            f"{who}: sample_weight must have shape {_check.as_tuple(rows)} or that of "
            f"its first axes, got {weight.shape}"
        )
    return np.broadcast_to(
        weight.reshape(weight.shape + (1,) * (len(rows) - weight.ndim)), rows
    )


def check_fits(name, target, whose, shape, pred):
    """Refuse a target of another shape, and say what the likeliest reason is."""
    try:
        _check.same_shape(name, "y", target, whose, shape)
    except ValueError as error:
        if pred.ndim != 3 or target.ndim >= len(shape):
            raise
        raise ValueError(
            f"{error}; where a sequence has one target, its last recurrent layer has "
            "return_sequences=False"
        ) from None


class Loss(Attributes):
    """Base of the losses: `rows` gives each row's loss and its gradient.

    Attributes
    ----------
    name : str
        What `by_name` knows it as.
    classes : bool
        Whether targets are classes, so that weights by class make sense.
    steps : bool
        Whether each step has a loss of its own, so that sequences may be cut (tbptt).
    """

    name = ""
    classes = False
    steps = True

    def attach(self, model):
        """Find what the loss needs of a model, when it is compiled."""
        if any(isinstance(module, CRF) for module in model.modules()):
            raise ValueError(
                f"{self.name}: the loss of a model with a CRF must be 'crf' or a "
                f"function, got {self.name!r}"
            )

    def options(self):
        """Arguments that make such a loss anew."""
        return vars(self)

    def targets(self, who, y):
        """`y` as arrays that `fit` can cut into batches."""
        return y

    def count(self, pred, target):
        """Rows that the mean is over: by these an epoch's batches are weighted."""
        return math.prod(np.shape(pred)[:-1])

    def prepare(self, pred, target):
        """Both as arrays of the shapes that `rows` takes.

        Raises
        ------
        ValueError
            If the target does not fit the model's output.
        TypeError
            If it is of the wrong kind.
        """
        pred = _check.float_array(self.name, "the model's output", pred, pred.dtype)
        target = _check.float_array(self.name, "y", target, pred.dtype)
        if target.shape == pred.shape[:-1] and pred.shape[-1] == 1:
            target = target[..., None]
        check_fits(self.name, target, "the model's output", pred.shape, pred)
        return pred, target

    def rows(self, pred, target):
        """Loss of each row, and the gradient of each with respect to its output."""
        raise NotImplementedError

    def __call__(self, pred, target, weight=None):
        """Mean loss and its gradient.

        Parameters
        ----------
        pred : ndarray, shape (N, ..., K)
            The model's output.
        target : array_like
            Shaped like `pred`, or without its last axis where that is 1; for class
            indices without it always.
        weight : ndarray, optional, shape (N,) or (N, T)
            Of each row, or of all rows of a sample.

        Returns
        -------
        loss : float
            Summed in float64.
        dpred : ndarray, shape of `pred`
        """
        pred, target = self.prepare(pred, target)
        row_losses, d = self.rows(pred, target)
        scale = np.full(row_losses.shape, 1 / row_losses.size, pred.dtype)
        if weight is not None:
            scale *= row_weights(self.name, weight, row_losses.shape)
        loss = float(np.sum(row_losses * scale, dtype=np.float64))
        return loss, d * scale[..., None]
