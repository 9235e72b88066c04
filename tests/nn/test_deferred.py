# SPDX-License-Identifier: BSD-3-Clause
"""Layers that wait for their input size, `return_sequences`, `Bidirectional`."""

import copy
import pickle

import numpy as np
import pytest
from gradcheck import assert_close, central_differences
from tolerances import CENTRAL_RTOL

import fastrnn
from fastrnn.nn.deferred import Unbuilt, is_built
from fastrnn.nn.describe import construct, describe
from fastrnn.train.loading import known_layers

CELLS = [fastrnn.RNN, fastrnn.LSTM, fastrnn.GRU]


# -- input size ----------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("given", ["position", "name"])
def test_a_layer_becomes_itself_at_the_first_call(cell, given, rng):
    x = rng.normal(size=(5, 2, 3))
    arguments = {"num_layers": 2, "bidirectional": True, "seed": 4}
    if given == "position":
        layer = cell(None, 6, **arguments)
    else:
        layer = cell(input_size=None, hidden_size=6, **arguments)
    assert isinstance(layer, Unbuilt)
    assert repr(layer) == f"{cell.__name__}(None, 6, num_layers=2, bidirectional=True)"
    y, _ = layer(x)
    assert type(layer) is cell
    whole = cell(3, 6, **arguments)
    np.testing.assert_array_equal(layer.flat_parameters, whole.flat_parameters)
    np.testing.assert_array_equal(y, whole(x)[0])
    np.testing.assert_array_equal(layer.backward(y)[0], whole.backward(y)[0])


def test_linear_too_and_in_a_model_of_ones_own():
    class Pair(fastrnn.Module):
        def __init__(self):
            self.body = fastrnn.Linear(None, 4, seed=0)
            self.head = fastrnn.Linear(None, 2, seed=1)

        def forward(self, x):
            return self.head(self.body(x))

    model = Pair().eval()
    assert not is_built(model)
    assert model(np.ones((7, 3))).shape == (7, 2)
    assert is_built(model)
    assert model.flat_parameters.size == 4 * 4 + 5 * 2
    assert not model.head.training


def test_a_generator_is_drawn_from_in_the_order_of_calls():
    seeds = np.random.default_rng(3)
    model = fastrnn.Sequential(
        fastrnn.LSTM(None, 4, seed=seeds), fastrnn.Linear(None, 2, seed=seeds)
    )
    model(np.ones((5, 1, 3)))
    seeds = np.random.default_rng(3)
    whole = fastrnn.Sequential(
        fastrnn.LSTM(3, 4, seed=seeds), fastrnn.Linear(4, 2, seed=seeds)
    )
    np.testing.assert_array_equal(model.flat_parameters, whole.flat_parameters)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_wait_too(copied):
    model = copied(fastrnn.Sequential(fastrnn.GRU(None, 4, seed=1)))
    assert not is_built(model)
    assert model(np.ones((5, 1, 3))).shape == (5, 1, 4)


def test_wrong_arguments_are_found_at_once():
    with pytest.raises(ValueError, match=r"^LSTM: hidden_size must be a positive int"):
        fastrnn.LSTM(None, 0)
    with pytest.raises(ValueError, match=r"^LSTM: seed must be None, a non-negative"):
        fastrnn.LSTM(None, 4, seed=-1)
    with pytest.raises(
        TypeError, match=r"^LSTM\(\) has no argument .hidden.; did you mean hidden_size"
    ):
        fastrnn.LSTM(None, 4, hidden=1)
    with pytest.raises(
        ValueError, match=r"^LSTM: x must have an axis of features, got"
    ):
        fastrnn.LSTM(None, 4)(1.0)


def test_who_asks_for_parameters_too_early_is_told():
    model = fastrnn.Sequential(fastrnn.LSTM(None, 4), fastrnn.Linear(4, 1))
    message = r"^LSTM: its input size is not known yet, so it has no parameters; call"
    for ask in (
        lambda: model.flat_parameters,
        lambda: fastrnn.Adam(model),
        model.state_dict,
        model.summary,
    ):
        with pytest.raises(ValueError, match=message):
            ask()


def test_types_that_differ_are_found_when_sizes_are():
    model = fastrnn.Sequential(
        fastrnn.Linear(None, 4), fastrnn.Linear(None, 2, dtype="float64")
    )
    with pytest.raises(
        ValueError, match=r"all layers must have one dtype, got 0 float"
    ):
        model.build((3,))


