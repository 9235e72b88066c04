/* SPDX-License-Identifier: BSD-3-Clause */
/* slstm.c -- sLSTM: a long short-term memory whose gates are exponential, normalised by
 * their sum and stabilised by a state of its own.
 *
 *   a_t = x_t W^T + b_ih + h_{t-1} R^T + b_hh         (B, 4, H), gates i f z o
 *   p   = log(sigmoid(a_f)) + m_{t-1}   or   a_f + m_{t-1}
 *   m_t = max(p, a_i),                  or   a_i where n_{t-1} = 0
 *   i   = exp(a_i - m_t);   f = exp(p - m_t);   z = tanh(a_z);   o = sigmoid(a_o)
 *   c_t = f * c_{t-1} + i * z
 *   n_t = f * n_{t-1} + i
 *   h_t = o * c_t / n_t
 *
 * c and n are what the paper's equations have, times exp(-m): all of these may be scaled
 * together without any effect on h.  Where n is 0, before anything was stored, so is c,
 * and any m would do; that of the first input keeps n from vanishing.
 *
 * Backward, t = T-1 .. 0, from dh (loss + recurrence), dc, dn and dm:
 *   dc     += dh * o / n_t;               dn += -dh * h_t / n_t
 *   df      = dc * c_{t-1} + dn * n_{t-1};   di = dc * z + dn
 *   where m_t = a_i:   dp = df * f,        da_i = dm - df * f
 *   where m_t = p:     dp = dm - di * i,   da_i = di * i
 *   da_f    = dp * (1 - sigmoid(a_f))   or   dp
 *   da_z    = dc * i * (1 - z^2);         da_o = dh * c_t / n_t * o (1 - o)
 *   dc_prev = dc * f;   dn_prev = dn * f;   dm_prev = dp;   dh_prev = da R
 *
 * The tape has seven slots: i f z o a_f c_{t-1} n_{t-1}.  Which of the two m_t is, i
 * says, which is 1 where it is a_i.  da has slots i f z o.
 * Source: Beck et al. 2024, section 2.2 and appendix A.2.
 */
#include "cell.h"
#include "functions.h"

#define TAPE_SLOTS 7

INLINE void slstm_forward_with(const forward_step *s, const fr_cell_options *options)
{
    const ptrdiff_t lanes = s->lanes;
    for (ptrdiff_t r = 0; r < s->rows; r++) {
        const real *a = s->ah + r * s->ah_row;
        real *c_state = s->c + r * s->c_row + s->j;
        real *n_state = c_state + s->c_state, *m_state = n_state + s->c_state;
        const vreal c_prev = v_load(c_state), n_prev = v_load(n_state);
        const vreal a_i = v_load(a), a_f = v_load(a + lanes);
        const vreal z = v_tanh(v_load(a + 2 * lanes));
        const vreal o = v_sigmoid(v_load(a + 3 * lanes));

        const vreal log_f = options && options->exp_forget ? a_f : v_log_sigmoid(a_f);
        const vreal p = log_f + v_load(m_state);
        const vreal m = v_select_positive(v_abs(n_prev), v_max(p, a_i), a_i);
        const vreal i = v_exp_bounded(a_i - m), f = v_exp_bounded(p - m);
        const vreal c = v_fma(f, c_prev, i * z), n = v_fma(f, n_prev, i);

        v_store(c_state, c);
        v_store(n_state, n);
        v_store(m_state, m);
        v_store_n(s->h + r * s->h_row + s->j, o * (c / n), s->units);
        if (s->tape) {
            real *tape = s->tape + r * s->tape_row + tape_at(s->j, TAPE_SLOTS);
            v_store(tape, i);
            v_store(tape + V, f);
            v_store(tape + 2 * V, z);
            v_store(tape + 3 * V, o);
            v_store(tape + 4 * V, a_f);
            v_store(tape + 5 * V, c_prev);
            v_store(tape + 6 * V, n_prev);
        }
    }
}

INLINE void slstm_backward_with(const backward_step *s, const fr_cell_options *options)
{
    const ptrdiff_t H = s->H_padded;
    const vreal one = v_set1(1);
    for (ptrdiff_t r = 0; r < s->rows; r++) {
        const real *dy = s->dy ? s->dy + r * s->dy_row : NULL;
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const real *tape = s->tape + r * s->tape_row + tape_at(j, TAPE_SLOTS);
            const vreal i = v_load(tape), f = v_load(tape + V),
                        z = v_load(tape + 2 * V), o = v_load(tape + 3 * V),
                        a_f = v_load(tape + 4 * V), c_prev = v_load(tape + 5 * V),
                        n_prev = v_load(tape + 6 * V);
            real *dc_state = s->dc + r * H + j, *da = s->da + r * s->da_row + j;
            real *dn_state = dc_state + s->dc_state, *dm_state = dn_state + s->dc_state;
            vreal dh = v_load(s->dh + r * s->dh_row + j);
            if (dy)
                dh = dh + v_load_n(dy + j, s->j + s->units - j);

            const vreal n = v_fma(f, n_prev, i), ratio = v_fma(f, c_prev, i * z) / n;
            const vreal dratio = dh * o / n;
            const vreal dc = v_load(dc_state) + dratio;
            const vreal dn = v_fma(-dratio, ratio, v_load(dn_state));
            const vreal through_f = v_fma(dc, c_prev, dn * n_prev) * f;
            const vreal through_i = v_fma(dc, z, dn) * i;
            const vreal dm = v_load(dm_state);
            const vreal dp = v_select_positive(one - i, dm - through_i, through_f);
            const vreal slope_f =
                options && options->exp_forget ? one : v_sigmoid(-a_f);

            v_store(da, v_select_positive(one - i, through_i, dm - through_f));
            v_store(da + H, dp * slope_f);
            v_store(da + 2 * H, dc * i * d_tanh_from(z));
            v_store(da + 3 * H, dh * ratio * d_sigmoid_from(o));
            v_store(dc_state, dc * f);
            v_store(dn_state, dn * f);
            v_store(dm_state, dp);
        }
    }
}

static void slstm_forward(const forward_step *s)
{
    slstm_forward_with(s, NULL);
}

static void slstm_backward(const backward_step *s)
{
    slstm_backward_with(s, NULL);
}

static void slstm_general_forward(const forward_step *s)
{
    slstm_forward_with(s, s->options);
}

static void slstm_general_backward(const backward_step *s)
{
    slstm_backward_with(s, s->options);
}

#define SLSTM_OPS                                                                      \
    .R_gates = 4, .tape_slots = TAPE_SLOTS, .da_slots = 4, .w_gate = {0, 1, 2, 3}

static const cell_ops slstm_ops = {SLSTM_OPS, .forward = slstm_forward,
                                   .backward = slstm_backward};
static const cell_ops slstm_general_ops = {SLSTM_OPS, .forward = slstm_general_forward,
                                           .backward = slstm_general_backward};

static const cell_entry slstm_cell = {
    {.name = "slstm",
     .layer = "SLSTM",
     GATES("i f z o"),
     STATES("h c n m"),
     .activations = {FR_EXPONENTIAL, FR_SIGMOID, FR_TANH, FR_SIGMOID},
     .output_activation = -1,
     .bias_apart = NO_GATE,
     .options = FR_OPTION_EXP_FORGET | FR_OPTION_HEADS,
     .paper = "Beck et al. 2024"},
    .plain = &slstm_ops,
    .general = &slstm_general_ops,
};
#undef TAPE_SLOTS
