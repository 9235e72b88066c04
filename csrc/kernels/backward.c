/* SPDX-License-Identifier: BSD-3-Clause */
/* backward.c -- the driver, backward: back-propagation through time for any cell.
 *
 * Backward takes the steps in blocks, the last block first.  For each block it computes
 *   (1) step by step, the last step first, da by the cell's backward, then dh = da R;
 *   (2) dx = da W of all rows of the block, for which it also packs da, x and h_{t-1};
 *   (3) what is summed over the rows of the block, the gradients of the parameters.
 * Parts (2) and (3) are in gradients.c.  There is a barrier between (1), (2) and (3).
 * None is needed after (3), because (1) of the next block writes da, and (3) reads only
 * what (2) has packed.  Where threads own rows of the batch, (2) needs nobody else's
 * da; it only must not pack before all threads have done (3) of the block before, which
 * they have mostly done while this one was in (1).  Where another call waits for dx, (1) and (2) take turns, a few
 * steps at a time, until the block is done.
 * Source: Werbos 1990.
 */
#include "norm_backward.c"

/* --- (1) a step ------------------------------------------------------------------ */

/* The sum of the squares of n elements.  It is always made of sixteen partial sums, so
 * that its bits do not depend on the width of a vector, and taken in double. */
static double row_norm2(const real *row, ptrdiff_t n)
{
    enum { LANES = 16, VECTORS = LANES * sizeof(double) / V_BYTES };
    vdouble partial[VECTORS] = {{0}};
    double lanes[LANES], sum = 0;
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        real part[LANES] = {0};
        memcpy(part, row + j, (size_t)min_size(LANES, n - j) * sizeof(real));
        for (ptrdiff_t v = 0; v < (ptrdiff_t)VECTORS; v++) {
            const vdouble a = v_load_double(part + v * VD);
            partial[v] += a * a;
        }
    }
    memcpy(lanes, partial, sizeof lanes);
    for (ptrdiff_t i = 0; i < LANES; i++)
        sum += lanes[i];
    return sum;
}

/* Completes the gradient with respect to h_t in w.dh: adds dy, and what came past R.
 * Then records the norm of each row and clips the row, where that is asked for.  A norm
 * takes a whole row, while threads that share rows have columns of their own before and
 * after; hence the barriers. */
static void gather_state_gradient(const backward_run *f, ptrdiff_t s, ptrdiff_t rows)
{
    const fr_backward_args *a = f->a;
    const backward_work *w = &f->w;
    const ptrdiff_t S = f->cell.S, width = f->cell.S_padded;
    const real *dy =
        a->dy ? (const real *)a->dy + step_offset(&a->shape, s, a->dy_step, a->dy_row)
              : NULL;
    for (ptrdiff_t b = f->g.b0; b < f->g.b0 + rows; b++)
        for (ptrdiff_t j = f->state.begin; j < f->state.end; j += V) {
            real *at = w->dh + b * width + j;
            vreal dh = v_load(at);
            if (w->carry) {
                dh = dh + v_load(w->carry + b * width + j);
                v_store(w->carry + b * width + j, (vreal){0});
            }
            if (w->zone_h)
                dh = dh + v_load(w->zone_h + b * width + j);
            if (dy)
                dh = dh + v_load_n(dy + b * a->dy_row + j, f->state.end - j);
            v_store(at, dh);
        }
    if (!a->flow && a->clip_value <= 0 && a->clip_norm <= 0)
        return;
    team_barrier(&f->g.group);
    ptrdiff_t b0, b1;
    team_share(&f->g.group, rows, &b0, &b1);
    for (ptrdiff_t b = f->g.b0 + b0; b < f->g.b0 + b1; b++) {
        real *dh = w->dh + b * width;
        const double norm2 = a->flow || a->clip_norm > 0 ? row_norm2(dh, S) : 0;
        if (a->flow)
            a->flow[step_time(&a->shape, s) * a->shape.B + b] = norm2;
        const vreal limit = v_set1((real)a->clip_value);
        for (ptrdiff_t j = 0; a->clip_value > 0 && j < S; j += V)
            v_store(dh + j, v_min(limit, v_max(-limit, v_load(dh + j))));
        if (a->clip_norm > 0 && norm2 > a->clip_norm * a->clip_norm) {
            const vreal factor = v_set1((real)(a->clip_norm / __builtin_sqrt(norm2)));
            for (ptrdiff_t j = 0; j < S; j += V)
                v_store(dh + j, v_load(dh + j) * factor);
        }
    }
    team_barrier(&f->g.group);
}

