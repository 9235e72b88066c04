# SPDX-License-Identifier: BSD-3-Clause
"""Callbacks that call functions of the user's: `LambdaCallback` and a schedule."""

from collections.abc import Callable
from typing import Any, ClassVar

from fastrnn.train.hooks import Callback
from fastrnn.util import checks
from fastrnn.util.schema import any_of, at_least

# What they are called with: logs, and the epoch or batch before them.
Hook = Callable[[Any], Any] | None
NumberedHook = Callable[[int, Any], Any] | None


class LambdaCallback(Callback):
    """A callback made of functions.

    Parameters
    ----------
    on_epoch_begin, on_epoch_end : callable, optional
        Called with ``(epoch, logs)``; the first epoch is 0.
    on_train_begin, on_train_end : callable, optional
        Called with ``(logs)``.
    on_train_batch_begin, on_train_batch_end : callable, optional
        Called with ``(batch, logs)``.

    Raises
    ------
    TypeError
        If one cannot be called.

    Examples
    --------
    >>> model = fastrnn.Sequential(fastrnn.Dense(1, seed=0))
    >>> model.compile("sgd", "mse")
    >>> show = LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, [*logs]))
    >>> _ = model.fit(np.ones((4, 2)), np.ones(4), callbacks=[show], verbose=0)
    0 ['loss', 'lr']
    """

    def __init__(
        self,
        on_epoch_begin: NumberedHook = None,
        on_epoch_end: NumberedHook = None,
        on_train_begin: Hook = None,
        on_train_end: Hook = None,
        on_train_batch_begin: NumberedHook = None,
        on_train_batch_end: NumberedHook = None,
    ) -> None:
        given = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
        }
        for name, function in given.items():
            if function is None:
                continue
            if not callable(function):
                raise TypeError(
                    f"LambdaCallback: {name} must be a function, got {function!r}"
                )
            setattr(self, name, function)


class LearningRateScheduler(Callback):
    """Set the learning rate before every epoch, as a function says.

    Parameters
    ----------
    schedule : callable
        Called with ``(epoch, lr)``, the first epoch being 0, or, where it takes one
        argument, with ``(epoch)``; gives the rate.
    verbose : {0, 1}
        1 prints every rate.

    Raises
    ------
    TypeError
        If `schedule` cannot be called, or gives no number.
    ValueError
        If it gives a number less than 0.

    Examples
    --------
    >>> model = fastrnn.Sequential(fastrnn.Dense(1, seed=0))
    >>> model.compile("sgd", "mse", learning_rate=1.0)
    >>> halve = LearningRateScheduler(lambda epoch, lr: lr / 2, verbose=1)
    >>> _ = model.fit(np.ones((4, 2)), np.ones(4), callbacks=[halve], verbose=0)
    LearningRateScheduler: epoch 1: the learning rate is 0.5
    """

    def __init__(
        self,
        schedule: Callable[[int], float] | Callable[[int, float], float],
        verbose: int | bool = 0,
    ) -> None:
        who = type(self).__name__
        if not callable(schedule):
            raise TypeError(f"{who}: schedule must be a function, got {schedule!r}")
        self.schedule = schedule
        self.verbose = checks.verbosity(who, verbose)
        self.lr: float | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        who = type(self).__name__
        optimizer = self.model.optimizer  # type: ignore[attr-defined]
        if checks.takes(self.schedule, 2):
            rate = self.schedule(epoch, optimizer.lr)
        else:
            rate = self.schedule(epoch)
        self.lr = checks.real_in(who, "the rate of schedule", rate, "[0, inf)")
        optimizer.lr = self.lr
        if self.verbose:
            self._say(f"{who}: epoch {epoch + 1}: the learning rate is {self.lr:g}")

    _state_rules: ClassVar = {"lr": any_of(None, at_least(0))}

    def state(self) -> dict[str, Any]:
        return {"lr": self.lr}
