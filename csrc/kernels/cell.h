/* SPDX-License-Identifier: BSD-3-Clause */
/* cell.h -- what a cell tells the driver, what the driver hands a cell, packed weights.
 *
 * A cell (rnn.c, lstm.c, gru.c) is its equations: two functions on a few rows by one
 * panel of hidden units.  Everything over time, batch and threads is in forward.c and
 * backward.c.
 *
 * Forward panels hold the G gates of the same units side by side, [k][G][lanes], so one
 * tile yields all pre-activations a cell needs for its units.  lanes is V; the units
 * left over after whole vectors get V/2 or V/4 lanes a gate if they fit, so that H = 50
 * does not pay for 64.  The plain RNN (G = 1) has panels of up to four vectors of
 * units.
 */
#ifndef FR_CELL_H
#define FR_CELL_H

#include "fastrnn.h"
#include "gemm.h"

#define MAX_GATES 4

/* Some rows by one panel of units, forward.  Pre-activations are (ax + bias) + ah: gate
 * g of the panel's unit u at column g * lanes + u.  Rows of c and tape are padded to
 * whole vectors and start at unit 0, as h and h_prev do. */
typedef struct {
    ptrdiff_t rows;
    ptrdiff_t j, units, lanes; /* units j .. j + units - 1 */
    const real *ax;            /* x W */
    ptrdiff_t ax_row;
    const real *ah; /* h_prev R */
    ptrdiff_t ah_row;
    const real *bias;    /* b_ih + b_hh in the panel's column order; GRU: n has b_in */
    const real *bias_hn; /* GRU: b_hn by unit */
    const real *h_prev;  /* rows of h_{t-1} */
    ptrdiff_t h_prev_row;
    real *c; /* LSTM: c_{t-1} on entry, c_t on return */
    ptrdiff_t c_row;
    real *h; /* h_t, written */
    ptrdiff_t h_row;
    real *tape; /* what backward needs, see tape_at(); NULL in inference */
    ptrdiff_t tape_row;
} forward_step;

/* Some rows by units j .. j + units - 1, backward.  All rows start at unit 0. */
typedef struct {
    ptrdiff_t rows;
    ptrdiff_t j, units;
    ptrdiff_t H_padded; /* distance between slots of da; width of dh, carry, dc */
    const real *dy;     /* gradient of the loss with respect to y_t, or NULL */
    ptrdiff_t dy_row;
    const real *dh; /* the part of dh_t that came through R from step t + 1 */
    real *carry;    /* GRU: the part of dh_t that came past R; replaced by dh_{t-1}'s */
    real *dc;       /* LSTM: dc_t on entry, dc_{t-1} on return */
    const real *h_prev;
    ptrdiff_t h_prev_row;
    const real *h;
    ptrdiff_t h_row;
    const real *tape;
    ptrdiff_t tape_row;
    real *da; /* gradients of the pre-activations, slots of H_padded */
    ptrdiff_t da_row;
} backward_step;

/* The slots of a vector of units lie side by side, [H_padded / V][slots][V]: a row of
 * the tape is written in whole runs of cache lines and read as one stream. */
INLINE ptrdiff_t tape_at(ptrdiff_t j, int slots)
{
    return j * slots;
}

typedef struct {
    int gates;
    int tape_slots;
    int da_slots;
    int first_R_slot;      /* da slots first_R_slot .. + gates - 1 are those of h R */
    int w_gate[MAX_GATES]; /* gate of each of the first `gates` da slots, those of x W
                            */
    int has_c;
    int has_carry;
    void (*forward)(const forward_step *);
    void (*backward)(const backward_step *);
} cell_ops;

/* --- forward panels -------------------------------------------------------------- */

typedef struct {
    ptrdiff_t j, units, lanes;
    ptrdiff_t column; /* vectors before it, times V */
    ptrdiff_t nv;
} unit_panel;

INLINE ptrdiff_t n_unit_panels(int gates, ptrdiff_t H)
{
    return n_panels(H, gates == 1 ? MAX_NV : 1);
}

