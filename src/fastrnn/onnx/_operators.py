# SPDX-License-Identifier: BSD-3-Clause
"""The ONNX operators that a `Graph` runs in NumPy.

Each operator is a function. It takes the node (`Node`) and the arrays of the node's
inputs, with None for an input that is left out, and returns an array or a list of
arrays. Names and meanings are those of ONNX from opset 7 on. Where a later opset made
an attribute into an input, the function reads both forms.
"""

import contextlib
import math
from typing import NamedTuple

import numpy as np

from fastrnn.onnx import _integers
from fastrnn.util.functions import (
    elu,
    log_softmax,
    relu,
    sigmoid,
    softmax,
    softplus,
    softsign,
)


class Node(NamedTuple):
    """A node of a graph, independent of the package onnx."""

    op: str
    name: str
    inputs: tuple
    outputs: tuple
    attributes: dict
    opset: int

    def get(self, attribute, default=None):
        return self.attributes.get(attribute, default)

    def __str__(self):
        return f"node {self.name!r} ({self.op})"


def apply(who, node, inputs):
    """Run an operator.

    Parameters
    ----------
    who : str
        The caller or the file, for errors.
    node : Node
    inputs : list of ndarray or None

    Returns
    -------
    list of ndarray

    Raises
    ------
    ValueError
        If the inputs do not fit.
    """
    # NumPy must not warn, because infinities and NaN are results like others in ONNX.
    with fitting(who, node, inputs), np.errstate(all="ignore"):
        made = OPERATORS[node.op](node, *inputs)
    made = made if isinstance(made, list) else [np.asarray(made)]
    if len(made) < len(node.outputs):
        raise ValueError(
            f"{who}: {node} must have {len(made)} outputs, got {len(node.outputs)}"
        )
    return made


@contextlib.contextmanager
def fitting(who, node, inputs):
    """Turn the errors of an operator on inputs that do not fit into ValueError."""
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        shapes = ", ".join("none" if v is None else str(v.shape) for v in inputs)
        raise ValueError(
            f"{who}: {node}: inputs of shapes {shapes} do not fit: {error}"
        ) from error


def _axes(node, given=()):
    """The axes of a node: an attribute or, in later opsets, an input; None for none."""
    if given and given[0] is not None:
        return tuple(int(axis) for axis in np.ravel(given[0]))
    axes = node.get("axes")
    return None if axes is None else tuple(axes)


# -- shapes ----------------------------------------------------------------------------


def _reshape(node, x, shape):
    sizes = [int(size) for size in shape]
    if not node.get("allowzero", 0):
        sizes = [x.shape[k] if size == 0 else size for k, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(node, x):
    axis = node.get("axis", 1)
    axis += x.ndim if axis < 0 else 0
    return x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), -1)


def _squeeze(node, x, *axes):
    return np.squeeze(x, _axes(node, axes))


def _unsqueeze(node, x, *axes):
    return np.expand_dims(x, _axes(node, axes))


def _transpose(node, x):
    return np.transpose(x, node.get("perm"))


def _concat(node, *arrays):
    return np.concatenate(arrays, axis=node.get("axis"))


def _slice(node, x, *bounds):
    if bounds:
        bounds = [None if b is None else [int(i) for i in b] for b in bounds]
        starts, ends, axes, steps = [*bounds, None, None][:4]
    else:
        starts, ends = node.get("starts"), node.get("ends")
        axes, steps = node.get("axes"), None
    cut = [slice(None)] * x.ndim
    steps = steps or [1] * len(starts)
    axes = range(len(starts)) if axes is None else axes
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        # ONNX ends a backward slice before the first element by an end below -size. In
        # Python, only None says that.
        cut[axis] = slice(start, None if step < 0 and end < -size else end, step)
    return x[tuple(cut)]


def _split(node, x, *sizes):
    axis = node.get("axis", 0)
    sizes = sizes[0] if sizes and sizes[0] is not None else node.get("split")
    if sizes is None:
        n = len(node.outputs)
        part = -(-x.shape[axis] // n)
        sizes = [part] * (n - 1)
    else:
        sizes = [int(size) for size in sizes[:-1]]
    return np.split(x, np.cumsum(sizes), axis=axis)


def _gather(node, x, indices):
    return np.take(x, indices, axis=node.get("axis", 0))


def _expand(node, x, shape):
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(map(int, shape))))


def _tile(node, x, repeats):
    return np.tile(x, [int(n) for n in repeats])


def _shape(node, x):
    return np.array(x.shape[node.get("start", 0) : node.get("end")], np.int64)


def _size(node, x):
    return np.array(x.size, np.int64)


def _constant(node):
    for kind, dtype in (("float", "f"), ("int", np.int64)):
        for name in (f"value_{kind}", f"value_{kind}s"):
            if name in node.attributes:
                return np.array(node.get(name), dtype)
    if "value" not in node.attributes:
        raise ValueError("a constant must be numbers, dense")
    return node.get("value")


def _constant_of_shape(node, shape):
    value = node.get("value")
    value = np.zeros(1, "f") if value is None else value
    return np.full([int(size) for size in shape], value.item(), value.dtype)


def _range(node, start, limit, delta):
    return np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


# -- arithmetic ------------------------------------------------------------------------


def _div(node, a, b):
    if a.dtype.kind == "f":
        return a / b
    return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)


def _gemm(node, a, b, c=None):
    a = a.T if node.get("transA", 0) else a
    b = b.T if node.get("transB", 0) else b
    y = node.get("alpha", 1.0) * (a @ b)
    return y if c is None else y + node.get("beta", 1.0) * c


