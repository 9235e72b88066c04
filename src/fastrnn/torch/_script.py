# SPDX-License-Identifier: BSD-3-Clause
"""`torch.jit.script` compiles a forward's source, and ours is not TorchScript."""

import copy

import torch

from fastrnn.torch import _compat


def prepare(self):
    """The PyTorch module that `torch.jit.script` takes instead of one of ours.

    It has the same parameters; scripted code runs PyTorch's own operators.
    """
    twin = copy.copy(self)
    home = torch.nn.LSTM.__module__
    twin.__class__ = next(c for c in type(self).__mro__ if c.__module__ == home)
    return twin


def _prepared(module, done):
    """A module with PyTorch's in place of ours; itself if there are none.

    Parameters
    ----------
    done : dict
        What modules were replaced by, so that what is shared stays shared.
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
    """Let a `torch.jit.ScriptModule` of the user's hold modules of ours.

    `torch.jit.script` asks modules what to compile instead of them; the constructor of
    a class derived from `torch.jit.ScriptModule` does not.
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
