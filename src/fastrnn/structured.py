# SPDX-License-Identifier: BSD-3-Clause
"""Losses of whole sequences for `Model.compile`, whose best answer is looked for."""

from typing import ClassVar

import numpy as np

from fastrnn import _check
from fastrnn._loss import Loss, row_weights
from fastrnn.crf import CRF
from fastrnn.ctc import ctc_beam_search, ctc_greedy_decode, ctc_loss
from fastrnn.pairs import IGNORED, token_rows
from fastrnn.sequences import pad_sequences


class _OfSequences(Loss):
    """Base of the losses of whole sequences, whose best answer has to be looked for."""

    steps = False

    def count(self, pred, target):
        return len(pred)

    def decode(self, pred):
        """The best answer to each of a batch's outputs."""
        raise NotImplementedError


class ConditionalRandomField(_OfSequences):
    """Negative log-likelihood of tags under the model's `CRF`, a mean over sequences.

    `CRF` is the last layer of a `Sequential`, or any part of another model whose output
    is the emissions. Targets are tags (N, T), -100 past a sequence's end.
    """

    name = "crf"
    crf = None

    def options(self):
        return {}

    def attach(self, model):
        found = [module for module in model.modules() if isinstance(module, CRF)]
        if len(found) != 1:
            raise ValueError(
                f"{self.name}: the model must have one CRF layer, as its last, got "
                f"{len(found)}"
            )
        self.crf = found[0]

    def _lengths(self, target):
        inside = target != IGNORED
        lengths = np.count_nonzero(inside, axis=1)
        if not inside[np.arange(target.shape[1]) < lengths[:, None]].all():
            raise ValueError(
                f"{self.name}: y must have {IGNORED} at the end of sequences alone"
            )
        return lengths

    def targets(self, who, y):
        return y if isinstance(y, list) else _without_last_axis(y)

    def __call__(self, pred, target, weight=None):
        if weight is not None and weight.ndim != 1:
            raise ValueError(
                f"{self.name}: sample_weight must have shape (N,), got {weight.shape}"
            )
        target = _check.integer_array(self.name, "y", _without_last_axis(target))
        letters, sizes = ("N", "T"), np.shape(pred)[:2]
        _check.shape(self.name, "y", target, letters, sizes)
        loss = self.crf(pred, target, self._lengths(target), weights=weight)
        return loss, self.crf.backward() if self.crf.training else None

    def decode(self, pred):
        """The most probable tags (N, T)."""
        return self.crf.decode(pred)[0]


def _without_last_axis(y):
    """Tags (N, T) from (N, T, 1)."""
    y = _check._as_array("crf", "y", y)
    return y[..., 0] if y.ndim == 3 and y.shape[2] == 1 else y


class ConnectionistTemporalClassification(_OfSequences):
    """`ctc_loss` of logits (N, T, classes), each divided by its number of labels.

    Targets are sequences of labels, a list of arrays of any lengths or an array (N, S),
    -100 where one has ended.

    Parameters
    ----------
    blank : int
        The class that stands for no label.
    zero_infinity : bool
        Whether sequences too short for their labels count as a loss of zero.
    """

    name = "ctc"
    _changeable: ClassVar = {
        "blank": lambda loss, name, value: _check.integer("ctc", name, value),
        "zero_infinity": lambda loss, name, value: _check.flag("ctc", name, value),
    }

    def __init__(self, blank=0, zero_infinity=False):
        self.blank, self.zero_infinity = blank, zero_infinity

    def targets(self, who, y):
        rows = token_rows(who, "y", y, np.iinfo(np.int64).max, least=0)
        return pad_sequences(rows, batch_first=True, value=IGNORED)[0]

    def __call__(self, pred, target, weight=None):
        pred, target = np.asarray(pred), np.asarray(target)
        lengths = np.count_nonzero(target != IGNORED, axis=1)
        row_losses, d = ctc_loss(
            pred.swapaxes(0, 1), target, None, lengths, self.blank, "none",
            self.zero_infinity,
        )  # fmt: skip
        if not np.isfinite(row_losses).all():
            raise ValueError(
                f"{self.name}: y must have labels that fit into the steps of x, two of "
                "a kind with a blank between, got "
                f"{lengths[np.argmax(~np.isfinite(row_losses))]} labels for "
                f"{pred.shape[1]} steps; objectives.ConnectionistTemporalClassification"
                "(zero_infinity=True) leaves such sequences out"
            )
        scale = 1 / (len(pred) * np.maximum(lengths, 1))
        if weight is not None:
            scale *= row_weights(self.name, weight, row_losses.shape)
        d *= scale.astype(d.dtype)[:, None]
        loss = float(np.sum(row_losses * scale))
        return loss, np.ascontiguousarray(d.swapaxes(0, 1))

    def decode(self, pred, beam_width=None):
        """Labels of each sequence: of the best alignment, or by beam search."""
        pred = pred.swapaxes(0, 1)
        if beam_width is None:
            return ctc_greedy_decode(pred, blank=self.blank)
        return ctc_beam_search(pred, blank=self.blank, beam_width=beam_width)[0]
