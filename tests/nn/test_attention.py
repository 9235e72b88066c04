# SPDX-License-Identifier: BSD-3-Clause
"""`Attention`: the papers' equations, gradients, masks, PyTorch, messages."""

import numpy as np
import pytest
from gradcheck import assert_close
from slopes import check_gradients
from tolerances import relative

from fastrnn import Attention
from fastrnn.nn.attention import KINDS

T, S, B, Q, K = 3, 5, 4, 4, 6


def layer_of(kind, dtype="float64", **options):
    key_size = Q if kind == "dot" else K
    units = 7 if kind == "additive" else None
    return Attention(Q, key_size, kind, units, dtype=dtype, seed=1, **options)


def reference(p, kind, query, keys, allowed):
    """One query and one sequence at a time, in float64, as the papers write it."""
    p = {name: array.astype(float) for name, array in p.items()}
    context = np.empty((T, B, keys.shape[-1]))
    weights = np.zeros((T, B, S))
    for t in range(T):
        for b in range(B):
            where = np.flatnonzero(allowed[:, b])
            scores = []
            for s in where:
                q, k = query[t, b].astype(float), keys[s, b].astype(float)
                if kind == "dot":
                    score = q @ k
                elif kind == "general":
                    score = k @ p["query.weight"] @ q
                else:
                    score = p["v"] @ np.tanh(
                        p["query.weight"] @ q + p["key.weight"] @ k
                    )
                scores.append(score)
            w = np.exp(scores - np.max(scores))
            weights[t, b, where] = w / w.sum()
            context[t, b] = weights[t, b, where] @ keys[where, b]
    return context, weights


def some_data(kind, rng, dtype="float64"):
    query = rng.normal(size=(T, B, Q)).astype(dtype)
    keys = rng.normal(size=(S, B, Q if kind == "dot" else K)).astype(dtype)
    lengths = np.array([5, 1, 3, 4])
    mask = rng.random((S, B)) < 0.7
    mask[0] = True
    return query, keys, lengths, mask


@pytest.mark.parametrize("masked", ["no", "lengths", "mask", "both"])
@pytest.mark.parametrize("kind", KINDS)
def test_against_reference(kind, masked, dtype, rng):
    layer = layer_of(kind, dtype)
    query, keys, lengths, mask = some_data(kind, rng, dtype)
    allowed = np.ones((S, B), bool)
    arguments = {}
    if masked in ("lengths", "both"):
        arguments["lengths"] = lengths
        allowed &= np.arange(S)[:, None] < lengths
    if masked in ("mask", "both"):
        arguments["mask"] = mask
        allowed &= mask
    before = query.copy(), keys.copy()
    context, weights = layer(query, keys, **arguments)
    want = reference(layer.parameters, kind, query, keys, allowed)
    assert context.dtype == weights.dtype == dtype
    assert_close("context", context, want[0], relative(dtype, 30))
    assert_close("weights", weights, want[1], relative(dtype, 30))
    assert not weights[:, ~allowed.T].any()
    np.testing.assert_array_equal(query, before[0])
    np.testing.assert_array_equal(keys, before[1])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind, masked, rng):
    layer = layer_of(kind)
    query, keys, lengths, mask = some_data(kind, rng)
    dcontext, dweights = (
        rng.normal(size=(T, B, keys.shape[-1])),
        rng.normal(size=(T, B, S)),
    )
    arguments = {"lengths": lengths, "mask": mask} if masked else {}
    allowed = (
        mask & (np.arange(S)[:, None] < lengths) if masked else np.ones((S, B), bool)
    )

    def loss():
        context, weights = reference(layer.parameters, kind, query, keys, allowed)
        return (context * dcontext).sum() + (weights * dweights).sum()

    layer.flat_grads[:] = 1
    layer(query, keys, **arguments)
    dquery, dkeys = layer.backward(dcontext, dweights)
    assert not dkeys[~allowed].any()
    got = {"query": dquery, "keys": dkeys}
    check_gradients(loss, layer, got, {"query": query, "keys": keys})


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_masked_may_be_anything(kind, dtype, rng):
    """Weights of exactly zero, no gradient, and NaN stays where it is."""
    layer = layer_of(kind, dtype)
    query, keys, lengths, mask = some_data(kind, rng, dtype)
    allowed = mask & (np.arange(S)[:, None] < lengths)
    dcontext = rng.normal(size=(T, B, keys.shape[-1]))
    dweights = rng.normal(size=(T, B, S))
    results = []
    for filler in (0, 1e30, np.nan, np.inf):
        keys[~allowed] = filler
        dweights[:, ~allowed.T] = filler
        layer.zero_grad()
        outputs = layer(query, keys, lengths=lengths, mask=mask)
        results.append(
            (*outputs, *layer.backward(dcontext, dweights), layer.flat_grads.copy())
        )
    for result in results[1:]:
        for array, first in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(array, first)
    assert not results[0][1][:, ~allowed.T].any()
    assert not results[0][3][~allowed].any()


