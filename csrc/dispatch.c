/* SPDX-License-Identifier: BSD-3-Clause */
/* dispatch.c -- which targets were built, and which of them this processor can run.
 *
 * This file is compiled once, with the baseline's flags.  setup.py defines
 * FR_HAVE_<target> for each target that it compiled, so its table is the only list.
 */
#include "fastrnn.h"

#ifdef _OPENMP
#include <omp.h>
#endif

typedef struct {
    const char *name;
    const fr_kernels *kernels[2]; /* float32, float64 */
    int (*supported)(void);
} target_entry;

#define DECLARE(target)                                                                \
    extern const fr_kernels fr_kernels_##target##_float32;                             \
    extern const fr_kernels fr_kernels_##target##_float64;
#define ENTRY(target)                                                                  \
    {#target,                                                                          \
     {&fr_kernels_##target##_float32, &fr_kernels_##target##_float64},                 \
     supported_##target}

/* __builtin_cpu_supports also checks that the operating system saves the registers. */
#ifdef FR_HAVE_x86_v4
DECLARE(x86_v4)
static int supported_x86_v4(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx2") &&
           __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}
#endif
#ifdef FR_HAVE_x86_v3
DECLARE(x86_v3)
static int supported_x86_v3(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
}
#endif
DECLARE(baseline)
static int supported_baseline(void)
{
    return 1;
}

static const target_entry targets[] = {
#ifdef FR_HAVE_x86_v4
    ENTRY(x86_v4),
#endif
#ifdef FR_HAVE_x86_v3
    ENTRY(x86_v3),
#endif
    ENTRY(baseline),
};

int fr_n_targets(void)
{
    return (int)(sizeof targets / sizeof *targets);
}

const char *fr_target_name(int i)
{
    return targets[i].name;
}

int fr_target_supported(int i)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
#endif
    return targets[i].supported();
}

const fr_kernels *fr_target_kernels(int i, int is_double)
{
    return targets[i].kernels[is_double != 0];
}

const char *fr_compiler(void)
{
#if defined(__clang__)
    return "Clang " __clang_version__;
#else
    return "GCC " __VERSION__;
#endif
}

int fr_has_openmp(void)
{
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

int fr_openmp_max_threads(void)
{
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}
