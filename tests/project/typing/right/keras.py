# SPDX-License-Identifier: BSD-3-Clause
"""A program of Keras's, with one import changed."""

from collections.abc import Iterator
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import fastrnn
from fastrnn import keras
from fastrnn.keras.layers import LSTM, BatchNormalization, Dense, Dropout, Input
from fastrnn.keras.models import Sequential

x, y = np.ones((8, 5, 1)), np.ones((8, 1))

model = Sequential()
model.add(LSTM(50, return_sequences=True, input_shape=(5, 1)))
model.add(Dropout(rate=0.2))
model.add(LSTM(units=50, activation="tanh"))
model.add(BatchNormalization())
model.add(Dense(1, "sigmoid"))
assert_type(Dense(3), fastrnn.Linear)
assert_type(fastrnn.SimpleRNN(3), fastrnn.RNN)
model.compile(optimizer="adam", loss="mean_squared_error", metrics=["acc"])
model.compile(keras.optimizers.Adam(learning_rate=0.01), "mse")
model.fit(
    x,
    y,
    epochs=2,
    batch_size=4,
    verbose=0,
    validation_data=(x, y),
    callbacks=[
        keras.callbacks.EarlyStopping(patience=2, verbose=1),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch)),
    ],
)


def batches() -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """What a generator of Keras's gives."""
    while True:
        yield x, y


model.fit(batches(), steps_per_epoch=3, epochs=2)
loss, accuracy = model.evaluate(x, y, verbose=0)
assert_type(model.evaluate(x, y, return_dict=True), dict[str, float])
print(loss, accuracy, model.predict(x, verbose=0).shape, model.train_on_batch(x, y))
model.set_weights([weight / 2 for weight in model.get_weights()])

words = keras.preprocessing.text.Tokenizer(num_words=100)
words.fit_on_texts(["the cat", "the dog"])
rows = keras.utils.pad_sequences(words.texts_to_sequences(["the dog"]), maxlen=5)
assert_type(words.word_index, dict[str, int])
head = keras.Sequential(
    [
        Input((5,)),
        keras.layers.Embedding(input_dim=100, output_dim=8, mask_zero=True),
        keras.layers.Bidirectional(keras.layers.GRU(8)),
        keras.layers.Dense(1),
    ]
)
print(head(rows), keras.utils.to_categorical([0, 1], 2))

both = fastrnn.Functional(
    ("left", "right"),
    [
        (fastrnn.Concatenate(), ("left", "right"), "both"),
        (fastrnn.Conv1D(4, 3, padding="same", init="torch"), "both", "windows"),
        (fastrnn.GlobalMaxPooling1D(), "windows", "y"),
    ],
    "y",
)
print(both(x, x), both.predict((x, x)), [layer.training for layer in both.layers])
