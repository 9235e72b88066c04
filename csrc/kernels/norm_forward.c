/* SPDX-License-Identifier: BSD-3-Clause */
/* norm_forward.c -- a step of a normalised cell, forward: products, statistics, cell. */
#include "products.c"

/* This thread's share of the active rows of step s: [*b0, *b1). */
INLINE void share_rows(const forward_run *f, ptrdiff_t s, ptrdiff_t *b0, ptrdiff_t *b1)
{
    const ptrdiff_t n = min_size(f->g.b1, step_rows(&f->a->shape, s)) - f->g.b0;
    team_share(&f->g.group, max_size(0, n), b0, b1);
    *b0 += f->g.b0;
    *b1 += f->g.b0;
}

/* Statistics of x W of steps [s0, s1), where that is normalised by itself. */
static void take_input_statistics(const forward_run *f, ptrdiff_t s0, ptrdiff_t s1)
{
    const cell *c = &f->cell;
    if (!c->norm.input)
        return;
    team_barrier(&f->g.group); /* the other threads' units of x W are there */
    for (ptrdiff_t s = s0; s < s1; s++) {
        ptrdiff_t b0, b1;
        share_rows(f, s, &b0, &b1);
        for (ptrdiff_t b = b0; b < b1; b++) {
            real *record = record_of_row(f, s, b);
            take_statistics(record, c->gates, c->H, 0, c->gates, c->norm.rms,
                            record + f->record.statistics + STATISTICS_X);
        }
    }
    team_barrier(&f->g.group);
}

/* to = start + h_{t-1} R for `rows` rows from row b on and the panel of R that comes in
 * place n; `h` is where row 0 of the operand is.  Meanwhile a part of the next panel is
 * fetched. */
static void multiply_state(const forward_run *f, ptrdiff_t s, rows_at h, ptrdiff_t n,
                           ptrdiff_t part, ptrdiff_t parts, sums_start start,
                           ptrdiff_t b, ptrdiff_t rows, real *to, ptrdiff_t to_row)
{
    const cell *c = &f->cell;
    const ptrdiff_t R_rows = f->pack.R_rows;
    const real *R = (const real *)f->a->packed + f->pack.R;
    const unit_panel r = get_R_panel(c, panel_in_turn(f, s, f->p0, f->p1, n));
    const unit_panel next = get_R_panel(c, panel_in_turn(f, s, f->p0, f->p1, n + 1));
    const head_range heads = get_heads(c, r.j, r.units, c->S);
    if (f->w.masks.operands <= 1) {
        multiply_rows_from(start, h.start + b * h.row + heads.begin / PAIR, h.row, 1, 0,
                           operand_size(heads.n), R + r.column * R_rows, r.nv,
                           panel_part(R + next.column * R_rows, operand_size(heads.n),
                                      r.nv, part, parts),
                           to, to_row, rows);
        return;
    }
    /* A tile takes what is written past the panel's columns; and `start` may be `to`. */
    for (ptrdiff_t first = 0; first < rows; first += CHUNK_ROWS) {
        const ptrdiff_t mr = min_size(CHUNK_ROWS, rows - first);
        const sums_start of_chunk = {
            start.start ? start.start + first * start.row : NULL, start.row};
        const ptrdiff_t tile_row =
            multiply_by_gate(f, of_chunk, h, b + first, mr, &r, heads,
                             R + r.column * R_rows, f->by_gate_tile);
        for (ptrdiff_t k = 0; k < mr; k++)
            memcpy(to + (first + k) * to_row, f->by_gate_tile + k * tile_row,
                   (size_t)(r.nv * V) * sizeof(real));
    }
}

/* h_{t-1} R of rows [b0, b1), which are of one kind, for this thread's panels: by
 * itself, or with a joint norm onto x W. */
