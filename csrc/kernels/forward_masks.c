/* SPDX-License-Identifier: BSD-3-Clause */
/* forward_masks.c -- what the driver leaves out at random, forward: see masks.h.
 *
 * Masked operands of h R are made where h_t is, by the thread that computes these units,
 * and the barrier after a step makes them known to the other threads of its group.
 */
#include "forward.h"

/* Draws the masks of a call, and masks h0.  The threads of the call wait here for each
 * other. */
static void begin_masks(forward_run *f, const team *self)
{
    const fr_forward_args *a = f->a;
    masks *m = &f->w.masks;
    if (!m->options)
        return;
    draw_masks(m, self, &a->shape, &a->draw);
    const ptrdiff_t S = f->cell.S;
    for (ptrdiff_t b = f->g.b0; b < f->g.b1; b++)
        for (int g = 0; g < m->operands && f->g.group.rank == 0; g++)
            mask_row(f->w.masked_h0 + g * m->recurrent_size + b * m->recurrent_row,
                     (const real *)a->h0 + b * S, recurrent_mask(m, g, b), S);
    if (m->operands)
        team_barrier(&f->g.group);
}

/* Whether x is copied for the products, be it masked, rounded or both. */
INLINE int copies_x(const forward_run *f)
{
    return f->w.masks.input || f->cell.half;
}

/* Masks or rounds x of steps [s0, s1) for this thread's rows.  Row b of step s begins at
 * masked_x + ((s - s0) * rows + b - b0) * input_row. */
static void mask_inputs(const forward_run *f, ptrdiff_t s0, ptrdiff_t s1)
{
    const fr_forward_args *a = f->a;
    const masks *m = &f->w.masks;
    const ptrdiff_t rows = f->g.b1 - f->g.b0;
    for (ptrdiff_t s = s0; s < s1; s++) {
        const real *x =
            (const real *)a->x + step_offset(&a->shape, s, a->x_step, a->x_row);
        const ptrdiff_t end = min_size(f->g.b1, step_rows(&a->shape, s));
        for (ptrdiff_t b = f->g.b0; b < end; b++) {
            real *to = f->masked_x + ((s - s0) * rows + b - f->g.b0) * m->input_row;
            const real *from = x + b * a->x_row;
            if (m->input) {
                mask_row(to, from, m->input + b * m->input_row, f->cell.I);
                from = to;
            }
            if (f->cell.half)
                round_row(to, from, f->cell.I);
        }
    }
}

/* Where x of step s lies, as the product takes it: that of row 0 of the batch. */
INLINE rows_at input_rows(const forward_run *f, ptrdiff_t s)
{
    const fr_forward_args *a = f->a;
    const masks *m = &f->w.masks;
    if (!copies_x(f))
        return (rows_at){(const real *)a->x +
                             step_offset(&a->shape, s, a->x_step, a->x_row),
                         a->x_row};
    const ptrdiff_t rows = f->g.b1 - f->g.b0;
    return (rows_at){f->masked_x + ((s - f->s0) * rows - f->g.b0) * m->input_row,
                     m->input_row};
}

/* Where the operand of h R lies at step s: that of row 0, and of the first gate. */
INLINE rows_at recurrent_operand(const forward_run *f, ptrdiff_t s, row_origin from,
                                 const forward_step *base)
{
    const masks *m = &f->w.masks;
    if (!m->operands)
        return (rows_at){base->h_prev, base->h_prev_row};
    return (rows_at){from == FROM_H0 ? f->w.masked_h0 : f->w.masked_h[(s + 1) % 2],
                     m->recurrent_row};
}

/* Rows [b0, b1) of a product's left operand, of n numbers each, rounded where that is
 * asked for; there may be several such operands, `size` elements apart.  Each thread
 * rounds all that it multiplies: that is little beside the product. */
INLINE rows_at product_operand(const forward_run *f, rows_at from, ptrdiff_t b0,
                               ptrdiff_t b1, ptrdiff_t n, int operands)
{
    if (!f->cell.half)
        return from;
    const ptrdiff_t size = f->w.masks.recurrent_size, row = f->w.rounded_row;
    for (int g = 0; g < operands; g++)
        for (ptrdiff_t b = b0; b < b1; b++)
            round_row(f->rounded + g * size + b * row,
                      from.start + g * size + b * from.row, n);
    return (rows_at){f->rounded, row};
}

/* to = start + h R for `rows` rows from row b on and one panel of R, whose gates have
 * operands of their own: one vector of columns at a time.  Where a gate has fewer lanes
 * than a vector, it is written a vector wide and the next gate over that.  Returns the
 * distance between rows of `to`. */
