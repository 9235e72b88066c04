# SPDX-License-Identifier: BSD-3-Clause
# What other Cython modules use of core.pyx.

from fastrnn.native.capi cimport fr_kernels

cdef int team(int n_threads) except -1
cdef int team_of(str who, int n_threads) except -1
cdef ptrdiff_t level2_bytes() noexcept nogil
cdef int allowed(int n_threads) noexcept nogil
cdef double began(int n_threads, double flops) noexcept nogil
cdef void ended(double since, int n_threads, double flops) noexcept nogil


cdef class Kernels:
    cdef const fr_kernels *table
    cdef char kind
    cdef readonly str target
    cdef readonly str dtype
    cdef readonly int lanes
    cdef readonly bint half
    cdef int weights  # of enum fr_weights

    cdef int check_quantized(self, str who, ptrdiff_t N, ptrdiff_t I,
                             ptrdiff_t O) except -1

    @staticmethod
    cdef Kernels wrap(const fr_kernels *table, int weights)
