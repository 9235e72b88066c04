# SPDX-License-Identifier: BSD-3-Clause
"""Quantised ONNX files whose weights or scales do not fit: refused, in bounds."""

import time

import numpy as np
import pytest
from damaged_files import refused

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

from quantized_onnx import MICROSOFT, model, node, tagger  # noqa: E402

import fastrnn.onnx  # noqa: E402


def refused_by(path, proto, who, message):
    """Reading a model is refused by a node."""
    onnx.save(proto, path)
    text = refused(path, message, fastrnn.onnx.load)
    assert text.startswith(f"fastrnn.onnx.load: {path}: node {who}")


def changed(**arrays):
    """The model of `tagger` with other arrays, and its LSTM."""
    proto, _ = tagger(per_column=False)
    for one in proto.graph.initializer:
        if one.name in arrays:
            array = np.asarray(arrays[one.name])
            one.CopyFrom(onnx.numpy_helper.from_array(array, one.name))
    (cell,) = (n for n in proto.graph.node if n.op_type == "DynamicQuantizeLSTM")
    return proto, cell


BYTES, FLOATS = np.ones(2, "int8"), np.ones(2, "f")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (
            "W_scale",
            FLOATS[:1],
            r"W must be float32 of shape \(2,\) or \(2, 20\), got ",
        ),
        ("W_scale", np.float32(1), r"scale of W must .* got float32 of shape \(\)"),
        ("R_scale", np.ones((2, 19), "f"), r"scale of R must .* shape \(2, 19\)"),
        ("R_scale", np.ones((2, 2, 20), "f"), r"scale of R must .* \(2, 2, 20\)"),
        ("W_scale", np.ones(2), "scale of W must be float32 .* got float64"),
        ("W_scale", FLOATS * np.nan, "scale of W must be finite and >= 0, got nan"),
        ("R_scale", FLOATS * np.inf, "scale of R must be finite and >= 0, got inf"),
        ("R_scale", -FLOATS, r"scale of R must be finite and >= 0, got -1\.0"),
        ("W_zero_point", BYTES.astype("B"), "point of W must be int8 .* got uint8"),
        ("R_zero_point", BYTES[:1], r"zero point of R must be .* shape \(1,\)"),
        ("W", np.ones((2, 4, 20), "f"), "W must be int8 or uint8 with 3 axes, got f"),
        ("W", np.ones((4, 20), "int8"), r"W must be .* got int8 of shape \(4, 20\)"),
        ("W", np.ones((1, 4, 20), "int8"), r"W must .* \(2, 4, 20\), got \(1, 4, 20\)"),
        ("R", np.ones((2, 20, 5), "int8"), r"R must .* \(2, 5, 20\), got \(2, 20, 5\)"),
        ("B", np.ones((2, 39), "f"), r"B must have shape \(2, 40\), got \(2, 39\)"),
        ("R", np.ones((2, 0, 0), "int8"), r"R must .* \(2, 5, 20\), got \(2, 0, 0\)"),
    ],
    ids=str,
)
def test_lstms_whose_weights_do_not_fit(tmp_path, name, array, message):
    proto, _ = changed(**{name: array})
    who = "'cell_quant' (DynamicQuantizeLSTM): "
    refused_by(tmp_path / "q.onnx", proto, who, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n.input.__setitem__(8, "f"), "scale of W must be constant, got the"),
        (lambda n: n.input.__setitem__(1, "f"), "W must be constant, got the computed"),
        (lambda n: n.input.__setitem__(9, ""), "12 to 12 inputs, got 12, of which 9 "),
        (lambda n: n.input.pop(), "must have 12 to 12 inputs, got 11"),
        (lambda n: n.input.append("f"), "must have 12 to 12 inputs, got 13"),
        (lambda n: n.attribute.add(name="layout", type=2), "attributes must be among"),
        (lambda n: n.attribute.add(name="clip", type=2), "of their types"),
        (lambda n: setattr(n.attribute[1], "i", 2**62), "W must have shape"),
        (lambda n: setattr(n.attribute[1], "i", -5), r"W must .* \(2, 4, -20\), got"),
        (lambda n: setattr(n.attribute[1], "i", 0), r"W must have .* \(2, 4, 0\), got"),
        (lambda n: setattr(n.attribute[0], "s", b"both"), "W must have shape"),
        (lambda n: setattr(n, "domain", ""), "operator DynamicQuantizeLSTM is not one"),
        (lambda n: setattr(n, "op_type", "LSTM"), r"com\.microsoft\.LSTM is not one"),
        (lambda n: setattr(n, "op_type", "QGemm"), r"com\.microsoft\.QGemm is not one"),
    ],
    ids=range(14),
)
def test_lstms_that_are_none(tmp_path, change, message):
    proto, cell = changed()
    assert cell.attribute[1].name == "hidden_size"
    change(cell)
    refused_by(tmp_path / "q.onnx", proto, "'cell_quant'", message)


