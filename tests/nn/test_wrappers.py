# SPDX-License-Identifier: BSD-3-Clause
"""`TimeDistributed`, `Concatenate`, `LayerNorm`: results, gradients, messages."""

import numpy as np
import pytest
from gradcheck import assert_close
from slopes import check_gradients
from tolerances import relative

import fastrnn
from fastrnn import Concatenate, Embedding, LayerNorm, Linear, TimeDistributed

# -- TimeDistributed ------------------------------------------------------------------


def test_time_distributed_is_the_layer_on_every_step(dtype, rng):
    inner = fastrnn.LSTM(3, 4, batch_first=True, bidirectional=True, dtype=dtype)
    layer = TimeDistributed(inner)
    x, dy = rng.normal(size=(5, 2, 6, 3)), rng.normal(size=(5, 2, 6, 8))
    y = layer(x)
    assert y.shape == (5, 2, 6, 8)
    dx = layer.backward(dy)
    got = layer.flat_grads.copy()
    layer.zero_grad()
    for t in range(5):
        np.testing.assert_array_equal(inner(x[t])[0], y[t])
        np.testing.assert_array_equal(inner.backward(dy[t])[0], dx[t])
    assert_close("grads", got, layer.flat_grads, relative(dtype, 1000))


def test_time_distributed_over_indices(rng):
    layer = TimeDistributed(Embedding(7, 3, seed=0))
    indices = rng.integers(0, 7, (4, 2, 5))
    y = layer(indices)
    np.testing.assert_array_equal(y, layer.layer(indices))
    layer(indices)
    assert layer.backward(np.ones_like(y)) is None
    assert layer.flat_grads.any()


def test_time_distributed_contexts(rng):
    layer = TimeDistributed(Linear(3, 2, dtype="float64", seed=0))
    x = rng.normal(size=(2, 4, 5, 3))
    layer(x[0])
    first = layer.context
    layer(x[1])
    layer.backward(np.ones((4, 5, 2)), context=first)
    assert_close(
        "weight",
        layer.grads["layer.weight"][0],
        x[0].sum((0, 1)),
        relative("float64", 20),
    )
    with pytest.raises(RuntimeError, match="context was already used"):
        layer.backward(np.ones((4, 5, 2)), context=first)


# -- Concatenate ----------------------------------------------------------------------


@pytest.mark.parametrize("outer", [(), (5,), (4, 3)], ids=str)
def test_concatenate(outer, dtype, rng):
    arrays = [rng.normal(size=(*outer, n)).astype(dtype) for n in (3, 1, 2)]
    layer = Concatenate()
    y = layer(*arrays)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, np.concatenate(arrays, -1))
    parts = layer.backward(y)
    for part, array in zip(parts, arrays, strict=True):
        np.testing.assert_array_equal(part, array)
        assert part.flags.c_contiguous
        assert not np.shares_memory(part, y)


def test_concatenate_takes_the_wider_type():
    assert Concatenate()(np.ones((2, 1)), np.ones((2, 1), "f")).dtype == np.float64
    assert Concatenate()([[1]], np.ones((1, 1), "f")).dtype == np.float32


# -- LayerNorm ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [4, (4,), (3, 4)], ids=str)
@pytest.mark.parametrize(("affine", "bias"), [(1, 1), (1, 0), (0, 0)])
def test_layer_norm_is_torchs(shape, affine, bias, dtype, rng):
    torch = pytest.importorskip("torch", reason="compares with torch.nn")
    options = {"eps": 1e-3, "elementwise_affine": bool(affine), "bias": bool(bias)}
    peer = torch.nn.LayerNorm(shape, **options).to(getattr(torch, dtype))
    layer = LayerNorm(shape, dtype=dtype, **options)
    for view in layer.parameters.values():
        view[...] = rng.normal(size=view.shape)
    peer.load_state_dict({k: torch.tensor(v) for k, v in layer.state_dict().items()})
    x = (rng.normal(size=(5, 2, 3, 4)) * 3 + 1).astype(dtype)
    dy = rng.normal(size=x.shape).astype(dtype)
    peer_x = torch.tensor(x, requires_grad=True)
    peer_y = peer(peer_x)
    y = layer(x)
    assert y.dtype == dtype
    assert_close("y", y, peer_y.detach().numpy(), relative(dtype, 12))
    np.testing.assert_array_equal(layer.eval()(x), y)
    layer.train()(x)
    peer_y.backward(torch.tensor(dy))
    assert_close("dx", layer.backward(dy), peer_x.grad.numpy(), relative(dtype, 24))
    for name, parameter in peer.named_parameters():
        want = parameter.grad.numpy()
        assert_close(name, layer.grads[name], want, relative(dtype, 60))