# -- return_sequences ----------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_last_output_is_each_directions_last(cell, bidirectional, batch_first, rng):
    options = {"num_layers": 2, "bidirectional": bidirectional, "dtype": "float64"}
    options |= {"batch_first": batch_first, "seed": 0}
    whole, last = cell(3, 4, **options), cell(3, 4, return_sequences=False, **options)
    x = rng.normal(size=(2, 5, 3) if batch_first else (5, 2, 3))
    y, end = last(x)
    full, full_end = whole(x)
    time_major = full.swapaxes(0, 1) if batch_first else full
    np.testing.assert_array_equal(y[:, :4], time_major[-1, :, :4])
    if bidirectional:
        np.testing.assert_array_equal(y[:, 4:], time_major[0, :, 4:])
    np.testing.assert_array_equal(end[0], full_end[0])
    # The same gradient as that of the whole output, zero but for the last.
    dy, d_full = rng.normal(size=y.shape), np.zeros(time_major.shape)
    d_full[-1, :, :4] = dy[:, :4]
    if bidirectional:
        d_full[0, :, 4:] = dy[:, 4:]
    d_end = rng.normal(size=(4 if bidirectional else 2, 2, 4))
    d_end = (d_end, None) if cell is fastrnn.LSTM else d_end
    dx, _ = last.backward(dy, d_end)
    d_full = d_full.swapaxes(0, 1) if batch_first else d_full
    dx_full, _ = whole.backward(d_full, d_end)
    np.testing.assert_allclose(dx, dx_full, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        last.flat_grads, whole.flat_grads, rtol=1e-12, atol=1e-14
    )


def test_the_last_output_of_one_sequence_and_its_errors(rng):
    layer = fastrnn.GRU(3, 4, return_sequences=False, seed=0)
    y, _ = layer(rng.normal(size=(5, 3)))
    assert y.shape == (4,)
    assert layer.backward(np.ones(4))[0].shape == (5, 3)
    layer(rng.normal(size=(5, 2, 3)))
    with pytest.raises(
        ValueError,
        match=r"^GRU.backward: dy must have shape \(B, directions \* hidden_",
    ):
        layer.backward(np.ones((5, 2, 4)))
    with pytest.raises(TypeError, match="GRU: return_sequences must be True or False"):
        fastrnn.GRU(3, 4, return_sequences=1)


# -- Bidirectional -------------------------------------------------------------------


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("return_sequences", [True, False])
def test_bidirectional_merges(merge_mode, return_sequences, rng):
    options = {"return_sequences": return_sequences, "dtype": "float64"}
    layer = fastrnn.Bidirectional(fastrnn.LSTM(None, 4, seed=0, **options), merge_mode)
    x = rng.normal(size=(5, 2, 3))
    y = layer(x)
    whole, _ = fastrnn.LSTM(3, 4, bidirectional=True, seed=0, **options)(x)
    a, b = whole[..., :4], whole[..., 4:]
    expected = {"concat": whole, "sum": a + b, "mul": a * b, "ave": (a + b) / 2}
    np.testing.assert_array_equal(y, expected[merge_mode])
    dy = rng.normal(size=y.shape)
    dx = layer.backward(dy)

    def loss(arrays):
        copies = arrays["x"].reshape(-1, 5, 2, 3)
        return np.array([np.sum(layer(copy) * dy) for copy in copies])

    assert_close(
        "dx", dx, central_differences(loss, {"x": x}, ["x"])["x"], CENTRAL_RTOL
    )


@pytest.mark.parametrize("given", ["lengths", "mask", "zero"])
@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave"])
def test_bidirectional_takes_lengths_and_masks(merge_mode, given, rng):
    options = {"dtype": "float64", "bidirectional": True, "seed": 0}
    layer = fastrnn.Bidirectional(fastrnn.GRU(3, 4, **options), merge_mode)
    merged = fastrnn.GRU(3, 4, **options, merge_mode=merge_mode)
    x, mask = rng.normal(size=(5, 2, 3)), np.array([[0, 1, 0, 1, 1], [1, 0, 0, 1, 0]])
    arguments = {
        "lengths": {"lengths": [3, 5]},
        "mask": {"mask": mask > 0},
        "zero": {"mask": mask > 0, "zero_output_for_mask": True},
    }[given]
    y = layer(x, **arguments)
    np.testing.assert_array_equal(y, merged(x, **arguments)[0])
    assert not np.array_equal(y, layer(x))
    y = layer(x, **arguments)
    dy = rng.normal(size=y.shape)
    np.testing.assert_array_equal(layer.backward(dy), merged.backward(dy)[0])
    np.testing.assert_array_equal(layer.flat_grads, merged.flat_grads)


