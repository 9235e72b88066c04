# SPDX-License-Identifier: BSD-3-Clause
"""Every operator of the interpreter against ONNX Runtime, in old and new forms."""

import numpy as np
import pytest
from arrays import ints

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip(
    "onnxruntime", reason="onnxruntime, the judge, is not installed"
)

import fastrnn.onnx  # noqa: E402
from fastrnn.onnx._operators import OPERATORS  # noqa: E402

RNG = np.random.default_rng(3)
X = RNG.standard_normal((2, 3, 4)).astype("f")
Y = RNG.standard_normal((2, 3, 4)).astype("f")
M = RNG.standard_normal((4, 5)).astype("f")
POSITIVE = np.abs(X) + 0.5
YES, NO = X > 0, Y > 0
TENSOR = onnx.numpy_helper.from_array
SCALE = np.array([0.02, 0.5, 0.001], "f")  # the last is too small for most numbers
BYTES = RNG.integers(0, 256, (2, 3, 4)).astype("B")
SIGNED = (BYTES.astype("h") - 128).astype("b")
ZERO, ZEROS = np.uint8(130), np.array([130, 0, 255], "B")


# (operator, opset, attributes, inputs); more than one form where the opset changes it.
CASES = [
    ("Abs", 17, {}, [X]),
    ("Add", 17, {}, [X, Y[0, 0]]),
    ("And", 17, {}, [YES, NO]),
    ("ArgMax", 17, {"axis": 1}, [X]),
    ("ArgMax", 17, {"axis": -1, "keepdims": 0, "select_last_index": 1}, [X.round()]),
    ("Cast", 17, {"to": 7}, [X * 9]),
    ("Cast", 17, {"to": 11}, [X]),
    ("Ceil", 17, {}, [X]),
    ("Clip", 17, {}, [X, np.float32(-0.5), np.float32(0.25)]),
    ("Clip", 17, {}, [X, None, np.float32(0.25)]),
    ("Clip", 9, {"min": -0.5, "max": 0.25}, [X]),
    ("Concat", 17, {"axis": -1}, [X, Y, X]),
    ("Constant", 17, {"value": TENSOR(X)}, []),
    ("Constant", 17, {"value_floats": [1.0, 2.5]}, []),
    ("Constant", 17, {"value_float": 2.5}, []),
    ("Constant", 17, {"value_ints": [1, 2]}, []),
    ("Constant", 17, {"value_int": 7}, []),
    ("ConstantOfShape", 17, {}, [ints(2, 3)]),
    ("ConstantOfShape", 17, {"value": TENSOR(ints(5))}, [ints(2, 3)]),
    ("DequantizeLinear", 10, {}, [SIGNED, SCALE[0], np.int8(-3)]),
    ("DequantizeLinear", 10, {}, [BYTES, SCALE[:1].reshape(())]),
    ("DequantizeLinear", 13, {}, [BYTES, SCALE, ZEROS]),
    ("DequantizeLinear", 13, {"axis": -2}, [SIGNED, SCALE, ZEROS.view("b")]),
    ("DequantizeLinear", 13, {}, [BYTES.astype("i") * 10**6, SCALE]),
    (
        "DequantizeLinear",
        21,
        {"axis": 2, "block_size": 3},
        [BYTES, np.stack([POSITIVE[..., 0]] * 2, -1), np.full((2, 3, 2), 9, "B")],
    ),
    ("DequantizeLinear", 21, {}, [BYTES.astype("H") * 200, SCALE[0], np.uint16(9000)]),
    ("Div", 17, {}, [X, POSITIVE]),
    ("Div", 17, {}, [ints(7, -7, 7, -7), ints(2, 2, -2, -2)]),
    ("Dropout", 17, {}, [X]),
    ("Dropout", 11, {"ratio": 0.25}, [X]),
    ("DynamicQuantizeLinear", 17, {}, [X]),
    ("DynamicQuantizeLinear", 17, {}, [POSITIVE]),
    ("DynamicQuantizeLinear", 17, {}, [-POSITIVE]),
    ("DynamicQuantizeLinear", 17, {}, [0 * X]),
    ("Elu", 17, {"alpha": 0.5}, [X]),
    ("Equal", 17, {}, [X.round(), Y.round()]),
    ("Erf", 17, {}, [X]),
    ("Exp", 17, {}, [X]),
    ("Expand", 17, {}, [X[:, :1], ints(2, 3, 1)]),
    ("Flatten", 17, {}, [X]),
    ("Flatten", 17, {"axis": -1}, [X]),
    ("Flatten", 17, {"axis": 0}, [X]),
    ("Floor", 17, {}, [X]),
    ("Gather", 17, {"axis": 1}, [X, ints(2, -3, 0)]),
    ("Gather", 17, {"axis": -1}, [X, np.array(1)]),
    ("Gelu", 20, {}, [X * 3]),
    ("Gelu", 20, {"approximate": "tanh"}, [X * 3]),
    ("Gemm", 17, {"alpha": 0.5, "beta": 2.0}, [X[0], M, M[0]]),
    ("Gemm", 17, {"transA": 1, "transB": 1}, [X[0].T.copy(), M.T.copy()]),
    ("Greater", 17, {}, [X, Y]),
    ("GreaterOrEqual", 17, {}, [X.round(), Y.round()]),
    ("HardSigmoid", 17, {}, [X * 4]),
    ("HardSigmoid", 17, {"alpha": 0.3, "beta": 0.4}, [X * 4]),
    ("Identity", 17, {}, [X]),
    ("LayerNormalization", 17, {}, [X, M[:, 0]]),
    ("LayerNormalization", 17, {"axis": 1, "epsilon": 0.1}, [X, X[0], Y[0]]),
    ("LeakyRelu", 17, {"alpha": 0.2}, [X]),
    ("Less", 17, {}, [X, Y]),
    ("LessOrEqual", 17, {}, [X.round(), Y.round()]),
    ("Log", 17, {}, [POSITIVE]),
    ("LogSoftmax", 17, {"axis": 1}, [X]),
    ("LogSoftmax", 11, {}, [X]),
    ("MatMul", 17, {}, [X, M]),
    ("MatMulInteger", 17, {}, [BYTES, SIGNED[0].T.copy(), ZERO]),
    ("MatMulInteger", 17, {}, [BYTES, BYTES[0].T.copy(), ZERO, ZEROS]),
    ("MatMulInteger", 17, {}, [BYTES[0], SIGNED[0].T.copy()]),
    ("Max", 17, {}, [X, Y, M[0, 0]]),
    ("Min", 17, {}, [X, Y]),
    ("Mul", 17, {}, [X, Y]),
    ("Neg", 17, {}, [X]),
    ("Not", 17, {}, [YES]),
    ("Or", 17, {}, [YES, NO]),
    ("Pow", 17, {}, [POSITIVE, np.float32(1.5)]),
    ("Pow", 17, {}, [X, np.int64(2)]),
    ("QuantizeLinear", 10, {}, [X, SCALE[0], ZERO]),
    ("QuantizeLinear", 10, {}, [X, SCALE[0], np.int8(-3)]),
    ("QuantizeLinear", 13, {}, [X, SCALE[1]]),
    ("QuantizeLinear", 13, {"axis": 1}, [X, SCALE, ZEROS]),
    ("QuantizeLinear", 13, {}, [ints(1, 3, 5, 7).astype("f"), np.float32(2)]),
    ("QuantizeLinear", 21, {}, [X, SCALE[2], np.uint16(9000)]),
    ("QuantizeLinear", 21, {"output_dtype": 3}, [X, SCALE[0]]),
    (
        "QuantizeLinear",
        21,
        {"axis": 2, "block_size": 2},
        [X, np.full((2, 3, 2), 0.02, "f"), np.full((2, 3, 2), 130, "B")],
    ),
    ("Range", 17, {}, [np.int64(2), np.int64(9), np.int64(3)]),
    ("Reciprocal", 17, {}, [POSITIVE]),
    ("ReduceMax", 17, {"axes": [1]}, [X]),
    ("ReduceMean", 17, {"axes": [0, -1], "keepdims": 0}, [X]),
    ("ReduceMean", 18, {}, [X, ints(1)]),
    ("ReduceMin", 17, {"axes": [2]}, [X]),
    ("ReduceSum", 17, {}, [X]),
    ("ReduceSum", 17, {"noop_with_empty_axes": 1}, [X, ints()]),
    ("ReduceSum", 17, {"keepdims": 0}, [X, ints(0, 2)]),
    ("Relu", 17, {}, [X]),
    ("Reshape", 17, {}, [X, ints(0, -1)]),
    ("Reshape", 17, {"allowzero": 1}, [X[:0], ints(0, 3)]),
    ("ReverseSequence", 17, {}, [X, ints(2, 1, 0)]),
    ("ReverseSequence", 17, {"batch_axis": 0, "time_axis": 1}, [X, ints(3, 2)]),
    ("Selu", 17, {}, [X]),
    ("Selu", 17, {"alpha": 0.5, "gamma": 2.0}, [X]),
    ("Shape", 17, {}, [X]),
    ("Shape", 17, {"start": 1, "end": -1}, [X]),
    ("Sigmoid", 17, {}, [X * 100]),
    ("Sign", 17, {}, [X.round()]),
    ("Size", 17, {}, [X]),
    ("Slice", 17, {}, [X, ints(1, 0), ints(99, -1), ints(1, 2)]),
    ("Slice", 17, {}, [X, ints(-1), ints(-(2**62)), ints(2), ints(-2)]),
    ("Slice", 17, {}, [X, ints(1), ints(2)]),
    ("Slice", 9, {"starts": [1], "ends": [3], "axes": [2]}, [X]),
    ("Softmax", 17, {"axis": 1}, [X * 50]),
    ("Softmax", 11, {"axis": 1}, [X]),
    ("Softplus", 17, {}, [X * 50]),
    ("Softsign", 17, {}, [X]),
    ("Split", 17, {"axis": 2}, [X, ints(1, 3)]),
    ("Split", 11, {"axis": 2, "split": [1, 3]}, [X]),
    ("Split", 11, {"axis": 2}, [X]),
    ("Sqrt", 17, {}, [POSITIVE]),
    ("Squeeze", 17, {}, [X[:1, :, :1], ints(0, -1)]),
    ("Squeeze", 17, {}, [X[:1, :, :1]]),
    ("Squeeze", 11, {"axes": [0]}, [X[:1]]),
    ("Sub", 17, {}, [X, Y]),
    ("Sum", 17, {}, [X, Y, X]),
    ("Tanh", 17, {}, [X]),
    ("ThresholdedRelu", 17, {}, [X]),
    ("ThresholdedRelu", 17, {"alpha": 0.25}, [X]),
    ("Tile", 17, {}, [X, ints(1, 2, 3)]),
    ("Transpose", 17, {}, [X]),
    ("Transpose", 17, {"perm": [1, 2, 0]}, [X]),
    ("Unsqueeze", 17, {}, [X, ints(0, -1)]),
    ("Unsqueeze", 11, {"axes": [1]}, [X]),
    ("Where", 17, {}, [YES, X, Y]),
]
OUTPUTS = {
    "Dropout": 2,
    "DynamicQuantizeLinear": 3,
    "LayerNormalization": 3,
    "Split": 2,
}


