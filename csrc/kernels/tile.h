/* SPDX-License-Identifier: BSD-3-Clause */
/* tile.h -- the register tile: the innermost loop of every matrix product.
 *
 * A tile computes `mr` rows by `nv` vectors of a product C = A B, and keeps these sums
 * in registers until they are complete:
 *     C[r][:] (+)= sum over k, in order, of A(r, k) * B[k][:]
 * B is a packed panel, [k][nv * V] (panels.h).  A is given as rows, in which k is
 * contiguous, or as a packed panel [k][A_LANES], for gradients of weights, where k runs
 * over time steps and rows of the batch.  How an element of C is summed does not depend
 * on the shape of the tile: A in rows gives one sum over k in ascending order, and a
 * packed A gives sums of SUM_CHAIN values of k, which are added in order.  Results
 * therefore do not depend on where a tile begins, which is what makes them equal for any
 * number of threads and any width of a vector.
 *
 * For each k a tile of 6 rows by 4 vectors loads 4 vectors and 6 scalars for 24 fused
 * multiply-adds (FMAs), which keep the two FMA units busy.  A tile one vector wide (12
 * by 1) is bound by loads instead.  Panels are cut so that such tiles are rare: they
 * remain for matrices of one vector of columns, for an odd vector of a weight gradient,
 * and for the units that are left over in a gated cell.
 */
#ifndef FR_TILE_H
#define FR_TILE_H

#include "half.h"

#define MAX_NV 4 /* most vectors in a row of a panel */
#define MAX_MR (FR_AMX ? 32 : 12)
/* Most vectors in a row of a panel of which a weight gradient is made.  Panels are
 * narrow there, so that tiles are tall: one packed A serves all of B. */
#define SUM_NV 2
#define MAX_WIDTH (MAX_NV * V_BYTES / sizeof(real))

/* Rows of the tallest tile on a panel of nv vectors.  The sums, nv vectors of B and one
 * scalar of A in all lanes of a vector must fit the registers: with 32 registers tiles
 * of 6x4, 8x3 or 12x2 do, with 16 registers 4x3 or 6x2, and 3x4 if three scalars of A
 * are held and vectors of B loaded one by one. */
INLINE ptrdiff_t tile_rows(ptrdiff_t nv)
{
    static const signed char rows[2][MAX_NV] = {{12, 6, 4, 3}, {12, 12, 8, 6}};
    if (FR_AMX)
        return MAX_MR;
    return rows[V_REGISTERS == 32][nv - 1];
}

/* Tiles that `rows` rows are cut into.  A tile of a small product takes a few hundred
 * cycles and a division about twenty, so that what is computed for each tile, panel or
 * row divides by constants only. */
