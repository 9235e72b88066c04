/* SPDX-License-Identifier: BSD-3-Clause */
/* rnn.c -- the simple recurrent network, tanh, ReLU or any other function.
 *
 *   a_t = x_t W^T + b_ih + h_{t-1} R^T + b_hh          (B, H)
 *   h_t = tanh(a_t)   or   max(a_t, 0)   or   f(a_t)
 *
 * Backward, t = T-1 .. 0, from dh (loss + recurrence):
 *   da = dh * (1 - h_t^2)   or   dh where h_t > 0, else 0   or   dh * f'(a_t)
 *   dh_prev = da R
 *
 * The tape of a plain cell is empty, because y holds h_t, which is all that backward
 * needs.  A general cell, whose function f is an option, saves a_t in one slot.  da has
 * one slot.
 * Source: Elman 1990; ReLU: Le, Jaitly & Hinton 2015.
 */
#include "cell.h"
#include "functions.h"

typedef enum { RNN_TANH, RNN_RELU, RNN_GENERAL } rnn_kind;

INLINE void rnn_forward(const forward_step *s, rnn_kind kind)
{
    for (ptrdiff_t v = 0; v < s->units; v += V) {
        const ptrdiff_t lanes = min_size(V, s->units - v);
        for (ptrdiff_t r = 0; r < s->rows; r++) {
            const vreal a = v_load(s->ah + r * s->ah_row + v);
            const vreal h = kind == RNN_TANH   ? v_tanh(a)
                            : kind == RNN_RELU ? v_relu(a)
                                               : v_gate(s->options, 0, a);
            v_store_n(s->h + r * s->h_row + s->j + v, h, lanes);
            if (kind == RNN_GENERAL && s->tape)
                v_store(s->tape + r * s->tape_row + tape_at(s->j + v, 1), a);
        }
    }
}

INLINE void rnn_backward(const backward_step *s, rnn_kind kind)
{
    for (ptrdiff_t r = 0; r < s->rows; r++) {
        const real *dy = s->dy ? s->dy + r * s->dy_row : NULL;
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const ptrdiff_t lanes = s->j + s->units - j;
            const vreal h = v_load_n(s->h + r * s->h_row + j, lanes);
            vreal dh = v_load(s->dh + r * s->dh_row + j), da;
            if (dy)
                dh = dh + v_load_n(dy + j, lanes);
            if (kind == RNN_TANH) {
                da = dh * d_tanh_from(h);
            } else if (kind == RNN_RELU) {
                da = v_where_positive(h, dh);
            } else {
                const vreal a = v_load(s->tape + r * s->tape_row + tape_at(j, 1));
                da = dh * v_gate_slope(s->options, 0, a, h);
            }
            v_store(s->da + r * s->da_row + j, da);
        }
    }
}

static void rnn_tanh_forward(const forward_step *s)
{
    rnn_forward(s, RNN_TANH);
}

static void rnn_tanh_backward(const backward_step *s)
{
    rnn_backward(s, RNN_TANH);
}

static void rnn_relu_forward(const forward_step *s)
{
    rnn_forward(s, RNN_RELU);
}

static void rnn_relu_backward(const backward_step *s)
{
    rnn_backward(s, RNN_RELU);
}

static void rnn_general_forward(const forward_step *s)
{
    rnn_forward(s, RNN_GENERAL);
}

static void rnn_general_backward(const backward_step *s)
{
    rnn_backward(s, RNN_GENERAL);
}

#define RNN_OPS .R_gates = 1, .da_slots = 1, .reads_h = 1

static const cell_ops rnn_tanh_ops = {RNN_OPS, .forward = rnn_tanh_forward,
                                      .backward = rnn_tanh_backward};
static const cell_ops rnn_relu_ops = {RNN_OPS, .forward = rnn_relu_forward,
                                      .backward = rnn_relu_backward};
static const cell_ops rnn_general_ops = {RNN_OPS, .tape_slots = 1,
                                         .forward = rnn_general_forward,
                                         .backward = rnn_general_backward};

#define RNN_ABOUT                                                                      \
    .layer = "RNN", GATES("h"), STATES("h"), .output_activation = -1,                  \
    .bias_apart = NO_GATE,                                                             \
    .options =                                                                         \
        FR_OPTION_ACTIVATIONS | FR_OPTION_CLIP | FR_OPTION_MASKS | FR_OPTION_HEADS,    \
    .norms = 1 << FR_NORM_INPUT | 1 << FR_NORM_APART | 1 << FR_NORM_JOINT

static const cell_entry rnn_tanh_cell = {
    {.name = "rnn_tanh", RNN_ABOUT, .activations = {FR_TANH}, .paper = "Elman 1990"},
    .plain = &rnn_tanh_ops,
    .general = &rnn_general_ops,
};
static const cell_entry rnn_relu_cell = {
    {.name = "rnn_relu",
     RNN_ABOUT,
     .activations = {FR_RELU},
     .paper = "Le, Jaitly & Hinton 2015"},
    .plain = &rnn_relu_ops,
    .general = &rnn_general_ops,
};
