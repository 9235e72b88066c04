/* SPDX-License-Identifier: BSD-3-Clause */
/* norm_backward.c -- a step of a normalised cell, backward: from the gradients behind
 * norms, which the cell writes, to those before them (norm.h has the equations).
 */
#include "gradients.c"

/* --- where things are -------------------------------------------------------------- */

/* Turns to the chain of step s, which has sums of old rows already. */
INLINE void advance_chain(const backward_run *f, ptrdiff_t s)
{
    chain_place *p = f->place;
    if (p->steps++ % ROW_CHAIN == 0) {
        p->first += p->rows;
        p->rows = 0;
    }
    p->old = p->rows;
    p->rows = step_rows(&f->a->shape, s);
}

/* The sums of row b of the batch over the steps of the chain. */
INLINE real *find_chain(const backward_run *f, ptrdiff_t b)
{
    const backward_work *w = &f->w;
    return w->chains + f->place->half * w->chains_size +
           (f->place->first + b) * w->chain_row;
}

/* Adds a * b to a sum of a chain, which the first step of a row begins. */
INLINE void add_to_chain(real *sum, int begins, vreal a, vreal b)
{
    v_store(sum, begins ? a * b : v_fma(a, b, v_load(sum)));
}

/* What the cell writes at a step whose da begins at da_s: that of row 0. */
typedef struct {
    real *start;
    ptrdiff_t row;
} written_rows;

INLINE written_rows find_written(const backward_run *f, real *da_s)
{
    const cell *c = &f->cell;
    const backward_work *w = &f->w;
    if (c->writes_behind)
        return (written_rows){w->behind, w->behind_row};
    return (written_rows){da_s + c->cell_slot * c->H_padded, w->da_row};
}

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

/* --- a row behind a norm ----------------------------------------------------------- */

typedef struct {
    const real *dn;         /* dN, a slot for each gate */
    ptrdiff_t slot;         /* elements between slots */
    const int *gate;        /* the gate of each slot */
    const real *gamma;      /* by gate and unit */
    const real *row;        /* in columns of forward panels */
    const real *statistics; /* with a norm per gate, of each gate */
    int gates;              /* in a row */
    int per_gate;
} norm_row;

/* The rows of x W, or of x W + h R, and of h R, behind their norms: row b of step s,
 * where the cell has written to `dn`. */
INLINE void find_norm_rows(const backward_run *f, ptrdiff_t s, ptrdiff_t b,
                           const real *dn, norm_row *x, norm_row *h)
{
    static const int as_they_are[FR_MOST_GATES] = {0, 1, 2, 3};
    const cell *c = &f->cell;
    const norm_record record = get_norm_record(c);
    const norm_pack at = get_norm_pack(c);
    const real *norm = (const real *)f->a->packed + f->pack.norm;
    const real *row = record_in_tape(f, s, b);
    *x = (norm_row){.dn = dn,
                    .slot = c->H_padded,
                    .gate = c->ops->w_gate,
                    .gamma = norm + at.ih,
                    .row = row,
                    .statistics = row + record.statistics + STATISTICS_X,
                    .gates = c->gates,
                    .per_gate = c->norm.per_gate};
    *h = (norm_row){.dn = dn + c->ops->first_R_slot * c->H_padded,
                    .slot = c->H_padded,
                    .gate = as_they_are,
                    .gamma = norm + at.hh,
                    .row = row + record.h,
                    .statistics = row + record.statistics + STATISTICS_H,
                    .gates = c->norm.recurrent ? c->ops->R_gates : 0};
}

/* A slot of a row behind a norm. */
typedef struct {
    const real *dn, *gamma; /* by unit */
    const real *row, *statistics;
    ptrdiff_t H;
    int gate, gates;
} norm_slot;

INLINE norm_slot get_norm_slot(const norm_row *n, const cell *c, ptrdiff_t i)
{
    const int gate = n->gate[i];
    return (norm_slot){.dn = n->dn + i * n->slot,
                       .gamma = n->gamma + gate * c->H_padded,
                       .row = n->row,
                       .statistics = n->statistics + (n->per_gate ? 2 * gate : 0),
                       .H = c->H,
                       .gate = gate,
                       .gates = n->gates};
}

/* d = dN * gamma of a vector of units. */
INLINE vreal v_slot_d(const norm_slot *n, ptrdiff_t j)
{
    return v_load(n->dn + j) * v_load(n->gamma + j);
}

INLINE vreal v_slot_r_hat(const norm_slot *n, ptrdiff_t j)
{
    return v_normalise(n->row + unit_column(n->gates, n->H, j, n->gate), n->statistics);
}

/* --- means ------------------------------------------------------------------------- */

