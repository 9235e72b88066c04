# SPDX-License-Identifier: BSD-3-Clause
"""What `accelerate` prints, `explain` of models, and tools that ask for exact types."""

import copy

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import twins  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

import fastrnn.torch  # noqa: E402
from fastrnn.torch import accelerate, explain, restore  # noqa: E402

# What PyTorch warns of in old parts of itself is not ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


def report(model, capsys):
    """What is printed, without the line that says when to call `restore`."""
    accelerate(model)
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("fastrnn.torch: ") for line in lines)
    lines = [line.removeprefix("fastrnn.torch: ") for line in lines]
    replaced = [line for line in lines if line.startswith("replaced ")]
    assert [line.startswith("restore(model) before") for line in lines].count(
        True
    ) == bool(replaced)
    return lines[: len(lines) - bool(replaced)]


def test_something_is_printed_where_nothing_is_replaced(capsys):
    nothing = " has no torch.nn.RNN, LSTM, GRU or cell of these"
    assert report(torch.nn.Linear(2, 3), capsys) == ["Linear" + nothing]
    assert report(torch.nn.Sequential(), capsys) == ["Sequential" + nothing]
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), fastrnn.torch.GRU(2, 3))
    assert report(model, capsys) == ["left 1: GRU(2, 3): it is fastrnn's already"]
    model = torch.nn.Sequential(
        torch.jit.script(torch.nn.Sequential(torch.nn.GRU(2, 3)))
    )
    (line,) = report(model, capsys)
    assert line.startswith("left 0.0: RecursiveScriptModule(")
    assert line.endswith(
        "torch.jit has compiled it; accelerate the model that it was made from"
    )
    traced = torch.jit.trace(torch.nn.LSTM(2, 3), torch.zeros(4, 1, 2))
    assert report(traced, capsys)[0].endswith("the model that it was made from")
    model = torch.nn.Sequential(torch.nn.GRU(2, 3)).eval()
    frozen = torch.jit.freeze(torch.jit.script(model))
    assert report(torch.nn.Sequential(frozen), capsys) == [
        "Sequential" + nothing + " to be seen: it holds what torch.jit has compiled"
    ]


def test_what_pytorch_runs_all_the_same(capsys):
    weights = ", but PyTorch runs it: "
    half = torch.nn.Sequential(torch.nn.LSTM(2, 3), torch.nn.GRUCell(3, 2)).half()
    assert report(half, capsys) == [
        "replaced 0: LSTM(2, 3)" + weights + "its weights are torch.float16",
        "replaced 1: GRUCell(3, 2)" + weights + "its weights are torch.float16",
    ]
    half = torch.nn.Sequential(torch.nn.LSTM(2, 3)).bfloat16()
    assert report(half, capsys) == ["replaced 0: LSTM(2, 3)"]
    with torch.device("meta"):
        layer = torch.nn.RNN(2, 3)
    assert report(layer, capsys) == [
        "replaced the model itself: RNN(2, 3)" + weights + "a weight is on meta"
    ]
    assert report(torch.nn.GRU(2, 3).double(), capsys) == [
        "replaced the model itself: GRU(2, 3)"
    ]
    x = torch.zeros(4, 1, 2)
    assert explain(half.float()[0], x).name == "fastrnn"  # what it was replaced for


