# SPDX-License-Identifier: BSD-3-Clause
"""Calls of layers by XLA's typed FFI: on XLA's buffers, from XLA's threads.

Numbers are judged by the other way in, a callback that is handed arrays of its own,
which other tests judge.
"""

import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("fastrnn.native.xla")

import jax.numpy as jnp  # noqa: E402

from fastrnn import jax as layers  # noqa: E402
from fastrnn.jax import _ffi, _lower  # noqa: E402

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
T, B, I, H = 5, 3, 4, 6
# What JAX makes of an error of XLA's: an invalid argument may be a ValueError, too.
RAISED = (jax.errors.JaxRuntimeError, ValueError)


def drawn(rng, cell="lstm", dtype="float32"):
    """Parameters of a layer, and its input."""
    G = GATES[cell]
    shapes = {"weight_ih": (G * H, I), "weight_hh": (G * H, H)}
    shapes |= {"bias_ih": (G * H,), "bias_hh": (G * H,)}
    params = {k: jnp.asarray(rng.normal(size=s), dtype) for k, s in shapes.items()}
    return params, jnp.asarray(rng.normal(size=(T, B, I)), dtype)


def step_of(cell, **jit):
    """The loss and its gradients for parameters and input, compiled anew."""
    layer = getattr(layers, cell)

    def loss(params, x, lengths):
        y, state = layer(params, x, lengths=lengths)
        return jnp.sum(jnp.sin(y)) + sum(jnp.sum(a**2) for a in jax.tree.leaves(state))

    return jax.jit(jax.value_and_grad(loss, (0, 1)), **jit)


@pytest.fixture
def by_callback(monkeypatch):
    """Makes what is compiled from then on call layers by a callback."""
    return lambda: monkeypatch.setattr(_lower._ffi, "problem", lambda: "not now")


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_there_is_no_problem_here():
    assert _ffi.problem() is None


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("lengths", [None, (5, 0, 2)])
def test_bits_are_those_of_a_callback(rng, by_callback, cell, lengths):
    params, x = drawn(rng, cell)
    lengths = lengths and jnp.asarray(lengths)
    got = step_of(cell)(params, x, lengths)
    by_callback()
    assert_same(got, step_of(cell)(params, x, lengths))


def test_float64(rng, by_callback):
    with jax.enable_x64(True):
        params, x = drawn(rng, dtype="float64")
        got = step_of("lstm")(params, x, None)
        by_callback()
        assert_same(got, step_of("lstm")(params, x, None))


def test_groups_of_weights(rng, by_callback):
    several = [drawn(rng) for _ in range(2)]
    params, x = jax.tree.map(lambda *a: jnp.stack(a), *several)

    def run():
        return jax.vmap(step_of("lstm"), (0, 0, None))(params, x, None)

    got = run()
    by_callback()
    assert_same(got, run())


def test_buffers_are_xlas_own_and_nobody_keeps_them(rng, monkeypatch):
    params, x = drawn(rng)
    places, alive, run = [], [], _ffi.run

    def watched(call, operands, results):
        places.extend(a.ctypes.data for a in operands)
        assert not any(a.flags.writeable for a in operands)
        alive.extend(weakref.ref(a) for a in [*operands, *results])
        run(call, operands, results)

    monkeypatch.setattr(_ffi, "run", watched)
    y, _ = jax.jit(layers.lstm)(params, x)
    y.block_until_ready()
    for given in [*params.values(), x]:
        assert given.unsafe_buffer_pointer() in places
    gc.collect()
    assert alive
    assert all(ref() is None for ref in alive)


def test_donated_arguments(rng):
    params, x = drawn(rng)
    want = step_of("lstm")(params, x, None)
    # What is given away may be the memory that results are written to.
    given = jax.tree.map(jnp.copy, params)
    got = step_of("lstm", donate_argnums=0)(given, x, None)
    assert_same(got, want)


def test_what_a_call_raises_is_raised_where_the_program_was_called(rng, monkeypatch):
    params, x = drawn(rng)
    layer = jax.jit(layers.lstm)
    want = layer(params, x)
    errors = {
        "INVALID_ARGUMENT: ValueError: pair 7": ValueError("pair 7"),
        "RESOURCE_EXHAUSTED: MemoryError: no ö": MemoryError("no ö"),
        "INTERNAL: KeyError: 'x'": KeyError("x"),
    }
    for message, error in errors.items():

        def fail(call, operands, results, error=error):
            raise error

        with monkeypatch.context() as context:
            context.setattr(_ffi, "run", fail)
            with pytest.raises(RAISED, match=message):
                jax.block_until_ready(layer(params, x))
        assert_same(layer(params, x), want)


