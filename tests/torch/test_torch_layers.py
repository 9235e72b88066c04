# SPDX-License-Identifier: BSD-3-Clause
"""fastrnn.torch.layers: every recurrent layer of fastrnn as a module of PyTorch.

Each is held to the layer of NumPy arrays, bit by bit, and to PyTorch's own autograd:
`gradcheck`, and the loops of torch_loops.py.
"""

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch_cells  # noqa: E402, F401  (fills torch_loops.CELLS)
import torch_loops  # noqa: E402
from torch.nn.utils import parametrizations  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402

import fastrnn  # noqa: E402
import fastrnn.torch  # noqa: E402
from fastrnn.recurrent import table  # noqa: E402
from fastrnn.torch import layers  # noqa: E402

T, B, I, H = 6, 3, 4, 5
KINDS = sorted(layers.CLASSES)
LENGTHS = torch.tensor([4, 6, 2])


def module_of(kind="MGU", **options):
    torch.manual_seed(0)
    return getattr(layers, kind)(I, H, **options)


def sequences(dtype=torch.float32, width=I):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(T, B, width, generator=generator, dtype=dtype).requires_grad_()


def parts(state):
    return state if isinstance(state, tuple) else (state,)


def total(y, state=()):
    """A loss that weighs every element of the results differently."""
    terms = [y, *parts(state)]
    return sum((t * torch.linspace(-1, 1, t.numel()).view_as(t)).sum() for t in terms)


def gradients(module, x, **how):
    module.zero_grad()
    y, state = module(x, **how)
    (dx,) = torch.autograd.grad(total(y, state), [x], retain_graph=True)
    total(y, state).backward()
    return [y.detach(), dx, *[p.grad.clone() for p in module.parameters()]]


def assert_same(got, want):
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)


# -- what the layer of NumPy arrays does -----------------------------------------------

