/* SPDX-License-Identifier: BSD-3-Clause */
/* gemm.h -- the register tile, the packed panels it reads, and the products made of
 * them.
 *
 * A tile computes `mr` rows by `nv` vectors of C = A B while its accumulators stay in
 * registers:
 *     C[r][:] (+)= sum over k, in order, of A(r, k) * B[k][:]
 * B is a packed panel, [k][nv * V].  A comes as rows (k contiguous) or as a packed
 * panel [k][A_LANES] (for weight gradients, where k runs over time and batch).  Every
 * element of C is one sequential sum over k whatever the tile shape, so results do not
 * depend on where tiles begin: that is what makes them equal for any thread count and
 * vector width.
 *
 * Per k a 6x4 tile loads 4 vectors and broadcasts 6 scalars for 24 FMAs: bound by the
 * two FMA ports.  One vector wide (12x1) is bound by loads; panels are cut so that it
 * is rare: matrices one vector wide, an odd vector of a weight gradient, and the units
 * left over in a gated cell.
 */
#ifndef FR_GEMM_H
#define FR_GEMM_H

#include "simd.h"

#define MAX_NV 4 /* vectors in a panel */
#define MAX_MR 12
#define SUM_NV 2 /* weight gradients: 12x2, one packed A serves all of B */
#define MAX_WIDTH (MAX_NV * V_BYTES / sizeof(real))

/* Rows of the tallest tile: accumulators + nv vectors of B + a broadcast fit the
 * registers (32: 6x4, 8x3, 12x2; 16: 4x3, 6x2; 3x4 with the scalars held in place of B). */
INLINE ptrdiff_t tile_rows(ptrdiff_t nv)
{
    static const signed char rows[2][MAX_NV] = {{12, 6, 4, 3}, {12, 12, 8, 6}};
    return rows[V_REGISTERS == 32][nv - 1];
}

/* A small product's tile takes a few hundred cycles and a division twenty: what is
 * worked out for each tile, panel or row divides by constants only. */
INLINE ptrdiff_t n_row_tiles(ptrdiff_t rows, ptrdiff_t nv)
{
    if (rows <= tile_rows(MAX_NV))
        return rows > 0;
    switch (tile_rows(nv)) {
    case 12:
        return (rows + 11) / 12;
    case 8:
        return (rows + 7) / 8;
    case 6:
        return (rows + 5) / 6;
    case 4:
        return (rows + 3) / 4;
    default:
        return (rows + 2) / 3;
    }
}

/* n things in equal shares: the first `longer` have one more than the others.  A tall
 * product is cut so, not into full tiles and a short rest. */
typedef struct {
    ptrdiff_t each, longer;
} even_split;

INLINE even_split split_evenly(ptrdiff_t n, ptrdiff_t shares)
{
    const ptrdiff_t each = (ptrdiff_t)((uint32_t)n / (uint32_t)shares);
    return (even_split){each, n - shares * each};
}

INLINE ptrdiff_t share_start(even_split s, ptrdiff_t i)
{
    return i * s.each + min_size(i, s.longer);
}

/* The tiles of M rows of a weight gradient, two vectors wide. */
INLINE even_split sum_split(ptrdiff_t M)
{
    return split_evenly(M, n_row_tiles(M, 2));
}

typedef struct {
    const real *a;
    ptrdiff_t a_row;     /* between rows of A; unused for a packed A */
    ptrdiff_t a_segment; /* between the segments of a row, see below */
    ptrdiff_t n_segments;
    ptrdiff_t K; /* of one segment: rows of A are n_segments runs of K elements */
    const real *b;
    ptrdiff_t
        b_row; /* between rows of B: the panel's width, of which nv * V are used */
    real *c;
    ptrdiff_t c_row;
    const char *next; /* memory to bring into level 2 meanwhile, next_step bytes a k */
    ptrdiff_t next_step;
} tile_args;

/* Lanes of a packed A: a whole number of vectors that holds the tallest 2-wide tile. */
#if V_REGISTERS == 32
#define A_ROWS 12
#else
#define A_ROWS 6
#endif
#define A_LANES ((A_ROWS + V - 1) / V * V)

