# SPDX-License-Identifier: BSD-3-Clause
"""Losses by name and metrics: values worked out by hand, gradients by differences."""

import math

import numpy as np
import pytest
from gradcheck import assert_close, central_differences
from tolerances import CENTRAL_RTOL

import fastrnn
from fastrnn import metrics, objectives

WHO = "test"


def by_hand(name, pred, target):
    """Loss of every row, in float64, from the definition."""
    if name == "sparse_categorical_crossentropy":
        rows = [
            -math.log(math.exp(row[t]) / sum(math.exp(v) for v in row))
            for row, t in zip(
                pred.reshape(-1, pred.shape[-1]), target.ravel(), strict=True
            )
        ]
        return np.reshape(rows, target.shape)
    if name == "categorical_crossentropy":
        p = np.exp(pred) / np.exp(pred).sum(-1, keepdims=True)
        return -(target * np.log(p)).sum(-1)
    if name == "binary_crossentropy":
        p = 1 / (1 + np.exp(-pred))
        return -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean(-1)
    d = pred - target
    if name == "mse":
        return (d**2).mean(-1)
    if name == "mae":
        return abs(d).mean(-1)
    if name == "mape":
        return 100 * abs(d / target).mean(-1)
    if name == "msle":
        return ((np.log1p(pred) - np.log1p(target)) ** 2).mean(-1)
    if name == "log_cosh":
        return np.log(np.cosh(d)).mean(-1)
    return np.where(abs(d) <= 1, d**2 / 2, abs(d) - 0.5).mean(-1)


def example(name, rng, shape=(4, 3, 5)):
    pred = rng.normal(size=shape) * 2
    if name == "sparse_categorical_crossentropy":
        return pred, rng.integers(shape[-1], size=shape[:-1])
    if name == "categorical_crossentropy":
        return pred, rng.dirichlet(np.ones(shape[-1]), size=shape[:-1])
    if name == "binary_crossentropy":
        return pred, rng.integers(2, size=shape).astype(float)
    if name in ("mape", "msle"):
        return abs(pred) + 0.1, rng.uniform(0.5, 2, size=shape)
    return pred, rng.normal(size=shape)


