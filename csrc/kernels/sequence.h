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
 * There several calls may run at once, each on a part of the team: the two directions of
 * a layer, or layers of a stack, each some steps behind the one whose results it reads.
 */
#ifndef FR_SEQUENCE_H
#define FR_SEQUENCE_H

#include "cell.h"
#include "parallel.h"

#include "cells.h"

static cell get_cell(const fr_shape *shape)
{
    const cell_entry *entry = cell_table[shape->cell];
    const fr_cell_options *o = shape->options;
    const cell_ops *ops = o == NULL         ? entry->plain
                          : o->reset_before ? entry->reset_before
                                            : entry->general;
    const int has_late_gate = ops->forward_second != NULL;
    /* What is added to the late gate's product can be added to its x W as well. */
    const int is_late = has_late_gate && ops->late_gate == entry->about.bias_apart;
    return (cell){
        .ops = ops,
        .bias_apart = is_late ? NO_GATE : entry->about.bias_apart,
        .gates = entry->about.n_gates,
        .has_c = entry->about.n_states == 2,
        .has_peephole = o && o->peephole,
        .has_projection = shape->S != shape->H,
        .has_late_gate = has_late_gate,
        .I = shape->I,
        .H = shape->H,
        .S = shape->S,
        .H_padded = round_up(shape->H, V),
        .S_padded = round_up(shape->S, V),
    };
}

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

/* Where row 0 of step s begins in an array of the caller's with these strides. */
INLINE ptrdiff_t step_offset(const fr_shape *shape, ptrdiff_t s, ptrdiff_t step,
                             ptrdiff_t row)
{
    const ptrdiff_t t = step_time(shape, s);
    return shape->offsets && !shape->padded ? shape->offsets[t] * row : t * step;
}

/* The same in the tape, which has active rows only. */
INLINE ptrdiff_t tape_offset(const fr_shape *shape, ptrdiff_t s, ptrdiff_t row)
{
    const ptrdiff_t t = step_time(shape, s);
    return (shape->offsets ? shape->offsets[t] : t * shape->B) * row;
}

INLINE ptrdiff_t total_rows(const fr_shape *shape)
{
    return shape->offsets ? shape->offsets[shape->T] : shape->T * shape->B;
}

/* Zero to the rows of a padded array that follow the active ones. */
static void clear_padding(const team *self, const fr_shape *shape, real *to,
                          ptrdiff_t step, ptrdiff_t row, ptrdiff_t width)
{
    ptrdiff_t s0, s1;
    if (!shape->padded)
        return;
    team_share(self, shape->T, &s0, &s1);
    for (ptrdiff_t s = s0; s < s1; s++)
        for (ptrdiff_t b = step_rows(shape, s); b < shape->B; b++)
            memset(to + step_offset(shape, s, step, row) + b * row, 0,
                   (size_t)width * sizeof(real));
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
        return (rows_at){h0, shape->S};
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
                         (double)(get_cell(shape).gates * shape->H) *
                         (double)(shape->I + shape->S);
    return useful_threads(flops, n_threads);
}

/* Moving a number takes about as long as sixteen operations on numbers in cache. */
static int packing_threads(const fr_pack_args *a)
{
    const fr_shape *s = &a->shape;
    const double size = (double)(get_cell(s).gates * s->H) * (double)(s->I + s->S);
    return useful_threads(16 * size, a->n_threads);
}

/* The team is a grid: groups own rows of the batch for all steps and never wait for each
 * other; the threads of a group share its rows' units, with a barrier a step. */
typedef struct {
    ptrdiff_t b0, b1; /* the rows of this thread's group */
    team group;
} grid_cell;

/* Smallest groups that leave each rows enough to fill a tile's, and each thread a part
 * of R that its cache can hold, as long as there are panels for all. */
static int group_size(int threads, const fr_shape *shape, const cell *c,
                      ptrdiff_t panels)
{
    const ptrdiff_t R_bytes = c->gates * c->H * c->S * (ptrdiff_t)sizeof(real);
    for (int size = 1; size < threads; size++) {
        const int groups = threads / size;
        const int few_rows = shape->B < 4 * groups;
        const int large = R_bytes > size * CACHED_WEIGHTS;
        const int can_grow = panels >= 4 * size;
        if (groups * size == threads && !few_rows && !(large && can_grow))
            return size;
    }
    return threads;
}

