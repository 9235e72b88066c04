/* SPDX-License-Identifier: BSD-3-Clause */
/* sequence.c -- any cell over time: forward, and backward through time (BPTT).
 *
 * Steps are counted in processing order: step s is time s, or T-1-s when reversed.  With
 * ragged batches (rows sorted by length) step s has n_s active rows, and only those are
 * touched; a dense batch is the case n_s = B.  Row b's predecessor at step s exists iff
 * b < n_{s-1}; otherwise the row starts there, from h0.
 *
 * Threads form a grid of row groups x unit ranges.  With rows enough each thread owns rows
 * for all T and never waits; where R is large next to the cache, or rows are few, the
 * threads of the whole team share the units of every step, with a barrier a step.
 *
 * Forward.  x W is computed tile by tile next to h R while the panels fit the cache
 * (fused), else as one product over a block of steps (hoisted).  The sums are the same.
 *
 * Backward.  Blocks of steps, last first: (1) the cell's backward and dh = da R step by
 * step; (2) dx = da W, db, and the block's x, h_{t-1}, da packed for (3) dW += da^T x and
 * dR += da^T h_{t-1}, whose sums run over steps descending, then rows ascending, from one
 * block into the next.  Source: Werbos 1990.
 */
#include "cell.h"
#include "parallel.h"

#include "rnn.c"
#include "lstm.c"
#include "gru.c"

static const cell_ops *const cells[FR_N_CELLS] = {
    [FR_CELL_RNN_TANH] = &rnn_tanh_ops,
    [FR_CELL_RNN_RELU] = &rnn_relu_ops,
    [FR_CELL_LSTM] = &lstm_ops,
    [FR_CELL_GRU] = &gru_ops,
};

/* --- steps and rows ------------------------------------------------------------------ */

INLINE ptrdiff_t step_time(const fr_shape *shape, ptrdiff_t s)
{
    return shape->reverse ? shape->T - 1 - s : s;
}

/* n_s; 0 before the first step and after the last. */
INLINE ptrdiff_t step_rows(const fr_shape *shape, ptrdiff_t s)
{
    if (s < 0 || s >= shape->T)
        return 0;
    const ptrdiff_t t = step_time(shape, s);
    return shape->offsets ? shape->offsets[t + 1] - shape->offsets[t] : shape->B;
}

/* Where row 0 of step s begins in an array with these strides. */
INLINE ptrdiff_t step_offset(const fr_shape *shape, ptrdiff_t s, ptrdiff_t step,
                             ptrdiff_t row)
{
    const ptrdiff_t t = step_time(shape, s);
    return shape->offsets ? shape->offsets[t] * row : t * step;
}

INLINE ptrdiff_t total_rows(const fr_shape *shape)
{
    return shape->offsets ? shape->offsets[shape->T] : shape->T * shape->B;
}

typedef struct {
    const real *start;
    ptrdiff_t row;
} rows_at;

/* h_{t-1} for the rows of step s that have a predecessor (which = 0) or start here (1). */
INLINE rows_at previous_h(const fr_shape *shape, ptrdiff_t s, int which, const real *y,
                          ptrdiff_t y_step, ptrdiff_t y_row, const real *h0)
{
    if (which)
        return (rows_at){h0, shape->H};
    return (rows_at){y + step_offset(shape, s - 1, y_step, y_row), y_row};
}

/* Rows [*b0, *b1) of those in [low, high) that are `which` at step s. */
INLINE void rows_with_start(const fr_shape *shape, ptrdiff_t s, int which, ptrdiff_t low,
                            ptrdiff_t high, ptrdiff_t *b0, ptrdiff_t *b1)
{
    const ptrdiff_t n = step_rows(shape, s), old = min_size(n, step_rows(shape, s - 1));
    *b0 = max_size(low, which ? old : 0);
    *b1 = min_size(high, which ? n : old);
}

/* --- schedule ------------------------------------------------------------------------ */

