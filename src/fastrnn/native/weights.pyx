# SPDX-License-Identifier: BSD-3-Clause
"""Weights in the kernels' own forms, packed again only where they have changed.

A user may write to a parameter at any time and through any view, so a fingerprint tells
whether the numbers are still those that were packed.  Tensors have versions besides:
where one says that somebody wrote to a weight, there is nothing to compare.

A `Source` is where a layer's parameters lie: an array of all of them, or tensors.  A
`Packer` keeps what it packed last, one `PackedCell` for each cell, and a `Use` is what
one call, or one context, has of it.  These stand together, in a file longer than most,
because who may use or give back a form is one protocol of all of them.
"""

cimport cython
from libc.string cimport memcmp

from fastrnn.native.addresses cimport address, required, size_of
from fastrnn.native.calls cimport check_weights
from fastrnn.native.capi cimport FR_WHOLE, fr_kernels, fr_pack_args, fr_shape
from fastrnn.native.core cimport Kernels, team_of
from fastrnn.native.layout cimport N_PARTS, Layout, Parts
from fastrnn.native.memory cimport Loan, Pool
from fastrnn.native.sizes cimport check_start
from fastrnn.native.views cimport as_tuple, dense

from fastrnn.native import memory


cdef ptrdiff_t turns_from = 4 << 20


def set_turns_from(ptrdiff_t n_bytes):
    """Say how large a form is whose room both forms take in turns: see `PackedCell`.

    That holds for weights packed from now on; results are the same to the bit. Returns
    the number before.
    """
    global turns_from
    cdef ptrdiff_t before = turns_from
    if n_bytes < 0:
        raise ValueError(f"set_turns_from: n_bytes must be >= 0, got {n_bytes}")
    turns_from = n_bytes
    return before


# -- how weights are known again ------------------------------------------------------

@cython.final
@cython.freelist(8)
cdef class Source:
    """Where the parameters of a layer's cells lie, as they are now."""

    cdef int mark(self, int k, const fr_kernels *table, Marks *m) except -1:
        """Set where those of cell k lie, and their versions; no fingerprints."""
        cdef int i, j = k * self.layout.n_parts()
        m.table, m.n_fingerprints, m.counted = table, 0, self.versions is not None
        if self.tensors is None:
            self.layout.find(
                k, self.start + self.layout.start(k) * size_of(self.kind),
                size_of(self.kind), &m.parts)
            return 0
        self.layout.sizes(k, &m.parts)
        for i in range(N_PARTS):
            m.versions[i] = 0
            if m.parts.size[i] > 0:
                m.parts.at[i] = dense(
                    self.tensors[j], "a weight", self.kind, m.parts.size[i])
                if m.parts.at[i] == NULL:
                    raise TypeError("a weight must be a tensor, got None")
                if m.counted:
                    m.versions[i] = self.versions[j]
                j += 1
        return 0


cdef void take_fingerprints(Marks *m, bint side_by_side, ptrdiff_t itemsize,
                            int n_threads) noexcept nogil:
    """Of each part, or, where they lie side by side, of all of them as one."""
    cdef ptrdiff_t n = 0
    cdef int i
    m.n_fingerprints = 0
    for i in range(N_PARTS):
        if side_by_side:
            n += m.parts.size[i]
        elif m.parts.size[i] > 0:
            m.table.fingerprint(m.parts.size[i] * itemsize, m.parts.at[i], n_threads,
                                m.fingerprints[m.n_fingerprints])
            m.n_fingerprints += 1
    if side_by_side:
        m.table.fingerprint(n * itemsize, m.parts.at[0], n_threads, m.fingerprints[0])
        m.n_fingerprints = 1


cdef bint same_place(const Marks *a, const Marks *b) noexcept nogil:
    return memcmp(a.parts.at, b.parts.at, sizeof(a.parts.at)) == 0


cdef bint may_be_same(const Marks *a, const Marks *b) noexcept nogil:
    """Whether nothing but a fingerprint could tell that the weights have changed."""
    if a.table != b.table or a.counted != b.counted:
        return False
    return not a.counted or (same_place(a, b) and memcmp(
        a.versions, b.versions, sizeof(a.versions)) == 0)


