# SPDX-License-Identifier: BSD-3-Clause
"""A step of training that fails leaves the model, not only parameters, as it was."""

import contextlib

import faults
import numpy as np
import pytest

import fastrnn

X = np.sin(np.arange(8 * 4 * 2)).reshape(8, 4, 2).astype("f")
Y = X[:, :, :1].copy()


def made():
    model = fastrnn.Sequential(
        fastrnn.GRU(2, 3, num_layers=2, dropout=0.3, stateful=True, seed=1),
        fastrnn.BatchNormalization(num_features=3),
        fastrnn.Dropout(0.2, seed=2),
        fastrnn.SpatialDropout1D(0.2, seed=3),
        fastrnn.Linear(3, 1, seed=4),
    )
    model.compile("mse", "adam", lr=0.01)
    return model.build((4, 2))


def step(model, x, y):
    model.train_on_batch(x, y)


def fit(model, x, y):
    model.fit(x, y, 8, verbose=0, shuffle=False)


def fit_in_windows(model, x, y):
    model.fit(x, y, 8, verbose=0, shuffle=False, tbptt=2)


with_nan = X.copy()
with_nan[3, 1, 0] = np.nan


@pytest.mark.parametrize("train", [step, fit, fit_in_windows])
@pytest.mark.parametrize(
    ("x", "y", "error"),
    [
        (with_nan, Y, FloatingPointError),
        (X, Y + np.inf, FloatingPointError),
        (X, np.concatenate([Y, Y], axis=-1), ValueError),
    ],
    ids=["NaN in x", "infinite targets", "targets of another shape"],
)
def test_a_step_that_fails_changes_nothing(train, x, y, error):
    model, twin = made(), made()
    for one in (model, twin):
        train(one, X, Y)
    with np.errstate(all="ignore"), pytest.raises(error):
        train(model, x, y)
    if train is not step:  # an epoch begins anew
        model.reset_states()
        twin.reset_states()
    for name, array in twin.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name], array)
    for one in (model, twin):
        step(one, X, Y)
    np.testing.assert_array_equal(model.predict(X), twin.predict(X))


def test_a_step_without_memory_changes_nothing():
    model, twin = made(), made()
    for one in (model, twin):
        step(one, X, Y)
    failures = 0
    for n in range(1, 40, 3):
        with faults.failing_allocation(n), contextlib.suppress(MemoryError):
            step(model, X, Y)
            break
        failures += 1
    else:
        step(model, X, Y)
    assert failures > 5
    step(twin, X, Y)
    np.testing.assert_array_equal(model.predict(X), twin.predict(X))
