# SPDX-License-Identifier: BSD-3-Clause
"""Autocast on the CPU: float32 inside, PyTorch's types outside."""

import torch
from torch.nn.utils.rnn import PackedSequence


def dtypes():
    """Input types that may go through the kernels while autocast is on."""
    return (torch.float32, torch.get_autocast_dtype("cpu"))


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
