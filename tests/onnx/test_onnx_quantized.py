# SPDX-License-Identifier: BSD-3-Clause
"""Quantised ONNX models: the judges are the same graphs in floats, and ONNX Runtime."""

import logging
import warnings

import numpy as np
import pytest
from peers import close

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip(
    "onnxruntime", reason="onnxruntime, the judge, is not installed"
)

import onnx_files  # noqa: E402
import onnx_reference  # noqa: E402
from onnx_files import B, H, I, T  # noqa: E402
from onnxruntime.quantization import (  # noqa: E402
    CalibrationDataReader,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from quantized_onnx import MICROSOFT, Weights, model, node, tagger  # noqa: E402

import fastrnn.onnx  # noqa: E402

N_TERMS = T * (I + H + 2)


def loaded(path, proto):
    onnx.save(proto, path)
    return fastrnn.onnx.load(path)


def ops(graph):
    return [step.node.op for step in graph._steps]


@pytest.fixture
def quietly():
    """ONNX Runtime's quantizer has advice for every file."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


# -- DynamicQuantizeLSTM ---------------------------------------------------------------


def quantised_lstm(rng, dtype, per_column, given=(), **attributes):
    """An LSTM with integers for weights, the same with floats, and inputs for both."""
    D = 2 if attributes.get("direction") == "bidirectional" else 1
    w, of = Weights(rng), (D, 4 * H) if per_column else (D,)
    W, R = (
        w.add(n, (D, k, 4 * H), dtype, of) for n, k in (("W", I), ("R", H))
    )  # fmt: skip
    floats = {name: a.swapaxes(1, 2) for name, a in w.floats.items()}
    plain, inputs = onnx_files.node_model(
        rng, "LSTM", given=given, constants=floats, **attributes
    )
    proto = onnx.ModelProto()
    proto.CopyFrom(plain)
    proto.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))
    (cell,) = proto.graph.node
    cell.op_type, cell.domain = "DynamicQuantizeLSTM", MICROSOFT
    cell.input.extend([""] * (8 - len(cell.input)))
    cell.input.extend([*W[1:], *R[1:]])
    kept = [one for one in proto.graph.initializer if one.name not in ("W", "R")]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(a, name) for name, a in w.arrays.items()
    )
    return proto, plain, inputs


GIVEN = ((), ("B",), ("B", "lengths"), ("B", "h0", "c0", "P"), ("lengths", "h0", "c0"))


@pytest.mark.parametrize("given", GIVEN, ids=lambda g: "-".join(g) or "plain")
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_an_lstm_has_the_bits_of_its_floats(
    tmp_path, rng, dtype, per_column, direction, given
):
    proto, plain, inputs = quantised_lstm(
        rng, dtype, per_column, given, direction=direction
    )
    ours = loaded(tmp_path / "q.onnx", proto)(**inputs)
    expected = loaded(tmp_path / "f.onnx", plain)(**inputs)
    runtime = onnx_files.run(tmp_path / "f.onnx", inputs)
    rounded = onnx_files.run(tmp_path / "q.onnx", inputs)
    exact = onnx_reference.run(plain, inputs)
    for one, same, theirs, eight, e in zip(
        ours, expected, runtime, rounded, exact, strict=True
    ):
        assert np.array_equal(one, same)
        close(one, theirs, N_TERMS)
        close(one, e.astype("f"), N_TERMS)
        # x has eight bits of a range of about 6 there: half of a step in x times W,
        # summed over inputs and steps.
        assert np.abs(one - eight).max() < 0.05
        assert np.abs(one - e).max() < np.abs(eight - e).max()


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_an_lstm_with_all_attributes(tmp_path, rng, dtype):
    options = {
        "activations": ["HardSigmoid", "ScaledTanh", "Elu"] * 2,
        "activation_alpha": [0.3, 0.9, 0.7] * 2,
        "activation_beta": [0.4, 0.8] * 2,
        "clip": 1.5,
        "input_forget": 1,
        "direction": "bidirectional",
    }
    proto, plain, inputs = quantised_lstm(rng, dtype, True, ("B", "P"), **options)
    graph = loaded(tmp_path / "q.onnx", proto)
    for one, e in zip(graph(**inputs), onnx_reference.run(plain, inputs), strict=True):
        close(one, e.astype("f"), N_TERMS)


@pytest.mark.parametrize("given", GIVEN, ids=lambda g: "-".join(g) or "plain")
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_an_lstm_that_the_quantizer_made(
    tmp_path, rng, quietly, per_channel, direction, given
):
    """Lengths, first states and peepholes stay as they were."""
    plain, inputs = onnx_files.node_model(rng, "LSTM", given=given, direction=direction)
    path = tmp_path / "q.onnx"
    onnx.save(plain, tmp_path / "f.onnx")
    quantize_dynamic(tmp_path / "f.onnx", path, per_channel=per_channel)
    (cell,) = onnx.load(path).graph.node
    assert cell.op_type == "DynamicQuantizeLSTM"
    found = fastrnn.onnx.load(path)(**inputs)
    theirs, exact = onnx_files.run(path, inputs), onnx_reference.run(plain, inputs)
    for one, eight, e in zip(found, theirs, exact, strict=True):
        assert np.abs(one - eight).max() < 0.25  # of weights up to 4: states of 1
        assert np.mean((one - e) ** 2) < np.mean((eight - e) ** 2)


@pytest.mark.parametrize("op", ["RNN", "LSTM", "GRU"])
def test_weights_that_nodes_of_their_own_make_floats_of(tmp_path, rng, op):
    """As other quantizers write them: DequantizeLinear, a scale for each row."""
    G = onnx_files.GATES[op]
    plain, inputs = onnx_files.node_model(rng, op, given=["B"])
    proto, floats = onnx.ModelProto(), onnx.ModelProto()
    proto.CopyFrom(plain)
    floats.CopyFrom(plain)
    arrays = {}
    for name, width in (("W", I), ("R", H)):
        q = rng.integers(-127, 128, (1, G * H, width)).astype("int8")
        scale = rng.uniform(0.001, 0.01, G * H).astype("f")
        arrays |= {
            f"{name}_q": q,
            f"{name}_s": scale,
            f"{name}_z": (0 * scale).astype("b"),
        }
        made = node("DequantizeLinear", [f"{name}_{k}" for k in "qsz"], [name], axis=1)
        proto.graph.node.insert(0, made)
        for one in floats.graph.initializer:
            if one.name == name:
                W = (q * scale[:, None].astype(float)).astype("f")
                one.CopyFrom(onnx.numpy_helper.from_array(W, name))
    bias = [one for one in plain.graph.initializer if one.name == "B"]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(bias)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(a, name) for name, a in arrays.items()
    )
    found = loaded(tmp_path / "q.onnx", proto)(**inputs)
    expected = loaded(tmp_path / "f.onnx", floats)(**inputs)
    for one, same, e in zip(
        found, expected, onnx_reference.run(floats, inputs), strict=True
    ):
        assert np.array_equal(one, same)
        close(one, e.astype("f"), N_TERMS)


def test_a_layer_that_was_read_is_quantised_again(tmp_path, rng):
    proto, plain, inputs = quantised_lstm(rng, "int8", True, ("B",))
    graph = loaded(tmp_path / "q.onnx", proto)
    y, _ = graph.cell.quantize("int8")(inputs["X"])
    expected, *_ = onnx_reference.run(plain, inputs)
    assert np.abs(y - expected[:, 0]).max() < 0.02


# -- whole models ----------------------------------------------------------------------


class Calibration(CalibrationDataReader):
    def __init__(self, batches):
        self.batches = iter(batches)

    def get_next(self):
        return next(self.batches, None)


def save_model(path, opset=17):
    """A model of every kind of layer; its layers' names in a file."""
    model = fastrnn.Sequential(
        fastrnn.Embedding(11, 4, seed=0),
        fastrnn.LSTM(4, 6, bidirectional=True, num_layers=2, seed=1),
        fastrnn.LayerNorm(12),
        fastrnn.Linear(12, 8, seed=2),
        fastrnn.Activation("relu"),
        fastrnn.GRU(8, 5, seed=3),
        fastrnn.Linear(5, 3, seed=4),
        fastrnn.Softmax(),
    ).eval()
    fastrnn.onnx.save(model, path, opset=opset)
    return fastrnn.onnx.load(path)


def save_stack(path, opset=17):
    model = fastrnn.Sequential(
        fastrnn.Linear(5, 7, seed=1), fastrnn.ReLU(), fastrnn.Linear(7, 3, seed=2)
    )
    fastrnn.onnx.save(model, path, opset=opset)
    return fastrnn.onnx.load(path)


def names(graph):
    return [name for name in graph.parameters if not name.endswith("bias")]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"per_channel": True, "reduce_range": True},
        {"weight_type": QuantType.QUInt8},
        {"extra_options": {"WeightSymmetric": False}},
        {"extra_options": {"MatMulConstBOnly": False}},
    ],
    ids=str,
)
def test_what_quantize_dynamic_writes(tmp_path, rng, quietly, options):
    plain, path = save_model(tmp_path / "f.onnx"), tmp_path / "q.onnx"
    quantize_dynamic(tmp_path / "f.onnx", path, **options)
    graph, x = fastrnn.onnx.load(path), rng.integers(0, 11, (4, 9))
    assert not {"DynamicQuantizeLinear", "MatMulInteger", "Cast"} & {*ops(graph)}
    assert list(graph.parameters) == list(plain.parameters)  # layers, names and all
    (theirs,), expected, found = onnx_files.run(path, {"x": x}), plain(x), graph(x)
    assert np.abs(found - expected).max() < 0.02  # of probabilities
    assert np.abs(found - theirs).max() < 0.02


