/* SPDX-License-Identifier: BSD-3-Clause */
/* masks.h -- what a call of a cell leaves out at random, and the masks for it.
 *
 * All of it is the driver's, and a cell's equations stay as they are:
 *   zoneout            units of h_t, and of c_t, keep the value of the step before
 *                      (Krueger et al. 2017); h~_t is made of the c_t that is not zoned
 *   recurrent dropout  h_{t-1} R becomes (h_{t-1} * m) R, one m for all gates (Gal &
 *                      Ghahramani 2016) or one for each, the same in all steps
 *   input dropout      x W becomes (x * m) W, the same m in all steps
 * Only the mask of a candidate (Semeniuta et al. 2016) is a cell's business.
 *
 * Masks that are the same in all steps are drawn once a call, into the workspace.
 * Without draws, in inference, zoneout has its expectation, p h_{t-1} + (1 - p) h~_t,
 * and the others do nothing.
 */
#ifndef FR_MASKS_H
#define FR_MASKS_H

#include "draw.h"
#include "sequence.h"

typedef struct {
    const fr_cell_options *options; /* NULL where the cell has none */
    int draws;                      /* 1: choices are made, 0: expectations */
    int active; /* 1: something is done to h or c after the cell, or to operands */
    /* What a row's choices of zoneout begin with, (B,) each; see draw.h. */
    uint64_t *zone_h, *zone_c;
    /* (n_masks, B, recurrent_row), one mask for all gates, or for each; NULL: none */
    real *recurrent;
    ptrdiff_t recurrent_row, recurrent_size;
    /* How many masked operands h R has: none, one, or one for each gate. */
    int operands;
    real *input; /* (B, input_row); NULL: none */
    ptrdiff_t input_row;
} masks;

#define WORD ((ptrdiff_t)(sizeof(uint64_t) / sizeof(real))) /* in elements */

/* How many masks of h, or of the candidate, a call has. */
INLINE int n_recurrent_masks(const cell *c)
{
    const fr_cell_options *o = c->options;
    if (!o || o->recurrent_dropout <= 0)
        return 0;
    return o->recurrent_mode == FR_DROP_PER_GATE ? c->gates : 1;
}

INLINE int n_masked_operands(const cell *c)
{
    const int candidate = c->options && c->options->recurrent_mode == FR_DROP_CANDIDATE;
    return candidate ? 0 : n_recurrent_masks(c);
}

INLINE int has_input_mask(const cell *c)
{
    return c->options && c->options->input_dropout > 0;
}

INLINE int zones_h(const cell *c)
{
    return c->options && c->options->zoneout_h > 0;
}

INLINE int zones_c(const cell *c)
{
    return c->options && c->other_states && c->options->zoneout_c > 0;
}

/* Hands out room for masks. */
static masks carve_masks(const fr_shape *shape, const cell *c, arena *a)
{
    const ptrdiff_t B = shape->B, n = n_recurrent_masks(c);
    masks m = {.options = c->options, .operands = n_masked_operands(c)};
    if (zones_h(c))
        m.zone_h = (uint64_t *)(void *)take(a, B * WORD);
    if (zones_c(c))
        m.zone_c = (uint64_t *)(void *)take(a, B * WORD);
    m.recurrent_row = m.operands ? c->S_padded : c->H_padded;
    m.recurrent_size = B * m.recurrent_row;
    if (n > 0)
        m.recurrent = take(a, n * m.recurrent_size);
    m.input_row = round_up(shape->I, V);
    if (has_input_mask(c))
        m.input = take(a, B * m.input_row);
    return m;
}

/* Draws all masks.  The threads of a call share the rows, and wait for each other. */
static void draw_masks(masks *m, const team *self, const fr_shape *shape,
                       const fr_draw *draw)
{
    const fr_cell_options *o = m->options;
    if (!o)
        return;
    m->draws = draw->on;
    if (!m->draws) {
        m->operands = 0;
        m->recurrent = m->input = NULL;
    }
    m->active = m->zone_h || m->zone_c || m->operands;
    ptrdiff_t b0, b1;
    team_share(self, shape->B, &b0, &b1);
    for (ptrdiff_t b = b0; m->draws && b < b1; b++) {
        if (m->zone_h)
            m->zone_h[b] = draw_row(draw, DRAW_ZONEOUT_H, b);
        if (m->zone_c)
            m->zone_c[b] = draw_row(draw, DRAW_ZONEOUT_C, b);
        const int n = o->recurrent_mode == FR_DROP_PER_GATE ? m->operands : 1;
        for (int g = 0; m->recurrent && g < n; g++) {
            const uint64_t start = draw_row(draw, DRAW_RECURRENT + g, b);
            real *to = m->recurrent + g * m->recurrent_size + b * m->recurrent_row;
            for (ptrdiff_t j = 0; j < m->recurrent_row; j += V)
                v_store(to + j, v_dropout(o->recurrent_dropout, start, j));
        }
        if (m->input) {
            const uint64_t start = draw_row(draw, DRAW_INPUT, b);
            real *to = m->input + b * m->input_row;
            for (ptrdiff_t j = 0; j < m->input_row; j += V)
                v_store(to + j, v_dropout(o->input_dropout, start, j));
        }
    }
    team_barrier(self);
}

/* The mask of operand g of h R, or of what a late gate g multiplies; the only one where
 * all gates share it. */
INLINE const real *recurrent_mask(const masks *m, ptrdiff_t g, ptrdiff_t b)
{
    return m->recurrent + (m->operands > 1 ? g : 0) * m->recurrent_size +
           b * m->recurrent_row;
}

/* to = from * mask for n elements; `to` has room for whole vectors. */
INLINE void mask_row(real *to, const real *from, const real *mask, ptrdiff_t n)
{
    for (ptrdiff_t j = 0; j < n; j += V)
        v_store(to + j, v_load_n(from + j, n - j) * v_load(mask + j));
}

/* What is left of `new` where zoneout keeps `old` with probability p.  `start` is what
 * the row's choices of this step begin with. */
INLINE vreal v_zoned(const masks *m, double p, uint64_t start, ptrdiff_t j, vreal old,
                     vreal new)
{
    if (!m->draws)
        return v_fma(v_set1((real)p), old - new, new);
    const vbits keep = v_chosen(draw_with(p), start, j);
    return v_from_bits((keep & v_as_bits(old)) | (~keep & v_as_bits(new)));
}

/* Splits the gradient of what zoneout left: *new becomes the part that goes back through
 * the cell, and the part of the step before is returned. */
INLINE vreal v_unzoned(const masks *m, double p, uint64_t start, ptrdiff_t j,
                       vreal *new)
{
    const vreal d = *new;
    if (!m->draws) {
        *new = v_set1((real)(1 - p)) * d;
        return v_set1((real)p) * d;
    }
    const vbits keep = v_chosen(draw_with(p), start, j);
    *new = v_from_bits(~keep & v_as_bits(d));
    return v_from_bits(keep & v_as_bits(d));
}

/* What row b's choices of zoneout begin with at step s. */
INLINE uint64_t zone_start(const masks *m, const uint64_t *rows, const fr_draw *draw,
                           const fr_shape *shape, ptrdiff_t s, ptrdiff_t b)
{
    if (!m->draws)
        return 0;
    const int64_t step = draw_time(draw, shape, step_time(shape, s), b);
    return draw_next(rows[b], (uint64_t)step);
}

#endif
