# SPDX-License-Identifier: BSD-3-Clause
"""Modules of ours in graphs of torch.fx and in classes of TorchScript."""

import pickle

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import twins  # noqa: E402
from torch import fx  # noqa: E402

import fastrnn.torch  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated")
LAYERS = ["LSTM", "GRU", "RNN"]
CELLS = ["LSTMCell", "GRUCell", "RNNCell"]


class Net(torch.nn.Module):
    """A layer or a cell with a state that was computed, between two other layers."""

    def __init__(self, name, library=fastrnn.torch):
        super().__init__()
        self.first = torch.nn.Linear(3, 3)
        self.inner = torch.nn.ModuleList([getattr(library, name)(3, 5)])
        self.last = torch.nn.Linear(5, 2)
        self.name = name

    def forward(self, x, h):
        hx = (h, torch.tanh(h)) if self.name.startswith("LSTM") else h
        y = self.inner[0](self.first(x), hx)
        return self.last(y if self.name in ("GRUCell", "RNNCell") else y[0])


def arguments(rng, name):
    x, h = twins.draw(rng, 4, 2, 3), twins.draw(rng, 1, 2, 5)
    return (x, h) if name in LAYERS else (x[0], h[0])


class OfTorchAlone(fx.Tracer):
    """A tracer that decides by itself what a leaf is."""

    def is_leaf_module(self, m, module_qualified_name):
        return type(m).__module__.startswith("torch.nn")


@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
@pytest.mark.parametrize("tracer", [fx.Tracer, OfTorchAlone])
def test_a_layer_is_one_node(rng, name, tracer):
    net, args = Net(name), arguments(rng, name)
    graph = tracer().trace(net)
    traced = fx.GraphModule(net, graph)
    nodes = [n for n in graph.nodes if n.target == "inner.0"]
    assert [n.op for n in nodes] == ["call_module"]
    assert type(traced.get_submodule("inner.0")) is getattr(fastrnn.torch, name)
    assert torch.equal(traced(*args), net(*args))
    assert torch.equal(pickle.loads(pickle.dumps(traced))(*args), net(*args))
    traced(*args).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_the_graph_is_that_of_pytorchs_layer():
    graphs = [
        fx.symbolic_trace(torch.nn.Sequential(library.LSTM(4, 5))).graph
        for library in (torch.nn, fastrnn.torch)
    ]
    assert str(graphs[0]) == str(graphs[1])
    stacks = [
        [n.meta.get("nn_module_stack") for n in graph.nodes if n.op == "call_module"]
        for graph in graphs
    ]
    assert [list(s) for s in stacks[0]] == [list(s) for s in stacks[1]]


def test_a_layer_alone_is_refused_as_pytorchs_is():
    for library in (torch.nn, fastrnn.torch):
        with pytest.raises(fx.proxy.TraceError):
            fx.symbolic_trace(library.LSTM(4, 5))


def test_hooks_run_once(rng):
    net, args = Net("GRU"), arguments(rng, "GRU")
    net.inner[0].register_forward_hook(lambda module, args, out: (2 * out[0], out[1]))
    assert torch.equal(fx.symbolic_trace(net)(*args), net(*args))
    with pytest.raises(RuntimeError, match=r"traces into inner\.0, which has forward"):
        OfTorchAlone().trace(net)


def test_a_forward_of_its_own_is_traced_into_and_ours_refused():
    """A node would run that forward, and what it did was in the graph already."""
    for base in (torch.nn.GRU, fastrnn.torch.GRU):

        class Doubled(base):
            def forward(self, input, hx=None):
                return super().forward(2 * input, hx)

        with pytest.raises(fx.proxy.TraceError):
            fx.symbolic_trace(torch.nn.Sequential(Doubled(3, 5)))


def test_symbolic_tracing_does_not_see_into_accelerated_layers(rng):
    net, args = Net("LSTM", torch.nn), arguments(rng, "LSTM")
    want = net(*args)
    traced = fx.symbolic_trace(fastrnn.torch.accelerate(net, verbose=False))
    twins.assert_same("y", traced(*args), want, "float32", 100)


def scripted(name, library):
    """A ScriptModule of a class of the user's, with a layer in it and in a child."""
    torch.manual_seed(0)
    inner = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh())
    inner.layer = getattr(library, name)(3, 3)
    kept = inner.layer

    class Scripted(torch.jit.ScriptModule):
        def __init__(self):
            super().__init__()
            self.layer = getattr(library, name)(3, 5)
            self.same = self.layer
            self.inner = inner

        @torch.jit.script_method
        def forward(self, x):
            y = self.inner[1](self.inner[0](x))
            return self.layer(self.inner.layer(y)[0])[0] + self.same(x)[0]

    class ScriptedCells(torch.jit.ScriptModule):
        def __init__(self):
            super().__init__()
            self.cell = getattr(library, name)(3, 5)

        @torch.jit.script_method
        def forward(self, x):
            return self.cell(x[0])

    made = ScriptedCells() if name in CELLS else Scripted()
    assert inner.layer is kept  # what the user holds is as it was
    assert type(kept) is getattr(library, name)
    return made


@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
def test_script_modules_hold_layers(rng, name, tmp_path):
    x = twins.draw(rng, 4, 2, 3)
    theirs, ours = (scripted(name, library) for library in (torch.nn, fastrnn.torch))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    for got, want in zip(twins.flat(ours(x)), twins.flat(theirs(x)), strict=True):
        assert torch.equal(got, want)
    torch.jit.save(ours, tmp_path / "net.pt")
    for got, want in zip(
        twins.flat(torch.jit.load(tmp_path / "net.pt")(x)),
        twins.flat(theirs(x)),
        strict=True,
    ):
        assert torch.equal(got, want)


def test_parameters_of_a_script_module_are_those_of_the_layer():
    layer = fastrnn.torch.GRU(3, 5)

    class Scripted(torch.jit.ScriptModule):
        def __init__(self):
            super().__init__()
            self.layer = layer

        @torch.jit.script_method
        def forward(self, x):
            return self.layer(x)[0]

    made, x = Scripted(), torch.ones(4, 2, 3)
    with torch.no_grad():
        layer.weight_hh_l0.zero_()
        twins.assert_same("y", made(x), layer(x)[0], "float32", 100)
