# SPDX-License-Identifier: BSD-3-Clause
"""The judge is judged: reference and gradcheck find the faults they are there for."""

import cells
import gradcheck
import numpy as np
import pytest
import reference
import tolerances

from fastrnn.native import celltable


@pytest.mark.parametrize("cell", cells.CELLS)
@pytest.mark.parametrize("stack", [{}, *cells.STACKS.values()], ids=str)
def test_central_differences_agree_with_the_complex_step(cell, stack):
    case = cells.Case(cell, 3, 2, 3, 4, **stack)
    arrays = cells.inputs(case)
    second = gradcheck.central_differences(cells.loss(case), arrays, arrays)
    for name, want in cells.expected_gradients(case).items():
        gradcheck.assert_close(name, second[name], want, tolerances.CENTRAL_RTOL)


@pytest.mark.parametrize("cell", cells.CELLS)
def test_one_entry_wrong_by_one_per_cent_fails(cell, dtype):
    case = cells.Case(cell, 5, 3, 17, 19)
    tolerance = case.tolerance(dtype, backward=True)
    for name, want in cells.expected_gradients(case).items():
        wrong = want.copy()
        if name == "h0" and celltable.cell(cell).skips:
            assert not want.any()  # no step reads the h of the step before
            continue
        # The entry of median size: neither the easiest nor a zero of relu.
        alive = np.flatnonzero(want)
        order = alive[np.argsort(np.abs(want.flat[alive]))]
        wrong.flat[order[len(order) // 2]] *= 1.01
        gradcheck.assert_close(name, want, want, tolerance)
        with pytest.raises(AssertionError, match="off by"):
            gradcheck.assert_close(name, wrong, want, tolerance)


@pytest.mark.parametrize("cell", cells.CELLS)
@pytest.mark.parametrize("names", [("W", "b_ih"), ("R", "b_hh")], ids="-".join)
def test_weights_that_miss_the_first_step_fail(cell, names, dtype):
    """The off-by-one of a backward loop that ends at t = 1 instead of t = 0."""
    case = cells.Case(cell, 5, 3, 4, 5)
    d = cells.data(case)
    weights = cells.by_letter(cell, d.parameters)
    names = tuple(name for name in names if name in weights) or ("P",)
    if names[0] not in weights:
        assert celltable.cell(cell).is_scan  # neither R nor vectors: nothing to miss
        return

    def loss(arrays):
        start = tuple(part[0] for part in d.start)
        y0, state = reference.direction_forward(cell, d.x[:1], start, weights)
        y, state = reference.direction_forward(cell, d.x[1:], state, arrays)
        total = (y * d.dy[1:]).sum(axis=(-3, -2, -1)) + (y0 * d.dy[:1]).sum()
        for part, d_part in zip(state, d.d_end, strict=True):
            total = total + (part * d_part[0]).sum(axis=(-2, -1))
        return total

    wrong = gradcheck.complex_step(loss, weights, names)
    want = cells.expected_gradients(case)
    torch_names = dict(zip(weights, d.parameters, strict=True))
    tolerance = case.tolerance(dtype, backward=True)
    for name in names:
        with pytest.raises(AssertionError, match="off by"):
            gradcheck.assert_close(
                name, wrong[name], want[torch_names[name]], tolerance
            )


@pytest.mark.parametrize("cell", cells.CELLS)
def test_data_gradient_shifted_by_one_step_fails(cell, dtype):
    case = cells.Case(cell, 5, 3, 4, 5)
    want = cells.expected_gradients(case)["x"]
    with pytest.raises(AssertionError, match="off by"):
        gradcheck.assert_close(
            "x", np.roll(want, 1, axis=0), want, case.tolerance(dtype, backward=True)
        )


def test_nan_and_wrong_shape_fail():
    want = np.ones(3)
    with pytest.raises(AssertionError, match="not finite"):
        gradcheck.assert_close("x", np.array([1, np.nan, 1]), want, 1e-3)
    with pytest.raises(AssertionError, match="shape"):
        gradcheck.assert_close("x", np.ones((3, 1)), want, 1e-3)
