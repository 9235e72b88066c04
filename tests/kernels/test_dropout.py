# SPDX-License-Identifier: BSD-3-Clause
"""Dropout's masks: reproducible everywhere, uniform, independent."""

import numpy as np
import pytest

from fastrnn.native import core

GOLDEN = 0x9E3779B97F4A7C15


def splitmix(z):
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def kept(seed, p, n):
    """The definition, one element at a time in Python's integers."""
    key = splitmix((seed + GOLDEN) % 2**64)
    bits = (
        splitmix((key + k // 2 * GOLDEN) % 2**64) >> 32 * (k % 2) & 0xFFFFFFFF
        for k in range(n)
    )
    return np.array([b >= int(p * 2**32) for b in bits], bool)


def dropout(x, p, seed, n_threads=1):
    y = np.full_like(x, np.nan)
    core.kernels(x.dtype.name).dropout(n_threads, seed, p, x, y)
    return y


@pytest.mark.parametrize("n", [0, 1, 2, 7, 16, 33, 1000])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_mask_is_the_documented_one(n, p, seed, dtype, isa, rng):
    x = rng.standard_normal(n).astype(dtype)
    gain = np.dtype(dtype).type(1 / (1 - p))
    want = np.where(kept(seed, p, n), x * gain, 0)
    np.testing.assert_array_equal(dropout(x, p, seed), want)


def test_same_mask_for_any_thread_count(dtype, isa):
    x = np.ones(7 * 16384 + 13, dtype)
    want = dropout(x, 0.3, 5)
    for n_threads in (2, 3, 7):
        np.testing.assert_array_equal(dropout(x, 0.3, 5, n_threads), want)
    with core.use_isa("baseline"):
        np.testing.assert_array_equal(dropout(x, 0.3, 5), want)
    other = dropout(x.astype("float32" if dtype == "float64" else "float64"), 0.3, 5)
    np.testing.assert_array_equal(other == 0, want == 0)


def test_any_shape_and_in_place(dtype, isa):
    x = np.ones((3, 5, 7), dtype)
    want = dropout(x.reshape(-1), 0.5, 9).reshape(x.shape)
    np.testing.assert_array_equal(dropout(x, 0.5, 9), want)
    core.kernels(dtype).dropout(1, 9, 0.5, x, x)
    np.testing.assert_array_equal(x, want)


@pytest.mark.parametrize("width", [1, 2, 7, 32])
@pytest.mark.parametrize("rows", [(0, 9), (0, 4), (4, 9), (3, 4), (1, 2)])
def test_rows_make_the_choices_of_the_whole_array(rows, width, dtype, isa, rng):
    """Of (T, B, width) some of the B rows, as a process of several has them."""
    x, (first, last) = rng.standard_normal((5, 9, width)).astype(dtype), rows
    want = dropout(x, 0.4, 11)[:, first:last]
    part = np.ascontiguousarray(x[:, first:last])
    y, block = np.full_like(part, np.nan), (last - first) * width
    place = block, first * width, 9 * width
    for n_threads in (1, 3):
        core.kernels(dtype).dropout(n_threads, 11, 0.4, part, y, *place)
        np.testing.assert_array_equal(y, want)


def test_a_large_part_is_that_of_the_whole_for_any_thread_count(dtype, isa):
    whole = dropout(np.ones(2 * 65536 + 5, dtype), 0.3, 5)
    for first in (1, 2, 65537):
        x = np.ones(65536, dtype)
        for n_threads in (1, 3):
            y = np.empty_like(x)
            core.kernels(dtype).dropout(n_threads, 5, 0.3, x, y, x.size, first)
            np.testing.assert_array_equal(y, whole[first : first + x.size])


@pytest.mark.parametrize("place", [(-1, 0, 0), (1, -1, 0), (1, 0, -1)])
def test_a_place_is_not_negative(place):
    x = np.ones(3, "f")
    with pytest.raises(ValueError, match="block, first and stride must be >= 0, got"):
        core.kernels("float32").dropout(1, 0, 0.5, x, x, *place)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_drops_are_uniform_and_independent(p):
    """Rate, neighbours at several distances, and seeds: within five sigma."""
    n = 2**20
    x = np.ones(n, "float32")
    masks = [dropout(x, p, seed) == 0 for seed in range(4)]
    sigma = np.sqrt(p * (1 - p) / n)
    for mask in masks:
        assert abs(mask.mean() - p) < 5 * sigma
    pair = np.sqrt(p**2 * (1 - p**2) / n)
    for distance in (1, 2, 3, 16, 1024):
        both = masks[0] & np.roll(masks[0], distance)
        assert abs(both.mean() - p**2) < 8 * pair  # neighbours share an element
    for other in masks[1:]:
        assert abs((masks[0] & other).mean() - p**2) < 5 * pair


def test_edges(dtype, isa):
    x = np.array([1, -2, np.nan, np.inf, -np.inf], dtype)
    np.testing.assert_array_equal(dropout(x, 0.0, 1), x)
    np.testing.assert_array_equal(dropout(x[:2], 1.0, 1), [0, 0])
    assert np.isnan(dropout(x, 1.0, 1)[2:]).all()
    kernels = core.kernels(dtype)
    for p in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"p must be in \[0, 1\]"):
            kernels.dropout(1, 0, p, x, x)
    with pytest.raises(ValueError, match="y must have 5 elements, got 4"):
        kernels.dropout(1, 0, 0.5, x, x[:4].copy())
