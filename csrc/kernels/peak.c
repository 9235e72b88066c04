/* SPDX-License-Identifier: BSD-3-Clause */
/* peak.c -- the most fused multiply-adds that this processor can do.
 *
 * The benchmarks in bench/ give speeds as shares of this peak.  Every thread runs
 * independent chains of v_fma that never leave their registers.  A vector FMA counts as
 * 2 V operations, and so do the product and the sum that targets without FMA run
 * instead.
 *
 * The chains must cover latency times issue rate (4 cycles x 2 ports = 8 on current
 * x86, 4 x 4 = 16 on wide ARM cores) and leave registers for the two constants.
 */
#include "target.h"
#include "simd.h"
#include "parallel.h"

#define PEAK_CHAINS (V_REGISTERS == 32 ? 24 : 12)

typedef struct {
    ptrdiff_t n;
    double *operations; /* written: operations of the whole team */
} peak_args;

static void peak_body(const team *self, const void *arguments)
{
    const peak_args *args = arguments;
    const vreal factor = v_set1((real)0.5), term = v_set1((real)0.25);
    vreal chain[PEAK_CHAINS];

    for (int k = 0; k < PEAK_CHAINS; k++)
        chain[k] = v_set1((real)k);
    for (ptrdiff_t round = 0; round < args->n; round++) {
#pragma GCC unroll 24
        for (int k = 0; k < PEAK_CHAINS; k++)
            chain[k] = v_fma(chain[k], factor, term);
    }

    /* The results go to memory that the compiler must write, so the loop stays. */
    volatile real kept;
    for (int k = 0; k < PEAK_CHAINS; k++)
        kept = chain[k][0];
    (void)kept;
    if (self->rank == 0)
        *args->operations =
            2.0 * PEAK_CHAINS * (double)V * (double)args->n * self->size;
}

/* Runs n rounds on n_threads threads and returns the number of operations of all
 * threads; the caller measures the time. */
static double fma_peak(int n_threads, ptrdiff_t n)
{
    double operations = 0;
    const peak_args args = {n, &operations};
    team_run(n_threads, peak_body, &args);
    return operations;
}
