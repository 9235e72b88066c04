# SPDX-License-Identifier: BSD-3-Clause
"""Calls of Python from programs of XLA, on XLA's own buffers.

A program of XLA calls a *target*, a C function that is registered by name, with a frame
that says where operands and results lie (XLA's typed FFI; `xla/ffi/api/c_api.h`, which
jaxlib brings, has the structs).  The target here looks at every struct's size and at
every type before it reads, wraps the buffers as NumPy arrays without copies, and hands
them to a function of Python.  What that function raises becomes an error of XLA's, and
with it an exception where the program was called.

A thread that asks for the interpreter when that is ending gets killed, and XLA, which
waits for its threads, then waits for ever.  So at exit, before the interpreter begins
to end, calls that are under way are waited for, and later ones are refused.

Everything that is read has been in the API since its version 0.1, so the target says
that it is of XLA's own version where that is the older one: XLA refuses a target that
is newer than itself, and refuses to start at all if that one was registered first.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint32_t

import atexit
import time

import numpy as np

cdef extern from "Python.h":
    const int PyBUF_READ
    const int PyBUF_WRITE
    object PyMemoryView_FromMemory(char *memory, Py_ssize_t size, int flags)

cdef extern from "xla/ffi/api/c_api.h" nogil:
    enum:
        XLA_FFI_API_MAJOR
        XLA_FFI_API_MINOR
        XLA_FFI_Api_Version_STRUCT_SIZE
        XLA_FFI_Args_STRUCT_SIZE
        XLA_FFI_Attrs_STRUCT_SIZE
        XLA_FFI_Buffer_STRUCT_SIZE
        XLA_FFI_CallFrame_STRUCT_SIZE
        XLA_FFI_Error_Create_Args_STRUCT_SIZE
        XLA_FFI_Extension_Base_STRUCT_SIZE
        XLA_FFI_Rets_STRUCT_SIZE
        XLA_FFI_ArgType_BUFFER
        XLA_FFI_AttrType_STRING
        XLA_FFI_ExecutionStage_EXECUTE
        XLA_FFI_Extension_Metadata
        XLA_FFI_RetType_BUFFER
        XLA_FFI_DataType_PRED
        XLA_FFI_DataType_S32
        XLA_FFI_DataType_U32
        XLA_FFI_DataType_F32
        XLA_FFI_DataType_F64

    ctypedef enum XLA_FFI_Error_Code:
        XLA_FFI_Error_Code_CANCELLED
        XLA_FFI_Error_Code_INVALID_ARGUMENT
        XLA_FFI_Error_Code_RESOURCE_EXHAUSTED
        XLA_FFI_Error_Code_INTERNAL

    ctypedef struct XLA_FFI_Error:
        pass

    struct XLA_FFI_Error_Create_Args:
        size_t struct_size
        void *extension_start
        const char *message
        XLA_FFI_Error_Code errc

    struct XLA_FFI_Api_Version:
        size_t struct_size
        int major_version
        int minor_version

    ctypedef struct XLA_FFI_Api:
        XLA_FFI_Api_Version api_version
        XLA_FFI_Error *(*XLA_FFI_Error_Create)(
            XLA_FFI_Error_Create_Args *) noexcept nogil

    struct XLA_FFI_Buffer:
        size_t struct_size
        int dtype
        void *data
        int64_t rank
        int64_t *dims

    struct XLA_FFI_Args:
        size_t struct_size
        int64_t size
        int *types
        void **args

    struct XLA_FFI_Rets:
        size_t struct_size
        int64_t size
        int *types
        void **rets

    struct XLA_FFI_ByteSpan:
        const char *ptr
        size_t len

    struct XLA_FFI_Attrs:
        size_t struct_size
        int64_t size
        int *types
        XLA_FFI_ByteSpan **names
        void **attrs

    struct XLA_FFI_Extension_Base:
        size_t struct_size
        int type
        XLA_FFI_Extension_Base *next

    struct XLA_FFI_Metadata:
        size_t struct_size
        XLA_FFI_Api_Version api_version
        uint32_t traits

    struct XLA_FFI_Metadata_Extension:
        XLA_FFI_Metadata *metadata

    struct XLA_FFI_CallFrame:
        size_t struct_size
        XLA_FFI_Extension_Base *extension_start
        const XLA_FFI_Api *api
        int stage
        XLA_FFI_Args args
        XLA_FFI_Rets rets
        XLA_FFI_Attrs attrs

cdef extern from *:
    """
    #include <stddef.h>
    /* Metadata has grown since, and what follows its traits is not for this target. */
    #define FR_METADATA_SIZE \
        (offsetof(XLA_FFI_Metadata, traits) + sizeof(XLA_FFI_Handler_Traits))
    """
    const size_t FR_METADATA_SIZE

cdef extern from *:
    """
    static int fr_n_inside, fr_closed;

    static int fr_enter(void) {
        __atomic_add_fetch(&fr_n_inside, 1, __ATOMIC_SEQ_CST);
        return !__atomic_load_n(&fr_closed, __ATOMIC_SEQ_CST);
    }

    static void fr_leave(void) {
        __atomic_sub_fetch(&fr_n_inside, 1, __ATOMIC_SEQ_CST);
    }

    static void fr_close(void) {
        __atomic_store_n(&fr_closed, 1, __ATOMIC_SEQ_CST);
    }

    static int fr_is_inside(void) {
        return __atomic_load_n(&fr_n_inside, __ATOMIC_SEQ_CST);
    }
    """
    bint fr_enter() noexcept nogil
    void fr_leave() noexcept nogil
    void fr_close() noexcept nogil
    bint fr_is_inside() noexcept nogil

# The version of XLA's API that this module was built with.
VERSION = (XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR)

cdef object ndarray = np.ndarray
cdef dict DTYPES = {
    XLA_FFI_DataType_PRED: np.dtype(np.bool_),
    XLA_FFI_DataType_S32: np.dtype(np.int32),
    XLA_FFI_DataType_U32: np.dtype(np.uint32),
    XLA_FFI_DataType_F32: np.dtype(np.float32),
    XLA_FFI_DataType_F64: np.dtype(np.float64),
}
cdef object run = None  # what the target calls


def target():
    """The target for XLA to call, as a capsule for ``jax.ffi.register_ffi_target``."""
    return PyCapsule_New(<void *>handle, NULL, NULL)


def set_function(function):
    """Have the target call a function.

    Parameters
    ----------
    function : callable
        Called as ``function(call, operands, results)``, from any thread, several at
        once: with the bytes of the program's attribute `call`, a string, and with lists
        of arrays over XLA's memory, of which it writes `results`. It keeps none of
        them: their memory is XLA's again when it returns.

    Raises
    ------
    TypeError
        If `function` cannot be called.
    """
    global run
    if not callable(function):
        raise TypeError(
            f"set_function: function must be callable, got {type(function).__name__}")
    run = function


cdef XLA_FFI_Error *handle(XLA_FFI_CallFrame *frame) noexcept nogil:
    """The target: XLA asks it for its version, and then calls it for every stage."""
    cdef XLA_FFI_Error *error
    if frame.struct_size < XLA_FFI_CallFrame_STRUCT_SIZE:
        # Without a frame there is no way to return an error.  XLA does not come here:
        # it asks for the version first, and gets none.
        return NULL
    if frame.extension_start != NULL:
        if frame.extension_start.type == XLA_FFI_Extension_Metadata:
            tell_version(frame)
        return NULL
    if frame.stage != XLA_FFI_ExecutionStage_EXECUTE:
        return NULL
    if fr_enter():
        with gil:
            error = execute(frame)
    else:
        error = new_error(frame.api, XLA_FFI_Error_Code_CANCELLED, ENDING)
    fr_leave()
    return error


cdef void tell_version(XLA_FFI_CallFrame *frame) noexcept nogil:
    """Fill in what XLA wants to know of a target: its version and its traits."""
    cdef XLA_FFI_Metadata *metadata = (
        <XLA_FFI_Metadata_Extension *>frame.extension_start).metadata
    cdef int minor = 1  # XLA of that version does not say which one it is
    if metadata.struct_size < FR_METADATA_SIZE:
        return
    if frame.api != NULL:
        minor = min(XLA_FFI_API_MINOR, frame.api.api_version.minor_version)
    metadata.api_version.struct_size = XLA_FFI_Api_Version_STRUCT_SIZE
    metadata.api_version.major_version = XLA_FFI_API_MAJOR
    metadata.api_version.minor_version = minor
    metadata.traits = 0


cdef XLA_FFI_Error *execute(XLA_FFI_CallFrame *frame) noexcept:
    """Call the function of Python; what it raises is returned as an error of XLA's."""
    cdef XLA_FFI_Error_Code code
    cdef bytes message
    try:
        call_function(frame)
        return NULL
    except BaseException as error:
        code = (
            XLA_FFI_Error_Code_INVALID_ARGUMENT
            if isinstance(error, (ValueError, TypeError))
            else XLA_FFI_Error_Code_RESOURCE_EXHAUSTED
            if isinstance(error, MemoryError)
            else XLA_FFI_Error_Code_CANCELLED
            if isinstance(error, KeyboardInterrupt)
            else XLA_FFI_Error_Code_INTERNAL
        )
        message = f"{type(error).__name__}: {error}".encode("utf-8", "replace")
    return new_error(frame.api, code, message)