def write(path, op, opset, attributes, arrays):
    helper = onnx.helper
    names = ["" if array is None else f"in{k}" for k, array in enumerate(arrays)]
    outputs = [f"out{k}" for k in range(OUTPUTS.get(op, 1))]
    inputs = {
        name: np.asarray(a) for name, a in zip(names, arrays, strict=True) if name
    }
    graph = helper.make_graph(
        [helper.make_node(op, names, outputs, **attributes)],
        "one",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return inputs


@pytest.mark.parametrize(
    ("op", "opset", "attributes", "arrays"),
    CASES,
    ids=[f"{k}-{case[0]}" for k, case in enumerate(CASES)],
)
def test_operator(tmp_path, op, opset, attributes, arrays):
    path = tmp_path / "one.onnx"
    inputs = write(path, op, opset, attributes, arrays)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = session.run(None, inputs)
    found = fastrnn.onnx.load(path)(**inputs)
    found = found if isinstance(found, tuple) else (found,)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        # Two libraries' exponentials and sums of at most 24 terms of this size.
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_every_operator_has_a_case():
    assert {case[0] for case in CASES} == set(OPERATORS)


def test_inputs_that_do_not_fit(tmp_path):
    path = tmp_path / "one.onnx"
    write(path, "MatMul", 17, {}, [X, M])
    model = fastrnn.onnx.load(path)
    with pytest.raises(ValueError, match=r"Graph: in1 must have shape \(4, 5\), got"):
        model(X, M.T)
    with pytest.raises(TypeError, match="inputs must be in0, in1, got in0"):
        model(X)
    with pytest.raises(TypeError, match="inputs must be in0, in1, each once"):
        model(X, M, in1=M)


def test_an_operator_that_fails_says_where(tmp_path):
    path = tmp_path / "one.onnx"
    inputs = write(path, "Reshape", 17, {}, [X, ints(5, 5)])
    with pytest.raises(ValueError, match=r"Reshape.*shapes \(2, 3, 4\), \(2,\) do not"):
        fastrnn.onnx.load(path)(**inputs)
