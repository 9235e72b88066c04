# SPDX-License-Identifier: BSD-3-Clause
"""`load`: make a `Graph` of an ONNX file.

Nodes with weights become layers. Nodes whose inputs are constants are folded: they are
run once, when the file is read, and their results are constants of the graph.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter

import numpy as np

from fastrnn.nn.activation import Activation
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.layers import Linear
from fastrnn.onnx import _cost, _recurrent
from fastrnn.onnx._dequantize import Dequantizer
from fastrnn.onnx._graph import Graph, Input, Step
from fastrnn.onnx._nodes import Reader
from fastrnn.onnx._operators import apply, fitting
from fastrnn.onnx._read import Contents
from fastrnn.util import budget, checks, extras, files
from fastrnn.util.files import allowance
from fastrnn.util.typing import PathLike

# From this opset on, operators broadcast as NumPy does.
OLDEST_OPSET = 7
# From this opset on, Softmax is over one axis. Before, it was over all axes from one
# on.
_SOFTMAX_OF_AN_AXIS = 13
_FUNCTIONS = ("Relu", "Sigmoid", "Softmax", "Softplus", "Softsign", "Tanh")

# The time that folding may take in all: as long as passing this many times over all the
# memory that the constants of the file may take.
_MOST_WORK = 64


def load(path: PathLike) -> Graph:
    """Read an ONNX file as a model that runs on fastrnn's layers.

    Parameters
    ----------
    path : path-like
        A file of opset 7 or later. Its graph may have RNN, LSTM and GRU nodes, and the
        operators that are usual around them: products, arithmetic, activations,
        softmax, shapes, slices, look-ups (`fastrnn.onnx._operators` has the list). It
        may be quantised, in the forms that the notes name.

    Returns
    -------
    Graph
        In eval mode. Call it with the inputs of the file's graph to get the outputs.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is damaged, or has a node that cannot be run; the message names the
        node, the attribute and its value.
    ImportError
        If the package onnx is not installed.

    Notes
    -----
    Recurrent nodes may have every attribute and input that their operators have. They
    are refused if the graph computes their weights from its inputs, or if their type is
    neither float32 nor float64. A function without parameters in the file has the ones
    that ONNX defines, or those of `RNN` where ONNX defines none.

    Of a quantised graph, weights are the floats that their integers stand for,
    ``(q - zero_point) * scale``, exactly. Activations are not rounded, so that results
    are nearer to those of the graph before it was quantised than ONNX Runtime's are;
    they only stay within the bounds that QuantizeLinear has for them, because
    quantizers leave out a Relu or a Clip for which these bounds stand. Integers that do
    not become floats again, as the graph's outputs for example, are computed as ONNX
    defines them. So read are

    - DynamicQuantizeLSTM, DynamicQuantizeMatMul and MatMulIntegerToFloat of the domain
      ``com.microsoft``;
    - DynamicQuantizeLinear and MatMulInteger with the Cast and the Mul behind it;
    - QuantizeLinear and DequantizeLinear, also those of ``com.microsoft``, with a scale
      for a tensor, an axis or a block, and integers of 4 (weights alone), 8, 16 and 32
      bits.

    That is what ``quantize_dynamic`` and, in the QDQ format, ``quantize_static`` of
    ONNX Runtime make of the graphs that can be read without them. The layers are
    float32 ones; ``fastrnn.quantize`` makes bytes of their weights again.

    Nodes whose inputs are constants are computed while the file is read, as long as the
    constants take no more than four times the size of the file and 32 MiB, where an
    integer of at most two bytes counts as four bytes: `fastrnn.load_model` says what a
    file may do.

    Examples
    --------
    >>> fastrnn.onnx.save(fastrnn.GRU(3, 4, seed=0), "gru.onnx")
    >>> model = load("gru.onnx")
    >>> model
    Graph(x -> y
      (l0): GRU(3, 4)
    )
    >>> model(np.ones((7, 2, 3))).shape
    (7, 2, 4)
    """
    who = "fastrnn.onnx.load"
    onnx = extras.require(who, "onnx", "onnx")
    who = f"{who}: {os.fspath(path)}"
    data, folder = files.read_bytes(path), os.path.dirname(os.fspath(path))
    with files.reading(who, "an ONNX file"):
        contents = Contents(who, onnx, folder, data)
        contents.inline()
        return _Loader(who, onnx, contents).graph().eval()


class _Loader:
    """Makes the parts of a `Graph` from the message that a file holds."""

    def __init__(self, who, onnx, contents):
        self.who, self.onnx = who, onnx
        self.contents, self.proto = contents, contents.model.graph
        opsets = {one.domain: one.version for one in contents.model.opset_import}
        self.reader = Reader(who, onnx, contents, opsets)
        self.opset = self.reader.opset
        if self.opset < OLDEST_OPSET:
            raise ValueError(
                f"{who}: opset must be {OLDEST_OPSET} or later, got {self.opset}"
            )
        self.constants = {
            one.name: contents.array(f"initializer {one.name!r}", one)
            for one in self.proto.initializer
        }
        self.work = 0  # the work of the nodes that were folded so far, as in `_cost`
        self.steps, self.layers, self.stems = [], {}, Counter()

    def graph(self):
        """The `Graph` of the whole file."""
        inputs = tuple(
            self._input(one)
            for one in self.proto.input
            if one.name not in self.constants
        )
        outputs = tuple(one.name for one in self.proto.output)
        nodes = [self.reader.read(k, one) for k, one in enumerate(self.proto.node)]
        self._check_order(nodes, inputs, outputs)
        # By value, the indices of the nodes that take it, as often as they take it;
        # None is the index of the graph's outputs.
        users = {}
        for k, node in enumerate(nodes):
            for name in node.inputs:
                users.setdefault(name, []).append(k)
        for name in outputs:
            users.setdefault(name, []).append(None)
        done = set()
        # The parameters of layers repeat tensors of the file, and have gradients as
        # well: they may take as much memory again.
        room = allowance(self.contents.stored) // 2
        with budget.limited(room, budget.MOST_ARRAYS):
            names = (*(one.name for one in inputs), *outputs)
            dequantizer = Dequantizer(
                self.who, nodes, self.constants, names, self.contents.take
            )
            for k, node in enumerate(nodes):
                if k not in done:
                    for plain in dequantizer.plain(node):
                        done.add(self._add(plain, node, nodes, users))
        self._leave_out(outputs)
        used = {name for step in self.steps for name in step.node.inputs} | {*outputs}
        constants = {n: v for n, v in self.constants.items() if n in used}
        return Graph(inputs, outputs, constants, self.steps, self.layers)

    def _check_order(self, nodes, inputs, outputs):
        """Check that every value is made before it is needed, and made only once."""
        made = {"", *self.constants, *(one.name for one in inputs)}
        for node in nodes:
            missing = [name for name in node.inputs if name not in made]
            if missing:
                raise ValueError(
                    f"{self.who}: {node}: inputs must be made before it, "
                    f"got {', '.join(missing)}"
                )
            twice = [name for name in node.outputs if name and name in made]
            if twice:
                raise ValueError(
                    f"{self.who}: {node}: outputs must be made once, "
                    f"got {', '.join(twice)} again"
                )
            made.update(node.outputs)
        missing = [name for name in outputs if name not in made]
        if missing or not outputs:
            raise ValueError(
                f"{self.who}: outputs must be made by nodes, "
                f"got {', '.join(missing) or 'none'}"
            )

    def _input(self, value):
        """The `Input` of a graph's input as the file describes it."""
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type"):
            raise ValueError(f"{self.who}: input {value.name!r} must be a tensor")
        dtype = self.onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        if not tensor.HasField("shape"):
            return Input(value.name, dtype, None, None)
        letters, sizes = [], []
        for k, one in enumerate(tensor.shape.dim):
            fixed = one.HasField("dim_value")
            letters.append(str(one.dim_value) if fixed else one.dim_param or f"d{k}")
            sizes.append(one.dim_value if fixed else None)
        return Input(value.name, dtype, tuple(letters), tuple(sizes))

    def _add(self, node, source, nodes, users):
        """Fold a node, or make a step of it.

        Parameters
        ----------
        node : Node
        source : Node
            The node of the file that it stands for.
        nodes : list of Node
            All nodes of the file.
        users : dict
            By the name of a value, the indices of the nodes that take it.

        Returns
        -------
        int or None
            The index of a later node that the step computes as well.
        """
        if node.op in _recurrent.CLASSES:
            who = f"{self.who}: {source}"
            layer = _recurrent.make_layer(who, node, self.constants)
            # The weights are parameters of the layer now, and no inputs of the step.
            node = node._replace(inputs=(node.inputs[0], "", "", "", *node.inputs[4:7]))
            self._layer_step(node, layer)
            return None
        if all(name in self.constants or not name for name in node.inputs):
            self._fold(node)
            return None
        if node.op == "Gather" and self._is_table(node):
            table = self.constants[node.inputs[0]]
            layer = Embedding(*table.shape, dtype=table.dtype.name)
            layer.load_state_dict({"weight": table})
            self._layer_step(node._replace(inputs=("", node.inputs[1])), layer)
            return None
        if node.op in ("MatMul", "Gemm"):
            return self._add_product(node, nodes, users)
        if node.op in _FUNCTIONS and self._is_of_last_axis(node):
            self._layer_step(node, Activation(node.op.lower()))
            return None
        self.steps.append(Step(node, None))
        return None

    def _leave_out(self, outputs):
        """Leave out the steps that NumPy would run for nothing that is asked for."""
        needed, kept = {*outputs}, []
        for step in reversed(self.steps):
            if step.layer is not None or needed & {*step.node.outputs} - {""}:
                needed.update(step.node.inputs)
                kept.append(step)
        self.steps = kept[::-1]

    def _is_of_last_axis(self, node):
        """Whether a function is applied along the last axis, as an Activation does."""
        new = self.opset >= _SOFTMAX_OF_AN_AXIS
        return node.op != "Softmax" or (new and node.get("axis", -1) == -1)

    def _fold(self, node):
        """Run a node whose inputs are constants, if a file of this size may ask it."""
        given = [self.constants.get(name) for name in node.inputs]
        with fitting(self.who, node, given):
            n_bytes = _cost.memory(node, given)
            self.work += _cost.work(node, given, n_bytes)
        room = self.contents.room
        self.contents.take(node, n_bytes)
        most = _MOST_WORK * allowance(self.contents.stored)
        if self.work > most:
            raise ValueError(
                f"{self.who}: {node}: computing constants must take no longer than "
                f"passing over {most:,} bytes, got a file of "
                f"{self.contents.stored:,} that goes on"
            )
        made = apply(self.who, node, given)
        # The memory for the run is free again. What stays taken is that of the results.
        self.contents.room = room
        self.contents.take(node, sum(_own_bytes(array, given) for array in made))
        self.constants.update(zip(node.outputs, made, strict=False))

    def _layer_step(self, node, layer):
        """Add a step that a layer runs."""
        # The layer becomes an attribute of the graph. Its name must be one that Python
        # allows, that no other layer has, and that is no attribute of Graph.
        stem = re.sub(r"\W", "_", node.name).strip("_") or node.op
        name = stem
        while name in self.layers or hasattr(Graph, name):
            self.stems[stem] += 1
            name = f"{stem}_{self.stems[stem]}"
        self.layers[name] = layer
        self.steps.append(Step(node, name))

    def _matrix(self, name):
        """The constant matrix of a name, of a type that layers have, or None."""
        array = self.constants.get(name)
        fits = array is not None and array.ndim == 2 and 0 not in array.shape
        return array if fits and array.dtype.name in checks.DTYPES else None

    def _is_table(self, node):
        """Whether a Gather looks rows up in a constant matrix, as an Embedding does."""
        table = self._matrix(node.inputs[0])
        return table is not None and node.get("axis", 0) == 0

    def _add_product(self, node, nodes, users):
        """Make a Linear of a product with a constant matrix, and of a bias added to it.

        Returns
        -------
        int or None
            The index of the Add that adds the bias, if there is one.
        """
        weight = self._matrix(node.inputs[1])
        plain = not node.get("transA", 0) and node.get("alpha", 1.0) == 1.0
        bias, taken = None, None
        if weight is not None and node.op == "MatMul":
            weight = weight.T
            taken, bias = self._bias_after(node, nodes, users, len(weight))
        elif weight is not None:
            weight = weight if node.get("transB", 0) else weight.T
            bias = self.constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
            plain &= len(node.inputs) == 2 or (
                node.get("beta", 1.0) == 1.0
                and bias is not None
                and bias.size == math.prod(bias.shape[-1:]) == len(weight)
            )
        if weight is None or not plain:
            self.steps.append(Step(node, None))
            return None
        state = {"weight": weight}
        if bias is not None:
            state["bias"] = bias.reshape(-1)
        layer = Linear(*weight.shape[::-1], bias is not None, dtype=weight.dtype.name)
        layer.load_state_dict(state)
        outputs = node.outputs if taken is None else nodes[taken].outputs
        self._layer_step(node._replace(inputs=node.inputs[:1], outputs=outputs), layer)
        return taken

    def _bias_after(self, node, nodes, users, width):
        """The index of an Add that is all that uses a product, and the vector it adds.

        Both are None if there is no such Add.
        """
        (y,) = node.outputs
        if len(users.get(y, ())) != 1 or users[y] == [None]:
            return None, None
        (k,) = users[y]
        other = nodes[k]
        if other.op == "Add":
            bias = other.inputs[1 - other.inputs.index(y)]
            if np.shape(self.constants.get(bias)) == (width,):
                return k, self.constants[bias]
        return None, None


def _own_bytes(array, inputs):
    """The bytes of an array; 0 if it is a view of one of the inputs."""
    shared = any(v is not None and np.may_share_memory(array, v) for v in inputs)
    return 0 if shared else array.nbytes
