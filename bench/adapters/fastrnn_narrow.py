# SPDX-License-Identifier: BSD-3-Clause
"""The adapter of fastrnn's layers with narrow numbers.

The variable FASTRNN_BENCH_WAY says which: ``compute-bfloat16`` is ``compute=`` of that
name, and ``weights-int8`` or ``weights-bfloat16`` are the layer's ``quantize``.
"""

import os
from functools import partial

from bench.adapters import UnsupportedError
from bench.adapters.fastrnn import Layer, Step, peak, start, weight_bytes
from bench.case import LayerCase

__all__ = ["CASES", "peak", "start", "variants", "weight_bytes"]

CASES = (LayerCase,)


def variants(case, dtype):
    what, _, name = os.environ["FASTRNN_BENCH_WAY"].partition("-")
    if what == "weights" and case.direction == "train":
        raise UnsupportedError("such weights are for inference")
    make = partial(Step if case.direction == "step" else Layer, case, dtype)
    call = "quantize" if what == "weights" else "compute"
    return {f"{call} {name}": partial(_made, make, **{what: name})}


def _made(make, **narrow):
    """A side, or UnsupportedError where fastrnn refuses what is asked for."""
    try:
        return make(**narrow)
    except ValueError as error:
        raise UnsupportedError(str(error)) from None