/* Weights that a thread can keep in its share of the level-2 cache, bytes. */
#define CACHED_WEIGHTS (1 << 20)

static int sequence_threads(const fr_shape *shape, int n_threads)
{
    const double flops = 2.0 * (double)total_rows(shape) *
                         (double)(cells[shape->cell]->gates * shape->H) *
                         (double)(shape->I + shape->H);
    return useful_threads(flops, n_threads);
}

typedef struct {
    ptrdiff_t b0, b1; /* this thread's rows */
    ptrdiff_t p0, p1; /* and panels */
    int shared;       /* rows are shared with other threads: a barrier a step */
} grid_cell;

INLINE grid_cell get_grid_cell(const team *self, const fr_shape *shape, int gates,
                               ptrdiff_t panels)
{
    const ptrdiff_t R_bytes =
        gates * shape->H * shape->H * (ptrdiff_t)sizeof(real);
    const int few_rows = shape->B < 4 * self->size;
    const int large = R_bytes > CACHED_WEIGHTS && panels >= 2 * self->size;
    grid_cell g = {0, shape->B, 0, panels, self->size > 1 && (few_rows || large)};
    if (g.shared)
        team_share(self, panels, &g.p0, &g.p1);
    else
        team_share(self, shape->B, &g.b0, &g.b1);
    return g;
}

/* Hands out 64-byte aligned pieces of the workspace; with base NULL it only counts. */
typedef struct {
    real *base;
    ptrdiff_t used;
} arena;

INLINE real *take(arena *a, ptrdiff_t size)
{
    real *piece = a->base ? a->base + a->used : NULL;
    a->used += round_up(size, 64 / (ptrdiff_t)sizeof(real));
    return piece;
}

static ptrdiff_t tape_size(const fr_shape *shape)
{
    return total_rows(shape) * cells[shape->cell]->tape_slots * round_up(shape->H, V);
}

/* --- forward -------------------------------------------------------------------------- */

#define HOISTED_ROWS 96 /* rows of x W kept between the product and its use */

typedef struct {
    real *c;  /* (B, H_padded), LSTM: the running cell state */
    real *ax; /* per thread: (HOISTED_ROWS + B, columns) of x W */
    ptrdiff_t ax_size;
} forward_work;

static forward_work carve_forward(const fr_shape *shape, int n_threads, arena *a)
{
    const cell_ops *ops = cells[shape->cell];
    const ptrdiff_t columns = unit_columns(ops->gates, shape->H);
    forward_work w;
    w.c = ops->has_c ? take(a, shape->B * round_up(shape->H, V)) : NULL;
    w.ax_size = round_up((HOISTED_ROWS + shape->B) * columns + V, 64);
    w.ax = take(a, n_threads * w.ax_size);
    return w;
}

static ptrdiff_t forward_work_size(const fr_shape *shape, int n_threads)
{
    arena a = {NULL, 0};
    carve_forward(shape, n_threads, &a);
    return a.used;
}

/* x W for steps [s0, s1), this thread's rows and panels: row (s, b) of panel q begins at
 * ax + ((s - s0) * rows + b - b0) * columns + q.column. */
