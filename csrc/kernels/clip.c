/* SPDX-License-Identifier: BSD-3-Clause */
/* clip.c -- the norm of a flat buffer, and the buffer scaled or clamped in place.
 *
 *   norm_p(x) = (sum over k of |x_k|^p)^(1/p), p > 0;   norm_inf(x) = max |x_k|
 *
 * A NaN anywhere makes the norm NaN.  Sums have the order of flat.h, in double: float32
 * gradients up to 1e154 have a finite 2-norm.  Threads take chunks, or ranges of
 * elements.
 */
#include <math.h>

#include "fastrnn.h"
#include "target.h"
#include "simd.h"
#include "parallel.h"
#include "flat.h"

typedef int64_t vdouble_bits __attribute__((vector_size(V_BYTES)));

typedef enum { NORM_SUM, NORM_SQUARES, NORM_POWERS } norm_kind;

INLINE void norm_add(norm_kind kind, partials *acc, const real *x, double power)
{
    const vdouble_bits sign = (vdouble_bits)(-(vdouble){0});
#pragma GCC unroll 16
    for (size_t i = 0; i < N_PARTIALS; i++) {
        vdouble a = v_load_double(x + (ptrdiff_t)i * VD);
        if (kind == NORM_SQUARES)
            a = a * a;
        else
            a = (vdouble)((vdouble_bits)a & ~sign);
        if (kind == NORM_POWERS)
            for (ptrdiff_t lane = 0; lane < VD; lane++)
                a[lane] = pow(a[lane], power);
        acc->part[i] += a;
    }
}

INLINE double norm_of_chunk(norm_kind kind, const real *x, ptrdiff_t n, double power)
{
    partials acc = {0};
    ptrdiff_t k = 0;
    for (; k + SUM_LANES <= n; k += SUM_LANES)
        norm_add(kind, &acc, x + k, power);
    if (k < n) {
        real rest[SUM_LANES] = {0};
        memcpy(rest, x + k, (size_t)(n - k) * sizeof *rest);
        norm_add(kind, &acc, rest, power);
    }
    return sum_of_partials(&acc);
}

INLINE double largest_of_chunk(const real *x, ptrdiff_t n)
{
    vreal most = {0};
    vbits is_nan = {0};
    for (ptrdiff_t k = 0; k < n; k += V) {
        const vreal a = v_abs(v_load_n(x + k, min_size(V, n - k)));
        most = v_max(most, a);
        is_nan |= (vbits)(a != a); /* the next maximum may forget it */
    }
    real result = 0;
    for (ptrdiff_t lane = 0; lane < V; lane++) {
        if (is_nan[lane])
            return (double)NAN;
        result = most[lane] > result ? most[lane] : result;
    }
    return (double)result;
}

typedef struct {
    ptrdiff_t n;
    const real *x;
    double power;
    double *chunks; /* (N_CHUNKS,) */
} norm_args;

static void norm_body(const team *self, const void *argument)
{
    const norm_args *args = argument;
    ptrdiff_t first, last;
    team_share(self, N_CHUNKS, &first, &last);
    for (ptrdiff_t chunk = first; chunk < last; chunk++) {
        ptrdiff_t begin, end;
        sum_chunk(args->n, chunk, &begin, &end);
        const real *x = args->x + begin;
        const ptrdiff_t n = end - begin;
        double *result = args->chunks + chunk;
        if (args->power == 2)
            *result = norm_of_chunk(NORM_SQUARES, x, n, 0);
        else if (args->power == 1)
            *result = norm_of_chunk(NORM_SUM, x, n, 0);
        else if (isinf(args->power))
            *result = largest_of_chunk(x, n);
        else
            *result = norm_of_chunk(NORM_POWERS, x, n, args->power);
    }
}

static double norm(ptrdiff_t n, const void *x, double power, int n_threads)
{
    double chunks[N_CHUNKS];
    const norm_args args = {n, x, power, chunks};
    team_run(flat_threads(n_threads, n), norm_body, &args);
    if (isinf(power)) {
        double largest = 0;
        for (int i = 0; i < N_CHUNKS; i++)
            if (chunks[i] > largest || chunks[i] != chunks[i])
                largest = chunks[i];
        return largest;
    }
    const double sum = sum_of_chunks(chunks);
    return power == 2 ? sqrt(sum) : power == 1 ? sum : pow(sum, 1 / power);
}

typedef struct {
    ptrdiff_t n;
    real *x;
    real value;
} in_place_args;

static void scale_body(const team *self, const void *argument)
{
    const in_place_args *args = argument;
    const vreal factor = v_set1(args->value);
    ptrdiff_t begin, end;
    flat_share(self, args->n, &begin, &end);
    for (ptrdiff_t k = begin; k < end; k += V) {
        const ptrdiff_t n = min_size(V, end - k);
        v_store_n(args->x + k, factor * v_load_n(args->x + k, n), n);
    }
}

static void clamp_body(const team *self, const void *argument)
{
    const in_place_args *args = argument;
    const vreal highest = v_set1(args->value), lowest = v_set1(-args->value);
    ptrdiff_t begin, end;
    flat_share(self, args->n, &begin, &end);
    for (ptrdiff_t k = begin; k < end; k += V) {
        const ptrdiff_t n = min_size(V, end - k);
        const vreal a = v_load_n(args->x + k, n);
        v_store_n(args->x + k, v_max(lowest, v_min(highest, a)), n);
    }
}

static void scale(ptrdiff_t n, void *x, double factor, int n_threads)
{
    const in_place_args args = {n, x, (real)factor};
    team_run(flat_threads(n_threads, n), scale_body, &args);
}

static void clamp(ptrdiff_t n, void *x, double limit, int n_threads)
{
    const in_place_args args = {n, x, (real)limit};
    team_run(flat_threads(n_threads, n), clamp_body, &args);
}
