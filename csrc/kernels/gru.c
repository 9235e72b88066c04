/* SPDX-License-Identifier: BSD-3-Clause */
/* gru.c -- gated recurrent unit.  The reset gate acts after the product h_{t-1} R_n^T,
 * as in PyTorch and cuDNN, or before it, as in the first paper and ONNX's default.
 *
 *   r     = sigmoid(x_t W_r^T + b_ir + h_{t-1} R_r^T + b_hr);   z likewise
 *   after:   hn = h_{t-1} R_n^T + b_hn;        a_n = x_t W_n^T + b_in + r * hn
 *   before:  rh = r * h_{t-1};                 a_n = x_t W_n^T + b_in + rh R_n^T + b_hn
 *   n     = tanh(a_n)
 *   h_t   = n + z * (h_{t-1} - n)                     (B, H), gates r z n
 *
 * Backward, t = T-1 .. 0, from dh (loss + recurrence):
 *   da_n    = dh * (1 - z)         * (1 - n^2)
 *   da_z    = dh * (h_{t-1} - n)   * z (1 - z)
 *   after:   dhn = da_n * r;  da_r = da_n * hn * r (1 - r)
 *            dh_prev = dh * z + (da_r, da_z, dhn) R
 *   before:  drh = da_n R_n;  da_r = drh * h_{t-1} * r (1 - r)
 *            dh_prev = dh * z + drh * r + (da_r, da_z) R
 *
 * A candidate that is masked, m a constant (masks.h), is n * m in place of n, and
 *   da_n    = dh * (1 - z) * m     * (1 - n^2)
 *
 * Where the reset comes after the product, the tape has four slots, r z n hn, or in a
 * general cell a_r a_z a_n hn.  da has slots n r z hn: those that belong to x W are
 * contiguous, n r z, and so are those that belong to h R, r z hn.  Where the reset
 * comes before the product, n is a late gate (cell.h), the tape has three slots, a_r
 * a_z a_n, and da has slots n r z, behind which rh lies.
 * Source: Cho et al. 2014 (before); Chung et al. 2014, section 3.2, and cuDNN (after).
 */
#include "cell.h"
#include "functions.h"

#define TAPE_SLOTS 4
#define BEFORE_TAPE_SLOTS 3

INLINE void gru_forward_with(const forward_step *s, const fr_cell_options *options,
                             int masked)
{
    const ptrdiff_t lanes = s->lanes;
    const vreal b_hn = v_load(s->bias_apart + s->j);

    for (ptrdiff_t row = 0; row < s->rows; row++) {
        const real *ax = s->ax + row * s->ax_row, *ah = s->ah + row * s->ah_row;
        const vreal h_prev = v_load_n(s->h_prev + row * s->h_prev_row + s->j, s->units);

        const vreal a_r = v_load(ax) + v_load(ah);
        const vreal a_z = v_load(ax + lanes) + v_load(ah + lanes);
        const vreal hn = v_load(ah + 2 * lanes) + b_hn;
        const vreal r = options ? v_gate(options, 0, a_r) : v_sigmoid(a_r);
        const vreal z = options ? v_gate(options, 1, a_z) : v_sigmoid(a_z);
        const vreal a_n = v_fma(r, hn, v_load(ax + 2 * lanes));
        const vreal n = options ? v_gate(options, 2, a_n) : v_tanh(a_n);
        const vreal mask = v_candidate_mask(s->candidate, s->candidate_row, row, s->j);
        const vreal in = masked ? n * mask : n;

        v_store_n(s->h + row * s->h_row + s->j, v_fma(z, h_prev - in, in), s->units);
        if (s->tape) {
            real *tape = s->tape + row * s->tape_row + tape_at(s->j, TAPE_SLOTS);
            v_store(tape, options ? a_r : r);
            v_store(tape + V, options ? a_z : z);
            v_store(tape + 2 * V, options ? a_n : n);
            v_store(tape + 3 * V, hn);
        }
    }
}

