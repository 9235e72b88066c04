/* SPDX-License-Identifier: BSD-3-Clause */
/* scan.c -- the driver, forward, of cells whose recurrence is elementwise: a unit of
 * h_t depends on x_t and on the same unit of the state before, and there is no R.
 *
 * All of x W could then be one product.  It is computed for a block of steps and one
 * panel of units at a time, all gates of which come side by side; the cell goes through
 * the steps of the block for these units at once, while the results of the product are
 * in the level-1 cache.  Units and rows are independent of each other, so threads share
 * both, and nobody waits before the end.  The sums begin with the bias and go on with
 * x W, k ascending, as everywhere; how steps are cut into blocks changes no result.
 *
 * Backward such cells have the driver of all others, which leaves out what is for R.
 * Source: a linear recurrence as a scan, Blelloch 1990; Martin & Cundy 2018.  Here the
 * scan is sequential in t, which gives the same bits however the steps are cut.
 */
#include "forward.h"

/* Rows of a block: 96 rows of two gates take 12 KiB, a quarter of the level-1 cache,
 * which leaves room for a panel of W, and make full tiles of 12, 8 or 6 rows. */
#define SCAN_ROWS 96

/* Elements of the results of a block for one panel.  The last gate of a panel with few
 * lanes is read as a whole vector, for which there is room behind them. */
#define SCAN_SIZE (SCAN_ROWS * (ptrdiff_t)MAX_WIDTH + V_BYTES)

static forward_work carve_scan(const fr_shape *shape, const cell *c, int n_threads,
                               arena *a)
{
    forward_work w = {.team = take_team_room(a, n_threads)};
    w.c = c->other_states ? take(a, c->other_states * shape->B * c->H_padded) : NULL;
    w.ax_size = SCAN_SIZE;
    w.ax = take(a, n_threads * w.ax_size);
    w.rounded_row = round_up(c->I_words, V);
    w.rounded_size = SCAN_ROWS * w.rounded_row;
    w.rounded = c->half ? take(a, n_threads * w.rounded_size) : NULL;
    return w;
}

/* The rows of the batch and the panels of units that are one thread's. */
typedef struct {
    ptrdiff_t b0, b1, p0, p1;
} scan_share;

/* Cuts rows and panels so that the largest share is as small as it can be.  Rather the
 * panels than the rows, of two ways alike: the rows of several steps then lie side by
 * side, and are one product. */
static scan_share get_scan_share(const team *self, const fr_shape *shape,
                                 ptrdiff_t panels)
{
    int across = 1; /* threads that have the same rows */
    ptrdiff_t least = PTRDIFF_MAX;
    for (int n = self->size; n >= 1; n--) {
        const int groups = self->size / n;
        const ptrdiff_t largest = n_parts(panels, n) * n_parts(shape->B, groups);
        if (groups * n == self->size && groups <= shape->B && largest < least) {
            across = n;
            least = largest;
        }
    }
    const ptrdiff_t groups = self->size / across, group = self->rank / across;
    const ptrdiff_t place = self->rank % across;
    return (scan_share){
        group_start(shape, groups, group), group_start(shape, groups, group + 1),
        part_start(panels, across, place), part_start(panels, across, place + 1)};
}

/* A block: rows lo .. hi - 1 of the batch at times t0 .. t1 - 1. */
typedef struct {
    ptrdiff_t lo, hi, t0, t1;
    int even; /* 1: its active rows lie x_row apart in x, step after step */
} scan_block;

/* Where row `lo` of time t is among the rows of a block's results. */
INLINE ptrdiff_t row_in_block(const fr_shape *shape, const scan_block *k, ptrdiff_t t)
{
    if (k->even && shape->offsets)
        return shape->offsets[t] - shape->offsets[k->t0];
    return (t - k->t0) * (k->hi - k->lo);
}

