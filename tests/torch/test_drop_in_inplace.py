# SPDX-License-Identifier: BSD-3-Clause
"""Writing to what a layer returned, or was given, before backward."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import twins  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import fastrnn.torch  # noqa: E402

MODULES = {
    **{kind: lambda kind=kind: twins.pair(kind) for kind in twins.LAYERS},
    **{
        f"{kind} stack": lambda kind=kind: twins.pair(kind, num_layers=3)
        for kind in twins.KINDS
    },
    "LSTM both ways": lambda: twins.pair("LSTM", bidirectional=True),
    "GRU stack both ways": lambda: twins.pair(
        "GRU", num_layers=2, bidirectional=True, batch_first=True
    ),
    **{
        f"{kind} cell": lambda kind=kind: twins.pair(kind, twins.CELLS)
        for kind in twins.CELLS
    },
}


def zero_some(t):
    t[t > 0.1] = 0


def add_noise(t):
    torch.manual_seed(3)
    functional.dropout(t, 0.4, inplace=True)


WRITES = {
    "add": lambda t: t.add_(1),
    "scale a view": lambda t: t[..., :2].mul_(3),
    "a view of a view": lambda t: t.transpose(0, 1)[0].zero_() if t.dim() > 1 else t,
    "through a mask": zero_some,
    "relu": lambda t: t.relu_(),
    "dropout": add_noise,
    "twice": lambda t: t.mul_(2).sub_(1),
    "where autograd does not look": lambda t: t.detach().mul_(2),
}


def run(module, arguments, change=None, alone=None):
    """Gradients of a call, or the message of backward's error.

    Parameters
    ----------
    change : callable, optional
        Gets the outputs; with `alone` only that one of them.
    """
    module.zero_grad()
    torch.manual_seed(1)
    leaves = [twins.leaves([t])[0] for t in arguments]
    outputs = twins.flat(module(leaves[0], *pack_states(module, leaves[1:])))
    if change:
        for output in outputs if alone is None else outputs[alone : alone + 1]:
            change(output)
    loss = sum(t.square().sum() for t in outputs)
    try:
        loss.backward()
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        return None
    parts = [*leaves, *module.parameters()]
    return [t.detach() for t in outputs], [t.grad for t in parts]


def pack_states(module, states):
    if not states:
        return ()
    is_lstm = isinstance(module, (torch.nn.LSTM, torch.nn.LSTMCell))
    return (tuple(states),) if is_lstm else (states[0],)


def arguments_of(rng, module, form, with_states):
    x = twins.draw(rng, twins.T, twins.B, twins.I)
    if isinstance(module, torch.nn.modules.rnn.RNNCellBase):
        x, outer, widths = x[0], (twins.B,), [module.hidden_size] * 2
    else:
        D = 2 if module.bidirectional else 1
        B = twins.T if module.batch_first else twins.B
        outer = (module.num_layers * D, B)
        widths = [module.proj_size or module.hidden_size, module.hidden_size]
    if form == "unbatched":
        x, outer = x[0] if x.dim() == 2 else x[:, 0], outer[:-1]
    n = {True: 2 if type(module).__name__.startswith("LSTM") else 1, False: 0}
    states = [twins.draw(rng, *outer, width) for width in widths[: n[with_states]]]
    return [x, *states]


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", MODULES)
def test_outputs_written_to(rng, name, write):
    """Wherever PyTorch gives gradients so do we, and they are the same."""
    theirs, ours = MODULES[name]()
    for form, with_states in (("batched", True), ("unbatched", False)):
        arguments = arguments_of(rng, theirs, form, with_states)
        got = run(ours, arguments, WRITES[write])
        want = run(theirs, arguments, WRITES[write])
        if want is None:  # an LSTM of oneDNN's, or an RNNCell: ours runs there, too
            double = [t.double() for t in arguments]
            want = run(theirs.double(), double, WRITES[write])
            theirs.float()
        if want is None:
            assert isinstance(theirs, torch.nn.RNNCell)
            continue
        for ours_, theirs_ in zip(got, want, strict=True):
            for one, other in zip(ours_, theirs_, strict=True):
                twins.assert_same("value", one, other.float(), "float32", 300)


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("name", MODULES)
def test_gradients_have_the_bits_of_untouched_outputs(rng, name):
    _, ours = MODULES[name]()
    arguments = arguments_of(rng, ours, "batched", True)
    want = run(ours, arguments)[1]

    def there_and_back(t):
        t.mul_(2)
        t.mul_(0.5)

    for one, other in zip(run(ours, arguments, there_and_back)[1], want, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", twins.LAYERS)
@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("form", ["packed", "packed unsorted"])
def test_packed_outputs_written_to(rng, kind, form):
    found = []
    for module in twins.pair(kind, num_layers=2):
        (x,) = twins.leaves([torch.ones(twins.T, len(twins.LENGTHS[form]), twins.I)])
        y, _ = module(twins.packed(x, form, False))
        y.data.relu_().square().sum().backward()
        found.append([x.grad, *[p.grad for p in module.parameters()]])
    names = ["dx", *dict(module.named_parameters())]
    twins.assert_all_same(names, *found[::-1], "float32", 300)


def test_a_large_layers_packed_weights(rng):
    """Both forms of its weights take turns in one room: the graph is used twice."""
    module = fastrnn.torch.GRU(422, 421, 2)
    x = twins.draw(rng, 3, 2, 422).requires_grad_()

    def gradients(change):
        y, _ = module(x)
        change(y)
        leaves = [x, *module.parameters()]
        loss = y.sum()
        return [
            torch.autograd.grad(loss, leaves, retain_graph=again)
            for again in (True, False)
        ]

    want, _ = gradients(lambda y: None)
    for got in gradients(lambda y: y.detach().zero_()):
        for one, other in zip(got, want, strict=True):
            assert torch.equal(one, other)
    module = fastrnn.torch.GRU(422, 421, 2)
    y, _ = module(x)
    y.detach().zero_()
    y.sum().backward(retain_graph=True)
    module.weight_hh_l1.data.mul_(2)
    with pytest.raises(
        RuntimeError, match=r"weights, which were modified through \.data"
    ):
        y.sum().backward()


@pytest.mark.parametrize("kind", twins.CELLS)
def test_states_that_episodes_reset(rng, kind):
    """The state is a reinforcement learner's: some rows begin anew at each step."""
    if kind in ("tanh", "relu"):
        modules = twins.pair(kind, num_layers=2)
    else:
        modules = twins.pair(kind, twins.CELLS)
    steps = twins.draw(rng, 6, twins.B, twins.I)
    done = torch.tensor(rng.integers(0, 2, (6, twins.B, 1)), dtype=torch.float32)
    found = []
    for module in modules:
        module.zero_grad()
        state, loss = None, 0
        for x, end in zip(steps, done, strict=True):
            if isinstance(module, torch.nn.RNNBase):
                y, state = module(x.unsqueeze(0), state)
            else:
                state = module(x, state)
                y = state[0] if kind == "LSTM" else state
            loss = loss + (y * x.sum()).sum()
            for part in state if kind == "LSTM" else [state]:
                part.mul_(1 - end)
        loss.backward()
        found.append([p.grad for p in module.parameters()])
    names = list(dict(module.named_parameters()))
    twins.assert_all_same(names, *found[::-1], "float32", 300)


