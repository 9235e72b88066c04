# SPDX-License-Identifier: BSD-3-Clause
"""Functional models of Keras: branches, several inputs and outputs, states, masks."""

import numpy as np
import pytest

h5py = pytest.importorskip("h5py", reason="h5py is not installed")

import keras_older  # noqa: E402
from keras_models import B, H, I, T, saved  # noqa: E402
from keras_training import trained  # noqa: E402
from peers import close  # noqa: E402

import fastrnn  # noqa: E402
import fastrnn.keras  # noqa: E402

pytestmark = [
    # Of Keras's own get_weights() on PyTorch.
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
    # Keras 3 hands a mask into a model in a model, and says that none comes out.
    pytest.mark.filterwarnings("ignore:Layer .*was passed an input with a mask"),
]


def series(keras):
    return keras.Input((T, I))


def branches(keras):
    start, layer = series(keras), keras.layers.Dense
    return keras.Model(start, keras.layers.Add()([layer(2)(start), layer(2)(start)]))


def two_inputs(keras):
    inputs = [series(keras), series(keras)]
    return keras.Model(inputs, keras.layers.Concatenate()(inputs))


def two_outputs(keras):
    start = series(keras)
    x = keras.layers.Dense(2)(start)
    return keras.Model(start, [x, keras.layers.Dense(2)(x)])


def twice(keras):
    start, layer = series(keras), keras.layers.Dense(I, "tanh")
    return keras.Model(start, layer(layer(start)))


def words_and_series(keras):
    """Words with padding, a series, dropout that does nothing, merged in many ways."""
    layers = keras.layers
    words, other = keras.Input((T,)), series(keras)
    a = layers.Embedding(9, H, mask_zero=True)(words)
    a = layers.Bidirectional(layers.GRU(3, return_sequences=True))(a)
    a = layers.BatchNormalization()(a)
    a = layers.GlobalAveragePooling1D()(a)
    b = layers.Dropout(0.0)(layers.LSTM(6)(other))
    merged = [
        getattr(layers, kind)()([a, b])
        for kind in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
    ]
    return keras.Model([words, other], layers.Dense(2)(layers.Concatenate()(merged)))


def encoder_decoder(keras):
    """States of an encoder begin a decoder, as in Keras's tutorial of translation."""
    layers = keras.layers
    source, target = series(keras), keras.Input((4, 2))
    _, h, c = layers.LSTM(H, return_state=True)(source)
    y, _, _ = layers.LSTM(H, return_sequences=True, return_state=True)(
        target, initial_state=[h, c]
    )
    return keras.Model([source, target], layers.Dense(2, activation="softmax")(y))


def both_ways(keras):
    layers = keras.layers
    start = series(keras)
    y, *states = layers.Bidirectional(
        layers.LSTM(H, return_sequences=True, return_state=True)
    )(start)
    z = layers.Bidirectional(layers.LSTM(H))(y, initial_state=states)
    return keras.Model(start, [layers.Concatenate()([z, states[2]]), y])


def one_state(keras):
    start = series(keras)
    y, h = keras.layers.GRU(H, return_sequences=True, return_state=True)(start)
    h = keras.layers.RepeatVector(T)(h)
    return keras.Model(start, keras.layers.Concatenate()([y, h]))


def models_inside(keras):
    layers = keras.layers
    inner = branches(keras)
    start = keras.Input((2, T, I))
    x = layers.TimeDistributed(inner)(start)
    x = layers.Reshape((2 * T, 2))(x)
    two = keras.Input((2 * T, 2))
    pair = keras.Model(two, [layers.GRU(3)(two), layers.GlobalMaxPooling1D()(two)])
    return keras.Model(start, layers.Concatenate()(pair(x)))


def a_mask_inside(keras):
    layers = keras.layers
    start = series(keras)
    y = layers.Add()([layers.LSTM(I, return_sequences=True)(start), start])
    inner = keras.Model(start, layers.GlobalAveragePooling1D()(y))
    words = keras.Input((T,))
    return keras.Model(words, inner(layers.Embedding(9, I, mask_zero=True)(words)))


def models_used_twice(keras):
    """Whose calls are inputs of layers and outputs of the model, by their numbers."""
    layers = keras.layers
    pair = [series(keras), series(keras)]
    inner = keras.Model(pair[0], layers.Dense(I, "tanh")(pair[0]))
    chain = keras.Sequential([pair[1], layers.Dense(2)])
    start = series(keras)
    once = inner(start)
    again = inner(layers.Permute((1, 2))(once))
    return keras.Model(start, [again, once, chain(again), chain(start)])


def an_attention(keras):
    """The attention of many tutorials: weights of steps, by layers that merge."""
    layers = keras.layers
    start = series(keras)
    y = layers.LSTM(H, return_sequences=True)(start)
    weights = layers.Flatten()(layers.Dense(1, activation="tanh")(y))
    weights = layers.Activation("softmax")(weights)
    weights = layers.Permute((2, 1))(layers.RepeatVector(H)(weights))
    return keras.Model(
        start, layers.GlobalAveragePooling1D()(layers.Multiply()([y, weights]))
    )


