/* SPDX-License-Identifier: BSD-3-Clause */
/* minlstm.c -- minimal LSTM, whose gates see x alone and sum to one.
 *
 *   f, i = sigmoid(x_t W_f^T + b_f), sigmoid(x_t W_i^T + b_i)
 *   n    = x_t W_n^T + b_n,   or g(x_t W_n^T + b_n) in log space (mingru.c)
 *   p, q = f / (f + i), i / (f + i)
 *   h_t  = p * h_{t-1} + q * n                        (B, H), gates f i n
 *
 * With e_f = exp(-a_f) and e_i = exp(-a_i), D = 2 + e_f + e_i:
 *   p = (1 + e_i) / D,   q = (1 + e_f) / D,
 *   dp/da_f = p e_f / D,   dp/da_i = -q e_i / D
 * Numbers that are far below zero in both a_f and a_i thus have no quotient of two
 * zeros.
 *
 * Backward, t = T-1 .. 0, from dh (loss + recurrence):
 *   da_f    = dh * (h_{t-1} - n) * dp/da_f
 *   da_i    = dh * (h_{t-1} - n) * dp/da_i
 *   da_n    = dh * q,   in log space * g'(a_n)
 *   dh_prev = dh * p
 *
 * The tape has five slots: p q dp/da_f -dp/da_i n.  da has slots f i n.
 * Source: Feng, Tung, Ahmed, Bengio & Hajimirsadeghi 2024.
 */
#include "cell.h"
#include "functions.h"

#define TAPE_SLOTS 5

/* Limit of a_f and a_i: up to it 1 / D is a normal number. */
#define MINLSTM_LIMIT (FR_DOUBLE ? 707 : 86)

/* exp(-a), with a brought into [-MINLSTM_LIMIT, MINLSTM_LIMIT]. */
INLINE vreal minlstm_exp(vreal a)
{
    const vreal limit = v_set1((real)MINLSTM_LIMIT);
    vreal scale;
    const vreal part = v_exp_parts(v_clamp(a, -limit, limit), &scale);
    return v_fma(scale, part, scale);
}

INLINE void minlstm_forward_with(const forward_step *s, const fr_cell_options *options)
{
    const vreal one = v_set1(1);
    for (ptrdiff_t r = 0; r < s->rows; r++) {
        const real *a = s->ax + r * s->ax_row;
        const vreal h_prev = v_load_n(s->h_prev + r * s->h_prev_row + s->j, s->units);
        const vreal e_f = minlstm_exp(v_load(a));
        const vreal e_i = minlstm_exp(v_load(a + s->lanes));
        const vreal a_n = v_load(a + 2 * s->lanes);
        const vreal n = options ? v_positive(a_n) : a_n;
        const vreal inverse = one / ((one + e_f) + (one + e_i));
        const vreal p = (one + e_i) * inverse, q = (one + e_f) * inverse;
        v_store_n(s->h + r * s->h_row + s->j, v_fma(p, h_prev, q * n), s->units);
        if (s->tape) {
            real *tape = s->tape + r * s->tape_row + tape_at(s->j, TAPE_SLOTS);
            v_store(tape, p);
            v_store(tape + V, q);
            v_store(tape + 2 * V, p * (e_f * inverse));
            v_store(tape + 3 * V, q * (e_i * inverse));
            v_store(tape + 4 * V, n);
        }
    }
}

INLINE void minlstm_backward_with(const backward_step *s,
                                  const fr_cell_options *options)
{
    const ptrdiff_t H = s->H_padded;
    for (ptrdiff_t r = 0; r < s->rows; r++) {
        const real *dy = s->dy ? s->dy + r * s->dy_row : NULL;
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const ptrdiff_t lanes = s->j + s->units - j;
            const real *tape = s->tape + r * s->tape_row + tape_at(j, TAPE_SLOTS);
            const vreal n = v_load(tape + 4 * V);
            const vreal h_prev = v_load_n(s->h_prev + r * s->h_prev_row + j, lanes);
            real *carry = s->carry + r * H + j, *da = s->da + r * s->da_row + j;
            vreal dh = v_load(s->dh + r * s->dh_row + j) + v_load(carry);
            if (dy)
                dh = dh + v_load_n(dy + j, lanes);
            const vreal dp = dh * (h_prev - n), dn = dh * v_load(tape + V);
            v_store(da, dp * v_load(tape + 2 * V));
            v_store(da + H, -dp * v_load(tape + 3 * V));
            v_store(da + 2 * H, options ? dn * d_positive_from(n) : dn);
            v_store(carry, dh * v_load(tape));
        }
    }
}

static void minlstm_forward(const forward_step *s)
{
    minlstm_forward_with(s, NULL);
}

static void minlstm_backward(const backward_step *s)
{
    minlstm_backward_with(s, NULL);
}

static void minlstm_log_forward(const forward_step *s)
{
    minlstm_forward_with(s, s->options);
}

static void minlstm_log_backward(const backward_step *s)
{
    minlstm_backward_with(s, s->options);
}

#define MINLSTM_OPS                                                                    \
    .tape_slots = TAPE_SLOTS, .da_slots = 3, .w_gate = {0, 1, 2}, .has_carry = 1

static const cell_ops minlstm_ops = {MINLSTM_OPS, .forward = minlstm_forward,
                                     .backward = minlstm_backward};
static const cell_ops minlstm_log_ops = {MINLSTM_OPS, .forward = minlstm_log_forward,
                                         .backward = minlstm_log_backward};

static const cell_entry minlstm_cell = {
    {.name = "minlstm",
     .layer = "MinLSTM",
     GATES("f i n"),
     STATES("h"),
     .activations = {FR_SIGMOID, FR_SIGMOID, FR_AFFINE},
     .output_activation = -1,
     .bias_apart = NO_GATE,
     .is_scan = 1,
     .options = FR_OPTION_LOG_SPACE,
     .paper = "Feng et al. 2024"},
    .plain = &minlstm_ops,
    .general = &minlstm_log_ops,
};
#undef TAPE_SLOTS
