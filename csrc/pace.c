/* SPDX-License-Identifier: BSD-3-Clause */
/* pace.c -- how long calls take and how long their threads wait for each other.
 *
 * Where other programs use the processors as well, a team waits for those of its
 * threads that do not run, and one thread may be faster.  What a caller needs in order
 * to notice that is added up here for each thread that makes calls.  This file is
 * compiled once, and keeps no other state.
 */
#define _GNU_SOURCE
#include "fastrnn.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <time.h>
#endif

static _Thread_local fr_pace own STATIC_TLS;
static _Thread_local double waited STATIC_TLS; /* in the present call */

double fr_seconds(void)
{
#if defined(_WIN32)
    LARGE_INTEGER ticks, per_second;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&per_second);
    return (double)ticks.QuadPart / (double)per_second.QuadPart;
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
#endif
}

void fr_team_waited(double seconds)
{
    waited += seconds;
}

void fr_pace_add(int n_threads, double seconds, double flops)
{
    if (own.n_threads != n_threads)
        own = (fr_pace){.n_threads = n_threads};
    own.calls++;
    own.seconds += seconds;
    own.waited += waited;
    own.flops += flops;
    waited = 0;
}

int fr_pace_take(double seconds, fr_pace *pace)
{
    if (own.seconds < seconds)
        return 0;
    *pace = own;
    own = (fr_pace){0};
    return 1;
}
