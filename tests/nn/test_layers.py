# SPDX-License-Identifier: BSD-3-Clause
"""`Linear`, `Embedding`, `Dropout`, `Sequential`: results, gradients, messages."""

import math

import numpy as np
import pytest
from gradcheck import assert_close, central_differences
from tolerances import CENTRAL_RTOL, relative

import fastrnn
from fastrnn.native import core
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.layers import Dropout, Linear
from fastrnn.nn.module import Module
from fastrnn.train.sequential import Sequential

SIZES = [(1, 1), (3, 2), (16, 17), (33, 5), (7, 70)]
LEADING = [(), (1,), (5,), (4, 3), (2, 0, 3)]


def reference(x, weight, bias):
    """y = x W^T + b in float64, for arrays that may carry an axis of copies."""
    y = x @ np.swapaxes(weight, -1, -2)
    return y if bias is None else y + bias[..., None, :]


class Recurrent(Module):
    """Shaped like a recurrent layer: gives and takes its state beside the sequence."""

    def __init__(self, seed):
        self.inner = Linear(4, 4, seed=seed)

    def forward(self, x):
        y = self.inner(x)
        self._keep(self.inner.context)
        return y, y[-1]

    def backward(self, dy, d_state=None, *, context=None):
        context = self._context(context)
        dx = self.inner.backward(dy, context=context.saved)
        context.release()
        return dx, None


# -- Linear --------------------------------------------------------------------------


@pytest.mark.parametrize("leading", LEADING, ids=str)
@pytest.mark.parametrize(("I", "out"), SIZES)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_against_reference(I, out, leading, bias, dtype, isa, rng):
    layer = Linear(I, out, bias, dtype=dtype, seed=rng)
    x = rng.normal(size=(*leading, I)).astype(dtype)
    dy = rng.normal(size=(*leading, out)).astype(dtype)
    before = x.copy(), dy.copy(), layer.state_dict()
    y = layer(x)
    assert y.shape == (*leading, out)
    assert y.dtype == dtype
    layer.flat_grads[:] = 1  # gradients are added to what is there
    dx = layer.backward(dy)
    assert dx.shape == x.shape
    assert dx.dtype == dtype

    p = {name: array.astype(float) for name, array in before[2].items()}
    rows, drows = x.reshape(-1, I).astype(float), dy.reshape(-1, out).astype(float)
    if x.size:
        want = reference(rows, p["weight"], p.get("bias")).reshape(y.shape)
        assert_close("y", y, want, relative(dtype, I + 1))
        want = (drows @ p["weight"]).reshape(x.shape)
        assert_close("dx", dx, want, relative(dtype, out))
    n = len(rows) + 1
    want = 1 + drows.T @ rows
    assert_close("weight", layer.grads["weight"], want, relative(dtype, n))
    if bias:
        want = 1 + drows.sum(0)
        assert_close("bias", layer.grads["bias"], want, relative(dtype, n))
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(dy, before[1])
    for name, array in before[2].items():
        np.testing.assert_array_equal(layer.parameters[name], array)


def test_linear_against_central_differences(rng):
    layer = Linear(3, 4, dtype="float64", seed=rng)
    x, dy = rng.normal(size=(5, 3)), rng.normal(size=(5, 4))

    def loss(arrays):
        y = reference(arrays["x"], arrays["weight"], arrays["bias"])
        return (y * dy).sum(axis=(-1, -2))

    arrays = {"x": x, **layer.state_dict()}
    want = central_differences(loss, arrays, ["x", "weight", "bias"])
    layer(x)
    got = {"x": layer.backward(dy), **layer.grads}
    for name, gradient in want.items():
        assert_close(name, got[name], gradient, CENTRAL_RTOL)


def test_linear_gives_a_row_the_same_bits_alone_and_in_a_batch(dtype, isa):
    rng = np.random.default_rng(0)
    layer = Linear(19, 35, dtype=dtype, seed=rng).eval()
    x = rng.normal(size=(29, 19))
    y = layer(x)
    for row in range(len(x)):
        np.testing.assert_array_equal(layer(x[row]), y[row])
    np.testing.assert_array_equal(layer(x[3:20]), y[3:20])


# Sums, columns and rows that are cut into several blocks, and none that is.
LARGE = [(600, 150, 170), (30, 1100, 40), (40, 300, 700), (13, 20, 1500)]


