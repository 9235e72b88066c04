/* SPDX-License-Identifier: BSD-3-Clause */
/* pack.h -- how the weights of a cell lie in its forward pack and its backward pack.
 *
 * A forward panel has the columns of all gates of some hidden units side by side,
 * [k][gate][lane], so that one tile of the product x W yields everything that the cell
 * needs to go on with those units.  A gate has as many lanes in a panel as a vector has
 * elements, V.  The units that are left over after whole vectors get V/2 or V/4 lanes
 * for each gate if they fit, so that H = 50 does not cost as much as H = 64.  A matrix
 * with one gate in it has panels of up to four vectors of units, because a panel one
 * vector wide would be slow.
 *
 * A backward pack is R and W as they are, not transposed, with their rows in the order
 * of the slots of da: what backward multiplies da by.  Their columns are cut into
 * panels of up to widest_panel(K) vectors.
 */
#ifndef FR_PACK_H
#define FR_PACK_H

#include "cell.h"
#include "panels.h"

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
 * room for that.  Each panel of R has room for R_rows rows, and has those of its
 * units' heads. */
typedef struct {
    ptrdiff_t columns, R_columns, R_rows, R, bias, bias_apart, vectors, norm, second,
        size;
} forward_pack;

/* The parameters of a norm, by unit, each gate padded: where each begins, counted from
 * where all begin, and how large all of them are. */
typedef struct {
    ptrdiff_t ih, hh, c, c_bias, size;
} norm_pack;

INLINE norm_pack get_norm_pack(const cell *c)
{
    norm_pack n = {0};
    if (!c->norm.any)
        return n;
    n.hh = c->gates * c->H_padded;
    n.c = n.hh + c->norm.recurrent * c->ops->R_gates * c->H_padded;
    n.c_bias = n.c + c->H_padded;
    n.size = n.c + (c->norm.c ? 2 * c->H_padded : 0);
    return n;
}

INLINE forward_pack get_forward_pack(const cell *c)
{
    forward_pack f;
    f.columns = unit_columns(c->gates, c->H);
    f.R_columns = unit_columns(c->ops->R_gates, c->H);
    f.R = c->I_words * f.columns;
    f.R_rows =
        operand_size(longest_heads(c, c->ops->R_gates == 1 ? MAX_NV * V : V, c->S));
    f.bias = f.R + f.R_rows * f.R_columns;
    f.bias_apart = f.bias + f.columns + V;
    f.vectors = f.bias_apart + c->H_padded;
    f.norm = f.vectors + c->n_vectors * c->H_padded;
    f.second = f.norm + get_norm_pack(c).size;
    f.size = f.second + (has_second(c) ? packed_size(c->H_words, c->S) : 0);
    return f;
}

/* --- backward panels -------------------------------------------------------------- */

typedef struct {
    ptrdiff_t W, vectors, norm, second, size;
    ptrdiff_t R_widest, W_widest, second_widest; /* most vectors in a panel */
    ptrdiff_t R_rows; /* that a panel of R has room for, of each gate */
} backward_pack;

INLINE backward_pack get_backward_pack(const cell *c)
{
    const ptrdiff_t K = c->gates * c->H_words, R_gates = c->ops->R_gates;
    backward_pack b;
    b.R_widest = widest_panel(R_gates * (c->heads == 1 ? c->H_words : c->head_size));
    b.R_rows = operand_size(longest_heads(c, b.R_widest * V, c->H));
    b.W = packed_size(R_gates * b.R_rows, c->S);
    b.vectors = b.W + packed_size(K, c->I);
    b.norm = b.vectors + c->n_vectors * c->H_padded;
    b.second = b.norm + get_norm_pack(c).size;
    b.size = b.second + (has_second(c) ? packed_size(c->S_words, c->H) : 0);
    b.W_widest = widest_panel(K);
    /* With a late gate a thread works on the same units in both parts of the cell: the
     * second product is cut like the first. */
    b.second_widest = c->has_projection ? widest_panel(c->S_words) : b.R_widest;
    return b;
}

#endif