Q, S, Z = np.ones((4, 3), "int8"), np.ones(3, "f"), np.zeros(3, "int8")
ONE, LONG = np.ones((), "f"), np.zeros((), "int64")


@pytest.mark.parametrize(
    ("op", "attributes", "inputs", "message"),
    [
        ("DequantizeLinear", {}, [Q, S[:2]], r"have shape \(\) or \(3,\), got \(2,\)"),
        ("DequantizeLinear", {}, [Q, S, Z[:2]], r"scale's shape \(3,\), got \(2,\)"),
        ("DequantizeLinear", {}, [Q, S, S], "zero point must be int8 .* got float32"),
        ("DequantizeLinear", {}, [S, S], "be integers .* got float32 and float32"),
        ("DequantizeLinear", {}, [Q, Z], "scales floats, got int8 and int8"),
        ("DequantizeLinear", {}, [Q, S * np.nan], "be finite and >= 0, got nan"),
        ("DequantizeLinear", {"axis": 2}, [Q, S], "axis must be one of 2"),
        ("DequantizeLinear", {"axis": -3}, [Q, S], "axis must be one of 2"),
        ("DequantizeLinear", {"block_size": -1}, [Q, S], "block_size >= 0"),
        ("DequantizeLinear", {"block_size": 2}, [Q, S], r"shape \(\) or \(4, 2\)"),
        ("DequantizeLinear", {"block_size": 2**62}, [Q, S], r"\(4, 1\), of blocks of"),
        ("DequantizeLinear", {"block_size": 2**62}, ["x", S], "must be integers"),
        ("QuantizeLinear", {}, [S, ONE, LONG], "rounded to int8, .* got int64"),
        ("QuantizeLinear", {}, ["x", -ONE], r"must be finite and >= 0, got -1\.0"),
        ("QuantizeLinear", {"output_dtype": 17}, [S, ONE], "rounded to int8"),
        ("MatMulInteger", {}, [Q, Q], "do not fit"),
        ("MatMulInteger", {}, [Q, Q.T, Z], "do not fit"),
        ("DynamicQuantizeMatMul", {}, ["x", Q, S[:2]], r"scale of B must .* \(2,\)"),
        ("DynamicQuantizeMatMul", {}, ["x", Q, S, S], "zero point of B must be int8"),
        ("DynamicQuantizeMatMul", {}, ["x", Z, S], "B must be .* at least 2 axes"),
        ("DynamicQuantizeMatMul", {}, ["x", "x", S], "B must be constant, got the"),
        ("DynamicQuantizeMatMul", {}, ["x", Q, "x"], "scale of B must be constant"),
        ("MatMulIntegerToFloat", {}, [Q.T, Q, S, S], "A must have one scale"),
        ("MatMulIntegerToFloat", {}, [Q.T, Q, np.inf * ONE, S], "a_scale must be fin"),
    ],
    ids=range(24),
)
def test_integers_that_do_not_fit(tmp_path, op, attributes, inputs, message):
    arrays = {f"a{k}": a for k, a in enumerate(inputs) if not isinstance(a, str)}
    names = [a if isinstance(a, str) else f"a{k}" for k, a in enumerate(inputs)]
    domain = (
        MICROSOFT if op in ("DynamicQuantizeMatMul", "MatMulIntegerToFloat") else ""
    )
    made = node(op, names, ["y"], name="n", domain=domain, **attributes)
    proto = model([made], arrays, x=("N", 4), x_type=1, opset=21)
    path = tmp_path / "q.onnx"
    if "must be integers" in message and "x" in inputs:  # known at a call alone
        onnx.save(proto, path)
        with pytest.raises(ValueError, match=message):
            fastrnn.onnx.load(path)(np.ones((2, 4), "f"))
    else:
        refused_by(path, proto, f"'n' ({op}): ", message)


