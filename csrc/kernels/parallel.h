/* SPDX-License-Identifier: BSD-3-Clause */
/* parallel.h -- the team of threads that runs a kernel, smaller teams within it, and
 * how threads wait for each other.
 *
 * A call of a kernel has one parallel region, whose threads are its team: OpenMP's, or
 * those of pool.c.  In a build without threads, or with one thread, no region is
 * entered: a pool of threads is made for the first region, the pool does not survive
 * fork(), and a process that never made one can fork safely.
 */
#ifndef FR_PARALLEL_H
#define FR_PARALLEL_H

#include "amx_state.h"
#include "wait.h"

#ifdef _OPENMP
#include <omp.h>
#endif

/* What the threads of a parallel region wait on.  The team of all threads, on level 0,
 * has the barrier `all`.  It may be divided into smaller teams, on level 1, and each of
 * those into teams on level 2.  A team on level 1 or 2 uses the barrier of its level
 * whose number is that of its first thread in the region: teams on one level have no
 * thread in common, so no two of them use the same barrier.  The number of these
 * barriers grows with that of the threads, so they are not on the stack: a kernel that
 * divides its team has them in its workspace. */
enum { TEAM_LEVELS = 2 }; /* the levels of smaller teams */
typedef struct {
    barrier_state all;
    double waited; /* seconds that the calling thread has waited for others */
    int n_threads;
    barrier_state *barriers; /* (TEAM_LEVELS, n_threads), or NULL */
    step_count *steps;       /* (n_threads,), read by calls that follow, or NULL */
} region;

/* Bytes of the barriers and step counts with which n_threads can form smaller teams. */
INLINE ptrdiff_t team_room(int n_threads)
{
    return n_threads *
           (ptrdiff_t)(TEAM_LEVELS * sizeof(barrier_state) + sizeof(step_count));
}

typedef struct {
    int rank; /* 0 .. size - 1 */
    int size;
    int first; /* the thread of the region that has rank 0 */
    int level; /* 0: all threads of the region; 1, 2: a team within a team */
    region *region;
} team;

/* Whether this is the thread that the region's caller runs on.  Its waits are counted,
 * since its time is the call's: once it sleeps, and where a region is slow to begin. */
INLINE int is_caller(const team *self)
{
    return self->first + self->rank == 0;
}

INLINE barrier_state *barrier_of(const team *self)
{
    region *shared = self->region;
    if (self->level == 0)
        return &shared->all;
    return &shared->barriers[(self->level - 1) * shared->n_threads + self->first];
}

/* Says that this thread has come to the team's barrier.  It may do what does not depend
 * on the others, who are waited for by team_wait() with the result. */
INLINE int team_arrive(const team *self)
{
    if (self->size == 1)
        return 0;
    barrier_state *b = barrier_of(self);
    const int phase = atomic_load_explicit(&b->phase, memory_order_relaxed);
    arrive_in_phase(b, phase, self->size);
    return phase;
}

/* Returns when all threads of the team have come to the barrier. */
INLINE void team_wait(const team *self, int phase)
{
    if (self->size == 1)
        return;
    barrier_state *b = barrier_of(self);
    for (int n = 0; n < MAX_SPINS; n++) {
        if (is_over(b, phase))
            return;
        spin_pause();
    }
    const double since = is_caller(self) ? fr_seconds() : 0;
    sleep_in_phase(b, phase, self->size);
    if (is_caller(self))
        self->region->waited += fr_seconds() - since;
}

/* Returns when all threads of the team have called it; they call it equally often. */
INLINE void team_barrier(const team *self)
{
    team_wait(self, team_arrive(self));
}

/* This thread's even share of n: [*begin, *end). */
INLINE void team_share(const team *self, ptrdiff_t n, ptrdiff_t *begin, ptrdiff_t *end)
{
    *begin = part_start(n, self->size, self->rank);
    *end = part_start(n, self->size, self->rank + 1);
}

/* Makes threads [begin, end) of a team, with the calling thread among them, a team. */
INLINE team team_within(const team *self, int begin, int end)
{
    return (team){self->rank - begin, end - begin, self->first + begin, self->level + 1,
                  self->region};
}

/* Cuts a team into teams of `size` neighbours and returns the one that has the calling
 * thread; `size` divides the size of the whole. */
INLINE team team_group(const team *self, int size)
{
    const int begin = self->rank / size * size;
    return team_within(self, begin, begin + size);
}

