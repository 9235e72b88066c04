# SPDX-License-Identifier: BSD-3-Clause
"""`LeakyRNN`: fixed and learned rates, signs, and what a step of training keeps."""

import numpy as np
import pytest
from cells import STATES, assert_same_bits, run_backward, run_forward

import fastrnn

SIGN = [1, 1, -1, 0, 1, -1, 0]
I, H = 3, len(SIGN)


def by_hand(p, alpha, x, f):
    """The states of one layer, in float64, from the equation."""
    h = np.zeros((x.shape[1], H))
    for x_t in x.astype(float):
        a = x_t @ p["weight_ih_l0"].T + p["bias_ih_l0"] + p["bias_hh_l0"]
        h = (1 - alpha) * h + alpha * f(a + h @ p["weight_hh_l0"].T)
        yield h


@pytest.mark.parametrize("alpha", [0.3, np.linspace(0, 1, H)], ids=["one", "each"])
@pytest.mark.parametrize(
    ("activation", "f"),
    [
        (None, np.tanh),
        ("relu", lambda a: np.maximum(a, 0)),
        ("softplus", lambda a: np.logaddexp(0, a)),
    ],
)
def test_fixed_rates_are_what_the_equation_says(isa, dtype, alpha, activation, f, rng):
    layer = fastrnn.LeakyRNN(
        I, H, alpha=alpha, activation=activation, dtype=dtype, seed=0
    )
    assert "alpha_l0" not in layer.parameters
    layer.flat_parameters[:] += rng.normal(size=layer.flat_parameters.size) * 0.1
    x = rng.standard_normal((6, 4, I)).astype(dtype)
    want = np.array([*by_hand(layer.parameters, alpha, x, f)])
    np.testing.assert_allclose(layer(x)[0], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("every", [None, 2])
def test_fixed_and_learned_rates_have_the_same_bits(isa, dtype, every, rng):
    """Of numbers that both dtypes have; all gradients but that of alpha."""
    alpha = np.arange(H) / 8
    layers = [
        fastrnn.LeakyRNN(
            I, H, 2, alpha=alpha, learn_alpha=learned, bidirectional=True,
            checkpoint_every=every, dtype=dtype, seed=0,
        )
        for learned in (False, True)
    ]  # fmt: skip
    fixed, learned = layers
    np.testing.assert_array_equal(learned.parameters["alpha_l1_reverse"], alpha)
    for name, view in fixed.parameters.items():
        view[...] = rng.standard_normal(view.shape) / 2
        learned.parameters[name][...] = view
    x = rng.standard_normal((5, 3, I)).astype(dtype)
    dy = rng.standard_normal((5, 3, 2 * H)).astype(dtype)
    lengths = [5, 2, 4]
    found = []
    for layer in layers:
        y, h_n = layer(x, lengths=lengths)
        dx, d_h0 = layer.backward(dy)
        grads = {name: layer.grads[name] for name in fixed.parameters}
        found.append({"y": y, "h_n": h_n, "x": dx, "h0": d_h0, **grads})
    assert_same_bits("fixed", *found)


def test_a_rate_of_one_is_a_plain_layer(dtype, rng):
    leaky = fastrnn.LeakyRNN(I, H, alpha=1, dtype=dtype, seed=0)
    plain = fastrnn.RNN(I, H, dtype=dtype, seed=0)
    x = rng.standard_normal((5, 3, I)).astype(dtype)
    np.testing.assert_allclose(leaky(x)[0], plain(x)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("optimizer", [fastrnn.SGD, fastrnn.Adam])
def test_signs_and_rates_hold_after_each_step(optimizer, rng):
    layer = fastrnn.LeakyRNN(
        I, H, 2, alpha=0.9, learn_alpha=True, sign=SIGN, bidirectional=True, seed=0
    )
    steps = optimizer(layer, lr=0.5)
    moved = {name: view.copy() for name, view in layer.parameters.items()}
    for _ in range(4):
        layer(rng.standard_normal((5, 3, I)))
        layer.backward(rng.standard_normal((5, 3, 2 * H)))
        steps.step()
        steps.zero_grad()
        for suffix in ("_l0", "_l0_reverse", "_l1", "_l1_reverse"):
            R, alpha = (layer.parameters[n + suffix] for n in ("weight_hh", "alpha"))
            assert (R * SIGN >= 0).all()
            assert ((alpha >= 0) & (alpha <= 1)).all()
    for name, view in layer.parameters.items():
        assert (view != moved[name]).any(), name
    assert (layer.parameters["weight_hh_l0"][:, [3, 6]] < 0).any()  # of no sign
    assert (layer.parameters["weight_hh_l0"][:, 0] > 0).any()


def test_a_layer_that_is_not_trainable_stays_as_it_is(rng):
    layer, head = fastrnn.LeakyRNN(I, H, sign=SIGN, seed=0), fastrnn.Linear(H, 1)
    model = fastrnn.Sequential(layer, head)
    steps = fastrnn.SGD(model, lr=0.1)
    layer.trainable = False
    layer.parameters["weight_hh_l0"][:, 0] = -1
    steps.step()
    assert (layer.parameters["weight_hh_l0"][:, 0] == -1).all()
    layer.constrain()
    assert not layer.parameters["weight_hh_l0"][:, 0].any()


def test_signs_keep_the_size_of_what_was_drawn():
    signed = fastrnn.LeakyRNN(I, H, sign=SIGN, seed=5).parameters["weight_hh_l0"]
    drawn = fastrnn.LeakyRNN(I, H, seed=5).parameters["weight_hh_l0"]
    np.testing.assert_array_equal(np.abs(signed), np.abs(drawn))


def test_saved_models_come_back(tmp_path, rng):
    layer = fastrnn.LeakyRNN(
        I, H, alpha=np.linspace(0, 1, H), sign=SIGN, activation="relu", seed=0
    )
    model = fastrnn.Sequential(layer, fastrnn.Linear(H, 2, seed=1))
    model.compile(optimizer="adam", loss="mse")
    x = rng.standard_normal((2, 4, I)).astype("f")
    model.save(tmp_path / "model")
    again = fastrnn.load_model(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    assert (again.layers[0].alpha, again.layers[0].sign) == (layer.alpha, layer.sign)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"alpha": 1.5}, r"LeakyRNN: alpha must be a number in \[0, 1\], got 1.5"),
        ({"alpha": [0.5, 2.0, 0.5]}, r"LeakyRNN: alpha must be in \[0, 1\], got 2"),
        (
            {"alpha": [0.5]},
            r"LeakyRNN: alpha must have shape \(hidden_size,\) = \(3,\)",
        ),
        ({"alpha": [0.5, np.nan, 1]}, r"alpha must be in \[0, 1\], got nan"),
        ({"sign": [1, 2, 0]}, "LeakyRNN: sign must be made of -1, 0 and 1, got 2"),
        ({"sign": [1, 0]}, r"LeakyRNN: sign must have shape \(hidden_size,\) = \(3,\)"),
    ],
)
def test_what_cannot_be_is_refused(argument, message):
    with pytest.raises(ValueError, match=message):
        fastrnn.LeakyRNN(2, 3, **argument)


