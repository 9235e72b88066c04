# SPDX-License-Identifier: BSD-3-Clause
"""What a recurrent layer keeps between calls: memory, and its weights packed.

Memory and packed weights are in use as long as somebody refers to them, and go back by
themselves: nothing needs to be given back by hand, and a context that is dropped
without a backward leaves no less behind than one that is spent.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

import numpy as np

from fastrnn.native.capi cimport fr_cell, fr_cell_options, fr_kernels, fr_pack_args, fr_shape
from fastrnn.native.core cimport Kernels, Options, address, cell_at, size_of, team
from fastrnn.native.sizes cimport MOST_CELLS, check_shape, check_start, check_threads

from fastrnn.native import core, memory

LINE = memory.ALIGNMENT


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

    Its buffer is those bytes: an array over it refers to it.
    """

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.start, self.size, False, flags)

    def __dealloc__(self):
        if self.pool is not None:
            self.pool.put(self.room, self.size)


cdef enum:
    WINDOW = 64  # takes: what none of so many needed goes
    ALWAYS = 1 << 20  # bytes that may be free in any case


@cython.final
cdef class MemoryPool:
    """Rooms that were in use and wait for the next call that needs one of their size.

    Fresh large arrays cost a page fault every 4 KiB when they are first written. A room
    may be up to twice as large as what is asked for, so that sequences of many lengths
    need few rooms.

    All rooms together, free or in use, are at most twice what was in use at once in
    the last calls (between `WINDOW` and twice as many), or `ALWAYS` more than what is
    in use: the rooms that were free the longest go first. All are gone when nobody
    refers to the pool or to memory from it.
    """

    def __cinit__(self, int most):
        if most < 0:
            raise ValueError(f"MemoryPool: most must be >= 0, got {most}")
        self.free, self.most = [], most

    def __reduce__(self):
        return MemoryPool, (self.most,)  # a copy of a layer starts empty

    @property
    def held(self):
        """Bytes that were asked for and are in use, and those of rooms that are free.
        """
        with cython.critical_section(self):
            return self.in_use + self.free_bytes

    cpdef Memory take(self, ptrdiff_t n_bytes):
        """At least `n_bytes`, contents arbitrary; from a room at most twice as large.
        """
        cdef Memory taken
        cdef Room room, best = None
        cdef Py_ssize_t at, best_at = -1, below = 0, below_at = -1
        if n_bytes < 0:
            raise ValueError(f"take: n_bytes must be >= 0, got {n_bytes}")
        with cython.critical_section(self):
            for at in range(len(self.free)):
                room = <Room>self.free[at]
                if n_bytes <= room.size <= 2 * n_bytes and (
                        best_at < 0 or room.size < best.size):
                    best, best_at = room, at
                if below < room.size < n_bytes:
                    below, below_at = room.size, at
            if best_at < 0:
                best_at = below_at  # sequences got longer: what served them goes
            if best_at >= 0:
                room = <Room>self.free.pop(best_at)
                self.free_bytes -= room.size
            self.trim(n_bytes)
        if best is None:
            best = Room.__new__(Room)
            best.array, best.size = memory.aligned(n_bytes, np.uint8), n_bytes
            best.start = <char *>address(
                best.array, "memory", b"B", n_bytes, True)
        with cython.critical_section(self):
            self.count(n_bytes)
        taken = Memory.__new__(Memory)
        taken.pool, taken.room, taken.start = self, best, best.start
        taken.size = n_bytes
        return taken

    cdef int count(self, ptrdiff_t n_bytes) except -1:
        """Note that so many bytes more are in use."""
        self.takes += 1
        if self.takes == WINDOW:
            self.takes, self.peak_before, self.peak = 0, self.peak, self.in_use
        self.in_use += n_bytes
        self.peak = max(self.peak, self.in_use)
        return 0

    cdef int trim(self, ptrdiff_t coming) except -1:
        """Let free rooms go until there are no more than the class says.

        Parameters
        ----------
        coming : ptrdiff_t
            Bytes that will be in use besides those that are.
        """
        cdef ptrdiff_t in_use = self.in_use + coming
        cdef ptrdiff_t most = max(self.peak, self.peak_before, in_use)
        most = max(2 * most - in_use, ALWAYS)
        while self.free_bytes > most or len(self.free) > self.most:
            self.free_bytes -= (<Room>self.free.pop(0)).size
        return 0

    cdef int put(self, Room room, ptrdiff_t n_bytes) except -1:
        """Take back a room of which so many bytes were in use."""
        with cython.critical_section(self):
            self.in_use -= n_bytes
            self.free.append(room)
            self.free_bytes += room.size
            self.trim(0)
        return 0


