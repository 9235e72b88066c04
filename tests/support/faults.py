# SPDX-License-Identifier: BSD-3-Clause
"""Memory that runs out at a chosen moment: every n-th allocation of an array fails.

NumPy lets a program bring its own allocator (NEP 49). Ours is NumPy's, asked through
ctypes, until it is told to say no once.
"""

import contextlib
import ctypes

import numpy as np

_core = np._core if hasattr(np, "_core") else np.core
_SET_HANDLER, _GET_HANDLER = 304, 305  # in NumPy's table of C functions

_MALLOC = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_TWO_SIZES = ctypes.PYFUNCTYPE(
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t
)


class _Handler(ctypes.Structure):
    """NumPy's ``PyDataMem_Handler``."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("ctx", ctypes.c_void_p),
        ("malloc", _MALLOC),
        ("calloc", _TWO_SIZES),
        ("realloc", _TWO_SIZES),  # of an address and a size
        ("free", ctypes.c_void_p),
    )


class _Countdown:
    """The n-th allocation from now on fails; no later one does."""

    left = 0
    failed = False

    def fails(self):
        self.left -= 1
        self.failed |= self.left == 0
        return self.left == 0


def _numpy_function(index, *arguments):
    table = ctypes.pythonapi.PyCapsule_GetPointer
    table.restype, table.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    functions = ctypes.cast(
        table(_core.multiarray._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p)
    )
    return ctypes.PYFUNCTYPE(ctypes.py_object, *arguments)(functions[index])


def _failing_handler():
    """A capsule with NumPy's own functions, behind a count."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype = ctypes.c_void_p
    pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    own = _Handler.from_address(
        pointer(_numpy_function(_GET_HANDLER)(), b"mem_handler")
    )
    handler = _Handler(
        b"fails once",
        1,
        own.ctx,
        _MALLOC(lambda ctx, n: None if _count.fails() else own.malloc(ctx, n)),
        _TWO_SIZES(lambda ctx, m, n: None if _count.fails() else own.calloc(ctx, m, n)),
        _TWO_SIZES(
            lambda ctx, at, n: None if _count.fails() else own.realloc(ctx, at, n)
        ),
        own.free,
    )
    # Arrays made meanwhile refer to it, some of them until the process ends.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(handler))
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(ctypes.addressof(handler), b"mem_handler", None)


_count = _Countdown()
_set_handler = _numpy_function(_SET_HANDLER, ctypes.py_object)
_capsule = _failing_handler()


@contextlib.contextmanager
def failing_allocation(n):
    """Arrays' n-th allocation in the block, counted from 1, raises MemoryError.

    Yields an object whose `failed` says whether it came to that.
    """
    before = _set_handler(_capsule)
    _count.left, _count.failed = n, False
    try:
        yield _count
    finally:
        _count.left = 0
        _set_handler(before)


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
