/* SPDX-License-Identifier: BSD-3-Clause */
/* backward.c -- back-propagation through time (BPTT) for any cell.
 *
 * Blocks of steps, last first: (1) the cell's backward and dh = da R, step by step;
 * (2) dx = da W, db, and the block's x, h_{t-1} and da packed for (3) dW += da^T x and
 * dR += da^T h_{t-1}, whose sums run over steps descending, then rows ascending, from
 * one block into the next.  A barrier stands between (1), (2) and (3), none after (3):
 * the next block's (1) writes only da, which (3) does not read. Source: Werbos 1990.
 */
#include "sequence.h"

typedef struct {
    real *dh, *carry, *dc; /* (B, H_padded) running gradients of the states */
    real *da;              /* (block, da_row) */
    ptrdiff_t da_row;
    ptrdiff_t block;      /* most rows in a block */
    real *x, *h, *a;      /* the block packed for dW: x and h_{t-1} as B, da as A */
    real *db;             /* (da_slots, H_padded) sums of da */
    ptrdiff_t *dx_offset; /* (block,) */
} backward_work;

/* One more vector than da needs: rows then start in different cache sets. */
static backward_work carve_backward(const fr_shape *shape, arena *a)
{
    const cell_ops *ops = cells[shape->cell];
    const ptrdiff_t B = shape->B, H_padded = round_up(shape->H, V);
    const ptrdiff_t pointers = (ptrdiff_t)(sizeof(void *) / sizeof(real));
    backward_work w;
    w.block = max_size(B, min_size(total_rows(shape), BLOCK_ROWS / B * B));
    w.dh = take(a, B * H_padded);
    w.carry = ops->has_carry ? take(a, B * H_padded) : NULL;
    w.dc = ops->has_c ? take(a, B * H_padded) : NULL;
    w.da_row = ops->da_slots * H_padded + V;
    w.da = take(a, w.block * w.da_row + A_LANES);
    w.x = take(a, packed_size(w.block, shape->I));
    w.h = take(a, packed_size(w.block, shape->H));
    w.a = take(a, ops->da_slots * packed_a_size(shape->H, w.block));
    w.db = take(a, ops->da_slots * H_padded);
    w.dx_offset = (ptrdiff_t *)(void *)take(a, w.block * pointers);
    return w;
}

static ptrdiff_t backward_work_size(const fr_shape *shape, int n_threads)
{
    (void)n_threads;
    arena a = {NULL, 0};
    carve_backward(shape, &a);
    return a.used;
}

/* Units of a thread's panels. */
typedef struct {
    ptrdiff_t begin, end;
} unit_range;

/* (1) One step of BPTT for this thread's rows and units: the cell, then dh = da R. */
static void backward_one_step(const team *self, const fr_backward_args *a,
                              const backward_work *w, const grid_cell *g,
                              unit_range units, ptrdiff_t s, real *da_s)
{
    const fr_shape *shape = &a->shape;
    const cell_ops *ops = cells[shape->cell];
    const ptrdiff_t H = shape->H, H_padded = round_up(H, V);
    const ptrdiff_t tape_row = ops->tape_slots * H_padded;
    const real *dy = a->dy, *y = a->y, *tape = a->tape, *R = a->packed;
    const real *dy_s = dy ? dy + step_offset(shape, s, a->dy_step, a->dy_row) : NULL;
    const real *y_s = y + step_offset(shape, s, a->y_step, a->y_row);
    const real *tape_s = tape + step_offset(shape, s, shape->B * tape_row, tape_row);

    for (int which = 0; which < 2; which++) {
        ptrdiff_t b0, b1;
        rows_with_start(shape, s, which, g->b0, g->b1, &b0, &b1);
        if (b0 >= b1)
            continue;
        const rows_at h_prev =
            previous_h(shape, s, which, y, a->y_step, a->y_row, a->h0);
        const backward_step step = {
            .rows = b1 - b0,
            .j = units.begin,
            .units = units.end - units.begin,
            .H_padded = H_padded,
            .dy = dy_s ? dy_s + b0 * a->dy_row : NULL,
            .dy_row = a->dy_row,
            .dh = w->dh + b0 * H_padded,
            .carry = ops->has_carry ? w->carry + b0 * H_padded : NULL,
            .dc = ops->has_c ? w->dc + b0 * H_padded : NULL,
            .h_prev = h_prev.start + b0 * h_prev.row,
            .h_prev_row = h_prev.row,
            .h = y_s + b0 * a->y_row,
            .h_row = a->y_row,
            .tape = tape_s + b0 * tape_row,
            .tape_row = tape_row,
            .da = da_s + b0 * w->da_row,
            .da_row = w->da_row,
        };
        ops->backward(&step);
    }
    if (g->shared)
        team_barrier(self);
    /* Rows that start at this step get the gradient of their h0 here, for good. */
    const ptrdiff_t rows = min_size(g->b1, step_rows(shape, s)) - g->b0;
    for (ptrdiff_t p = g->p0; rows > 0 && p < g->p1; p++) {
        const panel q = get_panel(H, MAX_NV, p);
        const panel next = get_panel(H, MAX_NV, p + 1 < g->p1 ? p + 1 : g->p0);
        const ptrdiff_t K = ops->gates * H;
        multiply_rows(da_s + g->b0 * w->da_row + ops->first_R_slot * H_padded,
                      w->da_row, ops->gates, H_padded, H, R + q.column * K, q.nv,
                      panel_part(R + next.column * K, K, q.nv, 0, 1),
                      w->dh + g->b0 * H_padded + q.column, H_padded, rows);
    }
}