@pytest.mark.parametrize(("N", "I", "out"), LARGE)
def test_large_linear_against_reference(N, I, out, dtype, isa, rng):
    layer = Linear(I, out, dtype=dtype, seed=rng)
    x = rng.normal(size=(N, I)).astype(dtype)
    dy = rng.normal(size=(N, out)).astype(dtype)
    layer.flat_grads[:] = 0.5  # what is there is added to
    got = {"y": layer(x), "dx": layer.backward(dy), **layer.grads}
    exact = x.astype(np.float64), dy.astype(np.float64), *layer.state_dict().values()
    x, dy, weight, bias = exact
    want = {
        "y": reference(x, weight, bias),
        "dx": dy @ weight,
        "weight": dy.T @ x + 0.5,
        "bias": dy.sum(0) + 0.5,
    }
    for name, value in want.items():
        assert_close(name, got[name], value, relative(dtype, max(N, I, out)))


def linear_bits(dtype):
    """All that steps of layers compute, as bytes; large enough to be shared."""
    rng = np.random.default_rng(0)
    found = []
    for N, I, out in LARGE:
        layer = Linear(I, out, dtype=dtype, seed=rng)
        x, dy = rng.normal(size=(N, I)), rng.normal(size=(N, out))
        found += [layer(x), layer.backward(dy), layer.flat_grads]
    return [array.tobytes() for array in found]


def test_linear_sums_long_k_in_one_order(isa, rng):
    """Blocks of k do not change a sum: it is that of k one after the other."""
    if isa == "baseline":
        pytest.skip("without FMA a product is rounded before it is added")
    layer = Linear(1300, 20, seed=rng).eval()
    # Few enough bits that float64 holds products and sums before they are rounded.
    x = (rng.integers(-64, 64, 1300) / 64).astype("float32")
    weight, bias = layer.parameters["weight"], layer.parameters["bias"]
    weight[:] = rng.integers(-4096, 4096, weight.shape) / 4096 * 1.7
    sums = np.zeros(20, "float32")
    for k in range(1300):
        product = weight[:, k].astype("float64") * x[k]
        sums = (sums + product).astype("float32")
    np.testing.assert_array_equal(layer(x), sums + bias)


def test_linear_gives_the_same_bits_on_any_number_of_threads(dtype, isa):
    before = fastrnn.get_num_threads()
    results = []
    for n in (1, 2, 7):
        fastrnn.set_num_threads(n)
        results.append(linear_bits(dtype))
    fastrnn.set_num_threads(before)
    assert results[0] == results[1] == results[2]


def test_linear_gives_the_same_bits_on_all_targets_with_fma(dtype):
    results = []
    for name in core.SUPPORTED:
        if name != "baseline":
            with core.use_isa(name):
                results.append(linear_bits(dtype))
    assert all(result == results[0] for result in results[1:])


def test_linear_passes_nan_through(dtype):
    layer = Linear(3, 2, dtype=dtype, seed=0)
    x = np.ones((4, 3))
    x[2, 1] = math.nan
    y = layer(x)
    assert np.isnan(y[2]).all()
    assert np.isfinite(y[[0, 1, 3]]).all()


# -- Embedding -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (6,), (2, 5), (0, 3)], ids=str)
@pytest.mark.parametrize("padding_idx", [None, 2, -5])
@pytest.mark.parametrize("D", [1, 8, 17])
def test_embedding(shape, padding_idx, D, dtype, isa, rng):
    layer = Embedding(7, D, padding_idx, dtype=dtype, seed=rng)
    layer.flat_parameters[:] += 1  # the padding row, too, is looked up
    indices = rng.integers(0, 7, shape)
    y = layer(indices)
    assert y.shape == (*shape, D)
    assert y.dtype == dtype
    weight = layer.parameters["weight"].copy()
    np.testing.assert_array_equal(y, weight[indices])
    assert not np.shares_memory(y, layer.flat_parameters)

    dy = rng.normal(size=y.shape).astype(dtype)
    layer.flat_grads[:] = 1
    assert layer.backward(dy) is None
    one_hot = (indices.reshape(-1, 1) == np.arange(7)).astype(float)
    if padding_idx is not None:
        one_hot[:, padding_idx] = 0
    want = 1 + one_hot.T @ dy.reshape(-1, D).astype(float)
    assert_close("weight", layer.grads["weight"], want, relative(dtype, 11))
    np.testing.assert_array_equal(layer.parameters["weight"], weight)


