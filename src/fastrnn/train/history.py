# SPDX-License-Identifier: BSD-3-Clause
"""`History`: the figures of a run, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from fastrnn.util.pictures import axes_for, count_epochs, name_lines
from fastrnn.util.printable import printable
from fastrnn.util.schema import check, dict_of, integer, list_of, number

_SCHEMA = {"epoch": list_of(integer(0)), "history": dict_of(list_of(number))}


def format_logs(logs):
    """Figures on one line.

    Examples
    --------
    >>> format_logs({"loss": 0.12345, "lr": 0.001})
    'loss 0.1235  lr 0.001'
    """
    # Names may come from a file.
    return "  ".join(f"{printable(name)} {value:.4g}" for name, value in logs.items())


class History:
    """Loss, metrics and learning rate of every epoch.

    Attributes
    ----------
    epoch : list of int
        Epochs, from 0.
    history : dict of str to list of float
        By name: ``loss``, the metrics, the same with ``val_`` before them, and ``lr``.
    seconds : list of float
        What each epoch took.
    interrupted : bool
        Whether Ctrl-C ended the run.

    Examples
    --------
    >>> history = History()
    >>> history.add(0, {"loss": 2.0}, 0.1)
    >>> history.add(1, {"loss": 1.0}, 0.1)
    >>> history.epoch, history.history, history.last
    ([0, 1], {'loss': [2.0, 1.0]}, {'loss': 1.0})
    """

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.history: dict[str, list[float]] = {}
        self.seconds: list[float] = []
        self.interrupted = False

    def add(self, epoch: int, logs: Mapping[str, float], seconds: float) -> None:
        """Note an epoch."""
        self.epoch.append(epoch)
        self.seconds.append(seconds)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(float(value))

    @property
    def last(self) -> dict[str, float]:
        """Figures of the last epoch; empty before the first."""
        return {name: values[-1] for name, values in self.history.items()}

    def plot(self, names: str | Sequence[str] | None = None, ax: Any = None) -> Any:
        """Draw figures over epochs with matplotlib.

        The vertical axis is called what is drawn: ``loss`` also stands for
        ``val_loss``.

        Parameters
        ----------
        names : str or list of str, optional
            Which. Default: ``loss`` and ``val_loss``.
        ax : matplotlib.axes.Axes, optional
            Where. Default: a new figure.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ModuleNotFoundError
            If matplotlib is not installed.
        ValueError
            If there are no figures of a name.
        """
        if names is None:
            names = [name for name in ("loss", "val_loss") if name in self.history]
        names = [names] if isinstance(names, str) else names
        for name in names:
            if name not in self.history:
                known = ", ".join(self.history) or "none"
                raise ValueError(
                    f"History.plot: names must be among those noted ({known}), "
                    f"got {name!r}"
                )
        ax, new = axes_for("History.plot", ax)
        for name in names:
            # A run of one epoch is a dot.
            marker = "o" if len(self.epoch) == 1 else None
            epochs = [epoch + 1 for epoch in self.epoch]
            ax.plot(epochs, self.history[name], label=name, marker=marker)
        drawn = dict.fromkeys(name.removeprefix("val_") for name in names)
        ax.set_ylabel(", ".join(drawn))
        count_epochs(ax)
        ax.grid(alpha=0.3)
        if names:
            name_lines(ax, new)
        return ax

    def to_json(self) -> dict[str, Any]:
        """Everything, for a file. Times differ from run to run and stay out."""
        return {"epoch": self.epoch, "history": self.history}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """What `to_json` gave; its epochs took no time.

        Raises
        ------
        ValueError
            If it is something else.
        """
        check(value, _SCHEMA, "history")
        self = cls()
        n = len(value["epoch"])
        if value["epoch"] != list(range(n)):
            raise ValueError(f"history.epoch must be 0, 1, ... to {n - 1}")
        for name, values in value["history"].items():
            if not 0 < len(values) <= n:
                raise ValueError(
                    f"history.history.{name} must have a figure of each epoch, {n}, "
                    f"got {len(values)}"
                )
            self.history[name] = [float(one) for one in values]
        self.epoch = value["epoch"]
        self.seconds = [0.0] * n
        return self
