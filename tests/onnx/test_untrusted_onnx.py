# SPDX-License-Identifier: BSD-3-Clause
"""ONNX files that ask for more than they have: refused, in bounds."""

import itertools
import os

import numpy as np
import pytest
from arrays import ints
from damaged_files import bounded

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

import fastrnn.onnx  # noqa: E402

node, TensorProto = onnx.helper.make_node, onnx.TensorProto


def written(path, nodes, constants=(), *, functions=(), outputs=("y",), **options):
    """Write a graph from x to y."""
    values = [
        one
        if isinstance(one, TensorProto)
        else onnx.numpy_helper.from_array(*one[::-1])
        for one in constants
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, ["a", "b"])],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        values,
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("own", 1)]
    model = onnx.helper.make_model(
        graph, opset_imports=opsets, functions=functions, ir_version=8
    )
    path.write_bytes(model.SerializeToString())
    return path


def refused(path, message):
    with bounded(path), pytest.raises(ValueError, match=message) as caught:
        fastrnn.onnx.load(path)
    assert str(path) in str(caught.value)


END = node("Add", ["x", "made"], ["y"])
ONES = np.ones((1000, 1000), "f")  # 4 MB, beside which 45 MB more are allowed


def repeated(op, *more, n=40):
    """A chain of n nodes."""
    names = ["one", *(f"v{k}" for k in range(n - 1)), "made"]
    pairs = itertools.pairwise(names)
    return [node(op, [a, *more], [b]) for a, b in pairs]


