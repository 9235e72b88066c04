# SPDX-License-Identifier: BSD-3-Clause
"""`compute`: in which precision a layer multiplies, whatever the type of its arrays."""

COMPUTE = ("float32", "float64", "bfloat16", "bfloat16-fast")
HALF = ("bfloat16", "bfloat16-fast")


def checked(who, dtype, value):
    """None, or one of `HALF` for a float32 layer that rounds what products multiply."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{who}: compute must be None or a name, got {value!r}")
    if value in (None, dtype):
        return None
    if value not in COMPUTE:
        raise ValueError(
            f"{who}: compute must be None, the layer's dtype or 'bfloat16' or "
            f"'bfloat16-fast', got {value!r}"
        )
    if dtype != "float32" or value not in HALF:
        raise ValueError(
            f"{who}: compute={value!r} is not for dtype={dtype!r}: only float32 layers "
            "have another compute, 'bfloat16' or 'bfloat16-fast'"
        )
    return value


def rule(layer, name, value):
    """The rule of `compute` of a layer, which has its dtype already."""
    who = type(layer).__name__
    value = checked(who, layer.dtype, value)
    if value is None:
        return None
    if getattr(layer, "quantized", None) is not None:
        raise ValueError(
            f"{who}: compute={value!r} is not for quantized={layer.quantized!r}"
        )
    if getattr(layer, "heads", 1) > 1:
        raise ValueError(f"{who}: compute={value!r} is not for heads > 1")
    return value


def set_compute(who, model, value):
    """Set `compute` of all layers of a model that have it, or of none of them.

    Raises
    ------
    ValueError, TypeError
        If `value` is not for one of these layers, or there is no such layer.
    """
    layers = [
        module
        for module in model.modules()
        if "compute" in getattr(module, "layer_class", type(module))._changeable
    ]
    if not layers:
        raise ValueError(f"{who}: compute={value!r}, but no layer has that argument")
    for layer in layers:
        kind = getattr(layer, "layer_class", type(layer)).__name__
        checked(f"{who}: {kind}", layer.dtype, value)
    before = [_given(layer) for layer in layers]
    try:
        for layer in layers:
            layer.compute = value
    except ValueError as error:
        for layer, was in zip(layers, before, strict=True):
            layer.compute = was
        raise ValueError(f"{who}: {error}") from error


def _given(layer):
    """The `compute` of a layer, which may be waiting for its input size."""
    arguments = getattr(layer, "layer_arguments", None)
    return layer.compute if arguments is None else arguments.get("compute")
