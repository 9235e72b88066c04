# SPDX-License-Identifier: BSD-3-Clause
"""What JAX's transformations make of fastrnn.jax, and how often the kernels run."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("jax", reason="JAX is not installed")

import jax
import jax.numpy as jnp
import jax_loops
from jax_loops import assert_close, loss_of

import fastrnn.jax
from fastrnn.jax import _ffi
from fastrnn.recurrent.pure import Recurrence

N = 3


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def calls(monkeypatch):
    """How often forward and backward run, and whether a backward computed dx."""
    seen = {"forward": 0, "backward": 0, "dx": 0}

    def counted(name):
        original = getattr(Recurrence, name)

        def run(self, *args, **options):
            seen[name] += 1
            seen["dx"] += options.get("wants_dx", False)
            return original(self, *args, **options)

        return run

    for name in ("forward", "backward"):
        monkeypatch.setattr(Recurrence, name, counted(name))
    return seen


def many(rng, name):
    """Parameters, stacked along their last axis, and inputs, along the second."""
    params, x = jax_loops.arrays(rng, name, T=4, B=2)
    params = jax.tree.map(lambda a: jnp.stack([a, -a, 0.5 * a], -1), params)
    return params, jnp.stack([x, 2 * x, -x], 1)


def summed(f):
    return lambda *args: f(*args).sum()


# The axes of params and x, what is differentiated, and the calls forward and backward.
MAPS = {
    "inputs": ((None, 1), None, 1, 0),
    "weights": ((-1, None), None, N, 0),
    "both": ((-1, 1), None, N, 0),
    "gradients of inputs": ((None, 1), 1, 1, 1),
    "gradients of shared weights": ((None, 1), 0, 1, N),
    "gradients of weights": ((-1, None), (0, 1), N, N),
    "gradients of both": ((-1, 1), (0, 1), N, N),
}


@pytest.mark.parametrize("lengths", [None, (1, 4)], ids=["whole", "lengths"])
@pytest.mark.parametrize("case", MAPS)
def test_vmap(rng, calls, case, lengths):
    axes, of, forwards, backwards = MAPS[case]
    params, x = many(rng, "gru")
    if axes[0] is None:
        params = jax.tree.map(lambda a: a[..., 0], params)
    if axes[1] is None:
        x = x[:, 0]
    lengths = None if lengths is None else jnp.array(lengths)

    def mapped(layer):
        def one(params, x):
            return loss_of(layer)(params, x, None, lengths)

        one = one if of is None else jax.grad(one, of)
        return jax.jit(jax.vmap(one, axes))(params, x)

    found = mapped(fastrnn.jax.gru)
    jax.block_until_ready(found)
    # With a mask a tape is whole only in the calls that it was made for.
    again = backwards if lengths is not None and backwards > forwards else 0
    assert calls["forward"] == forwards + again
    assert calls["backward"] == backwards
    assert_close(found, mapped(jax_loops.gru))


def test_vmap_of_nothing(rng):
    params, x = jax_loops.arrays(rng, "lstm")
    none = jnp.zeros((0, *x.shape))
    y, (h, c) = jax.vmap(lambda x: fastrnn.jax.lstm(params, x))(none)
    assert (y.shape, h.shape, c.shape) == ((0, 5, 3, 6), (0, 3, 6), (0, 3, 6))
    per_example = jax.vmap(jax.grad(loss_of(fastrnn.jax.lstm)), (None, 0))
    gradients = per_example(params, none)
    assert gradients["weight_hh"].shape == (0, 24, 6)
    total = jax.grad(
        lambda params: jnp.sum(jax.vmap(lambda x: fastrnn.jax.lstm(params, x)[0])(none))
    )(params)
    assert not any(np.any(d) for d in jax.tree.leaves(total))


@pytest.mark.parametrize("axes", [(-1, 1), (None, 1)], ids=["weights", "inputs"])
def test_gradient_of_a_vmap(rng, calls, axes):
    params, x = many(rng, "lstm")
    if axes[0] is None:
        params = jax.tree.map(lambda a: a[..., 0], params)
    found, expected = (
        jax.jit(jax.grad(summed(jax.vmap(loss_of(f), axes)), (0, 1)))(params, x)
        for f in (fastrnn.jax.lstm, jax_loops.lstm)
    )
    assert_close(found, expected)
    expected_calls = 1 if axes[0] is None else N
    assert calls == {
        "forward": expected_calls, "backward": expected_calls, "dx": expected_calls
    }  # fmt: skip


def test_vmap_of_a_vmap(rng, calls):
    params, x = many(rng, "gru")

    def grid(layer):
        over_x = jax.vmap(jax.grad(loss_of(layer), (0, 1)), (None, 1))
        return jax.jit(jax.vmap(over_x, (-1, None)))(params, x)

    assert_close(grid(fastrnn.jax.gru), grid(jax_loops.gru))
    assert calls["forward"] == N
    assert calls["backward"] == N * N


def test_lengths_of_each(rng):
    params, x = jax_loops.arrays(rng, "lstm")

    def gradients(layer):
        def one(params, x, length):
            return loss_of(layer)(params, x, None, length)

        each = jax.vmap(jax.value_and_grad(one), (None, 1, 0))
        return jax.jit(each)(params, x, jnp.array([2, 5, 0]))

    assert_close(gradients(fastrnn.jax.lstm), gradients(jax_loops.lstm))


@pytest.mark.parametrize("lengths", [None, (3, 1)], ids=["whole", "lengths"])
def test_parts_of_what_vmap_keeps(rng, lengths):
    """The tape of one row is not taken for that of a call of its own."""
    params, x = many(rng, "lstm")
    params = jax.tree.map(lambda a: a[..., 0], params)
    lengths = None if lengths is None else jnp.array(lengths)

    def pull(x):
        return jax.vjp(lambda p: loss_of(fastrnn.jax.lstm)(p, x, None, lengths), params)

    _, pulls = jax.jit(jax.vmap(pull, 1))(x)
    gradient = jax.jit(jax.grad(loss_of(jax_loops.lstm)))
    for k in range(N):
        own = jax.tree.map(lambda a, k=k: a[k], pulls)
        (found,) = jax.jit(lambda own: own(1.0))(own)
        assert_close(found, gradient(params, x[:, k], None, lengths))


def test_gradients_that_nobody_wants_are_not_computed(rng, calls):
    params, x = jax_loops.arrays(rng, "gru")
    jax.block_until_ready(jax.jit(jax.grad(loss_of(fastrnn.jax.gru)))(params, x))
    assert calls == {"forward": 1, "backward": 1, "dx": 0}


def test_scan_and_remat_around_a_layer(rng, calls):
    """Truncated sequences, whose state goes on, each computed twice."""
    params, x = jax_loops.arrays(rng, "lstm", T=6)

    def loss(layer, params, x):
        @jax.checkpoint
        def part(state, x):
            y, state = layer(params, x, state)
            return state, jnp.sum(jnp.sin(y))

        zero = jnp.zeros((3, 6))
        _, losses = jax.lax.scan(part, (zero, zero), x.reshape(3, 2, *x.shape[1:]))
        return losses.sum()

    found, expected = (
        jax.jit(jax.grad(loss, (1, 2)), static_argnums=0)(f, params, x)
        for f in (fastrnn.jax.lstm, jax_loops.lstm)
    )
    assert_close(found, expected)
    assert calls == {"forward": 6, "backward": 3, "dx": 3}


def test_remat_makes_no_tape_at_first(rng, monkeypatch):
    keeps, original = [], Recurrence.forward

    def forward(self, *args, **options):
        keeps.append(options["keep"])
        return original(self, *args, **options)

    monkeypatch.setattr(Recurrence, "forward", forward)
    params, x = jax_loops.arrays(rng, "lstm")
    loss = jax.checkpoint(loss_of(fastrnn.jax.lstm))
    jax.block_until_ready(jax.jit(jax.value_and_grad(loss))(params, x))
    assert keeps == [False, True]


@pytest.mark.parametrize("name", ["lstm", "rnn"])
def test_a_callback_has_the_same_bits(rng, monkeypatch, name):
    params, x = jax_loops.arrays(rng, name)
    loss = loss_of(getattr(fastrnn.jax, name))
    found = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, x)
    monkeypatch.setattr(_ffi, "problem", lambda: "as if it had not been built")
    again = jax.jit(lambda *args: jax.value_and_grad(loss, (0, 1))(*args))(params, x)
    jax.tree.map(np.testing.assert_array_equal, found, again)


@jax.enable_x64(False)  # which threads do not hand on
def test_several_threads_at_once(rng):
    params, x = jax_loops.arrays(rng, "gru", T=20, B=8, H=32, dtype="float32")
    step = jax.jit(jax.grad(loss_of(fastrnn.jax.gru)))
    inputs = [scale * x for scale in (0.5, 1.0, 2.0, 4.0)]
    expected = [step(params, x) for x in inputs] * 3
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: step(params, x), inputs * 3))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_checks_of_jax(rng):
    """Nothing leaks from a trace, and no number that was never written is looked at."""
    params, x = jax_loops.arrays(rng, "lstm")
    loss = loss_of(fastrnn.jax.lstm)
    with jax.debug_nans(True), jax.checking_leaks():
        found = jax.value_and_grad(loss)(params, x)
    with jax.disable_jit():
        again = jax.value_and_grad(loss)(params, x)
    assert_close(found, again)
    shapes = jax.eval_shape(fastrnn.jax.lstm, params, x)
    assert jax.tree.map(lambda a: a.shape, shapes) == ((5, 3, 6), ((3, 6), (3, 6)))


def test_donated_parameters(rng):
    params, x = jax_loops.arrays(rng, "gru")
    expected = jax.jit(jax.grad(loss_of(jax_loops.gru)))(params, x)
    expected = jax.tree.map(lambda p, d: p - d, params, expected)

    def step(params, x):
        gradient = jax.grad(loss_of(fastrnn.jax.gru))(params, x)
        return jax.tree.map(lambda p, d: p - d, params, gradient)

    assert_close(jax.jit(step, donate_argnums=0)(params, x), expected)
