# SPDX-License-Identifier: BSD-3-Clause
"""The C kernels as Python calls: pointers in, one nogil call, nothing decided here.

`kernels(dtype)` gives the table of the active target.  Its methods are those of its
entries that work on flat arrays and on matrices; cells are run by `arrays`, `tensors`
and `single`, optimisers by `optimizers`.  Whatever the arguments are, a call reads and
writes nothing but the arrays that it was given: sizes that do not fit them, indices and
products of sizes that wrap around are refused here (`sizes.pxd` has the bounds).
Shapes that make sense are the caller's business: `fastrnn.util.checks` has the rules.
Longer than most files, because all C that is compiled once is linked to this module.
"""

import contextlib
import os
import warnings

import numpy as np

from libc.stdint cimport int64_t, uint32_t, uint64_t

from fastrnn.native.addresses cimport address, address_of_work, required, size_of
from fastrnn.native.capi cimport *
from fastrnn.native.sizes cimport MOST_ROWS, MOST_TILE, check_threads, product
from fastrnn.native.sizes cimport MOST_THREADS as _most_threads


STACK = FR_STACK  # bytes that a kernel may use on each thread
MOST_THREADS = _most_threads


cdef ptrdiff_t level2 = 0


def set_level2_bytes(ptrdiff_t n_bytes):
    """Say how much level-2 cache each thread has, for calls planned from now on.

    0 is for not known. Threads are grouped by that; results are the same to the bit.
    Returns the number before.
    """
    global level2
    cdef ptrdiff_t before = level2
    if n_bytes < 0:
        raise ValueError(f"set_level2_bytes: n_bytes must be >= 0, got {n_bytes}")
    level2 = n_bytes
    return before


cdef ptrdiff_t level2_bytes() noexcept nogil:
    return level2


# Calls get fewer threads than they ask for while an observer says that it is faster.
cdef double LOOK = 0.01  # seconds of calls after which it is asked
cdef object observer = None
cdef bint observed = False
cdef int limit = _most_threads


def set_observer(observe):
    """Let `observe` say how many threads calls get, or nobody, if it is None.

    It is called at the beginning of some calls, with the number of threads that the
    call may use, and what other calls of this thread took: the number of threads that
    these had, how many they were, their seconds, how many of those their threads waited
    for each other, and their floating-point operations. It returns a number of threads.
    """
    global observer, observed, limit
    observer, observed, limit = observe, observe is not None, _most_threads


# No call gets more, whatever number of threads it was made for.
cdef int most = _most_threads


def set_most_threads(int n):
    """Let no call have more than `n` threads, made before or not; returns what it was.

    In a process whose OpenMP threads did not survive a fork it is 1.
    """
    global most
    cdef int before = most
    most = check_threads("set_most_threads", n)
    return before


cdef int allowed(int n_threads) noexcept nogil:
    """How many threads a call gets that may use `n_threads`."""
    return min(n_threads, limit, most)


cdef double began(int n_threads, double flops) noexcept nogil:
    """When a call began, or 0 where nobody wants to know.

    `flops` are its operations if it is a forward. Few are not shared among threads.
    """
    if n_threads == 1 or not observed or flops < 2 * FR_FLOPS_PER_THREAD:
        return 0
    return fr_seconds()


cdef void ended(double since, int n_threads, double flops) noexcept nogil:
    """Note what a call took that had `n_threads` threads."""
    if since > 0:
        fr_pace_add(n_threads, fr_seconds() - since, flops)


cdef int observe(int n_threads) except -1:
    global limit
    cdef fr_pace pace
    cdef int n
    if observed and fr_pace_take(LOOK, &pace):
        n = observer(n_threads, pace.n_threads, pace.calls, pace.seconds,
                     pace.waited, pace.flops)
        if n < 1:
            raise ValueError(f"an observer must return a number of threads, got {n}")
        limit = n
    return 0


cdef int team_of(str who, int n_threads) except -1:
    """`n_threads`, once it is known to be a team's size, and that there can be one."""
    return team(check_threads(who, n_threads))


