# SPDX-License-Identifier: BSD-3-Clause
"""Callbacks and schedules: each does what Keras's of its name does."""

import csv
import math
import sys

import numpy as np
import pytest

import fastrnn
from fastrnn.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    GradientMonitor,
    ModelCheckpoint,
    layer_norms,
)
from fastrnn.schedules import CosineLR, ReduceLROnPlateau, StepLR, WarmUp
from fastrnn.train.history import History

X = np.linspace(-1, 1, 20)[:, None]


def linear(lr=0.0, metrics=()):
    model = fastrnn.Sequential(fastrnn.Linear(1, 1, seed=0))
    model.compile("mse", "sgd", metrics, lr=lr)
    return model


class Scripted(Callback):
    """Replaces a figure by given ones, and the parameters by the epoch's number."""

    def __init__(self, name, values):
        self.name, self.values = name, values

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = self.values[epoch]
        self.model.flat_parameters[...] = epoch


def run(values, callback, name="loss"):
    model = linear(metrics=[TopOne()] if name == "val_top" else ())
    callbacks = [Scripted(name, values), callback]
    model.fit(X, X, epochs=len(values), callbacks=callbacks, seed=0, verbose=0)
    return model


class TopOne(fastrnn.metrics.Metric):
    name = "top"
    higher_is_better = True

    def values(self, pred, target):
        return np.zeros(len(pred))


def test_order_of_calls_and_arguments():
    calls = []

    class All(Callback):
        def on_train_begin(self, logs=None):
            calls.append("train begin")

        def on_epoch_begin(self, epoch, logs=None):
            calls.append(f"epoch {epoch} begin")

        def on_train_batch_begin(self, batch, logs=None):
            calls.append(f"batch {batch} begin")

        def on_gradients(self, batch):
            assert self.model.flat_grads.any()
            calls.append(f"gradients {batch}")

        def on_train_batch_end(self, batch, logs=None):
            assert set(logs) == {"loss", "mae"}
            calls.append(f"batch {batch} end")

        def on_epoch_end(self, epoch, logs=None):
            assert set(logs) == {"loss", "mae", "val_loss", "val_mae", "lr"}
            assert (self.run.epochs, self.run.steps) == (2, 2)
            calls.append(f"epoch {epoch} end")
            self.model.stop_training = True

        def on_train_end(self, logs=None):
            assert logs["val_mae"] > 0
            calls.append("train end")

    model = linear(metrics=["mae"])
    history = model.fit(
        X, 3 * X, epochs=2, batch_size=10, validation_data=(X, X), callbacks=All(),
        verbose=0,
    )  # fmt: skip
    assert calls == [
        "train begin", "epoch 0 begin",
        "batch 0 begin", "gradients 0", "batch 0 end",
        "batch 1 begin", "gradients 1", "batch 1 end",
        "epoch 0 end", "train end",
    ]  # fmt: skip
    assert history.epoch == [0]


@pytest.mark.parametrize(
    ("values", "options", "epochs", "best"),
    [
        ([3, 2, 1, 1, 1, 1], {"patience": 2}, 5, 2),
        ([3, 2, 1, 1, 1, 1], {"patience": 0}, 4, 2),
        ([3, 2, 1, 1, 0.5, 1], {"patience": 2}, 6, 4),
        ([3, 2.9, 2.8, 2.7, 2.6, 1], {"patience": 2, "min_delta": 0.5}, 3, 0),
        ([3, 2, 1, 5, 5, 5], {"patience": 2, "mode": "max"}, 3, 0),
        ([1, 2, 3, 4, 5, 6], {"patience": 1, "start_from_epoch": 3}, 5, 3),
        ([3, 3, 3, 1, 1, 1], {"patience": 2, "baseline": 2}, 2, 0),
    ],
)
def test_early_stopping(values, options, epochs, best):
    stopping = EarlyStopping("loss", restore_best_weights=True, **options)
    model = run(values, stopping)
    assert len(model.history.epoch) == epochs
    assert stopping.stopped_epoch == (None if epochs == len(values) else epochs - 1)
    assert stopping.best_epoch == best
    assert (model.flat_parameters == best).all()


