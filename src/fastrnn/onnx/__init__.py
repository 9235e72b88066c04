# SPDX-License-Identifier: BSD-3-Clause
"""Reading and writing of ONNX files (``pip install 'fastrnn[onnx]'``).

`load` makes a `Graph` of a file. Its recurrent nodes, products with constant matrices
and look-ups in constant tables become fastrnn layers, and all other operators run in
NumPy. Quantised weights become those of float32 layers. `save` writes fastrnn's layers
as standard operators, for ONNX Runtime and anything else that reads ONNX files.
"""

from fastrnn.onnx._graph import Graph
from fastrnn.onnx._load import load
from fastrnn.onnx._save import save

__all__ = ["Graph", "load", "save"]
