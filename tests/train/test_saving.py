# SPDX-License-Identifier: BSD-3-Clause
"""Whole models in a file, and runs that go on from a checkpoint."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

import fastrnn
from fastrnn.callbacks import CSVLogger, EarlyStopping, GradientMonitor, ModelCheckpoint
from fastrnn.nn.describe import construct
from fastrnn.schedules import CosineLR, ReduceLROnPlateau, StepLR
from fastrnn.train import saving
from fastrnn.train.loading import known_layers
from fastrnn.util import container


def tagger():
    model = fastrnn.Sequential(
        fastrnn.Embedding(11, 4, seed=0),
        fastrnn.Bidirectional(fastrnn.LSTM(None, 5, seed=1), "ave"),
        fastrnn.Dropout(0.1, seed=2),
        fastrnn.Sequential(
            fastrnn.GRU(None, 6, num_layers=2, dropout=0.2, seed=3),
            fastrnn.RNN(None, 4, nonlinearity="relu", return_sequences=False, seed=4),
        ),
        fastrnn.Linear(None, 3, seed=5),
    )
    model.compile("sparse_categorical_crossentropy", "adamw", ["accuracy"], lr=0.01)
    return model


def data():
    rng = np.random.default_rng(0)
    tokens = rng.integers(11, size=(40, 7))
    return tokens, tokens[:, 3] % 3


ELSEWHERE = """
import sys, numpy as np, fastrnn
model = fastrnn.load_model(sys.argv[1])
np.save(sys.argv[2], model.predict(np.load(sys.argv[3])))
print(type(model.optimizer).__name__, model.optimizer.lr, model.loss.name,
      [metric.name for metric in model.metrics])
"""


def test_another_process_gives_the_same_bits(tmp_path):
    x, y = data()
    model = tagger()
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "model.safetensors")
    np.save(tmp_path / "x.npy", x)
    names = [str(tmp_path / name) for name in ("model.safetensors", "y.npy", "x.npy")]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *names], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("AdamW 0.01 sparse_categorical_crossentropy ['accuracy']\n")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model.predict(x))


def test_the_file_is_safetensors_with_the_parameters_names(tmp_path):
    x, y = data()
    model = tagger()
    checkpoint = ModelCheckpoint(tmp_path / "run.safetensors")
    model.fit(x, y, callbacks=[checkpoint], verbose=0)
    model.save(tmp_path / "model.safetensors")
    arrays = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert set(arrays) == set(model.parameters)
    for name in ("model", "run"):
        other = tagger().build((7,))
        other.load(tmp_path / f"{name}.safetensors")
        np.testing.assert_array_equal(other.flat_parameters, model.flat_parameters)
    fastrnn.Module.save(model, tmp_path / "plain.safetensors")
    other = tagger().build((7,))
    other.load(tmp_path / "plain.safetensors")
    np.testing.assert_array_equal(other.flat_parameters, model.flat_parameters)
    with pytest.raises(
        ValueError, match=r"plain.safetensors: must be a model saved by f"
    ):
        fastrnn.load_model(tmp_path / "plain.safetensors")


def test_compiled_or_not(tmp_path):
    path = tmp_path / "model.safetensors"
    model = fastrnn.Sequential(fastrnn.Linear(2, 1, dtype="float64"))
    model.save(path)
    again = fastrnn.load_model(path)
    assert again.loss is None
    assert again.dtype == "float64"
    model.compile(fastrnn.objectives.Huber(0.25), "sgd", lr=0.1, momentum=0.5)
    model.save(path)
    again = fastrnn.load_model(path)
    assert again.loss.delta == 0.25
    assert (again.optimizer.lr, again.optimizer.momentum) == (0.1, 0.5)
    model.compile(lambda pred, target: (0.0, pred), "sgd")
    model.save(path)
    assert fastrnn.load_model(path).loss is None
    model.compile("mse", metrics=[lambda pred, target: 1.0])
    model.save(path)
    assert fastrnn.load_model(path).loss is None


class Scale(fastrnn.Module):
    """A layer of the user's."""

    def __init__(self, factor):
        self.factor = factor

    def forward(self, x):
        return np.asarray(x) * self.factor


def test_layers_of_ones_own(tmp_path):
    path = tmp_path / "model.safetensors"
    fastrnn.Sequential(Scale(3.0)).save(path)
    with pytest.raises(
        ValueError, match=r"layer 'Scale' is not one of fastrnn's: give i"
    ):
        fastrnn.load_model(path)
    model = fastrnn.load_model(path, {"Scale": Scale})
    assert model(np.ones(2)).tolist() == [3, 3]


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    fastrnn.Sequential(fastrnn.Linear(2, 1, seed=0)).save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match="damaged: its checksum is not that of its cont"
    ):
        fastrnn.load_model(path)
    path.write_text("no model")
    with pytest.raises(
        ValueError, match="must be a model saved by fastrnn, got a file t"
    ):
        fastrnn.load_model(path)
    with pytest.raises(FileNotFoundError):
        fastrnn.load_model(tmp_path / "none")


# -- going on ------------------------------------------------------------------------


def callbacks(path, *more):
    return [
        ModelCheckpoint(path),
        ReduceLROnPlateau("val_loss", factor=0.5, patience=1),
        EarlyStopping(patience=20, restore_best_weights=True),
        GradientMonitor(),
        *more,
    ]


