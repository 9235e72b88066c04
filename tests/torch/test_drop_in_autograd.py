# SPDX-License-Identifier: BSD-3-Clause
"""Autograd's own judges, what it saves, and what it does not have to compute."""

import itertools
import os

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import twins  # noqa: E402

import fastrnn.torch  # noqa: E402
from fastrnn.torch import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell  # noqa: E402

double = torch.float64
LAYERS = {
    "LSTM": lambda **o: LSTM(2, 3, dtype=double, **o),
    "GRU": lambda **o: GRU(2, 3, dtype=double, **o),
    "RNN": lambda **o: RNN(2, 3, dtype=double, **o),
    "projected": lambda **o: LSTM(2, 3, dtype=double, proj_size=2, **o),
}
# Jacobians in a random direction each; in full, element by element, they take minutes.
FAST = os.environ.get("FASTRNN_EXHAUSTIVE") != "1"


def function(module, form="dense", seed=None):
    """A module as a function of x and its parameters, of all of them together."""

    def run(x, *parameters):
        if seed is not None:
            torch.manual_seed(seed)
        if form == "packed":
            x = twins.pack_padded_sequence(x, torch.tensor([3, 1]))
        return tuple(twins.flat(module(x)))

    return run


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("form", ["dense", "packed"])
def test_gradcheck(rng, name, form):
    module = LAYERS[name](num_layers=2, bidirectional=True, dropout=0.3)
    x = twins.draw(rng, 3, 2, 2, dtype=double).requires_grad_()
    assert torch.autograd.gradcheck(
        function(module, form, seed=1), (x, *module.parameters()), fast_mode=FAST
    )


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("form", ["dense", "packed"])
def test_gradgradcheck(rng, name, form):
    module = LAYERS[name](num_layers=2, dropout=0.3, batch_first=form == "dense")
    x = twins.draw(rng, 3, 2, 2, dtype=double).requires_grad_()
    assert torch.autograd.gradgradcheck(
        function(module, form, seed=1), (x, *module.parameters()), fast_mode=FAST
    )


@pytest.mark.parametrize("cls", [LSTMCell, GRUCell, RNNCell])
def test_cells_twice(rng, cls):
    cell = cls(2, 3, dtype=double)
    x, h = (twins.draw(rng, 2, n, dtype=double).requires_grad_() for n in (2, 3))

    def run(x, h, *parameters):
        return cell(x, (h, 2 * h) if cls is LSTMCell else h)

    inputs = (x, h, *cell.parameters())
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=FAST)


def test_second_derivatives_of_the_state(rng):
    module = LSTM(2, 3, 2, bidirectional=True, dtype=double)
    x = twins.draw(rng, 2, 2, 2, dtype=double).requires_grad_()
    h, c = (twins.draw(rng, 4, 2, 3, dtype=double).requires_grad_() for _ in range(2))

    def run(x, h, c):
        return twins.flat(module(x, (h, c)))[1:]

    assert torch.autograd.gradgradcheck(
        lambda *a: tuple(run(*a)), (x, h, c), fast_mode=FAST
    )


@pytest.mark.parametrize("what", ["x", "h0", "c0", "weight"])
def test_writing_to_what_is_saved_raises(rng, what):
    module = LSTM(3, 5)
    x, h0, c0 = (twins.draw(rng, *s) for s in ((4, 2, 3), (1, 2, 5), (1, 2, 5)))
    y, _ = module(x, (h0, c0))
    saved = {"x": x, "h0": h0, "c0": c0, "weight": module.weight_hh_l0}
    with torch.no_grad():
        saved[what].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_the_graph_may_be_used_again(rng):
    module = GRU(3, 5, 2)
    x = twins.draw(rng, 4, 2, 3).requires_grad_()
    y, _ = module(x)
    y.sum().backward(retain_graph=True)
    first = x.grad.clone()
    y.sum().backward()
    assert torch.equal(x.grad, 2 * first)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.sum().backward()


def test_weights_written_behind_autograds_back(rng):
    """``.data`` and NumPy change a tensor without its version."""
    theirs, ours = twins.pair("LSTM")
    x = twins.draw(rng, 4, 2, 3)

    def compare():
        theirs.load_state_dict(ours.state_dict())
        with torch.no_grad():
            twins.assert_same("y", ours(x)[0], theirs(x)[0], "float32", 100)

    for _ in range(3):
        compare()
    ours.weight_hh_l0.data.mul_(3)
    compare()
    ours.bias_ih_l0.data += 1
    compare()
    ours.weight_ih_l0.detach().numpy()[:] = 0.5
    compare()
    ours.weight_ih_l0.data = torch.ones(24, 3)
    compare()
    ours.weight_hh_l0 = torch.nn.Parameter(torch.ones(24, 6))
    compare()