BUILDS = [
    branches, two_inputs, two_outputs, twice, words_and_series, encoder_decoder,
    both_ways, one_state, models_inside, a_mask_inside,
    models_used_twice, an_attention,
]  # fmt: skip


def data(model, rng):
    found = []
    for tensor in model.inputs:
        shape = (B, *tensor.shape[1:])
        if tensor.ndim == 2:
            x = rng.integers(1, 9, shape)
            x[0, 3:] = x[1, 4:] = 0
        else:
            x = rng.standard_normal(shape).astype("f")
        found.append(x)
    return found


def drawn(model):
    """Random weights; those of variances are positive."""
    rng = np.random.default_rng(4)
    model.set_weights([
        rng.uniform(0.5, 1, w.shape) if v.name == "moving_variance"
        else 0.5 * rng.standard_normal(w.shape)
        for v, w in zip(model.weights, model.get_weights(), strict=True)
    ])  # fmt: skip
    return model


def results(keras, model, inputs):
    found = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    found = found if isinstance(found, (list, tuple)) else [found]
    return [keras.ops.convert_to_numpy(keras.ops.stop_gradient(y)) for y in found]


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        *((build, ("keras", "h5", "old")[k % 3]) for k, build in enumerate(BUILDS)),
        (encoder_decoder, "keras"),
        (words_and_series, "keras"),
        *(
            (build, kind)
            for build in (a_mask_inside, models_used_twice)
            for kind in ("keras", "old")
        ),
    ],
)
def test_outputs(tmp_path, rng, keras, build, kind):
    theirs = drawn(build(keras))
    path = saved(theirs, tmp_path / f"model.{'keras' if kind == 'keras' else 'h5'}")
    if kind == "old":
        keras_older.of_keras_2(path)
    ours = fastrnn.keras.load(path, inference=True)
    inputs = data(theirs, rng)
    found = ours(*inputs)
    found = found if isinstance(found, tuple) else (found,)
    for y, want in zip(found, results(keras, theirs, inputs), strict=True):
        close(y, want, 3000)
    predicted = ours.predict(tuple(inputs) if len(inputs) > 1 else inputs[0])
    predicted = predicted if isinstance(predicted, tuple) else (predicted,)
    for y, again in zip(found, predicted, strict=True):
        np.testing.assert_array_equal(y, again)
    ours.save(tmp_path / "ours")
    again = fastrnn.load_model(tmp_path / "ours").eval()(*inputs)
    np.testing.assert_array_equal(again[0], ours(*inputs)[0])


@pytest.mark.parametrize(
    "build", [twice, words_and_series, encoder_decoder, one_state, an_attention]
)
def test_training(tmp_path, rng, keras, build):
    theirs = drawn(build(keras))
    ours = fastrnn.keras.load(saved(theirs, tmp_path / "model.keras"))
    trained(keras, theirs, ours, *data(theirs, rng))


def test_a_file_of_windows(tmp_path, rng, keras):
    theirs = drawn(models_inside(keras))
    path = keras_older.on_windows(saved(theirs, tmp_path / "model.keras"))
    inputs = data(theirs, rng)
    close(fastrnn.keras.load(path)(*inputs), results(keras, theirs, inputs)[0], 3000)


def test_operations_that_are_layers(tmp_path, rng, keras):
    """Keras writes an operation under the name of the layer that does the same."""
    start = series(keras)
    y = keras.layers.Dense(I)(start)
    theirs = drawn(keras.Model(start, keras.layers.GRU(2)(y * start + (start - y))))
    ours = fastrnn.keras.load(saved(theirs, tmp_path / "model.keras"))
    inputs = data(theirs, rng)
    close(ours(*inputs), results(keras, theirs, inputs)[0], 3000)


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (lambda keras, y: y + 1.0, "'add.*' must be given outputs of layers alone, g"),
        (lambda keras, y: 2 * y, "'multiply.*' must be given outputs of layers alone"),
        (
            lambda keras, y: keras.ops.average(y, axis=1),
            r"\(ops.Average\) is not one of the layers that can be read",
        ),
        (
            lambda keras, y: keras.ops.mean(y, axis=1),
            r"\(ops.Mean\) is not one of the layers that can be read",
        ),
    ],
)
def test_other_operations_are_refused(tmp_path, keras, operation, message):
    start = series(keras)
    theirs = keras.Model(start, operation(keras, keras.layers.Dense(2)(start)))
    path = saved(theirs, tmp_path / "model.keras")
    with pytest.raises(ValueError, match=message):
        fastrnn.keras.load(path)


def test_a_mask_of_ones_own_is_refused(tmp_path, keras):
    start, mask = series(keras), keras.Input((T,), dtype="bool")
    theirs = keras.Model([start, mask], keras.layers.GRU(H)(start, mask=mask))
    path = saved(theirs, tmp_path / "model.keras")
    with pytest.raises(ValueError, match="mask must be that of an Embedding with"):
        fastrnn.keras.load(path)


def test_states_of_merged_directions_are_refused(tmp_path, keras):
    start = series(keras)
    layer = keras.layers.Bidirectional(
        keras.layers.GRU(H, return_state=True), merge_mode="sum"
    )
    theirs = keras.Model(start, layer(start))
    path = saved(theirs, tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"layer 'bidirectional.*return_state must be"):
        fastrnn.keras.load(path)
