# SPDX-License-Identifier: BSD-3-Clause
"""Autocast to bfloat16 where the CPU multiplies it: PyTorch's from a size on."""

import copy
import platform
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import twins  # noqa: E402

import fastrnn.torch  # noqa: E402
from fastrnn.torch import _autocast, explain  # noqa: E402


@pytest.fixture
def unit(monkeypatch):
    """Let the CPU have a unit for bfloat16, or none, and the kernels use AMX or not."""

    def have(name, tiles=False):
        monkeypatch.setattr(_autocast, "bfloat16_unit", lambda: name)
        monkeypatch.setattr(_autocast, "has_tiles", lambda: tiles)

    return have


def way(module, x, train=True):
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.set_grad_enabled(train):
        return explain(module, x).name


# kind, T, B, H, the way of inference and of training with AMX
CASES = [
    ("LSTM", 20, 64, 512, "PyTorch", "PyTorch"),
    ("LSTM", 20, 16, 128, "PyTorch", "PyTorch"),
    ("LSTM", 20, 4, 256, "PyTorch", "fastrnn"),
    ("LSTM", 20, 2, 512, "fastrnn", "fastrnn"),
    ("LSTM", 100, 8, 64, "PyTorch", "fastrnn"),
    ("LSTM", 20, 8, 64, "fastrnn", "fastrnn"),
    ("LSTM", 100, 32, 32, "PyTorch", "PyTorch"),
    ("GRU", 4, 64, 512, "PyTorch", "PyTorch"),
    ("GRU", 4, 16, 512, "PyTorch", "fastrnn"),
    ("GRU", 4, 64, 128, "fastrnn", "fastrnn"),
    ("RNN", 4, 32, 512, "PyTorch", "PyTorch"),
    ("RNN", 4, 64, 128, "fastrnn", "fastrnn"),
]


@pytest.mark.parametrize(("kind", "T", "B", "H", "inference", "training"), CASES)
def test_layers_by_size(unit, kind, T, B, H, inference, training):
    layer = getattr(fastrnn.torch, kind)(8, H, batch_first=True)
    x = torch.zeros(B, T, 8)
    unit("amx")
    assert (way(layer, x, False), way(layer, x)) == (inference, training)
    frozen = layer.requires_grad_(False)
    assert way(frozen, x) == inference  # nothing is trained
    unit(None)
    assert (way(layer, x, False), way(layer, x)) == ("fastrnn", "fastrnn")


@pytest.mark.parametrize(
    ("kind", "T", "B", "H", "inference", "training"),
    [
        ("LSTM", 20, 64, 512, "PyTorch", "AMX"),
        ("LSTM", 10, 16, 64, "AMX", "AMX"),
        ("LSTM", 20, 4, 512, "PyTorch", "kernels"),
        ("GRU", 4, 64, 512, "AMX", "AMX"),
        ("RNN", 4, 64, 128, "AMX", "AMX"),
        ("RNN", 4, 64, 8, "kernels", "kernels"),
        ("GRU", 20, 2, 512, "kernels", "kernels"),
    ],
)
def test_layers_by_size_with_tiles(unit, kind, T, B, H, inference, training):
    unit("amx", tiles=True)
    layer, x = getattr(fastrnn.torch, kind)(8, H), torch.zeros(T, B, 8)
    for train, want in ((False, inference), (True, training)):
        with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(train):
            path = explain(layer, x)
        assert path.name == ("PyTorch" if want == "PyTorch" else "fastrnn")
        assert path.reason.endswith("bfloat16 on AMX") == (want == "AMX")


