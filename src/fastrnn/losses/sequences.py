# SPDX-License-Identifier: BSD-3-Clause
"""Losses of whole sequences for `Model.compile`, whose best answer is looked for."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.data.pairs import IGNORED, token_rows
from fastrnn.data.sequences import pad_sequences
from fastrnn.losses import ending
from fastrnn.losses.base import Loss, row_weights
from fastrnn.losses.crf import CRF
from fastrnn.losses.ctc import ctc_beam_search, ctc_greedy_decode, ctc_loss
from fastrnn.nn import axis_rule, masking
from fastrnn.nn.module import Module
from fastrnn.util import checks
from fastrnn.util.typing import Array


class _OfSequences(Loss):
    """Base of the losses of whole sequences, whose best answer has to be looked for."""

    steps = False

    def count(self, pred: Array, target: ArrayLike) -> int:
        return len(pred)

    def divisor(self, pred: Array, target: ArrayLike, mask: Array | None) -> int:
        return len(pred) if mask is None else int(mask.any(axis=1).sum())

    def decode(self, pred: Array, mask: Array | None = None) -> Any:
        """The best answer to each of a batch's outputs, from the steps that count."""
        raise NotImplementedError

    def _counted(self, pred, mask):
        """Outputs with the steps that count first, their number, and their order.

        Of the sequences that have one: `some` are these.
        """
        mask = masking.check(self.name, mask, pred.shape[:2])
        some = mask.any(axis=1)
        order, lengths = masking.counted_first(mask[some])
        return masking.take_steps(pred[some], order), lengths, order, some


class ConditionalRandomField(_OfSequences):
    """Negative log-likelihood of tags under the model's `CRF`, a mean over sequences.

    `CRF` is the last layer of a `Sequential`, or any part of another model whose output
    is the emissions. Targets are tags (N, T), -100 past a sequence's end.
    """

    name = "crf"
    crf = None

    def options(self) -> dict[str, Any]:
        return {}

    def attach(self, model: Module) -> None:
        found = [module for module in model.modules() if isinstance(module, CRF)]
        if len(found) != 1:
            raise ValueError(
                f"{self.name}: the model must have one CRF layer, as its last, got "
                f"{len(found)}"
            )
        self.crf = found[0]
        function = ending.ending(model).function
        if function in ending.PROBABILITIES:
            raise ValueError(
                f"{self.name}: the CRF must be given scores, got the output of a "
                f"{function}, which belongs into no such model: take it out"
            )

    def _lengths(self, target):
        inside = target != IGNORED
        lengths = np.count_nonzero(inside, axis=1)
        if not inside[np.arange(target.shape[1]) < lengths[:, None]].all():
            raise ValueError(
                f"{self.name}: y must have {IGNORED} at the end of sequences alone"
            )
        return lengths

    def targets(self, who: str, y: Any) -> Any:
        return y if isinstance(y, list) else _without_last_axis(y)

    def __call__(
        self,
        pred: Array,
        target: ArrayLike,
        weight: Array | None = None,
        mask: Array | None = None,
    ) -> tuple[float, Array]:
        if weight is not None and weight.ndim != 1:
            raise ValueError(
                f"{self.name}: sample_weight must have shape (N,), got {weight.shape}"
            )
        target = checks.integer_array(self.name, "y", _without_last_axis(target))
        letters, sizes = ("N", "T"), np.shape(pred)[:2]
        checks.shape(self.name, "y", target, letters, sizes)
        if mask is None:
            with axis_rule.as_in_a_model():
                loss = self.crf(pred, target, self._lengths(target), weights=weight)
                return loss, self.crf.backward() if self.crf.training else None
        return self._of_counted(pred, target, weight, mask)

    def of_part(
        self,
        pred: Array,
        target: ArrayLike,
        weight: Array | None,
        mask: Array | None,
        share: float,
    ) -> tuple[float, Array]:
        # The layer's own gradients are made with the loss: by weights they scale, too.
        scaled = np.full(len(pred), share) * (1 if weight is None else weight)
        loss, d = self.of_batch(pred, target, scaled, mask)
        return loss / share, d

    def _of_counted(self, pred, target, weight, mask):
        """As a call, the mean being over the sequences with a step that counts."""
        x, lengths, order, some = self._counted(pred, mask)
        d = np.zeros_like(pred)
        if not len(x):
            return 0.0, d
        target = masking.take_steps(target[some], order)
        target[np.arange(target.shape[1]) >= lengths[:, None]] = IGNORED
        loss, dx = self(x, target, None if weight is None else weight[some])
        if dx is not None:
            d[some] = masking.put_steps(dx, order)
        return loss, d

    @axis_rule.of_a_model
    def decode(self, pred: Array, mask: Array | None = None) -> Any:
        """The most probable tags (N, T), -1 at steps that do not count."""
        if mask is None:
            return self.crf.decode(pred)[0]
        tags = np.full(pred.shape[:2], -1)
        x, lengths, order, some = self._counted(pred, mask)
        if len(x):
            found = self.crf.decode(x, lengths)[0]
            tags[some] = masking.put_steps(found, order)
        return tags


