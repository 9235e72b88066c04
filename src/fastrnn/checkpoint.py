# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints of a training run: one safetensors file, whole or not there.

The file holds arrays by name and, as its metadata, one JSON object. A checksum over
both is part of the object, since a safetensors file has none of its own.
"""

import json
import os
import struct
import zlib

import safetensors
import safetensors.numpy

from fastrnn import _files
from fastrnn.charmodel import CharModel
from fastrnn.text import CharVocabulary

# Key of the metadata, and the version of what lies under it.
_KEY = "fastrnn-charmodel"
_VERSION = 1

_INT, _REAL = (int,), (int, float)

# What the JSON object must have, level by level.
_SCHEMA = {
    "version": _INT,
    "model": {
        "cell": (str,),
        "embedding_dim": _INT,
        "hidden_size": _INT,
        "num_layers": _INT,
        "dtype": (str,),
    },
    "vocabulary": (str,),
    "settings": {
        "batch_size": _INT,
        "seq_length": _INT,
        "epochs": _INT,
        "lr": _REAL,
        "clip_norm": _REAL,
        "seed": _INT,
    },
    "text": {"source": (str, type(None)), "characters": _INT, "sha256": (str,)},
    "progress": {
        "step": _INT,
        "loss_sum": _REAL,
        "loss_count": _INT,
        "evaluations": (list,),
    },
    "rng": (dict,),
}


def write(path, arrays, meta):
    """Write a checkpoint so that `path` holds it whole or what it held before.

    The same arrays and the same object give the same bytes.

    Parameters
    ----------
    path : path-like
    arrays : mapping of str to ndarray
    meta : dict
        What JSON can hold.

    Raises
    ------
    OSError
        If the file cannot be written; it names `path`.
    """
    meta = {"version": _VERSION, **meta}
    meta["checksum"] = _checksum(arrays, meta)
    data = safetensors.numpy.save(arrays, {_KEY: json.dumps(meta)})
    try:
        _files.write_atomically(path, data)
    except OSError as error:
        # The system's message is about the temporary file, which nobody asked for.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def read(path):
    """The arrays and the JSON object of a checkpoint.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    arrays : dict of str to ndarray
    meta : dict

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a checkpoint of this program, or damaged.
    """
    path = os.fspath(path)
    with open(path, "rb") as file:
        data = file.read()
    try:
        arrays = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError) as error:
        # KeyError: a type that NumPy does not have, and our files neither.
        raise ValueError(
            f"{path}: must be a checkpoint of fastrnn train, got a file that is "
            f"damaged or of another kind ({error})"
        ) from error
    # The loader has found the header whole: its length, then JSON.
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    text = (header.get("__metadata__") or {}).get(_KEY)
    if text is None:
        raise ValueError(
            f"{path}: must be a checkpoint of fastrnn train, got a safetensors file "
            "of something else"
        )
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged: its description is not JSON") from error
    if not isinstance(meta, dict) or meta.get("version") != _VERSION:
        found = meta.get("version") if isinstance(meta, dict) else None
        raise ValueError(
            f"{path}: must be a checkpoint of version {_VERSION}, got {found!r}"
        )
    checksum = meta.pop("checksum", None)
    if checksum != _checksum(arrays, meta):
        raise ValueError(f"{path}: damaged: its checksum is not that of its contents")
    _check_schema(path, "", meta, _SCHEMA)
    return arrays, meta


def _checksum(arrays, meta):
    """CRC-32 of the names, types, shapes and bytes of arrays, and of the object."""
    value = zlib.crc32(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        value = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), value)
        value = zlib.crc32(array.tobytes(), value)
    return value


def _check_schema(path, name, value, rule):
    fits = isinstance(value, dict if isinstance(rule, dict) else rule)
    if not fits or isinstance(value, bool):
        raise ValueError(
            f"{path}: damaged: {name or 'its description'} is of the wrong type, "
            f"{type(value).__name__}"
        )
    if isinstance(rule, dict):
        for key, inner in rule.items():
            below = f"{name}.{key}" if name else key
            if key not in value:
                raise ValueError(f"{path}: damaged: {below} is missing")
            _check_schema(path, below, value[key], inner)


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


def model_of(path, arrays, meta):
    """The model of a checkpoint that `read` returned.

    Raises
    ------
    ValueError
        If the parameters are not those of the architecture that it names.
    """
    try:
        vocabulary = CharVocabulary(meta["vocabulary"])
        model = CharModel(vocabulary, **meta["model"], seed=0)
        model.load_state_dict(without_prefix("model", arrays))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{os.fspath(path)}: damaged or of another architecture: {error}"
        ) from error
    return model


def load_model(path):
    """The trained model in a checkpoint, in eval mode.

    Parameters
    ----------
    path : path-like
        Written by ``fastrnn train``.

    Returns
    -------
    CharModel

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a checkpoint, or damaged.
    """
    return model_of(path, *read(path)).eval()
