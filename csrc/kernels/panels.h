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

/* Packs panel q of B from the rows of B's transpose; columns that the matrix lacks are
 * zero. */
static void pack_panel(real *dst, panel q, const real *src, ptrdiff_t K)
{
    if (q.n < q.nv * V)
        memset(dst, 0, (size_t)(K * q.nv * V) * sizeof(real));
    pack_transposed(dst, q.nv * V, src, K, q.n, K);
}

/* Packs B = M^T, where M has N rows and K columns; columns that the last panel has
 * beyond N are zero. */
static void pack_columns(real *packed, const real *M, ptrdiff_t N, ptrdiff_t K)
{
    const ptrdiff_t widest = widest_panel(K);
    for (ptrdiff_t p = 0; p < n_panels(N, widest); p++) {
        const panel q = get_panel(N, widest, p);
        pack_panel(packed + q.column * K, q, M + q.column * K, K);
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

/* Packs rows k .. k + n - 1 of panel q of a matrix of K rows.  The numbers come from n
 * columns of a panel of the matrix's transpose, whose rows are `width` elements apart.
 */
static void pack_from_panel(real *packed, ptrdiff_t K, ptrdiff_t k, panel q,
                            const real *columns, ptrdiff_t width, ptrdiff_t n)
{
    real *dst = packed + q.column * K + k * q.nv * V;
    if (q.n < q.nv * V)
        memset(dst, 0, (size_t)(n * q.nv * V) * sizeof(real));
    pack_transposed(dst, q.nv * V, columns + q.column * width, width, q.n, n);
}

#endif
