# SPDX-License-Identifier: BSD-3-Clause
"""Keras files and weights on our layers: Keras's results, and what is refused."""

import itertools
import json
import sys
import zipfile

import numpy as np
import pytest

h5py = pytest.importorskip("h5py", reason="h5py is not installed")

from keras_models import GATES, OURS, B, H, I, T, made, run, saved  # noqa: E402
from peers import close  # noqa: E402
from tolerances import chain_terms  # noqa: E402

import fastrnn  # noqa: E402
import fastrnn.keras  # noqa: E402
from fastrnn.keras import _options  # noqa: E402

# Of Keras's own get_weights() on PyTorch.
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")


# -- files that Keras writes -----------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("kind", GATES)
def test_recurrent_layers(
    tmp_path, rng, keras, suffix, dtype, kind, use_bias, bidirectional
):
    layer = getattr(keras.layers, kind)(
        H, return_sequences=True, use_bias=use_bias, dtype=dtype
    )
    if bidirectional:
        layer = keras.layers.Bidirectional(layer, dtype=dtype)
    theirs = made(keras, [layer], dtype=dtype)
    ours = fastrnn.keras.load(saved(theirs, tmp_path / f"model.{suffix}"))
    assert type(ours[0]) is OURS[kind]
    assert ours[0].bias == use_bias
    assert ours.dtype == dtype
    x = rng.standard_normal((B, T, I)).astype(dtype)
    n_terms = chain_terms(T, B, I, H, GATES[kind])
    # Keras's SimpleRNN on PyTorch goes through float32 whatever its dtype is.
    precision = "float32" if kind == "SimpleRNN" else dtype
    close(ours(x), run(keras, theirs, x), n_terms, precision)


def whole_model(keras):
    layers = keras.layers
    return [
        layers.Embedding(11, 7),
        layers.Dropout(0.25),
        layers.LSTM(H, return_sequences=True),
        layers.Bidirectional(layers.GRU(4, return_sequences=True)),
        layers.SimpleRNN(H, activation="relu", return_sequences=True),
        layers.LSTM(6, return_sequences=True),  # the second of its class
        layers.TimeDistributed(layers.Dense(5, activation="relu")),
        layers.Dense(4, activation="tanh", use_bias=False),
        layers.Activation("sigmoid"),
        layers.Activation("linear"),
        layers.ReLU(),
        layers.Dense(3),
        layers.Softmax(),
    ]


def test_a_whole_model(tmp_path, rng, keras, suffix):
    theirs = made(keras, whole_model(keras), (None,))
    path = saved(theirs, tmp_path / f"model.{suffix}")
    ours = fastrnn.keras.load(path)
    names = [type(layer).__name__ for layer in ours]
    assert " ".join(names) == (
        "Embedding Dropout LSTM GRU RNN LSTM Linear Activation Linear Activation "
        "Activation Activation Linear Activation"
    )
    assert ours[1].p == 0.25
    x = rng.integers(0, 11, (B, T))
    close(ours.eval()(x), run(keras, theirs, x))
    ours.train()(x)
    ours.backward(np.ones((B, T, 3), "f"))  # it can be trained on


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}], ids=str)
def test_layer_normalization(tmp_path, rng, keras, suffix, options):
    layers = keras.layers
    theirs = made(
        keras,
        [
            layers.LayerNormalization(epsilon=0.01, **options),
            layers.GRU(H, return_sequences=True),
            layers.TimeDistributed(layers.LayerNormalization(**options)),
        ],
    )
    ours = fastrnn.keras.load(saved(theirs, tmp_path / f"model.{suffix}"))
    assert ours[0].eps == 0.01
    x = rng.standard_normal((B, T, I)).astype("f")
    close(ours(x), run(keras, theirs, x))


def test_a_normalisation_of_other_axes_is_refused(tmp_path, keras):
    path = saved(
        made(keras, [keras.layers.LayerNormalization(1)], (T, I)), tmp_path / "m.keras"
    )
    with pytest.raises(ValueError, match=r"axis must be \[-1\] or -1, got \[1\]"):
        fastrnn.keras.load(path)