def test_layer_norm_against_central_differences(rng):
    layer = LayerNorm(4, dtype="float64")
    layer.flat_parameters[:] = rng.normal(size=8)
    x, dy = rng.normal(size=(3, 2, 4)), rng.normal(size=(3, 2, 4))

    def loss():
        mean = x.mean(-1, keepdims=True)
        n = (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5)
        p = layer.parameters
        return ((n * p["weight"] + p["bias"]) * dy).sum()

    y = layer(x)
    assert_close("y", (y * dy).sum(), loss(), 1e-12)
    layer.flat_grads[:] = 1
    check_gradients(loss, layer, {"x": layer.backward(dy)}, {"x": x})


def test_layer_norm_of_equal_features_is_the_bias(dtype):
    layer = LayerNorm(3, dtype=dtype)
    np.testing.assert_array_equal(layer(np.full((2, 3), 1e6)), 0)
    assert repr(LayerNorm((2, 3), eps=0.1, bias=False)) == (
        "LayerNorm((2, 3), eps=0.1, bias=False)"
    )
    assert "elementwise_affine=False" in repr(LayerNorm(3, elementwise_affine=False))


# -- messages -------------------------------------------------------------------------


def trained(layer, *x):
    layer(*x)
    return layer


MESSAGES = [
    (
        lambda: TimeDistributed(3),
        TypeError,
        "TimeDistributed: layer must be a Module, got int",
    ),
    (
        lambda: TimeDistributed(fastrnn.GRU(3, 4)),
        ValueError,
        "TimeDistributed: a layer of sequences must be batch_first, got GRU(3, 4)",
    ),
    (
        lambda: TimeDistributed(Linear(3, 2))(np.ones(3)),
        ValueError,
        "TimeDistributed: x must have shape (T, B, ...), got (3,)",
    ),
    (
        lambda: trained(TimeDistributed(Linear(3, 2)), np.ones((4, 5, 3))).backward(
            np.ones((5, 4, 2))
        ),
        ValueError,
        "TimeDistributed.backward: dy must have the shape of y, (4, 5, 2), got "
        "(5, 4, 2)",
    ),
    (lambda: Concatenate()(), ValueError, "Concatenate: arrays must be at least one"),
    (
        lambda: Concatenate()(1.0),
        ValueError,
        "Concatenate: array 0 must have shape (..., features), got ()",
    ),
    (
        lambda: Concatenate()(np.ones((2, 3)), np.ones((3, 3))),
        ValueError,
        "Concatenate: array 1 must have shape (2, features), got (3, 3)",
    ),
    (
        lambda: Concatenate().eval().backward(1),
        RuntimeError,
        "Concatenate: backward needs a forward in training mode",
    ),
    (
        lambda: trained(Concatenate(), [[1.0]]).backward([1.0]),
        ValueError,
        "Concatenate.backward: dy must have the shape of y, (1, 1), got (1,)",
    ),
    (lambda: LayerNorm(()), ValueError, "LayerNorm: normalized_shape must have an ax"),
    (
        lambda: LayerNorm((3, 0)),
        ValueError,
        "LayerNorm: normalized_shape must be a positive integer, got 0",
    ),
    (
        lambda: LayerNorm(3, eps=0),
        ValueError,
        "LayerNorm: eps must be a number in (0, inf), got 0",
    ),
    (
        lambda: LayerNorm(3)(np.ones((3, 2))),
        ValueError,
        "LayerNorm: x must have shape (..., normalized_shape) = (..., 3), got (3, 2)",
    ),
    (
        lambda: trained(LayerNorm(3), np.ones((2, 3))).backward(np.ones(3)),
        ValueError,
        "LayerNorm.backward: dy must have the shape of y, (2, 3), got (3,)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_messages(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "inner",
    [
        lambda: fastrnn.LSTM(None, 3),
        lambda: fastrnn.Bidirectional(fastrnn.GRU(4, 3)),
        lambda: fastrnn.Sequential(fastrnn.RNN(4, 3), Linear(3, 2)),
    ],
)
def test_time_distributed_refuses_time_major_layers_wherever_they_are(inner):
    with pytest.raises(ValueError, match=r"TimeDistributed: .* batch_first, got "):
        TimeDistributed(inner())