INLINE unit_panel get_unit_panel(int gates, ptrdiff_t H, ptrdiff_t p)
{
    if (gates == 1) {
        const panel q = get_panel(H, MAX_NV, p);
        return (unit_panel){q.column, q.n, V, q.column, q.nv};
    }
    const ptrdiff_t j = p * V, units = min_size(V, H - j);
    ptrdiff_t lanes = V;
    while (lanes > 1 && 4 * lanes > V && 2 * units <= lanes)
        lanes /= 2;
    return (unit_panel){j, units, lanes, p * gates * V, (gates * lanes + V - 1) / V};
}

/* Columns of all panels together. */
INLINE ptrdiff_t unit_columns(int gates, ptrdiff_t H)
{
    const unit_panel last = get_unit_panel(gates, H, n_unit_panels(gates, H) - 1);
    return last.column + last.nv * V;
}

/* Where the parts of a forward pack are: W, then R, then the biases.  Reading the last
 * gate of a narrow panel as a whole vector runs up to V elements past its columns. */
typedef struct {
    ptrdiff_t columns, R, bias, bias_hn, size;
} forward_pack;

INLINE forward_pack get_forward_pack(int gates, ptrdiff_t I, ptrdiff_t H)
{
    forward_pack f;
    f.columns = unit_columns(gates, H);
    f.R = I * f.columns;
    f.bias = f.R + H * f.columns;
    f.bias_hn = f.bias + f.columns + V;
    f.size = f.bias_hn + round_up(H, V);
    return f;
}

static void pack_forward_weights(const cell_ops *ops, const fr_pack_args *a)
{
    const ptrdiff_t I = a->I, H = a->H;
    const forward_pack f = get_forward_pack(ops->gates, I, H);
    const real *W = a->W, *R = a->R, *b_ih = a->b_ih, *b_hh = a->b_hh;
    real *packed = a->packed;

    memset(packed + f.bias, 0, (size_t)(f.size - f.bias) * sizeof(real));
    for (ptrdiff_t p = 0; p < n_unit_panels(ops->gates, H); p++) {
        const unit_panel q = get_unit_panel(ops->gates, H, p);
        const ptrdiff_t width = q.nv * V;
        real *W_panel = packed + q.column * I, *R_panel = packed + f.R + q.column * H;
        if (ops->gates * q.units <
            width) { /* padding must not hold NaN or subnormals */
            memset(W_panel, 0, (size_t)(I * width) * sizeof(real));
            memset(R_panel, 0, (size_t)(H * width) * sizeof(real));
        }
        for (ptrdiff_t g = 0; g < ops->gates; g++) {
            const ptrdiff_t row = g * H + q.j;
            real *bias = packed + f.bias + q.column + g * q.lanes;
            pack_transposed(W_panel + g * q.lanes, width, W + row * I, I, q.units, I);
            pack_transposed(R_panel + g * q.lanes, width, R + row * H, H, q.units, H);
            for (ptrdiff_t u = 0; b_ih && u < q.units; u++) {
                const int apart =
                    ops->has_carry && g == 2; /* GRU's n: r * (.. + b_hn) */
                bias[u] = apart ? b_ih[row + u] : b_ih[row + u] + b_hh[row + u];
                if (apart)
                    packed[f.bias_hn + q.j + u] = b_hh[row + u];
            }
        }
    }
}

/* --- backward panels: R and W as they are, rows in the order of the da slots ----- */

INLINE ptrdiff_t backward_pack_W(int gates, ptrdiff_t H)
{
    return packed_size(gates * H, H);
}

static void pack_backward_weights(const cell_ops *ops, const fr_pack_args *a)
{
    const ptrdiff_t I = a->I, H = a->H, K = ops->gates * H;
    real *R_packed = a->packed, *W_packed = R_packed + backward_pack_W(ops->gates, H);
    for (ptrdiff_t k = 0; k < K; k++) {
        const ptrdiff_t w_row = ops->w_gate[k / H] * H + k % H;
        pack_row(R_packed, K, k, (const real *)a->R + k * H, H, MAX_NV);
        pack_row(W_packed, K, k, (const real *)a->W + w_row * I, I, MAX_NV);
    }
}

#endif
