# SPDX-License-Identifier: BSD-3-Clause
"""Files: written in one step, read with an error that names them."""

import os
import secrets

import safetensors
import safetensors.numpy


def write_atomically(path, data):
    """Write bytes to `path` so that a reader sees the old file or the whole new one.

    Parameters
    ----------
    path : path-like
        File to write. A symbolic link is followed, not replaced.
    data : bytes
        What to write.

    Raises
    ------
    OSError
        If the file cannot be written; it is then as it was.
    """
    target = os.path.realpath(path)
    temporary = os.path.join(
        os.path.dirname(target), f".fastrnn-{secrets.token_hex(8)}.tmp"
    )
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def read_safetensors(who, path):
    """The arrays of a safetensors file, by name.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, not of this format, or of a type NumPy does not have.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        return safetensors.numpy.load(data)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{who}: {os.fspath(path)} must be a whole safetensors file, got: {error}"
        ) from error
    except KeyError as error:  # a type that NumPy does not have, as bfloat16
        raise ValueError(
            f"{who}: {os.fspath(path)} must hold types that NumPy has, got {error}"
        ) from error
