# SPDX-License-Identifier: BSD-3-Clause
"""The adapter of fastrnn's layers with narrow numbers.

The variable FASTRNN_BENCH_WAY says which: ``compute-bfloat16`` is ``compute=`` of that
name, and ``weights-int8`` or ``weights-bfloat16`` are the layer's ``quantize``.
"""

import os

from bench.adapters import UnsupportedError
from bench.adapters.fastrnn import Layer, Step, peak, start, weight_bytes
from bench.case import LayerCase

__all__ = ["CASES", "peak", "start", "variants", "weight_bytes"]

CASES = (LayerCase,)


def variants(case, dtype):
    what, _, name = os.environ["FASTRNN_BENCH_WAY"].partition("-")
    if what == "weights" and case.direction == "train":
        raise UnsupportedError("such weights are for inference")
    side = Step if case.direction == "step" else Layer
    if what == "weights":
        return {f'quantize("{name}")': lambda: side(case, dtype, weights=name)}
    return {f'compute="{name}"': lambda: side(case, dtype, compute=name)}
