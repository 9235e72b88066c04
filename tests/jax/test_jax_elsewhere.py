# SPDX-License-Identifier: BSD-3-Clause
"""Where the kernels cannot compute, fastrnn.jax runs as jax.lax.scan, and says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="JAX is not installed")

import jax
import jax.export
import jax.numpy as jnp
import jax_loops
from jax_loops import assert_close, loss_of

import fastrnn.jax
from fastrnn.jax import _fallback

FORWARD = pytest.mark.filterwarnings("ignore:fastrnn.jax:RuntimeWarning")


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(_fallback, "_said", set())


def fresh(f):
    """The same function, of which JAX has compiled nothing yet."""
    return lambda *args: f(*args)


@pytest.mark.parametrize("lengths", [None, (3, 5, 0)], ids=["whole", "lengths"])
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_forward_mode(rng, name, lengths):
    params, x = jax_loops.arrays(rng, name)
    tangents = jax.tree.map(jnp.cos, (params, x))
    lengths = None if lengths is None else jnp.array(lengths)

    def pushed(layer):
        def of(params, x):
            return layer(params, x, None, lengths)

        return jax.jit(lambda: jax.jvp(of, (params, x), tangents))

    with pytest.warns(RuntimeWarning, match="forward-mode .* runs as jax.lax.scan"):
        found = pushed(getattr(fastrnn.jax, name))()
    assert_close(found, pushed(getattr(jax_loops, name))())
    pushed(getattr(fastrnn.jax, name))()  # which does not say it again


# Compositions of derivatives, and what each says of itself.
SECOND = {
    "forward of reverse": (lambda f: jax.jacfwd(jax.jacrev(f)), "derivative of a"),
    "reverse of reverse": (lambda f: jax.jacrev(jax.jacrev(f)), "derivative of a"),
    "reverse of forward": (lambda f: jax.jacrev(jax.jacfwd(f)), "forward-mode"),
}


@FORWARD
@pytest.mark.parametrize("case", SECOND)
def test_second_derivatives(rng, case):
    derive, says = SECOND[case]
    params, x = jax_loops.arrays(rng, "gru", T=3, B=2, I=2, H=3)

    def of_x(layer):
        return lambda x: jnp.sum(jnp.sin(layer(params, x)[0]))

    with pytest.warns(RuntimeWarning, match=says):
        found = jax.jit(derive(of_x(fastrnn.jax.gru)))(x)
    assert_close(found, jax.jit(derive(of_x(jax_loops.gru)))(x))


@FORWARD
@pytest.mark.parametrize("axis", [None, -1], ids=["shared", "each"])
def test_forward_mode_of_a_vmap(rng, axis):
    params, x = jax_loops.arrays(rng, "lstm", T=3, B=2)
    if axis is not None:
        params = jax.tree.map(lambda a: jnp.stack([a, -a], axis), params)

    def pushed(layer):
        def of(params):
            return jax.vmap(loss_of(layer), (axis, 0))(params, jnp.stack([x, 2 * x]))

        return jax.jit(lambda: jax.jvp(of, (params,), (params,)))()

    assert_close(pushed(fastrnn.jax.lstm), pushed(jax_loops.lstm))


def test_exported(rng):
    """What is exported runs where there is no fastrnn, for any batch."""
    params, x = jax_loops.arrays(rng, "lstm")
    step = jax.value_and_grad(loss_of(fastrnn.jax.lstm))
    (rows,) = jax.export.symbolic_shape("rows")
    shape = jax.ShapeDtypeStruct((5, rows, 4), x.dtype)
    with pytest.warns(RuntimeWarning, match="an exported function"):
        exported = jax.export.export(jax.jit(fresh(fastrnn.jax.lstm)))(params, shape)
    for target in ("@fastrnn_call", "python_cpu_callback"):
        assert target not in exported.mlir_module()
    found = jax.export.deserialize(exported.serialize()).call(params, x)
    assert_close(found, fastrnn.jax.lstm(params, x))
    exported = jax.export.export(jax.jit(step), platforms=("cpu", "cuda"))(params, x)
    assert_close(exported.call(params, x), step(params, x))


def test_several_devices():
    """Sharded by hand, by XLA and by types, all as on one device."""
    program = Path(__file__).parents[1] / "support" / "jax_devices.py"
    flags = "--xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, program],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["gspmd", "shard_map", "explicit", "second"]
    assert done.stderr.count("sharded over 2 devices runs as jax.lax.scan") == 1
