# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of parameters are as near to those in double as PyTorch's.

With ``--grid``, 200 random cases of each cell (ten minutes); else three,
one of them of 65,000 rows.
"""

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

import gradient_errors

# Of a cell that PyTorch lacks: what the others are found to have at most.
LARGEST = 2e-6
FEW = [(1000, 65, 16, 24, 1, 1), (3, 1100, 5, 40, 1, 0), (41, 12, 3, 34, 0, 0)]


def assert_as_near(cell, rng, sizes):
    ours, theirs = gradient_errors.errors(cell, rng, sizes)
    limit = LARGEST if theirs is None else 1.5 * theirs
    assert ours <= limit, f"{cell} {sizes}: {ours:.2e}, and PyTorch {theirs}"


@pytest.mark.parametrize("cell", gradient_errors.CELLS)
def test_a_few(cell, rng):
    for sizes in FEW:
        assert_as_near(cell, rng, sizes)


@pytest.mark.only_grid
@pytest.mark.parametrize("seed", range(200))
@pytest.mark.parametrize("cell", gradient_errors.CELLS)
def test_random_cases(cell, seed):
    rng = np.random.default_rng(seed)
    assert_as_near(cell, rng, gradient_errors.draw(rng))
