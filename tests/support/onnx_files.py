# SPDX-License-Identifier: BSD-3-Clause
"""ONNX files with one recurrent node, and ONNX Runtime to run them."""

import numpy as np
import onnx
import onnxruntime

GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
T, B, I, H = 5, 4, 3, 6


def run(path, inputs):
    """What ONNX Runtime makes of a file, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def node_model(rng, op, *, given=(), dtype="float32", constants=None, **attributes):
    """A model of one recurrent node, and inputs for it.

    Parameters
    ----------
    given : iterable of {"B", "lengths", "h0", "c0", "P"}
        Optional inputs that the node has.
    constants : dict, optional
        Weights instead of random ones: W, R, B, P.
    """
    G, D = GATES[op], 2 if attributes.get("direction") == "bidirectional" else 1
    layout = attributes.get("layout", 0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    def by_layout(array):
        return np.ascontiguousarray(array.swapaxes(0, 1)) if layout else array

    weights = {"W": normal(D, G * H, I), "R": normal(D, G * H, H)}
    if "B" in given:
        weights["B"] = normal(D, 2 * G * H)
    if "P" in given:
        weights["P"] = normal(D, 3 * H)
    weights |= constants or {}
    inputs = {"X": by_layout(normal(T, B, I))}
    if "lengths" in given:
        inputs["lengths"] = np.array([3, 5, 1, 3], np.int32)
    for name in ("h0", "c0"):
        if name in given:
            inputs[name] = by_layout(normal(D, B, H))
    names = ["X", "W", "R", "B", "lengths", "h0", "c0", "P"]
    present = {"X", "W", "R", *given}
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]
    attributes.setdefault("hidden_size", H)
    helper = onnx.helper
    node = helper.make_node(
        op,
        [name if name in present else "" for name in names[: 8 if op == "LSTM" else 6]],
        outputs,
        name="cell",
        **attributes,
    )
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [onnx.numpy_helper.from_array(a, name) for name, a in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return onnx.shape_inference.infer_shapes(model), inputs
