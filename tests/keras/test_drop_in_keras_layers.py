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
    pair = twins(keras, ours, layer, dtype=dtype, **options)
    inputs = arrays(keras, dtype, n_states=len(pair[0].state_size))
    mask = keras.ops.convert_to_tensor(MASK) if masked else None

    def call(layer, x, *states):
        return layer(x, initial_state=list(states), mask=mask)

    assert_same(keras, paths, pair, call, inputs, dtype)
