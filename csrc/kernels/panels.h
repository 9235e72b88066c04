/* SPDX-License-Identifier: BSD-3-Clause */
/* panels.h -- how a matrix B is cut into panels, and packed for the register tile.
 *
 * A packed matrix of K rows and N columns is a sequence of panels.  A panel is a few
 * vectors of columns, stored row after row, [k][nv * V], so that a tile reads it from
 * beginning to end.
 */
#ifndef FR_PANELS_H
#define FR_PANELS_H

#include "tile.h"

/* A matrix of N columns is cut into panels of `widest` vectors.  Where one vector would
 * be left over, the last two panels share theirs, since panels one vector wide are
 * slow.  A packed panel begins column * K elements from the start of the packed
 * matrix. */
typedef struct {
    ptrdiff_t column; /* its first column */
    ptrdiff_t nv;     /* vectors in a row of the panel */
    ptrdiff_t n;      /* columns that the matrix has: nv * V but for the last panel */
} panel;

INLINE ptrdiff_t n_panels(ptrdiff_t N, ptrdiff_t widest)
{
    const ptrdiff_t vectors = (N + V - 1) / V;
    return (vectors + widest - 1) / widest;
}

INLINE panel get_panel(ptrdiff_t N, ptrdiff_t widest, ptrdiff_t p)
{
    ptrdiff_t first = p * widest;
    const ptrdiff_t left = (N + V - 1) / V - first;
    ptrdiff_t nv = min_size(widest, left);
    if (widest > 2 && left == widest + 1) {
        nv = widest - 1;
    } else if (widest > 2 && left == 1 && p > 0) {
        first--;
        nv = 2;
    }
    return (panel){first * V, nv, min_size(nv * V, N - first * V)};
}

/* A panel is read once for each tile of rows and has to stay in the level-2 cache until
 * the last of them, together with the next panel, which is being fetched. */
#define PANEL_BYTES (256 << 10)

/* The most vectors in a row of a panel of K rows.  Two vectors are the fewest with
 * which tiles are fast. */
INLINE ptrdiff_t widest_panel(ptrdiff_t K)
{
    ptrdiff_t nv = MAX_NV;
    while (nv > 2 && K * nv * V_BYTES > PANEL_BYTES)
        nv--;
    return nv;
}

INLINE ptrdiff_t packed_size(ptrdiff_t K, ptrdiff_t N)
{
    return K * round_up(N, V);
}

/* dst[k * width + n] = src[n * ld + k] for n < N and k < K: the rows of a matrix become
 * columns of a panel. */
static void pack_transposed(real *dst, ptrdiff_t width, const real *src, ptrdiff_t ld,
                            ptrdiff_t N, ptrdiff_t K)
{
    for (ptrdiff_t n = 0; n < N; n += V)
        for (ptrdiff_t k = 0; k < K; k += V) {
            vreal rows[V_BYTES / sizeof(real)];
#pragma GCC unroll 16
            for (ptrdiff_t r = 0; r < V; r++)
                rows[r] =
                    n + r < N ? v_load_n(src + (n + r) * ld + k, K - k) : (vreal){0};
            transpose(rows);
#pragma GCC unroll 16
            for (ptrdiff_t r = 0; r < V; r++)
                if (k + r < K)
                    v_store_n(dst + (k + r) * width + n, rows[r], N - n);
        }
}

/* The same for an operand B of bfloat16, in rows of words. */
static void pack_transposed_half(real *dst, ptrdiff_t width, const real *src,
                                 ptrdiff_t ld, ptrdiff_t N, ptrdiff_t K)
{
    const ptrdiff_t words = operand_size(K);
    for (ptrdiff_t n = 0; n < N; n += V)
        for (ptrdiff_t k = 0; k < words; k += V) {
            vreal rows[V_BYTES / sizeof(real)];
            for (ptrdiff_t r = 0; r < V; r++)
                rows[r] = n + r < N ? v_load_operand(src + (n + r) * ld, k, K, 0)
                                    : (vreal){0};
            transpose(rows);
            for (ptrdiff_t r = 0; r < V; r++)
                if (k + r < words)
                    v_store_n(dst + (k + r) * width + n, rows[r], N - n);
        }
}

/* One of these: K numbers of each row become operand_size(K) rows of words where `half`
 * is set, and K rows where it is not. */
INLINE void pack_operand(int half, real *dst, ptrdiff_t width, const real *src,
                         ptrdiff_t ld, ptrdiff_t N, ptrdiff_t K)
{
    if (half)
        pack_transposed_half(dst, width, src, ld, N, K);
    else
        pack_transposed(dst, width, src, ld, N, K);
}

/* Packs panel q of B from the rows of B's transpose; columns that the matrix lacks are
 * zero. */
static void pack_panel(int half, real *dst, panel q, const real *src, ptrdiff_t K)
{
    if (q.n < q.nv * V)
        memset(dst, 0, (size_t)(operand_size(K) * q.nv * V) * sizeof(real));
    pack_operand(half, dst, q.nv * V, src, K, q.n, K);
}

/* Packs B = M^T, where M has N rows and K columns; columns that the last panel has
 * beyond N are zero. */
static void pack_columns(int half, real *packed, const real *M, ptrdiff_t N,
                         ptrdiff_t K)
{
    const ptrdiff_t words = operand_size(K), widest = widest_panel(words);
    for (ptrdiff_t p = 0; p < n_panels(N, widest); p++) {
        const panel q = get_panel(N, widest, p);
        pack_panel(half, packed + q.column * words, q, M + q.column * K, K);
    }
}

