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
import itertools
import time
from dataclasses import dataclass

import numpy as np

from fastrnn.data.batches import Batches, all_outputs
from fastrnn.losses.crf import CRF
from fastrnn.losses.sequences import ConditionalRandomField
from fastrnn.nn import joint, masking
from fastrnn.train import interrupt
from fastrnn.train.carried import Carried
from fastrnn.train.history import format_logs
from fastrnn.train.monitor import is_better
from fastrnn.train.progress import Progress
from fastrnn.train.reduction import Alone
from fastrnn.train.stateful import (
    reset_states,
    states_kept_on_error,
    states_of_their_own,
)
from fastrnn.train.step import Means, Record, Step
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
    gradient_accumulation_steps: int = 1

    def __post_init__(self):
        who = "fit"
        checks.positive_int(who, "batch_size", self.batch_size)
        checks.flag(who, "shuffle", self.shuffle)
        for name in ("clip_norm", "clip_value"):
            if getattr(self, name) is not None:
                checks.real_in(who, name, getattr(self, name), "(0, inf]")
        if self.tbptt is not None:
            checks.positive_int(who, "tbptt", self.tbptt)
        name, n = "gradient_accumulation_steps", self.gradient_accumulation_steps
        checks.positive_int(who, name, n)
        if n > 1 and self.tbptt is not None:
            raise ValueError(
                f"{who}: {name} must be 1 with tbptt, where every window has a step "
                f"of the optimiser, got {n}"
            )


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
    reduction : Alone or Ranks
        What is done with other processes that train together with this one.
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
        reduction,
    ):
        self.model, self.train, self.validation = model, train, validation
        self.epochs, self.options, self.seed = epochs, options, seed
        self.callbacks, self.history = callbacks, history
        self.reduction, self.main = reduction, reduction.main
        self.verbose = verbose if self.main else 0
        self.steps = None
        self._best = None  # value, parameters and number of the best epoch
        self._now = None  # the epoch at hand
        self._bar, self._bar_time, self._bar_waiting = None, 0.0, 0
        self._carried = None  # of the model, while the run goes on

    def count_steps(self):
        """Find how many steps an epoch has; None until one has shown it."""
        n = self.reduction.count(self.train, self.options.batch_size)
        together = self.options.gradient_accumulation_steps
        self.steps = None if n is None else -(-n // together)

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
                if self.reduction.size > 1:
                    raise  # the other processes cannot be asked to stop here
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
        size, reduction = self.options.batch_size, self.reduction
        batches = reduction.epoch(self.train, size, rng)
        together = self.options.gradient_accumulation_steps
        while group := list(itertools.islice(batches, together)):
            self._group(epoch, step, means, group)
            step += 1
        self.steps = step
        logs = means.result()
        if self.validation is not None:
            with states_of_their_own(self.model):
                logs = logs | evaluate(
                    self.model, self.validation, size, "val_", reduction=reduction
                )
        logs = reduction.from_main(logs | {"lr": self.model.optimizer.lr})
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
        self._follow_main()

    def _follow_main(self):
        """Let what callbacks decided on the first process hold on all."""
        model = self.model
        now = model.stop_training, model.optimizer.lr
        stop, lr = self.reduction.from_main(now)
        if (stop, lr) != now:
            model.stop_training, model.optimizer.lr = stop, lr

    def _group(self, epoch, step, means, group):
        """Train on batches that share a step of the optimiser; mostly it is one."""
        self.callbacks.on_train_batch_begin(step)
        where = f"fit: training diverged in epoch {epoch + 1}, batch {step + 1}"

        def on_gradients():
            self.callbacks.on_gradients(step)

        if self.options.tbptt is None:
            with self._carried:
                whole = self._step(means)
                for share, inputs, target, weight in group:
                    with joint.sharing(share):
                        whole.add(self.model(*inputs), target, weight)
                whole.take(where, on_gradients)
        else:
            ((share, (x, *others), target, weight),) = group
            state = None
            for start in range(0, x.shape[1], self.options.tbptt):
                window = slice(start, start + self.options.tbptt)
                timed = weight is not None and weight.ndim > 1
                w = weight[:, window] if timed else weight
                with self._carried:
                    one = self._step(means)
                    with joint.sharing(share):
                        x_now = x[:, window]
                        pred, state = self.model.forward_from(x_now, state, *others)
                        one.add(pred, target[:, window], w)
                    one.take(where, on_gradients)
        self.callbacks.on_train_batch_end(step, means)
        self._show(epoch, step, means)

    def _step(self, means):
        return Step(self.model, means, self.options, self.reduction)

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
                step = Step(model, means, FitOptions(), Alone())
                step.add(model(*inputs), target, weight)
                step.take(where)
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


def evaluate(model, samples, batch_size, prefix="", bar=None, reduction=None):
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
    reduction : Alone or Ranks, optional
        Default: `Alone`.

    Returns
    -------
    dict of str to float
        Of the samples of all processes.
    """
    reduction = Alone() if reduction is None else reduction
    means, loss, records = Means(model.metrics), model.loss, []
    with model._evaluating(), states_kept_on_error(model), loss.watching():
        for share, inputs, target, weight in reduction.epoch(samples, batch_size):
            records.append(Record())
            if share is not None and not share.counts:
                continue
            pred = model(*inputs)
            pred = pred[0] if isinstance(pred, tuple) else pred
            n, mask = loss.count(pred, target), masking.of_output(model)
            if n:
                value = loss.of_batch(pred, target, weight, mask)[0]
                means.measure(pred, target, mask)
                divisor = loss.divisor(pred, target, mask)
                records[-1] = Record(value, divisor, n, True)
            if bar is not None:
                bar.update(1, "evaluate")
    reduction.means(means, records)
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
