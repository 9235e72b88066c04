# SPDX-License-Identifier: BSD-3-Clause
"""`save`: our layers as standard ONNX operators."""

import inspect

import numpy as np

from fastrnn import (
    GRU,
    LSTM,
    RNN,
    Dropout,
    Embedding,
    Linear,
    Sequential,
    _check,
    _extras,
    _files,
)
from fastrnn.keras._activation import Activation
from fastrnn.onnx import _recurrent

OLDEST_OPSET = 14
DEFAULT_OPSET = 17

# Arguments of recurrent layers that are written here, or mean nothing in inference.
_WRITTEN = {
    *("input_size", "hidden_size", "num_layers", "nonlinearity", "bias"),
    *("batch_first", "dropout", "bidirectional", "dtype", "seed"),
}
_LARGEST = 2**31 - 1  # bytes of a protobuf message


def save(model, path, *, states=False, axes=None, opset=DEFAULT_OPSET):
    """Write a model as an ONNX file, for inference.

    Parameters
    ----------
    model : RNN, LSTM, GRU, Embedding, Linear, Dropout, Activation or Sequential of them
        Dropout is left out: it does nothing in inference.
    path : path-like
        File to write; one that exists is replaced at the end, in one step.
    states : bool
        True makes every recurrent layer's state an input (``h0``, ``c0``) and an output
        (``h_n``, ``c_n``), each (num_layers * directions, B, hidden_size); of layers in
        a Sequential with the layer's number before it: ``0.h0``. False starts from
        zero.
    axes : tuple of str, optional
        Names of the input's free axes, all before the features. Default: ``("T", "B")``
        or, as the first recurrent layer has it, ``("B", "T")``; ``("N",)`` for a model
        without one.
    opset : int
        Version of the operators, from 14 to the newest of the package onnx. Default 17.

    Raises
    ------
    ValueError
        If the model has a layer or an option that is not written, or does not fit in a
        protobuf message (2 GB).
    TypeError
        If an argument is of the wrong kind.
    ImportError
        If the package onnx is not installed.

    Notes
    -----
    The input is ``x``, the output ``y``, as the model has them: all axes before the
    features are free. Sequences of different lengths run in one file.

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
    onnx = _extras.require(who, "onnx", "onnx")
    states = _check.flag(who, "states", states)
    opset = _check.integer(who, "opset", opset)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ValueError(
            f"{who}: opset must be in [{OLDEST_OPSET}, {newest}], got {opset}"
        )
    proto = _Writer(who, onnx, model, states, axes).model(opset)
    size = proto.ByteSize()
    if size > _LARGEST:
        raise ValueError(f"{who}: the model must fit in 2 GB, got {size} bytes")
    _files.write_atomically(path, proto.SerializeToString())


def _flattened(module, prefix=""):
    """(prefix, layer) of a model's layers in the order in which they run."""
    if type(module) is Sequential:
        for k, child in enumerate(module):
            yield from _flattened(child, f"{prefix}{k}.")
    else:
        yield prefix, module