def test_what_was_read_is_quantised_again(tmp_path, rng, quietly):
    save_model(tmp_path / "f.onnx")
    quantize_dynamic(tmp_path / "f.onnx", tmp_path / "q.onnx")
    graph, x = fastrnn.onnx.load(tmp_path / "q.onnx"), rng.integers(0, 11, (4, 9))
    small = fastrnn.quantize(graph)
    assert "quantized='int8'" in repr(small)
    assert 0 < np.abs(small(x) - graph(x)).max() < 0.02


@pytest.mark.parametrize("per_channel", [False, True])
def test_results_are_nearer_to_the_model_before_it_was_quantised(
    tmp_path, rng, quietly, per_channel
):
    lstm, path = fastrnn.LSTM(64, 64, seed=0).eval(), tmp_path / "q.onnx"
    fastrnn.onnx.save(lstm, tmp_path / "f.onnx")
    quantize_dynamic(tmp_path / "f.onnx", path, per_channel=per_channel)
    x = rng.standard_normal((40, 4, 64)).astype("f")
    y, found = lstm(x)[0], fastrnn.onnx.load(path)(x)
    (theirs,) = onnx_files.run(path, {"x": x})
    ours, other = (np.sqrt(np.mean((y - one) ** 2)) for one in (found, theirs))
    assert ours < 0.6 * other  # 0.42 to 0.50 with four seeds


