# SPDX-License-Identifier: BSD-3-Clause
"""Learning-rate schedules; `fastrnn.schedules` is their public name."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from fastrnn.train.hooks import Callback, Logs
from fastrnn.train.monitor import Monitor
from fastrnn.util import checks
from fastrnn.util.schema import any_of, at_least, integer, number


class Schedule(Callback):
    """Base: a subclass defines `factor`."""

    base_lr = None

    def factor(self, epochs_done: float) -> float:
        """What to multiply the first rate by.

        Parameters
        ----------
        epochs_done : float
            With fractions: batches done of the current epoch.
        """
        raise NotImplementedError

    def _check_run(self, figures):
        for epoch in range(self.run.epochs):
            checks.real_in(
                type(self).__name__, "factor", self.factor(epoch), "[0, inf)"
            )

    def on_train_begin(self, logs: Logs = None) -> None:
        if self.base_lr is None or not self.run.history.epoch:
            self.base_lr = self.model.optimizer.lr
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._epoch = epoch

    def _done(self, batches):
        """Epochs done, with those batches of the one at hand."""
        steps = self.run.steps  # None before the first epoch of what does not know
        return self._epoch + (batches / steps if steps else 0.0)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        done = self._done(batch)
        self.model.optimizer.lr = self.base_lr * self.factor(done)

    _state_rules: ClassVar = {"base_lr": any_of(None, at_least(0))}

    def state(self) -> dict[str, Any]:
        return {"base_lr": self.base_lr}


class StepLR(Schedule):
    """Multiply the rate by `gamma` every `step_size` epochs.

    Parameters
    ----------
    step_size : int
    gamma : float in (0, inf)

    Examples
    --------
    >>> [round(StepLR(2, 0.1).factor(epoch), 3) for epoch in range(5)]
    [1.0, 1.0, 0.1, 0.1, 0.01]
    """

    def __init__(self, step_size: int, gamma: float = 0.1) -> None:
        who = type(self).__name__
        self.step_size = checks.positive_int(who, "step_size", step_size)
        self.gamma = checks.real_in(who, "gamma", gamma, "(0, inf)")

    def factor(self, epochs_done: float) -> float:
        return self.gamma ** math.floor(epochs_done / self.step_size)


class CosineLR(Schedule):
    """Let the rate fall along half a cosine, batch by batch.

    Parameters
    ----------
    epochs : int, optional
        When it has fallen. Default: the run's.
    final : float in [0, 1]
        Share of the first rate that is left in the end.

    Examples
    --------
    >>> [round(CosineLR(4).factor(epoch), 3) for epoch in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """

    def __init__(self, epochs: int | None = None, final: float = 0.0) -> None:
        who = type(self).__name__
        self.epochs = epochs
        if epochs is not None:
            self.epochs = checks.positive_int(who, "epochs", epochs)
        self.final = checks.probability(who, "final", final)

    def factor(self, epochs_done: float) -> float:
        total = self.run.epochs if self.epochs is None else self.epochs
        share = min(1.0, epochs_done / total)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * share))


class WarmUp(Schedule):
    """Let the rate rise linearly, batch by batch; then follow another schedule.

    Parameters
    ----------
    epochs : float > 0
        Until the full rate.
    then : Schedule, optional
        Counted from the run's first epoch. Default: the full rate.

    Examples
    --------
    >>> warm_up = WarmUp(2, then=StepLR(3))
    >>> [round(warm_up.factor(done), 3) for done in (0, 0.5, 1, 2, 3)]
    [0.0, 0.25, 0.5, 1.0, 0.1]
    """

    def __init__(self, epochs: float, then: Schedule | None = None) -> None:
        who = type(self).__name__
        self.epochs = checks.real_in(who, "epochs", epochs, "(0, inf)")
        if then is not None and not isinstance(then, Schedule):
            raise TypeError(f"{who}: then must be a schedule, got {then!r}")
        self.then = then

    def _check_run(self, figures):
        if self.then is not None:
            self.then.model, self.then.run = self.model, self.run
        super()._check_run(figures)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        # A rate of zero would waste a batch: the rise counts the batch at hand.
        done, ahead = self._done(batch), self._done(batch + 1)
        rate = self.base_lr * min(1.0, ahead / self.epochs)
        self.model.optimizer.lr = rate * (
            1 if self.then is None else self.then.factor(done)
        )

    def factor(self, epochs_done: float) -> float:
        rise = min(1.0, epochs_done / self.epochs)
        return rise * (1 if self.then is None else self.then.factor(epochs_done))


class ReduceLROnPlateau(Monitor):
    """Lower the rate when a figure has not become better for some epochs.

    Parameters
    ----------
    monitor : str
        Name of the figure.
    factor : float in (0, 1)
        What the rate is multiplied by.
    patience : int >= 0
        Epochs without becoming better that are waited for.
    min_delta : float
        What counts as better: by more than this.
    cooldown : int >= 0
        Epochs after lowering that are not counted.
    min_lr : float >= 0
        Not below this.
    mode : {"auto", "min", "max"}
    verbose : {0, 1}
        1 prints the new rate.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
        mode: str = "auto",
        *,
        verbose: int | bool = 0,
    ) -> None:
        who = type(self).__name__
        super().__init__(monitor, mode, min_delta)
        self.factor = checks.real_in(who, "factor", factor, "(0, 1)")
        self.patience = checks.not_negative(who, "patience", patience)
        self.cooldown = checks.not_negative(who, "cooldown", cooldown)
        self.verbose = checks.verbosity(who, verbose)
        self.min_lr = checks.real_in(who, "min_lr", min_lr, "[0, inf)")
        self.best: float | None = None
        self.wait = self.cooling = 0

    def on_train_begin(self, logs: Logs = None) -> None:
        if not self.run.history.epoch:
            self.best, self.wait, self.cooling = None, 0, 0

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        value = self._value(logs)
        if self.cooling > 0:
            self.cooling -= 1
            self.wait = 0
        if self._better(value, self.best):
            self.best, self.wait = value, 0
        elif self.cooling == 0:
            self.wait += 1
            optimizer = self.model.optimizer
            if self.wait >= self.patience and optimizer.lr > self.min_lr:
                optimizer.lr = max(self.min_lr, optimizer.lr * self.factor)
                self.wait, self.cooling = 0, self.cooldown
                if self.verbose:
                    who = type(self).__name__
                    self._say(f"{who}: the learning rate is now {optimizer.lr:g}")

    _state_rules: ClassVar = {
        "best": any_of(None, number),
        "wait": integer(0),
        "cooling": integer(0),
    }

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "wait": self.wait, "cooling": self.cooling}
