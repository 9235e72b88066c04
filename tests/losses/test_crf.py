# SPDX-License-Identifier: BSD-3-Clause
"""`CRF` against every path there is, its gradients, its decoder, messages."""

import itertools

import numpy as np
import pytest
from gradcheck import assert_close
from slopes import check_gradients
from tolerances import relative

import fastrnn
from fastrnn import CRF

T, B, K = 4, 3, 3
LENGTHS = np.array([4, 1, 3])


def path_scores(p, emissions, n):
    """Every tag sequence of n steps of one sequence, and its score."""
    paths = np.array(list(itertools.product(range(emissions.shape[1]), repeat=n)))
    scores = []
    for path in paths:
        score = p["start_transitions"][path[0]] + p["end_transitions"][path[-1]]
        score += sum(emissions[t, tag] for t, tag in enumerate(path))
        score += sum(p["transitions"][i, j] for i, j in itertools.pairwise(path))
        scores.append(score)
    return paths, np.array(scores, float)


def brute_loss(crf, emissions, tags, lengths):
    p = {name: array.astype(float) for name, array in crf.parameters.items()}
    losses = []
    for b, n in enumerate(lengths):
        paths, scores = path_scores(p, emissions[:, b].astype(float), n)
        right = scores[(paths == tags[:n, b]).all(1)]
        top = scores.max()
        losses.append(np.log(np.exp(scores - top).sum()) + top - right[0])
    return np.array(losses)


def some_data(rng, dtype="float64", scale=1.0):
    crf = CRF(K, dtype=dtype, seed=0)
    for view in crf.parameters.values():
        view[...] = rng.normal(size=view.shape) * scale
    emissions = (rng.normal(size=(T, B, K)) * 2).astype(dtype)
    return crf, emissions, rng.integers(0, K, (T, B))


# Transitions that differ by more than 300 take another way through the sums.
@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_loss_against_all_paths(scale, dtype, rng):
    crf, emissions, tags = some_data(rng, dtype, scale)
    want = brute_loss(crf, emissions, tags, LENGTHS)
    tags[np.arange(T)[:, None] >= LENGTHS] = -100
    emissions[np.arange(T)[:, None] >= LENGTHS] = np.nan
    assert_close("sum", crf(emissions, tags, LENGTHS, "sum"), want.sum(), 1e-12)
    assert_close("mean", crf(emissions, tags, LENGTHS), want.mean(), 1e-12)


@pytest.mark.parametrize("weights", [None, np.array([0.5, 3.0, 0.0])])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_gradients(scale, reduction, weights, rng):
    crf, emissions, tags = some_data(rng, scale=scale)

    def loss():
        losses = brute_loss(crf, emissions, tags, LENGTHS)
        losses = losses if weights is None else weights * losses
        return 1.5 * (losses.mean() if reduction == "mean" else losses.sum())

    crf.flat_grads[:] = 1
    found = crf(emissions, tags, LENGTHS, reduction, weights)
    assert_close("loss", 1.5 * found, loss(), 1e-12)
    demissions = crf.backward(1.5)
    assert not demissions[np.arange(T)[:, None] >= LENGTHS].any()
    check_gradients(loss, crf, {"x": demissions}, {"x": emissions})


def test_wide_and_narrow_transitions_agree(rng):
    """One huge transition that no path needs changes the way, not the result."""
    crf, emissions, tags = some_data(rng)
    crf.parameters["transitions"][0, 1] = -60
    tags[:] = 2
    narrow = crf(emissions, tags), crf.backward(), crf.flat_grads.copy()
    crf.zero_grad()
    crf.parameters["transitions"][0, 1] = -1e4
    wide = crf(emissions, tags), crf.backward(), crf.flat_grads.copy()
    for one, other in zip(narrow, wide, strict=True):
        assert_close("wide", one, other, 1e-12)


def test_forbidden_transitions(rng):
    crf, emissions, tags = some_data(rng)
    crf.parameters["transitions"][0, 1] = -np.inf
    crf.parameters["start_transitions"][2] = -np.inf
    tags[:] = 1
    loss = crf(emissions, tags, LENGTHS)
    assert_close("loss", loss, brute_loss(crf, emissions, tags, LENGTHS).mean(), 1e-12)
    demissions = crf.backward()
    assert np.isfinite(demissions).all()
    assert not demissions[0, :, 2].any()
    assert crf.grads["transitions"][0, 1] == 0
    best, _ = crf.decode(emissions, LENGTHS)
    assert not ((best[:-1] == 0) & (best[1:] == 1)).any()
    assert not (best[0] == 2).any()