def test_functional_models(tmp_path, rng, keras, suffix):
    layers = keras.layers
    start = keras.Input((T, I))
    x = layers.GRU(H, return_sequences=True)(start)
    theirs = keras.Model(
        start, layers.Dense(2)(layers.LSTM(4, return_sequences=True)(x))
    )
    ours = fastrnn.keras.load(saved(theirs, tmp_path / f"model.{suffix}"))
    x = rng.standard_normal((B, T, I)).astype("f")
    close(ours(x), run(keras, theirs, x))


REFUSED = [
    ("GRU", {"activation": "selu"}, "activation must be 'elu' or .*got 'selu'"),
    ("LSTM", {"recurrent_activation": "swish"}, "recurrent_activation must be .*'silu"),
    ("SimpleRNN", {"activation": "exponential"}, "must be .* got 'exponential'"),
]


@pytest.mark.parametrize(
    ("kind", "options", "message"), REFUSED, ids=[str(case[1]) for case in REFUSED]
)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_options_that_are_not_computed(
    tmp_path, keras, suffix, kind, options, message, bidirectional
):
    options = {"return_sequences": True, **options}
    layer = getattr(keras.layers, kind)(H, name="cell", **options)
    name = "cell"
    if bidirectional:
        layer, name = keras.layers.Bidirectional(layer, name="both"), "both"
    path = saved(made(keras, [layer]), tmp_path / f"model.{suffix}")
    with pytest.raises(ValueError, match=message) as caught:
        fastrnn.keras.load(path)
    text = str(caught.value)
    assert text.startswith(f"fastrnn.keras.load: {path}: layer {name!r} (")
    assert text.endswith("which fastrnn's layers do not compute")


@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM"])
@pytest.mark.parametrize(
    "options", [{"dropout": 0.3}, {"recurrent_dropout": 0.4}], ids=str
)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_dropout_trains_with_the_same_expectation(
    tmp_path, rng, keras, suffix, kind, bidirectional, options
):
    """Means and deviations of outputs in training, over many rows of the same."""
    layer = getattr(keras.layers, kind)(H, return_sequences=True, **options)
    if bidirectional:
        layer = keras.layers.Bidirectional(layer)
    theirs = made(keras, [layer])
    ours = fastrnn.keras.load(saved(theirs, tmp_path / f"model.{suffix}"))
    (read,) = (ours[0],) if bidirectional else ours
    found = {"dropout": read.input_dropout, "recurrent_dropout": read.recurrent_dropout}
    assert found == {"dropout": 0.0, "recurrent_dropout": 0.0} | options
    by_gate = kind != "SimpleRNN" and "recurrent_dropout" in options
    assert read.recurrent_dropout_mode == ("per_gate" if by_gate else "h")
    x = np.repeat(rng.standard_normal((1, T, I)).astype("f"), 4000, axis=0)
    got = ours.train()(x)
    want = np.asarray(keras.ops.convert_to_numpy(theirs(x, training=True)))
    spread = np.sqrt((got.var(0) + want.var(0)) / len(x)) + 1e-6
    assert (abs(got.mean(0) - want.mean(0)) < 6 * spread).all()
    np.testing.assert_allclose(got.std(0), want.std(0), rtol=0.2, atol=0.01)


@pytest.mark.parametrize("p", [-0.5, 1.5, "much", True])
def test_dropout_that_is_no_probability(p):
    """A file may say anything."""
    config = {"dropout": p}
    with pytest.raises(ValueError, match=r"dropout must be a number in \[0, 1\], got"):
        _options.dropout_arguments("load", "a layer", "LSTM", config)


