# SPDX-License-Identifier: BSD-3-Clause
"""The loop behind `Model.fit`, and those behind `evaluate` and `predict`.

An epoch's order of samples is drawn from the run's seed and the epoch's number alone,
so a run that goes on from a checkpoint sees the batches that an unbroken one would.
Longer than most files, because training, evaluation and prediction go through batches
in the same way, which stands here once.
"""

import contextlib
import functools
import inspect
import math
import time
from dataclasses import dataclass

import numpy as np

from fastrnn.data.batches import Batches, all_outputs
from fastrnn.losses.crf import CRF
from fastrnn.losses.sequences import ConditionalRandomField
from fastrnn.nn import masking
from fastrnn.train import interrupt
from fastrnn.train.carried import Carried
from fastrnn.train.clip import clip_grad_norm_, clip_grad_value_
from fastrnn.train.history import format_logs
from fastrnn.train.monitor import is_better
from fastrnn.train.progress import Progress
from fastrnn.train.stateful import (
    reset_states,
    states_kept_on_error,
    states_of_their_own,
)
from fastrnn.util import checks
from fastrnn.util.words import taken

# Seconds between updates of the bar: a batch can take less time than one.
_BAR_SECONDS = 0.1


@dataclass(frozen=True)
class FitOptions:
    """What the numbers of a run depend on, besides model, data and seed."""

    batch_size: int = 32
    shuffle: bool = True
    clip_norm: float | None = None
    clip_value: float | None = None
    tbptt: int | None = None

    def __post_init__(self):
        who = "fit"
        checks.positive_int(who, "batch_size", self.batch_size)
        checks.flag(who, "shuffle", self.shuffle)
        for name in ("clip_norm", "clip_value"):
            if getattr(self, name) is not None:
                checks.real_in(who, name, getattr(self, name), "(0, inf]")
        if self.tbptt is not None:
            checks.positive_int(who, "tbptt", self.tbptt)


class Means:
    """Loss and metrics over the batches seen so far."""

    def __init__(self, metrics):
        self.metrics = metrics
        self.loss, self.n = 0.0, 0
        for metric in metrics:
            metric.reset()

    def update(self, loss, n, pred, target, mask=None):
        """Take in a batch of `n` rows, of which `mask`, if any, says which count."""
        self.loss += loss * n
        self.n += n
        masked = () if mask is None else (mask,)
        for metric in self.metrics:
            metric.update(pred, target, *masked)

    def result(self, prefix=""):
        """The means by name."""
        found = {f"{prefix}loss": self.loss / self.n if self.n else math.nan}
        for metric in self.metrics:
            found[f"{prefix}{metric.name}"] = metric.result()
        return found


