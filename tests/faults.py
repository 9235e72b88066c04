# SPDX-License-Identifier: BSD-3-Clause
"""Memory that runs out at a chosen moment: every n-th allocation of an array fails.

NumPy lets a program bring its own allocator (NEP 49). Ours is the C library's, through
ctypes, until it is told to say no once.
"""

import contextlib
import ctypes

import numpy as np

_libc = ctypes.CDLL(None)
_libc.malloc.restype = _libc.calloc.restype = _libc.realloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = [ctypes.c_size_t]
_libc.calloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
_libc.realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]

_MALLOC = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_CALLOC = ctypes.PYFUNCTYPE(
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t
)
_REALLOC = ctypes.PYFUNCTYPE(
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
)
_FREE = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class _Handler(ctypes.Structure):
    """NumPy's ``PyDataMem_Handler``."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("ctx", ctypes.c_void_p),
        ("malloc", _MALLOC),
        ("calloc", _CALLOC),
        ("realloc", _REALLOC),
        ("free", _FREE),
    )


class _Countdown:
    """The n-th allocation from now on fails; no later one does."""

    left = 0
    failed = False

    def fails(self):
        self.left -= 1
        self.failed |= self.left == 0
        return self.left == 0


_count = _Countdown()
_handler = _Handler(
    b"fails once",
    1,
    None,
    _MALLOC(lambda _, n: None if _count.fails() else _libc.malloc(n)),
    _CALLOC(lambda _, m, n: None if _count.fails() else _libc.calloc(m, n)),
    _REALLOC(lambda _, at, n: None if _count.fails() else _libc.realloc(at, n)),
    _FREE(lambda _, at, n: _libc.free(at)),
)


def _set_handler():
    """NumPy's own function, from its table of C functions."""
    table = np._core.multiarray._ARRAY_API
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    functions = ctypes.cast(pointer(table, None), ctypes.POINTER(ctypes.c_void_p))
    kind = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)
    return kind(functions[304])  # PyDataMem_SetHandler


def _capsule():
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(ctypes.addressof(_handler), b"mem_handler", None)


@contextlib.contextmanager
def failing_allocation(n):
    """Arrays' n-th allocation in the block, counted from 1, raises MemoryError.

    Yields an object whose `failed` says whether it came to that.
    """
    before = _set_handler()(_capsule())
    _count.left, _count.failed = n, False
    try:
        yield _count
    finally:
        _count.left = 0
        _set_handler()(before)


def each_failure(call, most=400):
    """Call `call` with the first, the second, ... allocation failing, until none does.

    Yields the number after each MemoryError.
    """
    for n in range(1, most):
        with failing_allocation(n) as count:
            try:
                call()
            except MemoryError:
                pass
            else:
                if not count.failed:
                    return
                continue  # NumPy went on without: a buffer it did not need
        yield n
    raise AssertionError(f"more than {most} allocations")
