/* SPDX-License-Identifier: BSD-3-Clause */
/* gemm.h -- the products that are made of register tiles and packed panels: some rows
 * by a panel, and the sums over many rows that are the gradients of weights.
 */
#ifndef FR_GEMM_H
#define FR_GEMM_H

#include "panels.h"
#include "tile.h"
#if FR_AMX
#include "amx.h"
#endif

/* Vectors of a tile on a panel of nv vectors.  A panel of four is done in two halves,
 * whose taller tiles read each vector of B for more rows, unless the halves would leave
 * many registers idle: 16 rows are two tiles of 8x2 (82 % of the processor's peak) or
 * three of 5x4 and 6x4 (94 %). */
INLINE ptrdiff_t tile_width(ptrdiff_t rows, ptrdiff_t nv)
{
    if (FR_AMX || nv < 4 || rows <= tile_rows(4))
        return nv;
    const ptrdiff_t halves = n_row_tiles(rows, 2);
    return halves > 2 || n_row_tiles(rows, 4) >= 2 * halves ? 2 : nv;
}

/* The driver hands rows to multiply_rows in chunks of a few tiles.  The later tiles of
 * a chunk find the panel in the level-1 cache, and the cell, which works on the chunk's
 * results next, finds those there. */
#define CHUNK_ROWS (FR_AMX ? MAX_MR : 2 * MAX_MR)

typedef struct {
    ptrdiff_t n;     /* chunks */
    ptrdiff_t each;  /* tiles in a chunk, but for the last */
    ptrdiff_t tiles; /* in all chunks together */
    even_split rows; /* how the rows are shared out over the tiles */
} row_chunks;

INLINE row_chunks get_chunks(ptrdiff_t rows, ptrdiff_t nv)
{
    if (rows <= tile_rows(MAX_NV))
        return (row_chunks){1, 1, 1, {0, 0}};
    const ptrdiff_t width = tile_width(rows, nv), tiles = n_row_tiles(rows, width);
    const ptrdiff_t each = FR_AMX                           ? 1
                           : V_REGISTERS == 32 && width > 2 ? (width == 4 ? 4 : 3)
                           : V_REGISTERS == 32 ? 2
                                               : CHUNK_ROWS / tile_rows(width);
    if (tiles <= each)
        return (row_chunks){1, each, tiles, {0, 0}};
    return (row_chunks){(tiles + each - 1) / each, each, tiles,
                        split_evenly(rows, tiles)};
}

/* The first row of chunk i of `rows` rows; a tile begins there, too. */
INLINE ptrdiff_t chunk_start(const row_chunks *c, ptrdiff_t rows, ptrdiff_t i)
{
    return i == c->n ? rows : i == 0 ? 0 : share_start(c->rows, i * c->each);
}

/* One tile of the driver's products, A in rows: mr rows by nv vectors. */
INLINE void run_rows_tile(const tile_args *t, ptrdiff_t mr, ptrdiff_t nv)
{
#if FR_AMX
    amx_rows_tile(t, mr, nv * V);
#else
    rows_tiles[nv - 1][mr - 1](t);
#endif
}

typedef struct {
    const char *start;
    ptrdiff_t bytes;
} memory_range;

/* Part i of n equal parts of a packed panel of K rows of nv vectors. */
INLINE memory_range panel_part(const real *panel_start, ptrdiff_t K, ptrdiff_t nv,
                               ptrdiff_t i, ptrdiff_t n)
{
    const ptrdiff_t all = K * nv * V_BYTES, part = n == 1 ? all : all / n;
    return (memory_range){(const char *)panel_start + i * part, part};
}

/* What the sums of a product begin with: those of row r with the elements at start + r *
 * row, or with zero where start is NULL. */
typedef struct {
    const real *start;
    ptrdiff_t row;
} sums_start;

/* C = `from` + A B for some rows of A and one panel of B.  C has rows of nv * V
 * elements, all of which are written, those of columns that the matrix lacks too; C and
 * `from` may be the same.  Meanwhile `next`, a part of the panel that will be needed
 * next, is fetched into the level-2 cache; otherwise the first tile of every panel would
 * wait for level 3. */
INLINE void multiply_rows_from(sums_start from, const real *a, ptrdiff_t a_row,
                               ptrdiff_t n_segments, ptrdiff_t a_segment, ptrdiff_t K,
                               const real *b, ptrdiff_t nv, memory_range next, real *c,
                               ptrdiff_t c_row, ptrdiff_t rows)
{
    if (rows <= 0)
        return;
    const ptrdiff_t step = tile_width(rows, nv), n_tiles = n_row_tiles(rows, step);
    const ptrdiff_t calls = step < nv ? 2 * n_tiles : n_tiles;
    const even_split tiles =
        n_tiles > 1 ? split_evenly(rows, n_tiles) : (even_split){rows, 0};
    const ptrdiff_t next_step = (!FR_AMX && calls < nv) || next.bytes == 0
                                    ? 0
                                    : next.bytes / (calls * K * n_segments);
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
                                 .start = from.start ? from.start + r * from.row + v * V
                                                     : NULL,
                                 .start_row = from.row,
                                 .next = ahead,
                                 .next_step = next_step};
            run_rows_tile(&t, mr, step);
            ahead += next_step * K * n_segments;
        }
    }
}

