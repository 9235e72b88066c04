# SPDX-License-Identifier: BSD-3-Clause
"""Weights of fewer bytes as buffers of a module, and the layer that computes with them.

At first the buffers are the layer's own memory.  PyTorch may put others in their place,
for a call or for good, or somebody may write to them; a layer packs its weights once.
So a module looks before a call whether its buffers are what they were.  The layer then
takes a copy of the numbers of others: nobody else's memory is written to.
"""

import numpy as np
import torch

from fastrnn.torch import _path


def hold(module, layer):
    """Let a layer's arrays that no training changes be buffers of a module."""
    for name, array in layer._fixed.items():
        module.register_buffer(name, _tensor(array))
    module._marks = _marks(module, layer)


def settle(module, layer):
    """Bring the numbers of all buffers into memory of the layer's own, and its types.

    So it is after ``module.to`` and the like, and in a copy.
    """
    for name, array in layer._fixed.items():
        buffer = module._buffers[name]
        if not _is_memory_of(buffer, array):
            layer._fixed[name] = _copy(buffer, array)
            module._buffers[name] = _tensor(layer._fixed[name])
    layer._fixed_changed()
    module._marks = _marks(module, layer)


def load(base, module, layer, state_dict, prefix, *args):
    """``_load_from_state_dict`` by that of a base, unless a buffer's type is another.

    PyTorch would round it to integers or bfloat16 in silence.
    """
    *_, errors = args
    n = len(errors)
    _note_other_types(module, layer, state_dict, prefix, errors)
    if len(errors) == n:
        base(state_dict, prefix, *args)


def _note_other_types(module, layer, state_dict, prefix, error_msgs):
    for name in layer._fixed:
        given, buffer = state_dict.get(prefix + name), module._buffers[name]
        if given is None or buffer.dtype is torch.float32:
            continue
        if getattr(given, "dtype", None) is not buffer.dtype:
            error_msgs.append(
                f"{prefix}{name} must be of {buffer.dtype}, got "
                f"{getattr(given, 'dtype', type(given).__name__)}"
            )


def look(module, layer):
    """Let the layer take the numbers of the buffers if these are not what they were.

    Raises
    ------
    TypeError, ValueError
        If a buffer is not a plain tensor of its type and shape; nothing has changed
        then.
    """
    marks = _marks(module, layer)
    if module._marks == marks:
        return
    taken = {}
    for name, array in layer._fixed.items():
        buffer = module._buffers[name]
        if not _is_memory_of(buffer, array):
            _check(type(layer).__name__, name, buffer, _tensor(array))
            taken[name] = _copy(buffer, array)
    layer._fixed.update(taken)
    layer._fixed_changed()
    module._marks = marks


def _check(who, name, buffer, own):
    if problem := _path.tensor_problem(name, buffer, own.dtype):
        raise TypeError(
            f"{who}: weights must be plain tensors on the CPU, and {problem}"
        )
    if buffer.shape != own.shape:
        raise ValueError(
            f"{who}: {name} must have shape {tuple(own.shape)}, got "
            f"{tuple(buffer.shape)}"
        )


def _tensor(array):
    """An array's memory; what NumPy has as the bits of bfloat16 is that to PyTorch."""
    with torch.inference_mode(False):  # a tensor that counts who writes to it
        if array.dtype == np.uint16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)


def _copy(buffer, array):
    """A new array like this one with the numbers of a buffer."""
    made = np.empty_like(array)
    with torch.no_grad():
        _tensor(made).copy_(buffer)
    return made


def _marks(module, layer):
    """What tells buffers that nobody has moved or written to."""
    buffers = [module._buffers[name] for name in layer._fixed]
    return [(id(one), None if one.is_inference() else one._version) for one in buffers]


def _is_memory_of(buffer, array):
    own = _tensor(array)
    return (
        buffer.dtype is own.dtype
        and buffer.shape == own.shape
        and not buffer.is_meta
        and buffer.data_ptr() == own.data_ptr()
    )
