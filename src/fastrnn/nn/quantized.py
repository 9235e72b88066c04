# SPDX-License-Identifier: BSD-3-Clause
"""Weights of one byte or two: what layers for inference have instead of parameters.

A layer's matrices are stored in a format of `TYPES`: as integers of a byte, with a
scale for each row, or as the upper halves of float32 numbers.  All else that it has
beside them, biases say, is float32.  These arrays are what no training changes
(`Parameters._fix`).
"""

import numpy as np

from fastrnn.nn.describe import describe
from fastrnn.util import budget, checks

# The type that NumPy has for what is stored, by format: for bfloat16 its bits.
TYPES = {"int8": "int8", "bfloat16": "uint16"}
SCALE = "_scale"  # ends the name of the scales of a matrix's rows


def to_int8(M):
    """A matrix (rows, K) as integers of a byte, and a scale for each of its rows.

    The largest number of a row, whatever its sign, becomes 127.
    """
    scale = np.abs(M).max(axis=1, initial=0) / np.float32(127)
    divisor = np.where(scale > 0, scale, np.float32(1))[:, None]
    return np.rint(M / divisor).astype(np.int8), scale.astype(np.float32)


def to_bfloat16(M):
    """The upper halves of float32 numbers, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(M, np.float32).view(np.uint32)
    odd = bits >> 16 & 1
    rounded = (bits + np.uint32(0x7FFF) + odd) >> 16
    # A NaN could become an infinity: it keeps its upper half, made a NaN for sure.
    return np.where(np.isnan(M), bits >> 16 | 0x40, rounded).astype(np.uint16)


def shapes(whole, kind, matrices):
    """Shape and type of the arrays of a layer whose parameters have other shapes.

    Parameters
    ----------
    whole : dict of str to tuple of int
        Shapes of a layer's parameters.
    kind : str
        One of `TYPES`.
    matrices : tuple of str
        What the names of those begin with that become such weights.

    Returns
    -------
    dict of str to (tuple of int, str)
    """
    found = {}
    for name, shape in whole.items():
        is_matrix = name.startswith(matrices)
        found[name] = shape, TYPES[kind] if is_matrix else "float32"
        if is_matrix and kind == "int8":
            found[name + SCALE] = shape[:1], "float32"
    return found


def zeros(whole):
    """Parameters of these shapes that are zero: to be seen alone, if values follow."""
    if budget.values_follow():
        return {n: np.broadcast_to(np.float32(0), shape) for n, shape in whole.items()}
    return {name: np.zeros(shape, np.float32) for name, shape in whole.items()}


def first(who, parameters, kind, matrices):
    """The arrays that first values become; none where nobody will see them."""
    if budget.values_follow():
        return {}
    return of_parameters(who, parameters, kind, matrices)


def of_parameters(who, parameters, kind, matrices):
    """The arrays that parameters become.

    Raises
    ------
    ValueError
        If a weight is not finite, for int8.
    """
    found = {}
    for name, value in parameters.items():
        if not name.startswith(matrices):
            found[name] = value
        elif kind == "bfloat16":
            found[name] = to_bfloat16(value)
        elif np.isfinite(value).all():
            found[name], found[name + SCALE] = to_int8(value)
        else:
            raise ValueError(f"{who}: {name} must be finite for int8")
    return found


def check_format(who, name, kind):
    """A format's name, which there is."""
    return checks.choice(who, name, kind, tuple(TYPES))


def check_whole(who, layer):
    """Refuse a layer whose weights take fewer bytes already."""
    if layer.quantized is not None:
        raise ValueError(f"{who}: the layer must have whole weights, got {layer!r}")


def check_backward(who, kind):
    """Refuse a backward of a layer whose weights are in a format."""
    if kind is not None:
        raise RuntimeError(
            f"{who}: the layer must have whole weights, got quantized={kind!r}, which "
            "is for inference"
        )


def empty_copy_of(layer, kind):
    """A layer of the same class and arguments, its weights in a format, all zero."""
    arguments = describe(layer)["arguments"] | {"quantized": kind, "compute": None}
    with budget.trial():  # nobody sees first values
        made = type(layer)(**arguments)
    return made.train(layer.training)


def copy_of(who, layer, kind, matrices):
    """The same with a layer's parameters."""
    made = empty_copy_of(layer, kind)
    made._set_fixed(of_parameters(who, layer._param, kind, matrices))
    return made
