# SPDX-License-Identifier: BSD-3-Clause
"""Layers that make one array of several: results, slopes, masks, messages."""

import numpy as np
import pytest
from slopes import check_gradients

from fastrnn import (
    Add,
    Average,
    Concatenate,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
)

RESULTS = {
    "Add": (Add(), 3, lambda a, b, c: a + b + c),
    "Average": (Average(), 3, lambda a, b, c: (a + b + c) / 3),
    "Multiply": (Multiply(), 3, lambda a, b, c: a * b * c),
    "Maximum": (Maximum(), 3, lambda *p: np.max(np.broadcast_arrays(*p), axis=0)),
    "Minimum": (Minimum(), 3, lambda *p: np.min(np.broadcast_arrays(*p), axis=0)),
    "Subtract": (Subtract(), 2, lambda a, b: a - b),
}


@pytest.mark.parametrize("shapes", [[(2, 3, 4)] * 3, [(2, 3, 4), (2, 1, 4), (2, 4)]])
@pytest.mark.parametrize("name", RESULTS)
def test_results_and_slopes(name, shapes, rng):
    layer, n, expected = RESULTS[name]
    arrays = {f"x{i}": rng.normal(size=shape) for i, shape in enumerate(shapes[:n])}
    alike = [x.reshape(2, -1, 4) for x in arrays.values()]
    y = layer(*arrays.values())
    np.testing.assert_allclose(y, expected(*alike))
    w = rng.normal(size=y.shape)
    got = dict(zip(arrays, layer.backward(w), strict=True))
    check_gradients(lambda: (layer(*arrays.values()) * w).sum(), layer, got, arrays)
    for name, array in got.items():
        assert array.flags.c_contiguous
        assert not np.shares_memory(array, w), name


def test_the_first_of_equals_has_the_gradient():
    layer = Maximum()
    layer([1.0, 2.0], [1.0, 3.0])
    assert [g.tolist() for g in layer.backward([5.0, 7.0])] == [[5, 0], [0, 7]]


@pytest.mark.parametrize("axis", [0, 1, -2, 2])
def test_concatenation_along_any_axis(axis, rng):
    shapes = [[2, 3, 4], [2, 3, 4]]
    shapes[1][axis] = 5
    arrays = [rng.normal(size=shape) for shape in shapes]
    layer = Concatenate(axis)
    y = layer(*arrays)
    np.testing.assert_array_equal(y, np.concatenate(arrays, axis))
    for part, array in zip(layer.backward(y), arrays, strict=True):
        np.testing.assert_array_equal(part, array)
    assert repr(layer) == f"Concatenate(axis={axis})"
    assert repr(Concatenate()) == "Concatenate()"


def test_masks_are_merged_as_in_keras():
    one, other = np.array([[True, True, False]]), np.array([[True, False, False]])
    x = np.zeros((1, 3, 2))
    assert Add().merge_masks([x, x], [one, None]) is None
    np.testing.assert_array_equal(Add().merge_masks([x, x], [one, other]), one)
    assert Concatenate().merge_masks([x, x], [None, None]) is None
    assert Concatenate().merge_masks([x, x], [other, None]).all()
    np.testing.assert_array_equal(Concatenate().merge_masks([x, x], [other, one]), one)
    np.testing.assert_array_equal(
        Concatenate(1).merge_masks([x, x], [other, None]),
        [[True, False, False, True, True, True]],
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Add()(), ValueError, "Add: arrays must be at least one, got none"),
        (
            lambda: Add()(np.ones((2, 3)), np.ones((2, 4))),
            ValueError,
            r"Add: arrays must have one shape but for axes of size 1, got \(2, 3\), \(",
        ),
        (lambda: Subtract()([1.0]), ValueError, "Subtract: arrays must be two, got 1"),
        (lambda: Concatenate(0.5), TypeError, "axis must be an integer, got 0.5"),
        (
            lambda: Concatenate(1)(np.ones(2)),
            ValueError,
            r"Concatenate: array 0 must have an axis 1, got \(2,\)",
        ),
        (
            lambda: (layer := Add(), layer([1.0]), layer.backward([1.0, 2.0])),
            ValueError,
            r"Add.backward: dy must have the shape of y, \(1,\), got \(2,\)",
        ),
        (lambda: Add().backward([1.0]), RuntimeError, "backward needs a forward"),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()
