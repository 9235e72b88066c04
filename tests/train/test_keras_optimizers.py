# SPDX-License-Identifier: BSD-3-Clause
"""Optimisers made as in Keras, without a model, and `compile` in Keras's words."""

import copy
import pickle

import numpy as np
import pytest

import fastrnn

X = np.linspace(-1, 1, 24, dtype="f").reshape(8, 3)


def trained(*args, **kwargs):
    model = fastrnn.Sequential(fastrnn.Dense(1, seed=0))
    model.compile(*args, **kwargs)
    model.fit(X, X[:, :1], epochs=2, seed=0, verbose=0)
    return model


@pytest.mark.parametrize(
    ("keras", "ours"),
    [
        (fastrnn.Adam(0.01), ("adam", {"lr": 0.01, "eps": 1e-7})),
        (
            fastrnn.Adam(learning_rate=0.01, beta_1=0.8, epsilon=1e-4),
            ("adam", {"lr": 0.01, "betas": (0.8, 0.999), "eps": 1e-4}),
        ),
        (fastrnn.Adam(), ("adam", {"eps": 1e-7})),
        (fastrnn.SGD(momentum=0.9), ("sgd", {"lr": 0.01, "momentum": 0.9})),
        (
            fastrnn.RMSprop(rho=0.8),
            ("rmsprop", {"lr": 1e-3, "alpha": 0.8, "eps": 1e-7}),
        ),
        (
            fastrnn.Adagrad(),
            ("adagrad", {"lr": 1e-3, "initial_accumulator_value": 0.1, "eps": 1e-7}),
        ),
        (
            fastrnn.AdamW(clipnorm=None),
            ("adamw", {"eps": 1e-7, "weight_decay": 0.004}),
        ),
    ],
    ids=lambda one: type(one).__name__,
)
@pytest.mark.parametrize("built", [False, True])
def test_an_optimizer_without_a_model_has_kerass_defaults(keras, ours, built):
    optimizer = copy.deepcopy(keras)
    model = fastrnn.Sequential(fastrnn.Dense(1, seed=0))
    if built:
        model.build((3,))
    model.compile(optimizer=optimizer, loss="mse")
    model.fit(X, X[:, :1], epochs=2, seed=0, verbose=0)
    assert model.optimizer is optimizer
    assert optimizer.model is model
    name, options = ours
    want = trained("mse", name, **options)
    np.testing.assert_array_equal(model.flat_parameters, want.flat_parameters)
    assert repr(optimizer) == repr(want.optimizer)


def test_defaults_with_a_model_stay_pytorchs():
    layer = fastrnn.Linear(1, 1)
    assert fastrnn.RMSprop(layer).lr == 1e-2
    assert fastrnn.Adam(layer).eps == 1e-8


def test_an_optimizer_is_ones_own():
    optimizer = fastrnn.Adam(0.01)
    trained("mse", optimizer)
    with pytest.raises(ValueError, match="an optimizer must be one made for this mod"):
        trained("mse", optimizer)
    with pytest.raises(AttributeError, match="model is what the object was made with"):
        optimizer.model = fastrnn.Linear(1, 1)
    fresh = fastrnn.Adam(0.01)
    fresh.learning_rate = 0.5
    assert fresh.lr == fresh.learning_rate == 0.5
    for what in ("step", "zero_grad", "state_dict"):
        with pytest.raises(RuntimeError, match=rf"^Adam.{what}: the optimiser must ha"):
            getattr(fresh, what)()
    again = pickle.loads(pickle.dumps(fresh))
    assert repr(again) == repr(fresh)
    both = copy.deepcopy(trained("mse", fresh))
    assert both.optimizer.model is both


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: fastrnn.Adam(weight_decay=0.1),
            "^Adam: weight_decay must not .* AdamW",
        ),
        (lambda: fastrnn.Adam(clipnorm=1.0), r"'clipnorm'; fit\(clip_norm=\) scales"),
        (lambda: fastrnn.SGD(decay=1e-6), "'decay'; a schedule of fastrnn.schedules"),
        (lambda: fastrnn.SGD(0.1, 0.9), "^SGD: arguments after .* by name, got 0.9"),
        (
            lambda: fastrnn.SGD(nesterv=True),
            r"^SGD\(\) has no .*; did you mean nesterov",
        ),
        (lambda: fastrnn.Adam("model"), "^Adam: model must be a Module, got str"),
        (lambda: fastrnn.Adam(lr=1.0, learning_rate=2.0), "got 'lr' also as 'learning"),
        (lambda: trained("mse", loss="mae"), "multiple values for argument 'loss'"),
        (lambda: trained("adam", optimizer="sgd"), "^compile.* 'optimizer' more than"),
        (
            lambda: trained("mse", "adam", metric=["mae"]),
            "'metric'; did you mean metri",
        ),
        (
            lambda: trained("mse", loss_weights=[1.0]),
            "^compile.*; a model has one loss",
        ),
        (
            lambda: trained("mse", "sgd", rho=0.9),
            "no argument 'rho'; it takes loss, opt",
        ),
    ],
)
def test_answers(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_compile_takes_both_orders_and_kerass_words():
    want = trained("mse", "adam", lr=0.01).flat_parameters
    for args, kwargs in (
        (("adam", "mse"), {"lr": 0.01}),
        (("Adam", "mean_squared_error", None, ["mae"]), {"learning_rate": 0.01}),
        ((), {"optimizer": "adam", "loss": "MSE", "learning_rate": 0.01}),
        (("adam",), {"loss": "mse", "lr": 0.01, "metrics": None, "run_eagerly": False}),
        ((fastrnn.Adam, "mse"), {"lr": 0.01}),
    ):
        np.testing.assert_array_equal(trained(*args, **kwargs).flat_parameters, want)