/* Rounds x of a block, where that is asked for: its rows lie as those of the results. */
static void round_block(const forward_run *f, const scan_block *k)
{
    const fr_forward_args *a = f->a;
    const fr_shape *shape = &a->shape;
    for (ptrdiff_t t = k->t0; f->cell.half && t < k->t1; t++) {
        const ptrdiff_t s = step_time(shape, t); /* its own inverse */
        const real *x = (const real *)a->x + step_offset(shape, s, a->x_step, a->x_row);
        real *to = f->rounded + row_in_block(shape, k, t) * f->w.rounded_row;
        for (ptrdiff_t b = k->lo; b < min_size(k->hi, step_rows(shape, s)); b++)
            round_row(to + (b - k->lo) * f->w.rounded_row, x + b * a->x_row, f->cell.I);
    }
}

/* The same for panel q from rows that are rounded. */
static void multiply_rounded(const forward_run *f, const scan_block *k,
                             const unit_panel *q, const real *W, memory_range next)
{
    const fr_shape *shape = &f->a->shape;
    const ptrdiff_t I = f->cell.I_words, width = q->nv * V, row = f->w.rounded_row;
    const ptrdiff_t together = shape->offsets && !k->even ? 1 : k->t1 - k->t0;
    for (ptrdiff_t t = k->t0; t < k->t1; t += together) {
        const ptrdiff_t first = row_in_block(shape, k, t);
        const ptrdiff_t rows =
            !shape->offsets ? together * (k->hi - k->lo)
            : k->even ? shape->offsets[k->t1] - shape->offsets[k->t0]
                      : min_size(k->hi, step_rows(shape, step_time(shape, t))) - k->lo;
        multiply_rows_from(panel_bias(f, q), f->rounded + first * row, row, 1, 0, I, W,
                           q->nv, next, f->ax + first * width, width, rows);
    }
}

/* Computes bias + x W of a block for panel q of units. */
static void scan_product(const forward_run *f, const scan_block *k, const unit_panel *q,
                         const unit_panel *following)
{
    const fr_forward_args *a = f->a;
    const fr_shape *shape = &a->shape;
    const ptrdiff_t I = f->cell.I_words, width = q->nv * V, rows = k->hi - k->lo;
    const real *W = (const real *)a->packed + q->column * I;
    const memory_range next =
        panel_part((const real *)a->packed + following->column * I, I, q->nv, 0, 1);
    const sums_start bias = panel_bias(f, q);
    const real *x = (const real *)a->x + k->lo * a->x_row;
    if (f->cell.half) {
        multiply_rounded(f, k, q, W, next);
    } else if (k->even) {
        multiply_rows_from(
            bias, x + step_offset(shape, step_time(shape, k->t0), a->x_step, a->x_row),
            a->x_row, 1, 0, I, W, q->nv, next, f->ax, width,
            shape->offsets ? shape->offsets[k->t1] - shape->offsets[k->t0]
                           : (k->t1 - k->t0) * rows);
    } else if (rows < tile_rows(q->nv) && !shape->offsets) {
        /* A few rows do not fill a tile, and many steps of one row do. */
        for (ptrdiff_t b = 0; b < rows; b++)
            multiply_rows_from(bias, x + k->t0 * a->x_step + b * a->x_row, a->x_step, 1,
                               0, I, W, q->nv, next, f->ax + b * width, rows * width,
                               k->t1 - k->t0);
    } else {
        for (ptrdiff_t t = k->t0; t < k->t1; t++) {
            const ptrdiff_t s = step_time(shape, t); /* its own inverse */
            multiply_rows_from(bias, x + step_offset(shape, s, a->x_step, a->x_row),
                               a->x_row, 1, 0, I, W, q->nv, next,
                               f->ax + row_in_block(shape, k, t) * width, width,
                               min_size(k->hi, step_rows(shape, s)) - k->lo);
        }
    }
}

