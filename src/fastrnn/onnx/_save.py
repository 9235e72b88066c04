# SPDX-License-Identifier: BSD-3-Clause
"""`save`: write fastrnn's layers as standard ONNX operators."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastrnn.nn import axis_rule
from fastrnn.nn.activation import Activation, ReLU, Sigmoid, Softmax, Tanh
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.layers import Dropout, Linear
from fastrnn.nn.module import Module
from fastrnn.nn.norm import LayerNorm
from fastrnn.nn.wrappers import TimeDistributed
from fastrnn.onnx import _recurrent
from fastrnn.onnx._save_recurrent import RecurrentWriter, merge
from fastrnn.recurrent.bidirectional import Bidirectional
from fastrnn.train.model import Model
from fastrnn.train.sequential import Sequential
from fastrnn.util import checks, extras
from fastrnn.util.typing import PathLike
from fastrnn.util.writing import write_atomically

OLDEST_OPSET = 14
DEFAULT_OPSET = 17

_LARGEST = 2**31 - 1  # the bytes that a protobuf message may have


def save(
    model: Module,
    path: PathLike,
    *,
    states: bool = False,
    axes: Mapping[str, int] | None = None,
    opset: int = DEFAULT_OPSET,
) -> None:
    """Write a model as an ONNX file, for inference.

    Parameters
    ----------
    model : Module
        RNN, LSTM, GRU, Bidirectional, Embedding, Linear, LayerNorm (from opset 17 on),
        Dropout (which is left out, because it does nothing in inference), Activation,
        ReLU, Sigmoid, Softmax, Tanh, TimeDistributed of a layer from Linear to Tanh in
        this list, or a Sequential of these. No layer may make a mask, because standard
        operators have no masks.
    path : path-like
        The file to write. A file that exists is replaced in one step when the new one
        is complete.
    states : bool
        True makes the states of every recurrent layer inputs (``h0``, ``c0``) and
        outputs (``h_n``, ``c_n``) of the graph, each of shape (num_layers * directions,
        B, hidden_size). The names of a layer in a Sequential begin with the number of
        the layer: ``0.h0``. False lets states start from zero.
    axes : tuple of str, optional
        The names of the input's free axes, which are all axes before the features.
        Default: ``("T", "B")`` or ``("B", "T")``, whichever the first recurrent layer
        takes; ``("N",)`` for a model without a recurrent layer.
    opset : int
        The version of the operators, from 14 to the newest that the package onnx knows.
        Default 17.

    Raises
    ------
    ValueError
        If the model has a layer or an option that ONNX has no operators for: functions
        that ONNX does not have, different functions for the gates, ``stateful`` without
        `states` or ``learn_initial_state`` with `states`. Also if the model does not
        fit in a protobuf message (2 GB).
    TypeError
        If an argument is of the wrong kind.
    ImportError
        If the package onnx is not installed.

    Notes
    -----
    The graph's input is ``x`` and its output ``y``. Samples come first if `model` is a
    `Model`; a layer that is saved by itself keeps the order of axes that it has. All
    axes before the features are free, so one file runs sequences of all lengths.

    ``cell_clip`` and the parameters of functions are attributes of a node, whose
    numbers ONNX keeps in float32. A projection is multiplied into the recurrent
    weights, which then have hidden_size columns, and is applied to the node's outputs
    as a product.

    Examples
    --------
    >>> model = fastrnn.Sequential(fastrnn.LSTM(3, 8, seed=0), fastrnn.Linear(8, 2))
    >>> save(model, "model.onnx")
    >>> x = np.ones((5, 4, 3), "f")
    >>> again = fastrnn.onnx.load("model.onnx")
    >>> bool((again(x) == model.eval()(x)).all())
    True
    """
    who = "fastrnn.onnx.save"
    onnx = extras.require(who, "onnx", "onnx")
    states = checks.flag(who, "states", states)
    opset = checks.integer(who, "opset", opset)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ValueError(
            f"{who}: opset must be in [{OLDEST_OPSET}, {newest}], got {opset}"
        )
    with axis_rule.as_in_a_model(isinstance(model, Model)):
        proto = _Writer(who, onnx, model, states, axes).model(opset)
    size = proto.ByteSize()
    if size > _LARGEST:
        raise ValueError(f"{who}: the model must fit in 2 GB, got {size} bytes")
    write_atomically(path, proto.SerializeToString())


_RECURRENT = tuple(_recurrent.CLASSES.values())
_ACTIVATIONS = (Activation, ReLU, Sigmoid, Softmax, Tanh)
# Layers that act on the last axis alone, whatever axes are before it: TimeDistributed
# around them changes nothing.
_EVERYWHERE = (Linear, LayerNorm, Dropout, *_ACTIVATIONS)


def _flattened(module, prefix=""):
    """The layers of a model in the order in which they run, as pairs (prefix, layer).

    The names of a layer's nodes and weights begin with the prefix.
    """
    if type(module) is Sequential:
        for k, child in enumerate(module):
            yield from _flattened(child, f"{prefix}{k}.")
    elif type(module) is TimeDistributed and type(module.layer) in _EVERYWHERE:
        yield prefix, module.layer
    else:
        yield prefix, module


def _inside(layer):
    """The layer inside a Bidirectional, or any other layer itself."""
    return layer.layer if isinstance(layer, Bidirectional) else layer


class _Writer:
    """Collects the nodes and weights of a graph, by a method for each kind of layer."""

    def __init__(self, who, onnx, model, states, axes):
        self.who, self.onnx, self.states = who, onnx, states
        self.layers = list(_flattened(model))
        self.kinds = {
            **dict.fromkeys(_RECURRENT, self._recurrent),
            Bidirectional: self._bidirectional,
            Embedding: self._embedding,
            Linear: self._linear,
            LayerNorm: self._layer_norm,
            Dropout: lambda prefix, layer, x: x,
            **dict.fromkeys(_ACTIVATIONS, self._activation),
        }
        for prefix, layer in self.layers:
            if type(layer) not in self.kinds:
                known = ", ".join(kind.__name__ for kind in self.kinds)
                raise ValueError(
                    f"{who}: layer {prefix[:-1] or 'model'!r} must be one of {known} "
                    f"or Sequential, got {type(layer).__name__}"
                )
            inner = _inside(layer)
            if inner is not layer and type(inner) not in _RECURRENT:
                known = ", ".join(kind.__name__ for kind in _RECURRENT)
                raise ValueError(
                    f"{who}: layer {prefix[:-1] or 'model'!r} must run one of {known} "
                    f"in both directions, got {type(inner).__name__}"
                )
        self.nodes, self.inputs, self.outputs, self.weights = [], [], [], {}
        self.dtype = model.dtype
        self.axes = self.out_axes = self._axes(axes)
        self.sequences = True  # whether the value so far still has an axis of time

    # -- the whole --------------------------------------------------------------------

    def _axes(self, axes):
        """The names of the input's free axes, as `save` takes them."""
        if axes is None:
            for _, layer in self.layers:
                layer = _inside(layer)
                if isinstance(layer, _RECURRENT):
                    return ("B", "T") if layer.batch_first else ("T", "B")
            return ("N",)
        if not isinstance(axes, tuple) or not all(isinstance(a, str) for a in axes):
            raise TypeError(f"{self.who}: axes must be a tuple of names, got {axes!r}")
        return axes

    def _input_width(self):
        """The sizes of the input's feature axes, none for indices, and the dtype."""
        for _, layer in self.layers:
            layer = _inside(layer)
            if isinstance(layer, Embedding):
                return (), "int64"
            if isinstance(layer, _RECURRENT):
                return (layer.input_size,), self.dtype
            if isinstance(layer, Linear):
                return (layer.in_features,), self.dtype
            if isinstance(layer, LayerNorm):
                return layer.normalized_shape, self.dtype
        raise ValueError(f"{self.who}: model must have a layer with weights")

    def model(self, opset):
        """The ModelProto of the whole file."""
        self.opset = opset
        width, dtype = self._input_width()
        self.declare(self.inputs, "x", dtype, (*self.axes, *width))
        self.width = width
        name = "x"
        for prefix, layer in self.layers:
            name = self.kinds[type(layer)](prefix, layer, name)
        self.add("Identity", [name], "y")
        outputs = []
        self.declare(outputs, "y", self.dtype, (*self.out_axes, *self.width))
        helper = self.onnx.helper
        graph = helper.make_graph(
            self.nodes,
            "fastrnn",
            self.inputs,
            outputs + self.outputs,
            [
                self.onnx.numpy_helper.from_array(array, name)
                for name, array in self.weights.items()
            ],
        )
        imports = [helper.make_opsetid("", opset)]
        return helper.make_model(
            graph,
            opset_imports=imports,
            ir_version=helper.find_min_ir_version_for(imports),
            producer_name="fastrnn",
        )

    def declare(self, values, name, dtype, shape):
        """Add the description of an input or an output to the list `values`."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        values.append(self.onnx.helper.make_tensor_value_info(name, kind, shape))

    def node(self, op, inputs, outputs, name, **attributes):
        """Add a node."""
        self.nodes.append(
            self.onnx.helper.make_node(op, inputs, outputs, name=name, **attributes)
        )

    def add(self, op, inputs, output, **attributes):
        """Add a node of one output, with one name for both; return the name."""
        self.node(op, inputs, [output], output, **attributes)
        return output

    def weight(self, name, array):
        """Add an initializer, as ONNX calls a constant array; return its name."""
        self.weights[name] = np.ascontiguousarray(array).reshape(np.shape(array))
        return name

    def integers(self, *values):
        """Add an initializer of integers; return its name."""
        name = "integers_" + "_".join(str(value).replace("-", "m") for value in values)
        return self.weight(name, np.array(values, np.int64))

    # -- layers -----------------------------------------------------------------------

    def _embedding(self, prefix, layer, x):
        if x != "x":
            raise ValueError(
                f"{self.who}: layer {prefix[:-1]!r}: an Embedding must come first"
            )
        if layer.mask_zero:
            raise ValueError(
                f"{self.who}: layer {prefix[:-1] or 'model'!r}: mask_zero must be "
                "False, since ONNX's operators have no masks, got True"
            )
        self.width = (layer.embedding_dim,)
        table = self.weight(f"{prefix}weight", layer.parameters["weight"])
        return self.add("Gather", [table, x], f"{prefix}embedding")

    def _linear(self, prefix, layer, x):
        self.width = (layer.out_features,)
        if layer.quantized is not None:
            raise ValueError(
                f"{self.who}: layer {prefix.rstrip('.')!r}: quantized must be None, "
                f"got {layer.quantized!r}"
            )
        weights = layer.parameters
        kernel = self.weight(f"{prefix}weight", weights["weight"].T)
        y = self.add("MatMul", [x, kernel], f"{prefix}linear")
        if layer.bias:
            bias = self.weight(f"{prefix}bias", weights["bias"])
            y = self.add("Add", [y, bias], f"{prefix}biased")
        if layer.activation is not None:
            y = self._function(prefix, layer.activation, y)
        return y

    def _layer_norm(self, prefix, layer, x):
        if self.opset < 17:
            raise ValueError(
                f"{self.who}: layer {prefix[:-1] or 'model'!r}: a LayerNorm needs "
                f"opset 17, got {self.opset}"
            )
        ones = np.ones(layer.normalized_shape, self.dtype)
        weights = {"weight": ones, **layer.parameters}
        names = [self.weight(prefix + name, a) for name, a in weights.items()]
        return self.add(
            "LayerNormalization",
            [x, *names],
            f"{prefix}normalized",
            axis=-ones.ndim,
            epsilon=layer.eps,
        )

    def _activation(self, prefix, layer, x):
        return self._function(prefix, layer.function, x)

    def _function(self, prefix, function, x):
        op = function.capitalize()
        attributes = {"axis": -1} if op == "Softmax" else {}
        return self.add(op, [x], f"{prefix}{function}", **attributes)

    def _recurrent(self, prefix, layer, x):
        if not self.sequences:
            raise ValueError(
                f"{self.who}: layer {prefix[:-1]!r}: a recurrent layer must come "
                "before one with return_sequences=False"
            )
        y = RecurrentWriter(self, prefix, layer, self.states).write(x)
        if not layer.return_sequences:
            # The output has no axis of time any more.
            self.sequences, at = False, 1 if layer.batch_first else 0
            self.out_axes = self.axes[:at] + self.axes[at + 1 :]
        return y

    def _bidirectional(self, prefix, layer, x):
        y = self._recurrent(prefix, layer.layer, x)
        if layer.merge_mode == "concat":
            return y
        (width,) = self.width
        self.width, sizes = (width // 2,), self.integers(width // 2, width // 2)
        halves = [f"{prefix}direction0", f"{prefix}direction1"]
        self.node("Split", [y, sizes], halves, f"{prefix}directions", axis=-1)
        return merge(self, layer.merge_mode, halves, f"{prefix}merged")
