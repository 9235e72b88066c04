# SPDX-License-Identifier: BSD-3-Clause
"""fastrnn's layers for Keras compute what Keras's own compute, and their gradients."""

import numpy as np
import pytest

import fastrnn.keras as ours
from tests.support.keras_layers import outputs_and_gradients, twins

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
LAYERS = ("LSTM", "GRU", "SimpleRNN")
TOLERANCE = {
    "float32": 2e-5,
    "float64": 1e-6,
}  # Keras's SimpleRNN is not float64 inside
MASK = np.array(
    [
        [1, 1, 1, 1, 1, 1],
        [1, 1, 0, 1, 0, 0],  # with a hole
        [0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 0],  # begins late
    ],
    bool,
)
WHOLE = {"return_sequences": True, "return_state": True}
OPTIONS = {
    "plain": {},
    "whole": WHOLE,
    "backwards": {"go_backwards": True, **WHOLE},
    "no_bias": {"use_bias": False},
    "linear": {"activation": None},
    "softsign": {"activation": "softsign", "return_sequences": True},
    "relu": {"activation": "relu"},
    "zero_output": {"zero_output_for_mask": True, **WHOLE},
}
GATED = {
    "hard": {"recurrent_activation": "hard_sigmoid", "activation": "hard_tanh"},
    "elu": {"recurrent_activation": "sigmoid", "activation": "elu"},
}
CASES = (
    [(layer, name, options) for layer in LAYERS for name, options in OPTIONS.items()]
    + [(layer, *one) for layer in LAYERS[:2] for one in GATED.items()]
    + [("GRU", "reset_before", {"reset_after": False, **WHOLE})]
)


def arrays(keras, dtype, units=5, n_states=1):
    """An input, and initial states."""
    rng = np.random.default_rng(3)
    sizes = [(4, 6, 3)] + [(4, units)] * n_states
    return [rng.standard_normal(size).astype(dtype) for size in sizes]


@pytest.fixture(scope="module")
def paths(keras):
    from fastrnn.keras.drop_in import paths

    return paths


def assert_same(keras, paths, pair, call, inputs, dtype="float32", expected="fastrnn"):
    """Both layers have the same outputs and gradients; ours took the expected path."""
    with paths.watching() as seen:
        found = [
            outputs_and_gradients(
                keras,
                lambda *t, layer=layer: call(layer, *t),
                inputs,
                layer.cell.trainable_weights,
            )
            for layer in pair
        ]
    for theirs, mine in zip(found[0], found[1], strict=True):
        assert len(theirs) == len(mine)
        for a, b in zip(theirs, mine, strict=True):
            assert a.shape == b.shape
            scale = max(1, np.abs(a).max(initial=0))
            np.testing.assert_allclose(b, a, atol=TOLERANCE[dtype] * scale, rtol=0)
    assert {path.name for _, path in seen} == {expected}


@pytest.mark.parametrize("masked", [False, True], ids=["dense", "masked"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("layer", "options"),
    [(layer, options) for layer, _, options in CASES],
    ids=[f"{layer}-{name}" for layer, name, _ in CASES],
)
def test_a_call_and_its_gradients_are_keras_s(
    keras, paths, layer, options, dtype, masked
):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX computes in float32 unless it is told otherwise")
    pair = twins(keras, ours, layer, dtype=dtype, **options)
    inputs = arrays(keras, dtype, n_states=len(pair[0].state_size))
    mask = keras.ops.convert_to_tensor(MASK) if masked else None

    def call(layer, x, *states):
        return layer(x, initial_state=list(states), mask=mask)

    assert_same(keras, paths, pair, call, inputs, dtype)


def test_a_mask_of_all_steps_changes_nothing(keras):
    _, layer = twins(keras, ours, "GRU", return_sequences=True)
    (x, _) = arrays(keras, "float32")
    whole = keras.ops.ones((4, 6), "bool")
    a, b = (keras.ops.convert_to_numpy(layer(x, mask=mask)) for mask in (None, whole))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["int32", "float64", "bool"])
