/* SPDX-License-Identifier: BSD-3-Clause */
/* gru_joint.c -- the GRU of Dreamer, with one norm of x W + h R.
 *
 *   a      = N(x_t W^T + h_{t-1} R^T) + b_ih + b_hh      (B, 3, H), gates r z n
 *   r      = sigmoid(a_r);   u = sigmoid(a_z - 1);   n = tanh(r * a_n)
 *   h_t    = h_{t-1} + u * (n - h_{t-1})
 * The gate z says how much is new here, and little is at first.
 *
 * Backward, t = T-1 .. 0, from dh (loss + recurrence):
 *   dn     = dh * u * (1 - n^2)
 *   da_r   = dn * a_n * r (1 - r);   da_z = dh * (n - h_{t-1}) * u (1 - u)
 *   da_n   = dn * r;                 dh_prev = dh * (1 - u) + the gradient through R
 *
 * A candidate that is masked, m a constant (masks.h), is n * m in h_t and da_z, and
 *   dn     = dh * u * m * (1 - n^2)
 *
 * The tape has four slots, r u n a_n, or in a general cell a_r, a_z - 1, r * a_n, a_n; da
 * has slots r z n.
 * Source: Hafner et al. 2021 (DreamerV2).
 */
#include "cell.h"
#include "functions.h"

INLINE void gru_joint_forward_with(const forward_step *s,
                                   const fr_cell_options *options)
{
    const ptrdiff_t lanes = s->lanes;
    const vreal one = v_set1(1);
    for (ptrdiff_t row = 0; row < s->rows; row++) {
        const real *a = s->ah + row * s->ah_row;
        const vreal h_prev = v_load_n(s->h_prev + row * s->h_prev_row + s->j, s->units);
        const vreal a_r = v_load(a), a_u = v_load(a + lanes) - one;
        const vreal a_n = v_load(a + 2 * lanes);
        const vreal r = options ? v_gate(options, 0, a_r) : v_sigmoid(a_r);
        const vreal u = options ? v_gate(options, 1, a_u) : v_sigmoid(a_u);
        const vreal inside = r * a_n;
        const vreal n = options ? v_gate(options, 2, inside) : v_tanh(inside);
        const vreal in =
            n * v_candidate_mask(s->candidate, s->candidate_row, row, s->j);
        v_store_n(s->h + row * s->h_row + s->j, v_fma(u, in - h_prev, h_prev),
                  s->units);
        if (s->tape) {
            real *tape = s->tape + row * s->tape_row + tape_at(s->j, TAPE_SLOTS);
            v_store(tape, options ? a_r : r);
            v_store(tape + V, options ? a_u : u);
            v_store(tape + 2 * V, options ? inside : n);
            v_store(tape + 3 * V, a_n);
        }
    }
}

INLINE void gru_joint_backward_with(const backward_step *s,
                                    const fr_cell_options *options)
{
    const ptrdiff_t H = s->H_padded;
    const vreal one = v_set1(1);
    for (ptrdiff_t row = 0; row < s->rows; row++) {
        const real *dy = s->dy ? s->dy + row * s->dy_row : NULL;
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const ptrdiff_t lanes = s->j + s->units - j;
            const real *tape = s->tape + row * s->tape_row + tape_at(j, TAPE_SLOTS);
            const vreal t_r = v_load(tape), t_u = v_load(tape + V),
                        t_n = v_load(tape + 2 * V), a_n = v_load(tape + 3 * V);
            const vreal r = options ? v_gate(options, 0, t_r) : t_r;
            const vreal u = options ? v_gate(options, 1, t_u) : t_u;
            const vreal n = options ? v_gate(options, 2, t_n) : t_n;
            const vreal slope_r =
                options ? v_gate_slope(options, 0, t_r, r) : d_sigmoid_from(r);
            const vreal slope_u =
                options ? v_gate_slope(options, 1, t_u, u) : d_sigmoid_from(u);
            const vreal slope_n =
                options ? v_gate_slope(options, 2, t_n, n) : d_tanh_from(n);
            const vreal h_prev = v_load_n(s->h_prev + row * s->h_prev_row + j, lanes);
            real *carry = s->carry + row * H + j, *da = s->da + row * s->da_row + j;
            vreal dh = v_load(s->dh + row * s->dh_row + j) + v_load(carry);
            if (dy)
                dh = dh + v_load_n(dy + j, lanes);

            const vreal mask = v_candidate_mask(s->candidate, s->candidate_row, row, j);
            const vreal dn = dh * u * mask * slope_n;
            v_store(da, dn * a_n * slope_r);
            v_store(da + H, dh * (n * mask - h_prev) * slope_u);
            v_store(da + 2 * H, dn * r);
            v_store(carry, dh * (one - u));
        }
    }
}

static void gru_joint_forward(const forward_step *s)
{
    gru_joint_forward_with(s, NULL);
}

static void gru_joint_backward(const backward_step *s)
{
    gru_joint_backward_with(s, NULL);
}

static void gru_joint_general_forward(const forward_step *s)
{
    gru_joint_forward_with(s, s->options);
}

static void gru_joint_general_backward(const backward_step *s)
{
    gru_joint_backward_with(s, s->options);
}

#define GRU_JOINT_OPS                                                                  \
    .R_gates = 3, .tape_slots = TAPE_SLOTS, .da_slots = 3, .w_gate = {0, 1, 2},        \
    .has_carry = 1

static const cell_ops gru_joint_ops = {GRU_JOINT_OPS, .forward = gru_joint_forward,
                                       .backward = gru_joint_backward};
static const cell_ops gru_joint_general_ops = {GRU_JOINT_OPS,
                                               .forward = gru_joint_general_forward,
                                               .backward = gru_joint_general_backward};
