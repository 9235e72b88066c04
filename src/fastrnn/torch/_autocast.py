# SPDX-License-Identifier: BSD-3-Clause
"""Autocast on the CPU: float32 inside, PyTorch's types outside.

Where the CPU multiplies bfloat16 in hardware, PyTorch's own products in that type take
less time than ours in float32 from a size on: there a call is PyTorch's.
"""

import functools
from pathlib import Path

import torch
from torch.nn.utils.rnn import PackedSequence


def dtypes():
    """Input types that may go through the kernels while autocast is on."""
    return (torch.float32, torch.get_autocast_dtype("cpu"))


@functools.cache
def bfloat16_unit():
    """What multiplies bfloat16 in this CPU: "amx", "avx512_bf16" or None."""
    if hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        features = {name for name, value in has.items() if value}
    else:  # PyTorch before 2.13
        features = _features_from(Path("/proc/cpuinfo"))
    if "amx_bf16" in features:
        return "amx"
    return "avx512_bf16" if "avx512_bf16" in features else None


def _features_from(path):
    """The names of a CPU's features, as Linux lists them; none elsewhere."""
    if not path.exists():
        return set()
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return set(value.split())
    return set()


# From where on PyTorch takes less time on a CPU with AMX, measured at H 32 to 1024 and
# 1 to 64 rows, in turns, on one thread of a Xeon; `python -m bench.drop_in --autocast`
# has cases on both sides.  Products are rows times H squared, units rows times H.
#
# A dense LSTM is one operator of oneDNN, which converts the weights in each call and
# needs rows to fill its tiles: it takes 0.3 to 0.9 times our time.  Where two numbers
# are given, the first is of inference, the second of training.
_FUSED_ROWS = {False: 4, True: 8}
_FUSED_UNITS = {False: 512, True: 1024}
_FUSED_ROWS_IN_ALL = 320  # T * B; for inference many products do as well
_FUSED_PRODUCTS = 2**18
# Other layers are operators of each step: 0.5 to 1 times.
_STEP_PRODUCTS = {False: 2**22, True: 2**23}
_CELL_H = 256  # cells of any number of rows: 0.4 to 0.9 times
# With AVX512_BF16 alone PyTorch gains in a dense LSTM from this size on.
_WIDE, _WIDE_ROWS = 256, 8


def faster_in_torch(module, input, hx, weights):
    """Why a call under autocast that fits the kernels is PyTorch's yet, or None."""
    unit = bfloat16_unit()
    if torch.get_autocast_dtype("cpu") is not torch.bfloat16 or unit is None:
        return None
    H, training = module.hidden_size, torch.is_grad_enabled()
    if training:
        states = hx if isinstance(hx, (tuple, list)) else (hx,)
        data = input.data if isinstance(input, PackedSequence) else input
        tensors = (data, *states, *weights)
        training = any(t is not None and t.requires_grad for t in tensors)
    if isinstance(module, torch.nn.modules.rnn.RNNCellBase):
        # What surrounds our call outweighs an RNNCell's one small product at any size.
        gains = isinstance(module, torch.nn.RNNCell) or (unit == "amx" and H >= _CELL_H)
    elif isinstance(input, PackedSequence) or module.mode != "LSTM" or module.proj_size:
        rows = _rows(module, input)[1]
        gains = unit == "amx" and rows * H * H >= _STEP_PRODUCTS[training]
    else:
        T, rows = _rows(module, input)
        if unit == "amx":
            gains = rows >= _FUSED_ROWS[training] and rows * H >= _FUSED_UNITS[training]
            many = not training and rows * H * H >= _FUSED_PRODUCTS
            gains = gains and (many or T * rows >= _FUSED_ROWS_IN_ALL)
        else:
            gains = H >= _WIDE and rows >= _WIDE_ROWS
    return f"bfloat16 autocast gains more from {unit} at this size" if gains else None


def _rows(module, input):
    """How many steps an input has, and rows in a step: of a packed one, on average."""
    if isinstance(input, PackedSequence):
        T = len(input.batch_sizes)
        return T, input.data.shape[0] / T
    if input.dim() == 2:
        return input.shape[0], 1
    T, B = input.shape[:2]
    return (B, T) if module.batch_first else (T, B)


def result_dtypes(mode, fused, dtype, projected=False):
    """What PyTorch's operator returns for an input of `dtype` and float32 weights.

    Its LSTM over dense sequences, and everything that ends in a plain matrix product,
    return autocast's type.  The fused pointwise parts of GRU and LSTM cells promote
    their half-precision products with the state, which has the input's type.

    Parameters
    ----------
    fused : bool
        Whether PyTorch has one operator for the whole: a dense LSTM.
    projected : bool
        Whether h is a product of the cell's output.

    Returns
    -------
    of_h, of_c : torch.dtype
        y has that of h.
    """
    half = torch.get_autocast_dtype("cpu")
    if projected:
        return half, dtype
    if fused or mode.startswith("RNN"):
        return half, half
    return dtype, dtype


def cast(value, dtype):
    """A tensor, a PackedSequence or any tuple of them in another dtype."""
    if value is None:
        return None
    if isinstance(value, PackedSequence):
        return value._replace(data=value.data.to(dtype))
    if isinstance(value, (tuple, list)):
        return tuple([cast(part, dtype) for part in value])
    return value.to(dtype)
