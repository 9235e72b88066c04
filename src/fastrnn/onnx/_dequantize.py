# SPDX-License-Identifier: BSD-3-Clause
"""`Dequantizer`: the nodes of a quantised graph as nodes on floats.

A quantised graph rounds weights when it is made, and activations when it runs. Rounded
weights are known: they become the floats that they stand for. Activations are rounded
for products of integers, which layers of float32 do not need: their rounding is left
out where the integers are only turned back into floats. Results are then nearer to
those of the graph before it was quantised. What is kept of the rounding are the least
and the greatest number that the integers can stand for, since quantizers leave out a
Relu or a Clip whose work these bounds do.

Integers that go anywhere else are computed as the graph says, by the operators of
`fastrnn.onnx._integers`.
"""

import numpy as np

from fastrnn.onnx._integers import TYPES, dequantized
from fastrnn.onnx._operators import Node

_BYTES = ("int8", "uint8")

# How many operators between a scale and the integers that it is of are looked through.
_MOST_MOVES = 64
# Operators that only move the numbers of their first input.
_MOVES = (
    "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose",
    "Unsqueeze",
)  # fmt: skip


class Dequantizer:
    """Replaces nodes on the integers of a quantised graph by nodes on floats.

    Parameters
    ----------
    who : str
        The file, for errors.
    nodes : list of Node
        All nodes of the file.
    constants : dict of str to ndarray
        The constants that are known so far; those that nodes need are added.
    names : iterable of str
        Names that values of the graph have beside those of the nodes.
    take : callable
        Called with a node and a number of bytes before a constant is added; raises if
        there may be no such constant.
    """

    def __init__(self, who, nodes, constants, names, take):
        self.who, self.constants, self.take = who, constants, take
        self.makers = {name: node for node in nodes for name in node.outputs if name}
        self.names = {*self.makers, *constants, *names}
        for node in nodes:
            self.names.update(node.inputs)
        self.floats = {}  # by the name of integers: their floats' name, scale and zero
        self.weights = {}  # the names of float weights by those of what they are of
        self.checked = set()  # the names of scales that are known to be right
        self.n_new = 0

    def plain(self, node):
        """The nodes that compute a node's outputs without needless rounding.

        Parameters
        ----------
        node : Node
            All nodes before it were given to this method.

        Returns
        -------
        list of Node
            The node itself where there is nothing to leave out.

        Raises
        ------
        ValueError
            If the node's weights, scales or zero points do not fit.
        """
        rule = _RULES.get(node.op)
        return [node] if rule is None else rule(self, node)

    # -- rules ------------------------------------------------------------------------

    def _quantize_linear(self, node):
        self._check_scale(node, "the scale", node.inputs[1])
        return [node]

    def _dequantize_linear(self, node):
        self._check_scale(node, "the scale", node.inputs[1])
        if node.inputs[0] in self.constants:
            return [node]
        made = []
        found = self._float(node.inputs, made)
        if found is None:
            return [node]
        if made and made[-1].outputs == (found,):
            self.floats[node.inputs[0]] = (node.outputs[0], *self._pair(node.inputs))
            return [*made[:-1], made[-1]._replace(outputs=node.outputs)]
        return [self._node("Identity", node, (found,))]

    def _lstm(self, node):
        """An LSTM with the floats that W and R stand for."""
        x, W, R, *others = node.inputs
        D = 2 if node.get("direction") == "bidirectional" else 1
        n_inputs, n_units = (
            self._integers(node, what, name, 3).shape[1]
            for what, name in (("W", W), ("R", R))
        )
        H = node.get("hidden_size", n_units)
        W, R = (
            self._gates(node, what, name, (D, width, 4 * H), pair)
            for what, name, width, pair in (
                ("W", W, n_inputs, others[5:7]),
                ("R", R, H, others[7:9]),
            )
        )
        inputs = (x, W, R, *others[:5])
        return [node._replace(op="LSTM", name=_name(node), inputs=inputs)]

    def _gates(self, node, what, name, shape, pair):
        """The name of the floats that W or R of a quantised LSTM stands for."""
        q = self.constants[name]
        if q.shape != shape:
            width = "inputs" if what == "W" else "hidden_size"
            raise ValueError(
                f"{self.who}: {node}: {what} must have shape (directions, {width}, "
                f"4 * hidden_size) = {shape}, got {q.shape}"
            )
        scales = self._scales(node, what, q, pair, [shape[:1], shape[::2]])
        key = (name, *pair, "LSTM")
        return self._constant(node, key, q.size, _rows_of_gates, q, *scales)

    def _dynamic_product(self, node):
        x, B, scale, zero, bias = [*node.inputs, "", ""][:5]
        return [self._affine(node, x, self._matrix(node, B, scale, zero), bias)]

    def _product_to_float(self, node):
        A, B, a_scale, scale, a_zero, zero, bias = [*node.inputs, "", "", ""][:7]
        self._check_scale(node, "a_scale", a_scale)
        weight = self._matrix(node, B, scale, zero)
        made = []
        x = self._float((A, a_scale, a_zero), made)
        if x is None:
            for name in (a_scale, a_zero):
                if np.size(self.constants.get(name, 0)) != 1:
                    raise ValueError(
                        f"{self.who}: {node}: A must have one scale and zero point, "
                        f"got {self.constants[name].shape}"
                    )
            x = self._new(A)
            inputs = (A, a_scale, a_zero) if a_zero else (A, a_scale)
            made.append(self._node("DequantizeLinear", node, inputs, x))
        return [*made, self._affine(node, x, weight, bias)]

    def _product(self, node):
        """A product of integers, as floats and times both scales, as one of floats."""
        for one, other in (node.inputs, node.inputs[::-1]):
            cast, scales = self._maker(one, "Cast"), self._maker(other, "Mul")
            product = cast and self._maker(cast.inputs[0], "MatMulInteger")
            if not (scales and product) or cast.get("to") != np.float32:
                continue
            A, B, a_zero, zero = [*product.inputs, "", ""][:4]
            for a_scale, scale in (scales.inputs, scales.inputs[::-1]):
                made = []
                found = self._is_matrix(B, scale, zero)
                x = self._float((A, a_scale, a_zero), made) if found else None
                if x is not None:
                    weight = self._matrix(product, B, scale, zero)
                    like = node._replace(name=_name(product))
                    return [*made, self._affine(like, x, weight)]
        return [node]

    def _maker(self, name, op):
        """The node that makes a value, if it is one of an operator; None otherwise."""
        maker = self.makers.get(name)
        return maker if maker is not None and maker.op == op else None

    def _affine(self, node, x, weight, bias=""):
        """The product of floats, and a bias if it has a name, in place of a node."""
        if bias:
            return self._node("Gemm", node, (x, weight, bias))
        return self._node("MatMul", node, (x, weight))

    # -- the floats of activations ----------------------------------------------------

    def _float(self, inputs, made):
        """The name of the floats that computed integers stand for, before rounding.

        Parameters
        ----------
        inputs : tuple of str
            The names of the integers, of their scale and, if any, of their zero point.
        made : list
            Nodes that have to be run for the floats are appended.

        Returns
        -------
        str or None
            None if the integers were not rounded from floats, or by another scale.
        """
        q, pair = inputs[0], self._pair(inputs)
        moves = []
        while len(moves) < _MOST_MOVES:
            if q in self.floats:
                x, *before = self.floats[q]
                x = x if self._same(before, pair) else None
                break
            x = self._rounded(q, pair, made)
            maker = self.makers.get(q)
            if x is not None or maker is None or maker.op not in _MOVES:
                break
            if not self._is_one(*pair):
                return None
            moves.append(maker)
            q = maker.inputs[0]
        if x is None:
            return None
        for move in reversed(moves):
            y = self._new(move.outputs[0])
            made.append(move._replace(inputs=(x, *move.inputs[1:]), outputs=(y,)))
            self.floats[move.outputs[0]] = y, *pair
            x = y
        return x

    def _rounded(self, q, pair, made):
        """The floats that integers were made of, within the bounds of their type."""
        scale, zero = pair
        maker = self.makers.get(q)
        if q in self.constants:
            if self.constants[q].dtype.name not in TYPES or not self._is_one(*pair):
                return None
            x = self._new(q)
            inputs = (q, scale, zero) if zero else (q, scale)
            made.append(Node("DequantizeLinear", x, inputs, (x,), {}, 13))
        elif maker is None:
            return None
        elif maker.op == "DynamicQuantizeLinear":
            if (q, *pair) != maker.outputs:
                return None
            x = maker.inputs[0]
        elif maker.op == "QuantizeLinear":
            bounds = self._bounds(maker, scale, zero)
            if bounds is None or not self._same(self._pair(maker.inputs), pair):
                return None
            x = self._new(q)
            made.append(self._node("Clip", maker, (maker.inputs[0], *bounds), x))
        else:
            return None
        self.floats[q] = x, *pair
        return x

    def _bounds(self, node, scale, zero):
        """Names of the least and the greatest float that integers can stand for."""
        scale_of, zero_of = self.constants.get(scale), self.constants.get(zero)
        if scale_of is None or not self._is_one(scale, zero):
            return None
        if zero_of is None:
            dtype, zero_of = np.dtype(node.get("output_dtype") or "B"), np.zeros(1, "B")
        else:
            dtype = zero_of.dtype
        if dtype.name not in TYPES:
            return None
        limits = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max])
        ends = dequantized(limits, scale_of.reshape(()), zero_of.reshape(()))
        return [
            self._constant(node, (scale, zero, dtype, k), 1, ends.item, k)
            for k in range(2)
        ]

    def _is_one(self, scale, zero):
        """Whether a scale and a zero point are known to be those of whole tensors."""
        maker = self._maker(scale, "DynamicQuantizeLinear")
        if maker:
            return (scale, zero) == maker.outputs[1:]
        s, z = self.constants.get(scale), self.constants.get(zero)
        return (
            s is not None
            and s.dtype.kind == "f"
            and s.size == 1
            and (not zero or (z is not None and z.size == 1))
        )

    def _pair(self, inputs):
        """The names of the scale and the zero point in the inputs of a node."""
        return inputs[1], inputs[2] if len(inputs) > 2 else ""

    def _same(self, some, others):
        """Whether two pairs of names are those of the same scale and zero point."""
        for one, other in zip(some, others, strict=True):
            a, b = self.constants.get(one), self.constants.get(other)
            if one != other and (
                a is None or b is None or a.dtype != b.dtype or not np.array_equal(a, b)
            ):
                return False
        return True

    # -- weights ----------------------------------------------------------------------

    def _integers(self, node, what, name, ndim=None):
        """The integers of a weight, which must be constant."""
        q = self.constants.get(name)
        if q is None:
            raise ValueError(
                f"{self.who}: {node}: {what} must be constant, got the computed value "
                f"{name!r}"
            )
        if q.dtype.name not in _BYTES or (q.ndim != ndim if ndim else q.ndim < 2):
            raise ValueError(
                f"{self.who}: {node}: {what} must be int8 or uint8 with "
                f"{ndim or 'at least 2'} axes, got {q.dtype.name} of shape {q.shape}"
            )
        return q

    def _check_scale(self, node, what, name):
        """Refuse a scale, if it is constant, that no quantizer makes."""
        scale = None if name in self.checked else self.constants.get(name)
        if scale is not None and scale.dtype.kind == "f":
            wrong = ~(np.isfinite(scale) & (scale >= 0))
            if wrong.any():
                raise ValueError(
                    f"{self.who}: {node}: {what} must be finite and >= 0, "
                    f"got {scale[wrong].flat[0]}"
                )
            self.checked.add(name)

    def _scales(self, node, what, q, pair, shapes):
        """The scale and the zero point of a weight; None for a zero point left out."""
        listed = " or ".join(map(str, shapes))
        found = []
        for name, dtype, of in zip(
            pair, ("float32", q.dtype.name), ("scale", "zero point"), strict=True
        ):
            array = self.constants.get(name)
            if name and array is None:
                raise ValueError(
                    f"{self.who}: {node}: the {of} of {what} must be constant, "
                    f"got the computed value {name!r}"
                )
            if array is not None and (
                array.dtype.name != dtype or array.shape not in shapes
            ):
                raise ValueError(
                    f"{self.who}: {node}: the {of} of {what} must be {dtype} of shape "
                    f"{listed}, got {array.dtype.name} of shape {array.shape}"
                )
            found.append(array)
        self._check_scale(node, f"the scale of {what}", pair[0])
        return found

    def _is_matrix(self, B, scale, zero):
        """Whether names are those of a constant weight of a product and its scales."""
        q, s, z = (self.constants.get(name) for name in (B, scale, zero))
        if q is None or q.dtype.name not in _BYTES or q.ndim < 2 or s is None:
            return False
        shapes = _shapes(q)
        return (
            s.dtype == np.float32
            and s.shape in shapes
            and (not zero or (z is not None and z.dtype == q.dtype))
            and (not zero or z.shape in shapes)
        )

    def _matrix(self, node, B, scale, zero):
        """The name of the floats that a weight of a product stands for."""
        q = self._integers(node, "B", B)
        pair = self._scales(node, "B", q, (scale, zero), _shapes(q))
        return self._constant(node, (B, scale, zero), q.size, dequantized, q, *pair)

    def _constant(self, node, key, size, make, *args):
        """The name of a constant of float32 that a function makes, once for a key."""
        if key not in self.weights:
            self.take(node, 4 * size)
            name = self._new(str(key[0]))
            self.constants[name] = np.asarray(make(*args), "f")
            self.weights[key] = name
        return self.weights[key]

    # -- names ------------------------------------------------------------------------

    def _new(self, name):
        """A name that no value of the graph has."""
        stem = name = f"{name}_float"
        while name in self.names:
            self.n_new += 1
            name = f"{stem}_{self.n_new}"
        self.names.add(name)
        return name

    def _node(self, op, like, inputs, output=None):
        """A node in place of another one, of whose outputs it makes the first."""
        outputs = like.outputs[:1] if output is None else (output,)
        return Node(op, like.name, tuple(inputs), outputs, {}, like.opset)


def _rows_of_gates(q, scale, zero):
    """The floats of W or R of a quantised LSTM, with axes in the order of an LSTM's."""
    scale, zero = (
        v[:, None] if v.ndim == 2 else v[:, None, None] for v in (scale, zero)
    )
    return dequantized(q, scale, zero).swapaxes(1, 2)


def _shapes(q):
    """The shapes that scale and zero point of a product's weight may have."""
    return [(), (1,), (q.shape[-1],), (*(1 for _ in q.shape[:-1]), q.shape[-1])]


def _name(node):
    """The name of the node that ONNX Runtime's quantizer made a node of."""
    return node.name.removesuffix("_quant") or node.name


_RULES = {
    "DequantizeLinear": Dequantizer._dequantize_linear,
    "DynamicQuantizeLSTM": Dequantizer._lstm,
    "DynamicQuantizeMatMul": Dequantizer._dynamic_product,
    "MatMulIntegerToFloat": Dequantizer._product_to_float,
    "Mul": Dequantizer._product,
    "QuantizeLinear": Dequantizer._quantize_linear,
}
