/* SPDX-License-Identifier: BSD-3-Clause */
/* products.c -- the products of one step, forward, and the cell's functions, which are
 * called with the results.
 *
 * Each step multiplies x_t by W and h_{t-1} by R.  While the panels of both matrices
 * fit the cache, the two products are computed tile by tile, one after the other
 * (fused).  Otherwise x W is computed before, as one product over a block of steps
 * (hoisted), unless a single step reads every panel once in any case.  The sums of x W
 * begin with the bias, and where has_one_sum() those of h R begin with them.  The sums
 * are the same either way.
 */
#include "forward_masks.c"

/* The panel that comes in place n at step s of a call: see back_and_forth(). */
INLINE ptrdiff_t panel_in_turn(const forward_run *f, ptrdiff_t s, ptrdiff_t p0,
                               ptrdiff_t p1, ptrdiff_t n)
{
    return back_and_forth(f->a->steps_before + s, p0, p1, n);
}

/* The biases of a panel of W, with which the sums of every row begin.  A norm comes
 * before them. */
INLINE sums_start panel_bias(const forward_run *f, const unit_panel *q)
{
    if (f->cell.norm.any)
        return (sums_start){NULL, 0};
    return (sums_start){(const real *)f->a->packed + f->pack.bias + q->column, 0};
}

/* Where the record of row b of step s of a normalised cell begins. */
INLINE real *record_of_row(const forward_run *f, ptrdiff_t s, ptrdiff_t b)
{
    const ptrdiff_t row = f->record.row;
    if (f->records)
        return f->records + tape_offset(&f->a->shape, s, row) + b * row;
    return f->ax + ((s - f->s0) * (f->g.b1 - f->g.b0) + b - f->g.b0) * row;
}

/* Where the hoisted x W of row b of step s begins. */
INLINE real *hoisted_row(const forward_run *f, ptrdiff_t s, ptrdiff_t b)
{
    if (f->cell.norm.any)
        return record_of_row(f, s, b);
    const ptrdiff_t row = (s - f->s0) * (f->g.b1 - f->g.b0) + b - f->g.b0;
    return f->ax + row * f->pack.columns;
}

/* Computes bias + x W of steps [s0, s1) for this thread's rows and panels.  Row b of
 * step s and panel q begins at hoisted_row() + q.column. */
static void hoist_x_product(const forward_run *f, ptrdiff_t s0, ptrdiff_t s1)
{
    const fr_forward_args *a = f->a;
    const fr_shape *shape = &a->shape;
    const grid_cell *g = &f->g;
    const ptrdiff_t rows = g->b1 - g->b0;
    const ptrdiff_t row = f->cell.norm.any ? f->record.row : f->pack.columns;
    const ptrdiff_t I = f->cell.I_words;
    for (ptrdiff_t n = f->p0; n < f->p1; n++) {
        const unit_panel q =
            get_W_panel(&f->cell, panel_in_turn(f, 0, f->p0, f->p1, n));
        const ptrdiff_t n_next = n + 1 < f->p1 ? n + 1 : f->p0;
        const unit_panel following =
            get_W_panel(&f->cell, panel_in_turn(f, 0, f->p0, f->p1, n_next));
        const real *W = (const real *)a->packed + q.column * I;
        const real *next = (const real *)a->packed + following.column * I;
        const sums_start bias = panel_bias(f, &q);
        /* A few rows do not fill a tile, and many steps of one row do. */
        if (rows < tile_rows(q.nv) && !shape->offsets && copies_x(f)) {
            const ptrdiff_t x_row = f->w.masks.input_row;
            for (ptrdiff_t b = 0; b < rows; b++) {
                real *c = hoisted_row(f, s0, g->b0 + b);
                multiply_rows_from(bias, f->masked_x + b * x_row, rows * x_row, 1, 0, I,
                                   W, q.nv, panel_part(next, I, q.nv, b, rows),
                                   c + q.column, hoisted_row(f, s0 + 1, g->b0 + b) - c,
                                   s1 - s0);
            }
            continue;
        }
        if (rows < tile_rows(q.nv) && !shape->offsets) {
            const ptrdiff_t first = shape->reverse ? s1 - 1 : s0; /* in time */
            const ptrdiff_t second = first + (shape->reverse ? -1 : 1);
            const real *x = (const real *)a->x + step_time(shape, first) * a->x_step;
            for (ptrdiff_t b = g->b0; b < g->b1; b++) {
                real *c = hoisted_row(f, first, b);
                const ptrdiff_t c_row = hoisted_row(f, second, b) - c;
                multiply_rows_from(bias, x + b * a->x_row, a->x_step, 1, 0, I, W, q.nv,
                                   panel_part(next, I, q.nv, b - g->b0, rows),
                                   c + q.column, c_row, s1 - s0);
            }
            continue;
        }
        for (ptrdiff_t s = s0; s < s1; s++) {
            const rows_at x = input_rows(f, s);
            multiply_rows_from(
                bias, x.start + g->b0 * x.row, x.row, 1, 0, I, W, q.nv,
                panel_part(next, I, q.nv, s - s0, s1 - s0),
                hoisted_row(f, s, g->b0) + q.column, row,
                max_size(0, min_size(g->b1, step_rows(shape, s)) - g->b0));
        }
    }
}

