# SPDX-License-Identifier: BSD-3-Clause
"""Figures that are watched: which of two is better, and the base of who asks."""

from __future__ import annotations

import math

from fastrnn.train.hooks import Callback
from fastrnn.util import checks


def is_better(value, best, *, upwards=False, min_delta=0.0):
    """Whether a figure is better than the best one so far.

    This is the one comparison behind every "best so far".

    Parameters
    ----------
    value : float
        The figure. NaN is never better than anything.
    best : float or None
        The best so far. None and NaN are worse than every number, infinities included.
    upwards : bool
        Whether more is better.
    min_delta : float >= 0
        What counts as better: by more than this.

    Returns
    -------
    bool

    Examples
    --------
    >>> nan = float("nan")
    >>> is_better(0.5, None), is_better(0.5, nan), is_better(nan, None)
    (True, True, False)
    >>> is_better(0.5, 0.6), is_better(0.5, 0.6, upwards=True)
    (True, False)
    """
    if math.isnan(value):
        return False
    if best is None or math.isnan(best):
        return True
    if upwards:
        return value - min_delta > best
    return value + min_delta < best


class Monitor(Callback):
    """Base of the callbacks that watch one figure."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        who = type(self).__name__
        if not isinstance(monitor, str):
            raise TypeError(f"{who}: monitor must be a name, got {monitor!r}")
        self.monitor = monitor
        self.mode = checks.choice(who, "mode", mode, ("auto", "min", "max"))
        self.min_delta = abs(checks.finite(who, "min_delta", min_delta))

    @property
    def _upwards(self):
        if self.mode != "auto":
            return self.mode == "max"
        name = self.monitor.removeprefix("val_")
        return any(m.name == name and m.higher_is_better for m in self.model.metrics)

    def _check_run(self, figures):
        if figures is not None:
            self._check_monitor(figures)

    def _check_monitor(self, figures):
        if self.monitor not in figures:
            raise ValueError(
                f"{type(self).__name__}: monitor must be one of {', '.join(figures)}, "
                f"got {self.monitor!r}"
            )

    def _value(self, logs):
        self._check_monitor(logs)
        return logs[self.monitor]

    def _better(self, value, best):
        """Whether `value` is better than `best` by more than min_delta."""
        return is_better(value, best, upwards=self._upwards, min_delta=self.min_delta)
