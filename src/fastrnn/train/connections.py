# SPDX-License-Identifier: BSD-3-Clause
"""The arguments of a `Functional`: names of arrays and calls between them."""

from fastrnn.losses.crf import CRF
from fastrnn.nn.deferred import Unbuilt
from fastrnn.nn.merging import Merging
from fastrnn.nn.module import Module
from fastrnn.recurrent.layer import Recurrent
from fastrnn.train.model import Model


def names(who, argument, value):
    """Names as a tuple; one may be given as itself."""
    found = (value,) if isinstance(value, str) else value
    if not isinstance(found, (tuple, list)) or not all(
        isinstance(name, str) for name in found
    ):
        raise TypeError(f"{who}: {argument} must be a name or names, got {value!r}")
    if not found:
        raise ValueError(f"{who}: {argument} must have a name, got none")
    return tuple(found)


def calls(who, value):
    """Calls as tuples of layer, names of what it is given and names of its output."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(
            f"{who}: calls must be a sequence of calls, got {type(value).__name__}"
        )
    return tuple(_call(who, i, call) for i, call in enumerate(value))


def _call(who, i, call):
    """A call as layer, names of what it is given and names of its output."""
    if not isinstance(call, (tuple, list)) or len(call) != 3:
        raise TypeError(
            f"{who}: calls[{i}] must be (layer, inputs, output), got {call!r}"
        )
    layer, sources, given = call
    if not isinstance(layer, Module):
        raise TypeError(
            f"{who}: calls[{i}] must begin with a Module, got {type(layer).__name__}"
        )
    if isinstance(layer, CRF):
        raise ValueError(f"{who}: a CRF must be the last layer of a Sequential")
    sources = names(who, f"calls[{i}]: inputs", sources)
    given = names(who, f"calls[{i}]: output", given)
    takes_one = not isinstance(layer, Merging | Recurrent | Model | Unbuilt)
    if type(layer).__module__.startswith("fastrnn.") and takes_one and sources[1:]:
        raise ValueError(
            f"{who}: calls[{i}]: {type(layer).__name__} must be given one array, "
            f"got {', '.join(sources)}"
        )
    return layer, sources, given


def check(who, inputs, calls, outputs):
    """Refuse names that are used before they are given, given twice or not used."""
    given, used = set(), set(outputs)

    def give(names):
        for name in names:
            if name in given:
                raise ValueError(
                    f"{who}: a name must be given once, got {name!r} again"
                )
            given.add(name)

    give(inputs)
    for i, (_, sources, names) in enumerate(calls):
        for name in sources:
            if name not in given:
                raise ValueError(
                    f"{who}: calls[{i}] must be given inputs or outputs of calls "
                    f"before it, got {name!r}"
                )
        used.update(sources)
        give(names)
    for name in outputs:
        if name not in given:
            raise ValueError(
                f"{who}: outputs must be inputs or outputs of calls, got {name!r}"
            )
    for name in inputs:
        if name not in used:
            raise ValueError(f"{who}: inputs must all be used, got {name!r}")