def test_an_input_of_another_type_is_computed_as_keras_does(keras, dtype):
    pair = twins(keras, ours, "LSTM")
    x = (np.arange(72).reshape(4, 6, 3) % 3).astype(dtype)
    theirs, mine = (keras.ops.convert_to_numpy(layer(x)) for layer in pair)
    assert mine.dtype == theirs.dtype == np.float32
    np.testing.assert_allclose(mine, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("T", [1, 2])
@pytest.mark.parametrize("layer", LAYERS)
def test_short_sequences(keras, paths, layer, T):
    pair = twins(keras, ours, layer, return_sequences=True, return_state=True)
    inputs = arrays(keras, "float32", n_states=len(pair[0].state_size))
    inputs[0] = np.ascontiguousarray(inputs[0][:, :T])

    def call(layer, x, *states):
        return layer(x, initial_state=list(states))

    assert_same(keras, paths, pair, call, inputs)


def histories(keras, make, data, target, **options):
    """Losses and predictions of a model with Keras's layers and with fastrnn's."""
    for accelerated in (False, True):
        keras.utils.set_random_seed(1)
        model = make()
        model.compile("adam", "mse", **options)
        if accelerated:
            ours.accelerate(model, verbose=False)
        keras.utils.set_random_seed(2)
        fit = model.fit(data, target, epochs=3, batch_size=4, verbose=0, shuffle=False)
        predicted = model.predict(data, batch_size=4, verbose=0)
        yield fit.history["loss"], predicted, model


def stacked(keras):
    """Each layer, each with dropout of its inputs."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6, 3)),
            layers.LSTM(5, dropout=0.3, return_sequences=True),
            layers.GRU(4, dropout=0.3, return_sequences=True, go_backwards=True),
            layers.SimpleRNN(4, dropout=0.3),
            layers.Dense(2),
        ]
    )


def masked_both_ways(keras):
    """What Embedding masks, through both directions, and a frozen layer."""
    layers = keras.layers
    frozen = layers.GRU(3, trainable=False)
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Embedding(4, 3, mask_zero=True),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
            layers.Bidirectional(frozen, merge_mode="sum"),
            layers.Dense(2),
        ]
    )


def encoder_and_decoder(keras):
    """Layers that hand their states on, and one that is called twice."""
    layers = keras.layers
    inputs = keras.Input((6, 3))
    shared = layers.GRU(4, return_sequences=True)
    y, h, c = layers.LSTM(4, return_state=True)(shared(inputs))
    decoded = layers.LSTM(4)(shared(inputs * 2), initial_state=[h, c])
    return keras.Model(inputs, layers.Dense(2)(y + decoded))


@pytest.mark.parametrize("make", [stacked, masked_both_ways, encoder_and_decoder])
def test_fit_and_predict_go_as_with_keras_s_layers(keras, paths, make):
    rng = np.random.default_rng(5)
    data = rng.standard_normal((8, 6, 3)).astype("float32")
    if make is masked_both_ways:
        data = rng.integers(0, 4, (8, 6))
        data[0] = 0
    target = rng.standard_normal((8, 2)).astype("float32")
    theirs, mine = histories(keras, lambda: make(keras), data, target)
    np.testing.assert_allclose(mine[0], theirs[0], rtol=1e-4)
    np.testing.assert_allclose(mine[1], theirs[1], atol=1e-4, rtol=0)
    found = ours.explain(mine[2], data, training=True)
    assert {path.name for path in found.values()} == {"fastrnn"}


def test_a_stateful_layer_goes_on_where_it_was(keras):
    pair = twins(keras, ours, "LSTM", stateful=True, return_sequences=True)
    (x, *_) = arrays(keras, "float32")
    for layer in pair:
        layer.reset_state()
    for _ in range(2):
        theirs, mine = (keras.ops.convert_to_numpy(layer(x)) for layer in pair)
        np.testing.assert_allclose(mine, theirs, atol=1e-6, rtol=0)
    for theirs, mine in zip(*(layer.states for layer in pair), strict=True):
        np.testing.assert_allclose(
            *map(keras.ops.convert_to_numpy, (mine.value, theirs.value)), atol=1e-6
        )


def test_a_stateful_layer_trains(keras):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6, 3), batch_size=4), ours.SimpleRNN(5, stateful=True)]
    )
    model.compile(keras.optimizers.Adam(0.05), "mse")
    (x, *_) = arrays(keras, "float32")
    losses = [float(model.train_on_batch(x, np.ones((4, 5)))) for _ in range(6)]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("mode", ["sum", "mul", "ave", "concat", None])
def test_both_directions(keras, mode):
    (x, *_) = arrays(keras, "float32")
    found = []
    for home in (keras.layers, ours):
        keras.utils.set_random_seed(3)
        inner = home.LSTM(4, return_sequences=True, return_state=True)
        layer = keras.layers.Bidirectional(inner, merge_mode=mode)
        found.append(keras.tree.map_structure(keras.ops.convert_to_numpy, layer(x)))
    assert type(layer.forward_layer) is type(layer.backward_layer) is ours.LSTM
    for theirs, mine in zip(*map(keras.tree.flatten, found), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        ("LSTM", {}),
        ("LSTM", {"activation": "softsign", "use_bias": False}),
        ("GRU", {"reset_after": False}),
        ("GRU", {"reset_after": False, "use_bias": False}),
        ("GRU", {"activation": "elu"}),
        ("SimpleRNN", {"activation": "gelu"}),
    ],
)
@pytest.mark.parametrize("masked", [False, True], ids=["dense", "masked"])
def test_second_derivatives(keras, layer, options, masked):
    torch = pytest.importorskip("torch")
    if keras.backend.backend() != "torch":
        pytest.skip("of torch.autograd")
    (x, *_) = arrays(keras, "float64")
    mask = torch.from_numpy(MASK) if masked else None
    found = []
    for one in twins(keras, ours, layer, dtype="float64", **options):
        leaf = torch.from_numpy(x).requires_grad_()
        total = one(leaf, mask=mask).square().sum()
        (gradient,) = torch.autograd.grad(total, leaf, create_graph=True)
        weights = [v.value for v in one.cell.trainable_weights]
        found.append(torch.autograd.grad(gradient.square().sum(), weights))
    for theirs, mine in zip(*found, strict=True):
        scale = max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(mine, theirs, atol=1e-5 * scale, rtol=0)
