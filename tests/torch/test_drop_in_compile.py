# SPDX-License-Identifier: BSD-3-Clause
"""torch.compile without a graph break; tracing, scripting, export, ONNX."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import twins  # noqa: E402
from torch_nets import Net, assert_close, gradients  # noqa: E402

import fastrnn.torch  # noqa: E402

# What PyTorch's tracers warn of is not ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
LAYERS = ("LSTM", "GRU", "RNN")


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("LSTM", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
        ("GRU", {"num_layers": 2}),
        ("RNN", {}),
    ],
)
def test_one_graph(rng, name, options):
    """Values, gradients, inference; other sizes do not compile again each."""
    net = Net(name, **options)
    torch._dynamo.utils.counters.clear()  # of what other tests have compiled
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    for T, B in ((4, 2), (7, 3), (9, 5), (5, 8)):
        x = twins.draw(rng, T, B, 3)
        assert_close(gradients(net, compiled, x), gradients(net, net, x))
        with torch.no_grad():
            assert_close([compiled(x)], [net(x)])
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    torch._dynamo.utils.counters.clear()
    assert graphs <= 6  # with and without gradients: fixed sizes, then any


def test_inductor(rng):
    net = Net("GRU", num_layers=2, dropout=0.5)
    compiled = torch.compile(net.eval(), fullgraph=True)
    x = twins.draw(rng, 4, 2, 3)
    assert_close(gradients(net, compiled, x), gradients(net, net, x))


def test_dropout_is_drawn_anew(rng):
    net = Net("LSTM", num_layers=2, dropout=0.5)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    x = twins.draw(rng, 4, 2, 3)
    assert not torch.equal(compiled(x), compiled(x))
    torch.manual_seed(1)
    got = gradients(net, compiled, x)
    torch.manual_seed(1)
    assert_close(got, gradients(net, net, x))


@pytest.mark.parametrize("name", ["LSTMCell", "GRUCell", "RNNCell"])
@pytest.mark.parametrize("shape", [(2, 3), (3,)])
def test_cells(rng, name, shape):
    cell, x = getattr(fastrnn.torch, name)(3, 5), twins.draw(rng, *shape)
    compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")

    def run(call):
        h = call(x)
        return twins.flat(call(x, h))[0]

    assert_close(
        gradients(cell, lambda _: run(compiled), x),
        gradients(cell, lambda _: run(cell), x),
    )


@pytest.mark.parametrize("proj_size", [0, 2])
def test_an_unbatched_input_and_a_state(rng, proj_size):
    layer = fastrnn.torch.LSTM(3, 5, proj_size=proj_size)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    shapes = (4, 3), (1, proj_size or 5), (1, 5)
    x, h, c = (twins.draw(rng, *shape) for shape in shapes)
    assert_close(twins.flat(compiled(x, (h, c))), twins.flat(layer(x, (h, c))))


def test_a_packed_sequence_compiles_around_the_layer(rng):
    layer = fastrnn.torch.GRU(3, 5)
    compiled = torch.compile(layer, backend="aot_eager")
    x = twins.packed(twins.draw(rng, 5, 4, 3), "packed", False)
    assert_close(twins.flat(compiled(x)), twins.flat(layer(x)))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("given", [False, True])
def test_a_single_step_is_pytorchs_operators(rng, name, given):
    """Which the compiler fuses, where one operator of ours costs more than it gains."""
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    layer = getattr(fastrnn.torch, name)(3, 5, **options)
    x, h = twins.draw(rng, 4, 1, 3), twins.draw(rng, 4, 4, 5)
    hx = None if not given else (h, 2 * h) if name == "LSTM" else h
    seen = []

    def backend(graph, inputs):
        seen.append(str(graph.graph))
        return graph

    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    assert_close(twins.flat(compiled(x, hx)), twins.flat(layer(x, hx)))
    assert "fastrnn" not in seen[0]
    if not given:  # without a batch, too
        assert_close(twins.flat(compiled(x[0])), twins.flat(layer(x[0])))
        compiled(x.expand(4, 2, 3))
        assert "fastrnn" in seen[-1]


@pytest.mark.parametrize("name", ["LSTMCell", "GRUCell", "RNNCell"])
def test_cells_are_pytorchs_operators(rng, name):
    cell, seen = getattr(fastrnn.torch, name)(3, 5), []

    def backend(graph, inputs):
        seen.append(str(graph.graph))
        return graph

    torch.compile(cell, fullgraph=True, backend=backend)(twins.draw(rng, 2, 3))
    assert "fastrnn" not in seen[0]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("how", ["bfloat16", "autocast"])
def test_what_pytorch_runs_is_outside_of_the_graph(rng, name, how):
    """As PyTorch's own layers are: its compiler cannot train an LSTM in bfloat16."""
    layer, x = getattr(fastrnn.torch, name)(3, 5), twins.draw(rng, 4, 2, 3)
    if how == "bfloat16":
        layer, x = layer.bfloat16(), x.bfloat16()
    compiled = torch.compile(layer)
    with torch.autocast("cpu", enabled=how == "autocast"):
        y, want = compiled(x)[0], layer(x)[0]
    assert y.dtype == want.dtype
    assert torch.allclose(y, want, atol=1e-2)
    y.float().sum().backward()
    assert layer.weight_hh_l0.grad is not None