# Those of whole sequences are in test_fit_sequences.py.
NAMES = [name for name, cls in objectives.LOSSES.items() if cls.steps]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weighted", ["no", "samples", "steps"])
def test_losses(name, weighted, rng):
    loss = objectives.by_name(WHO, name)
    pred, target = example(name, rng)
    rows = by_hand(name, pred, target)
    shape = {"no": None, "samples": (4,), "steps": (4, 3)}[weighted]
    weight = None if shape is None else rng.uniform(0, 2, size=shape)
    w = np.ones(rows.shape) if weight is None else weight
    w = w[:, None] if w.ndim == 1 else w
    value, d = loss(pred, target, weight)
    # Keras: the weighted sum over the number of rows, not over the sum of weights.
    assert value == pytest.approx(np.sum(w * rows) / rows.size, rel=1e-12)

    def of(arrays):
        copies = arrays["pred"].reshape(-1, *pred.shape)
        return np.array([np.sum(w * by_hand(name, p, target)) / 12 for p in copies])

    numeric = central_differences(of, {"pred": pred}, ["pred"])["pred"]
    assert_close("dpred", d, numeric, CENTRAL_RTOL)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_one_are_no_weights(name, rng):
    loss = objectives.by_name(WHO, name)
    pred, target = example(name, rng)
    value, d = loss(pred, target)
    weighted, d_weighted = loss(pred, target, np.ones(4))
    assert value == pytest.approx(weighted, rel=1e-12)
    np.testing.assert_allclose(d, d_weighted, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_float32_stays_and_huge_outputs_give_finite_gradients(name, rng):
    loss = objectives.by_name(WHO, name)
    pred, target = example(name, rng)
    pred = (pred * 1e3).astype("f")
    for weight in (None, np.ones(4)):
        value, d = loss(pred, target, weight)
        assert d.dtype == np.float32
        assert math.isfinite(value)
        assert np.isfinite(d).all()


def test_targets_without_the_last_axis_where_it_is_one():
    loss = objectives.by_name(WHO, "mse")
    value, d = loss(np.array([[1.0], [2.0]]), [0.0, 0.0])
    assert (value, d.tolist()) == (2.5, [[1.0], [2.0]])
    sparse = objectives.by_name(WHO, "sparse_categorical_crossentropy")
    assert sparse(np.zeros((2, 4)), [[1], [2]])[0] == pytest.approx(math.log(4))


def test_ignored_targets_are_not_divided_by(rng):
    loss = objectives.by_name(WHO, "sparse_categorical_crossentropy")
    pred, target = example(loss.name, rng, (6, 5))
    target[[1, 4]] = -100
    kept = [0, 2, 3, 5]
    rows = by_hand(loss.name, pred[kept], target[kept])
    weight = rng.uniform(size=6)
    assert loss(pred, target)[0] == pytest.approx(rows.mean())
    value, d = loss(pred, target, weight)
    assert value == pytest.approx(np.sum(weight[kept] * rows) / 4)
    assert not d[[1, 4]].any()
    assert math.isnan(loss(pred, np.full(6, -100), weight)[0])


def test_what_a_loss_can_be(rng):
    assert objectives.by_name(WHO, fastrnn.mse_loss).name == "mse"
    assert objectives.by_name(WHO, fastrnn.cross_entropy).classes
    huber = objectives.Huber(delta=0.5)
    assert objectives.by_name(WHO, huber) is huber

    def half(pred, target):
        return 0.5, np.zeros_like(pred)

    custom = objectives.by_name(WHO, half)
    assert custom.name == "half"
    assert custom(np.ones(3), None)[0] == 0.5
    with pytest.raises(
        ValueError, match=r"^half: weights go with the losses that have"
    ):
        custom(np.ones(3), None, np.ones(3))
    with pytest.raises(
        ValueError, match=r"^test: loss must be one of 'mse', 'mae', 'hu"
    ):
        objectives.by_name(WHO, "hinge")
    with pytest.raises(
        TypeError, match=r"^test: loss must be a name, an object of fast"
    ):
        objectives.by_name(WHO, 3)


@pytest.mark.parametrize(
    ("name", "target", "weight", "message"),
    [
        (
            "mse",
            np.ones((2, 3)),
            None,
            r"mse: y must have the shape of the model's out",
        ),
        (
            "binary_crossentropy",
            np.full((2, 4), 2),
            None,
            r"y must be in \[0, 1\], got 2",
        ),
        (
            "sparse_categorical_crossentropy",
            [0, 4],
            np.ones(2),
            r"y must be in \[0, 4\), got 4",
        ),
        (
            "sparse_categorical_crossentropy",
            [0, 1, 2],
            None,
            r"y must have the shape of the model's output without its last axis, ",
        ),
        (
            "mae",
            np.ones((2, 4)),
            np.ones(3),
            r"sample_weight must have shape \(2,\) or",
        ),
    ],
)
def test_targets_that_do_not_fit(name, target, weight, message):
    with pytest.raises(ValueError, match=message):
        objectives.by_name(WHO, name)(np.zeros((2, 4)), np.asarray(target), weight)


# -- weights by class ----------------------------------------------------------------


def test_class_weights_by_hand():
    sparse = objectives.by_name(WHO, "sparse_categorical_crossentropy")
    y = np.array([0, 0, 0, 1, 2, 2])
    given = objectives.class_weights(WHO, {0: 0.5, 2: 3}, sparse, y)
    assert given.tolist() == [0.5, 0.5, 0.5, 1, 3, 3]
    balanced = objectives.class_weights(WHO, "balanced", sparse, y)
    assert balanced.tolist() == pytest.approx([6 / 9] * 3 + [2] + [1, 1])
    categorical = objectives.by_name(WHO, "categorical_crossentropy")
    assert objectives.class_weights(WHO, {1: 4}, categorical, np.eye(3)).tolist() == [
        1, 4, 1,
    ]  # fmt: skip
    binary = objectives.by_name(WHO, "binary_crossentropy")
    y = np.array([[0.0], [1.0]])
    assert objectives.class_weights(WHO, {1: 4}, binary, y).tolist() == [1, 4]


def test_class_weights_refuse():
    sparse = objectives.by_name(WHO, "sparse_categorical_crossentropy")
    y = np.array([0, 1])
    with pytest.raises(ValueError, match="needs a loss with classes, got 'mse'"):
        objectives.class_weights(WHO, {0: 1}, objectives.by_name(WHO, "mse"), y)
    with pytest.raises(
        ValueError, match=r"class_weight\[0\] must be a number in \[0, i"
    ):
        objectives.class_weights(WHO, {0: -1}, sparse, y)
    with pytest.raises(
        TypeError, match="must be a mapping of classes to weights or 'b"
    ):
        objectives.class_weights(WHO, [1, 2], sparse, y)
    with pytest.raises(ValueError, match="class_weight must be one of 'balanced', got"):
        objectives.class_weights(WHO, "fair", sparse, y)


# -- metrics -------------------------------------------------------------------------


def measured(metric, loss, *batches):
    metric = metrics.by_name(WHO, metric, objectives.by_name(WHO, loss))
    for pred, target in batches:
        metric.update(np.asarray(pred, float), np.asarray(target))
    return metric.result()


def test_accuracy_for_all_kinds_of_targets():
    sparse = "sparse_categorical_crossentropy"
    pred = [[0.1, 0.9], [0.8, 0.2], [0.3, 0.4]]
    assert measured("accuracy", sparse, (pred, [1, 1, 1])) == pytest.approx(2 / 3)
    assert measured("accuracy", sparse, (pred, [1, -100, 1])) == 1
    assert measured("accuracy", sparse, (pred, [1, 1, 1]), ([[1, 0]], [0])) == 0.75
    one_hot = np.eye(2)[[1, 1, 1]]
    assert measured("accuracy", "categorical_crossentropy", (pred, one_hot)) == (
        pytest.approx(2 / 3)
    )
    logits = [[-1.0], [2.0], [3.0]]
    assert measured("accuracy", "binary_crossentropy", (logits, [0, 1, 0])) == (
        pytest.approx(2 / 3)
    )


def test_top_k_perplexity_and_errors():
    sparse = "sparse_categorical_crossentropy"
    pred = [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]
    assert measured("top_2_accuracy", sparse, (pred, [1, 0])) == 0.5
    assert measured(metrics.TopK(3), sparse, (pred, [2, 0])) == 1
    assert measured("perplexity", sparse, (np.zeros((5, 7)), [0] * 5)) == (
        pytest.approx(7)
    )
    assert measured("mse", "mae", ([[1.0, 3.0]], [[0.0, 0.0]])) == 5
    assert measured("mae", "mse", ([[1.0, 3.0]], [[0.0, 0.0]])) == 2
    assert math.isnan(measured("accuracy", sparse))


def test_what_a_metric_can_be():
    def largest(pred, target):
        return pred.max()

    assert measured(largest, "mse", ([[1.0]], [[0]]), ([[4.0], [0.0]], [[0], [0]])) == 3
    loss = objectives.by_name(WHO, "mse")
    with pytest.raises(
        ValueError, match=r"^test: metrics must be one of 'accuracy', 'm"
    ):
        metrics.by_name(WHO, "f1", loss)
    with pytest.raises(
        TypeError, match=r"^test: a metric must be a name, an object of "
    ):
        metrics.by_name(WHO, 3, loss)
