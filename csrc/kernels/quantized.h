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
 *
 * Many rows share what widening takes: a panel is widened once, into a buffer, and then
 * multiplied by all of them, but where bytes are multiplied as they are; AMX has
 * instructions for many rows of these (quantized_amx.h).  Of weights of two bytes the
 * buffer is a panel of tile.h.  Of weights of one byte it is [k / 4][2][nv * V][2],
 * integers of 16 bits.
 */
#ifndef FR_QUANTIZED_H
#define FR_QUANTIZED_H

#include "gemm.h"

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

/* The lanes of two vectors whose k is 0 or 1, and 2 or 3, if they are counted by four. */
#if V_BYTES == 64
#define FIRST_OF_FOUR 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29
#define LAST_OF_FOUR 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31
#elif V_BYTES == 32
#define FIRST_OF_FOUR 0, 1, 4, 5, 8, 9, 12, 13
#define LAST_OF_FOUR 2, 3, 6, 7, 10, 11, 14, 15
#else
#define FIRST_OF_FOUR 0, 1, 4, 5
#define LAST_OF_FOUR 2, 3, 6, 7
#endif

/* What a row of K elements becomes: two words of 32 bits for each four elements. */
typedef enum {
    AS_PAIRS, /* the elements 0 and 2, and the elements 1 and 3, of 16 bits each */
    AS_BYTES, /* the four upper halves, and the four lower ones */
    AS_PLANES /* the upper halves of all elements, and then the lower ones */
} row_form;

/* Floats that such a row takes: it is filled up with zeros. */
INLINE ptrdiff_t integer_floats(ptrdiff_t K)
{
    return round_up(K, 4 * V) / 2;
}

#if defined(__AVX512BW__)
/* Writes the upper and the lower halves of 14 bits, by four. */
INLINE void put_halves(char *to, vbits integers)
{
    const __m128i above = _mm512_cvtepi32_epi8((__m512i)(integers >> 7));
    const __m128i below = _mm512_cvtepi32_epi8((__m512i)(integers & 0x7f));
    _mm_storeu_si128((__m128i *)to, _mm_unpacklo_epi32(above, below));
    _mm_storeu_si128((__m128i *)(to + 16), _mm_unpackhi_epi32(above, below));
}
#endif

#if defined(__AVX512BW__)
/* Writes the upper and the lower halves, which are `plane` bytes apart. */
INLINE void put_planes(char *to, ptrdiff_t plane, vbits integers)
{
    const __m128i above = _mm512_cvtepi32_epi8((__m512i)(integers >> 7));
    const __m128i below = _mm512_cvtepi32_epi8((__m512i)(integers & 0x7f));
    _mm_storeu_si128((__m128i *)to, above);
    _mm_storeu_si128((__m128i *)(to + plane), below);
}
#endif

/* Makes the integers that stand for a row of K elements.  The scale of the row is at
 * least `least` / LARGEST; that of a row with a NaN or an infinity is NaN. */