def test_bad_input_in_compiled_code():
    compiled = torch.compile(fastrnn.torch.LSTM(3, 5), backend="aot_eager")
    with pytest.raises(Exception, match=r"input_size. Expected 3, got 2"):
        compiled(torch.zeros(4, 2, 2))


@pytest.mark.parametrize("options", [{}, {"proj_size": 2}, {"bias": False}])
def test_operators_keep_their_promises(rng, options):
    x = twins.draw(rng, 4, 2, 3).requires_grad_()
    weights = list(fastrnn.torch.LSTM(3, 5, 2, **options).parameters())
    args = (x, None, None, weights, "LSTM", 2, False, False, False, 0.0, True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(fastrnn.torch._operator.recurrence, args, test_utils=checks)


def test_the_compiler_is_not_imported_for_us():
    code = (
        "import sys, fastrnn.torch, torch\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "m = fastrnn.torch.LSTM(3, 5)\n"
        "f = torch.compile(m, fullgraph=True, backend='eager')\n"
        "f(torch.zeros(4, 2, 3))\n"
        "import torch._dynamo\n"
        "assert not torch._dynamo.config.allow_rnn\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_traces_and_scripts_need_no_fastrnn(rng, tmp_path):
    x, want = twins.draw(rng, 4, 2, 3), {}
    for name in LAYERS:
        net = Net(name)
        torch.jit.trace(net, x).save(tmp_path / f"{name}.traced.pt")
        torch.jit.script(net).save(tmp_path / f"{name}.scripted.pt")
        want[name] = net(x).detach()
    torch.save((x, want), tmp_path / "want.pt")
    code = (
        "import torch, sys\n"
        "x, want = torch.load('want.pt')\n"
        "for name, y in want.items():\n"
        "    for how in ('traced', 'scripted'):\n"
        "        net = torch.jit.load(f'{name}.{how}.pt')\n"
        "        assert torch.allclose(net(x), y, atol=1e-5), (name, how)\n"
        "assert 'fastrnn' not in sys.modules\n"
    )
    args = [sys.executable, "-W", "ignore", "-c", code]
    subprocess.run(args, check=True, cwd=tmp_path)


@pytest.mark.parametrize("strict", [False, True])
def test_export(rng, strict):
    net, x = Net("LSTM", num_layers=2), twins.draw(rng, 4, 2, 3)
    program = torch.export.export(net, (x,), strict=strict)
    assert "fastrnn" not in str(program.graph)
    assert_close([program.module()(x)], [net(x)])


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
def test_onnx(rng, name, dynamo, options, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    net, x = Net(name, **options).eval(), twins.draw(rng, 4, 2, 3)
    path = str(tmp_path / "net.onnx")
    torch.onnx.export(net, (x,), path, dynamo=dynamo)
    model = onnx.load(path)
    if not (
        dynamo and name == "RNN"
    ):  # PyTorch's exporter writes that one step by step
        operators = [node.op_type for node in model.graph.node]
        assert operators.count(name) == net.layer.num_layers
    session = runtime.InferenceSession(path)
    (got,) = session.run(None, {model.graph.input[0].name: x.numpy()})
    assert_close([torch.tensor(got)], [net(x).detach()])
