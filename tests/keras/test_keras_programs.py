# SPDX-License-Identifier: BSD-3-Clause
"""Programs as tutorials have them, run by Keras and here: one import differs.

Each is a function of the module ``keras`` and returns what it would print: shapes,
types and names, which must be the same. That both learn the same is tested elsewhere.
"""

import os

import numpy as np
import pytest

import fastrnn.keras

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*input_shape.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning"),
]


def kind(value):
    """What can be compared of a result: its type and shape, and those of its parts."""
    if isinstance(value, float):
        return "a number"
    if isinstance(value, dict):
        return {name: kind(part) for name, part in value.items() if name != "lr"}
    if isinstance(value, (list, tuple)):
        return [kind(part) for part in value]
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.name
    return value


def share_price(keras):
    rng = np.random.default_rng(0)
    prices = 100 + rng.normal(size=200).cumsum()
    scaled = (prices - prices.min()) / (prices.max() - prices.min())
    X = np.array([scaled[i - 20 : i] for i in range(20, 150)])
    y = scaled[20:150]
    X = np.reshape(X, (X.shape[0], X.shape[1], 1))
    regressor = keras.Sequential()
    regressor.add(
        keras.layers.LSTM(units=8, return_sequences=True, input_shape=(X.shape[1], 1))
    )
    regressor.add(keras.layers.Dropout(0.2))
    regressor.add(keras.layers.LSTM(units=8, return_sequences=True))
    regressor.add(keras.layers.Dropout(rate=0.2))
    regressor.add(keras.layers.LSTM(units=8))
    regressor.add(keras.layers.Dense(units=1))
    regressor.compile(optimizer="adam", loss="mean_squared_error")
    history = regressor.fit(X, y, epochs=2, batch_size=32, verbose=0)
    predicted = regressor.predict(X[:7], verbose=0)
    loss = regressor.evaluate(X, y, verbose=0)
    return history.history, predicted, loss, history.epoch