@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_decode_and_marginals_against_all_paths(scale, dtype, rng):
    crf, emissions, _ = some_data(rng, dtype, scale)
    tags, best = crf.decode(emissions, LENGTHS)
    marginals = crf.marginals(emissions, LENGTHS)
    p = {name: array.astype(float) for name, array in crf.parameters.items()}
    for b, n in enumerate(LENGTHS):
        paths, scores = path_scores(p, emissions[:, b].astype(float), n)
        np.testing.assert_array_equal(tags[:n, b], paths[scores.argmax()])
        assert_close("score", best[b], scores.max(), 1e-12)
        probability = np.exp(scores - scores.max())
        probability /= probability.sum()
        for t, k in np.ndindex(n, K):
            want = probability[paths[:, t] == k].sum()
            assert abs(marginals[t, b, k] - want) < 1e-9
    assert (tags[np.arange(T)[:, None] >= LENGTHS] == -1).all()
    assert not marginals[np.arange(T)[:, None] >= LENGTHS].any()


def test_equal_scores_give_the_first_tags():
    crf = CRF(3, seed=0)
    crf.flat_parameters[:] = 0
    assert not crf.decode(np.zeros((4, 2, 3)))[0].any()


def test_a_sequence_is_scored_alone_as_in_a_batch(dtype, rng):
    crf, emissions, tags = some_data(rng, dtype)
    whole = crf(emissions, tags, LENGTHS, "sum")
    dx = crf.backward()
    grads, total = crf.flat_grads.copy(), 0
    crf.zero_grad()
    for b, n in enumerate(LENGTHS):
        total += crf(emissions[:n, b : b + 1], tags[:n, b : b + 1], reduction="sum")
        assert_close("dx", dx[:n, b : b + 1], crf.backward(), relative(dtype, 10))
    assert_close("loss", whole, total, 1e-12)
    assert_close("grads", grads, crf.flat_grads, relative(dtype, 10))


def test_batch_first(rng):
    crf, emissions, tags = some_data(rng)
    turned = CRF(K, batch_first=True, dtype="float64")
    turned.load_state_dict(crf.state_dict())
    x = emissions.swapaxes(0, 1)
    assert turned(x, tags.T, LENGTHS) == crf(emissions, tags, LENGTHS)
    np.testing.assert_array_equal(turned.backward(), crf.backward().swapaxes(0, 1))
    np.testing.assert_array_equal(turned.flat_grads, crf.flat_grads)
    np.testing.assert_array_equal(
        turned.decode(x, LENGTHS)[0], crf.decode(emissions, LENGTHS)[0].T
    )
    np.testing.assert_array_equal(
        turned.marginals(x, LENGTHS), crf.marginals(emissions, LENGTHS).swapaxes(0, 1)
    )


def test_long_sequences_neither_overflow_nor_vanish(dtype):
    rng = np.random.default_rng(0)
    crf = CRF(5, dtype=dtype, seed=0)
    emissions = rng.normal(size=(3000, 2, 5)) * 30
    loss = crf(emissions, rng.integers(0, 5, (3000, 2)))
    assert 1e4 < loss < 1e6
    dx = crf.backward()
    assert np.isfinite(dx).all()
    assert_close("rows", dx.sum(2), np.zeros((3000, 2)), 1e-5, scale=1)


