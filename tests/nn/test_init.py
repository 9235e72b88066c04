# SPDX-License-Identifier: BSD-3-Clause
"""Initialisers: exact properties, distributions, seeds, messages."""

import math
import tracemalloc

import numpy as np
import pytest
from arrays import read_only

import fastrnn
from fastrnn import init
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.layers import Dropout, Linear
from fastrnn.nn.module import Module
from fastrnn.train.sequential import Sequential

# How many standard errors a sample statistic may be off: seeds are fixed, so a test
# either always passes or never does.
ERRORS = 4.0

RANDOM = {
    "uniform_": lambda a, seed: init.uniform_(a, -2, 3, seed=seed),
    "normal_": lambda a, seed: init.normal_(a, 1, 2, seed=seed),
    "fan_in_uniform_": lambda a, seed: init.fan_in_uniform_(a, 9, seed=seed),
    "xavier_uniform_": lambda a, seed: init.xavier_uniform_(a, seed=seed),
    "xavier_normal_": lambda a, seed: init.xavier_normal_(a, seed=seed),
    "orthogonal_": lambda a, seed: init.orthogonal_(a, seed=seed),
}


class Recurrent(Module):
    """The parameters of a recurrent layer with G gates, and nothing else."""

    def __init__(self, G, H, bias=True, suffixes=("l0",)):
        shapes = {}
        for suffix in suffixes:
            shapes[f"weight_ih_{suffix}"] = (G * H, 3)
            shapes[f"weight_hh_{suffix}"] = (G * H, H)
            if bias:
                shapes[f"bias_ih_{suffix}"] = (G * H,)
                shapes[f"bias_hh_{suffix}"] = (G * H,)
        self._declare(shapes)
        self.flat_parameters[:] = 0.25


@pytest.mark.parametrize("name", RANDOM)
def test_seeds(name, dtype):
    fill = RANDOM[name]
    first = fill(np.full((6, 4), np.nan, dtype), 3)
    assert first.dtype == dtype
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(fill(np.empty((6, 4), dtype), 3), first)
    assert not np.array_equal(fill(np.empty((6, 4), dtype), 4), first)
    rng = np.random.Generator(np.random.PCG64(3))
    np.testing.assert_array_equal(fill(np.empty((6, 4), dtype), rng), first)
    assert not np.array_equal(fill(np.empty((6, 4), dtype), rng), first)
    # Drawn in float64 and rounded: the same weights in both dtypes.
    wide = fill(np.empty((6, 4)), 3)
    np.testing.assert_array_equal(wide.astype(dtype), first)


@pytest.mark.parametrize("name", RANDOM)
def test_fills_the_array_itself_whatever_its_strides(name):
    fill = RANDOM[name]
    base = np.full((12, 4), 7.0)
    part = base[::2]
    assert fill(part, 0) is part
    np.testing.assert_array_equal(base[1::2], 7)
    np.testing.assert_array_equal(part, fill(np.empty((6, 4)), 0))


def test_values_are_pinned():
    """The same integer gives the same weights in every version, on every machine."""
    np.testing.assert_array_equal(
        init.uniform_(np.empty(3), seed=0),
        [0.6369616873214543, 0.2697867137638703, 0.04097352393619469],
    )
    np.testing.assert_array_equal(
        Linear(4, 1, seed=0).parameters["weight"][0],
        np.float32([0.30006802082, -0.5043720603, -1.00567662716, -1.05923485756]),
    )


def assert_distribution(sample, mean, std):
    n = sample.size
    assert abs(sample.mean() - mean) < ERRORS * std / math.sqrt(n)
    # Var(s) is at most std^2 / (2 n) for normal numbers, less for uniform ones.
    assert abs(sample.std() - std) < ERRORS * std / math.sqrt(2 * n)


def test_distributions():
    array = np.empty((300, 100))
    init.uniform_(array, -2, 4, seed=0)
    assert_distribution(array, 1, 6 / math.sqrt(12))
    assert -2 <= array.min() < -1.99
    assert 3.99 < array.max() < 4
    init.normal_(array, 1, 2, seed=0)
    assert_distribution(array, 1, 2)
    assert 0.66 < (abs(array - 1) < 2).mean() < 0.70
    init.fan_in_uniform_(array, 16, seed=0)
    assert_distribution(array, 0, 0.25 / math.sqrt(3))
    assert abs(array).max() <= 0.25


