# SPDX-License-Identifier: BSD-3-Clause
"""Our models as ONNX: valid files, ONNX Runtime's numbers, our bits on the way back."""

import itertools

import numpy as np
import pytest
import tolerances
from peers import close

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime, the judge, is not installed")

import onnx_files  # noqa: E402

import fastrnn  # noqa: E402
import fastrnn.onnx  # noqa: E402
from fastrnn.keras import Activation  # noqa: E402
from fastrnn.nn.activation import FUNCTIONS as LAYERS  # noqa: E402
from fastrnn.onnx import _recurrent  # noqa: E402

T, B, I, H = 5, 4, 3, 6
CELLS = {"tanh": ("RNN", 1), "relu": ("RNN", 1), "lstm": ("LSTM", 4), "gru": ("GRU", 3)}
GRID = list(itertools.product((1, 3), (False, True), (False, True), (True, False)))


def build(cell, **options):
    kind, _ = CELLS[cell]
    if kind == "RNN":
        options["nonlinearity"] = cell
    return getattr(fastrnn, kind)(I, H, **options).eval()


def check(path):
    """The file is valid, to the last inferred shape."""
    onnx.checker.check_model(onnx.load(path), full_check=True)


@pytest.mark.parametrize(
    ("num_layers", "bidirectional", "batch_first", "bias"), GRID, ids=str
)
@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_layers(
    tmp_path, rng, cell, num_layers, bidirectional, batch_first, bias
):
    layer = build(
        cell,
        num_layers=num_layers,
        bidirectional=bidirectional,
        batch_first=batch_first,
        bias=bias,
        seed=1,
    )
    path = tmp_path / "layer.onnx"
    fastrnn.onnx.save(layer, path, states=True)
    check(path)
    D = 1 + bidirectional
    names = ["h0", "c0"] if cell == "lstm" else ["h0"]
    graph = fastrnn.onnx.load(path)
    # Free axes: two sizes of both.
    for length, rows in ((T, B), (T + 3, 1)):
        shape = (rows, length, I) if batch_first else (length, rows, I)
        x = rng.standard_normal(shape).astype("f")
        states = [
            rng.standard_normal((num_layers * D, rows, H)).astype("f") for _ in names
        ]
        y, end = layer(x, tuple(states) if cell == "lstm" else states[0])
        ours = (y, *end) if cell == "lstm" else (y, end)
        theirs = onnx_files.run(path, {"x": x, **dict(zip(names, states, strict=True))})
        n_terms = tolerances.chain_terms(
            length, rows, I, H, CELLS[cell][1], num_layers, D
        )
        for one, other, again in zip(ours, theirs, graph(x, *states), strict=True):
            close(one, other, n_terms)
            assert np.array_equal(one, again)