/* C = A B, with sums that begin with zero. */
INLINE void multiply_rows(const real *a, ptrdiff_t a_row, ptrdiff_t n_segments,
                          ptrdiff_t a_segment, ptrdiff_t K, const real *b, ptrdiff_t nv,
                          memory_range next, real *c, ptrdiff_t c_row, ptrdiff_t rows)
{
    multiply_rows_from((sums_start){NULL, 0}, a, a_row, n_segments, a_segment, K, b, nv,
                       next, c, c_row, rows);
}

/* --- weight gradients: M += A^T B, where k runs over the rows of A and of B ------- */

/* Rows whose sum is added to a weight gradient at a time: as many as make a packed tile
 * of A 16 KiB. */
#define BLOCK_ROWS 256

/* Most rows of a sum that is added to a weight gradient at a time. */
#define LONGEST_SUM 512

/* Elements of the packed A of a gradient of M rows, summed over `block` rows. */
INLINE ptrdiff_t packed_a_size(ptrdiff_t M, ptrdiff_t block)
{
    return n_row_tiles(M, SUM_NV) * block * A_LANES;
}

/* Packs rows [k0, k1) of A, which has M columns and rows a_row elements apart, into the
 * tiles of `packed`.  Up to A_LANES elements past the last column are read as well. */
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

/* The same of bfloat16, in an operand whose row k_first comes from row 0 of A. */
static void pack_a_half(real *packed, ptrdiff_t block, const real *a, ptrdiff_t a_row,
                        ptrdiff_t M, ptrdiff_t k_first, ptrdiff_t k0, ptrdiff_t k1)
{
    const ptrdiff_t tiles = n_row_tiles(M, SUM_NV);
    const even_split split = sum_split(M);
    for (ptrdiff_t i = 0; i < tiles; i++) {
        const real *from = a + share_start(split, i);
        real *to = packed + i * operand_size(block) * A_LANES;
        for (ptrdiff_t k = k0; k < k1; k++) {
            const int pairs = has_pair(k_first + k, k_first + k1);
            for (ptrdiff_t v = 0; v < A_LANES; v += V) {
                const real *at = from + k * a_row + v;
                if (pairs)
                    v_store_two_rows(to + v, A_LANES, k_first + k,
                                     v_round_half(v_load(at)),
                                     v_round_half(v_load(at + a_row)));
                else
                    v_store_row(to + v, A_LANES, k_first + k, v_round_half(v_load(at)));
            }
            k += pairs;
        }
    }
}

/* Sums over the rows of A, for the gradients of biases.  They are the longest sums of
 * all, and cheap next to the products, so that nothing is lost of what they are made
 * of: sums of ROW_CHAIN rows, one after the other.  Besides the sum of these there is
 * the sum of what rounding has taken from it (Knuth's two-sum). */
#define ROW_CHAIN 16

/* Adds a to a vector of sums, and what rounding takes from the result to `lost`. */
INLINE void add_and_keep_lost(real *sum, real *lost, vreal a)
{
    const vreal before = v_load(sum), after = before + a, added = after - before;
    v_store(sum, after);
    v_store(lost, v_load(lost) + ((before - (after - added)) + (a - added)));
}

/* The sum, with what rounding took from it.  Where an addition gave an infinity, what
 * it lost is not a number, and the sum is what is left. */
INLINE vreal sum_and_lost(const real *sum, const real *lost)
{
    const vreal a = v_load(lost);
    return v_load(sum) + v_from_bits(v_as_bits(a) & (vbits)(a == a));
}

/* Adds the sums over K rows of a packed A to vectors [begin, end) of `sum`, which are
 * laid out like a row of all tiles of A.  The loop goes through eight vectors side by
 * side.  Eight independent sums hide how long an addition takes, and eight streams of
 * loads hide how long it takes to fetch A from the cache of the thread that packed it.
 */