def train(model, path, epochs, *more, **options):
    x, y = data()
    return model.fit(
        x, y, epochs=epochs, batch_size=8, validation_split=0.25, clip_norm=0.5,
        callbacks=callbacks(path, *more), verbose=0, **options,
    )  # fmt: skip


def test_a_resumed_run_ends_with_the_bits_of_an_unbroken_one(tmp_path):
    whole, half, log = (tmp_path / name for name in ("whole", "half", "log.csv"))
    unbroken = tagger()
    expected = train(unbroken, whole, 6, CSVLogger(tmp_path / "whole.csv"), seed=4)
    train(tagger(), half, 3, CSVLogger(log), seed=4)
    resumed = tagger()
    history = train(resumed, half, 6, CSVLogger(log), resume=half)
    np.testing.assert_array_equal(resumed.flat_parameters, unbroken.flat_parameters)
    assert history.history == expected.history
    assert history.epoch == list(range(6))
    assert whole.read_bytes() == half.read_bytes()
    assert log.read_text() == (tmp_path / "whole.csv").read_text()


@pytest.mark.parametrize("schedule", [CosineLR(6), StepLR(2, 0.5)])
def test_a_schedule_goes_on(tmp_path, schedule):
    paths = [tmp_path / "a", tmp_path / "b"]
    unbroken, resumed = tagger(), tagger()
    train(unbroken, paths[0], 4, schedule, seed=1)
    train(tagger(), paths[1], 2, schedule, seed=1)
    train(resumed, paths[1], 4, schedule, resume=paths[1])
    np.testing.assert_array_equal(resumed.flat_parameters, unbroken.flat_parameters)


KILLED = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/../support"]
import test_saving
test_saving.train(test_saving.tagger(), sys.argv[2], 10**6, seed=4)
"""


def test_a_killed_run_goes_on(tmp_path):
    path = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, os.path.dirname(__file__), str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while not path.exists():
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed, unbroken = tagger(), tagger()
    _, seed_and_history = saved_run(path)
    done = len(seed_and_history["epoch"])
    train(resumed, path, done + 2, resume=path)
    train(unbroken, tmp_path / "whole", done + 2, seed=4)
    np.testing.assert_array_equal(resumed.flat_parameters, unbroken.flat_parameters)


def saved_run(path):
    run = container.read(path, saving.KIND)[1]["run"]
    return run["seed"], run["history"]


def test_what_cannot_go_on(tmp_path):
    path = tmp_path / "run"
    train(tagger(), path, 1, seed=4)
    with pytest.raises(
        ValueError, match=r"^fit: seed must be that of the run to go on w"
    ):
        train(tagger(), path, 2, seed=5, resume=path)
    with pytest.raises(
        ValueError, match=r"^fit: cannot go on from .*: callbacks must be"
    ):
        train(tagger(), path, 2, CosineLR(), resume=path)
    model, (x, y) = tagger(), data()
    with pytest.raises(ValueError, match=r": the run's options must be .*got .*tbptt'"):
        model.fit(x, y, callbacks=callbacks(path), resume=path, verbose=0)
    other = fastrnn.Sequential(fastrnn.Embedding(11, 3), fastrnn.Linear(None, 3))
    other.compile("sparse_categorical_crossentropy")
    with pytest.raises(
        ValueError, match=r"^fit: cannot go on from .*: the model must be"
    ):
        train(other, path, 2, resume=path)
    tagger().build((7,)).save(path)
    with pytest.raises(
        ValueError, match=r": to go on a run needs a checkpoint, as Model"
    ):
        train(tagger(), path, 2, resume=path)


class NoConstructor(fastrnn.Module):
    """Takes no arguments, and so has nothing to keep."""

    def forward(self, x):
        return np.asarray(x)

    def backward(self, dy):
        return dy


def test_layers_without_a_constructor_are_saved(tmp_path):
    model = fastrnn.Sequential(
        fastrnn.Linear(3, 4, seed=0), fastrnn.Concatenate(), NoConstructor()
    )
    model.save(tmp_path / "m")
    again = fastrnn.load_model(tmp_path / "m", {"NoConstructor": NoConstructor})
    x = np.ones((5, 3))
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_a_layer_used_twice_is_one_layer_after_loading(tmp_path):
    layer = fastrnn.Linear(4, 4, seed=0)
    model = fastrnn.Sequential(layer, fastrnn.Sequential(fastrnn.Dropout(0.1), layer))
    model.save(tmp_path / "m")
    again = fastrnn.load_model(tmp_path / "m")
    assert again[0] is again[1][1]
    assert list(again.parameters) == list(model.parameters)
    x = np.ones((5, 4))
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


@pytest.mark.parametrize("number", [0, 1, 7, "x"])
def test_a_layer_cannot_be_used_before_it_is_described(number):
    description = {"class": "Sequential", "arguments": {"layers": [{"again": number}]}}
    with pytest.raises(ValueError, match="described before its use"):
        construct(description, known_layers())


def test_an_activation_is_a_known_layer(tmp_path):
    model = fastrnn.Sequential(
        fastrnn.Linear(3, 2, seed=0), fastrnn.keras.Activation("tanh")
    )
    model.save(tmp_path / "m")
    x = np.ones((5, 3))
    again = fastrnn.load_model(tmp_path / "m")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