cdef bint same_content(const Marks *a, const Marks *b) noexcept nogil:
    """Whether the weights are known to be the same numbers."""
    return (a.n_fingerprints > 0 and a.n_fingerprints == b.n_fingerprints
            and memcmp(a.fingerprints, b.fingerprints,
                       a.n_fingerprints * sizeof(a.fingerprints[0])) == 0)


# -- what is packed -------------------------------------------------------------------

@cython.final
cdef class PackedCell:
    """The weights of one cell in the kernels' forms, as they were at one moment.

    Both are made for a forward in training, unless they are large (`set_turns_from`):
    then backward makes its form, in the forward form's room if nobody needs that any
    more. An optimiser changes the weights before the next forward, so neither form is
    packed more often, and a cell's weights are held twice instead of three times. For
    smaller weights that would not pay: what it saves is less than the memory that any
    process has anyway, and each backward would read the weights once more, to see that
    they have not changed. Another forward with the weights of such a backward makes a
    forward form in a room of its own, and from then on there are both.
    """

    @staticmethod
    cdef PackedCell make(const Marks *m, const fr_shape *shape, ptrdiff_t itemsize):
        """Of the weights that these are the marks of, without forms."""
        cdef PackedCell self = PackedCell.__new__(PackedCell)
        self.marks = m[0]
        self.turns = m.table.packed_forward_size(shape) * itemsize >= turns_from
        return self

    cdef Loan room(self, Pool pool, const fr_shape *shape, ptrdiff_t itemsize,
                   bint backward):
        """Room for a form, or for either."""
        cdef ptrdiff_t sizes[2]
        sizes[0] = self.marks.table.packed_forward_size(shape) * itemsize
        sizes[1] = self.marks.table.packed_backward_size(shape) * itemsize
        return pool.take(max(sizes[0], sizes[1]) if self.turns else sizes[backward])

    cdef int add_forward(self, owner, Pool pool, fr_pack_args *a,
                         ptrdiff_t itemsize) except -1:
        """Make the forward form of the parameters at `a`, unless there is one."""
        cdef Loan room
        if self.forward is not None:
            return 0
        room = self.room(pool, &a.shape, itemsize, False)
        a.packed = room.start
        with nogil:
            self.marks.table.pack_forward(a)
        with cython.critical_section(owner):
            if self.forward is None:  # nobody else was faster
                self.forward = room
        return 0

    cdef int add_backward(self, owner, Pool pool, fr_pack_args *a, ptrdiff_t itemsize,
                          bint same, bint in_turn) except -1:
        """Make the backward form, unless there is one.

        Parameters
        ----------
        owner
            Of the lock on the counts of users.
        same : bool
            The parameters at `a` are those of the forward form, or there is none. If
            not, the numbers come from the forward form, and the caller is a user.
        in_turn : bool
            The caller, a user, will not need the forward form again: its room is taken
            if there are no other users.
        """
        cdef Loan room = None, source = None
        if self.backward is not None:
            return 0
        with cython.critical_section(owner):
            source = self.forward
            if in_turn and same and self.users == 1:
                room, self.forward = self.forward, None
        if room is None:
            room = self.room(pool, &a.shape, itemsize, True)
        if not same:
            if source is None:
                raise ValueError("backward: the weights of the forward are gone")
            a.forward = source.start
        a.packed = room.start
        with nogil:
            self.marks.table.pack_backward(a)
        with cython.critical_section(owner):
            if self.backward is None:  # nobody else was faster
                self.backward = room
        return 0


