/* SPDX-License-Identifier: BSD-3-Clause */
/* quantized.h -- products by weights of one byte or of two.
 *
 * A weight of two bytes is a bfloat16: the upper half of a float32.  It is widened where
 * it is used, and the product is that of tile.h, with the same bits.
 *
 * A weight of one byte is an integer q in [-127, 127], and stands for q * scale of its
 * column.  The rows that it multiplies become integers a of 14 bits, in [-8191, 8191],
 * which stand for a * scale of the row.  Sums of a * q are exact integers, whatever
 * order they are taken in, so that all targets have the same bits: with at most
 * MOST_ROWS rows of weights a sum fits 32 bits.  The sums of so many rows each are
 * widened to float32 and added in order.
 *
 * A panel of such weights is stored [k / 4][nv * V][4], four weights of a column side by
 * side.  Where the processor multiplies unsigned bytes by signed ones (VNNI), a + 8192
 * is cut into two halves of seven bits, two products are taken, and 8192 times the sum
 * of the weights is subtracted.  Where not, the weights of even and of odd k are widened
 * to 16 bits, and pairs of products are taken.
 */
#ifndef FR_QUANTIZED_H
#define FR_QUANTIZED_H

#include "tile.h"

#define MOST_ROWS 2048 /* 2064 * 8191 * 127 < 2^31 */
#define LARGEST 8191
#define OFFSET_BITS 13

typedef int16_t vint16 __attribute__((vector_size(V_BYTES)));
typedef uint16_t vhalf __attribute__((vector_size(V_BYTES / 2), aligned(2), may_alias));
typedef uint32_t vuint __attribute__((vector_size(V_BYTES)));
typedef vbits vbits_unaligned __attribute__((aligned(4), may_alias));

/* Loads V weights of two bytes and widens them. */
INLINE vreal v_load_bfloat16(const uint16_t *p)
{
#if defined(__AVX512F__)
    const __m256i halves = _mm256_loadu_si256((const __m256i *)p);
    return (vreal)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
#elif defined(__AVX2__)
    const __m128i halves = _mm_loadu_si128((const __m128i *)p);
    return (vreal)_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16);
#else
    return (vreal)(__builtin_convertvector(*(const vhalf *)p, vuint) << 16);
#endif
}

/* a[2 i] * b[2 i] + a[2 i + 1] * b[2 i + 1], of 16-bit integers, in 32 bits. */
INLINE vbits v_pair_products(vint16 a, vint16 b)
{
#if defined(__AVX512BW__)
    return (vbits)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (vbits)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (vbits)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    const vbits low_a = ((vbits)a << 16) >> 16, low_b = ((vbits)b << 16) >> 16;
    return low_a * low_b + ((vbits)a >> 16) * ((vbits)b >> 16);
#endif
}

INLINE vbits v_set1_bits(int32_t a)
{
    return a - (vbits){0};
}

/* Whether this processor multiplies bytes, and this target may. */
INLINE int multiplies_bytes(void)
{
#if defined(__AVX512BW__)
    return __builtin_cpu_supports("avx512vnni") != 0;
#else
    return 0;
#endif
}

#if defined(__AVX512BW__)
#define BYTES_TARGET __attribute__((target("avx512vnni")))
#else
#define BYTES_TARGET
#endif

/* Of n_rows rows of K elements, makes the integers that stand for them.  A row is two
 * words of 32 bits for each four elements: the four upper halves and the four lower
 * ones where `bytes` is set, and else the elements 0 and 2, and 1 and 3.  Its scale is
 * at least `least` / LARGEST.  A row with a NaN or an infinity has the scale NaN. */