/* Calls one of the cell's functions for this thread's rows and units of step s.  da_s
 * is row 0 of the step in da; `gathered` says that w.dh includes dy already. */
static void run_cell(const backward_run *f, void (*function)(const backward_step *),
                     ptrdiff_t s, real *da_s, int gathered)
{
    const fr_backward_args *a = f->a;
    const fr_shape *shape = &a->shape;
    const cell *c = &f->cell;
    const backward_work *w = &f->w;
    const ptrdiff_t H_padded = c->H_padded;
    const ptrdiff_t tape_row = c->ops->tape_slots * H_padded;
    const written_rows written = find_written(f, da_s);
    const real *y_s = (const real *)a->y + step_offset(shape, s, a->y_step, a->y_row);
    const real *tape_s = (const real *)a->tape + tape_offset(shape, s, tape_row);
    const real *dy_s =
        a->dy && !gathered
            ? (const real *)a->dy + step_offset(shape, s, a->dy_step, a->dy_row)
            : NULL;

    for (row_origin from = FROM_Y; from <= FROM_H0; from++) {
        ptrdiff_t b0, b1;
        rows_with_start(shape, s, from, f->g.b0, f->g.b1, &b0, &b1);
        if (b0 >= b1)
            continue;
        const rows_at h_prev =
            previous_h(shape, s, from, a->y, a->y_step, a->y_row, a->h0);
        const real *dh = c->has_projection ? w->between : w->dh;
        backward_step step = {
            .options = shape->options,
            .rows = b1 - b0,
            .j = f->units.begin,
            .units = f->units.end - f->units.begin,
            .H_padded = H_padded,
            .dy = dy_s ? dy_s + b0 * a->dy_row : NULL,
            .dy_row = a->dy_row,
            .dh = dh + b0 * H_padded,
            .dh_row = H_padded,
            .carry = w->carry ? w->carry + b0 * H_padded : NULL,
            .dc = w->dc ? w->dc + b0 * H_padded : NULL,
            .dc_state = shape->B * H_padded,
            .between = w->between ? w->between + b0 * H_padded : NULL,
            .norm_c = find_norm_of_c(f, s, b0),
            .c_hat = advance(w->c_hat, b0 * H_padded),
            .dn = advance(w->dn, b0 * H_padded),
            .vectors = (const real *)a->packed + f->pack.vectors,
            .h_prev = h_prev.start + b0 * h_prev.row,
            .h_prev_row = h_prev.row,
            .h = y_s + b0 * a->y_row,
            .h_row = a->y_row,
            .tape = tape_s + b0 * tape_row,
            .tape_row = tape_row,
            .da = written.start + b0 * written.row,
            .da_row = written.row,
            .candidate = NULL,
            .candidate_row = 0,
        };
        if (c->keeps_h) {
            step.h = (const real *)a->tape + total_rows(shape) * tape_row +
                     tape_offset(shape, s, H_padded) + b0 * H_padded;
            step.h_row = H_padded;
        }
        if (w->masks.recurrent && !w->masks.operands) {
            step.candidate = w->masks.recurrent + b0 * w->masks.recurrent_row;
            step.candidate_row = w->masks.recurrent_row;
        }
        function(&step);
    }
}

/* With a cell that has no R all of dh_{t-1} comes past R.  Then w.dh has the gradient
 * with respect to h_n, which the cell has used at the last step of each row, or what
 * was gathered at this step: it is set to zero afterwards. */
