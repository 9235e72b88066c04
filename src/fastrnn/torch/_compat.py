# SPDX-License-Identifier: BSD-3-Clause
"""The undocumented names of PyTorch that fastrnn.torch uses, in one place.

Such names come and go between versions of PyTorch. Each is looked up once, when
fastrnn.torch is imported. Where a name is missing, a warning says what does not work
without it, and everything else works.
"""

import contextlib
import pkgutil
import warnings

import torch
from torch.autograd import forward_ad


def private(path, lost):
    """Look up an undocumented name of PyTorch.

    Parameters
    ----------
    path : str
        The dotted name after ``torch.``.
    lost : str
        What does not work, or is slower, without this name: the text of a warning.

    Returns
    -------
    object or None
        None, after the warning, if this PyTorch does not have the name.
    """
    try:
        return pkgutil.resolve_name(f"torch.{path}")
    except (AttributeError, ImportError):
        warn(f"torch.{path}", lost)
        return None


def warn(name, lost):
    """Warn that this PyTorch lacks a name, and say what is lost without it."""
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
# The check in C that torch.compile makes before each call of what it compiled; `_path`
# recognises calls by it. PyTorch has no documented counterpart: class, type, device,
# layout, sizes, strides and the active modes can only be asked for one by one from
# Python, which takes as long as the kernels need for a small layer. That is what
# happens without this name.
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
_keeps_graph = private(
    "_C._autograd._get_current_graph_task_keep_graph",
    "what a layer of fastrnn.torch.layers keeps for backward stays until its output is "
    "deleted",
)
create_script_module = private(
    "jit._recursive.create_script_module",
    "a torch.jit.ScriptModule cannot hold a layer of ours",
)


def transform_is_active():
    """Whether a transform of torch.func (vmap, grad, jvp ...) is active."""
    if _peek_interpreter_stack is None:
        return False
    return _peek_interpreter_stack() is not None


def no_transforms():
    """A context in which no transform of torch.func is active."""
    if _clear_interpreter_stack is None or not transform_is_active():
        return contextlib.nullcontext()
    return _clear_interpreter_stack()


def dispatch_mode_is_active():
    """Whether a `TorchDispatchMode` intercepts the operators that are called."""
    return _len_dispatch_stack is not None and _len_dispatch_stack() > 0


def forward_mode_is_active():
    """Whether forward-mode differentiation is active, so that tensors may be duals."""
    return forward_ad._current_level >= 0


def _forward_mode_by_trying():
    """`forward_mode_is_active` by documented names alone: try to make a dual tensor."""
    probe = torch.zeros(1)
    try:
        forward_ad.make_dual(probe, probe)
    except RuntimeError:  # PyTorch raises it where forward mode is not active
        return False
    return True


if _current_level is None:
    forward_mode_is_active = _forward_mode_by_trying


def graph_is_kept():
    """Inside a backward: whether another backward may go through the same graph."""
    return _keeps_graph is None or _keeps_graph()


def has_memory(tensor):
    """Whether a tensor has memory; the wrappers that transforms make have none."""
    try:
        tensor.data_ptr()
    except RuntimeError:  # PyTorch raises it for a tensor without storage
        return False
    return True


def is_zerotensor(tensor):
    """Whether a tensor stands for zeros without having memory that holds them."""
    if _is_zerotensor is None:
        return tensor.numel() > 0 and tensor.data_ptr() == 0
    return _is_zerotensor(tensor)


def is_exporting():
    """Whether torch.export is tracing; torch.compile may trace this function, too.

    The compiler of PyTorch 2.11 takes the public `torch.compiler.is_exporting` for a
    constant that is always true. The flag that the public function returns is a
    variable to the compiler, which reads its value.
    """
    return torch.compiler._is_exporting_flag


if private("compiler._is_exporting_flag", "nothing, from PyTorch 2.12 on") is None:
    is_exporting = torch.compiler.is_exporting


def outside_the_graph(function):
    """Wrap a function so that torch.compile does not trace it.

    A compiled program ends one graph before each call of the function, and begins the
    next graph after the call.
    """
    if _disable_dynamo is None:
        return torch.compiler.disable(function)
    return _disable_dynamo(function)


def apply_of(function):
    """A faster `apply` of an autograd function, for calls outside of any transform.

    `torch.autograd.Function.apply` first looks for active transforms of torch.func, in
    Python, and then calls the `apply` of its base class. This function returns the
    latter. Without transforms both do the same.
    """
    plain = getattr(super(torch.autograd.Function, function), "apply", None)
    if plain is None:
        warn(
            "base of torch.autograd.Function", "each call takes some microseconds more"
        )
        return function.apply
    return plain
