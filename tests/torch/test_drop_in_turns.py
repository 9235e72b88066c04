# SPDX-License-Identifier: BSD-3-Clause
"""Weights so large that both packed forms take turns in one room.

Like test_packed_turns.py: gradients have the bits of a module that has had its weights
to itself.
"""

import pytest

torch = pytest.importorskip("torch")

import twins  # noqa: E402

import fastrnn.torch  # noqa: E402
from fastrnn.torch import _weights  # noqa: E402

MODULES = {
    "tanh": lambda: fastrnn.torch.RNN(740, 741),
    "LSTM": lambda: fastrnn.torch.LSTM(370, 391),
    "GRU": lambda: fastrnn.torch.GRU(450, 447),
    "projected": lambda: fastrnn.torch.LSTM(600, 410, proj_size=203),
    "stack": lambda: fastrnn.torch.GRU(422, 421, 2, bidirectional=True),
}
with_modules = pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)


@pytest.fixture
def make_one(make):
    """Modules with the same weights, not yet run."""

    def build():
        torch.manual_seed(0)
        return make()

    return build


def forward(module, scale=1.0):
    T, B, I = 3, 2, module.input_size
    x = torch.linspace(-scale, scale, T * B * I).reshape(T, B, I).requires_grad_()
    return x, module(x)[0]


def backward(module, x, y, **options):
    """Gradients of a call alone."""
    module.zero_grad()
    x.grad = None
    y.backward(torch.linspace(1, 2, y.numel()).reshape(y.shape), **options)
    return [x.grad.clone(), *(p.grad.clone() for p in module.parameters())]


def wanted(make_one, change=None, scale=1.0):
    module = make_one()
    if change:
        change(module)
    return backward(module, *forward(module, scale))


def forms(module):
    """Of the cells: whether there is a forward form, and a backward form."""
    (home,) = [h for h in _weights._homes.values() if h.owner() is module]
    current = home.packer.current
    return {(p.forward is not None, p.backward is not None) for p in current}


def assert_equal(got, want):
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert torch.equal(one, other)


def through_data(module):
    """So that nobody counts it."""
    module.weight_hh_l0.data[-1, -1] += 0.5


def other_memory(module):
    module.weight_ih_l0.data = module.weight_ih_l0.data * 2


CHANGES = {change.__name__: change for change in (through_data, other_memory)}


@with_modules
def test_backward_takes_the_forward_forms_room(make_one):
    module = make_one()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    for _ in range(3):
        x, y = forward(module)
        assert forms(module) == {(True, False)}
        backward(module, x, y)
        assert forms(module) == {(False, True)}
        optimizer.step()


def test_small_cells_keep_both_forms():
    module = fastrnn.torch.GRU(5, 7, 2)
    backward(module, *forward(module))
    assert forms(module) == {(True, True)}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@with_modules
def test_backward_is_that_of_the_weights_that_ran(make_one, change):
    module = make_one()
    x, y = forward(module)
    change(module)
    assert_equal(backward(module, x, y), wanted(make_one))
    got = backward(module, *forward(module))
    assert_equal(got, wanted(make_one, change))


@pytest.mark.parametrize("first", [0, 1])
@with_modules
def test_two_graphs_alive(make_one, first):
    wants = [wanted(make_one, scale=scale) for scale in (1, 0.5)]
    module = make_one()
    calls = [forward(module, scale) for scale in (1, 0.5)]
    for k in (first, 1 - first):
        assert_equal(backward(module, *calls[k]), wants[k])
        assert forms(module) == {(True, True)}  # the other may run forward just now


@with_modules
def test_weights_that_stay(make_one):
    want, module = wanted(make_one), make_one()
    for _ in range(3):
        x, y = forward(module)
        assert_equal(backward(module, x, y, retain_graph=True), want)
        with torch.no_grad():
            assert torch.equal(forward(module)[1], y)
        assert_equal(backward(module, x, y), want)


def test_compiled_calls_take_turns_too():
    """The operators, which see the weights again in backward."""
    make_one = MODULES["LSTM"]
    torch.manual_seed(0)
    module = make_one()
    want = backward(module, *forward(module))
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        x, _ = forward(module)
        y, _ = compiled(x)
        for one, other in zip(backward(module, x, y), want, strict=True):
            twins.assert_same("gradient", one, other, "float32", 1000)