@cython.final
@cython.no_gc  # __dealloc__ needs its attributes, and they lead to no Use
@cython.freelist(8)
cdef class Use:
    """The packed weights of all cells of a layer, for a call or a context.

    A context goes on using what it was given: its backward is the derivative of its
    forward even if an optimiser stepped in between. A backward may leave no forward
    form; of a context that needs both together, `keep_forward` says so.
    """

    def __dealloc__(self):
        cdef PackedCell cell
        if self.cells is not None:
            with cython.critical_section(self.packer):
                for cell in self.cells:
                    cell.users -= 1

    def keep_forward(self):
        """Forward will run again after a part of backward."""
        self.runs_again = True

    def can_run_again(self, int first, Use kept not None):
        """Whether cells from `first` on can run forward with the weights of `kept`.

        They can in `kept` itself as long as no backward took the room of their forward
        forms, and else in what was packed of the same numbers.
        """
        cdef int k
        cdef bint same = True
        cdef PackedCell cell, other
        if self.packer is None or kept.packer is None:
            raise ValueError("can_run_again: a Use comes from a Packer")
        if not 0 <= first < self.packer.layout.n_cells:
            raise ValueError(f"can_run_again: no such cell: {first}")
        if kept.packer is not self.packer:
            return False
        for k in range(first, len(self.cells)):
            cell, other = self.cell(k), kept.cell(k)
            same = same and cell.forward is not None and (
                cell is other or same_content(&cell.marks, &other.marks))
        return same

    def make_backward(self, Kernels kernels not None, int n_threads, tensors):
        """What a backward over tensors reads; there is no forward after that.

        Parameters
        ----------
        tensors : sequence of tensor
            The weights, which may have changed since `Packer.take_tensors`.
        """
        n_threads = team_of("make_backward", n_threads)
        if self.packer is None:
            raise ValueError("make_backward: a Use comes from a Packer")
        if self.kernels is not kernels:
            raise ValueError("make_backward: packed by other kernels than given")
        if kernels.weights != FR_WHOLE:
            raise ValueError("make_backward: weights must be whole")
        self.add_backward_from(
            0, len(self.cells), n_threads,
            self.packer.in_tensors(kernels, tensors, None))

    cdef PackedCell cell(self, int k):
        return <PackedCell>self.cells[k]

    cdef char *packed_at(self, int k, bint backward) except NULL:
        """Where a form of cell k lies."""
        cdef PackedCell cell = self.cell(k)
        cdef Loan form = cell.backward if backward else cell.forward
        if form is None:  # another thread's backward took it after `check_forms`
            raise ValueError("use must have the forms of its cells for this call")
        return form.start

    cdef int check(self, str who, Layout layout, Kernels kernels) except -1:
        """Whether these are the weights of this layout's layers, for these kernels."""
        if self.packer is None or self.packer.layout is not layout:
            raise ValueError(f"{who}: use must be of the weights of the plan's layout")
        if self.kernels is not kernels:
            raise ValueError(f"{who}: use must be of the plan's kernels")
        return 0

    cdef int check_forms(self, str who, int first, int n, bint backward) except -1:
        """Whether the forms of n cells are there."""
        cdef int k
        for k in range(first, first + n):
            if backward and self.cell(k).backward is None:
                raise ValueError(f"{who}: use must have what make_backward makes")
            if not backward and self.cell(k).forward is None:
                raise ValueError(
                    f"{who}: a backward took the forward form of use: call its "
                    f"keep_forward() before that")
        return 0

    cdef int add_backward(self, int first, int n, int n_threads) except -1:
        """Make the backward forms of n cells that have none, of weights in an array."""
        cdef int k
        for k in range(first, first + n):
            if self.cell(k).backward is None:
                if self.parameters is None:
                    raise ValueError("backward: use must be of weights in an array")
                self.add_backward_from(first, n, n_threads, self.packer.in_array(
                    self.kernels, self.parameters, self.start))
                break
        return 0

    cdef int add_backward_from(self, int first, int n, int n_threads,
                               Source now) except -1:
        """Make the backward forms of n cells that have none.

        Weights that have not changed since are read again, and the forward form, which
        nobody needs then, gives its room. Otherwise the forward form has the numbers.
        """
        cdef ptrdiff_t itemsize = size_of(self.kernels.kind)
        cdef fr_pack_args a
        cdef Marks m
        cdef PackedCell cell
        cdef bint alone, in_turn
        cdef int k
        for k in range(first, first + n):
            cell = self.cell(k)
            if cell.backward is not None:
                continue
            alone = cell.forward is None
            in_turn = (not alone and cell.turns and cell.users == 1
                       and not self.runs_again)
            now.mark(k, cell.marks.table, &m)
            if alone and not same_place(&m, &cell.marks):
                raise ValueError("make_backward: tensors must be those of take_tensors")
            if in_turn:
                with nogil:
                    take_fingerprints(&m, now.tensors is None, itemsize, n_threads)
                in_turn = same_content(&m, &cell.marks)
            self.packer.layout.describe(&a, k, &m.parts)
            a.shape.half, a.n_threads = self.kernels.table.half, n_threads
            cell.add_backward(self.packer, self.packer.pool, &a, itemsize,
                              alone or in_turn, in_turn)
        return 0