# -- weights --------------------------------------------------------------------------

@cython.final
cdef class Layout:
    """Cells of a layer, in order, and where their parameters lie in its flat buffer.

    A cell's are weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, weight_ph, one after
    the other; the first layer has `I` inputs, the others what the directions of the one
    below put out: side by side, or one array's width where they are `merged`.
    """

    def __cinit__(self, str cell not None, ptrdiff_t I, ptrdiff_t H, int n_layers,
                  int n_directions, bint bias, Options options=None,
                  bint merged=False, double clip_value=0, double clip_norm=0):
        cdef fr_shape widest
        cdef const fr_cell *of
        self.made_of = (cell, I, H, n_layers, n_directions, bias, options, merged,
                        clip_value, clip_norm)
        if cell not in core.CELLS:
            raise ValueError(
                f"Layout: cell must be among {', '.join(core.CELLS)}, got {cell!r}")
        if n_directions not in (1, 2) or not 1 <= n_layers <= MOST_CELLS // 2:
            raise ValueError(
                f"Layout: n_directions must be 1 or 2 and n_layers in "
                f"[1, {MOST_CELLS // 2}], got {(n_directions, n_layers)}")
        self.cell, self.I, self.H, self.bias = core.CELLS[cell], I, H, bias
        of = cell_at("Layout", self.cell)
        self.gates, self.n_states = of.n_gates, of.n_states
        if options is not None:
            options.check("Layout", of, H)
        self.S = options.proj_size if options is not None and options.proj_size else H
        self.options, self.merged = options, merged
        self.general = options is not None and options.general
        self.peephole = self.general and options.c.peephole
        self.clip_value, self.clip_norm = clip_value, clip_norm
        self.n_layers, self.n_directions = n_layers, n_directions
        self.n_cells = n_layers * n_directions
        memset(&widest, 0, sizeof(widest))
        widest.T = widest.B = 1
        widest.I, widest.H = I, H
        check_shape("Layout", &widest, self.n_cells)
        widest.I = max(I, n_directions * self.S)
        check_shape("Layout", &widest, self.n_cells)

    def __reduce__(self):
        return Layout, self.made_of

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
    """The weights of one cell in the kernels' forms, as they were at one moment.

    Both are made for a forward in training, unless they are large (`TURNS_FROM` on):
    then backward makes its form, in the forward form's room if nobody needs that any
    more. An optimiser changes the weights before the next forward, so neither form is
    packed more often, and a cell's weights are held twice instead of three times. What
    smaller ones would save is less than what a process has anyway, and the weights
    would be read once more, to see that they have not changed. Another forward with the
    weights of such a backward makes a forward form in a room of its own, and from then
    on there are both.
    """

    @staticmethod
    cdef Packed make(const fr_kernels *table, const fr_shape *shape,
                     ptrdiff_t itemsize):
        """Of a cell, without forms."""
        cdef Packed self = Packed.__new__(Packed)
        self.table = table
        self.turns = table.packed_forward_size(shape) * itemsize >= TURNS_FROM
        return self

    cdef Memory room(self, MemoryPool pool, const fr_shape *shape, ptrdiff_t itemsize,
                     bint backward):
        """Room for a form, or for either."""
        cdef ptrdiff_t sizes[2]
        sizes[0] = self.table.packed_forward_size(shape) * itemsize
        sizes[1] = self.table.packed_backward_size(shape) * itemsize
        return pool.take(max(sizes[0], sizes[1]) if self.turns else sizes[backward])

    cdef int add_forward(self, owner, MemoryPool pool, fr_pack_args *a,
                         ptrdiff_t itemsize) except -1:
        """Make the forward form of the parameters at `a`, unless there is one."""
        cdef Memory room
        if self.forward is not None:
            return 0
        room = self.room(pool, &a.shape, itemsize, False)
        a.packed = room.start
        with nogil:
            self.table.pack_forward(a)
        with cython.critical_section(owner):
            if self.forward is None:  # nobody else was faster
                self.forward = room
        return 0

    cdef int add_backward(self, owner, MemoryPool pool, fr_pack_args *a,
                          ptrdiff_t itemsize, bint same, bint in_turn) except -1:
        """Make the backward form, unless there is one.

        Parameters
        ----------
        owner
            Of the lock on the counts of users.
        same : bool
            The parameters at `a` are those of the forward form, or there is none. If
            not, the numbers come from the forward form, and the caller is a user.
        in_turn : bool
            The caller, a user, will not need the forward form again.

        Returns
        -------
        bint
            Whether the forward form is gone: in turn, if there are no other users.
        """
        cdef Memory room = None
        cdef bint gone = False
        if self.backward is not None:
            return False
        with cython.critical_section(owner):
            if in_turn and same and self.users == 1:
                room, self.forward, gone = self.forward, None, True
        if room is None:
            gone, room = False, self.room(pool, &a.shape, itemsize, True)
        if not same:
            a.forward = self.forward.start
        a.packed = room.start
        with nogil:
            self.table.pack_backward(a)
        with cython.critical_section(owner):
            if self.backward is None:  # nobody else was faster
                self.backward = room
        return gone


