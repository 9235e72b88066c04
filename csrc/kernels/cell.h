/* SPDX-License-Identifier: BSD-3-Clause */
/* cell.h -- what a cell is to the driver, and what the driver hands to a cell.
 *
 * A cell (rnn.c, lstm.c, gru.c) is its equations: functions that work on a few rows of
 * the batch and one panel of hidden units (pack.h).  Everything about time, batch and
 * threads is the driver's, which is forward.c and backward.c.
 */
#ifndef FR_CELL_H
#define FR_CELL_H

#include "fastrnn.h"
#include "half.h"

/* The norm of c_t, for a cell that has one: N(c_t) = gamma * c_hat + beta, where c_hat =
 * (c_t - mean) * scale.  Gamma and beta are by unit; a row's mean and scale are two
 * numbers at statistics + row * statistics_row, which forward's second part and
 * backward find there.  `held` has what the first part hands to the second. */
typedef struct {
    const real *gamma, *beta;
    const real *statistics;
    ptrdiff_t statistics_row;
} norm_of_c;

/* r_hat of a vector of a row, from the row's statistics. */
INLINE vreal v_normalise(const real *row, const real *statistics)
{
    return (v_load(row) - v_set1(statistics[0])) * v_set1(statistics[1]);
}

/* What a cell's forward function works on: some rows of one step and one panel of
 * units. Gate g of the panel's unit u is in column g * lanes + u of ax and ah.  Where
 * has_one_sum(), ah holds the pre-activations.  Where not, they are ax + ah, and a gate
 * may need the two apart.  In the other arrays a row begins with unit
 * 0, whatever the panel is, and rows of c, tape, between and held are padded to whole
 * vectors. */