INLINE ptrdiff_t n_row_tiles(ptrdiff_t rows, ptrdiff_t nv)
{
    if (rows <= tile_rows(MAX_NV))
        return rows > 0;
    switch (tile_rows(nv)) {
    case 32:
        return (rows + 31) / 32;
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

/* Shares of n things, as equal as they can be: the first `longer` shares have one thing
 * more than the others, which have `each`.  The rows of a tall product are cut so, and
 * not into full tiles and a short one, which would be slow. */
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

/* How the M rows of a weight gradient are cut into tiles two vectors wide. */
INLINE even_split sum_split(ptrdiff_t M)
{
    return split_evenly(M, n_row_tiles(M, 2));
}

typedef struct {
    const real *a;
    ptrdiff_t a_row;     /* distance between rows of A; unused for a packed A */
    ptrdiff_t a_segment; /* distance between the segments of a row, see K */
    ptrdiff_t n_segments;
    ptrdiff_t K; /* a row of A is n_segments segments of K contiguous elements */
    const real *b;
    /* Distance between rows of B: the width of the panel, of which nv * V are used. */
    ptrdiff_t b_row;
    real *c;
    ptrdiff_t c_row;
    /* What the sums of row r begin with, nv * V elements at start + r * start_row; NULL
     * for zero. */
    const real *start;
    ptrdiff_t start_row;
    /* Memory that is fetched into the level-2 cache meanwhile, next_step bytes for each
     * k. */
    const char *next;
    ptrdiff_t next_step;
    /* With a packed A of pairs, 1: behind the K words comes one whose lower halves mean
     * nothing. */
    int half_left;
} tile_args;

/* Elements of a packed A for each k: whole vectors, with room for the rows of the
 * tallest tile two vectors wide. */
#if FR_AMX
#define A_ROWS 32
#elif V_REGISTERS == 32
#define A_ROWS 12
#else
#define A_ROWS 6
#endif
#define A_LANES ((A_ROWS + V - 1) / V * V)

/* What a tile does with what C holds. */
typedef enum {
    OVERWRITE, /* nothing: C becomes the sums, which begin with what `start` says */
    RESUME,    /* the sums begin with it */
    ADD /* the sums begin with zero, and are added to it when they are complete */
} onto_c;

/* Computes one tile of C.  Unless `bias` is NULL, its nv * V elements are added to each
 * finished row: a pass of its own over C would take 3 % longer at K = 128 (float32,
 * x86_v4). */
INLINE void tile(const int mr, const int nv, const int packed_a, const onto_c onto,
                 const real *bias, const tile_args *t)
{
    /* These are copies because the compiler cannot know that a store to C leaves `t` as
     * it is, and would load its fields again. */
    const ptrdiff_t K = t->K, b_row = t->b_row, next_step = t->next_step;
    const ptrdiff_t c_row = t->c_row, a_segment = t->a_segment;
    const ptrdiff_t s = packed_a ? 1 : t->a_row;
    real *const c = t->c;
    vreal acc[MAX_MR][MAX_NV];
    const real *b = t->b, *a = t->a, *start = t->start;
    const ptrdiff_t start_row = t->start_row;
    const char *next = t->next;

#pragma GCC unroll 12
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            acc[r][v] = onto == RESUME ? v_load(c + r * c_row + v * V)
                        : start        ? v_load(start + r * start_row + v * V)
                                       : (vreal){0};

    for (ptrdiff_t segment = t->n_segments; segment > 0; segment--) {
        /* Four rows share one pointer, since twelve pointers would not fit the
         * registers. */
        const real *group[3] = {a, a + 4 * s, a + 8 * s};
        a += a_segment;
#pragma GCC unroll 2
        for (ptrdiff_t k = 0; k < K; k++) {
            if (mr > 1) { /* a product of one row is bound by what B takes to come */
                __builtin_prefetch(next, 0, 2);
                next += next_step;
            }
            if (mr < nv) { /* A's scalars are fewer than B's vectors, and are held */
                vreal va[MAX_MR];
#pragma GCC unroll 12
                for (int r = 0; r < mr; r++)
                    va[r] = v_set1_operand(group[r / 4] + r % 4 * s);
#pragma GCC unroll 4
                for (int v = 0; v < nv; v++) {
                    const vreal vb = v_load(b + v * V);
#pragma GCC unroll 12
                    for (int r = 0; r < mr; r++)
                        acc[r][v] = v_multiply_add(va[r], vb, acc[r][v]);
                }
            } else {
                vreal vb[MAX_NV];
#pragma GCC unroll 4
                for (int v = 0; v < nv; v++)
                    vb[v] = v_load(b + v * V);
#pragma GCC unroll 12
                for (int r = 0; r < mr; r++) {
                    const vreal va = v_set1_operand(group[r / 4] + r % 4 * s);
#pragma GCC unroll 4
                    for (int v = 0; v < nv; v++)
                        acc[r][v] = v_multiply_add(va, vb[v], acc[r][v]);
                }
            }
            b += b_row;
#pragma GCC unroll 3
            for (int g = 0; g < 3; g++)
                group[g] += packed_a ? A_LANES : 1;
        }
        if (FR_PAIRS && packed_a && t->half_left) { /* the upper halves are floats */
#pragma GCC unroll 12
            for (int r = 0; r < mr; r++) {
                const vreal va = v_upper_half(v_set1_operand(group[r / 4] + r % 4 * s));
#pragma GCC unroll 4
                for (int v = 0; v < nv; v++)
                    acc[r][v] = v_fma(va, v_upper_half(v_load(b + v * V)), acc[r][v]);
            }
        }
    }

    if (bias)
#pragma GCC unroll 12
        for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++)
                acc[r][v] = acc[r][v] + v_load(bias + v * V);
    if (onto == ADD)
#pragma GCC unroll 12
        for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++)
                acc[r][v] = v_load(c + r * c_row + v * V) + acc[r][v];
#pragma GCC unroll 12
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            v_store(c + r * c_row + v * V, acc[r][v]);
}

INLINE void rows_tile(const int mr, const int nv, const tile_args *t)
{
    tile(mr, nv, 0, OVERWRITE, NULL, t);
}

