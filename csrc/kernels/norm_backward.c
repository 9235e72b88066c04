/* SPDX-License-Identifier: BSD-3-Clause */
/* norm_backward.c -- a step of a normalised cell, backward: from the gradients behind
 * norms, which the cell writes, to those before them (norm.h has the equations).
 */
#include "gradients.c"

/* The record of row b of step s, which forward has left in the tape. */
INLINE const real *record_in_tape(const backward_run *f, ptrdiff_t s, ptrdiff_t b)
{
    const fr_shape *shape = &f->a->shape;
    const ptrdiff_t row = get_norm_record(&f->cell).row;
    return (const real *)f->a->tape + records_in_tape(shape, &f->cell) +
           tape_offset(shape, s, row) + b * row;
}

/* What the cell gets for rows from row b of step s on. */
INLINE norm_of_c find_norm_of_c(const backward_run *f, ptrdiff_t s, ptrdiff_t b)
{
    const cell *c = &f->cell;
    if (!c->norm.c)
        return (norm_of_c){NULL, NULL, NULL, 0};
    const real *norm = (const real *)f->a->packed + f->pack.norm;
    const norm_record record = get_norm_record(c);
    return (norm_of_c){
        .gamma = norm + get_norm_pack(c).c,
        .beta = norm + get_norm_pack(c).c_bias,
        .statistics = record_in_tape(f, s, b) + record.statistics + STATISTICS_C,
        .statistics_row = record.row,
    };
}

/* A row behind a norm: the slots of its gradient, and what forward has left of it. */
typedef struct {
    const real *dn;    /* dN, a slot of da for each gate */
    ptrdiff_t slot;    /* elements between slots */
    const int *gate;   /* the gate of each slot */
    const real *gamma; /* by gate and unit */
    const real *row;   /* in columns of forward panels */
    const real *statistics;
    int gates; /* in a row */
} norm_row;

/* d = dN * gamma and r_hat of slot i, for a vector of units. */
INLINE void norm_parts(const norm_row *n, const cell *c, ptrdiff_t i, ptrdiff_t j,
                       vreal *d, vreal *r_hat)
{
    const ptrdiff_t g = n->gate[i];
    *d = v_load(n->dn + i * n->slot + j) * v_load(n->gamma + g * c->H_padded + j);
    *r_hat = v_normalise(n->row + unit_column(n->gates, c->H, j, g), n->statistics);
}

/* The means of d and of d * r_hat over slots [first, end) of a row. */
static void take_means(const norm_row *n, const cell *c, int first, int end, real *to)
{
    const double elements = (double)(end - first) * (double)c->H;
    lane_sums sum = {0}, product = {0};
    for (ptrdiff_t j = 0; j < c->H; j += V)
        for (int i = first; i < end; i++) {
            vreal d, r_hat;
            norm_parts(n, c, i, j, &d, &r_hat);
            const vreal p = d * r_hat;
            for (ptrdiff_t k = 0; k < V / VD; k++) {
                const ptrdiff_t part = j % ROW_LANES / VD + k, left = c->H - j - k * VD;
                vdouble a = v_widen(d, k), b = v_widen(p, k);
                if (left < VD) {
                    a = first_lanes(a, left);
                    b = first_lanes(b, left);
                }
                sum.part[part] += a;
                product.part[part] += b;
            }
        }
    to[0] = c->norm.rms ? 0 : (real)(add_up(&sum) / elements);
    to[1] = (real)(add_up(&product) / elements);
}

/* The gradient before the norm of slot i of a row, with the row's means, and the addend of
 * dgamma. */
INLINE void norm_slot(const norm_row *n, const cell *c, const panel_range *units,
                      ptrdiff_t i, const real *means, real *dr, real *addend)
{
    const vreal mean = v_set1(means[0]), product = v_set1(means[1]);
    const vreal scale = v_set1(n->statistics[1]);
    for (ptrdiff_t j = units->begin; j < units->end; j += V) {
        vreal d, r_hat;
        norm_parts(n, c, i, j, &d, &r_hat);
        v_store(dr + j, v_fma(-r_hat, product, d - mean) * scale);
        v_store(addend + j, v_load(n->dn + i * n->slot + j) * r_hat);
    }
}

/* The rows of x W, or of x W + h R, and of h R, behind their norms: row b of step s, whose
 * da is `da`. */
INLINE void find_norm_rows(const backward_run *f, ptrdiff_t s, ptrdiff_t b,
                           const real *da, norm_row *x, norm_row *h)
{
    static const int as_they_are[FR_MOST_GATES] = {0, 1, 2, 3};
    const cell *c = &f->cell;
    const norm_record record = get_norm_record(c);
    const norm_pack at = get_norm_pack(c);
    const real *norm = (const real *)f->a->packed + f->pack.norm;
    const real *row = record_in_tape(f, s, b);
    const real *dn = da + c->cell_slot * c->H_padded;
    *x = (norm_row){dn,           c->H_padded, c->ops->w_gate,
                    norm + at.ih, row,         row + record.statistics + STATISTICS_X,
                    c->gates};
    *h = (norm_row){dn + c->ops->first_R_slot * c->H_padded,
                    c->H_padded,
                    as_they_are,
                    norm + at.hh,
                    row + record.h,
                    row + record.statistics + STATISTICS_H,
                    c->ops->R_gates};
}

