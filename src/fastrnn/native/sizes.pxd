# SPDX-License-Identifier: BSD-3-Clause
# The sizes that a kernel may be given.  Every call that makes a pointer asks here, so
# that no product of sizes wraps around and no size is one that a kernel divides by.

from fastrnn.native.capi cimport fr_shape

cdef enum:
    MOST_THREADS = 1024  # each has scratch of its own
    MOST_CELLS = 1 << 20  # of a stack: each has objects of its own
    MOST_ROWS = 0x7fffffff  # of a matrix: the kernels count its tiles in 32 bits
    MOST_TILE = 1024  # more than a size is ever rounded up by

# Of any array, or of all that a call works on: a factor of 64 of bytes and of rounding
# up is left below the largest ptrdiff_t.
cdef enum:
    LOG_MOST_ELEMENTS = 57


cdef inline int check_threads(str who, int n_threads) except -1:
    """`n_threads`, once it is known to be a team's size."""
    if not 1 <= n_threads <= MOST_THREADS:
        raise ValueError(
            f"{who}: n_threads must be in [1, {MOST_THREADS}], got {n_threads}")
    return n_threads


cdef inline ptrdiff_t product(str who, ptrdiff_t a, ptrdiff_t b) except -1:
    """a * b, the elements of an array."""
    if a < 0 or b < 0 or <double>a * <double>b > <double>(1LL << LOG_MOST_ELEMENTS):
        raise ValueError(f"{who}: an array cannot have {a} x {b} elements")
    return a * b


cdef inline ptrdiff_t check_start(str what, ptrdiff_t at) except -1:
    """`at`, once it is known to be an element's place in some array."""
    if not 0 <= at <= 1LL << LOG_MOST_ELEMENTS:
        raise ValueError(
            f"{what} must begin at an element from 0 on that memory can have, got {at}")
    return at


cdef inline ptrdiff_t last_element(str what, ptrdiff_t first, ptrdiff_t n,
                                   ptrdiff_t stride, ptrdiff_t m,
                                   ptrdiff_t other) except -1:
    """Of n x m elements with these strides, n and m >= 1; `first` is where they begin.
    """
    if min(first, stride, other) < 0:
        raise ValueError(
            f"{what}: the first element and strides must not be negative, got "
            f"{(first, stride, other)}")
    return (product(what, n - 1, stride) + product(what, m - 1, other)
            + check_start(what, first))


cdef inline int check_shape(str who, const fr_shape *s, ptrdiff_t n_cells) except -1:
    """Whether all that a call of `n_cells` cells works on can be counted.

    The bound is above any of the arrays, packed weights, tapes and work space of 1024
    threads: rows of all of them times their width, in lines.
    """
    cdef double rows, width
    if min(s.T, s.B, s.I, s.H) < 1:
        raise ValueError(
            f"{who}: T, B, I, H must be >= 1, got {(s.T, s.B, s.I, s.H)}")
    rows = <double>s.T * <double>s.B + MOST_THREADS * (<double>s.B + 512)
    width = <double>s.I + 10 * <double>s.H + 640
    rows += 8 * (<double>s.H + 64)
    if (max(s.B, s.I, s.H) > MOST_ROWS
            or 16 * rows * width * n_cells > <double>(1LL << LOG_MOST_ELEMENTS)):
        raise ValueError(
            f"{who}: no memory holds T, B, I, H = {(s.T, s.B, s.I, s.H)} of "
            f"{n_cells} cells")
    return 0
