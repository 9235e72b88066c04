# SPDX-License-Identifier: BSD-3-Clause
"""pytest-benchmark of whole layers and a model, checked against PyTorch first.

Only fastrnn is timed here. ``python -m bench`` times several libraries in turns, which
ratios of times need.
"""

import pytest

from bench import cases, models, verify
from bench.adapters import fastrnn, torch
from bench.case import ModelCase


def only_side(adapter, case, dtype):
    (make,) = adapter.variants(case, dtype).values()
    return make()


def checked(case, dtype):
    ours = only_side(fastrnn, case, dtype)
    if isinstance(case, ModelCase) or case.cell in torch.CLASSES:
        theirs = only_side(torch, case, dtype)
        verify.compare(theirs.results(), "torch", ours.results(), case, dtype)
    return ours


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "case",
    cases.grid(directions=("forward", "train"), shapes=cases.QUICK_SHAPES),
    ids=lambda case: case.id,
)
def test_layer(benchmark, case, dtype):
    benchmark(checked(case, dtype).run)
    benchmark.extra_info["flops"] = case.flops


def test_model(benchmark):
    case = ModelCase(models.by_name("char-H128"))
    benchmark(checked(case, "float32").run)
    benchmark.extra_info["tokens"] = case.model.items
