# SPDX-License-Identifier: BSD-3-Clause
"""Callbacks with Keras's words."""

import numpy as np
import pytest

import fastrnn
from fastrnn.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
)

X = np.linspace(-1, 1, 8, dtype="f")[:, None]


def compiled(lr=0.0):
    model = fastrnn.Sequential(fastrnn.Dense(1, seed=0))
    model.compile("sgd", "mse", lr=lr)
    return model


def test_what_verbose_callbacks_say(tmp_path, capsys):
    path = tmp_path / "best-{epoch:02d}-{loss:.2f}-{other}.safetensors"
    loss = f"{compiled().evaluate(X, X):.2f}"
    callbacks = [
        EarlyStopping("loss", patience=3, verbose=1, restore_best_weights=True),
        ReduceLROnPlateau(monitor="loss", patience=2, factor=0.5, verbose=True),
        ModelCheckpoint(filepath=path, monitor="loss", verbose=1, save_best_only=True),
    ]
    model = compiled(lr=1e-30)  # never better
    model.fit(X, X, epochs=9, callbacks=callbacks, shuffle=False, verbose=0)
    name = tmp_path / f"best-01-{loss}-{{other}}.safetensors"
    assert capsys.readouterr().out.splitlines() == [
        f"ModelCheckpoint: epoch 1 is in {name}",
        "ReduceLROnPlateau: the learning rate is now 5e-31",
        "EarlyStopping: epoch 4 is the last",
        "EarlyStopping: the weights are those of epoch 1",
    ]
    assert repr(fastrnn.load_model(name)) == repr(model)
    for quiet in (EarlyStopping("loss"), ReduceLROnPlateau("loss", patience=1)):
        compiled(lr=1e-30).fit(X, X, epochs=4, callbacks=quiet, verbose=0)
    assert capsys.readouterr().out == ""


def test_functions_are_called():
    seen, model = [], compiled()
    hooks = ("on_epoch_begin", "on_epoch_end", "on_train_batch_end")
    made = LambdaCallback(
        **{name: lambda i, logs, name=name: seen.append((name, i)) for name in hooks},
        on_train_begin=lambda logs: seen.append("begin"),
        on_train_end=lambda logs: seen.append(sorted(logs)),
    )
    model.fit(X, X, 4, callbacks=[made], verbose=0)
    assert seen == [
        "begin", ("on_epoch_begin", 0), ("on_train_batch_end", 0),
        ("on_train_batch_end", 1), ("on_epoch_end", 0), ["loss", "lr"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (lambda epoch: 0.1 * epoch, [0.0, 0.1, 0.2]),
        (lambda epoch, lr: lr / 2, [0.5, 0.25, 0.125]),
    ],
)
def test_a_function_sets_the_rate(schedule, rates, tmp_path):
    history = compiled(1.0).fit(
        X, X, epochs=3, callbacks=[LearningRateScheduler(schedule)], verbose=0
    )
    assert history.history["lr"] == pytest.approx(rates)
    # A run in two halves is an unbroken one.
    path = tmp_path / "run.safetensors"

    def callbacks():
        return [LearningRateScheduler(schedule), ModelCheckpoint(path, "loss")]

    compiled(1.0).fit(X, X, epochs=2, callbacks=callbacks(), verbose=0, seed=0)
    again = compiled(1.0).fit(
        X, X, epochs=3, callbacks=callbacks(), verbose=0, resume=path
    )
    assert again.history["lr"] == pytest.approx(rates)


def test_older_names_of_hooks(tmp_path):
    seen = []

    class Old(Callback):
        def on_train_begin(self, logs=None):
            seen.append(self.params)

        def on_batch_begin(self, batch, logs=None):
            seen.append(("begin", batch))

        def on_batch_end(self, batch, logs=None):
            seen.append(("end", batch, sorted(logs)))

    compiled().fit(X, X, batch_size=4, callbacks=[Old()], verbose=0)
    assert seen == [
        {"epochs": 1, "steps": 2, "verbose": 0},
        ("begin", 0), ("end", 0, ["loss"]), ("begin", 1), ("end", 1, ["loss"]),
    ]  # fmt: skip


class Tested(Callback):
    """It waits for what nobody does."""

    def on_test_end(self, logs=None):
        raise AssertionError


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: EarlyStopping(verbose=2),
            ValueError,
            "^EarlyStopping: verbose must be",
        ),
        (
            lambda: compiled().fit(X, X, callbacks=Tested()),
            TypeError,
            "^fit: callbacks must not have a method on_test_end, as Tested has, for no",
        ),
        (lambda: EarlyStopping(patients=2), TypeError, "did you mean patience"),
        (
            lambda: ModelCheckpoint("best.keras"),
            ValueError,
            "^ModelCheckpoint: path must not end in '.keras', .*load_model reads",
        ),
        (
            lambda: ModelCheckpoint("a", save_weights_only=True),
            TypeError,
            "^ModelCheckpoint.*'save_weights_only'; the whole model",
        ),
        (lambda: CSVLogger(filename="a", separator=";"), TypeError, "it is a comma"),
        (
            lambda: LambdaCallback(on_epoch_end=3),
            TypeError,
            "must be a function, got 3",
        ),
        (lambda: LearningRateScheduler(0.1), TypeError, "schedule must be a function"),
        (
            lambda: compiled().save("a.h5"),
            ValueError,
            "fastrnn.keras.load reads Keras's",
        ),
        (
            lambda: compiled().fit(
                X, X, callbacks=[LearningRateScheduler(lambda epoch: None)], verbose=0
            ),
            TypeError,
            "^LearningRateScheduler: the rate of schedule must be a number in",
        ),
    ],
)
def test_answers(make, error, message):
    with pytest.raises(error, match=message):
        make()
