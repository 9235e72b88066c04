/* SPDX-License-Identifier: BSD-3-Clause */
/* lstm_norm.c -- the LSTM whose c_t is normalised, in two parts (cell.h).
 *
 *   first:   c_t = f * c_{t-1} + i * g
 *   second:  n_t = N(c_t) + beta;   h_t = o * tanh(n_t)
 * The c_{t-1} of the next step is c_t (FR_NORM_CELL) or n_t, which a peephole of o looks
 * at likewise.
 *
 * Backward, from dm and dc, the gradients of h_t and of what was carried on:
 *   first:   dn   = dm * o * (1 - tanh(n_t)^2);   da_o = dm * tanh(n_t) * o (1 - o)
 *            dn  += dc, where n_t was carried on
 *   second:  dc, which the driver has completed with the gradient through the norm, goes
 *            on to i, f, g and c_{t-1} as in lstm.c
 * Tape and slots of da, and what a masked candidate is, are those of lstm.c.
 * Source: Ba, Kiros & Hinton 2016.
 */
#include "cell.h"
#include "functions.h"

/* Whether the normalised c_t is what the next step gets. */
INLINE int carries_normalised(const fr_cell_options *o)
{
    return o->norm != FR_NORM_CELL;
}

INLINE vreal v_plain_or(const fr_cell_options *general, int g, vreal a)
{
    if (general)
        return v_gate(general, g, a);
    return g == 2 ? v_tanh(a) : v_sigmoid(a);
}

INLINE void lstm_norm_first_with(const forward_step *s, const fr_cell_options *general)
{
    const ptrdiff_t lanes = s->lanes;
    const int has_peephole = general && general->peephole;
    const peephole P = has_peephole ? load_peephole(s->vectors, s->c_row, s->j)
                                    : (peephole){{0}, {0}, {0}};
    for (ptrdiff_t r = 0; r < s->rows; r++) {
        const real *a = s->ah + r * s->ah_row;
        real *c_state = s->c + r * s->c_row + s->j;
        const vreal c_prev = v_load(c_state);
        vreal a_i = v_load(a), a_f = v_load(a + lanes);
        const vreal a_g = v_load(a + 2 * lanes);
        if (has_peephole) {
            a_i = v_fma(P.i, c_prev, a_i);
            a_f = v_fma(P.f, c_prev, a_f);
        }
        const vreal i = v_plain_or(general, 0, a_i), f = v_plain_or(general, 1, a_f);
        const vreal mask = v_candidate_mask(s->candidate, s->candidate_row, r, s->j);
        const vreal g = v_plain_or(general, 2, a_g);
        v_store(c_state, v_fma(f, c_prev, i * (g * mask)));
        v_store(s->held + r * s->between_row + s->j, v_load(a + 3 * lanes));
        if (s->tape) {
            real *tape = s->tape + r * s->tape_row + tape_at(s->j, TAPE_SLOTS);
            v_store(tape, general ? a_i : i);
            v_store(tape + V, general ? a_f : f);
            v_store(tape + 2 * V, general ? a_g : g);
            v_store(tape + 4 * V, c_prev);
        }
    }
}

INLINE void lstm_norm_second_with(const forward_step *s, const fr_cell_options *general)
{
    const int has_peephole = general && general->peephole;
    const int carried = carries_normalised(s->options);
    const vreal gamma = v_load(s->norm_c.gamma + s->j);
    const vreal beta = v_load(s->norm_c.beta + s->j);
    const peephole P = has_peephole ? load_peephole(s->vectors, s->c_row, s->j)
                                    : (peephole){{0}, {0}, {0}};
    for (ptrdiff_t r = 0; r < s->rows; r++) {
        const real *statistics = s->norm_c.statistics + r * s->norm_c.statistics_row;
        real *c_state = s->c + r * s->c_row + s->j;
        const vreal n = v_fma(gamma, v_normalise(c_state, statistics), beta);
        vreal a_o = v_load(s->held + r * s->between_row + s->j);
        if (has_peephole)
            a_o = v_fma(P.o, carried ? n : v_load(c_state), a_o);
        const vreal o = v_plain_or(general, 3, a_o);
        const vreal out = general ? v_activate(&general->gate[4], n) : v_tanh(n);
        v_store_n(s->h + r * s->h_row + s->j, o * out, s->units);
        if (carried)
            v_store(c_state, n);
        if (s->tape)
            v_store(s->tape + r * s->tape_row + tape_at(s->j, TAPE_SLOTS) + 3 * V,
                    general ? a_o : o);
    }
}

