# SPDX-License-Identifier: BSD-3-Clause
"""Sizes that come from data: malformed packs and operators called directly."""

import pytest

torch = pytest.importorskip("torch")

import fastrnn.torch  # noqa: E402
from fastrnn.torch import _operator, _path  # noqa: E402

Pack = torch.nn.utils.rnn.PackedSequence
KINDS = ("GRU", "LSTM", "RNN")


def ints(*values):
    return torch.tensor(values, dtype=torch.int64)


# rows, batch_sizes and, where there are any, sorted_indices and unsorted_indices
PACKS = {
    "more rows than there are": (5, ints(3, 3)),
    "far more": (5, ints(*[4000] * 1000)),
    "fewer": (9, ints(2, 1)),
    "an empty step": (5, ints(3, 2, 0)),
    "empty steps only": (5, ints(0, 0)),
    "an empty first step": (5, ints(0, 3)),
    "no row": (0, ints(0)),
    "growing": (5, ints(2, 3)),
    "growing from one": (3, ints(1, 2)),
    "negative": (5, ints(3, -1)),
    "negative first": (5, ints(-3, 1)),
    "no step": (5, ints()),
    "2^63 rows": (5, ints(2**63 - 1, 1)),
    "a sum that wraps around": (5, ints(2**62, 2**62, 2**62, 2**62, 5)),
    "int32": (5, torch.tensor([3, 2], dtype=torch.int32)),
    "float": (5, torch.tensor([3.0, 2.0])),
    "two dimensions": (5, ints(3, 2)[:, None]),
    "no dimension": (5, torch.tensor(3)),
    "right": (5, ints(3, 2)),
    "right and sorted": (5, ints(3, 2), ints(2, 0, 1), ints(1, 2, 0)),
    "indices outside": (5, ints(3, 2), ints(0, 1, 7), ints(0, 1, 2)),
    "too few indices": (5, ints(3, 2), ints(0, 1), ints(0, 1)),
    "too many indices": (5, ints(3, 2), ints(0, 1, 2, 0), ints(0, 1, 2, 0)),
    "an index twice": (5, ints(3, 2), ints(0, 0, 0), ints(0, 0, 0)),
    "a negative index": (5, ints(3, 2), ints(0, 1, -2), ints(0, 1, -2)),
    "float indices": (5, ints(3, 2), torch.tensor([0.0, 1.0, 2.0]), None),
    "only one kind of indices": (5, ints(3, 2), None, ints(0, 1, 7)),
}


def result(module, data, parts, hx):
    """What comes out, gradients too; or the type of the exception."""
    try:
        y, state = module(Pack(data, *parts), hx)
    except Exception as error:
        return type(error)
    states = state if isinstance(state, tuple) else (state,)
    found = [y.data, *states]
    if y.data.numel():
        sum(part.sin().sum() for part in found).backward()
        found += [data.grad, *[p.grad for p in module.parameters()]]
    return [part.detach().clone() for part in found]


def assert_like(kind, got, want):
    if isinstance(want, type):
        assert got is want
        return
    assert [g.shape for g in got] == [w.shape for w in want]
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-5, atol=1e-6, msg=kind)


@pytest.mark.parametrize("which", PACKS)
@pytest.mark.parametrize("kind", KINDS)
def test_packs_are_what_pytorch_makes_of_them(kind, which):
    rows, *parts = PACKS[which]
    modules = []
    for source in (fastrnn.torch, torch.nn):
        torch.manual_seed(0)
        modules.append(getattr(source, kind)(4, 5))
    for B in (None, 3, 2, 4):
        found = []
        for module in modules:
            module.zero_grad()
            torch.manual_seed(1)
            data = torch.randn(rows, 4, requires_grad=True)
            hx = None if B is None else torch.randn(1, B, 5)
            if kind == "LSTM" and hx is not None:
                hx = hx, hx.cos()
            found.append(result(module, data, parts, hx))
        assert_like(f"{kind} {which} {B}", *found)


def test_a_right_pack_is_ours():
    module, pack = fastrnn.torch.GRU(4, 5), Pack(torch.randn(5, 4), ints(3, 2))
    assert _path.layers_problem(module, pack, None, [*module.parameters()]) is None
    pack = Pack(torch.randn(5, 4), ints(3, 3))
    assert "batch_sizes" in _path.layers_problem(module, pack, None, [])


