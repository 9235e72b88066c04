/* SPDX-License-Identifier: BSD-3-Clause */
/* target.h -- which target and which dtype this translation unit is being compiled for.
 *
 * setup.py passes FR_TARGET and FR_DOUBLE; the vector width follows from the compiler's
 * own macros, so a file opened in an editor compiles as the float32 baseline.
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

/* 32 vector registers on AVX-512 and NEON, 16 on AVX2 and SSE2. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define V_REGISTERS 32
#else
#define V_REGISTERS 16
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

INLINE ptrdiff_t round_up(ptrdiff_t n, ptrdiff_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

/* First element of part i when n elements are shared out evenly over `parts`. */
INLINE ptrdiff_t part_start(ptrdiff_t n, ptrdiff_t parts, ptrdiff_t i)
{
    return n * i / parts;
}

#endif
