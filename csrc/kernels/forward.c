/* SPDX-License-Identifier: BSD-3-Clause */
/* forward.c -- any cell over time.
 *
 * x W is computed tile by tile next to h R while the panels fit the cache (fused), else
 * as one product over a block of steps (hoisted).  The sums are the same.
 */
#include "sequence.h"

/* Elements of a tile's results; gates of narrow panels are read a vector past them. */
#define TILE_SIZE (CHUNK_ROWS * MAX_WIDTH + V_BYTES)
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

/* x W for steps [s0, s1), this thread's rows and panels: row (s, b) of panel q begins
 * at ax + ((s - s0) * rows + b - b0) * columns + q.column. */
static void hoist_x_product(const fr_forward_args *a, int gates, const grid_cell *g,
                            ptrdiff_t s0, ptrdiff_t s1, real *ax, ptrdiff_t columns)
{
    const fr_shape *shape = &a->shape;
    const ptrdiff_t rows = g->b1 - g->b0;
    for (ptrdiff_t p = g->p0; p < g->p1; p++) {
        const unit_panel q = get_unit_panel(gates, shape->H, p);
        const unit_panel following =
            get_unit_panel(gates, shape->H, p + 1 < g->p1 ? p + 1 : g->p0);
        const real *W = (const real *)a->packed + q.column * shape->I;
        const real *next = (const real *)a->packed + following.column * shape->I;
        if (rows < tile_rows(q.nv) && !shape->offsets) { /* tiles along time */
            const ptrdiff_t first =
                min_size(step_time(shape, s0), step_time(shape, s1 - 1));
            for (ptrdiff_t b = 0; b < rows; b++) {
                real *c = ax + b * columns + q.column;
                ptrdiff_t c_row = rows * columns;
                if (shape->reverse) { /* time runs against the steps */
                    c += (s1 - 1 - s0) * c_row;
                    c_row = -c_row;
                }
                multiply_rows(
                    (const real *)a->x + first * a->x_step + (g->b0 + b) * a->x_row,
                    a->x_step, 1, 0, shape->I, W, q.nv,
                    panel_part(next, shape->I, q.nv, b, rows), c, c_row, s1 - s0);
            }
            continue;
        }
        for (ptrdiff_t s = s0; s < s1; s++)
            multiply_rows((const real *)a->x +
                              step_offset(shape, s, a->x_step, a->x_row) +
                              g->b0 * a->x_row,
                          a->x_row, 1, 0, shape->I, W, q.nv,
                          panel_part(next, shape->I, q.nv, s - s0, s1 - s0),
                          ax + (s - s0) * rows * columns + q.column, columns,
                          max_size(0, min_size(g->b1, step_rows(shape, s)) - g->b0));
    }
}

/* One thread's part of a call. */
typedef struct {
    const fr_forward_args *a;
    const cell_ops *ops;
    forward_pack pack;
    grid_cell g;
    forward_work w;
    int hoisted;
    real *ax; /* hoisted: this thread's x W of the steps from s0 on */
    ptrdiff_t s0;
} forward_run;

/* Rows [b0, b1) of step s, which all have a predecessor (which = 0) or start here (1):
 * tile by tile x W, h_{t-1} R, and the cell. */
static void forward_rows(const forward_run *f, ptrdiff_t s, int which, ptrdiff_t b0,
                         ptrdiff_t b1)
{
    const fr_forward_args *a = f->a;
    const fr_shape *shape = &a->shape;
    const ptrdiff_t I = shape->I, H = shape->H, H_padded = round_up(H, V);
    const ptrdiff_t tape_row = f->ops->tape_slots * H_padded;
    const real *packed = a->packed, *R = packed + f->pack.R;
    const real *x = (const real *)a->x + step_offset(shape, s, a->x_step, a->x_row);
    real *y = (real *)a->y + step_offset(shape, s, a->y_step, a->y_row);
    real *tape = a->tape;
    const rows_at h_prev =
        previous_h(shape, s, which, a->y, a->y_step, a->y_row, a->h0);
    real ax_tile[TILE_SIZE] __attribute__((aligned(64)));
    real ah_tile[TILE_SIZE] __attribute__((aligned(64)));

    if (tape)
        tape += step_offset(shape, s, shape->B * tape_row, tape_row);
    for (ptrdiff_t p = f->g.p0; p < f->g.p1; p++) {
        const unit_panel q = get_unit_panel(f->ops->gates, H, p);
        const unit_panel next =
            get_unit_panel(f->ops->gates, H, p + 1 < f->g.p1 ? p + 1 : f->g.p0);
        const ptrdiff_t width = q.nv * V, chunks = n_chunks(b1 - b0, q.nv);
        for (ptrdiff_t i = 0; i < chunks; i++) {
            const ptrdiff_t b = b0 + chunk_start(b1 - b0, q.nv, i);
            const ptrdiff_t mr = b0 + chunk_start(b1 - b0, q.nv, i + 1) - b;
            forward_step step = {
                .rows = mr,
                .j = q.j,
                .units = q.units,
                .lanes = q.lanes,
                .ax = ax_tile,
                .ax_row = width,
                .ah = ah_tile,
                .ah_row = width,
                .bias = packed + f->pack.bias + q.column,
                .bias_hn = packed + f->pack.bias_hn,
                .h_prev = h_prev.start + b * h_prev.row,
                .h_prev_row = h_prev.row,
                .c = f->ops->has_c ? f->w.c + b * H_padded : NULL,
                .c_row = H_padded,
                .h = y + b * a->y_row,
                .h_row = a->y_row,
                .tape = tape ? tape + b * tape_row : NULL,
                .tape_row = tape_row,
            };
            if (f->hoisted) {
                const ptrdiff_t row = (s - f->s0) * (f->g.b1 - f->g.b0) + b - f->g.b0;
                step.ax_row = f->pack.columns;
                step.ax = f->ax + row * step.ax_row + q.column;
            } else {
                const real *W = packed + q.column * I;
                multiply_rows(x + b * a->x_row, a->x_row, 1, 0, I, W, q.nv,
                              panel_part(packed + next.column * I, I, q.nv, i, chunks),
                              ax_tile, width, mr);
            }
            multiply_rows(step.h_prev, h_prev.row, 1, 0, H, R + q.column * H, q.nv,
                          panel_part(R + next.column * H, H, q.nv, i, chunks), ah_tile,
                          width, mr);
            f->ops->forward(&step);
        }
    }
}