def test_accuracies_go_up_and_figures_have_to_be_there():
    stopping = EarlyStopping("val_top", patience=1)
    model = run([1, 2, 3, 2, 1], stopping, "val_top")
    assert len(model.history.epoch) == 4
    with pytest.raises(
        ValueError, match=r"^EarlyStopping: monitor must be one of loss, "
    ):
        linear().fit(X, X, callbacks=[EarlyStopping()], verbose=0)
    with pytest.raises(
        ValueError, match="EarlyStopping: patience must be an integer >= 0"
    ):
        EarlyStopping(patience=-1)
    with pytest.raises(
        TypeError, match="ModelCheckpoint: monitor must be a name, got 3"
    ):
        ModelCheckpoint("x", monitor=3)


def test_checkpoints_of_every_epoch_or_the_best(tmp_path):
    run([3, 1, 2], ModelCheckpoint(tmp_path / "every-{epoch}.safetensors"))
    for epoch in range(3):
        model = fastrnn.load_model(tmp_path / f"every-{epoch + 1}.safetensors")
        assert (model.flat_parameters == epoch).all()
    best = tmp_path / "best.safetensors"
    run([3, 1, 2], ModelCheckpoint(best, monitor="loss", save_best_only=True))
    assert (fastrnn.load_model(best).flat_parameters == 1).all()


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_csv(tmp_path):
    path = tmp_path / "log.csv"
    model = linear(metrics=["mae"])
    model.fit(X, X, epochs=3, callbacks=[CSVLogger(path)], verbose=0)
    rows = rows_of(path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [float(row["mae"]) for row in rows] == model.history.history["mae"]
    model.fit(X, X, callbacks=[CSVLogger(path, append=True)], verbose=0)
    assert len(rows_of(path)) == 4
    model.fit(X, X, callbacks=[CSVLogger(path)], verbose=0)
    assert len(rows_of(path)) == 1
    with pytest.raises(FileNotFoundError):
        model.fit(X, X, callbacks=[CSVLogger(tmp_path / "none" / "log.csv")], verbose=0)


def test_gradient_monitor(rng):
    x = rng.normal(size=(20, 5, 3))
    model = fastrnn.Sequential(
        fastrnn.LSTM(None, 4, return_sequences=False, seed=0),
        fastrnn.Linear(None, 1, seed=0),
    )
    model.compile("mse", "sgd", lr=0)
    monitor, norms = GradientMonitor(), []

    class Norms(Callback):
        def on_gradients(self, batch):
            parts = self.model.grads
            whole = np.concatenate([g.ravel() for n, g in parts.items() if n[0] == "0"])
            norms.append(np.linalg.norm(whole.astype(float)))

    model.fit(
        x, x[:, 0, :1], epochs=2, batch_size=10, clip_norm=1e-9, seed=0, verbose=0,
        callbacks=[monitor, Norms()],
    )  # fmt: skip
    assert list(monitor.mean) == ["0", "1"]
    assert monitor.mean["0"] == pytest.approx(np.reshape(norms, (2, 2)).mean(1))
    assert monitor.max["0"] == pytest.approx(np.reshape(norms, (2, 2)).max(1))
    model.zero_grad()
    assert layer_norms(model) == {"0": 0.0, "1": 0.0}


# -- schedules -----------------------------------------------------------------------


class Rates(Callback):
    def on_train_begin(self, logs=None):
        self.rates = []

    def on_gradients(self, batch):
        self.rates.append(self.model.optimizer.lr)


def rates(schedule, epochs=4):
    seen = Rates()
    model = linear(lr=0.1)
    model.fit(
        X,
        X,
        epochs=epochs,
        batch_size=10,
        callbacks=[schedule, seen],
        seed=0,
        verbose=0,
    )
    return np.array(seen.rates) / 0.1


def test_steps():
    assert rates(StepLR(2, 0.5)) == pytest.approx([1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5])


def test_cosine_falls_batch_by_batch_to_the_runs_end():
    expected = [0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    assert rates(CosineLR()) == pytest.approx(expected)
    assert rates(CosineLR(epochs=1, final=0.25))[2:] == pytest.approx(0.25)


def test_warm_up_then_another():
    assert rates(WarmUp(2)) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])
    assert rates(WarmUp(1, then=StepLR(3, 0.1))) == pytest.approx(
        [0.5, 1, 1, 1, 1, 1, 0.1, 0.1]
    )
    expected = 0.5 * (1 + math.cos(math.pi / 8))
    assert rates(WarmUp(0.5, then=CosineLR()))[1] == pytest.approx(expected)
    with pytest.raises(TypeError, match="WarmUp: then must be a schedule, got 3"):
        WarmUp(1, then=3)


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([2, 1, 1, 1, 1], {"patience": 2}, [1, 1, 1, 1, 0.1]),
        ([2, 1, 1, 0.5, 1, 1], {"patience": 2}, [1] * 6),
        ([1, 1, 1, 1, 1], {"patience": 1, "factor": 0.5}, [1, 1, 0.5, 0.25, 0.125]),
        ([1] * 6, {"patience": 1, "cooldown": 2}, [1, 1, 0.1, 0.1, 0.01, 0.01]),
        ([1] * 5, {"patience": 1, "min_lr": 0.05}, [1, 1, 0.5, 0.5, 0.5]),
        ([1, 0.99, 0.98], {"patience": 1, "min_delta": 0.5}, [1, 1, 0.1]),
    ],
)
def test_plateau(values, options, expected):
    """Rates of the epochs, by hand: one is lowered after the epoch that is too many."""
    seen = Rates()
    model = linear(lr=0.1)
    plateau = ReduceLROnPlateau("loss", **options)
    model.fit(
        X, X, epochs=len(values), verbose=0,
        callbacks=[Scripted("loss", values), plateau, seen],
    )  # fmt: skip
    assert np.array(seen.rates) / 0.1 == pytest.approx(expected)