/* Returns what the cell gets for the rows of one kind of step s, as if these began with
 * row 0 of the batch.  place_step() adds which rows and which panel of units the cell
 * is called for, and the callers add the results of the products. */
static forward_step describe_step(const forward_run *f, ptrdiff_t s, row_origin from)
{
    const fr_forward_args *a = f->a;
    const fr_shape *shape = &a->shape;
    const cell *c = &f->cell;
    const real *packed = a->packed;
    const ptrdiff_t H_padded = c->H_padded, tape_row = c->ops->tape_slots * H_padded;
    const rows_at h_prev = previous_h(shape, s, from, a->y, a->y_step, a->y_row, a->h0);
    forward_step step = {
        .options = shape->options,
        .draw = &a->draw,
        .shape = shape,
        .t = step_time(shape, s),
        .bias_apart = packed + f->pack.bias_apart,
        .vectors = packed + f->pack.vectors,
        .h_prev = h_prev.start,
        .h_prev_row = h_prev.row,
        .c = f->w.c,
        .c_row = H_padded,
        .c_state = shape->B * H_padded,
        .h = (real *)a->y + step_offset(shape, s, a->y_step, a->y_row),
        .h_row = a->y_row,
        .between = f->w.between,
        .held = f->w.held,
        .between_row = H_padded,
        .tape_row = tape_row,
    };
    if (f->w.masks.recurrent && !f->w.masks.operands) {
        step.candidate = f->w.masks.recurrent;
        step.candidate_row = f->w.masks.recurrent_row;
    }
    if (a->tape)
        step.tape = (real *)a->tape + tape_offset(shape, s, tape_row);
    if (c->has_projection) {
        step.h = f->w.between;
        step.h_row = H_padded;
        if (a->tape)
            step.h = (real *)a->tape + total_rows(shape) * tape_row +
                     tape_offset(shape, s, H_padded);
    }
    return step;
}

/* Sets `step` to what `base` describes, for `rows` rows from row b on and panel q of
 * units.  It does so field by field: if the struct were copied with wide moves, narrow
 * loads of its fields would have to wait until the wide stores have reached the cache.
 */
INLINE void place_step(forward_step *step, const forward_step *base, ptrdiff_t b,
                       ptrdiff_t rows, const unit_panel *q)
{
    step->b = b;
    step->rows = rows;
    step->j = q->j;
    step->units = q->units;
    step->lanes = q->lanes;
    step->h_prev = base->h_prev + b * base->h_prev_row;
    step->h = base->h + b * base->h_row;
    step->c = advance(base->c, b * base->c_row);
    step->tape = advance(base->tape, b * base->tape_row);
    step->candidate =
        base->candidate ? base->candidate + b * base->candidate_row : NULL;
    step->between = advance(base->between, b * base->between_row);
    step->held = advance(base->held, b * base->between_row);
}

/* The first product of a step for rows [b0, b1), which are of one kind: chunk by chunk
 * x W, h_{t-1} R, and the cell's only or first part. */
