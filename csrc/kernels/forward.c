/* SPDX-License-Identifier: BSD-3-Clause */
/* forward.c -- the driver, forward: any cell over all time steps of a call.
 *
 * Before the first step the call is divided among the threads, and the states are set
 * to the initial ones.  Then each step takes its products and the cell (products.c),
 * with a barrier between the two products of a cell that has a second one, and a
 * barrier after the step.  A row whose last step this was leaves its state in h_n.
 */
#include "norm_forward.c"
#include "scan.c"

static ptrdiff_t forward_work_size(const fr_shape *shape, int n_threads)
{
    const cell c = get_cell(shape);
    arena a = {NULL, 0};
    if (is_scan(&c))
        carve_scan(shape, &c, n_threads, &a);
    else
        carve_forward(shape, &c, n_threads, &a);
    return a.used;
}

/* Runs one call on a part of the team: what this thread does of it. */
static void forward_part(const team_part *part, const fr_forward_args *a)
{
    const team *self = &part->own;
    const fr_shape *shape = &a->shape;
    const cell c = get_cell(shape);
    if (is_scan(&c)) {
        forward_scan(self, a);
        return;
    }
    const ptrdiff_t H = c.H, S = c.S, H_padded = c.H_padded;
    const real *h0 = a->h0, *c0 = a->c0, *y = a->y;
    real *h_n = a->h_n, *c_n = a->c_n;
    const ptrdiff_t panels = n_unit_panels(c.gates, H);
    arena workspace = {a->work, 0};
    forward_run f = {
        .a = a,
        .cell = c,
        .pack = get_forward_pack(&c),
        .g = get_grid_cell(self, shape, &c, panels),
        .w = carve_forward(shape, &c, a->n_threads, &workspace),
    };
    const grid_cell g = f.g;
    f.record = get_norm_record(&c);
    if (c.norm.any && a->tape)
        f.records = (real *)a->tape + records_in_tape(shape, &c);
    /* The threads of a group have the records of their rows together. */
    const int owner = c.norm.any ? g.group.first - self->first : self->rank;
    f.ax = f.w.ax + owner * f.w.ax_size;
    f.ax_tile = f.w.tiles + self->rank * f.w.n_tiles * TILE_SIZE;
    f.ah_tile = f.ax_tile + TILE_SIZE;
    f.by_gate_tile = f.ah_tile + (f.w.n_tiles - 2) * TILE_SIZE;
    f.masked_x = advance(f.w.masked_x, self->rank * f.w.masked_x_size);
    f.rounded = advance(f.w.rounded, self->rank * f.w.rounded_size);
    team_share(&g.group, panels, &f.p0, &f.p1);
    if (has_second(&c))
        f.second = own_panels(&g, S, widest_panel(c.H_words));
    if (c.has_late_gate) { /* the second part needs x W of the same units */
        f.p0 = f.second.begin / V;
        f.p1 = (f.second.end + V - 1) / V;
    }

    if (has_wider_R(&c)) {
        const ptrdiff_t R_panels = n_unit_panels(c.ops->R_gates, H);
        while (f.r0 < R_panels && get_R_panel(&c, f.r0 + 1).j <= f.p0 * V)
            f.r0++;
        f.r1 = f.r0;
        while (f.r1 < R_panels && get_R_panel(&c, f.r1).j < f.p1 * V)
            f.r1++;
    }

    /* This thread computes units j0 .. j1 - 1 of its rows, and elements k0 .. k1 - 1 of
     * their h, which are others where h is a projection. */
    ptrdiff_t j0 = 0, j1 = 0;
    if (f.p1 > f.p0) {
        const unit_panel last = get_W_panel(&c, f.p1 - 1);
        j0 = get_W_panel(&c, f.p0).j;
        j1 = last.j + last.units;
    }
    const ptrdiff_t k0 = has_second(&c) ? f.second.begin : j0;
    const ptrdiff_t k1 = has_second(&c) ? f.second.end : j1;
    const size_t c_bytes = (size_t)(j1 - j0) * sizeof(real);
    const size_t h_bytes = (size_t)(k1 - k0) * sizeof(real);

    /* Rows without any step keep their state; the running c starts from c0. */
    for (ptrdiff_t b = g.b0; b < g.b1; b++) {
        if (h_n != h0) /* they are one array where a stream steps in place */
            memcpy(h_n + b * S + k0, h0 + b * S + k0, h_bytes);
        for (int n = 0; n < c.other_states; n++)
            memcpy(f.w.c + (n * shape->B + b) * H_padded + j0,
                   c0 + n * a->c_step + b * H + j0, c_bytes);
    }

    clear_padding(self, shape, a->y, a->y_step, a->y_row, S);
    begin_masks(&f, self);

    const ptrdiff_t rows_owned = g.b1 - g.b0;
    const ptrdiff_t weights =
        (c.I_words * f.pack.columns + f.pack.R_rows * f.pack.R_columns) *
        (ptrdiff_t)sizeof(real);
    /* A single step of a few rows reads every panel once, and gains nothing from having
     * x W before.  Beside h R the panels of W are read back and forth, too. */
    const int read_once = shape->T == 1 && rows_owned <= CHUNK_ROWS;
    f.hoisted = c.norm.any || c.has_late_gate || has_wider_R(&c) ||
                (!read_once &&
                 (rows_owned < 4 || weights / g.group.size > cached_weights(shape)));
    const ptrdiff_t block = part->follows || part->leads ? chained_steps(rows_owned)
                            : f.hoisted ? HOISTED_ROWS / max_size(1, rows_owned) + 1
                                        : shape->T;

    for (ptrdiff_t s = 0; s < shape->T; s++) {
        if (s % block == 0) {
            const ptrdiff_t end = min_size(shape->T, s + block);
            follow_steps(part, end);
            f.s0 = s;
            if (f.hoisted && copies_x(&f))
                mask_inputs(&f, s, end);
            if (f.hoisted)
                hoist_x_product(&f, s, end);
            take_input_statistics(&f, s, end);
        }
        if (!f.hoisted && copies_x(&f)) {
            f.s0 = s;
            mask_inputs(&f, s, s + 1);
        }
        for (int product = 0; product < 1 + has_second(&c); product++) {
            if (product > 0) /* until the other threads' units of `between` are there */
                team_barrier(&g.group);
            if (product == 0 && c.norm.any) {
                normalised_step(&f, s);
                continue;
            }
            for (row_origin from = FROM_Y; from <= FROM_H0; from++) {
                ptrdiff_t b0, b1;
                rows_with_start(shape, s, from, g.b0, g.b1, &b0, &b1);
                if (b0 >= b1)
                    continue;
                if (product > 0)
                    forward_second(&f, s, from, b0, b1);
                else if (has_wider_R(&c))
                    forward_wide_rows(&f, s, from, b0, b1);
                else
                    forward_rows(&f, s, from, b0, b1);
            }
        }
        team_barrier(&g.group);
        lead_steps(part, s + 1);
        /* Rows that are not active in the next step end here.  Their h_n may be written
         * even where it is h0 itself, since all threads have passed the barrier. */
        const ptrdiff_t n = min_size(g.b1, step_rows(shape, s));
        for (ptrdiff_t b = max_size(g.b0, step_rows(shape, s + 1)); b < n; b++)
            memcpy(h_n + b * S + k0,
                   y + step_offset(shape, s, a->y_step, a->y_row) + b * a->y_row + k0,
                   h_bytes);
    }
    for (int n = 0; n < c.other_states; n++)
        for (ptrdiff_t b = g.b0; b < g.b1; b++)
            memcpy(c_n + n * a->c_step + b * H + j0,
                   f.w.c + (n * shape->B + b) * H_padded + j0, c_bytes);
}

/* The calls that a team runs: at once where it has threads enough, else one by one. */
typedef struct {
    const fr_forward_args *calls;
    int n, chained;
} forward_calls;

static void forward_thread(const team *self, const void *args)
{
    const forward_calls *all = args;
    if (all->n > 1 && self->size >= all->n) {
        const team_part part = get_team_part(self, all->n, all->chained);
        forward_part(&part, &all->calls[part.call]);
        return;
    }
    const team_part part = whole_team(self);
    for (int i = 0; i < all->n; i++) {
        if (i > 0)
            team_barrier(self);
        forward_part(&part, &all->calls[i]);
    }
}

static void forward(const fr_forward_args *calls, int n, int chained)
{
    const forward_calls all = {calls, n, chained};
    arena workspace = {calls->work, 0};
    real *room = take_team_room(&workspace, calls->n_threads);
    team_run_within(sequence_threads(&calls->shape, calls->n_threads), room,
                    forward_thread, &all);
}