def test_embedding_against_central_differences(rng):
    layer = Embedding(5, 3, dtype="float64", seed=rng)
    indices = np.array([[4, 0, 4], [1, 4, 3]])
    dy = rng.normal(size=(2, 3, 3))

    def loss(arrays):
        return (arrays["weight"][..., indices, :] * dy).sum(axis=(-1, -2, -3))

    want = central_differences(loss, layer.state_dict(), ["weight"])["weight"]
    layer(indices)
    layer.backward(dy)
    assert_close("weight", layer.grads["weight"], want, CENTRAL_RTOL)


def test_embedding_keeps_indices_from_later_writes():
    layer = Embedding(5, 2, seed=0)
    indices = np.array([1, 3])
    y = layer(indices)
    indices[:] = 0
    layer.backward(np.ones_like(y))
    np.testing.assert_array_equal(layer.grads["weight"][:, 0], [0, 1, 0, 1, 0])


# -- Dropout -------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 0.3, 0.9, 1.0])
def test_dropout(p, dtype, isa, rng):
    layer = Dropout(p, seed=0)
    x = rng.normal(size=(40, 50)).astype(dtype)
    before = x.copy()
    y = layer(x)
    assert y.dtype == dtype
    assert not np.shares_memory(x, y)
    kept = y != 0
    n = x.size
    assert abs(kept.mean() - (1 - p)) <= 4 * math.sqrt(p * (1 - p) / n)
    scale = 0.0 if p == 1 else 1 / (1 - p)
    np.testing.assert_allclose(y[kept], scale * x[kept], rtol=4 * np.finfo(dtype).eps)
    dy = rng.normal(size=x.shape).astype(dtype)
    dx = layer.backward(dy)
    assert dx.dtype == dtype
    np.testing.assert_array_equal(dx != 0, kept)
    np.testing.assert_allclose(dx[kept], scale * dy[kept], rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(x, before)


def test_dropout_is_seeded_and_goes_on():
    x = np.ones(64, "f")
    first, second = Dropout(seed=1), Dropout(seed=1)
    np.testing.assert_array_equal(first(x), second(x))
    assert not np.array_equal(first(x), Dropout(seed=1)(x))
    # The generator's state is all that there is to a resumed run.
    state = first.generator.bit_generator.state
    expected = first(x)
    third = Dropout(seed=5)
    third.generator.bit_generator.state = state
    np.testing.assert_array_equal(third(x), expected)


def test_dropout_makes_one_choice_on_every_target_and_thread_count(dtype):
    x = np.ones((300, 301), dtype)
    results = []
    before = fastrnn.get_num_threads()
    for name in core.SUPPORTED:
        for n in (1, 2, 7):
            fastrnn.set_num_threads(n)
            with core.use_isa(name):
                results.append(Dropout(0.3, seed=0)(x))
    fastrnn.set_num_threads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_dropout_in_eval_mode():
    layer = Dropout(seed=0).eval()
    x = np.ones((3, 4))
    assert layer(x) is x
    assert layer([1, 2]).dtype == np.float32
    assert layer.context is None
    with pytest.raises(RuntimeError, match=r"^Dropout: backward needs a forward in tr"):
        layer.backward(x)


def test_dropout_of_nothing():
    layer = Dropout(seed=0)
    assert layer(np.zeros((0, 3))).shape == (0, 3)
    assert layer.backward(np.zeros((0, 3))).shape == (0, 3)


# -- Sequential ----------------------------------------------------------------------


def test_sequential_is_its_layers_in_order(rng):
    layers = Linear(3, 4, seed=rng), Recurrent(rng), Linear(4, 2, seed=rng)
    model = Sequential(*layers)
    assert len(model) == 3
    assert tuple(model) == layers
    assert model[-1] is layers[2]
    assert model[:2] == layers[:2]
    x, dy = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    y = model(x)
    np.testing.assert_array_equal(y, layers[2](layers[1](layers[0](x))[0]))
    dx = model.backward(dy)
    got = model.flat_grads.copy()
    model.zero_grad()
    first, middle, last = layers
    want = first.backward(middle.backward(last.backward(dy))[0])
    np.testing.assert_array_equal(dx, want)
    np.testing.assert_array_equal(model.flat_grads, got)


def test_sequential_contexts_may_be_used_in_any_order(rng):
    model = Sequential(Linear(3, 4, seed=rng), Dropout(0.5, seed=rng), Linear(4, 2))
    inputs, gradients = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 2))
    contexts = []
    for x in inputs:
        model(x)
        contexts.append(model.context)
    for dy, context in zip(gradients, contexts, strict=True):
        model.backward(dy, context=context)
    got = model.flat_grads.copy()
    with pytest.raises(RuntimeError, match=r"^Sequential\.backward: context was alrea"):
        model.backward(gradients[0], context=contexts[0])
    np.testing.assert_array_equal(model.flat_grads, got)


