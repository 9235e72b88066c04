/* SPDX-License-Identifier: BSD-3-Clause */
/* schedule.h -- how many threads a call gets, and which of them does what.
 *
 * The threads of a team are a grid of groups of rows by ranges of hidden units.  Where
 * there are enough rows, a group is one thread, which owns its rows for all time steps
 * and never waits.  Where R is large compared with the cache, or rows are few, the
 * threads of a larger group share the units of every step, with a barrier after each
 * step.
 *
 * Where threads would share units, several calls may run at once instead, each on a
 * part of the team: the two directions of a layer, or layers of a stack, each of which
 * stays some steps behind the layer whose results it reads.
 */
#ifndef FR_SCHEDULE_H
#define FR_SCHEDULE_H

#include "pack.h"
#include "parallel.h"
#include "sequence.h"

/* Bytes of weights that a thread can keep in its level-2 cache. */
INLINE ptrdiff_t cached_weights(const fr_shape *shape)
{
    return shape->level2 > 0 ? shape->level2 : 1 << 20;
}

static int sequence_threads(const fr_shape *shape, int n_threads)
{
    const cell c = get_cell(shape);
    const double flops = 2.0 * (double)total_rows(shape) * (double)(c.gates * c.H) *
                         (double)(c.I + (is_scan(&c) ? 0 : c.head_size));
    return useful_threads(flops, n_threads);
}

/* A thread's place in the grid. */
typedef struct {
    ptrdiff_t b0, b1; /* its group owns rows b0 .. b1 - 1 of the batch for all steps */
    team group;       /* the threads that share the hidden units of these rows */
} grid_cell;

/* Threads of a group: as few as leave every group enough rows for a tile and every
 * thread a part of R that its cache can hold.  For the sake of the cache a group grows
 * only as long as there are several panels for each of its threads. */
static int group_size(int threads, const fr_shape *shape, const cell *c,
                      ptrdiff_t panels)
{
    const ptrdiff_t R_bytes =
        is_scan(c) ? 0 : c->gates * c->H * c->head_size * (ptrdiff_t)sizeof(real);
    for (int size = 1; size < threads; size++) {
        const int groups = threads / size;
        const int few_rows = shape->B < 4 * groups;
        const int large = R_bytes > size * cached_weights(shape);
        const int can_grow = panels >= 4 * size;
        if (groups * size == threads && !few_rows && !(large && can_grow))
            return size;
    }
    return threads;
}

/* Rows of steps that a chained call hands to the next call at a time.  They should be
 * few, because the next call has nothing to do before the first rows come, and the call
 * before nothing after its last rows; and not too few, because products of more rows
 * are faster. */
#define CHAINED_ROWS 12

INLINE ptrdiff_t chained_steps(ptrdiff_t rows)
{
    return (CHAINED_ROWS + rows - 1) / max_size(1, rows);
}

/* How many of `most` calls of this shape to run at once.  Calls at once save waiting
 * where the threads of a team share units, since each part of the team is smaller.  The
 * caches of a part then have to hold R, where those of the whole team did before. */
static int calls_at_once(const fr_shape *shape, int n_threads, int most, int chained)
{
    const cell c = get_cell(shape);
    const int threads = sequence_threads(shape, n_threads);
    const ptrdiff_t panels = n_unit_panels(c.gates, c.H);
    const ptrdiff_t R_bytes = c.gates * c.H * c.head_size * (ptrdiff_t)sizeof(real);
    if (is_scan(&c) || group_size(threads, shape, &c, panels) == 1)
        return 1;
    most = (int)min_size(min_size(most, FR_MOST_AT_ONCE), threads);
    for (int n = most; n > 1; n--) {
        const ptrdiff_t waits = chained ? n * chained_steps(shape->B) : 0;
        if (threads % n == 0 && R_bytes <= threads / n * cached_weights(shape) &&
            shape->T >= 4 * waits)
            return n;
    }
    return 1;
}

/* The first row of a group.  Since the rows of a ragged batch end at different steps,
 * its groups get about the same work, and not the same number of rows; each gets at
 * least one row. */
static ptrdiff_t group_start(const fr_shape *shape, ptrdiff_t groups, ptrdiff_t group)
{
    if (shape->offsets == NULL || group == groups)
        return part_start(shape->B, groups, group);
    ptrdiff_t b = 0, work = 0; /* work: steps of all rows before b together */
    for (ptrdiff_t g = 1; g <= group; g++) {
        const ptrdiff_t wanted = part_start(total_rows(shape), groups, g);
        const ptrdiff_t least = b + 1, most = shape->B - (groups - g);
        while (b < least || (b < most && work < wanted)) {
            ptrdiff_t low = 0, high = shape->T; /* row b has `low` steps in the end */
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

/* The panels p0 .. p1 - 1 of a matrix, which are those of one thread, and the columns
 * begin .. end - 1 that they cover. */
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

/* The panel that comes in place n, p0 <= n < p1, at step s.  Even steps go through the
 * panels [p0, p1) upwards and odd steps downwards, so that each step begins with the
 * panels that the step before has left in the cache.  For n = p1 the result is the
 * first panel of the next step. */
INLINE ptrdiff_t back_and_forth(ptrdiff_t s, ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t n)
{
    n = min_size(n, p1 - 1);
    return s % 2 ? p0 + p1 - 1 - n : n;
}

#endif
