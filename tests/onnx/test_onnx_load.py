# SPDX-License-Identifier: BSD-3-Clause
"""Recurrent ONNX nodes on our layers against ONNX Runtime and the operators' equations
in float64; what is refused, and how."""

import copy
import io
import itertools
import warnings

import numpy as np
import pytest
import tolerances
from peers import close

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime, the judge, is not installed")

import onnx_files  # noqa: E402
import onnx_reference  # noqa: E402
from onnx_files import B, H, I, T  # noqa: E402

import fastrnn.onnx  # noqa: E402
from fastrnn.onnx import _recurrent  # noqa: E402

GRU = {"linear_before_reset": 1}
CELLS = {
    "RNN": {},
    "RNN relu": {"activations": ["Relu"]},
    "RNN clip": {"clip": 0.7},
    "LSTM": {},
    "LSTM clip": {"clip": 0.7},
    "LSTM coupled": {"input_forget": 1},
    "LSTM peepholes": {},
    "LSTM peepholes and all else": {
        "activations": ["HardSigmoid", "ScaledTanh", "Elu"],
        "activation_alpha": [0.3, 0.9, 0.7],
        "activation_beta": [0.4, 0.8],
        "clip": 1.5,
        "input_forget": 1,
    },
    "GRU": GRU,
    "GRU clip": {**GRU, "clip": 0.7},
    "GRU before": {},
    "GRU before and all else": {
        "activations": ["hardsigmoid", "softsign"],
        "clip": 0.9,
    },
}
DIRECTIONS = ("forward", "reverse", "bidirectional")
GIVEN = ((), ("B",), ("B", "lengths"), ("B", "h0", "c0"), ("lengths", "h0", "c0"))
LISTS = ("activations", "activation_alpha", "activation_beta")


def cell_case(cell, direction, given):
    """Operator, attributes and optional inputs of a combination of options."""
    op, attributes = cell.split()[0], dict(CELLS[cell], direction=direction)
    if direction == "bidirectional":
        attributes |= {key: 2 * attributes[key] for key in LISTS if key in attributes}
    given = [g for g in given if g != "c0" or op == "LSTM"]
    return op, attributes, given + ["P"] * ("peepholes" in cell)


def n_terms(op):
    """Of the longest sum in the result of a recurrent node, for `close`."""
    return tolerances.chain_terms(T, B, I, H, onnx_files.GATES[op])


def judged(tmp_path, op, model, inputs, runtime=True):
    """The layers of a node's Graph, once it gives what the judges give."""
    path = tmp_path / "node.onnx"
    onnx.save(model, path)
    graph = fastrnn.onnx.load(path)
    found = graph(**inputs)
    for ours, theirs in zip(found, onnx_reference.run(model, inputs), strict=True):
        assert ours.dtype == inputs["X"].dtype
        close(ours, theirs.astype(ours.dtype), n_terms(op))  # it computes in float64
    if runtime:
        for ours, theirs in zip(found, onnx_files.run(path, inputs), strict=True):
            assert ours.dtype == theirs.dtype
            close(ours, theirs, n_terms(op))
    return graph.cell


@pytest.mark.parametrize("given", GIVEN, ids=lambda g: "-".join(g) or "plain")
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_nodes(tmp_path, rng, cell, direction, given):
    op, attributes, given = cell_case(cell, direction, given)
    model, inputs = onnx_files.node_model(rng, op, given=given, **attributes)
    judged(tmp_path, op, model, inputs)


@pytest.mark.parametrize("given", GIVEN[::4], ids=lambda g: "-".join(g) or "plain")
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_nodes_with_layout_1_in_float64(tmp_path, rng, cell, direction, given):
    """Neither is in ONNX Runtime: the equations are the judge."""
    op, attributes, given = cell_case(cell, direction, given)
    model, inputs = onnx_files.node_model(
        rng, op, given=given, layout=1, dtype="float64", **attributes
    )
    judged(tmp_path, op, model, inputs, runtime=False)


