# SPDX-License-Identifier: BSD-3-Clause
"""`Reader`: nodes of an ONNX file as `Node`, compared with what operators define."""

from typing import NamedTuple

from fastrnn.onnx import _recurrent
from fastrnn.onnx._operators import OPERATORS, Node

_DOMAIN = "com.microsoft"

# ONNX Runtime's own operators, in the domain com.microsoft: the positions of inputs
# that they must have, how many inputs they may have, and their attributes' types.
_MICROSOFT = {
    "DequantizeLinear": ((0, 1), 3, {"axis": int, "block_size": int}),
    "DynamicQuantizeLSTM": (
        (0, 1, 2, 8, 9, 10, 11),
        12,
        {
            "activation_alpha": "floats",
            "activation_beta": "floats",
            "activations": "strings",
            "clip": float,
            "direction": str,
            "hidden_size": int,
            "input_forget": int,
        },
    ),
    "DynamicQuantizeMatMul": ((0, 1, 2), 5, {}),
    "MatMulIntegerToFloat": ((0, 1, 2, 3), 7, {}),
    "QuantizeLinear": ((0, 1), 3, {"axis": int, "block_size": int}),
}


class _Form(NamedTuple):
    """What a node of an operator must look like."""

    required: tuple  # the positions of inputs that may not be left out
    most: int  # how many inputs there may be
    attributes: dict  # the number of an attribute's type by its name
    needed: set  # the attributes that may not be left out


class Reader:
    """Reads the nodes of a file.

    Parameters
    ----------
    who : str
        The caller and the file, for errors.
    onnx : module
    contents : Contents
    opsets : mapping of str to int
        The file's versions of domains.
    """

    def __init__(self, who, onnx, contents, opsets):
        self.who, self.onnx, self.contents = who, onnx, contents
        self.opset = opsets.get("", opsets.get("ai.onnx", 0))
        kinds = onnx.AttributeProto
        self.kinds = {
            int: kinds.INT, float: kinds.FLOAT, str: kinds.STRING,
            "floats": kinds.FLOATS, "strings": kinds.STRINGS,
        }  # fmt: skip

    def read(self, k, proto):
        """The `Node` number k, checked, with its attributes as Python values."""
        name = proto.name or f"{proto.op_type}_{k}"
        attributes = {}
        self._check(name, proto)
        for one in proto.attribute:
            value = self.onnx.helper.get_attribute_value(one)
            if isinstance(value, self.onnx.TensorProto):
                value = self.contents.array(f"node {name!r}: {one.name}", value)
            elif isinstance(value, bytes):
                value = value.decode(errors="replace")
            elif isinstance(value, list) and value and isinstance(value[0], bytes):
                value = [text.decode(errors="replace") for text in value]
            elif one.name == "to" or (one.name == "output_dtype" and value):
                value = self.onnx.helper.tensor_dtype_to_np_dtype(value)
            attributes[one.name] = value
        return Node(
            proto.op_type,
            name,
            tuple(proto.input),
            tuple(proto.output),
            attributes,
            self.opset,
        )

    def _check(self, name, proto):
        """Compare a node with the definition of its operator.

        onnx's own checker could do this, but it also requires the shapes of the graph's
        inputs and outputs, which many files lack and `Graph` does not need.
        """
        op, form = proto.op_type, self._form(name, proto)
        given = len(proto.input)
        missing = [k for k in form.required if k >= given or not proto.input[k]]
        if missing or given > form.most:
            least = max(form.required, default=-1) + 1
            empty = [str(k) for k in missing if k < given]
            raise ValueError(
                f"{self.who}: node {name!r} ({op}) must have {least} to {form.most} "
                f"inputs, got {given}"
                + (f", of which {', '.join(empty)} must have a name" if empty else "")
            )
        found = {one.name: one.type for one in proto.attribute}
        if not found.items() <= form.attributes.items() or form.needed - found.keys():
            raise ValueError(
                f"{self.who}: node {name!r} ({op}): attributes must be among "
                f"{', '.join(form.attributes) or 'none'} of opset {self.opset}, of "
                f"their types, with {', '.join(sorted(form.needed)) or 'none'} "
                f"required, got {', '.join(found) or 'none'}"
            )

    def _form(self, name, proto):
        op, domain = proto.op_type, proto.domain
        if domain == _DOMAIN and op in _MICROSOFT:
            required, most, attributes = _MICROSOFT[op]
            attributes = {key: self.kinds[kind] for key, kind in attributes.items()}
            return _Form(required, most, attributes, set())
        known = [*_recurrent.CLASSES, *OPERATORS]
        if domain not in ("", "ai.onnx") or op not in known:
            known += [f"{_DOMAIN}.{one}" for one in _MICROSOFT]
            raise ValueError(
                f"{self.who}: node {name!r}: operator {domain}{'.' if domain else ''}"
                f"{op} is not one of those that can be run: {', '.join(known)}"
            )
        try:
            schema = self.onnx.defs.get_schema(op, self.opset, "")
        except self.onnx.defs.SchemaError as error:
            raise ValueError(
                f"{self.who}: node {name!r}: operator {op} is not one of opset "
                f"{self.opset}"
            ) from error
        return _Form(
            tuple(range(schema.min_input)),
            schema.max_input,
            {key: int(one.type.value) for key, one in schema.attributes.items()},
            {key for key, one in schema.attributes.items() if one.required},
        )
