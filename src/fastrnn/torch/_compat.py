# SPDX-License-Identifier: BSD-3-Clause
"""What is used of PyTorch that it does not document, in one place.

Such names come and go between versions. Each is looked up when fastrnn.torch is
imported; where one is missing, a warning says what is lost, and the rest works.
"""

import contextlib
import pkgutil
import warnings

import torch
from torch.autograd import forward_ad


def private(path, lost):
    """What ``torch.`` and a dotted path name; None, with a warning, without it.

    Parameters
    ----------
    path : str
    lost : str
        What does not work, or is slower, without it.
    """
    try:
        return pkgutil.resolve_name(f"torch.{path}")
    except (AttributeError, ImportError):
        warn(f"torch.{path}", lost)
        return None


def warn(name, lost):
    """Say that this PyTorch lacks something, and what that means."""
    warnings.warn(
        f"fastrnn.torch: PyTorch {torch.__version__} has no {name}: {lost}",
        RuntimeWarning,
        stacklevel=3,
    )


_peek_interpreter_stack = private(
    "_C._functorch.peek_interpreter_stack",
    "torch.func's transforms are known from their tensors alone",
)
_len_dispatch_stack = private(
    "_C._len_torch_dispatch_stack",
    "dispatch modes do not see what the kernels compute",
)
# The check in C that torch.compile makes before each call of what it compiled. There is
# no public way to the same: class, type, device, layout, sizes, strides and the modes
# that are active can only be asked one by one, each by a call from Python, which takes
# as long as the kernels need for a small layer. Without it that is what happens.
TensorGuards = private(
    "_C._dynamo.guards.TensorGuards",
    "each call is examined in Python, which takes some microseconds",
)
_disable_dynamo = private(
    "_compile._disable_dynamo", "importing fastrnn.torch imports torch.compile, too"
)
_is_zerotensor = private(
    "Tensor._is_zerotensor", "tensors without memory are known by their address"
)
_current_level = private(
    "autograd.forward_ad._current_level",
    "whether forward mode is active is found by trying, in each call",
)
_clear_interpreter_stack = private(
    "_functorch.pyfunctorch.temporarily_clear_interpreter_stack",
    "torch.func.grad and jvp cannot go over a backward of ours",
)
create_script_module = private(
    "jit._recursive.create_script_module",
    "a torch.jit.ScriptModule cannot hold a layer of ours",
)


def transform_is_active():
    """Whether a transform of torch.func (vmap, grad, jvp ...) is."""
    if _peek_interpreter_stack is None:
        return False
    return _peek_interpreter_stack() is not None


def no_transforms():
    """A context in which no transform of torch.func is active."""
    if _clear_interpreter_stack is None or not transform_is_active():
        return contextlib.nullcontext()
    return _clear_interpreter_stack()


def dispatch_mode_is_active():
    """Whether a `TorchDispatchMode` looks at what is called."""
    return _len_dispatch_stack is not None and _len_dispatch_stack() > 0


def forward_mode_is_active():
    """Whether duals of forward-mode differentiation may be about."""
    return forward_ad._current_level >= 0


def _forward_mode_by_trying():
    probe = torch.zeros(1)
    try:
        forward_ad.make_dual(probe, probe)
    except RuntimeError:  # what PyTorch says outside of a level
        return False
    return True


if _current_level is None:
    forward_mode_is_active = _forward_mode_by_trying


def has_memory(tensor):
    """Whether a tensor is values in memory, not a wrapper that a transform made."""
    try:
        tensor.data_ptr()
    except RuntimeError:  # the documented answer of a tensor without storage
        return False
    return True


def is_zerotensor(tensor):
    """Whether a tensor stands for zeros that nobody has stored."""
    if _is_zerotensor is None:
        return tensor.numel() > 0 and tensor.data_ptr() == 0
    return _is_zerotensor(tensor)


def is_exporting():
    """Whether torch.export is at work, also to code that torch.compile looks into.

    The public function of this name is a constant in the eyes of PyTorch 2.11's
    compiler: always true. What it returns, the compiler reads as it is.
    """
    return torch.compiler._is_exporting_flag


if private("compiler._is_exporting_flag", "nothing, from PyTorch 2.12 on") is None:
    is_exporting = torch.compiler.is_exporting


def outside_the_graph(function):
    """`function`, called between two graphs wherever torch.compile meets it."""
    if _disable_dynamo is None:
        return torch.compiler.disable(function)
    return _disable_dynamo(function)


def apply_of(function):
    """The `apply` of an autograd function, for where no transform is active.

    `torch.autograd.Function.apply` looks for transforms, in Python, before it calls the
    method of the same name of the class that it derives from.
    """
    plain = getattr(super(torch.autograd.Function, function), "apply", None)
    if plain is None:
        warn(
            "base of torch.autograd.Function", "each call takes some microseconds more"
        )
        return function.apply
    return plain
