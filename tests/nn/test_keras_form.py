# SPDX-License-Identifier: BSD-3-Clause
"""Layers made with Keras's words: taken where they mean the same, else answered."""

import copy
import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn.nn.deferred import is_built

CELLS = [
    fastrnn.RNN,
    fastrnn.LSTM,
    fastrnn.GRU,
    fastrnn.MGU,
    fastrnn.LiGRU,
    fastrnn.LeakyRNN,
]


@pytest.mark.parametrize("cell", CELLS)
def test_units_alone_are_a_layer_with_keras_defaults(cell, rng):
    x = rng.normal(size=(4, 6, 3)).astype("f")
    whole = cell(3, 5, batch_first=True, return_sequences=False, seed=1)
    for layer in (cell(5, seed=1), cell(units=5, seed=1)):
        np.testing.assert_array_equal(layer(x)[0], whole(x)[0])
        assert type(layer) is cell
    every = cell(5, "relu", return_sequences=True, use_bias=False, seed=1)
    assert every(x)[0].shape == (4, 6, 5)
    assert (every.activation, every.bias) == ("relu", False)


def test_linear_by_units(rng):
    x = rng.normal(size=(4, 3)).astype("f")
    whole = fastrnn.Linear(3, 2, False, activation="softmax", seed=1)
    for layer in (
        fastrnn.Dense(2, "softmax", use_bias=False, seed=1),
        fastrnn.Dense(units=2, activation="softmax", use_bias=False, seed=1),
    ):
        np.testing.assert_array_equal(layer(x), whole(x))
    assert fastrnn.Dense is fastrnn.Linear
    assert fastrnn.SimpleRNN is fastrnn.RNN


def test_functions_have_kerass_parameters():
    layer = fastrnn.LSTM(
        5, recurrent_activation="hard_sigmoid", activation="leaky_relu"
    )
    y = fastrnn.Sequential(layer).build((2, 3))[0]
    assert y.recurrent_activation == ("hard_sigmoid", 1 / 6)
    assert y.activation == ("leaky_relu", 0.2)
    assert fastrnn.LSTM(3, 5, activation="leaky_relu").activation == "leaky_relu"


@pytest.mark.parametrize(
    "first",
    [
        lambda: [fastrnn.LSTM(5, input_shape=(7, 3))],
        lambda: [fastrnn.LSTM(5, input_shape=(None, 3))],
        lambda: [fastrnn.LSTM(5, batch_input_shape=(8, 7, 3), stateful=True)],
        lambda: [fastrnn.LSTM(5, input_dim=3)],
        lambda: [fastrnn.Input((7, 3)), fastrnn.LSTM(5)],
        lambda: [fastrnn.Input(batch_shape=(None, 7, 3)), fastrnn.LSTM(5)],
        lambda: [fastrnn.Masking(input_shape=(7, 3)), fastrnn.LSTM(5)],
        lambda: [fastrnn.Bidirectional(fastrnn.LSTM(5, input_shape=(7, 3)))],
        lambda: [fastrnn.Bidirectional(fastrnn.LSTM(5), input_shape=(7, 3))],
        lambda: [
            fastrnn.Embedding(input_dim=9, output_dim=3, input_length=7),
            fastrnn.LSTM(5),
        ],
    ],
)
def test_a_model_that_is_told_the_shape_of_its_input_has_parameters(first):
    layers = [*first(), fastrnn.Dense(1)]
    added = fastrnn.Sequential()
    for layer in copy.deepcopy(layers):
        added.add(layer)
    for model in (fastrnn.Sequential(layers), fastrnn.Sequential(*layers), added):
        assert is_built(model)
        assert pickle.loads(pickle.dumps(model)).flat_parameters.size
        x = np.zeros((2, 7), int) if "Embedding" in repr(model) else np.zeros((2, 7, 3))
        assert model(x).shape == (2, 1)
        assert "?" not in repr(model)


def test_a_summary_does_not_make_up_a_length(capsys):
    model = fastrnn.Sequential([fastrnn.LSTM(5, input_shape=(None, 3))])
    model.summary()
    assert capsys.readouterr().out.splitlines()[2].split()[:3] == ["0", "LSTM", "?"]


def test_initialisers_that_are_the_default():
    given = {"kernel_initializer": "glorot_uniform", "bias_initializer": "zeros"}
    for make in (fastrnn.Dense, fastrnn.LSTM):
        model = fastrnn.Sequential(make(5, input_shape=(7, 3), seed=0, **given))
        same = fastrnn.Sequential(make(5, input_shape=(7, 3), seed=0))
        np.testing.assert_array_equal(model.flat_parameters, same.flat_parameters)
        # Beside an `init` that says otherwise they would mean nothing.
        with pytest.raises(TypeError, match="'kernel_initializer'; init="):
            make(5, init="torch", **given)