def test_autograd_of_the_same_recursion(dtype, rng):
    """PyTorch as second opinion, with sizes that cannot be enumerated."""
    torch = pytest.importorskip("torch", reason="compares with torch.autograd")
    crf = CRF(7, dtype=dtype, seed=rng)
    emissions = rng.normal(size=(20, 4, 7)).astype(dtype)
    tags = rng.integers(0, 7, (20, 4))
    lengths = np.array([20, 7, 13, 1])
    p = {
        name: torch.tensor(array.astype(float), requires_grad=True)
        for name, array in crf.parameters.items()
    }
    x = torch.tensor(emissions.astype(float), requires_grad=True)
    loss = 0
    for b, n in enumerate(lengths):
        alpha = p["start_transitions"] + x[0, b]
        for t in range(1, n):
            alpha = torch.logsumexp(alpha[:, None] + p["transitions"], 0) + x[t, b]
        y = tags[:n, b]
        score = p["start_transitions"][y[0]] + p["end_transitions"][y[-1]]
        score = score + x[range(n), b, y].sum() + p["transitions"][y[:-1], y[1:]].sum()
        loss = loss + torch.logsumexp(alpha + p["end_transitions"], 0) - score
    loss.backward()
    assert_close("loss", crf(emissions, tags, lengths, "sum"), loss.item(), 1e-12)
    # Logarithms of about 40 round to eps of that: so do their exponentials.
    tolerance = 40 * relative(dtype, 20)
    assert_close("dx", crf.backward(), x.grad.numpy(), tolerance)
    for name, parameter in p.items():
        assert_close(name, crf.grads[name], parameter.grad.numpy(), tolerance)


def test_contexts_and_modes(rng):
    crf, emissions, tags = some_data(rng)
    crf(emissions, tags)
    first = crf.context
    crf(emissions * 2, tags)
    dx = crf.backward(context=first)
    crf(emissions, tags)
    np.testing.assert_array_equal(crf.backward(), dx)
    with pytest.raises(RuntimeError, match="context was already used"):
        crf.backward(context=first)
    crf.eval()(emissions, tags)
    with pytest.raises(RuntimeError, match="needs a forward in training mode"):
        crf.backward()


def test_learns_what_follows_what():
    """Emissions say nothing about every other step; transitions must."""
    rng = np.random.default_rng(0)
    tags = (np.arange(12)[:, None] + rng.integers(0, 3, 64)) % 3
    emissions = np.eye(3, dtype="f")[tags] * 4
    emissions[1::2] = 0
    crf = CRF(3, seed=0)
    optimizer = fastrnn.Adam(crf, lr=0.1)
    for _ in range(60):
        crf(emissions, tags)
        crf.zero_grad()
        crf.backward()
        optimizer.step()
    assert (emissions.argmax(2) == tags).mean() < 0.7
    assert (crf.decode(emissions)[0] == tags).all()


X, Y = np.zeros((T, B, K)), np.zeros((T, B), int)
LAYER = CRF(K, seed=0)
MESSAGES = [
    (lambda: CRF(0), ValueError, "CRF: num_tags must be a positive integer, got 0"),
    (
        lambda: LAYER(X[..., :2], Y),
        ValueError,
        "CRF: emissions must have shape (T, B, num_tags) = (T, B, 3), got (4, 3, 2)",
    ),
    (lambda: LAYER(X[:0], Y), ValueError, "CRF: emissions must have T >= 1, got shap"),
    (
        lambda: LAYER(X, Y.T),
        ValueError,
        "CRF: tags must have shape (T, B) = (4, 3), got (3, 4)",
    ),
    (lambda: LAYER(X, Y + 3), ValueError, "CRF: tags must be in [0, 3), got 3"),
    (lambda: LAYER(X, Y - 1), ValueError, "CRF: tags must be in [0, 3), got -1"),
    (lambda: LAYER(X, Y + 0.0), TypeError, "CRF: tags must be integers, got dtype f"),
    (lambda: LAYER(X, Y, [5, 1, 1]), ValueError, "CRF: lengths must be in [1, 4], g"),
    (lambda: LAYER(X, Y, [0, 1, 1]), ValueError, "CRF: lengths must be in [1, 4], g"),
    (lambda: LAYER(X, Y, [1, 1]), ValueError, "CRF: lengths must have shape (B,) = "),
    (
        lambda: LAYER(X, Y, weights=[1.0]),
        ValueError,
        "CRF: weights must have shape (B,) = (3,), got (1,)",
    ),
    (
        lambda: LAYER(X, Y, reduction="none"),
        ValueError,
        "CRF: reduction must be one of 'mean', 'sum', got 'none'",
    ),
    (
        lambda: (LAYER(X, Y), LAYER.backward(np.inf)),
        ValueError,
        "CRF.backward: dloss must be a number in (-inf, inf), got inf",
    ),
    (
        lambda: LAYER.decode(X[0]),
        ValueError,
        "CRF.decode: emissions must have shape (T, B, num_tags) = (T, B, 3), got",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_messages(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)
