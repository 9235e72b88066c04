# SPDX-License-Identifier: BSD-3-Clause
"""pytest-benchmark of whole layers, checked against PyTorch first.

One process times one library here, and nothing is interleaved: for ratios, use
``python -m bench``.
"""

import pytest

from bench import cases, charmodel, layers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "case", cases.cases(shapes=cases.QUICK_SHAPES), ids=lambda case: case.id
)
def test_layer(benchmark, case, dtype):
    sides = layers.pair(case, dtype)
    results = {name: side.results() for name, side in sides.items()}
    layers.check(results["fastrnn"], results["torch"], dtype, case.id)
    benchmark(sides["fastrnn"].run)
    benchmark.extra_info["flops"] = case.flops


def test_charmodel(benchmark):
    sizes = charmodel.Sizes()
    ours = charmodel.FastModel(sizes)
    theirs = charmodel.TorchModel(sizes, ours.state_dict())
    charmodel.check({"fastrnn": ours, "torch": theirs}, sizes.id)
    benchmark(ours.run)
    benchmark.extra_info["characters"] = sizes.T * sizes.B
