# SPDX-License-Identifier: BSD-3-Clause
"""Autocast on the CPU: float32 inside, PyTorch's types outside."""

import torch
from torch.nn.utils.rnn import PackedSequence


def dtypes():
    """Input types that may go through the kernels while autocast is on."""
    return (torch.float32, torch.get_autocast_dtype("cpu"))


def result_dtype(mode, fused, dtype):
    """What PyTorch's operator returns for an input of `dtype` and float32 weights.

    Its LSTM over dense sequences, and everything that ends in a plain matrix product,
    return autocast's type.  The fused pointwise parts of GRU and LSTM cells promote
    their half-precision products with the state, which has the input's type.

    Parameters
    ----------
    fused : bool
        Whether PyTorch has one operator for the whole: a dense LSTM.
    """
    if fused or mode.startswith("RNN"):
        return torch.get_autocast_dtype("cpu")
    return dtype


def cast(value, dtype):
    """A tensor, a PackedSequence or any tuple of them in another dtype."""
    if value is None:
        return None
    if isinstance(value, PackedSequence):
        return value._replace(data=value.data.to(dtype))
    if isinstance(value, (tuple, list)):
        return tuple([cast(part, dtype) for part in value])
    return value.to(dtype)