FUNCTIONS = sorted(_recurrent.FUNCTIONS)
STACK = {"num_layers": 2, "bidirectional": True}
OPTIONS = [
    *(("RNN", {"activation": name}) for name in FUNCTIONS),
    ("RNN", {"activation": ("affine", 0.5, 0.25), "bidirectional": True}),
    ("RNN", {"nonlinearity": "relu", "cell_clip": 0.5}),
    ("RNN", {"activation": "identity"}),
    ("LSTM", {"peephole": True, **STACK}),
    ("LSTM", {"peephole": True, "bias": False}),
    ("LSTM", {"input_forget": True, **STACK}),
    ("LSTM", {"input_forget": True, "recurrent_activation": ["tanh", "elu", "tanh"]}),
    ("LSTM", {"cell_clip": 0.3, "forget_bias": 1.0}),
    ("LSTM", {"activation": [("scaled_tanh", 0.9, 0.8), "softsign"], **STACK}),
    ("LSTM", {"recurrent_activation": ("hard_sigmoid", 1 / 6)}),
    (
        "LSTM",
        {
            "peephole": True,
            "input_forget": True,
            "cell_clip": 1.0,
            "activation": ["softplus", ("leaky_relu", 0.3)],
            "recurrent_activation": "hard_sigmoid",
            "go_backwards": True,
        },
    ),
    ("GRU", {"reset_after": False, **STACK}),
    ("GRU", {"reset_after": False, "cell_clip": 0.3, "activation": ("elu", 0.5)}),
    ("GRU", {"recurrent_activation": "softsign", "activation": "affine"}),
    ("GRU", {"go_backwards": True}),
    ("LSTM", {"go_backwards": True, "num_layers": 2}),
    ("RNN", {"return_sequences": False}),
    ("LSTM", {"return_sequences": False, **STACK}),
    ("GRU", {"return_sequences": False, "go_backwards": True, "num_layers": 2}),
    *(("GRU", {"merge_mode": mode, **STACK}) for mode in ("sum", "mean", "ave", "mul")),
    ("LSTM", {"merge_mode": "mul", "bidirectional": True}),
    *(
        ("LSTM", {"merge_mode": mode, "return_sequences": False, **STACK})
        for mode in ("sum", "ave", "mul")
    ),
    ("RNN", {"connection": "residual", "num_layers": 3}),
    ("GRU", {"connection": "residual", "num_layers": 2, "return_sequences": False}),
    (
        "LSTM",
        {
            "connection": "residual",
            "num_layers": 2,
            "return_sequences": False,
            "go_backwards": True,
        },
    ),
    ("GRU", {"connection": "residual", "merge_mode": "ave", **STACK}),
    ("LSTM", {"clip_state_grad": 1.0, "checkpoint_every": 2}),
]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
def test_options(tmp_path, rng, kind, options, states, batch_first):
    layer = getattr(fastrnn, kind)(I, H, batch_first=batch_first, seed=3, **options)
    for array in layer.parameters.values():
        array[...] = rng.uniform(-0.6, 0.6, array.shape)
    x = rng.standard_normal((T, B, I)).astype("f")
    compare(tmp_path / "layer.onnx", rng, layer, x, states)


def compare(path, rng, layer, x, states, exact=True, n_terms=500):
    """A layer, its file in ONNX Runtime and its file read by us."""
    layer.eval()
    fastrnn.onnx.save(layer, path, states=states)
    check(path)
    x = x.swapaxes(0, 1) if layer.batch_first else x
    hx, given = None, {"x": x}
    if states:
        n = layer.num_layers * layer._directions
        widths = {"h0": layer._h_size, "c0": layer.hidden_size}
        for name in list(widths)[: layer._states]:
            given[name] = rng.standard_normal((n, B, widths[name])).astype("f")
        hx = (given["h0"], given["c0"]) if "c0" in given else given["h0"]
    y, end = layer(x, hx)
    end = end if isinstance(end, tuple) else (end,)
    graph = fastrnn.onnx.load(path)
    again = graph(**given)
    theirs = onnx_files.run(path, given)
    again = again if states else [again]
    for one, other, mine in zip((y, *end)[: len(again)], theirs, again, strict=True):
        close(one, other, n_terms)
        close(one, mine, n_terms)
        assert not exact or np.array_equal(one, mine)


@pytest.mark.parametrize("options", [{}, STACK, {"go_backwards": True}], ids=str)
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("states", [False, True])
def test_projections(tmp_path, rng, options, states, sequences):
    """Folded into R: not the same bits, and a state is found back by least squares."""
    layer = fastrnn.LSTM(
        I, H, proj_size=3, return_sequences=sequences, seed=4, **options
    )
    x = rng.standard_normal((T, B, I)).astype("f")
    path = tmp_path / "layer.onnx"
    compare(path, rng, layer, x, states, exact=False, n_terms=5000)
    if states:
        layer.parameters["weight_hr_l0"][1] = layer.parameters["weight_hr_l0"][0]
        with pytest.raises(ValueError, match="whose rows are linearly independent"):
            fastrnn.onnx.save(layer, path, states=True)