def test_one_scale_is_all_that_opset_10_has(tmp_path):
    made = node("DequantizeLinear", ["q", "s"], ["y"], name="n")
    path, x = tmp_path / "q.onnx", np.zeros((1, 1), "int64")
    refused_by(
        path,
        model([made], {"q": Q, "s": S}, opset=10),
        "'n' (DequantizeLinear): ",
        r"opset 10 has one scale, got \(3,\)",
    )
    onnx.save(model([made], {"q": Q, "s": 2 * S[:1]}, opset=10), path)
    assert np.array_equal(fastrnn.onnx.load(path)(x), 2 * Q)


def test_tensors_of_four_bits_that_are_not_whole(tmp_path):
    tensor = onnx.TensorProto(name="q", data_type=onnx.TensorProto.INT4, dims=[10**9])
    tensor.raw_data = b"1234"
    made = node("DequantizeLinear", ["q", "s"], ["y"])
    proto = model([made], {"s": ONE}, opset=21)
    proto.graph.initializer.append(tensor)
    onnx.save(proto, tmp_path / "q.onnx")
    refused(tmp_path / "q.onnx", "got 4 of 500,000,000 bytes", fastrnn.onnx.load)


def test_four_bits_need_a_package_that_knows_them(tmp_path, monkeypatch):
    """onnx 1.16 makes floats of them."""
    tensor = onnx.helper.make_tensor("q", onnx.TensorProto.INT4, [3], [1, 2, -3])
    proto = model([node("Identity", ["q"], ["y"])], {}, opset=21)
    proto.graph.initializer.append(tensor)
    onnx.save(proto, tmp_path / "q.onnx")
    assert fastrnn.onnx.load(tmp_path / "q.onnx")([[0]]).astype(int).sum() == 0
    monkeypatch.setattr(onnx.numpy_helper, "to_array", lambda one: np.ones(3, "f"))
    message = "initializer 'q': integers of four bits need onnx 1.19 or newer, got"
    refused(tmp_path / "q.onnx", message, fastrnn.onnx.load)


def test_products_of_integers_that_grow(tmp_path):
    column, row = np.ones((10**5, 1), "int8"), np.ones((1, 10**5), "int8")
    nodes = [
        node("MatMulInteger", ["c", "r"], ["made"]),
        node("Cast", ["x"], ["i"], to=6),
        node("Add", ["i", "made"], ["y"]),
    ]
    onnx.save(model(nodes, {"c": column, "r": row}), tmp_path / "q.onnx")
    refused(tmp_path / "q.onnx", "constants must have at most", fastrnn.onnx.load)


def test_a_weight_of_one_byte_may_take_the_four_of_its_float(tmp_path, rng):
    """12 MB, which become 46 of float32 and as many for their gradients."""
    n = 1200
    q = rng.integers(-127, 128, (1, n, 4 * n), np.int8)
    arrays = {"W": q, "R": q, "s": FLOATS[:1], "z": 0 * BYTES[:1]}
    cell = node(
        "DynamicQuantizeLSTM",
        ["x", "W", "R", *[""] * 5, "s", "z", "s", "z"],
        ["y"],
        domain=MICROSOFT,
        hidden_size=n,
    )
    onnx.save(model([cell], arrays, x=("T", "B", n), x_type=1), tmp_path / "q.onnx")
    (layer,) = fastrnn.onnx.load(tmp_path / "q.onnx")._children.values()
    gates = q[0].T[n : 2 * n]  # o, the second of ONNX's gates and the last of ours
    assert np.array_equal(layer.parameters["weight_hh_l0"][3 * n :], gates)


