# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch without the names that it does not document: warnings, right numbers."""

import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

WITHOUT = """
import pkgutil
import warnings

import torch
from torch.autograd import forward_ad


def gone(name):
    raise AttributeError(name)


pkgutil.resolve_name = gone
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import fastrnn.torch
from fastrnn.torch import _compat, explain

said = [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)]
for name in ("_C._functorch.peek_interpreter_stack", "_C._dynamo.guards.TensorGuards"):
    assert any(f"{torch.__version__} has no torch.{name}: " in s for s in said), said
assert all(s.startswith("fastrnn.torch: PyTorch ") for s in said), said
warnings.simplefilter("ignore")

theirs, ours = torch.nn.GRU(3, 5, 2).double(), fastrnn.torch.GRU(3, 5, 2).double()
ours.load_state_dict(theirs.state_dict())
x = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 2, 3)
assert explain(ours, x).name == "fastrnn"


def gradient(module):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(module(leaf)[0].relu_().sum(), leaf)[0]


def dual(module):
    with forward_ad.dual_level():
        y, _ = module(forward_ad.make_dual(x, x))
        return forward_ad.unpack_dual(y).tangent


def batched(module):
    return torch.autograd.functional.jacobian(lambda x: module(x)[0], x, vectorize=True)


def transformed(module):
    return torch.func.grad(lambda x: module(x)[0].square().sum())(x)


for compute in (gradient, gradient, dual, batched, transformed):
    torch.testing.assert_close(compute(ours), compute(theirs))
"""


def test_names_that_are_missing_are_done_without():
    subprocess.run([sys.executable, "-c", WITHOUT], check=True)


def test_none_is_missing_here():
    """With the versions that the extra declares, importing warns of nothing."""
    subprocess.run(
        [sys.executable, "-W", "error", "-c", "import fastrnn.torch"], check=True
    )
