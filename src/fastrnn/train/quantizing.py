# SPDX-License-Identifier: BSD-3-Clause
"""`quantize`: a model for inference, whose weights take fewer bytes."""

from __future__ import annotations

import copy
from typing import TypeVar

from fastrnn.nn import quantized
from fastrnn.nn.deferred import is_built
from fastrnn.nn.layers import Linear
from fastrnn.nn.module import Module
from fastrnn.nn.tree import structure_changed
from fastrnn.recurrent import GRU, LSTM, RNN, small_weights
from fastrnn.recurrent.layer import Recurrent

AnyModule = TypeVar("AnyModule", bound=Module)


def quantize(model: AnyModule, weights: str = "int8") -> AnyModule:
    """A copy of a model for inference, whose weights take one byte or two.

    Parameters
    ----------
    model : Module
        A model, or a layer.
    weights : {"int8", "bfloat16"}
        What the weights of `RNN`, `LSTM`, `GRU` and `Linear` become; see
        `LSTM.quantize`.

    Returns
    -------
    Module
        Of the same class, in eval mode. It predicts, evaluates, streams and generates,
        is saved and loaded as the model is, and cannot be trained; it has no
        `optimizer`. Layers of other classes, derived ones too, and those with what no
        kernel for such weights has (float64, projections, heads, norms, zoneout,
        ``reset_after=False``), are copied as they are: printing the model shows which
        have ``quantized``.

    Raises
    ------
    ValueError
        If no layer can have such weights, a layer's input size is not known yet, or a
        weight is not finite and `weights` is "int8".
    TypeError
        If `model` is not a Module.

    Examples
    --------
    >>> lstm = fastrnn.LSTM(3, 64, batch_first=True, seed=0)
    >>> model = fastrnn.Sequential(lstm, fastrnn.Linear(64, 1, seed=1))
    >>> small = fastrnn.quantize(model)
    >>> small
    Sequential(
      (0): LSTM(3, 64, batch_first=True, quantized='int8')
      (1): Linear(64, 1, quantized='int8')
    )
    >>> x = np.random.default_rng(0).normal(size=(2, 10, 3))
    >>> bool(np.abs(small.predict(x) - model.predict(x)).max() < 0.01)
    True
    """
    who = "quantize"
    quantized.check_format(who, "weights", weights)
    if not isinstance(model, Module):
        raise TypeError(f"{who}: model must be a Module, got {type(model).__name__}")
    if not is_built(model):
        raise ValueError(
            f"{who}: all input sizes must be known, got {model!r}; call the model, or "
            "its build, first"
        )
    if isinstance(model, Linear | Recurrent):
        return model.quantize(weights).eval()
    small = {
        id(layer): layer.quantize(weights)
        for layer in model.modules()
        if _can_be_small(layer)
    }
    if not small:
        raise ValueError(
            f"{who}: model must have an RNN, LSTM, GRU or Linear of float32 without "
            f"what no kernel for such weights has, got {model!r}"
        )
    # A copy of what is replaced would be for nothing, and so would the optimiser's.
    memo = dict(small)
    if getattr(model, "optimizer", None) is not None:
        memo[id(model.optimizer)] = None
    made = copy.deepcopy(model, memo)
    structure_changed()
    return made.eval()


def small_parts(model):
    """Names of a model's layers that have weights of fewer bytes, and which."""
    return [
        [prefix[:-1], layer.quantized]
        for prefix, layer in model._walk()
        if layer._fixed
    ]


def make_small(model, parts):
    """Put layers that are all zero in place of those that `small_parts` has named.

    A description has the layers that others were given; those that a class makes for
    itself are whole again when it is made of it.

    Raises
    ------
    ValueError
        If there is no such layer, or kernels have no such weights for it.
    """
    by_name = {prefix[:-1]: layer for prefix, layer in model._walk()}
    small = {}
    for name, kind in parts:
        layer = by_name.get(name)
        if layer is None or not (layer._fixed or _can_be_small(layer)):
            raise ValueError(f"quantized must name layers for inference, got {name!r}")
        if not layer._fixed:
            small[id(layer)] = quantized.empty_copy_of(layer, kind)
    for module in list(model.modules()):
        for name, child in module._children.items():
            if id(child) in small:
                # Past __setattr__, by which some parts cannot be set again.
                vars(module)[name] = module._children[name] = small[id(child)]
    structure_changed()


def _can_be_small(layer):
    """Whether kernels have weights of fewer bytes for a layer.

    A class that derives from one of these may make more of them than it says.
    """
    if type(layer) is Linear:
        return layer.quantized is None and layer.dtype == "float32"
    return type(layer) in (GRU, LSTM, RNN) and small_weights.can_be_small(layer)