static void hoist_x_product(const fr_forward_args *a, int gates, const grid_cell *g,
                            ptrdiff_t s0, ptrdiff_t s1, real *ax, ptrdiff_t columns)
{
    const fr_shape *shape = &a->shape;
    const ptrdiff_t rows = g->b1 - g->b0;
    for (ptrdiff_t p = g->p0; p < g->p1; p++) {
        const unit_panel q = get_unit_panel(gates, shape->H, p);
        const real *W = (const real *)a->packed + q.column * shape->I;
        if (rows < tile_rows(q.nv) && !shape->offsets) { /* tiles along time */
            const ptrdiff_t first = min_size(step_time(shape, s0),
                                             step_time(shape, s1 - 1));
            for (ptrdiff_t b = 0; b < rows; b++) {
                real *c = ax + b * columns + q.column;
                ptrdiff_t c_row = rows * columns;
                if (shape->reverse) { /* time runs against the steps */
                    c += (s1 - 1 - s0) * c_row;
                    c_row = -c_row;
                }
                multiply_rows((const real *)a->x + first * a->x_step +
                                  (g->b0 + b) * a->x_row,
                              a->x_step, 1, 0, shape->I, W, q.nv, c, c_row, s1 - s0);
            }
            continue;
        }
        for (ptrdiff_t s = s0; s < s1; s++)
            multiply_rows((const real *)a->x +
                              step_offset(shape, s, a->x_step, a->x_row) +
                              g->b0 * a->x_row,
                          a->x_row, 1, 0, shape->I, W, q.nv,
                          ax + (s - s0) * rows * columns + q.column, columns,
                          max_size(0, min_size(g->b1, step_rows(shape, s)) - g->b0));
    }
}