INLINE void tile(const int mr, const int nv, const int packed_a, const tile_args *t)
{
    /* Copies: what is stored to C might, for all the compiler knows, change `t`. */
    const ptrdiff_t K = t->K, b_row = t->b_row, next_step = t->next_step;
    const ptrdiff_t c_row = t->c_row, a_segment = t->a_segment;
    const ptrdiff_t s = packed_a ? 1 : t->a_row;
    real *const c = t->c;
    vreal acc[MAX_MR][MAX_NV];
    const real *b = t->b, *start = t->a;
    const char *next = t->next;

#pragma GCC unroll 12
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            acc[r][v] = packed_a ? v_load(c + r * c_row + v * V) : (vreal){0};

    for (ptrdiff_t segment = t->n_segments; segment > 0; segment--) {
        /* Rows in groups of four share a base register: 12 pointers would spill. */
        const real *group[3] = {start, start + 4 * s, start + 8 * s};
        start += a_segment;
#pragma GCC unroll 2
        for (ptrdiff_t k = 0; k < K; k++) {
            __builtin_prefetch(next, 0, 2);
            next += next_step;
            if (mr < nv) { /* the fewer of the two are held: A's scalars, else B */
                vreal va[MAX_MR];
#pragma GCC unroll 12
                for (int r = 0; r < mr; r++)
                    va[r] = v_set1(group[r / 4][r % 4 * s]);
#pragma GCC unroll 4
                for (int v = 0; v < nv; v++) {
                    const vreal vb = v_load(b + v * V);
#pragma GCC unroll 12
                    for (int r = 0; r < mr; r++)
                        acc[r][v] = v_fma(va[r], vb, acc[r][v]);
                }
            } else {
                vreal vb[MAX_NV];
#pragma GCC unroll 4
                for (int v = 0; v < nv; v++)
                    vb[v] = v_load(b + v * V);
#pragma GCC unroll 12
                for (int r = 0; r < mr; r++) {
                    const vreal va = v_set1(group[r / 4][r % 4 * s]);
#pragma GCC unroll 4
                    for (int v = 0; v < nv; v++)
                        acc[r][v] = v_fma(va, vb[v], acc[r][v]);
                }
            }
            b += b_row;
#pragma GCC unroll 3
            for (int g = 0; g < 3; g++)
                group[g] += packed_a ? A_LANES : 1;
        }
    }

#pragma GCC unroll 12
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            v_store(c + r * c_row + v * V, acc[r][v]);
}

typedef void tile_function(const tile_args *);

/* clang-format off */
#define TILE(name, packed_a, nv, mr) \
    static void name##_##mr##x##nv(const tile_args *t) { tile(mr, nv, packed_a, t); }
#define TILES_3(name, packed_a, nv) \
    TILE(name, packed_a, nv, 1) TILE(name, packed_a, nv, 2) TILE(name, packed_a, nv, 3)
#define TILES_4(name, packed_a, nv) \
    TILES_3(name, packed_a, nv) TILE(name, packed_a, nv, 4)
#define TILES_6(name, packed_a, nv) \
    TILES_4(name, packed_a, nv) TILE(name, packed_a, nv, 5) TILE(name, packed_a, nv, 6)
#define TILES_8(name, packed_a, nv) \
    TILES_6(name, packed_a, nv) TILE(name, packed_a, nv, 7) TILE(name, packed_a, nv, 8)
#define TILES_12(name, packed_a, nv) \
    TILES_8(name, packed_a, nv) TILE(name, packed_a, nv, 9) TILE(name, packed_a, nv, 10) \
    TILE(name, packed_a, nv, 11) TILE(name, packed_a, nv, 12)

#define NAMES_3(name, nv) name##_1x##nv, name##_2x##nv, name##_3x##nv
#define NAMES_4(name, nv) NAMES_3(name, nv), name##_4x##nv
#define NAMES_6(name, nv) NAMES_4(name, nv), name##_5x##nv, name##_6x##nv
#define NAMES_8(name, nv) NAMES_6(name, nv), name##_7x##nv, name##_8x##nv
#define NAMES_12(name, nv) \
    NAMES_8(name, nv), name##_9x##nv, name##_10x##nv, name##_11x##nv, name##_12x##nv

