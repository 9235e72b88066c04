# SPDX-License-Identifier: BSD-3-Clause
"""Layers around recurrent ones, from Keras's files: outputs and training as Keras's."""

import numpy as np
import pytest

h5py = pytest.importorskip("h5py", reason="h5py is not installed")

import keras_older  # noqa: E402
from keras_models import B, H, I, T, made, run, saved  # noqa: E402
from keras_training import trained  # noqa: E402
from peers import close  # noqa: E402

import fastrnn  # noqa: E402
import fastrnn.keras  # noqa: E402

# Of Keras's own get_weights() on PyTorch.
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")


def models(layers):
    """By name: the layers of a model of sequences (B, T, I)."""
    lstm = layers.LSTM
    return {
        "norm": [lstm(H, return_sequences=True), layers.BatchNormalization()],
        "norm of a vector": [
            lstm(H),
            layers.BatchNormalization(momentum=0.5, epsilon=0.1, center=False),
            layers.Dense(2),
        ],
        "norm of steps": [
            layers.BatchNormalization(axis=1, scale=False),
            layers.GRU(H),
        ],
        "norm without": [
            layers.BatchNormalization(center=False, scale=False),
            layers.SimpleRNN(H),
        ],
        "flat": [lstm(H, return_sequences=True), layers.Flatten(), layers.Dense(2)],
        "shapes": [
            layers.Reshape((2, -1)),
            layers.Permute((2, 1)),
            layers.GRU(H),
            layers.RepeatVector(3),
            lstm(4, return_sequences=True),
            layers.TimeDistributed(layers.Dense(2)),
        ],
        "mean": [layers.GRU(H, return_sequences=True), layers.GlobalAveragePooling1D()],
        "max": [
            layers.GRU(H, return_sequences=True),
            layers.GlobalMaxPooling1D(keepdims=True),
        ],
        "convolution": [
            layers.Conv1D(4, 3, activation="relu", padding="causal"),
            layers.MaxPooling1D(2),
            lstm(H),
        ],
        "convolution that steps": [
            layers.Conv1D(4, 2, strides=2, padding="same", use_bias=False),
            layers.AveragePooling1D(2, 1, "same"),
            layers.SpatialDropout1D(0.0),
            layers.Conv1D(3, 2, dilation_rate=2),
            layers.Flatten(),
        ],
        "windows beyond": [
            layers.MaxPooling1D(3, 2, "same"),
            layers.AveragePooling1D(3, 2, "same"),
            layers.GRU(H),
        ],
        "model in a model": None,  # see `model_named`
        "convolutions over time": None,
    }


def model_named(keras, name):
    layers = keras.layers
    if name == "model in a model":
        inner = keras.Sequential(
            [keras.Input((T, I)), layers.GRU(H), layers.BatchNormalization()]
        )
        return made(keras, [inner, layers.Dense(2), layers.Dense(2)], (T, I))
    if name == "convolutions over time":
        inner = [
            layers.Reshape((2, 3, I)),
            layers.TimeDistributed(layers.Conv1D(4, 2, activation="tanh")),
            layers.TimeDistributed(layers.MaxPooling1D()),
            layers.TimeDistributed(layers.Flatten()),
            layers.LSTM(H),
        ]
        return made(keras, inner, (T, I))
    return made(keras, models(layers)[name], (T, I))


def positive(model):
    """Variances are not negative, whatever `made` has drawn."""
    model.set_weights([
        np.abs(array) + 0.1 if variable.name == "moving_variance" else array
        for variable, array in zip(model.weights, model.get_weights(), strict=True)
    ])  # fmt: skip
    return model


NAMES = [
    "norm", "norm of a vector", "norm of steps", "norm without", "flat", "shapes",
    "mean", "max", "convolution", "convolution that steps", "windows beyond",
    "model in a model", "convolutions over time",
]  # fmt: skip


