# SPDX-License-Identifier: BSD-3-Clause
"""Options of Keras layers, masks and activations: outputs and training as Keras's."""

import numpy as np
import pytest

h5py = pytest.importorskip("h5py", reason="h5py is not installed")

import tolerances  # noqa: E402
from keras_models import GATES, B, H, I, T, made, run, saved  # noqa: E402
from keras_training import trained  # noqa: E402
from peers import close  # noqa: E402

import fastrnn  # noqa: E402
import fastrnn.keras  # noqa: E402
from fastrnn.keras import _options  # noqa: E402
from fastrnn.nn import activation  # noqa: E402

# Of Keras's own get_weights() on PyTorch.
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")


FUNCTIONS = sorted({*_options.FUNCTIONS} - {"sigmoid"})
OPTIONS = [
    *(("SimpleRNN", {"activation": name}) for name in FUNCTIONS),
    ("LSTM", {"activation": "relu", "recurrent_activation": "hard_sigmoid"}),
    ("LSTM", {"activation": "gelu", "recurrent_activation": "softsign"}),
    ("LSTM", {"unit_forget_bias": True, "activation": "elu"}),
    ("GRU", {"activation": "leaky_relu", "recurrent_activation": "hard_sigmoid"}),
    ("GRU", {"reset_after": False}),
    ("GRU", {"reset_after": False, "use_bias": False, "activation": None}),
    *((kind, {"return_sequences": False}) for kind in GATES),
    *((kind, {"go_backwards": True}) for kind in GATES),
    ("GRU", {"go_backwards": True, "return_sequences": False, "reset_after": False}),
    ("LSTM", {"unroll": True, "implementation": 1}),
]


@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
def test_options(tmp_path, rng, keras, kind, options):
    options = {"return_sequences": True, **options}
    theirs = made(keras, [getattr(keras.layers, kind)(H, **options)])
    ours = fastrnn.keras.load(saved(theirs, tmp_path / "model.keras"))
    x = rng.standard_normal((B, T, I)).astype("f")
    trained(keras, theirs, ours, x)
    ours.save(tmp_path / "ours.safetensors")  # and the options with it
    again = fastrnn.load_model(tmp_path / "ours.safetensors")
    assert np.array_equal(again.eval()(x), ours.eval()(x))


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("SimpleRNN", {"activation": "softsign"}),
        ("LSTM", {"recurrent_activation": "hard_sigmoid"}),
        ("GRU", {"reset_after": False}),
    ],
    ids=str,
)
def test_both_directions(tmp_path, rng, keras, kind, options, sequences, merge_mode):
    layers = keras.layers
    cell = getattr(layers, kind)(H, return_sequences=sequences, **options)
    theirs = made(
        keras, [layers.Bidirectional(cell, merge_mode=merge_mode), layers.Dense(2)]
    )
    suffix = "keras" if sequences else "h5"
    ours = fastrnn.keras.load(saved(theirs, tmp_path / f"model.{suffix}"))
    trained(keras, theirs, ours, rng.standard_normal((B, T, I)).astype("f"))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", GATES)
def test_stateful_layers(tmp_path, rng, keras, suffix, kind, bidirectional):
    layer = getattr(keras.layers, kind)(H, return_sequences=True, stateful=True)
    if bidirectional:
        layer = keras.layers.Bidirectional(layer)
    theirs = keras.Sequential([keras.Input(batch_shape=(B, T, I)), layer])
    ours = fastrnn.keras.load(saved(theirs, tmp_path / f"model.{suffix}"))
    for again in (False, False, True):
        if again:
            layer.reset_states() if bidirectional else layer.reset_state()
            ours[0].reset_state()
        x = rng.standard_normal((B, T, I)).astype("f")
        close(ours(x), run(keras, theirs, x))


def masked_input(rng):
    """Steps of zeros at the ends, inside, at the beginning, and everywhere."""
    x = rng.standard_normal((B, T, I)).astype("f")
    x[0, 4:] = x[1, :2] = x[1, 3] = x[2] = 0
    return x


def masked_models(layers):
    return {
        "rnn": [layers.SimpleRNN(H, return_sequences=True), layers.Dense(2)],
        "two": [layers.LSTM(H, return_sequences=True), layers.GRU(4), layers.Dense(2)],
        "dense": [
            layers.Dense(I, use_bias=False, activation="tanh"),
            layers.LSTM(H, go_backwards=True),
        ],
        "both": [
            layers.Bidirectional(layers.GRU(H, return_sequences=True), "sum"),
            layers.Bidirectional(layers.LSTM(H, return_sequences=True)),
            layers.Bidirectional(layers.SimpleRNN(H), "mul"),
        ],
    }


