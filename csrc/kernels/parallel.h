/* SPDX-License-Identifier: BSD-3-Clause */
/* parallel.h -- one parallel region a call, a team of threads, and its barrier.
 *
 * Without OpenMP, or with one thread, nothing parallel is entered: GNU OpenMP's pool
 * does not survive fork(), and a process that never made one has no such trouble.
 */
#ifndef FR_PARALLEL_H
#define FR_PARALLEL_H

#include "target.h"

#include <sched.h>
#include <stdatomic.h>

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define MAX_SPINS 2000 /* some 20 to 100 microseconds */

typedef struct {
    _Atomic int arrived;
    _Atomic int phase; /* counts the barriers passed */
} __attribute__((aligned(64))) barrier_state;

typedef struct {
    int rank; /* 0 .. size - 1 */
    int size;
    barrier_state *barrier; /* and one for each of MOST_GROUPS, unless it is a group */
} team;

#define MOST_GROUPS 64
#define TEAM_BARRIERS (1 + MOST_GROUPS)

INLINE void spin_pause(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Everybody waits here for everybody.  All threads of the team call it equally often.
 * Who has waited longer than some microseconds lets others run: where more threads
 * want to run than there are processors, spinning would keep the awaited one away. */
INLINE void team_barrier(const team *self)
{
    barrier_state *b = self->barrier;
    if (self->size == 1)
        return;
    const int phase = atomic_load_explicit(&b->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&b->arrived, 1, memory_order_acq_rel) ==
        self->size - 1) {
        atomic_store_explicit(&b->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&b->phase, phase + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&b->phase, memory_order_acquire) == phase;
         spins++) {
        if (spins < MAX_SPINS)
            spin_pause();
        else
            sched_yield();
    }
}

/* This thread's even share of n: [*begin, *end). */
INLINE void team_share(const team *self, ptrdiff_t n, ptrdiff_t *begin, ptrdiff_t *end)
{
    *begin = part_start(n, self->size, self->rank);
    *end = part_start(n, self->size, self->rank + 1);
}

/* The group of `size` neighbours that this thread is in, a team in the team: `size`
 * divides the team's and makes at most MOST_GROUPS groups, unless it is 1. */
INLINE team team_group(const team *self, int size)
{
    barrier_state *barrier = size > 1 ? self->barrier + 1 + self->rank / size : NULL;
    return (team){self->rank % size, size, barrier};
}

/* The half of a team of two threads or more that this thread is in, 0 or 1. */
INLINE team team_half(const team *self, int *half)
{
    const int first = self->size / 2;
    *half = self->rank >= first;
    return (team){self->rank - *half * first, *half ? self->size - first : first,
                  self->barrier + (1 + *half) * TEAM_BARRIERS};
}

/* Below this much arithmetic a second thread costs more than it brings. */
#define FLOPS_PER_THREAD 400000.0

/* Of n_threads, as many as have enough to do. */
INLINE int useful_threads(double flops, int n_threads)
{
    const double useful = flops / FLOPS_PER_THREAD;
    return useful >= n_threads ? n_threads : useful < 1.0 ? 1 : (int)useful;
}

/* Subnormal numbers cost a hundred cycles each on some processors, and vanishing
 * gradients are full of them: flush them to zero while a kernel runs. */
INLINE uint64_t subnormals_flush(void)
{
#if defined(__x86_64__)
    const uint64_t mode = _mm_getcsr();
    _mm_setcsr((unsigned)mode | 0x8040u); /* FTZ and DAZ */
    return mode;
#elif defined(__aarch64__)
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" ::"r"(mode | (1ull << 24)));
    return mode;
#else
    return 0;
#endif
}

INLINE void subnormals_restore(uint64_t mode)
{
#if defined(__x86_64__)
    _mm_setcsr((unsigned)mode);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" ::"r"(mode));
#else
    (void)mode;
#endif
}

/* Run body(self, args) on a team of up to n_threads threads. */
INLINE void team_run(int n_threads, void (*body)(const team *, const void *),
                     const void *args)
{
#ifdef _OPENMP
    if (n_threads > 1) {
        barrier_state barriers[3 * TEAM_BARRIERS] = {{0, 0}}; /* a team, two halves */
#pragma omp parallel num_threads(n_threads)
        {
            const team self = {omp_get_thread_num(), omp_get_num_threads(), barriers};
            const uint64_t mode = subnormals_flush();
            body(&self, args);
            subnormals_restore(mode);
            team_barrier(&self); /* arrive together where OpenMP's own barrier spins */
        }
        return;
    }
#endif
    (void)n_threads;
    const team alone = {0, 1, NULL};
    const uint64_t mode = subnormals_flush();
    body(&alone, args);
    subnormals_restore(mode);
}

#endif