static void forward_thread(const team *self, const void *args)
{
    const fr_forward_args *a = args;
    const fr_shape *shape = &a->shape;
    const cell_ops *ops = cells[shape->cell];
    const ptrdiff_t I = shape->I, H = shape->H, H_padded = round_up(H, V);
    const forward_pack pack = get_forward_pack(ops->gates, I, H);
    const grid_cell g =
        get_grid_cell(self, shape, ops->gates, n_unit_panels(ops->gates, H));
    const real *packed = a->packed, *h0 = a->h0, *c0 = a->c0, *x = a->x;
    real *y = a->y, *h_n = a->h_n, *c_n = a->c_n;

    arena workspace = {a->work, 0};
    const forward_work w = carve_forward(shape, a->n_threads, &workspace);
    real *ax_block = w.ax + self->rank * w.ax_size;
    real ax_tile[MAX_MR * MAX_WIDTH + V_BYTES] __attribute__((aligned(64)));
    real ah_tile[MAX_MR * MAX_WIDTH + V_BYTES] __attribute__((aligned(64)));

    /* Rows of length zero keep their state; a running c starts from c0. */
    ptrdiff_t j0 = 0, j1 = 0;
    if (g.p1 > g.p0) {
        const unit_panel last = get_unit_panel(ops->gates, H, g.p1 - 1);
        j0 = get_unit_panel(ops->gates, H, g.p0).j;
        j1 = last.j + last.units;
    }
    for (ptrdiff_t b = g.b0; b < g.b1; b++) {
        memcpy(h_n + b * H + j0, h0 + b * H + j0, (size_t)(j1 - j0) * sizeof(real));
        if (ops->has_c)
            memcpy(w.c + b * H_padded + j0, c0 + b * H + j0,
                   (size_t)(j1 - j0) * sizeof(real));
    }

    const ptrdiff_t rows_owned = g.b1 - g.b0;
    const ptrdiff_t weights =
        (I + H) * pack.columns * (ptrdiff_t)sizeof(real) / (g.shared ? self->size : 1);
    const int hoisted = rows_owned < 4 || weights > CACHED_WEIGHTS;
    const ptrdiff_t block = hoisted ? HOISTED_ROWS / max_size(1, rows_owned) + 1 : shape->T;

    for (ptrdiff_t s0 = 0; s0 < shape->T; s0 += block) {
        const ptrdiff_t s1 = min_size(shape->T, s0 + block);
        if (hoisted)
            hoist_x_product(a, ops->gates, &g, s0, s1, ax_block, pack.columns);
        for (ptrdiff_t s = s0; s < s1; s++) {
            const real *x_s = x + step_offset(shape, s, a->x_step, a->x_row);
            real *y_s = y + step_offset(shape, s, a->y_step, a->y_row);
            const ptrdiff_t tape_rows = ops->tape_slots * H_padded;
            real *tape_s = a->tape ? (real *)a->tape + step_offset(shape, s,
                                                                   shape->B * tape_rows,
                                                                   tape_rows)
                                   : NULL;
            for (int which = 0; which < 2; which++) {
                ptrdiff_t b0, b1;
                rows_with_start(shape, s, which, g.b0, g.b1, &b0, &b1);
                if (b0 >= b1)
                    continue;
                const rows_at h_prev =
                    previous_h(shape, s, which, y, a->y_step, a->y_row, h0);
                for (ptrdiff_t p = g.p0; p < g.p1; p++) {
                    const unit_panel q = get_unit_panel(ops->gates, H, p);
                    const ptrdiff_t width = q.nv * V, n_tiles = n_row_tiles(b1 - b0, q.nv);
                    for (ptrdiff_t i = 0; i < n_tiles; i++) {
                        const ptrdiff_t b = b0 + part_start(b1 - b0, n_tiles, i);
                        const ptrdiff_t mr = b0 + part_start(b1 - b0, n_tiles, i + 1) - b;
                        tile_function *const product = rows_tiles[q.nv - 1][mr - 1];
                        const real *ax = ax_tile;
                        ptrdiff_t ax_row = width;
                        if (hoisted) {
                            ax_row = pack.columns;
                            ax = ax_block + ((s - s0) * rows_owned + b - g.b0) * ax_row +
                                 q.column;
                        } else {
                            const tile_args t = {x_s + b * a->x_row,     a->x_row, 0, 1, I,
                                                 packed + q.column * I, ax_tile,  width};
                            product(&t);
                        }
                        const tile_args t = {h_prev.start + b * h_prev.row,
                                             h_prev.row,
                                             0,
                                             1,
                                             H,
                                             packed + pack.R + q.column * H,
                                             ah_tile,
                                             width};
                        product(&t);
                        const forward_step step = {
                            .rows = mr,
                            .j = q.j,
                            .units = q.units,
                            .lanes = q.lanes,
                            .H_padded = H_padded,
                            .ax = ax,
                            .ax_row = ax_row,
                            .ah = ah_tile,
                            .ah_row = width,
                            .bias = packed + pack.bias + q.column,
                            .bias_hn = packed + pack.bias_hn,
                            .h_prev = h_prev.start + b * h_prev.row,
                            .h_prev_row = h_prev.row,
                            .c = ops->has_c ? w.c + b * H_padded : NULL,
                            .c_row = H_padded,
                            .h = y_s + b * a->y_row,
                            .h_row = a->y_row,
                            .tape = tape_s ? tape_s + b * tape_rows : NULL,
                            .tape_row = tape_rows,
                        };
                        ops->forward(&step);
                    }
                }
            }
            /* Rows without a successor end here. */
            const ptrdiff_t n = min_size(g.b1, step_rows(shape, s));
            for (ptrdiff_t b = max_size(g.b0, step_rows(shape, s + 1)); b < n; b++)
                memcpy(h_n + b * H + j0, y_s + b * a->y_row + j0,
                       (size_t)(j1 - j0) * sizeof(real));
            if (g.shared)
                team_barrier(self);
        }
    }
    for (ptrdiff_t b = g.b0; c_n && b < g.b1; b++)
        memcpy(c_n + b * H + j0, w.c + b * H_padded + j0,
               (size_t)(j1 - j0) * sizeof(real));
}

static void forward(const fr_forward_args *a)
{
    fr_forward_args args = *a;
    args.n_threads = sequence_threads(&a->shape, a->n_threads);
    team_run(args.n_threads, forward_thread, &args);
}

/* --- backward ------------------------------------------------------------------------- */

