# SPDX-License-Identifier: BSD-3-Clause
"""Turning a model's layers into ours and back, without making new ones."""

import contextlib

import torch

from fastrnn.torch import _classes, _path
from fastrnn.torch._classes import OURS

_KINDS = "torch.nn.RNN, LSTM, GRU or cell of these"
_RESTORE = (
    "restore(model) before tools that ask for torch.nn's classes by exact type: "
    "quantize_dynamic, opacus, counters of operations"
)


def accelerate(model, verbose=True):
    """Let every `torch.nn.RNN`, `LSTM`, `GRU` and cell in a model run on our kernels.

    The modules stay the objects they are, with their parameters, hooks, mode and names:
    an optimiser that was made before goes on working, and so does every reference. An
    object of a class that derives from one of these gets a class of the same name that
    derives from both, unless its class computes in a way of its own: then it is left,
    and the reason printed.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place; may be a layer itself.
    verbose : bool
        Print what was replaced, what was left and why, and what PyTorch goes on running
        although it was replaced, because of its type or device.

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
    ``isinstance(layer, torch.nn.LSTM)`` holds for our layers, ``type(layer) ==
    torch.nn.LSTM`` does not, and tools that ask so pass them over in silence:
    `torch.ao.quantization.quantize_dynamic` leaves them in float, the validator of
    opacus finds no fault, and thop and ptflops count no operations. Call `restore`
    before such a tool. `torch.nn.utils.prune`, parametrizations, torchinfo, captum,
    `torch.onnx.export`, tracing and scripting need no `restore`.

    Under autocast to bfloat16 on a CPU with instructions for it, and for a cell under
    `torch.compile`, PyTorch's own operators run where they take less time; `explain`
    says so for a call. A small layer's training step inside compiled code costs the
    compiler's own tenths of a millisecond: left out of `torch.compile` it is faster.

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


def restore(model):
    """Undo `accelerate`: every module of ours in a model is PyTorch's own again.

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
    """The recurrent modules in a model by name, those that are compiled included."""
    names = {cls.__name__ for cls in OURS}
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            found = module.original_name in names
        else:
            found = isinstance(module, _classes.BASES)
        if found:
            yield name or "the model itself", module


def _accelerate(module):
    """Give a module the class of ours that stands for its own.

    Returns
    -------
    str or None
        Why it was left as it is.
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
    except TypeError as error:  # what a metaclass or __slots__ may say
        return f"{cls.__name__} cannot be combined with fastrnn's: {error}"
    return None


def _torch_runs(module):
    """Why PyTorch runs a module of ours, whatever the input, or None."""
    if isinstance(module, torch.nn.RNNBase):
        which, weights = _path.layers_spec(module), _path.layers_weights(module)
    else:
        which, weights = _path.cell_spec(module), _path.cell_weights(module)
        if which is None:
            return f"the nonlinearity is {module.nonlinearity!r}"
    dtype = weights[0].dtype
    if dtype not in _path.DTYPES:
        return f"its weights are {dtype}"
    return _path.weights_problem(weights, which.shapes, dtype)


_patched = 0  # how many `patched` are active


def _new(cls, *args, **kwargs):
    """`__new__` of PyTorch's classes once `patched` was used."""
    return object.__new__(OURS.get(cls, cls) if _patched else cls)


@contextlib.contextmanager
def patched():
    """Within the body, `torch.nn.LSTM(...)` and its like build ours.

    For code that cannot be edited. It acts on the classes themselves, however they were
    imported, in all threads; classes derived from them are as they were.
    ``isinstance(layer, torch.nn.LSTM)`` holds for what is built, ``type(layer) ==
    torch.nn.LSTM`` does not: code that asks so needs `restore`, as in `accelerate`.

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
        # It stays: Python cannot take a __new__ off a class again.
        cls.__new__ = staticmethod(_new)
    _patched += 1
    try:
        yield
    finally:
        _patched -= 1
