/* SPDX-License-Identifier: BSD-3-Clause */
/* leaky.c -- leaky recurrent network: units that follow what drives them, each at its
 * own rate, as neurons do in models of cortical circuits.
 *
 *   a_t = x_t W^T + b_ih + h_{t-1} R^T + b_hh + noise  (B, H)
 *   f_t = tanh(a_t)   or any other function
 *   h_t = (1 - alpha) * h_{t-1} + alpha * f_t
 *
 * Backward, t = T-1 .. 0, from dh (loss + recurrence):
 *   da      = dh * alpha * f'(a_t)
 *   dalpha += dh * (f_t - h_{t-1})                     over steps and rows
 *   dh_prev = dh * (1 - alpha) + da R
 *
 * alpha = dt / tau has a number for each unit: the only row of P.  It is a parameter, or
 * fixed (fr_cell_options.fixed_vectors).  Noise, an option, is normal, and drawn anew
 * for each unit, row and step.  Backward needs none of it.
 *
 * The tape has one slot: f_t of a tanh or ReLU, from which the derivative follows, else
 * a_t.  da has one slot, behind which the addends of dP lie.
 * Source: Jaeger, Lukosevicius, Popovici & Siewert 2007; Song, Yang & Wang 2016.
 */
#include "cell.h"
#include "draw.h"
#include "functions.h"

typedef enum { LEAKY_TANH, LEAKY_RELU, LEAKY_GENERAL } leaky_kind;

/* What the functions of a call with options are compiled for: those without a clip that
 * have a tanh or a ReLU need not look at them again. */
INLINE leaky_kind get_leaky_kind(const fr_cell_options *options)
{
    const int kind = options->gate[0].kind;
    if (options->clip > 0 || (kind != FR_TANH && kind != FR_RELU))
        return LEAKY_GENERAL;
    return kind == FR_TANH ? LEAKY_TANH : LEAKY_RELU;
}

INLINE vreal leaky_noise(const forward_step *s, ptrdiff_t r, ptrdiff_t j)
{
    const ptrdiff_t b = s->b + r;
    const int64_t step = draw_time(s->draw, s->shape, s->t, b);
    const uint64_t start = draw_next(draw_row(s->draw, DRAW_NOISE, b), (uint64_t)step);
    return v_set1((real)s->options->noise) * v_draw_normal(start, j);
}

INLINE void leaky_forward_as(const forward_step *s, leaky_kind kind, int is_noisy)
{
    for (ptrdiff_t v = 0; v < s->units; v += V) {
        const ptrdiff_t j = s->j + v, lanes = min_size(V, s->units - v);
        const vreal alpha = v_load(s->vectors + j);
        for (ptrdiff_t r = 0; r < s->rows; r++) {
            vreal a = v_load(s->ah + r * s->ah_row + v);
            if (is_noisy)
                a = a + leaky_noise(s, r, j);
            const vreal h_prev = v_load_n(s->h_prev + r * s->h_prev_row + j, lanes);
            const vreal f = kind == LEAKY_TANH   ? v_tanh(a)
                            : kind == LEAKY_RELU ? v_relu(a)
                                                 : v_gate(s->options, 0, a);
            v_store_n(s->h + r * s->h_row + j, v_fma(alpha, f - h_prev, h_prev), lanes);
            if (s->tape)
                v_store(s->tape + r * s->tape_row + tape_at(j, 1),
                        kind == LEAKY_GENERAL ? a : f);
        }
    }
}

INLINE void leaky_backward_as(const backward_step *s, leaky_kind kind)
{
    const ptrdiff_t H = s->H_padded;
    for (ptrdiff_t r = 0; r < s->rows; r++) {
        const real *dy = s->dy ? s->dy + r * s->dy_row : NULL;
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const ptrdiff_t lanes = s->j + s->units - j;
            const vreal alpha = v_load(s->vectors + j);
            const vreal kept = v_load(s->tape + r * s->tape_row + tape_at(j, 1));
            const vreal f = kind == LEAKY_GENERAL ? v_gate(s->options, 0, kept) : kept;
            const vreal h_prev = v_load_n(s->h_prev + r * s->h_prev_row + j, lanes);
            real *carry = s->carry + r * H + j, *da = s->da + r * s->da_row + j;
            vreal dh = v_load(s->dh + r * s->dh_row + j) + v_load(carry);
            if (dy)
                dh = dh + v_load_n(dy + j, lanes);

            const vreal df = dh * alpha;
            v_store(da, kind == LEAKY_TANH ? df * d_tanh_from(f)
                        : kind == LEAKY_RELU
                            ? v_where_positive(f, df)
                            : df * v_gate_slope(s->options, 0, kept, f));
            v_store(da + H, dh * (f - h_prev));
            v_store(carry, dh - df);
        }
    }
}

static void leaky_forward(const forward_step *s)
{
    leaky_forward_as(s, LEAKY_TANH, 0);
}

static void leaky_backward(const backward_step *s)
{
    leaky_backward_as(s, LEAKY_TANH);
}

static void leaky_general_forward(const forward_step *s)
{
    const int is_noisy = s->options->noise > 0 && s->draw->on;
    switch (get_leaky_kind(s->options)) {
    case LEAKY_TANH:
        leaky_forward_as(s, LEAKY_TANH, is_noisy);
        break;
    case LEAKY_RELU:
        leaky_forward_as(s, LEAKY_RELU, is_noisy);
        break;
    default:
        leaky_forward_as(s, LEAKY_GENERAL, is_noisy);
    }
}

static void leaky_general_backward(const backward_step *s)
{
    switch (get_leaky_kind(s->options)) {
    case LEAKY_TANH:
        leaky_backward_as(s, LEAKY_TANH);
        break;
    case LEAKY_RELU:
        leaky_backward_as(s, LEAKY_RELU);
        break;
    default:
        leaky_backward_as(s, LEAKY_GENERAL);
    }
}

#define LEAKY_OPS .R_gates = 1, .tape_slots = 1, .da_slots = 1, .has_carry = 1

static const cell_ops leaky_ops = {LEAKY_OPS, .forward = leaky_forward,
                                   .backward = leaky_backward};
static const cell_ops leaky_general_ops = {LEAKY_OPS, .forward = leaky_general_forward,
                                           .backward = leaky_general_backward};

static const cell_entry leaky_cell = {
    {.name = "leaky",
     .layer = "LeakyRNN",
     GATES("h"),
     STATES("h"),
     .activations = {FR_TANH},
     .output_activation = -1,
     .bias_apart = NO_GATE,
     .n_vectors = 1,
     .vectors = "alpha",
     .options = FR_OPTION_ACTIVATIONS | FR_OPTION_CLIP | FR_OPTION_FIXED_VECTORS |
                FR_OPTION_NOISE,
     .paper = "Jaeger, Lukosevicius, Popovici & Siewert 2007"},
    .plain = &leaky_ops,
    .general = &leaky_general_ops,
};