@cython.final
cdef class Packer:
    """Packs the weights of a layer for calls from any number of threads.

    Parameters
    ----------
    layout : Layout
    pool : memory.Pool
        Of the memory that packed weights lie in.
    """

    def __cinit__(self, Layout layout not None, Pool pool not None):
        self.layout, self.pool = layout, pool
        self.packed = [None] * layout.n_cells
        memory.lock_anew(self)

    def __reduce__(self):
        return Packer, (self.layout, self.pool)  # a copy starts empty

    @property
    def current(self):
        """What is packed of each cell at the moment: a `PackedCell` or None."""
        with cython.critical_section(self):
            return list(self.packed)

    def take(self, Kernels kernels not None, int n_threads, parameters,
             ptrdiff_t start, bint with_backward):
        """The `Use` of the weights as they are now, in an array.

        Parameters
        ----------
        parameters : ndarray, 1-D
            Where the layer's begin at element `start`. Backward may read them again, so
            nobody may write to them while it runs; before, anybody may.
        with_backward : bool
            Whether a backward will use it too.
        """
        cdef Source source = self.in_array(kernels, parameters, start)
        cdef Use use
        cdef Marks m
        cdef int at = -1
        n_threads = team_of("Packer", n_threads)
        use = self.find(source, kernels, n_threads, True, with_backward, &m, &at)
        if use is None:
            with self._lock:
                use = self.make(
                    source, kernels, n_threads, True, with_backward, &m, at)
        use.parameters, use.start = parameters, start
        return use

    def take_packed(self, Kernels kernels not None, forms not None):
        """The `Use` of forward forms that the caller has packed.

        Parameters
        ----------
        kernels : Kernels
            For weights of fewer bytes, of which there is no other form.
        forms : sequence of memory.Loan
            For each cell what `single.pack_quantized` has written.
        """
        cdef Use use = Use.__new__(Use)
        cdef PackedCell cell
        cdef fr_pack_args a
        cdef Parts parts
        cdef Loan form
        cdef int k
        if kernels.weights == FR_WHOLE:
            raise ValueError("take_packed: kernels must be for weights of fewer bytes")
        forms = as_tuple(forms, "forms", self.layout.n_cells)
        use.packer, use.kernels, use.cells = self, kernels, []
        for k in range(self.layout.n_cells):
            self.layout.sizes(k, &parts)
            self.layout.describe(&a, k, &parts)
            check_weights(
                "take_packed", kernels, self.layout.of, &a.shape, self.layout.options)
            form = <Loan?>forms[k]
            if form.size != size_of(kernels.kind) * (
                    kernels.table.quantized_packed_size(&a.shape, kernels.weights)):
                raise ValueError(
                    f"take_packed: form {k} must be what this cell's weights take, got "
                    f"{form.size} bytes")
            cell = PackedCell.__new__(PackedCell)
            cell.forward, cell.users = form, 1
            use.cells.append(cell)
        return use

    def take_tensors(self, Kernels kernels not None, int n_threads, tensors, versions,
                     bint forward, bint backward):
        """The `Use` of the weights as they are now, in tensors.

        Parameters
        ----------
        tensors : sequence of tensor
            Contiguous, of the sizes of the layout; weight_ih, weight_hh, the biases if
            there are any and weight_hr if there is one, cell after cell.
        versions : sequence of int, or None
            Of each tensor; -1 where nobody counts them. None where the numbers alone
            say which weights these are, wherever they lie.
        forward, backward : bool
            What it is for: a plan's `forward`; `Use.make_backward`, sooner or later.
        """
        cdef Source source
        cdef Use use
        cdef Marks m
        cdef int at = -1
        n_threads = team_of("Packer", n_threads)
        if versions is not None:
            versions = as_tuple(
                versions, "versions", self.layout.n_cells * self.layout.n_parts())
        source = self.in_tensors(kernels, tensors, versions)
        use = self.find(source, kernels, n_threads, forward, backward, &m, &at)
        if use is None:
            with self._lock:
                use = self.make(source, kernels, n_threads, forward, backward, &m, at)
        return use

    cdef Source in_array(self, Kernels kernels, parameters, ptrdiff_t start):
        """Parameters that begin at an array's element `start`."""
        cdef Source source = Source.__new__(Source)
        source.layout, source.kind = self.layout, kernels.kind
        source.start = <char *>address(
            required(parameters, "parameters"), "parameters", kernels.kind,
            check_start("parameters", start) + self.layout.start(self.layout.n_cells),
            False, True) + start * size_of(kernels.kind)
        return source

    cdef Source in_tensors(self, Kernels kernels, tensors, versions):
        """Parameters that are tensors."""
        cdef Source source = Source.__new__(Source)
        source.layout, source.kind = self.layout, kernels.kind
        source.tensors = as_tuple(
            tensors, "tensors", self.layout.n_cells * self.layout.n_parts())
        source.versions = versions
        return source

    cdef int drop(self, Use use) except -1:
        """Take back the last cell of a use."""
        cdef PackedCell cell
        with cython.critical_section(self):
            cell = use.cells.pop()
            cell.users -= 1
        return 0

    cdef Use find(self, Source source, Kernels kernels, int n_threads, bint forward,
                  bint backward, Marks *m, int *at):
        """What is packed now; None unless it is all that is wanted.

        Parameters
        ----------
        m, at : pointers
            Written where a fingerprint says that a cell's weights have changed: their
            marks, and which cell it is. `make` need not read these weights again.
        """
        cdef ptrdiff_t itemsize = size_of(kernels.kind)
        cdef Use use = Use.__new__(Use)
        cdef PackedCell cell
        cdef bint fits
        cdef int k
        use.packer, use.kernels, use.cells = self, kernels, []
        for k in range(self.layout.n_cells):
            with cython.critical_section(self):
                cell = <PackedCell>self.packed[k]
                fits = cell is not None and not (forward and cell.forward is None) and (
                    not backward or cell.turns or cell.backward is not None)
                if fits:
                    cell.users += 1  # from now on no backward takes its forward form
                    use.cells.append(cell)
            if not fits:
                return None
            source.mark(k, kernels.table, m)
            if cell.marks.n_fingerprints == 0 or not may_be_same(m, &cell.marks):
                return None
            with nogil:
                take_fingerprints(m, source.tensors is None, itemsize, n_threads)
            if not same_content(m, &cell.marks):
                at[0] = k
                return None
        return use

    cdef Use make(self, Source source, Kernels kernels, int n_threads, bint forward,
                  bint backward, const Marks *found, int at):
        """As `find`, having packed what was not; in one thread at a time."""
        cdef ptrdiff_t itemsize = size_of(kernels.kind)
        cdef bint side_by_side = source.tensors is None
        cdef Use use = Use.__new__(Use)
        cdef fr_pack_args a
        cdef PackedCell cell
        cdef Marks m
        cdef bint may
        cdef int k
        use.packer, use.kernels, use.cells = self, kernels, []
        for k in range(self.layout.n_cells):
            if k == at:
                m = found[0]
            else:
                source.mark(k, kernels.table, &m)
            self.layout.describe(&a, k, &m.parts)
            a.shape.half, a.n_threads = kernels.table.half, n_threads
            with cython.critical_section(self):
                cell = <PackedCell>self.packed[k]
                if cell is not None:
                    cell.users += 1
                    use.cells.append(cell)
            may = cell is not None and may_be_same(&m, &cell.marks)
            if k != at and (may or not m.counted):
                with nogil:
                    take_fingerprints(&m, side_by_side, itemsize, n_threads)
            if cell is not None and not (may and same_content(&m, &cell.marks)):
                self.drop(use)
                with cython.critical_section(self):
                    self.packed[k] = None
                cell = None  # its memory, unless in use, serves what comes now
            if cell is None:
                cell = PackedCell.make(&m, &a.shape, itemsize)
                cell.users = 1
                use.cells.append(cell)
                if backward and cell.turns and cell.marks.n_fingerprints == 0:
                    with nogil:  # `make_backward` will ask for them
                        take_fingerprints(
                            &cell.marks, side_by_side, itemsize, n_threads)
            if forward:
                cell.add_forward(self, self.pool, &a, itemsize)
            if backward and not cell.turns:
                cell.add_backward(self, self.pool, &a, itemsize, True, False)
            with cython.critical_section(self):
                self.packed[k] = cell
        return use