@pytest.mark.parametrize("kind", twins.LAYERS)
@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
def test_what_pytorch_refuses_is_refused(rng, kind):
    """Input, states and weights are read again by both."""
    for module in twins.pair(kind):
        for which in ("x", "h0", "c0", "weight_ih_l0", "weight_hh_l0"):
            x, *states = arguments_of(rng, module, "batched", True)
            written = {"x": x, **dict(zip(("h0", "c0"), states, strict=False))}
            written |= dict(module.named_parameters())
            if which not in written:
                continue
            x.requires_grad_()
            y, _ = module(x, *pack_states(module, states))
            with torch.no_grad():
                written[which].mul_(2)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                y.sum().backward()


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("where", ["inside", "outside"])
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_checkpointed(rng, kind, where, use_reentrant):
    options = {"num_layers": 2, "bidirectional": True}
    base, found = twins.draw(rng, 5, 4, 3), []
    for module in twins.pair(kind, **options):

        def call(x, module=module):
            y, _ = module(x)
            return y.relu_() if where == "inside" else y

        (x,) = twins.leaves([base])
        y = checkpoint(call, x, use_reentrant=use_reentrant)
        (y.relu_() if where == "outside" else y).square().sum().backward()
        found.append([x.grad, *[p.grad for p in module.parameters()]])
    names = ["dx", *dict(module.named_parameters())]
    twins.assert_all_same(names, *found[::-1], "float32", 300)