def test_bidirectional_keeps_a_layers_weights(rng):
    layer = fastrnn.GRU(3, 4, seed=0)
    both = fastrnn.Bidirectional(layer)
    x = rng.normal(size=(5, 2, 3))
    np.testing.assert_array_equal(both(x)[..., :4], layer(x)[0])
    again = fastrnn.Bidirectional(fastrnn.GRU(3, 4, seed=0))
    np.testing.assert_array_equal(both.flat_parameters, again.flat_parameters)
    two_ways = fastrnn.GRU(3, 4, bidirectional=True)
    assert fastrnn.Bidirectional(two_ways).layer is two_ways


def test_both_directions_of_some_steps():
    layer = fastrnn.GRU(3, 4, bidirectional=True, seed=0)
    x = np.random.default_rng(1).normal(size=(6, 2, 3)).astype("f")
    expected, _ = layer(x, lengths=[6, 2])
    both = fastrnn.Bidirectional(layer, "sum")
    y = both(x, lengths=[6, 2])
    assert np.array_equal(y, expected[..., :4] + expected[..., 4:])
    assert not both.backward(np.ones_like(y))[2:, 1].any()


def test_bidirectional_refuses():
    with pytest.raises(
        TypeError, match=r"^Bidirectional: layer must be a recurrent lay"
    ):
        fastrnn.Bidirectional(fastrnn.Linear(3, 4))
    with pytest.raises(
        ValueError, match=r"^Bidirectional: merge_mode must be one of 'c"
    ):
        fastrnn.Bidirectional(fastrnn.GRU(3, 4), "max")
    for size in (3, None):  # None: not built yet
        merged = fastrnn.GRU(size, 4, bidirectional=True, merge_mode="sum")
        with pytest.raises(
            ValueError, match=r"^Bidirectional: layer must not merge .* got merge_mode="
        ):
            fastrnn.Bidirectional(merged)
    with pytest.raises(
        ValueError, match=r"^Bidirectional: a layer with parameters must"
    ):
        fastrnn.Bidirectional(fastrnn.GRU(3, 4, num_layers=2))
    layer = fastrnn.Bidirectional(fastrnn.GRU(3, 4))
    layer(np.ones((5, 2, 3)))
    with pytest.raises(
        ValueError, match=r"^Bidirectional.backward: dy must have the sh"
    ):
        layer.backward(np.ones((5, 2, 4)))


# -- descriptions --------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        fastrnn.LSTM(3, 4, 2, dropout=0.5, bidirectional=True, return_sequences=False),
        fastrnn.RNN(3, 4, nonlinearity="relu", bias=False, dtype="float64"),
        fastrnn.GRU(3, 4, batch_first=True),
        fastrnn.Linear(3, 4, bias=False),
        fastrnn.Embedding(5, 4, padding_idx=-1),
        fastrnn.Dropout(0.25),
        fastrnn.Bidirectional(fastrnn.GRU(3, 4), "ave"),
        fastrnn.Sequential(
            fastrnn.Linear(3, 4), fastrnn.Sequential(fastrnn.Linear(4, 1))
        ),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_is_made_again_from_its_description(layer):
    again = construct(describe(layer), known_layers())
    assert repr(again) == repr(layer)
    assert describe(again) == describe(layer)
    assert {k: v.shape for k, v in again.parameters.items()} == {
        k: v.shape for k, v in layer.parameters.items()
    }


def test_what_cannot_be_described_or_made():
    class Forgetful(fastrnn.Module):
        def __init__(self, size):
            self.width = size

    class Odd(fastrnn.Module):
        def __init__(self, thing):
            self.thing = thing

    with pytest.raises(
        TypeError, match=r"^Forgetful: to be saved with its model, a lay"
    ):
        describe(Forgetful(3))
    with pytest.raises(
        TypeError, match=r"^Odd: thing must be a number, a string, a lay"
    ):
        describe(Odd(object()))
    with pytest.raises(
        TypeError, match=r"^LSTM: its input size is not known yet, so it"
    ):
        describe(fastrnn.Sequential(fastrnn.LSTM(None, 3)))
    with pytest.raises(
        ValueError, match=r"^layer 'Odd' is not one of fastrnn's: give it"
    ):
        construct(describe(Odd(3)), known_layers())
    assert construct(describe(Odd(3)), {"Odd": Odd}).thing == 3
    with pytest.raises(ValueError, match=r"^layer 'Dropout' has no argument 'q'"):
        construct({"class": "Dropout", "arguments": {"q": 1}}, known_layers())
    with pytest.raises(
        ValueError, match=r"^a layer must be described by class and arg"
    ):
        construct({"class": "Dropout"}, known_layers())


def test_a_wrong_argument_of_a_layer_without_input_size_names_the_layer():
    with pytest.raises(
        TypeError, match=r"^LSTM: multiple values for argument 'hidden_size'"
    ):
        fastrnn.LSTM(None, 3, units=4)
