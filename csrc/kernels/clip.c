/* SPDX-License-Identifier: BSD-3-Clause */
/* clip.c -- the norm of a flat buffer, and the buffer scaled or clamped in place.
 *
 *   norm_p(x) = (sum over k of |x_k|^p)^(1/p), p > 0;   norm_inf(x) = max |x_k|
 *
 * A NaN anywhere makes the norm NaN.  Sums are taken in double, in the order that
 * flat.h defines, so the 2-norm of finite float32 elements never overflows, and that of
 * float64 elements only where some of them exceed 1e154 or so.  Where the caller gives
 * spans, the elements outside them are known to be zero and are not read: each would
 * add zero to a partial sum.  The threads share the slices of a sum, or the elements of
 * a buffer that is changed in place.
 */
#include <math.h>

#include "fastrnn.h"
#include "target.h"
#include "simd.h"
#include "parallel.h"
#include "flat.h"

typedef int64_t vdouble_bits __attribute__((vector_size(V_BYTES)));

typedef enum { NORM_SUM, NORM_SQUARES, NORM_POWERS, NORM_LARGEST } norm_kind;

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

/* Adds elements [lo, hi) of one group of SUM_LANES elements, which begins at x, to the
 * partial sums.  The rest of the group counts as zeros, which change no partial sum. */
INLINE void norm_add_part(norm_kind kind, partials *acc, const real *x, ptrdiff_t lo,
                          ptrdiff_t hi, double power)
{
    real part[SUM_LANES] = {0};
    memcpy(part + lo, x + lo, (size_t)(hi - lo) * sizeof *part);
    norm_add(kind, acc, part, power);
}

/* Adds elements [lo, hi) of a slice that begins at x to the partial sums that flat.h
 * assigns them to. */
INLINE void norm_add_span(norm_kind kind, partials *acc, const real *x, ptrdiff_t lo,
                          ptrdiff_t hi, double power)
{
    const ptrdiff_t before = lo % SUM_LANES;
    if (before > 0) {
        const ptrdiff_t end = min_size(SUM_LANES, before + hi - lo);
        norm_add_part(kind, acc, x + lo - before, before, end, power);
        lo += end - before;
    }
    for (; lo + SUM_LANES <= hi; lo += SUM_LANES)
        norm_add(kind, acc, x + lo, power);
    if (lo < hi)
        norm_add_part(kind, acc, x + lo, 0, hi - lo, power);
}

INLINE double norm_of_slice(norm_kind kind, const real *x, ptrdiff_t n, double power)
{
    partials acc = {0};
    norm_add_span(kind, &acc, x, 0, n, power);
    return sum_of_partials(&acc);
}