def refused_layers(layers):
    cell = layers.LSTM(H, return_sequences=True)
    return {
        "is not one of the layers that can be read: Activation, ": (
            layers.UnitNormalization()
        ),
        "both directions must have the same activation, got 'tanh' and 'relu'": (
            layers.Bidirectional(
                cell,
                backward_layer=layers.LSTM(
                    H, "relu", return_sequences=True, go_backwards=True
                ),
            )
        ),
        "activation must be 'linear' or .*, got 'gelu'": layers.Dense(2, "gelu"),
        "max_value must be None, got 6": layers.ReLU(6.0),
        "axis must be -1, got 1": layers.Softmax(1),
        "noise_shape must be None": layers.Dropout(0.5, noise_shape=(1, 1, I)),
        r"layer 'td/UnitNormalization' \(UnitNorm.* is not one of the layers": (
            layers.TimeDistributed(layers.UnitNormalization(), name="td")
        ),
        "must have scale or center to say": (
            layers.LayerNormalization(scale=False, center=False)
        ),
        r"both directions must have the same units, got 5 and 4": layers.Bidirectional(
            cell,
            backward_layer=layers.LSTM(4, return_sequences=True, go_backwards=True),
        ),
        "both directions must be of one class, got LSTM and GRU": layers.Bidirectional(
            cell,
            backward_layer=layers.GRU(H, return_sequences=True, go_backwards=True),
        ),
    }


@pytest.mark.parametrize("k", range(10))
def test_layers_that_are_not_computed(tmp_path, keras, k):
    message, layer = list(refused_layers(keras.layers).items())[k]
    path = saved(made(keras, [layer]), tmp_path / "model.keras")
    with pytest.raises(ValueError, match=message):
        fastrnn.keras.load(path)


def test_inference_passes_over_what_acts_in_training(tmp_path, rng, keras, suffix):
    layers = keras.layers
    theirs = made(
        keras,
        [
            layers.GaussianNoise(0.1),
            layers.LSTM(H, return_sequences=True, dropout=0.2, recurrent_dropout=0.3),
            layers.Dropout(0.5),
        ],
    )
    path = saved(theirs, tmp_path / f"model.{suffix}")
    ours = fastrnn.keras.load(path, inference=True)
    assert [type(layer).__name__ for layer in ours] == ["LSTM"]
    assert not ours.training
    x = rng.standard_normal((B, T, I)).astype("f")
    close(ours(x), run(keras, theirs, x))


# -- files of Keras 2 ------------------------------------------------------------------


def keras_2_file(path, kind, weights, model_class="Sequential", **options):
    """The parts of a Keras 2 file that matter, written by hand."""
    config = {
        "name": "cell",
        "batch_input_shape": [None, None, I],
        "units": H,
        "return_sequences": True,
        "activation": "tanh",
        "implementation": 2,
        **options,
    }
    layer = {"class_name": kind, "config": config}
    if model_class == "Sequential":
        layers = {"name": "sequential", "layers": [layer]}
    else:
        start = {
            "class_name": "InputLayer",
            "config": {"name": "input_1"},
            "name": "input_1",
            "inbound_nodes": [],
        }
        layer |= {"name": "cell", "inbound_nodes": [[["input_1", 0, 0, {}]]]}
        layers = {
            "layers": [start, layer],
            "input_layers": [["input_1", 0, 0]],
            "output_layers": [["cell", 0, 0]],
        }
    names = [f"cell/{name}:0" for name in ("kernel", "recurrent_kernel", "bias")]
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(
            {"class_name": model_class, "config": layers}
        )
        group = file.create_group("model_weights/cell")
        group.attrs["weight_names"] = [name.encode() for name in names]
        for name, array in zip(names, weights, strict=True):
            group[name] = array
    return path


@pytest.mark.parametrize("model_class", ["Sequential", "Model", "Functional"])
@pytest.mark.parametrize("kind", GATES)
def test_files_of_keras_2(tmp_path, rng, kind, model_class):
    width = GATES[kind] * H
    shapes = [(I, width), (H, width), (2, width) if kind == "GRU" else (width,)]
    weights = [rng.standard_normal(shape).astype("f") for shape in shapes]
    options = {"reset_after": True} if kind == "GRU" else {}
    path = keras_2_file(tmp_path / "old.h5", kind, weights, model_class, **options)
    (layer,) = fastrnn.keras.load(path)
    expected = fastrnn.keras.layer_weights(weights)
    for name, array in layer.parameters.items():
        assert np.array_equal(array, expected[name])