static void forward_thread(const team *self, const void *args)
{
    const fr_forward_args *a = args;
    const fr_shape *shape = &a->shape;
    const cell_ops *ops = cells[shape->cell];
    const ptrdiff_t I = shape->I, H = shape->H, H_padded = round_up(H, V);
    const real *h0 = a->h0, *c0 = a->c0, *y = a->y;
    real *h_n = a->h_n, *c_n = a->c_n;
    arena workspace = {a->work, 0};
    forward_run f = {
        .a = a,
        .ops = ops,
        .pack = get_forward_pack(ops->gates, I, H),
        .g = get_grid_cell(self, shape, ops->gates, n_unit_panels(ops->gates, H)),
        .w = carve_forward(shape, a->n_threads, &workspace),
    };
    const grid_cell g = f.g;
    f.ax = f.w.ax + self->rank * f.w.ax_size;

    /* Units j0 .. j1 - 1 of its rows' states are this thread's to write. */
    ptrdiff_t j0 = 0, j1 = 0;
    if (g.p1 > g.p0) {
        const unit_panel last = get_unit_panel(ops->gates, H, g.p1 - 1);
        j0 = get_unit_panel(ops->gates, H, g.p0).j;
        j1 = last.j + last.units;
    }
    const size_t bytes = (size_t)(j1 - j0) * sizeof(real);

    /* Rows of length zero keep their state; a running c starts from c0. */
    for (ptrdiff_t b = g.b0; b < g.b1; b++) {
        if (h_n != h0) /* a stream steps in place */
            memcpy(h_n + b * H + j0, h0 + b * H + j0, bytes);
        if (ops->has_c)
            memcpy(f.w.c + b * H_padded + j0, c0 + b * H + j0, bytes);
    }

    const ptrdiff_t rows_owned = g.b1 - g.b0;
    const ptrdiff_t weights = (I + H) * f.pack.columns * (ptrdiff_t)sizeof(real);
    f.hoisted =
        rows_owned < 4 || weights / (g.shared ? self->size : 1) > CACHED_WEIGHTS;
    const ptrdiff_t block =
        f.hoisted ? HOISTED_ROWS / max_size(1, rows_owned) + 1 : shape->T;

    for (ptrdiff_t s = 0; s < shape->T; s++) {
        if (f.hoisted && s % block == 0) {
            f.s0 = s;
            hoist_x_product(a, ops->gates, &g, s, min_size(shape->T, s + block), f.ax,
                            f.pack.columns);
        }
        for (int which = 0; which < 2; which++) {
            ptrdiff_t b0, b1;
            rows_with_start(shape, s, which, g.b0, g.b1, &b0, &b1);
            if (b0 < b1)
                forward_rows(&f, s, which, b0, b1);
        }
        /* Rows without a successor end here. */
        const ptrdiff_t n = min_size(g.b1, step_rows(shape, s));
        for (ptrdiff_t b = max_size(g.b0, step_rows(shape, s + 1)); b < n; b++)
            memcpy(h_n + b * H + j0,
                   y + step_offset(shape, s, a->y_step, a->y_row) + b * a->y_row + j0,
                   bytes);
        if (g.shared)
            team_barrier(self);
    }
    for (ptrdiff_t b = g.b0; ops->has_c && b < g.b1; b++)
        memcpy(c_n + b * H + j0, f.w.c + b * H_padded + j0, bytes);
}

static void forward(const fr_forward_args *a)
{
    fr_forward_args args = *a;
    args.n_threads = sequence_threads(&a->shape, a->n_threads);
    team_run(args.n_threads, forward_thread, &args);
}

static ptrdiff_t packed_forward_size(int cell, ptrdiff_t I, ptrdiff_t H)
{
    return get_forward_pack(cells[cell]->gates, I, H).size;
}

static void pack_forward(const fr_pack_args *a)
{
    pack_forward_weights(cells[a->cell], a);
}
