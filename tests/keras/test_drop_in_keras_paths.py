# SPDX-License-Identifier: BSD-3-Clause
"""What the kernels do not run goes Keras's way, and `explain` says why."""

import importlib
import sys

import numpy as np
import pytest

import fastrnn.keras as ours
from tests.support.keras_layers import twins

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
X = np.random.default_rng(0).standard_normal((4, 6, 3)).astype("float32")
REFUSED = [
    ("LSTM", {"activation": "swish"}, "the kernels have no activation silu"),
    ("GRU", {"recurrent_activation": "relu6"}, "no recurrent_activation relu6"),
    ("LSTM", {"unroll": True}, "unroll=True asks for Keras's own loop"),
    ("SimpleRNN", {"dtype": "mixed_bfloat16"}, "it computes in bfloat16"),
]
REFUSED_IN_TRAINING = [
    ("LSTM", {"recurrent_dropout": 0.4, "seed": 1}, "recurrent_dropout=0.4 acts"),
    ("SimpleRNN", {"dropout": 1.0, "seed": 1}, "dropout=1.0"),
]


def assert_as_keras(keras, pair, x=X, **options):
    """Both layers return the same, to the bit."""
    theirs, mine = (keras.ops.convert_to_numpy(layer(x, **options)) for layer in pair)
    np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(("layer", "options", "reason"), REFUSED)
def test_what_a_layer_has_that_the_kernels_do_not(keras, layer, options, reason):
    pair = twins(keras, ours, layer, **options)
    for path in (ours.explain(pair[1]), ours.explain(pair[1], X)):
        assert path.name == "Keras"
        assert reason in path.reason
    assert_as_keras(keras, pair)


@pytest.mark.parametrize(("layer", "options", "reason"), REFUSED_IN_TRAINING)
def test_what_only_acts_in_training(keras, layer, options, reason):
    pair = twins(keras, ours, layer, **options)
    assert ours.explain(pair[1], X).name == "fastrnn"
    path = ours.explain(pair[1], X, training=True)
    assert path.name == "Keras"
    assert reason in str(path)
    assert_as_keras(keras, pair, training=True)


def test_dropout_with_a_mask_for_each_gate_is_left_to_keras(keras):
    layer = ours.GRU(5, dropout=0.5, implementation=1)
    layer.build(X.shape)
    problem = importlib.import_module("fastrnn.keras.drop_in.paths").call_problem
    state = [keras.ops.zeros((4, 5))]
    x = keras.ops.convert_to_tensor(X)
    assert "a mask for each gate" in problem(layer, x, state, None, True)
    assert problem(layer, x, state, None, False) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x": X[:0]}, "the input is empty"),
        ({"x": X.astype("complex64")}, "complex64"),
        ({"states": [X[:1, 0, :1]]}, "an initial state has shape (1, 1)"),
        ({"states": []}, "there are 0 initial states"),
        ({"mask": X > 0}, "the mask has shape (4, 6, 3), not (4, 6)"),
        ({"x": X[:, :, :2]}, "Keras refuses an input of shape (4, 6, 2)"),
        ({"training": X}, "training is a"),
    ],
)
def test_what_a_call_has_that_the_kernels_do_not(keras, change, reason):
    paths = importlib.import_module("fastrnn.keras.drop_in.paths")
    _, layer = twins(keras, ours, "GRU")
    call = {"x": X, "states": [np.zeros((4, 5), "float32")], "mask": None}
    call = {**call, "training": False, **change}
    tensor = keras.ops.convert_to_tensor
    for name in ("x", "mask"):
        call[name] = None if call[name] is None else tensor(call[name])
    call["states"] = [tensor(state) for state in call["states"]]
    assert reason in paths.call_problem(layer, **call)


def test_a_cell_of_another_class(keras):
    _, layer = twins(keras, ours, "LSTM")

    class Doubled(keras.layers.LSTMCell):
        def call(self, inputs, states, training=False):
            y, states = super().call(inputs, states, training=training)
            return 2 * y, states

    layer.cell.__class__ = Doubled
    assert (
        ours.explain(layer, X).reason == "its cell is a Doubled, not Keras's LSTMCell"
    )


def test_a_model_is_explained_by_its_layers_and_keeps_its_state(keras):
    layers = keras.layers
    inputs = keras.Input((6, 3), batch_size=4)
    y = ours.LSTM(5, return_sequences=True, stateful=True, name="ours")(inputs)
    y = layers.GRU(5, return_sequences=True, dropout=0.5, name="theirs")(y)
    y = layers.RNN(layers.LSTMCell(2), return_sequences=True, name="cell")(y)
    y = layers.BatchNormalization()(layers.TimeDistributed(layers.Dense(2))(y))
    model = keras.Model(inputs, y)
    before = [keras.ops.convert_to_numpy(v) for v in model.variables]
    found = ours.explain(model, X, training=True)
    assert {name.rpartition("/")[2]: path.name for name, path in found.items()} == {
        "ours": "fastrnn",
        "theirs": "Keras",
        "cell": "Keras",
    }
    assert "it is Keras's own GRU: accelerate replaces it" in str(found)
    assert "it runs a cell, LSTMCell" in str(found)
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, keras.ops.convert_to_numpy(variable))


def test_a_layer_that_a_call_does_not_reach(keras):
    class Halves(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = ours.LSTM(2), ours.GRU(2)

        def build(self, shape):
            self.first.build(shape)
            self.second.build(shape)

        def call(self, x, which=True):
            return self.first(x) if which else self.second(x)

    model = Halves()
    model.build(X.shape)
    found = [str(path) for path in ours.explain(model, X).values()]
    assert sorted(found)[0] == "Keras: it was not called"


@pytest.mark.parametrize("wrong", [3, np.zeros(3), None])
@pytest.mark.parametrize("name", ["explain", "accelerate", "restore"])
def test_only_a_layer_or_a_model_of_keras(keras, name, wrong):
    with pytest.raises(
        TypeError, match=rf"^fastrnn\.keras\.{name}: model must be a la"
    ):
        getattr(ours, name)(wrong)


def test_a_model_without_recurrent_layers(keras, capsys):
    with pytest.raises(TypeError, match=r"explain: model must be or hold a recurrent"):
        ours.explain(keras.layers.Dense(2))
    ours.accelerate(keras.layers.Dense(2))
    assert capsys.readouterr().out == (
        "fastrnn.keras: Dense has no keras.layers.LSTM, GRU or SimpleRNN\n"
    )


def test_without_keras_the_names_say_what_to_install(monkeypatch):
    for name in [*sys.modules]:
        if name == "keras" or name.startswith("fastrnn.keras.drop_in"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "keras", None)
    for name in ("LSTM", "accelerate", "explain"):
        with pytest.raises(ModuleNotFoundError, match="pip install keras"):
            getattr(ours, name)
    with pytest.raises(AttributeError, match="did you mean LSTM"):
        _ = ours.LSTMS
