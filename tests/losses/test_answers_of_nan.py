# SPDX-License-Identifier: BSD-3-Clause
"""An output that is NaN is no right answer, and a run goes on with what it had."""

import numpy as np
import pytest

import fastrnn
from fastrnn import metrics
from fastrnn.callbacks import ModelCheckpoint

X = np.random.default_rng(0).normal(size=(8, 5, 3)).astype("f")
Y = np.random.default_rng(1).normal(size=(8, 5, 2)).astype("f")


def model(**compiled):
    made = fastrnn.Sequential(fastrnn.LSTM(3, 4, seed=0), fastrnn.Linear(4, 2, seed=1))
    made.compile(**({"loss": "mse"} | compiled))
    return made


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        ("binary_crossentropy", np.zeros((8, 5, 2))),
        ("sparse_categorical_crossentropy", np.zeros((8, 5), int)),
        ("categorical_crossentropy", np.eye(2)[np.zeros((8, 5), int)]),
    ],
)
def test_nan_is_never_right(loss, y):
    made = model(loss=loss, metrics=["accuracy"])
    made.flat_parameters[...] = np.nan
    assert made.evaluate(X, y, return_dict=True)["accuracy"] == 0


def test_nan_is_not_among_the_largest():
    metric = metrics.TopK(2)
    metric.update(np.array([[np.nan, 2.0, 1.0], [3.0, 2.0, 1.0]]), [1, 1])
    assert metric.result() == 0.5


@pytest.mark.parametrize(
    ("compiled", "fitted", "message"),
    [
        ({"metrics": ["mae"]}, {}, "the figures must be .*'mae'"),
        ({}, {"validation_data": (X, Y)}, "the figures must be .*'val_loss'"),
        ({"loss": "mae"}, {}, "the loss must be mse, got mae"),
        ({}, {"epochs": 1}, "epochs must be at least those of the checkpoint, 2, got"),
    ],
)
def test_a_run_goes_on_as_it_began_or_not_at_all(tmp_path, compiled, fitted, message):
    path = tmp_path / "run"
    model().fit(X, Y, epochs=2, seed=0, verbose=0, callbacks=[ModelCheckpoint(path)])
    other = model(**compiled)
    before = other.flat_parameters.copy()
    with pytest.raises(ValueError, match=f"cannot go on from .*: {message}"):
        other.fit(
            X, Y, verbose=0, resume=path, callbacks=[ModelCheckpoint(path)],
            **{"epochs": 4, **fitted},
        )  # fmt: skip
    np.testing.assert_array_equal(other.flat_parameters, before)


def test_targets_and_metrics_that_are_none():
    with pytest.raises(TypeError, match="fit: y must be targets, got None"):
        model().fit(X, None)
    with pytest.raises(TypeError, match="evaluate: y must be targets, got None"):
        model().evaluate(X, None, return_dict=True)
    with pytest.raises(TypeError, match="metrics are set by compile"):
        model().metrics = ["mae"]
