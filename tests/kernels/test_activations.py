# SPDX-License-Identifier: BSD-3-Clause
"""csrc/kernels/activations.h: error in ULP, special values, same bits on FMA targets.

By default one float32 of 1009 is tried, and one of 37 where the functions bend; with
FASTRNN_EXHAUSTIVE=1 every one of the 2^32 (ten minutes; -s shows the largest errors).
"""

import os
import platform

import numpy as np
import pytest
from tolerances import activation_ulp

from fastrnn.native import core

NAMES = ("sigmoid", "tanh")
EXHAUSTIVE = os.environ.get("FASTRNN_EXHAUSTIVE") == "1"
# Odd strides reach every low bit pattern in every binade.
STRIDE, FINE_STRIDE = 1009, 37
# Magnitudes between which neither function is its argument, 1/2, 0 or 1.
FINE = (np.float32(2.0**-13), np.float32(2.0**7))
CHUNK = 2**22

has_fma = pytest.mark.skipif(
    not {"x86_v3", "x86_v4"} <= set(core.SUPPORTED),
    reason="needs a processor with both FMA targets of x86-64",
)


def activate(name, x):
    y = np.full_like(x, 7)
    core.kernels(x.dtype.name).activation(name, x, y)
    return y


def exact(name, x):
    """In the next wider type, where its own rounding does not count."""
    wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    if name == "tanh":
        return np.tanh(wide)
    with np.errstate(over="ignore"):  # exp(-x) = inf gives the right 0
        return 1 / (1 + np.exp(-wide))


def fuses(isa):
    """Whether the target has a fused multiply-add."""
    return isa != "baseline" or platform.machine() in ("aarch64", "arm64")


def worst_ulp(isa, got, want):
    """Largest error in units of the last place, over the results that are not tiny.

    Tiny: subnormal results are flushed to zero.  Without FMA a product on the way is
    flushed already when the result is smaller than 1 / eps times the smallest normal
    number.  Tiny results must be right to that smallest normal number.
    """
    info = np.finfo(got.dtype)
    tiny = np.abs(want) < (info.tiny if fuses(isa) else info.tiny / info.eps)
    error = np.abs(got - want)
    assert (error[tiny] <= info.tiny).all()
    ulp = np.spacing(np.abs(want[~tiny]).astype(got.dtype))
    return float(np.max(error[~tiny] / ulp, initial=0))


def assert_limits(name, x, y):
    """Nothing is outside the limits, and far from zero they are reached exactly."""
    low, saturates = {"sigmoid": (0, 20), "tanh": (-1, 10)}[name]
    assert ((low <= y) & (y <= 1)).all()
    assert (y[x > saturates] == 1).all()
    assert (y[x < {"sigmoid": -104, "tanh": -10}[name]] == low).all()


def float32_chunks():
    """Bit patterns of the finite float32 numbers, positive and negative."""
    end = int(np.float32(np.inf).view(np.uint32))
    low, high = (int(bound.view(np.uint32)) for bound in FINE)
    patterns = [np.arange(0, end, STRIDE), np.arange(low, high, FINE_STRIDE)]
    if EXHAUSTIVE:
        patterns = (np.arange(i, min(i + CHUNK, end)) for i in range(0, end, CHUNK))
    for pattern in patterns:
        x = pattern.astype(np.uint32).view(np.float32)
        yield x
        yield -x


def float64_samples():
    """The interesting range densely, and every exponent."""
    rng = np.random.default_rng(5)
    mantissa = 1 + rng.random(400_000)
    wide = np.ldexp(mantissa, rng.integers(-1022, 1024, mantissa.size))
    narrow = np.ldexp(mantissa, rng.integers(-20, 7, mantissa.size))
    return np.concatenate([wide, -wide, narrow, -narrow, np.linspace(-40, 40, 400_001)])


@pytest.mark.parametrize("name", NAMES)
def test_every_float32_within_the_promised_ulp(name):
    """All targets in one pass: the exact values take longer than the kernels."""
    worst = dict.fromkeys(core.SUPPORTED, 0.0)
    for x in float32_chunks():
        want = exact(name, x)
        results = {}
        for isa in core.SUPPORTED:
            with core.use_isa(isa):
                y = results[isa] = activate(name, x)
            worst[isa] = max(worst[isa], worst_ulp(isa, y, want))
            assert_limits(name, x, y)
        if {"x86_v3", "x86_v4"} <= results.keys():
            v3, v4 = (results[i].view(np.uint32) for i in ("x86_v3", "x86_v4"))
            np.testing.assert_array_equal(v3, v4)
    print(f"worst error of float32 {name} in ULP: {worst}")
    for isa, ulp in worst.items():
        assert 0.5 < ulp <= activation_ulp("float32", fuses(isa)), worst


@pytest.mark.skipif(
    np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps,
    reason="this platform's long double is no wider than float64",
)
@pytest.mark.parametrize("name", NAMES)
def test_float64_within_the_promised_ulp(isa, name):
    x = float64_samples()
    want = exact(name, x)
    ulp = worst_ulp(isa, activate(name, x), want)
    assert 0.5 < ulp <= activation_ulp("float64", fuses(isa))


@has_fma
@pytest.mark.parametrize("name", NAMES)
def test_float64_has_the_same_bits_on_fma_targets(name):
    x = float64_samples()
    results = []
    for isa in ("x86_v3", "x86_v4"):
        with core.use_isa(isa):
            results.append(activate(name, x).view(np.uint64))
    np.testing.assert_array_equal(*results)


def test_special_values(isa, dtype):
    """In every lane: the limits at infinity, NaN, and both zeros."""
    lanes = core.kernels(dtype).lanes
    largest = np.finfo(dtype).max
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, largest, -largest], dtype)
    x = np.repeat(x, 2 * lanes + 1)
    want = {
        "sigmoid": [1, 0, np.nan, 0.5, 0.5, 1, 0],
        "tanh": [1, -1, np.nan, 0.0, -0.0, 1, -1],
    }
    for name, values in want.items():
        y = activate(name, x)
        expected = np.repeat(np.array(values, dtype), 2 * lanes + 1)
        np.testing.assert_array_equal(y, expected)
        is_number = ~np.isnan(expected)
        np.testing.assert_array_equal(
            np.signbit(y[is_number]), np.signbit(expected[is_number])
        )


def test_results_do_not_depend_on_position(isa, dtype, rng):
    """A number gives the same bits in a full vector, in a remainder, and alone."""
    x = rng.normal(scale=4, size=3 * core.kernels(dtype).lanes + 1).astype(dtype)
    for name in NAMES:
        whole = activate(name, x)
        alone = np.concatenate([activate(name, x[k : k + 1]) for k in range(x.size)])
        np.testing.assert_array_equal(whole, alone)


def test_tanh_is_odd(isa, dtype, rng):
    x = rng.normal(scale=3, size=1001).astype(dtype)
    np.testing.assert_array_equal(activate("tanh", -x), -activate("tanh", x))