static void clear_used(const backward_run *f, ptrdiff_t s, ptrdiff_t rows, int gathered)
{
    const ptrdiff_t first = gathered ? 0 : step_rows(&f->a->shape, s + 1);
    for (ptrdiff_t b = max_size(f->g.b0, first); b < f->g.b0 + rows; b++)
        memset(f->w.dh + b * f->cell.S_padded + f->state.begin, 0,
               (size_t)(f->state.end - f->state.begin) * sizeof(real));
}

/* Part (1) for one step and this thread's rows and units; the step's da begins at
 * da_s. */
static void backward_one_step(const backward_run *f, ptrdiff_t s, real *da_s)
{
    const fr_backward_args *a = f->a;
    const cell *c = &f->cell;
    const cell_ops *ops = c->ops;
    const backward_work *w = &f->w;
    const ptrdiff_t rows =
        max_size(0, min_size(f->g.b1, step_rows(&a->shape, s)) - f->g.b0);
    const int gathered = c->has_projection || w->zone_h || a->flow ||
                         a->clip_value > 0 || a->clip_norm > 0;

    if (c->norm.any)
        advance_chain(f, s);
    if (gathered)
        gather_state_gradient(f, s, rows);
    if (w->zone_h)
        split_dh(f, s, rows);
    if (w->zone_c)
        split_dc(f, s, rows);
    if (c->has_projection) { /* dm = dh W_hr */
        for (ptrdiff_t b = f->g.b0; b < f->g.b0 + rows; b++)
            memcpy(da_s + b * w->da_row + w->projection + f->state.begin,
                   w->dh + b * c->S_padded + f->state.begin,
                   (size_t)(f->state.end - f->state.begin) * sizeof(real));
        round_slots(f, rows, da_s + w->projection, 1, &f->state);
        team_barrier(&f->g.group);
        second_product(f, s, rows, da_s + w->projection, c->S);
    }
    if (c->has_late_gate) { /* the late gate's da by its part of R */
        run_cell(f, ops->backward_first, s, da_s, gathered);
        round_slots(f, rows, da_s + ops->late_slot * c->H_padded, 1, &f->units);
        team_barrier(&f->g.group);
        second_product(f, s, rows, da_s + ops->late_slot * c->H_padded, c->H);
        if (w->masks.operands)
            mask_between(f, rows, w->between, c->H_padded, &f->second);
    }
    if (c->norm.c) {
        run_cell(f, ops->backward_first, s, da_s, gathered);
        backward_norm_of_c(f, s, rows);
    }
    run_cell(f, ops->backward, s, da_s, gathered);
    if (is_scan(c)) {
        round_slots(f, rows, da_s, c->product_slots, &f->units);
        clear_used(f, s, rows, gathered);
        return;
    }
    if (w->zone_c)
        join_dc(f, rows);
    if (w->masks.operands && c->has_late_gate)
        mask_between(f, rows, da_s + ops->da_slots * c->H_padded, w->da_row, &f->units);
    if (c->norm.any)
        backward_norm(f, s, rows, da_s);
    round_slots(f, rows, da_s, c->product_slots, &f->units);
    team_barrier(&f->g.group);
    /* For rows that start at this step the result is the gradient with respect to h0,
     * and stays in w.dh until the end. */
    if (w->masks.operands)
        backward_masked_R(f, s, rows, da_s);
    else
        state_product(f, s, rows, da_s);
}

/* Parts (1) and (2) for steps [s0, s1), whose rows are rows [k0, k1) of those that this
 * call adds to the block.  There is no barrier at the end. */
