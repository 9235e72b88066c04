# SPDX-License-Identifier: BSD-3-Clause
"""What goes to PyTorch's implementation does, with its results; `explain` says so."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import twins  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import fastrnn.torch  # noqa: E402
from fastrnn.torch import explain  # noqa: E402


@pytest.fixture
def spied(monkeypatch):
    """How often the kernels ran a stack forward."""
    calls = []
    forward = fastrnn.torch._stack.forward

    def counted(*args):
        calls.append(args)
        return forward(*args)

    monkeypatch.setattr(fastrnn.torch._stack, "forward", counted)
    return calls


@pytest.mark.parametrize("kind", twins.KINDS)
def test_the_kernels_run_what_they_should(spied, rng, kind):
    _, ours = twins.pair(kind, num_layers=2)
    x = twins.draw(rng, twins.T, twins.B, twins.I)
    for form in (x, x[:, 0], twins.packed(x, "packed", False)):
        assert explain(ours, form) == ("fastrnn", "float32 on the CPU")
        ours(form)
    assert len(spied) == 3
    ours.double()
    assert str(explain(ours, x.double())) == "fastrnn: float64 on the CPU"
    ours(x.double())
    assert len(spied) == 4
    _, cell = twins.pair(kind, twins.CELLS)
    assert explain(cell, x[0]) == ("fastrnn", "float32 on the CPU")
    cell(x[0])
    assert len(spied) == 5


def test_reasons(spied):
    lstm, x = fastrnn.torch.LSTM(3, 5), torch.zeros(4, 2, 3)
    cases = [
        (lstm, x.to("meta"), None, "the input is on meta"),
        (lstm, x.half(), None, "the input is torch.float16"),
        (lstm, x.double(), None, "a weight is torch.float32, not torch.float64"),
        (lstm, x[0, 0], None, "PyTorch refuses an input of shape (3,)"),
        (lstm, x[:0], None, "the input is empty"),
        (lstm, x.to_sparse(), None, "the input has layout torch.sparse_coo"),
        (lstm, x, x, "hx is not a pair"),
        (lstm, x, (x, x), "hx has shape (4, 2, 3), not (1, 2, 5)"),
        (
            fastrnn.torch.LSTM(3, 5, proj_size=2),
            x,
            (torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)),
            "hx has shape (1, 2, 2), not (1, 2, 5)",
        ),
        (torch.nn.LSTM(3, 5), x, None, "LSTM is not one of fastrnn.torch's modules"),
        (fastrnn.torch.GRUCell(3, 5), x, None, "PyTorch refuses an input of shape"),
    ]
    for module, input, hx, reason in cases:
        path = explain(module, input, hx)
        assert path.name == "PyTorch"
        assert path.reason.startswith(reason)
    with pytest.raises(TypeError, match="explain: module must be a recurrent layer"):
        explain(torch.nn.Linear(2, 3), x)
    assert not spied


@pytest.mark.filterwarnings("ignore:.*script.*deprecated")
def test_transforms(spied, rng):
    theirs, ours = twins.pair("GRU")
    x = twins.draw(rng, 5, 4, 3)
    parameters = dict(ours.named_parameters())

    def loss(module, parameters, x):
        return torch.func.functional_call(module, parameters, (x,))[0].square().sum()

    got, want = (torch.func.grad(loss, 1)(m, parameters, x) for m in (ours, theirs))
    for name in parameters:
        assert torch.equal(got[name], want[name])
    batch = torch.stack([x, 2 * x])
    with pytest.raises(RuntimeError) as theirs_says:
        torch.vmap(lambda x: theirs(x)[0])(batch)
    with pytest.raises(RuntimeError) as ours_says:
        torch.vmap(lambda x: ours(x)[0])(batch)
    assert str(ours_says.value) == str(theirs_says.value)
    tangents = [
        torch.func.jvp(lambda x, m=m: m(x)[0], (x,), (x,)) for m in (ours, theirs)
    ]
    assert torch.equal(tangents[0][1], tangents[1][1])
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, x)
        assert explain(ours, dual).reason == "forward-mode differentiation is active"
        tangent = forward_ad.unpack_dual(ours(dual)[0]).tangent
        assert torch.equal(tangent, tangents[1][1])
    assert not spied


class Recorded(TorchDispatchMode):
    """What reaches the dispatcher."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.filterwarnings("ignore:.*script.*deprecated")
