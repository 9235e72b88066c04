# SPDX-License-Identifier: BSD-3-Clause
"""Layers that training leaves alone: ``layer.trainable = False``.

Such a layer's backward gives the gradient of its input and computes none of its
parameters; clipping neither reads nor writes its part of the flat gradients, and an
optimiser neither its parameters nor what it keeps of them between steps.
"""

from __future__ import annotations

from fastrnn.nn import sparse
from fastrnn.nn.parameters import Parameters
from fastrnn.util import checks


class Trainable(Parameters):
    """The attribute `trainable` of modules."""

    @property
    def trainable(self) -> bool:
        """Whether training changes the parameters, here or anywhere below.

        Setting it sets it for all modules below. It may be changed between a step of
        the optimiser and the next forward at any time, also when the optimiser was
        made before; `Model.save` keeps it.
        """
        own = [m._trainable for m in self.modules() if m._has_parameters]
        return any(own) if own else self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        value = checks.flag(type(self).__name__, "trainable", value)
        modules = list(self.modules())
        sparse.settle(modules)  # rows of a table that have missed steps
        for module in modules:
            module._trainable = value

    @property
    def _has_parameters(self):
        """Whether this module itself has some, those below aside."""
        return bool(self._shapes)


def frozen(model):
    """The names of the modules, a dot at the end, whose own parameters stay.

    Parameters
    ----------
    model : Module

    Returns
    -------
    list of str
    """
    return [prefix for prefix, module in model._walk() if not module._trainable]


def named(model, prefixes):
    """The modules that `frozen` would name so.

    Raises
    ------
    ValueError
        If there is none of one of these names.
    """
    modules = dict(model._walk())
    for prefix in prefixes:
        if prefix not in modules:
            raise ValueError(f"there must be a layer {prefix!r} to be frozen, got none")
    return [modules[prefix] for prefix in prefixes]


def freeze_only(model, modules):
    """Let these modules' own parameters stay, and those of no others in a model."""
    stay = {id(module) for module in modules}
    everything = list(model.modules())
    sparse.settle(everything)
    for module in everything:
        module._trainable = id(module) not in stay