class Run:
    """One call of `Model.fit`.

    Parameters
    ----------
    model : Model
        Compiled, with parameters and an optimiser.
    train, validation : Samples
        `validation` may be None.
    epochs : int
    options : FitOptions
    seed : int
        For the order of samples.
    callbacks : Callbacks
    history : History
        Epochs done before, and where this run's go.
    verbose : {0, 1, 2}
    """

    def __init__(
        self,
        model,
        train,
        validation,
        epochs,
        options,
        seed,
        callbacks,
        history,
        verbose,
    ):
        self.model, self.train, self.validation = model, train, validation
        self.epochs, self.options, self.seed = epochs, options, seed
        self.callbacks, self.history, self.verbose = callbacks, history, verbose
        # Batches in an epoch; None until one has shown how many there are.
        self.steps = train.count_batches(options.batch_size)
        self._best = None  # value, parameters and number of the best epoch
        self._now = None  # the epoch at hand
        self._bar, self._bar_time, self._bar_waiting = None, 0.0, 0
        self._carried = None  # of the model, while the run goes on

    @property
    def figures(self):
        """The names of what an epoch is logged with."""
        found = ["loss", *(metric.name for metric in self.model.metrics)]
        if self.validation is not None:
            found += [f"val_{name}" for name in found]
        return [*found, "lr"]

    @property
    def monitored(self):
        """The figure that the best epoch is best in."""
        return "loss" if self.validation is None else "val_loss"

    def run(self):
        """Train; Ctrl-C ends the run with the parameters of its best epoch."""
        model, first = self.model, len(self.history.epoch)
        model.stop_training = False
        with model._training(), model.loss.watching():
            try:
                self.callbacks.on_train_begin()
                self._carried = Carried(model)
                for epoch in range(first, self.epochs):
                    self._epoch(epoch)
                    if model.stop_training:
                        break
            except KeyboardInterrupt:
                with interrupt.once_more_later():
                    self.history.interrupted = True
                    if self._best is not None:
                        model.flat_parameters[...] = self._best[1]
            finally:
                if self._bar is not None:  # of an epoch that did not end
                    self._bar.clear()
            if self.history.interrupted:
                interrupt.say(self, self._now, self._best)
            self.callbacks.on_train_end(self.history.last)

    def _epoch(self, epoch):
        start, self._now = time.monotonic(), epoch
        reset_states(self.model)
        self.callbacks.on_epoch_begin(epoch)
        rng = (
            np.random.default_rng([self.seed, epoch]) if self.options.shuffle else None
        )
        means, step = Means(self.model.metrics), 0
        if self.verbose == 1:
            self._bar = Progress(self.steps, 0, "batches")
        for batch in self.train.epoch(self.options.batch_size, rng):
            self._batch(epoch, step, means, *batch)
            step += 1
        self.steps = step
        logs = means.result()
        if self.validation is not None:
            size = self.options.batch_size
            with states_of_their_own(self.model):
                logs = logs | evaluate(self.model, self.validation, size, "val_")
        logs = logs | {"lr": self.model.optimizer.lr}
        self.history.add(epoch, logs, time.monotonic() - start)
        value = logs[self.monitored]
        if is_better(value, None if self._best is None else self._best[0]):
            self._best = value, self.model.flat_parameters.copy(), epoch
        if self._bar is not None:
            self._bar.close(self._where(epoch + 1))
            self._bar = None
        if self.verbose == 2:
            print(self._where(epoch + 1), flush=True)
        self.callbacks.on_epoch_end(epoch, logs)

    def _batch(self, epoch, step, means, inputs, target, weight):
        self.callbacks.on_train_batch_begin(step)
        if self.options.tbptt is None:
            with self._carried:
                pred = self.model(*inputs)
                self._update(epoch, step, means, pred, target, weight)
        else:
            state, (x, *others) = None, inputs
            for start in range(0, x.shape[1], self.options.tbptt):
                window = slice(start, start + self.options.tbptt)
                timed = weight is not None and weight.ndim > 1
                w = weight[:, window] if timed else weight
                with self._carried:
                    pred, state = self.model.forward_from(x[:, window], state, *others)
                    self._update(epoch, step, means, pred, target[:, window], w)
        self.callbacks.on_train_batch_end(step, means)
        self._show(epoch, step, means)

    def _update(self, epoch, step, means, pred, target, weight):
        """Loss, gradients and a step of the optimiser."""
        where = f"fit: training diverged in epoch {epoch + 1}, batch {step + 1}"

        def on_gradients():
            self.callbacks.on_gradients(step)

        learn(
            self.model, means, pred, target, weight, where, self.options, on_gradients
        )

    def _where(self, epoch, logs=None):
        logs = self.history.last if logs is None else logs
        return f"epoch {epoch}/{self.epochs}  {format_logs(logs)}"

    def _show(self, epoch, step, means):
        if self._bar is None:
            return
        self._bar_waiting += 1
        now = time.monotonic()
        if now - self._bar_time >= _BAR_SECONDS or step == self.steps - 1:
            text = self._where(epoch + 1, means.result())
            self._bar.update(self._bar_waiting, text)
            self._bar_time, self._bar_waiting = now, 0


def learn(model, means, pred, target, weight, where, options, on_gradients=None):
    """Loss, gradients and a step of the optimiser, from the output for a batch.

    Parameters
    ----------
    model : Model
        In training mode.
    means : Means
        Takes in the batch.
    pred, target, weight
        Output, targets and weights or None.
    where : str
        What an error begins with.
    options : FitOptions
    on_gradients : callable, optional
        Called between backward and clipping.

    Raises
    ------
    FloatingPointError
        If the loss or the gradient is not finite; parameters are as before, and by
        `Carried`, in which the caller has run forward, so is what forward changed.
    """
    pred = pred[0] if isinstance(pred, tuple) else pred
    n, mask = model.loss.count(pred, target), masking.of_output(model)
    left_out = options.tbptt and mask is not None and not mask.any()
    if n == 0 or left_out:
        return  # padding alone, as in the last windows of a batch
    model.zero_grad()
    loss, dpred = model.loss.of_batch(pred, target, weight, mask)
    model.backward(dpred)
    if on_gradients is not None:
        on_gradients()
    if options.clip_value is not None:
        clip_grad_value_(model, options.clip_value)
    norm = clip_grad_norm_(model, options.clip_norm or math.inf)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise FloatingPointError(
            f"{where}: loss {loss}, gradient norm {norm}; lower the learning rate "
            f"({model.optimizer.lr:g}), give clip_norm, or look for NaN in the data"
        )
    # Before the step, for a metric may fail.
    means.update(loss, n, pred, target, mask)
    model.optimizer.step()


def train_on_batch(model, samples):
    """One step on all samples: loss and metrics before it.

    Parameters
    ----------
    model : Model
        Compiled, with parameters and an optimiser.
    samples : Samples

    Returns
    -------
    dict of str to float
    """
    means, where = Means(model.metrics), "train_on_batch: training diverged"
    with model._training(), model.loss.watching():
        for inputs, target, weight in samples.epoch(samples.n):
            with Carried(model):
                pred = model(*inputs)
                learn(model, means, pred, target, weight, where, FitOptions())
    return means.result()