INLINE void lstm_norm_backward_first_with(const backward_step *s,
                                          const fr_cell_options *general)
{
    const ptrdiff_t H = s->H_padded;
    const int has_peephole = general && general->peephole;
    const int carried = carries_normalised(s->options);
    for (ptrdiff_t r = 0; r < s->rows; r++) {
        const real *dy = s->dy ? s->dy + r * s->dy_row : NULL;
        const real *statistics = s->norm_c.statistics + r * s->norm_c.statistics_row;
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const real *tape = s->tape + r * s->tape_row + tape_at(j, TAPE_SLOTS);
            const vreal t_i = v_load(tape), t_f = v_load(tape + V),
                        t_g = v_load(tape + 2 * V), t_o = v_load(tape + 3 * V),
                        c_prev = v_load(tape + 4 * V);
            const vreal i = general ? v_gate(general, 0, t_i) : t_i;
            const vreal f = general ? v_gate(general, 1, t_f) : t_f;
            const vreal mask = v_candidate_mask(s->candidate, s->candidate_row, r, j);
            const vreal g = (general ? v_gate(general, 2, t_g) : t_g) * mask;
            const vreal o = general ? v_gate(general, 3, t_o) : t_o;
            const vreal c = v_fma(f, c_prev, i * g);
            const vreal c_hat = (c - v_set1(statistics[0])) * v_set1(statistics[1]);
            const vreal n =
                v_fma(v_load(s->norm_c.gamma + j), c_hat, v_load(s->norm_c.beta + j));
            const vreal out = general ? v_activate(&general->gate[4], n) : v_tanh(n);
            const vreal slope =
                general ? v_slope(&general->gate[4], n, out) : d_tanh_from(out);
            const vreal slope_o =
                general ? v_gate_slope(general, 3, t_o, o) : d_sigmoid_from(o);
            real *dc_state = s->dc + r * H + j, *da = s->da + r * s->da_row + j;
            vreal dm = v_load(s->dh + r * s->dh_row + j), dc = v_load(dc_state);
            if (dy)
                dm = dm + v_load_n(dy + j, s->j + s->units - j);
            const vreal da_o = dm * out * slope_o;
            if (has_peephole) {
                const peephole P = load_peephole(s->vectors, H, j);
                dc = v_fma(da_o, P.o, dc);
                v_store(dc_state, dc);
                v_store(da + 5 * H, da_o * (carried ? n : c));
            }
            v_store(da + 3 * H, da_o);
            v_store(s->c_hat + r * H + j, c_hat);
            v_store(s->dn + r * H + j,
                    carried ? v_fma(dm * o, slope, dc) : dm * o * slope);
        }
    }
}

INLINE void lstm_norm_backward_with(const backward_step *s,
                                    const fr_cell_options *general)
{
    const ptrdiff_t H = s->H_padded;
    const int has_peephole = general && general->peephole;
    for (ptrdiff_t r = 0; r < s->rows; r++)
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const real *tape = s->tape + r * s->tape_row + tape_at(j, TAPE_SLOTS);
            const vreal t_i = v_load(tape), t_f = v_load(tape + V),
                        t_g = v_load(tape + 2 * V), c_prev = v_load(tape + 4 * V);
            const vreal i = general ? v_gate(general, 0, t_i) : t_i;
            const vreal f = general ? v_gate(general, 1, t_f) : t_f;
            const vreal mask = v_candidate_mask(s->candidate, s->candidate_row, r, j);
            const vreal g = general ? v_gate(general, 2, t_g) : t_g;
            const vreal slope_i =
                general ? v_gate_slope(general, 0, t_i, i) : d_sigmoid_from(i);
            const vreal slope_f =
                general ? v_gate_slope(general, 1, t_f, f) : d_sigmoid_from(f);
            const vreal slope_g =
                general ? v_gate_slope(general, 2, t_g, g) : d_tanh_from(g);
            real *dc_state = s->dc + r * H + j, *da = s->da + r * s->da_row + j;
            const vreal dc = v_load(dc_state);
            const vreal da_i = dc * (g * mask) * slope_i, da_f = dc * c_prev * slope_f;
            vreal dc_prev = dc * f;
            v_store(da, da_i);
            v_store(da + H, da_f);
            v_store(da + 2 * H, dc * (i * mask) * slope_g);
            if (has_peephole) { /* the addends of dP, but for that of P_o */
                const peephole P = load_peephole(s->vectors, H, j);
                v_store(da + 4 * H, da_i * c_prev);
                v_store(da + 6 * H, da_f * c_prev);
                dc_prev = v_fma(da_f, P.f, v_fma(da_i, P.i, dc_prev));
            }
            v_store(dc_state, dc_prev);
        }
}

static void lstm_norm_first(const forward_step *s)
{
    lstm_norm_first_with(s, NULL);
}

static void lstm_norm_second(const forward_step *s)
{
    lstm_norm_second_with(s, NULL);
}

static void lstm_norm_backward_first(const backward_step *s)
{
    lstm_norm_backward_first_with(s, NULL);
}

static void lstm_norm_backward(const backward_step *s)
{
    lstm_norm_backward_with(s, NULL);
}

static void lstm_norm_general_first(const forward_step *s)
{
    lstm_norm_first_with(s, s->options);
}

static void lstm_norm_general_second(const forward_step *s)
{
    lstm_norm_second_with(s, s->options);
}

static void lstm_norm_general_backward_first(const backward_step *s)
{
    lstm_norm_backward_first_with(s, s->options);
}

static void lstm_norm_general_backward(const backward_step *s)
{
    lstm_norm_backward_with(s, s->options);
}

static const cell_ops lstm_norm_ops = {
    LSTM_OPS, .forward = lstm_norm_first, .forward_second = lstm_norm_second,
    .backward_first = lstm_norm_backward_first, .backward = lstm_norm_backward};
static const cell_ops lstm_norm_general_ops = {
    LSTM_OPS, .forward = lstm_norm_general_first,
    .forward_second = lstm_norm_general_second,
    .backward_first = lstm_norm_general_backward_first,
    .backward = lstm_norm_general_backward};
