# SPDX-License-Identifier: BSD-3-Clause
"""The memory and time that an operator will take, from its inputs before it runs.

A few bytes of a file can ask for a result of any size, through a shape to fill, a
number of repeats or a broadcast. `load` runs the nodes whose inputs are constants, so
it first compares what they will take with the size of the file.
"""

import math

import numpy as np

# Operators whose results are views of an input, and take no memory of their own.
_VIEWS = ("Identity", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
# By operator, the position of the first input that has sizes or numbers of axes instead
# of data; all inputs after it have such numbers, too.
_SIZES = {
    "ConstantOfShape": 0,
    "Expand": 1,
    "Reshape": 1,
    "Slice": 1,
    "Split": 1,
    "Squeeze": 1,
    "Tile": 1,
    "Unsqueeze": 1,
    "ReduceMax": 1,
    "ReduceMean": 1,
    "ReduceMin": 1,
    "ReduceSum": 1,
}
_MOST_SIZES = 1024
# For operators that need more memory than their result: how many arrays of the result's
# size exist at the same time while the operator runs.
_ARRAYS = {
    "Clip": 2,
    "DequantizeLinear": 3,
    "Div": 5,
    "DynamicQuantizeLinear": 5,
    "Elu": 4,
    "Erf": 12,  # NumPy makes a Python object for each number
    "Gelu": 16,
    "Gemm": 3,
    "HardSigmoid": 3,
    "LayerNormalization": 5,
    "LeakyRelu": 3,
    "LogSoftmax": 4,
    "QuantizeLinear": 5,
    "Selu": 5,
    "Sigmoid": 4,
    "Softmax": 4,
    "Softplus": 4,
    "Softsign": 3,
    "ThresholdedRelu": 3,
}
# The time of a multiplication in a product of matrices, counted in bytes that could be
# passed over in that time.
_PRODUCT = 1 / 4


def memory(node, inputs):
    """The most bytes of memory that running an operator takes.

    Parameters
    ----------
    node : Node
    inputs : list of ndarray or None

    Returns
    -------
    int

    Raises
    ------
    ValueError, TypeError, IndexError, ArithmeticError
        If the inputs do not fit.
    """
    for array in inputs[_SIZES.get(node.op, len(inputs)) :]:
        if array is not None and array.size > _MOST_SIZES:
            raise ValueError(
                f"sizes and axes must be at most {_MOST_SIZES}, got {array.size}"
            )
    if node.op in _VIEWS:
        return 0
    if node.op in _RULES:
        n, itemsize = _RULES[node.op](node, *inputs)
    else:
        n = math.prod(np.broadcast_shapes(*_shapes(inputs)))
        itemsize = max((v.itemsize for v in inputs if v is not None), default=1)
    return n * itemsize * _ARRAYS.get(node.op, 1)


def work(node, inputs, n_bytes):
    """The time that an operator takes to run, counted in bytes that are passed over."""
    if node.op in _VIEWS:
        return 0
    cost = n_bytes + sum(array.nbytes for array in inputs if array is not None)
    if node.op in ("MatMul", "MatMulInteger", "Gemm"):
        inner = inputs[0].shape[0 if node.get("transA", 0) else -1]
        cost += int(n_bytes * inner * _PRODUCT)
    return cost


def _shapes(inputs):
    return [array.shape for array in inputs if array is not None]


def _sizes(shape):
    return [int(size) for size in shape]


def _all(node, x, *_):
    return x.size, x.itemsize


def _cast(node, x):
    to = np.dtype(node.get("to"))
    if to.hasobject:
        raise ValueError("numbers must be cast to numbers")
    return x.size, max(to.itemsize, x.itemsize)


def _concat(node, *arrays):
    return sum(a.size for a in arrays), max(a.itemsize for a in arrays)


def _constant_of_shape(node, shape):
    value = node.get("value")
    return math.prod(_sizes(shape)), 4 if value is None else value.itemsize


def _expand(node, x, shape):
    sizes = _sizes(shape)
    if min(sizes, default=1) < 0:
        raise ValueError(f"sizes must be >= 0, got {sizes}")
    return math.prod(np.broadcast_shapes(x.shape, tuple(sizes))), x.itemsize


def _gather(node, x, indices):
    axis = node.get("axis", 0)
    return x.size // max(1, x.shape[axis]) * indices.size, x.itemsize


def _product(node, a, b, c=None):
    itemsize = max(a.itemsize, b.itemsize)
    if node.op == "MatMul":
        rows = a.shape[-2:-1] if a.ndim > 1 else ()
        columns = b.shape[-1:] if b.ndim > 1 else ()
        outer = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return math.prod(outer + rows + columns), itemsize
    M = a.shape[1 if node.get("transA", 0) else 0]
    N = b.shape[0 if node.get("transB", 0) else 1]
    shape = (M, N) if c is None else np.broadcast_shapes((M, N), c.shape)
    return math.prod(shape), max(itemsize, 8)


def _linear(node, x, *_):
    return x.size, max(
        4, x.itemsize, np.dtype(node.get("output_dtype") or "B").itemsize
    )


def _product_of_integers(node, a, b, *_):
    n, _ = _product(node._replace(op="MatMul"), a, b)
    # The factors in float64, twice for a moment, and the product in three types.
    return 2 * (a.size + b.size) + 3 * n, 8


def _range(node, start, limit, delta):
    n = (limit.item() - start.item()) / delta.item()
    return max(0, math.ceil(n)), start.itemsize


def _tile(node, x, repeats):
    # NumPy repeats one axis after the other, so a repeat of 0 makes only the arrays
    # after it smaller.
    return x.size * math.prod(max(1, n) for n in _sizes(repeats)), x.itemsize


_RULES = {
    "ArgMax": lambda node, x: (x.size, max(8, x.itemsize)),
    "Cast": _cast,
    "Concat": _concat,
    "Constant": lambda node: (0, 1),  # its array was counted when it was read
    "ConstantOfShape": _constant_of_shape,
    "DequantizeLinear": _linear,
    "Dropout": lambda node, x, *_: (x.size, 1),
    "DynamicQuantizeLinear": _linear,
    "Expand": _expand,
    "Flatten": _all,
    "Gather": _gather,
    "Gemm": _product,
    "MatMul": _product,
    "MatMulInteger": _product_of_integers,
    "QuantizeLinear": _linear,
    "Range": _range,
    "ReduceMax": _all,
    "ReduceMean": _all,
    "ReduceMin": _all,
    "ReduceSum": _all,
    "Reshape": _all,
    "ReverseSequence": lambda node, x, lengths: (2 * x.size, max(8, x.itemsize)),
    "Shape": lambda node, x: (x.ndim, 8),
    "Size": lambda node, x: (1, 8),
    "Tile": _tile,
}