static ptrdiff_t multiply_by_gate(const forward_run *f, sums_start start, rows_at h,
                                  ptrdiff_t b, ptrdiff_t rows, const unit_panel *r,
                                  head_range heads, const real *R, real *to)
{
    const ptrdiff_t width = r->nv * V, to_row = r->lanes < V ? width + V : width;
    const even_split tiles = split_evenly(rows, n_row_tiles(rows, 1));
    for (int g = 0; g < f->cell.ops->R_gates; g++)
        for (ptrdiff_t i = 0; i < n_row_tiles(rows, 1); i++) {
            const ptrdiff_t first = share_start(tiles, i);
            const tile_args t = {
                .a = h.start + heads.begin + g * f->w.masks.recurrent_size +
                     (b + first) * h.row,
                .a_row = h.row,
                .n_segments = 1,
                .K = operand_size(heads.n),
                .b = R + g * r->lanes,
                .b_row = width,
                .c = to + first * to_row + g * r->lanes,
                .c_row = to_row,
                .start =
                    start.start ? start.start + first * start.row + g * r->lanes : NULL,
                .start_row = start.row,
                .next = (const char *)R,
            };
            run_rows_tile(&t, tiles.each + (i < tiles.longer), 1);
        }
    return to_row;
}

/* Lets zoneout choose between h_t, which is in y, and h_{t-1}, and masks what is left
 * for the products of the next step: units j .. j + units - 1 of `rows` rows. */
static void leave_h(const forward_run *f, ptrdiff_t s, row_origin from, ptrdiff_t b,
                    ptrdiff_t rows, ptrdiff_t j, ptrdiff_t units)
{
    const fr_forward_args *a = f->a;
    const fr_shape *shape = &a->shape;
    const cell *c = &f->cell;
    const masks *m = &f->w.masks;
    real *y = (real *)a->y + step_offset(shape, s, a->y_step, a->y_row);
    real *kept = NULL;
    if (c->keeps_h && a->tape)
        kept = (real *)a->tape + total_rows(shape) * c->ops->tape_slots * c->H_padded +
               tape_offset(shape, s, c->H_padded);
    const rows_at h_prev = previous_h(shape, s, from, a->y, a->y_step, a->y_row, a->h0);
    for (ptrdiff_t r = b; r < b + rows; r++) {
        const uint64_t start =
            m->zone_h ? zone_start(m, m->zone_h, &a->draw, shape, s, r) : 0;
        for (ptrdiff_t u = j; u < j + units; u += V) {
            const ptrdiff_t n = j + units - u;
            vreal h = v_load_n(y + r * a->y_row + u, n);
            if (kept)
                v_store(kept + r * c->H_padded + u, h);
            if (m->zone_h) {
                h = v_zoned(m, m->options->zoneout_h, start, u,
                            v_load_n(h_prev.start + r * h_prev.row + u, n), h);
                v_store_n(y + r * a->y_row + u, h, n);
            }
            for (int g = 0; g < m->operands; g++)
                v_store(f->w.masked_h[s % 2] + g * m->recurrent_size +
                            r * m->recurrent_row + u,
                        h * v_load(recurrent_mask(m, g, r) + u));
        }
    }
}

/* Keeps c_{t-1} of the rows and units of a step, of which the first is row b, for
 * zone_c(). */
static void keep_c(const forward_run *f, ptrdiff_t b, const forward_step *step)
{
    const size_t bytes = (size_t)round_up(step->units, V) * sizeof(real);
    for (ptrdiff_t r = 0; r < step->rows; r++)
        memcpy(f->w.c_before + (b + r) * step->c_row + step->j,
               step->c + r * step->c_row + step->j, bytes);
}

/* Lets zoneout choose between c_t and c_{t-1} of these. */
static void zone_c(const forward_run *f, ptrdiff_t s, ptrdiff_t b,
                   const forward_step *step)
{
    const masks *m = &f->w.masks;
    for (ptrdiff_t r = 0; r < step->rows; r++) {
        const uint64_t start =
            zone_start(m, m->zone_c, &f->a->draw, &f->a->shape, s, b + r);
        for (ptrdiff_t j = step->j; j < step->j + step->units; j += V) {
            real *at = step->c + r * step->c_row + j;
            const real *before = f->w.c_before + (b + r) * step->c_row + j;
            v_store(at, v_zoned(m, m->options->zoneout_c, start, j, v_load(before),
                                v_load(at)));
        }
    }
}

/* Calls the cell's only or first part for some rows, of which the first is row b, and
 * one panel of units, and does what masks make of the results. */
INLINE void call_cell(const forward_run *f, ptrdiff_t s, row_origin from, ptrdiff_t b,
                      const forward_step *step)
{
    const cell *c = &f->cell;
    const masks *m = &f->w.masks;
    if (!m->active) {
        c->ops->forward(step);
        return;
    }
    const ptrdiff_t width = round_up(step->units, V);
    if (m->zone_c)
        keep_c(f, b, step);
    c->ops->forward(step);
    if (c->norm.c) /* the second part makes c_t and h_t */
        return;
    if (m->zone_c)
        zone_c(f, s, b, step);
    for (ptrdiff_t r = 0; m->operands && c->has_late_gate && r < step->rows; r++)
        for (ptrdiff_t v = 0; v < width; v += V) {
            real *at = step->between + r * step->between_row + step->j + v;
            const real *mask = recurrent_mask(m, c->ops->late_gate, b + r);
            v_store(at, v_load(at) * v_load(mask + step->j + v));
        }
    if (!has_second(c))
        leave_h(f, s, from, b, step->rows, step->j, step->units);
}
