# SPDX-License-Identifier: BSD-3-Clause
"""Estimators of scikit-learn: `RNNClassifier`, `RNNRegressor`, `RNNForecaster`.

They need scikit-learn: ``pip install 'fastrnn[data]'``.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from fastrnn.util.typing import Array

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import (
        _check_sample_weight,
        check_is_fitted,
        check_random_state,
        validate_data,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "fastrnn.sklearn needs scikit-learn, which is not installed: "
        "pip install 'fastrnn[data]'",
        name=error.name,
    ) from error

from fastrnn.nn.layers import Linear
from fastrnn.recurrent import table
from fastrnn.train.callbacks import EarlyStopping
from fastrnn.train.sequential import Sequential
from fastrnn.util import checks, tables

__all__ = ["RNNClassifier", "RNNForecaster", "RNNRegressor"]

CELLS = table.classes()

_PARAMETERS = """
    Parameters
    ----------
    cell : {"lstm", "gru", "rnn"} or another
        The kind of the recurrent layers: the name of their class in lower case.
    hidden_size, num_layers : int
        The number of units of each layer, and the number of layers.
    bidirectional : bool
        Whether the layers run in both directions.
    dropout : float in [0, 1]
        The probability of dropout between layers.
    epochs, batch_size : int
    lr : float
        The learning rate of Adam.
    clip_norm : float or None
        Gradients with a larger norm are scaled down to this norm.
    validation_fraction : float in [0, 1)
        The share of the samples, taken from the end, that is not trained on: the loss
        of these samples is watched.
    patience : int or None
        Training ends when the watched loss has not improved for so many epochs, and the
        best parameters are kept. Without `validation_fraction`, the loss of training is
        watched. None: training never ends early.
    verbose : {0, 1, 2}
        As in `Model.fit`.
    random_state : int, RandomState or None
        The source of the initial weights and of the order of the samples.
"""


def _refuse_masked(estimator, X, y=None, sample_weight=None):
    """Raise for masked arrays, whose masks scikit-learn's checks would drop."""
    for name, value in (("X", X), ("y", y), ("sample_weight", sample_weight)):
        tables.refuse_masked(type(estimator).__name__, name, value)


