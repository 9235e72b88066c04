# SPDX-License-Identifier: BSD-3-Clause
# What other Cython modules use of views.pyx.

cdef enum:
    MOST_DIMENSIONS = 3  # of a tensor that a kernel may be given


cdef struct View:
    char *data
    int ndim
    ptrdiff_t shape[MOST_DIMENSIONS]
    ptrdiff_t stride[MOST_DIMENSIONS]  # elements


cdef int look_at(View *v, object tensor, str what, char kind, bint for_kernel=*,
                 bint writable=*) except -1
cdef ptrdiff_t n_elements(const View *v) noexcept
cdef bint is_dense(const View *v) noexcept
cdef str description(const View *v)
cdef char *dense(tensor, str what, char kind, ptrdiff_t size,
                 bint writable=*) except? NULL
cdef tuple as_tuple(tensors, str what, ptrdiff_t n)
