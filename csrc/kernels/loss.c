/* SPDX-License-Identifier: BSD-3-Clause */
/* loss.c -- losses and their gradients, row by row.
 *
 * Cross-entropy of a row z with target j, m = max z:
 *   s = sum over k of exp(z_k - m);  loss = log s + m - z_j
 *   dz_k = weight * (exp(z_k - m) / s - [k = j])
 * A row whose target is ignore_index has loss 0 and gradient 0.  NaN or +inf in a row
 * makes its loss and its gradient NaN.
 *
 * Squared error: loss = sum of (a - b)^2, da = 2 weight (a - b).
 *
 * Both functions return weight times the sum of the losses, which is taken in double.
 * The caller sets weight to 1 for a summed loss, and to 1 / (number of rows or elements
 * that count) for a mean.  At every vector width s is added up as SOFTMAX_LANES partial
 * sums, and losses are added up in the fixed slices of flat.h, so the results have the
 * same bits for any number of threads and on every target that has FMA.  The threads
 * share the slices.
 */
#include <math.h>

#include "fastrnn.h"
#include "target.h"
#include "simd.h"
#include "activations.h"
#include "parallel.h"
#include "flat.h"

#define SOFTMAX_LANES 16
#define SOFTMAX_VECTORS ((ptrdiff_t)(SOFTMAX_LANES * sizeof(real) / V_BYTES))

/* Returns the largest lane of a, or `largest` where no lane exceeds it. */
INLINE real largest_lane(vreal a, real largest)
{
    real lanes[V_BYTES / sizeof(real)];
    v_store(lanes, a);
    for (ptrdiff_t half = V / 2; half > 0; half /= 2)
        for (ptrdiff_t j = 0; j < half; j++)
            lanes[j] = lanes[j] > lanes[j + half] ? lanes[j] : lanes[j + half];
    return lanes[0] > largest ? lanes[0] : largest;
}

/* Returns the largest of n elements.  The search has been through the first `seen` of
 * them, V at a time, and each lane of `most` holds the largest that it met there. */
INLINE real rest_of_max(const real *z, vreal most, ptrdiff_t seen, ptrdiff_t n)
{
    real largest = z[0];
    if (n < V) {
        for (ptrdiff_t k = 1; k < n; k++)
            largest = z[k] > largest ? z[k] : largest;
        return largest;
    }
    for (ptrdiff_t k = seen; k + V <= n; k += V)
        most = v_max(most, v_load(z + k));
    most = v_max(most, v_load(z + n - V)); /* overlaps elements already seen */
    return largest_lane(most, largest);
}

/* One row of logits on its way through three stages: its largest element is found, the
 * exponentials are taken, and they are scaled.  One loop takes the exponentials of a
 * row, scales the row before it and searches the row after it: arithmetic bounds the
 * first task, level 2 and memory bound the other two, and so they overlap. */
typedef struct {
    const real *z; /* NULL where there is no such row */
    real *dz;
    int64_t target;
    real largest, factor;
} softmax_row;

/* Scales the elements of dz from `done` on by the row's factor, the ones before being
 * scaled already, and subtracts `weight` at the target. */
INLINE void rest_of_scaling(const softmax_row *row, ptrdiff_t done, ptrdiff_t n,
                            real weight)
{
    const vreal factor = v_set1(row->factor);
    for (ptrdiff_t k = done; k < n; k += V) {
        const ptrdiff_t live = min_size(V, n - k);
        v_store_n(row->dz + k, factor * v_load_n(row->dz + k, live), live);
    }
    row->dz[row->target] -= weight;
}

/* Writes dz_k = exp(z_k - m) for a group of SOFTMAX_LANES elements, of which the first
 * `live` exist, and adds these exponentials to `sums`. */
INLINE void group_exp(const real *z, vreal m, real *dz, ptrdiff_t live, vreal *sums)
{
#pragma GCC unroll 8
    for (ptrdiff_t i = 0; i < SOFTMAX_VECTORS; i++) {
        const ptrdiff_t n = max_size(0, min_size(V, live - i * V));
        vreal a = v_exp_negative(v_load_n(z + i * V, n) - m);
        v_store_n(dz + i * V, a, n);
        if (n < V) /* lanes past the end are zero once loaded again */
            a = v_load_n(dz + i * V, n);
        sums[i] = sums[i] + a;
    }
}

#define SEARCH_AHEAD 512 /* elements from the search to its prefetches */

/* Takes the exponentials of `row` and returns their sum.  The same loop scales the row
 * `before` and finds the largest element of the row `after`. */
INLINE real row_exp(const softmax_row *row, const softmax_row *before,
                    softmax_row *after, ptrdiff_t n, real weight)
{
    const vreal m = v_set1(row->largest), factor = v_set1(before->factor);
    vreal sums[SOFTMAX_LANES * sizeof(real) / 16] = {0};
    vreal most = v_set1(after->z ? after->z[0] : 0);
    ptrdiff_t k = 0;
    for (; k + SOFTMAX_LANES <= n; k += SOFTMAX_LANES) {
        group_exp(row->z + k, m, row->dz + k, SOFTMAX_LANES, sums);
        if (before->z)
#pragma GCC unroll 8
            for (ptrdiff_t i = 0; i < SOFTMAX_LANES; i += V)
                v_store(before->dz + k + i, factor * v_load(before->dz + k + i));
        if (after->z)
#pragma GCC unroll 8
            for (ptrdiff_t i = 0; i < SOFTMAX_LANES; i += V) {
                most = v_max(most, v_load(after->z + k + i));
                if (i % CACHE_LINE == 0) {
                    __builtin_prefetch(after->z + k + i + SEARCH_AHEAD);
                    __builtin_prefetch(after->dz + k + i, 1, 2);
                }
            }
    }
    if (before->z)
        rest_of_scaling(before, k, n, weight);
    if (after->z)
        after->largest = rest_of_max(after->z, most, k, n);
    if (k < n)
        group_exp(row->z + k, m, row->dz + k, n - k, sums);
    real lanes[SOFTMAX_LANES];
    memcpy(lanes, sums, sizeof lanes);
    for (int half = SOFTMAX_LANES / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++)
            lanes[j] += lanes[j + half];
    return lanes[0];
}