# Whose parameters have no value of ONNX's, or another than ONNX, in ONNX Runtime.
OWN_DEFAULTS = ("Affine", "ScaledTanh", "ThresholdedRelu")


@pytest.mark.parametrize("parameters", [False, True])
@pytest.mark.parametrize("name", _recurrent.FUNCTIONS.values())
@pytest.mark.parametrize("op", _recurrent.CLASSES)
def test_every_function_in_every_place(tmp_path, rng, op, name, parameters):
    n = len(_recurrent.PLAIN[op])
    attributes = {"activations": [name] * n}
    if parameters:
        attributes["activation_alpha"] = [0.3, 0.4, 0.45][:n]
        attributes["activation_beta"] = [0.5, 0.6, 0.55][:n]
    G = onnx_files.GATES[op]  # some functions know no bounds
    small = {
        name: rng.uniform(-0.3, 0.3, (1, G * H, width)).astype("f")
        for name, width in (("W", I), ("R", H))
    }
    model, inputs = onnx_files.node_model(rng, op, constants=small, **attributes)
    judged(tmp_path, op, model, inputs, parameters or name not in OWN_DEFAULTS)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("given", GIVEN, ids=lambda g: "-".join(g) or "plain")
@pytest.mark.parametrize("op", _recurrent.CLASSES)
def test_other_functions_in_each_direction(tmp_path, rng, op, given, layout):
    given = [g for g in given if g != "c0" or op == "LSTM"]
    n = len(_recurrent.PLAIN[op])
    names = ["Sigmoid", "Tanh", "Softsign", "HardSigmoid", "Elu", "Relu"]
    options = {"activations": names[:n] + names[3 : 3 + n], "layout": layout}
    options |= {"direction": "bidirectional", "activation_alpha": [0.3]}
    model, inputs = onnx_files.node_model(rng, op, given=given, **options)
    both = judged(tmp_path, op, model, inputs, runtime=not layout)
    assert both.back.go_backwards


def test_float64_against_our_layer(tmp_path, rng):
    """ONNX Runtime has no double LSTM: the judge is the layer with the same weights."""
    model, inputs = onnx_files.node_model(rng, "LSTM", given=["B"], dtype="float64")
    onnx.save(model, tmp_path / "node.onnx")
    graph = fastrnn.onnx.load(tmp_path / "node.onnx")
    layer = fastrnn.LSTM(I, H, dtype="float64").eval()
    layer.load_state_dict(graph.cell.state_dict())
    y, _ = layer(inputs["X"])
    assert graph(**inputs)[0].dtype == np.float64
    assert np.array_equal(graph(**inputs)[0][:, 0], y)


def test_a_sequence_of_no_steps_keeps_its_state(tmp_path, rng):
    model, inputs = onnx_files.node_model(rng, "GRU", given=["lengths", "h0"], **GRU)
    onnx.save(model, tmp_path / "node.onnx")
    inputs["lengths"] = np.array([0, 5, 0, 2], np.int32)
    y, h_n = fastrnn.onnx.load(tmp_path / "node.onnx")(**inputs)
    assert np.array_equal(h_n[:, [0, 2]], inputs["h0"][:, [0, 2]])
    assert not y[:, :, [0, 2]].any()


def test_a_row_has_the_same_bits_alone_and_among_other_lengths(tmp_path, rng):
    model, inputs = onnx_files.node_model(rng, "LSTM", given=["B", "lengths"])
    onnx.save(model, tmp_path / "node.onnx")
    graph = fastrnn.onnx.load(tmp_path / "node.onnx")
    together = graph(**inputs)
    for b, length in enumerate(inputs["lengths"]):
        y, (h_n, c_n) = graph.cell(inputs["X"][:length, b : b + 1])
        assert np.array_equal(together[0][:length, 0, b], y[:, 0])
        assert np.array_equal(together[1][:, b], h_n[:, 0])
        assert np.array_equal(together[2][:, b], c_n[:, 0])