INLINE void quantize_row(int bytes, ptrdiff_t K, const real *x, real least, void *row,
                         real *scale)
{
    vreal most = v_set1(least), wrong = {0};
    for (ptrdiff_t k = 0; k < K; k += V) {
        const vreal a = v_load_n(x + k, K - k);
        most = v_max(most, v_abs(a));
        wrong = wrong + (a - a);
    }
    real m = most[0], w = wrong[0];
    for (ptrdiff_t lane = 1; lane < V; lane++) {
        m = most[lane] > m ? most[lane] : m;
        w += wrong[lane];
    }
    *scale = m / LARGEST + w;
    const vreal factor = v_set1(LARGEST / m);
    /* The sum with 1.5 * 2^23 has the nearest integer in its lower bits. */
    const vreal magic = v_set1((real)12582912);
    const vbits bias = v_set1_bits(0x4B400000 - (bytes ? 1 << OFFSET_BITS : 0));
    const uint64_t halves = bytes ? 0x007f007f007f007full : 0x0000ffff0000ffffull;
    char *to = row;
    for (ptrdiff_t k = 0; k < K; k += V) {
        const vreal a = v_load_n(x + k, K - k);
        const vbits integers = v_as_bits(a * factor + magic) - bias;
        uint64_t pairs[V_BYTES / 8];
        memcpy(pairs, &integers, sizeof pairs);
#pragma GCC unroll 4
        for (ptrdiff_t i = 0; i < V / 2; i += 2, to += 8) {
            const uint64_t low = 0x0000ffff0000ffffull;
            uint64_t four = (pairs[i] & low) | (pairs[i + 1] & low) << 16;
            if (bytes) { /* the elements are in the order 0 2 1 3 */
                const uint64_t above = four >> 7 & halves, below = four & halves;
                four = (uint32_t)(above | above >> 24) |
                       (uint64_t)(uint32_t)(below | below >> 24) << 32;
            }
            memcpy(to, &four, 8);
        }
    }
}

/* C[r][:] = start[r][:] + row r times a panel, nv vectors wide. */
typedef struct {
    ptrdiff_t K;
    const void *rows;      /* of float32, or as quantize_row() makes them */
    ptrdiff_t row;         /* floats between rows */
    const real *row_scale; /* of each row */
    const void *weights;   /* the panel */
    const int32_t *sums;   /* of the columns' weights, for each MOST_ROWS of them */
    ptrdiff_t sums_step;
    const real *scale; /* of each column */
    const real *start; /* NULL: zero */
    ptrdiff_t start_row;
    real *c;
    ptrdiff_t c_row;
} quantized_tile;

INLINE void bfloat16_tile(const int mr, const int nv, const quantized_tile *t)
{
    const uint16_t *b = t->weights;
    const real *a = t->rows;
    const ptrdiff_t K = t->K, row = t->row;
    vreal acc[4][4];
#pragma GCC unroll 4
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            acc[r][v] =
                t->start ? v_load(t->start + r * t->start_row + v * V) : (vreal){0};
#pragma GCC unroll 2
    for (ptrdiff_t k = 0; k < K; k++, b += nv * V)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            const vreal weights = v_load_bfloat16(b + v * V);
#pragma GCC unroll 4
            for (int r = 0; r < mr; r++)
                acc[r][v] = v_fma(v_set1(a[r * row + k]), weights, acc[r][v]);
        }
#pragma GCC unroll 4
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            v_store(t->c + r * t->c_row + v * V, acc[r][v]);
}

/* The sums of `groups` times four rows of weights, by pairs of products. */
INLINE void pair_sums(const int mr, const int nv, ptrdiff_t groups, const int32_t *a,
                      ptrdiff_t row, const char *b, vbits sums[4][4])
{
#pragma GCC unroll 4
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            sums[r][v] = (vbits){0};
    for (ptrdiff_t k = 0; k < groups; k++, b += nv * V_BYTES, a += 2)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            const vbits w = *(const vbits_unaligned *)(b + v * V_BYTES);
            const vint16 even = (vint16)((vint16)w << 8) >> 8, odd = (vint16)w >> 8;
#pragma GCC unroll 4
            for (int r = 0; r < mr; r++)
                sums[r][v] += v_pair_products(even, (vint16)v_set1_bits(a[r * row])) +
                              v_pair_products(odd, (vint16)v_set1_bits(a[r * row + 1]));
        }
}

#if defined(__AVX512BW__)
/* The same by products of bytes, of rows that are made for them. */
BYTES_TARGET INLINE void byte_sums(const int mr, const int nv, ptrdiff_t groups,
                                   const int32_t *a, ptrdiff_t row, const char *b,
                                   const int32_t *column_sums, vbits sums[4][4])
{
    __m512i above[4][4], below[4][4];
#pragma GCC unroll 4
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            above[r][v] = below[r][v] = _mm512_setzero_si512();
#pragma GCC unroll 2
    for (ptrdiff_t k = 0; k < groups; k++, b += nv * V_BYTES, a += 2)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            const __m512i w = _mm512_loadu_si512(b + v * V_BYTES);
#pragma GCC unroll 4
            for (int r = 0; r < mr; r++) {
                above[r][v] =
                    _mm512_dpbusd_epi32(above[r][v], _mm512_set1_epi32(a[r * row]), w);
                below[r][v] = _mm512_dpbusd_epi32(below[r][v],
                                                  _mm512_set1_epi32(a[r * row + 1]), w);
            }
        }
