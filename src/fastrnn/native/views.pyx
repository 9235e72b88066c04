# SPDX-License-Identifier: BSD-3-Clause
"""Tensors of another library, looked at in C: where they lie, their sizes and strides.

An array of NumPy's, by which many a library shows its memory, is a tensor, too; its
buffer describes it.  A tensor's type may offer DLPack's table of C functions
(``__dlpack_c_exchange_api__``, https://dmlc.github.io/dlpack/latest), which describes a
tensor in some nanoseconds: PyTorch's does.  Any other object is asked for `data_ptr()`,
`stride()` (in elements), `shape`, `dtype` and `is_cpu`, which takes half a microsecond.
Whichever way that a tensor's memory has the elements that its shape and strides name is
its library's word; that they are what a call needs is checked.
"""

import numpy as np

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastrnn.native.addresses cimport size_of
from fastrnn.native.sizes cimport LOG_MOST_ELEMENTS

# The part of DLPack 1 that is used, in its order in memory.
ctypedef struct DLTensor:
    void *data
    int32_t device_type
    int32_t device_id
    int32_t ndim
    uint8_t code
    uint8_t bits
    uint16_t lanes
    int64_t *shape
    int64_t *strides  # NULL for a dense one
    uint64_t byte_offset

ctypedef int (*describe_function)(void *tensor, DLTensor *to) except -1

ctypedef struct ExchangeAPI:
    uint32_t major
    uint32_t minor
    void *previous
    void *allocate
    void *to_managed
    void *from_managed
    describe_function describe

cdef enum:
    DL_CPU = 1
    DL_CUDA_HOST = 3  # of the CPU, too, but pinned
    DL_FLOAT = 2
    MOST_TYPES = 64

cdef type ndarray = np.ndarray
cdef dict found_functions = {}  # type: address of its function as an int, 0 for none
cdef dict kinds = {}  # dtype: the kernels' letter, 0 for another


cdef describe_function function_of(kind):
    """How tensors of a class are described; NULL where they have to be asked."""
    cdef ExchangeAPI *api
    cdef size_t function = 0
    found = found_functions.get(kind)
    if found is not None:
        return <describe_function><size_t>found
    capsule = getattr(kind, "__dlpack_c_exchange_api__", None)
    if capsule is not None:
        api = <ExchangeAPI *>PyCapsule_GetPointer(capsule, "dlpack_exchange_api")
        if api.major == 1:
            function = <size_t>api.describe
    if len(found_functions) >= MOST_TYPES:
        found_functions.clear()
    found_functions[kind] = function
    return <describe_function>function


cdef char kind_of(dtype) except? 0:
    """The kernels' letter for a dtype whose name ends in float32 or float64."""
    found = kinds.get(dtype)
    if found is None:
        name = str(dtype).rpartition(".")[2]
        found = {"float32": ord("f"), "float64": ord("d")}.get(name, 0)
        if len(kinds) < MOST_TYPES:
            kinds[dtype] = found
    return found


cdef refuse(str what, str rule, found):
    raise ValueError(f"{what} must be {rule}, got {found}")


cdef int ask(View *v, tensor, str what, char kind) except -1:
    """As `look_at`, of any object."""
    cdef tuple shape, strides
    cdef int i, n
    if not hasattr(tensor, "data_ptr"):
        raise TypeError(f"{what} must be a tensor, got {type(tensor).__name__}")
    shape, strides = tuple(tensor.shape), tuple(tensor.stride())
    n = len(shape)
    if kind_of(tensor.dtype) != kind:
        refuse(what, "of the kernels' dtype", tensor.dtype)
    if not tensor.is_cpu:
        refuse(what, "on the CPU", "another device's")
    if n > MOST_DIMENSIONS or len(strides) != n:
        refuse(what, "of at most 3 dimensions", shape)
    v.ndim = n
    for i in range(n):
        v.shape[i], v.stride[i] = shape[i], strides[i]
    v.data = <char *><size_t>tensor.data_ptr()
    return 0


cdef int look_at_array(View *v, array, str what, char kind,
                       bint writable) except -1:
    """As `look_at`, of an array of NumPy's."""
    cdef Py_buffer view
    cdef ptrdiff_t itemsize = size_of(kind)
    cdef bint of_kind, whole = True
    cdef int i, ndim
    try:
        PyObject_GetBuffer(array, &view, PyBUF_FORMAT | PyBUF_STRIDES
                           | (PyBUF_WRITABLE if writable else 0))
    except (ValueError, BufferError) as error:
        raise ValueError(f"{what} must be an array to pass on, but: {error}") from error
    of_kind = view.format[0] == kind and view.format[1] == 0
    ndim = v.ndim = view.ndim
    v.data = <char *>view.buf
    for i in range(min(ndim, MOST_DIMENSIONS)):
        v.shape[i] = view.shape[i]
        whole = whole and (view.shape[i] < 2 or view.strides[i] % itemsize == 0)
        v.stride[i] = view.strides[i] // itemsize
    PyBuffer_Release(&view)
    if not of_kind:
        refuse(what, "of the kernels' dtype", array.dtype)
    if ndim > MOST_DIMENSIONS:
        refuse(what, "of at most 3 dimensions", array.shape)
    if not whole:
        refuse(what, "of strides that are whole elements", array.strides)
    return 0