STATIC = {
    "int8": {},
    "per channel": {"per_channel": True},
    "uint8": {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8},
    "symmetric": {"extra_options": {"ActivationSymmetric": True}},
    "one pair each": {"extra_options": {"DedicatedQDQPair": True}},
    "weights rounded in the graph": {"extra_options": {"AddQDQPairToWeight": True}},
    "ONNX Runtime's own": {"extra_options": {"UseQDQContribOps": True}},
    "all nodes kept": {"extra_options": {"QDQKeepRemovableActivations": True}},
    "int16": {"activation_type": QuantType.QInt16},
    "uint16": {"activation_type": QuantType.QUInt16, "weight_type": QuantType.QUInt16},
    "int4": {"weight_type": QuantType.QInt4},
    "uint4": {"weight_type": QuantType.QUInt4, "activation_type": QuantType.QUInt8},
}


@pytest.mark.parametrize("save", [save_model, save_stack])
@pytest.mark.parametrize("options", STATIC)
def test_what_quantize_static_writes(tmp_path, rng, quietly, options, save):
    plain, path = save(tmp_path / "f.onnx"), tmp_path / "q.onnx"
    if save is save_model:
        batches = [{"x": rng.integers(0, 11, (4, 9))} for _ in range(4)]
    else:
        batches = [{"x": rng.standard_normal((9, 5)).astype("f")} for _ in range(4)]
    quantize_static(tmp_path / "f.onnx", path, Calibration(batches), **STATIC[options])
    graph, (x, *_) = fastrnn.onnx.load(path), batches
    assert not {"QuantizeLinear", "DequantizeLinear"} & {*ops(graph)}
    assert names(graph) == names(plain)
    # Without optimisations, which round once more where they put nodes together.
    settings = onnxruntime.SessionOptions()
    off = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.graph_optimization_level = off
    (theirs,) = onnxruntime.InferenceSession(path, settings).run(None, x)
    # Between us and them is the rounding of activations alone, where weights of four
    # bits are far from the float32 ones.
    limit = 2e-4 if "16" in options else 0.05
    assert np.abs(graph(**x) - theirs).max() < limit * np.abs(theirs).max()


