# SPDX-License-Identifier: BSD-3-Clause
"""Recurrent layers whose W and R take one byte or two (`nn.quantized`).

Which layers kernels have them for, and what stands where other layers have a
`weights.Packer`.  Such a layer is otherwise one like any other.
"""

import copy

import numpy as np

from fastrnn.native import single, weights
from fastrnn.native.calls import QUANTIZED_LAYERS
from fastrnn.nn import quantized

MATRICES = ("weight_ih", "weight_hh")


def why_not(layer, cell, dtype, compute):
    """What no kernel with such weights has, of what a layer is made with: a list."""
    if cell.layer not in QUANTIZED_LAYERS:
        return [cell.layer]
    refused = {
        f"dtype={dtype!r}": dtype != "float32",
        "proj_size > 0": getattr(layer, "proj_size", 0) > 0,
        "heads > 1": layer.heads > 1,
        "layer_norm": bool(layer.layer_norm),
        "rms_norm": bool(layer.rms_norm),
        "reset_after=False": not getattr(layer, "reset_after", True),
        "zoneout": bool(np.any(layer.zoneout)),
        f"compute={compute!r}": compute not in (None, dtype),
    }
    return [what for what, is_so in refused.items() if is_so]


def can_be_small(layer):
    """Whether `Recurrent.quantize` would make a copy of a layer."""
    cell = layer._runtime.cell
    whole = layer._quantized is None
    return whole and not why_not(layer, cell, layer.dtype, None)


def check(who, layer, cell, dtype, compute):
    """Refuse a format that there is not, or a layer that no kernel has it for."""
    given = quantized.check_format(who, "quantized", layer.quantized)
    found = why_not(layer, cell, dtype, compute)
    if found:
        raise ValueError(
            f"{who}: quantized={given!r} is for {', '.join(QUANTIZED_LAYERS)} in "
            "float32, without what no kernel for such weights has, got "
            + ", ".join(found)
        )


def copy_of(layer, kind):
    """The layer that `Recurrent.quantize` gives."""
    who = f"{type(layer).__name__}.quantize"
    kind = quantized.check_format(who, "weights", kind)
    if layer._runtime.cell.layer not in QUANTIZED_LAYERS:
        raise ValueError(
            f"{who}: the layer must be one of {', '.join(QUANTIZED_LAYERS)}, got "
            f"{layer!r}"
        )
    quantized.check_whole(who, layer)
    made = quantized.copy_of(who, layer, kind, MATRICES)
    made.state = copy.deepcopy(layer.state)
    return made


def pack(kernels, runtime, k, shape, packed):
    """Bring the weights of cell k into the form that kernels read."""
    W, R, b_ih, b_hh, P, *_ = runtime.weights_of(k)
    W_scale, R_scale = (
        runtime.named.get(f"{name}{runtime.suffixes[k]}{quantized.SCALE}")
        for name in MATRICES
    )
    single.pack_quantized(kernels, shape, W, R, W_scale, R_scale, b_ih, b_hh, packed, P)


class PackedOnce:
    """The packed weights of a layer, which nothing changes: made at the first call.

    It stands where other layers have a `weights.Packer`.

    Parameters
    ----------
    runtime : Runtime
    """

    def __init__(self, runtime):
        self._runtime, self._kernels, self._use = runtime, None, None

    def __getstate__(self):
        return {"_runtime": self._runtime, "_kernels": None, "_use": None}

    def take(self, kernels, n_threads, parameters, start, with_backward):
        """The `weights.Use` of a call, as `Packer.take` gives it."""
        use = self._use
        if use is None or self._kernels is not kernels:
            runtime = self._runtime
            forms = [self._form(kernels, k) for k in range(runtime.n_cells)]
            packer = weights.Packer(runtime.layout, runtime.memory)
            use = packer.take_packed(kernels, forms)
            self._use, self._kernels = use, kernels
        return use

    def _form(self, kernels, k):
        runtime = self._runtime
        I, H = runtime.weights_of(k)[0].shape[1], runtime.hidden_size
        shape = single.Shape(
            runtime.layout.cell, False, 1, 1, I, H, None, runtime.options
        )
        size = single.packed_size(kernels, False, shape)
        form = runtime.memory.take(4 * size)
        pack(kernels, runtime, k, shape, np.frombuffer(form, np.float32))
        return form
