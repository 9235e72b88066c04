# SPDX-License-Identifier: BSD-3-Clause
"""bfloat16 on the CPU: by autocast, or in the parameters themselves.

The kernels round what they multiply to bfloat16, sum in float32 and return PyTorch's
types. (Autocast to float16 computes in float32.)

Where the CPU multiplies bfloat16 in hardware, PyTorch's products of bfloat16 matrices
take less time than the kernels' float32 products once the layer is large enough. From
that size on `compute_of` chooses the kernels for AMX, or leaves a call to PyTorch.
"""

import functools
from pathlib import Path

import torch
from torch.nn.utils.rnn import PackedSequence

from fastrnn.native import core


def dtypes():
    """Types that the input of a call on the kernels may have while autocast is on."""
    return (torch.float32, torch.get_autocast_dtype("cpu"))


def is_bfloat16():
    """Whether autocast is to bfloat16."""
    return torch.get_autocast_dtype("cpu") is torch.bfloat16


def are_half(weights):
    """Whether the weights of a module are bfloat16."""
    return weights[0].dtype is torch.bfloat16


@functools.cache
def bfloat16_unit():
    """The unit of this CPU that multiplies bfloat16: "amx", "avx512_bf16" or None."""
    if hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        features = {name for name, value in has.items() if value}
    else:  # PyTorch before 2.13 cannot be asked for the features of the CPU
        features = _features_from(Path("/proc/cpuinfo"))
    if "amx_bf16" in features:
        return "amx"
    return "avx512_bf16" if "avx512_bf16" in features else None


def _features_from(path):
    """The names of a CPU's features in a file like Linux's /proc/cpuinfo.

    The set is empty on a system without such a file.
    """
    if not path.exists():
        return set()
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return set(value.split())
    return set()


# The sizes from which on the tiles of AMX take less time than the kernels of
# "bfloat16", as rows, and as rows times H.
_TILE_ROWS, _TILE_UNITS = 8, 1024
# The sizes from which on PyTorch takes less time than the kernels on a CPU with AMX.
# They were measured at H of 32 to 1024 and 1 to 64 batch rows, both libraries in turns,
# on one thread of a Xeon; `python -m bench.drop_in --autocast` times a case on either
# side of them. "Units" are rows times H, "products" are rows times H squared. In each
# dict, False is the key of inference and True that of training.
#
# PyTorch runs a dense LSTM as one operator of oneDNN. That operator converts the
# weights in each call, and its tiles need several rows to be full. Beyond all of the
# limits below, PyTorch takes 0.3 to 0.9 times the time of the kernels without tiles,
# and in inference 0.8 to 0.9 times that of those with tiles.
_FUSED_ROWS = {False: 4, True: 8}
_FUSED_UNITS = {False: 512, True: 1024}
_FUSED_ROWS_IN_ALL = 320  # T * B; in inference, _FUSED_PRODUCTS can stand in for it
_FUSED_PRODUCTS = 2**18
# PyTorch runs every other layer as operators of each time step, and takes 0.5 to 1
# times the time of the kernels without tiles.
_STEP_PRODUCTS = {False: 2**22, True: 2**23}
# For a cell of at least so many units, and of any number of rows, PyTorch takes 0.4 to
# 0.9 times the time of the kernels.
_CELL_H = 256
# With AVX512_BF16 but no AMX, PyTorch is faster in a dense LSTM alone, and from this H
# and this number of rows on.
_WIDE, _WIDE_ROWS = 256, 8


def has_tiles():
    """Whether the kernels multiply on the tiles of AMX here."""
    return core.kernels("bfloat16-fast") is not core.kernels("bfloat16")