@pytest.mark.parametrize("merge_mode", ["concat", "sum"])
def test_highways(tmp_path, rng, merge_mode):
    """The gate's sigmoid is the kernels' in our layer, NumPy's in a graph."""
    width = H if merge_mode == "sum" else 2 * H
    layer = fastrnn.GRU(
        width, H, 3, bidirectional=True, merge_mode=merge_mode, connection="highway"
    )
    x = rng.standard_normal((T, B, width)).astype("f")
    compare(tmp_path / "layer.onnx", rng, layer, x, states=False, exact=False)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_learned_states(tmp_path, rng, kind, batch_first):
    for options in ({}, {"proj_size": 3} if kind == "LSTM" else STACK):
        layer = getattr(fastrnn, kind)(
            I, H, learn_initial_state=True, batch_first=batch_first, seed=5, **options
        )
        for name in ("h_0", "c_0"):
            if name in layer.parameters:
                array = layer.parameters[name]
                array[...] = rng.standard_normal(array.shape)
        x = rng.standard_normal((T, B, I)).astype("f")
        compare(
            tmp_path / "layer.onnx", rng, layer, x, False,
            exact="proj_size" not in options, n_terms=5000,
        )  # fmt: skip


def test_a_stateful_layer_is_one_whose_state_the_caller_keeps(tmp_path, rng):
    layer = fastrnn.GRU(I, H, stateful=True, seed=6).eval()
    path = tmp_path / "layer.onnx"
    fastrnn.onnx.save(layer, path, states=True)
    h = np.zeros((1, B, H), "f")
    for _ in range(3):
        x = rng.standard_normal((T, B, I)).astype("f")
        y, h = onnx_files.run(path, {"x": x, "h0": h})
        close(layer(x)[0], y, 500)


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_wrapped_layers(tmp_path, rng, merge_mode, sequences, batch_first):
    inner = fastrnn.LSTM(
        I, H, batch_first=batch_first, return_sequences=sequences, seed=7
    )
    body = fastrnn.Bidirectional(inner, merge_mode)
    width = 2 * H if merge_mode == "concat" else H
    head = fastrnn.Linear(width, 2, seed=8)
    if sequences:
        head = fastrnn.TimeDistributed(head)
    model = fastrnn.Sequential(body, head).eval()
    path = tmp_path / "model.onnx"
    fastrnn.onnx.save(model, path)
    check(path)
    shape = onnx.load(path).graph.output[0].type.tensor_type.shape
    axes = ["B", "T"] if sequences else ["B"]  # a model's, whatever its layers say
    assert [one.dim_param for one in shape.dim][:-1] == axes
    x = rng.standard_normal((B, T, I)).astype("f")
    y = model(x)
    close(y, onnx_files.run(path, {"x": x})[0], 500)
    assert np.array_equal(fastrnn.onnx.load(path)(x), y)


@pytest.mark.parametrize("opset", [14, 17, None])
@pytest.mark.parametrize("cell", CELLS)
def test_without_states(tmp_path, rng, cell, opset):
    opset = opset or onnx.defs.onnx_opset_version()
    layer = build(cell, num_layers=2, bidirectional=True, seed=2)
    path = tmp_path / "layer.onnx"
    fastrnn.onnx.save(layer, path, opset=opset)
    check(path)
    assert onnx.load(path).opset_import[0].version == opset
    x = rng.standard_normal((T, B, I)).astype("f")
    y, _ = layer(x)
    graph = fastrnn.onnx.load(path)
    assert graph.inputs == ("x",)
    assert graph.outputs == ("y",)
    assert np.array_equal(graph(x), y)
    if opset <= 17:  # ONNX Runtime is behind the newest at times
        close(y, onnx_files.run(path, {"x": x})[0], 500)