cdef int team(int n_threads) except -1:
    """How many threads a call gets, once it is known that it can have `n_threads`.

    A call whose parts must all be done or none asks before the first of them.
    """
    cdef fr_team_report report
    cdef int state
    report.alone, n_threads = 0, min(n_threads, most)
    state = fr_team_prepare(n_threads, &report)
    if report.alone > 0:
        warnings.warn(
            f"{report.alone} call(s) ran on one thread: there was no memory to start "
            "the others again", RuntimeWarning, stacklevel=1)
    if state == FR_TEAM_NO_MEMORY:
        raise MemoryError(f"no memory to start {n_threads} threads")
    if state == FR_TEAM_NO_THREADS:
        raise RuntimeError(
            f"{n_threads} threads are more than the system lets this process start; "
            "fastrnn.set_num_threads sets how many a call uses")
    if state == FR_TEAM_SMALL_STACK:
        raise RuntimeError(
            f"a call needs {report.needed} bytes of stack, and its thread has "
            f"{report.found} left; threading.stack_size sets what new threads get")
    if state == FR_TEAM_SMALL_STACKS:
        raise RuntimeError(
            f"a call needs {report.needed} bytes of stack on each of its threads, and "
            f"one that OpenMP made has {report.found}: set OMP_STACKSIZE to 64k or "
            "more before Python starts, or let calls use one thread: "
            "fastrnn.set_num_threads(1), torch.set_num_threads(1) for fastrnn.torch")
    if n_threads > 1:
        observe(n_threads)
    return allowed(n_threads)


def prepare(int n_threads):
    """See that this thread's calls can have so many threads, or say why not."""
    team_of("prepare", n_threads)


def system_level2_bytes():
    """Level-2 cache of a CPU as the system tells C; 0 where it does not."""
    return fr_level2_bytes()


def system_allowed_cpus():
    """CPUs that this process may use as the system tells C; 0 where it does not."""
    return fr_allowed_cpus()


def stack_left():
    """Bytes left on the calling thread's stack; very many where nobody can tell."""
    return fr_stack_left()


cdef check_indices(str what, const int64_t *indices, ptrdiff_t n, ptrdiff_t size,
                   int64_t also):
    """Indices must be in [0, size) or `also`, or memory is not safe."""
    cdef ptrdiff_t i
    for i in range(n):
        if not 0 <= indices[i] < size and indices[i] != also:
            raise ValueError(f"{what} must be in [0, {size}), got {indices[i]}")


cdef fr_embedding_args embedding(int n_threads, ptrdiff_t n, ptrdiff_t rows,
                                 ptrdiff_t width, indices, int64_t padding) except *:
    """What both directions of the embedding share."""
    cdef fr_embedding_args a
    if n < 0 or min(rows, width) < 1:
        raise ValueError(
            f"embedding: n >= 0, rows, width >= 1, got {(n, rows, width)}")
    product("embedding", n, width)
    product("embedding", rows, width)
    a.n, a.rows, a.width = n, rows, width
    a.n_threads, a.padding = team_of("embedding", n_threads), padding
    a.indices = <const int64_t *>address(indices, "indices", b"q", n, False)
    return a


cdef int check_linear(ptrdiff_t N, ptrdiff_t I, ptrdiff_t O) except -1:
    """Sizes of a fully connected layer; a kernel divides by I and O."""
    if N < 0 or min(I, O) < 1 or max(I, O) > MOST_ROWS:
        raise ValueError(
            f"linear: N must be >= 0 and I, O in [1, {MOST_ROWS}], got {(N, I, O)}")
    product("linear", N + MOST_TILE, I + MOST_TILE)
    product("linear", N, O)
    product("linear", I + MOST_TILE, O + MOST_TILE)
    return 0


cdef fr_extent extent_of(int n_threads, ptrdiff_t n, spans) except *:
    """All n elements, or those in ascending spans; the caller keeps `spans`."""
    cdef fr_extent a
    cdef ptrdiff_t i, m, before = 0
    a.n, a.n_spans, a.spans = n, 0, NULL
    a.n_threads = team_of("a flat array", n_threads)
    if spans is not None:
        m = len(spans)
        a.spans = <const int64_t *>address(spans, "spans", b"q", 2 * m, False)
        a.n_spans = m
        for i in range(2 * m):
            if not before <= a.spans[i] <= n:
                raise ValueError(f"spans must ascend within [0, {n}], got {a.spans[i]}")
            before = a.spans[i]
    return a


cdef object _made_here = object()  # what `Kernels` are made with