INLINE void quantize_row(row_form form, ptrdiff_t K, const real *x, real least,
                         void *row, real *scale)
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
    const vbits bias =
        v_set1_bits(0x4B400000 - (form == AS_BYTES ? 1 << OFFSET_BITS : 0));
    const ptrdiff_t padded = round_up(K, 4 * V);
    char *to = row;
    for (ptrdiff_t k = 0; k < padded; k += 2 * V, to += V_BYTES) {
        const vreal a = v_load_n(x + k, max_size(0, K - k));
        const vreal b = v_load_n(x + k + V, max_size(0, K - k - V));
        const vbits first = v_as_bits(a * factor + magic) - bias;
        const vbits second = v_as_bits(b * factor + magic) - bias;
#if defined(__AVX512BW__)
        if (form == AS_BYTES) {
            put_halves(to, first);
            put_halves(to + V_BYTES / 2, second);
            continue;
        }
        if (form == AS_PLANES) {
            put_planes((char *)row + k, padded, first);
            put_planes((char *)row + k + V, padded, second);
            continue;
        }
#endif
        *(vbits_unaligned *)to = (ZIP(first, second, FIRST_OF_FOUR) & 0xffff) |
                                 (ZIP(first, second, LAST_OF_FOUR) << 16);
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
    /* Memory that is fetched into the level-2 cache meanwhile, next_step bytes for each
     * pair of rows of widened weights. */
    const char *next;
    ptrdiff_t next_step;
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
                      ptrdiff_t row, const char *b, vbits sums[MAX_MR][MAX_NV])
{
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

/* The same of weights that are widened already. */
INLINE void wide_sums(const int mr, const int nv, ptrdiff_t groups, const int32_t *a,
                      ptrdiff_t row, const char *b, const char *next,
                      ptrdiff_t next_step, vbits sums[MAX_MR][MAX_NV])
{
    /* Four rows share one pointer, as in tile(). */
    const int32_t *group[3] = {a, a + 4 * row, a + 8 * row};
    for (ptrdiff_t k = 0; k < 2 * groups; k++, b += nv * V_BYTES, next += next_step) {
        vint16 w[MAX_NV];
        __builtin_prefetch(next, 0, 2);
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            w[v] = (vint16) * (const vbits_unaligned *)(b + v * V_BYTES);
#pragma GCC unroll 12
        for (int r = 0; r < mr; r++) {
            const vint16 pair = (vint16)v_set1_bits(group[r / 4][r % 4 * row]);
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++)
                sums[r][v] += v_pair_products(w[v], pair);
        }
#pragma GCC unroll 3
        for (int g = 0; g < 3; g++)
            group[g]++;
    }
}

#if defined(__AVX512BW__)
/* The same by products of bytes, of rows that are made for them. */
BYTES_TARGET INLINE void byte_sums(const int mr, const int nv, ptrdiff_t groups,
                                   const int32_t *a, ptrdiff_t row, const char *b,
                                   const int32_t *column_sums,
                                   vbits sums[MAX_MR][MAX_NV])
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

/* Widens exact sums of rows k .. of weights, adds them to those of the rows before, and
 * scales the last. */
INLINE void put_sums(const int mr, const int nv, const quantized_tile *t, ptrdiff_t k,
                     vbits sums[MAX_MR][MAX_NV])
{
    const int is_last = k + MOST_ROWS >= t->K;
#pragma GCC unroll 12
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            real *c = t->c + r * t->c_row + v * V;
            vreal total = __builtin_convertvector(sums[r][v], vreal);
            if (k > 0)
                total = v_load(c) + total;
            if (is_last) {
                const vreal scale = v_load(t->scale + v * V);
                const vreal start =
                    t->start ? v_load(t->start + r * t->start_row + v * V) : (vreal){0};
                total = v_fma(total, scale * v_set1(t->row_scale[r]), start);
            }
            v_store(c, total);
        }
}

/* How the weights of a tile are read. */
typedef enum { IN_PAIRS, WIDENED, IN_BYTES, IN_TILES } weight_form;

INLINE void zero_sums(const int mr, const int nv, vbits sums[MAX_MR][MAX_NV])
{
#pragma GCC unroll 12
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            sums[r][v] = (vbits){0};
}

INLINE void pairs_tile(const int mr, const int nv, const quantized_tile *t)
{
    for (ptrdiff_t k = 0; k < t->K; k += MOST_ROWS) {
        vbits sums[MAX_MR][MAX_NV];
        zero_sums(mr, nv, sums);
        pair_sums(mr, nv, n_parts(min_size(MOST_ROWS, t->K - k), 4),
                  (const int32_t *)t->rows + k / 2, t->row,
                  (const char *)t->weights + k * nv * V, sums);
        put_sums(mr, nv, t, k, sums);
    }
}

INLINE void wide_tile(const int mr, const int nv, const quantized_tile *t)
{
    for (ptrdiff_t k = 0; k < t->K; k += MOST_ROWS) {
        vbits sums[MAX_MR][MAX_NV];
        zero_sums(mr, nv, sums);
        wide_sums(mr, nv, n_parts(min_size(MOST_ROWS, t->K - k), 4),
                  (const int32_t *)t->rows + k / 2, t->row,
                  (const char *)t->weights + 2 * k * nv * V,
                  t->next + k / 2 * t->next_step, t->next_step, sums);
        put_sums(mr, nv, t, k, sums);
    }
}

