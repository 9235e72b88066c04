/* SPDX-License-Identifier: BSD-3-Clause */
/* backward.h -- what backward.c and gradients.c share: what one thread does of a call,
 * and the scratch memory of a call.
 */
#ifndef FR_BACKWARD_H
#define FR_BACKWARD_H

#include "gemm.h"
#include "schedule.h"
#include "sequence.h"

/* Elements of dx of a chunk of rows. */
#define DX_TILE (CHUNK_ROWS * (ptrdiff_t)MAX_WIDTH)

/* Backward works on blocks of up to `block` rows, which are the active rows of some
 * steps, those of the last step first.  Each row of a block has a row of `da`, which
 * begins with slots of H_padded elements: the slots of da, followed by what else is
 * summed over rows (the three addends of dP, with peepholes) or packed (forward's
 * `between`, with a late gate).  With a projection dh_t follows. */
typedef struct {
    real *team; /* what the threads of the call wait on */
    real *dh;   /* (B, S_padded), gradient with respect to h_t, from step to step */
    real *carry, *dc;     /* (B, H_padded) each, see backward_step */
    real *between;        /* (B, H_padded), the result of a second product */
    real *da;             /* (block, da_row) */
    ptrdiff_t da_row;     /* elements between rows of da */
    ptrdiff_t sum_slots;  /* slots that are summed over rows */
    ptrdiff_t projection; /* the element of a row of da with which dh_t begins */
    ptrdiff_t block;      /* most rows in a block */
    /* The block packed for dW and dR: x and h_{t-1}, and da, which is A of both. */
    real *x, *h, *a;
    /* A and B of the gradient of a second product's matrix, packed likewise. */
    real *second_a, *second_b;
    real *db;             /* (sum_slots, H_padded), sums over rows */
    ptrdiff_t *dx_offset; /* (block,), where the row's part of dx begins */
    real *tiles;          /* (DX_TILE,) for each thread: dx of a chunk of rows */
} backward_work;

/* Hands out the workspace.  A row of da is one vector longer than it needs to be,
 * because rows a power of two apart would compete for the same few lines of the cache.
 */
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

/* What one thread does of a call. */
typedef struct {
    const team *self;
    const fr_backward_args *a;
    cell cell;
    backward_pack pack;
    backward_work w;
    grid_cell g;
    panel_range state;  /* its panels of dh_{t-1} = da R */
    panel_range second; /* its panels of a second product: the columns are units */
    panel_range units;  /* its units, for which it calls the cell */
    int own_rows;       /* 1: each of several threads has rows of its own */
    /* With own_rows, where a block has come before: the phase of the barrier at which
     * threads arrive when they have read what was packed of it. */
    int has_readers, readers;
} backward_run;

#endif
