# SPDX-License-Identifier: BSD-3-Clause
"""Layers of Flax on the kernels give what Flax gives, with the same arguments."""

import sys

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")

import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402

from fastrnn import jax as layers  # noqa: E402

T, B, I, H = 5, 3, 2, 4
CELLS = ("LSTMCell", "OptimizedLSTMCell", "GRUCell", "SimpleCell")
RESULT = {"atol": 3e-6}
GRADIENT = {"atol": 3e-5}


def rnn_of(rng, cell="LSTMCell", rnn=nnx.RNN, options=None, **arguments):
    """A layer of Flax with parameters that were drawn."""
    core = getattr(nnx, cell)(I, H, rngs=nnx.Rngs(0), **(options or {}))
    layer = rnn(core, **arguments)
    drawn = jax.tree.map(
        lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype),
        nnx.state(layer, nnx.Param),
    )
    nnx.update(layer, drawn)
    return layer


def draw(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), "float32")


def assert_close(got, want, **tolerance):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), got, want)


def both(layer, *args, **options):
    """What a call gives on the kernels, and by Flax."""
    want = layers.restore(layer)(*args, **options)
    layers.accelerate(layer, verbose=False)
    assert layers.explain(layer, *args, **_known(options)) is None
    return layer(*args, **options), want


def _known(options):
    return {k: options[k] for k in ("initial_carry", "seq_lengths") if k in options}


# Time first, reverse, keep_order, an initial carry, lengths: any two values meet.
ARGUMENTS = (
    (False, False, True, True, True),
    (True, True, False, False, True),
    (True, True, True, True, False),
    (False, True, True, False, True),
    (True, False, False, True, False),
)


@pytest.mark.parametrize("cell", CELLS)
def test_results_with_all_arguments(cell, rng):
    layer = rnn_of(rng, cell)
    for time_major, reverse, keep_order, has_carry, has_lengths in ARGUMENTS:
        x = draw(rng, T, B, I) if time_major else draw(rng, B, T, I)
        carry = draw(rng, B, H)
        carry = (carry, draw(rng, B, H)) if "LSTM" in cell else carry
        got, want = both(
            layer,
            x,
            time_major=time_major,
            return_carry=True,
            reverse=reverse,
            keep_order=keep_order,
            initial_carry=carry if has_carry else None,
            seq_lengths=jnp.array([2, T, 0]) if has_lengths else None,
        )
        assert_close(got, want, **RESULT)


def test_lengths_without_the_carry(rng):
    layer, lengths = rnn_of(rng), jnp.array([2, T, 0])
    assert_close(*both(layer, draw(rng, B, T, I), seq_lengths=lengths), **RESULT)


def test_arguments_of_the_layer(rng):
    layer = rnn_of(
        rng, time_major=True, return_carry=True, reverse=True, keep_order=True
    )
    assert_close(*both(layer, draw(rng, T, B, I)), **RESULT)


@pytest.mark.parametrize("shape", [(T, I), (2, 3, T, I)])
def test_other_batches(shape, rng):
    for cell in ("LSTMCell", "GRUCell"):
        layer = rnn_of(rng, cell)
        assert_close(*both(layer, draw(rng, *shape), return_carry=True), **RESULT)


@pytest.mark.parametrize("name", ["relu", "soft_sign", "hard_sigmoid"])
def test_other_functions(name, rng):
    function = getattr(jax.nn, name)
    x = draw(rng, B, T, I)
    for cell in ("LSTMCell", "GRUCell", "SimpleCell"):
        options = {"activation_fn": function}
        if cell != "SimpleCell":
            options["gate_fn"] = jax.nn.hard_sigmoid
        assert_close(*both(rnn_of(rng, cell, options=options), x), **RESULT)


@pytest.mark.parametrize(
    ("cell", "lengths"),
    [("LSTMCell", (3, 5, 1)), ("GRUCell", None), ("SimpleCell", (1, 2, 5))],
)
def test_gradients_under_jit(cell, lengths, rng):
    layer, x = rnn_of(rng, cell), draw(rng, B, T, I)
    lengths = lengths and jnp.array(lengths)

    @nnx.jit
    def gradients(layer, x):
        def loss(layer, x):
            carry, y = layer(x, seq_lengths=lengths, return_carry=True)
            return jnp.sum(jnp.sin(y)) + sum(
                jnp.sum(a**2) for a in jax.tree.leaves(carry)
            )

        return nnx.grad(loss, argnums=(0, 1))(layer, x)

    want = gradients(layer, x)
    got = gradients(layers.accelerate(layer, verbose=False), x)
    assert_close(jax.tree.leaves(got), jax.tree.leaves(want), **GRADIENT)