static void backward_steps(const backward_run *f, ptrdiff_t s0, ptrdiff_t s1,
                           ptrdiff_t k0, ptrdiff_t k1)
{
    const fr_backward_args *a = f->a;
    const backward_work *w = &f->w;
    ptrdiff_t k = k0;
    for (ptrdiff_t s = s1 - 1; s >= s0; k += step_rows(&a->shape, s--))
        backward_one_step(f, s, w->da + k * w->da_row);
    if (!f->own_rows)
        team_barrier(f->self); /* the other threads' da is there, and (3) is over */
    else if (f->has_readers)
        team_wait(f->self, f->readers);
    block_share own = {.s0 = s0, .s1 = s1, .first = k0, .b0 = f->g.b0, .b1 = f->g.b1};
    own.by_batch = f->self->size > 1 && f->g.group.size == 1;
    team_share(f->self, k1 - k0, &own.k0, &own.k1);
    own.k0 += k0;
    own.k1 += k0;
    pack_block(f, &own);
    if (a->dx)
        backward_x(f, &own);
}

/* Whether step s goes into a block of K rows, which ends with the step after it. */
INLINE int goes_into_block(const fr_shape *shape, ptrdiff_t s, ptrdiff_t K)
{
    return K == 0 || K + step_rows(shape, s) <= BLOCK_ROWS;
}

/* --- a call ---------------------------------------------------------------------- */

/* Sets a part of a running gradient to what the caller has given, or to zero. */
INLINE void set_state(real *to, const real *from, ptrdiff_t at, size_t bytes)
{
    if (from)
        memcpy(to, from + at, bytes);
    else
        memset(to, 0, bytes);
}

/* Runs one call on a part of the team: what this thread does of it. */
static void backward_part(const team_part *part, const fr_backward_args *a)
{
    const team *self = &part->own;
    const fr_shape *shape = &a->shape;
    const cell c = get_cell(shape);
    const ptrdiff_t H = c.H, S = c.S, H_padded = c.H_padded, S_padded = c.S_padded;
    arena workspace = {a->work, 0};
    backward_run f = {.self = self, .a = a, .cell = c, .pack = get_backward_pack(&c)};
    f.w = carve_backward(shape, &c, a->n_threads, &workspace, a->block);
    f.before = a->started ? *f.w.packed : 0;
    chain_place place = {0};
    if (a->started && c.norm.any)
        place = *f.w.place;
    f.place = &place;
    f.g = get_grid_cell(self, shape, &c, n_panels(S, f.pack.R_widest));
    f.state = own_panels(&f.g, S, f.pack.R_widest);
    f.second = own_panels(&f.g, H, f.pack.second_widest);
    f.units = c.has_projection ? f.second : f.state;
    /* dP is summed over all rows of da. */
    f.own_rows = self->size > 1 && f.g.group.size == 1 && !a->dP;
    draw_masks(&f.w.masks, self, shape, &a->draw);
    const grid_cell g = f.g;
    const backward_work w = f.w;
    const ptrdiff_t j0 = f.units.begin, k0 = f.state.begin;
    const size_t c_bytes = (size_t)(f.units.end - j0) * sizeof(real);
    const size_t h_bytes = (size_t)(f.state.end - k0) * sizeof(real);
    const ptrdiff_t handed_on =
        part->follows || part->leads ? chained_steps(shape->B) : shape->T;

    /* The running gradients begin with those of the last states, or with zero. */
    for (ptrdiff_t b = g.b0; b < g.b1; b++) {
        set_state(w.dh + b * S_padded + k0, a->dh_n, b * S + k0, h_bytes);
        for (int n = 0; n < c.other_states; n++)
            set_state(w.dc + (n * shape->B + b) * H_padded + j0, a->dc_n,
                      n * a->c_step + b * H + j0, c_bytes);
        if (c.ops->has_carry)
            set_state(w.carry + b * H_padded + j0, NULL, 0, c_bytes);
        if (w.zone_h)
            set_state(w.zone_h + b * S_padded + k0, NULL, 0, h_bytes);
    }
    if (a->dx && !a->dx_accumulate)
        clear_padding(self, shape, a->dx, a->dx_step, a->dx_row, shape->I);
    if (!a->started)
        clear_sums(&f);

    ptrdiff_t K = f.before; /* rows of the block, of which those before are packed */
    for (ptrdiff_t s = shape->T; s > 0;) {
        while (s > 0 && goes_into_block(shape, s - 1, K)) {
            const ptrdiff_t end = s, first = K - f.before;
            do
                K += step_rows(shape, --s);
            while (s > 0 && end - s < handed_on && goes_into_block(shape, s - 1, K));
            follow_steps(part, shape->T - s);
            backward_steps(&f, s, end, first, K - f.before);
            lead_steps(part, shape->T - s);
        }
        team_barrier(self);    /* all rows are packed, and da may be overwritten */
        if (s == 0 && a->open) /* the next call may have more rows of the block */
            break;
        backward_weights(&f, K);
        f.has_readers = f.own_rows;
        if (f.own_rows && s > 0)
            f.readers = team_arrive(self);
        f.before = K = 0;
        place = (chain_place){.half = self->size > 1 ? 1 - place.half : place.half};
    }

    for (ptrdiff_t b = g.b0; b < g.b1; b++) {
        for (ptrdiff_t k = k0; k < f.state.end; k++) {
            const ptrdiff_t at = b * S_padded + k;
            const real past_R = c.ops->has_carry ? w.dh[at] + w.carry[at] : w.dh[at];
            ((real *)a->dh0)[b * S + k] = w.zone_h ? past_R + w.zone_h[at] : past_R;
        }
        for (int n = 0; n < c.other_states; n++)
            memcpy((real *)a->dc0 + n * a->c_step + b * H + j0,
                   w.dc + (n * shape->B + b) * H_padded + j0, c_bytes);
    }
    if (!a->open)
        add_sums(&f);
    else if (self->rank == 0) {
        *f.w.packed = K;
        if (c.norm.any)
            *f.w.place = place;
    }
}