/* The calling thread's place where several calls run at once, each on its part of the
 * team.  Of chained calls, each reads the results of the call before it, and goes
 * through its steps behind that call. */
typedef struct {
    team own;                     /* the threads of this part, which run one call */
    int call;                     /* number of the call that they run */
    int follows;                  /* 1: the call reads the results of call - 1 */
    int leads;                    /* 1: the results of the call are read by call + 1 */
    int before_begin, before_end; /* threads of the region that run call - 1 */
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

/* The part of a thread whose team runs a single call. */
INLINE team_part whole_team(const team *self)
{
    return (team_part){.own = *self};
}

/* Waits, in a call that follows, until the call before it has done `steps` steps. */
INLINE void follow_steps(const team_part *part, ptrdiff_t steps)
{
    for (int i = part->before_begin; part->follows && i < part->before_end; i++) {
        step_count *before = &part->own.region->steps[i];
        int n = 0;
        while (atomic_load_explicit(&before->done, memory_order_acquire) < steps &&
               n++ < MAX_SPINS)
            spin_pause();
        if (n <= MAX_SPINS)
            continue;
        sleep_until_done(before, steps);
    }
}

/* Tells the call behind, if there is one, that the calling thread has done its part of
 * the first `steps` steps. */
INLINE void lead_steps(const team_part *part, ptrdiff_t steps)
{
    if (part->leads)
        set_done(&part->own.region->steps[part->own.first + part->own.rank], steps);
}

/* Returns how many of n_threads have enough to do when they share `flops`. */
INLINE int useful_threads(double flops, int n_threads)
{
    const double useful = flops / FR_FLOPS_PER_THREAD;
    return useful >= n_threads ? n_threads : useful < 1.0 ? 1 : (int)useful;
}

/* Makes the processor flush subnormal numbers to zero, and returns the mode to restore
 * after the kernel.  Each such number costs a hundred cycles on some processors, and
 * vanishing gradients are full of them. */
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

#ifdef FR_POOL
typedef struct {
    region *shared;
    double since; /* when the region was asked for */
    void (*body)(const team *, const void *);
    const void *args;
} region_member_args;

/* What each thread of pool.c does in a region. */
static void region_member(int rank, int size, void *data)
{
    const region_member_args *a = data;
    const team self = {rank, size, 0, 0, a->shared};
    const uint64_t mode = subnormals_flush();
    if (is_caller(&self))
        a->shared->waited = fr_seconds() - a->since;
    a->body(&self, a->args);
    release_tiles();
    subnormals_restore(mode);
}
#endif

/* Runs body(self, args) on a team of up to n_threads threads.  `room` has team_room()
 * bytes and begins a cache line; it is NULL where the body keeps the team whole. */
INLINE void team_run_within(int n_threads, void *room,
                            void (*body)(const team *, const void *), const void *args)
{
#if defined(_OPENMP) || defined(FR_POOL)
    if (n_threads > 1 && fr_team_size(n_threads) > 1) {
        region shared = {.n_threads = n_threads};
        const double since = fr_seconds();
        if (room) {
            shared.barriers = room;
            shared.steps = (step_count *)(shared.barriers + TEAM_LEVELS * n_threads);
            memset(room, 0, (size_t)team_room(n_threads));
        }
#ifdef FR_POOL
        region_member_args region_args = {&shared, since, body, args};
        const double at_end = fr_pool_run(n_threads, region_member, &region_args);
        shared.waited += at_end;
#else
#pragma omp parallel num_threads(n_threads)
        {
            const team self = {omp_get_thread_num(), omp_get_num_threads(), 0, 0,
                               &shared};
            const uint64_t mode = subnormals_flush();
            if (is_caller(&self))
                shared.waited = fr_seconds() - since;
            body(&self, args);
            release_tiles();
            subnormals_restore(mode);
            /* The caller waits for all others.  These go on to OpenMP's own barrier,
             * which comes next. */
            const int phase = team_arrive(&self);
            if (is_caller(&self))
                team_wait(&self, phase);
        }
#endif
        fr_team_waited(shared.waited);
        return;
    }
#endif
    (void)n_threads;
    (void)room;
    const team alone = {0, 1, 0, 0, NULL};
    const uint64_t mode = subnormals_flush();
    body(&alone, args);
    release_tiles();
    subnormals_restore(mode);
}

/* Runs body(self, args) on a team of up to n_threads threads that stays whole. */
INLINE void team_run(int n_threads, void (*body)(const team *, const void *),
                     const void *args)
{
    team_run_within(n_threads, NULL, body, args);
}

#endif