def test_bidirectional_in_a_model(rng, capsys):
    class Net(nnx.Module):
        def __init__(self):
            self.both = nnx.Bidirectional(rnn_of(rng), rnn_of(rng, "GRUCell"))
            self.other = rnn_of(rng, options={"activation_fn": jax.nn.gelu})

        def __call__(self, x, **options):
            return self.both(x, **options), self.other(x)

    net, x = Net(), draw(rng, B, T, I)
    options = {"seq_lengths": jnp.array([2, 5, 4]), "return_carry": True}
    want = net(x, **options)
    inner = net.both.forward_rnn
    assert layers.accelerate(net) is net
    assert net.both.forward_rnn is inner
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "fastrnn.jax: left other: RNN of LSTMCell: there are no kernels for "
        "activation_fn gelu",
        "fastrnn.jax: replaced both.backward_rnn: RNN of GRUCell",
        "fastrnn.jax: replaced both.forward_rnn: RNN of LSTMCell",
    ]
    assert_close(net(x, **options), want, **RESULT)
    graph, state = nnx.split(net)
    assert_close(nnx.merge(graph, state)(x, **options), want, **RESULT)
    layers.restore(net)
    assert type(inner) is nnx.RNN
    assert_close(net(x, **options), want, atol=0)


def test_random_numbers_are_drawn_as_before(rng):
    layer = rnn_of(rng, rngs=nnx.Rngs(3))
    counts = []
    for change in (layers.restore, lambda layer: layers.accelerate(layer, False)):
        before = int(layer.rngs.count[...])
        change(layer)(draw(rng, B, T, I))
        counts.append(int(layer.rngs.count[...]) - before)
    assert counts[0] == counts[1]


class Own(nnx.RNN):
    pass


def test_what_flax_runs_and_why(rng):
    x = draw(rng, B, T, I)
    half = x.astype("bfloat16")
    cases = [
        (rnn_of(rng, rnn=Own), x, {}, "Own may compute in a way of its own"),
        (
            rnn_of(rng, "SimpleCell", options={"residual": True}),
            x,
            {},
            "there are no kernels for residual=True",
        ),
        (
            rnn_of(rng, options={"dtype": jnp.bfloat16}),
            half,
            {},
            "there are no kernels for bfloat16",
        ),
        (
            rnn_of(rng, options={"param_dtype": jnp.bfloat16}),
            half,
            {},
            "there are no kernels for bfloat16",
        ),
        (
            rnn_of(rng, options={"dtype": jnp.bfloat16}),
            half,
            {"initial_carry": (jnp.zeros((B, H), "bfloat16"),) * 2},
            "there are no kernels for bfloat16",
        ),
    ]
    for layer, inputs, options, why in cases:
        assert layers.explain(layer) in (why, "the layer is not accelerated")
        outcomes = []
        for _ in range(2):
            try:
                outcomes.append(layer(inputs, **options))
            except TypeError as error:  # Flax's own, of a carry of another dtype
                outcomes.append(str(error))
            layers.accelerate(layer, verbose=False)
        assert layers.explain(layer, inputs, **options) == why
        if not isinstance(outcomes[0], str):
            assert_close(*outcomes, atol=0)
        else:
            assert type(outcomes[1]) is str


def test_what_is_refused(rng):
    for change in (layers.accelerate, layers.restore):
        with pytest.raises(TypeError, match=r"model must be an nnx.Module, got int"):
            change(3)
    with pytest.raises(TypeError, match=r"explain: layer must be an nnx.RNN, got GRU"):
        layers.explain(rnn_of(rng, "GRUCell").cell)


def test_without_flax(monkeypatch):
    monkeypatch.setitem(sys.modules, "flax", None)
    monkeypatch.delitem(sys.modules, "fastrnn.jax._nnx", raising=False)
    with pytest.raises(ModuleNotFoundError, match="for models of Flax, which is not"):
        layers.accelerate(3)


def test_a_model_without_layers(capsys):
    layers.accelerate(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    assert capsys.readouterr().out == "fastrnn.jax: Linear has no nnx.RNN\n"