def test_sequential_with_one_layer_twice(rng):
    shared = Linear(3, 3, dtype="float64", seed=rng)
    model = Sequential(shared, shared)
    assert model.flat_parameters.size == 12
    x, dy = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))

    def loss(arrays):
        y = reference(arrays["x"], arrays["weight"], arrays["bias"])
        return (reference(y, arrays["weight"], arrays["bias"]) * dy).sum(axis=(-1, -2))

    arrays = {"x": x, **shared.state_dict()}
    want = central_differences(loss, arrays, list(arrays))
    model(x)
    got = {"x": model.backward(dy), **shared.grads}
    for name, gradient in want.items():
        assert_close(name, got[name], gradient, CENTRAL_RTOL)


def test_sequential_from_indices_has_no_input_gradient():
    model = Sequential(Embedding(5, 3, seed=0), Linear(3, 2, seed=1))
    y = model([[1, 2], [3, 4]])
    assert model.backward(np.ones_like(y)) is None
    assert model.grads["0.weight"][1:].all()


def test_sequential_with_a_layer_in_eval_mode_changes_nothing():
    model = Sequential(Linear(3, 3, seed=0), Linear(3, 3, seed=0))
    model[0].eval()
    model(np.ones((1, 3)))
    model[0].train()
    with pytest.raises(RuntimeError, match=r"^Linear: backward needs a forward in tr"):
        model.backward(np.ones((1, 3)))
    assert not model.flat_grads.any()


def test_empty_sequential():
    model = Sequential()
    assert model(3) == 3
    assert model.backward(4) == 4


def test_sequential_learns():
    """A line of its own: loss falls by a factor of 100 under plain gradient steps."""
    rng = np.random.default_rng(0)
    model = Sequential(Linear(2, 8, seed=rng), Linear(8, 1, seed=rng))
    x = rng.normal(size=(64, 2)).astype("f")
    target = x @ np.float32([[1], [-2]]) + 0.5
    losses = []
    for _ in range(100):
        error = model(x) - target
        losses.append(float((error**2).mean()))
        model.zero_grad()
        model.backward(2 * error / len(x))
        model.flat_parameters[:] -= 0.05 * model.flat_grads
    assert losses[-1] < losses[0] / 100


def test_sequential_with_a_recurrent_layer(rng):
    table = Embedding(7, 4, seed=rng, dtype="float64")
    lstm = fastrnn.LSTM(4, 5, seed=rng, dtype="float64")
    head = Linear(5, 7, seed=rng, dtype="float64")
    model = Sequential(table, lstm, head)
    indices, dy = rng.integers(0, 7, (3, 6)), rng.normal(size=(3, 6, 7))
    y = model(indices)  # samples first; the layers by themselves time first
    by_itself = head(lstm(table(indices.T))[0])
    np.testing.assert_array_equal(y, by_itself.swapaxes(0, 1))
    y = model(indices)
    assert model.backward(dy) is None
    got = model.flat_grads.copy()
    model.zero_grad()
    y = head(lstm(table(indices.T))[0])
    table.backward(lstm.backward(head.backward(dy.swapaxes(0, 1)))[0])
    # The head's rows are summed in another order.
    assert_close("grads", model.flat_grads, got, 1e-13)

    # One step along the gradient changes the loss as the gradient says.
    before = (model(indices) * dy).sum()
    model.flat_parameters[:] += 1e-6 * got
    after = (model(indices) * dy).sum()
    assert_close("loss", (after - before) / 1e-6, got @ got, 1e-3)


# -- PyTorch -------------------------------------------------------------------------


