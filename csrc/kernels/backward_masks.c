/* SPDX-License-Identifier: BSD-3-Clause */
/* backward_masks.c -- what the driver left out at random, backward: see masks.h; and the
 * product of a step, which masks may be for.
 */
#include "backward.h"

/* Where an element of da lies in what the products take. */
INLINE const real *operand_of(const backward_run *f, const real *da)
{
    return f->w.da_operand + (da - f->w.da) / PAIR;
}

/* Rounds elements [begin, end) of `slots` slots of a step's rows, the first of which
 * begins at `from` for row 0.  A range begins with a whole vector. */
static void round_slots(const backward_run *f, ptrdiff_t rows, const real *from,
                        ptrdiff_t slots, const panel_range *units)
{
    const ptrdiff_t H_padded = f->cell.H_padded;
    if (!f->cell.half)
        return;
    for (ptrdiff_t b = f->g.b0; b < f->g.b0 + rows; b++)
        for (ptrdiff_t slot = 0; slot < slots; slot++) {
            const real *at = from + b * f->w.da_row + slot * H_padded + units->begin;
            round_row((real *)operand_of(f, at), at, units->end - units->begin);
        }
}

/* dh = da R for this thread's rows of a step, whose da begins at da_s, and its panels
 * of R. */
static void state_product(const backward_run *f, ptrdiff_t s, ptrdiff_t rows,
                          const real *da_s)
{
    const cell *c = &f->cell;
    const backward_work *w = &f->w;
    const ptrdiff_t S = c->S, gates = c->ops->R_gates, p0 = f->state.p0;
    const ptrdiff_t all = gates * f->pack.R_rows, p1 = f->state.p1;
    const real *R = f->a->packed;
    const real *A =
        operand_of(f, da_s + c->first_R_slot * c->H_padded + f->g.b0 * w->da_row);
    for (ptrdiff_t n = p0; n < p1; n++) {
        const panel q = get_panel(S, f->pack.R_widest, back_and_forth(s, p0, p1, n));
        const panel next =
            get_panel(S, f->pack.R_widest, back_and_forth(s, p0, p1, n + 1));
        const head_range units = get_heads(c, q.column, q.n, c->H);
        multiply_rows(A + units.begin / PAIR, w->da_row / PAIR, gates,
                      c->H_padded / PAIR, operand_size(units.n), R + q.column * all,
                      q.nv, panel_part(R + next.column * all, all, q.nv, 0, 1),
                      w->dh + f->g.b0 * c->S_padded + q.column, c->S_padded, rows);
    }
}

/* The second product of a step for this thread's rows and its columns: K elements of
 * the rows at A, which are as far apart as those of da, by the matrix. */
static void second_product(const backward_run *f, ptrdiff_t s, ptrdiff_t rows,
                           const real *A, ptrdiff_t K)
{
    const cell *c = &f->cell;
    const backward_work *w = &f->w;
    const ptrdiff_t H = c->H, widest = f->pack.second_widest, words = operand_size(K);
    const ptrdiff_t p0 = f->second.p0, p1 = f->second.p1;
    const real *M = (const real *)f->a->packed + f->pack.second;
    for (ptrdiff_t n = p0; n < p1; n++) {
        const panel q = get_panel(H, widest, back_and_forth(s, p0, p1, n));
        const panel next = get_panel(H, widest, back_and_forth(s, p0, p1, n + 1));
        multiply_rows(operand_of(f, A + f->g.b0 * w->da_row), w->da_row / PAIR, 1, 0,
                      words, M + q.column * words, q.nv,
                      panel_part(M + next.column * words, words, q.nv, 0, 1),
                      w->between + f->g.b0 * c->H_padded + q.column, c->H_padded, rows);
    }
}

/* A row of x as dW needs it. */
INLINE const real *masked_input(const backward_run *f, const real *x, ptrdiff_t b)
{
    const masks *m = &f->w.masks;
    if (!m->input)
        return x;
    real *row = f->w.masked + f->self->rank * f->w.masked_size;
    mask_row(row, x, m->input + b * m->input_row, f->cell.I);
    return row;
}

/* A row of h_{t-1} as dR needs it, for gate g where gates have masks of their own. */
INLINE const real *masked_operand(const backward_run *f, const real *h, int g,
                                  ptrdiff_t b)
{
    const masks *m = &f->w.masks;
    if (!m->operands)
        return h;
    real *row = f->w.masked + f->self->rank * f->w.masked_size;
    mask_row(row, h, recurrent_mask(m, g, b), f->cell.S);
    return row;
}

