# SPDX-License-Identifier: BSD-3-Clause
"""fastrnn.jax computes what loops from the equations compute, and their gradients."""

import numpy as np
import pytest

pytest.importorskip("jax", reason="JAX is not installed")

import jax
import jax.numpy as jnp
import jax_loops
from jax_loops import assert_close

import fastrnn.jax

CELLS = ("lstm", "gru", "rnn")


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def both(name, **options):
    """The function under test and its judge."""
    ours, judge = getattr(fastrnn.jax, name), getattr(jax_loops, name)
    return (
        lambda *args: ours(*args, **options),
        lambda *args: judge(*args, **options),
    )


def start_of(rng, name, *shape):
    parts = [jnp.asarray(rng.standard_normal(shape)) for _ in range(2)]
    return tuple(parts) if name == "lstm" else parts[0]


@pytest.mark.parametrize("lengths", [None, (3, 5, 0)], ids=["whole", "lengths"])
@pytest.mark.parametrize("name", CELLS)
def test_results_and_gradients(rng, name, lengths):
    ours, judge = both(name)
    params, x = jax_loops.arrays(rng, name)
    lengths = None if lengths is None else jnp.array(lengths)
    args = params, x, start_of(rng, name, 3, 6)
    assert_close(jax.jit(ours)(*args, lengths), jax.jit(judge)(*args, lengths))
    found, expected = (
        jax.jit(jax.value_and_grad(jax_loops.loss_of(f), (0, 1, 2)))(*args, lengths)
        for f in (ours, judge)
    )
    assert_close(found, expected)


@pytest.mark.parametrize("name", CELLS)
def test_without_jit(rng, name):
    ours, judge = both(name)
    params, x = jax_loops.arrays(rng, name)
    found = jax.grad(jax_loops.loss_of(ours), (0, 1))(params, x)
    expected = jax.jit(jax.grad(jax_loops.loss_of(judge), (0, 1)))(params, x)
    assert_close(found, expected)


@pytest.mark.parametrize("name", CELLS)
def test_float32(rng, name):
    ours, judge = both(name)
    params, x = jax_loops.arrays(rng, name, dtype="float32")
    wide = jax.tree.map(lambda a: a.astype("float64"), (params, x))
    found = jax.jit(jax.grad(jax_loops.loss_of(ours), (0, 1)))(params, x)
    expected = jax.jit(jax.grad(jax_loops.loss_of(judge), (0, 1)))(*wide)
    expected = jax.tree.map(lambda a: a.astype("float32"), expected)
    assert_close(found, expected, "float32")


def test_relu(rng):
    ours, judge = both("rnn", nonlinearity="relu")
    params, x = jax_loops.arrays(rng, "rnn")
    found, expected = (
        jax.value_and_grad(jax_loops.loss_of(f), (0, 1))(params, x)
        for f in (ours, judge)
    )
    assert_close(found, expected)


@pytest.mark.parametrize("name", CELLS)
def test_one_sequence_without_biases(rng, name):
    ours, judge = both(name)
    params, x = jax_loops.arrays(rng, name, bias=False)
    args = params, x[:, 0], start_of(rng, name, 6), jnp.array(4)
    assert_close(ours(*args), judge(*args))
    found, expected = (
        jax.jit(jax.grad(jax_loops.loss_of(f), (0, 1, 2)))(*args) for f in (ours, judge)
    )
    assert_close(found, expected)


def test_numpy_s_arrays_and_numbers(rng):
    params, x = jax.tree.map(np.asarray, jax_loops.arrays(rng, "gru"))
    y, h = fastrnn.jax.gru(params, x, lengths=[5, 2, 1])
    assert isinstance(y, jax.Array)
    np.testing.assert_array_equal(h[1], y[1, 1])
    np.testing.assert_array_equal(y[2:, 1], 0)


def test_lengths_that_a_trace_cannot_refuse(rng):
    params, x = jax_loops.arrays(rng, "rnn")
    y, _ = jax.jit(fastrnn.jax.rnn)(params, x, None, jnp.array([9, -3, 2]))
    expected, _ = fastrnn.jax.rnn(params, x, None, jnp.array([5, 0, 2]))
    np.testing.assert_array_equal(y, expected)


def test_lengths_of_any_type_in_strict_modes(rng):
    params, x = jax_loops.arrays(rng, "rnn")
    expected, _ = fastrnn.jax.rnn(params, x, None, [5, 0, 2])
    with (
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
    ):
        for dtype in ("uint8", "int16", "uint32", "int32"):
            lengths = jnp.array([5, 0, 2], dtype)
            found, _ = fastrnn.jax.rnn(params, x, None, lengths)
            np.testing.assert_array_equal(found, expected)
            found, _ = jax.jit(fastrnn.jax.rnn)(params, x, None, lengths)
            np.testing.assert_array_equal(found, expected)
    found, _ = jax.jit(lambda a, b: fastrnn.jax.rnn(params, x, None, [a, 0, b]))(5, 2)
    np.testing.assert_array_equal(found, expected)
    empty, _ = fastrnn.jax.rnn(params, x[:, :0], None, [])
    assert empty.shape == (5, 0, 6)


@pytest.mark.parametrize("shape", [(0, 3, 4), (5, 0, 4)])
@pytest.mark.parametrize("name", CELLS)
def test_nothing_to_compute(rng, name, shape):
    ours, _ = both(name)
    params, _ = jax_loops.arrays(rng, name)
    state = start_of(rng, name, shape[1], 6)
    y, end = ours(params, jnp.zeros(shape), state)
    assert y.shape == (*shape[:2], 6)
    assert_close(end, state)
    gradient = jax.grad(jax_loops.loss_of(ours))(params, jnp.zeros(shape), state)
    assert all(not np.any(d) for d in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", CELLS)
def test_pytorch_agrees(rng, name):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    params, x = jax_loops.arrays(rng, name)
    module = getattr(torch.nn, name.upper())(4, 6).double()
    for key, value in params.items():
        getattr(module, f"{key}_l0").data[:] = torch.tensor(np.asarray(value))
    given = torch.tensor(np.asarray(x), requires_grad=True)
    y, _ = module(given)
    y.sin().sum().backward()

    def loss(params, x):
        return jnp.sum(jnp.sin(getattr(fastrnn.jax, name)(params, x)[0]))

    found = jax.grad(loss, (0, 1))(params, x)
    weights = {key: getattr(module, f"{key}_l0").grad.numpy() for key in params}
    assert_close(found, (weights, given.grad.numpy()))


@pytest.mark.parametrize("name", CELLS)
def test_infinity_and_nan_go_where_they_must(rng, name):
    params, x = jax_loops.arrays(rng, name)
    y, _ = getattr(fastrnn.jax, name)(params, x.at[2, 1, 0].set(jnp.nan))
    assert np.isnan(y[2:, 1]).any()
    assert np.isfinite(y[:2]).all()
    assert np.isfinite(y[:, ::2]).all()
