/* SPDX-License-Identifier: BSD-3-Clause */
/* mingru.c -- minimal GRU, whose gates see x alone.
 *
 *   z    = sigmoid(x_t W_z^T + b_z)
 *   n    = x_t W_n^T + b_n,   or g(x_t W_n^T + b_n) in log space
 *   h_t  = (1 - z) * h_{t-1} + z * n                  (B, H), gates z n
 *   g(a) = a + 1/2 for a >= 0, sigmoid(a) for a < 0
 *
 * Backward, t = T-1 .. 0, from dh (loss + recurrence):
 *   da_z    = dh * (n - h_{t-1}) * z (1 - z)
 *   da_n    = dh * z,   in log space * g'(a_n)
 *   dh_prev = dh * (1 - z)
 *
 * The authors compute the recurrence of positive numbers as a parallel scan of their
 * logarithms, for which g makes n positive.  Here the scan is sequential, and log space
 * is but another candidate.  g'(a) follows from n = g(a): it is 1 for n >= 1/2, and
 * n (1 - n) below.
 *
 * The tape has two slots, z n.  da has slots z n.
 * Source: Feng, Tung, Ahmed, Bengio & Hajimirsadeghi 2024.
 */
#include "cell.h"
#include "functions.h"

#define TAPE_SLOTS 2

INLINE void mingru_forward_with(const forward_step *s, const fr_cell_options *options)
{
    for (ptrdiff_t r = 0; r < s->rows; r++) {
        const real *a = s->ax + r * s->ax_row;
        const vreal h_prev = v_load_n(s->h_prev + r * s->h_prev_row + s->j, s->units);
        const vreal z = v_sigmoid(v_load(a)), a_n = v_load(a + s->lanes);
        const vreal n = options ? v_positive(a_n) : a_n;
        v_store_n(s->h + r * s->h_row + s->j, v_fma(z, n - h_prev, h_prev), s->units);
        if (s->tape) {
            real *tape = s->tape + r * s->tape_row + tape_at(s->j, TAPE_SLOTS);
            v_store(tape, z);
            v_store(tape + V, n);
        }
    }
}

INLINE void mingru_backward_with(const backward_step *s, const fr_cell_options *options)
{
    const ptrdiff_t H = s->H_padded;
    for (ptrdiff_t r = 0; r < s->rows; r++) {
        const real *dy = s->dy ? s->dy + r * s->dy_row : NULL;
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const ptrdiff_t lanes = s->j + s->units - j;
            const real *tape = s->tape + r * s->tape_row + tape_at(j, TAPE_SLOTS);
            const vreal z = v_load(tape), n = v_load(tape + V);
            const vreal h_prev = v_load_n(s->h_prev + r * s->h_prev_row + j, lanes);
            real *carry = s->carry + r * H + j, *da = s->da + r * s->da_row + j;
            vreal dh = v_load(s->dh + r * s->dh_row + j) + v_load(carry);
            if (dy)
                dh = dh + v_load_n(dy + j, lanes);
            const vreal dn = dh * z;
            v_store(da, dh * (n - h_prev) * d_sigmoid_from(z));
            v_store(da + H, options ? dn * d_positive_from(n) : dn);
            v_store(carry, dh * (v_set1(1) - z));
        }
    }
}

static void mingru_forward(const forward_step *s)
{
    mingru_forward_with(s, NULL);
}

static void mingru_backward(const backward_step *s)
{
    mingru_backward_with(s, NULL);
}

static void mingru_log_forward(const forward_step *s)
{
    mingru_forward_with(s, s->options);
}

static void mingru_log_backward(const backward_step *s)
{
    mingru_backward_with(s, s->options);
}

#define MINGRU_OPS                                                                     \
    .tape_slots = TAPE_SLOTS, .da_slots = 2, .w_gate = {0, 1}, .has_carry = 1

static const cell_ops mingru_ops = {MINGRU_OPS, .forward = mingru_forward,
                                    .backward = mingru_backward};
static const cell_ops mingru_log_ops = {MINGRU_OPS, .forward = mingru_log_forward,
                                        .backward = mingru_log_backward};

static const cell_entry mingru_cell = {
    {.name = "mingru",
     .layer = "MinGRU",
     GATES("z n"),
     STATES("h"),
     .activations = {FR_SIGMOID, FR_AFFINE},
     .output_activation = -1,
     .bias_apart = NO_GATE,
     .is_scan = 1,
     .options = FR_OPTION_LOG_SPACE,
     .paper = "Feng et al. 2024"},
    .plain = &mingru_ops,
    .general = &mingru_log_ops,
};
#undef TAPE_SLOTS
