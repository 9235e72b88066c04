# SPDX-License-Identifier: BSD-3-Clause
"""Callbacks of `Model.fit`; `fastrnn.callbacks` is their public name."""

import csv
import math
import os
from typing import ClassVar

import numpy as np

from fastrnn.nn.deferred import describe
from fastrnn.train.monitor import is_better
from fastrnn.train.resuming import save_checkpoint
from fastrnn.util import checks
from fastrnn.util.extras import pyplot
from fastrnn.util.schema import any_of, check, dict_of, integer, list_of, number


class Callback:
    """Base: does nothing.

    Attributes
    ----------
    model : Model
        Whose run it is; ``model.stop_training = True`` ends it after the epoch.
    run : Run
        With ``epochs``, ``steps`` (batches in an epoch) and ``history``.

    Examples
    --------
    >>> class Print(Callback):
    ...     def on_epoch_end(self, epoch, logs):
    ...         print(epoch, sorted(logs))
    >>> model = fastrnn.Sequential(fastrnn.Linear(None, 1, seed=0))
    >>> model.compile("mse", "sgd")
    >>> x = np.ones((4, 2))
    >>> _ = model.fit(x, x[:, :1], callbacks=[Print()], verbose=0)
    0 ['loss', 'lr']
    """

    # Whether it has to see what the others did in an epoch: a checkpoint does.
    last = False

    model = None
    run = None

    def _check_run(self, figures):
        """Refuse a run that would end in an error of this callback's.

        `figures` are the names that its logs will have; None where a callback of the
        user's may add some.
        """

    def on_train_begin(self, logs=None):
        """Before the first epoch of a run."""

    def on_epoch_begin(self, epoch, logs=None):
        """Before an epoch; the first is 0."""

    def on_train_batch_begin(self, batch, logs=None):
        """Before a batch."""

    def on_gradients(self, batch):
        """After backward and before clipping: the model's gradients are the loss's."""

    def on_train_batch_end(self, batch, logs=None):
        """After a batch, with the epoch's means so far."""

    def on_epoch_end(self, epoch, logs=None):
        """After an epoch, with its figures."""

    def on_train_end(self, logs=None):
        """After the last epoch, or after Ctrl-C."""

    def state(self):
        """What a checkpoint has to keep: a dict of numbers, strings, arrays, None.

        Its names are attributes, and the same before a run as in it.
        """
        return {}

    # What each of these must be in a file: see `fastrnn.util.schema`.
    _state_rules: ClassVar = {}

    def load_state(self, state):
        """Take back what `state` gave.

        Raises
        ------
        ValueError
            If it has names that `state` does not give: a file must not set other
            attributes, such as a path to write to. Nothing has changed then.
        """
        who, names = type(self).__name__, list(self.state())
        for name in state:
            if name not in names:
                raise ValueError(
                    f"{who}: a checkpoint must have {', '.join(names) or 'nothing'} of "
                    f"it, got {name!r}"
                )
        check(state, self._state_rules, who)
        for name, value in state.items():
            setattr(self, name, value)


