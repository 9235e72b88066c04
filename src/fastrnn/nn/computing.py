# SPDX-License-Identifier: BSD-3-Clause
"""`compute`: in which precision a layer multiplies, whatever the type of its arrays."""

from fastrnn.native import core

COMPUTE = ("float32", "float64", "bfloat16")


def checked(who, dtype, value):
    """None, or "bfloat16" for a float32 layer that rounds the operands of products."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{who}: compute must be None or a name, got {value!r}")
    if value in (None, dtype):
        return None
    if value not in COMPUTE:
        raise ValueError(
            f"{who}: compute must be None, the layer's dtype or 'bfloat16', got {value!r}"
        )
    if dtype != "float32" or value != "bfloat16":
        raise ValueError(
            f"{who}: compute={value!r} is not for dtype={dtype!r}: only float32 layers "
            "have another compute, 'bfloat16'"
        )
    return value


def rule(layer, name, value):
    """The rule of `compute` of a layer, which has its dtype already."""
    who = type(layer).__name__
    value = checked(who, layer.dtype, value)
    if value is None:
        return None
    for option in ("layer_norm", "rms_norm"):
        if getattr(layer, option, False):
            raise ValueError(f"{who}: compute='bfloat16' is not for {option}")
    if getattr(layer, "heads", 1) > 1:
        raise ValueError(f"{who}: compute='bfloat16' is not for heads > 1")
    return value


def kernels(layer):
    """The kernels that a layer's products run on."""
    return core.kernels(layer.compute or layer.dtype)
