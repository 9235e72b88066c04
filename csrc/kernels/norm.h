/* SPDX-License-Identifier: BSD-3-Clause */
/* norm.h -- normalised cells: what is normalised, its statistics, and where they are.
 *
 * With rows r of n numbers, and a gamma for each of them,
 *   mean = sum(r) / n;   scale = 1 / sqrt(sum((r - mean)^2) / n + 1e-5)
 *   r_hat = (r - mean) * scale;                  N(r) = gamma * r_hat
 * or, as an RMS norm, the same with a mean of zero.  Backward, from dN:
 *   d   = dN * gamma;                            dgamma += dN * r_hat
 *   dr  = (d - sum(d) / n - r_hat * sum(d * r_hat) / n) * scale
 * where sum(d) is left out of an RMS norm.
 *
 * A cell gets N(x W) + b + N(h R), or what else enum fr_norm says, in place of x W + b +
 * h R, and knows nothing of the norm.  So the driver computes the products of a step as
 * they are, for all units of a row; then the statistics of the row; and then, panel by
 * panel, the pre-activations, which it hands to the cell.  Backward turns what the cell
 * wrote to da into the gradients of x W and of h R, which differ.  The threads of a group
 * have parts of a row each, so they wait for each other before statistics and after
 * them, and each takes the statistics of some of the rows.  Where c_t is normalised the
 * cell is in two parts with statistics of c_t between them.
 *
 * Statistics are sums in double of sixteen lanes: a lane adds, in ascending order, the
 * units whose number has the same remainder, each the sum of its gates, and the lanes are
 * added in order.  So their bits depend neither on the width of a vector nor on the
 * threads.
 * Source: Ba, Kiros & Hinton 2016; RMS: Zhang & Sennrich 2019.
 */
#ifndef FR_NORM_H
#define FR_NORM_H

#include "pack.h"

#define NORM_EPSILON 1e-5

/* --- records ---------------------------------------------------------------------- */

/* A row of the batch has a record for each step: x W, and h R where that is normalised by
 * itself, both in the columns of forward panels (pack.h); then statistics, each of them
 * a mean and a scale.  With a joint norm the first part has x W + h R.  A record is a
 * vector longer than it needs to be, because the last gate of a panel with few lanes is
 * read as a whole vector, and because rows a power of two apart would compete for the
 * same few lines of the cache. */
enum {
    STATISTICS_X = 0, /* of x W or of x W + h R; with a norm per gate, one for each */
    STATISTICS_H = 2 * FR_MOST_GATES,
    STATISTICS_C = STATISTICS_H + 2,
    N_STATISTICS = STATISTICS_C + 2
};
typedef struct {
    ptrdiff_t h, statistics, row; /* where parts begin; elements of a record */
} norm_record;

INLINE norm_record get_norm_record(const cell *c)
{
    norm_record r = {0, 0, 0};
    if (!c->norm.any)
        return r;
    r.h = unit_columns(c->gates, c->H);
    r.statistics = r.h + (c->norm.recurrent ? unit_columns(c->ops->R_gates, c->H) : 0);
    r.row = round_up(r.statistics + N_STATISTICS, V) + V;
    return r;
}

/* The column of gate g of unit j, which begins a vector of units. */
INLINE ptrdiff_t unit_column(int gates, ptrdiff_t H, ptrdiff_t j, ptrdiff_t g)
{
    if (gates == 1 || H - j >= V) /* all panels before are whole */
        return j * gates + g * V;
    const unit_panel q = get_unit_panel(gates, H, j / V);
    return q.column + g * q.lanes;
}

/* --- sums over a row -------------------------------------------------------------- */

#define ROW_LANES 16
enum { SUM_PARTS = ROW_LANES * sizeof(double) / V_BYTES };

typedef struct {
    vdouble part[SUM_PARTS];
} lane_sums;

/* The first n lanes of d; the others, which may hold anything, become zero. */
INLINE vdouble first_lanes(vdouble d, ptrdiff_t n)
{
    for (ptrdiff_t lane = max_size(0, n); lane < VD; lane++)
        d[lane] = 0;
    return d;
}

INLINE double add_up(const lane_sums *s)
{
    double lanes[ROW_LANES], sum = 0;
    memcpy(lanes, s->part, sizeof lanes);
    for (ptrdiff_t i = 0; i < ROW_LANES; i++)
        sum += lanes[i];
    return sum;
}

/* Adds a vector of units, the v-th of ROW_LANES units, to the sums of lanes.  Where
 * fewer than V units are left, the other lanes may hold anything. */
INLINE void add_to_lanes(lane_sums *s, ptrdiff_t v, ptrdiff_t left, vreal a)
{
#pragma GCC unroll 2
    for (ptrdiff_t k = 0; k < V / VD; k++) {
        const vdouble d = v_widen(a, k);
        s->part[v / VD + k] += left < V ? first_lanes(d, left - k * VD) : d;
    }
}

/* Of a vector of units, the sum over gates [first, end) of a - centre, or of the square
 * of that. */
INLINE vreal v_sum_of_gates(const real *row, int gates, ptrdiff_t H, ptrdiff_t j,
                            int first, int end, vreal centre, int squared)
{
    vreal sum = {0};
    for (int g = first; g < end; g++) {
        const vreal a = v_load(row + unit_column(gates, H, j, g)) - centre;
        sum = squared ? v_fma(a, a, sum) : sum + a;
    }
    return sum;
}

/* The sum of those over all units of a row in the columns of a forward panel. */
INLINE double sum_of_row(const real *row, int gates, ptrdiff_t H, int first, int end,
                         real centre, int squared)
{
    lane_sums s = {0};
    const vreal middle = v_set1(centre);
    const ptrdiff_t whole = H / ROW_LANES * ROW_LANES;
    for (ptrdiff_t j = 0; j < whole; j += ROW_LANES)
#pragma GCC unroll 8
        for (ptrdiff_t v = 0; v < ROW_LANES; v += V)
            add_to_lanes(
                &s, v, V,
                v_sum_of_gates(row, gates, H, j + v, first, end, middle, squared));
#pragma GCC unroll 8
    for (ptrdiff_t v = 0; v < ROW_LANES; v += V)
        if (whole + v < H)
            add_to_lanes(
                &s, v, H - whole - v,
                v_sum_of_gates(row, gates, H, whole + v, first, end, middle, squared));
    return add_up(&s);
}

/* Sets the statistics of a row over gates [first, end), its mean and its scale. */
INLINE void take_statistics(const real *row, int gates, ptrdiff_t H, int first, int end,
                            int rms, real *to)
{
    const double n = (double)(end - first) * (double)H;
    const real mean = rms ? 0 : (real)(sum_of_row(row, gates, H, first, end, 0, 0) / n);
    const double square = sum_of_row(row, gates, H, first, end, mean, 1) / n;
    to[0] = mean;
    to[1] = (real)(1 / __builtin_sqrt(square + NORM_EPSILON));
}

#endif
