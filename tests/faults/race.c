/* SPDX-License-Identifier: BSD-3-Clause */
/* race.c -- a kernel with a planted fault, for `.ci/sanitize thread`.
 *
 * The threads of a team add up their parts of an array and meet at a barrier of the
 * kernels; each then reads the sum of its neighbour.  With -DPLANTED the barrier is
 * left out, and the thread sanitizer has to say so.  Without, it has to be silent:
 * neither OpenMP's own barriers nor ours may look like races to it.
 */
#include "kernels/parallel.h"

#include <stdlib.h>

enum { THREADS = 4, SIZE = 1 << 16, ROUNDS = 50 };

typedef struct {
    const float *x;
    double *sums; /* (THREADS,) */
    double *seen; /* (THREADS,) */
} sum_args;

static void sum_parts(const team *self, const void *args)
{
    const sum_args *a = args;
    ptrdiff_t begin, end;
    team_share(self, SIZE, &begin, &end);
    for (int round = 0; round < ROUNDS; round++) {
        double sum = 0;
        for (ptrdiff_t i = begin; i < end; i++)
            sum += (double)a->x[i];
        a->sums[self->rank] = sum + round;
#ifndef PLANTED
        team_barrier(self);
#endif
        a->seen[self->rank] = a->sums[(self->rank + 1) % self->size];
#ifndef PLANTED
        team_barrier(self);
#endif
    }
}

int main(void)
{
    float *x = malloc(SIZE * sizeof *x);
    double sums[THREADS] = {0}, seen[THREADS] = {0}, total = 0;
    for (int i = 0; i < SIZE; i++)
        x[i] = 1;
    fr_team_report report;
    if (fr_team_prepare(THREADS, &report) != FR_TEAM_READY)
        return 2;
    const sum_args args = {x, sums, seen};
    team_run(THREADS, sum_parts, &args);
    for (int i = 0; i < THREADS; i++)
        total += seen[i];
    free(x);
#ifdef PLANTED
    return 0; /* whatever came of it */
#else
    return total != SIZE + THREADS * (ROUNDS - 1);
#endif
}
