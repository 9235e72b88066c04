/* SPDX-License-Identifier: BSD-3-Clause */
/* gru.c -- gated recurrent unit, reset gate after the product (PyTorch's and cuDNN's).
 *
 *   r, z  = sigmoid(x_t W_r^T + b_ir + h_{t-1} R_r^T + b_hr), likewise z
 *   hn    = h_{t-1} R_n^T + b_hn
 *   n     = tanh(x_t W_n^T + b_in + r * hn)
 *   h_t   = n + z * (h_{t-1} - n)                     (B, H), gates r z n
 *
 * Backward, t = T-1 .. 0, from dh (loss + recurrence):
 *   da_n    = dh * (1 - z)         * (1 - n^2)
 *   da_r    = da_n * hn            * r (1 - r)
 *   da_z    = dh * (h_{t-1} - n)   * z (1 - z)
 *   dhn     = da_n * r
 *   dh_prev = dh * z + (da_r, da_z, dhn) R
 *
 * Saved by forward, four slots: r z n hn.  da has slots n r z hn, so that the gradients
 * of x W (n r z) and those of h R (r z hn) are both contiguous.
 * Source: Cho et al. 2014; this form: Chung et al. 2014, section 3.2, as in cuDNN.
 */
#include "activations.h"
#include "cell.h"

#define TAPE_SLOTS 4

static void gru_forward(const forward_step *s)
{
    const ptrdiff_t lanes = s->lanes;
    const vreal br = v_load(s->bias), bz = v_load(s->bias + lanes),
                bn = v_load(s->bias + 2 * lanes), b_hn = v_load(s->bias_hn + s->j);

    for (ptrdiff_t row = 0; row < s->rows; row++) {
        const real *ax = s->ax + row * s->ax_row, *ah = s->ah + row * s->ah_row;
        const vreal h_prev = v_load_n(s->h_prev + row * s->h_prev_row + s->j, s->units);

        const vreal r = v_sigmoid((v_load(ax) + br) + v_load(ah));
        const vreal z = v_sigmoid((v_load(ax + lanes) + bz) + v_load(ah + lanes));
        const vreal hn = v_load(ah + 2 * lanes) + b_hn;
        const vreal n = v_tanh(v_fma(r, hn, v_load(ax + 2 * lanes) + bn));

        v_store_n(s->h + row * s->h_row + s->j, v_fma(z, h_prev - n, n), s->units);
        if (s->tape) {
            real *tape = s->tape + row * s->tape_row + tape_at(s->j, TAPE_SLOTS);
            v_store(tape, r);
            v_store(tape + V, z);
            v_store(tape + 2 * V, n);
            v_store(tape + 3 * V, hn);
        }
    }
}

static void gru_backward(const backward_step *s)
{
    const ptrdiff_t H = s->H_padded;
    const vreal one = v_set1(1);
    for (ptrdiff_t row = 0; row < s->rows; row++) {
        const real *dy = s->dy ? s->dy + row * s->dy_row : NULL;
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const ptrdiff_t lanes = s->j + s->units - j;
            const real *tape = s->tape + row * s->tape_row + tape_at(j, TAPE_SLOTS);
            const vreal r = v_load(tape), z = v_load(tape + V),
                        n = v_load(tape + 2 * V), hn = v_load(tape + 3 * V);
            const vreal h_prev = v_load_n(s->h_prev + row * s->h_prev_row + j, lanes);
            real *carry = s->carry + row * H + j, *da = s->da + row * s->da_row + j;
            vreal dh = v_load(s->dh + row * H + j) + v_load(carry);
            if (dy)
                dh = dh + v_load_n(dy + j, lanes);

            const vreal da_n = dh * (one - z) * d_tanh_from(n);
            v_store(da, da_n);
            v_store(da + H, da_n * hn * d_sigmoid_from(r));
            v_store(da + 2 * H, dh * (h_prev - n) * d_sigmoid_from(z));
            v_store(da + 3 * H, da_n * r);
            v_store(carry, dh * z);
        }
    }
}

static const cell_ops gru_ops = {.gates = 3,
                                 .tape_slots = TAPE_SLOTS,
                                 .da_slots = 4,
                                 .first_R_slot = 1,
                                 .w_gate = {2, 0, 1},
                                 .has_carry = 1,
                                 .forward = gru_forward,
                                 .backward = gru_backward};
#undef TAPE_SLOTS