typedef struct {
    lane_sums d, product;
} mean_sums;

/* Adds what a vector of units has of n slots, the v-th of ROW_LANES units, to the sums
 * of d and of d * r_hat. */
INLINE void add_to_means(mean_sums *s, const norm_slot *slots, int n, ptrdiff_t j,
                         ptrdiff_t v, ptrdiff_t left)
{
    vreal sum = {0}, product = {0};
    for (int i = 0; i < n; i++) {
        const vreal d = v_slot_d(slots + i, j);
        sum = sum + d;
        product = v_fma(d, v_slot_r_hat(slots + i, j), product);
    }
    add_to_lanes(&s->d, v, left, sum);
    add_to_lanes(&s->product, v, left, product);
}

/* Adds all units of n slots to the sums, vector by vector, as they lie in a record. */
INLINE void add_slots_to_means(mean_sums *s, const norm_slot *slots, int n, ptrdiff_t H)
{
    const ptrdiff_t whole = H / ROW_LANES * ROW_LANES;
    for (ptrdiff_t j = 0; j < whole; j += ROW_LANES)
#pragma GCC unroll 8
        for (ptrdiff_t v = 0; v < ROW_LANES; v += V)
            add_to_means(s, slots, n, j + v, v, V);
#pragma GCC unroll 8
    for (ptrdiff_t v = 0; v < ROW_LANES; v += V)
        if (whole + v < H)
            add_to_means(s, slots, n, whole + v, v, H - whole - v);
}

INLINE void store_means(const mean_sums *s, double n, int rms, real *to)
{
    to[0] = rms ? 0 : (real)(add_up(&s->d) / n);
    to[1] = (real)(add_up(&s->product) / n);
}

/* The means of d and of d * r_hat over slots [first, end) of a row. */
static void take_means(const norm_row *n, const cell *c, int first, int end, real *to)
{
    mean_sums sums = {0};
    norm_slot slots[FR_MOST_GATES];
    for (int i = first; i < end; i++)
        slots[i - first] = get_norm_slot(n, c, i);
    add_slots_to_means(&sums, slots, end - first, c->H);
    store_means(&sums, (double)(end - first) * (double)c->H, c->norm.rms, to);
}

/* The gradient before a norm, with the means of the row. */
INLINE vreal v_before_norm(vreal d, vreal r_hat, const real *means, real scale)
{
    return v_fma(-r_hat, v_set1(means[1]), d - v_set1(means[0])) * v_set1(scale);
}

/* --- a step ------------------------------------------------------------------------ */

/* The gradient before the norm of a slot, to `da`, and the addends of dgamma, to `sum`,
 * for a vector of units. */
INLINE void backward_norm_slot(const norm_slot *slot, const real *means, ptrdiff_t j,
                               real *da, real *sum, int begins)
{
    const vreal r_hat = v_slot_r_hat(slot, j);
    v_store(da + j,
            v_before_norm(v_slot_d(slot, j), r_hat, means, slot->statistics[1]));
    add_to_chain(sum + j, begins, v_load(slot->dn + j), r_hat);
}

/* The same for all slots of a row and this thread's units, from `da` and `sums` on. */
INLINE void backward_norm_row(const norm_row *n, const cell *c,
                              const panel_range *units, const real *means, real *da,
                              real *sums, int begins)
{
    const ptrdiff_t whole = min_size(units->end, c->H / V * V);
    for (ptrdiff_t i = 0; i < n->gates; i++) {
        const norm_slot slot = get_norm_slot(n, c, i);
        const real *of_slot = means + (n->per_gate ? 2 * i : 0);
        const ptrdiff_t at = i * c->H_padded;
        for (ptrdiff_t j = units->begin; j < whole; j += V)
            backward_norm_slot(&slot, of_slot, j, da + at, sums + at, begins);
        if (whole < units->end) /* what is left over after whole vectors */
            backward_norm_slot(&slot, of_slot, whole, da + at, sums + at, begins);
    }
}

/* The same for all rows behind norms, and sums of what the cell has written. */
INLINE void backward_norm_rows(const backward_run *f, const norm_row *x,
                               const norm_row *h, const real *means, real *da,
                               real *sums, int begins)
{
    const cell *c = &f->cell;
    const row_sums slots = get_row_sums(c);
    const ptrdiff_t H_padded = c->H_padded;
    for (ptrdiff_t i = 0; i < slots.ih; i++)
        for (ptrdiff_t j = f->units.begin; j < f->units.end; j += V)
            add_to_chain(sums + i * H_padded + j, begins,
                         v_load(x->dn + i * H_padded + j), v_set1(1));
    backward_norm_row(x, c, &f->units, means + STATISTICS_X, da,
                      sums + slots.ih * H_padded, begins);
    backward_norm_row(h, c, &f->units, means + STATISTICS_H, da + c->gates * H_padded,
                      sums + slots.hh * H_padded, begins);
}