def network(dtype="float32", batch_first=False):
    return fastrnn.Sequential(
        fastrnn.Embedding(11, 5, dtype=dtype, seed=1),
        fastrnn.LSTM(
            5, H, 2, bidirectional=True, dropout=0.5, seed=2, dtype=dtype,
            batch_first=batch_first,
        ),
        fastrnn.Dropout(0.5),
        fastrnn.Sequential(
            fastrnn.GRU(2 * H, H, seed=3, dtype=dtype, batch_first=batch_first),
            fastrnn.Linear(H, 4, seed=4, dtype=dtype),
        ),
        Activation("tanh"),
        fastrnn.Linear(4, 3, bias=False, seed=5, dtype=dtype),
        Activation("softmax"),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_whole_network(tmp_path, rng, batch_first):
    model = network(batch_first=batch_first)
    path = tmp_path / "network.onnx"
    fastrnn.onnx.save(model, path)
    check(path)
    proto = onnx.load(path)
    dims = [d.dim_param for d in proto.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["B", "T"]
    graph = fastrnn.onnx.load(path)
    for shape in ((5, 4), (2, 7)):
        x = rng.integers(0, 11, shape)
        y = model(x)
        assert y.shape == (*shape, 3)
        close(y, onnx_files.run(path, {"x": x})[0], 500)
        assert np.array_equal(graph(x), y)


def test_states_of_layers_in_a_network(tmp_path, rng):
    """Two windows with the state carried over are one sequence."""
    model = fastrnn.Sequential(
        fastrnn.LSTM(I, H, 2, bias=False, seed=1),
        fastrnn.GRU(H, H, seed=2),
        fastrnn.Linear(H, 2, seed=3),
    ).eval()
    path = tmp_path / "network.onnx"
    fastrnn.onnx.save(model, path, states=True)
    check(path)
    graph = fastrnn.onnx.load(path)
    assert graph.inputs == ("x", "0.h0", "0.c0", "1.h0")
    assert graph.outputs == ("y", "0.h_n", "0.c_n", "1.h_n")
    x = rng.standard_normal((B, 8, I)).astype("f")
    state = [np.zeros((n, B, H), "f") for n in (2, 2, 1)]
    first, *state = graph(x[:, :3], *state)
    second, *_ = graph(x[:, 3:], *state)
    assert np.array_equal(np.concatenate([first, second], 1), model(x))
    named = dict(zip(graph.inputs[1:], state, strict=True))
    close(second, onnx_files.run(path, {"x": x[:, 3:], **named})[0], 500)


def test_float64_bits(tmp_path, rng):
    model = network("float64")
    fastrnn.onnx.save(model, tmp_path / "network.onnx")
    check(tmp_path / "network.onnx")
    graph = fastrnn.onnx.load(tmp_path / "network.onnx")
    x = rng.integers(0, 11, (5, 4))
    assert graph(x).dtype == np.float64
    assert np.array_equal(graph(x), model(x))


def test_one_layer_in_two_places(tmp_path, rng):
    layer = fastrnn.GRU(H, H, seed=1)
    model = fastrnn.Sequential(layer, fastrnn.Linear(H, H, seed=2), layer).eval()
    fastrnn.onnx.save(model, tmp_path / "network.onnx")
    x = rng.standard_normal((T, B, H)).astype("f")
    found = onnx_files.run(tmp_path / "network.onnx", {"x": x})[0]
    close(model(x), found, 500)


@pytest.mark.parametrize("function", LAYERS)
def test_activations_and_free_axes(tmp_path, rng, function):
    model = fastrnn.Sequential(fastrnn.Linear(3, 4, seed=1), Activation(function))
    path = tmp_path / "network.onnx"
    for axes, shape in ((None, (5, 3)), (("a", "b", "c"), (2, 3, 4, 3))):
        fastrnn.onnx.save(model, path, axes=axes)
        check(path)
        x = rng.standard_normal(shape).astype("f")
        y = model(x)
        close(y, onnx_files.run(path, {"x": x})[0], 10)
        assert np.array_equal(fastrnn.onnx.load(path)(x), y)


@pytest.mark.parametrize(
    ("kind", "options", "states", "message"),
    [
        ("RNN", {"activation": "gelu"}, False, "must be among affine, .*got 'gelu'"),
        ("GRU", {"activation": "hard_tanh"}, False, "got 'hard_tanh'"),
        (
            "LSTM",
            {"recurrent_activation": ["sigmoid", "tanh", "sigmoid"]},
            False,
            "recurrent_activation must be one function for all gates",
        ),
        (
            "GRU",
            {"recurrent_activation": [("elu", 0.5), "elu"]},
            False,
            "recurrent_activation must be one function for all gates",
        ),
        (
            "GRU",
            {"connection": "residual", "return_sequences": False, **STACK},
            False,
            "return_sequences must be True with a connection and both directions",
        ),
        ("LSTM", {"stateful": True}, False, "stateful must be False with states=False"),
        (
            "GRU",
            {"learn_initial_state": True},
            True,
            "learn_initial_state must be False with states=True, got True",
        ),
    ],
)
def test_options_that_are_none_of_onnx(tmp_path, kind, options, states, message):
    layer = fastrnn.Sequential(getattr(fastrnn, kind)(2, 3, **options))
    with pytest.raises(ValueError, match=f"fastrnn.onnx.save: layer '0': .*{message}"):
        fastrnn.onnx.save(layer, tmp_path / "model.onnx", states=states)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"eps": 0.1}], ids=str)
