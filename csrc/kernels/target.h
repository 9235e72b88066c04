/* SPDX-License-Identifier: BSD-3-Clause */
/* target.h -- the target and the dtype that this translation unit is compiled for.
 *
 * setup.py passes FR_TARGET and FR_DOUBLE, and the vector width follows from the
 * compiler's own macros.  A file that an editor compiles without any of these flags is
 * the float32 baseline.
 */
#ifndef FR_TARGET_H
#define FR_TARGET_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef FR_TARGET
#define FR_TARGET baseline
#endif
#ifndef FR_DOUBLE
#define FR_DOUBLE 0
#endif

#if defined(FR_EXPECT_AVX512) && !(defined(__AVX512F__) && defined(__AVX512DQ__))
#error "target x86_v4 compiled without its flags"
#endif
#if defined(FR_EXPECT_AVX2) && !(defined(__AVX2__) && defined(__FMA__))
#error "target x86_v3 compiled without its flags"
#endif

#if defined(__AVX512F__)
#define V_BYTES 64
#elif defined(__AVX2__)
#define V_BYTES 32
#else
#define V_BYTES 16
#endif

/* AVX-512 and NEON have 32 vector registers, AVX2 and SSE2 have 16. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define V_REGISTERS 32
#else
#define V_REGISTERS 16
#endif

/* 1: the operands of products are bfloat16, two to a word (half.h).  Such a unit has the
 * table of kernels for bfloat16, and no other. */
#ifndef FR_PAIRS
#define FR_PAIRS 0
#endif
#if FR_PAIRS && !defined(__AVX512BF16__)
#error "target x86_v4_bf16 compiled without its flags"
#endif

/* 1: pairs are multiplied by AMX (amx.h). */
#ifndef FR_AMX
#define FR_AMX 0
#endif
#if FR_AMX && !(FR_PAIRS && defined(__AMX_TILE__) && defined(__AMX_BF16__))
#error "target x86_v4_amx compiled without its flags"
#endif

#if FR_DOUBLE
typedef double real;
typedef int64_t real_bits;
#define FR_DTYPE float64
#else
typedef float real;
typedef int32_t real_bits;
#define FR_DTYPE float32
#endif

#define FR_STRING_(a) #a
#define FR_STRING(a) FR_STRING_(a)
#define FR_PASTE_(a, b, c) a##_##b##_##c
#define FR_PASTE(a, b, c) FR_PASTE_(a, b, c)

#define INLINE static inline __attribute__((always_inline))

INLINE ptrdiff_t min_size(ptrdiff_t a, ptrdiff_t b)
{
    return a < b ? a : b;
}

INLINE ptrdiff_t max_size(ptrdiff_t a, ptrdiff_t b)
{
    return a > b ? a : b;
}

/* The number of parts of at most `most` elements that n elements make. */
INLINE ptrdiff_t n_parts(ptrdiff_t n, ptrdiff_t most)
{
    return (n + most - 1) / most;
}

INLINE ptrdiff_t round_up(ptrdiff_t n, ptrdiff_t multiple)
{
    return n_parts(n, multiple) * multiple;
}

/* First element of part i when n elements are cut into `parts` even parts. */
INLINE ptrdiff_t part_start(ptrdiff_t n, ptrdiff_t parts, ptrdiff_t i)
{
    return n * i / parts;
}

#endif
