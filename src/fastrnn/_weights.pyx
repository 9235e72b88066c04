# SPDX-License-Identifier: BSD-3-Clause
"""What a recurrent layer keeps between calls: memory, and its weights packed.

Memory and packed weights are in use as long as somebody refers to them, and go back by
themselves: nothing needs to be given back by hand, and a context that is dropped
without a backward leaves no less behind than one that is spent.
"""

cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

import numpy as np

from fastrnn._capi cimport fr_cell_options, fr_pack_args
from fastrnn._core cimport Kernels, Options, address

from fastrnn import _core, _pool

LINE = _pool.ALIGNMENT


# -- memory ---------------------------------------------------------------------------

cdef ptrdiff_t round_up(ptrdiff_t n_bytes) noexcept nogil:
    """Whole cache lines."""
    return (n_bytes + LINE - 1) // LINE * LINE


@cython.final
cdef class Room:
    """Memory that a pool has made."""


@cython.final
@cython.no_gc  # __dealloc__ needs its attributes, and they lead to no Memory
@cython.freelist(16)
cdef class Memory:
    """The use of some bytes from the start of a cache line, until nobody refers to it.
    """

    def __dealloc__(self):
        self.pool.put(self.room)


@cython.final
cdef class MemoryPool:
    """Rooms that were in use and wait for the next call that needs one of their size.

    Fresh large arrays cost a page fault every 4 KiB when they are first written. A room
    may be up to twice as large as what is asked for, so that sequences of many lengths
    need few rooms.
    """

    def __init__(self, int most):
        self.free, self.most = [], most

    def __reduce__(self):
        return MemoryPool, (self.most,)  # a copy of a layer starts empty

    cdef Memory take(self, ptrdiff_t n_bytes):
        """At least `n_bytes`, contents arbitrary; from a room at most twice as large.
        """
        cdef Memory memory
        cdef Room room, best = None
        cdef Py_ssize_t at, best_at = -1, below = 0, below_at = -1
        with cython.critical_section(self):
            for at in range(len(self.free)):
                room = <Room>self.free[at]
                if n_bytes <= room.size <= 2 * n_bytes and (
                        best_at < 0 or room.size < best.size):
                    best, best_at = room, at
                if below < room.size < n_bytes:
                    below, below_at = room.size, at
            if best_at >= 0:
                del self.free[best_at]
            elif below_at >= 0:  # sequences got longer: what served them goes
                del self.free[below_at]
        if best_at < 0:
            best = Room.__new__(Room)
            best.array, best.size = _pool.aligned(n_bytes, np.uint8), n_bytes
            best.start = <char *>address(
                best.array, "memory", b"B", n_bytes, True)
        memory = Memory.__new__(Memory)
        memory.pool, memory.room, memory.start = self, best, best.start
        return memory

    cdef int put(self, Room room) except -1:
        with cython.critical_section(self):
            self.free.append(room)
            if len(self.free) > self.most:
                del self.free[0]
        return 0


# -- weights --------------------------------------------------------------------------