def test_compiled_calls_take_the_same_way():
    module = fastrnn.torch.GRU(4, 5)
    compiled = torch.compile(lambda pack: module(pack)[1], backend="eager")
    with torch.no_grad():
        pack = Pack(torch.randn(5, 4), ints(3, 3))
        with pytest.raises(RuntimeError, match=r"start \(3\) \+ length \(3\)"):
            compiled(pack)
        pack = Pack(torch.randn(9, 4), ints(2, 1))
        assert compiled(pack).shape == (1, 2, 5)


# -- operators ------------------------------------------------------------------------


def arguments(mode="LSTM", single=False, num_layers=1, projected=False):
    """Of `fastrnn::recurrence`, by name, for T, B, I, H = 3, 2, 4, 5."""
    G, S, weights = {"LSTM": 4, "GRU": 3}.get(mode, 1), 2 if projected else 5, []
    for layer in range(num_layers):
        weights += [torch.randn(G * 5, S if layer else 4), torch.randn(G * 5, S)]
        weights += [torch.randn(G * 5), torch.randn(G * 5)]
        weights += [torch.randn(S, 5)] if projected else []
    outer = (2,) if single else (num_layers, 2)
    return {
        "x": torch.randn(2, 4) if single else torch.randn(3, 2, 4),
        "h0": torch.randn(*outer, S),
        "c0": torch.randn(*outer, 5) if mode == "LSTM" else None,
        "weights": weights,
        "mode": mode,
        "num_layers": num_layers,
        "bidirectional": False,
        "batch_first": False,
        "single": single,
        "dropout": 0.0,
        "keep": True,
    }


def with_weight(at, shape):
    def change(a):
        a["weights"][at] = torch.randn(shape)

    return change


WRONG = {
    "h0 of another batch": lambda a: a.update(h0=torch.randn(1, 3, 5)),
    "h0 of float64": lambda a: a.update(h0=a["h0"].double()),
    "c0 too narrow": lambda a: a.update(c0=torch.randn(1, 2, 4)),
    "x of another width": lambda a: a.update(x=torch.randn(3, 2, 5)),
    "x empty": lambda a: a.update(x=torch.randn(0, 2, 4)),
    "x of two dimensions": lambda a: a.update(x=torch.randn(6, 4)),
    "x of integers": lambda a: a.update(x=torch.ones(3, 2, 4, dtype=torch.int64)),
    "a weight too short": with_weight(1, (20, 4)),
    "a bias too short": with_weight(2, (19,)),
    "a weight that is a vector": with_weight(0, (80,)),
    "no weights": lambda a: a.update(weights=[]),
    "a weight missing": lambda a: a["weights"].pop(),
    "layers that are not there": lambda a: a.update(num_layers=7),
    "no layer": lambda a: a.update(num_layers=0),
    "a mode of its own": lambda a: a.update(mode="BRNN"),
    "another mode": lambda a: a.update(mode="GRU", c0=None),
    "dropout": lambda a: a.update(dropout=2.0),
    "a direction that is not there": lambda a: a.update(bidirectional=True),
    "a single step of a sequence": lambda a: a.update(single=True),
}


def on_meta(value):
    """The same arguments, without memory."""
    if isinstance(value, torch.Tensor):
        return value.to("meta")
    return [on_meta(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("wrong", WRONG)
def test_an_operator_refuses_sizes_that_do_not_fit(wrong):
    given = arguments()
    torch.ops.fastrnn.recurrence(**given)
    WRONG[wrong](given)
    with pytest.raises(ValueError, match="fastrnn::recurrence: "):
        torch.ops.fastrnn.recurrence(**given)
    with pytest.raises(ValueError, match="fastrnn::recurrence: "):
        torch.ops.fastrnn.recurrence(**{k: on_meta(v) for k, v in given.items()})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "GRU", "num_layers": 3},
        {"mode": "RNN_TANH", "single": True},
        {"projected": True, "num_layers": 2},
    ],
)
def test_a_fake_call_has_the_sizes_of_a_real_one(options):
    given = arguments(**options)
    real = torch.ops.fastrnn.recurrence(**given)
    fake = torch.ops.fastrnn.recurrence(**{k: on_meta(v) for k, v in given.items()})
    for some, other in zip((*real[:3], *real[3]), (*fake[:3], *fake[3]), strict=True):
        assert some.shape == other.shape


