/* SPDX-License-Identifier: BSD-3-Clause */
/* mgu.c -- minimal gated unit: one gate forgets, and decides what the candidate sees.
 *
 *   f   = sigmoid(x_t W_f^T + b_if + h_{t-1} R_f^T + b_hf)
 *   fh  = f * h_{t-1}
 *   n   = tanh(x_t W_n^T + b_in + fh R_n^T + b_hn)
 *   h_t = (1 - f) * h_{t-1} + f * n                   (B, H), gates f n
 *
 * Backward, t = T-1 .. 0, from dh (loss + recurrence):
 *   da_n    = dh * f               * (1 - n^2)
 *   dfh     = da_n R_n
 *   da_f    = (dh * (n - h_{t-1}) + dfh * h_{t-1})  * f (1 - f)
 *   dh_prev = dh * (1 - f) + dfh * f + da_f R_f
 *
 * n is a late gate (cell.h): its part of R multiplies fh, which the first part of a
 * step makes.  A general cell has other functions in place of sigmoid and tanh, and may
 * clip what they are given.
 *
 * The tape has two slots, f n.  A general cell saves a_f a_n instead, since the
 * derivative of any function follows from that.  da has slots f n, behind which fh
 * lies.
 * Source: Zhou, Wu, Zhang & Zhou 2016.
 */
#include "cell.h"
#include "functions.h"

#define TAPE_SLOTS 2

/* First part: f, and f * h_{t-1}, which goes into the second product; f is held for the
 * second part. */
INLINE void mgu_first_with(const forward_step *s, const fr_cell_options *options)
{
    for (ptrdiff_t row = 0; row < s->rows; row++) {
        const vreal h_prev = v_load_n(s->h_prev + row * s->h_prev_row + s->j, s->units);
        const vreal a_f =
            v_load(s->ax + row * s->ax_row) + v_load(s->ah + row * s->ah_row);
        const vreal f = options ? v_gate(options, 0, a_f) : v_sigmoid(a_f);
        v_store(s->between + row * s->between_row + s->j, f * h_prev);
        v_store(s->held + row * s->between_row + s->j, f);
        if (s->tape)
            v_store(s->tape + row * s->tape_row + tape_at(s->j, TAPE_SLOTS),
                    options ? a_f : f);
    }
}

/* Second part: n and h_t of one vector of units.  `ah` is fh R_n. */
INLINE void mgu_second_with(const forward_step *s, const fr_cell_options *options)
{
    for (ptrdiff_t row = 0; row < s->rows; row++) {
        const vreal h_prev = v_load_n(s->h_prev + row * s->h_prev_row + s->j, s->units);
        const vreal f = v_load(s->held + row * s->between_row + s->j);
        const vreal a_n = v_load(s->ax + row * s->ax_row + s->lanes) +
                          v_load(s->ah + row * s->ah_row);
        const vreal n = options ? v_gate(options, 1, a_n) : v_tanh(a_n);
        v_store_n(s->h + row * s->h_row + s->j, v_fma(f, n - h_prev, h_prev), s->units);
        if (s->tape)
            v_store(s->tape + row * s->tape_row + tape_at(s->j, TAPE_SLOTS) + V,
                    options ? a_n : n);
    }
}

/* First part: da_n, in the slot of da_f the gradient with respect to f that does not
 * come by way of fh, and in `carry` dh * (1 - f). */
