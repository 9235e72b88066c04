# SPDX-License-Identifier: BSD-3-Clause
"""The ONNX operators between floats and the integers of a quantised graph, in NumPy.

An integer q stands for the float ``(q - zero_point) * scale``. A scale is one number
for a whole tensor, a number for each index of one axis, or a number for each block of
`block_size` indices of one axis. The functions have the arguments and results that
`fastrnn.onnx._operators` describes, and the results that ONNX defines, rounding
included. `fastrnn.onnx._dequantize` leaves out what rounding it can.
"""

import numpy as np

# The types that floats are rounded to.
TYPES = ("int8", "uint8", "int16", "uint16")


def dequantized(q, scale, zero=None):
    """The floats that integers stand for, in the type of the scale.

    Parameters
    ----------
    q : ndarray of integers
    scale, zero : ndarray
        Of shapes that broadcast with that of `q`.

    Returns
    -------
    ndarray
    """
    # Differences of at most 16 bits are exact in float32. Those of 32 bits have no zero
    # point, and are rounded once.
    if zero is None:
        y = q.astype("f")
    else:
        y = np.subtract(q, zero, dtype="f", casting="unsafe")
    y *= scale
    return y.astype(scale.dtype, copy=False)


def spread(node, shape, scale, zero):
    """Scale and zero point in shapes that broadcast with that of the tensor.

    Raises
    ------
    ValueError
        If they do not fit the tensor or each other.
    """
    pair = [scale, zero]
    if all(v is None or (v.size == 1 and v.ndim <= 1) for v in pair):
        return [None if v is None else v.reshape(()) for v in pair]
    if zero is not None and zero.shape != scale.shape:
        raise ValueError(
            f"the zero point must have the scale's shape {scale.shape}, "
            f"got {zero.shape}"
        )
    axis, block = node.get("axis", 1), node.get("block_size", 0)
    if node.opset < 13 and "axis" not in node.attributes:
        raise ValueError(f"opset {node.opset} has one scale, got {scale.shape}")
    if block < 0 or not -len(shape) <= axis < len(shape):
        raise ValueError(
            f"axis must be one of {len(shape)} and block_size >= 0, "
            f"got {axis} and {block}"
        )
    size, axis = shape[axis], axis % len(shape)
    if not block:
        wanted, expected = (size,), f"({size},)"
        form = [size if k == axis else 1 for k in range(len(shape))]
    else:
        wanted = (*shape[:axis], -(-size // block), *shape[axis + 1 :])
        expected = f"{wanted}, of blocks of {block}"
    if scale.shape != wanted:
        raise ValueError(
            f"the scale must have shape () or {expected}, got {scale.shape}"
        )
    if not block:
        return [None if v is None else v.reshape(form) for v in pair]
    of_block = np.arange(size) // block
    return [None if v is None else v.take(of_block, axis) for v in pair]


def quantize_linear(node, x, scale, zero=None):
    """QuantizeLinear: the nearest integers, of those that their type has."""
    dtype = (
        zero.dtype if zero is not None else np.dtype(node.get("output_dtype") or "B")
    )
    if dtype.name not in TYPES or node.get("precision", 0):
        raise ValueError(
            f"numbers must be rounded to {', '.join(TYPES)} in the scale's precision, "
            f"got {dtype.name}"
        )
    scale, zero = spread(node, x.shape, scale, zero)
    zero = np.float32(0) if zero is None else zero.astype("f")
    return _rounded(x / scale, zero, dtype)


def _rounded(y, zero, dtype):
    bounds = np.iinfo(dtype)
    y = np.asarray(np.rint(y), "f")
    y += zero
    return np.clip(y, bounds.min, bounds.max, out=y).astype(dtype)


def dequantize_linear(node, q, scale, zero=None):
    """DequantizeLinear."""
    halves = q.dtype.name in ("int4", "uint4")  # types that NumPy does not have
    if not (halves or q.dtype.kind in "iu") or scale.dtype.kind != "f":
        raise ValueError(
            "numbers must be integers and scales floats, "
            f"got {q.dtype.name} and {scale.dtype.name}"
        )
    if zero is not None and zero.dtype != q.dtype:
        raise ValueError(
            f"the zero point must be {q.dtype.name} like the numbers, "
            f"got {zero.dtype.name}"
        )
    y = dequantized(q, *spread(node, q.shape, scale, zero))
    return y.astype(node.get("output_dtype") or y.dtype, copy=False)


def dynamic_quantize_linear(node, x):
    """DynamicQuantizeLinear: bytes, with the scale for the range of these numbers."""
    low, high = x.min(initial=0), x.max(initial=0)
    scale = np.float32((high - low) / 255 if high > low else 1)
    zero = np.rint(np.clip(-low / scale, 0, 255)).astype("f")
    return [_rounded(x / scale, zero, np.dtype("B")), scale, zero.astype("B")]


def matmul_integer(node, a, b, a_zero=None, b_zero=None):
    """MatMulInteger: a product of bytes less their zero points, in 32 bits."""
    a, b = (v.astype("d") for v in (a, b))  # where sums of such products are exact
    if a_zero is not None:  # one, or one for each row
        a -= a_zero[:, None] if a_zero.ndim == 1 and a_zero.size > 1 else a_zero
    if b_zero is not None:  # one, or one for each column
        b -= b_zero
    return (a @ b).astype(np.int64).astype(np.int32)


OPERATORS = {
    "DequantizeLinear": dequantize_linear,
    "DynamicQuantizeLinear": dynamic_quantize_linear,
    "MatMulInteger": matmul_integer,
    "QuantizeLinear": quantize_linear,
}