def test_a_network_of_two_signs_learns_to_decide():
    """The first task of Song, Yang & Wang: which of two noisy inputs is the larger.

    In small: 32 units, of which 8 inhibit, and 60 steps of training.
    """
    rng = np.random.default_rng(0)
    sign = [1] * 24 + [-1] * 8
    model = fastrnn.Sequential(
        fastrnn.LeakyRNN(2, 32, alpha=0.2, sign=sign, activation="relu", seed=0),
        fastrnn.Linear(32, 2, seed=1),
    )
    steps = fastrnn.Adam(model, lr=0.01)

    def trials(n):
        target = rng.integers(2, size=n)
        evidence = np.where(target[:, None] == np.arange(2), 1.2, 0.8)
        return evidence + 0.3 * rng.standard_normal((20, n, 2)), target

    def logits(x):
        _, h_n = model[0](x)
        return model[1](h_n[-1])

    for _ in range(60):
        x, target = trials(64)
        _, d = fastrnn.cross_entropy(logits(x), target)
        model.zero_grad()
        model[0].backward(None, model[1].backward(d)[None])
        steps.step()
    x, target = trials(500)
    assert (logits(x).argmax(1) == target).mean() > 0.9
    assert (model[0].parameters["weight_hh_l0"] * sign >= 0).all()


def test_its_state_is_h_alone():
    assert STATES["leaky"] == ("h",)
    layer = fastrnn.LeakyRNN(I, H, seed=0)
    run_forward(layer, np.ones((2, 1, I), "f"), None)
    assert set(run_backward(layer, np.ones((2, 1, H), "f"), None)) >= {"x", "h0"}
