# SPDX-License-Identifier: BSD-3-Clause
# What other Cython modules use of weights.pyx.

from libc.stdint cimport int64_t, uint32_t

from fastrnn.native.capi cimport fr_kernels, fr_pack_args, fr_shape
from fastrnn.native.core cimport Kernels
from fastrnn.native.layout cimport N_PARTS, Layout, Parts
from fastrnn.native.memory cimport Loan, Pool

cdef enum:
    FINGERPRINT_WORDS = 64


cdef struct Marks:
    # How to know the parameters of a cell again.
    const fr_kernels *table
    Parts parts
    bint counted  # the versions are known
    int64_t versions[N_PARTS]
    int n_fingerprints  # 0 until they are taken; 1 where the parts lie side by side
    uint32_t fingerprints[N_PARTS][FINGERPRINT_WORDS]


cdef class Source:
    cdef Layout layout
    cdef char kind
    cdef char *start  # of cell 0's parameters, those of all cells one after the other
    cdef tuple tensors, versions  # or None
    cdef int mark(self, int k, const fr_kernels *table, Marks *m) except -1


cdef class PackedCell:
    cdef readonly Loan forward, backward  # None where there is none at the moment
    cdef Marks marks
    cdef int users
    cdef bint turns

    @staticmethod
    cdef PackedCell make(const Marks *m, const fr_shape *shape, ptrdiff_t itemsize)

    cdef Loan room(self, Pool pool, const fr_shape *shape, ptrdiff_t itemsize,
                   bint backward)
    cdef int add_forward(self, owner, Pool pool, fr_pack_args *a,
                         ptrdiff_t itemsize) except -1
    cdef int add_backward(self, owner, Pool pool, fr_pack_args *a, ptrdiff_t itemsize,
                          bint same, bint in_turn) except -1


cdef class Use:
    cdef Packer packer
    cdef list cells  # PackedCell
    cdef Kernels kernels
    cdef object parameters  # the array in which the layer's begin at `start`, or None
    cdef ptrdiff_t start
    cdef bint runs_again
    cdef PackedCell cell(self, int k)
    cdef char *packed_at(self, int k, bint backward) except NULL
    cdef int check(self, str who, Layout layout, Kernels kernels) except -1
    cdef int check_forms(self, str who, int first, int n, bint backward) except -1
    cdef int add_backward(self, int first, int n, int n_threads) except -1
    cdef int add_backward_from(self, int first, int n, int n_threads,
                               Source now) except -1


cdef class Packer:
    cdef object __weakref__
    cdef public object _lock  # of `make`; see `memory.Locked`
    cdef Layout layout
    cdef Pool pool
    cdef list packed  # by cell: PackedCell or None
    cdef Source in_array(self, Kernels kernels, parameters, ptrdiff_t start)
    cdef Source in_tensors(self, Kernels kernels, tensors, versions)
    cdef Use find(self, Source source, Kernels kernels, int n_threads, bint forward,
                  bint backward, Marks *m, int *at)
    cdef Use make(self, Source source, Kernels kernels, int n_threads, bint forward,
                  bint backward, const Marks *found, int at)
    cdef int drop(self, Use use) except -1