class Callbacks:
    """The callbacks of a run as one.

    Parameters
    ----------
    callbacks : sequence of Callback

    Raises
    ------
    TypeError
        If one is none.
    """

    def __init__(self, callbacks):
        if isinstance(callbacks, Callback):
            callbacks = [callbacks]
        self.all = list(callbacks)
        for callback in self.all:
            if not isinstance(callback, Callback):
                raise TypeError(
                    "fit: callbacks must be objects of fastrnn.callbacks.Callback, got "
                    f"{callback!r}"
                )
        self.in_order = sorted(self.all, key=lambda callback: callback.last)
        # An epoch has many batches: nobody is called for nothing.
        self._of_batch = {
            name: [c for c in self.in_order if _overrides(c, name)]
            for name in ("on_train_batch_begin", "on_gradients", "on_train_batch_end")
        }

    def attach(self, model, run):
        """Let all know whose run it is."""
        for callback in self.all:
            callback.model, callback.run = model, run

    def on_train_begin(self):
        for callback in self.in_order:
            callback.on_train_begin({})

    def on_epoch_begin(self, epoch):
        for callback in self.in_order:
            callback.on_epoch_begin(epoch, {})

    def on_train_batch_begin(self, batch):
        for callback in self._of_batch["on_train_batch_begin"]:
            callback.on_train_batch_begin(batch, {})

    def on_gradients(self, batch):
        for callback in self._of_batch["on_gradients"]:
            callback.on_gradients(batch)

    def on_train_batch_end(self, batch, means):
        for callback in self._of_batch["on_train_batch_end"]:
            callback.on_train_batch_end(batch, means.result())

    def on_epoch_end(self, epoch, logs):
        for callback in self.in_order:
            callback.on_epoch_end(epoch, logs)

    def on_train_end(self, logs):
        for callback in self.in_order:
            callback.on_train_end(logs)


def _overrides(callback, name):
    return getattr(type(callback), name) is not getattr(Callback, name)


class _Monitor(Callback):
    """Base of those that watch one figure."""

    def __init__(self, monitor, mode, min_delta=0.0):
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