HOW = {
    "plain": ({}, {}),
    "stacked": ({"num_layers": 2, "bidirectional": True}, {"lengths": LENGTHS}),
    "masked": ({}, {"mask": torch.arange(B * T).view(B, T) % 4 != 1}),
    "reset": ({"num_layers": 2}, {"resets": torch.arange(T * B).view(T, B) % 7 == 3}),
    "blocks": ({"num_layers": 2, "checkpoint_every": 2}, {}),
    "merged": ({"bidirectional": True, "merge_mode": "mul"}, {}),
    "highway": ({"num_layers": 2, "connection": "highway"}, {}),
    "last": ({"return_sequences": False, "learn_initial_state": True}, {}),
    "float64": ({"dtype": torch.float64, "batch_first": True}, {}),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", KINDS)
def test_a_module_computes_what_the_layer_does(kind, how):
    options, given = HOW[how]
    module = module_of(kind, **options)
    layer = module.to_layer()
    x = sequences(options.get("dtype", torch.float32))
    y, state = module(x, **given)
    arrays = {name: value.numpy() for name, value in given.items()}
    y_layer, state_layer = layer(x.detach().numpy(), **arrays)
    ends = [torch.from_numpy(np.array(part)) for part in parts(state_layer)]
    assert_same([y, *parts(state)], [torch.from_numpy(np.array(y_layer)), *ends])
    dy = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    d_ends = [torch.full_like(part, 0.5) for part in ends]
    torch.autograd.backward([y, *parts(state)], [dy, *d_ends])
    d_state = tuple([part.numpy() for part in d_ends])
    dx, _ = layer.backward(dy.numpy(), d_state if len(d_ends) > 1 else d_state[0])
    assert_same([x.grad], [torch.from_numpy(dx)])
    for name, parameter in module.named_parameters():
        assert_same([parameter.grad], [torch.from_numpy(layer.grads[name])])


def test_there_is_a_module_for_every_class_of_layers():
    assert set(KINDS) == {cls.__name__ for cls in table.classes().values()}
    for kind in set(KINDS) - {"LSTM", "GRU", "RNN"}:
        assert getattr(fastrnn.torch, kind) is getattr(layers, kind)
        assert kind in fastrnn.torch.__all__
    with pytest.raises(TypeError, match="Layer: a layer has a cell"):
        layers.Layer(I, H)


# -- autograd --------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_derivatives(kind, training):
    module = module_of(kind, num_layers=2, dtype=torch.float64).train(training)
    with torch.no_grad():  # biases of 0 would be where relu has a corner
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x = sequences(torch.float64)
    state = [torch.randn(2, B, H, dtype=x.dtype) for _ in range(module.kind._states)]
    if len(state) > 2:  # all but h and c have signs or scales of their own
        state = [part.abs() + 0.5 for part in state]
    state = [part.requires_grad_() for part in state]
    names, weights = zip(*module.named_parameters(), strict=True)

    def call(x, *rest):
        hx = rest[0] if len(state) == 1 else rest[: len(state)]
        given = dict(zip(names, rest[len(state) :], strict=True))
        y, end = torch.func.functional_call(module, given, (x, hx))
        return y, *parts(end)

    assert torch.autograd.gradcheck(call, (x, *state, *weights), fast_mode=True)


LSTM_NORMS = ("cell", "gates", "carried", "per_gate", "input")
LOOPS = {
    "lstm": ("LSTM", {}, {}),
    "gru": ("GRU", {}, {}),
    "rnn_tanh": ("RNN", {}, {}),
    "mgu": ("MGU", {}, {}),
    "ligru": ("LiGRU", {}, {}),
    "leaky_tanh": ("LeakyRNN", {"alpha": 0.25}, {"alpha": torch.tensor(0.25)}),
    "leaky_relu": (
        "LeakyRNN",
        {"alpha": 0.25, "learn_alpha": True, "activation": "relu"},
        {},
    ),
    **{
        f"{prefix}_norm_{cell}": (kind, {f"{prefix}_norm": form}, {})
        for prefix in ("layer", "rms")
        for kind, cell, form in (
            *(("LSTM", f"lstm_{form}", form) for form in LSTM_NORMS),
            *(("GRU", f"gru_{form}", form) for form in ("apart", "joint", "input")),
            *(("RNN", f"rnn_tanh_{form}", form) for form in ("apart", "input")),
        )
    },
    "layer_norm_ligru": ("LiGRU", {"layer_norm": True}, {}),
    "indrnn": ("IndRNN", {}, {}),
    "mingru": ("MinGRU", {}, {}),
    "mingru_log": ("MinGRU", {"log_space": True}, {}),
    "minlstm": ("MinLSTM", {}, {}),
    "minlstm_log": ("MinLSTM", {"log_space": True}, {}),
    "sru": ("SRU", {"rescale": False}, {}),
    "slstm_sigmoid": ("SLSTM", {"forget_gate": "sigmoid"}, {}),
    "slstm_exp": ("SLSTM", {"forget_gate": "exponential"}, {}),
}


@pytest.mark.parametrize("cell", LOOPS)
def test_results_are_those_of_a_loop_in_pytorch(cell):
    kind, options, more = LOOPS[cell]
    module = module_of(
        kind, num_layers=2, bidirectional=True, dtype=torch.float64, **options
    )
    x = sequences(torch.float64)
    got = gradients(module, x)
    module.zero_grad()
    weights = dict(module.named_parameters())
    y, ends = torch_loops.stack(cell, weights, x, layers=2, directions=2, **more)
    (dx,) = torch.autograd.grad(total(y, tuple(ends)), [x], retain_graph=True)
    total(y, tuple(ends)).backward()
    want = [y, dx, *[p.grad for p in module.parameters()]]
    torch.testing.assert_close(got, [w.detach() for w in want])


@pytest.mark.parametrize(
    ("kind", "cell", "options", "more"),
    [
        ("LSTM", "lstm", {"zoneout": (0.2, 0.1)}, {"zoneout_c": 0.2, "zoneout_h": 0.1}),
        ("GRU", "gru", {"zoneout": 0.3, "input_dropout": 0.5}, {"zoneout_h": 0.3}),
        ("RNN", "rnn_tanh", {"weight_drop": 0.5, "recurrent_dropout": 0.5}, {}),
        ("LSTM", "lstm", {"heads": 5}, {}),
    ],
)
def test_evaluation_has_the_expectation_of_what_is_random(kind, cell, options, more):
    module = module_of(kind, dtype=torch.float64, **options).eval()
    x, more = sequences(torch.float64), {k: torch.tensor(v) for k, v in more.items()}
    y, state = module(x)
    weights = dict(module.named_parameters())
    want, ends = torch_loops.stack(cell, weights, x, **more)
    leaves = [x, *weights.values()]
    torch.testing.assert_close(
        torch.autograd.grad(total(y, state), leaves),
        torch.autograd.grad(total(want, tuple(ends)), leaves),
    )


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("LSTM", {"zoneout": (0.3, 0.2)}),
        ("GRU", {"recurrent_dropout": 0.4, "recurrent_dropout_mode": "candidate"}),
        ("RNN", {"weight_drop": 0.4}),
        ("LeakyRNN", {"alpha": 0.5, "noise": 0.3}),
    ],
)
def test_random_choices_are_pytorchs_and_gradients_are_of_them(kind, option):
    module = module_of(kind, dtype=torch.float64, **option)
    x = sequences(torch.float64)

    def call(x):
        torch.manual_seed(3)
        return module(x)[0]

    assert_same([call(x)], [call(x)])
    assert not torch.equal(module(x)[0], module(x)[0])
    assert torch.autograd.gradcheck(call, (x,), fast_mode=True)


