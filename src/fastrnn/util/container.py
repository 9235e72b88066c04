# SPDX-License-Identifier: BSD-3-Clause
"""Arrays and a JSON object in one safetensors file, whole or not there.

The object is the file's metadata. A checksum over both is part of it, since a
safetensors file has none of its own.
"""

import json
import os
import struct
import zlib
from typing import NamedTuple

import safetensors.numpy

from fastrnn.util import files
from fastrnn.util.writing import write_atomically


class Kind(NamedTuple):
    """A kind of file: where its object is, and how errors speak of it."""

    key: str
    version: int
    name: str
    origin: str

    def __str__(self):
        return f"{self.name} {self.origin}"


def write(path, arrays, kind, meta, write=write_atomically):
    """Write a file so that `path` holds it whole or what it held before.

    The same arrays and the same object give the same bytes.

    Parameters
    ----------
    path : path-like
    arrays : mapping of str to ndarray
    kind : Kind
    meta : dict
        What JSON can hold.
    write : callable
        Writes the bytes: ``write(path, data)``.

    Raises
    ------
    OSError
        If the file cannot be written; it names `path`.
    """
    meta = {"version": kind.version, **meta}
    meta["checksum"] = _checksum(arrays, meta)
    write(path, safetensors.numpy.save(arrays, {kind.key: json.dumps(meta)}))


def read(path, kind):
    """The arrays and the JSON object of a file.

    Parameters
    ----------
    path : path-like
    kind : Kind

    Returns
    -------
    arrays : dict of str to ndarray
    meta : dict

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not of this kind and version, or damaged.
    """
    path = os.fspath(path)
    data = files.read_bytes(path)
    with files.reading(path, str(kind)):
        return _contents(path, kind, data)


def _contents(path, kind, data):
    try:
        arrays = files.arrays_of(path, data)
    except ValueError as error:
        raise ValueError(
            f"{path}: must be {kind}, got a file that is damaged or of another kind "
            f"({error.__cause__})"
        ) from error
    # The loader has found the header whole: its length, then JSON.
    (length,) = struct.unpack_from("<Q", data)
    header = files.parse_json(data[8 : 8 + length])
    text = (header.get("__metadata__") or {}).get(kind.key)
    if text is None:
        raise ValueError(
            f"{path}: must be {kind}, got a safetensors file of something else"
        )
    try:
        meta = files.parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: damaged: its description is not JSON") from error
    if not isinstance(meta, dict) or meta.get("version") != kind.version:
        found = meta.get("version") if isinstance(meta, dict) else None
        raise ValueError(
            f"{path}: must be {kind.name} of version {kind.version}, got {found!r}"
        )
    checksum = meta.pop("checksum", None)
    if checksum != _checksum(arrays, meta):
        raise ValueError(f"{path}: damaged: its checksum is not that of its contents")
    return arrays, meta


def _checksum(arrays, meta):
    """CRC-32 of the names, types, shapes and bytes of arrays, and of the object."""
    value = zlib.crc32(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        value = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), value)
        value = zlib.crc32(array.tobytes(), value)
    return value


def with_prefix(prefix, arrays):
    """A mapping whose names have ``prefix.`` before them."""
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def without_prefix(prefix, arrays):
    """Those of `arrays` whose names start with ``prefix.``, without it."""
    prefix += "."
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