/* After the cell: turns da of this thread's units of step s, which is behind the norms of
 * pre-activations, into the gradients before them, and leaves the addends of dgamma. */
static void backward_norm(const backward_run *f, ptrdiff_t s, ptrdiff_t rows,
                          real *da_s)
{
    const backward_work *w = &f->w;
    const cell *c = &f->cell;
    const norm_slots slots = get_norm_slots(c);
    norm_row x, h;
    ptrdiff_t b0, b1;
    team_barrier(&f->g.group); /* the other threads' units of da are there */
    team_share(&f->g.group, rows, &b0, &b1);
    for (ptrdiff_t b = f->g.b0 + b0; b < f->g.b0 + b1; b++) {
        real *means = w->norm_means + b * N_STATISTICS;
        find_norm_rows(f, s, b, da_s + b * w->da_row, &x, &h);
        if (!c->norm.per_gate)
            take_means(&x, c, 0, c->gates, means + STATISTICS_X);
        else
            for (int g = 0; g < c->gates; g++) {
                norm_row one = x;
                one.statistics += 2 * c->ops->w_gate[g];
                take_means(&one, c, g, g + 1, means + STATISTICS_X + 2 * g);
            }
        if (c->norm.recurrent)
            take_means(&h, c, 0, c->ops->R_gates, means + STATISTICS_H);
    }
    team_barrier(&f->g.group);
    for (ptrdiff_t b = f->g.b0; b < f->g.b0 + rows; b++) {
        const real *means = w->norm_means + b * N_STATISTICS;
        real *da = da_s + b * w->da_row;
        find_norm_rows(f, s, b, da, &x, &h);
        for (ptrdiff_t i = 0; i < c->gates; i++) {
            norm_row one = x;
            if (c->norm.per_gate)
                one.statistics += 2 * c->ops->w_gate[i];
            norm_slot(&one, c, &f->units, i,
                      means + STATISTICS_X + (c->norm.per_gate ? 2 * i : 0),
                      da + i * c->H_padded, da + (slots.ih + i) * c->H_padded);
        }
        for (ptrdiff_t i = 0; c->norm.recurrent && i < c->ops->R_gates; i++)
            norm_slot(&h, c, &f->units, i, means + STATISTICS_H,
                      da + (c->gates + i) * c->H_padded,
                      da + (slots.hh + i) * c->H_padded);
    }
}

/* Between the two parts of a cell that normalises c_t: brings dn, the gradient with respect
 * to N(c_t), back through the norm into dc.  Where N(c_t) is what the cell carries on, the
 * first part has taken dc into dn. */
static void backward_norm_of_c(const backward_run *f, ptrdiff_t s, ptrdiff_t rows,
                               real *da_s)
{
    const backward_work *w = &f->w;
    const cell *c = &f->cell;
    const ptrdiff_t H_padded = c->H_padded;
    const norm_slots slots = get_norm_slots(c);
    const norm_of_c norm = find_norm_of_c(f, s, 0);
    ptrdiff_t b0, b1;
    team_barrier(&f->g.group); /* the other threads' units of dn are there */
    team_share(&f->g.group, rows, &b0, &b1);
    for (ptrdiff_t b = f->g.b0 + b0; b < f->g.b0 + b1; b++) {
        const real *dn = w->dn + b * H_padded, *c_hat = w->c_hat + b * H_padded;
        real *to = w->norm_means + b * N_STATISTICS + STATISTICS_C;
        lane_sums sum = {0}, product = {0};
        for (ptrdiff_t j = 0; j < c->H; j += V) {
            const vreal d = v_load(dn + j) * v_load(norm.gamma + j);
            const vreal p = d * v_load(c_hat + j);
            for (ptrdiff_t k = 0; k < V / VD; k++) {
                const ptrdiff_t left = c->H - j - k * VD;
                sum.part[j % ROW_LANES / VD + k] += first_lanes(v_widen(d, k), left);
                product.part[j % ROW_LANES / VD + k] +=
                    first_lanes(v_widen(p, k), left);
            }
        }
        to[0] = c->norm.rms ? 0 : (real)(add_up(&sum) / (double)c->H);
        to[1] = (real)(add_up(&product) / (double)c->H);
    }
    team_barrier(&f->g.group);
    const int carried = f->a->shape.options->norm != FR_NORM_CELL;
    for (ptrdiff_t b = f->g.b0; b < f->g.b0 + rows; b++) {
        const real *means = w->norm_means + b * N_STATISTICS + STATISTICS_C;
        const vreal mean = v_set1(means[0]), product = v_set1(means[1]);
        const vreal scale = v_set1(norm.statistics[b * norm.statistics_row + 1]);
        real *da = da_s + b * w->da_row;
        for (ptrdiff_t j = f->units.begin; j < f->units.end; j += V) {
            const vreal dn = v_load(w->dn + b * H_padded + j);
            const vreal c_hat = v_load(w->c_hat + b * H_padded + j);
            const vreal d = dn * v_load(norm.gamma + j);
            const vreal dr = v_fma(-c_hat, product, d - mean) * scale;
            real *dc = w->dc + b * H_padded + j;
            v_store(dc, carried ? dr : v_load(dc) + dr);
            v_store(da + slots.c * H_padded + j, dn * c_hat);
            if (!c->norm.rms)
                v_store(da + slots.c_bias * H_padded + j, dn);
        }
    }
}