def test_every_model_is_tried(keras):
    assert sorted(models(keras.layers)) == sorted(NAMES)


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, ("keras", "h5", "old")[k % 3]) for k, name in enumerate(NAMES)],
)
def test_outputs_and_training(tmp_path, rng, keras, name, kind):
    theirs = positive(model_named(keras, name))
    path = saved(theirs, tmp_path / f"model.{'keras' if kind == 'keras' else 'h5'}")
    if kind == "old":
        keras_older.of_keras_2(path)
    ours = fastrnn.keras.load(path)
    x = rng.standard_normal((B, T, I)).astype("f")
    trained(keras, theirs, ours, x)
    ours.save(tmp_path / "ours.safetensors")
    again = fastrnn.load_model(tmp_path / "ours.safetensors")
    np.testing.assert_array_equal(again.eval()(x), ours.eval()(x))


@pytest.mark.parametrize("name", ["norm", "model in a model", "convolutions over time"])
@pytest.mark.parametrize("how", ["on_windows", "of_keras_2_12"])
def test_other_names_of_groups(tmp_path, rng, keras, name, how):
    theirs = positive(model_named(keras, name))
    path = saved(theirs, tmp_path / "model.keras")
    if how == "on_windows" or name == "norm":
        getattr(keras_older, how)(path)
    x = rng.standard_normal((B, T, I)).astype("f")
    close(fastrnn.keras.load(path, inference=True)(x), run(keras, theirs, x), 3000)


def test_layers_of_one_class_in_keras_2_12(tmp_path, rng, keras):
    layers = keras.layers
    lstms = [layers.LSTM(4, return_sequences=True), layers.LSTM(4)]
    theirs = made(keras, [*lstms, *(layers.Dense(4) for _ in range(3))])
    path = keras_older.of_keras_2_12(saved(theirs, tmp_path / "model.keras"))
    x = rng.standard_normal((B, T, I)).astype("f")
    close(fastrnn.keras.load(path)(x), run(keras, theirs, x), 3000)


@pytest.mark.parametrize("name", ["norm of a vector", "shapes", "windows beyond"])
def test_files_of_tensorflow(tmp_path, rng, keras, name):
    theirs = positive(model_named(keras, name))
    path = keras_older.of_tensorflow(saved(theirs, tmp_path / "model.h5"))
    x = rng.standard_normal((B, T, I)).astype("f")
    close(fastrnn.keras.load(path).eval()(x), run(keras, theirs, x), 3000)


@pytest.mark.parametrize("path", ["keras", "h5"])
def test_masked_steps_do_not_count(tmp_path, rng, keras, path):
    layers = keras.layers
    theirs = positive(
        made(
            keras,
            [
                layers.Masking(),
                layers.BatchNormalization(momentum=0.5),
                layers.LSTM(H, return_sequences=True),
                layers.BatchNormalization(momentum=0.5),
                layers.GlobalAveragePooling1D(),
                layers.Dense(2),
            ],
        )
    )
    ours = fastrnn.keras.load(saved(theirs, tmp_path / f"model.{path}"))
    x = rng.standard_normal((B, T, I)).astype("f")
    x[0, 4:] = x[1, :2] = x[2, 1:] = 0
    trained(keras, theirs, ours, x)
    # Their moving statistics are those of the steps that count, too.
    close(ours.eval()(x), run(keras, theirs, x), 3000)


def test_a_frozen_normalisation(tmp_path, rng, keras, suffix):
    norm = keras.layers.BatchNormalization()
    theirs = positive(made(keras, [norm, keras.layers.GRU(H)]))
    norm.trainable = False
    ours = fastrnn.keras.load(saved(theirs, tmp_path / f"model.{suffix}"))
    assert not ours[0].trainable
    trained(keras, theirs, ours, rng.standard_normal((B, T, I)).astype("f"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda layers: layers.Conv1D(4, 2, groups=2),
            "Conv1D.*: groups must be 1, got 2",
        ),
        (
            lambda layers: layers.Flatten(data_format="channels_first"),
            "data_format must be 'channels_last' or None, got 'channels_first'",
        ),
        (
            lambda layers: layers.Conv1D(4, 2, activation="gelu"),
            "activation must be 'linear' or .*, got 'gelu'",
        ),
        (
            lambda layers: layers.UpSampling1D(2),
            "is not one of the layers that can be read: Activation, Add, Average",
        ),
        (
            lambda layers: layers.BatchNormalization(renorm=True),
            "renorm must be False, got True",
        ),
        (
            lambda layers: layers.GaussianNoise(0.1),
            r"GaussianNoise.*fastrnn.keras.load\(path, inference=True\) leaves it out",
        ),
        (
            lambda layers: layers.Dropout(0.5, noise_shape=(1, 1, 4)),
            r"noise_shape must be None.*load\(path, inference=True\) leaves it out",
        ),
    ],
)
def test_what_is_not_computed(tmp_path, keras, make, message):
    layer = make(keras.layers)
    shape = (2, 3, 4) if "Distributed" in type(layer).__name__ else (T, 4)
    path = saved(made(keras, [layer], shape), tmp_path / "model.keras")
    with pytest.raises(ValueError, match=message) as caught:
        fastrnn.keras.load(path)
    assert str(caught.value).startswith(f"fastrnn.keras.load: {path}: layer ")


