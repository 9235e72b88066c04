# SPDX-License-Identifier: BSD-3-Clause
"""Parameters from and to Flax: Flax itself runs the same weights."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")

import jax.numpy as jnp  # noqa: E402
from flax import linen, nnx  # noqa: E402

from fastrnn import jax as layers  # noqa: E402

T, B, I, H = 5, 2, 3, 4
LAYERS = {
    "LSTMCell": layers.lstm,
    "OptimizedLSTMCell": layers.lstm,
    "GRUCell": layers.gru,
    "SimpleCell": layers.rnn,
}


def normal(rng, tree):
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), "f4"), tree)


def ours(layer, params, x):
    """y of (B, T, I)."""
    return layer(params, x.swapaxes(0, 1))[0].swapaxes(0, 1)


@pytest.fixture
def x(rng):
    return jnp.asarray(rng.normal(size=(B, T, I)), "f4")


@pytest.fixture(params=LAYERS)
def name(request):
    return request.param


def test_linen(name, rng, x):
    layer = LAYERS[name]
    module = linen.RNN(getattr(linen, name)(H))
    variables = normal(rng, module.init(jax.random.key(0), x))
    np.testing.assert_allclose(
        ours(layer, layers.from_flax(variables), x),
        module.apply(variables, x),
        atol=3e-6,
    )
    # The levels above a cell may be missing.
    for tree in (variables["params"], variables["params"]["cell"]):
        jax.tree.map(
            np.testing.assert_array_equal,
            layers.from_flax(tree),
            layers.from_flax(variables),
        )
    params = normal(rng, layers.from_flax(variables))
    back = layers.to_flax(params, variables)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    np.testing.assert_allclose(module.apply(back, x), ours(layer, params, x), atol=3e-6)


def test_gradients_for_linens_parameters(name, rng, x):
    layer = LAYERS[name]
    module = linen.RNN(getattr(linen, name)(H))
    variables = normal(rng, module.init(jax.random.key(0), x))
    got, want = (
        jax.grad(lambda v, f=f: jnp.sum(jnp.sin(f(v))))(variables)
        for f in (
            lambda v: ours(layer, layers.from_flax(v), x),
            lambda v: module.apply(v, x),
        )
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), got, want)


def test_nnx(name, rng, x):
    layer = LAYERS[name]
    module = nnx.RNN(getattr(nnx, name)(I, H, rngs=nnx.Rngs(0)))
    nnx.update(module, normal(rng, nnx.state(module, nnx.Param)))
    params = layers.from_flax(module)
    np.testing.assert_allclose(ours(layer, params, x), module(x), atol=3e-6)
    for given in (module.cell, nnx.state(module), nnx.state(module, nnx.Param)):
        jax.tree.map(np.testing.assert_array_equal, layers.from_flax(given), params)
    pure = nnx.to_pure_dict(nnx.state(module.cell, nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, layers.from_flax(pure), params)

    params = normal(rng, params)
    if name == "GRUCell":
        with pytest.raises(ValueError, match="part of bias_hh must be zero, for this"):
            layers.to_flax(params, module)
        params["bias_hh"] = params["bias_hh"].at[2 * H :].set(0)
        with pytest.raises(ValueError, match="cannot be seen within a transformation"):
            jax.jit(lambda p: layers.to_flax(p, pure))(params)
    for like in (module, module.cell):
        nnx.update(like, layers.to_flax(params, like))
        np.testing.assert_allclose(module(x), ours(layer, params, x), atol=3e-6)
    back = layers.to_flax(params, pure)
    assert jax.tree.structure(back) == jax.tree.structure(pure)


def test_what_is_refused(x):
    kernel = {"kernel": jnp.ones((H, H))}
    like = {"i": kernel | {"bias": jnp.ones(H)}, "h": kernel}
    params = layers.from_flax(like)
    with pytest.raises(TypeError, match="from_flax: cell must be a recurrent cell of"):
        layers.from_flax(3)
    with pytest.raises(TypeError, match="to_flax: params must be a dict, got int"):
        layers.to_flax(3, like)
    with pytest.raises(TypeError, match="to_flax: like must be a recurrent cell of"):
        layers.to_flax(params, 3)
    with pytest.raises(ValueError, match="no recurrent cell has layers with the name"):
        layers.from_flax({"i": kernel})
    with pytest.raises(ValueError, match=r"no recurrent cell .* kernel, bias"):
        layers.from_flax(nnx.Linear(I, H, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"kernel of layer h must have shape \(H, H\)"):
        layers.from_flax({"i": kernel, "h": {"kernel": jnp.ones((I, H))}})
    with pytest.raises(ValueError, match=r"dense_h must have shape \(H, 4H\), \(H, 3H"):
        layers.from_flax({"dense_i": kernel, "dense_h": {"kernel": jnp.ones((2, 4))}})
    with pytest.raises(ValueError, match="params must have weight_ih and weight_hh"):
        layers.to_flax({"weight_ih": params["weight_ih"]}, like)
    with pytest.raises(ValueError, match=r"bias_ih'\] must have shape \(4,\) for this"):
        layers.to_flax({**params, "bias_ih": jnp.ones(3)}, like)
