# SPDX-License-Identifier: BSD-3-Clause
"""ONNX files of quantised models, and the floats that their integers stand for."""

import numpy as np
import onnx

node = onnx.helper.make_node
MICROSOFT = "com.microsoft"


class Weights:
    """Random integers with scales and zero points, as initialisers of a graph.

    Attributes
    ----------
    floats : dict of str to ndarray
        What each tensor of integers stands for, from products in float64.
    """

    def __init__(self, rng):
        self.rng, self.arrays, self.floats = rng, {}, {}

    def add(self, name, shape, dtype, of=()):
        """Integers of a shape, with scales of the shape `of`; the names of all three.

        Integers have seven bits: ONNX Runtime's sums of eight saturate on some
        processors.
        """
        signed = dtype.startswith("int")
        low, high = (-64, 64) if signed else (100, 228)
        q = self.rng.integers(low, high, shape).astype(dtype)
        scale = self.rng.uniform(0.002, 0.008, of).astype("f")
        zero = np.full(of, 0 if signed else 161, dtype)
        names = name, f"{name}_scale", f"{name}_zero_point"
        self.arrays |= dict(zip(names, (q, scale, zero), strict=True))
        full = scale.astype(float), zero.astype(float)
        if q.ndim == 3:  # scales are of directions, or of their columns
            full = [v.reshape(len(q), 1, -1) for v in full]
        self.floats[name] = ((q.astype(float) - full[1]) * full[0]).astype("f")
        return names


def model(nodes, arrays, *, x=("N", "T"), x_type=7, outputs=("y",), opset=17):
    """A model from x, of integers unless told otherwise, to y."""
    helper = onnx.helper
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", x_type, x)],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(a), k) for k, a in arrays.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def tagger(seed=0, per_column=True):
    """A quantised model with every operator of integers that `load` knows.

    A table, an LSTM in both directions and two products, as ONNX Runtime's quantizer
    leaves them. The second product is in the form of its optimiser.

    Returns
    -------
    ModelProto, dict
        The dictionary has the floats that the weights stand for, by their names.
    """
    w, H, F = Weights(np.random.default_rng(seed)), 5, 7
    table = w.add("table", (11, 4), "uint8")
    W = w.add("W", (2, 4, 4 * H), "int8", (2, 4 * H) if per_column else (2,))
    R = w.add("R", (2, H, 4 * H), "int8", (2, 4 * H) if per_column else (2,))
    A = w.add("A", (2 * H, F), "int8", (F,) if per_column else ())
    C = w.add("C", (F, 3), "uint8")
    w.arrays |= {
        "B": w.rng.standard_normal((2, 8 * H)).astype("f"),
        "a": w.rng.standard_normal(F).astype("f"),
        "c": w.rng.standard_normal(3).astype("f"),
        "merged": np.array([0, 0, 2 * H]),
        "y_scale": np.float32(0.02),
        "y_zero": np.uint8(0),  # all numbers below 0 become 0
    }
    nodes = [
        node("Gather", [table[0], "x"], ["g"], name="table_quant"),
        node("Transpose", ["g"], ["t"], perm=[1, 0, 2]),
        node("DequantizeLinear", ["t", *table[1:]], ["f"]),
        node(
            "DynamicQuantizeLSTM",
            ["f", W[0], R[0], "B", "", "", "", "", *W[1:], *R[1:]],
            ["h"],
            name="cell_quant",
            domain=MICROSOFT,
            direction="bidirectional",
            hidden_size=H,
        ),
        node("Transpose", ["h"], ["h1"], perm=[2, 0, 1, 3]),
        node("Reshape", ["h1", "merged"], ["h2"]),
        node("DynamicQuantizeLinear", ["h2"], ["q", "q_scale", "q_zero"]),
        node("Mul", ["q_scale", A[1]], ["scales"]),
        node("MatMulInteger", ["q", A[0], "q_zero", A[2]], ["i"], name="first_quant"),
        node("Cast", ["i"], ["i1"], to=1),
        node("Mul", ["i1", "scales"], ["p"]),
        node("Add", ["p", "a"], ["p1"]),
        node("QuantizeLinear", ["p1", "y_scale", "y_zero"], ["r"]),
        node("DequantizeLinear", ["r", "y_scale", "y_zero"], ["r1"]),
        node(
            "DynamicQuantizeMatMul",
            ["r1", *C, "c"],
            ["y"],
            name="second",
            domain=MICROSOFT,
        ),
    ]
    return model(nodes, w.arrays), w.floats
