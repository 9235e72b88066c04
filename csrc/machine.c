/* SPDX-License-Identifier: BSD-3-Clause */
/* machine.c -- what the system tells of the processors, where it tells C only.
 *
 * Linux tells the same in files, which Python reads (src/fastrnn/native/caches.py).
 * This file is compiled once.
 */
#include "fastrnn.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <stdlib.h>
#include <windows.h>

/* How many processors there are in a mask. */
static int n_in(KAFFINITY mask)
{
    int n = 0;
    for (; mask; mask &= mask - 1)
        n++;
    return n;
}

ptrdiff_t fr_level2_bytes(void)
{
    DWORD n_bytes = 0;
    ptrdiff_t found = 0;
    GetLogicalProcessorInformationEx(RelationCache, NULL, &n_bytes);
    char *list = malloc(n_bytes);
    if (list && GetLogicalProcessorInformationEx(RelationCache, (void *)list, &n_bytes))
        for (DWORD at = 0; at < n_bytes && !found;) {
            const SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX *one =
                (const void *)(list + at);
            const int sharing = n_in(one->Cache.GroupMask.Mask);
            if (one->Cache.Level == 2 && one->Cache.Type != CacheInstruction && sharing)
                found = (ptrdiff_t)one->Cache.CacheSize / sharing;
            at += one->Size;
        }
    free(list);
    return found;
}

int fr_allowed_cpus(void)
{
    DWORD_PTR allowed = 0, all = 0;
    if (GetProcessAffinityMask(GetCurrentProcess(), &allowed, &all) && allowed)
        return n_in(allowed);
    /* The mask is zero where the process runs in several groups of 64. */
    return (int)GetActiveProcessorCount(ALL_PROCESSOR_GROUPS);
}

#elif defined(__APPLE__)
#include <sys/sysctl.h>

/* A number that the system has under this name; 0 where it has none. */
static int64_t number_of(const char *name)
{
    int64_t value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) ? 0 : value;
}

ptrdiff_t fr_level2_bytes(void)
{
    /* Of the fast cores where a machine has two kinds, which Intel's had not. */
    const int64_t fast = number_of("hw.perflevel0.l2cachesize");
    const int64_t sharing = number_of("hw.perflevel0.cpusperl2");
    if (fast && sharing)
        return (ptrdiff_t)(fast / sharing);
    return (ptrdiff_t)number_of("hw.l2cachesize");
}

int fr_allowed_cpus(void)
{
    return 0;
}

#else

ptrdiff_t fr_level2_bytes(void)
{
    return 0;
}

int fr_allowed_cpus(void)
{
    return 0;
}

#endif