static void multiply_whole_rows(const forward_run *f, ptrdiff_t s, row_origin from,
                                ptrdiff_t b0, ptrdiff_t b1)
{
    const cell *c = &f->cell;
    const ptrdiff_t row = f->record.row;
    const forward_step base = describe_step(f, s, from);
    const rows_at h = product_operand(f, recurrent_operand(f, s, from, &base), b0, b1,
                                      c->S, (int)max_size(1, f->w.masks.operands));
    for (ptrdiff_t n = f->p0; n < f->p1; n++) {
        const unit_panel r = get_R_panel(c, panel_in_turn(f, s, f->p0, f->p1, n));
        real *to =
            record_of_row(f, s, b0) + (c->norm.joint ? 0 : f->record.h) + r.column;
        multiply_state(f, s, h, n, 0, 1, (sums_start){c->norm.joint ? to : NULL, row},
                       b0, b1 - b0, to, row);
    }
}

/* Statistics of the rows of step s that take in h R. */
static void take_step_statistics(const forward_run *f, ptrdiff_t s)
{
    const cell *c = &f->cell;
    ptrdiff_t b0, b1;
    share_rows(f, s, &b0, &b1);
    for (ptrdiff_t b = b0; b < b1; b++) {
        real *record = record_of_row(f, s, b), *to = record + f->record.statistics;
        if (c->norm.recurrent)
            take_statistics(record + f->record.h, c->ops->R_gates, c->H, 0,
                            c->ops->R_gates, c->norm.rms, to + STATISTICS_H);
        else if (!c->norm.per_gate)
            take_statistics(record, c->gates, c->H, 0, c->gates, c->norm.rms,
                            to + STATISTICS_X);
        else
            for (int g = 0; g < c->gates; g++)
                take_statistics(record, c->gates, c->H, g, g + 1, c->norm.rms,
                                to + STATISTICS_X + 2 * g);
    }
}

/* The pre-activations of a panel for `rows` rows from row b on: what the cell gets of x
 * W, with the biases, in `ax`, and of a normalised h R in `ah`, or added to the first. */
INLINE void normalise_panel(const forward_run *f, ptrdiff_t s, ptrdiff_t b,
                            ptrdiff_t rows, const unit_panel *q, int one_sum, real *ax,
                            real *ah)
{
    const cell *c = &f->cell;
    const ptrdiff_t row = f->record.row, width = q->nv * V;
    const norm_pack at = get_norm_pack(c);
    const real *packed = f->a->packed, *norm = packed + f->pack.norm;
    for (ptrdiff_t g = 0; g < c->gates; g++)
        for (ptrdiff_t u = 0; u < q->units; u += V) {
            const ptrdiff_t unit = g * c->H_padded + q->j + u;
            const ptrdiff_t column = g * q->lanes + u;
            const vreal gamma = v_load(norm + at.ih + unit);
            const vreal bias = v_load(packed + f->pack.bias + q->column + column);
            const vreal gamma_h =
                c->norm.recurrent ? v_load(norm + at.hh + unit) : (vreal){0};
            const real *record = record_of_row(f, s, b);
            for (ptrdiff_t r = 0; r < rows; r++, record += row) {
                const real *statistics = record + f->record.statistics;
                const real *x = record + q->column + column;
                vreal a = v_fma(
                    gamma, v_normalise(x, statistics + (c->norm.per_gate ? 2 * g : 0)),
                    bias);
                if (c->norm.recurrent) {
                    const vreal h =
                        v_normalise(x + f->record.h, statistics + STATISTICS_H);
                    if (one_sum)
                        a = v_fma(gamma_h, h, a);
                    else
                        v_store_n(ah + r * width + column, gamma_h * h, q->lanes);
                }
                v_store_n(ax + r * width + column, a, q->lanes);
            }
        }
}

/* The cell's only or first part for rows [b0, b1) of step s, which are of one kind: chunk
 * by chunk the pre-activations, with h_{t-1} R where that is not normalised, and the
 * cell. */
