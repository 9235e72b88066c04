# SPDX-License-Identifier: BSD-3-Clause
"""The adapter of ONNX Runtime's ``quantize_dynamic``: weights of int8, a scale a row.

It makes an LSTM a ``DynamicQuantizeLSTM``, and leaves a GRU or RNN in float32.
"""

import contextlib
import logging
import tempfile
from functools import partial
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from bench.adapters import UnsupportedError
from bench.adapters.onnxruntime import sides_of, start, weight_bytes
from bench.case import LayerCase

__all__ = ["CASES", "start", "variants", "weight_bytes"]

CASES = (LayerCase,)
TYPES = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}


def variants(case, dtype):
    if case.direction == "train":
        raise UnsupportedError("the onnxruntime package does inference only")
    if case.cell != "lstm":
        raise UnsupportedError(f"it has no operator of int8 for the cell {case.cell}")
    return {
        f"{way}, {name}": make
        for name, kind in TYPES.items()
        for way, make in sides_of(case, dtype, partial(_quantized, kind)).items()
    }


@contextlib.contextmanager
def _silent():
    """A context without the advice to prepare a model of one node."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def _quantized(kind, model):
    """What ``quantize_dynamic`` makes of a model."""
    with tempfile.TemporaryDirectory() as folder, _silent():
        file = Path(folder) / "quantized.onnx"
        quantize_dynamic(model, file, per_channel=True, weight_type=kind)
        return onnx.load(file)
