/* SPDX-License-Identifier: BSD-3-Clause */
/* loss.c -- losses and their gradients in one pass over each row.
 *
 * Cross-entropy of a row z with target j, m = max z:
 *   s = sum over k of exp(z_k - m);  loss = log s + m - z_j
 *   dz_k = weight * (exp(z_k - m) / s - [k = j])
 * A row whose target is ignore_index has loss 0 and gradient 0.  NaN or +inf in a row
 * makes its loss and its gradient NaN.
 *
 * Squared error: loss = sum of (a - b)^2, da = 2 weight (a - b).
 *
 * Both return weight * (the sum over rows or elements), the sum in double; weight is 1
 * or 1 / (what is counted).  s is 16 partial sums whatever the vector width, and the
 * rows are summed in fixed chunks (flat.h): the same bits for any thread count and on
 * every target that has FMA.  Threads take chunks.
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

/* exp(y) for y <= 0: zero where the result is subnormal. */
INLINE vreal v_exp_negative(vreal y)
{
    vreal power_of_two;
    const vreal p = v_exp_parts(y, &power_of_two);
    return v_fma(power_of_two, p, power_of_two);
}

INLINE real row_max(const real *z, ptrdiff_t n)
{
    real largest = z[0];
    if (n < V) {
        for (ptrdiff_t k = 1; k < n; k++)
            largest = z[k] > largest ? z[k] : largest;
        return largest;
    }
    vreal most = v_load(z);
    for (ptrdiff_t k = V; k + V <= n; k += V)
        most = v_max(most, v_load(z + k));
    most = v_max(most, v_load(z + n - V)); /* the rest, and some seen before */
    for (ptrdiff_t lane = 0; lane < V; lane++)
        largest = most[lane] > largest ? most[lane] : largest;
    return largest;
}

/* e_k = exp(z_k - m) and their sum. */
INLINE real row_exp(const real *z, real m, real *e, ptrdiff_t n)
{
    vreal sums[SOFTMAX_LANES * sizeof(real) / 16] = {0};
    for (ptrdiff_t k = 0; k < n; k += SOFTMAX_LANES)
#pragma GCC unroll 8
        for (ptrdiff_t i = 0; i < SOFTMAX_VECTORS; i++) {
            const ptrdiff_t at = k + i * V, live = max_size(0, min_size(V, n - at));
            vreal a = v_exp_negative(v_load_n(z + at, live) - v_set1(m));
            v_store_n(e + at, a, live);
            if (live < V) /* lanes past the end become zero */
                a = v_load_n(e + at, live);
            sums[i] = sums[i] + a;
        }
    real lanes[SOFTMAX_LANES];
    memcpy(lanes, sums, sizeof lanes);
    for (int half = SOFTMAX_LANES / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++)
            lanes[j] += lanes[j + half];
    return lanes[0];
}

/* Loss of one row, before weighting; gradient written. */
INLINE double cross_entropy_row(const fr_cross_entropy_args *args, ptrdiff_t row)
{
    const ptrdiff_t n = args->classes;
    const int64_t target = args->targets[row];
    const real *z = (const real *)args->logits + row * n;
    real *dz = (real *)args->dlogits + row * n;
    if (target == args->ignore_index) {
        memset(dz, 0, (size_t)n * sizeof *dz);
        return 0;
    }
    const real m = row_max(z, n), s = row_exp(z, m, dz, n);
    const vreal factor = v_set1((real)args->weight / s);
    for (ptrdiff_t k = 0; k < n; k += V) {
        const ptrdiff_t live = min_size(V, n - k);
        v_store_n(dz + k, factor * v_load_n(dz + k, live), live);
    }
    dz[target] -= (real)args->weight;
    return log((double)s) + ((double)m - (double)z[target]);
}

typedef struct {
    const fr_cross_entropy_args *args;
    double *chunks; /* (N_CHUNKS,) */
} cross_entropy_team;

static void cross_entropy_body(const team *self, const void *argument)
{
    const cross_entropy_team *work = argument;
    ptrdiff_t first, last;
    team_share(self, N_CHUNKS, &first, &last);
    for (ptrdiff_t chunk = first; chunk < last; chunk++) {
        const ptrdiff_t rows = work->args->rows;
        const ptrdiff_t end = part_start(rows, N_CHUNKS, chunk + 1);
        double sum = 0;
        for (ptrdiff_t r = part_start(rows, N_CHUNKS, chunk); r < end; r++)
            sum += cross_entropy_row(work->args, r);
        work->chunks[chunk] = sum;
    }
}

static double cross_entropy(const fr_cross_entropy_args *args)
{
    double chunks[N_CHUNKS];
    const cross_entropy_team work = {args, chunks};
    team_run(flat_threads(args->n_threads, args->rows * args->classes),
             cross_entropy_body, &work);
    return args->weight * sum_of_chunks(chunks);
}

typedef struct {
    const fr_mse_args *args;
    double *chunks; /* (N_CHUNKS,) */
} mse_team;

/* SUM_LANES elements: gradient written, squares added. */
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
    team_share(self, N_CHUNKS, &first, &last);
    for (ptrdiff_t chunk = first; chunk < last; chunk++) {
        ptrdiff_t k, end;
        sum_chunk(args->n, chunk, &k, &end);
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
        work->chunks[chunk] = sum_of_partials(&acc);
    }
}

static double mse(const fr_mse_args *args)
{
    double chunks[N_CHUNKS];
    const mse_team work = {args, chunks};
    team_run(flat_threads(args->n_threads, args->n), mse_body, &work);
    return args->weight * sum_of_chunks(chunks);
}
