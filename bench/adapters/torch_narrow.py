# SPDX-License-Identifier: BSD-3-Clause
"""The adapter of PyTorch's layers with narrow numbers.

The variable FASTRNN_BENCH_WAY says which: ``autocast`` to bfloat16 with parameters of
float32, ``bfloat16`` parameters and data, or ``int8`` weights by ``quantize_dynamic``,
with each of the engines that this build of PyTorch has.
"""

import os
import warnings
from functools import partial

import torch

from bench.adapters import UnsupportedError
from bench.adapters.torch import Layer, Step, start
from bench.case import LayerCase

__all__ = ["CASES", "start", "variants", "weight_bytes"]

CASES = (LayerCase,)
HALF = torch.bfloat16


def variants(case, dtype):
    way = os.environ["FASTRNN_BENCH_WAY"]
    make = partial(Step if case.direction == "step" else Layer, case, dtype)
    if way != "int8":
        return {way: partial({"autocast": _autocast, "bfloat16": _bfloat16}[way], make)}
    if case.direction == "train":
        raise UnsupportedError("such weights are for inference")
    engines = set(torch.backends.quantized.supported_engines) - {"none"}
    # The engine for ARM, which is the slowest by far wherever there is another.
    engines = engines - {"qnnpack"} or engines
    return {engine: partial(_int8, engine, make) for engine in sorted(engines)}


def weight_bytes(side):
    """The bytes of a layer's weights and biases."""
    layer, found = side.layer, [*side.layer.parameters()]
    if not found:  # a layer of int8 weights has them packed
        found = [*layer.get_weight().values(), *layer.get_bias().values()]
    return sum(value.numel() * value.element_size() for value in found)


def _autocast(make):
    """A side that runs under autocast."""
    side = make()
    layer = side.layer

    def call(*arguments):
        with torch.autocast("cpu", HALF):
            return layer(*arguments)

    side.call = call
    return _tried(side)


def _bfloat16(make):
    """A side whose parameters and data are of bfloat16."""
    side = make()
    side.layer.to(HALF)
    side.x = side.x.detach().to(HALF).requires_grad_(side.x.requires_grad)
    return _tried(side)


def _tried(side):
    """The side, with dy in the type of y; or why this processor cannot run it.

    A step is enough to try: oneDNN refuses a processor, not a length.
    """
    try:
        y, _ = side.call(side.x[:1])
        if isinstance(side, Layer):
            side.dy = side.dy.to(y.dtype)
            if side.is_training:
                y.backward(side.dy[:1])
    except RuntimeError as error:
        raise UnsupportedError(str(error).splitlines()[0]) from None
    return side


def _int8(engine, make):
    """A side whose weights are of int8, one scale for all of W and one for all of R."""
    side = make()
    torch.backends.quantized.engine = engine
    with warnings.catch_warnings():  # old, and all that PyTorch has for these layers
        warnings.simplefilter("ignore")
        whole = torch.ao.quantization.quantize_dynamic(
            torch.nn.Sequential(side.layer), {type(side.layer)}, dtype=torch.qint8
        )
    side.layer = side.call = whole[0]
    return side
