# SPDX-License-Identifier: BSD-3-Clause
"""`Step`: from the outputs for one or several batches to a step of the optimiser.

What is between, the gradient of the mean loss over the rows of all of these batches and
of all processes, is the business of a `reduction`.
"""

import math
from dataclasses import dataclass

import numpy as np

from fastrnn.nn import joint, masking
from fastrnn.train.clip import clip_grad_norm_, clip_grad_value_


class Diverged(FloatingPointError):
    """The loss or the gradient is not finite: all processes find that together."""


class Means:
    """Loss and metrics over the batches seen so far."""

    def __init__(self, metrics):
        self.metrics = metrics
        self.loss, self.n = 0.0, 0
        for metric in metrics:
            metric.reset()

    def add(self, loss, n):
        """Take in the mean loss of a batch of `n` rows."""
        self.loss += loss * n
        self.n += n

    def measure(self, pred, target, mask=None):
        """Let metrics take in a batch, of which `mask`, if any, says what counts."""
        masked = () if mask is None else (mask,)
        for metric in self.metrics:
            metric.update(pred, target, *masked)

    def result(self, prefix=""):
        """The means by name."""
        found = {f"{prefix}loss": self.loss / self.n if self.n else math.nan}
        for metric in self.metrics:
            found[f"{prefix}{metric.name}"] = metric.result()
        return found

    # -- of several processes ---------------------------------------------------------

    def sums(self):
        """What metrics have added up, as one array of float64."""
        values = [np.ravel(getattr(m, name)) for m in self.metrics for name in m.summed]
        return np.concatenate([np.zeros(0), *values])

    def set_sums(self, sums):
        """Let metrics have added up what `sums` gave, somewhere else as well."""
        at = 0
        for metric in self.metrics:
            for name in metric.summed:
                old = getattr(metric, name)
                size = np.size(old)
                value = sums[at : at + size].reshape(np.shape(old))
                kind = old.dtype if isinstance(old, np.ndarray) else type(old)
                value = value.astype(kind) if np.ndim(old) else kind(value)
                setattr(metric, name, value)
                at += size


@dataclass
class Record:
    """What a step knows of one batch, on this process.

    Attributes
    ----------
    loss : float
        Mean over `divisor` rows.
    divisor : int
        Rows that the mean loss divides by.
    n : int
        Rows by which an epoch weights its batches.
    counts : bool
        False where no row is there, or all are padding.
    """

    loss: float = 0.0
    divisor: int = 0
    n: int = 0
    counts: bool = False


class Step:
    """One step of the optimiser.

    Parameters
    ----------
    model : Model
        In training mode.
    means : Means
        Takes in the batches.
    options : FitOptions
    reduction : Reduction

    Attributes
    ----------
    unit : float
        The gradients are those of the sum of losses over rows, divided by this.
    """

    def __init__(self, model, means, options, reduction):
        self.model, self.means, self.options = model, means, options
        self._reduction, self._begun = reduction, False
        self.records, self.unit = [], 0.0
        self.sums_before = None
        if reduction.size > 1:
            self.sums_before = means.sums()

    def add(self, pred, target, weight):
        """Take in a batch: its loss, and the gradients of that.

        Parameters
        ----------
        pred, target, weight
            Output, targets and weights or None.
        """
        model, loss = self.model, self.model.loss
        pred = pred[0] if isinstance(pred, tuple) else pred
        n, mask = loss.count(pred, target), masking.of_output(model)
        left_out = self.options.tbptt and mask is not None and not mask.any()
        share = joint.now.share
        here = share is None or share.counts
        counts = n > 0 and not left_out and here
        if not counts and self._reduction.size == 1:
            return  # padding alone, as in the last windows of a batch
        if not self._begun:
            model.zero_grad()
            self._begun = True
        divisor = loss.divisor(pred, target, mask) if counts else 0
        unit = self._reduction.unit(divisor)
        if not self.unit:
            self.unit = unit
        if not counts:
            # Rows that are padding here belong to a batch that others may count.
            self.records.append(Record(n=n if here else 0))
            model.backward(np.zeros_like(pred))
            return
        if divisor in (0, self.unit):
            value, dpred = loss.of_batch(pred, target, weight, mask)
        else:
            part = divisor / self.unit
            value, dpred = loss.of_part(pred, target, weight, mask, part)
        self.records.append(Record(value, divisor, n, True))
        model.backward(dpred)
        if math.isfinite(value):  # else `take` raises
            self.means.measure(pred, target, mask)

    def take(self, where, on_gradients=None):
        """Change the parameters; nothing if no batch counted.

        Parameters
        ----------
        where : str
            What an error begins with.
        on_gradients : callable, optional
            Called before clipping.

        Raises
        ------
        Diverged
            If the loss or the gradient is not finite; parameters are as before.
        """
        batches = self._reduction.reduce(self)
        if not batches:
            return
        model, options = self.model, self.options
        if on_gradients is not None:
            on_gradients()
        if options.clip_value is not None:
            clip_grad_value_(model, options.clip_value)
        norm = clip_grad_norm_(model, options.clip_norm or math.inf)
        losses = [loss for loss, _ in batches]
        if not all(map(math.isfinite, [norm, *losses])):
            loss = next((one for one in losses if not math.isfinite(one)), losses[-1])
            raise Diverged(
                f"{where}: loss {loss}, gradient norm {norm}; lower the learning rate "
                f"({model.optimizer.lr:g}), give clip_norm, or look for NaN in the data"
            )
        for loss, n in batches:
            self.means.add(loss, n)
        model.optimizer.step()
