/* SPDX-License-Identifier: BSD-3-Clause */
/* rnn.c -- the simple recurrent network, tanh or ReLU.
 *
 *   a_t = x_t W^T + b_ih + h_{t-1} R^T + b_hh          (B, H)
 *   h_t = tanh(a_t)   or   max(a_t, 0)
 *
 * Backward, t = T-1 .. 0, from dh (loss + recurrence):
 *   da = dh * (1 - h_t^2)   or   dh where h_t > 0, else 0
 *   dh_prev = da R
 *
 * Saved by forward: nothing beyond y, which holds h_t.  da has one slot.
 * Source: Elman 1990; ReLU: Le, Jaitly & Hinton 2015.
 */
#include "activations.h"
#include "cell.h"

INLINE void rnn_forward(const forward_step *s, int is_relu)
{
    for (ptrdiff_t v = 0; v < s->units; v += V) {
        const ptrdiff_t lanes = min_size(V, s->units - v);
        const vreal bias = v_load(s->bias + v);
        for (ptrdiff_t r = 0; r < s->rows; r++) {
            const vreal a = (v_load(s->ax + r * s->ax_row + v) + bias) +
                            v_load(s->ah + r * s->ah_row + v);
            v_store_n(s->h + r * s->h_row + s->j + v, is_relu ? v_relu(a) : v_tanh(a),
                      lanes);
        }
    }
}

INLINE void rnn_backward(const backward_step *s, int is_relu)
{
    for (ptrdiff_t r = 0; r < s->rows; r++) {
        const real *dy = s->dy ? s->dy + r * s->dy_row : NULL;
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const ptrdiff_t lanes = s->j + s->units - j;
            const vreal h = v_load_n(s->h + r * s->h_row + j, lanes);
            vreal dh = v_load(s->dh + r * s->H_padded + j);
            if (dy)
                dh = dh + v_load_n(dy + j, lanes);
            v_store(s->da + r * s->da_row + j,
                    is_relu ? v_where_positive(h, dh) : dh * d_tanh_from(h));
        }
    }
}

static void rnn_tanh_forward(const forward_step *s)
{
    rnn_forward(s, 0);
}

static void rnn_tanh_backward(const backward_step *s)
{
    rnn_backward(s, 0);
}

static void rnn_relu_forward(const forward_step *s)
{
    rnn_forward(s, 1);
}

static void rnn_relu_backward(const backward_step *s)
{
    rnn_backward(s, 1);
}

static const cell_ops rnn_tanh_ops = {.gates = 1,
                                      .da_slots = 1,
                                      .forward = rnn_tanh_forward,
                                      .backward = rnn_tanh_backward};
static const cell_ops rnn_relu_ops = {.gates = 1,
                                      .da_slots = 1,
                                      .forward = rnn_relu_forward,
                                      .backward = rnn_relu_backward};
