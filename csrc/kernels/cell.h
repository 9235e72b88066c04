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
#include "parallel.h"

#define MAX_GATES 4

/* Some rows by one panel of units, forward.  Pre-activations are (ax + bias) + ah: gate
 * g of the panel's unit u at column g * lanes + u.  Rows of c, tape, between and z are
 * padded to whole vectors and start at unit 0, as h and h_prev do. */
typedef struct {
    const fr_cell_options *options; /* of a general cell */
    ptrdiff_t rows;
    ptrdiff_t j, units, lanes; /* units j .. j + units - 1 */
    const real *ax;            /* x W */
    ptrdiff_t ax_row;
    const real *ah; /* h_prev R */
    ptrdiff_t ah_row;
    const real *bias;     /* b_ih + b_hh in the panel's column order; GRU: n has b_in */
    const real *bias_hn;  /* GRU: b_hn by unit */
    const real *peephole; /* LSTM: P by unit, gates i o f */
    const real *h_prev;   /* rows of h_{t-1} */
    ptrdiff_t h_prev_row;
    real *c; /* LSTM: c_{t-1} on entry, c_t on return */
    ptrdiff_t c_row;
    real *h; /* h_t, written; LSTM with a projection: m_t */
    ptrdiff_t h_row;
    real *between; /* cells in two parts: what goes through the second product */
    real *z;       /* and what waits meanwhile */
    ptrdiff_t between_row;
    real *tape; /* what backward needs, see tape_at(); NULL in inference */
    ptrdiff_t tape_row;
} forward_step;