def test_same_results_as_torch(dtype, rng):
    torch = pytest.importorskip("torch", reason="compares with torch.nn")
    peer = torch.nn.Sequential(
        torch.nn.Embedding(11, 9, padding_idx=3), torch.nn.Linear(9, 6)
    ).to(getattr(torch, dtype))
    model = Sequential(
        Embedding(11, 9, padding_idx=3, dtype=dtype), Linear(9, 6, dtype=dtype)
    )
    model.load_state_dict(peer.state_dict())
    indices = rng.integers(0, 11, (4, 7))
    dy = rng.normal(size=(4, 7, 6)).astype(dtype)
    y, peer_y = model(indices), peer(torch.from_numpy(indices))
    assert_close("y", y, peer_y.detach().numpy(), relative(dtype, 10))
    model.backward(dy)
    peer_y.backward(torch.from_numpy(dy))
    for name, parameter in peer.named_parameters():
        want = parameter.grad.numpy()
        assert_close(name, model.grads[name], want, relative(dtype, 28 + 6))
    assert not model.grads["0.weight"][3].any()


# -- input that is converted, and input that is not ---------------------------------


CONVERTIBLE = {
    "list": lambda x: x.tolist(),
    "int": lambda x: x.astype(np.int32),
    "float16": lambda x: x.astype(np.float16),
    "float64": lambda x: x.astype(np.float64),
    "big endian": lambda x: x.astype(">f4"),
    "Fortran order": np.asfortranarray,
    "every other": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "backwards": lambda x: x[::-1].copy()[::-1],
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}


@pytest.mark.parametrize("convert", CONVERTIBLE.values(), ids=CONVERTIBLE)
def test_data_is_converted(convert, dtype, rng):
    x = rng.integers(-3, 4, (4, 3)).astype("f")
    dy = rng.integers(-3, 4, (4, 2)).astype("f")
    layer = Linear(3, 2, dtype=dtype, seed=0)
    y, dx = layer(x), layer.backward(dy)
    grads = layer.flat_grads.copy()
    layer.zero_grad()
    np.testing.assert_array_equal(layer(convert(x)), y)
    np.testing.assert_array_equal(layer.backward(convert(dy)), dx)
    np.testing.assert_array_equal(layer.flat_grads, grads)


@pytest.mark.parametrize("kind", ["u1", "i2", ">i8", "u8"])
def test_indices_are_converted(kind):
    layer = Embedding(5, 2, seed=0)
    want = layer.parameters["weight"][[[4, 0], [1, 1]]]
    indices = np.array([[4, 0], [1, 1]], kind)
    np.testing.assert_array_equal(layer(indices), want)
    np.testing.assert_array_equal(layer(indices.T), want.swapaxes(0, 1))
    assert layer([]).shape == (0, 2)


def trained(layer, x):
    layer(x)
    return layer