@pytest.mark.parametrize("opset", [14, 21])
def test_old_and_new_forms(tmp_path, rng, quietly, opset):
    plain, path = save_stack(tmp_path / "f.onnx", opset), tmp_path / "q.onnx"
    x = rng.standard_normal((9, 5)).astype("f")
    quantize_static(
        tmp_path / "f.onnx", path, Calibration([{"x": x}]), per_channel=True
    )
    y = plain(x)
    assert np.abs(fastrnn.onnx.load(path)(x) - y).max() < 0.02 * np.abs(y).max()


def test_a_relu_that_the_quantizer_left_out_is_still_one(tmp_path, rng, quietly):
    """What is below zero is cut off by the type of the integers alone."""
    relu = fastrnn.Sequential(fastrnn.Linear(5, 7, seed=1), fastrnn.ReLU())
    path = tmp_path / "q.onnx"
    fastrnn.onnx.save(relu, tmp_path / "f.onnx")
    x = rng.standard_normal((9, 5)).astype("f")
    quantize_static(tmp_path / "f.onnx", path, Calibration([{"x": x}]))
    graph = fastrnn.onnx.load(path)
    assert "Relu" not in ops(graph)
    assert graph(x).min() == 0


def test_files_that_the_optimiser_wrote(tmp_path, rng, quietly):
    """Products of integers, their scales and biases are one node there."""
    plain = save_model(tmp_path / "f.onnx")
    quantize_dynamic(tmp_path / "f.onnx", tmp_path / "q.onnx", per_channel=True)
    settings = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    settings.graph_optimization_level = level
    settings.optimized_model_filepath = str(tmp_path / "o.onnx")
    onnxruntime.InferenceSession(tmp_path / "q.onnx", settings)
    kinds = {one.op_type for one in onnx.load(tmp_path / "o.onnx").graph.node}
    assert {"DynamicQuantizeLSTM", "DynamicQuantizeMatMul"} <= kinds
    graph, x = fastrnn.onnx.load(tmp_path / "o.onnx"), rng.integers(0, 11, (4, 9))
    assert "Add" not in ops(graph)  # each bias is in a Linear
    assert np.array_equal(graph(x), fastrnn.onnx.load(tmp_path / "q.onnx")(x))
    assert np.abs(graph(x) - plain(x)).max() < 0.02


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_files_that_torch_wrote(tmp_path, quietly, kind):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    class Tagger(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(11, I)
            self.body = getattr(torch.nn, kind)(
                I, H, 2, bidirectional=True, batch_first=True
            )
            self.head = torch.nn.Linear(2 * H, 3)

        def forward(self, indices):
            y, _ = self.body(self.table(indices))
            return torch.log_softmax(self.head(y[:, -1]), dim=-1)

    with torch.random.fork_rng():
        torch.manual_seed(2)
        net, indices = Tagger().eval(), torch.randint(11, (B, T))
    axes = {"x": {0: "B", 1: "T"}}
    path, small = tmp_path / "f.onnx", tmp_path / "q.onnx"
    with warnings.catch_warnings():
        # The exporter and its tracer have much to say about themselves.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (indices,), path, input_names=["x"], dynamic_axes=axes, dynamo=False
        )
    quantize_dynamic(path, small)
    x = np.random.default_rng(1).integers(0, 11, (B - 1, T + 2))
    graph, plain = fastrnn.onnx.load(small), fastrnn.onnx.load(path)
    # The quantizer makes a MatMul of a Gemm, and gives it a longer name.
    found_names = [name.replace("Gemm_MatMul", "Gemm") for name in names(graph)]
    assert found_names == names(plain)
    found, (theirs,) = graph(x), onnx_files.run(small, {"x": x})
    assert np.abs(found - plain(x)).max() < 0.02
    assert np.abs(found - theirs).max() < 0.02


