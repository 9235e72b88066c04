# SPDX-License-Identifier: BSD-3-Clause
"""What a model's output is: scores, or probabilities that a last function makes.

Losses ask, so that a sigmoid or softmax is not applied twice, and where they can they
take the function's input, from which a cross-entropy is exact.
"""

import contextlib
from typing import Any, NamedTuple

import numpy as np

from fastrnn.losses.crf import CRF
from fastrnn.nn.activation import Activated, Activation
from fastrnn.nn.deferred import Unbuilt
from fastrnn.nn.layers import Dropout
from fastrnn.nn.masking import Masking
from fastrnn.nn.merging import Merging
from fastrnn.nn.observing import calls_told_to
from fastrnn.nn.pooling import (
    AveragePooling1D,
    GlobalAveragePooling1D,
    GlobalMaxPooling1D,
    MaxPooling1D,
)
from fastrnn.nn.reshaping import Flatten, Permute, RepeatVector, Reshape
from fastrnn.nn.wrappers import TimeDistributed
from fastrnn.recurrent import arguments, table
from fastrnn.recurrent.bidirectional import Bidirectional
from fastrnn.recurrent.layer import Recurrent

PROBABILITIES = ("sigmoid", "softmax")
# Layers whose output is numbers of their input, scaled, or means of these: after
# probabilities it is probabilities.
LOOKED_THROUGH = (
    AveragePooling1D, Dropout, Flatten, GlobalAveragePooling1D, GlobalMaxPooling1D,
    Masking, MaxPooling1D, Permute, RepeatVector, Reshape,
)  # fmt: skip
_IN_UNIT_INTERVAL = ("sigmoid", "hard_sigmoid")  # of cells


class Ending(NamedTuple):
    """The end of a model.

    Attributes
    ----------
    layer : Activated or None
        The layer that applies the function, once it has parameters.
    function : str or None
        Its name; None of scores, as a plain `Linear` gives them.
    direct : bool
        Whether the function's output is the model's.
    known : bool
        False of a model of the user's own class with such a layer somewhere.
    """

    layer: Any = None
    function: str | None = None
    direct: bool = False
    known: bool = True


def ending(module):
    """The `Ending` of a model, from what it is made of."""
    cls = module.layer_class if isinstance(module, Unbuilt) else type(module)
    if issubclass(cls, Activated):
        function = _function(module, cls)
        return Ending(module, function, function is not None)
    if issubclass(cls, Recurrent):
        return _of_recurrent(module)
    if isinstance(module, Bidirectional):
        found = _of_recurrent(module.layer)
        return _summed(found) if module.merge_mode == "sum" else found
    if isinstance(module, TimeDistributed):
        return ending(module.layer)
    last = module.ends_in()
    if last is module or isinstance(last, tuple):
        return ending_of_chain(last)
    if last is not None:
        return ending(last)
    return Ending(known=not any(map(_function, module.modules())))


def ending_of_chain(layers):
    """The `Ending` of layers that follow one another."""
    direct = True
    for layer in reversed(tuple(layers)):
        if isinstance(layer, CRF):  # not part of the output
            continue
        if isinstance(layer, LOOKED_THROUGH):
            direct = False
            continue
        found = ending(layer)
        return found._replace(direct=found.direct and direct)
    return Ending()


def _function(module, cls=None):
    """The name of the function that a layer ends with, or None."""
    cls = type(module) if cls is None else cls
    if not issubclass(cls, Activated):
        return None
    name = "function" if issubclass(cls, Activation) else "activation"
    if isinstance(module, Unbuilt):
        return getattr(module._trial(), name)
    return getattr(module, name)


def _of_recurrent(layer):
    """A cell's output is in [0, 1] where the function of its state is."""
    cls, options = type(layer), vars(layer)
    if isinstance(layer, Unbuilt):
        cls, options = layer.layer_class, layer.layer_arguments
    cell = table.choose(cls._cells, options.get("nonlinearity"))
    functions = arguments.functions(cls.__name__, cell, options.get("activation"))
    inside = functions[-1][0] in _IN_UNIT_INTERVAL
    if not inside or options.get("proj_size", 0):
        return Ending()
    found, merged = Ending(function="sigmoid"), options.get("merge_mode")
    return _summed(found) if options.get("connection") or merged == "sum" else found


def _summed(found):
    return found._replace(function="sum of sigmoids") if found.function else found


def check_gives_scores(who, head):
    """Refuse a head of the user's that does not give logits, which a search needs."""
    function = ending(head).function
    if function is not None:
        raise ValueError(
            f"{who}: head must give logits, got one that ends in {function!r}"
        )


# -- models of the user's own ----------------------------------------------------------


def observed(model, run):
    """The `Ending` of a model whose class says nothing, from watching it run.

    Parameters
    ----------
    model : Module
    run : callable
        Runs the model and returns its output.

    Returns
    -------
    Ending
        Not ``known`` where the output is not as such that of any part of the model.
    """
    layers = [module for module in model.modules() if module is not model]
    parts, outputs = {id(layer) for layer in layers}, []

    def note(layer, y):
        if id(layer) in parts:
            outputs.append((layer, y[0] if isinstance(y, tuple) else y))

    with calls_told_to(note):
        pred = run()
    # What a merger gives may be made of scores or of probabilities.
    same = [
        layer
        for layer, y in outputs
        if _is_all_of(pred, y) and not isinstance(layer, Merging)
    ]
    for layer in same:
        found = ending(layer)
        if found.known and found.function:
            return found._replace(direct=False)
    some = any(_function(layer) in PROBABILITIES for layer in layers)
    return Ending(known=bool(same) or not some)


def _is_all_of(pred, y):
    """Whether two arrays are the same memory."""
    return isinstance(y, np.ndarray) and (
        pred is y or (pred.size == y.size and np.shares_memory(pred, y))
    )


# -- the function's input --------------------------------------------------------------


@contextlib.contextmanager
def watching(layer):
    """Within the body, an `Activated` keeps what its last call was given."""
    before, layer.watched = layer.watched, True
    try:
        yield
    finally:
        layer.watched, layer.last_applied = before, None


def applied_for(layer, pred):
    """The `Applied` that made `pred`, if `layer` is watched and did; else None."""
    applied = getattr(layer, "last_applied", None)
    if applied is None or not _is_all_of(pred, applied.y):
        return None
    return applied