# -- files of Keras 1 and of layers for cuDNN, written by hand -------------------------


def written(path, entries, weights, version=b"1.2.2"):
    """A .h5 file of a Sequential: configurations, and arrays by layer and name."""
    import json

    with h5py.File(path, "w") as file:
        config = {"class_name": "Sequential", "config": entries}
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["keras_version"] = version
        for layer, arrays in weights.items():
            group = file.create_group(f"model_weights/{layer}")
            group.attrs["weight_names"] = np.array(list(arrays), "S")
            for name, array in arrays.items():
                group[name] = array
    return path


def entry(kind, name, **config):
    return {"class_name": kind, "config": {"name": name, "trainable": True, **config}}


def gates(rng, names, I, H):
    """A gate's three arrays by Keras 1's names."""
    return {
        f"{part}_{gate}": rng.standard_normal(shape).astype("f")
        for gate in names
        for part, shape in (("W", (I, H)), ("U", (H, H)), ("b", (H,)))
    }


def side_by_side(arrays, names):
    return [
        np.concatenate([arrays[f"{part}_{gate}"] for gate in names], axis=-1)
        for part in "WUb"
    ]


def test_a_file_of_keras_1(tmp_path, rng, keras):
    layers = keras.layers
    lstm, gru = gates(rng, "icfo", 4, H), gates(rng, "zrh", H, 4)
    dense = {"W": rng.standard_normal((4, 2)).astype("f"), "b": np.ones(2, "f")}
    conv = {"W": rng.standard_normal((3, 1, I, 4)).astype("f"), "b": np.ones(4, "f")}
    entries = [
        entry("Convolution1D", "c", batch_input_shape=[None, T, I], nb_filter=4,
              filter_length=3, subsample_length=1, border_mode="same", bias=True,
              activation="relu", input_dim=I),
        entry("MaxPooling1D", "p", pool_length=2, stride=2, border_mode="valid"),
        entry("Dropout", "d", p=0.2),
        entry("LSTM", "l", output_dim=H, activation="tanh", return_sequences=True,
              inner_activation="hard_sigmoid", dropout_W=0.0, dropout_U=0.0),
        entry("GRU", "g", output_dim=4, activation="tanh", return_sequences=True,
              inner_activation="hard_sigmoid"),
        {"class_name": "TimeDistributed", "config": {"name": "t", "layer": entry(
            "Dense", "inner", output_dim=2, bias=True, activation="linear")}},
    ]  # fmt: skip
    weights = {"c": conv, "l": lstm, "g": gru, "t": dense}
    ours = fastrnn.keras.load(written(tmp_path / "old.h5", entries, weights))

    def hard_sigmoid(x):
        return keras.ops.clip(0.2 * x + 0.5, 0, 1)

    options = {"return_sequences": True, "recurrent_activation": hard_sigmoid}
    theirs = made(
        keras,
        [
            layers.Conv1D(4, 3, padding="same", activation="relu"),
            layers.MaxPooling1D(2),
            layers.LSTM(H, **options),
            layers.GRU(4, reset_after=False, **options),
            layers.Dense(2),
        ],
        (T, I),
    )
    theirs.set_weights([
        conv["W"][:, 0], conv["b"], *side_by_side(lstm, "ifco"),
        *side_by_side(gru, "zrh"), dense["W"], dense["b"],
    ])  # fmt: skip
    x = rng.standard_normal((B, T, I)).astype("f")
    close(ours.eval()(x), run(keras, theirs, x), 3000)