/* Some rows by units j .. j + units - 1, backward.  All rows start at unit 0. */
typedef struct {
    const fr_cell_options *options;
    ptrdiff_t rows;
    ptrdiff_t j, units;
    ptrdiff_t H_padded; /* distance between slots of da; width of carry, dc, between */
    const real *dy;     /* gradient of the loss with respect to y_t, or NULL */
    ptrdiff_t dy_row;
    const real *dh; /* the part of dh_t that came through R from step t + 1 */
    ptrdiff_t dh_row;
    real *carry; /* GRU: the part of dh_t that came past R; replaced by dh_{t-1}'s */
    real *dc;    /* LSTM: dc_t on entry, dc_{t-1} on return */
    const real *between; /* cells in two parts: what came through the second product */
    const real *peephole;
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

/* Two cells have a second product in a step, `out = in M`, in a place of its own:
 * the LSTM with a projection (h_t = m_t W_hr, after the cell) and the GRU that resets
 * before the product (rh R_n, between two parts of the cell). */
typedef struct {
    int gates;   /* of x W */
    int R_gates; /* of h R */
    int tape_slots;
    int da_slots;
    int first_R_slot; /* da slots first_R_slot .. + R_gates - 1 are those of h R */
    int w_gate
        [MAX_GATES]; /* gate of each of the first `gates` da slots, those of x W */
    int has_c;
    int has_carry;
    void (*forward)(const forward_step *);
    void (*forward_second)(const forward_step *);  /* GRU, reset before */
    void (*backward_first)(const backward_step *); /* GRU, reset before */
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
    if (units == V)
        return (unit_panel){j, V, V, p * gates * V, gates};
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

/* What a call works on, in the driver's terms. */
typedef struct {
    const cell_ops *ops;
    ptrdiff_t I, H, S; /* S: width of h */
    ptrdiff_t H_padded, S_padded;
    int has_peephole, has_projection, resets_before;
} cell;

INLINE int has_second(const cell *c)
{
    return c->has_projection || c->resets_before;
}

/* Where the parts of a forward pack are: W, then R, the biases, and what only some cells
 * have.  Reading the last gate of a narrow panel as a whole vector runs up to V elements
 * past its columns. */
typedef struct {
    ptrdiff_t columns, R_columns, R, bias, bias_hn, peephole, second, size;
} forward_pack;

INLINE forward_pack get_forward_pack(const cell *c)
{
    forward_pack f;
    f.columns = unit_columns(c->ops->gates, c->H);
    f.R_columns = unit_columns(c->ops->R_gates, c->H);
    f.R = c->I * f.columns;
    f.bias = f.R + c->S * f.R_columns;
    f.bias_hn = f.bias + f.columns + V;
    f.peephole = f.bias_hn + c->H_padded;
    f.second = f.peephole + (c->has_peephole ? 3 * c->H_padded : 0);
    f.size = f.second + (has_second(c) ? packed_size(c->H, c->S) : 0);
    return f;
}

/* One of the gates of W or R for the units of a panel; lanes without a unit are zero:
 * they must not hold NaN or subnormals. */
INLINE void pack_gates(real *to, const real *from, ptrdiff_t gates, ptrdiff_t H,
                       ptrdiff_t K, ptrdiff_t p)
{
    const unit_panel q = get_unit_panel((int)gates, H, p);
    const ptrdiff_t width = q.nv * V;
    real *panel_start = to + q.column * K;
    if (gates * q.units < width)
        memset(panel_start, 0, (size_t)(K * width) * sizeof(real));
    for (ptrdiff_t g = 0; g < gates; g++)
        pack_transposed(panel_start + g * q.lanes, width, from + (g * H + q.j) * K, K,
                        q.units, K);
}

static void pack_peephole(real *to, const real *P, const cell *c)
{
    memset(to, 0, (size_t)(3 * c->H_padded) * sizeof(real));
    for (ptrdiff_t g = 0; g < 3; g++)
        memcpy(to + g * c->H_padded, P + g * c->H, (size_t)c->H * sizeof(real));
}

static void pack_forward_weights(const team *self, const cell *c, const fr_pack_args *a)
{
    const ptrdiff_t H = c->H;
    const int gates = c->ops->gates;
    const forward_pack f = get_forward_pack(c);
    const real *W = a->W, *R = a->R, *b_ih = a->b_ih, *b_hh = a->b_hh;
    real *packed = a->packed;

    ptrdiff_t begin, end;
    if (self->rank == 0)
        memset(packed + f.bias, 0, (size_t)(f.peephole - f.bias) * sizeof(real));
    team_barrier(self);
    team_share(self, n_unit_panels(gates, H), &begin, &end);
    for (ptrdiff_t p = begin; p < end; p++) {
        const unit_panel q = get_unit_panel(gates, H, p);
        pack_gates(packed, W, gates, H, c->I, p);
        pack_gates(packed + f.R, R, c->ops->R_gates, H, c->S, p);
        for (ptrdiff_t g = 0; b_ih && g < gates; g++) {
            const ptrdiff_t row = g * H + q.j;
            real *bias = packed + f.bias + q.column + g * q.lanes;
            const int apart = c->ops->has_carry && g == 2; /* GRU's n has b_hn apart */
            for (ptrdiff_t u = 0; u < q.units; u++) {
                bias[u] = apart ? b_ih[row + u] : b_ih[row + u] + b_hh[row + u];
                if (apart)
                    packed[f.bias_hn + q.j + u] = b_hh[row + u];
            }
        }
    }
    if (self->rank > 0)
        return;
    if (c->has_peephole)
        pack_peephole(packed + f.peephole, a->P, c);
    if (c->has_projection)
        pack_columns(packed + f.second, a->W_hr, c->S, H);
    if (c->resets_before)
        pack_columns(packed + f.second, R + 2 * H * H, H, H);
}

/* --- backward panels: R and W as they are, rows in the order of the da slots, in
 * panels of up to widest_panel(K) vectors ----------------------------------------- */

typedef struct {
    ptrdiff_t W, peephole, second, size;
    ptrdiff_t R_widest, W_widest, second_widest; /* panels, in vectors */
} backward_pack;

INLINE backward_pack get_backward_pack(const cell *c)
{
    const ptrdiff_t K = c->ops->gates * c->H, R_K = c->ops->R_gates * c->H;
    backward_pack b;
    b.W = packed_size(R_K, c->S);
    b.peephole = b.W + packed_size(K, c->I);
    b.second = b.peephole + (c->has_peephole ? 3 * c->H_padded : 0);
    b.size = b.second + (has_second(c) ? packed_size(c->S, c->H) : 0);
    b.R_widest = widest_panel(R_K);
    b.W_widest = widest_panel(K);
    /* A thread's units are those of its panels of dh, in both parts of a cell. */
    b.second_widest = c->has_projection ? widest_panel(c->S) : b.R_widest;
    return b;
}

/* W or R for backward, slot by slot the gates in `order`, from forward panels begin ..
 * end - 1.  What is written goes on where it was; what is read comes in runs. */
static void repack_gates(real *packed, const real *forward, int gates, const int *order,
                         ptrdiff_t H, ptrdiff_t K, ptrdiff_t widest, ptrdiff_t begin,
                         ptrdiff_t end)
{
    for (ptrdiff_t n = 0; n < n_panels(K, widest); n++) {
        const panel to = get_panel(K, widest, n);
        for (ptrdiff_t p = begin; p < end; p++) {
            const unit_panel from = get_unit_panel(gates, H, p);
            for (ptrdiff_t slot = 0; slot < gates; slot++)
                pack_from_panel(packed, gates * H, slot * H + from.j, to,
                                forward + from.column * K + order[slot] * from.lanes,
                                from.nv * V, from.units);
        }
    }
}

/* The backward pack out of a forward pack of the same weights. */
static void repack_for_backward(const team *self, const cell *c, const real *forward,
                                real *packed)
{
    static const int as_they_are[MAX_GATES] = {0, 1, 2, 3};
    const ptrdiff_t H = c->H, S = c->S, widest = widest_panel(H);
    const int gates = c->ops->gates, R_gates = c->ops->R_gates;
    const forward_pack f = get_forward_pack(c);
    const backward_pack b = get_backward_pack(c);
    ptrdiff_t begin, end;
    team_share(self, n_unit_panels(gates, H), &begin, &end);
    repack_gates(packed, forward + f.R, R_gates, as_they_are, H, S, b.R_widest, begin,
                 end);
    repack_gates(packed + b.W, forward, gates, c->ops->w_gate, H, c->I, b.W_widest,
                 begin, end);
    if (self->rank > 0)
        return;
    if (c->has_peephole)
        memcpy(packed + b.peephole, forward + f.peephole,
               (size_t)(3 * c->H_padded) * sizeof(real));
    for (ptrdiff_t p = 0; has_second(c) && p < n_panels(S, widest); p++) {
        const panel q = get_panel(S, widest, p);
        for (ptrdiff_t n = 0; n < n_panels(H, b.second_widest); n++)
            pack_from_panel(packed + b.second, S, q.column,
                            get_panel(H, b.second_widest, n),
                            forward + f.second + q.column * H, q.nv * V, q.n);
    }
}

static void pack_backward_weights(const team *self, const cell *c,
                                  const fr_pack_args *a)
{
    const ptrdiff_t H = c->H, S = c->S, I = c->I;
    const ptrdiff_t K = c->ops->gates * H, R_K = c->ops->R_gates * H;
    const backward_pack b = get_backward_pack(c);
    const real *W = a->W, *R = a->R, *W_hr = a->W_hr;
    real *packed = a->packed;
    ptrdiff_t begin, end;
    if (a->forward) {
        repack_for_backward(self, c, a->forward, packed);
        return;
    }
    team_share(self, R_K, &begin, &end);
    for (ptrdiff_t k = begin; k < end; k++)
        pack_row(packed, R_K, k, R + k * S, S, b.R_widest);
    team_share(self, K, &begin, &end);
    for (ptrdiff_t k = begin; k < end; k++) {
        const ptrdiff_t w_row = c->ops->w_gate[k / H] * H + k % H;
        pack_row(packed + b.W, K, k, W + w_row * I, I, b.W_widest);
    }
    if (self->rank > 0)
        return;
    if (c->has_peephole)
        pack_peephole(packed + b.peephole, a->P, c);
    if (has_second(c)) {
        const real *second = c->has_projection ? W_hr : R + 2 * H * H;
        for (ptrdiff_t k = 0; k < S; k++)
            pack_row(packed + b.second, S, k, second + k * H, H, b.second_widest);
    }
}

#endif
