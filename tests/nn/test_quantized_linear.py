# SPDX-License-Identifier: BSD-3-Clause
"""Dense layers of small weights, judged by float64 and by rounded weights."""

import copy
import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn.native import core, threads

LARGEST = 8191  # of the integers that x becomes


@pytest.fixture
def on_threads():
    """Sets the number of threads until the test ends."""
    before = threads.get_num_threads()
    yield threads.set_num_threads
    threads.set_num_threads(before)


def made(I, O, rng, **options):
    layer = fastrnn.Linear(I, O, seed=0, **options)
    if layer.bias:
        layer.parameters["bias"][...] = rng.standard_normal(O)
    return layer


def to_integers(M, most):
    bound = np.abs(M).max(axis=-1, keepdims=True)
    return np.rint(M / (bound / most)), bound / most


SIZES = [(1, 1, 1), (1, 300, 1000), (5, 64, 17), (70, 513, 129), (3, 4100, 5)]


@pytest.mark.parametrize(("N", "I", "O"), SIZES)
def test_int8_is_what_its_equation_says(N, I, O, isa, rng):
    layer = made(I, O, rng)
    x = rng.standard_normal((N, I)).astype("f")
    y = layer.quantize("int8")(x)
    weight = layer.parameters["weight"].astype(np.float64)
    (a, a_scale), (q, q_scale) = (
        to_integers(x.astype("d"), LARGEST),
        to_integers(weight, 127),
    )
    want = (a @ q.T) * a_scale * q_scale.T + layer.parameters["bias"]
    # Where a number is halfway between two integers, float32 may take the other one.
    assert np.sqrt(np.mean((y - want) ** 2) / np.mean(want**2)) < 1e-4


@pytest.mark.parametrize(("N", "I", "O"), SIZES)
def test_bfloat16_has_the_sums_of_rounded_weights(N, I, O, isa, rng):
    layer = made(I, O, rng, bias=False)
    x = rng.standard_normal((N, I)).astype("f")
    y = layer.quantize("bfloat16")(x)
    m, e = np.frexp(layer.parameters["weight"].astype("d"))
    want = x.astype("d") @ np.ldexp(np.rint(np.ldexp(m, 8)), e - 8).T
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


@pytest.mark.skipif(
    not {"x86_v3", "x86_v4"} <= set(core.SUPPORTED), reason="needs two targets with FMA"
)
@pytest.mark.parametrize("weights", ["int8", "bfloat16"])
def test_targets_threads_and_rows_have_the_same_bits(weights, rng, on_threads):
    layer = made(70, 300, rng, activation="tanh")
    x = rng.standard_normal((90, 70)).astype("f")
    want = layer.quantize(weights)(x)
    for target in ("x86_v3", "x86_v4"):
        with core.use_isa(target):
            small = layer.quantize(weights)
            for n in (1, 2, 7):
                on_threads(n)
                np.testing.assert_array_equal(small(x), want)
                np.testing.assert_array_equal(small(x[4:5]), want[4:5])
                np.testing.assert_array_equal(small(x[4:9]), want[4:9])


def test_not_a_number_reaches_its_own_row_alone(rng):
    small = made(5, 20, rng).quantize()
    x = rng.standard_normal((3, 5)).astype("f")
    want = small(x)
    x[1, 2] = np.nan
    y = small(x)
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(y[::2], want[::2])
    assert small(np.zeros((0, 5))).shape == (0, 20)


@pytest.mark.parametrize("weights", ["int8", "bfloat16"])
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle])
def test_copies_and_state_dicts_have_the_same_bits(way, weights, rng):
    small = made(6, 9, rng).quantize(weights)
    x = rng.standard_normal((4, 6)).astype("f")
    want = small(x)
    again = pickle.loads(pickle.dumps(small)) if way is pickle else way(small)
    np.testing.assert_array_equal(again(x), want)
    other = fastrnn.Linear(6, 9, seed=1, quantized=weights)
    assert not np.array_equal(other(x), want)
    other.load_state_dict(small.state_dict())
    np.testing.assert_array_equal(other(x), want)
    np.testing.assert_array_equal(small(x), want)


def test_what_it_does_not_do_is_refused(rng):
    small = made(6, 9, rng).quantize()
    assert repr(small) == "Linear(6, 9, quantized='int8')"
    with pytest.raises(RuntimeError, match="must have whole weights"):
        small.backward(np.ones_like(small(np.ones((2, 6)))))
    with pytest.raises(ValueError, match="must have whole weights"):
        small.quantize()
    with pytest.raises(ValueError, match="compute='bfloat16' is not for"):
        small.compute = "bfloat16"
    with pytest.raises(ValueError, match="is for dtype='float32'"):
        fastrnn.Linear(6, 9, dtype="float64").quantize()
    with pytest.raises(ValueError, match="weights must be"):
        fastrnn.Linear(6, 9).quantize("int4")
    wide = fastrnn.Linear(6, 9)
    wide.parameters["weight"][0] = np.inf
    with pytest.raises(ValueError, match="weight must be finite for int8"):
        wide.quantize()
