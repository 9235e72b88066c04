# SPDX-License-Identifier: BSD-3-Clause
"""The cases that PyTorch tests its own modules with, run on ours.

Its database of modules says how to build each recurrent layer and cell and what to call
it with; what has to hold then is what PyTorch's tests of modules ask of them.
"""

import os
import pickle

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
cases = pytest.importorskip(
    "torch.testing._internal.common_modules",
    reason="expecttest is not installed, which PyTorch's cases import",
    exc_type=ImportError,
)

import twins  # noqa: E402

from fastrnn.torch._accelerate import OURS  # noqa: E402

# Of samples that differ by one option each; all of them take some minutes.
STRIDE = 1 if os.environ.get("FASTRNN_EXHAUSTIVE") == "1" else 5
INFOS = {
    f"{info.module_cls.__name__}-{'training' if training else 'evaluation'}": (
        info,
        training,
    )
    for info in cases.module_db
    if info.module_cls in OURS
    for training in ([True, False] if info.train_and_eval_differ else [True])
}
pytestmark = [
    pytest.mark.parametrize("case", INFOS),
    pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning"),
]


def samples(case, stride=1):
    """Pairs of modules, PyTorch's and ours with its weights, and arguments for both."""
    info, training = INFOS[case]
    torch.manual_seed(5)  # else one run in ten has a sum that cancels nearly to nothing
    inputs = info.module_inputs_func(
        info,
        device="cpu",
        dtype=torch.float64,
        requires_grad=True,
        training=training,
    )
    for sample in inputs[::stride]:
        made = sample.constructor_input
        theirs, ours = (
            cls(*made.args, **made.kwargs).double().train(training)
            for cls in (info.module_cls, OURS[info.module_cls])
        )
        ours.load_state_dict(theirs.state_dict())
        yield theirs, ours, sample.forward_input


def test_the_database_has_all_of_them(case):
    assert {info.module_cls for info, _ in INFOS.values()} == set(OURS)
    assert len(list(samples(case))) >= 2


def test_results_gradients_and_copies(case):
    for theirs, ours, call in samples(case):
        found = []
        for module in (theirs, ours, pickle.loads(pickle.dumps(ours))):
            outputs = twins.flat(module(*call.args, **call.kwargs))
            sum(y.square().sum() for y in outputs).backward()
            found.append([*outputs, *[p.grad for p in module.parameters()]])
        for got in found[1:]:
            for one, other in zip(got, found[0], strict=True):
                twins.assert_same("value", one, other, "float64", 3000)
        assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("twice", [False, True])
def test_derivatives_one_by_one_and_batched(case, twice):
    check = torch.autograd.gradgradcheck if twice else torch.autograd.gradcheck
    for _, ours, call in samples(case, 3 * STRIDE if twice else STRIDE):
        leaves = twins.flat([*call.args, *call.kwargs.values()])

        def run(*_, ours=ours, call=call):
            return tuple(twins.flat(ours(*call.args, **call.kwargs)))

        assert check(
            run, (*leaves, *ours.parameters()), check_batched_grad=True, fast_mode=True
        )


def test_strides(case):
    for theirs, ours, call in samples(case, STRIDE):
        args = [spread(arg) for arg in call.args]
        for one, other in zip(
            twins.flat(ours(*args)), twins.flat(theirs(*args)), strict=True
        ):
            twins.assert_same("value", one, other, "float64", 3000)


def spread(value):
    """The same numbers, and others between them in memory."""
    if isinstance(value, torch.Tensor):
        return value.detach().repeat_interleave(2, -1)[..., ::2].requires_grad_()
    return type(value)(spread(part) for part in value)


@pytest.mark.parametrize("swap", [False, True])
def test_conversions_after_a_call(case, swap):
    for _, ours, call in samples(case, STRIDE):
        want = [y.detach() for y in twins.flat(ours(*call.args, **call.kwargs))]
        before = [id(p) for p in ours.parameters()]
        torch.__future__.set_swap_module_params_on_conversion(swap)
        try:
            ours.float()
            with pytest.raises((RuntimeError, ValueError), match=r"dtype|Float"):
                ours(*call.args, **call.kwargs)
            ours.double()
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)
        got = twins.flat(ours(*call.args, **call.kwargs))
        assert ([id(p) for p in ours.parameters()] == before) or not swap
        for one, other in zip(got, want, strict=True):
            assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)