class Model(torch.nn.Module):
    """Layers that are given different things."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3)
        self.encoder = torch.nn.LSTM(3, 4, batch_first=True)
        self.cells = torch.nn.ModuleList(
            [torch.nn.GRUCell(4, 4), torch.nn.RNNCell(4, 4)]
        )
        self.unused = torch.nn.GRU(4, 4)
        self.low = torch.nn.GRU(4, 4).bfloat16()
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x):
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        y, (h, _) = self.encoder(input=x)
        h = self.cells[0](y[:, 0], hx=h[0])
        h = self.cells[1](self.drop(h))
        return h, self.low(y.bfloat16())


def test_explain_of_a_model(rng):
    model, x = Model(), twins.draw(rng, 4, 7, 3)
    model.cells[0], model.low = (
        accelerate(part, verbose=False) for part in (model.cells[0], model.low)
    )
    accelerate(model.encoder, verbose=False)
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    paths = explain(model, x)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert paths == {
        "encoder": ("fastrnn", "float32 on the CPU"),
        "cells.0": ("fastrnn", "float32 on the CPU"),
        "cells.1": ("PyTorch", "RNNCell is not one of fastrnn.torch's modules"),
        "unused": ("PyTorch", "it was not called"),
        "low": ("fastrnn", "bfloat16 on the CPU"),
    }
    assert str(paths).splitlines()[0] == "encoder: fastrnn: float32 on the CPU"
    assert not model.encoder._forward_pre_hooks


def test_explain_of_a_layer_called_in_two_ways(rng):
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = fastrnn.torch.GRU(3, 3)

        def forward(self, x):
            y, _ = self.layer(x)
            with torch.autocast("cpu", enabled=False):
                return torch.func.jvp(lambda x: self.layer(x)[0], (y,), (y,))

    paths = explain(Twice(), twins.draw(rng, 5, 2, 3))
    assert paths["layer"].name == "PyTorch"
    assert paths["layer"].reason == (
        "fastrnn: float32 on the CPU; and "
        "PyTorch: a torch.func transform (vmap, grad, jvp ...) is active"
    )
    with pytest.raises(RuntimeError, match="Expected 3, got 2"):
        explain(Twice(), torch.zeros(5, 2, 2))  # the model's error is the model's


def test_explain_of_compiled_modules(rng):
    x = twins.draw(rng, 5, 4, 3)
    layer = fastrnn.torch.GRU(3, 6)
    whole = "float32 on the CPU as one operator of compiled code"
    assert explain(torch.compile(layer), x) == ("fastrnn", whole)
    packed = twins.packed(x, "packed", False)
    assert explain(torch.compile(layer), packed) == ("fastrnn", "float32 on the CPU")
    fused = ("PyTorch", "the compiler fuses a single step with what is around it")
    assert explain(torch.compile(fastrnn.torch.GRUCell(3, 6)), x[0]) == fused
    assert explain(torch.compile(layer), x[:1]) == fused
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), layer)
    assert explain(torch.compile(model), x) == {"1": ("fastrnn", whole)}
    inside = torch.nn.Sequential(torch.compile(model))
    assert explain(inside, x) == {"0.1": ("fastrnn", whole)}
    layer.compile()
    assert explain(layer, x) == ("fastrnn", whole)
    assert explain(torch.compile(torch.nn.GRU(3, 6)), x).name == "PyTorch"


def test_explain_says_what_it_takes():
    says = (
        "explain: module must be a recurrent layer or cell, or a model that holds some"
    )
    for module in (torch.nn.Linear(2, 3), torch.nn.Sequential(), "model"):
        kind = type(module).__name__
        with pytest.raises(TypeError, match=f"^{says}, got {kind}$"):
            explain(module, torch.zeros(1, 2))


def test_explain_of_a_forward_set_on_the_object(rng):
    layer, x = fastrnn.torch.GRU(3, 6), twins.draw(rng, 5, 4, 3)
    layer.forward = lambda input: input
    assert explain(layer, x) == ("PyTorch", "its forward was set on the object")


def test_dynamic_quantisation_after_restore(rng):
    """PyTorch looks for its own type exactly; `accelerate` says so."""
    from torch.ao.nn.quantized import dynamic

    x = twins.draw(rng, 5, 4, 3)
    model = accelerate(torch.nn.Sequential(torch.nn.LSTM(3, 6)), verbose=False)
    want, _ = model(x)
    quantised = torch.ao.quantization.quantize_dynamic(restore(model), {torch.nn.LSTM})
    assert type(quantised[0]) is dynamic.LSTM
    assert torch.allclose(quantised(x)[0], want, atol=0.05)
    assert "quantize_dynamic" in accelerate.__doc__


def test_pruning_needs_no_restore(rng):
    x, layer = twins.draw(rng, 5, 4, 3), torch.nn.GRU(3, 6)
    prune.l1_unstructured(layer, "weight_hh_l0", amount=0.5)
    want, _ = layer(x)
    accelerate(layer, verbose=False)
    assert explain(layer, x).name == "fastrnn"
    assert torch.allclose(layer(x)[0], want, atol=1e-6)
    prune.remove(layer, "weight_hh_l0")
    assert torch.allclose(layer(x)[0], want, atol=1e-6)


def test_explain_says_what_a_container_without_a_forward_lacks():
    layers = torch.nn.ModuleList([fastrnn.torch.GRU(3, 5)])
    with pytest.raises(TypeError, match=r"must have a forward, .*ModuleList .*: 0$"):
        explain(layers, torch.zeros(4, 2, 3))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_explain_runs_a_model_that_cannot_be_copied():
    layer = torch.nn.utils.weight_norm(fastrnn.torch.GRU(3, 5), "weight_hh_l0")
    model = torch.nn.Sequential(layer)
    found = explain(model, torch.zeros(4, 2, 3))
    assert found["0"].name in ("fastrnn", "PyTorch")
    assert not [h for h in layer._forward_pre_hooks_with_kwargs if h]