/* Finds the first of the rows [r, end) that counts, sets *row to it and returns its
 * number.  Where none counts, row->z is NULL and the result is `end`.  Rows that it
 * passes, whose target is ignore_index, get gradient zero. */
INLINE ptrdiff_t next_row(const fr_cross_entropy_args *args, ptrdiff_t r, ptrdiff_t end,
                          softmax_row *row)
{
    const ptrdiff_t n = args->classes;
    for (; r < end && args->targets[r] == args->ignore_index; r++)
        memset((real *)args->dlogits + r * n, 0, (size_t)n * sizeof(real));
    *row = (softmax_row){0};
    if (r < end)
        *row = (softmax_row){.z = (const real *)args->logits + r * n,
                             .dz = (real *)args->dlogits + r * n,
                             .target = args->targets[r]};
    return r;
}

typedef struct {
    const fr_cross_entropy_args *args;
    double *slices; /* (N_SLICES,) */
} cross_entropy_team;

static void cross_entropy_body(const team *self, const void *argument)
{
    const cross_entropy_team *work = argument;
    const fr_cross_entropy_args *args = work->args;
    const ptrdiff_t n = args->classes;
    const real weight = (real)args->weight;
    ptrdiff_t slice, last;
    team_share(self, N_SLICES, &slice, &last);
    const ptrdiff_t end = part_start(args->rows, N_SLICES, last);
    softmax_row before = {0}, row, after;
    ptrdiff_t r = next_row(args, part_start(args->rows, N_SLICES, slice), end, &row);
    if (row.z)
        row.largest = rest_of_max(row.z, v_set1(row.z[0]), 0, n);
    for (; slice < last; slice++) {
        const ptrdiff_t slice_end = part_start(args->rows, N_SLICES, slice + 1);
        double sum = 0;
        while (r < slice_end) {
            r = next_row(args, r + 1, end, &after);
            const real s = row_exp(&row, &before, &after, n, weight);
            sum += log((double)s) + ((double)row.largest - (double)row.z[row.target]);
            row.factor = (real)args->weight / s;
            before = row;
            row = after;
        }
        work->slices[slice] = sum;
    }
    if (before.z)
        rest_of_scaling(&before, 0, n, weight);
}

static double cross_entropy(const fr_cross_entropy_args *args)
{
    double slices[N_SLICES];
    const cross_entropy_team work = {args, slices};
    team_run(flat_threads(args->n_threads, args->rows * args->classes),
             cross_entropy_body, &work);
    return args->weight * sum_of_slices(slices);
}

typedef struct {
    const fr_mse_args *args;
    double *slices; /* (N_SLICES,) */
} mse_team;

/* Writes the gradient of SUM_LANES elements and adds their squared errors to acc. */
INLINE void mse_add(partials *acc, const real *a, const real *b, real *da, real factor)
{
#pragma GCC unroll 16
    for (size_t i = 0; i < N_PARTIALS; i++) {
        const vdouble e =
            v_load_double(a + (ptrdiff_t)i * VD) - v_load_double(b + (ptrdiff_t)i * VD);
        acc->part[i] += e * e;
    }
    for (ptrdiff_t k = 0; k < SUM_LANES; k += V)
        v_store(da + k, v_set1(factor) * (v_load(a + k) - v_load(b + k)));
}

static void mse_body(const team *self, const void *argument)
{
    const mse_team *work = argument;
    const fr_mse_args *args = work->args;
    const real *a = args->prediction, *b = args->target,
               factor = (real)(2 * args->weight);
    real *da = args->dprediction;
    ptrdiff_t first, last;
    team_share(self, N_SLICES, &first, &last);
    for (ptrdiff_t slice = first; slice < last; slice++) {
        ptrdiff_t k, end;
        sum_slice(args->n, slice, &k, &end);
        partials acc = {0};
        for (; k + SUM_LANES <= end; k += SUM_LANES)
            mse_add(&acc, a + k, b + k, da + k, factor);
        if (k < end) {
            real rest[3][SUM_LANES] = {{0}};
            const size_t bytes = (size_t)(end - k) * sizeof(real);
            memcpy(rest[0], a + k, bytes);
            memcpy(rest[1], b + k, bytes);
            mse_add(&acc, rest[0], rest[1], rest[2], factor);
            memcpy(da + k, rest[2], bytes);
        }
        work->slices[slice] = sum_of_partials(&acc);
    }
}

static double mse(const fr_mse_args *args)
{
    double slices[N_SLICES];
    const mse_team work = {args, slices};
    team_run(flat_threads(args->n_threads, args->n), mse_body, &work);
    return args->weight * sum_of_slices(slices);
}