@cython.final
@cython.no_gc  # __dealloc__ needs its attributes, and they lead to no Use
cdef class Use:
    """The packed weights of all cells of a layer, for a call or a context.

    A context goes on using what it was given: its backward is the derivative of its
    forward even if an optimiser stepped in between. A backward may leave no forward
    form; of a context that needs both together, `keep_forward` says so.
    """

    def __dealloc__(self):
        cdef Packed packed
        if self.cells is not None:
            with cython.critical_section(self.packer):
                for packed in self.cells:
                    packed.users -= 1
        free(self.forward)

    def keep_forward(self):
        """Forward will run again after a part of backward."""
        self.runs_again = True

    cdef int check(self, str who, Layout layout, Kernels kernels) except -1:
        """Whether these are the weights of this layout's layers, for these kernels."""
        if self.packer is None or self.packer.layout is not layout:
            raise ValueError(f"{who}: use must be of the weights of the plan's layout")
        if self.kernels is not kernels:
            raise ValueError(f"{who}: use must be of the plan's kernels")
        return 0

    cdef int check_forward(self, str who, int first, int n) except -1:
        """Whether the forward forms of n cells are there."""
        cdef int k
        for k in range(first, first + n):
            if self.forward[k] == NULL:
                raise ValueError(
                    f"{who}: a backward took the forward form of use: call its "
                    f"keep_forward() before that")
        return 0

    cdef int make_backward(self, int first, int n, int n_threads) except -1:
        """The backward form of n cells."""
        cdef Layout layout = self.packer.layout
        cdef char kind = self.kernels.kind
        cdef const fr_kernels *table = self.kernels.table
        cdef ptrdiff_t itemsize = size_of(kind)
        cdef uint32_t found[FINGERPRINT_WORDS]
        cdef ptrdiff_t n_bytes
        cdef char *at
        cdef bint in_turn
        cdef fr_pack_args a
        cdef Packed packed
        cdef int k
        for k in range(first, first + n):
            if self.backward[k] != NULL:
                continue
            packed = <Packed>self.cells[k]
            if packed.backward is None:
                at = <char *>address(
                    self.parameters, "parameters", kind,
                    self.start + layout.start(layout.n_cells), False, True)
                at += (self.start + layout.start(k)) * itemsize
                layout.fill(&a, k, at, itemsize)
                a.n_threads = n_threads
                in_turn = packed.turns and packed.users == 1 and not self.runs_again
                if in_turn:
                    n_bytes = layout.size(k) * itemsize
                    with nogil:
                        table.fingerprint(n_bytes, at, n_threads, found)
                    in_turn = memcmp(found, packed.fingerprint, sizeof(found)) == 0
                if packed.add_backward(self.packer, self.packer.pool, &a, itemsize,
                                       in_turn, in_turn):
                    self.forward[k] = NULL
            self.backward[k] = packed.backward.start
        return 0