BOMBS = {
    "ConstantOfShape": (
        [node("ConstantOfShape", ["n"], ["made"])],
        [("n", ints(20_000, 20_000))],
    ),
    "ConstantOfShape of 2 ** 63 and more": (
        [node("ConstantOfShape", ["n"], ["made"])],
        [("n", ints(2**40, 2**40))],
    ),
    "Expand": (
        [node("Expand", ["one", "n"], ["made"])],
        [("one", np.ones(1, "f")), ("n", ints(10**5, 10**5))],
    ),
    "Expand, then a copy": (
        [node("Expand", ["one", "n"], ["a"]), node("Exp", ["a"], ["made"])],
        [("one", np.ones(1, "f")), ("n", ints(10**5, 10**5))],
    ),
    "Tile": (
        [node("Tile", ["one", "n"], ["made"])],
        [("one", np.ones(1, "f")), ("n", ints(10**9))],
    ),
    "Tile by nothing": (
        [node("Tile", ["one", "n"], ["made"])],
        [("one", np.ones((2, 2), "f")), ("n", ints(2**40, 0))],
    ),
    "Tile by Tile": (
        repeated("Tile", "n"),
        [("one", np.ones(1, "f")), ("n", ints(2))],
    ),
    "Concat": (
        [node("Concat", ["one"] * 100, ["made"], axis=0)],
        [("one", ONES)],
    ),
    "Range": (
        [node("Range", ["0", "n", "1"], ["made"])],
        [("0", np.float32(0)), ("n", np.float32(1e12)), ("1", np.float32(1))],
    ),
    "Range without end": (
        [node("Range", ["0", "n", "0"], ["made"])],
        [("0", np.float32(0)), ("n", np.float32(1))],
    ),
    "Range to infinity": (
        [node("Range", ["0", "n", "1"], ["made"])],
        [("0", np.float32(0)), ("n", np.float32(np.inf)), ("1", np.float32(1))],
    ),
    "MatMul": (
        [node("MatMul", ["one", "two"], ["made"])],
        [("one", np.ones((10**5, 1), "f")), ("two", np.ones((1, 10**5), "f"))],
    ),
    "Gemm": (
        [node("Gemm", ["one", "one"], ["made"], transB=1)],
        [("one", np.ones((10**5, 1), "f"))],
    ),
    "Gather": (
        [node("Gather", ["one", "i"], ["made"])],
        [("one", ONES), ("i", np.zeros(10**5, np.int64))],
    ),
    "Add": (
        [node("Add", ["one", "two"], ["made"])],
        [("one", np.ones((10**5, 1), "f")), ("two", np.ones((1, 10**5), "f"))],
    ),
    "Where": (
        [node("Where", ["c", "one", "two"], ["made"])],
        [
            ("c", np.ones((10**4, 1, 1), bool)),
            ("one", np.ones((10**4, 1), "f")),
            ("two", np.ones((1, 10**4), "f")),
        ],
    ),
    "Cast": (
        [node("Cast", ["one"], ["made"], to=TensorProto.DOUBLE)],
        [("one", np.ones(3 * 10**7, bool))],
    ),
    "Reshape of what is no memory yet": (
        [node("Expand", ["one", "n"], ["a"]), node("Reshape", ["a", "m"], ["made"])],
        [("one", np.ones(1, "f")), ("n", ints(10**4, 10**4)), ("m", ints(-1))],
    ),
    "sizes of any number": (
        [
            node("ConstantOfShape", ["n"], ["a"], value=TensorProto(
                data_type=TensorProto.INT64, dims=[1], int64_data=[1])),
            node("Split", ["x", "a"], ["made"]),
            node("Reshape", ["a", "a"], ["b"]),
        ],
        [("n", ints(10**5))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_constants_that_grow(tmp_path, name):
    nodes, constants = BOMBS[name]
    path = written(tmp_path / "m.onnx", [*nodes, END], constants)
    refused(path, "constants must have at most|do not fit")


def test_results_that_stay_add_up(tmp_path):
    nodes = [node("Neg", ["one"], [f"v{k}"]) for k in range(30)]
    path = written(tmp_path / "m.onnx", [*nodes, END], [("one", ONES), ("made", ONES)])
    refused(path, "constants must have at most")


def test_views_take_nothing(tmp_path):
    nodes = [node("Transpose", ["one"], [f"v{k}"]) for k in range(30)]
    nodes.append(node("Mul", ["one", "one"], ["made"]))
    path = written(tmp_path / "m.onnx", [*nodes, END], [("one", ONES)])
    assert fastrnn.onnx.load(path)(ONES)[0, 0] == 2


def test_time_is_bounded_where_nothing_is_kept(tmp_path):
    """A sum over all elements, again and again."""
    many = [
        node("ReduceSum", ["one"], [f"v{k}"], keepdims=0, name="") for k in range(1500)
    ]
    path = written(
        tmp_path / "m.onnx", [*many, END], [("one", ONES), ("made", ONES[0])]
    )
    refused(path, "computing constants must take no longer than")


def test_products_cost_what_they_cost(tmp_path):
    many = [node("MatMul", ["one", "one"], [f"v{k % 1}{k}"]) for k in range(9)]
    path = written(
        tmp_path / "m.onnx", [*many, END], [("one", ONES), ("made", ONES[0])]
    )
    refused(path, "computing constants must take no longer than")


def test_layers_that_share_their_weights_take_them_each(tmp_path):
    names = ["x", *(f"v{k}" for k in range(400)), "y"]
    nodes = [node("MatMul", [a, "one"], [b]) for a, b in itertools.pairwise(names)]
    path = written(tmp_path / "m.onnx", nodes, [("one", ONES)])
    refused(path, "the model must be no larger than what is stored")


def test_many_nodes_of_one_name(tmp_path):
    n = 1000
    names = ["x", *(f"v{k}" for k in range(n - 1)), "y"]
    nodes = [
        node("MatMul", [a, "one"], [b], name="same")
        for a, b in itertools.pairwise(names)
    ]
    path = written(tmp_path / "m.onnx", nodes, [("one", np.ones((1, 1), "f"))])
    assert len(fastrnn.onnx.load(path)._children) == n


# -- tensors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dims": [10**9], "raw_data": b"1234"}, "got 4 of 4,000,000,000 bytes"),
        ({"dims": [2**40, 2**40], "raw_data": b"1234"}, "got 4 of"),
        ({"dims": [-1], "raw_data": b"1234"}, r"got sizes \[-1\]"),
        ({"dims": [-1, -1], "raw_data": b"1234"}, r"got sizes \[-1, -1\]"),
        ({"dims": [2], "float_data": [1.0]}, "got 1 of 2 elements"),
        (
            {"dims": [1], "data_type": TensorProto.STRING},
            "of bool, integer or floating",
        ),
        ({"dims": [8], "data_type": TensorProto.INT4}, "got 0 of 4 elements"),
        (
            {"dims": [8], "data_type": TensorProto.FLOAT8E5M2},
            "of bool, integer or floating",
        ),
        ({"dims": [1], "data_type": 999}, "of bool, integer or floating"),
        ({"dims": [2**62, 0], "raw_data": b""}, "made"),
    ],
)
def test_tensors_that_are_not_whole(tmp_path, fields, message):
    tensor = TensorProto(name="made", **({"data_type": TensorProto.FLOAT} | fields))
    refused(written(tmp_path / "m.onnx", [END], [tensor]), message)


@pytest.fixture
def elsewhere(tmp_path):
    """A function that writes a model whose constant is in another file."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").write_bytes(bytes(range(64)))
    (tmp_path / "folder" / "data").write_bytes(bytes(range(64)))

    def write(location, dims=(16,), **entries):
        tensor = TensorProto(
            name="made",
            data_type=TensorProto.FLOAT,
            dims=dims,
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in {"location": location, **entries}.items():
            tensor.external_data.add(key=key, value=str(value))
        return written(tmp_path / "folder" / "m.onnx", [END], [tensor])

    return write


def test_data_beside_the_model(tmp_path, elsewhere, monkeypatch):
    expected = np.frombuffer(bytes(range(64)), "f")
    x = np.zeros((1, 16), "f")
    path = elsewhere("data")
    np.testing.assert_array_equal(fastrnn.onnx.load(path)(x)[0], expected)
    monkeypatch.chdir(tmp_path / "folder")
    np.testing.assert_array_equal(fastrnn.onnx.load("m.onnx")(x)[0], expected)
    path = elsewhere("./data", (4,), offset=16, length=16)
    made = fastrnn.onnx.load(path)(np.zeros((1, 4), "f"))
    np.testing.assert_array_equal(made[0], expected[4:8])


def test_data_of_others(tmp_path, elsewhere):
    folder = tmp_path / "folder"
    os.symlink(tmp_path / "secret", folder / "link")
    os.symlink(tmp_path, folder / "up")
    os.mkfifo(folder / "pipe")
    for location, message in (
        ("../secret", "which is not below the model's folder"),
        ("x/../../secret", "which is not below the model's folder"),
        (tmp_path / "secret", "which is not below the model's folder"),
        ("/dev/zero", "which is not below the model's folder"),
        ("", "which is not below the model's folder"),
        ("link", "behind a link"),
        ("up/secret", "behind a link"),
        ("pipe", "must be a regular file, got a pipe"),
        (".", "Is a directory|must be"),
        ("none", "No such file"),
    ):
        refused(elsewhere(location), message)


def test_data_beyond_its_file(elsewhere):
    for dims, entries, message in (
        ((17,), {}, "got bytes 0 to 68 of a file of 64"),
        ((16,), {"offset": 1}, "got bytes 1 to 65 of a file of 64"),
        ((16,), {"offset": -1}, "got bytes -1 to 63 of a file of 64"),
        ((16,), {"offset": 10**30}, "of a file of 64"),
        ((16,), {"offset": "x"}, "invalid literal"),
        ((16,), {"length": 60}, "got 60 of 64 bytes"),
        ((10**12,), {}, "of a file of 64"),
    ):
        refused(elsewhere("data", dims, **entries), message)


def test_data_that_many_tensors_share(tmp_path):
    (tmp_path / "data").write_bytes(bytes(10**6))
    tensors = []
    for k in range(100):
        tensor = TensorProto(name=f"t{k}", data_type=TensorProto.FLOAT, dims=[250_000])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="data")
        tensors.append(tensor)
    path = written(tmp_path / "m.onnx", [node("Neg", ["x"], ["y"])], tensors)
    with pytest.raises(ValueError, match="constants must have at most"):
        fastrnn.onnx.load(path)


# -- functions and graphs --------------------------------------------------------------


def function(name, nodes):
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("own", 1)]
    return onnx.helper.make_function("own", name, ["a"], ["b"], nodes, opsets)


def call(name, a, b):
    return node(name, [a], [b], domain="own")


def test_functions_that_grow(tmp_path):
    """Each calls the one before it twice."""
    functions = [function("f0", [node("Neg", ["a"], ["b"])])]
    functions += [
        function(f"f{k}", [call(f"f{k - 1}", "a", "c"), call(f"f{k - 1}", "c", "b")])
        for k in range(1, 40)
    ]
    path = written(tmp_path / "m.onnx", [call("f39", "x", "y")], functions=functions)
    refused(path, "functions: constants must have at most")
    path = written(tmp_path / "m.onnx", [call("f3", "x", "y")], functions=functions)
    assert fastrnn.onnx.load(path)([[1.0]]) == 1


@pytest.mark.parametrize("names", [["f0"], ["f0", "f1", "f2"]])
def test_functions_that_call_themselves(tmp_path, names):
    functions = [
        function(name, [call(names[(k + 1) % len(names)], "a", "b")])
        for k, name in enumerate(names)
    ]
    path = written(tmp_path / "m.onnx", [call("f0", "x", "y")], functions=functions)
    refused(path, "must not call itself")


def test_functions_too_deep(tmp_path):
    functions = [function("f0", [node("Neg", ["a"], ["b"])])]
    functions += [
        function(f"f{k}", [call(f"f{k - 1}", "a", "b")]) for k in range(1, 9999)
    ]
    path = written(tmp_path / "m.onnx", [call("f9998", "x", "y")], functions=functions)
    refused(path, "functions must be at most 64 deep")


def test_a_function_with_a_graph_of_its_own(tmp_path):
    inner = onnx.helper.make_graph(
        [node("Neg", ["a"], ["c"])], "g", [], [onnx.ValueInfoProto(name="c")]
    )
    body = [node("If", ["a"], ["b"], then_branch=inner, else_branch=inner)]
    functions = [function("f", body)]
    path = written(tmp_path / "m.onnx", [call("f", "x", "y")], functions=functions)
    refused(path, "operator If is not one of those that can be run: it has a graph")
    # One that is not called is in nobody's way.
    path = written(
        tmp_path / "m.onnx", [node("Neg", ["x"], ["y"])], functions=functions
    )
    assert fastrnn.onnx.load(path)([[1.0]]) == -1


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Neg", ["y"], ["z"]), node("Neg", ["z"], ["y"])], "must be made before"),
        (
            [node("Neg", ["x"], ["y"]), node("Abs", ["x"], ["y"])],
            "made once, got y again",
        ),
        ([node("Neg", ["x"], ["one"]), node("Abs", ["x"], ["y"])], "got one again"),
        ([node("Cast", ["one"], ["y"], to=TensorProto.STRING)], "cast to numbers"),
        ([node("Cast", ["one"], ["y"], to=999)], "must be an ONNX file"),
        ([node("Concat", ["one"], ["y"], axis=2**62)], "do not fit"),
        ([node("Unsqueeze", ["one", "big"], ["y"])], "do not fit"),
        ([node("Slice", ["one", "big", "big"], ["y"])], "do not fit"),
        ([node("Split", ["one", "big"], ["y"])], "sizes and axes must be at most 1024"),
    ],
)
def test_graphs_that_do_not_fit(tmp_path, nodes, message):
    constants = [("one", np.ones((2, 2), "f")), ("big", np.full(5000, 2**62))]
    refused(written(tmp_path / "m.onnx", nodes, constants), message)


def test_an_operator_that_the_opset_does_not_have_yet(tmp_path):
    path = written(tmp_path / "m.onnx", [node("Gelu", ["x"], ["y"])])
    refused(path, "operator Gelu is not one of opset 17")


def test_files_that_are_none(tmp_path):
    path = tmp_path / "m.onnx"
    for data in (b"", b"\x07 no", b"\x0a" * 1000, b"\x3a\x03" * 50_000):
        path.write_bytes(data)
        refused(path, "must be")


def test_names_show_nothing_that_acts(tmp_path):
    name = "\x1b[2J"
    path = written(tmp_path / "m.onnx", [node("Neg", ["x"], [name])], outputs=[name])
    assert repr(fastrnn.onnx.load(path)) == "Graph(x -> \\x1b[2J)"
    path = written(tmp_path / "m.onnx", [node("Conv", ["x"], ["y"], name=name)])
    refused(path, r"\\x1b\[2J")
