# SPDX-License-Identifier: BSD-3-Clause
"""recurrent/calls.py: there is one path through a layer, and what watches it."""

import ast
import copy
import threading
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn.recurrent import calls

T, B, I, H = 5, 3, 2, 4
PACKAGE = Path(fastrnn.__file__).parent
# What a call is made of. It may not reach into the layer, whose other half it once was.
PARTS = ("calls", "blocks", "layerwise", "last", "rows", "flow", "states", "inputs")
PARTS += ("gathering", "merging", "connections")


def sequences():
    return np.random.default_rng(0).standard_normal((T, B, I))


@pytest.mark.parametrize("name", PARTS)
def test_a_call_reads_no_private_part_of_its_layer(name):
    tree = ast.parse((PACKAGE / "recurrent" / f"{name}.py").read_text("utf-8"))
    reached = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and ast.unparse(node.value) not in ("self", "super()")
    ]
    assert reached == []


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, {}),
        ({}, {"lengths": [5, 0, 3]}),
        ({}, {"lengths": [0, 0, 0]}),
        ({}, {"mask": np.arange(B * T).reshape(B, T) % 2 == 0}),
        ({}, {"resets": np.arange(T * B).reshape(T, B) % 4 == 0}),
        ({"return_sequences": False}, {}),
        ({"checkpoint_every": 2}, {}),
        ({"bidirectional": True, "merge_mode": "sum"}, {}),
        ({"num_layers": 2, "connection": "highway"}, {"lengths": [2, 5, 1]}),
    ],
)
def test_every_forward_leaves_a_call_for_its_backward(options, arguments):
    layer = fastrnn.GRU(I, H, seed=0, dtype="float64", **options)
    y, _ = layer(sequences(), **arguments)
    assert type(layer.context.saved) is calls.Call
    layer.backward(np.ones_like(y))
    assert layer.context.saved is None
    layer.eval()(sequences(), **arguments)
    assert layer.context is None


@pytest.mark.parametrize("options", [{}, {"return_sequences": False}])
def test_a_flag_is_checked_where_nothing_is_masked(options):
    layer = fastrnn.RNN(I, H, seed=0, **options)
    with pytest.raises(TypeError, match="zero_output_for_mask must be"):
        layer(sequences(), zero_output_for_mask="yes")


@pytest.mark.parametrize("is_copy", [False, True])
def test_calls_know_where_parameters_are_now(is_copy):
    """A layer that joins a model has its parameters in the model's buffers."""
    layer = fastrnn.LSTM(I, H, seed=0, dtype="float64", learn_initial_state=True)
    if is_copy:
        layer = copy.deepcopy(layer)
    before, _ = layer(sequences())
    model = fastrnn.Sequential(fastrnn.Linear(I, I, dtype="float64"), layer)
    model.flat_parameters[...] *= 0.5
    y, _ = layer(sequences())
    assert np.abs(y - before).max() > 0.01
    layer.backward(np.ones_like(y))
    step = 1e-6
    for name in ("weight_hh_l0", "h_0"):
        parameter = layer.parameters[name]
        slope = 0
        for sign in (1, -1):
            parameter[0, 1] += sign * step
            slope += sign * layer(sequences())[0].sum() / (2 * step)
            parameter[0, 1] -= sign * step
        np.testing.assert_allclose(layer.grads[name][0, 1], slope, rtol=1e-6)


class Watcher:
    def __init__(self):
        self.seen = []

    def __call__(self, call):
        self.seen.append(call.layer)
        return self.seen.append


def test_a_watcher_sees_the_backwards_of_its_own_thread_alone():
    layer, other = (fastrnn.GRU(I, H, seed=k, dtype="float64") for k in (0, 1))
    results = []

    def step(layer):
        y, _ = layer(sequences())
        results.append(layer.backward(np.ones_like(y)))

    watcher = Watcher()
    step(layer)
    with calls.watched_by(watcher):
        thread = threading.Thread(target=step, args=(other,))
        thread.start()
        thread.join()
        step(layer)
    step(layer)
    seen, norms = watcher.seen
    assert seen is layer
    y, _ = layer(sequences())
    *_, lags = layer.backward(np.ones_like(y), record_flow="lag")
    np.testing.assert_array_equal(norms, lags)
    np.testing.assert_array_equal(results[0][0], results[2][0])
    assert [len(result) for result in results] == [2] * 4


def test_a_watched_backward_still_gives_the_flow_that_it_is_asked_for():
    layer = fastrnn.GRU(I, H, seed=0, dtype="float64")
    dy = np.zeros((T, B, H))
    dy[-1] = 1
    watcher = Watcher()
    layer(sequences())
    with calls.watched_by(watcher):
        *_, flow = layer.backward(dy, record_flow=True)
    np.testing.assert_array_equal(flow, watcher.seen[1][:, ::-1])


def test_diagnose_writes_to_no_layer(monkeypatch):
    """Its forward and backward run the methods of the class, as they always do."""
    layer = fastrnn.GRU(I, H, seed=0)
    found = []
    backward = fastrnn.GRU.backward

    def spy(self, *arguments, **options):
        found.append("backward" in vars(self))
        return backward(self, *arguments, **options)

    monkeypatch.setattr(fastrnn.GRU, "backward", spy)
    fastrnn.diagnose(layer, sequences(), lambda y: (y.sum(), np.ones_like(y)))
    assert found == [False]


@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("layers", [1, 2])
def test_directions_merge_in_the_wrapper_as_written_out(mode, layers):
    """`Bidirectional` merges what the last layer gives, however many are below."""
    options = {"bidirectional": True, "seed": 0, "dtype": "float64"}
    plain = fastrnn.LSTM(I, H, layers, **options)
    both, _ = plain(sequences())
    one, other = both[..., :H], both[..., H:]
    wanted = {
        "concat": both,
        "sum": one + other,
        "mul": one * other,
        "ave": (one + other) / 2,
    }[mode]
    wrapped = fastrnn.Bidirectional(fastrnn.LSTM(I, H, layers, **options), mode)
    np.testing.assert_array_equal(wrapped(sequences()), wanted)
    if layers == 1 and mode != "concat":  # a stack of its own merges below, too
        merged, _ = fastrnn.LSTM(I, H, merge_mode=mode, **options)(sequences())
        np.testing.assert_array_equal(merged, wanted)
