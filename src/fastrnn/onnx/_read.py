# SPDX-License-Identifier: BSD-3-Clause
"""`Contents`: the message that an ONNX file holds, and its tensors as arrays.

A file declares the sizes of its tensors, the other files that some tensors are in, and
functions that grow when their calls are written out. All of that is compared with what
the file really has before anything is unpacked.
"""

import math
import os

from fastrnn.util.files import allowance, open_regular

_DEEPEST = 64  # how deep calls of functions within functions may be


class Contents:
    """The contents of an ONNX file.

    Parameters
    ----------
    who : str
        The caller and the file, for errors.
    onnx : module
    folder : path-like
        The folder of the file; other files in it, or below it, may have tensors.
    data : bytes
        The whole file.

    Attributes
    ----------
    model : ModelProto
        Without functions of its own once `inline` was called.
    stored : int
        The bytes of the file and of the other files that had tensors so far. Integers
        of at most two bytes count as four bytes each: a quantised file has them for
        weights, which become float32.
    room : int
        The bytes that constants may still take.

    Raises
    ------
    ValueError
        If the file is damaged.
    """

    def __init__(self, who, onnx, folder, data):
        # Protobuf is installed with onnx, which is optional.
        from google.protobuf.message import DecodeError  # noqa: PLC0415

        self.who, self.onnx = who, onnx
        self.folder = os.path.realpath(folder)
        # By the path of another file, its bytes that no tensor had so far.
        self.stored, self.others = len(data), {}
        self.room = allowance(len(data))
        try:
            self.model = onnx.ModelProto.FromString(data)
        except DecodeError as error:
            raise ValueError(f"{who}: must be an ONNX file, got: {error}") from error
        types = onnx.TensorProto
        self.types = {
            types.BOOL, types.INT8, types.INT16, types.INT32, types.INT64, types.UINT8,
            types.UINT16, types.UINT32, types.UINT64, types.FLOAT16, types.BFLOAT16,
            types.FLOAT, types.DOUBLE,
        }  # fmt: skip
        self.halves = {types.INT4, types.UINT4}  # two in a byte
        self.narrow = {types.INT8, types.INT16, types.UINT8, types.UINT16}
        self.narrow |= self.halves
        self.types |= self.halves

    def take(self, what, n_bytes):
        """Count the bytes of a constant; refuse one for which no room is left."""
        if n_bytes > self.room:
            raise ValueError(
                f"{self.who}: {what}: constants must have at most "
                f"{allowance(self.stored):,} bytes together in a file of "
                f"{self.stored:,}, got one more of {n_bytes:,}"
            )
        self.room -= n_bytes

    # -- tensors ----------------------------------------------------------------------

    def array(self, name, tensor):
        """The array of a tensor, if the tensor has all elements that it declares.

        Parameters
        ----------
        name : str
            Names the tensor in errors.
        tensor : TensorProto
        """
        what = f"{self.who}: {name} must be a whole tensor"
        if tensor.data_type not in self.types:
            raise ValueError(
                f"{what} of bool, integer or floating type, got type {tensor.data_type}"
            )
        if any(size < 0 for size in tensor.dims):
            raise ValueError(f"{what}, got sizes {list(tensor.dims)}")
        helper = self.onnx.helper
        itemsize = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        n = math.prod(tensor.dims)
        stored = itemsize * (-(-n // 2) if tensor.data_type in self.halves else n)
        found = stored  # the bytes of the tensor that no other tensor had
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
            found = self._fetch(what, name, tensor, stored)
        elif tensor.HasField("raw_data"):
            self._check_size(what, stored, len(tensor.raw_data), "bytes")
        else:
            values = getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))
            self._check_size(what, stored // itemsize, len(values), "elements")
        if tensor.data_type in self.narrow and stored:
            self._found(found * 4 * n // stored - found)
        self.take(name, n * itemsize)
        try:
            array = self.onnx.numpy_helper.to_array(tensor)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{what}, got: {error}") from error
        if tensor.data_type in self.halves and "int4" not in array.dtype.name:
            raise ValueError(
                f"{self.who}: {name}: integers of four bits need onnx 1.19 or newer, "
                f"got {self.onnx.__version__}"
            )
        return array

    def _found(self, n_bytes):
        """Allow for more bytes than were stored so far."""
        self.stored += n_bytes
        self.room += allowance(n_bytes) - allowance(0)

    def _check_size(self, what, declared, found, of):
        if declared != found:
            raise ValueError(f"{what}, got {found:,} of {declared:,} {of}")

    def _fetch(self, what, name, tensor, n_bytes):
        """Read the bytes of a tensor from another file into the tensor itself.

        Returns
        -------
        int
            How many bytes of the file no tensor had before. Tensors may overlap, so
            this is at most what the file has left.
        """
        entries = {one.key: one.value for one in tensor.external_data}
        path = self._path(what, entries.get("location", ""))
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", n_bytes))
        self._check_size(what, n_bytes, length, "bytes")
        with open(open_regular(path, follow=False), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not 0 <= offset <= offset + length <= size:
                raise ValueError(
                    f"{what}, got bytes {offset:,} to {offset + length:,} of a file "
                    f"of {size:,}"
                )
            if path not in self.others:
                self.others[path] = size
                self._found(size)
            # Tensors may overlap in the other file, so its size does not limit theirs.
            # The bytes must fit as a constant before they are read. They are given back
            # because the caller will count them.
            self.take(name, length)
            self.room += length
            file.seek(offset)
            data = file.read(length)
        self._check_size(what, n_bytes, len(data), "bytes")
        tensor.raw_data = data
        tensor.data_location = self.onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
        found = min(length, self.others[path])
        self.others[path] -= found
        return found

    def _path(self, what, location):
        """The path of another file, which must be below the model's own folder.

        No part of the path may be a symbolic link.
        """
        path = os.path.normpath(os.path.join(self.folder, location))
        inside = os.path.commonpath([self.folder, path]) == self.folder
        if not location or os.path.isabs(location) or "\0" in location or not inside:
            raise ValueError(
                f"{what}, got one in {location!r}, which is not below the model's "
                "folder"
            )
        if os.path.realpath(path) != path:
            raise ValueError(f"{what}, got one in {location!r}, behind a link")
        return path

    # -- functions --------------------------------------------------------------------

    def inline(self):
        """Replace calls of the model's own functions by the functions' nodes."""
        if not self.model.functions:
            return
        self._check_calls()
        from onnx import inliner  # noqa: PLC0415  (an optional package)

        wrong = (
            self.onnx.checker.ValidationError,
            self.onnx.shape_inference.InferenceError,
        )
        try:
            self.model = inliner.inline_local_functions(self.model)
        except wrong as error:
            raise ValueError(f"{self.who}: functions must fit: {error}") from error

    def _check_calls(self):
        """Refuse functions that call themselves or grow too large."""
        bodies = {(f.domain, f.name, f.overload): f for f in self.model.functions}
        # By function, the size of its body with all calls written out; None while that
        # size is being added up.
        sizes = {}

        def size_of(nodes, depth):
            total = 0
            for node in nodes:
                if any(one.HasField("g") or one.graphs for one in node.attribute):
                    raise ValueError(
                        f"{self.who}: node {node.name!r}: operator {node.op_type} is "
                        "not one of those that can be run: it has a graph of its own"
                    )
                total += node.ByteSize()
                key = node.domain, node.op_type, node.overload
                if key not in bodies:
                    continue
                if key not in sizes:
                    if depth == _DEEPEST:
                        raise ValueError(
                            f"{self.who}: functions must be at most {_DEEPEST} deep"
                        )
                    sizes[key] = None
                    sizes[key] = size_of(bodies[key].node, depth + 1)
                if sizes[key] is None:
                    raise ValueError(
                        f"{self.who}: function {node.op_type!r} must not call itself"
                    )
                total += sizes[key]
            return total

        self.take("functions", size_of(self.model.graph.node, 0))
