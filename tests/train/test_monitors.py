# SPDX-License-Identifier: BSD-3-Clause
"""What watches a figure: NaN is never the best, and Ctrl-C says what it kept."""

import contextlib
import math
import signal

import numpy as np
import pytest

import fastrnn
from fastrnn import metrics
from fastrnn.callbacks import Callback, EarlyStopping, ModelCheckpoint
from fastrnn.schedules import ReduceLROnPlateau
from fastrnn.train import interrupt
from fastrnn.train.monitor import is_better

NAN, INF = math.nan, math.inf
X = np.linspace(-1, 1, 8)[:, None]


def compiled(**options):
    model = fastrnn.Sequential(fastrnn.Linear(1, 1, seed=0))
    model.compile("mse", "sgd", lr=0.1, **options)
    return model


def figures(values):
    """A metric that gives these figures, epoch after epoch."""
    left = iter(values)

    class Scripted(metrics.Metric):
        name = "scripted"

        def update(self, pred, target):
            pass

        def result(self):
            return next(left)

    return Scripted()


@pytest.mark.parametrize(
    ("value", "best", "down", "up"),
    [
        (NAN, None, False, False),
        (NAN, NAN, False, False),
        (NAN, 1.0, False, False),
        (1.0, None, True, True),
        (1.0, NAN, True, True),
        (INF, NAN, True, True),
        (-INF, NAN, True, True),
        (1.0, INF, True, False),
        (1.0, -INF, False, True),
        (INF, INF, False, False),
        (1.0, 1.0, False, False),
        (0.5, 1.0, True, False),
    ],
)
def test_which_figure_is_better(value, best, down, up):
    assert is_better(value, best) is down
    assert is_better(value, best, upwards=True) is up


@pytest.mark.parametrize("restore", [True, False])
def test_early_stopping_after_a_first_nan(restore):
    kept = []

    class Keep(Callback):
        def on_epoch_end(self, epoch, logs=None):
            kept.append(self.model.flat_parameters.copy())

    stop = EarlyStopping("scripted", patience=2, restore_best_weights=restore)
    model = compiled(metrics=[figures([NAN, 3.0, NAN, 2.0, 2.5, NAN, 9.0, 9.0])])
    history = model.fit(X, X, epochs=8, callbacks=[Keep(), stop], seed=0, verbose=0)
    assert (stop.best, stop.best_epoch, stop.stopped_epoch) == (2.0, 3, 5)
    assert len(history.epoch) == 6
    np.testing.assert_array_equal(model.flat_parameters, kept[3 if restore else 5])


def test_a_first_nan_does_not_end_a_run():
    stop = EarlyStopping("scripted")
    model = compiled(metrics=[figures([NAN, 1.0, 0.5, 0.6, 0.1])])
    model.fit(X, X, epochs=5, callbacks=[stop], verbose=0)
    assert (stop.best_epoch, stop.stopped_epoch) == (2, 3)


def test_a_checkpoint_after_a_first_nan(tmp_path):
    path = tmp_path / "best{epoch}"
    watch = ModelCheckpoint(path, "scripted", save_best_only=True, mode="max")
    model = compiled(metrics=[figures([NAN, 1.0, 0.5, INF, 2.0])])
    model.fit(X, X, epochs=5, callbacks=[watch], verbose=0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best2", "best4"]


def test_a_plateau_after_a_first_nan():
    plateau = ReduceLROnPlateau("scripted", factor=0.5, patience=2)
    model = compiled(metrics=[figures([NAN, 3.0, 2.0, 1.0, 0.5])])
    model.fit(X, X, epochs=5, callbacks=[plateau], verbose=0)
    assert (plateau.best, model.optimizer.lr) == (0.5, 0.1)


# -- Ctrl-C --------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _python_handles_ctrl_c():
    """A job started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupt(Callback):
    """Ctrl-C, pressed in an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            signal.raise_signal(signal.SIGINT)


def kept(model):
    return model.flat_parameters.copy()


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_ctrl_c_says_what_it_did(verbose, capsys):
    model, best = compiled(), []

    class Worse(Callback):
        def on_epoch_end(self, epoch, logs=None):
            best.append(kept(model))
            if epoch == 1:
                model.optimizer.lr = 30.0  # what comes is worse

    history = model.fit(
        X, X, validation_data=(X, X), epochs=10, verbose=verbose, seed=0,
        callbacks=[Worse(), Interrupt(3)],
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert history.interrupted
    assert len(history.epoch) == 3
    np.testing.assert_array_equal(model.flat_parameters, best[1])
    said = "fit: stopped in epoch 4 of 10; best weights kept: those of epoch 2, val_"
    assert (said in out) == (verbose == 2)
    assert (said in err) == (verbose == 1)
    if verbose == 0:
        assert out == err == ""


def test_ctrl_c_before_there_is_a_best(capsys):
    model = compiled()
    history = model.fit(X, X, epochs=3, callbacks=[Interrupt(0)], verbose=2)
    assert history.interrupted
    assert capsys.readouterr().out == (
        "fit: stopped in epoch 1 of 3; no epoch of this run has a loss yet, so the "
        "weights are those of the last step\n"
    )


def test_the_best_weights_at_ctrl_c_are_not_those_of_a_nan():
    """The first epoch's validation is NaN: nothing of it counts."""
    weights = []
    model = fastrnn.Sequential(fastrnn.Linear(1, 1, seed=0))
    model.compile("sparse_categorical_crossentropy", "sgd", lr=0.0)
    classes = np.zeros(8, int)

    class Look(Callback):
        def on_epoch_end(self, epoch, logs=None):
            weights.append(kept(model))
            model.optimizer.lr = 0.1
            # From the second epoch on there is something to validate on.
            self.run.validation.y[:] = 0

    nothing = np.full(8, -100)
    model.fit(
        X, classes, validation_data=(X, nothing), epochs=5, verbose=0,
        callbacks=[Look(), Interrupt(2)],
    )  # fmt: skip
    assert math.isnan(model.history.history["val_loss"][0])
    np.testing.assert_array_equal(model.flat_parameters, weights[1])


def test_a_second_ctrl_c_waits_until_the_weights_are_back(monkeypatch):
    model, best, before = compiled(), [], signal.getsignal(signal.SIGINT)

    class Note(Callback):
        def on_epoch_end(self, epoch, logs=None):
            best.append(kept(model))
            model.optimizer.lr = 30.0

    plain = interrupt.once_more_later

    @contextlib.contextmanager
    def pressed_again():
        with plain():
            signal.raise_signal(signal.SIGINT)
            yield

    monkeypatch.setattr(interrupt, "once_more_later", pressed_again)
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            X, X, validation_data=(X, X), epochs=9, verbose=0,
            callbacks=[Note(), Interrupt(2)],
        )  # fmt: skip
    np.testing.assert_array_equal(model.flat_parameters, best[0])
    assert signal.getsignal(signal.SIGINT) is before