/* rows_tiles[nv - 1][mr - 1] and sum_tiles[nv - 1][mr - 1], as tall as tile_rows(nv) */
#if V_REGISTERS == 32
TILES_12(rows, 0, 1) TILES_12(rows, 0, 2) TILES_8(rows, 0, 3) TILES_6(rows, 0, 4)
TILES_12(sum, 1, 1) TILES_12(sum, 1, 2)
static tile_function *const rows_tiles[MAX_NV][MAX_MR] = {
    {NAMES_12(rows, 1)}, {NAMES_12(rows, 2)}, {NAMES_8(rows, 3)}, {NAMES_6(rows, 4)}};
static tile_function *const sum_tiles[SUM_NV][MAX_MR] = {
    {NAMES_12(sum, 1)}, {NAMES_12(sum, 2)}};
#else
TILES_12(rows, 0, 1) TILES_6(rows, 0, 2) TILES_4(rows, 0, 3) TILES_3(rows, 0, 4)
TILES_12(sum, 1, 1) TILES_6(sum, 1, 2)
static tile_function *const rows_tiles[MAX_NV][MAX_MR] = {
    {NAMES_12(rows, 1)}, {NAMES_6(rows, 2)}, {NAMES_4(rows, 3)}, {NAMES_3(rows, 4)}};
static tile_function *const sum_tiles[SUM_NV][MAX_MR] = {
    {NAMES_12(sum, 1)}, {NAMES_6(sum, 2)}};
#endif
/* clang-format on */

/* A matrix of N columns is cut into panels of `widest` vectors; where one would be left
 * over, the last two panels share.  Panel p covers vectors [first, first + nv) and starts
 * at first * V * K when packed. */