@pytest.mark.parametrize("kind", KINDS)
def test_batch_first_and_single_queries(kind, rng):
    query, keys, lengths, mask = some_data(kind, rng)
    layer, turned = layer_of(kind), layer_of(kind, batch_first=True)
    dcontext = rng.normal(size=(T, B, keys.shape[-1]))
    context, weights = layer(query, keys, lengths, mask)
    dquery, dkeys = layer.backward(dcontext)
    swap = lambda array: array.swapaxes(0, 1)  # noqa: E731
    context_b, weights_b = turned(swap(query), swap(keys), lengths, mask.T)
    dquery_b, dkeys_b = turned.backward(swap(dcontext))
    for one, other in (
        (context, context_b),
        (weights, weights_b),
        (dquery, dquery_b),
        (dkeys, dkeys_b),
    ):
        assert_close("turned", swap(other), one, 1e-13)
    for name, gradient in layer.grads.items():
        assert_close(name, turned.grads[name], gradient, 1e-13)
    for each, data in ((layer, keys), (turned, swap(keys))):
        each.zero_grad()
        m = mask if each is layer else mask.T
        one, w = each(query[1], data, lengths, m)
        assert one.shape == (B, keys.shape[-1])
        assert_close("single", one, context[1], 1e-13)
        assert_close("single", w, weights[1], 1e-13)
        dq, dk = each.backward(dcontext[1])
        assert dq.shape == (B, Q)
        assert dk.shape == data.shape


def test_dot_is_torchs_scaled_dot_product(dtype, rng):
    torch = pytest.importorskip("torch", reason="compares with torch.nn.functional")
    query, keys, lengths, mask = some_data("dot", rng, dtype)
    allowed = mask & (np.arange(S)[:, None] < lengths)
    q, k = (
        torch.tensor(a.swapaxes(0, 1).copy(), requires_grad=True) for a in (query, keys)
    )
    peer = torch.nn.functional.scaled_dot_product_attention(
        q, k, k, attn_mask=torch.tensor(allowed.T[:, None].repeat(T, 1)), scale=1.0
    )
    layer = layer_of("dot", dtype)
    context, _ = layer(query, keys, lengths, mask)
    assert_close(
        "context", context, peer.detach().numpy().swapaxes(0, 1), relative(dtype, 9)
    )
    dcontext = rng.normal(size=context.shape).astype(dtype)
    peer.backward(torch.tensor(dcontext.swapaxes(0, 1).copy()))
    dquery, dkeys = layer.backward(dcontext)
    assert_close("dquery", dquery, q.grad.numpy().swapaxes(0, 1), relative(dtype, 40))
    assert_close("dkeys", dkeys, k.grad.numpy().swapaxes(0, 1), relative(dtype, 40))