def test_what_a_call_like_one_before_may_not_hide(spied, rng):
    """Modes, classes and sizes are looked at in every call."""
    _, module = twins.pair("GRU")
    x, h = twins.draw(rng, 5, 4, 3), torch.zeros(1, 4, 6)
    for _ in range(3):
        module(x)
        module(x, h)
    before = len(spied)
    torch.func.grad(lambda x: module(x)[0].sum())(x)
    with forward_ad.dual_level():
        module(forward_ad.make_dual(x, x))
    with Recorded() as mode:
        module(x)
    assert "addmm" in mode.names
    module(x.as_subclass(type("Marked", (torch.Tensor,), {})))
    with pytest.raises(RuntimeError, match=r"Expected hidden size \(1, 4, 6\)"):
        module(x, h[:, :3])
    with pytest.raises(
        RuntimeError, match="Expected sequence length to be larger than"
    ):
        module(x[:0])
    assert len(spied) == before
    with torch.autocast("cpu"):
        assert module(x)[0].dtype == torch.float32
    with torch.inference_mode():
        assert module(x)[0].is_inference()
    assert len(spied) == before + 2
    module.batch_first = True
    assert module(x)[1].shape == (1, 5, 6)
    with pytest.raises(RuntimeError, match=r"Expected hidden size \(1, 5, 6\)"):
        module(x, h)
    module.batch_first = False
    assert module(torch._neg_view(x))[0].equal(module(-x)[0])
    module.requires_grad_(False)
    assert module(x)[0].grad_fn is None
    module.requires_grad_(True)
    assert module(x)[0].grad_fn is not None
    module.weight_hh_l0.data = module.weight_hh_l0.detach().double()
    with pytest.raises(RuntimeError, match=r"[Dd]ouble"):
        module(x)


def test_a_weight_transposed_in_place_of_itself(rng):
    """The same memory, address, size and version; other strides."""
    theirs, ours = twins.pair("tanh")
    x = twins.draw(rng, 5, 4, 3)
    for _ in range(3):
        ours(x)
    for module in (theirs, ours):
        module.weight_hh_l0.data = module.weight_hh_l0.data.t()
    with torch.no_grad():
        twins.assert_same("y", ours(x)[0], theirs(x)[0], "float32", 100)


def test_functional_call_uses_the_weights_it_is_given(spied, rng):
    theirs, ours = twins.pair("LSTM")
    x = twins.draw(rng, 5, 4, 3)
    other = {name: 2 * p.detach() for name, p in ours.named_parameters()}
    found = [torch.func.functional_call(m, other, (x,))[0] for m in (ours, theirs)]
    twins.assert_same("y", *found, "float32", 100)
    assert len(spied) == 1


def test_subclasses(spied, rng):
    class Doubled(fastrnn.torch.LSTM):
        def forward(self, input, hx=None):
            return super().forward(2 * input, hx)

    module, x = Doubled(3, 5), twins.draw(rng, 5, 4, 3)
    assert explain(module, x) == (
        "fastrnn",
        "float32 on the CPU, where the forward of Doubled calls super().forward",
    )
    module(x)
    assert len(spied) == 1


def test_tensor_subclasses_see_pytorchs_operators(spied):
    class Marked(torch.Tensor):
        pass

    x = torch.zeros(5, 4, 3).as_subclass(Marked)
    module = fastrnn.torch.LSTM(3, 6)
    assert "Marked" in explain(module, x).reason
    assert type(module(x)[0]) is Marked
    assert not spied


def onednn_has(half):
    """Whether PyTorch's LSTM, which is oneDNN's, runs in this type here.

    What PyTorch says of the processor is no answer: some have the arithmetic, and
    oneDNN has no LSTM for them.
    """
    try:
        with torch.autocast("cpu", dtype=half):
            torch.nn.LSTM(3, 6)(torch.zeros(5, 4, 3))
    except RuntimeError as error:
        if "could not create a primitive" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", twins.LAYERS)
@pytest.mark.filterwarnings("ignore:.*mkldnn.*:UserWarning")
@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
def test_autocast(spied, rng, monkeypatch, kind, half):
    """float32 inside; outside PyTorch's types, and its values to half precision."""
    monkeypatch.setattr(fastrnn.torch._autocast, "bfloat16_unit", lambda: None)
    if kind == "LSTM" and not onednn_has(half):
        pytest.skip(f"oneDNN has no {half} LSTM for this processor, nor has PyTorch")
    x, h = twins.draw(rng, twins.T, twins.B, 3), twins.draw(rng, 2, twins.B, 6)
    modules = [twins.pair(kind, num_layers=2)]
    if kind in twins.CELLS:
        modules.append(twins.pair(kind, twins.CELLS))
    for dtype in (torch.float32, half):
        dense, state = x.to(dtype), h.to(dtype)
        states, cell_states = [state, state], [state[0], state[0]]
        if kind == "projected":
            states[0] = state[..., : twins.P]
        if kind not in ("LSTM", "projected"):
            states, cell_states = state, state[0]
        calls = []
        for hx, cell_hx in ((None, None), (states, cell_states)):
            calls += [(0, dense, hx), (0, twins.packed(dense, "packed", False), hx)]
            calls += [(1, dense[0], cell_hx)] * (len(modules) - 1)
        for which, input, state in calls:
            theirs, ours = modules[which]
            before = len(spied)
            with torch.autocast("cpu", dtype=half):
                want, got = (
                    twins.flat(theirs(input, state)),
                    twins.flat(ours(input, state)),
                )
                assert explain(ours, input, state).name == "fastrnn"
            assert len(spied) == before + 1
            for a, b in zip(got, want, strict=True):
                assert a.dtype == b.dtype
                assert torch.allclose(a.float(), b.float(), atol=0.05)
            ours.zero_grad()
            got[0].float().sum().backward()
            assert ours.get_parameter(next(iter(ours.state_dict()))).grad is not None