/* Adds a[1].dx to a[0].dx, for this thread's share of the steps. */
static void add_second_dx(const team *self, const fr_backward_args *a)
{
    const fr_shape *shape = &a->shape;
    ptrdiff_t s0, s1;
    team_share(self, shape->T, &s0, &s1);
    for (ptrdiff_t s = s0; s < s1; s++)
        for (ptrdiff_t b = 0; b < step_rows(shape, s); b++) {
            const ptrdiff_t at = step_offset(shape, s, a->dx_step, a->dx_row);
            real *dx = (real *)a[0].dx + at + b * a->dx_row;
            const real *second = (const real *)a[1].dx + at + b * a->dx_row;
            for (ptrdiff_t i = 0; i < shape->I; i += V) {
                const ptrdiff_t n = min_size(V, shape->I - i);
                v_store_n(dx + i, v_load_n(dx + i, n) + v_load_n(second + i, n), n);
            }
        }
}

/* The calls that a team runs: at once where it has threads enough, else one by one. */
typedef struct {
    const fr_backward_args *calls;
    int n, chained;
} backward_calls;

static void backward_thread(const team *self, const void *args)
{
    const backward_calls *all = args;
    if (all->n > 1 && self->size >= all->n) {
        const team_part part = get_team_part(self, all->n, all->chained);
        backward_part(&part, &all->calls[part.call]);
    } else {
        const team_part part = whole_team(self);
        for (int i = 0; i < all->n; i++) {
            if (i > 0)
                team_barrier(self);
            backward_part(&part, &all->calls[i]);
        }
    }
    if (all->n == 2 && !all->chained && all->calls->dx) {
        team_barrier(self); /* the other threads' parts of both are there */
        add_second_dx(self, all->calls);
    }
}

static void backward(const fr_backward_args *calls, int n, int chained)
{
    const backward_calls all = {calls, n, chained};
    arena workspace = {calls->work, 0};
    real *room = take_team_room(&workspace, calls->n_threads);
    team_run_within(sequence_threads(&calls->shape, calls->n_threads), room,
                    backward_thread, &all);
}
