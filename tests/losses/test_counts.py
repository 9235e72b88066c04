# SPDX-License-Identifier: BSD-3-Clause
"""Metrics of yes and no, and accuracy of numbers: values by hand and Keras's."""

import math

import numpy as np
import pytest

import fastrnn
from fastrnn import metrics, objectives

P = np.array([[0.9], [0.8], [0.3], [0.6], [0.2]], "f")
Y = np.array([[1.0], [0.0], [1.0], [1.0], [0.0]])
BY_HAND = {"precision": 2 / 3, "recall": 2 / 3, "binary_accuracy": 3 / 5, "auc": 4 / 6}


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("batches", [1, 5])
def test_values_by_hand(name, batches):
    metric = metrics.by_name("test", name, objectives.BinaryCrossentropy(False))
    for pred, target in zip(np.split(P, batches), np.split(Y, batches), strict=True):
        metric.update(pred, target)
    assert metric.result() == pytest.approx(BY_HAND[name])
    of_logits = metrics.by_name("test", name, objectives.BinaryCrossentropy(True))
    of_logits.update(np.log(P / (1 - P)), Y[:, 0])
    assert of_logits.result() == pytest.approx(BY_HAND[name])
    metric.reset()
    nothing = math.nan if name == "binary_accuracy" else 0.0
    assert metric.result() == pytest.approx(nothing, nan_ok=True)
    # No answer is no right one, and a mask leaves rows out.
    pred = np.where(np.float32(0.8) == P, np.nan, P)
    metric.update(pred, Y)
    want = {"precision": 2 / 3, "recall": 2 / 3, "binary_accuracy": 3 / 5, "auc": 0.5}
    assert metric.result() == pytest.approx(want[name])
    metric.reset()
    metric.update(P[None], Y[None], np.array([[True] * 3 + [False] * 2]))
    want = {"precision": 0.5, "recall": 0.5, "binary_accuracy": 1 / 3, "auc": 0.5}
    assert metric.result() == pytest.approx(want[name])


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_a_threshold_is_not_above_itself(threshold):
    metric = metrics.Precision(threshold)
    metric.update(P, Y)
    above = P[:, 0] > np.float32(threshold)
    want = Y[above].mean() if above.any() else 0.0
    assert metric.result() == pytest.approx(want)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_values_of_keras(keras, rng):
    p, y = rng.uniform(size=(60, 3)).astype("f"), rng.integers(0, 2, (60, 3))
    p[:20] = np.round(p[:20], 1)  # some on a threshold
    for ours, theirs in (
        (metrics.AUC(), keras.metrics.AUC()),
        (metrics.AUC(11), keras.metrics.AUC(11)),
        (metrics.Precision(0.3), keras.metrics.Precision(0.3)),
        (metrics.Recall(thresholds=0.7), keras.metrics.Recall(thresholds=0.7)),
        (metrics.RootMeanSquaredError(), keras.metrics.RootMeanSquaredError()),
    ):
        for part in (slice(0, 25), slice(25, 60)):
            ours.update(p[part], y[part])
            theirs.update_state(y[part], p[part])
        assert ours.result() == pytest.approx(float(theirs.result()), rel=1e-5)
    for width in (1, 3):
        ours = metrics.by_name("test", "acc", objectives.MeanSquaredError())
        ours.update(p[:, :width], y[:, :width].astype("f"))
        kind = "BinaryAccuracy" if width == 1 else "CategoricalAccuracy"
        theirs = getattr(keras.metrics, kind)()
        theirs.update_state(y[:, :width], p[:, :width])
        assert ours.result() == pytest.approx(float(theirs.result()), rel=1e-6)


def test_names_stay_and_are_saved(tmp_path):
    model = fastrnn.Sequential([fastrnn.Dense(1, "sigmoid", input_shape=(2,))])
    asked = ["acc", "mean_absolute_error", "Precision", "recall", "AUC", "rmse"]
    model.compile("adam", "binary_crossentropy", metrics=asked)
    x, y = np.ones((4, 2)), [0, 1, 1, 0]
    assert [*model.fit(x, y, verbose=0).history] == ["loss", *asked, "lr"]
    model.save(tmp_path / "model")
    again = fastrnn.load_model(tmp_path / "model")
    assert again.evaluate(x, y, return_dict=True) == model.evaluate(
        x, y, return_dict=True
    )
    # What a name does not say is not saved.
    model.compile("adam", "mse", metrics=[metrics.Precision(0.7)])
    model.save(tmp_path / "model")
    assert fastrnn.load_model(tmp_path / "model").loss is None


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: metrics.Precision(2.0),
            ValueError,
            "^Precision: threshold must be a nu",
        ),
        (lambda: metrics.AUC(1), ValueError, "^AUC: num_thresholds must be at least 2"),
        (
            lambda: metrics.AUC(curve="PR"),
            TypeError,
            r"^AUC\(\) .*'curve'; it is that of",
        ),
        (
            lambda: metrics.Recall(top_k=3),
            TypeError,
            "'top_k'; all numbers of the",
        ),
    ],
)
def test_answers(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_class_indices_are_no_yes_and_no():
    model = fastrnn.Sequential([fastrnn.Dense(3)])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["precision"])
    with pytest.raises(
        ValueError, match=r"^precision: y must be 0 or 1 .*one_hot\(y\)"
    ):
        model.fit(np.ones((4, 2)), [0, 1, 2, 0], verbose=0)