class _Writer:
    """Collects nodes and weights; one method for each kind of layer."""

    def __init__(self, who, onnx, model, states, axes):
        self.who, self.onnx, self.states = who, onnx, states
        self.layers = list(_flattened(model))
        self.kinds = {
            RNN: self._recurrent,
            LSTM: self._recurrent,
            GRU: self._recurrent,
            Embedding: self._embedding,
            Linear: self._linear,
            Dropout: lambda prefix, layer, x: x,
            Activation: self._activation,
        }
        for prefix, layer in self.layers:
            if type(layer) not in self.kinds:
                known = ", ".join(kind.__name__ for kind in self.kinds)
                raise ValueError(
                    f"{who}: layer {prefix[:-1] or 'model'!r} must be one of {known} "
                    f"or Sequential, got {type(layer).__name__}"
                )
        self.nodes, self.inputs, self.outputs, self.weights = [], [], [], {}
        self.dtype = model.dtype
        self.axes = self._axes(axes)

    # -- the whole --------------------------------------------------------------------

    def _axes(self, axes):
        if axes is None:
            for _, layer in self.layers:
                if isinstance(layer, (RNN, LSTM, GRU)):
                    return ("B", "T") if layer.batch_first else ("T", "B")
            return ("N",)
        if not isinstance(axes, tuple) or not all(isinstance(a, str) for a in axes):
            raise TypeError(f"{self.who}: axes must be a tuple of names, got {axes!r}")
        return axes

    def _input_width(self):
        """Features of the input, () where it is indices; and its dtype."""
        for _, layer in self.layers:
            if isinstance(layer, Embedding):
                return (), "int64"
            if isinstance(layer, (RNN, LSTM, GRU)):
                return (layer.input_size,), self.dtype
            if isinstance(layer, Linear):
                return (layer.in_features,), self.dtype
        raise ValueError(f"{self.who}: model must have a layer with weights")

    def model(self, opset):
        """The ModelProto."""
        width, dtype = self._input_width()
        self._declare(self.inputs, "x", dtype, (*self.axes, *width))
        self.width = width
        name = "x"
        for prefix, layer in self.layers:
            name = self.kinds[type(layer)](prefix, layer, name)
        self._add("Identity", [name], ["y"])
        outputs = []
        self._declare(outputs, "y", self.dtype, (*self.axes, *self.width))
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

    def _declare(self, values, name, dtype, shape):
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        values.append(self.onnx.helper.make_tensor_value_info(name, kind, shape))

    def _add(self, op, inputs, outputs, **attributes):
        """A node, named after its first output; the name of that output."""
        name = outputs[0].removesuffix(".y") if op in _recurrent.CLASSES else outputs[0]
        self.nodes.append(
            self.onnx.helper.make_node(op, inputs, outputs, name=name, **attributes)
        )
        return outputs[0]

    def _weight(self, name, array):
        self.weights[name] = np.ascontiguousarray(array)
        return name

    def _integers(self, *values):
        name = "integers_" + "_".join(str(value).replace("-", "m") for value in values)
        return self._weight(name, np.array(values, np.int64))

    # -- layers -----------------------------------------------------------------------

    def _embedding(self, prefix, layer, x):
        if x != "x":
            raise ValueError(
                f"{self.who}: layer {prefix[:-1]!r}: an Embedding must come first"
            )
        self.width = (layer.embedding_dim,)
        table = self._weight(f"{prefix}weight", layer.parameters["weight"])
        return self._add("Gather", [table, x], [f"{prefix}embedding"])

    def _linear(self, prefix, layer, x):
        self.width = (layer.out_features,)
        weights = layer.parameters
        kernel = self._weight(f"{prefix}weight", weights["weight"].T)
        y = self._add("MatMul", [x, kernel], [f"{prefix}linear"])
        if layer.bias:
            bias = self._weight(f"{prefix}bias", weights["bias"])
            y = self._add("Add", [y, bias], [f"{prefix}biased"])
        return y

    def _activation(self, prefix, layer, x):
        op = layer.function.capitalize()
        attributes = {"axis": -1} if op == "Softmax" else {}
        return self._add(op, [x], [f"{prefix}{layer.function}"], **attributes)

    def _recurrent(self, prefix, layer, x):
        self._check_options(prefix, layer)
        op, D, H = type(layer).__name__, 1 + layer.bidirectional, layer.hidden_size
        starts, ends = self._states(prefix, layer, D)
        if layer.batch_first:
            x = self._add("Transpose", [x], [f"{prefix}time_first"], perm=[1, 0, 2])
        lasts = [[] for _ in ends]
        for k in range(layer.num_layers):
            name = f"{prefix}l{k}"
            made = [f"{name}.y", *(f"{name}.{end}" for end in ends)]
            if not self.states:
                made = made[:1]
            self._add(
                op,
                [x, *self._cell(prefix, layer, k), *(start[k] for start in starts)],
                made,
                **self._attributes(layer),
            )
            for last, one in zip(lasts, made[1:], strict=False):
                last.append(one)
            # (T, D, B, H) into (T, B, D * H)
            y = self._add("Transpose", [made[0]], [f"{name}.rows"], perm=[0, 2, 1, 3])
            shape = self._integers(0, 0, D * H)
            x = self._add("Reshape", [y, shape], [f"{name}.merged"])
        for end, last in zip(ends, lasts, strict=True):
            if last:
                self._add("Concat", last, [f"{prefix}{end}"], axis=0)
        if layer.batch_first:
            x = self._add("Transpose", [x], [f"{prefix}batch_first"], perm=[1, 0, 2])
        self.width = (D * H,)
        return x

    def _check_options(self, prefix, layer):
        """Refuse an option that came after this module was written."""
        for name, parameter in inspect.signature(type(layer)).parameters.items():
            value = getattr(layer, name, parameter.default)
            if name not in _WRITTEN and value != parameter.default:
                raise ValueError(
                    f"{self.who}: layer {prefix[:-1] or 'model'!r}: {name} must be "
                    f"{parameter.default!r}, got {value!r}"
                )

    def _attributes(self, layer):
        attributes = {"hidden_size": layer.hidden_size}
        if layer.bidirectional:
            attributes["direction"] = "bidirectional"
        if isinstance(layer, GRU):
            attributes["linear_before_reset"] = 1
        if isinstance(layer, RNN):
            D = 1 + layer.bidirectional
            attributes["activations"] = [layer.nonlinearity.capitalize()] * D
        return attributes

    def _cell(self, prefix, layer, k):
        """Names of W, R and B of layer `k`; no name where the next input follows."""
        op, weights = type(layer).__name__, layer.parameters
        suffixes = [f"_l{k}", f"_l{k}_reverse"][: 1 + layer.bidirectional]

        def stacked(*names):
            return np.stack(
                [
                    np.concatenate(
                        [
                            _recurrent.reorder(op, weights[name + suffix], to_onnx=True)
                            for name in names
                        ]
                    )
                    for suffix in suffixes
                ]
            )

        cell = [
            self._weight(f"{prefix}l{k}.W", stacked("weight_ih")),
            self._weight(f"{prefix}l{k}.R", stacked("weight_hh")),
        ]
        if layer.bias:
            bias = stacked("bias_ih", "bias_hh")
            cell.append(self._weight(f"{prefix}l{k}.B", bias))
        elif self.states:
            cell.append("")
        return [*cell, ""] if self.states else cell

    def _states(self, prefix, layer, D):
        """Names of each state's part for every layer, and of the last states."""
        starts = ["h0", "c0"] if isinstance(layer, LSTM) else ["h0"]
        ends = ["h_n", "c_n"][: len(starts)]
        if not self.states:
            return [], ends
        shape = (layer.num_layers * D, "B", layer.hidden_size)
        parts = []
        for start, end in zip(starts, ends, strict=True):
            name = f"{prefix}{start}"
            self._declare(self.inputs, name, self.dtype, shape)
            self._declare(self.outputs, f"{prefix}{end}", self.dtype, shape)
            of_layers = [f"{name}.l{k}" for k in range(layer.num_layers)]
            sizes = self._integers(*[D] * layer.num_layers)
            self._add("Split", [name, sizes], of_layers, axis=0)
            parts.append(of_layers)
        return parts, ends
