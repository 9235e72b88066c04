/* SPDX-License-Identifier: BSD-3-Clause */
/* sru.c -- simple recurrent unit: a forget gate and a highway around the cell.
 *
 *   f   = sigmoid(x_t W_f^T + b_f + v_f * c_{t-1})
 *   r   = sigmoid(x_t W_r^T + b_r + v_r * c_{t-1})
 *   n   = x_t W_n^T
 *   c_t = f * c_{t-1} + (1 - f) * n
 *   s   = alpha x_t,   or alpha x_t W_x^T where x is not H wide
 *   h_t = r * c_t + (1 - r) * s               (B, H), gates f r n x, v_f and v_r (H,)
 *
 * Backward, t = T-1 .. 0, from dh (loss alone: no h goes to another step) and dc:
 *   dc     += dh * r
 *   da_r    = dh * (c_t - s)     * r (1 - r)
 *   da_f    = dc * (c_{t-1} - n) * f (1 - f)
 *   da_n    = dc * (1 - f)
 *   da_x    = dh * (1 - r) alpha,   which is added to dx where x is H wide
 *   dc_prev = dc * f + da_f * v_f + da_r * v_r
 *   dv_f   += da_f * c_{t-1},  dv_r += da_r * c_{t-1}
 *
 * alpha is 1 in the plain cell, and an option.  The tape has five slots, f r n s
 * c_{t-1}.  da has slots f r n x, behind which the addends of dv_f and dv_r lie.
 * Source: Lei, Zhang, Wang, Dai & Artzi 2018.
 */
#include "cell.h"
#include "activations.h"

#define TAPE_SLOTS 5

INLINE void sru_forward_with(const forward_step *s, const fr_cell_options *options)
{
    const vreal v_f = v_load(s->vectors + s->j);
    const vreal v_r = v_load(s->vectors + s->c_row + s->j);
    const vreal alpha = v_set1(options ? (real)options->skip_scale : 1);
    for (ptrdiff_t row = 0; row < s->rows; row++) {
        const real *a = s->ax + row * s->ax_row;
        real *c_state = s->c + row * s->c_row + s->j;
        const vreal c_prev = v_load(c_state), n = v_load(a + 2 * s->lanes);
        vreal skip = s->x ? v_load_n(s->x + row * s->x_row + s->j, s->units)
                          : v_load(a + 3 * s->lanes);
        if (options)
            skip = alpha * skip;
        const vreal f = v_sigmoid(v_fma(v_f, c_prev, v_load(a)));
        const vreal r = v_sigmoid(v_fma(v_r, c_prev, v_load(a + s->lanes)));
        const vreal c = v_fma(f, c_prev - n, n);
        v_store(c_state, c);
        v_store_n(s->h + row * s->h_row + s->j, v_fma(r, c - skip, skip), s->units);
        if (s->tape) {
            real *tape = s->tape + row * s->tape_row + tape_at(s->j, TAPE_SLOTS);
            v_store(tape, f);
            v_store(tape + V, r);
            v_store(tape + 2 * V, n);
            v_store(tape + 3 * V, skip);
            v_store(tape + 4 * V, c_prev);
        }
    }
}

INLINE void sru_backward_with(const backward_step *s, const fr_cell_options *options)
{
    const ptrdiff_t H = s->H_padded;
    const vreal one = v_set1(1),
                alpha = v_set1(options ? (real)options->skip_scale : 1);
    for (ptrdiff_t row = 0; row < s->rows; row++) {
        const real *dy = s->dy ? s->dy + row * s->dy_row : NULL;
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const real *tape = s->tape + row * s->tape_row + tape_at(j, TAPE_SLOTS);
            const vreal f = v_load(tape), r = v_load(tape + V),
                        n = v_load(tape + 2 * V), skip = v_load(tape + 3 * V),
                        c_prev = v_load(tape + 4 * V);
            const vreal v_f = v_load(s->vectors + j), v_r = v_load(s->vectors + H + j);
            real *dc_state = s->dc + row * H + j, *da = s->da + row * s->da_row + j;
            vreal dh = v_load(s->dh + row * s->dh_row + j);
            if (dy)
                dh = dh + v_load_n(dy + j, s->j + s->units - j);
            const vreal c = v_fma(f, c_prev - n, n);
            const vreal dc = v_fma(dh, r, v_load(dc_state));
            const vreal da_r = dh * (c - skip) * d_sigmoid_from(r);
            const vreal da_f = dc * (c_prev - n) * d_sigmoid_from(f);
            const vreal da_x = dh * (one - r);
            v_store(da, da_f);
            v_store(da + H, da_r);
            v_store(da + 2 * H, dc * (one - f));
            v_store(da + 3 * H, options ? da_x * alpha : da_x);
            v_store(da + 4 * H, da_f * c_prev);
            v_store(da + 5 * H, da_r * c_prev);
            v_store(dc_state, v_fma(da_r, v_r, v_fma(da_f, v_f, dc * f)));
        }
    }
}

static void sru_forward(const forward_step *s)
{
    sru_forward_with(s, NULL);
}

static void sru_backward(const backward_step *s)
{
    sru_backward_with(s, NULL);
}

static void sru_scaled_forward(const forward_step *s)
{
    sru_forward_with(s, s->options);
}

static void sru_scaled_backward(const backward_step *s)
{
    sru_backward_with(s, s->options);
}

#define SRU_OPS .tape_slots = TAPE_SLOTS, .da_slots = 4, .w_gate = {0, 1, 2, 3}

static const cell_ops sru_ops = {SRU_OPS, .forward = sru_forward,
                                 .backward = sru_backward};
static const cell_ops sru_scaled_ops = {SRU_OPS, .forward = sru_scaled_forward,
                                        .backward = sru_scaled_backward};

static const cell_entry sru_cell = {
    {.name = "sru",
     .layer = "SRU",
     GATES("f r n x"),
     STATES("h c"),
     .activations = {FR_SIGMOID, FR_SIGMOID, FR_AFFINE, FR_AFFINE},
     .output_activation = -1,
     .bias_apart = NO_GATE,
     .is_scan = 1,
     .n_biased = 2,
     .skips = 1,
     .n_vectors = 2,
     .vectors = "weight_c",
     .options = FR_OPTION_SKIP_SCALE,
     .paper = "Lei et al. 2018"},
    .plain = &sru_ops,
    .general = &sru_scaled_ops,
};
#undef TAPE_SLOTS