def test_parameters_are_brought_to_what_options_allow():
    sign = np.array([1, -1, 0, 1, -1])
    module = module_of("LeakyRNN", alpha=0.5, sign=sign, learn_alpha=True)
    with torch.no_grad():
        module.weight_hh_l0.copy_(torch.linspace(-1, 1, H * H).view(H, H))
        module.alpha_l0.fill_(2.0)
    module.constrain()
    assert (module.weight_hh_l0.detach().numpy() * sign >= 0).all()
    assert (module.alpha_l0 == 1).all()
    module_of().constrain()


def test_evaluation_has_gradients_and_no_dropout():
    module = module_of(num_layers=2, dropout=0.5)
    plain = module_of(num_layers=2)
    x = sequences()
    want = gradients(plain, x)
    assert_same(gradients(module.eval(), x), want)
    assert not torch.equal(gradients(module.train(), x)[0], want[0])


def test_frozen_parameters_and_parts_of_the_gradients():
    module, x = module_of(num_layers=2), sequences()
    want = gradients(module, x)
    module.weight_ih_l0.requires_grad_(False)
    module.zero_grad()
    x.grad = None
    y, state = module(x)
    total(y, state).backward()
    assert module.weight_ih_l0.grad is None
    assert_same([x.grad, module.weight_hh_l1.grad], [want[1], want[7]])
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    y, state = module(x.detach())
    assert not y.requires_grad
    _, state = module(x)
    (dx,) = torch.autograd.grad(total(state), [x])
    assert dx.abs().sum() > 0


def test_a_graph_may_be_gone_through_again():
    module, x = module_of(), sequences()
    y, _ = module(x)
    found = [torch.autograd.grad(total(y), [x], retain_graph=True)[0] for _ in range(2)]
    assert_same(found[:1], found[1:])
    torch.autograd.grad(total(y), [x])
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(total(y), [x])