/* Splits dh_t into the part of h_t before zoneout and that of h_{t-1}. */
static void split_dh(const backward_run *f, ptrdiff_t s, ptrdiff_t rows)
{
    const fr_backward_args *a = f->a;
    const masks *m = &f->w.masks;
    for (ptrdiff_t b = f->g.b0; b < f->g.b0 + rows; b++) {
        const uint64_t start = zone_start(m, m->zone_h, &a->draw, &a->shape, s, b);
        for (ptrdiff_t j = f->state.begin; j < f->state.end; j += V) {
            const ptrdiff_t at = b * f->cell.S_padded + j;
            vreal dh = v_load(f->w.dh + at);
            v_store(f->w.zone_h + at,
                    v_unzoned(m, m->options->zoneout_h, start, j, &dh));
            v_store(f->w.dh + at, dh);
        }
    }
}

/* Splits dc_t likewise.  join_dc() adds the part of c_{t-1} when the cell is done. */
static void split_dc(const backward_run *f, ptrdiff_t s, ptrdiff_t rows)
{
    const fr_backward_args *a = f->a;
    const masks *m = &f->w.masks;
    for (ptrdiff_t b = f->g.b0; b < f->g.b0 + rows; b++) {
        const uint64_t start = zone_start(m, m->zone_c, &a->draw, &a->shape, s, b);
        for (ptrdiff_t j = f->units.begin; j < f->units.end; j += V) {
            const ptrdiff_t at = b * f->cell.H_padded + j;
            vreal dc = v_load(f->w.dc + at);
            v_store(f->w.zone_c + at,
                    v_unzoned(m, m->options->zoneout_c, start, j, &dc));
            v_store(f->w.dc + at, dc);
        }
    }
}

static void join_dc(const backward_run *f, ptrdiff_t rows)
{
    for (ptrdiff_t b = f->g.b0; b < f->g.b0 + rows; b++)
        for (ptrdiff_t j = f->units.begin; j < f->units.end; j += V) {
            const ptrdiff_t at = b * f->cell.H_padded + j;
            v_store(f->w.dc + at, v_load(f->w.dc + at) + v_load(f->w.zone_c + at));
        }
}

/* Masks what the late gate multiplies, or its gradient, in some units of the active
 * rows of the group; row 0 of the batch is at `at`. */
static void mask_between(const backward_run *f, ptrdiff_t rows, real *at,
                         ptrdiff_t at_row, const panel_range *units)
{
    const masks *m = &f->w.masks;
    for (ptrdiff_t b = f->g.b0; b < f->g.b0 + rows; b++) {
        const real *mask = recurrent_mask(m, f->cell.ops->late_gate, b);
        for (ptrdiff_t j = units->begin; j < units->end; j += V) {
            real *to = at + b * at_row + j;
            v_store(to, v_load(to) * v_load(mask + j));
        }
    }
}

/* dh_{t-1} = (da R) * m for this thread's rows and columns, or the sum over gates with a
 * mask each, in ascending order. */
static void backward_masked_R(const backward_run *f, ptrdiff_t s, ptrdiff_t rows,
                              const real *da_s)
{
    const cell *c = &f->cell;
    const backward_work *w = &f->w;
    const masks *m = &w->masks;
    const ptrdiff_t S = c->S, S_padded = c->S_padded;
    const ptrdiff_t all = c->ops->R_gates * f->pack.R_rows;
    const real *da = da_s + c->first_R_slot * c->H_padded, *R = f->a->packed;
    if (m->operands == 1) {
        state_product(f, s, rows, da_s);
        for (ptrdiff_t b = f->g.b0; b < f->g.b0 + rows; b++)
            for (ptrdiff_t j = f->state.begin; j < f->state.end; j += V) {
                real *to = w->dh + b * S_padded + j;
                v_store(to, v_load(to) * v_load(recurrent_mask(m, 0, b) + j));
            }
        return;
    }
    for (int g = 0; g < c->ops->R_gates; g++)
        for (ptrdiff_t p = f->state.p0; p < f->state.p1; p++) {
            const panel q = get_panel(S, f->pack.R_widest, p);
            const head_range units = get_heads(c, q.column, q.n, c->H);
            const ptrdiff_t words = operand_size(units.n);
            const real *part = R + q.column * all + g * words * q.nv * V;
            multiply_rows(
                operand_of(f, da + g * c->H_padded + units.begin + f->g.b0 * w->da_row),
                w->da_row / PAIR, 1, 0, words, part, q.nv,
                panel_part(part, words, q.nv, 0, 1),
                w->by_gate + f->g.b0 * S_padded + q.column, S_padded, rows);
            for (ptrdiff_t b = f->g.b0; b < f->g.b0 + rows; b++)
                for (ptrdiff_t j = q.column; j < q.column + q.nv * V; j += V) {
                    real *to = w->dh + b * S_padded + j;
                    const vreal mask = v_load(recurrent_mask(m, g, b) + j);
                    const vreal one = mask * v_load(w->by_gate + b * S_padded + j);
                    v_store(to, g == 0 ? one : v_load(to) + one);
                }
        }
}
