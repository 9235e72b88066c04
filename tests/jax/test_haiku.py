# SPDX-License-Identifier: BSD-3-Clause
"""Parameters from and to Haiku: Haiku itself runs the same weights."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
hk = pytest.importorskip("haiku")

import jax.numpy as jnp  # noqa: E402

from fastrnn import jax as layers  # noqa: E402

T, B, I, H = 5, 2, 3, 4
CORES = {
    "LSTM": (lambda: hk.LSTM(H), layers.lstm, {}),
    "GRU": (lambda: hk.GRU(H), layers.gru, {"reset_after": False}),
    "VanillaRNN": (lambda: hk.VanillaRNN(H), layers.rnn, {"nonlinearity": "relu"}),
    "one bias": (
        lambda: hk.VanillaRNN(H, double_bias=False),
        layers.rnn,
        {"nonlinearity": "relu"},
    ),
}


def haiku_of(make):
    """Haiku's functions of a core: parameters of an input, and its results."""

    def run(x):
        core = make()
        y, state = hk.dynamic_unroll(core, x, core.initial_state(x.shape[1]))
        return y, tuple(jax.tree.leaves(state))

    return hk.without_apply_rng(hk.transform(run))


def drawn(params, rng):
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), "f4"), params)


@pytest.mark.parametrize("name", CORES)
def test_haiku_and_we_compute_the_same(name, rng):
    make, layer, options = CORES[name]
    x = jnp.asarray(rng.normal(size=(T, B, I)), "f4")
    core = haiku_of(make)
    params = drawn(core.init(jax.random.key(0), x), rng)

    def ours(params):
        y, state = layer(layers.from_haiku(params), x, **options)
        return y, tuple(jax.tree.leaves(state))

    for got, want in zip(ours(params)[1], core.apply(params, x)[1], strict=True):
        np.testing.assert_allclose(got, want, atol=3e-6)
    np.testing.assert_allclose(ours(params)[0], core.apply(params, x)[0], atol=3e-6)
    got, want = (
        jax.grad(lambda p, f=f: jnp.sum(jnp.sin(f(p)[0])))(params)
        for f in (ours, lambda p: core.apply(p, x))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), got, want)


@pytest.mark.parametrize("name", CORES)
def test_back_to_haiku(name, rng):
    make, layer, options = CORES[name]
    x = jnp.asarray(rng.normal(size=(T, B, I)), "f4")
    core = haiku_of(make)
    like = core.init(jax.random.key(0), x)
    before = jax.tree.map(np.array, like)
    ours = drawn(layers.from_haiku(like), rng)
    theirs = layers.to_haiku(ours, like)
    assert jax.tree.structure(theirs) == jax.tree.structure(dict(like))
    want, _ = layer(ours, x, **options)
    np.testing.assert_allclose(core.apply(theirs, x)[0], want, atol=3e-6)
    jax.tree.map(np.testing.assert_array_equal, like, before)
    # Without biases: they are zero.
    ours = {key: a for key, a in ours.items() if key.startswith("weight")}
    want, _ = layer(ours, x, **options)
    theirs = layers.to_haiku(ours, like)
    np.testing.assert_allclose(core.apply(theirs, x)[0], want, atol=3e-6)


def test_a_module_among_others(rng):
    class Net(hk.Module):
        def __call__(self, x):
            core = hk.GRU(H)
            y, _ = hk.dynamic_unroll(core, x, core.initial_state(x.shape[1]))
            return hk.Linear(2)(y)

    x = jnp.asarray(rng.normal(size=(T, B, I)), "f4")
    net = hk.without_apply_rng(hk.transform(lambda x: Net()(x)))
    params = drawn(net.init(jax.random.key(0), x), rng)
    ours = layers.from_haiku(params, "net/gru")
    assert ours["weight_hh"].shape == (3 * H, H)
    new = layers.to_haiku(jax.tree.map(jnp.zeros_like, ours), params, "net/gru")
    assert not any(a.any() for a in new["net/gru"].values())
    np.testing.assert_array_equal(new["net/linear"]["w"], params["net/linear"]["w"])
    with pytest.raises(ValueError, match="name must say which module is meant"):
        layers.from_haiku(params)
    for name in ("net/linear", "gru"):
        with pytest.raises(ValueError, match=f"{name}' must be an LSTM, GRU or Vanil"):
            layers.from_haiku(params, name)


def test_what_is_refused(rng):
    like = {"gru": {"w_i": jnp.ones((I, 3 * H)), "w_h": jnp.ones((H, 3 * H))}}
    like["gru"]["b"] = jnp.ones(3 * H)
    params = layers.from_haiku(like)
    with pytest.raises(TypeError, match="from_haiku: params must be a mapping, got in"):
        layers.from_haiku(3)
    with pytest.raises(TypeError, match="to_haiku: params must be a dict, got int"):
        layers.to_haiku(3, like)
    with pytest.raises(ValueError, match=r"must have weight_ih and .*; got weight_ih"):
        layers.to_haiku({"weight_ih": params["weight_ih"]}, like)
    with pytest.raises(ValueError, match=r"weight_hh'\] must have shape \(12, 4\) for"):
        layers.to_haiku({**params, "weight_hh": jnp.ones((4, 4))}, like)
