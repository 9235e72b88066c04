/* SPDX-License-Identifier: BSD-3-Clause */
/* wait.h -- how a thread of a team waits until another one has done its part.
 *
 * It spins for a while, since most waits are shorter than falling asleep and waking up
 * takes.  Then it sleeps: where the machine has other work, the processor on which the
 * thread would go on spinning is perhaps the one that the awaited thread needs.
 *
 * Nobody makes a system call to wake others unless somebody sleeps, and no wake-up may
 * be lost.  At a barrier both hang on one word, `arrived`: who is about to sleep marks it
 * there, and sees whether the last thread has arrived; the last one to arrive sees the
 * mark.  Of two accesses of one word that change it, the later one sees the earlier.
 * Where steps are counted, who is about to sleep says so in `sleepers` and then looks at
 * the count once more, and who has changed the count looks at `sleepers`.  These four
 * accesses have one order that all threads agree on (memory_order_seq_cst), so that one
 * of the two sees what the other has written.
 */
#ifndef FR_WAIT_H
#define FR_WAIT_H

#include "fastrnn.h"
#include "target.h"

#include <stdatomic.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define MAX_SPINS 2000 /* some 20 to 100 microseconds */

/* In `arrived`: the threads that have come to the barrier, and a mark that some of them
 * sleep. */
enum { ARRIVED = 0xffff, SOME_SLEEP = 0x10000 };
typedef struct {
    _Atomic int arrived;
    _Atomic int phase; /* counts the barriers passed */
} __attribute__((aligned(64))) barrier_state;

typedef struct {
    _Atomic ptrdiff_t done;
    _Atomic int sleepers;
    _Atomic int woken; /* counts the wake-ups */
} __attribute__((aligned(64))) step_count;

INLINE void spin_pause(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Says that a thread of a team of `size` has come to a barrier.  The last one to come
 * ends the phase, and wakes who sleeps in it. */
INLINE void arrive_in_phase(barrier_state *b, int phase, int size)
{
    const int before = atomic_fetch_add_explicit(&b->arrived, 1, memory_order_acq_rel);
    if ((before & ARRIVED) < size - 1)
        return;
    atomic_store_explicit(&b->arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&b->phase, phase + 1, memory_order_release);
    if (before & SOME_SLEEP)
        fr_wake_word(&b->phase);
}

INLINE int is_over(barrier_state *b, int phase)
{
    return atomic_load_explicit(&b->phase, memory_order_acquire) != phase;
}

/* Sleeps until a phase of a barrier is over.  Where the mark comes after the last
 * thread, which may not have seen it, the end of the phase is a few instructions away;
 * a mark left behind then costs the next phase a system call. */
static __attribute__((noinline, unused)) void sleep_in_phase(barrier_state *b,
                                                             int phase, int size)
{
    const int before =
        atomic_fetch_or_explicit(&b->arrived, SOME_SLEEP, memory_order_acq_rel);
    const int arrived = before & ARRIVED; /* 0: the last one has set it back already */
    while (!is_over(b, phase))
        if (arrived > 0 && arrived < size)
            fr_wait_on_word(&b->phase, phase);
        else
            fr_yield();
}

/* Sleeps until `steps` steps are done. */
static __attribute__((noinline)) void sleep_until_done(step_count *count,
                                                       ptrdiff_t steps)
{
    atomic_fetch_add(&count->sleepers, 1);
    for (;;) {
        const int woken = atomic_load(&count->woken);
        if (atomic_load(&count->done) >= steps)
            break;
        fr_wait_on_word(&count->woken, woken);
    }
    atomic_fetch_sub(&count->sleepers, 1);
}

/* Says that `steps` steps are done, and wakes who sleeps until then. */
INLINE void set_done(step_count *count, ptrdiff_t steps)
{
    atomic_store(&count->done, steps);
    if (atomic_load(&count->sleepers) > 0) {
        atomic_fetch_add(&count->woken, 1);
        fr_wake_word(&count->woken);
    }
}

#endif
