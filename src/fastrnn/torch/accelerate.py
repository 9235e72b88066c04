# SPDX-License-Identifier: BSD-3-Clause
"""Turning a model's layers into ours and back, without making new ones."""

import contextlib

import torch
from torch.nn.utils import parametrize

from fastrnn.torch.cells import GRUCell, LSTMCell, RNNCell
from fastrnn.torch.modules import GRU, LSTM, RNN

OURS = {
    torch.nn.RNN: RNN,
    torch.nn.LSTM: LSTM,
    torch.nn.GRU: GRU,
    torch.nn.RNNCell: RNNCell,
    torch.nn.LSTMCell: LSTMCell,
    torch.nn.GRUCell: GRUCell,
}
_THEIRS = {ours: theirs for theirs, ours in OURS.items()}
_BASES = (torch.nn.RNNBase, torch.nn.modules.rnn.RNNCellBase)


def accelerate(model, verbose=True):
    """Let every `torch.nn.RNN`, `LSTM`, `GRU` and cell in a model run on our kernels.

    The modules stay the objects they are, with their parameters, hooks, mode and names:
    an optimiser that was made before goes on working, and so does every reference.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place; may be a layer itself.
    verbose : bool
        Print what was replaced, and what was left and why.

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
    >>> model = torch.nn.Sequential(torch.nn.GRU(3, 5))
    >>> accelerate(model)[0](torch.randn(4, 2, 3))[0].shape
    fastrnn.torch: replaced 0: GRU(3, 5)
    torch.Size([4, 2, 5])
    """
    for name, module, problem in _change("accelerate", model, OURS):
        if verbose:
            if problem:
                print(f"fastrnn.torch: left {name}: {module}: {problem}")
            else:
                print(f"fastrnn.torch: replaced {name}: {module}")
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
    list(_change("restore", model, _THEIRS))
    return model


def _change(who, model, classes):
    """Give modules the class that `classes` has for theirs; say what was done.

    Yields
    ------
    name : str
    module : torch.nn.Module
    problem : str or None
        Why the module was left as it is.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"{who}: model must be a torch.nn.Module, got {type(model).__name__}"
        )
    for name, module in model.named_modules():
        name = name or "the model itself"
        known = type(module)
        # A parametrization gives each module a class of its own, derived from its own.
        wrapped = parametrize.is_parametrized(module)
        if wrapped:
            known = known.__bases__[0]
        if known not in classes:
            if isinstance(module, _BASES) and known not in classes.values():
                yield name, module, f"{known.__name__} is a class of its own"
            continue
        if wrapped:
            type(module).__bases__ = (classes[known],)
        else:
            module.__class__ = classes[known]
        yield name, module, None


_patched = 0  # how many `patched` are active


def _new(cls, *args, **kwargs):
    """`__new__` of PyTorch's classes once `patched` was used."""
    return object.__new__(OURS.get(cls, cls) if _patched else cls)


@contextlib.contextmanager
def patched():
    """Within the body, `torch.nn.LSTM(...)` and its like build ours.

    For code that cannot be edited. It acts on the classes themselves, however they were
    imported, in all threads; classes derived from them are as they were.

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
        cls.__new__ = _new
    _patched += 1
    try:
        yield
    finally:
        _patched -= 1
