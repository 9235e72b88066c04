/* SPDX-License-Identifier: BSD-3-Clause */
/* simd.h -- vectors of `real` and the few operations on them that C operators lack.
 *
 * Vectors are GCC's and Clang's vector types, on which + - * / work as they are.  Every
 * product that is to be fused with a sum is written v_fma().  The compiler may not
 * choose to fuse (-ffp-contract=off), or targets would stop agreeing bit for bit.
 * Intrinsics live here and nowhere else.  Only static functions take or return vectors,
 * since the registers that pass a vector depend on the target.
 */
#ifndef FR_SIMD_H
#define FR_SIMD_H

#include "target.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define V ((ptrdiff_t)(V_BYTES / sizeof(real)))

typedef real vreal __attribute__((vector_size(V_BYTES)));
typedef real_bits vbits __attribute__((vector_size(V_BYTES)));
typedef real vreal_unaligned
    __attribute__((vector_size(V_BYTES), aligned(sizeof(real)), may_alias));

INLINE vreal v_set1(real a)
{
    return a - (vreal){0};
}

INLINE vreal v_load(const real *p)
{
    return *(const vreal_unaligned *)p;
}

INLINE void v_store(real *p, vreal a)
{
    *(vreal_unaligned *)p = a;
}

#if defined(__AVX512F__) && FR_DOUBLE
#define V_X86(op) _mm512_##op##_pd
#elif defined(__AVX512F__)
#define V_X86(op) _mm512_##op##_ps
#elif defined(__AVX2__) && FR_DOUBLE
#define V_X86(op) _mm256_##op##_pd
#elif defined(__AVX2__)
#define V_X86(op) _mm256_##op##_ps
#elif defined(__SSE2__) && FR_DOUBLE
#define V_X86(op) _mm_##op##_pd
#elif defined(__SSE2__)
#define V_X86(op) _mm_##op##_ps
#endif

/* Loads n elements into the first n lanes; the other lanes are zero. */
INLINE vreal v_load_n(const real *p, ptrdiff_t n)
{
    if (n >= V)
        return v_load(p);
#if defined(__AVX512F__)
    return (vreal)V_X86(maskz_loadu)((1u << n) - 1u, p);
#else
    vreal a = {0};
    for (ptrdiff_t lane = 0; lane < n; lane++)
        a[lane] = p[lane];
    return a;
#endif
}

INLINE void v_store_n(real *p, vreal a, ptrdiff_t n)
{
    if (n >= V) {
        v_store(p, a);
        return;
    }
#if defined(__AVX512F__)
    V_X86(mask_storeu)(p, (1u << n) - 1u, a);
#else
    real lanes[V_BYTES / sizeof(real)];
    v_store(lanes, a);
    for (ptrdiff_t lane = 0; lane < n; lane++)
        p[lane] = lanes[lane];
#endif
}

INLINE vbits v_as_bits(vreal a)
{
    return (vbits)a;
}

INLINE vreal v_from_bits(vbits a)
{
    return (vreal)a;
}

/* a * b + c, rounded once where the target has FMA. */
INLINE vreal v_fma(vreal a, vreal b, vreal c)
{
#if defined(__AVX2__)
    return (vreal)V_X86(fmadd)(a, b, c);
#elif defined(__aarch64__) && FR_DOUBLE
    return (vreal)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#elif defined(__aarch64__)
    return (vreal)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

/* The larger of `bound` and a.  Where a is NaN the result is NaN; a NaN in `bound` is
 * ignored. */
INLINE vreal v_max(vreal bound, vreal a)
{
#if defined(V_X86)
    return (vreal)V_X86(max)(bound, a);
#else
    const vbits keep_bound = (vbits)(bound > a);
    return v_from_bits((keep_bound & v_as_bits(bound)) | (~keep_bound & v_as_bits(a)));
#endif
}

INLINE vreal v_min(vreal bound, vreal a)
{
#if defined(V_X86)
    return (vreal)V_X86(min)(bound, a);
#else
    const vbits keep_bound = (vbits)(bound < a);
    return v_from_bits((keep_bound & v_as_bits(bound)) | (~keep_bound & v_as_bits(a)));
#endif
}

/* a limited to [low, high]; NaN stays NaN. */
INLINE vreal v_clamp(vreal a, vreal low, vreal high)
{
    return v_min(high, v_max(low, a));
}

INLINE vreal v_sqrt(vreal a)
{
#if defined(V_X86)
    return (vreal)V_X86(sqrt)(a);
#elif defined(__aarch64__) && FR_DOUBLE
    return (vreal)vsqrtq_f64((float64x2_t)a);
#elif defined(__aarch64__)
    return (vreal)vsqrtq_f32((float32x4_t)a);
#else
    for (ptrdiff_t lane = 0; lane < V; lane++)
        a[lane] = FR_DOUBLE ? __builtin_sqrt(a[lane]) : __builtin_sqrtf(a[lane]);
    return a;
#endif
}

/* a where a > 0, else 0; NaN stays NaN. */
INLINE vreal v_relu(vreal a)
{
    return v_max((vreal){0}, a);
}

/* a where x > 0, else b. */
INLINE vreal v_select_positive(vreal x, vreal a, vreal b)
{
    const vbits positive = (vbits)(x > (vreal){0});
    return v_from_bits((positive & v_as_bits(a)) | (~positive & v_as_bits(b)));
}

/* b where a > 0, else 0. */
INLINE vreal v_where_positive(vreal a, vreal b)
{
    return v_from_bits((vbits)(a > (vreal){0}) & v_as_bits(b));
}

/* a where x is negative, else b.  Where x is -0 or NaN the result may be either. */
INLINE vreal v_select_negative(vreal x, vreal a, vreal b)
{
#if defined(__AVX512F__) && FR_DOUBLE
    return (vreal)_mm512_mask_blend_pd(_mm512_movepi64_mask((__m512i)x), b, a);
#elif defined(__AVX512F__)
    return (vreal)_mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)x), b, a);