typedef struct {
    real *dh, *carry, *dc; /* (B, H_padded) running gradients of the states */
    real *da;              /* (block, da_row) */
    ptrdiff_t da_row;
    ptrdiff_t block;         /* most rows in a block */
    real *x, *h, *a;         /* the block packed for dW: x and h_{t-1} as B, da as A */
    real *db;                /* (da_slots, H_padded) sums of da */
    const real **h_prev_row; /* (block,) */
    ptrdiff_t *x_offset;     /* (block,) */
    ptrdiff_t *dx_offset;    /* (block,) */
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
    w.h_prev_row = (const real **)(void *)take(a, w.block * pointers);
    w.x_offset = (ptrdiff_t *)(void *)take(a, w.block * pointers);
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

/* (1) One step of BPTT for this thread's rows and units: the cell, then dh = da R. */
static void backward_one_step(const team *self, const fr_backward_args *a,
                              const backward_work *w, const grid_cell *g, ptrdiff_t s,
                              real *da_s)
{
    const fr_shape *shape = &a->shape;
    const cell_ops *ops = cells[shape->cell];
    const ptrdiff_t H = shape->H, H_padded = round_up(H, V);
    const ptrdiff_t tape_row = ops->tape_slots * H_padded;
    const real *dy = a->dy, *y = a->y, *tape = a->tape;
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
        for (ptrdiff_t p = g->p0; p < g->p1; p++) {
            const panel q = get_panel(H, MAX_NV, p);
            const backward_step step = {
                .rows = b1 - b0,
                .j = q.column,
                .units = q.n,
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
    }
    if (g->shared)
        team_barrier(self);
    /* Rows that start at this step get the gradient of their h0 here, for good. */
    const ptrdiff_t rows = min_size(g->b1, step_rows(shape, s)) - g->b0;
    for (ptrdiff_t p = g->p0; rows > 0 && p < g->p1; p++) {
        const panel q = get_panel(H, MAX_NV, p);
        multiply_rows(da_s + g->b0 * w->da_row + ops->first_R_slot * H_padded, w->da_row,
                      ops->gates, H_padded, H,
                      (const real *)a->packed + q.column * ops->gates * H, q.nv,
                      w->dh + g->b0 * H_padded + q.column, H_padded, rows);
    }
}

/* (2) Rows [k0, k1) of the block: where they lie, and their packed copies. */
static void pack_block(const fr_backward_args *a, const backward_work *w, ptrdiff_t s0,
                       ptrdiff_t s1, ptrdiff_t k0, ptrdiff_t k1)
{
    const fr_shape *shape = &a->shape;
    const cell_ops *ops = cells[shape->cell];
    const ptrdiff_t H = shape->H, H_padded = round_up(H, V);
    ptrdiff_t first = 0; /* block row of row 0 of step s */
    for (ptrdiff_t s = s1 - 1; s >= s0 && first < k1; s--) {
        const ptrdiff_t n = step_rows(shape, s);
        for (int which = 0; which < 2; which++) {
            ptrdiff_t b0, b1;
            rows_with_start(shape, s, which, k0 - first, k1 - first, &b0, &b1);
            const rows_at h_prev =
                previous_h(shape, s, which, a->y, a->y_step, a->y_row, a->h0);
            for (ptrdiff_t b = b0; b < b1; b++) {
                w->h_prev_row[first + b] = h_prev.start + b * h_prev.row;
                w->x_offset[first + b] =
                    step_offset(shape, s, a->x_step, a->x_row) + b * a->x_row;
                w->dx_offset[first + b] =
                    step_offset(shape, s, a->dx_step, a->dx_row) + b * a->dx_row;
            }
        }
        first += n;
    }
    for (ptrdiff_t k = k0; k < k1; k++) {
        const real *x = (const real *)a->x + w->x_offset[k];
        pack_row(w->x, w->block, k, x, shape->I, SUM_NV);
        pack_row(w->h, w->block, k, w->h_prev_row[k], H, SUM_NV);
    }
    for (ptrdiff_t slot = 0; slot < ops->da_slots; slot++)
        pack_a(w->a + slot * packed_a_size(H, w->block), w->block,
               w->da + slot * H_padded, w->da_row, H, H_padded + A_LANES, k0, k1);
}

/* (2) dx = da W for rows [k0, k1) of the block. */
static void backward_x(const fr_backward_args *a, const backward_work *w, ptrdiff_t k0,
                       ptrdiff_t k1)
{
    const fr_shape *shape = &a->shape;
    const int gates = cells[shape->cell]->gates;
    const ptrdiff_t I = shape->I, H = shape->H, H_padded = round_up(H, V);
    const real *W = (const real *)a->packed + backward_pack_W(gates, H);
    real c[MAX_MR * MAX_WIDTH] __attribute__((aligned(64)));
    for (ptrdiff_t p = 0; p < n_panels(I, MAX_NV); p++) {
        const panel q = get_panel(I, MAX_NV, p);
        const ptrdiff_t n_tiles = n_row_tiles(k1 - k0, q.nv);
        for (ptrdiff_t i = 0; i < n_tiles; i++) {
            const ptrdiff_t k = k0 + part_start(k1 - k0, n_tiles, i);
            const ptrdiff_t mr = k0 + part_start(k1 - k0, n_tiles, i + 1) - k;
            multiply_rows(w->da + k * w->da_row, w->da_row, gates, H_padded, H,
                          W + q.column * gates * H, q.nv, c, MAX_WIDTH, mr);
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
        if (slot < ops->gates)
            add_product(packed_a, w->x, w->block, K,
                     (real *)a->dW + (ops->w_gate[slot] * H + row) * I, mr, I);
        if (slot >= ops->first_R_slot)
            add_product(packed_a, w->h, w->block, K,
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
    const grid_cell g =
        get_grid_cell(self, shape, ops->gates, n_panels(H, MAX_NV));
    arena workspace = {a->work, 0};
    const backward_work w = carve_backward(shape, &workspace);
    ptrdiff_t j0 = 0, j1 = 0, v0, v1;
    if (g.p1 > g.p0) {
        const panel last = get_panel(H, MAX_NV, g.p1 - 1);
        j0 = get_panel(H, MAX_NV, g.p0).column;
        j1 = last.column + last.n;
    }
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
        ptrdiff_t K = 0, k0, k1;
        for (s0 = s1; s0 > 0 && K + step_rows(shape, s0 - 1) <= w.block; s0--) {
            const ptrdiff_t s = s0 - 1;
            backward_one_step(self, a, &w, &g, s, w.da + K * w.da_row);
            K += step_rows(shape, s);
        }
        team_barrier(self); /* da of all rows and units is there */
        team_share(self, K, &k0, &k1);
        pack_block(a, &w, s0, s1, k0, k1);
        if (a->dx)
            backward_x(a, &w, k0, k1);
        add_row_sums(w.db + v0 * V, w.da + v0 * V, w.da_row, (v1 - v0) * V, K); /* db */
        team_barrier(self); /* all is packed, da may be overwritten */
        backward_weights(self, a, &w, K);
    }

    for (ptrdiff_t b = g.b0; b < g.b1; b++) {
        for (ptrdiff_t j = j0; j < j1; j++) {
            const ptrdiff_t at = b * H_padded + j;
            ((real *)a->dh0)[b * H + j] = ops->has_carry ? w.dh[at] + w.carry[at] : w.dh[at];
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

/* --- weights -------------------------------------------------------------------------- */

static ptrdiff_t packed_forward_size(int cell, ptrdiff_t I, ptrdiff_t H)
{
    return get_forward_pack(cells[cell]->gates, I, H).size;
}

static ptrdiff_t packed_backward_size(int cell, ptrdiff_t I, ptrdiff_t H)
{
    const int gates = cells[cell]->gates;
    return backward_pack_W(gates, H) + packed_size(gates * H, I);
}

static void pack_forward(const fr_pack_args *a)
{
    pack_forward_weights(cells[a->cell], a);
}

static void pack_backward(const fr_pack_args *a)
{
    pack_backward_weights(cells[a->cell], a);
}