@pytest.mark.parametrize(
    ("op", "options", "message"),
    [
        (
            "RNN",
            {"activations": ["Gelu"]},
            r"activations must be 1 of Affine, .*ThresholdedRelu, got \['Gelu'\]",
        ),
        (
            "GRU",
            {"activations": ["Sigmoid", "Tanh"], "direction": "bidirectional"},
            "activations must be 4 of",
        ),
        ("GRU", {"linear_before_reset": 2}, "before_reset must be 0 or 1, got 2"),
        ("LSTM", {"input_forget": -1}, "input_forget must be 0 or 1, got -1"),
        ("LSTM", {"clip": -2.0}, r"cell_clip must be .* got -2\.0"),
        ("RNN", {"layout": 2}, "layout must be 0 or 1, got 2"),
        ("RNN", {"direction": "both"}, "direction must be 'forward' or"),
        (
            "LSTM",
            {"given": ["P"], "constants": {"P": np.ones((1, 7), "f")}},
            r"P must have shape \(1, 18\), got \(1, 7\)",
        ),
        ("RNN", {"hidden_size": 5}, r"W must have shape \(1, 5, 3\), got \(1, 6, 3\)"),
        ("RNN", {"dtype": "float16"}, "W must be float32 or float64 with 3 axes"),
    ],
)
def test_nodes_that_are_none_of_onnx(tmp_path, rng, op, options, message):
    model, _ = onnx_files.node_model(rng, op, **options)
    path = tmp_path / "node.onnx"
    onnx.save(model, path)
    with pytest.raises(ValueError, match=message) as caught:
        fastrnn.onnx.load(path)
    assert str(caught.value).startswith(
        f"fastrnn.onnx.load: {path}: node 'cell' ({op}): "
    )


def test_peepholes_of_zero_are_none(tmp_path, rng):
    zero = {"P": np.zeros((1, 3 * H), "f")}
    model, inputs = onnx_files.node_model(rng, "LSTM", given=["P"], constants=zero)
    assert not judged(tmp_path, "LSTM", model, inputs).peephole


def test_default_activations_may_be_named(tmp_path, rng):
    names = ["sigmoid", "TANH", "Tanh"]
    model, inputs = onnx_files.node_model(rng, "LSTM", activations=names)
    layer = judged(tmp_path, "LSTM", model, inputs)
    assert repr(layer) == f"LSTM({I}, {H}, bias=False)"


def test_bad_data_at_a_call(tmp_path, rng):
    model, inputs = onnx_files.node_model(rng, "RNN", given=["lengths", "h0"])
    del model.graph.input[2].type.tensor_type.shape.dim[:]
    model.graph.input[2].type.tensor_type.ClearField("shape")  # any h0 passes at first
    onnx.save(model, tmp_path / "node.onnx")
    graph = fastrnn.onnx.load(tmp_path / "node.onnx")
    with pytest.raises(ValueError, match=r"node 'cell' \(RNN\): RNN: lengths must be"):
        graph(inputs["X"], [1, 2, 3, 6], inputs["h0"])
    with pytest.raises(ValueError, match=r"hx must have shape .* got \(1, 1, 6\)"):
        graph(inputs["X"], [1, 2, 3, 5], inputs["h0"][:, :1])
    shape = model.graph.input[0].type.tensor_type.shape
    shape.dim[2].Clear()
    onnx.save(model, tmp_path / "node.onnx")
    with pytest.raises(ValueError, match=r"X must have shape \(T, B, I\) = \(T"):
        fastrnn.onnx.load(tmp_path / "node.onnx")(inputs["X"][..., 1:], 4 * [5], 0)
    with pytest.raises(TypeError, match="Graph: lengths must be integers"):
        graph(inputs["X"], [1.5, 2, 3, 5], inputs["h0"])


# -- graphs ----------------------------------------------------------------------------


