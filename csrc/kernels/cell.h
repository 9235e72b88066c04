/* SPDX-License-Identifier: BSD-3-Clause */
/* cell.h -- what a cell is to the driver, what the driver hands to a cell, and how
 * weights are packed for both.
 *
 * A cell (rnn.c, lstm.c, gru.c) is its equations: functions that work on a few rows of
 * the batch and one panel of hidden units.  Everything about time, batch and threads is
 * the driver's, which is forward.c and backward.c.
 *
 * A forward panel has the columns of all gates of some hidden units side by side,
 * [k][gate][lane], so that one tile of the product x W yields everything that the cell
 * needs to go on with those units.  A gate has as many lanes in a panel as a vector has
 * elements, V.  The units that are left over after whole vectors get V/2 or V/4 lanes
 * for each gate if they fit, so that H = 50 does not cost as much as H = 64.  A matrix
 * with one gate in it has panels of up to four vectors of units, because a panel one
 * vector wide would be slow.
 */
#ifndef FR_CELL_H
#define FR_CELL_H

#include "fastrnn.h"
#include "gemm.h"
#include "parallel.h"

/* What a cell's forward function works on: some rows of one step and one panel of
 * units. The pre-activations are (ax + bias) + ah, where gate g of the panel's unit u
 * is in column g * lanes + u of all three.  In the other arrays a row begins with unit
 * 0, whatever the panel is, and rows of c, tape, between and held are padded to whole
 * vectors. */
typedef struct {
    const fr_cell_options *options; /* NULL for the plain cell */
    ptrdiff_t rows;
    ptrdiff_t j, units, lanes; /* the panel is of units j .. j + units - 1 */
    const real *ax;            /* x W; each *_row is the distance between rows */
    ptrdiff_t ax_row;
    const real *ah; /* h_prev R; in the second part, between R of the late gate alone */
    ptrdiff_t ah_row;
    const real *bias;       /* b_ih + b_hh in the panel's column order */
    const real *bias_apart; /* b_hh of the gate bias_apart, by unit; its bias is b_ih */
    const real *peephole;   /* P by unit, H_padded elements for each of i, o, f */
    const real *h_prev;     /* rows of h_{t-1} */
    ptrdiff_t h_prev_row;
    real *c; /* a cell with two states: c_{t-1} on entry, c_t on return */
    ptrdiff_t c_row;
    real *h; /* h_t, written; with a projection m_t, which the driver projects */
    ptrdiff_t h_row;
    /* A cell with a late gate: what the first part hands to the second product, and
     * what it hands to the second part as it is. */
    real *between;
    real *held;
    ptrdiff_t between_row;
    real *tape; /* what backward needs, at tape_at(); NULL in inference */
    ptrdiff_t tape_row;
} forward_step;

/* What a cell's backward function works on: some rows of one step and some units.  In
 * all arrays a row begins with unit 0. */
typedef struct {
    const fr_cell_options *options;
    ptrdiff_t rows;
    ptrdiff_t j, units; /* units j .. j + units - 1 */
    ptrdiff_t H_padded; /* distance between slots of da; width of carry, dc, between */
    const real *dy;     /* gradient of the loss with respect to y_t; NULL for zero */
    ptrdiff_t dy_row;
    const real *dh; /* the part of dh_t that came from step t + 1 through R */
    ptrdiff_t dh_row;
    /* A cell with has_carry: the part of dh_t that came from step t + 1 past R, on
     * entry; on return, that part of dh_{t-1}. */
    real *carry;
    real *dc; /* a cell with two states: dc_t on entry, dc_{t-1} on return */
    /* A cell with a late gate: the gradient with respect to forward's `between`. */
    const real *between;
    const real *peephole;
    const real *h_prev;
    ptrdiff_t h_prev_row;
    const real *h;
    ptrdiff_t h_row;
    const real *tape;
    ptrdiff_t tape_row;
    real *da; /* gradients of the pre-activations, in slots of H_padded; written */
    ptrdiff_t da_row;
} backward_step;

/* Where the slots of the vector of units that begins with unit j are in a row of the
 * tape. They lie side by side, [H_padded / V][slots][V], so that a row is written in
 * whole cache lines and read as one stream. */
INLINE ptrdiff_t tape_at(ptrdiff_t j, int slots)
{
    return j * slots;
}

/* How a cell is computed.
 *
 * In each step the driver multiplies h_{t-1} by R and calls the cell's function with
 * the result.  A cell may have a late gate: a gate whose part of R is not multiplied by
 * h_{t-1} but by something that the other gates have made of it, as r * h_{t-1} where a
 * GRU resets before the product.  The functions of such a cell are in two parts.  The
 * first part writes `between`, then the driver multiplies `between` by the late gate's
 * part of R, which is the second product of the step, and then it calls the second
 * part.  Backward, the first part gives the late gate's da, the driver multiplies that
 * by the same part of R, and the second part goes on from there.
 *
 * A projection, h_t = m_t W_hr, is a second product, too, after which nothing of the
 * cell follows; it is the driver's business alone. */
typedef struct {
    int R_gates;    /* gates 0 .. R_gates - 1, at least one, are those of h R */
    int tape_slots; /* V elements of the tape each, for each vector of units */
    int da_slots;   /* H_padded elements of a row of da each */
    /* Slots first_R_slot .. first_R_slot + R_gates - 1 of da are those of gates 0 ..
     * R_gates - 1 of h R. */
    int first_R_slot;
    int w_gate[FR_MOST_GATES]; /* the gate of x W for slots 0 .. n_gates - 1 of da */
    int has_carry;             /* 1: a part of dh_{t-1} does not come through R */
    /* A cell with a late gate: the gate, and the slot of its da.  The slot after the
     * last of da, da_slots, has what forward wrote to `between`, from which dR follows.
     */
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
    const cell_ops *general;      /* where there are options, which it looks at */
    const cell_ops *reset_before; /* where they say so; NULL for a cell without it */
} cell_entry;

