# SPDX-License-Identifier: BSD-3-Clause
"""Table look-up and its gradient against NumPy, element by element."""

import numpy as np
import pytest

from fastrnn.native import core

WIDTHS = [1, 3, 8, 16, 17, 33, 128]


def scatter(indices, dy, dweight, padding):
    """The definition: one addition after the other, in order, in the dtype."""
    want = dweight.copy()
    for i, index in enumerate(indices):
        if index != padding:
            want[index] += dy[i]
    return want


@pytest.mark.parametrize("n", [0, 1, 50, 3000])
@pytest.mark.parametrize("width", WIDTHS)
def test_forward(n, width, dtype, isa, rng):
    weight = rng.standard_normal((11, width)).astype(dtype)
    indices = rng.integers(11, size=n)
    for n_threads in (1, 2, 7):
        y = np.full((n, width), np.nan, dtype)
        core.kernels(dtype).embedding_forward(
            n_threads, n, 11, width, indices, weight, y
        )
        np.testing.assert_array_equal(y, weight[indices])


def test_forward_gives_zero_for_no_row(dtype, isa, rng):
    weight = rng.standard_normal((11, 17)).astype(dtype)
    indices = rng.integers(-1, 11, size=500)
    want = np.where(indices[:, None] < 0, 0, weight[indices])
    y = np.full((500, 17), np.nan, dtype)
    kernels = core.kernels(dtype)
    kernels.embedding_forward(2, 500, 11, 17, indices, weight, y, with_none=True)
    np.testing.assert_array_equal(y, want)
    with pytest.raises(ValueError, match=r"indices must be in \[0, 11\), got -2"):
        kernels.embedding_forward(1, 500, 11, 17, indices - 1, weight, y, True)


@pytest.mark.parametrize("padding", [-1, 0, 4])
@pytest.mark.parametrize("n", [0, 1, 50, 3000])
@pytest.mark.parametrize("width", WIDTHS)
def test_backward_adds_in_order(n, width, padding, dtype, isa, rng):
    indices = rng.integers(9, size=n)  # rows 9 and 10 do not occur
    dy = rng.standard_normal((n, width)).astype(dtype)
    start = rng.standard_normal((11, width)).astype(dtype)
    start[9:] = np.nan
    want = scatter(indices, dy, start, padding)
    for n_threads in (1, 2, 7):
        dweight = start.copy()
        core.kernels(dtype).embedding_backward(
            n_threads, n, 11, width, indices, padding, dy, dweight
        )
        assert dweight.tobytes() == want.tobytes()


@pytest.mark.parametrize("bad", [-1, 11, 2**40, -(2**40)])
def test_indices_outside_the_table_are_refused(bad, dtype):
    indices = np.array([0, bad])
    table, rows = np.ones((11, 3), dtype), np.ones((2, 3), dtype)
    kernels = core.kernels(dtype)
    with pytest.raises(ValueError, match=rf"indices must be in \[0, 11\), got {bad}"):
        kernels.embedding_forward(1, 2, 11, 3, indices, table, rows)
    with pytest.raises(ValueError, match=rf"indices must be in \[0, 11\), got {bad}"):
        kernels.embedding_backward(1, 2, 11, 3, indices, -2, rows, table)
    assert (table == 1).all()
    with pytest.raises(ValueError, match="rows, width >= 1"):
        kernels.embedding_forward(1, 1, 0, 3, indices[:1], table[:0], rows[:1])