/* Most values of k in a row that a tile of a weight gradient sums one after the other.
 * The rounding errors of a sum grow with the square root of its length, and a sum of a
 * few such sums hardly adds to them. */
#define SUM_CHAIN 64

/* t->K counts rows, be they in pairs or not. */
INLINE void sum_tile(const int mr, const int nv, const tile_args *t)
{
    enum { WORDS = SUM_CHAIN / PAIR };
    tile_args part = *t;
    onto_c onto = OVERWRITE;
    for (ptrdiff_t left = t->K; left > 0; left -= SUM_CHAIN) {
        part.K = min_size(SUM_CHAIN, left) / PAIR;
        part.half_left = FR_PAIRS && left < SUM_CHAIN && left % PAIR;
        tile(mr, nv, 1, onto, NULL, &part);
        part.a += WORDS * A_LANES;
        part.b += WORDS * part.b_row;
        part.next += WORDS * part.next_step;
        onto = ADD;
    }
}

typedef void tile_function(const tile_args *);

/* TILES_n(name, args, nv) defines a function for each tile of 1 to n rows by nv
 * vectors, which passes its arguments, an `args`, on to name_tile(). */

/* clang-format off */
#define TILE(name, args, nv, mr) \
    static void name##_##mr##x##nv(const args *t) { name##_tile(mr, nv, t); }
#define TILES_3(name, args, nv) \
    TILE(name, args, nv, 1) TILE(name, args, nv, 2) TILE(name, args, nv, 3)
#define TILES_4(name, args, nv) \
    TILES_3(name, args, nv) TILE(name, args, nv, 4)
#define TILES_6(name, args, nv) \
    TILES_4(name, args, nv) TILE(name, args, nv, 5) TILE(name, args, nv, 6)
#define TILES_8(name, args, nv) \
    TILES_6(name, args, nv) TILE(name, args, nv, 7) TILE(name, args, nv, 8)
#define TILES_12(name, args, nv) \
    TILES_8(name, args, nv) TILE(name, args, nv, 9) TILE(name, args, nv, 10) \
    TILE(name, args, nv, 11) TILE(name, args, nv, 12)

#define NAMES_3(name, nv) name##_1x##nv, name##_2x##nv, name##_3x##nv
#define NAMES_4(name, nv) NAMES_3(name, nv), name##_4x##nv
#define NAMES_6(name, nv) NAMES_4(name, nv), name##_5x##nv, name##_6x##nv
#define NAMES_8(name, nv) NAMES_6(name, nv), name##_7x##nv, name##_8x##nv
#define NAMES_12(name, nv) \
    NAMES_8(name, nv), name##_9x##nv, name##_10x##nv, name##_11x##nv, name##_12x##nv

/* The tiles of mr rows by nv vectors, with A in rows: rows_tiles[nv - 1][mr - 1], and
 * with a packed A: sum_tiles[nv - 1][mr - 1].  They are as tall as tile_rows(nv). */
#if FR_AMX /* amx.h has the tiles */
#elif V_REGISTERS == 32
TILES_12(rows, tile_args, 1) TILES_12(rows, tile_args, 2)
TILES_8(rows, tile_args, 3) TILES_6(rows, tile_args, 4)
TILES_12(sum, tile_args, 1) TILES_12(sum, tile_args, 2)
static tile_function *const rows_tiles[MAX_NV][MAX_MR] = {
    {NAMES_12(rows, 1)}, {NAMES_12(rows, 2)}, {NAMES_8(rows, 3)}, {NAMES_6(rows, 4)}};
static tile_function *const sum_tiles[SUM_NV][MAX_MR] = {
    {NAMES_12(sum, 1)}, {NAMES_12(sum, 2)}};
#else
TILES_12(rows, tile_args, 1) TILES_6(rows, tile_args, 2)
TILES_4(rows, tile_args, 3) TILES_3(rows, tile_args, 4)
TILES_12(sum, tile_args, 1) TILES_6(sum, tile_args, 2)
static tile_function *const rows_tiles[MAX_NV][MAX_MR] = {
    {NAMES_12(rows, 1)}, {NAMES_6(rows, 2)}, {NAMES_4(rows, 3)}, {NAMES_3(rows, 4)}};
static tile_function *const sum_tiles[SUM_NV][MAX_MR] = {
    {NAMES_12(sum, 1)}, {NAMES_6(sum, 2)}};
#endif
/* clang-format on */

#endif