@pytest.mark.parametrize("what", ["y", "x", "weight"])
def test_a_write_between_forward_and_backward_is_noticed(what):
    module, x = module_of(), sequences()
    source = x * 1
    y, _ = module(source)
    with torch.no_grad():
        {"y": y, "x": source, "weight": module.weight_hh_l0}[what].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_second_derivatives_are_refused():
    module, x = module_of(), sequences()
    y, _ = module(x)
    want = torch.autograd.grad(total(y), [x], retain_graph=True)
    (dx,) = torch.autograd.grad(total(y), [x], create_graph=True)
    assert_same([dx.detach()], want)
    with pytest.raises(RuntimeError, match="MGU: the kernels compute first deriv"):
        dx.sum().backward()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_transforms_and_recordings_are_refused():
    module, x = module_of(), sequences()
    y, _ = module(x)
    with pytest.raises(RuntimeError, match=r"torch\.func transform"):
        torch.func.vmap(lambda x: module(x)[0], 2)(torch.ones(T, B, 2, I))
    with pytest.raises(TypeError, match="a gradient has no memory of its own"):
        torch.autograd.grad(y, [x], torch.ones(2, *y.shape), is_grads_batched=True)
    with pytest.raises(RuntimeError, match=r"torch\.jit\.trace is recording"):
        torch.jit.trace(module, (x.detach(),))
    with (
        torch.autograd.forward_ad.dual_level(),
        pytest.raises(RuntimeError, match="forward-mode"),
    ):
        module(torch.autograd.forward_ad.make_dual(x.detach(), x.detach()))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_activation_checkpoints_make_the_same_choices(use_reentrant):
    module, x = module_of(num_layers=2, dropout=0.5), sequences()
    torch.manual_seed(7)
    want = gradients(module, x)
    module.zero_grad()
    torch.manual_seed(7)
    y, state = torch.utils.checkpoint.checkpoint(module, x, use_reentrant=use_reentrant)
    total(y, state).backward()
    assert_same(
        [y.detach(), *[p.grad for p in module.parameters()]], want[:1] + want[2:]
    )


# -- modules of PyTorch ----------------------------------------------------------------


def test_copies_and_pickles_have_parameters_of_their_own():
    module, x = module_of(num_layers=2, activation="relu"), sequences()
    want = gradients(module, x)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(other) == repr(module)
        assert_same(gradients(other, x), want)
        with torch.no_grad():
            other.weight_hh_l0.zero_()
        assert_same(gradients(module, x), want)


def test_the_type_of_the_parameters_can_change():
    module, x = module_of(), sequences(torch.float64)
    wide = module_of(dtype="float64")
    wide.load_state_dict(module.state_dict())
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    assert_same(gradients(module.double(), x), gradients(wide, x))
    before = module.weight_hh_l0.detach().clone()
    optimizer.step()
    assert not torch.equal(module(x)[0], wide(x)[0])
    assert not torch.equal(before, module.weight_hh_l0)
    with pytest.raises(TypeError, match=r"the parameter weight_ih_l0 is torch.float16"):
        module.half()(x)


def test_parameters_may_come_from_elsewhere():
    module, x = module_of(), sequences()
    other = module_of()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    want = gradients(other, x)
    state = {name: p.detach().clone() for name, p in other.named_parameters()}
    y, _ = torch.func.functional_call(module, state, (x,))
    assert_same([y], want[:1])
    module.load_state_dict(state, assign=True)
    assert_same(gradients(module, x), want)
    module.share_memory()
    assert all(p.is_shared() for p in module.parameters())
    assert_same(gradients(module, x), want)
    parametrizations.weight_norm(module, "weight_hh_l0")
    y, _ = module(x)
    torch.testing.assert_close(y, want[0])
    y.sum().backward()
    assert module.parametrizations.weight_hh_l0.original0.grad is not None


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("kind", ["MGU", "LSTM"])
def test_packed_sequences(kind, enforce_sorted):
    module = module_of(kind, num_layers=2, bidirectional=True)
    x, lengths = sequences(), LENGTHS
    if enforce_sorted:
        lengths = lengths.sort(descending=True).values
    hx = tuple([torch.randn(4, B, H) for _ in range(module.kind._states)])
    hx = hx if len(hx) > 1 else hx[0]
    packed = pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
    y, state = module(packed, hx)
    assert type(y) is type(packed)
    y, found = pad_packed_sequence(y)
    want, end = module(x, hx, lengths=lengths)
    assert torch.equal(found, lengths)
    assert_same([y, *parts(state)], [want, *parts(end)])
    assert_same(
        torch.autograd.grad(total(y, state), [x]),
        torch.autograd.grad(total(want, end), [x]),
    )
    with pytest.raises(ValueError, match=f"{kind}: a PackedSequence has lengths"):
        module(packed, lengths=lengths)
    with pytest.raises(ValueError, match=f"{kind}: a PackedSequence needs return_seq"):
        module_of(kind, return_sequences=False)(packed)