INLINE void gru_backward_with(const backward_step *s, const fr_cell_options *options,
                              int masked)
{
    const ptrdiff_t H = s->H_padded;
    const vreal one = v_set1(1);
    for (ptrdiff_t row = 0; row < s->rows; row++) {
        const real *dy = s->dy ? s->dy + row * s->dy_row : NULL;
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const ptrdiff_t lanes = s->j + s->units - j;
            const real *tape = s->tape + row * s->tape_row + tape_at(j, TAPE_SLOTS);
            const vreal t_r = v_load(tape), t_z = v_load(tape + V),
                        t_n = v_load(tape + 2 * V), hn = v_load(tape + 3 * V);
            const vreal r = options ? v_gate(options, 0, t_r) : t_r;
            const vreal z = options ? v_gate(options, 1, t_z) : t_z;
            const vreal n = options ? v_gate(options, 2, t_n) : t_n;
            const vreal slope_r =
                options ? v_gate_slope(options, 0, t_r, r) : d_sigmoid_from(r);
            const vreal slope_z =
                options ? v_gate_slope(options, 1, t_z, z) : d_sigmoid_from(z);
            const vreal slope_n =
                options ? v_gate_slope(options, 2, t_n, n) : d_tanh_from(n);
            const vreal h_prev = v_load_n(s->h_prev + row * s->h_prev_row + j, lanes);
            real *carry = s->carry + row * H + j, *da = s->da + row * s->da_row + j;
            vreal dh = v_load(s->dh + row * s->dh_row + j) + v_load(carry);
            if (dy)
                dh = dh + v_load_n(dy + j, lanes);

            const vreal mask = v_candidate_mask(s->candidate, s->candidate_row, row, j);
            const vreal in = masked ? n * mask : n;
            const vreal dn = dh * (one - z);
            const vreal da_n = (masked ? dn * mask : dn) * slope_n;
            v_store(da, da_n);
            v_store(da + H, da_n * hn * slope_r);
            v_store(da + 2 * H, dh * (h_prev - in) * slope_z);
            v_store(da + 3 * H, da_n * r);
            v_store(carry, dh * z);
        }
    }
}

static void gru_forward(const forward_step *s)
{
    gru_forward_with(s, NULL, 0);
}

static void gru_backward(const backward_step *s)
{
    gru_backward_with(s, NULL, 0);
}

static void gru_general_forward(const forward_step *s)
{
    gru_forward_with(s, s->options, 1);
}

static void gru_general_backward(const backward_step *s)
{
    gru_backward_with(s, s->options, 1);
}

static void gru_masked_forward(const forward_step *s)
{
    gru_forward_with(s, NULL, 1);
}

static void gru_masked_backward(const backward_step *s)
{
    gru_backward_with(s, NULL, 1);
}

#define GRU_OPS .w_gate = {2, 0, 1}, .first_R_slot = 1, .has_carry = 1
#define GRU_AFTER_OPS GRU_OPS, .R_gates = 3, .tape_slots = TAPE_SLOTS, .da_slots = 4

static const cell_ops gru_ops = {GRU_AFTER_OPS, .forward = gru_forward,
                                 .backward = gru_backward};
static const cell_ops gru_general_ops = {GRU_AFTER_OPS, .forward = gru_general_forward,
                                         .backward = gru_general_backward};
static const cell_ops gru_masked_ops = {GRU_AFTER_OPS, .forward = gru_masked_forward,
                                        .backward = gru_masked_backward};

/* --- reset before the product: each step has two parts --------------------------- */

/* First part: computes r, z, and r * h_{t-1}, which goes into the second product, and
 * hands z to the second part in `held`. */
static void gru_before_forward(const forward_step *s)
{
    const fr_cell_options *o = s->options;
    const ptrdiff_t lanes = s->lanes;
    for (ptrdiff_t row = 0; row < s->rows; row++) {
        const real *ax = s->ax + row * s->ax_row, *ah = s->ah + row * s->ah_row;
        const vreal h_prev = v_load_n(s->h_prev + row * s->h_prev_row + s->j, s->units);
        const vreal a_r = v_load(ax) + v_load(ah);
        const vreal a_z = v_load(ax + lanes) + v_load(ah + lanes);
        v_store(s->between + row * s->between_row + s->j, v_gate(o, 0, a_r) * h_prev);
        v_store(s->held + row * s->between_row + s->j, v_gate(o, 1, a_z));
        if (s->tape) {
            real *tape = s->tape + row * s->tape_row + tape_at(s->j, BEFORE_TAPE_SLOTS);
            v_store(tape, a_r);
            v_store(tape + V, a_z);
        }
    }
}

/* Second part: computes n and h_t of one vector of units.  `ah` is rh R_n, and `ax` is
 * x W of all gates, as in the first part. */