static void normalised_rows(const forward_run *f, ptrdiff_t s, row_origin from,
                            ptrdiff_t b0, ptrdiff_t b1)
{
    const cell *c = &f->cell;
    const forward_step base = describe_step(f, s, from);
    forward_step step = base;
    rows_at h = recurrent_operand(f, s, from, &base);
    const int one_sum = has_one_sum(c),
              has_product = c->norm.input && !c->norm.recurrent;
    real *const ax = f->ax_tile, *const ah = one_sum ? ax : f->ah_tile;
    if (has_product)
        h = product_operand(f, h, b0, b1, c->S, (int)max_size(1, f->w.masks.operands));

    for (ptrdiff_t n = f->p0; n < f->p1; n++) {
        const ptrdiff_t p = panel_in_turn(f, s, f->p0, f->p1, n);
        const unit_panel q = get_W_panel(c, p), r = get_R_panel(c, p);
        const row_chunks chunks = get_chunks(b1 - b0, q.nv);
        for (ptrdiff_t i = 0; i < chunks.n; i++) {
            const ptrdiff_t b = b0 + chunk_start(&chunks, b1 - b0, i);
            const ptrdiff_t mr = b0 + chunk_start(&chunks, b1 - b0, i + 1) - b;
            place_step(&step, &base, b, mr, &q);
            normalise_panel(f, s, b, mr, &q, one_sum, ax, ah);
            if (has_product)
                multiply_state(f, s, h, n, i, chunks.n,
                               one_sum ? (sums_start){ax, q.nv * V}
                                       : (sums_start){NULL, 0},
                               b, mr, ah, r.nv * V);
            step.ax = ax;
            step.ax_row = q.nv * V;
            step.ah = ah;
            step.ah_row = r.nv * V;
            call_cell(f, s, from, b, &step);
        }
    }
}

/* The second part of a cell that normalises c_t, for this thread's units of the rows of
 * step s: statistics of c_t, and the cell. */
static void finish_normalised_c(const forward_run *f, ptrdiff_t s)
{
    const fr_shape *shape = &f->a->shape;
    const cell *c = &f->cell;
    const norm_pack at = get_norm_pack(c);
    const real *norm = (const real *)f->a->packed + f->pack.norm;
    ptrdiff_t b0, b1;
    team_barrier(&f->g.group); /* the other threads' units of c_t are there */
    share_rows(f, s, &b0, &b1);
    for (ptrdiff_t b = b0; b < b1; b++)
        take_statistics(f->w.c + b * c->H_padded, 1, c->H, 0, 1, c->norm.rms,
                        record_of_row(f, s, b) + f->record.statistics + STATISTICS_C);
    team_barrier(&f->g.group);

    const ptrdiff_t n = min_size(f->g.b1, step_rows(shape, s)) - f->g.b0;
    const forward_step base = describe_step(f, s, FROM_H0); /* h_{t-1} is not read */
    forward_step step = base;
    for (ptrdiff_t p = f->p0; n > 0 && p < f->p1; p++) {
        const unit_panel q = get_W_panel(c, p);
        place_step(&step, &base, f->g.b0, n, &q);
        step.norm_c = (norm_of_c){
            .gamma = norm + at.c,
            .beta = norm + at.c_bias,
            .statistics =
                record_of_row(f, s, f->g.b0) + f->record.statistics + STATISTICS_C,
            .statistics_row = f->record.row,
        };
        c->ops->forward_second(&step);
        if (f->w.masks.zone_c)
            zone_c(f, s, f->g.b0, &step);
        for (row_origin from = FROM_Y; from <= FROM_H0; from++) {
            rows_with_start(shape, s, from, f->g.b0, f->g.b1, &b0, &b1);
            if (f->w.masks.active && !has_second(c) && b0 < b1)
                leave_h(f, s, from, b0, b1 - b0, q.j, q.units);
        }
    }
}

/* One step of a normalised cell, but for a projection. */
static void normalised_step(const forward_run *f, ptrdiff_t s)
{
    const row_norms *norm = &f->cell.norm;
    const int whole_rows = norm->recurrent || norm->joint;
    for (int products = whole_rows; products >= 0; products--) {
        for (row_origin from = FROM_Y; from <= FROM_H0; from++) {
            ptrdiff_t b0, b1;
            rows_with_start(&f->a->shape, s, from, f->g.b0, f->g.b1, &b0, &b1);
            if (b0 >= b1)
                continue;
            if (products)
                multiply_whole_rows(f, s, from, b0, b1);
            else
                normalised_rows(f, s, from, b0, b1);
        }
        if (products) {
            team_barrier(&f->g.group); /* the other threads' units of h R are there */
            take_step_statistics(f, s);
            team_barrier(&f->g.group);
        }
    }
    if (norm->c)
        finish_normalised_c(f, s);
}
