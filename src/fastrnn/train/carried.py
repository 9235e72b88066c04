# SPDX-License-Identifier: BSD-3-Clause
"""What forwards in training mode change: a step that fails puts it back.

Gradients are a step's own. Three things are carried from each forward to the next: the
moving statistics of `BatchNormalization`, the states of stateful layers, and those of
the generators that dropout draws from. A step whose targets are refused, whose loss is
not finite or whose memory runs out comes after a forward that has changed them.
"""

import numpy as np

from fastrnn.train.stateful import stateful_layers


class Carried:
    """A `with` block, entered once a step, after which a failure has changed nothing.

    Parameters
    ----------
    model : Module
        In training mode.
    """

    __slots__ = ("_before", "_drawing", "_moving", "_stateful")

    def __init__(self, model):
        modules = list(model.modules())
        self._moving = [m for m in modules if m._written_by_forward]
        self._stateful = stateful_layers(model)
        self._drawing = [
            (module, value)
            for module in modules
            for value in vars(module).values()
            if isinstance(value, np.random.Generator)
        ]

    def __enter__(self):
        arrays, states, generators = self._before = [], [], []
        for module in self._moving:
            arrays += [(array, array.copy()) for array in module._param.values()]
        for layer in self._stateful:
            states.append((layer, layer.state))
        for module, generator in self._drawing:
            if _may_draw(module):
                bits = generator.bit_generator
                generators.append((bits, bits.state))

    def __exit__(self, kind, error, traceback):
        if kind is None:
            return
        arrays, states, generators = self._before
        for array, values in arrays:
            array[...] = values
        for layer, state in states:
            layer.state = state
        for generator, state in generators:
            generator.state = state


def _may_draw(module):
    """Whether a module's forward may draw numbers: not without dropout."""
    if getattr(module, "_draws", False):  # a recurrent layer whose cells choose
        return True
    return getattr(module, "dropout", getattr(module, "p", 1)) != 0