@cython.final
cdef class Packer:
    """Packs the weights of a layer, again only where they have changed.

    A user may write to a parameter at any time and through any view, so each call takes
    a fingerprint of the weights.
    """

    def __cinit__(self, Layout layout not None, MemoryPool pool not None):
        self.layout, self.pool = layout, pool
        self.packed = [None] * layout.n_cells

    @property
    def current(self):
        """What is packed of each cell at the moment."""
        return list(self.packed)

    cdef char *locate(self, str who, Kernels kernels, int n_threads, parameters,
                      ptrdiff_t start) except NULL:
        """Where the array begins in which the layer's parameters begin at `start`."""
        check_threads(who, n_threads)
        if parameters is None:
            raise TypeError(f"{who}: parameters must be an array, got None")
        return <char *>address(
            parameters, "parameters", kernels.kind,
            check_start("parameters", start) + self.layout.start(self.layout.n_cells),
            False, True)

    cdef Use use(self, Kernels kernels, parameters, ptrdiff_t start,
                 bint with_backward):
        """What is packed now; None if something is missing."""
        cdef int k, n = self.layout.n_cells
        cdef Packed packed
        cdef Use use
        with cython.critical_section(self):
            for packed in self.packed:
                if packed is None or packed.forward is None or (
                        with_backward and packed.backward is None
                        and not packed.turns):
                    return None
            use = Use.__new__(Use)
            use.packer = self
            use.kernels, use.parameters, use.start = kernels, parameters, start
            for packed in self.packed:
                packed.users += 1
            use.cells = tuple(self.packed)
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
            Where the layer's begin at element `start`. Backward may read them again, so
            nobody may write to them while it runs; before, anybody may.
        with_backward : bool
            Whether a backward will use it too.
        """
        cdef ptrdiff_t itemsize = size_of(kernels.kind)
        cdef char *at = self.locate("Packer", kernels, n_threads, parameters, start)
        cdef uint32_t found[FINGERPRINT_WORDS]
        cdef ptrdiff_t n_bytes
        cdef Packed packed
        cdef Use use = self.use(kernels, parameters, start, with_backward)
        cdef int k
        team(n_threads)
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
        cdef ptrdiff_t itemsize = size_of(kernels.kind)
        cdef char *at = self.locate("Packer", kernels, n_threads, parameters, start)
        cdef uint32_t found[FINGERPRINT_WORDS]
        cdef fr_pack_args a
        cdef ptrdiff_t n_bytes
        cdef Packed packed
        cdef Use use = None
        cdef char *cell
        cdef int k
        at += start * itemsize
        while use is None:  # a backward may take a form's room meanwhile
            cell = at
            for k in range(self.layout.n_cells):
                n_bytes = self.layout.size(k) * itemsize
                with nogil:
                    kernels.table.fingerprint(n_bytes, cell, n_threads, found)
                    self.layout.fill(&a, k, cell, itemsize)
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
                    packed = Packed.make(kernels.table, &a.shape, itemsize)
                    memcpy(packed.fingerprint, found, sizeof(found))
                packed.add_forward(self, self.pool, &a, itemsize)
                if with_backward and not packed.turns:
                    packed.add_backward(self, self.pool, &a, itemsize, True, False)
                self.packed[k] = packed
                cell += n_bytes
            use = self.use(kernels, parameters, start, with_backward)
        return use