cdef class Kernels:
    """The kernel table of one target and one dtype.

    With `half`, products round their operands to bfloat16. Some run layers with weights
    of fewer bytes than an element has, in inference: those of `WEIGHTS`.
    """

    def __cinit__(self, *only_here):
        if only_here != (_made_here,):
            raise TypeError("Kernels: kernels(dtype) gives those that there are")

    @staticmethod
    cdef Kernels wrap(const fr_kernels *table, int weights):
        cdef Kernels self = Kernels.__new__(Kernels, _made_here)
        self.table = table
        self.target = table.target.decode()
        self.dtype = table.dtype.decode()
        self.kind = b"d" if self.dtype == "float64" else b"f"
        self.lanes, self.half, self.weights = table.lanes, table.half, weights
        return self

    def fingerprint(self, x not None, int n_threads=1):
        """256 bytes that differ for another content of the 1-D array x."""
        cdef ptrdiff_t n = len(x)
        cdef const void *px = address(x, "x", self.kind, n, False)
        cdef uint32_t result[64]
        team_of("fingerprint", n_threads)
        n *= 8 if self.kind == b"d" else 4
        with nogil:
            self.table.fingerprint(n, px, n_threads, result)
        return (<char *>result)[:sizeof(result)]

    def linear_work_size(self, bint backward, ptrdiff_t N, ptrdiff_t I, ptrdiff_t O,
                         int n_threads):
        """Elements of scratch that `linear_forward` or `linear_backward` needs."""
        check_linear(N, I, O)
        check_threads("linear_work_size", n_threads)
        return self.table.linear_work_size(
            self.table.half, backward, N, I, O, n_threads)

    def linear_forward(self, int n_threads, ptrdiff_t N, ptrdiff_t I, ptrdiff_t O,
                       x, W, b, y, work):
        """``y = x W^T + b`` for x (N, I), W (O, I), b (O,) or None."""
        cdef fr_linear_args a
        cdef double since, flops = 2.0 * N * I * O
        check_linear(N, I, O)
        a.half = self.table.half
        a.n_threads, a.N, a.I, a.O = team_of("linear", n_threads), N, I, O
        a.x = address(required(x, "x"), "x", self.kind, N * I, False)
        a.W = address(required(W, "W"), "W", self.kind, O * I, False)
        a.b = address(b, "b", self.kind, O, False)
        a.y = address(required(y, "y"), "y", self.kind, N * O, True)
        a.work = address_of_work(work, "work", self.kind,
                                 self.linear_work_size(False, N, I, O, n_threads))
        with nogil:
            since = began(n_threads, flops)
            self.table.linear_forward(&a)
            ended(since, a.n_threads, flops)

    def linear_backward(self, int n_threads, ptrdiff_t N, ptrdiff_t I, ptrdiff_t O,
                        x, W, dy, dx, dW, db, work):
        """``dx = dy W``, ``dW += dy^T x``, ``db += dy.sum(0)``; each may be None."""
        cdef fr_linear_args a
        cdef double since, flops = 2.0 * N * I * O
        check_linear(N, I, O)
        a.half = self.table.half
        a.n_threads, a.N, a.I, a.O = team_of("linear", n_threads), N, I, O
        a.x = address(required(x, "x"), "x", self.kind, N * I, False)
        a.W = address(required(W, "W"), "W", self.kind, O * I, False)
        a.dy = address(required(dy, "dy"), "dy", self.kind, N * O, False)
        a.dx = address(dx, "dx", self.kind, N * I, True)
        a.dW = address(dW, "dW", self.kind, O * I, True)
        a.db = address(db, "db", self.kind, O, True)
        a.work = address_of_work(work, "work", self.kind,
                                 self.linear_work_size(True, N, I, O, n_threads))
        with nogil:
            since = began(n_threads, flops)
            self.table.linear_backward(&a)
            ended(since, a.n_threads, 2 * flops)

    cdef int check_quantized(self, str who, ptrdiff_t N, ptrdiff_t I,
                             ptrdiff_t O) except -1:
        if self.weights == FR_WHOLE:
            raise ValueError(f"{who}: kernels must be for weights of fewer bytes")
        return check_linear(N, I, O)

    def quantized_linear_packed_size(self, ptrdiff_t I, ptrdiff_t O):
        """Elements that `pack_quantized_linear` writes."""
        self.check_quantized("quantized_linear_packed_size", 0, I, O)
        return self.table.quantized_linear_packed_size(I, O, self.weights)

    def pack_quantized_linear(self, ptrdiff_t I, ptrdiff_t O, W, W_scale, b, packed):
        """Bring a weight (O, I) of fewer bytes into the form that calls read.

        It is int8 with a scale for each row, (O,), or uint16 with the upper halves of
        float32 numbers, and no scales. b is (O,) or None.
        """
        cdef fr_quantized_linear_args a
        cdef ptrdiff_t size = self.quantized_linear_packed_size(I, O)
        cdef bint is_int8 = self.weights == FR_INT8
        if (W_scale is None) == is_int8:
            raise ValueError("W_scale is given for int8, and for no other weights")
        a.kind, a.n_threads, a.N, a.I, a.O = self.weights, 1, 0, I, O
        a.W = address(
            required(W, "W"), "W", b"b" if is_int8 else b"H", O * I, False)
        a.W_scale = address(W_scale, "W_scale", self.kind, O, False)
        a.b = address(b, "b", self.kind, O, False)
        a.packed = address(required(packed, "packed"), "packed", self.kind, size, True)
        with nogil:
            self.table.pack_quantized_linear(&a)

    def quantized_linear_work_size(self, ptrdiff_t I, int n_threads):
        """Elements of scratch that `quantized_linear` needs."""
        self.check_quantized("quantized_linear_work_size", 0, I, 1)
        check_threads("quantized_linear_work_size", n_threads)
        return self.table.quantized_linear_work_size(I, n_threads, self.weights)

    def quantized_linear(self, int n_threads, ptrdiff_t N, ptrdiff_t I, ptrdiff_t O,
                         x, packed, y, work):
        """``y = x W^T + b`` for x (N, I), and W and b as they were packed."""
        cdef fr_quantized_linear_args a
        cdef double since, flops = 2.0 * N * I * O
        self.check_quantized("quantized_linear", N, I, O)
        a.kind, a.N, a.I, a.O = self.weights, N, I, O
        a.n_threads = team_of("quantized_linear", n_threads)
        a.x = address(required(x, "x"), "x", self.kind, N * I, False)
        a.packed = address(required(packed, "packed"), "packed", self.kind,
                           self.quantized_linear_packed_size(I, O), False)
        a.y = address(required(y, "y"), "y", self.kind, N * O, True)
        a.work = address_of_work(work, "work", self.kind,
                                 self.quantized_linear_work_size(I, n_threads))
        with nogil:
            since = began(n_threads, flops)
            self.table.quantized_linear(&a)
            ended(since, a.n_threads, flops)

    def activation(self, str name not None, x not None, y not None):
        """``y = f(x)`` with f the kernels' "sigmoid" or "tanh", as `name` says."""
        cdef ptrdiff_t n = len(x)
        cdef const void *px = address(x, "x", self.kind, n, False)
        cdef void *py = address(y, "y", self.kind, n, True)
        cdef fr_activation_kind kind = FR_TANH if name == "tanh" else FR_SIGMOID
        if name not in ("sigmoid", "tanh"):
            raise ValueError(
                f"activation: name must be 'sigmoid' or 'tanh', got {name!r}")
        with nogil:
            self.table.activation(kind, n, px, py)

    def fma_peak(self, int n_threads, ptrdiff_t n):
        """Floating-point operations in n rounds of FMAs on n_threads threads."""
        cdef double operations
        team_of("fma_peak", n_threads)
        if n < 0:
            raise ValueError(f"fma_peak: n must be >= 0, got {n}")
        with nogil:
            operations = self.table.fma_peak(n_threads, n)
        return operations

    def norm(self, int n_threads, x not None, double power, spans=None):
        """``(sum |x|^power)^(1/power)``, power > 0; the largest |x| for inf.

        spans: (begin, end) of the stretches that may be other than zero; None: all.
        """
        cdef fr_extent extent = extent_of(n_threads, len(x), spans)
        cdef const void *px = address(x, "x", self.kind, extent.n, False)
        cdef double result
        if not power > 0:
            raise ValueError(f"norm: power must be > 0, got {power}")
        with nogil:
            result = self.table.norm(&extent, px, power)
        return result

    def scale(self, int n_threads, x not None, double factor, spans=None):
        """``x *= factor``, within the spans."""
        cdef fr_extent extent = extent_of(n_threads, len(x), spans)
        cdef void *px = address(x, "x", self.kind, extent.n, True)
        with nogil:
            self.table.scale(&extent, px, factor)

    def clamp(self, int n_threads, x not None, double limit, spans=None):
        """Bring every element of x, within the spans, into [-limit, limit]."""
        cdef fr_extent extent = extent_of(n_threads, len(x), spans)
        cdef void *px = address(x, "x", self.kind, extent.n, True)
        with nogil:
            self.table.clamp(&extent, px, limit)

    def clear(self, int n_threads, x not None, spans=None):
        """``x = 0``, within the spans."""
        cdef fr_extent extent = extent_of(n_threads, len(x), spans)
        cdef void *px = address(x, "x", self.kind, extent.n, True)
        with nogil:
            self.table.clear(&extent, px)

    def cross_entropy(self, int n_threads, ptrdiff_t rows, ptrdiff_t classes,
                      logits not None, targets not None, int64_t ignore_index,
                      double weight, dlogits not None):
        """``weight`` times the sum over rows; ``dlogits`` written."""
        cdef fr_cross_entropy_args a
        cdef double loss
        if rows < 0 or classes < 1:
            raise ValueError(
                f"cross_entropy: rows >= 0, classes >= 1, got {(rows, classes)}")
        product("cross_entropy", rows, classes)
        a.rows, a.classes = rows, classes
        a.n_threads = team_of("cross_entropy", n_threads)
        a.logits = address(logits, "logits", self.kind, rows * classes, False)
        a.targets = <const int64_t *>address(targets, "targets", b"q", rows, False)
        a.dlogits = address(dlogits, "dlogits", self.kind, rows * classes, True)
        a.ignore_index, a.weight = ignore_index, weight
        check_indices("targets", a.targets, rows, classes, ignore_index)
        with nogil:
            loss = self.table.cross_entropy(&a)
        return loss

    def mse(self, int n_threads, ptrdiff_t n, prediction not None, target not None,
            double weight, dprediction not None):
        """``weight`` times the sum of squared errors; ``dprediction`` written."""
        cdef fr_mse_args a
        cdef double loss
        if n < 0:
            raise ValueError(f"mse: n must be >= 0, got {n}")
        a.n, a.n_threads, a.weight = n, team_of("mse", n_threads), weight
        a.prediction = address(prediction, "prediction", self.kind, n, False)
        a.target = address(target, "target", self.kind, n, False)
        a.dprediction = address(dprediction, "dprediction", self.kind, n, True)
        with nogil:
            loss = self.table.mse(&a)
        return loss

    def embedding_forward(self, int n_threads, ptrdiff_t n, ptrdiff_t rows,
                          ptrdiff_t width, indices not None, weight not None,
                          y not None, bint with_none=False):
        """``y[i] = weight[indices[i]]``; `with_none`, zero where the index is -1."""
        cdef fr_embedding_args a
        a = embedding(n_threads, n, rows, width, indices, -1)
        a.weight = address(weight, "weight", self.kind, rows * width, False)
        a.y = address(y, "y", self.kind, n * width, True)
        check_indices("indices", a.indices, n, rows, -1 if with_none else 0)
        with nogil:
            self.table.embedding_forward(&a)

    def embedding_backward(self, int n_threads, ptrdiff_t n, ptrdiff_t rows,
                           ptrdiff_t width, indices not None, int64_t padding,
                           dy not None, dweight not None):
        """``dweight[indices[i]] += dy[i]`` where ``indices[i] != padding``."""
        cdef fr_embedding_args a
        a = embedding(n_threads, n, rows, width, indices, padding)
        a.dy = address(dy, "dy", self.kind, n * width, False)
        a.dweight = address(dweight, "dweight", self.kind, rows * width, True)
        check_indices("indices", a.indices, n, rows, padding)
        with nogil:
            self.table.embedding_backward(&a)

    def dropout(self, int n_threads, uint64_t seed, double p, x not None, y not None,
                ptrdiff_t block=0, ptrdiff_t first=0, ptrdiff_t stride=0):
        """``y = x / (1 - p)``, or 0 with probability p; `seed` fixes which.

        `x` and `y` may have any shape, and may be the same array. They may be part of a
        larger array: `block` elements from `first` on, so many `stride` elements
        further on, and so forth. 0 for `block` is all of `x`.
        """
        cdef fr_dropout_args a
        if not 0 <= p <= 1:
            raise ValueError(f"dropout: p must be in [0, 1], got {p}")
        a.n = memoryview(x).nbytes // size_of(self.kind)
        a.n_threads, a.p, a.seed = team_of("dropout", n_threads), p, seed
        if block < 0 or first < 0 or stride < 0:
            raise ValueError(
                "dropout: block, first and stride must be >= 0, got "
                f"{block}, {first} and {stride}")
        a.block, a.first, a.stride = block or a.n, first, stride
        a.x = address(x, "x", self.kind, a.n, False)
        a.y = address(y, "y", self.kind, a.n, True)
        with nogil:
            self.table.dropout(&a)


