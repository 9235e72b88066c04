# SPDX-License-Identifier: BSD-3-Clause
"""HDF5 as Keras writes it, and nothing else that HDF5 can do.

An HDF5 file can name other files to read from, be filled with links that lead in
circles or by many ways to one object, and declare sizes that it does not have. Keras
needs none of this: it writes a tree of groups, whose leaves are arrays as they are in
memory. What is something else is refused where it is met, before it is read.
"""

import io

import numpy as np

# Texts of any length in one attribute. Each could be the same text, as long as the
# file; the attributes that are read have the names of one layer's weights.
_MOST_TEXTS = 16


class Hdf5File:
    """A file whose objects have one name each, and whose arrays are as large as it.

    Parameters
    ----------
    h5py : module
    data : bytes
        The whole file.

    Raises
    ------
    ValueError
        If it is no HDF5 file.
    """

    def __init__(self, h5py, data):
        self.h5py, self.size = h5py, len(data)
        self.room = len(data)  # bytes that arrays may still take
        self.met = {}  # addresses of the objects met so far, and their names
        _check_heaps(data)
        try:
            self.file = h5py.File(io.BytesIO(data), "r")
        except OSError as error:
            raise ValueError(f"must be a whole .keras or .h5 file, got: {error}") from (
                error
            )

    def __enter__(self):
        root = self.h5py.h5g.open(self.file.id, b"/")
        self.meet("/", root)
        return Group(self, "/", root)

    def __exit__(self, *error):
        self.file.close()

    def meet(self, name, thing):
        """Refuse an object that another way has led to."""
        address = self.h5py.h5o.get_info(thing).addr
        other = self.met.setdefault(address, name)
        if other != name:
            raise ValueError(
                f"{name!r} must be an object of its own, got the one that is {other!r}"
            )

    def take(self, name, n_bytes):
        """Refuse an array that the file cannot have whole, beside those before it."""
        if n_bytes > self.room:
            raise ValueError(
                f"{name!r} must be stored whole, got {n_bytes:,} bytes in a file of "
                f"{self.size:,}, of which others take {self.size - self.room:,}"
            )
        self.room -= n_bytes


def _check_heaps(data):
    """Refuse a heap of texts whose list of objects does not end.

    The HDF5 library follows such a list for ever. A heap is the bytes ``GCOL``, its
    version (1), three zeros and its size in eight bytes; then come the objects, each a
    number (0 for what is free), a count, the size in eight bytes, and its bytes up to a
    multiple of eight. The size of what is free counts these 16 bytes, too.
    """
    steps = len(data) // 16  # more there are not, unless heaps overlap
    at = data.find(b"GCOL\x01\0\0\0")
    while at >= 0:
        end = at + int.from_bytes(data[at + 8 : at + 16], "little")
        place = at + 16
        while place + 16 <= min(end, len(data)):
            size = int.from_bytes(data[place + 8 : place + 16], "little")
            free = data[place : place + 2] == b"\0\0"
            step = size if free else 16 + (size + 7) // 8 * 8
            steps -= 1
            if step < 16 or steps < 0:
                raise ValueError("must be a whole .keras or .h5 file, got a bad heap")
            place += step
        at = data.find(b"GCOL\x01\0\0\0", at + 1)


class Group:
    """A group; `get` gives what is in it."""

    def __init__(self, file, name, group):
        self._file, self._name, self._group = file, name, group

    def get(self, name):
        """The group or array of a name, or of names with slashes between; else None.

        Raises
        ------
        ValueError
            If a link on the way is not plain, or an object is not as Keras writes it.
        """
        at = self
        for part in name.split("/"):
            if not isinstance(at, Group):
                return None
            at = at._child(part)
        return at

    def _child(self, name):
        h5py, whole = self._file.h5py, f"{self._name.rstrip('/')}/{name}"
        key = name.encode()
        # "." would be the group itself, and a NUL ends names in C.
        if name in ("", ".") or b"\0" in key:
            raise ValueError(f"{whole!r} must be a name in a group")
        if not self._group.links.exists(key):
            return None
        kind = self._group.links.get_info(key).type
        if kind != h5py.h5l.TYPE_HARD:
            kinds = {
                h5py.h5l.TYPE_SOFT: "a soft",
                h5py.h5l.TYPE_EXTERNAL: "an external",
            }
            raise ValueError(
                f"{whole!r} must be in its group itself, got "
                f"{kinds.get(kind, 'a user-defined')} link"
            )
        thing = h5py.h5o.open(self._group, key)
        self._file.meet(whole, thing)
        if isinstance(thing, h5py.h5g.GroupID):
            return Group(self._file, whole, thing)
        if isinstance(thing, h5py.h5d.DatasetID):
            return _array(self._file, whole, thing)
        raise ValueError(f"{whole!r} must be a group or an array")

    def attribute(self, name):
        """An attribute: a text, an array of texts, or None where it is not there.

        Raises
        ------
        ValueError
            If it is of another type, or larger than the file.
        """
        h5py, whole = self._file.h5py, f"{self._name}: {name}"
        if not h5py.h5a.exists(self._group, name.encode()):
            return None
        attribute = h5py.h5a.open(self._group, name.encode())
        kind = attribute.get_type()
        n = attribute.get_space().get_simple_extent_npoints()
        if n == 0:  # without elements there is no type of text
            return []
        if not isinstance(kind, h5py.h5t.TypeStringID):
            raise ValueError(f"{whole} must be text")
        if kind.is_variable_str() and n > _MOST_TEXTS:
            raise ValueError(f"{whole} must be at most {_MOST_TEXTS} texts, got {n}")
        if n * kind.get_size() > self._file.size:
            raise ValueError(f"{whole} must be stored whole")
        value = h5py.AttributeManager(_Parent(self._group))[name]
        if np.ndim(value) == 0:
            return _text(value)
        return [_text(item) for item in value.ravel()]


class _Parent:
    """What h5py's attributes want to know of their owner."""

    def __init__(self, group):
        self.id = group


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def _array(file, name, dataset):
    """The contents of a dataset that is stored as it is in memory."""
    h5py = file.h5py
    options = dataset.get_create_plist()
    if options.get_layout() == h5py.h5d.VIRTUAL or options.get_external_count():
        raise ValueError(f"{name!r} must be in the file, got an array of other files'")
    if options.get_nfilters():
        filters = [options.get_filter(k) for k in range(options.get_nfilters())]
        shown = ", ".join(_text(one[3]) or str(one[0]) for one in filters)
        raise ValueError(
            f"{name!r} must be stored without filters, as Keras does, got {shown}"
        )
    kind = dataset.get_type()
    if not isinstance(kind, h5py.h5t.TypeFloatID):
        raise ValueError(f"{name!r} must be an array of floating-point numbers")
    shape = dataset.shape
    if 0 in shape:  # no size of a layer may come from an array without elements
        raise ValueError(f"{name!r} must have elements, got shape {shape}")
    n_bytes = kind.get_size()
    for size in shape:  # not NumPy, whose product would overflow
        n_bytes *= size
    if n_bytes > dataset.get_storage_size():
        raise ValueError(
            f"{name!r} must be stored whole, got {dataset.get_storage_size():,} of "
            f"{n_bytes:,} bytes"
        )
    file.take(name, n_bytes)
    array = np.empty(shape, kind.dtype)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
    return array