# -- integers and floats ---------------------------------------------------------------


@pytest.mark.parametrize("per_column", [False, True])
def test_every_operator_together(tmp_path, rng, per_column):
    """The judge is the same graph with the floats that its integers stand for."""
    proto, floats = tagger(per_column=per_column)
    graph, x = loaded(tmp_path / "q.onnx", proto), rng.integers(0, 11, (3, 6))
    assert [type(one).__name__ for one in graph._children.values()] == [
        "Embedding", "LSTM", "Linear", "Linear",
    ]  # fmt: skip
    arrays = {
        one.name: onnx.numpy_helper.to_array(one) for one in proto.graph.initializer
    }
    arrays |= floats | {n: floats[n].swapaxes(1, 2) for n in "WR"}
    plain = model(
        [
            node("Gather", ["table", "x"], ["f0"]),
            node("Transpose", ["f0"], ["f"], perm=[1, 0, 2]),
            node("LSTM", list("fWRB"), ["h"], direction="bidirectional", hidden_size=5),
            *(one for one in proto.graph.node if one.output[0] in ("h1", "h2")),
            node("MatMul", ["h2", "A"], ["p"]),
            node("Add", ["p", "a"], ["p1"]),
            node("Clip", ["p1", "zero", "most"], ["r1"]),
            node("MatMul", ["r1", "C"], ["s"]),
            node("Add", ["s", "c"], ["y"]),
        ],
        arrays | {"zero": np.float32(0), "most": np.float32(255) * np.float32(0.02)},
    )
    assert np.array_equal(graph(x), loaded(tmp_path / "f.onnx", plain)(x))
    close(graph(x), onnx_files.run(tmp_path / "f.onnx", {"x": x})[0])
    (rounded,) = onnx_files.run(tmp_path / "q.onnx", {"x": x})
    assert np.abs(graph(x) - rounded).max() < 0.05 * np.abs(rounded).max()


def test_integers_that_are_asked_for_are_rounded_as_the_file_says(tmp_path, rng):
    arrays = {"s": np.float32(0.03), "z": np.uint8(100), "A": np.eye(4, dtype="int8")}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["f"]),
        node("MatMulInteger", ["q", "A", "z"], ["i"]),
        node("DynamicQuantizeLinear", ["x"], ["d", "d_s", "d_z"]),
    ]
    x = rng.standard_normal((3, 4)).astype("f") * 3
    outputs = ["q", "i", "d", "d_s", "d_z", "f"]
    proto = model(nodes, arrays, x=("N", 4), x_type=1, outputs=outputs)
    *found, f = loaded(tmp_path / "q.onnx", proto)(x)
    *expected, _ = onnx_files.run(tmp_path / "q.onnx", {"x": x})
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
    assert np.array_equal(f, np.clip(x, np.float32(-3), np.float32(0.03) * 155))