@pytest.mark.parametrize("name", ["rnn", "two", "dense", "both"])
def test_masked_steps(tmp_path, rng, keras, suffix, name):
    masking = keras.layers.Masking()
    theirs = made(keras, [masking, *masked_models(keras.layers)[name]])
    ours = fastrnn.keras.load(saved(theirs, tmp_path / f"model.{suffix}"))
    x = masked_input(rng)
    if name == "rnn":  # Keras's loss would leave out masked outputs, too
        close(ours.eval()(x), run(keras, theirs, x))
    else:
        trained(keras, theirs, ours, x)
    ours.save(tmp_path / "ours.safetensors")
    again = fastrnn.load_model(tmp_path / "ours.safetensors")
    assert np.array_equal(again.eval()(x), ours.eval()(x))


def test_an_embedding_that_masks(tmp_path, rng, keras, suffix):
    layers = keras.layers
    theirs = made(
        keras,
        [layers.Embedding(7, I, mask_zero=True), layers.LSTM(H), layers.Dense(2)],
        (None,),
    )
    ours = fastrnn.keras.load(saved(theirs, tmp_path / f"model.{suffix}"))
    x = rng.integers(0, 7, (B, T))
    x[0, 3:] = x[1] = 0
    trained(keras, theirs, ours, x)


def test_a_masked_model_fits(rng, capsys):
    model = fastrnn.keras.MaskedSequential(
        fastrnn.keras.Masking(),
        fastrnn.GRU(I, H, batch_first=True),
        fastrnn.Linear(H, 1),
    )
    x = masked_input(rng)
    model.compile("mse", "sgd", lr=0.1)
    history = model.fit(x, np.ones((B, T, 1), "f"), epochs=5, verbose=0, seed=1)
    assert history.history["loss"][-1] < history.history["loss"][0]
    model.summary()
    assert "GRU" in capsys.readouterr().out
    y, states = model.forward_from(x)
    assert np.array_equal(y, model(x))
    assert states[1].shape == (1, B, H)


def test_masking(rng):
    layer = fastrnn.keras.Masking(2, batch_first=False)
    x = rng.standard_normal((T, B, I))
    x[1, 2] = 2
    x[0, 0, 1] = 2  # one feature of several: not masked
    mask = layer.mask(x)
    assert mask.shape == (B, T)
    assert np.argwhere(~mask).tolist() == [[2, 1]]
    y = layer(x)
    assert not y[1, 2].any()
    assert np.array_equal(np.delete(y, 1, 0), np.delete(x, 1, 0))
    dx = layer.backward(np.ones_like(y))
    assert not dx[1, 2].any()
    assert dx.sum() == (T * B - 1) * I
    assert repr(layer) == "Masking(2)"
    assert repr(fastrnn.keras.Masking(indices=True)) == "Masking(0, indices=True)"
    with pytest.raises(ValueError, match=r"Masking: x must have shape \(T, B, feat"):
        layer(x[0])
    with pytest.raises(RuntimeError, match="context was already used"):
        layer.backward(y)


# -- Activation ------------------------------------------------------------------------


@pytest.mark.parametrize("function", activation.FUNCTIONS)
def test_activation(rng, function):
    layer = fastrnn.keras.Activation(function)
    x, dy = rng.standard_normal((2, 3, 5)), rng.standard_normal((2, 3, 5))
    y = layer(x)
    dx = layer.backward(dy)
    step = tolerances.CENTRAL_STEP
    for index in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[index] = step
        slope = ((layer(x + moved) - layer(x - moved)) * dy).sum() / (2 * step)
        assert abs(slope - dx[index]) < tolerances.CENTRAL_RTOL * np.abs(dy).sum()
    large = layer(np.array([[-1e4, 0, 1e4]]))
    assert np.isfinite(large).all()
    assert layer(x.astype("f")).dtype == np.float32
    assert y.dtype == np.float64


@pytest.mark.parametrize("function", activation.FUNCTIONS)
def test_activations_are_those_of_keras(tmp_path, rng, keras, function):
    theirs = made(keras, [keras.layers.Dense(H, activation=function)])
    ours = fastrnn.keras.load(saved(theirs, tmp_path / "model.keras"))
    trained(keras, theirs, ours, rng.standard_normal((B, T, I)).astype("f"))


def test_activation_refuses():
    with pytest.raises(ValueError, match="Activation: function must be one of 'elu'"):
        fastrnn.keras.Activation("gelu")
    layer = fastrnn.keras.Activation("tanh")
    with pytest.raises(RuntimeError, match="backward needs a forward"):
        layer.backward(np.ones(3))
    layer(np.ones(3))
    with pytest.raises(ValueError, match="dy must have the shape of y"):
        layer.backward(np.ones(4))
    assert repr(layer) == "Activation('tanh')"