cdef int look_at_other(View *v, tensor, str what, char kind) except -1:
    """As `look_at`, of what is no array of NumPy's."""
    cdef describe_function describe = function_of(type(tensor))
    cdef DLTensor t
    cdef int i
    cdef ptrdiff_t dense = 1
    if describe == NULL:
        return ask(v, tensor, what, kind)
    describe(<void *>tensor, &t)
    if t.device_type != DL_CPU and t.device_type != DL_CUDA_HOST:
        refuse(what, "on the CPU", tensor.device)
    if t.code != DL_FLOAT or t.lanes != 1 or t.bits != 8 * size_of(kind):
        refuse(what, "of the kernels' dtype", tensor.dtype)
    if not 0 <= t.ndim <= MOST_DIMENSIONS:
        refuse(what, "of at most 3 dimensions", tuple(tensor.shape))
    v.ndim = t.ndim
    for i in range(t.ndim - 1, -1, -1):
        v.shape[i] = t.shape[i]
        v.stride[i] = dense if t.strides == NULL else t.strides[i]
        dense = v.stride[i] * v.shape[i]
    v.data = <char *>t.data + t.byte_offset
    return 0


cdef int look_at(View *v, tensor, str what, char kind, bint for_kernel=True,
                 bint writable=False) except -1:
    """Fill `v`; raise unless it is a tensor that can be passed on.

    `what` is its name, `kind` the kernels' letter of its dtype. `for_kernel` says that
    it has to lie at a multiple of its elements' size, `writable` that a kernel writes
    to it: of NumPy's arrays it is known whether anybody may.
    """
    cdef int i
    cdef double extent = 0, size = 1
    if isinstance(tensor, ndarray):
        look_at_array(v, tensor, what, kind, writable)
    else:
        look_at_other(v, tensor, what, kind)
    for i in range(v.ndim):
        if v.shape[i] < 0 or v.stride[i] < 0:
            refuse(what, "of sizes and strides that are not negative", description(v))
        if v.shape[i] < 2:
            v.stride[i] = 1  # nothing depends on it, and it may be anything
        extent += <double>v.shape[i] * <double>v.stride[i]
        size *= <double>v.shape[i]
    if max(extent, size) > <double>(1LL << LOG_MOST_ELEMENTS):
        refuse(what, "of sizes that memory can have", description(v))
    if v.data == NULL and n_elements(v):
        refuse(what, "a tensor with memory of its own", "one without")
    if for_kernel and n_elements(v) and <size_t>v.data % <size_t>size_of(kind):
        refuse(what, f"at a multiple of {size_of(kind)} bytes", hex(<size_t>v.data))
    return 0


cdef ptrdiff_t n_elements(const View *v) noexcept:
    cdef ptrdiff_t n = 1
    cdef int i
    for i in range(v.ndim):
        n *= v.shape[i]
    return n


cdef bint is_dense(const View *v) noexcept:
    """Whether elements lie side by side, in C's order."""
    cdef ptrdiff_t n = 1
    cdef int i
    for i in range(v.ndim - 1, -1, -1):
        if v.shape[i] != 1 and v.stride[i] != n:
            return False
        n *= v.shape[i]
    return True


cdef str description(const View *v):
    shape = tuple([v.shape[i] for i in range(v.ndim)])
    stride = tuple([v.stride[i] for i in range(v.ndim)])
    return f"shape {shape} with strides {stride}"


cdef char *dense(tensor, str what, char kind, ptrdiff_t size,
                 bint writable=False) except? NULL:
    """Where a tensor of `size` elements side by side lies; NULL for None."""
    cdef View v
    if tensor is None:
        return NULL
    look_at(&v, tensor, what, kind, True, writable)
    if n_elements(&v) != size or not is_dense(&v):
        raise ValueError(
            f"{what} must have {size} elements side by side, got {description(&v)}")
    return v.data


cdef tuple as_tuple(tensors, str what, ptrdiff_t n):
    """A sequence of n, which nobody can change meanwhile."""
    cdef tuple found = tuple(tensors)
    if len(found) != n:
        raise ValueError(f"{what} must be {n}, got {len(found)}")
    return found