/* (2) Which rows of a block are a thread's to pack: those it computed, still in its own
 * cache, where threads own rows of the batch; an even share where they own units. */
typedef struct {
    ptrdiff_t s0, s1; /* steps of the block; row k = 0 is row 0 of step s1 - 1 */
    int by_batch;
    ptrdiff_t b0, b1; /* by_batch: these rows of every step */
    ptrdiff_t k0, k1; /* else these rows of the block */
} block_share;

/* Rows [*b0, *b1) of step s, whose row 0 is row `first` of the block. */
INLINE void own_rows(const block_share *own, const fr_shape *shape, ptrdiff_t s,
                     ptrdiff_t first, ptrdiff_t *b0, ptrdiff_t *b1)
{
    const ptrdiff_t n = step_rows(shape, s);
    *b0 = own->by_batch ? own->b0 : max_size(0, own->k0 - first);
    *b1 = min_size(n, own->by_batch ? own->b1 : own->k1 - first);
}

/* (2) Where this thread's rows of the block lie, and their packed copies. */
static void pack_block(const fr_backward_args *a, const backward_work *w,
                       const block_share *own)
{
    const fr_shape *shape = &a->shape;
    const cell_ops *ops = cells[shape->cell];
    const ptrdiff_t H = shape->H, H_padded = round_up(H, V);
    ptrdiff_t first = 0, b0, b1;
    for (ptrdiff_t s = own->s1 - 1; s >= own->s0; first += step_rows(shape, s--)) {
        const ptrdiff_t x = step_offset(shape, s, a->x_step, a->x_row);
        const ptrdiff_t dx = step_offset(shape, s, a->dx_step, a->dx_row);
        ptrdiff_t low, high;
        own_rows(own, shape, s, first, &low, &high);
        for (int which = 0; which < 2; which++) {
            rows_with_start(shape, s, which, low, high, &b0, &b1);
            if (b0 >= b1)
                continue;
            const rows_at h_prev =
                previous_h(shape, s, which, a->y, a->y_step, a->y_row, a->h0);
            for (ptrdiff_t b = b0; b < b1; b++) {
                const ptrdiff_t k = first + b;
                pack_row(w->x, w->block, k, (const real *)a->x + x + b * a->x_row,
                         shape->I, SUM_NV);
                pack_row(w->h, w->block, k, h_prev.start + b * h_prev.row, H, SUM_NV);
                w->dx_offset[k] = dx + b * a->dx_row;
            }
        }
        for (ptrdiff_t slot = 0; low < high && slot < ops->da_slots; slot++)
            pack_a(w->a + slot * packed_a_size(H, w->block), w->block,
                   w->da + slot * H_padded, w->da_row, H, H_padded + A_LANES,
                   first + low, first + high);
    }
}

/* (2) dx = da W for rows [k0, k1) of the block and panel p; meanwhile part i of n of the
 * next panel is fetched. */
