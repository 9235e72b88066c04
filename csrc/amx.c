/* SPDX-License-Identifier: BSD-3-Clause */
/* amx.c -- whether this process may use the tiles of AMX.
 *
 * Their registers are 8 KiB, which Linux saves for a process that has asked for it.  It
 * refuses where a thread has an alternate stack for signals that is too small for them.
 * From then on a signal takes so much more of the stack of a thread that it comes to.
 * This file is compiled once.
 */
#include "fastrnn.h"

#if defined(__linux__) && defined(__x86_64__)
#include <cpuid.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
enum { HAS_BF16 = 1 << 22, HAS_TILES = 1 << 24, HAS_INT8 = 1 << 25 };

static int ask(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & HAS_TILES) ||
        syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) != 0)
        return 0;
    return (d & HAS_INT8 ? FR_TILES_INT8 : 0) | (d & HAS_BF16 ? FR_TILES_BF16 : 0);
}

static _Atomic int known = -1; /* -1: not yet */

int fr_tiles(void)
{
    int answer = atomic_load_explicit(&known, memory_order_relaxed);
    if (answer < 0) {
        answer = ask();
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    return answer;
}

ptrdiff_t fr_tile_frame(void)
{
    return atomic_load_explicit(&known, memory_order_relaxed) > 0 ? 10 << 10 : 0;
}

#else

int fr_tiles(void)
{
    return 0;
}

ptrdiff_t fr_tile_frame(void)
{
    return 0;
}

#endif
