# SPDX-License-Identifier: BSD-3-Clause
"""Keras files and weights on our layers: Keras's results, and what is refused."""

import itertools
import json
import os
import sys
import warnings
import zipfile

import numpy as np
import pytest
import tolerances

h5py = pytest.importorskip("h5py", reason="h5py is not installed")

import fastrnn  # noqa: E402
import fastrnn.keras  # noqa: E402
from fastrnn.keras import _options  # noqa: E402

# Of Keras's own get_weights() on PyTorch.
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")

T, B, I, H = 6, 4, 3, 5
GATES = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}
OURS = {"SimpleRNN": fastrnn.RNN, "LSTM": fastrnn.LSTM, "GRU": fastrnn.GRU}


@pytest.fixture(scope="module")
def keras():
    """Keras, to make files and to judge, on PyTorch."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    pytest.importorskip(os.environ["KERAS_BACKEND"], reason="Keras has no backend")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies
        return pytest.importorskip("keras", reason="keras is not installed")


@pytest.fixture(params=["keras", "h5"])
def suffix(request):
    return request.param


def made(keras, layers, shape=(None, I), dtype="float32"):
    """A Sequential model with random weights everywhere, biases too."""
    model = keras.Sequential([keras.Input(shape, dtype=dtype), *layers])
    rng = np.random.default_rng(4)
    weights = [0.5 * rng.standard_normal(w.shape) for w in model.get_weights()]
    model.set_weights(weights)
    return model


def saved(model, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # .h5 is called legacy
        model.save(path)
    return path


def run(keras, model, x):
    return keras.ops.convert_to_numpy(keras.ops.stop_gradient(model(x, training=False)))


def close(ours, theirs, n_terms=500, precision=None):
    # Twice, as both sides round.
    limit = 2 * tolerances.relative(precision or ours.dtype.name, n_terms)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert np.abs(ours - theirs).max() <= limit * np.abs(theirs).max()


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
    n_terms = tolerances.chain_terms(T, B, I, H, GATES[kind])
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


def branches(keras):
    start = keras.Input((T, I))
    layer = keras.layers.Dense
    return keras.Model(start, keras.layers.Add()([layer(2)(start), layer(2)(start)]))


def two_inputs(keras):
    inputs = [keras.Input((T, I)), keras.Input((T, I))]
    return keras.Model(inputs, keras.layers.Concatenate()(inputs))


def two_outputs(keras):
    start = keras.Input((T, I))
    x = keras.layers.Dense(2)(start)
    return keras.Model(start, [x, keras.layers.Dense(2)(x)])


def twice(keras):
    start, layer = keras.Input((T, I)), keras.layers.Dense(I)
    return keras.Model(start, layer(layer(start)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (branches, "one layer after the other from one input to one output"),
        (two_inputs, "one layer after the other from one input to one output"),
        (two_outputs, "one layer after the other from one input to one output"),
        (twice, "layer 'dense.*' is used 2 times"),
    ],
)
def test_other_connections_are_refused(tmp_path, keras, suffix, build, message):
    path = saved(build(keras), tmp_path / f"model.{suffix}")
    with pytest.raises(ValueError, match=message):
        fastrnn.keras.load(path)


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


def trained(keras, theirs, ours, x, n_terms=3000):
    """Outputs, and losses before and after one step of training, are Keras's.

    Where Keras has one bias, ours learns with the first of its two, or the sum of both
    would move twice as far.
    """
    expected = run(keras, theirs, x)
    close(ours.eval()(x), expected, n_terms)
    target = np.random.default_rng(6).standard_normal(expected.shape).astype("f")
    theirs.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    optimizer = fastrnn.SGD(ours.train(), 0.1)
    second = [
        grad
        for name, grad in ours.grads.items()
        if "bias_hh" in name and not ours.parameters[name].any()
    ]
    for _ in range(2):
        loss, dy = fastrnn.mse_loss(ours(x), target)
        optimizer.zero_grad()
        ours.backward(dy)
        for grad in second:
            grad[...] = 0
        optimizer.step()
        found = float(theirs.train_on_batch(x, target))
        assert abs(loss - found) <= 2 * tolerances.relative("float32", n_terms) * found


@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
def test_options(tmp_path, rng, keras, kind, options):
    options = {"return_sequences": True, **options}
    theirs = made(keras, [getattr(keras.layers, kind)(H, **options)])
    ours = fastrnn.keras.load(saved(theirs, tmp_path / "model.keras"))
    trained(keras, theirs, ours, rng.standard_normal((B, T, I)).astype("f"))


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


def test_a_masked_model_fits(rng):
    model = fastrnn.keras.MaskedSequential(
        fastrnn.keras.Masking(), fastrnn.GRU(I, H), fastrnn.Linear(H, 1)
    )
    x = masked_input(rng)
    model.compile("mse", "sgd", lr=0.1)
    history = model.fit(x, np.ones((B, T, 1), "f"), epochs=5, verbose=0, seed=1)
    assert history.history["loss"][-1] < history.history["loss"][0]
    with pytest.raises(ValueError, match="MaskedSequential: a masked model cannot go"):
        model.forward_from(x)


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


REFUSED = [
    ("GRU", {"activation": "selu"}, "activation must be 'elu' or .*got 'selu'"),
    ("LSTM", {"recurrent_activation": "swish"}, "recurrent_activation must be .*'silu"),
    ("SimpleRNN", {"activation": "exponential"}, "must be .* got 'exponential'"),
    ("LSTM", {"dropout": 0.5}, r"dropout must be 0\.0, got 0\.5"),
    ("GRU", {"recurrent_dropout": 0.5}, r"recurrent_dropout must be 0\.0, got 0\.5"),
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


def refused_layers(layers):
    cell = layers.LSTM(H, return_sequences=True)
    return {
        "zero_output_for_mask must be False, got True": layers.LSTM(
            H, zero_output_for_mask=True, return_sequences=True
        ),
        "is not one of the layers that can be read: Activation, ": (
            layers.LayerNormalization()
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
        "its layer must act on the last axis alone.*got LayerNorm": (
            layers.TimeDistributed(layers.LayerNormalization())
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
        (layers.LayerNormalization(), "got LayerNormalization"),
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


# -- Activation ------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["relu", "sigmoid", "softmax", "tanh"])
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


def test_activation_refuses():
    with pytest.raises(ValueError, match="Activation: function must be one of 'relu'"):
        fastrnn.keras.Activation("gelu")
    layer = fastrnn.keras.Activation("tanh")
    with pytest.raises(RuntimeError, match="backward needs a forward"):
        layer.backward(np.ones(3))
    layer(np.ones(3))
    with pytest.raises(ValueError, match="dy must have the shape of y"):
        layer.backward(np.ones(4))
    assert repr(layer) == "Activation('tanh')"