static void backward_x_rows(const fr_backward_args *a, const backward_work *w,
                            ptrdiff_t p, ptrdiff_t k0, ptrdiff_t k1, ptrdiff_t i,
                            ptrdiff_t n)
{
    const fr_shape *shape = &a->shape;
    const int gates = cells[shape->cell]->gates;
    const ptrdiff_t I = shape->I, H = shape->H, K = gates * H;
    const real *W = (const real *)a->packed + backward_pack_W(gates, H);
    const panel q = get_panel(I, MAX_NV, p);
    const panel next = get_panel(I, MAX_NV, p + 1 < n_panels(I, MAX_NV) ? p + 1 : 0);
    const ptrdiff_t chunks = n_chunks(k1 - k0, q.nv);
    real c[CHUNK_ROWS * MAX_WIDTH] __attribute__((aligned(64)));
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        const ptrdiff_t k = k0 + chunk_start(k1 - k0, q.nv, chunk);
        const ptrdiff_t mr = k0 + chunk_start(k1 - k0, q.nv, chunk + 1) - k;
        multiply_rows(
            w->da + k * w->da_row, w->da_row, gates, round_up(H, V), H,
            W + q.column * K, q.nv,
            panel_part(W + next.column * K, K, q.nv, i * chunks + chunk, n * chunks), c,
            MAX_WIDTH, mr);
        for (ptrdiff_t r = 0; r < mr; r++) {
            real *dx = (real *)a->dx + w->dx_offset[k + r] + q.column;
            for (ptrdiff_t v = 0; v < q.n; v += V) {
                const ptrdiff_t lanes = min_size(V, q.n - v);
                vreal sum = v_load(c + r * MAX_WIDTH + v);
                if (a->dx_accumulate)
                    sum = v_load_n(dx + v, lanes) + sum;
                v_store_n(dx + v, sum, lanes);
            }
        }
    }
}

static void backward_x(const fr_backward_args *a, const backward_work *w,
                       const block_share *own)
{
    const fr_shape *shape = &a->shape;
    for (ptrdiff_t p = 0; p < n_panels(shape->I, MAX_NV); p++) {
        ptrdiff_t first = 0, b0, b1;
        if (!own->by_batch) {
            backward_x_rows(a, w, p, own->k0, own->k1, 0, 1);
            continue;
        }
        for (ptrdiff_t s = own->s1 - 1; s >= own->s0; first += step_rows(shape, s--)) {
            own_rows(own, shape, s, first, &b0, &b1);
            if (b0 < b1)
                backward_x_rows(a, w, p, first + b0, first + b1, own->s1 - 1 - s,
                                own->s1 - own->s0);
        }
    }
}

/* (3) This thread's share of dW += da^T x and dR += da^T h_{t-1}. */
static void backward_weights(const team *self, const fr_backward_args *a,
                             const backward_work *w, ptrdiff_t K)
{
    const fr_shape *shape = &a->shape;
    const cell_ops *ops = cells[shape->cell];
    const ptrdiff_t I = shape->I, H = shape->H, tiles = n_row_tiles(H, SUM_NV);
    ptrdiff_t begin, end;
    team_share(self, ops->da_slots * tiles, &begin, &end);
    for (ptrdiff_t item = begin; item < end; item++) {
        const ptrdiff_t slot = item / tiles, i = item % tiles;
        const ptrdiff_t row = part_start(H, tiles, i);
        const ptrdiff_t mr = part_start(H, tiles, i + 1) - row;
        const real *packed_a = w->a + item * w->block * A_LANES;
        const real *next = packed_a + w->block * A_LANES;
        if (slot < ops->gates)
            add_product(packed_a, w->x, w->block, K,
                        panel_part(next, K, A_LANES / V, 0, 2),
                        (real *)a->dW + (ops->w_gate[slot] * H + row) * I, mr, I);
        if (slot >= ops->first_R_slot)
            add_product(
                packed_a, w->h, w->block, K, panel_part(next, K, A_LANES / V, 1, 2),
                (real *)a->dR + ((slot - ops->first_R_slot) * H + row) * H, mr, H);
    }
}

/* A running gradient: what is given, else zero. */
INLINE void set_state(real *to, const real *from, ptrdiff_t at, size_t bytes)
{
    if (from)
        memcpy(to, from + at, bytes);
    else
        memset(to, 0, bytes);
}

