# SPDX-License-Identifier: BSD-3-Clause
"""The cells of a layer, and where the parameters of each lie."""

cimport cython
from libc.string cimport memset

from fastrnn.native.capi cimport fr_cell, fr_cell_options, fr_pack_args, fr_shape
from fastrnn.native.celltable cimport (
    CellOptions, biased_of, cell_at, gates_of, norms_of, vectors_of,
)
from fastrnn.native.sizes cimport MOST_CELLS, check_shape

from fastrnn.native import celltable


@cython.final
cdef class Layout:
    """Cells of a layer, in order, and where their parameters lie in its flat buffer.

    A cell's are weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, and vectors of
    weights such as weight_ph, and those of a norm, as far as it has them, one after
    the other; the first layer has `I` inputs, the others what the directions of the one
    below put out: side by side, or one array's width where they are `merged`.
    """

    def __cinit__(self, str cell not None, ptrdiff_t I, ptrdiff_t H, int n_layers,
                  int n_directions, bint bias, CellOptions options=None,
                  bint merged=False, double clip_value=0, double clip_norm=0):
        cdef fr_shape widest
        cdef const fr_cell *of
        self.made_of = (cell, I, H, n_layers, n_directions, bias, options, merged,
                        clip_value, clip_norm)
        if cell not in celltable.CELLS:
            raise ValueError(
                f"Layout: cell must be among {', '.join(celltable.CELLS)}, "
                f"got {cell!r}")
        if n_directions not in (1, 2) or not 1 <= n_layers <= MOST_CELLS // 2:
            raise ValueError(
                f"Layout: n_directions must be 1 or 2 and n_layers in "
                f"[1, {MOST_CELLS // 2}], got {(n_directions, n_layers)}")
        self.cell, self.I, self.H, self.bias = celltable.CELLS[cell], I, H, bias
        of = cell_at("Layout", self.cell)
        self.of, self.n_states = of, of.n_states
        if options is not None:
            options.check("Layout", of, H)
        self.S = options.proj_size if options is not None and options.proj_size else H
        self.heads = options.heads if options is not None else 1
        self.options, self.merged = options, merged
        self.general = options is not None and options.general
        self.n_vectors = vectors_of(of, self.cell_options())
        self.norms = norms_of(self.cell_options())
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

    cdef void sizes(self, int k, Parts *p) noexcept nogil:
        """Set the sizes of cell k's parameters; where they lie is not known yet."""
        cdef ptrdiff_t I = self.inputs(k // self.n_directions)
        cdef ptrdiff_t GH = gates_of(self.of, I, self.H) * self.H
        memset(p, 0, sizeof(p[0]))
        p.size[PART_W] = GH * I
        if self.bias:
            p.size[PART_B_IH] = biased_of(self.of, I, self.H) * self.H
        if not self.of.is_scan:
            p.size[PART_R] = GH * self.S // self.heads
            p.size[PART_B_HH] = p.size[PART_B_IH]
        if self.S != self.H:
            p.size[PART_W_HR] = self.S * self.H
        p.size[PART_P] = self.n_vectors * self.H
        p.size[PART_NORM_IH] = self.norms.ih * GH
        p.size[PART_NORM_HH] = self.norms.hh * GH
        p.size[PART_NORM_C] = self.norms.c * self.H
        p.size[PART_NORM_C_BIAS] = self.norms.c_bias * self.H

    cdef int n_parts(self) noexcept nogil:
        """Parameters of a cell, arrays or tensors."""
        cdef Parts p
        cdef int i, n = 0
        self.sizes(0, &p)
        for i in range(N_PARTS):
            n += p.size[i] > 0
        return n

    cdef ptrdiff_t size(self, int k) noexcept nogil:
        """Parameters of cell k."""
        cdef Parts p
        cdef ptrdiff_t n = 0
        cdef int i
        self.sizes(k, &p)
        for i in range(N_PARTS):
            n += p.size[i]
        return n

    cdef ptrdiff_t start(self, int k) noexcept nogil:
        """Parameters before those of cell k."""
        cdef ptrdiff_t n_first = min(k, self.n_directions)
        cdef ptrdiff_t n = n_first * self.size(0)
        return n if k == n_first else n + (k - n_first) * self.size(k)

    cdef void find(self, int k, char *at, ptrdiff_t itemsize, Parts *p) noexcept nogil:
        """Set where cell k's parameters lie, which begin at `at` of a flat buffer."""
        cdef int i
        self.sizes(k, p)
        for i in range(N_PARTS):
            if p.size[i] > 0:
                p.at[i], at = at, at + p.size[i] * itemsize

    cdef void describe(self, fr_pack_args *a, int k, const Parts *p) noexcept nogil:
        """What packs cell k, whose parameters are these."""
        memset(a, 0, sizeof(a[0]))
        a.shape.cell, a.shape.H, a.shape.S = self.cell, self.H, self.S
        a.shape.heads = self.heads
        a.shape.I = self.inputs(k // self.n_directions)
        a.shape.options = self.cell_options()
        a.W, a.R = p.at[PART_W], p.at[PART_R]
        a.b_ih, a.b_hh = p.at[PART_B_IH], p.at[PART_B_HH]
        a.W_hr, a.P = p.at[PART_W_HR], p.at[PART_P]
        a.norm_ih, a.norm_hh = p.at[PART_NORM_IH], p.at[PART_NORM_HH]
        a.norm_c, a.norm_c_bias = p.at[PART_NORM_C], p.at[PART_NORM_C_BIAS]

    cdef const fr_cell_options *cell_options(self) noexcept nogil:
        """NULL for the plain cell."""
        return &self.options.c if self.general else NULL