def test_both_directions_in_keras_1(tmp_path, rng, keras):
    one, other = (gates(rng, "icfo", I, H) for _ in range(2))
    inner = entry("LSTM", "lstm_1", output_dim=H, activation="tanh",
                  inner_activation="sigmoid", return_sequences=False)  # fmt: skip
    both = {"class_name": "Bidirectional",
            "config": {"name": "b", "layer": inner, "merge_mode": "sum"}}  # fmt: skip
    arrays = {f"forward_{k}": v for k, v in one.items()}
    arrays |= {f"backward_{k}": v for k, v in other.items()}
    ours = fastrnn.keras.load(written(tmp_path / "old.h5", [both], {"b": arrays}))
    theirs = made(
        keras, [keras.layers.Bidirectional(keras.layers.LSTM(H), merge_mode="sum")]
    )
    theirs.set_weights([*side_by_side(one, "ifco"), *side_by_side(other, "ifco")])
    x = rng.standard_normal((B, T, I)).astype("f")
    close(ours(x), run(keras, theirs, x), 3000)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_layers_for_cudnn(tmp_path, rng, keras, cell, bidirectional):
    """A gate is W x + U h + b + c with matrices that lie in memory row by row."""
    n = {"LSTM": 4, "GRU": 3}[cell]
    directions, theirs_of, ours_of = 1 + bidirectional, [], {}
    for k in range(directions):
        W = rng.standard_normal((n, H, I)).astype("f")
        U = rng.standard_normal((n, H, H)).astype("f")
        bias = rng.standard_normal((2, n * H)).astype("f")
        ours_of |= {
            f"{k}/kernel:0": np.concatenate([one.reshape(I, H) for one in W], axis=1),
            f"{k}/recurrent_kernel:0": np.concatenate(list(U), axis=1),
            f"{k}/bias:0": bias.ravel(),
        }
        theirs_of += [
            np.concatenate([one.T for one in W], axis=1),
            np.concatenate([one.T for one in U], axis=1),
            bias if cell == "GRU" else bias.sum(axis=0),
        ]
    layer = entry(f"CuDNN{cell}", "c", units=H, return_sequences=True)
    theirs = getattr(keras.layers, cell)(H, return_sequences=True)
    if bidirectional:
        layer = entry("Bidirectional", "c", layer=layer, merge_mode="concat")
        theirs = keras.layers.Bidirectional(theirs)
    path = written(tmp_path / "m.h5", [layer], {"c": ours_of}, b"2.2.4")
    theirs = made(keras, [theirs])
    theirs.set_weights(theirs_of)
    x = rng.standard_normal((B, T, I)).astype("f")
    close(fastrnn.keras.load(path)(x), run(keras, theirs, x), 3000)


@pytest.mark.parametrize(
    ("layer", "shapes", "message"),
    [
        (
            entry("CuDNNLSTM", "c", units=H),
            [(I, 4 * H), (H, 4 * H), (4 * H,)],
            r"the bias must have shape \(40,\), got \(20,\)",
        ),
        (
            entry("CuDNNGRU", "c", units=H),
            [(I, 3 * H), (3 * H, H), (6 * H,)],
            "kernels must be of 3 gates, got shapes",
        ),
        (
            entry("LSTM", "c", output_dim=H),
            [(I, H), (H, H), (H,)] * 3 + [(I, H), (H, H), (4,)],
            "weights of all gates must have one shape",
        ),
        (
            entry("Convolution1D", "c", nb_filter=4, filter_length=3),
            [(3, 2, I, 4), (4,)],
            r"the kernel must have shape \(3, 1, channels, 4\), got \(3, 2, 3, 4\)",
        ),
        (entry("BatchNormalization", "c", mode=1), [(3,)] * 4, "mode must be 0, got 1"),
        (entry("Merge", "c", mode="dot"), [], "mode must be one of concat, sum"),
        (entry("Merge", "c", mode="sum", layers=[1]), [], "layers must be connected"),
    ],
)
def test_old_layers_that_do_not_fit(tmp_path, layer, shapes, message):
    arrays = {f"w{k}": np.ones(shape, "f") for k, shape in enumerate(shapes)}
    path = written(tmp_path / "old.h5", [layer], {"c": arrays})
    with pytest.raises(ValueError, match=f"^fastrnn.keras.load: {path}: .*{message}"):
        fastrnn.keras.load(path)
