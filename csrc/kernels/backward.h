/* SPDX-License-Identifier: BSD-3-Clause */
/* backward.h -- what backward.c and gradients.c share: one thread's part of a call, and
 * its memory.
 */
#ifndef FR_BACKWARD_H
#define FR_BACKWARD_H

#include "sequence.h"

#define DX_TILE (CHUNK_ROWS * (ptrdiff_t)MAX_WIDTH) /* elements of a tile of dx */

/* A row of a block: slots of H_padded with da, then what else is summed over rows (the
 * addends of dP) or multiplied (rh), then dh_t where it goes through a projection. */
typedef struct {
    real *team;            /* room of the team of threads */
    real *dh, *carry, *dc; /* running gradients of the states, rows padded */
    real *between;         /* (B, H_padded), what came through a second product */
    real *da;              /* (block, da_row) */
    ptrdiff_t da_row;
    ptrdiff_t sum_slots, projection; /* slots that are summed; where dh_t begins */
    ptrdiff_t block;                 /* most rows in a block */
    real *x, *h, *a; /* the block packed for dW: x and h_{t-1} as B, da as A */
    real *second_a, *second_b; /* the same for the matrix of a second product */
    real *db;                  /* (sum_slots, H_padded) sums of da */
    ptrdiff_t *dx_offset;      /* (block,) */
    real *tiles;               /* per thread: (DX_TILE,), sums of dx */
} backward_work;

/* One more vector than da needs: rows then start in different cache sets. */
static backward_work carve_backward(const fr_shape *shape, const cell *c, int n_threads,
                                    arena *a)
{
    const cell_ops *ops = c->ops;
    const ptrdiff_t B = shape->B, H_padded = c->H_padded;
    const ptrdiff_t pointers = (ptrdiff_t)(sizeof(void *) / sizeof(real));
    backward_work w;
    w.block = max_size(B, min_size(total_rows(shape), BLOCK_ROWS / B * B));
    w.team = take_team_room(a, n_threads);
    w.dh = take(a, B * c->S_padded);
    w.carry = ops->has_carry ? take(a, B * H_padded) : NULL;
    w.dc = c->has_c ? take(a, B * H_padded) : NULL;
    w.between = has_second(c) ? take(a, B * H_padded) : NULL;
    w.sum_slots = ops->da_slots + (c->has_peephole ? 3 : 0);
    w.projection = (w.sum_slots + c->has_late_gate) * H_padded;
    w.da_row = w.projection + (c->has_projection ? c->S_padded : 0) + V;
    w.da = take(a, w.block * w.da_row + A_LANES);
    w.x = take(a, packed_size(w.block, shape->I));
    w.h = take(a, packed_size(w.block, shape->S));
    w.a = take(a, ops->da_slots * packed_a_size(shape->H, w.block));
    w.second_a = c->has_projection ? take(a, packed_a_size(shape->S, w.block)) : w.a;
    w.second_b = has_second(c) ? take(a, packed_size(w.block, shape->H)) : NULL;
    w.db = take(a, w.sum_slots * H_padded);
    w.dx_offset = (ptrdiff_t *)(void *)take(a, w.block * pointers);
    w.tiles = take(a, n_threads * DX_TILE);
    return w;
}

static ptrdiff_t backward_work_size(const fr_shape *shape, int n_threads)
{
    const cell c = get_cell(shape);
    arena a = {NULL, 0};
    carve_backward(shape, &c, n_threads, &a);
    return a.used;
}

/* One thread's part of a call. */
typedef struct {
    const team *self;
    const fr_backward_args *a;
    cell cell;
    backward_pack pack;
    backward_work w;
    grid_cell g;
    panel_range state;  /* its panels of dh = da R */
    panel_range second; /* of a second product, whose columns are units */
    panel_range units;  /* its units: those of one of the two */
} backward_run;

#endif
