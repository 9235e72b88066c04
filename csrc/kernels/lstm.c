/* SPDX-License-Identifier: BSD-3-Clause */
/* lstm.c -- long short-term memory.
 *
 *   a_t     = x_t W^T + b_ih + h_{t-1} R^T + b_hh     (B, 4, H), gates i f g o
 *   i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o);   g = tanh(a_g)
 *   c_t     = f * c_{t-1} + i * g
 *   m_t     = o * tanh(c_t)
 *   h_t     = m_t, or m_t W_hr^T with a projection, which the driver computes
 *
 * Backward, t = T-1 .. 0, from dm (loss + recurrence) and dc:
 *   dc     += dm * o * (1 - tanh(c_t)^2)
 *   da_i    = dc * g         * i (1 - i)
 *   da_f    = dc * c_{t-1}   * f (1 - f)
 *   da_g    = dc * i         * (1 - g^2)
 *   da_o    = dm * tanh(c_t) * o (1 - o)
 *   dc_prev = dc * f;          dh_prev = da R
 *
 * A candidate that is masked, m a constant (masks.h), is g * m in place of g, and
 *   da_g    = dc * i * m         * (1 - g^2)
 *
 * A general cell has other functions in place of sigmoid and tanh, may clip a_t, may
 * couple its gates, f = 1 - i, and may have peepholes, with which
 *   a_i += P_i * c_{t-1};   a_f += P_f * c_{t-1};   a_o += P_o * c_t
 *   dc  += da_o * P_o;      dc_prev += da_i * P_i + da_f * P_f
 *   dP_i += da_i * c_{t-1}, dP_f += da_f * c_{t-1}, dP_o += da_o * c_t
 *
 * The tape has five slots: i f g o and c_{t-1}.  Backward computes tanh(c_t) again,
 * which takes less time than reading it from the level-3 cache.  A general cell saves
 * a_t in place of i f g o, since the derivative of any function follows from that.  da
 * has slots i f g o, behind which the addends of dP lie.  Source: Hochreiter &
 * Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000; peepholes: Gers &
 * Schmidhuber 2000; coupled gates: Greff et al. 2017; projection: Sak, Senior &
 * Beaufays 2014.
 */
#include "cell.h"
#include "functions.h"

#define TAPE_SLOTS 5

/* The peephole weights of a vector of units; in memory the order is ONNX's, i o f. */
typedef struct {
    vreal i, o, f;
} peephole;

INLINE peephole load_peephole(const real *P, ptrdiff_t H_padded, ptrdiff_t j)
{
    return (peephole){v_load(P + j), v_load(P + H_padded + j),
                      v_load(P + 2 * H_padded + j)};
}

INLINE void lstm_forward_with(const forward_step *s, const fr_cell_options *options,
                              int masked)
{
    const ptrdiff_t lanes = s->lanes;
    const int has_peephole = options && options->peephole;
    const peephole P = has_peephole ? load_peephole(s->vectors, s->c_row, s->j)
                                    : (peephole){{0}, {0}, {0}};

    for (ptrdiff_t r = 0; r < s->rows; r++) {
        const real *a = s->ah + r * s->ah_row;
        real *c_state = s->c + r * s->c_row + s->j;
        const vreal c_prev = v_load(c_state);
        const vreal a_g = v_load(a + 2 * lanes);
        vreal a_i = v_load(a), a_f = v_load(a + lanes), a_o = v_load(a + 3 * lanes);
        const vreal mask = v_candidate_mask(s->candidate, s->candidate_row, r, s->j);
        vreal i, f, g, o, c, m;

        if (!options) {
            i = v_sigmoid(a_i);
            f = v_sigmoid(a_f);
            g = v_tanh(a_g);
            o = v_sigmoid(a_o);
            c = v_fma(f, c_prev, i * (masked ? g * mask : g));
            m = o * v_tanh(c);
        } else {
            if (has_peephole) {
                a_i = v_fma(P.i, c_prev, a_i);
                a_f = v_fma(P.f, c_prev, a_f);
            }
            i = v_gate(options, 0, a_i);
            f = options->input_forget ? v_set1(1) - i : v_gate(options, 1, a_f);
            g = v_gate(options, 2, a_g);
            c = v_fma(f, c_prev, i * (g * mask));
            if (has_peephole)
                a_o = v_fma(P.o, c, a_o);
            o = v_gate(options, 3, a_o);
            m = o * v_activate(&options->gate[4], c);
        }
        v_store(c_state, c);
        v_store_n(s->h + r * s->h_row + s->j, m, s->units);
        if (s->tape) {
            real *tape = s->tape + r * s->tape_row + tape_at(s->j, TAPE_SLOTS);
            v_store(tape, options ? a_i : i);
            v_store(tape + V, options ? a_f : f);
            v_store(tape + 2 * V, options ? a_g : g);
            v_store(tape + 3 * V, options ? a_o : o);
            v_store(tape + 4 * V, c_prev);
        }
    }
}