@pytest.mark.parametrize(
    ("dtype", "attributes", "message"),
    [
        ("int8", {"call": ""}, "TypeError: no arrays are made of XLA's type number 2"),
        ("float32", {"other": ""}, "the only attribute must be a string .* call"),
        ("float32", {"call": np.int32(1)}, "the only attribute must be a string"),
        ("float32", {"call": "", "more": ""}, "the only attribute must be a string"),
        ("float32", {"call": "lstm"}, "JSONDecodeError"),
    ],
)
def test_calls_that_are_no_calls(dtype, attributes, message):
    target = jax.ffi.ffi_call(_ffi.TARGET, jax.ShapeDtypeStruct((3,), dtype))
    with pytest.raises(RAISED, match=message):
        target(jnp.ones(3), **attributes).block_until_ready()


def test_a_call_is_the_same_after_it_was_text():
    call = _lower.Call(
        _ffi.Form("gru", 3, 5, "float64", True, (("relu", 0.0, 0.1),) * 2, True),
        "forward",
        ("x", "h0"),
        ("y", "h_n"),
        groups=2,
        grouped=(True, False),
        site=("here", 3),
    )
    assert _ffi.call_of(_ffi.text_of(call)) == call
    odd = _ffi.call_of(_ffi.text_of(call._replace(site=("here", frozenset({3})))))
    assert odd == call._replace(site=("here", "frozenset({3})"))


def test_a_jaxlib_that_refuses_the_target(rng, monkeypatch):
    params, x = drawn(rng)
    want = step_of("lstm")(params, x, None)

    def refuse(name, target, platform):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: API version (0.3)")

    monkeypatch.setattr(jax.ffi, "register_ffi_target", refuse)
    _ffi.problem.cache_clear()
    try:
        assert "refuses: INVALID_ARGUMENT: API version (0.3)" in _ffi.problem()
        assert_same(step_of("lstm")(params, x, None), want)
    finally:
        _ffi.problem.cache_clear()


def test_a_build_without_the_headers(rng, monkeypatch):
    params, x = drawn(rng)
    want = step_of("lstm")(params, x, None)
    monkeypatch.setattr(_ffi, "xla", None)
    _ffi.problem.cache_clear()
    try:
        assert "built without XLA's headers" in _ffi.problem()
        assert_same(step_of("lstm")(params, x, None), want)
    finally:
        _ffi.problem.cache_clear()


# In a process of its own, so that one that waits for ever can be ended.
CROWD = """
import sys, threading
import numpy as np, jax, jax.numpy as jnp
from fastrnn.jax import lstm
sys.setswitchinterval(1e-5)
rng = np.random.default_rng(0)
def draw(*shape): return jnp.asarray(rng.normal(size=shape), "float32")
H = 48
params = {"weight_ih": draw(4*H, H), "weight_hh": draw(4*H, H)}
@jax.jit
def step(params, x):
    def loss(params):
        both = [lstm(params, x)[0], lstm(params, x[::-1])[0]]
        return jnp.sum(jnp.sin(both[0] + both[1]))
    return jax.value_and_grad(loss)(params)
xs = [draw(20, 16, H) for _ in range(4)]
want = [jax.device_get(step(params, x)) for x in xs]
wrong = []
def work(k):
    for _ in range(15):
        found = jax.device_get(step(params, xs[k]))
        if not all(map(np.array_equal, *map(jax.tree.leaves, (found, want[k])))):
            wrong.append(k)
threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
for t in threads: t.start()
while any(t.is_alive() for t in threads):  # somebody who wants the interpreter, too
    sum(range(1000))
assert not wrong, wrong
# And an end of the program while calls still run and others are to come.
for x in xs * 20:
    params = jax.tree.map(lambda p, g: p - 1e-3 * g, params, step(params, x)[1])
print("done")
"""


@pytest.mark.parametrize("n_threads", [1, 2])
def test_many_threads_at_once_and_an_end_amid_calls(n_threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", str(n_threads))
    done = subprocess.run(
        [sys.executable, "-c", CROWD],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


CACHED = """
import sys, logging
import numpy as np, jax, jax.numpy as jnp
from fastrnn.jax import gru
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
rng = np.random.default_rng(0)
def draw(*shape): return jnp.asarray(rng.normal(size=shape), "float32")
params = {"weight_ih": draw(15, 4), "weight_hh": draw(15, 5)}
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
y = jax.jit(lambda x: gru(params, x)[0])(draw(6, 2, 4))
print(np.asarray(y).tobytes().hex(), "/jax/compilation_cache/cache_hits" in hits)
"""


@pytest.mark.only_grid
def test_programs_of_another_process(tmp_path):
    found = [
        subprocess.run(
            [sys.executable, "-c", CACHED, tmp_path],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert [hit for _, hit in found] == ["False", "True"]
    assert found[0][0] == found[1][0]
