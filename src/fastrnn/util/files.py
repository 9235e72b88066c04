# SPDX-License-Identifier: BSD-3-Clause
"""Files that may hold anything: read whole, in bounds, with errors that name them.

What is in a file is not trusted. A reader takes the bytes with `read_bytes`, makes
sense of them within `reading`, and lets nothing that the file declares take more memory
than `allowance` of what the file has.
"""

import contextlib
import errno
import json
import os
import stat

import safetensors
import safetensors.numpy

from fastrnn.util.printable import short

# What contents that are not what they should be make Python, NumPy and the readers of
# other formats raise. No MemoryError: sizes are compared before anything is allocated.
_DAMAGED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # RecursionError among them
    TypeError,
    ValueError,
)


def allowance(n_bytes):
    """Bytes that what is unpacked or computed from so many stored bytes may take.

    Parameters
    ----------
    n_bytes : int
        Size of the file.

    Returns
    -------
    int
    """
    return 4 * n_bytes + (32 << 20)


# A pipe without a writer would be waited for without O_NONBLOCK, which Windows lacks;
# O_BINARY is Windows's, so that line ends are left alone.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path, follow=True):
    """A descriptor of a regular file; nothing else is waited for or read.

    Parameters
    ----------
    path : path-like
    follow : bool
        Whether the last part of the path may be a symbolic link.

    Raises
    ------
    OSError
        If the file cannot be opened, is a folder, or a link that is not followed.
    ValueError
        If it is a device, a pipe or a socket, which may never end.
    """
    flags = _READ if follow else _READ | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags)
    except PermissionError as error:
        if os.path.isdir(path):  # which Windows does not open at all
            raise _is_folder(path) from error
        raise
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        if follow or os.path.samestat(status, os.lstat(path)):
            return descriptor
        os.close(descriptor)  # followed all the same, on a system without O_NOFOLLOW
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
    os.close(descriptor)
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        raise _is_folder(path)
    raise ValueError(f"{os.fspath(path)}: must be a regular file, got {_kind_of(mode)}")


def _is_folder(path):
    return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))


def _kind_of(mode):
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def read_bytes(path, most=None):
    """All bytes of a regular file.

    Parameters
    ----------
    path : path-like
    most : int, optional
        Bytes that it may have.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a regular file, has more than `most` bytes, or grew meanwhile.
    """
    with open(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise ValueError(
                f"{os.fspath(path)}: must have at most {most:,} bytes, got {size:,}"
            )
        # One more than there are: some regular files, as in /proc, have no size.
        data = file.read(size + 1)
    if len(data) > size:
        raise ValueError(
            f"{os.fspath(path)}: must stay as it is while it is read, got more than "
            f"its {size:,} bytes"
        )
    return data


@contextlib.contextmanager
def reading(who, kind):
    """Let contents that are not what they should be raise ValueError, nothing else.

    Parameters
    ----------
    who : str
        What errors begin with: the function and the file, or the file.
    kind : str
        What the file must be, with an article.
    """
    try:
        yield
    except _DAMAGED as error:
        text = str(error)
        if isinstance(error, ValueError) and text.startswith(who):
            if text == short(text):
                raise
        elif isinstance(error, ValueError):
            text = f"{who}: {text}"
        else:
            text = (
                f"{who}: must be {kind}, got one that is damaged or of an unknown "
                f"make: {type(error).__name__}: {text}"
            )
        raise ValueError(short(text)) from error


def parse_json(data):
    """What a JSON text says.

    Parameters
    ----------
    data : bytes or str

    Raises
    ------
    ValueError
        If it is not JSON, or nested deeper than Python can follow.
    """
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_safetensors(who, path):
    """The arrays of a safetensors file, by name.

    Parameters
    ----------
    who : str
        The function that asks, for errors.
    path : path-like

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, not of this format, or of a type NumPy does not have.
    """
    data = read_bytes(path)
    who = f"{who}: {os.fspath(path)}"
    with reading(who, "a whole safetensors file"):
        return arrays_of(who, data)


def arrays_of(who, data):
    """The arrays in the bytes of a safetensors file, by name; `who` is for errors.

    Raises
    ------
    ValueError
        If they are not whole, or of a type that NumPy does not have.
    """
    try:
        return safetensors.numpy.load(data)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{who} must be a whole safetensors file, got: {error}"
        ) from error
    except KeyError as error:  # a type that NumPy does not have, as bfloat16
        raise ValueError(
            f"{who} must hold types that NumPy has, got {error}"
        ) from error


def stored(arrays):
    """Bytes and number of arrays: what a model that is made for them may take.

    Parameters
    ----------
    arrays : iterable of ndarray

    Returns
    -------
    n_bytes, n_arrays : int
    """
    sizes = [array.nbytes for array in arrays]
    return sum(sizes), len(sizes)
