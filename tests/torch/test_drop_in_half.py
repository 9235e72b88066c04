# SPDX-License-Identifier: BSD-3-Clause
"""bfloat16 on the kernels: by autocast with float32 weights, and in the weights."""

import half as judge
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import fastrnn  # noqa: E402
import fastrnn.torch  # noqa: E402
from fastrnn.torch import _autocast, explain  # noqa: E402

HALF = torch.bfloat16


@pytest.fixture(autouse=True)
def on_the_kernels(monkeypatch):
    """Leave no call to PyTorch because that has a unit for bfloat16 here."""
    monkeypatch.setattr(_autocast, "bfloat16_unit", lambda: None)


def layer(kind, **options):
    torch.manual_seed(0)
    return getattr(fastrnn.torch, kind)(5, 7, **options)


def weights_like(part):
    """What a loss multiplies an output by."""
    return torch.arange(part.numel()).view(part.shape).cos()


def trained(module, x):
    """All that a call and a backward give."""
    x = x.clone().requires_grad_()
    y, end = module(x)
    end = end if isinstance(end, tuple) else (end,)
    sum(
        (part * weights_like(part).to(part.dtype)).sum() for part in (y, *end)
    ).backward()
    return y, end, x.grad, [p.grad for p in module.parameters()]


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_autocast_rounds_operands(kind):
    module, x = layer(kind), torch.randn(6, 3, 5)
    own = getattr(fastrnn, kind)(5, 7, compute="bfloat16")
    own.load_state_dict({k: v.detach().numpy() for k, v in module.named_parameters()})
    expected = own.eval()(x.numpy())[0]
    with torch.autocast("cpu", HALF), torch.no_grad():
        y, _ = module(x)
        assert explain(module, x).name == "fastrnn"
    if y.dtype is HALF:
        expected = judge.rounded(expected)
    assert np.array_equal(y.float().numpy(), expected)
    with torch.no_grad():
        assert not np.array_equal(module(x)[0].numpy(), expected)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
def test_half_weights_have_pytorchs_types_and_gradients_rounded_once(kind, options):
    in_half = layer(kind, **options).to(HALF)
    x = torch.randn(6, 3, 5).to(HALF)
    assert explain(in_half, x).reason == "bfloat16 on the CPU"
    y, end, dx, grads = trained(in_half, x)
    assert {one.dtype for one in (y, *end, dx, *grads)} == {HALF}

    own = getattr(fastrnn, kind)(5, 7, compute="bfloat16", **options)
    values = in_half.state_dict()
    own.load_state_dict({k: v.float().numpy() for k, v in values.items()})
    expected, _ = own(x.float().numpy())
    dy, *d_end = [judge.rounded(weights_like(part).numpy()) for part in (y, *end)]
    expected_dx, _ = own.backward(dy, tuple(d_end) if len(d_end) > 1 else d_end[0])
    assert np.array_equal(y.detach().float().numpy(), judge.rounded(expected))
    assert np.array_equal(dx.float().numpy(), judge.rounded(expected_dx))
    for (name, _), grad in zip(in_half.named_parameters(), grads, strict=True):
        assert np.array_equal(grad.float().numpy(), judge.rounded(own.grads[name]))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_errors_against_float64(kind):
    module = layer(kind).to(HALF)
    exact = getattr(torch.nn, kind)(5, 7).double()
    exact.load_state_dict({k: v.double() for k, v in module.state_dict().items()})
    x = torch.randn(20, 9, 5).to(HALF)
    ours, theirs = trained(module, x), trained(exact, x.double())
    assert judge.distance(ours[0].detach().float(), theirs[0].detach()) < 4e-3
    for a, b in zip(ours[3], theirs[3], strict=True):
        assert judge.distance(a.float(), b) < 1e-2


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_cells(kind):
    torch.manual_seed(0)
    cell = getattr(fastrnn.torch, kind)(5, 7).to(HALF)
    exact = getattr(torch.nn, kind)(5, 7).double()
    exact.load_state_dict({k: v.double() for k, v in cell.state_dict().items()})
    x = torch.randn(3, 5).to(HALF)
    ours, theirs = cell(x), exact(x.double())
    ours, theirs = (h if isinstance(h, tuple) else (h,) for h in (ours, theirs))
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype is HALF
        assert judge.distance(a.detach().float(), b.detach()) < 4e-3


def test_weights_that_change_are_packed_again():
    module = layer("LSTM").to(HALF)
    x = torch.randn(6, 3, 5).to(HALF)
    with torch.no_grad():
        first = module(x)[0]
        module.weight_hh_l0 *= 2
        assert not torch.equal(module(x)[0], first)
        module.weight_hh_l0 /= 2
        assert torch.equal(module(x)[0], first)


def test_what_does_not_fit_is_pytorchs_to_refuse():
    module = layer("LSTM").to(HALF)
    with pytest.raises(ValueError, match="type"):
        module(torch.randn(6, 3, 5))
