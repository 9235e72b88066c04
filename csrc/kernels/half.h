/* SPDX-License-Identifier: BSD-3-Clause */
/* half.h -- operands of products, which a call may round to bfloat16.
 *
 * A call of fr_shape.half rounds what products multiply, and nothing else: weights where
 * they are packed, x, h and da where they are handed to a product.  Sums are those of
 * float32, in the order of float32.
 *
 * There are two forms of such an operand.  Most targets keep the rounded number as a
 * float, and run the tile of float32.  A unit with FR_PAIRS keeps two numbers in a
 * *word* of 32 bits, number k in the upper half and number k + 1 in the lower half, and
 * its tile has an instruction that adds both products to a sum.  That instruction is two
 * fused multiply-adds, the upper halves first, which flush subnormals.  So both forms
 * have the same bits.  Where a number is left over, a word is filled with -0 in A and
 * with 0 in B: their product, -0, leaves any sum as it is.
 *
 * A word lies where a `real` would lie.  It may look like a subnormal or like a NaN, and
 * so only moves touch it, never arithmetic.
 */
#ifndef FR_HALF_H
#define FR_HALF_H

#include "simd.h"

/* Numbers in a word of an operand. */
#define PAIR (FR_PAIRS ? 2 : 1)

/* Words of an operand of n numbers. */
INLINE ptrdiff_t operand_size(ptrdiff_t n)
{
    return (n + PAIR - 1) / PAIR;
}

/* a rounded to bfloat16, to nearest and even, as a float.  NaN stays NaN, and subnormals
 * become zero. */
INLINE vreal v_round_half(vreal a)
{
#if FR_DOUBLE
    return a;
#else
    typedef uint32_t words __attribute__((vector_size(V_BYTES)));
    const words bits = (words)a, exponent = bits & 0x7f800000u;
    const words nearest = bits + (0x7fffu + ((bits >> 16) & 1u));
    const words quiet = bits | 0x00400000u, sign = bits & 0x80000000u;
    const words is_nan = (words)((bits & 0x7fffffffu) > 0x7f800000u);
    const words is_small = (words)(exponent == 0u);
    const words rounded = (is_nan & quiet) | (~is_nan & nearest);
    return (vreal)(((is_small & sign) | (~is_small & rounded)) & 0xffff0000u);
#endif
}

#if FR_PAIRS
/* Two numbers for each word, `high` and `low` already rounded. */
INLINE vreal v_pair(vreal high, vreal low)
{
    typedef uint32_t words __attribute__((vector_size(V_BYTES)));
    return (vreal)((words)high | ((words)low >> 16));
}
#endif

/* Words k .. k + V - 1 of the operand that the n numbers at `from` make, of which the
 * last word may lack its lower half: `filling` is there then, 0 or -0. */
INLINE vreal v_load_operand(const real *from, ptrdiff_t k, ptrdiff_t n, real filling)
{
#if FR_PAIRS
    const ptrdiff_t at = 2 * k, left = n - at;
    vreal a = v_load_n(from + at, max_size(0, left));
    vreal b = v_load_n(from + at + V, max_size(0, left - V));
    if (left < 2 * V && (left & 1)) {
        if (left < V)
            a = (vreal)_mm512_mask_mov_ps((__m512)a, (__mmask16)(1u << left),
                                          _mm512_set1_ps(filling));
        else
            b = (vreal)_mm512_mask_mov_ps((__m512)b, (__mmask16)(1u << (left - V)),
                                          _mm512_set1_ps(filling));
    }
    /* The instruction puts the first number of a pair into the lower half. */
    const __m512i words = (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
    return (vreal)_mm512_rol_epi32(words, 16);
#else
    (void)filling;
    return v_round_half(v_load_n(from + k, n - k));
#endif
}

/* Makes an operand A of n numbers; `to` may be `from`. */
INLINE void round_row(real *to, const real *from, ptrdiff_t n)
{
    const ptrdiff_t words = operand_size(n);
    for (ptrdiff_t k = 0; k < words; k += V)
        v_store_n(to + k, v_load_operand(from, k, n, (real)-0.0), words - k);
}

/* Stores a vector of rounded numbers as part of row k of an operand whose k runs over
 * rows: `row_of_k` is row 0 of these columns, rows are `width` words apart. */
INLINE void v_store_row(real *row_0, ptrdiff_t width, ptrdiff_t k, vreal a)
{
#if FR_PAIRS
    const __m512i bits = (__m512i)a;
    real *to = row_0 + k / 2 * width;
    if (k % 2 == 0)
        _mm512_mask_storeu_epi16(to, 0xaaaaaaaau, bits);
    else
        _mm512_mask_storeu_epi16(to, 0x55555555u, _mm512_srli_epi32(bits, 16));
#else
    v_store(row_0 + k * width, a);
#endif
}

/* Whether row k shares its words with the next of the rows up to `end`.  Two rows are
 * stored at once where both are at hand. */
INLINE int has_pair(ptrdiff_t k, ptrdiff_t end)
{
    return FR_PAIRS && k % 2 == 0 && k + 1 < end;
}

/* The same for rows k and k + 1, where has_pair(). */
INLINE void v_store_two_rows(real *row_0, ptrdiff_t width, ptrdiff_t k, vreal a,
                             vreal b)
{
#if FR_PAIRS
    v_store(row_0 + k / 2 * width, v_pair(a, b));
#else
    v_store(row_0 + k * width, a);
    v_store(row_0 + (k + 1) * width, b);
#endif
}

/* One number in all lanes, or in a unit with pairs one word. */
INLINE vreal v_set1_operand(const real *p)
{
#if FR_PAIRS
    int32_t word;
    memcpy(&word, p, sizeof word);
    return (vreal)_mm512_set1_epi32(word);
#else
    return v_set1(*p);
#endif
}

/* The first number of each word, as a float. */
INLINE vreal v_upper_half(vreal a)
{
#if FR_PAIRS
    return (vreal)_mm512_and_si512((__m512i)a, _mm512_set1_epi32((int)0xffff0000u));
#else
    return a;
#endif
}

/* c + a * b, or c plus the two products of each word. */
INLINE vreal v_multiply_add(vreal a, vreal b, vreal c)
{
#if FR_PAIRS
    return (vreal)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
#else
    return v_fma(a, b, c);
#endif
}

#endif
