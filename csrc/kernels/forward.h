/* SPDX-License-Identifier: BSD-3-Clause */
/* forward.h -- what forward.c and products.c share: what one thread does of a call, and
 * the scratch memory of a call.
 */
#ifndef FR_FORWARD_H
#define FR_FORWARD_H

#include "gemm.h"
#include "masks.h"
#include "schedule.h"
#include "sequence.h"

/* Elements of the results of a chunk.  The last gate of a panel with few lanes is read
 * as a whole vector, for which there is room behind the results. */
#define TILE_SIZE (CHUNK_ROWS * (ptrdiff_t)MAX_WIDTH + V_BYTES)
#define HOISTED_ROWS 96 /* rows of x W that are kept between the product and its use */

typedef struct {
    real *team;    /* what the threads of the call wait on */
    real *c;       /* (other_states, B, H_padded), c_t */
    real *between; /* (B, H_padded), what a second product multiplies */
    real *held;    /* (B, H_padded), what a cell's second part gets from the first */
    /* (HOISTED_ROWS + B, columns) of x W for each thread; of a normalised cell, records
     * (norm.h) for each group, where the first of its threads has x W otherwise. */
    real *ax;
    ptrdiff_t ax_size; /* elements of ax for each thread */
    /* (n_tiles, TILE_SIZE) for each thread: a chunk's x W, its h R, and the latter once
     * more where a normalised cell has a mask of h for each gate. */
    real *tiles;
    int n_tiles;
    masks masks;
    real *c_before; /* (B, H_padded), with zoneout of c: c_{t-1} */
    /* What masked operands of h R lie in, (operands, B, S_padded) each: h0 * m, and h_t
     * * m of steps of even and of odd number. */
    real *masked_h0, *masked_h[2];
    /* With a mask of x or rounded operands, (HOISTED_ROWS + B, input_row) for each
     * thread: x as the products take it. */
    real *masked_x;
    ptrdiff_t masked_x_size;
    /* With rounded operands, (B, rounded_row) or more for each thread. */
    real *rounded;
    ptrdiff_t rounded_row, rounded_size;
} forward_work;

static forward_work carve_forward(const fr_shape *shape, const cell *c, int n_threads,
                                  arena *a)
{
    const ptrdiff_t columns = unit_columns(c->gates, shape->H);
    const ptrdiff_t state = shape->B * c->H_padded;
    forward_work w;
    w.team = take_team_room(a, n_threads);
    w.c = c->other_states ? take(a, c->other_states * state) : NULL;
    w.between = has_second(c) ? take(a, state) : NULL;
    w.held = c->has_late_gate || c->norm.c ? take(a, state) : NULL;
    w.ax_size = round_up(
        (HOISTED_ROWS + shape->B) * max_size(columns, get_norm_record(c).row) + V, 64);
    w.ax = take(a, n_threads * w.ax_size);
    w.n_tiles = 2 + (c->norm.any && n_masked_operands(c) > 1);
    w.tiles = take(a, n_threads * w.n_tiles * TILE_SIZE);
    w.masks = carve_masks(shape, c, a);
    const ptrdiff_t masked = w.masks.operands * shape->B * c->S_padded;
    w.c_before = zones_c(c) ? take(a, state) : NULL;
    w.masked_h0 = masked ? take(a, masked) : NULL;
    w.masked_h[0] = masked ? take(a, masked) : NULL;
    w.masked_h[1] = masked ? take(a, masked) : NULL;
    w.masked_x_size = (HOISTED_ROWS + shape->B) * w.masks.input_row;
    w.masked_x =
        has_input_mask(c) || c->half ? take(a, n_threads * w.masked_x_size) : NULL;
    w.rounded_row = max_size(c->S_padded, has_second(c) ? c->H_padded : 0);
    w.rounded_size = max_size(w.rounded_row, w.masks.operands * c->S_padded) * shape->B;
    w.rounded = c->half ? take(a, n_threads * w.rounded_size) : NULL;
    return w;
}

/* What one thread does of a call. */
typedef struct {
    const fr_forward_args *a;
    cell cell;
    forward_pack pack;
    grid_cell g;
    ptrdiff_t p0, p1;   /* the thread's panels of units */
    ptrdiff_t r0, r1;   /* with has_wider_R(): the panels of R that have these units */
    panel_range second; /* its panels of the matrix of a second product */
    forward_work w;
    int hoisted;
    real *ax;           /* where x W is hoisted: x W of a block of steps */
    ptrdiff_t s0;       /* the first step of that block */
    norm_record record; /* of a normalised cell, what the record of a row has */
    real *records;      /* in training, the records of all rows, in the tape */
    /* The results of a chunk, TILE_SIZE elements each; see forward_work. */
    real *ax_tile, *ah_tile, *by_gate_tile;
    real *masked_x, *rounded; /* this thread's, see forward_work */
} forward_run;

#endif
