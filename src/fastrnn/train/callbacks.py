# SPDX-License-Identifier: BSD-3-Clause
"""Callbacks of `Model.fit`; `fastrnn.callbacks` is their public name.

`fastrnn.train.hooks` has their base, with all hooks and when they are called.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any, ClassVar, overload

import numpy as np

from fastrnn.nn.describe import describe
from fastrnn.nn.module import Module
from fastrnn.train import csv_log
from fastrnn.train.hooks import Callback, Logs
from fastrnn.train.monitor import Monitor
from fastrnn.train.resuming import save_checkpoint
from fastrnn.train.saving import check_path
from fastrnn.util import checks
from fastrnn.util.pictures import axes_for, count_epochs, name_lines
from fastrnn.util.schema import any_of, dict_of, integer, list_of, number
from fastrnn.util.typing import PathLike


class EarlyStopping(Monitor):
    """End the run when a figure has not become better for some epochs.

    A figure that is NaN is no progress, and any number after it is.

    Parameters
    ----------
    monitor : str
        Name of the figure.
    min_delta : float
        What counts as better: by more than this.
    patience : int >= 0
        Epochs without becoming better that are waited for.
    mode : {"auto", "min", "max"}
        Which way is better; auto: up for accuracies, down for the rest.
    baseline : float, optional
        What is not better than this counts as no progress.
    restore_best_weights : bool
        Whether the model ends with the parameters of its best epoch.
    start_from_epoch : int >= 0
        Epochs before are not looked at.
    verbose : {0, 1}
        1 prints when it ends the run, and whose weights the model has.

    Attributes
    ----------
    best, best_epoch : float, int or None
    stopped_epoch : int or None
        When it ended the run.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
        *,
        verbose: int | bool = 0,
    ) -> None:
        who = type(self).__name__
        super().__init__(monitor, mode, min_delta)
        self.verbose = checks.verbosity(who, verbose)
        self.patience = checks.not_negative(who, "patience", patience)
        if baseline is not None:
            baseline = checks.finite(who, "baseline", baseline)
        self.baseline = baseline
        self.restore_best_weights = checks.flag(
            who, "restore_best_weights", restore_best_weights
        )
        self.start_from_epoch = checks.not_negative(
            who, "start_from_epoch", start_from_epoch
        )
        self._reset()

    def _reset(self):
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.stopped_epoch: int | None = None
        self.best_weights: Any = None
        self.wait = 0

    def on_train_begin(self, logs: Logs = None) -> None:
        if not self.run.history.epoch:
            self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        value = self._value(logs)
        if epoch < self.start_from_epoch:
            return
        self.wait += 1
        if self._better(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.flat_parameters.copy()
            if self.baseline is None or self._better(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > self.start_from_epoch:
            # Never the first epoch, whose figure may be NaN: as in Keras.
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs = None) -> None:
        who = type(self).__name__
        if self.stopped_epoch is not None and self.verbose:
            self._say(f"{who}: epoch {self.stopped_epoch + 1} is the last")
        if self.best_weights is not None:
            self.model.flat_parameters[...] = self.best_weights
            if self.verbose:
                epoch = self.best_epoch + 1
                self._say(f"{who}: the weights are those of epoch {epoch}")

    _state_rules: ClassVar = {
        "best": any_of(None, number),
        "best_epoch": any_of(None, integer(0)),
        "stopped_epoch": any_of(None, integer(0)),
        "wait": integer(0),
    }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        weights, wanted = state.get("best_weights"), self.model.flat_parameters
        if weights is not None and (
            not isinstance(weights, np.ndarray)
            or (weights.shape, weights.dtype) != (wanted.shape, wanted.dtype)
        ):
            raise ValueError(
                f"{type(self).__name__}: best_weights must be {wanted.dtype} of shape "
                f"{wanted.shape}"
            )
        super().load_state(state)

    def state(self) -> dict[str, Any]:
        names = ("best", "best_epoch", "stopped_epoch", "best_weights", "wait")
        return {name: getattr(self, name) for name in names}


_FIELD = re.compile(r"\{(\w+)(:[^{}]*)?\}")


def _filled(path, values):
    """A path with values in place of their names; other names stay as they are."""

    def value(found):
        if found[1] not in values:
            return found[0]
        return format(values[found[1]], (found[2] or ":")[1:])

    return _FIELD.sub(value, path)


class ModelCheckpoint(Monitor):
    """Write the model after an epoch: `load_model` reads it, ``fit(resume=)`` goes on.

    Parameters
    ----------
    path : path-like
        ``{epoch}`` in it stands for the number of epochs done, and the name of a figure
        for its value: ``"{epoch:02d}-{val_loss:.3f}.safetensors"``. A file that exists
        is replaced in one step.
    monitor : str
        Figure to be better in.
    save_best_only : bool
        Whether to write only after an epoch that is the best so far.
    mode : {"auto", "min", "max"}
    verbose : {0, 1}
        1 prints when it writes.
    """

    last = True
    main_only = True

    @overload
    def __init__(
        self,
        path: PathLike,
        monitor: str = ...,
        save_best_only: bool = ...,
        mode: str = ...,
        *,
        verbose: int | bool = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        *,
        filepath: PathLike,
        monitor: str = ...,
        save_best_only: bool = ...,
        mode: str = ...,
        verbose: int | bool = ...,
    ) -> None: ...
    def __init__(
        self,
        path: PathLike,
        monitor: str = "val_loss",
        save_best_only: bool = False,
        mode: str = "auto",
        *,
        verbose: int | bool = 0,
    ) -> None:
        super().__init__(monitor, mode)
        self.path = os.fspath(path)
        check_path(type(self).__name__, self.path)
        self.verbose = checks.verbosity(type(self).__name__, verbose)
        self.save_best_only = checks.flag(
            type(self).__name__, "save_best_only", save_best_only
        )
        self.best: float | None = None

    def _check_run(self, figures):
        if self.save_best_only:
            super()._check_run(figures)
        describe(self.model)  # raises where a layer cannot be written
        folder = os.path.dirname(self.path) or os.curdir
        if "{epoch}" not in folder and not os.path.isdir(folder):
            raise ValueError(
                f"{type(self).__name__}: path must be in a folder that exists, got "
                f"{self.path!r}"
            )

    def on_train_begin(self, logs: Logs = None) -> None:
        if not self.run.history.epoch:
            self.best = None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self.save_best_only:
            value = self._value(logs)
            if not self._better(value, self.best):
                return
            self.best = value
        path = _filled(self.path, {**logs, "epoch": epoch + 1})
        save_checkpoint(self.run, path)
        if self.verbose:
            self._say(f"{type(self).__name__}: epoch {epoch + 1} is in {path}")

    _state_rules: ClassVar = {"best": any_of(None, number)}

    def state(self) -> dict[str, Any]:
        return {"best": self.best}


class CSVLogger(Callback):
    """Write every epoch's figures as a line of a CSV file.

    Parameters
    ----------
    path : path-like
    append : bool
        Whether to go on below what the file has, as a resumed run does. That one takes
        the lines of epochs that it runs again out of the file first: a run that was
        killed may have written them after its last checkpoint.
    """

    main_only = True

    @overload
    def __init__(self, path: PathLike, append: bool = ...) -> None: ...
    @overload
    def __init__(self, *, filename: PathLike, append: bool = ...) -> None: ...
    def __init__(self, path: PathLike, append: bool = False) -> None:
        self.path = os.fspath(path)
        self.append = checks.flag(type(self).__name__, "append", append)
        self._names = None

    def on_train_begin(self, logs: Logs = None) -> None:
        done = len(self.run.history.epoch)
        if (self.append or done) and os.path.exists(self.path):
            self._names = csv_log.go_on(self.path, done or None)
        else:
            csv_log.begin(self.path)
            self._names = None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self._names is None:
            names = [csv_log.EPOCH, *logs]
            csv_log.add_line(self.path, names)
            self._names = names
        row = {csv_log.EPOCH: epoch + 1, **logs}
        csv_log.add_line(self.path, [row.get(name, "") for name in self._names])


class GradientMonitor(Callback):
    """Norms of each layer's gradient, before clipping: do they vanish or explode?

    Attributes
    ----------
    mean, max : dict of str to list of float
        By layer: mean and largest norm over the batches of each epoch.
    """

    def __init__(self) -> None:
        self.mean: dict[str, list[float]] = {}
        self.max: dict[str, list[float]] = {}
        self._sums, self._largest, self._n = {}, {}, 0

    def on_train_begin(self, logs: Logs = None) -> None:
        if not self.run.history.epoch:
            self.mean, self.max = {}, {}

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._sums, self._largest, self._n = {}, {}, 0

    def on_gradients(self, batch: int) -> None:
        for name, norm in layer_norms(self.model).items():
            self._sums[name] = self._sums.get(name, 0.0) + norm
            # A NaN stays, whichever comes first.
            self._largest[name] = float(np.maximum(self._largest.get(name, 0.0), norm))
        self._n += 1

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        for name, total in self._sums.items():
            self.mean.setdefault(name, []).append(total / self._n)
            self.max.setdefault(name, []).append(self._largest[name])

    _state_rules: ClassVar = {
        "mean": dict_of(list_of(number)),
        "max": dict_of(list_of(number)),
    }

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean, "max": self.max}

    def plot(self, ax: Any = None) -> Any:
        """Draw each layer's mean norm over epochs with matplotlib.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional

        Returns
        -------
        matplotlib.axes.Axes
        """
        ax, new = axes_for("GradientMonitor.plot", ax)
        for name, values in self.mean.items():
            marker = "o" if len(values) == 1 else None
            ax.plot(np.arange(len(values)) + 1, values, label=name, marker=marker)
        ax.set(ylabel="norm of the gradient, mean of the batches", yscale="log")
        count_epochs(ax)
        ax.grid(alpha=0.3)
        name_lines(ax, new, "layer")
        return ax


def layer_norms(model: Module) -> dict[str, float]:
    """Norm of the gradient of each layer that is trained, by the layer's name.

    Parameters
    ----------
    model : Module

    Returns
    -------
    dict of str to float

    Examples
    --------
    >>> model = fastrnn.Sequential(fastrnn.Linear(1, 1, seed=0))
    >>> model.flat_grads[:] = 3, 4
    >>> layer_norms(model)
    {'0': 5.0}
    """
    if not isinstance(model, Module):
        raise TypeError(
            f"layer_norms: model must be a Module, got {type(model).__name__}"
        )
    squares = {}
    stay = [p for p, leaf in model._leaves()[0] if not leaf._trainable]
    for name, grad in model.grads.items():
        if name.rpartition(".")[0] + "." * ("." in name) in stay:
            continue
        layer = name.rpartition(".")[0] or type(model).__name__
        square = float(np.sum(np.square(grad, dtype=np.float64)))
        squares[layer] = squares.get(layer, 0.0) + square
    return {layer: math.sqrt(square) for layer, square in squares.items()}