def test_a_checkpoint_keeps_no_output(rng):
    """What counts the writes to y does not hold its memory."""
    module, alive = fastrnn.torch.GRU(3, 5), []

    def call(x):
        y, _ = module(x)
        alive.append(
            torch.multiprocessing.reductions.StorageWeakRef(y.untyped_storage())
        )
        return y.sum()

    x = twins.draw(rng, 4, 2, 3).requires_grad_()
    loss = checkpoint(call, x, use_reentrant=False)
    assert [storage.expired() for storage in alive] == [True]
    loss.backward()


def test_second_derivatives_and_hooks_after_a_write(rng):
    theirs, ours = twins.pair("GRU", num_layers=2)
    base, found = twins.draw(rng, 5, 4, 3), []
    for module in (theirs, ours):
        (x,) = twins.leaves([base])
        seen = []
        y, _ = module(x)
        y.mul_(2).register_hook(lambda g, seen=seen: seen.append(g.clone()))
        (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        (ddx,) = torch.autograd.grad(dx.square().sum(), x)
        found.append([dx.detach(), ddx, *seen])
    for got, want in zip(*found[::-1], strict=True):
        twins.assert_same("value", got, want, "float32", 1000)


def test_anomaly_mode(rng):
    _, ours = twins.pair("GRU")
    with torch.autograd.set_detect_anomaly(True):
        y, _ = ours(twins.draw(rng, 4, 2, 3))
        y.relu_().sum().backward()
    assert all(p.grad.isfinite().all() for p in ours.parameters())


@pytest.mark.filterwarnings("ignore:.*script.*deprecated")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_states_written_to_in_compiled_code(rng, kind, backend):
    steps = twins.draw(rng, 3, twins.B, twins.I)
    done = torch.tensor(rng.integers(0, 2, (3, twins.B, 1)), dtype=torch.float32)
    found = []
    for module in twins.pair(kind, twins.CELLS):

        @torch.compile(backend=backend, fullgraph=True)
        def loss(steps, done, module=module):
            state, total = None, 0
            for x, end in zip(steps, done, strict=True):
                state = module(x, state)
                y = state[0] if kind == "LSTM" else state
                total = total + (y * x.sum()).sum()
                for part in state if kind == "LSTM" else [state]:
                    part.mul_(1 - end)
            return total

        loss(steps, done).backward()
        found.append([p.grad for p in module.parameters()])
    names = list(dict(module.named_parameters()))
    twins.assert_all_same(names, *found[::-1], "float32", 300)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_compiled_code_may_write_to_an_output(rng, kind):
    """All gradients are those of PyTorch's own layer, whose output may be, too."""

    def loss(module, x):
        y, _ = module(x)
        y += x.sum()
        return (y * y).sum()

    theirs, ours = twins.pair(kind, bidirectional=True)
    found = []
    for module, run in (
        (theirs, loss),
        (ours, torch.compile(loss, backend="aot_eager")),
    ):
        x = torch.linspace(-1, 1, 24).reshape(4, 2, 3).requires_grad_()
        run(module, x).backward()
        found.append([x.grad, *(p.grad for p in module.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "enable_grad"])
def test_outputs_with_the_batch_first_are_no_views(rng, name, mode):
    """A view that was made without gradients refuses to be written to with them."""
    layer = getattr(fastrnn.torch, name)(3, 5, batch_first=True)
    x, scale = twins.draw(rng, 2, 4, 3), torch.ones(5, requires_grad=True)
    with getattr(torch, mode)():
        y, _ = layer(x)
        want = y.clone()
    assert not y._is_view()
    assert y.stride() == (5, 10, 1)
    if mode == "no_grad":
        y.mul_(scale).sum().backward()
        assert torch.allclose(scale.grad, want.sum((0, 1)))