static void forward_rows(const forward_run *f, ptrdiff_t s, row_origin from,
                         ptrdiff_t b0, ptrdiff_t b1)
{
    const fr_forward_args *a = f->a;
    const cell *c = &f->cell;
    const ptrdiff_t I = c->I_words, S = c->S, R_rows = f->pack.R_rows;
    const real *packed = a->packed, *R = packed + f->pack.R;
    const rows_at x = input_rows(f, s);
    const forward_step base = describe_step(f, s, from);
    forward_step step = base;
    real *const ax_tile = f->ax_tile;
    const int one_sum = has_one_sum(c), by_gate = f->w.masks.operands > 1;
    real *const ah_tile = one_sum && !f->hoisted && !by_gate ? ax_tile : f->ah_tile;
    const rows_at h = product_operand(f, recurrent_operand(f, s, from, &base), b0, b1,
                                      S, max_size(1, f->w.masks.operands));
    const sums_start zero = {NULL, 0};

    for (ptrdiff_t n = f->p0; n < f->p1; n++) {
        const ptrdiff_t p = panel_in_turn(f, s, f->p0, f->p1, n);
        const ptrdiff_t p_next = panel_in_turn(f, s, f->p0, f->p1, n + 1);
        const unit_panel q = get_W_panel(c, p);
        const unit_panel q_next = get_W_panel(c, p_next);
        const unit_panel r = get_R_panel(c, p);
        const unit_panel r_next = get_R_panel(c, p_next);
        const head_range heads = get_heads(c, r.j, r.units, S);
        const row_chunks chunks = get_chunks(b1 - b0, q.nv);
        for (ptrdiff_t i = 0; i < chunks.n; i++) {
            const ptrdiff_t b = b0 + chunk_start(&chunks, b1 - b0, i);
            const ptrdiff_t mr = b0 + chunk_start(&chunks, b1 - b0, i + 1) - b;
            place_step(&step, &base, b, mr, &q);
            sums_start ax = {ax_tile, q.nv * V};
            if (f->hoisted) {
                ax = (sums_start){hoisted_row(f, s, b) + q.column, f->pack.columns};
            } else {
                const real *W = packed + q.column * I;
                multiply_rows_from(
                    panel_bias(f, &q), x.start + b * x.row, x.row, 1, 0, I, W, q.nv,
                    panel_part(packed + q_next.column * I, I, q.nv, i, chunks.n),
                    ax_tile, q.nv * V, mr);
            }
            step.ah_row = r.nv * V;
            if (by_gate)
                step.ah_row = multiply_by_gate(f, one_sum ? ax : zero, h, b, mr, &r,
                                               heads, R + r.column * R_rows, ah_tile);
            else
                multiply_rows_from(
                    one_sum ? ax : zero, h.start + b * h.row + heads.begin / PAIR,
                    h.row, 1, 0, operand_size(heads.n), R + r.column * R_rows, r.nv,
                    panel_part(R + r_next.column * R_rows, operand_size(heads.n), r.nv,
                               i, chunks.n),
                    ah_tile, r.nv * V, mr);
            step.ax = ax.start;
            step.ax_row = ax.row;
            step.ah = ah_tile;
            call_cell(f, s, from, b, &step);
        }
    }
}

/* What forward_rows() does, for a cell whose panels of R are of the units of several
 * panels of W.  x W is hoisted, and the cell is called for each vector of units of a
 * panel of R that is one of this thread's. */
