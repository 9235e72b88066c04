/* SPDX-License-Identifier: BSD-3-Clause */
/* indrnn.c -- independently recurrent network: each unit sees its own state alone.
 *
 *   a_t = x_t W^T + b + u * h_{t-1}                   (B, H), u (H,)
 *   h_t = max(a_t, 0)   or   tanh(a_t)
 *
 * Backward, t = T-1 .. 0, from dh (loss + recurrence):
 *   da      = dh where h_t > 0, else 0   or   dh * (1 - h_t^2)
 *   dh_prev = da * u;   du += da * h_{t-1}
 *
 * The tape is empty, because y holds h_t.  da has one slot, behind which the addends of
 * du lie.
 * Source: Li, Li, Cook, Zhu & Gao 2018.
 */
#include "cell.h"
#include "activations.h"

INLINE void indrnn_forward(const forward_step *s, const int is_tanh)
{
    for (ptrdiff_t v = 0; v < s->units; v += V) {
        const ptrdiff_t lanes = min_size(V, s->units - v);
        const vreal u = v_load(s->vectors + s->j + v);
        for (ptrdiff_t r = 0; r < s->rows; r++) {
            const vreal h_prev =
                v_load_n(s->h_prev + r * s->h_prev_row + s->j + v, lanes);
            const vreal a = v_fma(u, h_prev, v_load(s->ax + r * s->ax_row + v));
            v_store_n(s->h + r * s->h_row + s->j + v, is_tanh ? v_tanh(a) : v_relu(a),
                      lanes);
        }
    }
}

INLINE void indrnn_backward(const backward_step *s, const int is_tanh)
{
    const ptrdiff_t H = s->H_padded;
    for (ptrdiff_t r = 0; r < s->rows; r++) {
        const real *dy = s->dy ? s->dy + r * s->dy_row : NULL;
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const ptrdiff_t lanes = s->j + s->units - j;
            const vreal h = v_load_n(s->h + r * s->h_row + j, lanes);
            const vreal h_prev = v_load_n(s->h_prev + r * s->h_prev_row + j, lanes);
            real *carry = s->carry + r * H + j, *to = s->da + r * s->da_row + j;
            vreal dh = v_load(s->dh + r * s->dh_row + j) + v_load(carry);
            if (dy)
                dh = dh + v_load_n(dy + j, lanes);
            const vreal da = is_tanh ? dh * d_tanh_from(h) : v_where_positive(h, dh);
            v_store(to, da);
            v_store(to + H, da * h_prev);
            v_store(carry, da * v_load(s->vectors + j));
        }
    }
}

static void indrnn_relu_forward(const forward_step *s)
{
    indrnn_forward(s, 0);
}

static void indrnn_relu_backward(const backward_step *s)
{
    indrnn_backward(s, 0);
}

static void indrnn_tanh_forward(const forward_step *s)
{
    indrnn_forward(s, 1);
}

static void indrnn_tanh_backward(const backward_step *s)
{
    indrnn_backward(s, 1);
}

#define INDRNN_OPS .da_slots = 1, .has_carry = 1

static const cell_ops indrnn_relu_ops = {INDRNN_OPS, .forward = indrnn_relu_forward,
                                         .backward = indrnn_relu_backward};
static const cell_ops indrnn_tanh_ops = {INDRNN_OPS, .forward = indrnn_tanh_forward,
                                         .backward = indrnn_tanh_backward};

#define INDRNN_ABOUT                                                                   \
    .layer = "IndRNN", GATES("h"), STATES("h"), .output_activation = -1,               \
    .bias_apart = NO_GATE, .is_scan = 1, .n_vectors = 1, .vectors = "weight_hh",       \
    .paper = "Li et al. 2018"

static const cell_entry indrnn_relu_cell = {
    {.name = "indrnn_relu", INDRNN_ABOUT, .activations = {FR_RELU}},
    .plain = &indrnn_relu_ops,
};
static const cell_entry indrnn_tanh_cell = {
    {.name = "indrnn_tanh", INDRNN_ABOUT, .activations = {FR_TANH}},
    .plain = &indrnn_tanh_ops,
};
