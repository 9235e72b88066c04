# SPDX-License-Identifier: BSD-3-Clause
"""Numeric derivatives of a scalar function, and the comparison with what a kernel says.

A *function* here takes a dict of arrays, any of which may carry one extra leading axis
of n perturbed copies, and gives n numbers.  There is no hand-written backward in this
file or anywhere in the tests: two copies of one misreading would agree with each other.
"""

import numpy as np
from tolerances import CENTRAL_STEP

# So small that its square vanishes beside it: the imaginary part of f(x + i s) is
# s f'(x) with no difference taken, hence nothing cancels and nothing is truncated.
COMPLEX_STEP = 1e-30

# Perturbed copies are made this many elements at a time: 16 MB of complex128.
CHUNK = 2**20


def perturbed_values(function, arrays, name, step):
    """`function` with each entry of ``arrays[name]`` moved by `step` in its turn."""
    array = arrays[name]
    n_copies = max(1, CHUNK // array.size)
    values = []
    for start in range(0, array.size, n_copies):
        entries = np.arange(start, min(start + n_copies, array.size))
        copies = np.tile(array.reshape(-1) + 0 * step, (len(entries), 1))
        copies[np.arange(len(entries)), entries] += step
        moved = {**arrays, name: copies.reshape(len(entries), *array.shape)}
        values.append(function(moved))
    return np.concatenate(values).reshape(array.shape)


def complex_step(function, arrays, names):
    """Gradient of `function` with respect to each of `names`, exact to rounding."""
    step = COMPLEX_STEP * 1j
    return {
        name: perturbed_values(function, arrays, name, step).imag / COMPLEX_STEP
        for name in names
    }


def central_differences(function, arrays, names, step=CENTRAL_STEP):
    """The second opinion: needs no complex arithmetic, good to about 1e-9."""
    return {
        name: (
            perturbed_values(function, arrays, name, step)
            - perturbed_values(function, arrays, name, -step)
        )
        / (2 * step)
        for name in names
    }


def assert_close(what, got, want, tolerance, scale=None):
    """Fail when any entry differs by more than `tolerance` times `scale`.

    `scale` is the size of the terms that the entries are sums of: the largest entry,
    unless the caller knows better.
    """
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, not {want.shape}"
    assert np.isfinite(got).all(), f"{what}: not finite: {got}"
    difference = np.abs(got.astype(np.float64) - want)
    allowed = tolerance * (np.abs(want).max() if scale is None else scale)
    worst = np.unravel_index(np.argmax(difference), difference.shape)
    assert difference[worst] <= allowed, (
        f"{what}[{', '.join(map(str, worst))}] is {got[worst]!r}, not {want[worst]!r}: "
        f"off by {difference[worst]:.3g}, allowed {allowed:.3g}"
    )
