/* SPDX-License-Identifier: BSD-3-Clause */
/* backward.h -- what backward.c and gradients.c share: what one thread does of a call,
 * and the scratch memory of a call.
 */
#ifndef FR_BACKWARD_H
#define FR_BACKWARD_H

#include "gemm.h"
#include "masks.h"
#include "schedule.h"
#include "sequence.h"

/* Elements of dx of a chunk of rows. */
#define DX_TILE (CHUNK_ROWS * (ptrdiff_t)MAX_WIDTH)

/* Backward works on blocks of rows, which are the active rows of some steps, those of
 * the last step first: as many steps as have at most BLOCK_ROWS rows together, or one
 * that has more.  Which steps are a block depends on nothing but the active rows of the
 * steps after it, so that it is the same when a sequence comes in several calls, where
 * a block may begin in one call and end in the next.
 *
 * Each row that a call adds to a block has a row of `da`, which begins with slots of
 * H_padded elements: the slots of da, followed by what else is summed over rows (the
 * addends of dP, for a cell that has vectors of weights) or packed (forward's
 * `between`, with a late gate).  With a projection dh_t follows.
 *
 * A normalised cell has many more sums over rows than slots that go into products, and
 * these sums are not made from what is packed.  Each row of the batch has sums of its
 * own over the steps of a chain, ROW_CHAIN steps of a block or fewer, to which a step
 * adds while the addends are in registers.  Part (3) adds the rows of all chains up. */
typedef struct {
    ptrdiff_t steps; /* of the block, so far */
    ptrdiff_t first; /* where the chain of this step has the sums of row 0 */
    ptrdiff_t old;   /* rows of the batch that the chain had before this step */
    ptrdiff_t rows;  /* that it has now */
    ptrdiff_t half;  /* of `chains`: (3) reads one while (1) writes one */
} chain_place;

typedef struct {
    real *team; /* what the threads of the call wait on */
    real *dh;   /* (B, S_padded), gradient with respect to h_t, from step to step */
    real *carry, *dc; /* (B, H_padded) for each state, see backward_step */
    real *between;    /* (B, H_padded), the result of a second product */
    real *c_hat, *dn; /* (B, H_padded) each, see backward_step */
    real *norm_means; /* (B, N_STATISTICS), means over rows (norm_backward.c) */
    real *da;         /* (rows of a block that are this call's, da_row) */
    ptrdiff_t da_row; /* elements between rows of da */
    /* da as the products take it: da itself, or the same rows rounded, each element at
     * its place divided by PAIR. */
    real *da_operand;
    ptrdiff_t row_slots; /* slots of a row of da, of which some are packed */
    ptrdiff_t sum_slots; /* what is summed over rows, H_padded elements each */
    /* (B, behind_row): what a cell whose h R is normalised writes, behind the norm */
    real *behind;
    ptrdiff_t behind_row;
    ptrdiff_t projection; /* the element of a row of da with which dh_t begins */
    ptrdiff_t *dx_offset; /* for each row of da, where the row's part of dx begins */
    masks masks;
    /* The parts of dh_t and dc_t that zoneout hands to the step before, (B, S_padded)
     * and (B, H_padded). */
    real *zone_h, *zone_c;
    real *by_gate;         /* (B, S_padded), da R of one gate, where each has a mask */
    real *masked;          /* a row of x or of h_{t-1}, masked, for each thread */
    ptrdiff_t masked_size; /* elements of it */
    ptrdiff_t *row_of;     /* for each row of da, its row of the batch */
    real *tiles;           /* (DX_TILE,) for each thread: dx of a chunk of rows */

    /* What calls hand on that have parts of a sequence, see fr_backward_args.block. */
    ptrdiff_t *packed;  /* how many rows of the block the calls before have packed */
    chain_place *place; /* which chain the calls before have come to */
    ptrdiff_t block;    /* rows that there is room for */
    /* The block packed for dW and dR: x and h_{t-1}, head by head, and da, which is A of
     * both. */
    real *x, *h, *a;
    real *a_operand; /* a as the products take it: a itself, or rounded */
    /* A and B of the gradient of a second product's matrix, packed likewise. */
    real *second_a, *second_b;
    /* (2, block, chain_row) of a normalised cell: sums over the steps of chains */
    real *chains;
    ptrdiff_t chain_row, chains_size;
    /* (sum_slots, tiles of H rows, A_LANES) each: sums over rows, and what rounding has
     * taken from them. */
    real *sum, *lost;
} backward_work;

#define POINTER_SIZE ((ptrdiff_t)(sizeof(ptrdiff_t) / sizeof(real))) /* in elements */

/* What is summed over rows is what the cell writes, its da and the addends of dP, and
 * behind that the addends of the parameters of a norm: where each of these begins, and
 * how many slots all have. */
typedef struct {
    int ih, hh, c, c_bias, end;
} row_sums;

INLINE row_sums get_row_sums(const cell *c)
{
    row_sums n;
    n.ih = c->ops->da_slots + c->n_vectors;
    n.hh = n.ih + (c->norm.any ? c->gates : 0);
    n.c = n.hh + (c->norm.recurrent ? c->ops->R_gates : 0);
    n.c_bias = n.c + c->norm.c;
    n.end = n.c_bias + (c->norm.c && !c->norm.rms);
    return n;
}

/* Slots of a row of da. */
INLINE ptrdiff_t get_row_slots(const cell *c)
{
    const int behind = c->writes_behind ? 0 : c->ops->da_slots + c->n_vectors;
    return c->cell_slot + behind;
}