#elif defined(__AVX2__)
    return (vreal)V_X86(blendv)(b, a, x);
#else
    const vbits negative = (vbits)(x < (vreal){0});
    return v_from_bits((negative & v_as_bits(a)) | (~negative & v_as_bits(b)));
#endif
}

/* -|a| */
INLINE vreal v_minus_abs(vreal a)
{
    return v_from_bits(v_as_bits(a) | v_as_bits(v_set1((real)-0.0)));
}

/* |a| */
INLINE vreal v_abs(vreal a)
{
    return v_from_bits(v_as_bits(a) & ~v_as_bits(v_set1((real)-0.0)));
}

/* b, whose sign bit must be 0, with the sign bit of a. */
INLINE vreal v_copysign(vreal b, vreal a)
{
    return v_from_bits((v_as_bits(a) & v_as_bits(v_set1((real)-0.0))) | v_as_bits(b));
}

/* Vectors of double of the same width in bytes, for sums that need the precision. */
typedef double vdouble __attribute__((vector_size(V_BYTES)));

#define VD ((ptrdiff_t)(V_BYTES / sizeof(double)))

/* Loads VD elements and widens them to double. */
INLINE vdouble v_load_double(const real *p)
{
#if FR_DOUBLE
    return v_load(p);
#elif defined(__AVX512F__)
    return (vdouble)_mm512_cvtps_pd(_mm256_loadu_ps(p));
#elif defined(__AVX2__)
    return (vdouble)_mm256_cvtps_pd(_mm_loadu_ps(p));
#else
    float half __attribute__((vector_size(V_BYTES / 2)));
    memcpy(&half, p, sizeof half);
    return __builtin_convertvector(half, vdouble);
#endif
}

/* Elements part * VD .. part * VD + VD - 1 of a vector, widened to double. */
INLINE vdouble v_widen(vreal a, ptrdiff_t part)
{
#if FR_DOUBLE
    (void)part;
    return a;
#elif defined(__AVX512F__)
    return (vdouble)_mm512_cvtps_pd(part == 0 ? _mm512_castps512_ps256((__m512)a)
                                              : _mm512_extractf32x8_ps((__m512)a, 1));
#elif defined(__AVX2__)
    return (vdouble)_mm256_cvtps_pd(part == 0 ? _mm256_castps256_ps128((__m256)a)
                                              : _mm256_extractf128_ps((__m256)a, 1));
#else
    real lanes[V_BYTES / sizeof(real)];
    v_store(lanes, a);
    return v_load_double(lanes + part * VD);
#endif
}

/* ZIP_LOW takes lanes in turn from the lower halves of two vectors, ZIP_HIGH from their
 * upper halves. */
#if V_BYTES == 64 && !FR_DOUBLE
#define ZIP_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define ZIP_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif V_BYTES == 64 || (V_BYTES == 32 && !FR_DOUBLE)
#define ZIP_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define ZIP_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#elif V_BYTES == 32 || !FR_DOUBLE
#define ZIP_LOW 0, 4, 1, 5
#define ZIP_HIGH 2, 6, 3, 7
#else
#define ZIP_LOW 0, 2
#define ZIP_HIGH 1, 3
#endif
#if defined(__clang__) || __GNUC__ >= 12
#define ZIP(a, b, lanes) __builtin_shufflevector(a, b, lanes)
#else
#define ZIP(a, b, lanes) __builtin_shuffle(a, b, (vbits){lanes})
#endif

/* Transposes a matrix of V rows in place: each round zips the rows that are half the
 * matrix apart. */
INLINE void transpose(vreal *rows)
{
#pragma GCC unroll 4
    for (ptrdiff_t round = 1; round < V; round *= 2) {
        vreal zipped[V_BYTES / sizeof(real)];
#pragma GCC unroll 8
        for (ptrdiff_t r = 0; r < V / 2; r++) {
            zipped[2 * r] = ZIP(rows[r], rows[r + V / 2], ZIP_LOW);
            zipped[2 * r + 1] = ZIP(rows[r], rows[r + V / 2], ZIP_HIGH);
        }
#pragma GCC unroll 16
        for (ptrdiff_t r = 0; r < V; r++)
            rows[r] = zipped[r];
    }
}

#endif
