/* SPDX-License-Identifier: BSD-3-Clause */
/* dispatch.c -- which targets were built, and which of them this processor can run.
 *
 * This file is compiled once, with the baseline's flags.  setup.py defines
 * FR_HAVE_<target> for each target that it compiled, so its table is the only list.
 */
#include "fastrnn.h"

#include <limits.h>
#if defined(FR_HAVE_x86_v4_amx) && defined(FR_HAVE_x86_v4) && defined(__linux__)
#define HAVE_AMX
#endif
#ifdef _OPENMP
#include <omp.h>
#endif

typedef struct {
    const char *name;
    const fr_kernels *kernels[3]; /* float32, float64, operands of bfloat16 */
    int (*supported)(void);
    int (*slow)(void); /* whether the next target is faster; NULL: it is not */
    int wide;          /* whether AMX's table may stand in for operands of bfloat16 */
} target_entry;

#define DECLARE(target)                                                                \
    extern const fr_kernels fr_kernels_##target##_float32;                             \
    extern const fr_kernels fr_kernels_##target##_float64;                             \
    extern const fr_kernels fr_kernels_##target##_bfloat16;
#define ENTRY(target, wide)                                                            \
    {#target,                                                                          \
     {&fr_kernels_##target##_float32, &fr_kernels_##target##_float64,                  \
      &fr_kernels_##target##_bfloat16},                                                \
     supported_##target,                                                               \
     NULL,                                                                             \
     wide}

#if defined(FR_HAVE_x86_v3) || defined(FR_HAVE_x86_v4)
#include <cpuid.h>

/* Registers that the operating system saves: bits of XCR0. */
enum { VECTORS_OF_32 = 0x6, VECTORS_OF_64 = 0xe6 };

/* Whether the processor has instructions, by bits of what CPUID says, and the operating
 * system saves their registers.  __builtin_cpu_supports() asks the same of a runtime
 * library, and Zig's, with which wheels for Windows are made, always says no. */
static int has(unsigned in_leaf1_c, unsigned in_leaf7_b, unsigned registers)
{
    unsigned a, b, c, d, saved, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) ||
        (c & in_leaf1_c) != in_leaf1_c)
        return 0;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
#if defined(__APPLE__)
    registers &= VECTORS_OF_32; /* it saves the others from their first use on */
#endif
    return (saved & registers) == registers &&
           __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & in_leaf7_b) == in_leaf7_b;
}
#endif

#ifdef FR_HAVE_x86_v4
DECLARE(x86_v4)
static int supported_x86_v4(void)
{
    return has(bit_FMA,
               bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL |
                   bit_AVX2 | bit_BMI2,
               VECTORS_OF_64);
}
#endif
/* Units for pairs of bfloat16 have functions with products alone; their tables are these
 * with x86_v4's others. */
#if defined(FR_HAVE_x86_v4_bf16) && defined(FR_HAVE_x86_v4)
extern const fr_kernels fr_kernels_x86_v4_bf16_bfloat16;
static fr_kernels pairs_table;
#endif
#ifdef HAVE_AMX
extern const fr_kernels fr_kernels_x86_v4_amx_bfloat16;
static fr_kernels amx_table;
#endif
#if defined(FR_HAVE_x86_v4_bf16) && defined(FR_HAVE_x86_v4) || defined(HAVE_AMX)
static void complete(fr_kernels *table, const fr_kernels *unit)
{
    *table = fr_kernels_x86_v4_bfloat16;
    table->target = unit->target;
    table->agrees = unit->agrees;
    table->pack_forward = unit->pack_forward;
    table->pack_backward = unit->pack_backward;
    table->forward = unit->forward;
    table->backward = unit->backward;
    table->calls_at_once = unit->calls_at_once;
    table->packed_forward_size = unit->packed_forward_size;
    table->packed_backward_size = unit->packed_backward_size;
    table->tape_size = unit->tape_size;
    table->forward_work_size = unit->forward_work_size;
    table->backward_work_size = unit->backward_work_size;
    table->backward_block_size = unit->backward_block_size;
    table->linear_forward = unit->linear_forward;
    table->linear_backward = unit->linear_backward;
    table->linear_work_size = unit->linear_work_size;
}