def _without_last_axis(y):
    """Tags (N, T) from (N, T, 1)."""
    y = checks.as_array("crf", "y", y)
    return y[..., 0] if y.ndim == 3 and y.shape[2] == 1 else y


class ConnectionistTemporalClassification(_OfSequences):
    """`ctc_loss` of outputs (N, T, classes), each divided by its number of labels.

    Targets are sequences of labels, a list of arrays of any lengths or an array (N, S),
    -100 where one has ended.

    Parameters
    ----------
    blank : int
        The class that stands for no label.
    zero_infinity : bool
        Whether sequences too short for their labels count as a loss of zero.
    from_logits : bool, optional
        What the model's output is taken for. Default: probabilities where the model
        ends in a softmax, else logits.
    """

    name = "ctc"
    activation = "softmax"
    _changeable: ClassVar = {
        "blank": lambda loss, name, value: checks.integer("ctc", name, value),
        "zero_infinity": lambda loss, name, value: checks.flag("ctc", name, value),
    }

    def __init__(
        self,
        blank: int = 0,
        zero_infinity: bool = False,
        from_logits: bool | None = None,
    ) -> None:
        self.blank, self.zero_infinity = blank, zero_infinity
        self.from_logits = from_logits

    def _attach_end(self, end):
        if self.from_logits is None and end.function == "sigmoid":
            raise ValueError(
                f"{self.name}: the model must end in logits or in a softmax over the "
                "labels and the blank, got a sigmoid"
            )
        super()._attach_end(end)

    def targets(self, who: str, y: Any) -> Any:
        rows = token_rows(who, "y", y, np.iinfo(np.int64).max, least=0)
        return pad_sequences(rows, batch_first=True, value=IGNORED)[0]

    def __call__(
        self,
        pred: Array,
        target: ArrayLike,
        weight: Array | None = None,
        mask: Array | None = None,
    ) -> tuple[float, Array]:
        return self._of(np.asarray(pred), not self.probabilities, target, weight, mask)

    def of_batch(
        self, pred: Array, target: ArrayLike, weight: Array | None, mask: Array | None
    ) -> tuple[float, Array]:
        result = self._of(*self.scores(pred), target, weight, mask)
        applied = self._applied(pred)
        if applied is not None:
            applied.of_input = True
        return result

    def _of(self, pred, logits, target, weight, mask):
        if not logits:
            # softmax(log p) is p: what is exact of logits is of these.
            p = np.maximum(pred, np.finfo(pred.dtype).tiny)
            loss, d = self._of(np.log(p), True, target, weight, mask)
            return loss, np.where(pred == p, d / p, 0)
        target = np.asarray(target)
        if mask is None:
            return self._of_steps(pred, target, weight, None)
        x, lengths, order, some = self._counted(pred, mask)
        d = np.zeros_like(pred)
        if not len(x):
            return 0.0, d
        weight = None if weight is None else weight[some]
        loss, dx = self._of_steps(x, target[some], weight, lengths)
        d[some] = masking.put_steps(dx, order)
        return loss, d

    def _of_steps(self, pred, target, weight, steps):
        """Loss and gradient of logits, of which `steps` each count."""
        lengths = np.count_nonzero(target != IGNORED, axis=1)
        row_losses, d = ctc_loss(
            pred.swapaxes(0, 1), target, steps, lengths, self.blank, "none",
            self.zero_infinity,
        )  # fmt: skip
        if not np.isfinite(row_losses).all():
            at = np.argmax(~np.isfinite(row_losses))
            raise ValueError(
                f"{self.name}: y must have labels that fit into the steps of x, two of "
                f"a kind with a blank between, got {lengths[at]} labels for "
                f"{pred.shape[1] if steps is None else steps[at]} steps; objectives."
                "ConnectionistTemporalClassification(zero_infinity=True) leaves such "
                "sequences out"
            )
        scale = 1 / (len(pred) * np.maximum(lengths, 1))
        if weight is not None:
            scale *= row_weights(self.name, weight, row_losses.shape)
        d *= scale.astype(d.dtype)[:, None]
        loss = float(np.sum(row_losses * scale))
        return loss, np.ascontiguousarray(d.swapaxes(0, 1))

    def decode(
        self, pred: Array, mask: Array | None = None, beam_width: int | None = None
    ) -> Any:
        """Labels of each sequence: of the best alignment, or by beam search."""
        if self.probabilities:
            pred = np.log(np.maximum(pred, np.finfo(pred.dtype).tiny))
        steps, labels = None, [np.zeros(0, np.int64) for _ in pred]
        some = np.arange(len(pred))
        if mask is not None:
            pred, steps, _, counted = self._counted(pred, mask)
            some = np.flatnonzero(counted)
        if not len(some):
            return labels
        pred = pred.swapaxes(0, 1)
        if beam_width is None:
            found = ctc_greedy_decode(pred, steps, blank=self.blank)
        else:
            found = ctc_beam_search(
                pred, steps, blank=self.blank, beam_width=beam_width
            )[0]
        for i, row in zip(some, found, strict=True):
            labels[i] = row
        return labels
