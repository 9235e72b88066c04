/* SPDX-License-Identifier: BSD-3-Clause */
/* wait.c -- how a thread sleeps until a word of memory changes.
 *
 * A thread that waits for another one spins first, and sleeps after a while: where the
 * machine is busy, the processor that it would spin on is the one that the awaited
 * thread needs.  Linux has a system call for that, the futex, which keeps no state
 * outside the word, and Windows has the same as WaitOnAddress.  Elsewhere all sleepers
 * of the process share one condition variable, and whoever is woken looks at its own
 * word again.  This file is compiled once, not once per target.
 */
#define _GNU_SOURCE
#include "fastrnn.h"

#if defined(__linux__)
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <pthread.h>
#include <stdatomic.h>
#endif
#ifndef _WIN32
#include <sched.h>
#endif

#if defined(__linux__)

void fr_wait_on_word(_Atomic int *word, int value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

void fr_wake_word(_Atomic int *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

#elif defined(_WIN32)

void fr_wait_on_word(_Atomic int *word, int value)
{
    WaitOnAddress((volatile void *)word, &value, sizeof value, INFINITE);
}

void fr_wake_word(_Atomic int *word)
{
    WakeByAddressAll((void *)word);
}

#else

static pthread_mutex_t door = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

void fr_wait_on_word(_Atomic int *word, int value)
{
    pthread_mutex_lock(&door);
    if (atomic_load(word) == value)
        pthread_cond_wait(&changed, &door);
    pthread_mutex_unlock(&door);
}

void fr_wake_word(_Atomic int *word)
{
    (void)word;
    pthread_mutex_lock(&door); /* no sleeper is between its look and its sleep */
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&door);
}

#endif

void fr_yield(void)
{
#if defined(_WIN32)
    SwitchToThread();
#else
    sched_yield();
#endif
}