# Weights of fewer bytes than an element has: see `kernels`.
WEIGHTS = {"int8": FR_INT8, "bfloat16": FR_TWO_BYTES}


def _supported():
    cdef int i
    for i in range(fr_n_targets()):
        if fr_target_supported(i):
            by_name = {
                "float32": Kernels.wrap(fr_target_kernels(i, FR_FLOAT32), FR_WHOLE),
                "float64": Kernels.wrap(fr_target_kernels(i, FR_FLOAT64), FR_WHOLE),
            }
            by_dtype = {np.dtype(name): one for name, one in by_name.items()}
            half = {
                "bfloat16": Kernels.wrap(fr_target_kernels(i, FR_BFLOAT16), FR_WHOLE)
            }
            small = {
                ("float32", name): Kernels.wrap(fr_target_kernels(i, FR_FLOAT32), kind)
                for name, kind in WEIGHTS.items()
            }
            tables = _Tables(i, by_name | by_dtype | half | small)
            yield fr_target_name(i).decode(), tables


class _Tables(dict):
    """The tables of target `index`; that of "bfloat16-fast" is found when asked for.

    The process asks the system for AMX's registers then, and not before.
    """

    def __init__(self, index, tables):
        super().__init__(tables)
        self.index = index

    def __missing__(self, key):
        cdef const fr_kernels *table
        if key != "bfloat16-fast":
            raise KeyError(key)
        table = fr_target_kernels(self.index, FR_BFLOAT16_FAST)
        fast = plain = self["bfloat16"]
        if table != (<Kernels?>plain).table:
            fast = Kernels.wrap(table, FR_WHOLE)
        return self.setdefault(key, fast)