@cython.final
cdef class Layout:
    """Cells of a layer, in order, and where their parameters lie in its flat buffer.

    A cell's are weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, weight_ph, one after
    the other; the first layer has `I` inputs, the others what the directions of the one
    below put out: side by side, or one array's width where they are `merged`.
    """

    def __init__(self, str cell, ptrdiff_t I, ptrdiff_t H, int n_layers,
                 int n_directions, bint bias, Options options=None, bint merged=False,
                 double clip_value=0, double clip_norm=0):
        self.cell, self.I, self.H, self.bias = _core.CELLS[cell], I, H, bias
        self.S = options.proj_size if options is not None and options.proj_size else H
        self.options, self.merged = options, merged
        self.general = options is not None and options.general
        self.peephole = self.general and options.c.peephole
        self.clip_value, self.clip_norm = clip_value, clip_norm
        self.gates = 4 if cell == "lstm" else 3 if cell == "gru" else 1
        self.n_layers, self.n_directions = n_layers, n_directions
        self.n_cells = n_layers * n_directions
        self.n_states = 2 if cell == "lstm" else 1

    cdef ptrdiff_t inputs(self, int layer) noexcept nogil:
        if layer == 0:
            return self.I
        return self.S if self.merged else self.n_directions * self.S

    cdef ptrdiff_t size(self, int k) noexcept nogil:
        """Parameters of cell k."""
        cdef ptrdiff_t n = self.gates * self.H * (
            self.inputs(k // self.n_directions) + self.S + 2 * self.bias)
        if self.S != self.H:
            n += self.S * self.H
        return n + 3 * self.H * self.peephole

    cdef ptrdiff_t start(self, int k) noexcept nogil:
        """Parameters before those of cell k."""
        cdef ptrdiff_t n_first = min(k, self.n_directions)
        cdef ptrdiff_t n = n_first * self.size(0)
        return n if k == n_first else n + (k - n_first) * self.size(k)

    cdef void fill(self, fr_pack_args *a, int k, char *at,
                   ptrdiff_t itemsize) noexcept nogil:
        """Where the parameters of cell k are, which begin at `at`."""
        cdef ptrdiff_t GH = self.gates * self.H
        memset(a, 0, sizeof(a[0]))
        a.shape.cell, a.shape.H, a.shape.S = self.cell, self.H, self.S
        a.shape.I = self.inputs(k // self.n_directions)
        a.shape.options = self.cell_options()
        a.W, at = at, at + GH * a.shape.I * itemsize
        a.R, at = at, at + GH * self.S * itemsize
        if self.bias:
            a.b_ih, at = at, at + GH * itemsize
            a.b_hh, at = at, at + GH * itemsize
        if self.S != self.H:
            a.W_hr, at = at, at + self.S * self.H * itemsize
        if self.peephole:
            a.P = at

    cdef const fr_cell_options *cell_options(self) noexcept nogil:
        """NULL for the plain cell."""
        return &self.options.c if self.general else NULL


@cython.final
cdef class Packed:
    """The weights of one cell in the kernels' form, as they were at one moment."""


@cython.final
@cython.no_gc  # __dealloc__ needs its attributes, and they lead to no Use
cdef class Use:
    """The packed weights of all cells of a layer, for a call or a context.

    A context goes on using what it was given: its backward is the derivative of its
    forward even if an optimiser stepped in between.
    """

    def __dealloc__(self):
        cdef Packed packed
        with cython.critical_section(self.packer):
            for packed in self.cells:
                packed.users -= 1
        free(self.forward)


@cython.final
cdef class Packer:
    """Packs the weights of a layer, again only where they have changed.

    A user may write to a parameter at any time and through any view, so each call takes
    a fingerprint of the weights.
    """

    def __init__(self, Layout layout not None, MemoryPool pool not None):
        self.layout, self.pool = layout, pool
        self.packed = [None] * layout.n_cells

    @property
    def current(self):
        """What is packed of each cell at the moment."""
        return list(self.packed)

    cdef Use use(self, bint with_backward):
        """What is packed now; None if something is missing."""
        cdef int k, n = self.layout.n_cells
        cdef Packed packed
        cdef Use use
        with cython.critical_section(self):
            for packed in self.packed:
                if packed is None or (with_backward and packed.backward is None):
                    return None
            use = Use.__new__(Use)
            use.packer, use.cells = self, tuple(self.packed)
            for packed in use.cells:
                packed.users += 1
        use.forward = <void **>calloc(2 * n, sizeof(void *))
        if use.forward == NULL:
            raise MemoryError
        use.backward = use.forward + n
        for k in range(n):
            packed = <Packed>use.cells[k]
            use.forward[k] = packed.forward.start
            if packed.backward is not None:
                use.backward[k] = packed.backward.start
        return use

    def take(self, Kernels kernels not None, int n_threads, parameters,
             ptrdiff_t start, bint with_backward):
        """The `Use` of what is packed; None unless it is of these weights.

        Parameters
        ----------
        parameters : ndarray, 1-D
            Where the layer's begin at element `start`.
        with_backward : bool
            Whether it has to be there for backward as well.
        """
        cdef ptrdiff_t itemsize = 8 if kernels.kind == b"d" else 4
        cdef char *at = <char *>address(
            parameters, "parameters", kernels.kind,
            start + self.layout.start(self.layout.n_cells), False, True)
        cdef uint32_t found[FINGERPRINT_WORDS]
        cdef ptrdiff_t n_bytes
        cdef Packed packed
        cdef Use use = self.use(with_backward)
        cdef int k
        if use is None:
            return None
        at += start * itemsize
        for k in range(self.layout.n_cells):
            packed = <Packed>use.cells[k]
            if packed.table != kernels.table:
                return None
            n_bytes = self.layout.size(k) * itemsize
            with nogil:
                kernels.table.fingerprint(n_bytes, at, n_threads, found)
            if memcmp(found, packed.fingerprint, sizeof(found)) != 0:
                return None
            at += n_bytes
        return use

    def renew(self, Kernels kernels not None, int n_threads, parameters,
              ptrdiff_t start, bint with_backward):
        """Like `take`, having packed what was not; in one thread at a time."""
        cdef ptrdiff_t itemsize = 8 if kernels.kind == b"d" else 4
        cdef char *at = <char *>address(
            parameters, "parameters", kernels.kind,
            start + self.layout.start(self.layout.n_cells), False, True)
        cdef uint32_t found[FINGERPRINT_WORDS]
        cdef fr_pack_args a
        cdef ptrdiff_t n_bytes
        cdef Packed packed
        cdef Memory memory
        cdef int k
        at += start * itemsize
        for k in range(self.layout.n_cells):
            n_bytes = self.layout.size(k) * itemsize
            with nogil:
                kernels.table.fingerprint(n_bytes, at, n_threads, found)
                self.layout.fill(&a, k, at, itemsize)
                a.n_threads = n_threads
            packed = self.packed[k]
            if packed is not None and (
                    packed.table != kernels.table
                    or memcmp(found, packed.fingerprint, sizeof(found)) != 0):
                with cython.critical_section(self):
                    if packed.users == 0:
                        self.packed[k] = None
                packed = None  # its memory, unless in use, serves what comes now
            if packed is None:
                memory = self.pool.take(itemsize * kernels.table.packed_forward_size(
                    &a.shape))
                a.packed = memory.start
                with nogil:
                    kernels.table.pack_forward(&a)
                packed = Packed.__new__(Packed)
                packed.forward, packed.table = memory, kernels.table
                memcpy(packed.fingerprint, found, sizeof(found))
            if with_backward and packed.backward is None:
                memory = self.pool.take(itemsize * kernels.table.packed_backward_size(
                    &a.shape))
                a.packed = memory.start
                with nogil:
                    kernels.table.pack_backward(&a)
                packed.backward = memory
            self.packed[k] = packed
            at += n_bytes
        return self.use(with_backward)