def test_a_class_of_ones_own_is_called_as_it_says():
    class Mine(fastrnn.LSTM):
        def __init__(self, width):
            super().__init__(3, width)

    assert repr(Mine(5)) == "Mine(3, 5)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: fastrnn.LSTM(5, dropout=0.2),
            r"^LSTM\(units\): dropout must be 0; Ker",
        ),
        (
            lambda: fastrnn.LSTM(3, 5, return_state=True),
            r"; .* y, \(h_n, c_n\) = layer",
        ),
        (
            lambda: fastrnn.GRU(5, kernel_initializer="zeros"),
            "init={'weight_ih': 'keras'}",
        ),
        (
            lambda: fastrnn.Embedding(3, 5, embeddings_initializer="uniform"),
            "; init='keras' is uniform",
        ),
        (
            lambda: fastrnn.RNN(5, recurrent_activation="tanh"),
            "; this cell has no gates",
        ),
        (lambda: fastrnn.Dense(5, kernel_regularizer="l2"), "; .*: weight_decay="),
        (lambda: fastrnn.Dropout(0.5, rate=0.5), r"^Dropout.* multiple values"),
        (lambda: fastrnn.Dropout(p=0.5, rate=0.5), r"^Dropout\(\) got 'p' also as 'ra"),
        (
            lambda: fastrnn.LSTM(5, name="lstm"),
            r"^LSTM\(\) has no argument 'name'; lay",
        ),
        (lambda: fastrnn.Dense(5, "relu", True), "must be given by name, got True"),
        (lambda: fastrnn.Dense(5, unit=3), r"'unit'; did you mean units or init\?"),
        (
            lambda: fastrnn.Attention(3, 4, heads=2),
            r"^Attention\(\) has no argument 'h",
        ),
        (lambda: fastrnn.Input(3), r"^Input: shape must be a tuple of integers, got 3"),
        (lambda: fastrnn.Input(), "^Input: one of shape and batch_shape must be given"),
        (
            lambda: fastrnn.Sequential([fastrnn.Dense(5, input_shape=8)]),
            "^Linear: input_shape must be a tuple of integers, got 8",
        ),
        (
            lambda: fastrnn.Sequential(fastrnn.Dense(5), fastrnn.Input((3,))),
            "^Sequential: layer 1 must be a Module, got Input; an Input comes first",
        ),
        (
            lambda: fastrnn.LSTM(3, 5)(fastrnn.Input((7, 3))),
            "^LSTM: x .*, got Input: an Input is the first layer of .*; .*Functional",
        ),
    ],
)
def test_answers(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_words_that_ask_for_what_is_done_anyway():
    layer = fastrnn.LSTM(
        5, dropout=0.0, recurrent_dropout=0, unroll=False, return_state=False,
        name=None, trainable=True,
    )  # fmt: skip
    assert repr(layer) == "LSTM(None, 5, batch_first=True, return_sequences=False)"
    with pytest.raises(TypeError, match="'unroll'; leave it out: the kernels run over"):
        fastrnn.LSTM(5, unroll=True)


def test_an_input_shape_that_the_layers_do_not_fit():
    with pytest.raises(ValueError, match=r"must have shape .*, got \(1, 7, 3\)"):
        fastrnn.Sequential([fastrnn.Input((7, 3)), fastrnn.LSTM(4, 5)])


def test_weights_in_a_list(rng):
    one, two = (
        fastrnn.Sequential(fastrnn.GRU(3, 4), fastrnn.Dense(4, 1)) for _ in "ab"
    )
    two.set_weights(one.get_weights())
    np.testing.assert_array_equal(one.flat_parameters, two.flat_parameters)
    layer, kept = one[1], one[1].get_weights()
    assert [array.shape for array in kept] == [(1, 4), (1,)]
    kept[0][...] = 7  # a copy
    assert not np.any(layer.parameters["weight"] == 7)
    before = layer.flat_parameters.copy()
    for wrong in ([kept[0]], [kept[0].T, kept[1]]):
        with pytest.raises(
            ValueError, match=r"^Linear.set_weights: weights must have .*"
        ):
            layer.set_weights(wrong)
    np.testing.assert_array_equal(layer.flat_parameters, before)
    with pytest.raises(ValueError, match="its input size is not known yet"):
        fastrnn.Dense(3).get_weights()


@pytest.mark.parametrize(
    ("first", "shapes"),
    [
        (lambda: fastrnn.LSTM(5), [(7, 3), (None, 3), (None, 7, 3), (None, None, 3)]),
        (lambda: fastrnn.Embedding(9, 4), [(7,), (None,), (None, 7), (None, None)]),
        (lambda: fastrnn.Dense(5), [(3,), (None, 3), (None, 7, 3)]),
        (lambda: fastrnn.Masking(), [(7, 3), (None, 7, 3)]),
    ],
)
def test_build_takes_kerass_shapes_too(first, shapes):
    for shape in shapes:
        parts = [first(), fastrnn.Dense(2)]
        if isinstance(parts[0], fastrnn.Masking):
            parts.insert(1, fastrnn.LSTM(5))
        model = fastrnn.Sequential(parts)
        assert is_built(model.build(shape))


def test_attributes_of_kerass():
    model = fastrnn.Sequential([fastrnn.LSTM(3, 5)])
    with pytest.raises(
        AttributeError, match=r"'load_weights'; here that is load\(path"
    ):
        model.load_weights("a")
    with pytest.raises(AttributeError, match=r"'Sequential' object has no .* 'width'$"):
        model.width  # noqa: B018
    assert not hasattr(model, "pop")

    assert "load_weights" not in dir(model)
    with pytest.raises(AttributeError, match="Sequential has no attribute 'weights'"):
        model.weights = []