typedef struct {
    ptrdiff_t column; /* first column */
    ptrdiff_t nv;     /* vectors */
    ptrdiff_t n;      /* columns that exist: nv * V but for the last panel */
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

/* A panel is read once for each tile of rows and has to stay in level 2 meanwhile, next
 * to the following one, which is on its way. */
#define PANEL_BYTES (256 << 10)

/* Widest panels for K rows of B; two vectors are as few as keep the tiles fast. */
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

/* dst[k * width + n] = src[n * ld + k]: columns of a panel from rows of a matrix. */
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

/* A panel of B from rows of its transpose, zero past q.n. */
static void pack_panel(real *dst, panel q, const real *src, ptrdiff_t K)
{
    if (q.n < q.nv * V)
        memset(dst, 0, (size_t)(K * q.nv * V) * sizeof(real));
    pack_transposed(dst, q.nv * V, src, K, q.n, K);
}

/* B = M^T packed, M of N rows and K columns; the last panel is filled up with zeros. */
static void pack_columns(real *packed, const real *M, ptrdiff_t N, ptrdiff_t K)
{
    const ptrdiff_t widest = widest_panel(K);
    for (ptrdiff_t p = 0; p < n_panels(N, widest); p++) {
        const panel q = get_panel(N, widest, p);
        pack_panel(packed + q.column * K, q, M + q.column * K, K);
    }
}

/* One row of B into its place in every panel: row k of a packed matrix of K rows. */
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

/* Rows k .. k + n - 1 of panel q of a packed matrix of K rows, from n columns of a panel
 * of its transpose, whose rows are `width` apart. */
static void pack_from_panel(real *packed, ptrdiff_t K, ptrdiff_t k, panel q,
                            const real *columns, ptrdiff_t width, ptrdiff_t n)
{
    real *dst = packed + q.column * K + k * q.nv * V;
    if (q.n < q.nv * V)
        memset(dst, 0, (size_t)(n * q.nv * V) * sizeof(real));
    pack_transposed(dst, q.nv * V, columns + q.column * width, width, q.n, n);
}

/* Vectors of a tile on a panel of nv.  Four are done in halves, which read half as much
 * of B a row, unless that leaves many accumulators idle: 16 rows make two 8x2 tiles
 * (82 % of peak), or three of 5x4 and 6x4 (94 %). */
INLINE ptrdiff_t tile_width(ptrdiff_t rows, ptrdiff_t nv)
{
    if (nv < 4 || rows <= tile_rows(4))
        return nv;
    const ptrdiff_t halves = n_row_tiles(rows, 2);
    return halves > 2 || n_row_tiles(rows, 4) >= 2 * halves ? 2 : nv;
}

/* Rows are handed to multiply_rows some tiles at a time: the later ones find the panel
 * in level 1, and the results of all are still there for what comes next. */
#define CHUNK_ROWS (2 * MAX_MR)

typedef struct {
    ptrdiff_t n, each, tiles; /* chunks, tiles in one, tiles in all */
    even_split rows;          /* of the tiles */
} row_chunks;

INLINE row_chunks get_chunks(ptrdiff_t rows, ptrdiff_t nv)
{
    if (rows <= tile_rows(MAX_NV))
        return (row_chunks){1, 1, 1, {0, 0}};
    const ptrdiff_t width = tile_width(rows, nv), tiles = n_row_tiles(rows, width);
    const ptrdiff_t each = V_REGISTERS == 32 && width > 2 ? (width == 4 ? 4 : 3)
                           : V_REGISTERS == 32 ? 2
                                               : CHUNK_ROWS / tile_rows(width);
    if (tiles <= each)
        return (row_chunks){1, each, tiles, {0, 0}};
    return (row_chunks){(tiles + each - 1) / each, each, tiles,
                        split_evenly(rows, tiles)};
}

/* First row of chunk i of `rows` rows, where a tile begins. */
INLINE ptrdiff_t chunk_start(const row_chunks *c, ptrdiff_t rows, ptrdiff_t i)
{
    return i == c->n ? rows : i == 0 ? 0 : share_start(c->rows, i * c->each);
}

typedef struct {
    const char *start;
    ptrdiff_t bytes;
} memory_range;

/* Part i of n of a packed panel of K * nv vectors. */
INLINE memory_range panel_part(const real *panel_start, ptrdiff_t K, ptrdiff_t nv,
                               ptrdiff_t i, ptrdiff_t n)
{
    const ptrdiff_t all = K * nv * V_BYTES, part = n == 1 ? all : all / n;
    return (memory_range){(const char *)panel_start + i * part, part};
}

/* C[rows][nv * V] = A B for one panel; C is written whole, padding included.  Meanwhile
 * `next`, a panel of the same size, is brought into level 2: without it the first tile
 * of every panel waits for level 3. */
INLINE void multiply_rows(const real *a, ptrdiff_t a_row, ptrdiff_t n_segments,
                          ptrdiff_t a_segment, ptrdiff_t K, const real *b, ptrdiff_t nv,
                          memory_range next, real *c, ptrdiff_t c_row, ptrdiff_t rows)
{
    if (rows <= 0)
        return;
    const ptrdiff_t step = tile_width(rows, nv), n_tiles = n_row_tiles(rows, step);
    const ptrdiff_t calls = step < nv ? 2 * n_tiles : n_tiles;
    const even_split tiles =
        n_tiles > 1 ? split_evenly(rows, n_tiles) : (even_split){rows, 0};
    const ptrdiff_t next_step =
        calls < nv || next.bytes == 0 ? 0 : next.bytes / (calls * K * n_segments);
    const char *ahead = next.start;
    for (ptrdiff_t i = 0; i < n_tiles; i++) {
        const ptrdiff_t r = share_start(tiles, i);
        const ptrdiff_t mr = tiles.each + (i < tiles.longer);
        for (ptrdiff_t v = 0; v < nv; v += step) {
            const tile_args t = {.a = a + r * a_row,
                                 .a_row = a_row,
                                 .a_segment = a_segment,
                                 .n_segments = n_segments,
                                 .K = K,
                                 .b = b + v * V,
                                 .b_row = nv * V,
                                 .c = c + r * c_row + v * V,
                                 .c_row = c_row,
                                 .next = ahead,
                                 .next_step = next_step};
            rows_tiles[step - 1][mr - 1](&t);
            ahead += next_step * K * n_segments;
        }
    }
}

/* --- weight gradients: M += A^T B, k running over many rows of A and B ----------- */

#define BLOCK_ROWS 256 /* rows summed at a time: a packed A tile is 16 KiB */

/* Elements of M rows' worth of A, packed for a block of `block` rows. */
INLINE ptrdiff_t packed_a_size(ptrdiff_t M, ptrdiff_t block)
{
    return n_row_tiles(M, SUM_NV) * block * A_LANES;
}

/* Rows [k0, k1) of A (M columns, distance a_row) into the tiles of packed_a.  Reads up
 * to A_LANES past the last column. */
static void pack_a(real *packed, ptrdiff_t block, const real *a, ptrdiff_t a_row,
                   ptrdiff_t M, ptrdiff_t k0, ptrdiff_t k1)
{
    const ptrdiff_t tiles = n_row_tiles(M, SUM_NV);
    const even_split split = sum_split(M);
    for (ptrdiff_t i = 0; i < tiles; i++) {
        const real *from = a + share_start(split, i);
        real *to = packed + i * block * A_LANES;
        for (ptrdiff_t k = k0; k < k1; k++)
            for (ptrdiff_t v = 0; v < A_LANES; v += V)
                v_store(to + k * A_LANES + v, v_load(from + k * a_row + v));
    }
}

/* sum[0 .. n) += rows 0 .. K - 1 of a, in order; four sums at once hide the adds. */
static void add_row_sums(real *sum, const real *a, ptrdiff_t a_row, ptrdiff_t n,
                         ptrdiff_t K)
{
    for (ptrdiff_t j = 0; j < n; j += 4 * V) {
        const ptrdiff_t left = n - j, vectors = min_size(4, (left + V - 1) / V);
        vreal s[4];
        for (ptrdiff_t v = 0; v < vectors; v++)
            s[v] = v_load_n(sum + j + v * V, left - v * V);
        for (ptrdiff_t k = 0; k < K; k++)
            for (ptrdiff_t v = 0; v < vectors; v++)
                s[v] = s[v] + v_load_n(a + k * a_row + j + v * V, left - v * V);
        for (ptrdiff_t v = 0; v < vectors; v++)
            v_store_n(sum + j + v * V, s[v], left - v * V);
    }
}

/* C[mr][n] += A B, sums continued from what C holds; A packed, C a part of a matrix of
 * exactly n columns here, so an incomplete vector goes through a copy. */
INLINE void multiply_add(const real *a, const real *b, ptrdiff_t K, ptrdiff_t nv,
                         const char *next, ptrdiff_t next_step, real *c,
                         ptrdiff_t c_row, ptrdiff_t mr, ptrdiff_t n)
{
    const ptrdiff_t width = nv * V;
    real copy[MAX_MR * SUM_NV * V_BYTES / sizeof(real)] __attribute__((aligned(64)));
    tile_args t = {.a = a,
                   .n_segments = 1,
                   .K = K,
                   .b = b,
                   .b_row = width,
                   .c = c,
                   .c_row = c_row,
                   .next = next,
                   .next_step = next_step};
    if (n < width) {
        t.c = copy;
        t.c_row = width;
        for (ptrdiff_t r = 0; r < mr; r++)
            for (ptrdiff_t v = 0; v < width; v += V)
                v_store(copy + r * width + v,
                        v_load_n(c + r * c_row + v, max_size(0, min_size(V, n - v))));
    }
    sum_tiles[nv - 1][mr - 1](&t);
    for (ptrdiff_t r = 0; n < width && r < mr; r++)
        for (ptrdiff_t v = 0; v < width; v += V)
            v_store_n(c + r * c_row + v, v_load(copy + r * width + v),
                      max_size(0, min_size(V, n - v)));
}

/* M[mr rows][N] += A^T B for one tile of rows of M and all packed columns of B.
 * Meanwhile the sums of the next tile and `next`, of the next packed A, are fetched: both
 * come from far away, half of A from another thread's cache. */
INLINE void add_product(const real *packed_a, const real *packed_b, ptrdiff_t block,
                        ptrdiff_t K, memory_range next, real *M, ptrdiff_t mr,
                        ptrdiff_t N)
{
    const ptrdiff_t panels = n_panels(N, SUM_NV), next_step = next.bytes / (panels * K);
    for (ptrdiff_t p = 0; p < panels; p++) {
        const panel q = get_panel(N, SUM_NV, p);
        const real *sums = M + q.column + q.n;
        for (ptrdiff_t r = 0; r < mr; r++)
            for (ptrdiff_t v = 0; v < SUM_NV * V; v += V)
                __builtin_prefetch(sums + r * N + v);
        multiply_add(packed_a, packed_b + q.column * block, K, q.nv,
                     next.start + p * K * next_step, next_step, M + q.column, N, mr,
                     q.n);
    }
}

#endif
