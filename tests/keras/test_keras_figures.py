# SPDX-License-Identifier: BSD-3-Clause
"""Masks and probabilities in models of Keras: figures and training as Keras's own."""

import warnings

import numpy as np
import pytest

h5py = pytest.importorskip("h5py", reason="h5py is not installed")

from keras_models import H, I, T, made, saved  # noqa: E402

import fastrnn  # noqa: E402

# Of Keras's own get_weights() on PyTorch.
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")

TOLERANCE = 1e-5  # what the history may differ by: both round in float32
V = 7


def masked_models(layers):
    """Layers, the loss, the kind of targets."""
    return {
        "each step": ([layers.LSTM(H, return_sequences=True), layers.Dense(1)], "mse"),
        "mean absolute": (
            [layers.GRU(H, return_sequences=True), layers.Dense(2)], "mae",
        ),
        "stack": (
            [
                layers.SimpleRNN(H, return_sequences=True),
                layers.LayerNormalization(),
                layers.GRU(H, return_sequences=True),
                layers.TimeDistributed(layers.Dense(1)),
            ],
            "mse",
        ),
        "last step": ([layers.LSTM(H), layers.Dense(1)], "mse"),
        "both directions": (
            [
                layers.Bidirectional(layers.GRU(H, return_sequences=True), "ave"),
                layers.Bidirectional(layers.LSTM(H, return_sequences=True)),
                layers.Dense(1),
            ],
            "mse",
        ),
        "backwards": (
            [
                layers.LSTM(H, return_sequences=True, go_backwards=True),
                layers.GRU(H, return_sequences=True),
                layers.Dense(1),
            ],
            "mse",
        ),
        "zeros": (
            [
                layers.GRU(H, return_sequences=True, zero_output_for_mask=True),
                layers.LSTM(H, return_sequences=True, zero_output_for_mask=True),
                layers.SimpleRNN(3, zero_output_for_mask=True),
            ],
            "mse",
        ),
        "yes or no": (
            [layers.LSTM(H, return_sequences=True), layers.Dense(1, "sigmoid")],
            "binary_crossentropy",
        ),
        "classes": (
            [
                layers.GRU(H, return_sequences=True),
                layers.Dense(3, activation="relu"),
                layers.Dense(V, activation="softmax"),
            ],
            "sparse_categorical_crossentropy",
        ),
        "no layer that runs": ([layers.Dense(V, activation="softmax")],
                               "sparse_categorical_crossentropy"),
    }  # fmt: skip


def targets(rng, loss, shape):
    if loss == "sparse_categorical_crossentropy":
        return rng.integers(0, V, shape[:-1])
    if loss == "binary_crossentropy":
        return rng.integers(0, 2, shape).astype("f")
    return rng.standard_normal(shape).astype("f")


def compiled(theirs, ours, keras, loss, metrics, lr=0.1):
    theirs.compile(optimizer=keras.optimizers.SGD(lr), loss=loss, metrics=list(metrics))
    ours.compile(loss, "sgd", metrics=metrics, lr=lr)