/* Runs the cell through steps [s0, s1) for the rows of a block and panel q. */
static void scan_steps(const forward_run *f, const scan_block *k, const unit_panel *q,
                       ptrdiff_t s0, ptrdiff_t s1)
{
    const fr_forward_args *a = f->a;
    const fr_shape *shape = &a->shape;
    const ptrdiff_t H = f->cell.H, width = q->nv * V;
    real *h_n = a->h_n;
    for (ptrdiff_t s = s0; s < s1; s++) {
        const real *x = (const real *)a->x + step_offset(shape, s, a->x_step, a->x_row);
        const real *ax = f->ax + row_in_block(shape, k, step_time(shape, s)) * width;
        for (row_origin from = FROM_Y; from <= FROM_H0; from++) {
            ptrdiff_t b0, b1;
            rows_with_start(shape, s, from, k->lo, k->hi, &b0, &b1);
            if (b0 >= b1)
                continue;
            const forward_step base = describe_step(f, s, from);
            forward_step step = base;
            place_step(&step, &base, b0, b1 - b0, q);
            step.ax = ax + (b0 - k->lo) * width;
            step.ax_row = width;
            step.x = f->cell.skips ? x + b0 * a->x_row : NULL;
            step.x_row = a->x_row;
            f->cell.ops->forward(&step);
        }
        /* Rows that are not active in the next step end here. */
        const ptrdiff_t n = min_size(k->hi, step_rows(shape, s));
        const real *y_s =
            (const real *)a->y + step_offset(shape, s, a->y_step, a->y_row);
        for (ptrdiff_t b = max_size(k->lo, step_rows(shape, s + 1)); b < n; b++)
            memcpy(h_n + b * H + q->j, y_s + b * a->y_row + q->j,
                   (size_t)q->units * sizeof(real));
    }
}

/* Runs one call: what a thread of the team does of it. */
static void forward_scan(const team *self, const fr_forward_args *a)
{
    const fr_shape *shape = &a->shape;
    const cell c = get_cell(shape);
    const ptrdiff_t B = shape->B, H = c.H, T = shape->T;
    const real *h0 = a->h0, *c0 = a->c0;
    real *h_n = a->h_n, *c_n = a->c_n;
    const ptrdiff_t panels = n_unit_panels(c.gates, H);
    arena workspace = {a->work, 0};
    forward_run f = {.a = a,
                     .cell = c,
                     .pack = get_forward_pack(&c),
                     .w = carve_scan(shape, &c, a->n_threads, &workspace)};
    const scan_share own = get_scan_share(self, shape, panels);
    f.ax = f.w.ax + self->rank * f.w.ax_size;
    f.rounded = advance(f.w.rounded, self->rank * f.w.rounded_size);
    clear_padding(self, shape, a->y, a->y_step, a->y_row, H);
    if (own.p0 == own.p1)
        return;

    const unit_panel last = get_W_panel(&c, own.p1 - 1);
    const ptrdiff_t j0 = get_W_panel(&c, own.p0).j;
    const size_t bytes = (size_t)(last.j + last.units - j0) * sizeof(real);
    /* Rows without any step keep their state; the running c starts from c0. */
    for (ptrdiff_t b = own.b0; b < own.b1; b++) {
        if (h_n != h0) /* they are one array where a stream steps in place */
            memcpy(h_n + b * H + j0, h0 + b * H + j0, bytes);
        if (c.other_states)
            memcpy(f.w.c + b * c.H_padded + j0, c0 + b * H + j0, bytes);
    }

    const int rows_follow = shape->offsets ? !shape->padded : a->x_step == B * a->x_row;
    scan_block k;
    for (k.lo = own.b0; k.lo < own.b1; k.lo = k.hi) {
        k.hi = min_size(own.b1, k.lo + SCAN_ROWS);
        k.even = k.lo == 0 && k.hi == B && rows_follow;
        const ptrdiff_t steps = SCAN_ROWS / (k.hi - k.lo);
        for (ptrdiff_t s = 0, turn = a->steps_before; s < T; s += steps, turn++) {
            const ptrdiff_t end = min_size(T, s + steps);
            k.t0 = shape->reverse ? T - end : s;
            k.t1 = shape->reverse ? T - s : end;
            round_block(&f, &k);
            for (ptrdiff_t n = own.p0; n < own.p1; n++) {
                const unit_panel q =
                    get_W_panel(&c, back_and_forth(turn, own.p0, own.p1, n));
                const unit_panel following =
                    get_W_panel(&c, back_and_forth(turn, own.p0, own.p1, n + 1));
                scan_product(&f, &k, &q, &following);
                scan_steps(&f, &k, &q, s, end);
            }
        }
    }
    for (ptrdiff_t b = own.b0; c.other_states && b < own.b1; b++)
        memcpy(c_n + b * H + j0, f.w.c + b * c.H_padded + j0, bytes);
}
