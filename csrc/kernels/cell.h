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

/* Some rows by one panel of units, forward.  Pre-activations are (ax + bias) + ah: gate
 * g of the panel's unit u at column g * lanes + u.  Rows of c, tape, between and held are
 * padded to whole vectors and start at unit 0, as h and h_prev do. */
typedef struct {
    const fr_cell_options *options; /* of a general cell */
    ptrdiff_t rows;
    ptrdiff_t j, units, lanes; /* units j .. j + units - 1 */
    const real *ax;            /* x W */
    ptrdiff_t ax_row;
    const real *ah; /* h_prev R */
    ptrdiff_t ah_row;
    const real *bias;       /* b_ih + b_hh in the panel's column order */
    const real *bias_apart; /* b_hh of the gate bias_apart, by unit; its bias is b_ih */
    const real *peephole;   /* LSTM: P by unit, gates i o f */
    const real *h_prev;     /* rows of h_{t-1} */
    ptrdiff_t h_prev_row;
    real *c; /* LSTM: c_{t-1} on entry, c_t on return */
    ptrdiff_t c_row;
    real *h; /* h_t, written; LSTM with a projection: m_t */
    ptrdiff_t h_row;
    real *between; /* a late gate: what the first part hands to the second product */
    real *held;    /* and what it hands to the second part as it is */
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

/* How a cell is computed.  A step is one product h R, a few of the cell's gates at a
 * time, with the cell's function after it.  A cell may have a late gate, whose product
 * is not with h_{t-1} but with something that the other gates make of it (r * h_{t-1},
 * where the reset comes before the product).  Such a cell works in two parts: the first
 * fills `between`, the driver multiplies that by the late gate's part of R, and the
 * second part goes on.  An LSTM with a projection has a second product, too (h_t =
 * m_t W_hr), with nothing of the cell after it; that is the driver's business alone. */
typedef struct {
    int R_gates;      /* gates 0 .. R_gates - 1, at least one, are those of h R */
    int tape_slots;   /* of V elements for each vector of units */
    int da_slots;     /* of H_padded elements in a row of da */
    int first_R_slot; /* da slots first_R_slot .. + R_gates - 1 are those of h R */
    int w_gate[FR_MOST_GATES]; /* by da slot: the first n_gates are those of x W */
    int has_carry;             /* part of dh_{t-1} comes past R */
    /* A cell with a late gate: which it is, and the slot of its da.  Slot da_slots has
     * what went into its product. */
    int late_gate, late_slot;
    void (*forward)(const forward_step *);         /* the only part, or the first */
    void (*forward_second)(const forward_step *);  /* NULL without a late gate */
    void (*backward_first)(const backward_step *); /* NULL without a late gate */
    void (*backward)(const backward_step *);       /* the only part, or the second */
} cell_ops;

#define NO_GATE (-1)

/* An entry of the table of cells: what the cell is, and its ways of being computed. */
typedef struct {
    fr_cell about;
    const cell_ops *plain;
    const cell_ops *general;      /* looks at the options */
    const cell_ops *reset_before; /* likewise, with that option; or NULL */
} cell_entry;

/* The field `gates` of an fr_cell, and how many there are. */
#define GATES(letters) .gates = letters, .n_gates = sizeof letters / 2

/* What a call works on, in the driver's terms. */
typedef struct {
    const cell_ops *ops;
    int gates;      /* of x W */
    int bias_apart; /* gate whose b_hh is handed to the cell apart, or NO_GATE */
    int has_c, has_peephole, has_projection, has_late_gate;
    ptrdiff_t I, H, S; /* S: width of h */
    ptrdiff_t H_padded, S_padded;
} cell;

INLINE int has_second(const cell *c)
{
    return c->has_projection || c->has_late_gate;
}

/* --- forward panels -------------------------------------------------------------- */

typedef struct {
    ptrdiff_t j, units, lanes;
    ptrdiff_t column; /* vectors before it, times V */
    ptrdiff_t nv;
} unit_panel;

/* Vectors of units in a panel: a tile of a gated cell is wide enough with one. */
INLINE ptrdiff_t unit_vectors(const cell *c)
{
    return c->gates == 1 && !c->has_late_gate ? MAX_NV : 1;
}

INLINE ptrdiff_t n_unit_panels(const cell *c)
{
    return n_panels(c->H, unit_vectors(c));
}

/* Panel p of a matrix that has `gates` of the cell's gates: W has all of them, R those of
 * the first product.  Panels of both with one number are of the same units, with the
 * same lanes. */
INLINE unit_panel get_unit_panel(const cell *c, int gates, ptrdiff_t p)
{
    const ptrdiff_t H = c->H;
    if (unit_vectors(c) > 1) {
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

INLINE unit_panel get_W_panel(const cell *c, ptrdiff_t p)
{
    return get_unit_panel(c, c->gates, p);
}

INLINE unit_panel get_R_panel(const cell *c, ptrdiff_t p)
{
    return get_unit_panel(c, c->ops->R_gates, p);
}

/* Columns of all panels together. */
INLINE ptrdiff_t unit_columns(const cell *c, int gates)
{
    const unit_panel last = get_unit_panel(c, gates, n_unit_panels(c) - 1);
    return last.column + last.nv * V;
}

/* Where the parts of a forward pack are: W, then R, the biases, and what only some cells
 * have.  Reading the last gate of a narrow panel as a whole vector runs up to V elements
 * past its columns. */
typedef struct {
    ptrdiff_t columns, R_columns, R, bias, bias_apart, peephole, second, size;
} forward_pack;

INLINE forward_pack get_forward_pack(const cell *c)
{
    forward_pack f;
    f.columns = unit_columns(c, c->gates);
    f.R_columns = unit_columns(c, c->ops->R_gates);
    f.R = c->I * f.columns;
    f.bias = f.R + c->S * f.R_columns;
    f.bias_apart = f.bias + f.columns + V;
    f.peephole = f.bias_apart + c->H_padded;
    f.second = f.peephole + (c->has_peephole ? 3 * c->H_padded : 0);
    f.size = f.second + (has_second(c) ? packed_size(c->H, c->S) : 0);
    return f;
}

/* One of the gates of W or R for the units of a panel; lanes without a unit are zero:
 * they must not hold NaN or subnormals. */
INLINE void pack_gates(real *to, const real *from, const cell *c, int gates,
                       ptrdiff_t K, ptrdiff_t p)
{
    const unit_panel q = get_unit_panel(c, gates, p);
    const ptrdiff_t width = q.nv * V;
    real *panel_start = to + q.column * K;
    if (gates * q.units < width)
        memset(panel_start, 0, (size_t)(K * width) * sizeof(real));
    for (ptrdiff_t g = 0; g < gates; g++)
        pack_transposed(panel_start + g * q.lanes, width, from + (g * c->H + q.j) * K,
                        K, q.units, K);
}

static void pack_peephole(real *to, const real *P, const cell *c)
{
    memset(to, 0, (size_t)(3 * c->H_padded) * sizeof(real));
    for (ptrdiff_t g = 0; g < 3; g++)
        memcpy(to + g * c->H_padded, P + g * c->H, (size_t)c->H * sizeof(real));
}

/* The part of R that belongs to the late gate, (H, H). */
INLINE const real *late_matrix(const cell *c, const real *R)
{
    return R + c->ops->late_gate * c->H * c->H;
}

static void pack_forward_weights(const team *self, const cell *c, const fr_pack_args *a)
{
    const ptrdiff_t H = c->H;
    const forward_pack f = get_forward_pack(c);
    const real *W = a->W, *R = a->R, *b_ih = a->b_ih, *b_hh = a->b_hh;
    real *packed = a->packed;

    ptrdiff_t begin, end;
    if (self->rank == 0)
        memset(packed + f.bias, 0, (size_t)(f.peephole - f.bias) * sizeof(real));
    team_barrier(self);
    team_share(self, n_unit_panels(c), &begin, &end);
    for (ptrdiff_t p = begin; p < end; p++) {
        const unit_panel q = get_W_panel(c, p);
        pack_gates(packed, W, c, c->gates, c->I, p);
        pack_gates(packed + f.R, R, c, c->ops->R_gates, c->S, p);
        for (ptrdiff_t g = 0; b_ih && g < c->gates; g++) {
            const ptrdiff_t row = g * H + q.j;
            real *bias = packed + f.bias + q.column + g * q.lanes;
            const int apart = g == c->bias_apart;
            for (ptrdiff_t u = 0; u < q.units; u++) {
                bias[u] = apart ? b_ih[row + u] : b_ih[row + u] + b_hh[row + u];
                if (apart)
                    packed[f.bias_apart + q.j + u] = b_hh[row + u];
            }
        }
    }
    if (self->rank > 0)
        return;
    if (c->has_peephole)
        pack_peephole(packed + f.peephole, a->P, c);
    if (c->has_projection)
        pack_columns(packed + f.second, a->W_hr, c->S, H);
    if (c->has_late_gate)
        pack_columns(packed + f.second, late_matrix(c, R), H, H);
}

/* --- backward panels: R and W as they are, rows in the order of the da slots, in
 * panels of up to widest_panel(K) vectors ----------------------------------------- */

typedef struct {
    ptrdiff_t W, peephole, second, size;
    ptrdiff_t R_widest, W_widest, second_widest; /* panels, in vectors */
} backward_pack;

INLINE backward_pack get_backward_pack(const cell *c)
{
    const ptrdiff_t K = c->gates * c->H, R_K = c->ops->R_gates * c->H;
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
static void repack_gates(real *packed, const real *forward, const cell *c, int gates,
                         const int *order, ptrdiff_t K, ptrdiff_t widest,
                         ptrdiff_t begin, ptrdiff_t end)
{
    const ptrdiff_t H = c->H;
    for (ptrdiff_t n = 0; n < n_panels(K, widest); n++) {
        const panel to = get_panel(K, widest, n);
        for (ptrdiff_t p = begin; p < end; p++) {
            const unit_panel from = get_unit_panel(c, gates, p);
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
    static const int as_they_are[FR_MOST_GATES] = {0, 1, 2, 3};
    const ptrdiff_t H = c->H, S = c->S, widest = widest_panel(H);
    const forward_pack f = get_forward_pack(c);
    const backward_pack b = get_backward_pack(c);
    ptrdiff_t begin, end;
    team_share(self, n_unit_panels(c), &begin, &end);
    repack_gates(packed, forward + f.R, c, c->ops->R_gates, as_they_are, S, b.R_widest,
                 begin, end);
    repack_gates(packed + b.W, forward, c, c->gates, c->ops->w_gate, c->I, b.W_widest,
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
    const ptrdiff_t K = c->gates * H, R_K = c->ops->R_gates * H;
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
        const real *second = c->has_projection ? W_hr : late_matrix(c, R);
        for (ptrdiff_t k = 0; k < S; k++)
            pack_row(packed + b.second, S, k, second + k * H, H, b.second_widest);
    }
}

#endif
