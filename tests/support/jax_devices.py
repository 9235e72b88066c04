# SPDX-License-Identifier: BSD-3-Clause
"""A layer of fastrnn.jax on two devices; test_jax_elsewhere.py runs this program.

It prints the name of each way in which the layer had the same loss and gradients as on
one device.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fastrnn.jax


def loss(params, x):
    return jnp.sum(jnp.sin(fastrnn.jax.lstm(params, x)[0]))


step = jax.value_and_grad(loss)
rng = np.random.default_rng(0)
shapes = {"weight_ih": (20, 3), "weight_hh": (20, 5)}
params = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
params, x = jax.tree.map(jnp.float32, (params, rng.standard_normal((7, 4, 3))))
expected = jax.jit(step)(params, x)


def check(name, found):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    print(name)


mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
rows = NamedSharding(mesh, P(None, "d"))
check("gspmd", jax.jit(step)(params, jax.device_put(x, rows)))


def local(params, x):
    value, gradient = step(params, x)
    return jax.lax.psum(value, "d"), gradient


specs = {"in_specs": (P(), P(None, "d")), "out_specs": (P(), P())}
check("shard_map", jax.jit(jax.shard_map(local, mesh=mesh, **specs))(params, x))

with jax.set_mesh(jax.make_mesh((2,), ("d",), axis_types=(AxisType.Explicit,))):
    spread = jax.device_put(params, P()), jax.device_put(x, P(None, "d"))
    check("explicit", jax.jit(step)(*spread))

check("second", jax.jit(step)(*jax.device_put((params, x), jax.devices()[1])))