/* Elements of the sums over rows. */
INLINE ptrdiff_t sums_size(const fr_shape *shape, ptrdiff_t sum_slots)
{
    return sum_slots * n_row_tiles(shape->H, SUM_NV) * A_LANES;
}

/* Hands out room for a block of w->block rows and the sums over rows. */
static void carve_block(const fr_shape *shape, const cell *c, backward_work *w,
                        arena *a)
{
    const ptrdiff_t H = shape->H, S = shape->S;
    w->packed = (ptrdiff_t *)(void *)take(a, POINTER_SIZE);
    if (c->norm.any)
        w->place = (chain_place *)(void *)take(
            a, (ptrdiff_t)(sizeof(chain_place) / sizeof(real)));
    const ptrdiff_t words = operand_size(w->block);
    w->x = take(a, packed_size(words, shape->I));
    w->h = is_scan(c) ? NULL
                      : take(a, max_size(1, n_masked_operands(c)) * c->heads *
                                    packed_size(words, c->head_size));
    w->a = take(a, w->row_slots * packed_a_size(H, w->block));
    w->a_operand = c->half ? take(a, c->product_slots * packed_a_size(H, words)) : w->a;
    w->second_a = c->has_projection ? take(a, packed_a_size(S, words)) : w->a;
    w->second_b = has_second(c) ? take(a, packed_size(words, H)) : NULL;
    w->chain_row = w->sum_slots * c->H_padded + V;
    w->chains_size = w->block * w->chain_row;
    w->chains = c->norm.any ? take(a, 2 * w->chains_size) : NULL;
    w->sum = take(a, sums_size(shape, w->sum_slots));
    w->lost = take(a, sums_size(shape, w->sum_slots));
}

/* Hands out the workspace, and `handed_on`, unless that is NULL.  A row of da is one
 * vector longer than it needs to be, because rows a power of two apart would compete
 * for the same few lines of the cache. */
static backward_work carve_backward(const fr_shape *shape, const cell *c, int n_threads,
                                    arena *a, void *handed_on)
{
    const cell_ops *ops = c->ops;
    const ptrdiff_t B = shape->B, H_padded = c->H_padded;
    const ptrdiff_t rows = max_size(B, min_size(total_rows(shape), BLOCK_ROWS));
    backward_work w;
    w.team = take_team_room(a, n_threads);
    w.dh = take(a, B * c->S_padded);
    w.carry = ops->has_carry ? take(a, B * H_padded) : NULL;
    w.dc = c->other_states ? take(a, c->other_states * B * H_padded) : NULL;
    w.between = has_second(c) ? take(a, B * H_padded) : NULL;
    w.c_hat = c->norm.c ? take(a, B * H_padded) : NULL;
    w.dn = c->norm.c ? take(a, B * H_padded) : NULL;
    w.norm_means = c->norm.any ? take(a, B * N_STATISTICS) : NULL;
    w.behind_row = (ops->da_slots + c->n_vectors) * H_padded + V;
    w.behind = c->writes_behind ? take(a, B * w.behind_row) : NULL;
    w.row_slots = get_row_slots(c);
    w.sum_slots = get_row_sums(c).end;
    w.projection = (w.row_slots + c->has_late_gate) * H_padded;
    w.da_row = w.projection + (c->has_projection ? c->S_padded : 0) + V;
    w.da = take(a, rows * w.da_row + A_LANES);
    w.da_operand = c->half ? take(a, rows * w.da_row / PAIR + A_LANES) : w.da;
    w.dx_offset = (ptrdiff_t *)(void *)take(a, rows * POINTER_SIZE);
    w.tiles = take(a, n_threads * DX_TILE);
    w.masks = carve_masks(shape, c, a);
    w.zone_h = zones_h(c) ? take(a, B * c->S_padded) : NULL;
    w.zone_c = zones_c(c) ? take(a, B * H_padded) : NULL;
    w.by_gate = n_masked_operands(c) > 1 ? take(a, B * c->S_padded) : NULL;
    const int masked = n_masked_operands(c) || has_input_mask(c);
    w.masked_size = max_size(w.masks.input_row, c->S_padded);
    w.masked = masked ? take(a, n_threads * w.masked_size) : NULL;
    w.row_of =
        has_input_mask(c) ? (ptrdiff_t *)(void *)take(a, rows * POINTER_SIZE) : NULL;
    arena other = {handed_on, 0};
    w.block = handed_on ? max_size(B, BLOCK_ROWS) : rows;
    carve_block(shape, c, &w, handed_on ? &other : a);
    return w;
}

static ptrdiff_t backward_work_size(const fr_shape *shape, int n_threads)
{
    const cell c = get_cell(shape);
    arena a = {NULL, 0};
    carve_backward(shape, &c, n_threads, &a, NULL);
    return a.used;
}

static ptrdiff_t backward_block_size(const fr_shape *shape)
{
    const cell c = get_cell(shape);
    arena a = {NULL, 0};
    backward_work w = {.block = max_size(shape->B, BLOCK_ROWS),
                       .row_slots = get_row_slots(&c),
                       .sum_slots = get_row_sums(&c).end};
    carve_block(shape, &c, &w, &a);
    return a.used;
}

/* What one thread does of a call. */
typedef struct {
    const team *self;
    const fr_backward_args *a;
    cell cell;
    backward_pack pack;
    backward_work w;
    ptrdiff_t before;   /* rows of the block that the calls before have packed */
    chain_place *place; /* this thread's own */
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