BUILT = tuple(fr_target_name(i).decode() for i in range(fr_n_targets()))
_tables = dict(_supported())
SUPPORTED = tuple(_tables)
COMPILER = fr_compiler().decode()
# Whose threads the kernels run on: "OpenMP", "fastrnn", or "" in a build without any.
THREADING = fr_threading().decode()


def openmp_processors():
    """Processors that OpenMP has for its threads; 0 in a build without it."""
    return fr_openmp_processors()


def openmp_max_threads():
    """Threads that the OpenMP runtime has for regions that this thread begins.

    Programs change it by ``omp_set_num_threads``, as `threadpoolctl` and PyTorch do.
    Without OpenMP there is no such limit, and the number is the largest there is.
    """
    return fr_openmp_max_threads()


def openmp_is_shared():
    """Whether another library here needs the OpenMP runtime that the kernels use."""
    return bool(fr_openmp_is_shared())


def _choose():
    name = os.environ.get("FASTRNN_ISA")
    if not name:
        return next(
            fr_target_name(i).decode() for i in range(fr_n_targets())
            if fr_target_supported(i) and not fr_target_slow(i))
    if name not in _tables:
        reason = "this processor cannot run" if name in BUILT else "not a built target"
        raise ImportError(
            f"FASTRNN_ISA={name!r}: {reason}; valid here: {', '.join(SUPPORTED)}")
    return name


_active = _tables[_choose()]


def kernels(dtype, weights=None):
    """The active target's kernels for float32 or float64: a name or a NumPy dtype.

    "bfloat16" names those for float32 arrays that round the operands of products, and
    "bfloat16-fast" those that also sum in the order that is the fastest here. For
    float32, `weights` is one of `WEIGHTS` where a cell's take fewer bytes.

    Working out a dtype's name takes longer than clearing a small layer's gradients.
    """
    if weights is None:
        return _active[dtype]
    fr_tiles()  # asked for now, before anybody looks at stacks
    return _active[dtype, weights]


def active_target():
    """Name of the target in use."""
    return next(name for name, one in _tables.items() if one is _active)


@contextlib.contextmanager
def use_isa(name):
    """Run the body on target `name`; for tests, not thread-safe."""
    global _active
    if name not in _tables:
        raise ValueError(f"use_isa: name must be one of {SUPPORTED}, got {name!r}")
    before = _active
    _active = _tables[name]
    try:
        yield
    finally:
        _active = before