def test_layers_become_modules_and_modules_layers():
    layer = fastrnn.LSTM(I, H, peephole=True, dropout=0.25, num_layers=2, seed=3)
    module = fastrnn.torch.from_layer(layer.eval())
    assert repr(module) == repr(layer)
    assert type(module) is layers.LSTM
    assert not module.training
    x = sequences().detach()
    y, _ = layer(x.numpy())
    assert_same([module(x)[0]], [torch.from_numpy(y)])
    with torch.no_grad():
        module.weight_hh_l0.zero_()
    assert layer.parameters["weight_hh_l0"].any()
    back = module.to_layer()
    assert not back.parameters["weight_hh_l0"].any()
    assert repr(back) == repr(layer)
    back.train()(x.numpy())  # draws dropout as any layer does
    with pytest.raises(TypeError, match=r"from_layer: layer must be a fastrnn\.MGU"):
        layers.MGU.from_layer(layer)


def test_seeds():
    assert_same(module_of().parameters(), module_of().parameters())
    options = {"seed": 3, "num_layers": 2, "dropout": 0.5}
    module, other = module_of(**options), layers.MGU(I, H, **options)
    assert_same(module.parameters(), other.parameters())
    x = sequences()
    torch.manual_seed(5)
    first = [module(x)[0], module(x)[0]]
    assert not torch.equal(*first)
    torch.manual_seed(5)
    assert_same([module(x)[0], module(x)[0]], first)


def test_arguments_can_be_read_and_changed():
    module, x = module_of(num_layers=2, dropout=0.5), sequences()
    assert (module.hidden_size, module.num_layers, module.dropout) == (H, 2, 0.5)
    module.dropout = 0.0
    assert_same([module(x)[0]], [module(x)[0]])
    with pytest.raises(ValueError, match="MGU: dropout must be"):
        module.dropout = 2.0


def test_stateful_modules_go_on():
    module, x = module_of(stateful=True), sequences()
    whole, _ = module_of()(x)
    assert_same([torch.cat([module(x[:2])[0], module(x[2:])[0]])], [whole])
    module.reset_state(torch.tensor([True, False, True]))
    assert not module._engine.layer.state[:, ::2].any()
    module.reset_state()
    assert_same([module(x)[0]], [whole])


def test_autocast_computes_in_the_type_of_the_parameters():
    module, x = module_of(), sequences()
    half = x.detach().bfloat16()
    want, _ = module(half.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = module(half)
    assert_same([y], [want])


def test_compiled_and_traced_programs_call_the_module():
    model = torch.nn.Sequential(torch.nn.Linear(I, I), module_of())
    x = sequences().detach()
    want, _ = model(x)
    traced = torch.fx.symbolic_trace(model)
    assert [node.op for node in traced.graph.nodes].count("call_module") == 2
    assert_same([traced(x)[0]], [want])
    compiled = torch.compile(model, backend="eager")
    assert_same([compiled(x)[0]], [want])


def test_modules_use_pytorchs_number_of_threads(monkeypatch):
    module = module_of()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    module(sequences())
    assert module._engine.layer._runtime.plan.n_threads == 3


def test_wrong_arguments_are_refused():
    module, x = module_of("LSTM"), sequences()
    for given, error, match in (
        ((x.detach().numpy(),), TypeError, "LSTM: the input must be a Tensor, got nda"),
        ((x.double(),), TypeError, "the input is torch.float64, not torch.float32"),
        ((x.to("meta"),), TypeError, "the input is on meta"),
        ((x[..., :2],), ValueError, "LSTM: x must have shape"),
        ((x, x), TypeError, "LSTM: hx must be a tuple of 2 tensors, got Tensor"),
        ((x, (x,)), TypeError, "LSTM: hx must be a tuple of 2 .* got tuple of length"),
        ((x, (x, x)), ValueError, "LSTM: h0 must have shape"),
    ):
        with pytest.raises(error, match=match):
            module(*given)
    with pytest.raises(TypeError, match="MGU: input_size and hidden_size must both"):
        layers.MGU(8)
    with pytest.raises(TypeError, match="has no argument 'nothing'"):
        layers.MGU(I, H, nothing=1)
    with pytest.raises(ValueError, match="MGU: dtype must be"):
        layers.MGU(I, H, dtype=torch.float16)


# -- parameters that are not the layer's own memory ------------------------------------


class Half(torch.nn.Module):
    def forward(self, x):
        return x * 0.5


class Turned(torch.nn.Module):
    def forward(self, x):
        return x.t()


def halved(module):
    return {name: 0.5 * p.detach() for name, p in module.named_parameters()}


@pytest.mark.parametrize("kind", ["GRU", "SLSTM", "SRU"])
@pytest.mark.parametrize("training", [True, False])
def test_weights_of_a_call_leave_the_modules_own_alone(kind, training):
    module, x = module_of(kind).train(training), sequences()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    want = module(x)[0].detach()
    got, _ = torch.func.functional_call(module, halved(module), (x,))
    assert not torch.equal(got, want)
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, before[name])
    assert torch.equal(module(x)[0], want)