INLINE double largest_of_slice(const real *x, ptrdiff_t n)
{
    vreal most = {0};
    vbits is_nan = {0};
    for (ptrdiff_t k = 0; k < n; k += V) {
        const vreal a = v_abs(v_load_n(x + k, min_size(V, n - k)));
        most = v_max(most, a);
        is_nan |= (vbits)(a != a); /* a NaN in `most` is ignored by v_max */
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
    const fr_extent *extent;
    const real *x;
    double power;
    double *slices; /* (N_SLICES,) */
} norm_args;

/* Returns the sum over those elements of the slice [begin, end) that lie in a span, or
 * the largest of their magnitudes. */
INLINE double norm_of_spans(norm_kind kind, const norm_args *args, ptrdiff_t begin,
                            ptrdiff_t end)
{
    const fr_extent *extent = args->extent;
    const real *x = args->x + begin;
    partials acc = {0};
    double largest = 0;
    for (ptrdiff_t i = first_span(extent, begin); i < extent->n_spans; i++) {
        const ptrdiff_t lo = max_size(begin, extent->spans[2 * i]) - begin;
        const ptrdiff_t hi = min_size(end, extent->spans[2 * i + 1]) - begin;
        if (lo >= end - begin)
            break;
        if (kind != NORM_LARGEST) {
            norm_add_span(kind, &acc, x, lo, hi, args->power);
        } else {
            const double found = largest_of_slice(x + lo, hi - lo);
            if (!(found <= largest)) {
                largest = found;
                if (found != found)
                    break;
            }
        }
    }
    return kind == NORM_LARGEST ? largest : sum_of_partials(&acc);
}

INLINE void norm_slice(norm_kind kind, const norm_args *args, ptrdiff_t slice)
{
    ptrdiff_t begin, end;
    sum_slice(args->extent->n, slice, &begin, &end);
    double *result = args->slices + slice;
    if (args->extent->spans != NULL)
        *result = norm_of_spans(kind, args, begin, end);
    else if (kind == NORM_LARGEST)
        *result = largest_of_slice(args->x + begin, end - begin);
    else
        *result = norm_of_slice(kind, args->x + begin, end - begin, args->power);
}

/* With n threads, thread r takes slices r, r + n, r + 2 n and so on.  Threads that took
 * neighbouring slices could be idle: where there are spans, there may be none of them
 * in a long stretch of the buffer. */
static void norm_body(const team *self, const void *argument)
{
    const norm_args *args = argument;
    for (ptrdiff_t slice = self->rank; slice < N_SLICES; slice += self->size) {
        if (args->power == 2)
            norm_slice(NORM_SQUARES, args, slice);
        else if (args->power == 1)
            norm_slice(NORM_SUM, args, slice);
        else if (isinf(args->power))
            norm_slice(NORM_LARGEST, args, slice);
        else
            norm_slice(NORM_POWERS, args, slice);
    }
}

static double norm(const fr_extent *extent, const void *x, double power)
{
    double slices[N_SLICES];
    const norm_args args = {extent, x, power, slices};
    team_run(extent_threads(extent), norm_body, &args);
    if (isinf(power)) {
        double largest = 0;
        for (int i = 0; i < N_SLICES; i++)
            if (slices[i] > largest || slices[i] != slices[i])
                largest = slices[i];
        return largest;
    }
    const double sum = sum_of_slices(slices);
    return power == 2 ? sqrt(sum) : power == 1 ? sum : pow(sum, 1 / power);
}

typedef struct {
    const fr_extent *extent;
    real *x;
    real value;
} in_place_args;

typedef vreal in_place_function(vreal x, vreal value);

INLINE void in_place_range(in_place_function *f, real *x, ptrdiff_t n, vreal value)
{
    ptrdiff_t k = 0;
    for (; k + V <= n; k += V)
        v_store(x + k, f(v_load(x + k), value));
    if (k < n)
        v_store_n(x + k, f(v_load_n(x + k, n - k), value), n - k);
}

/* Replaces x by f(x, value) in this thread's share of the elements. */
INLINE void in_place(const team *self, const in_place_args *args, in_place_function *f)
{
    const fr_extent *extent = args->extent;
    const vreal value = v_set1(args->value);
    ptrdiff_t begin, end;
    flat_share(self, extent_size(extent), &begin, &end);
    if (extent->spans == NULL) {
        in_place_range(f, args->x + begin, end - begin, value);
        return;
    }
    ptrdiff_t at = 0; /* number of elements in the spans before span i */
    for (ptrdiff_t i = 0; i < extent->n_spans && at < end; i++) {
        const ptrdiff_t start = extent->spans[2 * i],
                        n = extent->spans[2 * i + 1] - start;
        const ptrdiff_t lo = max_size(0, begin - at), hi = min_size(n, end - at);
        if (lo < hi)
            in_place_range(f, args->x + start + lo, hi - lo, value);
        at += n;
    }
}

INLINE vreal scaled(vreal x, vreal factor)
{
    return factor * x;
}

INLINE vreal clamped(vreal x, vreal limit)
{
    return v_clamp(x, -limit, limit);
}

INLINE vreal cleared(vreal x, vreal zero)
{
    (void)x;
    return zero;
}

static void scale_body(const team *self, const void *args)
{
    in_place(self, args, scaled);
}

static void clamp_body(const team *self, const void *args)
{
    in_place(self, args, clamped);
}

static void clear_body(const team *self, const void *args)
{
    in_place(self, args, cleared);
}

static void scale(const fr_extent *extent, void *x, double factor)
{
    const in_place_args args = {extent, x, (real)factor};
    team_run(extent_threads(extent), scale_body, &args);
}

static void clamp(const fr_extent *extent, void *x, double limit)
{
    const in_place_args args = {extent, x, (real)limit};
    team_run(extent_threads(extent), clamp_body, &args);
}

static void clear(const fr_extent *extent, void *x)
{
    const in_place_args args = {extent, x, 0};
    team_run(extent_threads(extent), clear_body, &args);
}