def test_bytes_of_another_file_count_once(tmp_path):
    """However many tensors of small integers share them."""
    (tmp_path / "data").write_bytes(bytes(10**6))
    proto = model([node("Neg", ["x"], ["y"])], {})
    for k in range(100):
        one = proto.graph.initializer.add(name=f"t{k}", dims=[10**6])
        one.data_type = onnx.TensorProto.UINT8
        one.data_location = onnx.TensorProto.EXTERNAL
        one.external_data.add(key="location", value="data")
    path = tmp_path / "q.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match="constants must have at most"):
        fastrnn.onnx.load(path)
    del proto.graph.initializer[40:]  # 4 MB may be 16, and 32 MiB more
    path.write_bytes(proto.SerializeToString())
    fastrnn.onnx.load(path)


def test_a_large_scale_of_many_nodes(tmp_path):
    """It is looked at once, not for each of them."""
    arrays = {"s": np.ones(2 * 10**6, "f"), "t": np.ones(2 * 10**6, "f")}
    nodes = [node("QuantizeLinear", ["x", "s"], ["q"])]
    nodes += [
        node("DequantizeLinear", ["q", "st"[k % 2]], [f"f{k}"]) for k in range(9000)
    ]
    nodes.append(node("Identity", ["f0"], ["y"]))
    onnx.save(model(nodes, arrays, x_type=1), tmp_path / "q.onnx")
    began = time.process_time()
    fastrnn.onnx.load(tmp_path / "q.onnx")
    assert time.process_time() - began < 10


def test_names_that_are_taken(tmp_path):
    """The floats of integers must not get names that are somebody's."""
    taken = [f"q_float{end}" for end in ("", *(f"_{k}" for k in range(3000)))]
    s = {"s": np.float32(0.5), "z": np.int8(0)} | {
        name: np.float32(9) for name in taken
    }
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"])]
    nodes.append(node("DequantizeLinear", ["q", "s", "z"], ["y"]))
    nodes.append(node("Transpose", ["q"], ["p"]))
    nodes.append(node("DequantizeLinear", ["p", "s", "z"], ["y2"]))
    proto = model(nodes, s, x_type=1, outputs=["y", "y2", *taken])
    onnx.save(proto, tmp_path / "q.onnx")
    y, y2, *others = fastrnn.onnx.load(tmp_path / "q.onnx")([[1.4, 2]])
    assert np.array_equal(y, y2.T)
    assert y.tolist() == [[np.float32(1.4), 2]]
    assert {float(one) for one in others} == {9}


def test_long_chains_take_no_longer_than_they_are(tmp_path):
    """Of each link somebody wants the float, by a scale of another name each."""
    n = 3000
    scales = {f"s{k}": np.float32(k + 1) for k in range(n)}
    links = [node("Identity", [f"q{k}"], [f"q{k + 1}"]) for k in range(n)]
    wants = [node("DequantizeLinear", [f"q{k}", f"s{k}"], [f"f{k}"]) for k in range(n)]
    first = node("QuantizeLinear", ["x", "s0"], ["q0"])
    last = node("Identity", [f"f{n - 1}"], ["y"])
    proto = model([first, *links, *wants, last], scales, x=("N",), x_type=1)
    onnx.save(proto, tmp_path / "q.onnx")
    began = time.process_time()
    graph = fastrnn.onnx.load(tmp_path / "q.onnx")
    assert time.process_time() - began < 10
    assert graph(np.array([2.4], "f")) == 2 * n