/* After the cell: turns what it has written of this thread's units of step s, which is
 * behind the norms of pre-activations, into the gradients before them, and adds to the
 * sums of the chain. */
static void backward_norm(const backward_run *f, ptrdiff_t s, ptrdiff_t rows,
                          real *da_s)
{
    const backward_work *w = &f->w;
    const cell *c = &f->cell;
    const written_rows written = find_written(f, da_s);
    norm_row x, h;
    ptrdiff_t b0, b1;
    team_barrier(&f->g.group); /* the other threads' units are written */
    team_share(&f->g.group, rows, &b0, &b1);
    for (ptrdiff_t b = f->g.b0 + b0; b < f->g.b0 + b1; b++) {
        real *means = w->norm_means + b * N_STATISTICS;
        find_norm_rows(f, s, b, written.start + b * written.row, &x, &h);
        if (!c->norm.per_gate)
            take_means(&x, c, 0, c->gates, means + STATISTICS_X);
        else
            for (int g = 0; g < c->gates; g++)
                take_means(&x, c, g, g + 1, means + STATISTICS_X + 2 * g);
        if (c->norm.recurrent)
            take_means(&h, c, 0, c->ops->R_gates, means + STATISTICS_H);
    }
    team_barrier(&f->g.group);
    for (ptrdiff_t b = f->g.b0; b < f->g.b0 + rows; b++) {
        const real *means = w->norm_means + b * N_STATISTICS;
        real *da = da_s + b * w->da_row, *sums = find_chain(f, b);
        find_norm_rows(f, s, b, written.start + b * written.row, &x, &h);
        if (b >= f->place->old) /* two copies of the loops */
            backward_norm_rows(f, &x, &h, means, da, sums, 1);
        else
            backward_norm_rows(f, &x, &h, means, da, sums, 0);
    }
}

/* Between the two parts of a cell that normalises c_t: brings dn, the gradient with
 * respect to N(c_t), back through the norm into dc.  Where N(c_t) is what the cell
 * carries on, the first part has taken dc into dn. */
static void backward_norm_of_c(const backward_run *f, ptrdiff_t s, ptrdiff_t rows)
{
    const backward_work *w = &f->w;
    const cell *c = &f->cell;
    const ptrdiff_t H_padded = c->H_padded;
    const row_sums slots = get_row_sums(c);
    const norm_of_c norm = find_norm_of_c(f, s, 0);
    ptrdiff_t b0, b1;
    team_barrier(&f->g.group); /* the other threads' units of dn are there */
    team_share(&f->g.group, rows, &b0, &b1);
    for (ptrdiff_t b = f->g.b0 + b0; b < f->g.b0 + b1; b++) {
        static const real none[2] = {0, 1}; /* c_hat is normalised already */
        const norm_slot slot = {.dn = w->dn + b * H_padded,
                                .gamma = norm.gamma,
                                .row = w->c_hat + b * H_padded,
                                .statistics = none,
                                .H = c->H,
                                .gates = 1};
        mean_sums sums = {0};
        add_slots_to_means(&sums, &slot, 1, c->H);
        store_means(&sums, (double)c->H, c->norm.rms,
                    w->norm_means + b * N_STATISTICS + STATISTICS_C);
    }
    team_barrier(&f->g.group);
    const int carried = f->a->shape.options->norm != FR_NORM_CELL;
    for (ptrdiff_t b = f->g.b0; b < f->g.b0 + rows; b++) {
        const real *means = w->norm_means + b * N_STATISTICS + STATISTICS_C;
        const real scale = norm.statistics[b * norm.statistics_row + 1];
        real *sums = find_chain(f, b);
        const int begins = b >= f->place->old;
        for (ptrdiff_t j = f->units.begin; j < f->units.end; j += V) {
            const vreal dn = v_load(w->dn + b * H_padded + j);
            const vreal c_hat = v_load(w->c_hat + b * H_padded + j);
            const vreal d = dn * v_load(norm.gamma + j);
            const vreal dr = v_before_norm(d, c_hat, means, scale);
            real *dc = w->dc + b * H_padded + j;
            v_store(dc, carried ? dr : v_load(dc) + dr);
            add_to_chain(sums + slots.c * H_padded + j, begins, dn, c_hat);
            if (!c->norm.rms)
                add_to_chain(sums + slots.c_bias * H_padded + j, begins, dn, v_set1(1));
        }
    }
}