static void gru_before_forward_second(const forward_step *s)
{
    const fr_cell_options *o = s->options;
    for (ptrdiff_t row = 0; row < s->rows; row++) {
        const vreal ax = v_load(s->ax + row * s->ax_row + 2 * s->lanes);
        const vreal a_n = ax + v_load(s->ah + row * s->ah_row);
        const vreal n = v_gate(o, 2, a_n) *
                        v_candidate_mask(s->candidate, s->candidate_row, row, s->j);
        const vreal z = v_load(s->held + row * s->between_row + s->j);
        const vreal h_prev = v_load_n(s->h_prev + row * s->h_prev_row + s->j, s->units);
        v_store_n(s->h + row * s->h_row + s->j, v_fma(z, h_prev - n, n), s->units);
        if (s->tape)
            v_store(s->tape + row * s->tape_row + tape_at(s->j, BEFORE_TAPE_SLOTS) +
                        2 * V,
                    a_n);
    }
}

/* First part: writes da_n, da_z, and dh * z to `carry`. */
static void gru_before_backward_first(const backward_step *s)
{
    const fr_cell_options *o = s->options;
    const ptrdiff_t H = s->H_padded;
    for (ptrdiff_t row = 0; row < s->rows; row++) {
        const real *dy = s->dy ? s->dy + row * s->dy_row : NULL;
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const ptrdiff_t lanes = s->j + s->units - j;
            const real *tape =
                s->tape + row * s->tape_row + tape_at(j, BEFORE_TAPE_SLOTS);
            const vreal a_z = v_load(tape + V), a_n = v_load(tape + 2 * V);
            const vreal z = v_gate(o, 1, a_z), n = v_gate(o, 2, a_n);
            const vreal h_prev = v_load_n(s->h_prev + row * s->h_prev_row + j, lanes);
            real *carry = s->carry + row * H + j, *da = s->da + row * s->da_row + j;
            vreal dh = v_load(s->dh + row * s->dh_row + j) + v_load(carry);
            if (dy)
                dh = dh + v_load_n(dy + j, lanes);
            const vreal mask = v_candidate_mask(s->candidate, s->candidate_row, row, j);
            v_store(da, dh * (v_set1(1) - z) * mask * v_gate_slope(o, 2, a_n, n));
            v_store(da + 2 * H, dh * (h_prev - n * mask) * v_gate_slope(o, 1, a_z, z));
            v_store(carry, dh * z);
        }
    }
}

/* Second part: writes da_r, and rh, of which the gradient of R_n is made, and adds
 * drh * r to `carry`.  drh is in `between`. */
static void gru_before_backward(const backward_step *s)
{
    const fr_cell_options *o = s->options;
    const ptrdiff_t H = s->H_padded;
    for (ptrdiff_t row = 0; row < s->rows; row++) {
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const ptrdiff_t lanes = s->j + s->units - j;
            const vreal a_r =
                v_load(s->tape + row * s->tape_row + tape_at(j, BEFORE_TAPE_SLOTS));
            const vreal r = v_gate(o, 0, a_r);
            const vreal h_prev = v_load_n(s->h_prev + row * s->h_prev_row + j, lanes);
            const vreal drh = v_load(s->between + row * H + j);
            real *carry = s->carry + row * H + j, *da = s->da + row * s->da_row + j;
            v_store(da + H, drh * h_prev * v_gate_slope(o, 0, a_r, r));
            v_store(da + 3 * H, r * h_prev);
            v_store(carry, v_fma(drh, r, v_load(carry)));
        }
    }
}

static const cell_ops gru_before_ops = {GRU_OPS,
                                        .R_gates = 2,
                                        .late_gate = 2,
                                        .late_slot = 0,
                                        .tape_slots = BEFORE_TAPE_SLOTS,
                                        .da_slots = 3,
                                        .forward = gru_before_forward,
                                        .forward_second = gru_before_forward_second,
                                        .backward_first = gru_before_backward_first,
                                        .backward = gru_before_backward};

#include "gru_joint.c"

static const cell_entry gru_cell = {
    {.name = "gru",
     .layer = "GRU",
     GATES("r z n"),
     STATES("h"),
     .activations = {FR_SIGMOID, FR_SIGMOID, FR_TANH},
     .output_activation = -1,
     .bias_apart = 2,
     .options = FR_OPTION_ACTIVATIONS | FR_OPTION_CLIP | FR_OPTION_RESET_BEFORE |
                FR_OPTION_HEADS | FR_OPTION_MASKS | FR_OPTION_CANDIDATE,
     .norms = 1 << FR_NORM_INPUT | 1 << FR_NORM_APART | 1 << FR_NORM_JOINT,
     .paper = "Cho et al. 2014"},
    .plain = &gru_ops,
    .general = &gru_general_ops,
    .candidate = &gru_masked_ops,
    .reset_before = &gru_before_ops,
    .joint = &gru_joint_ops,
    .joint_general = &gru_joint_general_ops,
};
#undef TAPE_SLOTS
#undef BEFORE_TAPE_SLOTS