#if defined(__AVX512BW__)
BYTES_TARGET INLINE void bytes_tile(const int mr, const int nv, const quantized_tile *t)
{
    const int32_t *column_sums = t->sums;
    for (ptrdiff_t k = 0; k < t->K; k += MOST_ROWS, column_sums += t->sums_step) {
        vbits sums[MAX_MR][MAX_NV];
        byte_sums(mr, nv, n_parts(min_size(MOST_ROWS, t->K - k), 4),
                  (const int32_t *)t->rows + k / 2, t->row,
                  (const char *)t->weights + k * nv * V, column_sums, sums);
        put_sums(mr, nv, t, k, sums);
    }
}
#endif

/* Rows of the tallest tile that widens a panel of nv vectors as it goes.  Products of
 * bytes have two sums for each vector of results, and a word of each row for either. */
INLINE ptrdiff_t quantized_rows(ptrdiff_t nv)
{
    static const signed char rows[2][MAX_NV] = {{3, 3, 2, 2}, {4, 4, 3, 2}};
    return rows[V_REGISTERS == 32][nv - 1];
}

/* Panels are one vector wide, three or four.  Wide tiles are as tall as tile_rows(). */

/* clang-format off */
#define QUANTIZED_CASE(name, nv, mr) case nv * 16 + mr: name##_tile(mr, nv, t); break;
#define QUANTIZED_CASES(name, nv) \
    QUANTIZED_CASE(name, nv, 1) QUANTIZED_CASE(name, nv, 2) \
    case nv * 16 + 3: if (nv < (V_REGISTERS == 32 ? 4 : 3)) name##_tile(3, nv, t); break; \
    case nv * 16 + 4: if (V_REGISTERS == 32 && nv < 3) name##_tile(4, nv, t); break;
#define QUANTIZED_TILES(name) \
    static void name##_tiles(ptrdiff_t mr, ptrdiff_t nv, const quantized_tile *t) \
    { \
        switch (nv * 16 + mr) { \
            QUANTIZED_CASES(name, 1) QUANTIZED_CASES(name, 3) QUANTIZED_CASES(name, 4) \
        } \
    }

QUANTIZED_TILES(bfloat16)
QUANTIZED_TILES(pairs)
#if defined(__AVX512BW__)
BYTES_TARGET QUANTIZED_TILES(bytes)
#endif

#define WIDE(nv, mr) \
    static void wide_##mr##x##nv(const quantized_tile *t) \
    { \
        wide_tile(mr, nv, t); \
    }
#define WIDE_4(nv) WIDE(nv, 1) WIDE(nv, 2) WIDE(nv, 3) WIDE(nv, 4)
#define WIDE_6(nv) WIDE_4(nv) WIDE(nv, 5) WIDE(nv, 6)
#define WIDE_8(nv) WIDE_6(nv) WIDE(nv, 7) WIDE(nv, 8)
#define WIDE_12(nv) WIDE_8(nv) WIDE(nv, 9) WIDE(nv, 10) WIDE(nv, 11) WIDE(nv, 12)
typedef void quantized_function(const quantized_tile *);
#if V_REGISTERS == 32
WIDE_12(1) WIDE_8(3) WIDE_6(4)
static quantized_function *const wide_tiles[MAX_NV][MAX_MR] = {
    {NAMES_12(wide, 1)}, {0}, {NAMES_8(wide, 3)}, {NAMES_6(wide, 4)}};
#else
WIDE_12(1) WIDE_4(3) WIDE(4, 1) WIDE(4, 2) WIDE(4, 3)
static quantized_function *const wide_tiles[MAX_NV][MAX_MR] = {
    {NAMES_12(wide, 1)}, {0}, {NAMES_4(wide, 3)}, {NAMES_3(wide, 4)}};
#endif
/* clang-format on */

#include "quantized_amx.h"

#endif
