# SPDX-License-Identifier: BSD-3-Clause
"""`torch.jit.script` compiles a forward's source, and ours is not TorchScript."""

import copy

import torch


def prepare(self):
    """The PyTorch module that `torch.jit.script` takes instead of one of ours.

    It has the same parameters; scripted code runs PyTorch's own operators.
    """
    twin = copy.copy(self)
    home = torch.nn.LSTM.__module__
    twin.__class__ = next(c for c in type(self).__mro__ if c.__module__ == home)
    return twin
