# SPDX-License-Identifier: BSD-3-Clause
# What other Cython modules use of addresses.pyx.

cdef void *address(object array, str what, char kind, ptrdiff_t size,
                   bint writable, bint at_least=*,
                   ptrdiff_t alignment=*) except? NULL

cdef void *address_of_work(work, str what, char kind, ptrdiff_t size) except NULL
cdef object required(object array, str what)
cdef ptrdiff_t size_of(char kind) noexcept
cdef object checked_offsets(offsets, ptrdiff_t T, ptrdiff_t B)
cdef const ptrdiff_t *offsets_in(copy) except NULL