def test_normalised_layers(tmp_path, rng, options):
    norm = fastrnn.LayerNorm(H, **options)
    for array in norm.parameters.values():
        array[...] = rng.standard_normal(H)
    plain = fastrnn.LayerNorm(H, elementwise_affine=False)
    model = fastrnn.Sequential(
        fastrnn.TimeDistributed(plain), fastrnn.GRU(H, H, seed=1), norm
    ).eval()
    path = tmp_path / "model.onnx"
    fastrnn.onnx.save(model, path)
    check(path)
    x = rng.standard_normal((T, B, H)).astype("f")
    y = model(x)
    close(y, onnx_files.run(path, {"x": x})[0], 500)
    close(y, fastrnn.onnx.load(path)(x), 500)
    with pytest.raises(ValueError, match="layer '0': a LayerNorm needs opset 17, got"):
        fastrnn.onnx.save(model, path, opset=16)


class Own(fastrnn.LSTM):
    """A subclass may compute anything."""


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (
            Own(2, 3),
            {},
            ValueError,
            "layer 'model' must be one of RNN, LSTM, .*got Own",
        ),
        (
            fastrnn.Sequential(fastrnn.Linear(2, 3), Own(3, 2)),
            {},
            ValueError,
            "layer '1' must be one of",
        ),
        (fastrnn.Sequential(), {}, ValueError, "must have a layer with weights"),
        (fastrnn.Dropout(0.5), {}, ValueError, "must have a layer with weights"),
        (
            fastrnn.Sequential(fastrnn.Embedding(2, 3), fastrnn.Embedding(2, 3)),
            {},
            ValueError,
            "layer '1': an Embedding must come first",
        ),
        (
            fastrnn.Sequential(
                fastrnn.GRU(2, 3, return_sequences=False), fastrnn.GRU(3, 3)
            ),
            {},
            ValueError,
            "layer '1': a recurrent layer must come before one with return_sequences",
        ),
        (fastrnn.GRU(2, 3), {"opset": 13}, ValueError, r"opset must be in \[14, "),
        (fastrnn.GRU(2, 3), {"opset": 999}, ValueError, "got 999"),
        (fastrnn.GRU(2, 3), {"opset": "17"}, TypeError, "opset must be an integer"),
        (fastrnn.GRU(2, 3), {"states": 1}, TypeError, "states must be True or False"),
        (fastrnn.GRU(2, 3), {"axes": "TB"}, TypeError, "axes must be a tuple of names"),
        (None, {}, ValueError, "got NoneType"),
    ],
)
def test_what_is_not_written(tmp_path, model, options, error, message):
    path = tmp_path / "model.onnx"
    with pytest.raises(error, match=f"fastrnn.onnx.save: .*{message}"):
        fastrnn.onnx.save(model, path, **options)
    assert not path.exists()


def test_an_option_that_is_not_known_is_refused(tmp_path, monkeypatch):
    """An option that layers gain later must not be left out of a file in silence."""
    init = fastrnn.GRU.__init__

    def with_option(self, *args, twist=0, **kwargs):
        init(self, *args, **kwargs)
        self.twist = twist

    monkeypatch.setattr(fastrnn.GRU, "__init__", with_option)
    fastrnn.onnx.save(fastrnn.GRU(2, 3), tmp_path / "plain.onnx")
    with pytest.raises(ValueError, match="layer 'model': twist must be 0, got 1"):
        fastrnn.onnx.save(fastrnn.GRU(2, 3, twist=1), tmp_path / "model.onnx")


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'fastrnn\[onnx\]'"):
        fastrnn.onnx.save(fastrnn.GRU(2, 3), tmp_path / "model.onnx")
    with pytest.raises(ImportError, match=r"fastrnn.onnx.load: needs the package onnx"):
        fastrnn.onnx.load(tmp_path / "model.onnx")