static void add_row_sums(real *sum, real *lost, const real *packed_a, ptrdiff_t block,
                         ptrdiff_t K, ptrdiff_t begin, ptrdiff_t end)
{
    enum { AT_ONCE = 8, VECTORS = A_LANES / V };
    for (ptrdiff_t u = begin; u < end; u += AT_ONCE) {
        const ptrdiff_t vectors = min_size(AT_ONCE, end - u);
        const real *a[AT_ONCE];
        /* Where fewer than eight vectors are left, the last one is repeated. */
        for (ptrdiff_t i = 0; i < AT_ONCE; i++) {
            const ptrdiff_t at = u + min_size(i, vectors - 1);
            a[i] = packed_a + at / VECTORS * block * A_LANES + at % VECTORS * V;
        }
        for (ptrdiff_t k0 = 0; k0 < K; k0 += ROW_CHAIN) {
            vreal chain[AT_ONCE] = {{0}};
            for (ptrdiff_t k = k0; k < min_size(K, k0 + ROW_CHAIN); k++)
                for (ptrdiff_t i = 0; i < AT_ONCE; i++)
                    chain[i] = chain[i] + v_load(a[i] + k * A_LANES);
            for (ptrdiff_t i = 0; i < vectors; i++)
                add_and_keep_lost(sum + (u + i) * V, lost + (u + i) * V, chain[i]);
        }
    }
}

/* C += A B for a packed A, mr rows and n columns of C.  The product is complete before
 * it is added: a sum that went on from what C holds would have larger rounding errors.
 */
INLINE void multiply_add(const real *a, const real *b, ptrdiff_t K, ptrdiff_t nv,
                         const char *next, ptrdiff_t next_step, real *c,
                         ptrdiff_t c_row, ptrdiff_t mr, ptrdiff_t n)
{
    const ptrdiff_t width = nv * V;
#if FR_AMX
    (void)next, (void)next_step;
    amx_sum_tile(a, b, width, K, c, c_row, mr, n);
#else
    real sums[MAX_MR * SUM_NV * V_BYTES / sizeof(real)] __attribute__((aligned(64)));
    const tile_args t = {.a = a,
                         .n_segments = 1,
                         .K = K,
                         .b = b,
                         .b_row = width,
                         .c = sums,
                         .c_row = width,
                         .next = next,
                         .next_step = next_step};
    sum_tiles[nv - 1][mr - 1](&t);
    if (n == SUM_NV * V) {
        for (ptrdiff_t r = 0; r < mr; r++)
#pragma GCC unroll 2
            for (ptrdiff_t v = 0; v < SUM_NV; v++) {
                real *to = c + r * c_row + v * V;
                v_store(to, v_load(to) + v_load(sums + (r * SUM_NV + v) * V));
            }
        return;
    }
    for (ptrdiff_t r = 0; r < mr; r++)
        for (ptrdiff_t v = 0; v < n; v += V) {
            real *to = c + r * c_row + v;
            v_store_n(to, v_load_n(to, n - v) + v_load(sums + r * width + v), n - v);
        }
#endif
}

/* Makes a packed A of K rows of bfloat16 what add_product() takes. */
INLINE void finish_packed_a(int half, real *packed, ptrdiff_t K)
{
#if FR_AMX
    if (half)
        turn_packed_a(packed, K);
#else
    (void)half, (void)packed, (void)K;
#endif
}

/* Where part i of a sum over K rows begins. */
INLINE ptrdiff_t sum_part_start(int half, ptrdiff_t K, ptrdiff_t parts, ptrdiff_t i)
{
    const ptrdiff_t start = part_start(K, parts, i);
    return half && i < parts ? start / 2 * 2 : start;
}

/* M += A^T B for the mr rows of M that are one tile, and all N columns, in parts of at
 * most LONGEST_SUM rows of A and B.  Meanwhile the sums of the next tile and `next`, a
 * part of the next tile of the packed A, are fetched.  Both are far away: about half of
 * A was written by another thread and is in its cache.  With `half`, the operands are
 * bfloat16, and a part begins with an even row.  It is no inline function because each
 * copy would have sums of its own on the stack. */
static __attribute__((noinline)) void add_product(int half, const real *packed_a,
                                                  const real *packed_b, ptrdiff_t block,
                                                  ptrdiff_t K, memory_range next,
                                                  real *M, ptrdiff_t mr, ptrdiff_t N)
{
    const ptrdiff_t panels = n_panels(N, SUM_NV), next_step = next.bytes / (panels * K);
    const ptrdiff_t parts = FR_AMX ? 1 : n_parts(K, LONGEST_SUM);
    for (ptrdiff_t part = 0; part < parts; part++) {
        const ptrdiff_t k0 = sum_part_start(half, K, parts, part);
        const ptrdiff_t rows = sum_part_start(half, K, parts, part + 1) - k0;
        for (ptrdiff_t p = 0; p < panels; p++) {
            const panel q = get_panel(N, SUM_NV, p);
            const real *sums = M + q.column + q.n;
            for (ptrdiff_t r = 0; r < mr; r++)
                for (ptrdiff_t v = 0; v < SUM_NV * V; v += V)
                    __builtin_prefetch(sums + r * N + v);
            multiply_add(packed_a + k0 / PAIR * A_LANES,
                         packed_b + q.column * operand_size(block) +
                             k0 / PAIR * q.nv * V,
                         rows, q.nv, next.start + (panels * k0 + p * rows) * next_step,
                         next_step, M + q.column, N, mr, q.n);
        }
    }
}

#endif