def the_same_training(theirs, ours, x, y, weight=None, rows=3):
    """Figures before, a history of two epochs in batches, and outputs afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"batch_size": rows, "sample_weight": weight}
        before = theirs.evaluate(x, y, verbose=0, return_dict=True, **options)
        found = ours.evaluate(x, y, **options, return_dict=True)
        for name, value in before.items():
            assert found[name] == pytest.approx(value, rel=TOLERANCE, abs=1e-6), name
        history = theirs.fit(
            x, y, epochs=2, verbose=0, shuffle=False, validation_split=0.4, **options
        ).history
        own = ours.fit(
            x, y, epochs=2, verbose=0, shuffle=False, validation_split=0.4, **options
        ).history
        for name, values in history.items():
            assert own[name] == pytest.approx(values, rel=TOLERANCE, abs=1e-6), name
        pred = theirs.predict(x, verbose=0)
    assert np.abs(ours.predict(x) - pred).max() <= TOLERANCE * max(
        1, np.abs(pred).max()
    )


NAMES = (
    "each step", "mean absolute", "stack", "last step", "both directions", "backwards",
    "zeros",    "yes or no", "classes", "no layer that runs",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_masked_model_trains_as_in_keras(tmp_path, rng, keras, name):
    layers, loss = masked_models(keras.layers)[name]
    theirs = made(keras, [keras.layers.Masking(-1.5), *without_bias(layers)])
    ours = fastrnn.keras.load(saved(theirs, tmp_path / "model.keras"))
    n = 5
    x = rng.standard_normal((n, T, I)).astype("f")
    x[0, 1:] = x[1, :2] = x[2, 3] = x[4, -1] = -1.5
    pred = theirs.predict(x, verbose=0)
    y = targets(rng, loss, pred.shape)
    metrics = ["accuracy"] if "cross" in loss else ["mae", "mse"]
    compiled(theirs, ours, keras, loss, metrics)
    the_same_training(theirs, ours, x, y)
    shape = pred.shape[:-1] if pred.ndim == 3 else (n,)
    the_same_training(theirs, ours, x, y, rng.uniform(0.5, 2, shape).astype("f"))


def without_bias(layers):
    """Recurrent layers without bias, of which ours has two that learn."""
    for layer in layers:
        for part in (
            layer,
            getattr(layer, "forward_layer", None),
            getattr(layer, "backward_layer", None),
        ):
            if hasattr(part, "cell"):
                part.cell.use_bias = False
    return layers


def functional(keras, kind):
    """A functional model with a mask, and its input."""
    layers = keras.layers
    if kind == "embedding":
        start = keras.Input((None,), dtype="int32")
        x = layers.Embedding(V, I, mask_zero=True)(start)
    else:
        start = keras.Input((None, I))
        x = layers.Masking(-1.5)(start)
    x = layers.LSTM(H, return_sequences=True, use_bias=False)(x)
    x = layers.Dense(H, activation="tanh")(x)
    x = layers.Bidirectional(layers.GRU(2, return_sequences=True, use_bias=False))(x)
    x = layers.TimeDistributed(layers.Dense(2))(x)
    model = keras.Model(start, layers.Activation("softmax")(x))
    rng = np.random.default_rng(4)
    weights = [0.5 * rng.standard_normal(w.shape) for w in model.get_weights()]
    model.set_weights(weights)
    return model


@pytest.mark.parametrize("kind", ["embedding", "masking"])
def test_functional_models_with_a_mask(tmp_path, rng, keras, suffix, kind):
    theirs = functional(keras, kind)
    ours = fastrnn.keras.load(saved(theirs, tmp_path / f"model.{suffix}"))
    if kind == "embedding":
        x = rng.integers(1, V, (4, T))
        x[0, 3:] = x[1, 1] = 0
    else:
        x = rng.standard_normal((4, T, I)).astype("f")
        x[0, 3:] = x[1, 1] = -1.5
    loss = "sparse_categorical_crossentropy"
    compiled(theirs, ours, keras, loss, ["accuracy"])
    the_same_training(theirs, ours, x, rng.integers(0, 2, (4, T)))


def test_other_masks_of_functional_models_are_refused(tmp_path, keras):
    layers = keras.layers
    start = keras.Input((T, I))
    mask = keras.ops.any(keras.ops.not_equal(start, 1.0), axis=-1)
    other = layers.Masking(0.0)(start)
    y = layers.GRU(2)(other, mask=mask)
    path = saved(keras.Model(start, y), tmp_path / "model.keras")
    with pytest.raises(
        ValueError, match="mask must be that of an Embedding with mask_"
    ):
        fastrnn.keras.load(path)


def test_a_stateful_layer_and_masked_steps(tmp_path, rng, keras):
    layers = [
        keras.layers.Masking(),
        keras.layers.GRU(H, return_sequences=True, stateful=True, use_bias=False),
    ]
    theirs = keras.Sequential([keras.Input(batch_shape=(3, T, I)), *layers])
    ours = fastrnn.keras.load(saved(theirs, tmp_path / "model.keras")).eval()
    x = rng.standard_normal((3, T, I)).astype("f")
    x[0, 2:] = x[1, :] = x[2, 3] = 0
    for _ in range(2):  # the second call goes on from the first
        want = keras.ops.convert_to_numpy(
            keras.ops.stop_gradient(theirs(x, training=False))
        )
        assert np.abs(ours(x) - want).max() <= 1e-6


def endings(layers):
    """What follows a recurrent layer, its loss, and what the output is taken for."""
    sigmoid, softmax = layers.Dense(2, "sigmoid"), layers.Dense(V, "softmax")
    return {
        "sigmoid": ([sigmoid], "binary_crossentropy", None),
        "softmax": ([softmax], "sparse_categorical_crossentropy", None),
        "one-hot": ([softmax], "categorical_crossentropy", None),
        "a layer": (
            [layers.Dense(V), layers.Softmax()],
            "sparse_categorical_crossentropy",
            None,
        ),
        "sigmoids of classes": (
            [layers.Dense(V, "sigmoid")], "categorical_crossentropy", None,
        ),
        "a softmax's yes or no": ([softmax], "binary_crossentropy", None),
        "a cell": (
            [layers.SimpleRNN(2, activation="sigmoid", use_bias=False)],
            "binary_crossentropy",
            None,
        ),
        "relu": ([layers.Dense(2, "relu")], "binary_crossentropy", False),
        "as Keras takes it": ([layers.Dense(V)], "categorical_crossentropy", False),
        "logits": ([layers.Dense(V)], "sparse_categorical_crossentropy", True),
        "two sigmoids": ([sigmoid], "binary_crossentropy", True),
    }  # fmt: skip


ENDINGS = (
    "sigmoid", "softmax", "one-hot", "a layer", "sigmoids of classes",
    "a softmax's yes or no", "a cell", "relu", "as Keras takes it", "logits",
    "two sigmoids",
)  # fmt: skip


@pytest.mark.parametrize("name", ENDINGS)
def test_losses_of_what_a_keras_model_ends_in(tmp_path, rng, keras, name):
    end, loss, from_logits = endings(keras.layers)[name]
    sequences = name == "a cell"
    first = keras.layers.GRU(H, return_sequences=sequences, use_bias=False)
    theirs = made(keras, [first, *end])
    ours = fastrnn.keras.load(saved(theirs, tmp_path / "model.keras"))
    x = rng.standard_normal((8, T, I)).astype("f")
    width = theirs.output_shape[-1]
    y = rng.integers(0, width, 8)
    if loss == "categorical_crossentropy":
        y = np.eye(width, dtype="f")[y]
    elif loss == "binary_crossentropy":
        y = rng.integers(0, 2, (8, width)).astype("f")
    named = {
        "binary_crossentropy": "BinaryCrossentropy",
        "categorical_crossentropy": "CategoricalCrossentropy",
        "sparse_categorical_crossentropy": "SparseCategoricalCrossentropy",
    }[loss]
    of_theirs = getattr(keras.losses, named)(from_logits=bool(from_logits))
    theirs.compile(optimizer=keras.optimizers.SGD(0.1), loss=of_theirs)
    ours.compile(loss, "sgd", lr=0.1, from_logits=from_logits)
    the_same_training(theirs, ours, x, y)