@pytest.mark.parametrize("moves", [(), ("Transpose",), ("Identity", "Transpose")])
@pytest.mark.parametrize("swapped", [False, True])
def test_products_whose_integers_were_moved(tmp_path, rng, moves, swapped):
    w = Weights(rng)
    A = w.add("A", (4, 3), "int8", (3,))
    nodes, q = [node("DynamicQuantizeLinear", ["x"], ["q0", "s", "z"])], "q0"
    for k, move in enumerate(moves):
        nodes.append(node(move, [q], [f"q{k + 1}"]))
        q = f"q{k + 1}"
    pair, last = ["s", A[1]], ["c", "m"]
    nodes += [
        node("MatMulInteger", [q, A[0], "z", A[2]], ["i"], name="p"),
        node("Cast", ["i"], ["c"], to=1),
        node("Mul", pair[::-1] if swapped else pair, ["m"]),
        node("Mul", last[::-1] if swapped else last, ["y"]),
    ]
    x = rng.standard_normal((4, 4)).astype("f")
    graph = loaded(tmp_path / "q.onnx", model(nodes, w.arrays, x=(4, 4), x_type=1))
    assert list(graph.parameters) == ["p.weight"]
    turned = x.T if "Transpose" in moves else x
    np.testing.assert_allclose(graph(x), turned @ w.floats["A"], rtol=1e-5, atol=1e-6)


def test_another_scale_is_another_number(tmp_path, rng):
    """Only a pair of one scale is no rounding: this one doubles."""
    arrays = {"s": np.float32(0.5), "s2": np.float32(1), "z": np.int8(0)}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s2", "z"], ["y"]),
    ]
    proto = model(nodes, arrays, x=("N", 4), x_type=1)
    x = rng.standard_normal((3, 4)).astype("f")
    graph = loaded(tmp_path / "q.onnx", proto)
    assert np.array_equal(graph(x), np.rint(2 * x))
    arrays["s2"] = np.float32(0.5)  # the same number by another name
    proto = model(nodes, arrays, x=("N", 4), x_type=1)
    assert np.array_equal(loaded(tmp_path / "q.onnx", proto)(x), x)


@pytest.mark.parametrize("own_scale", [False, True])
def test_a_product_in_one_node(tmp_path, rng, own_scale):
    """MatMulIntegerToFloat, of integers that are an input or were made of x."""
    w = Weights(rng)
    A = w.add("A", (4, 3), "int8", (3,))
    w.arrays["a"] = rng.standard_normal(3).astype("f")
    nodes = [node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])]
    x, x_type = rng.standard_normal((5, 4)).astype("f"), 1
    if own_scale:
        nodes, x, x_type = [], rng.integers(0, 255, (5, 4)).astype("uint8"), 2
        w.arrays |= {"s": np.float32(0.1), "z": np.uint8(7)}
    q, names = "x" if own_scale else "q", ["s", A[1], "z", A[2], "a"]
    nodes.append(
        node("MatMulIntegerToFloat", [q, A[0], *names], ["y"], domain=MICROSOFT)
    )
    proto = model(nodes, w.arrays, x=(5, 4), x_type=x_type)
    graph = loaded(tmp_path / "q.onnx", proto)
    floats = (x.astype("f") - 7) * np.float32(0.1) if own_scale else x
    y = floats.astype(float) @ w.floats["A"] + w.arrays["a"]
    np.testing.assert_allclose(graph(x), y, rtol=1e-5, atol=1e-5)
    (theirs,) = onnx_files.run(tmp_path / "q.onnx", {"x": x})
    assert np.abs(graph(x) - theirs).max() < (1e-5 if own_scale else 0.02)


def test_weights_in_blocks_of_four_bits(tmp_path, rng):
    q = rng.integers(-8, 8, (6, 3))
    weight = onnx.helper.make_tensor("A", onnx.TensorProto.INT4, q.shape, q.ravel())
    scale = rng.uniform(0.1, 0.2, (2, 3)).astype("f")  # of rows 0 to 3, and 4 and 5
    nodes = [
        node("DequantizeLinear", ["A", "s"], ["W"], axis=0, block_size=4),
        node("MatMul", ["x", "W"], ["y"]),
    ]
    proto = model(nodes, {"s": scale}, x=("N", 6), x_type=1, opset=21)
    proto.graph.initializer.append(weight)
    graph = loaded(tmp_path / "q.onnx", proto)
    W = q * scale[np.array([0, 0, 0, 0, 1, 1])]
    (found,) = graph.parameters.values()
    assert np.array_equal(found.T, W.astype("f"))
    x = rng.standard_normal((2, 6)).astype("f")
    close(graph(x), onnx_files.run(tmp_path / "q.onnx", {"x": x})[0])
