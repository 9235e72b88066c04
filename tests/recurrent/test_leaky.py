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


# -- noise -----------------------------------------------------------------------------


def drawn(T, B, units, noise=0.5, **options):
    """The noise itself, (T, B, units): no weights, and the identity for a function."""
    layer = fastrnn.LeakyRNN(
        1, units, alpha=1, noise=noise, activation="identity", dtype="float64",
        **{"seed": 0, **options},
    )  # fmt: skip
    layer.flat_parameters[:] = 0
    return layer(np.zeros((T, B, 1)))[0]


def test_noise_is_normal_and_independent(isa):
    """Moments within five standard errors; correlations over steps, rows and units."""
    z = drawn(60, 40, 50) / 0.5
    n = z.size
    assert abs(z.mean()) < 5 / np.sqrt(n)
    assert abs(z.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((z**3).mean()) < 5 * np.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 5 * np.sqrt(96 / n)
    for a, b in ((z[1:], z[:-1]), (z[:, 1:], z[:, :-1]), (z[..., 1:], z[..., :-1])):
        assert abs((a * b).mean()) < 5 / np.sqrt(a.size)
    assert len(np.unique(z)) > 0.99 * n


def test_noise_is_a_matter_of_seed_call_row_and_step(isa, dtype, rng):
    """The same bits for any number of threads, with checkpoints, and in a ragged batch;
    other ones in the next call, and none in inference."""
    x = rng.standard_normal((7, 5, I)).astype(dtype)
    dy = rng.standard_normal((7, 5, H)).astype(dtype)
    before, found = fastrnn.get_num_threads(), []
    for n_threads, every in ((1, None), (2, None), (7, 3), (1, 2)):
        fastrnn.set_num_threads(n_threads)
        layer = fastrnn.LeakyRNN(
            I, H, 2, noise=0.3, checkpoint_every=every, dtype=dtype, seed=4
        )
        y, h_n = layer(x)
        dx, _ = layer.backward(dy)
        found.append({"y": y, "h_n": h_n, "x": dx, "grads": layer.flat_grads.copy()})
    fastrnn.set_num_threads(before)
    for other in found[1:]:
        assert_same_bits("noise", other, found[0])
    assert (layer(x)[0] != found[0]["y"]).all()
    lengths = [2, 7, 3, 7, 5]
    ragged = fastrnn.LeakyRNN(I, H, 2, noise=0.3, dtype=dtype, seed=4)
    y, _ = ragged(x, lengths=lengths)
    for b, n in enumerate(lengths):
        np.testing.assert_array_equal(y[:n, b], found[0]["y"][:n, b])
    quiet = fastrnn.LeakyRNN(I, H, 2, dtype=dtype, seed=4)
    np.testing.assert_array_equal(layer.eval()(x)[0], quiet.eval()(x)[0])


@pytest.mark.parametrize("activation", [None, "relu", "softplus"])
def test_gradients_are_those_of_the_noisy_call(activation, rng):
    """By central differences: a layer made anew draws the same."""
    x, dy = rng.standard_normal((6, 3, I)), rng.standard_normal((6, 3, H))

    def fresh(flat=None):
        layer = fastrnn.LeakyRNN(
            I, H, noise=0.5, learn_alpha=True, activation=activation,
            dtype="float64", seed=6,
        )  # fmt: skip
        if flat is not None:
            layer.flat_parameters[:] = flat
        return layer

    layer = fresh()
    layer(x)
    dx, _ = layer.backward(dy)
    flat = layer.flat_parameters.copy()
    u, v = rng.standard_normal(x.shape), rng.standard_normal(flat.shape)
    ahead, behind = (
        (fresh(flat + s * v)(x + s * u)[0] * dy).sum() for s in (1e-6, -1e-6)
    )
    slope = (dx * u).sum() + (layer.flat_grads * v).sum()
    assert slope == pytest.approx((ahead - behind) / 2e-6, rel=1e-6)


@pytest.mark.parametrize("noise", [-0.1, np.inf, np.nan])
def test_noise_that_is_none_is_refused(noise):
    with pytest.raises(ValueError, match="LeakyRNN: noise must be a number in"):
        fastrnn.LeakyRNN(2, 3, noise=noise)
