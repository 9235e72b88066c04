# SPDX-License-Identifier: BSD-3-Clause
"""`Graph`: a Module that runs the operators of an ONNX file in order."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.nn import axis_rule
from fastrnn.nn.module import Module
from fastrnn.onnx import _recurrent
from fastrnn.onnx._operators import Node, apply
from fastrnn.util import checks
from fastrnn.util.printable import printable


class Input(NamedTuple):
    """An input of a graph: its name, and the type and shape that it must have."""

    name: str
    dtype: str
    letters: tuple  # the names of the axes; None where the number of axes is free
    sizes: tuple  # the sizes of the axes; None for an axis of any size


class Step(NamedTuple):
    """A node to run, and the name of the layer that runs it; None if NumPy runs it."""

    node: Node
    layer: str | None


class Graph(Module):
    """A graph of ONNX operators; `load` makes it.

    Attributes
    ----------
    inputs, outputs : tuple of str
        The names of the inputs and of the outputs, in the order of the file.

    Notes
    -----
    The weights of recurrent nodes, of products with a constant matrix and of look-ups
    in a constant table are parameters of the graph, in PyTorch's layout; other
    constants are not. A graph has no backward.
    """

    _saved = False

    def __init__(
        self, inputs: Any, outputs: Any, constants: Any, steps: Any, layers: Any
    ) -> None:
        self._inputs, self._outputs = inputs, outputs
        self._constants, self._steps = constants, steps
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._leaves()  # raises when dtypes differ

    _not_kept = ("constants", "steps", "layers")

    def _knows(self, name, value):
        return isinstance(value, Module) or super()._knows(name, value)

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(one.name for one in self._inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._outputs

    def forward(self, *args: ArrayLike, **kwargs: ArrayLike) -> Any:
        """Run the graph.

        Parameters
        ----------
        *args, **kwargs : array_like
            The graph's inputs, in its order or by name.

        Returns
        -------
        ndarray or tuple of ndarray
            The output; a tuple of them, in the graph's order, if it has several.

        Raises
        ------
        ValueError
            If a shape disagrees with the graph.
        TypeError
            If inputs are missing, too many or of the wrong kind.
        """
        values = dict(self._constants)
        values[""] = None
        values.update(self._bound(args, kwargs))
        with axis_rule.as_in_a_model(False):  # the file says which axis comes first
            for node, layer in self._steps:
                given = [values[name] for name in node.inputs]
                made = self._run(node, layer, given)
                # A node may leave out the last of its outputs.
                values.update(zip(node.outputs, made, strict=False))
                values[""] = None
        results = tuple(values[name] for name in self.outputs)
        return results[0] if len(results) == 1 else results

    def _bound(self, args, kwargs):
        """The arguments of a call by input name, as arrays of the graph's dtypes."""
        who = type(self).__name__
        names = ", ".join(self.inputs)
        given = dict(zip(self.inputs, args, strict=False))
        if len(args) > len(self._inputs) or given.keys() & kwargs.keys():
            raise TypeError(f"{who}: inputs must be {names}, each once")
        given.update(kwargs)
        if given.keys() != set(self.inputs):
            raise TypeError(
                f"{who}: inputs must be {names}, got {', '.join(given) or 'none'}"
            )
        return {one.name: _converted(who, one, given[one.name]) for one in self._inputs}

    def _run(self, node, layer, given):
        """Run one node on the given inputs; its outputs as a list."""
        who = type(self).__name__
        if layer is None:
            return apply(who, node, given)
        module = getattr(self, layer)
        if node.op in _recurrent.CLASSES:
            return _recurrent.run(f"{who}: {node}", module, given)
        if node.op == "Gather":
            indices = given[1]
            return [module(indices + (indices < 0) * module.num_embeddings)]
        with np.errstate(all="ignore"):  # infinities and NaN are results, as in `apply`
            y = module(given[0])
        # A layer computes a float16 graph in float32, say, while the nodes that follow
        # expect the graph's own type.
        return [y.astype(given[0].dtype, copy=False)]

    def ends_in(self) -> Module | None:
        """The layer that computes the first output; None if an operator does."""
        name = self.outputs[0]
        for node, layer in reversed(self._steps):
            if name in node.outputs:
                if node.op != "Identity":
                    return None if layer is None else getattr(self, layer)
                (name,) = node.inputs
        return None

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        names = f"{', '.join(self.inputs)} -> {', '.join(self.outputs)}"
        return printable(names)  # the names in a file may have any characters


def _converted(who, wanted, value):
    kind = np.dtype(wanted.dtype).kind
    if kind == "f":
        array = checks.float_array(who, wanted.name, value, wanted.dtype)
    elif kind in "iu":
        array = checks.integer_array(who, wanted.name, value).astype(wanted.dtype)
    else:
        array = np.asarray(value, wanted.dtype)
    if wanted.letters is not None:
        checks.shape(who, wanted.name, array, wanted.letters, wanted.sizes)
    return array