INLINE void lstm_backward_with(const backward_step *s, const fr_cell_options *options,
                               int masked)
{
    const ptrdiff_t H = s->H_padded;
    const int has_peephole = options && options->peephole;
    const vreal one = v_set1(1);
    for (ptrdiff_t r = 0; r < s->rows; r++) {
        const real *dy = s->dy ? s->dy + r * s->dy_row : NULL;
        for (ptrdiff_t j = s->j; j < s->j + s->units; j += V) {
            const real *tape = s->tape + r * s->tape_row + tape_at(j, TAPE_SLOTS);
            const vreal t_i = v_load(tape), t_f = v_load(tape + V),
                        t_g = v_load(tape + 2 * V), t_o = v_load(tape + 3 * V),
                        c_prev = v_load(tape + 4 * V);
            real *dc_state = s->dc + r * H + j, *da = s->da + r * s->da_row + j;
            vreal dm = v_load(s->dh + r * s->dh_row + j), dc = v_load(dc_state);
            if (dy)
                dm = dm + v_load_n(dy + j, s->j + s->units - j);

            const vreal mask = v_candidate_mask(s->candidate, s->candidate_row, r, j);
            if (!options) {
                const vreal i = t_i, f = t_f, o = t_o;
                const vreal g = masked ? t_g * mask : t_g, in = masked ? i * mask : i;
                const vreal tanh_c = v_tanh(v_fma(f, c_prev, i * g));
                dc = v_fma(dm * o, d_tanh_from(tanh_c), dc);
                v_store(da, dc * g * d_sigmoid_from(i));
                v_store(da + H, dc * c_prev * d_sigmoid_from(f));
                v_store(da + 2 * H, dc * in * d_tanh_from(t_g));
                v_store(da + 3 * H, dm * tanh_c * d_sigmoid_from(o));
                v_store(dc_state, dc * f);
                continue;
            }
            const vreal i = v_gate(options, 0, t_i),
                        candidate = v_gate(options, 2, t_g),
                        o = v_gate(options, 3, t_o), g = candidate * mask;
            const vreal f = options->input_forget ? one - i : v_gate(options, 1, t_f);
            const vreal c = v_fma(f, c_prev, i * g);
            const vreal out = v_activate(&options->gate[4], c);
            const vreal da_o = dm * out * v_gate_slope(options, 3, t_o, o);
            dc = v_fma(dm * o, v_slope(&options->gate[4], c, out), dc);
            const peephole P = has_peephole ? load_peephole(s->vectors, H, j)
                                            : (peephole){{0}, {0}, {0}};
            if (has_peephole)
                dc = v_fma(da_o, P.o, dc);
            vreal di = dc * g, da_f = (vreal){0};
            if (options->input_forget)
                di = v_fma(-dc, c_prev, di);
            else
                da_f = dc * c_prev * v_gate_slope(options, 1, t_f, f);
            const vreal da_i = di * v_gate_slope(options, 0, t_i, i);
            v_store(da, da_i);
            v_store(da + H, da_f);
            v_store(da + 2 * H,
                    dc * i * mask * v_gate_slope(options, 2, t_g, candidate));
            v_store(da + 3 * H, da_o);
            vreal dc_prev = dc * f;
            if (has_peephole) { /* the addends of dP, in the order of P: i o f */
                v_store(da + 4 * H, da_i * c_prev);
                v_store(da + 5 * H, da_o * c);
                v_store(da + 6 * H, da_f * c_prev);
                dc_prev = v_fma(da_f, P.f, v_fma(da_i, P.i, dc_prev));
            }
            v_store(dc_state, dc_prev);
        }
    }
}

static void lstm_forward(const forward_step *s)
{
    lstm_forward_with(s, NULL, 0);
}

static void lstm_backward(const backward_step *s)
{
    lstm_backward_with(s, NULL, 0);
}

static void lstm_general_forward(const forward_step *s)
{
    lstm_forward_with(s, s->options, 1);
}

static void lstm_general_backward(const backward_step *s)
{
    lstm_backward_with(s, s->options, 1);
}

static void lstm_masked_forward(const forward_step *s)
{
    lstm_forward_with(s, NULL, 1);
}

static void lstm_masked_backward(const backward_step *s)
{
    lstm_backward_with(s, NULL, 1);
}

#define LSTM_OPS                                                                       \
    .R_gates = 4, .tape_slots = TAPE_SLOTS, .da_slots = 4, .w_gate = {0, 1, 2, 3}

static const cell_ops lstm_ops = {LSTM_OPS, .forward = lstm_forward,
                                  .backward = lstm_backward};
static const cell_ops lstm_general_ops = {LSTM_OPS, .forward = lstm_general_forward,
                                          .backward = lstm_general_backward};
static const cell_ops lstm_masked_ops = {LSTM_OPS, .forward = lstm_masked_forward,
                                         .backward = lstm_masked_backward};

#include "lstm_norm.c"

static const cell_entry lstm_cell = {
    {.name = "lstm",
     .layer = "LSTM",
     GATES("i f g o"),
     STATES("h c"),
     .activations = {FR_SIGMOID, FR_SIGMOID, FR_TANH, FR_SIGMOID},
     .output_activation = FR_TANH,
     .bias_apart = NO_GATE,
     .options = FR_OPTION_ACTIVATIONS | FR_OPTION_CLIP | FR_OPTION_INPUT_FORGET |
                FR_OPTION_PEEPHOLE | FR_OPTION_PROJECTION | FR_OPTION_MASKS |
                FR_OPTION_CANDIDATE | FR_OPTION_HEADS,
     .n_vectors = 3, /* peepholes */
     .vectors = "weight_ph",
     .norms = 1 << FR_NORM_INPUT | 1 << FR_NORM_APART | 1 << FR_NORM_CELL |
              1 << FR_NORM_CARRIED | 1 << FR_NORM_PER_GATE,
     .paper = "Hochreiter & Schmidhuber 1997"},
    .plain = &lstm_ops,
    .general = &lstm_general_ops,
    .candidate = &lstm_masked_ops,
    .norm_c = &lstm_norm_ops,
    .norm_c_general = &lstm_norm_general_ops,
};
#undef TAPE_SLOTS
