# SPDX-License-Identifier: BSD-3-Clause
"""Backward with gradients that are not plain tensors, or while a mode is active."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import twins  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.autograd.functional import hessian, jacobian  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

LAYERS = {
    "LSTM": lambda: twins.pair("LSTM", num_layers=2, dropout=0.5),
    "GRU": lambda: twins.pair("GRU", bidirectional=True, batch_first=True),
    "tanh": lambda: twins.pair("tanh", bias=False),
    "relu": lambda: twins.pair("relu"),
    "projected": lambda: twins.pair("projected"),
}
CELLS = {
    f"{kind} cell": lambda kind=kind: twins.pair(kind, twins.CELLS)
    for kind in twins.CELLS
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning"),
    # PyTorch's own, of what it does itself.
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*script.*deprecated"),
]


@pytest.fixture(params=[*LAYERS, *CELLS, "packed"])
def both(request, rng):
    """PyTorch's module and ours, in float64, and the same input for each.

    As functions of x, with their parameters.
    """
    name = request.param
    make = {**LAYERS, **CELLS, "packed": LAYERS["LSTM"]}[name]
    x = twins.draw(rng, 4, 3, twins.I, dtype=torch.float64)
    functions = []
    for module in make():
        module.double()

        def call(x, module=module):
            torch.manual_seed(2)
            if name == "packed":
                x = twins.pack_padded_sequence(x, [4, 2, 1])
            return twins.flat(module(x[0] if name in CELLS else x))[0]

        functions.append((call, list(module.parameters())))
    return x, functions


def assert_same(both, compute):
    """What `compute` makes of a function, x and parameters is the same for both."""
    x, functions = both
    theirs, ours = (
        twins.flat(compute(call, x.clone().requires_grad_(), parameters))
        for call, parameters in functions
    )
    assert len(theirs) == len(ours)
    for got, want in zip(ours, theirs, strict=True):
        twins.assert_same("gradient", got, want, "float64", 1000)


def directions(y, *sizes):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(*sizes, *y.shape, generator=generator, dtype=y.dtype)


def test_vectorized_jacobians(both):
    assert_same(both, lambda call, x, _: jacobian(call, x, vectorize=True))


def test_batches_of_gradients(both):
    def compute(call, x, parameters):
        y = call(x)
        return torch.autograd.grad(
            y, [x, *parameters], directions(y, 3), is_grads_batched=True
        )

    assert_same(both, compute)


@pytest.mark.parametrize("nested", [False, True])
def test_vmap_over_backward(both, nested):
    def compute(call, x, parameters):
        y = call(x)

        def back(v):
            return torch.autograd.grad(y, [x, *parameters], v, retain_graph=True)

        if nested:
            return torch.vmap(torch.vmap(back))(directions(y, 2, 3))
        return torch.vmap(back)(directions(y, 3))

    assert_same(both, compute)


def test_gradcheck_with_batches(both):
    x, functions = both
    call, parameters = functions[1]
    x = x.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, *_: call(x), (x, *parameters), check_batched_grad=True, fast_mode=True
    )
    assert torch.autograd.gradgradcheck(
        lambda x, *_: call(x), (x, *parameters), check_batched_grad=True, fast_mode=True
    )


def test_duals_in_backward(both):
    """Forward mode over reverse mode: no tangent is dropped."""

    def compute(call, x, parameters):
        y = call(x)
        with forward_ad.dual_level():
            v, tangent = directions(y, 2)
            dx, dw = torch.autograd.grad(
                y, [x, parameters[1]], forward_ad.make_dual(v, tangent)
            )
            return [*forward_ad.unpack_dual(dx), *forward_ad.unpack_dual(dw)]

    assert_same(both, compute)


def test_transforms_of_backward(both, request):
    if request.node.callspec.params["both"] == "packed":
        pytest.skip("PyTorch cannot read a packed batch's sizes inside a transform")

    def compute(call, x, parameters):
        y = call(x)

        def norm(v):
            return torch.autograd.grad(y, x, v, create_graph=True)[0].square().sum()

        return [
            torch.func.grad(norm)(directions(y)),
            torch.func.jacrev(call)(x.detach()),
            torch.func.vjp(call, x.detach())[1](directions(y))[0],
        ]

    assert_same(both, compute)


def test_vectorized_hessians(both):
    def compute(call, x, _):
        return hessian(lambda x: call(x).square().sum(), x, vectorize=True)

    assert_same(both, compute)


class Recorded(TorchDispatchMode):
    """What reaches the dispatcher."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_dispatch_modes_see_pytorchs_operators_in_backward(both):
    def compute(call, x, parameters):
        y = call(x).sum()
        with Recorded() as mode:
            y.backward()
        assert "mm" in mode.names
        return [x.grad, *[p.grad for p in parameters]]

    assert_same(both, compute)


def test_gradients_of_a_class_of_their_own(both):
    class Marked(torch.Tensor):
        pass

    def compute(call, x, parameters):
        y = call(x)
        v = directions(y).as_subclass(Marked)
        return [
            g.as_subclass(torch.Tensor)
            for g in torch.autograd.grad(y, [x, *parameters], v)
        ]

    assert_same(both, compute)