static void forward_wide_rows(const forward_run *f, ptrdiff_t s, row_origin from,
                              ptrdiff_t b0, ptrdiff_t b1)
{
    const cell *c = &f->cell;
    const ptrdiff_t R_rows = f->pack.R_rows;
    const real *R = (const real *)f->a->packed + f->pack.R;
    const forward_step base = describe_step(f, s, from);
    forward_step step = base;
    real *const ah_tile = f->ah_tile;
    const rows_at h =
        product_operand(f, recurrent_operand(f, s, from, &base), b0, b1, c->S, 1);

    for (ptrdiff_t n = f->r0; n < f->r1; n++) {
        const unit_panel r = get_R_panel(c, panel_in_turn(f, s, f->r0, f->r1, n));
        const unit_panel next =
            get_R_panel(c, panel_in_turn(f, s, f->r0, f->r1, n + 1));
        const head_range heads = get_heads(c, r.j, r.units, c->S);
        const ptrdiff_t first = max_size(f->p0, r.j / V);
        const ptrdiff_t end = min_size(f->p1, r.j / V + r.nv);
        const row_chunks chunks = get_chunks(b1 - b0, r.nv);
        for (ptrdiff_t i = 0; i < chunks.n; i++) {
            const ptrdiff_t b = b0 + chunk_start(&chunks, b1 - b0, i);
            const ptrdiff_t mr = b0 + chunk_start(&chunks, b1 - b0, i + 1) - b;
            multiply_rows(h.start + b * h.row + heads.begin / PAIR, h.row, 1, 0,
                          operand_size(heads.n), R + r.column * R_rows, r.nv,
                          panel_part(R + next.column * R_rows, operand_size(heads.n),
                                     r.nv, i, chunks.n),
                          ah_tile, r.nv * V, mr);
            for (ptrdiff_t p = first; p < end; p++) {
                const unit_panel q = get_W_panel(c, p);
                place_step(&step, &base, b, mr, &q);
                step.ax = hoisted_row(f, s, b) + q.column;
                step.ax_row = f->pack.columns;
                step.ah = ah_tile + q.j - r.j;
                step.ah_row = r.nv * V;
                call_cell(f, s, from, b, &step);
            }
        }
    }
}

/* The second product of a step for rows [b0, b1), which are of one kind: a projection,
 * whose results are h_t, or that of a late gate, after which the cell's second part
 * follows. */
static void forward_second(const forward_run *f, ptrdiff_t s, row_origin from,
                           ptrdiff_t b0, ptrdiff_t b1)
{
    const fr_forward_args *a = f->a;
    const cell *c = &f->cell;
    const ptrdiff_t H = c->H_words, widest = widest_panel(H);
    const real *M = (const real *)a->packed + f->pack.second;
    real *y = (real *)a->y + step_offset(&a->shape, s, a->y_step, a->y_row);
    const forward_step base = describe_step(f, s, from);
    forward_step step = base;
    real *const out = f->ah_tile;
    const rows_at in = product_operand(
        f, (rows_at){c->has_projection ? base.h : base.between, c->H_padded}, b0, b1,
        c->H, 1);

    for (ptrdiff_t n = f->second.p0; n < f->second.p1; n++) {
        const panel q =
            get_panel(c->S, widest, panel_in_turn(f, s, f->second.p0, f->second.p1, n));
        const panel next = get_panel(
            c->S, widest, panel_in_turn(f, s, f->second.p0, f->second.p1, n + 1));
        const ptrdiff_t width = q.nv * V;
        const row_chunks chunks = get_chunks(b1 - b0, q.nv);
        for (ptrdiff_t i = 0; i < chunks.n; i++) {
            const ptrdiff_t b = b0 + chunk_start(&chunks, b1 - b0, i);
            const ptrdiff_t mr = b0 + chunk_start(&chunks, b1 - b0, i + 1) - b;
            const unit_panel first =
                get_W_panel(c, c->has_late_gate ? q.column / V : 0);
            place_step(&step, &base, b, mr, &first);
            multiply_rows(in.start + b * in.row, in.row, 1, 0, H, M + q.column * H,
                          q.nv, panel_part(M + next.column * H, H, q.nv, i, chunks.n),
                          out, width, mr);
            for (ptrdiff_t v = 0; v < q.n; v += V) {
                if (c->has_projection) {
                    for (ptrdiff_t r = 0; r < mr; r++)
                        v_store_n(y + (b + r) * a->y_row + q.column + v,
                                  v_load(out + r * width + v), q.n - v);
                    if (f->w.masks.active)
                        leave_h(f, s, from, b, mr, q.column + v, q.n - v);
                    continue;
                }
                const unit_panel u = get_W_panel(c, (q.column + v) / V);
                place_step(&step, &base, b, mr, &u);
                step.ax = hoisted_row(f, s, b) + u.column;
                step.ax_row = f->pack.columns;
                step.ah = out + v;
                step.ah_row = width;
                c->ops->forward_second(&step);
                if (f->w.masks.active)
                    leave_h(f, s, from, b, mr, u.j, u.units);
            }
        }
    }
}