@pytest.mark.skipif(not _autocast.has_tiles(), reason="no AMX here")
@pytest.mark.parametrize("in_weights", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_tiles_are_as_near_to_float64_as_pytorch(kind, in_weights):
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(64, 64)
    x, dy = torch.randn(30, 32, 64), torch.randn(30, 32, 64)
    ours = getattr(fastrnn.torch, kind)(64, 64)
    ours.load_state_dict(theirs.state_dict())
    exact = copy.deepcopy(theirs).double()
    if in_weights:
        theirs, ours = theirs.bfloat16(), ours.bfloat16()
        exact.load_state_dict(ours.state_dict())
    errors = []
    for module, autocast in ((exact, False), (theirs, True), (ours, True)):
        given = x.to(next(module.parameters()).dtype)
        on = autocast and not in_weights
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            if module is ours:
                assert explain(module, given).reason.endswith("bfloat16 on AMX")
            y, _ = module(given)
        y.backward(dy.to(y.dtype))
        found = y.double().detach(), module.weight_hh_l0.grad.double()
        if module is exact:
            want = found
        else:
            errors.append(
                [
                    ((a - b).norm() / b.norm()).item()
                    for a, b in zip(found, want, strict=True)
                ]
            )
    (their_y, their_dR), (our_y, our_dR) = errors
    assert our_y < max(6e-3, 1.2 * their_y)
    assert our_dR < max(8e-3, 1.2 * their_dR)


def test_cells_packs_and_other_types(unit):
    unit("amx")
    for kind, H, name in (
        ("LSTMCell", 128, "fastrnn"),
        ("GRUCell", 256, "PyTorch"),
        ("RNNCell", 16, "PyTorch"),
    ):
        assert way(getattr(fastrnn.torch, kind)(4, H), torch.zeros(8, 4)) == name
    lstm, x = fastrnn.torch.LSTM(4, 256), torch.zeros(20, 32, 4)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, [20] * 31 + [19])
    assert (way(lstm, x), way(lstm, packed)) == ("PyTorch", "fastrnn")
    assert way(lstm, x[:, 0]) == "fastrnn"  # one row
    with torch.autocast("cpu", dtype=torch.float16):
        assert explain(lstm, x).name == "fastrnn"
    unit("avx512_bf16")
    assert way(lstm, x) == "PyTorch"
    assert way(fastrnn.torch.LSTM(4, 128), x) == "fastrnn"
    assert way(fastrnn.torch.GRU(4, 512), x) == "fastrnn"


@pytest.mark.filterwarnings("ignore:.*mkldnn.*:UserWarning")
def test_the_call_is_pytorchs_own(unit, rng, monkeypatch):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN has no bfloat16 LSTM for this processor, nor has PyTorch")
    unit("amx")
    theirs, ours = twins.pair("LSTM")
    x = twins.draw(rng, 20, 16, twins.I)
    monkeypatch.setattr(_autocast, "_FUSED_UNITS", {True: 1})
    monkeypatch.setattr(fastrnn.torch._stack, "forward", None)  # not to be called
    found = []
    for module in (theirs, ours):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, (h, c) = module(x)
        y.float().sum().backward()
        found.append([y, h, c, *[p.grad for p in module.parameters()]])
    for got, want in zip(*found, strict=True):
        assert got.dtype == want.dtype
        assert torch.equal(got, want)


def test_the_unit_is_read_from_pytorch_or_the_system(monkeypatch, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "model name\t: A\nflags\t\t: fpu avx512_bf16 amx_tile\n\nflags\t: x\n"
    )
    assert _autocast._features_from(cpuinfo) == {"fpu", "avx512_bf16", "amx_tile"}
    assert _autocast._features_from(tmp_path / "none") == set()
    cpuinfo.write_text("processor\t: 0\n")
    assert _autocast._features_from(cpuinfo) == set()
    look = _autocast.bfloat16_unit.__wrapped__
    for has, want in (
        ({"amx_bf16": True, "avx512_bf16": True}, "amx"),
        ({"amx_bf16": False, "avx512_bf16": True}, "avx512_bf16"),
        ({"architecture": "aarch64"}, None),
    ):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda has=has: has, raising=False
        )
        assert look() == want
    system = Path("/proc/cpuinfo")
    if platform.machine() == "x86_64" and system.exists():
        monkeypatch.undo()
        with_pytorch = look()
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
        assert look() == with_pytorch


@pytest.mark.parametrize("lengths", [[5, 5, 5], [5, 3, 2]])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "tanh"])
def test_types_of_packed_sequences_are_pytorchs(unit, kind, lengths):
    """PyTorch runs an LSTM over sequences of one length as one operator, packed too."""
    unit(None)
    theirs, ours = twins.pair(kind)
    x = torch.randn(5, 3, twins.I)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        (a, of_a), (b, of_b) = theirs(packed), ours(packed)
    assert a.data.dtype is b.data.dtype
    for one, other in zip(
        of_a if kind == "LSTM" else [of_a],
        of_b if kind == "LSTM" else [of_b],
        strict=True,
    ):
        assert one.dtype is other.dtype


def test_a_type_that_options_are_not_for_changes_nothing():
    module = fastrnn.torch.layers.LSTM(4, 5, compute="bfloat16")
    x = torch.ones(3, 2, 4)
    want = module(x)[0]
    assert "products of bfloat16" in explain(module, x).reason
    with pytest.raises(ValueError, match="compute='bfloat16' is not for"):
        module.double()
    assert torch.equal(module(x)[0], want)