cdef const char *ENDING = b"the interpreter is ending"


cdef XLA_FFI_Error *new_error(const XLA_FFI_Api *api, XLA_FFI_Error_Code code,
                              const char *message) noexcept nogil:
    cdef XLA_FFI_Error_Create_Args args
    args.struct_size = XLA_FFI_Error_Create_Args_STRUCT_SIZE
    args.extension_start = NULL
    args.message = message
    args.errc = code
    return api.XLA_FFI_Error_Create(&args)


@atexit.register
def _close():
    """Wait for the calls that are under way, and refuse those that come later."""
    fr_close()
    while fr_is_inside():
        time.sleep(0.001)


cdef call_function(XLA_FFI_CallFrame *frame):
    cdef int64_t i
    cdef list operands = [], results = []
    if (frame.args.struct_size < XLA_FFI_Args_STRUCT_SIZE
            or frame.rets.struct_size < XLA_FFI_Rets_STRUCT_SIZE):
        raise SystemError("a call frame of XLA's that is smaller than what is known")
    for i in range(frame.args.size):
        if frame.args.types[i] != XLA_FFI_ArgType_BUFFER:
            raise TypeError(f"operand {i} must be a buffer of XLA's")
        operands.append(array_of(<XLA_FFI_Buffer *>frame.args.args[i], PyBUF_READ))
    for i in range(frame.rets.size):
        if frame.rets.types[i] != XLA_FFI_RetType_BUFFER:
            raise TypeError(f"result {i} must be a buffer of XLA's")
        results.append(array_of(<XLA_FFI_Buffer *>frame.rets.rets[i], PyBUF_WRITE))
    run(attribute_call(&frame.attrs), operands, results)


