# SPDX-License-Identifier: BSD-3-Clause
"""Weights of fewer bytes as buffers of a module: the memory of the layer that computes.

PyTorch may move buffers, load others or write to them; a layer packs its weights once.
So a module looks before a call whether its buffers are what they were.
"""

import numpy as np
import torch


def hold(module, layer):
    """Let a layer's arrays that no training changes be buffers of a module."""
    for name, array in layer._fixed.items():
        module.register_buffer(name, _tensor(array))
    module._marks = _marks(module, layer)


def settle(module, layer):
    """Bring the numbers of the buffers into the layer's memory where they are not."""
    for name, array in layer._fixed.items():
        own, buffer = _tensor(array), module._buffers[name]
        if not _is_same_memory(buffer, own):
            if buffer.shape != own.shape:
                raise ValueError(
                    f"{type(layer).__name__}: {name} must have shape "
                    f"{tuple(own.shape)}, got {tuple(buffer.shape)}"
                )
            own.copy_(buffer)
            module._buffers[name] = own
    layer._fixed_changed()
    module._marks = _marks(module, layer)


def look(module, layer):
    """`settle` if somebody has moved a buffer or written to it."""
    if module._marks != _marks(module, layer):
        settle(module, layer)


def _tensor(array):
    """An array's memory; what NumPy has as the bits of bfloat16 is that to PyTorch."""
    if array.dtype == np.uint16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _marks(module, layer):
    buffers = [module._buffers[name] for name in layer._fixed]
    return [(id(buffer), buffer._version) for buffer in buffers]


def _is_same_memory(a, b):
    return a.dtype is b.dtype and a.data_ptr() == b.data_ptr() and a.shape == b.shape