INLINE void mgu_backward_first_with(const backward_step *s,
                                    const fr_cell_options *options)
{
    const ptrdiff_t H = s->H_padded;
    for (ptrdiff_t row = 0; row < s->rows; row++) {
        const real *dy = s->dy ? s->dy + row * s->dy_row : NULL;
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const ptrdiff_t lanes = s->j + s->units - j;
            const real *tape = s->tape + row * s->tape_row + tape_at(j, TAPE_SLOTS);
            const vreal t_f = v_load(tape), t_n = v_load(tape + V);
            const vreal f = options ? v_gate(options, 0, t_f) : t_f;
            const vreal n = options ? v_gate(options, 1, t_n) : t_n;
            const vreal slope_n =
                options ? v_gate_slope(options, 1, t_n, n) : d_tanh_from(n);
            const vreal h_prev = v_load_n(s->h_prev + row * s->h_prev_row + j, lanes);
            real *carry = s->carry + row * H + j, *da = s->da + row * s->da_row + j;
            vreal dh = v_load(s->dh + row * s->dh_row + j) + v_load(carry);
            if (dy)
                dh = dh + v_load_n(dy + j, lanes);
            v_store(da, dh * (n - h_prev));
            v_store(da + H, dh * f * slope_n);
            v_store(carry, dh * (v_set1(1) - f));
        }
    }
}

/* Second part: da_f, fh for the gradient of R_n, and to `carry` is added dfh * f; dfh
 * is in `between`. */
INLINE void mgu_backward_with(const backward_step *s, const fr_cell_options *options)
{
    const ptrdiff_t H = s->H_padded;
    for (ptrdiff_t row = 0; row < s->rows; row++)
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const ptrdiff_t lanes = s->j + s->units - j;
            const vreal t_f =
                v_load(s->tape + row * s->tape_row + tape_at(j, TAPE_SLOTS));
            const vreal f = options ? v_gate(options, 0, t_f) : t_f;
            const vreal slope_f =
                options ? v_gate_slope(options, 0, t_f, f) : d_sigmoid_from(f);
            const vreal h_prev = v_load_n(s->h_prev + row * s->h_prev_row + j, lanes);
            const vreal dfh = v_load(s->between + row * H + j);
            real *carry = s->carry + row * H + j, *da = s->da + row * s->da_row + j;
            v_store(da, v_fma(dfh, h_prev, v_load(da)) * slope_f);
            v_store(da + 2 * H, f * h_prev);
            v_store(carry, v_fma(dfh, f, v_load(carry)));
        }
}

/* Each function is compiled twice: for the plain cell, and for one with options. */
#define MGU_FUNCTION(name, step)                                                       \
    static void mgu_##name(const step *s)                                              \
    {                                                                                  \
        mgu_##name##_with(s, NULL);                                                    \
    }                                                                                  \
    static void mgu_general_##name(const step *s)                                      \
    {                                                                                  \
        mgu_##name##_with(s, s->options);                                              \
    }
MGU_FUNCTION(first, forward_step)
MGU_FUNCTION(second, forward_step)
MGU_FUNCTION(backward_first, backward_step)
MGU_FUNCTION(backward, backward_step)

#define MGU_OPS                                                                        \
    .R_gates = 1, .tape_slots = TAPE_SLOTS, .da_slots = 2, .w_gate = {0, 1},           \
    .has_carry = 1, .late_gate = 1, .late_slot = 1

static const cell_ops mgu_ops = {
    MGU_OPS, .forward = mgu_first, .forward_second = mgu_second,
    .backward_first = mgu_backward_first, .backward = mgu_backward};
static const cell_ops mgu_general_ops = {
    MGU_OPS, .forward = mgu_general_first, .forward_second = mgu_general_second,
    .backward_first = mgu_general_backward_first, .backward = mgu_general_backward};

static const cell_entry mgu_cell = {
    {.name = "mgu",
     .layer = "MGU",
     GATES("f n"),
     STATES("h"),
     .activations = {FR_SIGMOID, FR_TANH},
     .output_activation = -1,
     .bias_apart = NO_GATE,
     .options = FR_OPTION_ACTIVATIONS | FR_OPTION_CLIP | FR_OPTION_MASKS,
     .paper = "Zhou, Wu, Zhang & Zhou 2016"},
    .plain = &mgu_ops,
    .general = &mgu_general_ops,
};
#undef TAPE_SLOTS