def test_a_backward_finds_the_weights_of_its_own_call():
    """Though other calls with other weights came between; and through the weights."""
    module, x = module_of("GRU", dtype=torch.float64), sequences(torch.float64)
    rate = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def call(rate):
        weights = {name: rate * p.detach() for name, p in module.named_parameters()}
        y, _ = torch.func.functional_call(module, weights, (x,))
        torch.func.functional_call(module, halved(module), (x,))
        module(x)
        return y

    assert torch.autograd.gradcheck(call, (rate,))


@pytest.mark.parametrize("made", [Half, Turned])
def test_a_parametrization_is_computed_anew_at_each_call(made):
    module, x = module_of("RNN"), sequences()
    other = module_of("RNN")
    with torch.no_grad():
        other.weight_hh_l0.copy_(made()(other.weight_hh_l0).clone())
    want = gradients(other, x)
    torch.nn.utils.parametrize.register_parametrization(module, "weight_hh_l0", made())
    original = module.parametrizations.weight_hh_l0.original
    before = original.detach().clone()
    for _ in range(3):
        assert_same([module(x)[0].detach()], want[:1])
    assert torch.equal(original, before)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    module(x)[0].sum().backward()
    optimizer.step()
    assert not torch.equal(original, before)


@pytest.mark.parametrize(
    "norm", [parametrizations.weight_norm, parametrizations.spectral_norm]
)
def test_norms_of_weights_train(norm):
    module, x = norm(module_of("GRU"), "weight_hh_l0"), sequences()
    optimizer = torch.optim.SGD(module.parameters(), 0.01)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = module(x)[0].square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_data_that_is_swapped_is_nobody_elses():
    module, x = module_of("GRU"), sequences()
    want = module(x)[0].detach()
    kept = module.weight_hh_l0.data
    copied = kept.clone()
    module.weight_hh_l0.data = torch.zeros_like(kept)
    assert not torch.equal(module(x)[0], want)
    assert torch.equal(kept, copied)
    module.weight_hh_l0.data = kept
    assert torch.equal(module(x)[0], want)


def test_a_view_of_the_same_memory_is_another_weight():
    module, x = module_of("RNN"), sequences()
    w = module.weight_hh_l0.detach()
    for view in (w.t(), w[:1].expand(H, H), torch._neg_view(w)):
        got, _ = torch.func.functional_call(module, {"weight_hh_l0": view}, (x,))
        want, _ = torch.func.functional_call(
            module, {"weight_hh_l0": view.clone().resolve_neg().contiguous()}, (x,)
        )
        assert torch.equal(got, want)
        assert not torch.equal(got, module(x)[0])


def test_an_indrnn_stays_in_its_bound_with_pytorchs_optimizers():
    module, x = module_of("IndRNN", time_steps=4), sequences()
    optimizer = torch.optim.Adam(module.parameters(), 0.5)
    for _ in range(5):
        optimizer.zero_grad()
        (-module(x)[0].sum()).backward()
        optimizer.step()
        module.constrain()
        assert module.weight_hh_l0.abs().max() <= 2**0.25 + 1e-6
