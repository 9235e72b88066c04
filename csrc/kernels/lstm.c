/* SPDX-License-Identifier: BSD-3-Clause */
/* lstm.c -- long short-term memory.
 *
 *   a_t     = x_t W^T + b_ih + h_{t-1} R^T + b_hh     (B, 4, H), gates i f g o
 *   i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o);   g = tanh(a_g)
 *   c_t     = f * c_{t-1} + i * g
 *   h_t     = o * tanh(c_t)
 *
 * Backward, t = T-1 .. 0, from dh (loss + recurrence) and dc:
 *   dc     += dh * o * (1 - tanh(c_t)^2)
 *   da_i    = dc * g         * i (1 - i)
 *   da_f    = dc * c_{t-1}   * f (1 - f)
 *   da_g    = dc * i         * (1 - g^2)
 *   da_o    = dh * tanh(c_t) * o (1 - o)
 *   dc_prev = dc * f;          dh_prev = da R
 *
 * Saved by forward, five slots: i f g o, c_{t-1}; tanh(c_t) takes less time to compute
 * again than to read from level 3.  da has slots i f g o.
 * Source: Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000.
 */
#include "activations.h"
#include "cell.h"

#define TAPE_SLOTS 5

static void lstm_forward(const forward_step *s)
{
    const ptrdiff_t lanes = s->lanes;
    const vreal bi = v_load(s->bias), bf = v_load(s->bias + lanes),
                bg = v_load(s->bias + 2 * lanes), bo = v_load(s->bias + 3 * lanes);

    for (ptrdiff_t r = 0; r < s->rows; r++) {
        const real *ax = s->ax + r * s->ax_row, *ah = s->ah + r * s->ah_row;
        real *c_state = s->c + r * s->c_row + s->j;
        const vreal c_prev = v_load(c_state);

        const vreal i = v_sigmoid((v_load(ax) + bi) + v_load(ah));
        const vreal f = v_sigmoid((v_load(ax + lanes) + bf) + v_load(ah + lanes));
        const vreal g = v_tanh((v_load(ax + 2 * lanes) + bg) + v_load(ah + 2 * lanes));
        const vreal o =
            v_sigmoid((v_load(ax + 3 * lanes) + bo) + v_load(ah + 3 * lanes));
        const vreal c = v_fma(f, c_prev, i * g);
        const vreal tanh_c = v_tanh(c);

        v_store(c_state, c);
        v_store_n(s->h + r * s->h_row + s->j, o * tanh_c, s->units);
        if (s->tape) {
            real *tape = s->tape + r * s->tape_row + tape_at(s->j, TAPE_SLOTS);
            v_store(tape, i);
            v_store(tape + V, f);
            v_store(tape + 2 * V, g);
            v_store(tape + 3 * V, o);
            v_store(tape + 4 * V, c_prev);
        }
    }
}

static void lstm_backward(const backward_step *s)
{
    const ptrdiff_t H = s->H_padded;
    for (ptrdiff_t r = 0; r < s->rows; r++) {
        const real *dy = s->dy ? s->dy + r * s->dy_row : NULL;
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const real *tape = s->tape + r * s->tape_row + tape_at(j, TAPE_SLOTS);
            const vreal i = v_load(tape), f = v_load(tape + V),
                        g = v_load(tape + 2 * V), o = v_load(tape + 3 * V),
                        c_prev = v_load(tape + 4 * V);
            const vreal tanh_c = v_tanh(v_fma(f, c_prev, i * g));
            real *dc_state = s->dc + r * H + j, *da = s->da + r * s->da_row + j;
            vreal dh = v_load(s->dh + r * H + j);
            if (dy)
                dh = dh + v_load_n(dy + j, s->j + s->units - j);
            const vreal dc = v_fma(dh * o, d_tanh_from(tanh_c), v_load(dc_state));

            v_store(da, dc * g * d_sigmoid_from(i));
            v_store(da + H, dc * c_prev * d_sigmoid_from(f));
            v_store(da + 2 * H, dc * i * d_tanh_from(g));
            v_store(da + 3 * H, dh * tanh_c * d_sigmoid_from(o));
            v_store(dc_state, dc * f);
        }
    }
}

static const cell_ops lstm_ops = {.gates = 4,
                                  .tape_slots = TAPE_SLOTS,
                                  .da_slots = 4,
                                  .w_gate = {0, 1, 2, 3},
                                  .has_c = 1,
                                  .forward = lstm_forward,
                                  .backward = lstm_backward};
#undef TAPE_SLOTS