# -- plots ---------------------------------------------------------------------------


def test_plots(tmp_path):
    plt = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
    plt.switch_backend("agg")
    monitor = GradientMonitor()
    model = linear()
    history = model.fit(
        X, X, epochs=3, validation_split=0.2, callbacks=[monitor], verbose=0
    )
    axes = history.plot()
    assert [line.get_label() for line in axes.lines] == ["loss", "val_loss"]
    assert axes.lines[0].get_ydata().tolist() == history.history["loss"]
    assert history.plot(["lr"], ax=plt.subplots()[1]).lines[0].get_label() == "lr"
    assert len(monitor.plot().lines) == 1
    with pytest.raises(
        ValueError, match=r"^History.plot: names must be among those noted"
    ):
        history.plot(["accuracy"])
    plt.close("all")


@pytest.mark.parametrize("epochs", [1, 2, 3, 7])
def test_pictures_of_epochs_say_what_their_axes_are(epochs):
    plt = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
    plt.switch_backend("agg")
    history, monitor = History(), GradientMonitor()
    for epoch in range(epochs):
        history.add(epoch, {"loss": 2.0, "val_loss": 3.0, "mae": 1.0}, 0.1)
    monitor.mean = {"0": [1.0] * epochs, "1": [0.1] * epochs}
    for axes in (history.plot(), history.plot(["mae", "loss"]), monitor.plot()):
        axes.figure.canvas.draw()
        ticks = axes.get_xticks()
        assert (ticks == ticks.round()).all()  # no epoch 1.2
        assert axes.get_xlabel() == "epoch"
        # Beside the lines, and inside the picture.
        box = axes.get_legend().get_window_extent()
        assert box.x0 >= axes.get_window_extent().x1
        assert box.x1 <= axes.figure.bbox.x1
        for line in axes.lines:
            assert (line.get_marker() == "o") == (epochs == 1)
    assert history.plot().get_ylabel() == "loss"
    assert history.plot(["mae", "val_loss", "loss"]).get_ylabel() == "mae, loss"
    assert "norm" in monitor.plot().get_ylabel()
    mine = plt.subplots()[1]
    assert history.plot(ax=mine) is mine  # whose legend stays inside: room is theirs
    mine.figure.canvas.draw()
    inside = mine.get_legend().get_window_extent()
    assert inside.x1 <= mine.get_window_extent().x1
    plt.close("all")


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    message = r"^History.plot: needs the package matplotlib, which is not installed"
    with pytest.raises(ModuleNotFoundError, match=message):
        History().plot()
