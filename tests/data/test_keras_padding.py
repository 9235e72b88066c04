# SPDX-License-Identifier: BSD-3-Clause
"""`pad_sequences` with Keras's results, and models that are given them."""

import numpy as np
import pytest

import fastrnn
from fastrnn.data.keras_padding import pad_sequences

ROWS = [[3, 1, 4], [1], [5, 9, 2, 6, 5], []]


@pytest.mark.parametrize("maxlen", [None, 3, 9])
@pytest.mark.parametrize("padding", ["pre", "post"])
@pytest.mark.parametrize("truncating", ["pre", "post"])
def test_it_is_kerass(maxlen, padding, truncating, keras):
    given = {"maxlen": maxlen, "padding": padding, "truncating": truncating}
    for rows, more in ((ROWS, {}), ([[[1.5, 2]], [[3, 4]] * 2], {"dtype": "float32"})):
        found = pad_sequences(rows, value=7, **given, **more)
        want = keras.utils.pad_sequences(rows, value=7, **given, **more)
        assert (found.dtype, found.shape) == (want.dtype, want.shape)
        np.testing.assert_array_equal(found, want)


def test_padding_before_the_steps():
    assert pad_sequences(ROWS[:2]).tolist() == [[3, 1, 4], [0, 0, 1]]
    assert pad_sequences(ROWS, 2).tolist() == [[1, 4], [0, 1], [6, 5], [0, 0]]
    mask = fastrnn.mask_from_lengths([3, 1], batch_first=True, padding="pre")
    assert mask.astype(int).tolist() == [[1, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("padding", ["pre", "post"])
@pytest.mark.parametrize("cell", [fastrnn.LSTM, fastrnn.GRU])
@pytest.mark.parametrize("both", [False, True])
def test_a_mask_leaves_padding_out_at_either_end(padding, cell, both):
    """A model is trained to the same bits by padded sequences and by these alone."""
    rows, y = ROWS[:3], np.array([0.0, 1.0, 0.5])

    def make():
        layer = cell(4, seed=1)
        layer = fastrnn.Bidirectional(layer) if both else layer
        embedding = fastrnn.Embedding(10, 3, mask_zero=True, seed=0)
        model = fastrnn.Sequential([embedding, layer, fastrnn.Dense(1, seed=2)])
        model.compile("adam", "mse")
        return model

    padded, alone = make(), make()
    x = pad_sequences(rows, padding=padding)
    one = padded.predict(x)
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(one[i], alone.predict([row])[0])
    losses = [alone.test_on_batch([row], y[i : i + 1]) for i, row in enumerate(rows)]
    assert padded.train_on_batch(x, y) == pytest.approx(np.mean(losses))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_padding_of_a_model_of_kerass(keras):
    """A mask before the steps means there what it means here."""
    models = []
    for library, layers in ((keras, keras.layers), (fastrnn, fastrnn)):
        parts = [layers.Input((None,)), layers.Embedding(10, 3, mask_zero=True)]
        parts += [layers.LSTM(4), layers.Dense(1)]
        models.append(library.Sequential(parts))
    theirs, ours = models
    embedding, lstm, head = (layer.get_weights() for layer in theirs.layers)
    ours[0].set_weights(embedding)
    ours[1].load_state_dict(fastrnn.keras.layer_weights(lstm))
    ours[2].load_state_dict(fastrnn.keras.layer_weights(head))
    x = pad_sequences(ROWS[:3])
    np.testing.assert_allclose(
        ours.predict(x), theirs.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: fastrnn.pad_sequences(ROWS, 100),
            "; maxlen is given by name here, and",
        ),
        (
            lambda: fastrnn.pad_sequences(ROWS, dtype="int32"),
            "is fastrnn.keras.utils.pad",
        ),
        (
            lambda: pad_sequences(ROWS, max_len=3),
            "^pad_seq.*'max_len'; did you mean maxl",
        ),
        (
            lambda: pad_sequences([["a"]]),
            r"^pad_sequences: sequences\[0\] must be real",
        ),
        (
            lambda: pad_sequences(ROWS, dtype="object"),
            "dtype must be one of real numbers",
        ),
    ],
)
def test_answers(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_a_pair_of_padded_and_lengths_is_no_input():
    model = fastrnn.Sequential([fastrnn.Embedding(10, 3), fastrnn.LSTM(4)])
    model.compile("mse")
    y = np.zeros((3, 4))
    with pytest.raises(
        ValueError, match=r"^fit: x\[1\] .* \(padded, lengths\), x must"
    ):
        model.fit(fastrnn.pad_sequences(ROWS[:3]), y)
    with pytest.raises(
        ValueError, match=r"^Sequential: x must be one array .* takes pad"
    ):
        model.fit(fastrnn.pad_sequences(ROWS[:3], batch_first=True), y)