typedef struct {
    const fr_cell_options *options; /* NULL for the plain cell */
    /* For a cell that draws: the call's draws and shape, the time of the step, and the
     * row of the batch that is the first of `rows`. */
    const fr_draw *draw;
    const fr_shape *shape;
    ptrdiff_t t, b;
    ptrdiff_t rows;
    ptrdiff_t j, units, lanes; /* the panel is of units j .. j + units - 1 */
    const real *ax;            /* bias + x W; each *_row is the distance between rows */
    ptrdiff_t ax_row;
    /* h_{t-1} R, with has_one_sum() onto bias + x W; in the second part, `between` by
     * the late gate's R. */
    const real *ah;
    ptrdiff_t ah_row;
    /* x_t itself, from unit 0 on, of a cell that has it in place of a gate of x W. */
    const real *x;
    ptrdiff_t x_row;
    const real *bias_apart; /* b_hh of the gate bias_apart, by unit; its bias is b_ih */
    const real *vectors;    /* P by unit, each row of H_padded elements */
    const real *h_prev;     /* rows of h_{t-1} */
    ptrdiff_t h_prev_row;
    /* A cell with other states than h: c_{t-1} on entry, c_t on return.  Those of the
     * next state begin c_state elements further on. */
    real *c;
    ptrdiff_t c_row, c_state;
    real *h; /* h_t, written; with a projection m_t, which the driver projects */
    ptrdiff_t h_row;
    /* A cell with a late gate: what the first part hands to the second product, and
     * what it hands to the second part as it is. */
    real *between;
    real *held;
    ptrdiff_t between_row;
    norm_of_c norm_c;
    real *tape; /* what backward needs, at tape_at(); NULL in inference */
    ptrdiff_t tape_row;
    const real *candidate; /* the candidate is multiplied by it; NULL: by 1 */
    ptrdiff_t candidate_row;
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
    /* A cell with other states than h: dc_t on entry, dc_{t-1} on return.  Those of the
     * next state begin dc_state elements further on. */
    real *dc;
    ptrdiff_t dc_state;
    /* A cell with a late gate: the gradient with respect to forward's `between`. */
    const real *between;
    const real *vectors;
    const real *h_prev;
    ptrdiff_t h_prev_row;
    const real *h;
    ptrdiff_t h_row;
    const real *tape;
    ptrdiff_t tape_row;
    /* A cell with a norm of c_t: the first part writes c_hat, and dn, the gradient with
     * respect to N(c_t), in rows of H_padded.  The second part then finds in dc what
     * follows for c_t itself. */
    norm_of_c norm_c;
    real *c_hat, *dn;
    real *da; /* gradients of the pre-activations, in slots of H_padded; written */
    ptrdiff_t da_row;
    const real *candidate; /* forward's */
    ptrdiff_t candidate_row;
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
 * A cell that normalises c_t has two parts as well: the driver takes the mean and the
 * scale of a whole row of c_t between the two, forward, and the gradient through them,
 * backward (norm.h).  There is no product between these parts.
 *
 * A projection, h_t = m_t W_hr, is a second product, too, after which nothing of the
 * cell follows; it is the driver's business alone. */
typedef struct {
    /* Gates 0 .. R_gates - 1 are those of h R; 0 for a cell whose recurrence is
     * elementwise (scan.c), which has no R and all of its pre-activations in ax. */
    int R_gates;
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
    int reads_h; /* 1: backward reads h as the cell has made it */
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
    const cell_ops *general;      /* for calls that have options, which it looks at */
    const cell_ops *reset_before; /* where they ask for that; may be NULL */
    const cell_ops *candidate; /* the plain cell, its candidate masked; may be NULL */
    /* Ways of the plain and the general cell where c_t is normalised, and where x W + h
     * R is and the equations are others then; NULL where a cell has none. */
    const cell_ops *norm_c, *norm_c_general;
    const cell_ops *joint, *joint_general;
} cell_entry;

/* The field `gates` of an fr_cell, and how many there are. */
#define GATES(letters) .gates = letters, .n_gates = sizeof letters / 2
/* The field `states` likewise. */
#define STATES(letters) .states = letters, .n_states = sizeof letters / 2

/* What of a cell is normalised, as enum fr_norm says. */
typedef struct {
    int any;
    int input;     /* x W by itself */
    int recurrent; /* h R by itself */
    int joint;     /* x W + h R */
    int per_gate;  /* each gate of x W + h R by itself */
    int c;         /* c_t */
    int rms;       /* rows keep their mean */
} row_norms;

/* What a call works on, as the driver sees it. */
typedef struct {
    const cell_ops *ops;
    row_norms norm;
    const fr_cell_options *options;
    int gates;        /* gates of x W */
    int biased;       /* of these, the first ones, which have a bias */
    int bias_apart;   /* gate whose b_hh is handed to the cell apart, or NO_GATE */
    int n_vectors;    /* rows of P */
    int skips;        /* 1: x itself goes into h, in place of a gate of x W */
    int other_states; /* states beside h */
    int has_projection, has_late_gate;
    int keeps_h;       /* the tape has h as the cell has made it, before zoneout */
    ptrdiff_t I, H, S; /* S: width of h */
    ptrdiff_t heads, head_size; /* R multiplies head_size elements of h for each unit */
    ptrdiff_t H_padded, S_padded;
    int half; /* 1: operands of products are bfloat16 (half.h) */
    ptrdiff_t I_words, H_words, S_words; /* of operands of so many numbers */
    /* A row of da begins with the slots that go into products: those of x W, which are
     * slots 0 .. gates - 1, and from first_R_slot on those of h R.  What the cell writes
     * begins with slot cell_slot, and is the same slots unless there is a norm.  Where
     * none of it goes into a product, it is not in da at all (`behind` of backward.h). */
    int first_R_slot, cell_slot, product_slots;
    int writes_behind;
} cell;

/* The mask of the candidate of a row of a step, from unit j on; 1 where it has none. */
INLINE vreal v_candidate_mask(const real *mask, ptrdiff_t row, ptrdiff_t r, ptrdiff_t j)
{
    return mask ? v_load(mask + r * row + j) : v_set1(1);
}

/* Whether the recurrence is elementwise: such a cell has no R. */
INLINE int is_scan(const cell *c)
{
    return c->ops->R_gates == 0;
}

/* Whether the panels of R have all gates, as those of W have, and none of the gates
 * needs its part of h R apart, be it behind a norm.  Then a pre-activation is one sum, bias + x W + h R. */
INLINE int has_one_sum(const cell *c)
{
    return c->ops->R_gates == c->gates && c->bias_apart == NO_GATE;
}

/* Some elements of h, or some units. */
typedef struct {
    ptrdiff_t begin, n;
} head_range;

/* What columns j .. j + n - 1 of R have in common with its rows: the heads that those
 * are of, whole.  R has these rows for these columns, and zeros in between where they
 * are of several heads. */
INLINE head_range get_heads(const cell *c, ptrdiff_t j, ptrdiff_t n, ptrdiff_t all)
{
    if (c->heads == 1)
        return (head_range){0, all};
    const ptrdiff_t size = c->head_size, begin = j / size * size;
    return (head_range){begin, ((j + n - 1) / size + 1) * size - begin};
}

/* The longest range of get_heads() for `width` columns, wherever these begin. */
INLINE ptrdiff_t longest_heads(const cell *c, ptrdiff_t width, ptrdiff_t all)
{
    const ptrdiff_t size = c->head_size;
    if (c->heads == 1)
        return all;
    if (size % width == 0)
        return size;
    return min_size(all, ((width + size - 2) / size + 1) * size);
}

INLINE int has_second(const cell *c)
{
    return c->has_projection || c->has_late_gate;
}

#endif