@pytest.mark.parametrize("n_gates", [1, 3, 4])
def test_xavier(n_gates):
    array = np.empty((n_gates * 100, 60))
    std = 1.5 * math.sqrt(2 / (100 + 60))
    init.xavier_uniform_(array, 1.5, n_gates=n_gates, seed=0)
    assert_distribution(array, 0, std)
    assert abs(array).max() <= math.sqrt(3) * std
    init.xavier_normal_(array, 1.5, n_gates=n_gates, seed=0)
    assert_distribution(array, 0, std)
    assert abs(array).max() > 3 * std


@pytest.mark.parametrize("shape", [(7, 7), (9, 4), (4, 9), (1, 5), (5, 1)])
@pytest.mark.parametrize("n_gates", [1, 4])
def test_orthogonal(shape, n_gates, dtype):
    rows, columns = shape
    array = np.empty((n_gates * rows, columns), dtype)
    init.orthogonal_(array, -1.5, n_gates=n_gates, seed=0)
    gates = array.reshape(n_gates, rows, columns).astype(float)
    for gate in gates:
        product = gate.T @ gate if rows >= columns else gate @ gate.T
        np.testing.assert_allclose(
            product, 2.25 * np.eye(len(product)), atol=32 * np.finfo(dtype).eps
        )
    assert n_gates == 1 or not np.array_equal(abs(gates[0]), abs(gates[1]))


def test_orthogonal_has_no_preferred_sign():
    rng = np.random.default_rng(0)
    corners = [init.orthogonal_(np.empty((2, 2)), seed=rng)[0, 0] for _ in range(2000)]
    # An entry of a random 2 x 2 rotation or reflection: mean 0, variance 1/2.
    assert_distribution(np.array(corners), 0, math.sqrt(0.5))
    dets = [
        np.linalg.det(init.orthogonal_(np.empty((2, 2)), seed=rng)) for _ in range(2000)
    ]
    assert_distribution(np.array(dets), 0, 1)


def test_identity_and_constant(dtype):
    array = np.full((4, 4), np.nan, dtype)
    assert init.identity_(array) is array
    np.testing.assert_array_equal(array, np.eye(4))
    array = np.full((6, 2), np.nan, dtype)
    init.identity_(array, 0.5, n_gates=3)
    np.testing.assert_array_equal(array, np.tile(0.5 * np.eye(2), (3, 1)))
    init.identity_(array)
    np.testing.assert_array_equal(array, np.eye(6, 2))
    assert init.constant_(array, 3) is array
    np.testing.assert_array_equal(array, 3)


def test_forget_gate_bias():
    lstm = Recurrent(4, 2, suffixes=("l0", "l0_reverse", "l1"))
    model = Sequential(Embedding(3, 3, seed=0), Recurrent(3, 2), lstm, Recurrent(1, 2))
    before = model.state_dict()
    assert init.forget_gate_bias_(model, 1.5) is model
    for name, now in model.parameters.items():
        expected = before[name]
        if name.startswith("2.bias"):
            expected[2:4] = 1.5 if "bias_ih" in name else 0
        np.testing.assert_array_equal(now, expected)


def test_forget_gate_bias_of_a_layer():
    lstm = fastrnn.LSTM(3, 5, 2, bidirectional=True, init="torch", seed=0)
    init.forget_gate_bias_(lstm, 2)
    for name, array in lstm.parameters.items():
        if name.startswith("bias"):
            want = 2 if "bias_ih" in name else 0
            np.testing.assert_array_equal(array[5:10], want)
            assert array[:5].all()
            assert array[10:].all()


@pytest.mark.parametrize(
    "model", [Recurrent(3, 2), Recurrent(4, 2, bias=False), Dropout(), Linear(2, 8)]
)
def test_forget_gate_bias_without_lstm(model):
    with pytest.raises(ValueError, match=r"^forget_gate_bias_: model must contain an "):
        init.forget_gate_bias_(model)


def test_initialisers_reach_the_flat_buffer():
    model = Sequential(Recurrent(4, 3), Linear(3, 2))
    _ = model.flat_parameters
    init.orthogonal_(model.parameters["0.weight_hh_l0"], n_gates=4, seed=0)
    R = model.flat_parameters[36:72].reshape(4, 3, 3)
    for gate in R:
        np.testing.assert_allclose(gate @ gate.T, np.eye(3), atol=1e-6)