class EarlyStopping(_Monitor):
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

    Attributes
    ----------
    best, best_epoch : float, int or None
    stopped_epoch : int or None
        When it ended the run.
    """

    def __init__(
        self,
        monitor="val_loss",
        min_delta=0.0,
        patience=0,
        mode="auto",
        baseline=None,
        restore_best_weights=False,
        start_from_epoch=0,
    ):
        who = type(self).__name__
        super().__init__(monitor, mode, min_delta)
        self.patience = _not_negative(who, "patience", patience)
        if baseline is not None:
            baseline = checks.finite(who, "baseline", baseline)
        self.baseline = baseline
        self.restore_best_weights = checks.flag(
            who, "restore_best_weights", restore_best_weights
        )
        self.start_from_epoch = _not_negative(who, "start_from_epoch", start_from_epoch)
        self._reset()

    def _reset(self):
        self.best = self.best_epoch = self.stopped_epoch = self.best_weights = None
        self.wait = 0

    def on_train_begin(self, logs=None):
        if not self.run.history.epoch:
            self._reset()

    def on_epoch_end(self, epoch, logs=None):
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

    def on_train_end(self, logs=None):
        if self.best_weights is not None:
            self.model.flat_parameters[...] = self.best_weights

    _state_rules: ClassVar = {
        "best": any_of(None, number),
        "best_epoch": any_of(None, integer(0)),
        "stopped_epoch": any_of(None, integer(0)),
        "wait": integer(0),
    }

    def load_state(self, state):
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

    def state(self):
        names = ("best", "best_epoch", "stopped_epoch", "best_weights", "wait")
        return {name: getattr(self, name) for name in names}


class ModelCheckpoint(_Monitor):
    """Write the model after an epoch: `load_model` reads it, ``fit(resume=)`` goes on.

    Parameters
    ----------
    path : path-like
        ``{epoch}`` in it stands for the number of epochs done. A file that exists is
        replaced in one step.
    monitor : str
        Figure to be better in.
    save_best_only : bool
        Whether to write only after an epoch that is the best so far.
    mode : {"auto", "min", "max"}
    """

    last = True

    def __init__(self, path, monitor="val_loss", save_best_only=False, mode="auto"):
        super().__init__(monitor, mode)
        self.path = os.fspath(path)
        self.save_best_only = checks.flag(
            type(self).__name__, "save_best_only", save_best_only
        )
        self.best = None

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

    def on_train_begin(self, logs=None):
        if not self.run.history.epoch:
            self.best = None

    def on_epoch_end(self, epoch, logs=None):
        if self.save_best_only:
            value = self._value(logs)
            if not self._better(value, self.best):
                return
            self.best = value
        save_checkpoint(self.run, self.path.replace("{epoch}", str(epoch + 1)))

    _state_rules: ClassVar = {"best": any_of(None, number)}

    def state(self):
        return {"best": self.best}


class CSVLogger(Callback):
    """Write every epoch's figures as a line of a CSV file.

    Parameters
    ----------
    path : path-like
    append : bool
        Whether to go on below what the file has, as a resumed run does.
    """

    def __init__(self, path, append=False):
        self.path = os.fspath(path)
        self.append = checks.flag(type(self).__name__, "append", append)
        self._names = None

    def on_train_begin(self, logs=None):
        self._names = None
        goes_on = self.append or bool(self.run.history.epoch)
        if goes_on and os.path.exists(self.path):
            with open(self.path, newline="", encoding="utf-8") as file:
                try:
                    self._names = next(csv.reader(file), None)
                except (csv.Error, UnicodeDecodeError) as error:
                    raise ValueError(
                        f"CSVLogger: {self.path}: must be a CSV file to go on with, "
                        f"got: {error}"
                    ) from error
        else:
            with open(self.path, "w", encoding="utf-8"):
                pass  # a path that cannot be written is known before an epoch is run

    def on_epoch_end(self, epoch, logs=None):
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if self._names is None:
                self._names = ["epoch", *logs]
                writer.writerow(self._names)
            row = {"epoch": epoch + 1, **logs}
            writer.writerow([row.get(name, "") for name in self._names])


class GradientMonitor(Callback):
    """Norms of each layer's gradient, before clipping: do they vanish or explode?

    Attributes
    ----------
    mean, max : dict of str to list of float
        By layer: mean and largest norm over the batches of each epoch.
    """

    def __init__(self):
        self.mean, self.max = {}, {}
        self._sums, self._largest, self._n = {}, {}, 0

    def on_train_begin(self, logs=None):
        if not self.run.history.epoch:
            self.mean, self.max = {}, {}

    def on_epoch_begin(self, epoch, logs=None):
        self._sums, self._largest, self._n = {}, {}, 0

    def on_gradients(self, batch):
        for name, norm in layer_norms(self.model).items():
            self._sums[name] = self._sums.get(name, 0.0) + norm
            # A NaN stays, whichever comes first.
            self._largest[name] = float(np.maximum(self._largest.get(name, 0.0), norm))
        self._n += 1

    def on_epoch_end(self, epoch, logs=None):
        for name, total in self._sums.items():
            self.mean.setdefault(name, []).append(total / self._n)
            self.max.setdefault(name, []).append(self._largest[name])

    _state_rules: ClassVar = {
        "mean": dict_of(list_of(number)),
        "max": dict_of(list_of(number)),
    }

    def state(self):
        return {"mean": self.mean, "max": self.max}

    def plot(self, ax=None):
        """Draw each layer's mean norm over epochs with matplotlib.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional

        Returns
        -------
        matplotlib.axes.Axes
        """
        if ax is None:
            ax = pyplot("GradientMonitor.plot").subplots()[1]
        for name, values in self.mean.items():
            ax.plot(np.arange(len(values)) + 1, values, label=name)
        ax.set(xlabel="epoch", ylabel="norm of the gradient", yscale="log")
        ax.grid(alpha=0.3)
        ax.legend()
        return ax


def layer_norms(model):
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
    squares = {}
    stay = [p for p, leaf in model._leaves()[0] if not leaf._trainable]
    for name, grad in model.grads.items():
        if name.rpartition(".")[0] + "." * ("." in name) in stay:
            continue
        layer = name.rpartition(".")[0] or type(model).__name__
        square = float(np.sum(np.square(grad, dtype=np.float64)))
        squares[layer] = squares.get(layer, 0.0) + square
    return {layer: math.sqrt(square) for layer, square in squares.items()}


def _not_negative(who, name, value):
    value = checks.integer(who, name, value)
    if value < 0:
        raise ValueError(f"{who}: {name} must be an integer >= 0, got {value}")
    return value
