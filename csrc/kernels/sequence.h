/* SPDX-License-Identifier: BSD-3-Clause */
/* sequence.h -- what forward.c and backward.c share: steps, active rows, schedule,
 * memory.
 *
 * Steps are counted in processing order: step s is time s, or T-1-s when reversed. With
 * ragged batches (rows sorted by length) step s has n_s active rows, and only those are
 * touched; a dense batch is the case n_s = B.  Row b's predecessor at step s exists iff
 * b < n_{s-1}; otherwise the row starts there, from h0.
 *
 * Threads form a grid of row groups x unit ranges.  With rows enough each thread owns
 * rows for all T and never waits; where R is large next to the cache, or rows are few,
 * the threads of the whole team share the units of every step, with a barrier a step.
 */
#ifndef FR_SEQUENCE_H
#define FR_SEQUENCE_H

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

/* --- steps and rows -------------------------------------------------------------- */

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

/* h_{t-1} for the rows of step s that have a predecessor (which = 0) or start here (1).
 */
INLINE rows_at previous_h(const fr_shape *shape, ptrdiff_t s, int which, const real *y,
                          ptrdiff_t y_step, ptrdiff_t y_row, const real *h0)
{
    if (which)
        return (rows_at){h0, shape->H};
    return (rows_at){y + step_offset(shape, s - 1, y_step, y_row), y_row};
}

/* Rows [*b0, *b1) of those in [low, high) that are `which` at step s. */
INLINE void rows_with_start(const fr_shape *shape, ptrdiff_t s, int which,
                            ptrdiff_t low, ptrdiff_t high, ptrdiff_t *b0, ptrdiff_t *b1)
{
    const ptrdiff_t n = step_rows(shape, s), old = min_size(n, step_rows(shape, s - 1));
    *b0 = max_size(low, which ? old : 0);
    *b1 = min_size(high, which ? n : old);
}

/* --- schedule -------------------------------------------------------------------- */

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
    const ptrdiff_t R_bytes = gates * shape->H * shape->H * (ptrdiff_t)sizeof(real);
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

#endif