def test_backward_belongs_to_its_forwards_weights(rng):
    """A detour through other weights leaves nothing behind."""
    ours = GRU(3, 5)
    x = twins.draw(rng, 4, 2, 3).requires_grad_()
    ours(x)[0].sum().backward()
    want, x.grad = x.grad, None
    y, _ = ours(x)
    before = ours.weight_ih_l0.detach().clone()
    ours.weight_ih_l0.data.mul_(2)
    y.sum().backward()
    ours.weight_ih_l0.data.copy_(before)
    x.grad = None
    ours(x)[0].sum().backward()
    assert torch.equal(x.grad, want)


@pytest.fixture
def computed(monkeypatch):
    """Which weights' gradients each call of the backward kernel was asked for."""
    calls = []
    tensors = fastrnn.torch._stack.tensors

    class Watched:
        """A plan, with an eye on what backward gets."""

        def __init__(self, *args, plan=tensors.TensorPlan):
            self.plan = plan(*args)

        def __getattr__(self, name):
            return getattr(self.plan, name)

        def backward(self, *args):
            calls.append([into is not None for into in args[-1]])
            self.plan.backward(*args)

    monkeypatch.setattr(tensors, "TensorPlan", Watched)
    return calls


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("kind", twins.LAYERS)
def test_parts_that_want_no_gradient(rng, computed, kind):
    """They get none, and the kernels compute none."""
    theirs, ours = twins.pair(kind)
    x = twins.draw(rng, 4, 2, 3)
    names = [name for name, _ in ours.named_parameters()]
    for wanted in itertools.product((False, True), repeat=len(names)):
        if not any(wanted):
            continue
        computed.clear()
        found = []
        for module in (theirs, ours):
            module.zero_grad()
            for name, want in zip(names, wanted, strict=True):
                module.get_parameter(name).requires_grad_(want)
            module(x)[0].square().sum().backward()
            found.append([module.get_parameter(name).grad for name in names])
        twins.assert_all_same(names, *found[::-1], "float32", 200)
        assert computed == [list(wanted)]


def test_nothing_is_recorded_without_need(rng):
    module = LSTM(3, 5).requires_grad_(False)
    x = twins.draw(rng, 4, 2, 3)
    assert module(x)[0].grad_fn is None
    assert module(x.requires_grad_())[0].grad_fn is not None
    with torch.no_grad():
        y, _ = module(x)
        assert y.grad_fn is None
    with torch.inference_mode():
        inner, _ = module(x)
        assert inner.is_inference()
        assert torch.equal(inner, y)


def test_only_some_outputs_are_used(rng):
    theirs, ours = twins.pair("LSTM", num_layers=2, bidirectional=True)
    x = twins.draw(rng, 4, 2, 3)
    for which in range(3):
        found = []
        for module in (theirs, ours):
            module.zero_grad()
            twins.flat(module(x))[which].square().sum().backward()
            found.append([p.grad for p in module.parameters()])
        names = [name for name, _ in ours.named_parameters()]
        for name, got, want in zip(names, *found[::-1], strict=True):
            want = torch.zeros_like(got) if want is None else want
            twins.assert_same(name, got, want, "float32", 200)


STRIDED = {
    "expanded over the batch": lambda x: x[:, :1].expand(-1, 4, -1),
    "expanded over time": lambda x: x[:1].expand(5, -1, -1),
    "every second step": lambda x: x[::2],
    "some columns": lambda x: x.repeat(1, 1, 2)[..., 1:4],
    "a transposed batch": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "features outermost": lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    "every second column": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "negated lazily": lambda x: torch._neg_view(x),
}


@pytest.mark.parametrize("form", STRIDED)
@pytest.mark.parametrize("batch_first", [False, True])
def test_inputs_of_any_layout(rng, form, batch_first):
    theirs, ours = twins.pair("GRU", batch_first=batch_first)
    base = twins.draw(rng, 5, 4, 3)
    found = []
    for module in (theirs, ours):
        module.zero_grad()
        (leaf,) = twins.leaves([base])
        x = STRIDED[form](leaf)
        y, _ = module(x)
        # The gradient of a sum is expanded, that of this is strided.
        (y[..., ::2].sum() + y.sum()).backward()
        found.append([y, leaf.grad, *[p.grad for p in module.parameters()]])
    names = ["y", "dx", *[name for name, _ in ours.named_parameters()]]
    twins.assert_all_same(names, *found[::-1], "float32", 300)


def test_strided_states_and_gradients_of_states(rng):
    theirs, ours = twins.pair("LSTM")
    x, h, c = (twins.draw(rng, *s) for s in ((5, 4, 3), (1, 6, 4), (1, 1, 6)))
    found = []
    for module in (theirs, ours):
        module.zero_grad()
        lx, lh, lc = twins.leaves([x, h, c])
        y, (h_n, c_n) = module(lx, (lh.transpose(1, 2), lc.expand(1, 4, 6)))
        (h_n.sum() + c_n[..., 1].sum()).backward()
        found.append([y, lx.grad, lh.grad, lc.grad])
    twins.assert_all_same(["y", "dx", "dh", "dc"], *found[::-1], "float32", 300)