/* Packs row k of a matrix of K rows and N columns: its part of every panel. */
INLINE void pack_row(real *packed, ptrdiff_t K, ptrdiff_t k, const real *row,
                     ptrdiff_t N, ptrdiff_t widest)
{
    panel q = get_panel(N, widest, 0);
    for (ptrdiff_t p = 0; q.n > 0; q = get_panel(N, widest, ++p)) {
        real *dst = packed + q.column * K + k * q.nv * V;
        for (ptrdiff_t v = 0; v < q.nv * V; v += V)
            v_store(dst + v,
                    v_load_n(row + q.column + v, max_size(0, min_size(V, q.n - v))));
    }
}

/* The same for row k of an operand whose k runs over rows, of bfloat16, and that has
 * room for K rows. */
INLINE void pack_row_half(real *packed, ptrdiff_t K, ptrdiff_t k, const real *row,
                          ptrdiff_t N, ptrdiff_t widest)
{
    panel q = get_panel(N, widest, 0);
    for (ptrdiff_t p = 0; q.n > 0; q = get_panel(N, widest, ++p)) {
        real *row_0 = packed + q.column * operand_size(K);
        for (ptrdiff_t v = 0; v < q.nv * V; v += V)
            v_store_row(row_0 + v, q.nv * V, k,
                        v_round_half(v_load_n(row + q.column + v,
                                              max_size(0, min_size(V, q.n - v)))));
    }
}

/* Packs row k of a matrix as it is, or as part of an operand of bfloat16. */
INLINE void pack_row_operand(int half, real *packed, ptrdiff_t K, ptrdiff_t k,
                             const real *row, ptrdiff_t N, ptrdiff_t widest)
{
    if (half)
        pack_row_half(packed, K, k, row, N, widest);
    else
        pack_row(packed, K, k, row, N, widest);
}

/* Packs row k of words of an operand B of K such rows and N columns, from two rows of
 * numbers, the second of which may be missing (NULL). */
static void pack_two_rows(real *packed, ptrdiff_t K, ptrdiff_t k, const real *first,
                          const real *second, ptrdiff_t N, ptrdiff_t widest)
{
#if FR_PAIRS
    panel q = get_panel(N, widest, 0);
    for (ptrdiff_t p = 0; q.n > 0; q = get_panel(N, widest, ++p)) {
        real *dst = packed + q.column * K + k * q.nv * V;
        for (ptrdiff_t v = 0; v < q.nv * V; v += V) {
            const ptrdiff_t lanes = max_size(0, min_size(V, q.n - v)),
                            at = q.column + v;
            const vreal high = v_round_half(v_load_n(first + at, lanes));
            const vreal low =
                second ? v_round_half(v_load_n(second + at, lanes)) : (vreal){0};
            v_store(dst + v, v_pair(high, low));
        }
    }
#else
    (void)packed, (void)K, (void)k, (void)first, (void)second, (void)N, (void)widest;
#endif
}

/* Packs row k of an operand B of K rows and N columns: row `word` of a matrix of n rows,
 * or, in pairs, rows 2 word and 2 word + 1. */
static void pack_word_row(int half, real *packed, ptrdiff_t K, ptrdiff_t k,
                          const real *matrix, ptrdiff_t n, ptrdiff_t word, ptrdiff_t N,
                          ptrdiff_t widest)
{
    const real *row = matrix + word * PAIR * N;
    if (FR_PAIRS)
        pack_two_rows(packed, K, k, row, 2 * word + 1 < n ? row + N : NULL, N, widest);
    else
        pack_row_operand(half, packed, K, k, row, N, widest);
}

#if FR_PAIRS
/* Rows in pairs from columns in pairs: column m of the result and its rows n and n + 1
 * are one word, and come from columns n and n + 1 of row m / 2. */
static void repair(real *dst, ptrdiff_t dst_row, const real *src, ptrdiff_t src_row,
                   ptrdiff_t M, ptrdiff_t N)
{
    for (ptrdiff_t n = 0; n < N; n += 2)
        for (ptrdiff_t m = 0; m < M; m++) {
            uint32_t high, low = 0;
            const real *from = src + m / 2 * src_row + n;
            memcpy(&high, from, sizeof high);
            if (n + 1 < N)
                memcpy(&low, from + 1, sizeof low);
            const uint32_t word =
                m % 2 ? high << 16 | (low & 0xffffu) : (high & 0xffff0000u) | low >> 16;
            memcpy(dst + n / 2 * dst_row + m, &word, sizeof word);
        }
}
#endif

/* Packs rows k .. k + n - 1 of panel q of a matrix of K rows.  The numbers come from n
 * columns of a panel of the matrix's transpose, whose rows are `width` elements apart.
 */
static void pack_from_panel(real *packed, ptrdiff_t K, ptrdiff_t k, panel q,
                            const real *columns, ptrdiff_t width, ptrdiff_t n)
{
    real *dst = packed + q.column * K + k * q.nv * V;
    if (q.n < q.nv * V)
        memset(dst, 0, (size_t)(operand_size(n) * q.nv * V) * sizeof(real));
#if FR_PAIRS
    repair(dst, q.nv * V, columns + q.column / 2 * width, width, q.n, n);
#else
    pack_transposed(dst, q.nv * V, columns + q.column * width, width, q.n, n);
#endif
}

#endif
