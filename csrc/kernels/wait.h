/* SPDX-License-Identifier: BSD-3-Clause */
/* wait.h -- how a thread of a team waits until another one has done its part.
 *
 * It spins for a while, since most waits are shorter than falling asleep and waking up
 * takes.  Then it sleeps: where the machine has other work, the processor on which the
 * thread would go on spinning is perhaps the one that the awaited thread needs.
 *
 * A `wait_place` is what threads sleep on.  Whoever sleeps there says so in `sleepers`
 * first and then looks at the awaited value once more; whoever changes that value looks
 * at `sleepers` afterwards, and makes a system call only if there are any.  These four
 * accesses have one order that all threads agree on (memory_order_seq_cst), so that one
 * of the two sees what the other has written, and no wake-up is lost.
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

typedef struct {
    _Atomic int word; /* another one after each wake-up */
    _Atomic int sleepers;
} wait_place;

typedef struct {
    _Atomic int arrived;
    wait_place phase; /* its word counts the barriers passed */
} __attribute__((aligned(64))) barrier_state;

typedef struct {
    _Atomic ptrdiff_t done;
    wait_place place;
} __attribute__((aligned(64))) step_count;

INLINE void spin_pause(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Sleeps until phase `before` of a barrier is over. */
static void sleep_in_phase(wait_place *phase, int before)
{
    atomic_fetch_add(&phase->sleepers, 1);
    while (atomic_load(&phase->word) == before)
        fr_wait_on_word(&phase->word, before);
    atomic_fetch_sub(&phase->sleepers, 1);
}

/* Ends a barrier's phase, and wakes who sleeps in it. */
INLINE void end_phase(wait_place *phase, int before)
{
    atomic_store(&phase->word, before + 1);
    if (atomic_load(&phase->sleepers) > 0)
        fr_wake_word(&phase->word);
}

/* Sleeps until `steps` steps are done. */
static void sleep_until_done(step_count *count, ptrdiff_t steps)
{
    atomic_fetch_add(&count->place.sleepers, 1);
    for (;;) {
        const int word = atomic_load(&count->place.word);
        if (atomic_load(&count->done) >= steps)
            break;
        fr_wait_on_word(&count->place.word, word);
    }
    atomic_fetch_sub(&count->place.sleepers, 1);
}

/* Says that `steps` steps are done, and wakes who sleeps until then. */
INLINE void set_done(step_count *count, ptrdiff_t steps)
{
    atomic_store(&count->done, steps);
    if (atomic_load(&count->place.sleepers) > 0) {
        atomic_fetch_add(&count->place.word, 1);
        fr_wake_word(&count->place.word);
    }
}

#endif