def compute_of(module, input, hx, weights):
    """What is to run a call in bfloat16 that the kernels could run.

    Returns
    -------
    {"bfloat16", "bfloat16-fast", "PyTorch"} or None
        The kernels' way with products, of which "bfloat16-fast" is for many rows on
        tiles; or PyTorch, where that is faster than either. None is for autocast to
        another type, which the kernels compute in float32.
    """
    half = are_half(weights)
    if not (half or is_bfloat16()):
        return None
    unit = bfloat16_unit()
    if unit is None:
        return "bfloat16"
    H, training = module.hidden_size, torch.is_grad_enabled()
    if training:
        states = hx if isinstance(hx, (tuple, list)) else (hx,)
        data = input.data if isinstance(input, PackedSequence) else input
        tensors = (data, *states, *weights)
        training = any(t is not None and t.requires_grad for t in tensors)
    if isinstance(module, torch.nn.modules.rnn.RNNCellBase):
        # An RNNCell has one small product. At every size measured, the time that goes
        # into calling the kernels is more than what PyTorch needs for that product.
        gains = isinstance(module, torch.nn.RNNCell) or (unit == "amx" and H >= _CELL_H)
        return "PyTorch" if gains else "bfloat16"
    T, rows = _rows(module, input)
    dense = is_fused(module, input)
    if unit != "amx":
        gains = dense and H >= _WIDE and rows >= _WIDE_ROWS
    elif dense:
        gains = rows >= _FUSED_ROWS[training] and rows * H >= _FUSED_UNITS[training]
        many = not training and rows * H * H >= _FUSED_PRODUCTS
        gains = gains and (many or T * rows >= _FUSED_ROWS_IN_ALL)
    else:
        gains = rows * H * H >= _STEP_PRODUCTS[training]
    if gains and dense and not training:
        return "PyTorch"
    tiles = unit == "amx" and rows >= _TILE_ROWS and rows * H >= _TILE_UNITS
    if tiles and has_tiles():
        return "bfloat16-fast"
    return "PyTorch" if gains else "bfloat16"


def is_fused(module, input):
    """Whether PyTorch runs a layer as one operator.

    It does so with an LSTM over sequences of one length, which may be in a
    PackedSequence.
    """
    if module.mode != "LSTM" or module.proj_size:
        return False
    if isinstance(input, PackedSequence):
        return int(input.batch_sizes[0]) == int(input.batch_sizes[-1])
    return True


def why_torch(weights):
    """The reason of a call for which `compute_of` chooses PyTorch."""
    what = "bfloat16" if are_half(weights) else "bfloat16 autocast"
    return f"{what} gains more from {bfloat16_unit()} at this size"


def _rows(module, input):
    """The number of time steps of an input, and the number of rows of each step.

    Steps of a PackedSequence differ in rows: the number is then their mean.
    """
    if isinstance(input, PackedSequence):
        T = len(input.batch_sizes)
        return T, input.data.shape[0] / T
    if input.dim() == 2:
        return input.shape[0], 1
    T, B = input.shape[:2]
    return (B, T) if module.batch_first else (T, B)


def result_dtypes(mode, fused, dtype, projected=False):
    """The types that PyTorch returns for an input of `dtype` and float32 weights.

    PyTorch returns autocast's type from its dense LSTM, and where a step ends in a
    plain matrix product. In other LSTMs and GRUs a step ends in a fused pointwise
    operation of half-precision products and the state, and takes the type of the state,
    which is the input's.

    Parameters
    ----------
    mode : {"RNN_TANH", "RNN_RELU", "LSTM", "GRU"}
    fused : bool
        Whether PyTorch runs the layer as one operator, as it does a dense LSTM.
    dtype : torch.dtype
    projected : bool
        Whether the LSTM has a projection: a step then ends in the product with it.

    Returns
    -------
    of_h, of_c : torch.dtype
        The types of h and c; the outputs y have the type of h.
    """
    half = torch.get_autocast_dtype("cpu")
    if projected:
        return half, dtype
    if fused or mode.startswith("RNN"):
        return half, half
    return dtype, dtype


def cast(value, dtype):
    """Convert a tensor, a PackedSequence or a tuple of these to a dtype; None stays."""
    if value is None:
        return None
    if isinstance(value, PackedSequence):
        return value._replace(data=value.data.to(dtype))
    if isinstance(value, (tuple, list)):
        return tuple([cast(part, dtype) for part in value])
    return value.to(dtype)