class _RNN(BaseEstimator):
    """What the estimators have in common."""

    def __init__(
        self,
        cell: str = "lstm",
        hidden_size: int = 32,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        epochs: int = 100,
        batch_size: int = 32,
        lr: float = 1e-2,
        clip_norm: float | None = 1.0,
        validation_fraction: float = 0.0,
        patience: int | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.clip_norm = clip_norm
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.verbose = verbose
        self.random_state = random_state

    def _sequences(self, X):
        """The sequences (N, T, F) of an X that scikit-learn has checked."""
        return X[..., None] if X.ndim == 2 else X

    def _train(self, x, y, outputs, loss, sample_weight=None):
        """Build a model with so many outputs, and train it on sequences x."""
        who = type(self).__name__
        cell = CELLS[checks.choice(who, "cell", self.cell, tuple(CELLS))]
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        rng = np.random.default_rng(seed)
        recurrent = cell(
            None, self.hidden_size, self.num_layers, dropout=self.dropout,
            bidirectional=self.bidirectional, return_sequences=False, seed=rng,
        )  # fmt: skip
        self.model_ = Sequential(recurrent, Linear(None, outputs, seed=rng))
        self.model_.compile(loss, "adam", lr=self.lr)
        callbacks = []
        if self.patience is not None:
            watched = "val_loss" if self.validation_fraction else "loss"
            callbacks.append(
                EarlyStopping(
                    watched, patience=self.patience, restore_best_weights=True
                )
            )
        history = self.model_.fit(
            x, y, epochs=self.epochs, batch_size=self.batch_size,
            validation_split=self.validation_fraction, callbacks=callbacks,
            sample_weight=sample_weight, clip_norm=self.clip_norm,
            verbose=self.verbose, seed=seed,
        )  # fmt: skip
        self.history_ = history.history
        self.n_iter_ = len(history.epoch)
        return self

    def _outputs(self, X):
        """The outputs (N, K) of the trained model for X."""
        check_is_fitted(self)
        _refuse_masked(self, X)
        X = validate_data(self, X, reset=False, allow_nd=True, dtype=np.float32)
        return self.model_.predict(self._sequences(X), batch_size=256)


class RNNClassifier(ClassifierMixin, _RNN):
    __doc__ = f"""Recurrent network that assigns a class to each sequence.

    A row of a two-dimensional X is a sequence whose steps have one feature each. A
    three-dimensional X is (samples, steps, features).
{_PARAMETERS}
    Attributes
    ----------
    classes_ : ndarray
    model_ : Sequential
    history_ : dict of str to list of float

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 10, 2))
    >>> y = np.where(X[:, -1, 0] > 0, "up", "down")
    >>> classifier = RNNClassifier(hidden_size=8, epochs=30, random_state=0).fit(X, y)
    >>> classifier.classes_.tolist(), classifier.score(X, y) > 0.9
    (['down', 'up'], True)
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        X : array_like, shape (N, T) or (N, T, F)
        y : array_like, shape (N,)
            The class of each sequence, a number or a string.
        sample_weight : array_like, shape (N,), optional

        Returns
        -------
        RNNClassifier
        """
        _refuse_masked(self, X, y, sample_weight)
        X, y = validate_data(self, X, y, allow_nd=True, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                "RNNClassifier.fit: y must have at least 2 classes, got 1 class: "
                f"{self.classes_[0]!r}"
            )
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        x, loss = self._sequences(X), "sparse_categorical_crossentropy"
        return self._train(x, numbers, len(self.classes_), loss, sample_weight)

    def decision_function(self, X: Any) -> Array:
        """Logits (N, classes); of two classes, the second less the first logit (N,)."""
        logits = self._outputs(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, (N, classes)."""
        logits = self._outputs(X).astype(np.float64)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> Array:
        """The most probable class of each sequence, (N,)."""
        best = self._outputs(X).argmax(axis=1)
        return self.classes_[best]


class _ScaledTargets:
    """Scales targets to mean 0 and standard deviation 1, and outputs back."""

    def _scaled(self, y):
        y = np.asarray(y, np.float64)
        self._y_ndim = y.ndim
        y = y[:, None] if y.ndim == 1 else y
        self.y_mean_, spread = y.mean(axis=0), y.std(axis=0)
        self.y_scale_ = np.where(spread > 0, spread, 1.0)
        return (y - self.y_mean_) / self.y_scale_

    def _unscaled(self, outputs):
        y = outputs * self.y_scale_ + self.y_mean_
        return y[:, 0] if self._y_ndim == 1 else y


class RNNRegressor(RegressorMixin, _ScaledTargets, _RNN):
    __doc__ = f"""Recurrent network that predicts one or several numbers of a sequence.

    A row of a two-dimensional X is a sequence whose steps have one feature each. A
    three-dimensional X is (samples, steps, features). The estimator scales the targets
    itself.
{_PARAMETERS}
    Attributes
    ----------
    model_ : Sequential
    history_ : dict of str to list of float

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(200, 10))
    >>> y = 5 + X[:, -1]
    >>> regressor = RNNRegressor(hidden_size=8, epochs=30, random_state=0).fit(X, y)
    >>> regressor.score(X, y) > 0.9
    True
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        X : array_like, shape (N, T) or (N, T, F)
        y : array_like, shape (N,) or (N, K)
        sample_weight : array_like, shape (N,), optional

        Returns
        -------
        RNNRegressor
        """
        _refuse_masked(self, X, y, sample_weight)
        X, y = validate_data(
            self,
            X,
            y,
            allow_nd=True,
            dtype=np.float32,
            multi_output=True,
            y_numeric=True,
        )
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        y = self._scaled(y)
        return self._train(self._sequences(X), y, y.shape[1], "mse", sample_weight)

    def predict(self, X: Any) -> Array:
        """The predicted numbers of each sequence, (N,) or (N, K)."""
        outputs = self._outputs(X)
        return self._unscaled(outputs)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class RNNForecaster(RegressorMixin, _ScaledTargets, _RNN):
    __doc__ = f"""Recurrent network over a time series, whose rows are steps in time.

    For each row the network reads the last `window` rows, that row included, and
    predicts the target of that row, or, without targets, the next row. Rows before the
    first are taken to be equal to the first. The estimator scales the targets itself,
    but not X.

    Parameters
    ----------
    window : int
        The number of rows that the network reads for a prediction.
{_PARAMETERS.split("----------", 1)[1]}
    Attributes
    ----------
    model_ : Sequential
    history_ : dict of str to list of float

    Examples
    --------
    >>> wave = np.sin(0.3 * np.arange(400))[:, None]
    >>> model = RNNForecaster(window=20, hidden_size=16, epochs=20, random_state=0)
    >>> ahead = model.fit(wave[:300]).forecast(wave[:300], steps=20)
    >>> ahead.shape
    (20, 1)
    >>> bool(abs(ahead - wave[300:320]).max() < 0.2)
    True
    """

    def __init__(
        self,
        window: int = 24,
        cell: str = "lstm",
        hidden_size: int = 32,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        epochs: int = 100,
        batch_size: int = 32,
        lr: float = 1e-2,
        clip_norm: float | None = 1.0,
        validation_fraction: float = 0.0,
        patience: int | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            cell, hidden_size, num_layers, bidirectional, dropout, epochs, batch_size,
            lr, clip_norm, validation_fraction, patience, verbose, random_state,
        )  # fmt: skip
        self.window = window

    def _sequences(self, X):
        window = checks.positive_int(type(self).__name__, "window", self.window)
        padded = np.concatenate([np.repeat(X[:1], window - 1, axis=0), X])
        view = np.lib.stride_tricks.sliding_window_view(padded, window, axis=0)
        return np.moveaxis(view, -1, 1)

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        X : array_like, shape (T, F)
            The series, earliest row first.
        y : array_like, shape (T,) or (T, K), optional
            The target of each row. Default: the next row of X.

        Returns
        -------
        RNNForecaster
        """
        _refuse_masked(self, X, y)
        if y is None:
            X = validate_data(self, X, dtype=np.float32, ensure_min_samples=2)
            x, y = self._sequences(X)[:-1], X[1:]
            self._of_itself = True
        else:
            X, y = validate_data(
                self, X, y, dtype=np.float32, multi_output=True, y_numeric=True
            )
            x, self._of_itself = self._sequences(X), False
        y = self._scaled(y)
        return self._train(x, y, y.shape[1], "mse")

    def predict(self, X: Any) -> Array:
        """The predicted target of each row, (T,) or (T, K), or the row after each."""
        outputs = self._outputs(X)
        return self._unscaled(outputs)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The R squared of `predict` for the targets, or for the row after each row."""
        if y is None:
            X, y = X[:-1], np.asarray(X)[1:]
        return super().score(X, y, sample_weight)

    def forecast(self, X: Any, steps: int) -> Array:
        """Predict the rows after the last row of X.

        Each predicted row is then read as a row of the series to predict the next one.

        Parameters
        ----------
        X : array_like, shape (T, F)
            The series so far.
        steps : int
            The number of rows to predict.

        Returns
        -------
        ndarray, shape (steps, F)

        Raises
        ------
        ValueError
            If the forecaster was fitted with targets: it then predicts targets and no
            rows of X.
        """
        who = f"{type(self).__name__}.forecast"
        check_is_fitted(self)
        steps = checks.positive_int(who, "steps", steps)
        if not self._of_itself:
            raise ValueError(
                f"{who}: needs a forecaster fitted without y, on the series itself"
            )
        _refuse_masked(self, X)
        X = validate_data(self, X, reset=False, dtype=np.float32)
        rows = list(X[-self.window :])
        for _ in range(steps):
            seen = self._sequences(np.array(rows[-self.window :], np.float32))
            rows.append(self._unscaled(self.model_.predict(seen[-1:]))[0])
        return np.array(rows[-steps:])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.required = False
        return tags