def test_a_gru_older_than_reset_after(tmp_path, rng, keras):
    shapes = [(I, 3 * H), (H, 3 * H), (3 * H,)]
    weights = [0.5 * rng.standard_normal(shape).astype("f") for shape in shapes]
    theirs = made(
        keras, [keras.layers.GRU(H, reset_after=False, return_sequences=True)]
    )
    theirs.set_weights(weights)
    ours = fastrnn.keras.load(keras_2_file(tmp_path / "old.h5", "GRU", weights))
    assert not ours[0].reset_after
    x = rng.standard_normal((B, T, I)).astype("f")
    close(ours(x), run(keras, theirs, x))


@pytest.mark.parametrize(
    ("version", "slope"), [(None, 0.2), ("2.15.0", 0.2), (b"3.4.1", 1 / 6)]
)
def test_hard_sigmoid_changed_with_keras_3(tmp_path, rng, keras, version, slope):
    shapes = [(I, 4 * H), (H, 4 * H), (4 * H,)]
    weights = [rng.standard_normal(shape).astype("f") for shape in shapes]
    theirs = made(
        keras,
        [
            keras.layers.LSTM(
                H,
                recurrent_activation=lambda a: keras.ops.clip(slope * a + 0.5, 0, 1),
                return_sequences=True,
            )
        ],
    )
    theirs.set_weights(weights)
    options = {"recurrent_activation": "hard_sigmoid"}
    path = keras_2_file(tmp_path / "old.h5", "LSTM", weights, **options)
    if version is not None:
        with h5py.File(path, "a") as file:
            file.attrs["keras_version"] = version
    x = rng.standard_normal((B, T, I)).astype("f")
    close(fastrnn.keras.load(path)(x), run(keras, theirs, x))


@pytest.mark.parametrize("reset_after", [False, True])
def test_a_bias_that_says_otherwise(tmp_path, reset_after):
    shape = (3 * H,) if reset_after else (2, 3 * H)
    weights = [np.zeros(one, "f") for one in ((I, 3 * H), (H, 3 * H), shape)]
    path = keras_2_file(tmp_path / "old.h5", "GRU", weights, reset_after=reset_after)
    with pytest.raises(ValueError, match=f"axes with reset_after={reset_after}, got"):
        fastrnn.keras.load(path)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(I, 20), (H, 20), (19,)], r"bias of a LSTM must have shape \(20,\), got"),
        ([(I, 19), (H, 20), (20,)], r"kernel must have shape \(I, 20\) beside"),
        ([(I, 16), (4, 16), (16,)], "must be those of 5 units, got a recurrent kernel"),
        ([(I,), (H, 20), (20,)], "kernels must be matrices"),
        ([(I, 15), (H, 15), (15,)], "must be those of 5 units"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, shapes, message):
    weights = [np.zeros(shape, "f") for shape in shapes]
    path = keras_2_file(tmp_path / "old.h5", "LSTM", weights)
    with pytest.raises(ValueError, match=message):
        fastrnn.keras.load(path)


def test_missing_weights(tmp_path):
    path = keras_2_file(tmp_path / "old.h5", "LSTM", [np.zeros(1)] * 3)
    with h5py.File(path, "a") as file:
        del file["model_weights/cell/cell/bias:0"]
    with pytest.raises(ValueError, match="weights are missing"):
        fastrnn.keras.load(path)
    with h5py.File(path, "a") as file:
        del file["model_weights/cell"]
    with pytest.raises(ValueError, match="must have 3 weights, got 0"):
        fastrnn.keras.load(path)


# -- files that are none ---------------------------------------------------------------


def zip_file(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "."), data)
    return path


def test_damaged_files(tmp_path):
    path = tmp_path / "model.keras"

    def refused(message):
        with pytest.raises(ValueError, match=message):
            fastrnn.keras.load(path)

    path.write_bytes(b"nothing of the kind")
    refused("must be a whole .keras or .h5 file")
    path.write_bytes(b"PK but no zip")
    refused("must be a whole .keras file")
    zip_file(path, config__json="{}")
    refused("must be a whole .keras file, got: .*model.weights.h5")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_group("layers")
    weights = (tmp_path / "w.h5").read_bytes()
    for config, message in (
        ("{", "the configuration must be JSON"),
        ("[]", "must be that of a Keras model"),
        (
            '{"class_name": "Own", "config": {}}',
            "must be a Sequential or functional.*Own",
        ),
    ):
        zip_file(
            path,
            config__json=config,
            model__weights__h5=weights,
            metadata__json='{"keras_version": "3.0.0"}',
        )
        refused(message)
    path.write_bytes(weights)
    refused("must hold a whole model, got weights without configuration")
    with pytest.raises(FileNotFoundError):
        fastrnn.keras.load(tmp_path / "none.keras")


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"needs the package h5py.*fastrnn\[keras\]"):
        fastrnn.keras.load(tmp_path / "model.keras")


