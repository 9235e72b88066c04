# SPDX-License-Identifier: BSD-3-Clause
"""`fastrnn.sklearn`: scikit-learn's own checks, pipelines, searches."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastrnn.sklearn import RNNClassifier, RNNForecaster, RNNRegressor

QUICK = {
    "hidden_size": 8,
    "epochs": 40,
    "batch_size": 16,
    "lr": 0.02,
    "random_state": 0,
}

# What scikit-learn asks of estimators whose rows are samples of their own.
_ORDER = "a forecaster's rows are steps of one series: their order counts"
_BATCHES = "a sample of weight 2 is in one batch, two of weight 1 may be in two"


def expected_to_fail(estimator):
    if isinstance(estimator, RNNForecaster):
        return {
            "check_methods_sample_order_invariance": _ORDER,
            "check_methods_subset_invariance": _ORDER,
        }
    return {"check_sample_weight_equivalence_on_dense_data": _BATCHES}


@parametrize_with_checks(
    [RNNClassifier(**QUICK), RNNRegressor(**QUICK), RNNForecaster(window=3, **QUICK)],
    expected_failed_checks=expected_to_fail,
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def last_step(rng, n=120):
    X = rng.normal(size=(n, 6, 2))
    return X, np.where(X[:, -1, 0] > 0, "up", "down")


def test_a_classifier_of_sequences(rng):
    X, y = last_step(rng)
    classifier = RNNClassifier(cell="gru", **QUICK).fit(X, y)
    assert classifier.score(X, y) > 0.95
    p = classifier.predict_proba(X)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(
        classifier.classes_[p.argmax(1)], classifier.predict(X)
    )
    np.testing.assert_array_equal(classifier.decision_function(X) > 0, p[:, 1] > 0.5)
    again = clone(classifier).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), p)
    assert classifier.n_iter_ == len(classifier.history_["loss"]) == 40


def test_weights_and_early_stopping(rng):
    X, y = last_step(rng)
    weight = np.where(y == "up", 1.0, 0.0)
    biased = RNNClassifier(**QUICK).fit(X, y, sample_weight=weight)
    assert (biased.predict(X) == "up").all()
    stopped = RNNClassifier(
        **QUICK | {"epochs": 500}, validation_fraction=0.25, patience=3
    ).fit(X, y)
    assert stopped.n_iter_ < 500
    best = int(np.argmin(stopped.history_["val_loss"]))
    assert stopped.n_iter_ == best + 4


def test_a_regressor_scales_its_targets(rng):
    X = rng.normal(size=(150, 5, 3))
    y = np.stack([1000 + 100 * X[:, -1, 0], -7 * X[:, -1, 1]], axis=1)
    regressor = RNNRegressor(**QUICK).fit(X, y)
    assert regressor.predict(X).shape == (150, 2)
    assert regressor.score(X, y) > 0.9
    assert RNNRegressor(**QUICK).fit(X, y[:, 0]).predict(X).shape == (150,)


def test_in_a_pipeline_and_a_search(rng):
    X = rng.normal(50, 20, size=(80, 8))
    y = np.cumsum(X, axis=1)[:, -1] > 400
    pipeline = make_pipeline(StandardScaler(), RNNClassifier(**QUICK))
    search = GridSearchCV(pipeline, {"rnnclassifier__hidden_size": [2, 8]}, cv=2)
    search.fit(X, y)
    assert search.best_score_ > 0.7
    assert search.best_estimator_.predict(X).dtype == bool


def test_a_forecaster():
    wave = np.sin(0.3 * np.arange(260))[:, None]
    quick = QUICK | {"hidden_size": 16}
    forecaster = RNNForecaster(window=20, **quick).fit(wave[:200])
    assert forecaster.score(wave[200:]) > 0.8  # the first rows have no history
    ahead = forecaster.forecast(wave[:200], 30)
    assert ahead.shape == (30, 1)
    assert abs(ahead - wave[200:230]).max() < 0.3
    # The first of them is what predict says of the last row.
    one = forecaster.forecast(wave[:200], 1)
    np.testing.assert_allclose(one, forecaster.predict(wave[:200])[-1:], rtol=1e-12)
    targeted = RNNForecaster(window=3, **QUICK).fit(wave[:-1], wave[1:, 0])
    assert targeted.predict(wave).shape == (260,)
    with pytest.raises(
        ValueError, match="needs a forecaster fitted without y, on the se"
    ):
        targeted.forecast(wave, 3)


def test_a_forecasters_windows():
    X = np.arange(8.0).reshape(4, 2)
    windows = RNNForecaster(window=3)._sequences(X)
    assert windows[:, :, 0].tolist() == [[0, 0, 0], [0, 0, 2], [0, 2, 4], [2, 4, 6]]


def test_a_forecaster_in_a_search_over_time(rng):
    X = rng.normal(5, 3, size=(90, 2))
    y = np.concatenate([[0], X[:-1, 0]])  # the row before
    pipeline = make_pipeline(StandardScaler(), RNNForecaster(**QUICK))
    search = GridSearchCV(
        pipeline, {"rnnforecaster__window": [1, 3]}, cv=TimeSeriesSplit(2)
    ).fit(X, y)
    assert search.best_params_ == {"rnnforecaster__window": 3}


def test_wrong_parameters_are_named(rng):
    X, y = last_step(rng, 10)
    with pytest.raises(
        ValueError, match=r"RNNClassifier: cell must be one of 'lstm', .*'gr"
    ):
        RNNClassifier(cell="qrnn").fit(X, y)
    with pytest.raises(
        ValueError, match="RNNForecaster: window must be a positive integ"
    ):
        RNNForecaster(window=0).fit(X[:, 0])