def test_as_torch_does(dtype):
    layer = Linear(400, 100, init="torch", dtype=dtype, seed=0)
    for array in layer.parameters.values():
        assert array.dtype == dtype
        assert_distribution(array, 0, 0.05 / math.sqrt(3))
        assert abs(array).max() <= np.dtype(dtype).type(0.05)
    layer = Embedding(500, 80, padding_idx=-2, dtype=dtype, seed=0)
    table = layer.parameters["weight"]
    assert not table[498].any()
    assert_distribution(np.delete(table, 498, axis=0), 0, 1)
    again = Embedding(500, 80, dtype=dtype, seed=0).parameters["weight"]
    np.testing.assert_array_equal(np.delete(table - again, 498, axis=0), 0)


A = np.zeros((4, 2))
MESSAGES = [
    (
        lambda: init.uniform_([1.0]),
        TypeError,
        "uniform_: array must be a numpy.ndarray, got list",
    ),
    (
        lambda: init.normal_(np.zeros(2, int)),
        TypeError,
        "normal_: array must be floating, got dtype int64",
    ),
    (
        lambda: init.constant_(read_only(A), 1),
        ValueError,
        "constant_: array must be writable, got a read-only array",
    ),
    (
        lambda: init.uniform_(A, 1, 0),
        ValueError,
        "uniform_: low must be at most high = 0.0, got 1.0",
    ),
    (
        lambda: init.uniform_(A, math.nan),
        ValueError,
        "uniform_: low must be a number in (-inf, inf), got nan",
    ),
    (
        lambda: init.normal_(A, 0, -1),
        ValueError,
        "normal_: std must be a number in [0, inf), got -1",
    ),
    (
        lambda: init.fan_in_uniform_(A, 0),
        ValueError,
        "fan_in_uniform_: fan_in must be a positive integer, got 0",
    ),
    (
        lambda: init.xavier_uniform_(A[0]),
        ValueError,
        "xavier_uniform_: array must have shape (rows, columns), got (2,)",
    ),
    (
        lambda: init.xavier_normal_(A, n_gates=3),
        ValueError,
        "xavier_normal_: array must have a multiple of n_gates = 3 rows, "
        "got shape (4, 2)",
    ),
    (
        lambda: init.orthogonal_(A, n_gates=True),
        TypeError,
        "orthogonal_: n_gates must be a positive integer, got True",
    ),
    (
        lambda: init.orthogonal_(A, gain="relu"),
        TypeError,
        "orthogonal_: gain must be a number in (-inf, inf), got 'relu'",
    ),
    (
        lambda: init.xavier_uniform_(A, seed=-1),
        ValueError,
        "xavier_uniform_: seed must be None, a non-negative integer or a "
        "numpy.random.Generator, got -1",
    ),
    (
        lambda: init.fan_in_uniform_(A, 2, seed=0.5),
        TypeError,
        "fan_in_uniform_: seed must be None, a non-negative integer or a "
        "numpy.random.Generator, got 0.5",
    ),
    (
        lambda: init.identity_(A, math.inf),
        ValueError,
        "identity_: scale must be a number in (-inf, inf), got inf",
    ),
    (
        lambda: init.forget_gate_bias_(A),
        TypeError,
        "forget_gate_bias_: model must be a Module, got ndarray",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_messages(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message
    assert not A.any()


def test_large_parameters_need_no_float64_of_their_size():
    array = np.empty((1000, 1500), "f")
    for fill in (init.uniform_, init.normal_):
        fill(array[:3], seed=0)  # what NumPy keeps
        tracemalloc.start()
        try:
            fill(array, seed=0)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < array.nbytes / 2


@pytest.mark.parametrize("fill", [init.uniform_, init.normal_])
@pytest.mark.parametrize("shape", [(), (0, 4), (70_000,), (3, 70_000), (300, 2, 501)])
def test_numbers_are_those_of_one_draw(shape, fill):
    """However many are drawn at a time, and however they lie in memory."""
    flat = fill(np.empty(math.prod(shape), "d"), seed=1)
    one = fill(np.empty(shape, "d", order="F"), seed=1)
    np.testing.assert_array_equal(one.ravel(), flat)
    rng = np.random.default_rng(1)
    n = flat.size
    want = rng.normal(0, 1, n) if fill is init.normal_ else rng.random(n)
    np.testing.assert_array_equal(flat, want)