def test_contexts_and_modes(rng):
    layer = layer_of("additive")
    query, keys, _, _ = some_data("additive", rng)
    dcontext = np.ones((T, B, K))
    context, weights = layer(query, keys)
    first = layer.context
    assert not weights.flags.writeable
    layer(query * 2, keys)
    layer.backward(dcontext, context=first)
    got = layer.flat_grads.copy()
    layer.zero_grad()
    layer(query, keys)
    layer.backward(dcontext)
    np.testing.assert_array_equal(layer.flat_grads, got)
    with pytest.raises(RuntimeError, match="context was already used"):
        layer.backward(dcontext, context=first)
    layer.eval()
    np.testing.assert_array_equal(layer(query, keys)[0], context)
    with pytest.raises(RuntimeError, match="needs a forward in training mode"):
        layer.backward(dcontext)


def test_same_seed_same_parameters_and_large_scores():
    first, second = layer_of("general"), layer_of("general")
    np.testing.assert_array_equal(first.flat_parameters, second.flat_parameters)
    layer = Attention(1, kind="dot")
    context, weights = layer(np.full((1, 1), 1e4), np.array([[[0.0]], [[1.0]]]))
    assert weights.tolist() == [[0, 1]]
    assert context.tolist() == [[1]]


LAYER = Attention(3, 2, seed=0)
KEYS = np.ones((5, 4, 2))
QUERY = np.ones((2, 4, 3))
MESSAGES = [
    (lambda: Attention(0), ValueError, "query_size must be a positive integer, got 0"),
    (lambda: Attention(3, kind="x"), ValueError, "kind must be one of 'dot', 'genera"),
    (
        lambda: Attention(3, 2, "dot"),
        ValueError,
        "key_size must be query_size = 3 for kind 'dot', got 2",
    ),
    (
        lambda: Attention(3, units=2),
        ValueError,
        "units must be None unless kind is 'additive', got 2",
    ),
    (
        lambda: LAYER(QUERY, KEYS[..., :1]),
        ValueError,
        "keys must have shape (S, B, key_size) = (S, B, 2), got (5, 4, 1)",
    ),
    (lambda: LAYER(QUERY, KEYS[:0]), ValueError, "keys must have S >= 1, got shape"),
    (
        lambda: LAYER(QUERY[:, :3], KEYS),
        ValueError,
        "query must have shape (T, B, query_size) = (T, 4, 3), got (2, 3, 3)",
    ),
    (
        lambda: LAYER(QUERY[0, :3], KEYS),
        ValueError,
        "query must have shape (B, query_size) = (4, 3), got (3, 3)",
    ),
    (
        lambda: LAYER(QUERY, KEYS, lengths=[1, 2, 3]),
        ValueError,
        "lengths must have shape (B,) = (4,), got (3,)",
    ),
    (
        lambda: LAYER(QUERY, KEYS, lengths=[0, 2, 3, 4]),
        ValueError,
        "lengths must be in [1, 5], got 0",
    ),
    (
        lambda: LAYER(QUERY, KEYS, lengths=[6, 2, 3, 4]),
        ValueError,
        "lengths must be in [1, 5], got 6",
    ),
    (
        lambda: LAYER(QUERY, KEYS, lengths=[1.0, 2, 3, 4]),
        TypeError,
        "lengths must be integers, got dtype float64",
    ),
    (
        lambda: LAYER(QUERY, KEYS, mask=np.ones((5, 4))),
        TypeError,
        "mask must be bool, got dtype float64",
    ),
    (
        lambda: LAYER(QUERY, KEYS, mask=np.ones((4, 5), bool)),
        ValueError,
        "mask must have shape (S, B) = (5, 4), got (4, 5)",
    ),
    (
        lambda: LAYER(QUERY, KEYS, mask=np.eye(5, 4, dtype=bool), lengths=[1, 1, 3, 4]),
        ValueError,
        "mask must leave a key for every sequence, got none for b = 1",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_messages(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(f"Attention: {message}")


def test_backward_messages():
    LAYER(QUERY, KEYS)
    with pytest.raises(
        ValueError, match=r"^Attention\.backward: dcontext must have th"
    ):
        LAYER.backward(np.ones((4, 2, 2)))
    with pytest.raises(
        ValueError, match=r"^Attention\.backward: dweights must have th"
    ):
        LAYER.backward(np.ones((2, 4, 2)), np.ones((2, 4, 4)))
    assert not LAYER.flat_grads.any()