BACKWARD = {
    "dy of another length": lambda a: a.update(dy=torch.ones(4, 2, 5)),
    "dy of float64": lambda a: a.update(dy=a["dy"].double()),
    "dh_n too short": lambda a: a.update(dh_n=torch.ones(1, 1, 5)),
    "dc_n too wide": lambda a: a.update(dc_n=torch.ones(1, 2, 6)),
    "y too short": lambda a: a.update(y=torch.ones(2, 2, 5)),
    "nothing kept": lambda a: a.update(kept=[]),
    "a tape too short": lambda a: a.update(kept=[a["kept"][0][:-1]]),
    "too few wanted": lambda a: a.update(wanted=[True] * 4),
}


@pytest.mark.parametrize("wrong", BACKWARD)
def test_backward_refuses_sizes_that_do_not_fit(wrong):
    given = arguments()
    y, h_n, c_n, kept = torch.ops.fastrnn.recurrence(**given)
    del given["c0"], given["keep"]
    given |= {"y": y, "kept": kept, "wanted": [True] * 7}
    given |= {"dy": y.cos(), "dh_n": h_n, "dc_n": c_n}
    assert len(torch.ops.fastrnn.recurrence_backward(**given)) == 7
    BACKWARD[wrong](given)
    with pytest.raises(ValueError, match="fastrnn::recurrence: "):
        torch.ops.fastrnn.recurrence_backward(**given)
    with pytest.raises(ValueError, match="fastrnn::recurrence: "):
        torch.ops.fastrnn.recurrence_backward(
            **{k: on_meta(v) for k, v in given.items()}
        )


def test_the_schemas_of_the_operators_stay_what_compiled_code_knows():
    options = (
        "str mode, SymInt num_layers, bool bidirectional, bool batch_first, "
        "bool single, float dropout"
    )
    assert str(torch.ops.fastrnn.recurrence.default._schema) == (
        "fastrnn::recurrence(Tensor x, Tensor? h0, Tensor? c0, Tensor[] weights, "
        f"{options}, bool keep) -> (Tensor, Tensor, Tensor, Tensor[])"
    )
    assert str(torch.ops.fastrnn.recurrence_backward.default._schema) == (
        "fastrnn::recurrence_backward(Tensor x, Tensor? h0, Tensor[] weights, "
        "Tensor y, Tensor[] kept, Tensor? dy, Tensor? dh_n, Tensor? dc_n, "
        f"bool[] wanted, {options}) -> Tensor[]"
    )


def test_operators_are_what_pytorch_expects_of_operators():
    given = arguments("GRU", num_layers=2)
    for name in ("x", "h0"):
        given[name].requires_grad_()
    for weight in given["weights"]:
        weight.requires_grad_()
    torch.library.opcheck(
        _operator.recurrence,
        (),
        given,
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


# -- tensors that are not what they seem ----------------------------------------------


def test_memory_at_an_odd_address():
    """PyTorch runs such tensors; the kernels get copies."""
    torch.manual_seed(0)
    ours, theirs = fastrnn.torch.GRU(4, 5), torch.nn.GRU(4, 5)
    theirs.load_state_dict(ours.state_dict())
    plain = torch.randn(3, 2, 4), torch.randn(1, 2, 5)

    def odd(tensor):
        memory = bytearray(1) + bytearray(tensor.numpy().tobytes())
        found = torch.frombuffer(memory, dtype=tensor.dtype, offset=1)
        found = found.reshape(tensor.shape)
        assert found.data_ptr() % 4
        return found

    for _ in range(2):
        got, want = ours(*map(odd, plain)), theirs(*plain)
        torch.testing.assert_close(got, want)
    other = fastrnn.torch.GRU(4, 5)
    other.load_state_dict(ours.state_dict())
    other.weight_hh_l0 = torch.nn.Parameter(odd(ours.weight_hh_l0.detach()))
    for _ in range(2):
        torch.testing.assert_close(other(*plain), theirs(*plain))


def test_memory_that_is_gone():
    module, x = fastrnn.torch.GRU(4, 5), torch.randn(3, 2, 4)
    module(x)
    x.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="memory of its own"):
        module(x)
