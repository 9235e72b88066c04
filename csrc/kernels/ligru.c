/* SPDX-License-Identifier: BSD-3-Clause */
/* ligru.c -- light gated recurrent unit: a GRU without reset gate, whose candidate is a
 * ReLU.
 *
 *   a_t = x_t W^T + b_ih + h_{t-1} R^T + b_hh         (B, 2, H), gates n z
 *   n   = max(a_n, 0);   z = sigmoid(a_z)
 *   h_t = z * h_{t-1} + (1 - z) * n
 *
 * Backward, t = T-1 .. 0, from dh (loss + recurrence):
 *   da_n    = dh * (1 - z)       where n > 0, else 0
 *   da_z    = dh * (h_{t-1} - n) * z (1 - z)
 *   dh_prev = dh * z + da R
 *
 * The paper normalises x_t W^T over the batch.  Without that h_t can grow with the
 * sequence, since nothing bounds n; the driver can normalise each row of it (norm.h).  A
 * general cell has other functions, and may clip what they are given.
 *
 * The tape has two slots, n z, or in a general cell a_n a_z, since the derivative of any
 * function follows from these.  da has slots n z.
 * Source: Ravanelli, Brakel, Omologo & Bengio 2018.
 */
#include "cell.h"
#include "functions.h"

#define TAPE_SLOTS 2

INLINE void ligru_forward_with(const forward_step *s, const fr_cell_options *options)
{
    for (ptrdiff_t row = 0; row < s->rows; row++) {
        const real *a = s->ah + row * s->ah_row;
        const vreal a_n = v_load(a), a_z = v_load(a + s->lanes);
        const vreal h_prev = v_load_n(s->h_prev + row * s->h_prev_row + s->j, s->units);
        const vreal n = options ? v_gate(options, 0, a_n) : v_relu(a_n);
        const vreal z = options ? v_gate(options, 1, a_z) : v_sigmoid(a_z);
        v_store_n(s->h + row * s->h_row + s->j, v_fma(z, h_prev - n, n), s->units);
        if (s->tape) {
            real *tape = s->tape + row * s->tape_row + tape_at(s->j, TAPE_SLOTS);
            v_store(tape, options ? a_n : n);
            v_store(tape + V, options ? a_z : z);
        }
    }
}

INLINE void ligru_backward_with(const backward_step *s, const fr_cell_options *options)
{
    const ptrdiff_t H = s->H_padded;
    for (ptrdiff_t row = 0; row < s->rows; row++) {
        const real *dy = s->dy ? s->dy + row * s->dy_row : NULL;
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const ptrdiff_t lanes = s->j + s->units - j;
            const real *tape = s->tape + row * s->tape_row + tape_at(j, TAPE_SLOTS);
            const vreal t_n = v_load(tape), t_z = v_load(tape + V);
            const vreal n = options ? v_gate(options, 0, t_n) : t_n;
            const vreal z = options ? v_gate(options, 1, t_z) : t_z;
            const vreal slope_z =
                options ? v_gate_slope(options, 1, t_z, z) : d_sigmoid_from(z);
            const vreal h_prev = v_load_n(s->h_prev + row * s->h_prev_row + j, lanes);
            real *carry = s->carry + row * H + j, *da = s->da + row * s->da_row + j;
            vreal dh = v_load(s->dh + row * s->dh_row + j) + v_load(carry);
            if (dy)
                dh = dh + v_load_n(dy + j, lanes);

            const vreal dn = dh * (v_set1(1) - z);
            v_store(da, options ? dn * v_gate_slope(options, 0, t_n, n)
                                : v_where_positive(n, dn));
            v_store(da + H, dh * (h_prev - n) * slope_z);
            v_store(carry, dh * z);
        }
    }
}

static void ligru_forward(const forward_step *s)
{
    ligru_forward_with(s, NULL);
}

static void ligru_backward(const backward_step *s)
{
    ligru_backward_with(s, NULL);
}

static void ligru_general_forward(const forward_step *s)
{
    ligru_forward_with(s, s->options);
}

static void ligru_general_backward(const backward_step *s)
{
    ligru_backward_with(s, s->options);
}

#define LIGRU_OPS                                                                      \
    .R_gates = 2, .tape_slots = TAPE_SLOTS, .da_slots = 2, .w_gate = {0, 1},           \
    .has_carry = 1

static const cell_ops ligru_ops = {LIGRU_OPS, .forward = ligru_forward,
                                   .backward = ligru_backward};
static const cell_ops ligru_general_ops = {LIGRU_OPS, .forward = ligru_general_forward,
                                           .backward = ligru_general_backward};

static const cell_entry ligru_cell = {
    {.name = "ligru",
     .layer = "LiGRU",
     GATES("n z"),
     STATES("h"),
     .activations = {FR_RELU, FR_SIGMOID},
     .output_activation = -1,
     .bias_apart = NO_GATE,
     .options = FR_OPTION_ACTIVATIONS | FR_OPTION_CLIP | FR_OPTION_MASKS,
     .norms = 1 << FR_NORM_INPUT,
     .paper = "Ravanelli, Brakel, Omologo & Bengio 2018"},
    .plain = &ligru_ops,
    .general = &ligru_general_ops,
};
#undef TAPE_SLOTS
