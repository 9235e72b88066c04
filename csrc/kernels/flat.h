/* SPDX-License-Identifier: BSD-3-Clause */
/* flat.h -- what the loops over flat buffers have in common: the number of threads, the
 * share of each thread, and sums whose order depends only on the number of elements.
 *
 * A sum over n elements is cut into N_SLICES slices of whole groups of SUM_LANES
 * elements.  Within a slice element k is added to partial sum k mod SUM_LANES.  Then
 * the partial sums are added, one half to the other until one sum is left, and the sums
 * of the slices in order.  All additions are in double, and none is fused with a
 * product, so the bits are the same for any number of threads and on every target.
 */
#ifndef FR_FLAT_H
#define FR_FLAT_H

#include "fastrnn.h"
#include "parallel.h"
#include "simd.h"

#define CACHE_LINE ((ptrdiff_t)(64 / sizeof(real)))
#define FLAT_GRAIN 16384 /* elements; with fewer, a thread costs more than it saves */
#define N_SLICES 64      /* of a sum, and so the most threads that it can use */
#define SUM_LANES 32     /* independent partial sums, enough to hide latency */

INLINE int flat_threads(int n_threads, ptrdiff_t n)
{
    return (int)max_size(1, min_size(n_threads, n / FLAT_GRAIN));
}

/* This thread's share of n elements in whole cache lines: [*begin, *end). */
INLINE void flat_share(const team *self, ptrdiff_t n, ptrdiff_t *begin, ptrdiff_t *end)
{
    team_share(self, n_parts(n, CACHE_LINE), begin, end);
    *begin = min_size(n, *begin * CACHE_LINE);
    *end = min_size(n, *end * CACHE_LINE);
}

/* Which elements of a sum over n are in a slice: [*begin, *end). */
INLINE void sum_slice(ptrdiff_t n, ptrdiff_t slice, ptrdiff_t *begin, ptrdiff_t *end)
{
    const ptrdiff_t groups = n_parts(n, SUM_LANES);
    *begin = min_size(n, part_start(groups, N_SLICES, slice) * SUM_LANES);
    *end = min_size(n, part_start(groups, N_SLICES, slice + 1) * SUM_LANES);
}

/* Number of elements that the kernel works on: those in spans, if there are spans. */
INLINE ptrdiff_t extent_size(const fr_extent *extent)
{
    if (extent->spans == NULL)
        return extent->n;
    ptrdiff_t size = 0;
    for (ptrdiff_t i = 0; i < extent->n_spans; i++)
        size += extent->spans[2 * i + 1] - extent->spans[2 * i];
    return size;
}

INLINE int extent_threads(const fr_extent *extent)
{
    return flat_threads(extent->n_threads, extent_size(extent));
}

/* Returns the number of the first span that ends after element k. */
INLINE ptrdiff_t first_span(const fr_extent *extent, ptrdiff_t k)
{
    ptrdiff_t low = 0, high = extent->n_spans;
    while (low < high) {
        const ptrdiff_t middle = (low + high) / 2;
        if (extent->spans[2 * middle + 1] <= k)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

INLINE double sum_of_slices(const double *slices)
{
    double sum = 0;
    for (int i = 0; i < N_SLICES; i++)
        sum += slices[i];
    return sum;
}

/* The SUM_LANES partial sums of a slice. */
#define N_PARTIALS (SUM_LANES / (V_BYTES / sizeof(double)))
typedef struct {
    vdouble part[N_PARTIALS];
} partials;

INLINE double sum_of_partials(const partials *a)
{
    double lanes[SUM_LANES];
    memcpy(lanes, a->part, sizeof lanes);
    for (int half = SUM_LANES / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++)
            lanes[j] += lanes[j + half];
    return lanes[0];
}

#endif
