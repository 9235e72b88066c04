# SPDX-License-Identifier: BSD-3-Clause
"""`accelerate`, `restore`, `patched`: put layers of PyTorch on fastrnn's kernels."""

import contextlib
from collections.abc import Iterator
from typing import TypeVar

import torch

from fastrnn.torch import _classes, _path
from fastrnn.torch._classes import OURS

ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)
_KINDS = "torch.nn.RNN, LSTM, GRU or cell of these"
_RESTORE = (
    "restore(model) before tools that ask for torch.nn's classes by exact type: "
    "quantize_dynamic, opacus, counters of operations"
)


def accelerate(model: ModuleT, verbose: bool = True) -> ModuleT:
    """Let every `torch.nn.RNN`, `LSTM`, `GRU` and cell in a model run on the kernels.

    Each module stays the object that it is, with its parameters, hooks, mode and name:
    an optimiser that was made before goes on working, and references to the module stay
    valid. Only the class of the module changes. A module whose class the user derived
    from one of PyTorch's gets a class of the same name that derives from the user's
    class and from fastrnn's. If the user's class computes its results in a way of its
    own, the module is left as it is, and the reason is printed.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place; may be a layer itself.
    verbose : bool
        Whether to print which modules were replaced, which were left and why, and which
        PyTorch goes on running although they were replaced, because of their type or
        device.

    Returns
    -------
    torch.nn.Module
        `model`.

    Raises
    ------
    TypeError
        If `model` is not a `torch.nn.Module`.

    Notes
    -----
    ``isinstance(layer, torch.nn.LSTM)`` is true of fastrnn's layers, ``type(layer) ==
    torch.nn.LSTM`` is not. Tools that ask for the exact type pass over fastrnn's layers
    in silence: `torch.ao.quantization.quantize_dynamic` leaves them in float, the
    validator of opacus finds no fault, and thop and ptflops count no operations. Call
    `restore` before such a tool. `torch.nn.utils.prune`, parametrizations, torchinfo,
    captum, `torch.onnx.export`, tracing and scripting need no `restore`.

    Under autocast to bfloat16 on a CPU that has instructions for bfloat16, and for a
    cell under `torch.compile`, PyTorch's own operators run where they take less time;
    `explain` tells for a call which implementation runs it. In compiled code, each
    training step costs some tenths of a millisecond of the compiler's own: a small
    layer is faster outside of `torch.compile`.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.GRU(3, 5))
    >>> y, _ = accelerate(model)(torch.randn(4, 2, 3))  # doctest: +ELLIPSIS
    fastrnn.torch: replaced 0: GRU(3, 5)
    fastrnn.torch: restore(model) before tools that ask for torch.nn's classes ...
    >>> accelerate(torch.nn.Linear(3, 5))
    fastrnn.torch: Linear has no torch.nn.RNN, LSTM, GRU or cell of these
    Linear(in_features=3, out_features=5, bias=True)
    """
    _check("accelerate", model)
    lines, n_replaced = [], 0
    for name, module in _recurrent(model):
        if reason := _accelerate(module):
            lines.append(f"left {name}: {module}: {reason}")
            continue
        n_replaced += 1
        reason = _torch_runs(module)
        but = f", but PyTorch runs it: {reason}" if reason else ""
        lines.append(f"replaced {name}: {module}{but}")
    if not lines:
        hidden = any(isinstance(m, torch.jit.ScriptModule) for m in model.modules())
        seen = " to be seen: it holds what torch.jit has compiled" if hidden else ""
        lines.append(f"{type(model).__name__} has no {_KINDS}{seen}")
    if n_replaced:
        lines.append(_RESTORE)
    if verbose:
        for line in lines:
            print(f"fastrnn.torch: {line}")
    return model


def restore(model: ModuleT) -> ModuleT:
    """Undo `accelerate`: give every module of fastrnn in a model PyTorch's class again.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.

    Returns
    -------
    torch.nn.Module
        `model`.

    Raises
    ------
    TypeError
        If `model` is not a `torch.nn.Module`.

    Examples
    --------
    >>> import torch
    >>> type(restore(accelerate(torch.nn.GRU(3, 5), verbose=False))) is torch.nn.GRU
    True
    """
    _check("restore", model)
    for module in model.modules():
        cls = _classes.class_of(module)
        theirs = _classes.THEIRS.get(cls) or _classes.own_class(cls)
        if theirs is not None:
            _classes.set_class(module, theirs)
    return model


def _check(who, model):
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"{who}: model must be a torch.nn.Module, got {type(model).__name__}"
        )


def _recurrent(model):
    """Yield the name and the module of each recurrent module, scripted or not."""
    names = {cls.__name__ for cls in OURS}
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            found = module.original_name in names
        else:
            found = isinstance(module, _classes.BASES)
        if found:
            yield name or "the model itself", module


def _accelerate(module):
    """Give a module the class of fastrnn that replaces the module's class.

    Returns
    -------
    str or None
        Why the module was left as it is; None if it has the new class.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return "torch.jit has compiled it; accelerate the model that it was made from"
    if isinstance(module, tuple(_classes.THEIRS)):
        return "it is fastrnn's already"
    if reason := _classes.problem(module):
        return reason
    cls = _classes.class_of(module)
    try:
        _classes.set_class(module, OURS.get(cls) or _classes.served(cls))
    except TypeError as error:  # raised because of a metaclass or of __slots__
        return f"{cls.__name__} cannot be combined with fastrnn's: {error}"
    return None


def _torch_runs(module):
    """Why PyTorch runs a module of fastrnn whatever its input is, or None."""
    if _classes.is_in_shards(module):
        return None  # its weights now are parts of those that a forward will have
    if isinstance(module, torch.nn.RNNBase):
        which, weights = _path.layers_spec(module), _path.layers_weights(module)
    else:
        which, weights = _path.cell_spec(module), _path.cell_weights(module)
        if which is None:
            return f"the nonlinearity is {module.nonlinearity!r}"
    dtype = weights[0].dtype
    if dtype not in (*_path.DTYPES, torch.bfloat16):
        return f"its weights are {dtype}"
    return _path.weights_problem(weights, which.shapes, dtype)


_patched = 0  # how many contexts of `patched` are active, in all threads


def _new(cls, *args, **kwargs):
    """The ``__new__`` of PyTorch's classes from the first use of `patched` on."""
    return object.__new__(OURS.get(cls, cls) if _patched else cls)


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Let `torch.nn.LSTM(...)` and its like build fastrnn's modules inside a ``with``.

    This is for code that cannot be edited. The context acts on PyTorch's classes
    themselves, however they were imported, and in all threads. Classes derived from
    them build what they always do. For a module that was built inside,
    ``isinstance(layer, torch.nn.LSTM)`` is true and ``type(layer) == torch.nn.LSTM`` is
    not: code that asks for the exact type needs `restore`, as after `accelerate`.

    Examples
    --------
    >>> import torch
    >>> with patched():
    ...     model = torch.nn.LSTM(3, 5)
    >>> type(model).__module__
    'fastrnn.torch.modules'
    """
    global _patched
    for cls in OURS:
        # The new __new__ stays when the context ends. Deleting it would not undo this:
        # once a class has had a __new__ of its own, object.__new__ raises TypeError for
        # the arguments of the class's __init__.
        cls.__new__ = staticmethod(_new)
    _patched += 1
    try:
        yield
    finally:
        _patched -= 1