/* Rows that a chained call hands on at a time: few, since the calls behind wait for the
 * first and the calls before have nothing to do after the last; some, since products of
 * more rows are faster. */
#define CHAINED_ROWS 12

INLINE ptrdiff_t chained_steps(ptrdiff_t rows)
{
    return (CHAINED_ROWS + rows - 1) / max_size(1, rows);
}

/* How many of `most` calls of this shape to run at once.  That saves barriers of a team
 * whose threads share units; a part of it has to hold R, then, where all of it did. */
static int calls_at_once(const fr_shape *shape, int n_threads, int most, int chained)
{
    const cell c = get_cell(shape);
    const int threads = sequence_threads(shape, n_threads);
    const ptrdiff_t panels = n_unit_panels(&c);
    const ptrdiff_t R_bytes = c.gates * c.H * c.S * (ptrdiff_t)sizeof(real);
    if (group_size(threads, shape, &c, panels) == 1)
        return 1;
    most = (int)min_size(min_size(most, FR_MOST_AT_ONCE), threads);
    for (int n = most; n > 1; n--) {
        const ptrdiff_t waits = chained ? n * chained_steps(shape->B) : 0;
        if (threads % n == 0 && R_bytes <= threads / n * CACHED_WEIGHTS &&
            shape->T >= 4 * waits)
            return n;
    }
    return 1;
}

/* The first row of a group.  Rows of a ragged batch end at different steps, so groups
 * are of equal work, not of equally many rows; each has one at least. */
static ptrdiff_t group_start(const fr_shape *shape, ptrdiff_t groups, ptrdiff_t group)
{
    if (shape->offsets == NULL || group == groups)
        return part_start(shape->B, groups, group);
    ptrdiff_t b = 0, work = 0; /* row-steps of the rows before b */
    for (ptrdiff_t g = 1; g <= group; g++) {
        const ptrdiff_t wanted = part_start(total_rows(shape), groups, g);
        const ptrdiff_t least = b + 1, most = shape->B - (groups - g);
        while (b < least || (b < most && work < wanted)) {
            ptrdiff_t low = 0, high = shape->T; /* row b lives for `low` steps */
            while (low < high) {
                const ptrdiff_t t = (low + high) / 2;
                if (shape->offsets[t + 1] - shape->offsets[t] > b)
                    low = t + 1;
                else
                    high = t;
            }
            work += low;
            b++;
        }
    }
    return b;
}

INLINE grid_cell get_grid_cell(const team *self, const fr_shape *shape, const cell *c,
                               ptrdiff_t panels)
{
    const int size = group_size(self->size, shape, c, panels);
    const ptrdiff_t groups = self->size / size, group = self->rank / size;
    return (grid_cell){.b0 = group_start(shape, groups, group),
                       .b1 = group_start(shape, groups, group + 1),
                       .group = team_group(self, size)};
}

/* A thread's panels of a matrix, and the columns that they cover. */
typedef struct {
    ptrdiff_t p0, p1;
    ptrdiff_t begin, end;
} panel_range;

INLINE panel_range own_panels(const grid_cell *g, ptrdiff_t N, ptrdiff_t widest)
{
    panel_range own = {0, 0, 0, 0};
    team_share(&g->group, n_panels(N, widest), &own.p0, &own.p1);
    if (own.p1 > own.p0) {
        const panel last = get_panel(N, widest, own.p1 - 1);
        own.begin = get_panel(N, widest, own.p0).column;
        own.end = last.column + last.n;
    }
    return own;
}

/* The n-th panel of [p0, p1) at step s: upwards at even steps, downwards at odd ones, so
 * that a step begins with the panels that the one before left in the cache.  n = p1
 * gives the first of the next step. */
INLINE ptrdiff_t back_and_forth(ptrdiff_t s, ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t n)
{
    n = min_size(n, p1 - 1);
    return s % 2 ? p0 + p1 - 1 - n : n;
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

/* Where the teams of a call that begins with this workspace wait: see team_room(). */
INLINE real *take_team_room(arena *a, int n_threads)
{
    return take(a, team_room(n_threads) / (ptrdiff_t)sizeof(real));
}

/* With a projection m_t follows the tape, in rows of H_padded. */
static ptrdiff_t tape_size(const fr_shape *shape)
{
    const cell c = get_cell(shape);
    return total_rows(shape) * (c.ops->tape_slots + c.has_projection) * c.H_padded;
}

#endif