/* The field `gates` of an fr_cell, and how many there are. */
#define GATES(letters) .gates = letters, .n_gates = sizeof letters / 2

/* What a call works on, as the driver sees it. */
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
    ptrdiff_t j, units; /* the panel is of units j .. j + units - 1 */
    ptrdiff_t lanes;    /* of each gate */
    ptrdiff_t column;   /* columns of the panels before it, padding included */
    ptrdiff_t nv;       /* vectors in a row of the panel */
} unit_panel;

/* W has all gates of the cell in its panels, and R has those of the first product.  A
 * panel of several gates is of one vector of units, which makes it several vectors
 * wide; a panel of one gate is of up to four vectors of units. */
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

INLINE unit_panel get_W_panel(const cell *c, ptrdiff_t p)
{
    return get_unit_panel(c->gates, c->H, p);
}

INLINE unit_panel get_R_panel(const cell *c, ptrdiff_t p)
{
    return get_unit_panel(c->ops->R_gates, c->H, p);
}

/* Whether a panel of R is of the units of several panels of W.  If not, panel p of W
 * and panel p of R are of the same units. */
INLINE int has_wider_R(const cell *c)
{
    return c->ops->R_gates == 1 && c->gates > 1;
}

/* The columns of all panels together, padding included. */
INLINE ptrdiff_t unit_columns(int gates, ptrdiff_t H)
{
    const unit_panel last = get_unit_panel(gates, H, n_unit_panels(gates, H) - 1);
    return last.column + last.nv * V;
}

/* Where the parts of a forward pack begin: W at 0, then R, the biases, and what only
 * some cells have.  The last gate of a panel with few lanes is read as a whole vector,
 * which may go up to V elements past the panel's columns; behind the biases there is
 * room for that. */
typedef struct {
    ptrdiff_t columns, R_columns, R, bias, bias_apart, peephole, second, size;
} forward_pack;

INLINE forward_pack get_forward_pack(const cell *c)
{
    forward_pack f;
    f.columns = unit_columns(c->gates, c->H);
    f.R_columns = unit_columns(c->ops->R_gates, c->H);
    f.R = c->I * f.columns;
    f.bias = f.R + c->S * f.R_columns;
    f.bias_apart = f.bias + f.columns + V;
    f.peephole = f.bias_apart + c->H_padded;
    f.second = f.peephole + (c->has_peephole ? 3 * c->H_padded : 0);
    f.size = f.second + (has_second(c) ? packed_size(c->H, c->S) : 0);
    return f;
}

/* Panel p of W or of R from the rows of the matrix.  Lanes without a unit are set to
 * zero, because numbers such as NaN and subnormals would slow the products down. */
INLINE void pack_gates(real *to, const real *from, int gates, ptrdiff_t H, ptrdiff_t K,
                       ptrdiff_t p)
{
    const unit_panel q = get_unit_panel(gates, H, p);
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
    team_share(self, n_unit_panels(c->ops->R_gates, H), &begin, &end);
    for (ptrdiff_t p = begin; p < end; p++)
        pack_gates(packed + f.R, R, c->ops->R_gates, H, c->S, p);
    team_share(self, n_unit_panels(c->gates, H), &begin, &end);
    for (ptrdiff_t p = begin; p < end; p++) {
        const unit_panel q = get_W_panel(c, p);
        pack_gates(packed, W, c->gates, H, c->I, p);
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

/* --- backward panels -------------------------------------------------------------- */

/* A backward pack is R and W as they are, not transposed, with their rows in the order
 * of the slots of da: what backward multiplies da by.  Their columns are cut into
 * panels of up to widest_panel(K) vectors. */

typedef struct {
    ptrdiff_t W, peephole, second, size;
    ptrdiff_t R_widest, W_widest, second_widest; /* most vectors in a panel */
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
    /* With a late gate a thread works on the same units in both parts of the cell: the
     * second product is cut like the first. */
    b.second_widest = c->has_projection ? widest_panel(c->S) : b.R_widest;
    return b;
}

/* W or R of a backward pack from panels begin .. end - 1 of a forward pack, with the
 * gates in `order`, slot by slot.  The outer loop is over what is written, so that each
 * panel that is written stays in the cache until it is full. */
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

/* The backward pack of the weights that a forward pack holds. */
static void repack_for_backward(const team *self, const cell *c, const real *forward,
                                real *packed)
{
    static const int as_they_are[FR_MOST_GATES] = {0, 1, 2, 3};
    const ptrdiff_t H = c->H, S = c->S, widest = widest_panel(H);
    const forward_pack f = get_forward_pack(c);
    const backward_pack b = get_backward_pack(c);
    ptrdiff_t begin, end;
    team_share(self, n_unit_panels(c->ops->R_gates, H), &begin, &end);
    repack_gates(packed, forward + f.R, c->ops->R_gates, as_they_are, H, S, b.R_widest,
                 begin, end);
    team_share(self, n_unit_panels(c->gates, H), &begin, &end);
    repack_gates(packed + b.W, forward, c->gates, c->ops->w_gate, H, c->I, b.W_widest,
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