cdef bytes attribute_call(const XLA_FFI_Attrs *attrs):
    """The bytes of the attribute `call`, the only one."""
    cdef const XLA_FFI_ByteSpan *name
    cdef const XLA_FFI_ByteSpan *text
    if attrs.struct_size < XLA_FFI_Attrs_STRUCT_SIZE:
        raise SystemError("attributes of XLA's that are smaller than what is known")
    if attrs.size == 1 and attrs.types[0] == XLA_FFI_AttrType_STRING:
        name = attrs.names[0]
        if name.ptr[:name.len] == b"call":
            text = <XLA_FFI_ByteSpan *>attrs.attrs[0]
            return text.ptr[:text.len]
    raise TypeError("the only attribute must be a string with the name call")


cdef array_of(const XLA_FFI_Buffer *buffer, int flags):
    """A NumPy array over a buffer of XLA's, which has its elements in C order."""
    cdef int64_t i
    cdef Py_ssize_t n_bytes
    cdef list shape = []
    if buffer.struct_size < XLA_FFI_Buffer_STRUCT_SIZE:
        raise SystemError("a buffer of XLA's that is smaller than what is known")
    dtype = DTYPES.get(buffer.dtype)
    if dtype is None:
        raise TypeError(f"no arrays are made of XLA's type number {buffer.dtype}")
    n_bytes = dtype.itemsize
    for i in range(buffer.rank):
        shape.append(buffer.dims[i])
        n_bytes *= buffer.dims[i]
    if n_bytes == 0:  # of no elements, and XLA may give it no address
        return np.empty(shape, dtype)
    memory = PyMemoryView_FromMemory(<char *>buffer.data, n_bytes, flags)
    return ndarray(shape, dtype, memory)
