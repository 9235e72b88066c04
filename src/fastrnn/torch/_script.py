# SPDX-License-Identifier: BSD-3-Clause
"""Modules that `torch.jit.script` can compile in place of fastrnn's.

`torch.jit.script` compiles the source of a module's forward. The source of fastrnn's
forward is not TorchScript, so the compiler is given PyTorch's own module instead.
"""

import copy

import torch

from fastrnn.torch import _compat


def prepare(self):
    """The module of PyTorch that `torch.jit.script` compiles instead of fastrnn's.

    `torch.jit.script` calls this as the method ``__prepare_scriptable__``. The module
    that it returns has the same parameters, and runs PyTorch's own operators.
    """
    twin = copy.copy(self)
    home = torch.nn.LSTM.__module__
    twin.__class__ = next(c for c in type(self).__mro__ if c.__module__ == home)
    return twin


def _prepared(module, done):
    """A module with PyTorch's modules in place of fastrnn's inside it.

    Parameters
    ----------
    module : torch.nn.Module or None
    done : dict
        By module, the module that stands in its place. A module that is used in several
        places is replaced by the same one everywhere.

    Returns
    -------
    torch.nn.Module or None
        `module` itself if it holds none of fastrnn's.
    """
    if module is None or isinstance(module, torch.jit.ScriptModule):
        return module
    if module not in done:
        done[module] = module  # for a module that contains itself
        if getattr(type(module), "__prepare_scriptable__", None) is prepare:
            done[module] = prepare(module)
        else:
            children = module._modules
            new = {name: _prepared(child, done) for name, child in children.items()}
            if any(new[name] is not child for name, child in children.items()):
                done[module] = copy.copy(module)
                done[module]._modules = new
    return done[module]


def prepare_in_script_modules():
    """Let a user's class derived from `torch.jit.ScriptModule` hold fastrnn's modules.

    `torch.jit.script` calls ``__prepare_scriptable__`` of the modules that it meets.
    The constructor of such a class compiles the modules that it holds without calling
    it, and PyTorch has no other hook there, so the undocumented function that compiles
    them is replaced.
    """
    create = _compat.create_script_module
    if create is None:
        return

    def create_script_module(nn_module, *args, **kwargs):
        if isinstance(nn_module, torch.jit.ScriptModule):
            done, children = {}, nn_module._modules
            for name, child in children.items():
                children[name] = _prepared(child, done)
        return create(nn_module, *args, **kwargs)

    torch.jit._recursive.create_script_module = create_script_module
