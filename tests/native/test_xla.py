# SPDX-License-Identifier: BSD-3-Clause
"""What the target for XLA answers when it is asked for its version, frame by frame.

Frames are made here as XLA makes them, so that one of any version can be played.
"""

import ctypes

import pytest

xla = pytest.importorskip("fastrnn.native.xla")

METADATA = 1  # XLA_FFI_Extension_Metadata


class Version(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension_start", ctypes.c_void_p),
        ("major", ctypes.c_int),
        ("minor", ctypes.c_int),
    )


class Api(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension_start", ctypes.c_void_p),
        ("version", Version),
    )


class Metadata(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("version", Version),
        ("traits", ctypes.c_uint32),
        ("beyond", ctypes.c_int64),
    )


class Extension(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("metadata", ctypes.POINTER(Metadata)),
    )


class Frame(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension_start", ctypes.POINTER(Extension)),
        ("api", ctypes.POINTER(Api)),
        ("ctx", ctypes.c_void_p),
        ("stage", ctypes.c_int),
        ("rest", ctypes.c_size_t * 40),
    )


@pytest.fixture
def target():
    """The target as a function, with nothing to run."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    answer = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(Frame))
    return answer(get(xla.target(), None))


def asked(target, version, metadata_size=56, frame_size=400):
    """What the target puts into the metadata when XLA has a version, or tells none."""
    metadata = Metadata(metadata_size, Version(0, None, -1, -1), 7, 7)
    extension = Extension(32, METADATA, None, ctypes.pointer(metadata))
    api = None
    if version is not None:
        api = ctypes.pointer(Api(200, None, Version(24, None, *version)))
    frame = Frame(frame_size, ctypes.pointer(extension), api, None, 3)
    assert target(ctypes.byref(frame)) is None
    return metadata


def test_the_older_version_is_told(target):
    major, minor = xla.VERSION
    assert minor >= 1
    told = {
        None: (major, 1),
        (major, 1): (major, 1),
        (major, minor): (major, minor),
        (major, minor + 5): (major, minor),
    }
    for version, want in told.items():
        metadata = asked(target, version)
        assert (metadata.version.major, metadata.version.minor) == want
        assert metadata.traits == 0
        assert metadata.beyond == 7


def test_structs_that_are_too_small_are_not_written(target):
    for sizes in ({"metadata_size": 16}, {"frame_size": 24}):
        metadata = asked(target, xla.VERSION, **sizes)
        assert (metadata.version.major, metadata.version.minor) == (-1, -1)


def test_other_stages_do_nothing(target):
    for stage in (0, 1, 2):
        frame = Frame(ctypes.sizeof(Frame), None, None, None, stage)
        assert target(ctypes.byref(frame)) is None


def test_what_is_no_function():
    with pytest.raises(TypeError, match="function must be callable, got int"):
        xla.set_function(3)
