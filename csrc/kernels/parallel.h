/* SPDX-License-Identifier: BSD-3-Clause */
/* parallel.h -- one parallel region a call, its threads as a team, teams within it, and
 * how they wait for each other.
 *
 * Without OpenMP, or with one thread, nothing parallel is entered: GNU OpenMP's pool
 * does not survive fork(), and a process that never made one has no such trouble.
 */
#ifndef FR_PARALLEL_H
#define FR_PARALLEL_H

#include "fastrnn.h"
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
    _Atomic ptrdiff_t done;
} __attribute__((aligned(64))) step_count;

/* Where the threads of a region wait.  All of them have one barrier.  A team may have
 * teams within it, those again: one that begins with thread i has barrier i of its
 * level.  What those need grows with the number of threads, so it is not on the stack:
 * a kernel whose threads form smaller teams gets room for it with its workspace. */
enum { TEAM_LEVELS = 2 }; /* of teams within the region's */
typedef struct {
    barrier_state all;
    int n_threads;
    barrier_state *barriers; /* TEAM_LEVELS times n_threads, or NULL */
    step_count *steps;       /* each thread's, for those who follow it, or NULL */
} region;

/* Bytes that teams within one of n_threads need. */
INLINE ptrdiff_t team_room(int n_threads)
{
    return n_threads *
           (ptrdiff_t)(TEAM_LEVELS * sizeof(barrier_state) + sizeof(step_count));
}

typedef struct {
    int rank; /* 0 .. size - 1 */
    int size;
    int first, level; /* rank 0 is thread `first` of the region */
    region *region;
} team;

INLINE void spin_pause(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* The n-th look at what another thread is to change.  Who has waited longer than some
 * microseconds lets others run: where more threads want to run than there are
 * processors, spinning would keep the awaited one away. */
INLINE void wait_a_little(int n)
{
    if (n < MAX_SPINS)
        spin_pause();
    else
        sched_yield();
}

/* Everybody waits here for everybody.  All threads of the team call it equally often. */
INLINE void team_barrier(const team *self)
{
    if (self->size == 1)
        return;
    region *shared = self->region;
    barrier_state *b = &shared->all;
    if (self->level > 0)
        b = &shared->barriers[(self->level - 1) * shared->n_threads + self->first];
    const int phase = atomic_load_explicit(&b->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&b->arrived, 1, memory_order_acq_rel) ==
        self->size - 1) {
        atomic_store_explicit(&b->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&b->phase, phase + 1, memory_order_release);
        return;
    }
    for (int n = 0; atomic_load_explicit(&b->phase, memory_order_acquire) == phase; n++)
        wait_a_little(n);
}

/* This thread's even share of n: [*begin, *end). */
INLINE void team_share(const team *self, ptrdiff_t n, ptrdiff_t *begin, ptrdiff_t *end)
{
    *begin = part_start(n, self->size, self->rank);
    *end = part_start(n, self->size, self->rank + 1);
}

/* The threads [begin, end) of a team, this one among them, as a team. */
INLINE team team_within(const team *self, int begin, int end)
{
    return (team){self->rank - begin, end - begin, self->first + begin, self->level + 1,
                  self->region};
}

/* The group of `size` neighbours that this thread is in; `size` divides the team's. */
INLINE team team_group(const team *self, int size)
{
    const int begin = self->rank / size * size;
    return team_within(self, begin, begin + size);
}

/* Calls that run at once, each on a part of the team.  Where they are chained, each goes
 * through its steps behind the one before, whose results it reads. */
typedef struct {
    team own;
    int call; /* which is this thread's */
    int follows, leads;
    int before_begin, before_end; /* threads of the region that have the one before */
} team_part;

INLINE team_part get_team_part(const team *self, int calls, int chained)
{
    const ptrdiff_t n = self->size;
    int call = 0;
    while (part_start(n, calls, call + 1) <= self->rank)
        call++;
    const int begin = (int)part_start(n, calls, call);
    return (team_part){
        .own = team_within(self, begin, (int)part_start(n, calls, call + 1)),
        .call = call,
        .follows = chained && call > 0,
        .leads = chained && call + 1 < calls,
        .before_begin = self->first + (int)part_start(n, calls, max_size(0, call - 1)),
        .before_end = self->first + begin,
    };
}

/* A call that has the whole team. */
INLINE team_part whole_team(const team *self)
{
    return (team_part){.own = *self};
}

/* Waits until the call before has done so many steps. */
INLINE void follow_steps(const team_part *part, ptrdiff_t steps)
{
    for (int i = part->before_begin; part->follows && i < part->before_end; i++) {
        step_count *before = &part->own.region->steps[i];
        for (int n = 0;
             atomic_load_explicit(&before->done, memory_order_acquire) < steps; n++)
            wait_a_little(n);
    }
}

/* Tells the call behind that this thread's part of so many steps is done. */
INLINE void lead_steps(const team_part *part, ptrdiff_t steps)
{
    if (part->leads)
        atomic_store_explicit(
            &part->own.region->steps[part->own.first + part->own.rank].done, steps,
            memory_order_release);
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

/* Run body(self, args) on a team of up to n_threads threads.  `room` is team_room()
 * bytes from the start of a cache line; NULL where the team has no teams within it. */
INLINE void team_run_within(int n_threads, void *room,
                            void (*body)(const team *, const void *), const void *args)
{
#ifdef _OPENMP
    if (n_threads > 1 && fr_team_size(n_threads) > 1) {
        region shared = {.n_threads = n_threads};
        if (room) {
            shared.barriers = room;
            shared.steps = (step_count *)(shared.barriers + TEAM_LEVELS * n_threads);
            memset(room, 0, (size_t)team_room(n_threads));
        }
#pragma omp parallel num_threads(n_threads)
        {
            const team self = {omp_get_thread_num(), omp_get_num_threads(), 0, 0,
                               &shared};
            const uint64_t mode = subnormals_flush();
            body(&self, args);
            subnormals_restore(mode);
            team_barrier(&self); /* arrive together where OpenMP's own barrier spins */
        }
        return;
    }
#endif
    (void)n_threads;
    (void)room;
    const team alone = {0, 1, 0, 0, NULL};
    const uint64_t mode = subnormals_flush();
    body(&alone, args);
    subnormals_restore(mode);
}

/* The same for a team that only shares work and meets as a whole. */
INLINE void team_run(int n_threads, void (*body)(const team *, const void *),
                     const void *args)
{
    team_run_within(n_threads, NULL, body, args);
}

#endif
