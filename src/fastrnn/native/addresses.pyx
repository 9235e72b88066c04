# SPDX-License-Identifier: BSD-3-Clause
"""Where arrays lie, once they are known to be what a call needs.

Any object with the buffer protocol is an array.  Type, contiguity, alignment and length
are checked here, and so are the offsets of ragged batches; `sizes.pxd` has the bounds
of sizes.  Whatever the arguments are, a call then reads and writes nothing but the
arrays that it was given.
"""

import numpy as np

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE,
    PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer,
)
from libc.stdint cimport int64_t
from libc.string cimport memcmp


cdef ptrdiff_t size_of(char kind) noexcept:
    """Bytes of an element."""
    if kind == b"f":
        return 4
    if kind == b"H":
        return 2
    return 1 if kind == b"B" or kind == b"b" else 8


cdef str format_order(const char *text):
    """What is unusual about a buffer's format; None for the machine's own way."""
    if text == NULL or text[0] not in b"=<>!^":
        return None
    name = text.decode("ascii", "replace")
    if text[0] in b"=^":
        return f"an array that is not aligned (buffer format {name!r})"
    return f"another byte order (buffer format {name!r})"


cdef void *address(object array, str what, char kind, ptrdiff_t size,
                   bint writable, bint at_least=False,
                   ptrdiff_t alignment=0) except? NULL:
    """Where `array` lies, once it is known to hold `size` elements of `kind`.

    The buffer is released at once: the caller holds a reference to `array` through the
    kernel call, so the memory stays.  None gives NULL.  An element lies at a multiple
    of `alignment` bytes, which are its own if not given.
    """
    cdef Py_buffer view
    cdef int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT
    cdef void *where
    cdef ptrdiff_t found, itemsize = size_of(kind)
    cdef char given
    cdef str order
    cdef bytes other = None
    if array is None:
        return NULL
    if not PyObject_CheckBuffer(array):
        raise TypeError(f"{what} must be an array, got {type(array).__name__}")
    if writable:
        flags |= PyBUF_WRITABLE
    try:
        PyObject_GetBuffer(array, &view, flags)
    except (ValueError, BufferError) as error:
        raise ValueError(f"{what} must be an array to pass on, but: {error}") from error
    where, found = view.buf, view.len // itemsize
    given = view.format[0] if view.format != NULL else b"B"
    order = format_order(view.format)
    if given == b"l" and view.itemsize == sizeof(long long):
        given = b"q"  # int64 has two names where C's long is as long as long long
    if given != kind or view.itemsize != itemsize or (
            view.format != NULL and view.format[1] != 0):
        other = view.format if view.format != NULL else b"B"
    PyBuffer_Release(&view)
    if order is not None:
        raise TypeError(f"{what} must be aligned and in native byte order, got {order}")
    if other is not None:
        raise TypeError(
            f"{what} must have buffer format {chr(kind)!r}, got {other.decode()!r}")
    if found < size or (found != size and not at_least):
        raise ValueError(f"{what} must have {size} elements, got {found}")
    if found and <size_t>where % <size_t>max(itemsize, alignment):
        raise ValueError(
            f"{what} must lie at a multiple of {max(itemsize, alignment)} bytes")
    return where


def is_clear(array not None, ptrdiff_t begin, ptrdiff_t end):
    """Whether elements [begin, end) of a flat array of real numbers are +0.

    Fast where they are, as gradients mostly are before a backward.
    """
    cdef Py_buffer view
    cdef const char *at
    cdef ptrdiff_t n
    cdef bint clear = False
    PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS)
    # A product of `end` could wrap around.
    if view.itemsize > 0 and 0 <= begin <= end <= view.len // view.itemsize:
        at, n = <const char *>view.buf + begin * view.itemsize, end - begin
        n *= view.itemsize
        # The first byte is zero, and each one is what the one before is.
        clear = n == 0 or (at[0] == 0 and memcmp(at, at + 1, n - 1) == 0)
    PyBuffer_Release(&view)
    return clear


cdef void *address_of_work(work, str what, char kind, ptrdiff_t size) except NULL:
    """Scratch of `size` elements at least: it holds offsets, too."""
    return address(required(work, what), what, kind, size, True, True, sizeof(void *))


cdef object required(object array, str what):
    if array is None:
        raise TypeError(f"{what} must be an array, got None")
    return array


cdef object checked_offsets(offsets, ptrdiff_t T, ptrdiff_t B):
    """A copy of T + 1 offsets, which its owner does not show, so that they stay so.

    Batch sizes must begin at most at B and never grow, or memory is not safe.
    """
    cdef const ptrdiff_t *at
    cdef ptrdiff_t t, before = B
    copy = np.array(offsets, np.intp)
    if copy.shape != (T + 1,):
        raise ValueError("Shape: offsets must have T + 1 elements and begin with 0")
    at = offsets_in(copy)
    if at[0] != 0:
        raise ValueError("Shape: offsets must have T + 1 elements and begin with 0")
    for t in range(T):
        # The difference of an offset and a smaller one, not negative, cannot overflow.
        if at[t + 1] <= at[t] or at[t + 1] - at[t] > before:
            raise ValueError(
                f"Shape: batch sizes must be in [1, {before}] at t = {t}, got offsets "
                f"{at[t]} and {at[t + 1]}")
        before = at[t + 1] - at[t]
    return copy


cdef const ptrdiff_t *offsets_in(copy) except NULL:
    """Where offsets that `checked_offsets` gave lie."""
    return <const ptrdiff_t *>address(copy, "offsets", b"q", 1, False, True)


def offsets_of(batch_sizes not None, ptrdiff_t rows):
    """Where the rows of each step begin, (T + 1,), in arrays of `rows` rows; or None.

    Parameters
    ----------
    batch_sizes : ndarray of int64, 1-D
        Of each step, as a user gave them: None comes back unless they are positive,
        never grow and add up to `rows`.
    """
    cdef const int64_t *sizes
    cdef ptrdiff_t *offsets
    cdef ptrdiff_t t, T = len(batch_sizes), before = rows, left = rows
    if not 1 <= T <= rows:  # nothing large is allocated for sizes that do not fit
        return None
    copy = np.array(batch_sizes)  # aligned, and nobody can change it
    result = np.zeros(T + 1, np.intp)
    sizes = <const int64_t *>address(copy, "batch_sizes", b"q", T, False)
    offsets = <ptrdiff_t *>address(result, "offsets", b"q", T + 1, True)
    for t in range(T):
        if not 1 <= sizes[t] <= min(before, left):
            return None
        before = sizes[t]
        left -= before
        offsets[t + 1] = offsets[t] + before
    return None if left else result
