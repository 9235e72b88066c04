# SPDX-License-Identifier: BSD-3-Clause
"""pytest-benchmark of the parts of the kernels: FMA peak and activations."""

import numpy as np
import pytest

from bench import machine
from fastrnn.native import core

# Input and output of float32 take 128 KB together. They stay in the L2 cache, as the
# data of activations inside a recurrent layer do.
N = 16384


@pytest.mark.parametrize("isa", core.SUPPORTED)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fma_peak(benchmark, isa, dtype):
    with core.use_isa(isa):
        kernels = core.kernels(dtype)
        operations = kernels.fma_peak(1, machine.PEAK_ROUNDS)
        benchmark(kernels.fma_peak, 1, machine.PEAK_ROUNDS)
    benchmark.extra_info["flops"] = operations


@pytest.mark.parametrize("isa", core.SUPPORTED)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("which", "name"), [(0, "sigmoid"), (1, "tanh")])
def test_activation(benchmark, isa, dtype, which, name):
    x = np.linspace(-6, 6, N, dtype=dtype)
    y = np.empty_like(x)
    with core.use_isa(isa):
        benchmark(core.kernels(dtype).activation, which, x, y)
    expected = np.tanh(x) if name == "tanh" else 1 / (1 + np.exp(-x))
    assert np.allclose(y, expected, rtol=1e-5)
    benchmark.extra_info["elements"] = N