#pragma GCC unroll 4
    for (int v = 0; v < nv; v++) {
        const vbits w = *(const vbits_unaligned *)(column_sums + v * V);
#pragma GCC unroll 4
        for (int r = 0; r < mr; r++)
            sums[r][v] =
                ((vbits)above[r][v] << 7) + (vbits)below[r][v] - (w << OFFSET_BITS);
    }
}
#endif

/* Adds exact sums to the total of those before. */
INLINE void add_exact(const int mr, const int nv, vbits sums[4][4], vreal total[4][4])
{
#pragma GCC unroll 4
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            total[r][v] = total[r][v] + __builtin_convertvector(sums[r][v], vreal);
}

INLINE void store_scaled(const int mr, const int nv, const quantized_tile *t,
                         vreal total[4][4])
{
#pragma GCC unroll 4
    for (int v = 0; v < nv; v++) {
        const vreal scale = v_load(t->scale + v * V);
#pragma GCC unroll 4
        for (int r = 0; r < mr; r++) {
            const vreal start =
                t->start ? v_load(t->start + r * t->start_row + v * V) : (vreal){0};
            v_store(t->c + r * t->c_row + v * V,
                    v_fma(total[r][v], scale * v_set1(t->row_scale[r]), start));
        }
    }
}

INLINE void pairs_tile(const int mr, const int nv, const quantized_tile *t)
{
    vreal total[4][4] = {{{0}}};
    for (ptrdiff_t k = 0; k < t->K; k += MOST_ROWS) {
        vbits sums[4][4];
        pair_sums(mr, nv, n_parts(min_size(MOST_ROWS, t->K - k), 4),
                  (const int32_t *)t->rows + k / 2, t->row,
                  (const char *)t->weights + k * nv * V, sums);
        add_exact(mr, nv, sums, total);
    }
    store_scaled(mr, nv, t, total);
}

#if defined(__AVX512BW__)
BYTES_TARGET INLINE void bytes_tile(const int mr, const int nv, const quantized_tile *t)
{
    vreal total[4][4] = {{{0}}};
    const int32_t *column_sums = t->sums;
    for (ptrdiff_t k = 0; k < t->K; k += MOST_ROWS, column_sums += t->sums_step) {
        vbits sums[4][4];
        byte_sums(mr, nv, n_parts(min_size(MOST_ROWS, t->K - k), 4),
                  (const int32_t *)t->rows + k / 2, t->row,
                  (const char *)t->weights + k * nv * V, column_sums, sums);
        add_exact(mr, nv, sums, total);
    }
    store_scaled(mr, nv, t, total);
}
#endif

/* Rows of the tallest tile on a panel of nv vectors.  Products of bytes have two sums for
 * each vector of results, and a word of each row for either. */
INLINE ptrdiff_t quantized_rows(ptrdiff_t nv)
{
    static const signed char rows[2][MAX_NV] = {{3, 3, 2, 2}, {4, 4, 3, 2}};
    return rows[V_REGISTERS == 32][nv - 1];
}

/* clang-format off */
#define QUANTIZED_CASES(name, nv) \
    case nv * 8 + 1: name##_tile(1, nv, t); break; \
    case nv * 8 + 2: name##_tile(2, nv, t); break; \
    case nv * 8 + 3: if (nv < (V_REGISTERS == 32 ? 4 : 3)) name##_tile(3, nv, t); break; \
    case nv * 8 + 4: if (V_REGISTERS == 32 && nv < 3) name##_tile(4, nv, t); break;
#define QUANTIZED_TILES(name) \
    static void name##_tiles(ptrdiff_t mr, ptrdiff_t nv, const quantized_tile *t) \
    { \
        switch (nv * 8 + mr) { \
            QUANTIZED_CASES(name, 1) QUANTIZED_CASES(name, 2) \
            QUANTIZED_CASES(name, 3) QUANTIZED_CASES(name, 4) \
        } \
    }

QUANTIZED_TILES(bfloat16)
QUANTIZED_TILES(pairs)
#if defined(__AVX512BW__)
BYTES_TARGET QUANTIZED_TILES(bytes)
#endif
/* clang-format on */

#endif