# -- weights of one layer --------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "use_bias", "bidirectional"),
    list(itertools.product(GATES, (False, True), (False, True))),
)
def test_layer_weights(rng, keras, kind, use_bias, bidirectional):
    layer = getattr(keras.layers, kind)(H, return_sequences=True, use_bias=use_bias)
    if bidirectional:
        layer = keras.layers.Bidirectional(layer)
    theirs = made(keras, [layer])
    ours = OURS[kind](
        I, H, bias=use_bias, bidirectional=bidirectional, batch_first=True
    )
    x = rng.standard_normal((B, T, I)).astype("f")
    for source in (layer, layer.get_weights()):
        ours.load_state_dict(fastrnn.keras.layer_weights(source))
        close(ours(x)[0], run(keras, theirs, x))


def test_layer_weights_without_reset_after(rng, keras):
    layer = keras.layers.GRU(H, return_sequences=True, reset_after=False)
    theirs = made(keras, [layer])
    ours = fastrnn.GRU(I, H, batch_first=True, reset_after=False)
    x = rng.standard_normal((B, T, I)).astype("f")
    for source in (layer, layer.get_weights()):
        ours.load_state_dict(fastrnn.keras.layer_weights(source))
        close(ours(x)[0], run(keras, theirs, x))


def test_layer_weights_of_other_layers(rng, keras):
    layers = keras.layers
    dense = layers.Dense(4)
    model = made(keras, [layers.TimeDistributed(dense)])
    ours = fastrnn.Linear(I, 4)
    x = rng.standard_normal((B, T, I)).astype("f")
    for source in (dense, model.layers[0], dense.get_weights()):
        ours.load_state_dict(fastrnn.keras.layer_weights(source))
        close(ours(x), run(keras, model, x))
    table = layers.Embedding(7, 2)
    model = made(keras, [table], (None,))
    ours = fastrnn.Embedding(7, 2)
    ours.load_state_dict(fastrnn.keras.layer_weights(table))
    assert np.array_equal(ours([[1, 6]]), run(keras, model, np.array([[1, 6]])))


def test_layer_weights_refuses_layers(keras):
    layers = keras.layers
    for layer, message in (
        (layers.LSTM(H, activation="selu"), "LSTM: activation must be .*got 'selu'"),
        (layers.BatchNormalization(), "got BatchNormalization"),
    ):
        made(keras, [layer])
        with pytest.raises(ValueError, match=message):
            fastrnn.keras.layer_weights(layer)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([], "got shapes none"),
        ([(7, 3)], r"recurrent or Dense layer, got shapes \(7, 3\)"),
        ([(3, 10), (5, 10)], r"got shapes \(3, 10\), \(5, 10\)"),
        (
            [(3, 15), (5, 15), (3, 15)],
            r"a GRU must have shape \(15,\) or \(2, 15\), got \(3, 15\)",
        ),
        ([(3, 5), (5, 5), (4,)], r"a SimpleRNN must have shape \(5,\), got \(4,\)"),
        ([(3, 5), (5, 5), (3, 4), (4, 4)], "both directions must have recurrent"),
        (
            [(3, 4), (5, 5)],
            r"kernel must have shape \(I, 5\) beside a recurrent",
        ),
    ],
)
def test_layer_weights_refuses_shapes(shapes, message):
    with pytest.raises(ValueError, match=f"fastrnn.keras.layer_weights: .*{message}"):
        fastrnn.keras.layer_weights([np.zeros(shape) for shape in shapes])


def test_layer_weights_refuses_other_things():
    with pytest.raises(TypeError, match="must be a Keras layer or a list of arrays"):
        fastrnn.keras.layer_weights("LSTM")