static __attribute__((constructor)) void complete_tables(void)
{
#ifdef FR_HAVE_x86_v4_bf16
    complete(&pairs_table, &fr_kernels_x86_v4_bf16_bfloat16);
#endif
#ifdef HAVE_AMX
    complete(&amx_table, &fr_kernels_x86_v4_amx_bfloat16);
#endif
}
#endif
/* x86_v4 with an instruction for products of bfloat16. */
#if defined(FR_HAVE_x86_v4_bf16) && defined(FR_HAVE_x86_v4)
static int supported_x86_v4_bf16(void)
{
    enum { AVX512_BF16 = 1 << 5 };
    unsigned a, b, c, d;
    return supported_x86_v4() && __get_cpuid_count(7, 1, &a, &b, &c, &d) &&
           (a & AVX512_BF16) && pairs_table.agrees();
}
#endif
#if defined(FR_HAVE_x86_v4_bf16) && defined(FR_HAVE_x86_v4)
/* Intel's processors add pairs of bfloat16 at half the rate of float32 (measured on
 * Sapphire Rapids: 75 and 128 GFLOP/s), and AMD's at twice that rate. */
static int adds_pairs_slowly(void)
{
    unsigned most, b, c, d;
    return __get_cpuid(0, &most, &b, &c, &d) && b == signature_INTEL_ebx;
}
#endif
#ifdef HAVE_AMX
static int can_use_amx(void)
{
    enum { AVX512_BF16 = 1 << 5 };
    unsigned a, b, c, d, most;
    return __get_cpuid_count(7, 0, &most, &b, &c, &d) && most >= 1 &&
           __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & AVX512_BF16) &&
           (fr_tiles() & FR_TILES_BF16) && amx_table.agrees();
}
#endif
#ifdef FR_HAVE_x86_v3
DECLARE(x86_v3)
static int supported_x86_v3(void)
{
    return has(bit_FMA, bit_AVX2 | bit_BMI2, VECTORS_OF_32);
}
#endif
DECLARE(baseline)
static int supported_baseline(void)
{
    return 1;
}

static const target_entry targets[] = {
#if defined(FR_HAVE_x86_v4_bf16) && defined(FR_HAVE_x86_v4)
    {"x86_v4_bf16",
     {&fr_kernels_x86_v4_float32, &fr_kernels_x86_v4_float64, &pairs_table},
     supported_x86_v4_bf16,
     adds_pairs_slowly,
     1},
#endif
#ifdef FR_HAVE_x86_v4
    ENTRY(x86_v4, 1),
#endif
#ifdef FR_HAVE_x86_v3
    ENTRY(x86_v3, 0),
#endif
    ENTRY(baseline, 0),
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
    return targets[i].supported();
}

int fr_target_slow(int i)
{
    return targets[i].slow && targets[i].slow();
}

const fr_kernels *fr_target_kernels(int i, enum fr_computing computing)
{
    if (computing != FR_BFLOAT16_FAST)
        return targets[i].kernels[computing];
#ifdef HAVE_AMX
    if (targets[i].wide && can_use_amx())
        return &amx_table;
#endif
    return targets[i].kernels[FR_BFLOAT16];
}

const char *fr_compiler(void)
{
#if defined(__clang__)
    return "Clang " __clang_version__;
#else
    return "GCC " __VERSION__;
#endif
}

const char *fr_threading(void)
{
#if defined(_OPENMP)
    return "OpenMP";
#elif defined(FR_POOL)
    return "fastrnn";
#else
    return "";
#endif
}

int fr_openmp_max_threads(void)
{
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return INT_MAX;
#endif
}