static void backward_thread(const team *self, const void *args)
{
    const fr_backward_args *a = args;
    const fr_shape *shape = &a->shape;
    const cell_ops *ops = cells[shape->cell];
    const ptrdiff_t H = shape->H, H_padded = round_up(H, V);
    const grid_cell g = get_grid_cell(self, shape, ops->gates, n_panels(H, MAX_NV));
    arena workspace = {a->work, 0};
    const backward_work w = carve_backward(shape, &workspace);
    unit_range units = {0, 0};
    ptrdiff_t v0, v1;
    if (g.p1 > g.p0) {
        const panel last = get_panel(H, MAX_NV, g.p1 - 1);
        units.begin = get_panel(H, MAX_NV, g.p0).column;
        units.end = last.column + last.n;
    }
    const ptrdiff_t j0 = units.begin, j1 = units.end;
    const size_t bytes = (size_t)(j1 - j0) * sizeof(real);

    /* Gradients of the last states; zero where none are given. */
    for (ptrdiff_t b = g.b0; b < g.b1; b++) {
        set_state(w.dh + b * H_padded + j0, a->dh_n, b * H + j0, bytes);
        if (ops->has_c)
            set_state(w.dc + b * H_padded + j0, a->dc_n, b * H + j0, bytes);
        if (ops->has_carry)
            set_state(w.carry + b * H_padded + j0, NULL, 0, bytes);
    }
    team_share(self, ops->da_slots * H_padded / V, &v0, &v1);
    memset(w.db + v0 * V, 0, (size_t)((v1 - v0) * V) * sizeof(real));

    for (ptrdiff_t s1 = shape->T, s0; s1 > 0; s1 = s0) {
        ptrdiff_t K = 0;
        for (s0 = s1; s0 > 0 && K + step_rows(shape, s0 - 1) <= w.block; s0--) {
            const ptrdiff_t s = s0 - 1;
            backward_one_step(self, a, &w, &g, units, s, w.da + K * w.da_row);
            K += step_rows(shape, s);
        }
        team_barrier(self); /* da of all rows and units is there */
        block_share own = {.s0 = s0, .s1 = s1, .b0 = g.b0, .b1 = g.b1};
        own.by_batch = self->size > 1 && !g.shared;
        team_share(self, K, &own.k0, &own.k1);
        pack_block(a, &w, &own);
        if (a->dx)
            backward_x(a, &w, &own);
        add_row_sums(w.db + v0 * V, w.da + v0 * V, w.da_row, (v1 - v0) * V, K); /* db */
        team_barrier(self); /* all is packed, da may be overwritten */
        backward_weights(self, a, &w, K);
    }

    for (ptrdiff_t b = g.b0; b < g.b1; b++) {
        for (ptrdiff_t j = j0; j < j1; j++) {
            const ptrdiff_t at = b * H_padded + j;
            ((real *)a->dh0)[b * H + j] =
                ops->has_carry ? w.dh[at] + w.carry[at] : w.dh[at];
        }
        if (ops->has_c)
            memcpy((real *)a->dc0 + b * H + j0, w.dc + b * H_padded + j0, bytes);
    }
    /* Each thread adds the columns it summed itself. */
    for (ptrdiff_t v = v0; a->db_ih && v < v1; v++) {
        const ptrdiff_t slot = v * V / H_padded, j = v * V % H_padded;
        const ptrdiff_t lanes = min_size(V, H - j);
        const vreal sum = v_load(w.db + v * V);
        if (slot < ops->gates) {
            real *db = (real *)a->db_ih + ops->w_gate[slot] * H + j;
            v_store_n(db, v_load_n(db, lanes) + sum, lanes);
        }
        if (slot >= ops->first_R_slot) {
            real *db = (real *)a->db_hh + (slot - ops->first_R_slot) * H + j;
            v_store_n(db, v_load_n(db, lanes) + sum, lanes);
        }
    }
}

static void backward(const fr_backward_args *a)
{
    fr_backward_args args = *a;
    args.n_threads = sequence_threads(&a->shape, a->n_threads);
    team_run(args.n_threads, backward_thread, &args);
}

static ptrdiff_t packed_backward_size(int cell, ptrdiff_t I, ptrdiff_t H)
{
    const int gates = cells[cell]->gates;
    return backward_pack_W(gates, H) + packed_size(gates * H, I);
}

static void pack_backward(const fr_pack_args *a)
{
    pack_backward_weights(cells[a->cell], a);
}
