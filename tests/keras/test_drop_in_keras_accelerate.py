# SPDX-License-Identifier: BSD-3-Clause
"""`accelerate`, `restore`, and files that plain Keras loads."""

import copy
import json
import pickle
import zipfile

import numpy as np
import pytest

import fastrnn.keras as ours

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You are saving your model:UserWarning"),
]
X = np.random.default_rng(0).standard_normal((4, 6, 3)).astype("float32")


@pytest.fixture
def model(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6, 3)),
            layers.Bidirectional(
                layers.LSTM(5, return_sequences=True, name="lstm"), name="both"
            ),
            layers.GRU(4, return_sequences=True, activation="swish", name="swish"),
            layers.SimpleRNN(4, name="last"),
        ],
        name="model",
    )


def predicted(model):
    return model.predict(X, verbose=0)


def classes(keras, model):
    """The classes of recurrent layers, by their names."""
    return {
        layer.name: type(layer)
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.RNN)
    }


def test_layers_change_their_class_and_nothing_else(keras, model, capsys):
    model.compile("adam", "mse")
    before, weights = predicted(model), model.get_weights()
    objects = [*map(id, model._flatten_layers()), *map(id, model.variables)]
    assert ours.accelerate(model) is model
    assert capsys.readouterr().out.splitlines() == [
        "fastrnn.keras: replaced model/both/backward_lstm: LSTM",
        "fastrnn.keras: replaced model/both/forward_lstm: LSTM",
        "fastrnn.keras: replaced model/swish: GRU, but Keras runs it: the kernels have "
        "no activation silu",
        "fastrnn.keras: replaced model/last: SimpleRNN",
    ]
    assert [*map(id, model._flatten_layers()), *map(id, model.variables)] == objects
    assert set(classes(keras, model).values()) == {ours.LSTM, ours.GRU, ours.SimpleRNN}
    np.testing.assert_allclose(predicted(model), before, atol=1e-6, rtol=0)
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    ours.accelerate(model)
    assert capsys.readouterr().out.count("it is fastrnn's already") == 4
    assert ours.restore(model) is model
    layers = keras.layers
    assert set(classes(keras, model).values()) == {
        layers.LSTM,
        layers.GRU,
        layers.SimpleRNN,
    }
    np.testing.assert_array_equal(predicted(model), before)


def test_an_optimiser_that_was_there_goes_on(keras, model):
    model.compile("adam", "mse")
    target = np.ones((4, 4), "float32")
    losses = [float(model.train_on_batch(X, target)) for _ in range(2)]
    ours.accelerate(model, verbose=False)
    losses += [float(model.train_on_batch(X, target)) for _ in range(2)]
    assert losses == sorted(losses, reverse=True)
    assert int(model.optimizer.iterations) == 4


def test_what_is_left_as_it_is(keras, capsys):
    class Own(keras.layers.LSTM):
        pass

    layers = keras.layers
    for layer, reason in (
        (Own(2), "Own is a class of its own"),
        (layers.RNN(layers.GRUCell(2)), "it runs a cell, GRUCell"),
        (layers.ConvLSTM1D(2, 3), "ConvLSTM1D is a class of its own"),
    ):
        kind = type(layer)
        ours.accelerate(layer)
        assert type(layer) is kind
        assert reason in capsys.readouterr().out


def test_a_class_that_derives_from_ours_runs_on_the_kernels(keras):
    class Doubled(ours.LSTM):
        def inner_loop(self, sequences, initial_state, mask, training=False):
            last, *rest = super().inner_loop(sequences, initial_state, mask, training)
            return 2 * last, *rest

    layer, plain = Doubled(4, seed=1), ours.LSTM(4, seed=1)
    layer.build(X.shape)
    plain.build(X.shape)
    plain.set_weights(layer.get_weights())
    a, b = (keras.ops.convert_to_numpy(one(X)) for one in (layer, plain))
    np.testing.assert_array_equal(a, 2 * b)
    assert ours.explain(layer, X).name == "fastrnn"
    assert keras.saving.serialize_keras_object(layer)["class_name"] == "Doubled"


def test_configurations_name_keras_s_classes(keras):
    for kind in (ours.LSTM, ours.GRU, ours.SimpleRNN):
        theirs = getattr(keras.layers, kind.__name__)
        made = [cls(3, seed=1, name="layer") for cls in (kind, theirs)]
        mine, stock = map(keras.saving.serialize_keras_object, made)
        assert mine == stock
        assert type(kind.from_config(made[0].get_config())) is kind


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_saved_model_is_one_of_plain_keras(keras, model, tmp_path, suffix):
    pytest.importorskip("h5py")
    ours.accelerate(model, verbose=False)
    path = tmp_path / f"model{suffix}"
    model.save(path)
    if suffix == ".keras":
        with zipfile.ZipFile(path) as file:
            config = file.read("config.json").decode()
        assert "fastrnn" not in config
        assert json.loads(config)["config"]["layers"][3]["module"] == "keras.layers"
    loaded = keras.models.load_model(path)
    assert {
        kind.__module__.partition(".")[0] for kind in classes(keras, loaded).values()
    } == {"keras"}
    np.testing.assert_allclose(predicted(loaded), predicted(model), atol=1e-6)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_copies_compute_the_same(keras, model, copied):
    pytest.importorskip("h5py")
    ours.accelerate(model, verbose=False)
    twin = copied(model)
    np.testing.assert_allclose(predicted(twin), predicted(model), atol=1e-6)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(predicted(clone), predicted(model), atol=1e-6)


def test_bidirectional_keeps_the_class_of_its_layer(keras):
    layers = keras.layers
    plain = layers.Bidirectional(layers.GRU(3))
    assert type(plain.forward_layer) is type(plain.backward_layer) is layers.GRU
    given = layers.GRU(3, go_backwards=True)
    mixed = layers.Bidirectional(ours.GRU(3), backward_layer=given)
    assert type(mixed.forward_layer) is ours.GRU
    assert mixed.backward_layer is given
    assert type(given) is layers.GRU
    again = layers.Bidirectional.from_config(mixed.get_config())
    assert again.forward_layer.units == 3


def test_weights_that_change_between_calls_are_seen(keras):
    layer = ours.LSTM(4)
    before = keras.ops.convert_to_numpy(layer(X))
    layer.set_weights([2 * w for w in layer.get_weights()])
    after = keras.ops.convert_to_numpy(layer(X))
    assert np.abs(after - before).max() > 1e-3
    twin = keras.layers.LSTM(4)
    twin.build(X.shape)
    twin.set_weights(layer.get_weights())
    expected = keras.ops.convert_to_numpy(twin(X))
    np.testing.assert_allclose(after, expected, atol=1e-6, rtol=0)
