/* SPDX-License-Identifier: BSD-3-Clause */
/* amx.c -- whether this process may use the tiles of AMX.
 *
 * Their registers are 8 KiB, which Linux saves for a process that has asked for it.  It
 * refuses where a thread has an alternate stack for signals that is too small for them.
 * This file is compiled once.
 */
#include "fastrnn.h"

#if defined(__linux__) && defined(__x86_64__)
#include <cpuid.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };

static int has_instructions(void)
{
    unsigned a, b, c, d;
    const unsigned tile = 1u << 24, int8 = 1u << 25;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & tile) && (d & int8);
}

int fr_may_use_tiles(void)
{
    static _Atomic int known; /* 0: not yet, 1: no, 2: yes */
    int answer = atomic_load_explicit(&known, memory_order_relaxed);
    if (answer == 0) {
        const int allowed = has_instructions() &&
                            syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
        answer = 1 + allowed;
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    return answer == 2;
}

#else

int fr_may_use_tiles(void)
{
    return 0;
}

#endif