def verbosity(who, verbose, default):
    """`verbose` as 0, 1 or 2; "auto" is the default, and flags are 0 and 1."""
    if isinstance(verbose, str) and verbose == "auto":
        return default
    if verbose not in (0, 1, 2):
        raise ValueError(f"{who}: verbose must be 0, 1, 2 or 'auto', got {verbose!r}")
    return int(verbose)


@contextlib.contextmanager
def shown(verbose, samples, batch_size):
    """Show how the body gets on through batches; it says at the end what came of it.

    Parameters
    ----------
    verbose : {0, 1, 2}
    samples : Samples or Batches
    batch_size : int

    Yields
    ------
    Shown
        The body calls its ``update`` and sets its ``done``.
    """
    bar = None
    if verbose == 1:
        bar = Progress(samples.count_batches(batch_size), 0, "batches")
    found = Shown(bar)
    try:
        yield found
    except BaseException:
        if bar is not None:
            bar.clear()
        raise
    if bar is not None:
        bar.close(found.done)
    elif verbose == 2:
        print(found.done, flush=True)


class Shown:
    """What a call that goes through batches shows: see `shown`."""

    def __init__(self, bar):
        self._bar, self.done = bar, ""

    def update(self, n, where):
        if self._bar is not None:
            self._bar.update(n, where)


def evaluate(model, samples, batch_size, prefix="", bar=None):
    """Loss and metrics of a compiled model; stateful layers go on.

    Parameters
    ----------
    model : Model
    samples : Samples
    batch_size : int
    prefix : str
        Before each name.
    bar : Progress, optional
        Counts batches.

    Returns
    -------
    dict of str to float
    """
    means, loss = Means(model.metrics), model.loss
    with model._evaluating(), states_kept_on_error(model), loss.watching():
        for inputs, target, weight in samples.epoch(batch_size):
            pred = model(*inputs)
            pred = pred[0] if isinstance(pred, tuple) else pred
            n, mask = loss.count(pred, target), masking.of_output(model)
            if n:
                value = loss.of_batch(pred, target, weight, mask)[0]
                means.update(value, n, pred, target, mask)
            if bar is not None:
                bar.update(1, "evaluate")
    return means.result(prefix)


def predict(model, samples, batch_size, decode=None, bar=None):
    """Outputs for all samples, in order, or what `decode` makes of a batch's.

    Returns
    -------
    ndarray of shape (N, ...), or list of arrays where their lengths differ
        A tuple of these for a model of several outputs.
    """
    outputs, several = [], model._gives_several
    batches = None
    if isinstance(samples, Batches):
        inputs_of_batches = (inputs for inputs, _, _ in samples.epoch(batch_size))
    else:
        batches = samples.batches(batch_size, np.arange(samples.n))
        inputs_of_batches = (samples.take(indices)[0] for indices in batches)
    with model._evaluating(), states_kept_on_error(model):
        for inputs in inputs_of_batches:
            pred = model(*inputs)
            pred = pred[0] if isinstance(pred, tuple) and not several else pred
            if decode is not None:
                mask = masking.of_output(model)
                pred = decode(pred) if mask is None else decode(pred, mask=mask)
            outputs.append(pred)
            if bar is not None:
                bar.update(1, "predict")
    if several:
        each = zip(*outputs, strict=True)
        return tuple(_in_order(samples, batches, one) for one in each)
    return _in_order(samples, batches, outputs)


def _in_order(samples, batches, outputs):
    """What came of batches, in the order of the samples."""
    if batches is None:
        return all_outputs(outputs)
    if not samples.ragged and isinstance(outputs[0], np.ndarray):
        return np.concatenate(outputs)
    rows = [None] * samples.n
    for indices, pred in zip(batches, outputs, strict=True):
        for i, row in zip(indices, pred, strict=True):
            rows[i] = row
    if isinstance(outputs[0], list) or len({row.shape for row in rows}) > 1:
        return rows
    return np.stack(rows)


# What `Model.predict` takes besides options of a decoder.
_PREDICT = ("x", "batch_size", "verbose", "steps", "decode")


def decoder_of(model, decode, options):
    """What makes an answer of a batch's outputs, or None where they are the answer.

    Parameters
    ----------
    model : Model
    decode : bool
        Whether outputs are to be decoded, where the model's loss can.
    options : dict of str to object
        Arguments of the decoder.

    Returns
    -------
    callable or None
        Takes outputs, and ``mask=``.

    Raises
    ------
    TypeError
        If there is no decoder with such an argument.
    """
    loss = model.loss
    if loss is None and any(isinstance(module, CRF) for module in model.modules()):
        loss = ConditionalRandomField()
        loss.attach(model)
    of_loss = getattr(loss, "decode", None) if decode else None
    known = inspect.signature(of_loss).parameters if of_loss else ()
    if options:
        known = [name for name in known if name not in ("self", "pred", "mask")]
        options = taken("predict", ["predict"], [*_PREDICT, *known], options)
    return functools.partial(of_loss, **options) if of_loss else None
