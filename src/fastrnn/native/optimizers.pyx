# SPDX-License-Identifier: BSD-3-Clause
"""One step of an optimiser over a flat buffer, or over some rows of a table."""

from libc.stdint cimport int64_t

from fastrnn.native.addresses cimport address, required
from fastrnn.native.capi cimport (
    FR_N_RATES, FR_N_STATE, fr_adagrad_args, fr_adam_args, fr_rmsprop_args, fr_rows,
    fr_sgd_args, fr_step,
)
from fastrnn.native.core cimport Kernels, team_of
from fastrnn.native.sizes cimport product

N_RATES = FR_N_RATES


cdef class TableRows:
    """TableRows of a table, for an optimiser to bring forward to step `now`.

    `rows` ascend; `seen` has the steps that each row of the table has taken, and
    `rates`, (capacity, N_RATES), those of step t at t % capacity. All steps but the
    last have gradient zero, the last one, too, unless `with_gradient`.
    """

    cdef fr_rows c
    cdef ptrdiff_t size
    cdef object rows, seen, rates

    def __cinit__(self, ptrdiff_t width, rows not None, seen not None, int64_t now,
                  rates not None, bint with_gradient):
        if width < 1:
            raise ValueError(f"TableRows: width must be >= 1, got {width}")
        if now < 0:
            raise ValueError(f"TableRows: now must be >= 0, got {now}")
        self.rows, self.seen, self.rates = rows, seen, rates
        self.c.width, self.c.now, self.c.with_gradient = width, now, with_gradient
        self.look()

    cdef int look(self) except -1:
        """Find the arrays and check what is in them."""
        cdef ptrdiff_t i, n = len(self.rows), size = len(self.seen)
        cdef int64_t row, before = -1, now = self.c.now
        self.size = product("TableRows", size, self.c.width)
        self.c.n, self.c.capacity = n, len(self.rates)
        self.c.rows = <const int64_t *>address(self.rows, "rows", b"q", n, False)
        self.c.seen = <int64_t *>address(self.seen, "seen", b"q", size, True)
        if self.c.capacity < 1:
            raise ValueError("TableRows: rates must be those of one step at least")
        for i in range(n):
            row = self.c.rows[i]
            if not before < row < size:
                raise ValueError(
                    f"TableRows: rows must ascend in [0, {size}), got {row}")
            if not max(0, now - self.c.capacity) <= self.c.seen[row]:
                raise ValueError(
                    f"TableRows: row {row} has seen {self.c.seen[row]} steps, and only "
                    f"the last {self.c.capacity} of {now} are known")
            before = row
        return 0

    cdef const fr_rows *checked(self, char kind, ptrdiff_t P) except NULL:
        """The struct, once the table is known to have P elements."""
        self.look()  # the arrays may have changed since
        if self.size != P:
            raise ValueError(
                f"TableRows: the table has {self.size} elements, and p {P}")
        self.c.rates = address(self.rates, "rates", kind,
                               self.c.capacity * FR_N_RATES, False)
        return &self.c


cdef fr_step step(Kernels kernels, int n_threads, p, g, state, str names, rates,
                  double weight_decay, bint maximize, TableRows rows) except *:
    """What all optimisers share; `names` says which state each of `state` is."""
    cdef fr_step a
    cdef int i
    a.P = len(p)
    a.n_threads = team_of("step", n_threads)
    a.maximize = maximize
    a.p = address(p, "p", kernels.kind, a.P, True)
    a.g = address(g, "g", kernels.kind, a.P, False)
    a.weight_decay = weight_decay
    rates, state = tuple(rates), tuple(state)
    for i in range(FR_N_RATES):
        a.rates[i] = rates[i] if i < len(rates) else 0
    a.rows = NULL
    if rows is not None:
        a.rows = rows.checked(kernels.kind, a.P)
    expected = names.split()
    if len(state) != len(expected):
        raise ValueError(f"state must be {names}, got {len(state)} arrays")
    for i in range(FR_N_STATE):
        a.state[i] = NULL
        if i < len(expected):
            what = expected[i].rstrip("?")
            if what == expected[i]:
                required(state[i], what)
            a.state[i] = address(state[i], what, kernels.kind, a.P, True)
    return a


def sgd(Kernels kernels not None, int n_threads, p not None, g not None, state, rates,
        double weight_decay, bint maximize, double momentum, double dampening,
        bint nesterov, bint first, TableRows rows=None):
    """One step of SGD; state: buffer, None without momentum; rates: lr."""
    cdef fr_sgd_args a
    a.step = step(kernels, n_threads, p, g, state, "buffer?", rates, weight_decay,
                  maximize, rows)
    a.momentum, a.dampening = momentum, dampening
    a.nesterov, a.first = nesterov, first
    with nogil:
        kernels.table.sgd(&a)


def rmsprop(Kernels kernels not None, int n_threads, p not None, g not None, state,
            rates, double weight_decay, bint maximize, double alpha, double eps,
            double momentum, TableRows rows=None):
    """One step of RMSprop; state: square, mean (or None), buffer (or None)."""
    cdef fr_rmsprop_args a
    a.step = step(kernels, n_threads, p, g, state, "square mean? buffer?", rates,
                  weight_decay, maximize, rows)
    a.alpha, a.eps, a.momentum = alpha, eps, momentum
    with nogil:
        kernels.table.rmsprop(&a)


def adagrad(Kernels kernels not None, int n_threads, p not None, g not None, state,
            rates, double weight_decay, bint maximize, double eps,
            TableRows rows=None):
    """One step of Adagrad; state: sum of squares; rates: lr, decayed already."""
    cdef fr_adagrad_args a
    a.step = step(kernels, n_threads, p, g, state, "square", rates, weight_decay,
                  maximize, rows)
    a.eps = eps
    with nogil:
        kernels.table.adagrad(&a)


def adam(Kernels kernels not None, int n_threads, p not None, g not None, state, rates,
         double weight_decay, bint maximize, double beta1, double beta2, double eps,
         TableRows rows=None):
    """One step of Adam or AdamW; state: mean, square, largest (or None).

    rates: lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t), and what p is multiplied by.
    """
    cdef fr_adam_args a
    a.step = step(kernels, n_threads, p, g, state, "mean square largest?", rates,
                  weight_decay, maximize, rows)
    a.beta1, a.beta2, a.eps = beta1, beta2, eps
    with nogil:
        kernels.table.adam(&a)
