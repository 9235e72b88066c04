# SPDX-License-Identifier: BSD-3-Clause
"""Arrays that lie in memory as kernels cannot read them: copied where they come in."""

import numpy as np
import pytest
from arrays import read_only

import fastrnn
from fastrnn.native import core


def unaligned(array):
    """The same numbers, one byte past where they should be."""
    room = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype)
    room = room.reshape(array.shape)
    room[...] = array
    assert not room.flags.aligned
    return room


class Subclass(np.ndarray):
    """An array of another class."""


LIES = {
    "unaligned": unaligned,
    "swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "backwards": lambda array: array[::-1].copy()[::-1],
    "Fortran": np.asfortranarray,
    "read-only": read_only,
    "subclass": lambda array: array.view(Subclass),
    "unaligned, swapped": lambda a: unaligned(a.astype(a.dtype.newbyteorder())),
}


@pytest.fixture(params=LIES.values(), ids=LIES)
def lies(request):
    return request.param


def assert_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("options", [{}, {"return_sequences": False}])
@pytest.mark.parametrize("kind", ["RNN", "LSTM"])
def test_recurrent_layers(kind, options, lies, rng):
    x, dy = rng.standard_normal((5, 3, 4), "f"), rng.standard_normal((5, 3, 6), "f")
    dy = dy if not options else dy[0]
    h = [rng.standard_normal((1, 3, 6), "f") for _ in range(4)]
    results = []
    for way in (np.array, lies):
        layer = getattr(fastrnn, kind)(4, 6, seed=0, **options)
        a, b, c, d = (way(part) for part in h)
        hx, d_state = ((a, b), (c, d)) if kind == "LSTM" else (a, c)
        y, _ = layer(way(x), hx, lengths=way(np.array([5, 2, 3])))
        dx, _ = layer.backward(way(dy), d_state)
        results.append((y, dx, layer.flat_grads))
    assert_same(*results)


def test_other_layers_and_losses(lies, rng):
    x, dy = rng.standard_normal((5, 3, 4), "f"), rng.standard_normal((5, 3, 4), "f")
    indices, tags = rng.integers(0, 6, (5, 3)), rng.integers(0, 4, (5, 3))
    results = []
    for way in (np.array, lies):
        found = []
        for layer, given in (
            (fastrnn.Linear(4, 4, seed=0), x),
            (fastrnn.Embedding(6, 4, seed=0), indices),
            (fastrnn.LayerNorm(4), x),
            (fastrnn.Dropout(0.5, seed=0), x),
            (fastrnn.TimeDistributed(fastrnn.Linear(4, 4, seed=0)), x),
            (fastrnn.Bidirectional(fastrnn.GRU(4, 4, seed=0), "sum"), x),
        ):
            found += [layer(way(given)), layer.backward(way(dy))]
            found.append(fastrnn.Sequential(layer).flat_grads)
        attention = fastrnn.Attention(4, 4, seed=0)
        found += attention(way(x), way(dy), way(np.array([1, 5, 2])))
        found += attention.backward(way(x))
        crf = fastrnn.CRF(4, seed=0)
        found += [crf(way(x), way(tags), way(np.array([1, 5, 2]))), crf.backward()]
        found += fastrnn.cross_entropy(way(x), way(tags))
        found += fastrnn.mse_loss(way(x), way(dy))
        found += fastrnn.ctc_loss(way(x), way(tags.T[:, :1] % 3 + 1))
        results.append([np.zeros(0) if part is None else part for part in found])
    assert_same(*results)


def test_parameters_and_states(lies, rng):
    layers = [fastrnn.LSTM(4, 6, seed=seed) for seed in (0, 1)]
    layers[1].load_state_dict({k: lies(v) for k, v in layers[0].state_dict().items()})
    assert_same([layers[0].flat_parameters], [layers[1].flat_parameters])
    optimizers = [fastrnn.Adam(layer, lr=0.1) for layer in layers]
    layers[0].flat_grads[:] = layers[1].flat_grads[:] = 1
    optimizers[0].step()
    state = {k: lies(v) if v.ndim else v for k, v in optimizers[0].state_dict().items()}
    optimizers[1].load_state_dict(state)
    layers[1].load_state_dict(layers[0].state_dict())
    for optimizer in optimizers:
        optimizer.step()
    assert_same([layers[0].flat_parameters], [layers[1].flat_parameters])


@pytest.mark.parametrize("way", ["unaligned", "swapped", "unaligned, swapped"])
def test_a_stream_copies_what_is_of_its_type(way, rng):
    layer = fastrnn.GRU(4, 6, seed=0)
    x = rng.standard_normal((7, 2, 4), "f")
    streams = layer.stream(2), layer.stream(2)
    for x_t in x:
        one = streams[0].step(x_t).copy()
        assert_same([streams[1].step(LIES[way](x_t))], [one])
    with pytest.raises(TypeError, match="x_t must be a float32 array, got float64"):
        streams[1].step(x[0].astype("d"))


@pytest.mark.parametrize(
    ("way", "what"),
    [
        ("unaligned", r"an array that is not aligned \(buffer format '=f'\)"),
        ("swapped", r"another byte order \(buffer format '>f'\)"),
    ],
)
def test_kernels_say_what_they_cannot_read(way, what):
    array = LIES[way](np.ones(4, "<f4"))
    rule = "x must be aligned and in native byte order, got "
    with pytest.raises(TypeError, match=rule + what):
        core.kernels("float32").norm(1, array, 2.0)
