# SPDX-License-Identifier: BSD-3-Clause
"""ONNX files in and out (``pip install 'fastrnn[onnx]'``).

`load` makes a `Graph` of a file: its recurrent nodes, products with constant matrices
and table look-ups are fastrnn layers, other operators run in NumPy. `save` writes our
layers as standard operators, for ONNX Runtime and anything else that reads them.
"""

from fastrnn.onnx._graph import Graph
from fastrnn.onnx._load import load
from fastrnn.onnx._save import save

__all__ = ["Graph", "load", "save"]