LINEAR = Linear(3, 2, seed=0)
TABLE = Embedding(5, 2, seed=0)
MESSAGES = [
    (
        lambda: Linear(0, 2),
        ValueError,
        "Linear: in_features must be a positive integer, got 0",
    ),
    (
        lambda: Linear(3, 2.0),
        TypeError,
        "Linear: out_features must be a positive integer, got 2.0",
    ),
    (
        lambda: Linear(True, 2),
        TypeError,
        "Linear: in_features must be a positive integer, got True",
    ),
    (
        lambda: Linear(3, 2, bias=1),
        TypeError,
        "Linear: bias must be True or False, got 1",
    ),
    (
        lambda: Linear(3, 2, dtype="float16"),
        ValueError,
        "Linear: dtype must be 'float32' or 'float64', got 'float16'",
    ),
    (
        lambda: Linear(3, 2, dtype=None),
        ValueError,
        "Linear: dtype must be 'float32' or 'float64', got None",
    ),
    (
        lambda: Linear(3, 2, seed="a"),
        TypeError,
        "Linear: seed must be None, a non-negative integer or a "
        "numpy.random.Generator, got 'a'",
    ),
    (
        lambda: LINEAR(np.ones((5, 4))),
        ValueError,
        "Linear: x must have shape (..., in_features) = (..., 3), got (5, 4)",
    ),
    (
        lambda: LINEAR(1.5),
        ValueError,
        "Linear: x must have shape (..., in_features) = (..., 3), got ()",
    ),
    (
        lambda: LINEAR(np.ones((5, 3), complex)),
        TypeError,
        "Linear: x must be real numbers, got dtype complex128",
    ),
    (
        lambda: LINEAR(["a", "b", "c"]),
        TypeError,
        "Linear: x must be real numbers, got dtype <U1",
    ),
    (
        lambda: LINEAR(None),
        TypeError,
        "Linear: x must be real numbers, got dtype object",
    ),
    (
        lambda: trained(Linear(3, 2), np.ones((5, 3))).backward(np.ones((5, 3))),
        ValueError,
        "Linear.backward: dy must have the shape of y, (5, 2), got (5, 3)",
    ),
    (
        lambda: trained(Linear(3, 2), np.ones((5, 3))).backward(np.ones((10,))),
        ValueError,
        "Linear.backward: dy must have the shape of y, (5, 2), got (10,)",
    ),
    (
        lambda: Embedding(5, 0),
        ValueError,
        "Embedding: embedding_dim must be a positive integer, got 0",
    ),
    (
        lambda: Embedding(5, 2, 5),
        ValueError,
        "Embedding: padding_idx must be in [-5, 5), got 5",
    ),
    (
        lambda: Embedding(5, 2, 0.0),
        TypeError,
        "Embedding: padding_idx must be an integer, got 0.0",
    ),
    (
        lambda: TABLE([1, 5]),
        ValueError,
        "Embedding: indices must be in [0, 5), got 5",
    ),
    (
        lambda: TABLE([-1, 2]),
        ValueError,
        "Embedding: indices must be in [0, 5), got -1",
    ),
    (
        lambda: TABLE(np.array([2**64 - 1], np.uint64)),
        ValueError,
        "Embedding: indices must fit in int64, got 18446744073709551615",
    ),
    (
        lambda: TABLE([1.0]),
        TypeError,
        "Embedding: indices must be integers, got dtype float64",
    ),
    (
        lambda: TABLE([True]),
        TypeError,
        "Embedding: indices must be integers, got dtype bool",
    ),
    (
        lambda: trained(Embedding(5, 2), [1, 2]).backward(np.ones((2, 3))),
        ValueError,
        "Embedding.backward: dy must have the shape of y, (2, 2), got (2, 3)",
    ),
    (
        lambda: Dropout(1.5),
        ValueError,
        "Dropout: p must be a number in [0, 1], got 1.5",
    ),
    (
        lambda: Dropout(math.nan),
        ValueError,
        "Dropout: p must be a number in [0, 1], got nan",
    ),
    (
        lambda: Dropout("0.5"),
        TypeError,
        "Dropout: p must be a number in [0, 1], got '0.5'",
    ),
    (
        lambda: Dropout()("abc"),
        TypeError,
        "Dropout: x must be real numbers, got dtype <U3",
    ),
    (
        lambda: trained(Dropout(), np.ones(3)).backward(np.ones(4)),
        ValueError,
        "Dropout.backward: dy must have the shape of y, (3,), got (4,)",
    ),
    (
        lambda: Sequential(Dropout(), Linear),
        TypeError,
        "Sequential: layer 1 must be a Module, got type",
    ),
    (
        lambda: Sequential(Linear(1, 1), Linear(1, 1, dtype="float64")),
        ValueError,
        "Sequential: all layers must have one dtype, got 0 float32, 1 float64",
    ),
    (
        lambda: Sequential(LINEAR, LINEAR)(np.ones((5, 3))),
        ValueError,
        "Linear: x must have shape (..., in_features) = (..., 3), got (5, 2)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_messages(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_ragged_data():
    ragged = [[1, 2], [3]]
    with pytest.raises(ValueError, match=r"^Linear: x must be a rectangular array"):
        LINEAR(ragged)


class Stubborn:
    """Has `__array__` as a tensor that requires grad has."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("call detach() first")


def test_arrays_that_cannot_be_had():
    with pytest.raises(TypeError) as caught:
        LINEAR(Stubborn())
    assert str(caught.value) == (
        "Linear: x must be an array of numbers, got Stubborn: call detach() first"
    )


def test_refused_backward_changes_nothing():
    layer = Linear(3, 2, seed=0)
    layer(np.ones((5, 3)))
    with pytest.raises(ValueError, match="dy must have the shape of y"):
        layer.backward(np.ones((4, 2)))
    assert not layer.flat_grads.any()
    layer.backward(np.ones((5, 2)))  # the context is still there
