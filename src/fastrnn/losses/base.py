# SPDX-License-Identifier: BSD-3-Clause
"""`Loss`: what `Model.fit` asks of a loss, and checks that losses share."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.losses import ending
from fastrnn.losses.crf import CRF
from fastrnn.nn import masking
from fastrnn.nn.attributes import Attributes
from fastrnn.nn.module import Module
from fastrnn.util import checks
from fastrnn.util.typing import Array


def row_weights(who, weight, rows):
    """`weight` of shape (N,) or of the rows, as one number a row."""
    if weight.shape != rows[: weight.ndim]:
        raise ValueError(
            f"{who}: sample_weight must have shape {checks.as_tuple(rows)} or that of "
            f"its first axes, got {weight.shape}"
        )
    return np.broadcast_to(
        weight.reshape(weight.shape + (1,) * (len(rows) - weight.ndim)), rows
    )


def check_fits(name, target, whose, shape, pred):
    """Refuse a target of another shape, and say what the likeliest reason is."""
    try:
        checks.same_shape(name, "y", target, whose, shape)
    except ValueError as error:
        if pred.ndim != 3 or target.ndim >= len(shape):
            raise
        raise ValueError(
            f"{error}; where a sequence has one target, its last recurrent layer has "
            "return_sequences=False"
        ) from None


def _flag_or_none(loss, name, value):
    """The rule of `from_logits`."""
    return value if value is None else checks.flag(type(loss).__name__, name, value)


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
    from_logits : bool or None
        What the model's output is taken for; None to find out from its last layer.
    """

    name = ""
    classes = False
    steps = True
    from_logits = None
    _changeable: ClassVar = {"from_logits": _flag_or_none}
    # The function whose input is the loss's logits; None where it has none.
    activation = None
    _end = ending.Ending()

    # -- of a model -------------------------------------------------------------------

    def attach(self, model: Module) -> None:
        """Find what the loss needs of a model, when it is compiled."""
        if any(isinstance(module, CRF) for module in model.modules()):
            raise ValueError(
                f"{self.name}: the loss of a model with a CRF must be 'crf' or a "
                f"function, got {self.name!r}"
            )
        self._attach_end(ending.ending(model))

    def observe(self, model: Module, run: Callable[[], Array]) -> None:
        """Find what only a forward shows: `run` runs the model on a sample."""
        if self.activation and self.from_logits is None and not self._end.known:
            found = ending.observed(model, run)
            if not found.known:
                raise ValueError(
                    f"{self.name}: from_logits must be given for a model whose output "
                    f"is made by {type(model).__name__}.forward itself, and that has a "
                    "sigmoid or softmax: True for logits, False for probabilities"
                )
            self._attach_end(found)

    def _attach_end(self, end):
        known = (None, *ending.PROBABILITIES)
        if self.activation and self.from_logits is None and end.function not in known:
            raise ValueError(
                f"{self.name}: the model must end in logits or in probabilities, got "
                f"{end.function!r} as its last function; from_logits=True takes its "
                "output for logits, from_logits=False for probabilities all the same"
            )
        self._end = end

    @property
    def probabilities(self) -> bool:
        """Whether the model's output is probabilities, not logits or other scores."""
        if self.from_logits is not None:
            return not self.from_logits
        return self._end.function in ending.PROBABILITIES

    @property
    def _watched(self):
        """The layer whose function's input is the logits, or None."""
        fits = self._end.direct and self._end.function == self.activation
        return self._end.layer if fits and self.probabilities else None

    def watching(self) -> contextlib.AbstractContextManager[None]:
        """Within this context, `logits` finds what the last layer had before."""
        if self.activation is None or self._watched is None:
            return contextlib.nullcontext()
        return ending.watching(self._watched)

    def _applied(self, pred):
        if self.activation is None or self._watched is None:
            return None
        return ending.applied_for(self._watched, pred)

    def scores(self, pred: Array) -> tuple[Array, bool]:
        """What the loss is computed from, and whether it is logits.

        The model's output `pred`, or within `watching` the logits that it was made of.
        """
        applied = self._applied(pred)
        if applied is None:
            return pred, not self.probabilities
        return applied.z.reshape(pred.shape), True

    def of_batch(
        self, pred: Array, target: ArrayLike, weight: Array | None, mask: Array | None
    ) -> tuple[float, Array]:
        """As a call, for the output that a model has just made, and its backward.

        Where the loss is computed from logits that a last layer had, its gradient is
        theirs, and that layer's backward is told.
        """
        return self(pred, target, weight, *(() if mask is None else (mask,)))

    def of_part(
        self,
        pred: Array,
        target: ArrayLike,
        weight: Array | None,
        mask: Array | None,
        share: float,
    ) -> tuple[float, Array]:
        """As `of_batch`, the gradients being `share` times those of the mean loss."""
        loss, d = self.of_batch(pred, target, weight, mask)
        return loss, d * d.dtype.type(share)

    # -- of arrays --------------------------------------------------------------------

    def options(self) -> dict[str, Any]:
        """Arguments that make such a loss anew."""
        return {k: v for k, v in vars(self).items() if not k.startswith("_")}

    def targets(self, who: str, y: Any) -> Any:
        """`y` as arrays that `fit` can cut into batches."""
        return y

    def count(self, pred: Array, target: ArrayLike) -> int:
        """Rows that the mean is over: by these an epoch's batches are weighted."""
        return math.prod(np.shape(pred)[:-1])

    def divisor(self, pred: Array, target: ArrayLike, mask: Array | None) -> int:
        """Rows that the mean of `of_batch` divides by, those that a mask leaves.

        The mean of a joint batch is that of its parts, weighted by these. A class that
        has a `count` of its own has this, too.
        """
        if mask is None:
            return self.count(pred, target)
        rest = math.prod(np.shape(pred)[mask.ndim : -1])
        return int(np.count_nonzero(mask)) * rest

    def prepare(self, pred: Array, target: ArrayLike) -> tuple[Array, Array]:
        """Both as arrays of the shapes that `rows` takes.

        Raises
        ------
        ValueError
            If the target does not fit the model's output.
        TypeError
            If it is of the wrong kind.
        """
        pred = checks.float_array(self.name, "the model's output", pred, pred.dtype)
        target = checks.float_array(self.name, "y", target, pred.dtype)
        if target.shape == pred.shape[:-1] and pred.shape[-1] == 1:
            target = target[..., None]
        check_fits(self.name, target, "the model's output", pred.shape, pred)
        return pred, target

    def rows(self, pred: Array, target: ArrayLike) -> tuple[Array, Array]:
        """Loss of each row, and the gradient of each with respect to its output."""
        raise NotImplementedError

    def __call__(
        self,
        pred: Array,
        target: ArrayLike,
        weight: Array | None = None,
        mask: Array | None = None,
    ) -> tuple[float, Array]:
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
        mask : ndarray of bool, optional, shape (N, T) or that of the first axes
            Rows that count: the mean is over these. What stands in others is not looked
            at, NaN included.

        Returns
        -------
        loss : float
            Summed in float64; 0 where the mask leaves nothing.
        dpred : ndarray, shape of `pred`
        """
        return self._masked(self.mean, pred, target, weight, mask)

    def mean(
        self, pred: Array, target: ArrayLike, weight: Array | None = None
    ) -> tuple[float, Array]:
        """Mean loss over all rows and its gradient: a call without a mask."""
        pred, target = self.prepare(pred, target)
        return self._weighted(*self.rows(pred, target), weight)

    def _weighted(self, row_losses, d, weight):
        """The weighted sum over the number of rows, and its gradient."""
        scale = np.full(row_losses.shape, 1 / row_losses.size, d.dtype)
        if weight is not None:
            scale *= row_weights(self.name, weight, row_losses.shape)
        loss = float(np.sum(row_losses * scale, dtype=np.float64))
        return loss, d * scale[..., None]

    def _masked(self, mean, pred, target, weight, mask):
        """`mean` of the rows that count."""
        if mask is None:
            return mean(pred, target, weight)
        pred, target = self.prepare(np.asarray(pred), target)
        mask = masking.check(self.name, mask, pred.shape[:-1])
        d, rows = np.zeros_like(pred), pred.shape[:-1]
        if weight is not None:
            weight = row_weights(self.name, weight, rows)[mask]
        pred, target = pred[mask], target[mask]
        if not pred.size or not self.count(pred, target):
            return 0.0, d
        loss, d[mask] = mean(pred, target, weight)
        return loss, d
