# SPDX-License-Identifier: BSD-3-Clause
"""`Callback`, the hooks of `Model.fit`, and `Callbacks`, all of a run's as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from fastrnn.util.schema import check
from fastrnn.util.words import Answering

if TYPE_CHECKING:
    from fastrnn.train.fit import Run
    from fastrnn.train.model import Model

# What a callback is told: figures by name.
Logs: TypeAlias = dict[str, float] | None


class Callback(Answering):
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

    # Whether, of several processes that train together, the first one alone calls it:
    # as what writes a file wants. All others are called on every process.
    main_only: ClassVar[bool] = False

    if TYPE_CHECKING:  # None only before a run
        model: Model
        run: Run
    else:
        model = None
        run = None

    def _say(self, text):
        """Print, on the one process that prints."""
        if self.run.main:
            print(text)

    def _check_run(self, figures):
        """Refuse a run that would end in an error of this callback's.

        `figures` are the names that its logs will have; None where a callback of the
        user's may add some.
        """

    def on_train_begin(self, logs: Logs = None) -> None:
        """Before the first epoch of a run."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Before an epoch; the first is 0."""

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before a batch."""
        self.on_batch_begin(batch, logs)

    def on_gradients(self, batch: int) -> None:
        """After backward and before clipping: the model's gradients are the loss's."""

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After a batch, with the epoch's means so far."""
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Any = None) -> None:
        """`on_train_batch_begin`, under Keras's older name."""

    def on_batch_end(self, batch: int, logs: Any = None) -> None:
        """`on_train_batch_end`, under Keras's older name."""

    @property
    def params(self) -> dict[str, Any]:
        """Of the run, as in Keras: ``epochs``, ``steps`` and ``verbose``."""
        run: Any = self.run
        return {"epochs": run.epochs, "steps": run.steps, "verbose": run.verbose}

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """After an epoch, with its figures."""

    def on_train_end(self, logs: Logs = None) -> None:
        """After the last epoch, or after Ctrl-C."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep: a dict of numbers, strings, arrays, None.

        Its names are attributes, and the same before a run as in it.
        """
        return {}

    # What each of these must be in a file: see `fastrnn.util.schema`.
    _state_rules: ClassVar = {}

    def load_state(self, state: Mapping[str, Any]) -> None:
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


# Hooks of Keras's that stand for what does not happen here, or not so.
_NEVER_CALLED = (
    "on_test_begin",
    "on_test_end",
    "on_test_batch_begin",
    "on_test_batch_end",
    "on_predict_begin",
    "on_predict_end",
    "on_predict_batch_begin",
    "on_predict_batch_end",
    "set_model",
    "set_params",
)


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

    def __init__(self, callbacks: Callback | Iterable[Callback]) -> None:
        if isinstance(callbacks, Callback):
            callbacks = [callbacks]
        self.all = list(callbacks)
        for callback in self.all:
            if not isinstance(callback, Callback):
                raise TypeError(
                    "fit: callbacks must be objects of fastrnn.callbacks.Callback, got "
                    f"{callback!r}"
                )
            for name in _NEVER_CALLED:
                if hasattr(callback, name):
                    raise TypeError(
                        f"fit: callbacks must not have a method {name}, as "
                        f"{type(callback).__name__} has, for nobody calls it here; "
                        "on_epoch_end comes after validation, with its figures"
                    )
        self._set_called(self.all)

    def _set_called(self, callbacks):
        self.in_order = sorted(callbacks, key=lambda callback: callback.last)
        # An epoch has many batches: nobody is called for nothing.
        self._of_batch = {
            name: [c for c in self.in_order if _overrides(c, name)]
            for name in ("on_train_batch_begin", "on_gradients", "on_train_batch_end")
        }

    def attach(self, model: Any, run: Any) -> None:
        """Let all know whose run it is, and call those that this process is to."""
        for callback in self.all:
            callback.model, callback.run = model, run
        self._set_called([c for c in self.all if run.main or not c.main_only])

    def on_train_begin(self) -> None:
        for callback in self.in_order:
            callback.on_train_begin({})

    def on_epoch_begin(self, epoch: int) -> None:
        for callback in self.in_order:
            callback.on_epoch_begin(epoch, {})

    def on_train_batch_begin(self, batch: int) -> None:
        for callback in self._of_batch["on_train_batch_begin"]:
            callback.on_train_batch_begin(batch, {})

    def on_gradients(self, batch: int) -> None:
        for callback in self._of_batch["on_gradients"]:
            callback.on_gradients(batch)

    def on_train_batch_end(self, batch: int, means: Any) -> None:
        for callback in self._of_batch["on_train_batch_end"]:
            callback.on_train_batch_end(batch, means.result())

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        for callback in self.in_order:
            callback.on_epoch_end(epoch, logs)

    def on_train_end(self, logs: dict[str, float]) -> None:
        for callback in self.in_order:
            callback.on_train_end(logs)


def _overrides(callback, name):
    # An object may have functions of its own: see `LambdaCallback`.
    names = (name, name.replace("_train", ""))
    return any(
        one in vars(callback)
        or getattr(type(callback), one, None) is not getattr(Callback, one, None)
        for one in names
    )