def small_graph(nodes, weights=(), opset=17, outputs=("y",), domain=""):
    helper = onnx.helper
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", 1, ["N", 4])],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [onnx.numpy_helper.from_array(a, name) for name, a in weights],
    )
    opsets = [helper.make_opsetid(domain, opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def loaded(tmp_path, *args, **kwargs):
    onnx.save(small_graph(*args, **kwargs), tmp_path / "graph.onnx")
    return fastrnn.onnx.load(tmp_path / "graph.onnx")


def test_products_with_constants_become_linear_layers(tmp_path, rng):
    node = onnx.helper.make_node
    A, C = (rng.standard_normal((4, 4)).astype("f") for _ in range(2))
    b = rng.standard_normal(4).astype("f")
    model = loaded(
        tmp_path,
        [
            node("MatMul", ["x", "A"], ["p"]),
            node("Add", ["b", "p"], ["q"]),
            node("Gemm", ["q", "C", "b"], ["r"], transB=1),
            node("Gemm", ["r", "C", "b"], ["s"], alpha=0.5),  # not a Linear's
            node("MatMul", ["s", "A"], ["t"]),  # used twice: its sum stands alone
            node("Add", ["t", "b"], ["u"]),
            node("Mul", ["t", "u"], ["y"]),
        ],
        [("A", A), ("C", C), ("b", b)],
    )
    kinds = [type(layer).__name__ for layer in model._children.values()]
    assert kinds == ["Linear"] * 3
    assert [layer.bias for layer in model._children.values()] == [True, True, False]
    x = rng.standard_normal((3, 4)).astype("f")
    expected = onnx_files.run(tmp_path / "graph.onnx", {"x": x})[0]
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-4)


def test_constants_are_folded_before_weights_are_read(tmp_path, rng):
    """Exporters build W out of parts; what is left are the layer and its input."""
    node = onnx.helper.make_node
    W, R = (rng.standard_normal((H, k)).astype("f") for k in (4, H))
    model = loaded(
        tmp_path,
        [
            node("Constant", [], ["zero"], value_ints=[0]),
            node("Unsqueeze", ["W0", "zero"], ["W"]),
            node("Unsqueeze", ["R0", "zero"], ["R"]),
            node("Constant", [], ["one"], value_ints=[1]),
            node("Unsqueeze", ["x", "one"], ["X"]),
            node("RNN", ["X", "W", "R"], ["y"], hidden_size=H, name="my.cell/0"),
        ],
        [("W0", W), ("R0", R)],
    )
    assert [step.node.op for step in model._steps] == ["Unsqueeze", "RNN"]
    assert np.array_equal(model.my_cell_0.parameters["weight_hh_l0"], R)
    x = rng.standard_normal((3, 4)).astype("f")
    expected = onnx_files.run(tmp_path / "graph.onnx", {"x": x})[0]
    close(model(x), expected, n_terms("RNN"))


def test_tables_become_embeddings(tmp_path, rng):
    node = onnx.helper.make_node
    table = rng.standard_normal((7, 3)).astype("f")
    model = loaded(
        tmp_path,
        [node("Cast", ["x"], ["i"], to=7), node("Gather", ["table", "i"], ["y"])],
        [("table", table)],
    )
    assert list(model.parameters) == ["Gather_1.weight"]
    x = np.array([[0, 6, -7, -1]], "f")
    expected = onnx_files.run(tmp_path / "graph.onnx", {"x": x})[0]
    assert np.array_equal(model(x), expected)
    with pytest.raises(ValueError, match=r"indices must be in \[0, 7\)"):
        model(x + 1)


def test_names_that_modules_have_are_not_taken(tmp_path, rng):
    A = rng.standard_normal((4, 4)).astype("f")
    node = onnx.helper.make_node
    names = ("forward", "inputs", "a", "a", "_param")
    nodes = [
        node("MatMul", ["xyzuvw"[k], "A"], ["xyzuvw"[k + 1]], name=name)
        for k, name in enumerate(names)
    ]
    model = loaded(tmp_path, nodes, [("A", A)], outputs=("w",))
    assert list(model._children) == ["forward_1", "inputs_1", "a", "a_1", "param"]
    x = rng.standard_normal((2, 4)).astype("f")
    again = copy.deepcopy(model)
    assert np.array_equal(again(x), model(x))


@pytest.mark.parametrize(
    ("nodes", "options", "message"),
    [
        ([("Conv", ["x", "x"], ["y"])], {}, "operator Conv is not one of those"),
        ([("Relu", ["z"], ["y"])], {}, "inputs must be made before it, got z"),
        ([("Relu", ["x"], ["z"])], {}, "outputs must be made by nodes, got y"),
        ([("Relu", ["x", "x"], ["y"])], {}, "must have 1 to 1 inputs, got 2"),
        ([("Split", ["x", "n"], ["y", "z", "u"])], {}, "must have 2 outputs, got 3"),
        ([("Relu", ["x"], ["y"], {"axis": 1})], {}, "attributes must be among none"),
        ([("Concat", ["x", "x"], ["y"], {"axis": "1"})], {}, "of their types"),
        ([("Concat", ["x", "x"], ["y"])], {}, "with axis required, got none"),
        ([("Relu", ["x"], ["y"], {"size": 1})], {}, "attributes must be among none"),
        ([("Relu", ["x"], ["y"])], {"opset": 6}, "opset must be 7 or later, got 6"),
        ([("RNN", ["x", "x", "x"], ["y"])], {}, "W must be constant, got the computed"),
    ],
)
def test_graphs_that_are_refused(tmp_path, nodes, options, message):
    made = [
        onnx.helper.make_node(op, ins, outs, **(rest[0] if rest else {}))
        for op, ins, outs, *rest in nodes
    ]
    n = [("n", np.array([2, 2]))]
    with pytest.raises(ValueError, match=message):
        loaded(tmp_path, made, n, **options)(np.zeros((2, 4)))


def test_another_domain_is_refused(tmp_path):
    node = onnx.helper.make_node("Relu", ["x"], ["y"], domain="my.own")
    with pytest.raises(ValueError, match=r"operator my\.own\.Relu is not one of"):
        loaded(tmp_path, [node])


def test_files_that_are_none(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"\x07 not a model")
    with pytest.raises(ValueError, match="must be an ONNX file"):
        fastrnn.onnx.load(tmp_path / "bad.onnx")
    with pytest.raises(FileNotFoundError):
        fastrnn.onnx.load(tmp_path / "none.onnx")


def test_weights_that_are_not_whole(tmp_path, rng):
    model, _ = onnx_files.node_model(rng, "LSTM")
    model.graph.initializer[0].dims[0] = 2
    onnx.save(model, tmp_path / "node.onnx")
    with pytest.raises(ValueError, match="initializer 'W' must be a whole tensor"):
        fastrnn.onnx.load(tmp_path / "node.onnx")


# -- PyTorch's exporter ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "num_layers", "bidirectional", "batch_first"),
    list(
        itertools.product(("RNN", "LSTM", "GRU"), (1, 2), (False, True), (False, True))
    ),
)
def test_files_that_torch_writes(
    tmp_path, kind, num_layers, bidirectional, batch_first
):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    class Tagger(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(11, I)
            self.body = getattr(torch.nn, kind)(
                I, H, num_layers, bidirectional=bidirectional, batch_first=batch_first
            )
            self.head = torch.nn.Linear(H * (1 + bidirectional), 3)

        def forward(self, indices):
            y, _ = self.body(self.table(indices))
            return torch.log_softmax(self.head(y), dim=-1)

    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = Tagger().eval()
        indices = torch.randint(11, (T, B))
    file = io.BytesIO()
    axes = {"x": {0: "first", 1: "second"}}
    with warnings.catch_warnings():
        # The exporter and its tracer have much to say about themselves.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (indices,), file, input_names=["x"], dynamic_axes=axes, dynamo=False
        )
    path = tmp_path / "torch.onnx"
    path.write_bytes(file.getvalue())
    graph = fastrnn.onnx.load(path)
    for shape in ((T, B), (T + 2, B - 1)):
        x = np.random.default_rng(1).integers(0, 11, shape)
        with torch.no_grad():
            expected = model(torch.from_numpy(x)).numpy()
        close(graph(x), expected, n_terms(kind))
