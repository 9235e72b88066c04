# SPDX-License-Identifier: BSD-3-Clause
"""Activation layers: values and slopes by float64, and as parts of models."""

import copy
import pickle

import numpy as np
import pytest
import tolerances
from slopes import slopes

import fastrnn
from fastrnn.nn import activation
from fastrnn.nn.describe import describe

EQUATIONS = {
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "relu": lambda x: x * (x > 0),
    "sigmoid": lambda x: 0.5 * (1 + np.tanh(0.5 * x)),
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "softsign": lambda x: x / (1 + np.sqrt(x * x)),
    "tanh": lambda x: np.sinh(x) / np.cosh(x),
}
CLASSES = {
    "relu": fastrnn.ReLU,
    "sigmoid": fastrnn.Sigmoid,
    "softmax": fastrnn.Softmax,
    "tanh": fastrnn.Tanh,
}


@pytest.mark.parametrize("name", activation.FUNCTIONS)
def test_values_and_slopes(name, rng):
    x, dy = rng.standard_normal((2, 3, 5)), rng.standard_normal((2, 3, 5))
    layers = [fastrnn.Activation(name), CLASSES.get(name, lambda: None)()]
    for layer in filter(None, layers):
        want = EQUATIONS[name](x)
        np.testing.assert_allclose(layer(x), want, rtol=1e-13, atol=1e-15)
        assert layer(x.astype("f")).dtype == np.float32
        layer(x)
        limit = tolerances.CENTRAL_RTOL * np.abs(dy).sum()
        dx = layer.backward(dy)
        want = slopes(lambda layer=layer: (layer(x) * dy).sum(), x)
        assert np.abs(dx - want).max() < limit
        assert np.isfinite(layer(np.array([[-1e4, 0, 1e4]], "f"))).all()


@pytest.mark.parametrize("name", activation.FUNCTIONS)
def test_a_linear_layer_with_an_activation_is_the_two(name, rng):
    one = fastrnn.Linear(3, 4, activation=name, dtype="float64", seed=1)
    linear = fastrnn.Linear(3, 4, dtype="float64", seed=1)
    two = fastrnn.Sequential(linear, fastrnn.Activation(name))
    x, dy = rng.standard_normal((5, 2, 3)), rng.standard_normal((5, 2, 4))
    np.testing.assert_array_equal(one(x), two(x))
    np.testing.assert_array_equal(one.backward(dy), two.backward(dy))
    np.testing.assert_array_equal(one.flat_grads, two.flat_grads)
    assert repr(one) == f"Linear(3, 4, activation={name!r})"


def test_functions_may_be_given_as_such():
    assert fastrnn.Activation(activation.softmax).function == "softmax"
    assert fastrnn.Linear(1, 1, activation=np.tanh).activation == "tanh"
    assert fastrnn.Linear(1, 1, activation="linear").activation is None
    with pytest.raises(ValueError, match="Activation: function must be one of 'elu'"):
        fastrnn.Activation(np.sin)
    with pytest.raises(ValueError, match="Linear: activation must be one of 'elu'"):
        fastrnn.Linear(1, 1, activation="gelu")
    with pytest.raises(ValueError, match=r"Softmax: x must have shape \(..., classes"):
        fastrnn.Softmax()(1.0)


def small_model():
    return fastrnn.Sequential(
        fastrnn.LSTM(None, 4, seed=0),
        fastrnn.TimeDistributed(fastrnn.Linear(4, 3, activation="relu", seed=1)),
        fastrnn.Tanh(),
        fastrnn.Linear(None, 3, activation="softsign", seed=2),
        fastrnn.Activation("elu"),
        fastrnn.Softmax(),
    )


def test_models_with_activations_are_saved_copied_and_shown(tmp_path, rng, capsys):
    model = small_model()
    x = rng.standard_normal((6, 5, 2)).astype("f")
    y = model.predict(x)
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-6)
    model.compile("sparse_categorical_crossentropy", "adam", metrics=["accuracy"])
    model.save(tmp_path / "m")
    for again in (
        fastrnn.load_model(tmp_path / "m"),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
    ):
        assert repr(again) == repr(model)
        np.testing.assert_array_equal(again.predict(x), y)
        target = np.zeros((6, 5), int)
        assert again.evaluate(x, target, return_dict=True) == model.evaluate(
            x, target, return_dict=True
        )
        history = again.fit(x, target, epochs=3, verbose=0, seed=0).history["loss"]
        assert history[-1] < history[0]
    assert list(model.parameters)[-2:] == ["3.weight", "3.bias"]
    model.summary()
    assert "5 Softmax" in capsys.readouterr().out


def test_files_without_the_new_arguments_are_as_they_were():
    assert describe(fastrnn.Linear(2, 1)) == {
        "class": "Linear",
        "arguments": {
            "in_features": 2, "out_features": 1, "bias": True, "dtype": "float32",
        },
    }  # fmt: skip
    assert "mask_zero" not in describe(fastrnn.Embedding(2, 1))["arguments"]
    shown = describe(fastrnn.Embedding(2, 1, mask_zero=True))
    assert shown["arguments"]["mask_zero"] is True


def test_graphs_of_onnx_have_activations_as_layers(tmp_path, rng):
    pytest.importorskip("onnx", reason="onnx is not installed")
    x = rng.standard_normal((6, 2)).astype("f")
    model = fastrnn.Sequential(
        fastrnn.Linear(2, 3, activation="tanh", seed=1),
        fastrnn.ReLU(),
        fastrnn.Linear(3, 3, seed=2),
        fastrnn.Softmax(),
    ).eval()
    fastrnn.onnx.save(model, tmp_path / "m.onnx")
    graph = fastrnn.onnx.load(tmp_path / "m.onnx")
    np.testing.assert_array_equal(graph(x), model(x))
    assert isinstance(graph.ends_in(), fastrnn.Activation)
    # The loss of a graph that ends in a softmax is that of probabilities.
    whole, target = fastrnn.Sequential(graph), rng.integers(0, 3, 6)
    whole.compile("sparse_categorical_crossentropy", metrics=["perplexity"])
    found = whole.evaluate(x, target, return_dict=True)
    p = np.take_along_axis(whole.predict(x).astype("d"), target[..., None], -1)
    assert found["loss"] == pytest.approx(-np.log(p).mean(), rel=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(found["loss"]), rel=1e-6)