def sentiment(keras):
    texts = ["a good film", "a bad film", "good, good!", "so bad it hurts"] * 6
    y = np.array([1, 0, 1, 0] * 6)
    tokenizer = keras.preprocessing.text.Tokenizer(num_words=20, oov_token="<OOV>")
    tokenizer.fit_on_texts(texts)
    sequences = tokenizer.texts_to_sequences(texts)
    X = keras.preprocessing.sequence.pad_sequences(sequences, maxlen=5)
    model = keras.models.Sequential(
        [
            keras.layers.Embedding(input_dim=20, output_dim=8, mask_zero=True),
            keras.layers.Bidirectional(keras.layers.LSTM(6)),
            keras.layers.Dense(4, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=0.01),
        loss="binary_crossentropy",
        metrics=["acc", keras.metrics.Precision(), keras.metrics.Recall(name="found")],
    )
    stop = keras.callbacks.EarlyStopping(
        monitor="val_loss", patience=3, restore_best_weights=True, verbose=0
    )
    history = model.fit(
        X, y, epochs=3, batch_size=8, validation_split=0.25, callbacks=[stop], verbose=0
    )
    loss, accuracy, precision, recall = model.evaluate(X, y, verbose=0)
    classes = (model.predict(X, verbose=0) > 0.5).astype("int32")
    return history.history, loss, accuracy, precision, recall, classes, X


def characters(keras):
    text = "to be or not to be that is the question " * 6
    letters = sorted(set(text))
    numbers = {letter: i for i, letter in enumerate(letters)}
    starts = range(0, len(text) - 11, 3)
    x = np.zeros((len(starts), 10, len(letters)), bool)
    y = np.zeros((len(starts), len(letters)), bool)
    for i, start in enumerate(starts):
        for t, letter in enumerate(text[start : start + 10]):
            x[i, t, numbers[letter]] = 1
        y[i, numbers[text[start + 10]]] = 1
    model = keras.Sequential(
        [
            keras.Input(shape=(10, len(letters))),
            keras.layers.LSTM(16),
            keras.layers.Dense(len(letters), activation="softmax"),
        ]
    )
    optimizer = keras.optimizers.RMSprop(learning_rate=0.01)
    model.compile(loss="categorical_crossentropy", optimizer=optimizer)
    model.fit(x, y, batch_size=16, epochs=1, verbose=0)
    chances = model.predict(x[:1], verbose=0)[0]
    return chances, float(optimizer.learning_rate) == pytest.approx(0.01)


def windows(keras):
    series = np.sin(np.arange(120) * 0.2)

    def batches(begin, end):
        while True:
            starts = np.arange(begin, end)
            x = np.stack([series[i : i + 12] for i in starts])[..., None]
            yield x, series[starts + 12]

    model = keras.Sequential([keras.layers.GRU(8), keras.layers.Dense(1)])
    model.compile("rmsprop", "mae", metrics=["mse", "root_mean_squared_error"])
    history = model.fit(
        batches(0, 32),
        steps_per_epoch=3,
        epochs=2,
        validation_data=batches(60, 80),
        validation_steps=2,
        verbose=0,
    )
    figures = model.evaluate(batches(60, 80), steps=2, verbose=0, return_dict=True)
    x, _ = next(batches(0, 8))
    return history.history, figures, model.predict(x, verbose=0)


def tagging(keras):
    rng = np.random.default_rng(1)
    words = rng.integers(1, 30, (24, 7))
    tags = keras.utils.to_categorical(words % 3, num_classes=3)
    model = keras.Sequential(
        [
            keras.layers.Embedding(30, 8),
            keras.layers.Bidirectional(keras.layers.LSTM(6, return_sequences=True)),
            keras.layers.TimeDistributed(keras.layers.Dense(3, activation="softmax")),
        ]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    model.fit(words, tags, 8, 2, 0)
    return model.evaluate(words, tags, verbose=0), model.predict(words, verbose=0)


def stateful(keras):
    x = np.sin(np.arange(80) * 0.3).reshape(4, 20, 1)
    model = keras.Sequential(
        [
            keras.layers.Input(batch_shape=(4, 20, 1)),
            keras.layers.SimpleRNN(5, stateful=True, return_sequences=True),
            keras.layers.Dense(1),
        ]
    )
    model.compile(loss="mse", optimizer=keras.optimizers.SGD(0.01, momentum=0.9))
    for _ in range(2):
        model.fit(x, x, epochs=1, batch_size=4, shuffle=False, verbose=0)
    return model.predict(x, batch_size=4, verbose=0)


def steps(keras):
    rng = np.random.default_rng(2)
    model = keras.Sequential([keras.layers.LSTM(4), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="sgd", loss=loss, metrics=["sparse_categorical_accuracy"])
    x, y = rng.normal(size=(8, 5, 2)).astype("f"), rng.integers(0, 3, 8)
    found = [list(map(float, model.train_on_batch(x, y))) for _ in range(2)]
    named = {
        k: float(v) for k, v in model.test_on_batch(x, y, return_dict=True).items()
    }
    before = model.get_weights()
    model.set_weights(before)
    return found, sorted(named), model.predict_on_batch(x), len(before) > 3


def callbacks(keras):
    seen = []
    x = np.linspace(0, 1, 16, dtype="f").reshape(8, 2)
    model = keras.Sequential([keras.layers.Dense(1, input_shape=(2,))])
    model.compile(loss="huber", optimizer=keras.optimizers.Adam())

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((epoch, "loss" in logs, self.model is model))

    model.fit(
        x, x[:, :1], epochs=2, verbose=0,
        callbacks=[
            Look(),
            keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=2),
            keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1)),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda i, logs: seen.append(i)),
        ],
    )  # fmt: skip
    return seen, float(model.optimizer.learning_rate) == pytest.approx(0.05)


PROGRAMS = [
    share_price, sentiment, characters, windows, tagging, stateful, steps, callbacks,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: one.__name__)
def test_it_runs_here(program):
    assert kind(program(fastrnn.keras))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: one.__name__)
def test_it_is_as_with_keras(program, keras):
    keras.utils.clear_session()  # names are counted, those of other tests too
    if program is sentiment:
        text = pytest.importorskip("keras.src.legacy.preprocessing.text")
        keras = _with_tokenizer(keras, text)
    assert kind(program(fastrnn.keras)) == kind(program(keras))


class _with_tokenizer:
    """Keras 3, with the `preprocessing.text` that Keras 2 had."""

    def __init__(self, keras, text):
        self._keras = keras
        self.preprocessing = type(
            "preprocessing", (), {"text": text, "sequence": keras.utils}
        )

    def __getattr__(self, name):
        return getattr(self._keras, name)


def test_a_saved_model_is_loaded(tmp_path):
    keras = fastrnn.keras
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["acc", keras.metrics.AUC(name="area")])
    path = os.fspath(tmp_path / "model.safetensors")
    model.save(path)
    again = keras.models.load_model(path)
    x = np.ones((2, 3), "f")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_a_file_of_keras_that_is_not_there(tmp_path):
    pytest.importorskip("h5py", reason="h5py is not installed")
    with pytest.raises(OSError, match=r"model\.keras"):
        fastrnn.keras.models.load_model(tmp_path / "model.keras")