def _clip(node, x, *bounds):
    low, high = [*bounds, None, None][:2] if bounds else (None, None)
    low = node.get("min") if low is None else low
    high = node.get("max") if high is None else high
    x = x if low is None else np.maximum(x, np.asarray(low, x.dtype))
    return x if high is None else np.minimum(x, np.asarray(high, x.dtype))


def _pow(node, x, y):
    return np.power(x, y).astype(x.dtype)


def _cast(node, x):
    return x.astype(node.get("to"))


def _softmax_of(function):
    def run(node, x):
        axis = node.get("axis", -1 if node.opset >= 13 else 1)
        if node.opset >= 13:
            return function(x, axis)
        # Before opset 13, softmax was over all axes from this one on together.
        flat = x.reshape(*x.shape[:axis], -1)
        return function(flat, -1).reshape(x.shape)

    return run


def _reduction_of(function):
    def run(node, x, *axes):
        axes = _axes(node, axes) or None  # without axes, the reduction is over all
        if axes is None and node.get("noop_with_empty_axes", 0):
            return x
        return function(x, axis=axes, keepdims=bool(node.get("keepdims", 1)))

    return run


def _arg_max(node, x):
    axis = node.get("axis", 0)
    if node.get("select_last_index", 0):
        found = x.shape[axis] - 1 - np.argmax(np.flip(x, axis), axis, keepdims=True)
    else:
        found = np.argmax(x, axis, keepdims=True)
    return found if node.get("keepdims", 1) else np.squeeze(found, axis)


def _hard_sigmoid(node, x):
    return np.clip(node.get("alpha", 0.2) * x + node.get("beta", 0.5), 0, 1)


def _leaky_relu(node, x):
    return np.where(x < 0, node.get("alpha", 0.01) * x, x)


def _elu(node, x):
    return elu(x, node.get("alpha", 1.0))


def _selu(node, x):
    alpha = node.get("alpha", 1.6732632423543772)
    gamma = node.get("gamma", 1.0507009873554805)
    return gamma * elu(x, alpha)


def _thresholded_relu(node, x):
    return np.where(x > node.get("alpha", 1.0), x, 0).astype(x.dtype)


def _erf(x):
    return np.vectorize(math.erf, otypes=[x.dtype])(x) if x.size else x


def _gelu(node, x):
    if node.get("approximate", "none") == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _layer_normalization(node, x, scale, bias=None):
    axes = tuple(range(node.get("axis", -1) % x.ndim, x.ndim))
    mean = x.mean(axes, keepdims=True)
    spread = 1 / np.sqrt(x.var(axes, keepdims=True) + node.get("epsilon", 1e-5))
    y = (x - mean) * spread.astype(x.dtype) * scale
    return [y if bias is None else y + bias, mean, spread.astype(x.dtype)]


def _reverse_sequence(node, x, lengths):
    time, batch = node.get("time_axis", 0), node.get("batch_axis", 1)
    x = np.moveaxis(x, (batch, time), (0, 1))
    t, ends = np.arange(x.shape[1]), lengths[:, None]
    y = x[np.arange(len(x))[:, None], np.where(t < ends, ends - 1 - t, t)]
    return np.moveaxis(y, (0, 1), (batch, time))


def _dropout(node, x, *_):
    # In inference nothing is dropped, which the mask, the second output, says by True.
    # Before opset 12 ONNX did not define the mask, and ONNX Runtime gives False.
    return [x, np.full(x.shape, node.opset >= 12)]


def _plain(function):
    """An operator without attributes, computed by a function of its inputs alone."""

    def run(node, *arrays):
        return function(*arrays)

    return run


def _folded(function):
    """An operator of any number of inputs, computed by a function of two arrays."""

    def run(node, first, *arrays):
        for array in arrays:
            first = function(first, array)
        return first

    return run


OPERATORS = {
    **_integers.OPERATORS,
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "And": _plain(np.logical_and),
    "ArgMax": _arg_max,
    "Cast": _cast,
    "Ceil": _plain(np.ceil),
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _div,
    "Dropout": _dropout,
    "Elu": _elu,
    "Equal": _plain(np.equal),
    "Erf": _plain(_erf),
    "Exp": _plain(np.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _plain(np.floor),
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "HardSigmoid": _hard_sigmoid,
    "Identity": _plain(lambda x: x),
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": _leaky_relu,
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Log": _plain(np.log),
    "LogSoftmax": _softmax_of(log_softmax),
    "MatMul": _plain(np.matmul),
    "Max": _folded(np.maximum),
    "Min": _folded(np.minimum),
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Not": _plain(np.logical_not),
    "Or": _plain(np.logical_or),
    "Pow": _pow,
    "Range": _range,
    "Reciprocal": _plain(np.reciprocal),
    "ReduceMax": _reduction_of(np.max),
    "ReduceMean": _reduction_of(np.mean),
    "ReduceMin": _reduction_of(np.min),
    "ReduceSum": _reduction_of(np.sum),
    "Relu": _plain(relu),
    "Reshape": _reshape,
    "ReverseSequence": _reverse_sequence,
    "Selu": _selu,
    "Shape": _shape,
    "Sigmoid": _plain(sigmoid),
    "Sign": _plain(np.sign),
    "Size": _size,
    "Slice": _slice,
    "Softmax": _softmax_of(softmax),
    "Softplus": _plain(softplus),
    "Softsign": _plain(softsign),
    "Split": _split,
    "Sqrt": _plain(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(np.subtract),
    "Sum": _folded(np.add),
    "Tanh": _plain(np.tanh),
    "ThresholdedRelu": _thresholded_relu,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _plain(np.where),
}
