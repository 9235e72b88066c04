# SPDX-License-Identifier: BSD-3-Clause
"""Reading of HDF5 files, as far as Keras uses HDF5.

An HDF5 file can name other files to read from, hold links that lead in circles or by
several ways to one object, and declare arrays larger than itself. Keras uses none of
this: it writes a tree of groups, whose leaves are arrays stored as they are in memory.
Anything else is refused where it is met, before it is read.
"""

import numpy as np

# An attribute that is read has one text, or the names of the weights of a layer or of a
# model in a model. Of texts of variable length it may have this many, and more where so
# many times the file's size is less than the bytes below: all of them may point to one
# text that fills the file.
_MOST_TEXTS = 16
_MOST_BYTES = 32 << 20


class Hdf5File:
    """An HDF5 file, as a context that gives the root `Group`.

    Each object in the file may have one name only, and all arrays together may be as
    large as the file at most.

    Parameters
    ----------
    h5py : module
    data : bytes
        The whole file.

    Raises
    ------
    ValueError
        If the data are not an HDF5 file.
    """

    def __init__(self, h5py, data):
        self.h5py, self.size = h5py, len(data)
        self.room = len(data)  # bytes that arrays may still take
        self.met = {}  # addresses of the objects met so far, and their names
        if not data:
            raise ValueError("must be a whole .keras or .h5 file, got an empty one")
        _check_heaps(data)
        # The library has the bytes. Reading from an object of Python's, it would call
        # Python in the middle of its own work, where Python may collect garbage, and
        # with that close things of HDF5 while HDF5 is at work.
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
        access.set_fapl_core(backing_store=False)
        access.set_file_image(data)
        try:
            self.file = h5py.h5f.open(b"in memory", h5py.h5f.ACC_RDONLY, access)
        except OSError as error:
            raise ValueError(f"must be a whole .keras or .h5 file, got: {error}") from (
                error
            )

    def __enter__(self):
        root = self.h5py.h5g.open(self.file, b"/")
        self.meet("/", root)
        return Group(self, "/", root)

    def __exit__(self, *error):
        self.file.close()

    def meet(self, name, thing):
        """Refuse an object that was reached by another name before."""
        address = self.h5py.h5o.get_info(thing).addr
        other = self.met.setdefault(address, name)
        if other != name:
            raise ValueError(
                f"{name!r} must be an object of its own, got the one that is {other!r}"
            )

    def take(self, name, n_bytes):
        """Refuse an array for which the file has no room beside those before it."""
        if n_bytes > self.room:
            raise ValueError(
                f"{name!r} must be stored whole, got {n_bytes:,} bytes in a file of "
                f"{self.size:,}, of which others take {self.size - self.room:,}"
            )
        self.room -= n_bytes


def _check_heaps(data):
    """Refuse a heap of texts whose list of objects does not end.

    The HDF5 library would follow such a list for ever. A heap consists of the bytes
    ``GCOL``, its version (1), three zeros, its size in eight bytes, and its objects. An
    object has a header of 16 bytes: its number (0 for free space), a count, and its
    size in eight bytes; its own bytes follow, up to a multiple of eight. The size of
    free space includes the header, the size of other objects does not.
    """
    # Each object has a header, so there cannot be more unless heaps overlap.
    steps = len(data) // 16
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
    """A group of an HDF5 file; `get` reads the groups and arrays in it."""

    def __init__(self, file, name, group):
        self._file, self._name, self._group = file, name, group

    def get(self, name):
        """Read an object in the group.

        Parameters
        ----------
        name : str
            The name of the object, or a path of names with slashes between them.

        Returns
        -------
        Group, ndarray or None
            None if there is no such object.

        Raises
        ------
        ValueError
            If a link on the way is not a plain one, or if an object is not as Keras
            writes it.
        """
        at = self
        for part in name.split("/"):
            if not isinstance(at, Group):
                return None
            at = at._child(part)
        return at

    def names(self):
        """Names of the groups and arrays in the group."""
        found = []
        # h5py goes through the links without opening what they lead to.
        self._group.links.iterate(lambda name: found.append(_text(name)))
        return found

    def _child(self, name):
        h5py, whole = self._file.h5py, f"{self._name.rstrip('/')}/{name}"
        key = name.encode()
        # HDF5 takes "." for the group itself, and a name in C ends at a NUL.
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
        """Read an attribute of the group that has a text or several texts.

        Returns
        -------
        str, list of str or None
            None if there is no such attribute.

        Raises
        ------
        ValueError
            If the attribute is of another type, or larger than the file.
        """
        h5py, whole = self._file.h5py, f"{self._name}: {name}"
        if not h5py.h5a.exists(self._group, name.encode()):
            return None
        attribute = h5py.h5a.open(self._group, name.encode())
        kind = attribute.get_type()
        n = attribute.get_space().get_simple_extent_npoints()
        if n == 0:  # the type of an empty list is not that of texts
            return []
        if not isinstance(kind, h5py.h5t.TypeStringID):
            raise ValueError(f"{whole} must be text")
        most = max(_MOST_TEXTS, _MOST_BYTES // self._file.size)
        if kind.is_variable_str() and n > most:
            raise ValueError(f"{whole} must be at most {most} texts, got {n}")
        if n * kind.get_size() > self._file.size:
            raise ValueError(f"{whole} must be stored whole")
        value = h5py.AttributeManager(_Parent(self._group))[name]
        if np.ndim(value) == 0:
            return _text(value)
        return [_text(item) for item in value.ravel()]


class _Parent:
    """The owner that h5py's AttributeManager asks for: an object with an `id`."""

    def __init__(self, group):
        self.id = group


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def _array(file, name, dataset):
    """The array of a dataset, which must be stored whole and as it is in memory."""
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
    # The sizes of a layer come from the shapes of its arrays. An array without elements
    # takes no bytes of the file, so it could declare any size.
    if 0 in shape:
        raise ValueError(f"{name!r} must have elements, got shape {shape}")
    n_bytes = kind.get_size()
    for size in shape:  # in Python's integers, since NumPy's product could overflow
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
