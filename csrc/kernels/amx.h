/* SPDX-License-Identifier: BSD-3-Clause */
/* amx.h -- the tile of half.h's pairs, on the tile registers of Intel's AMX.
 *
 * A unit with FR_AMX has the layouts of a unit with FR_PAIRS.  A tile register holds 16
 * rows of 16 words, and one instruction multiplies two of these and adds to a third:
 *     C[m][n] += sum over 16 words k of A[m][k].upper * B[k][n].upper
 *                                     + A[m][k].lower * B[k][n].lower
 * Sixteen rows of a panel one vector wide are such a B, and sixteen words of 16 rows are
 * such an A.  The instruction does not add the products in the order of k, so that bits
 * differ from those of the other units.  They still do not depend on where a tile begins
 * or how many rows it has: words [16 i, 16 i + 16) of each segment always go through one
 * instruction, and the words that are left over go through the instruction for pairs of
 * vectors, after all others.
 *
 * The sums of a weight gradient go on from what the gradient holds: the chains of tile.h
 * would gain nothing beside the rounding of operands.
 */
#ifndef FR_AMX_H
#define FR_AMX_H

#include "amx_state.h"
#include "tile.h"

#define AMX_WORDS 16 /* of k that one instruction takes */
#define AMX_ROWS 16  /* of a tile register */

/* What tile_args does not say of A.  Tiles of k are `step` elements apart.  The words
 * that are left over behind them are `left_step` elements apart, in rows `left_row`
 * apart. */
typedef struct {
    ptrdiff_t step, left_row, left_step;
} amx_operand;

/* Up to 32 rows, and two vectors of columns where `wide` is set, else one: those words
 * of k that fill tile registers.  With `high`, there are more than 16 rows. */
INLINE void amx_columns(const int high, const int wide, const tile_args *t,
                        ptrdiff_t step)
{
    const ptrdiff_t a_row = t->a_row * (ptrdiff_t)sizeof(real);
    const ptrdiff_t b_row = t->b_row * (ptrdiff_t)sizeof(real);
    const ptrdiff_t c_row = t->c_row * (ptrdiff_t)sizeof(real);
    const ptrdiff_t start_row = t->start_row * (ptrdiff_t)sizeof(real);
    const ptrdiff_t fetched = t->next_step * AMX_WORDS;
    const real *start = t->start, *b = t->b;
    const char *next = t->next;
    /* The compiler does not know that loads of tiles read memory. */
    __asm__ volatile("" ::: "memory");
    if (start) {
        _tile_loadd(0, start, start_row);
        if (wide)
            _tile_loadd(1, start + V, start_row);
        if (high)
            _tile_loadd(2, start + AMX_ROWS * t->start_row, start_row);
        if (high && wide)
            _tile_loadd(3, start + AMX_ROWS * t->start_row + V, start_row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (ptrdiff_t segment = 0; segment < t->n_segments; segment++) {
        const real *a = t->a + segment * t->a_segment;
        for (ptrdiff_t k = AMX_WORDS; k <= t->K; k += AMX_WORDS) {
            for (ptrdiff_t i = 0; i < fetched; i += 64)
                __builtin_prefetch(next + i, 0, 2);
            next += fetched;
            _tile_loadd(4, a, a_row);
            _tile_loadd(6, b, b_row);
            _tile_dpbf16ps(0, 4, 6);
            if (wide) {
                _tile_loadd(7, b + V, b_row);
                _tile_dpbf16ps(1, 4, 7);
            }
            if (high) {
                _tile_loadd(5, a + AMX_ROWS * t->a_row, a_row);
                _tile_dpbf16ps(2, 5, 6);
            }
            if (high && wide)
                _tile_dpbf16ps(3, 5, 7);
            a += step;
            b += AMX_WORDS * t->b_row;
        }
        b += t->K % AMX_WORDS * t->b_row;
    }
    _tile_stored(0, t->c, c_row);
    if (wide)
        _tile_stored(1, t->c + V, c_row);
    if (high)
        _tile_stored(2, t->c + AMX_ROWS * t->c_row, c_row);
    if (high && wide)
        _tile_stored(3, t->c + AMX_ROWS * t->c_row + V, c_row);
}

static __attribute__((noinline)) void amx_pair(const tile_args *t, ptrdiff_t step,
                                               ptrdiff_t mr)
{
    if (mr > AMX_ROWS)
        amx_columns(1, 1, t, step);
    else
        amx_columns(0, 1, t, step);
}

static __attribute__((noinline)) void amx_single(const tile_args *t, ptrdiff_t step,
                                                 ptrdiff_t mr)
{
    if (mr > AMX_ROWS)
        amx_columns(1, 0, t, step);
    else
        amx_columns(0, 0, t, step);
}

/* One vector of which C has n columns only. */
static __attribute__((noinline)) void amx_part(const tile_args *t, ptrdiff_t step,
                                               ptrdiff_t mr, ptrdiff_t n)
{
    real sums[2 * AMX_ROWS * AMX_WORDS] __attribute__((aligned(64)));
    tile_args part = *t;
    part.c = sums;
    part.c_row = V;
    if (t->start) {
        for (ptrdiff_t r = 0; r < mr; r++)
            v_store(sums + r * V, v_load_n(t->start + r * t->start_row, n));
        part.start = sums;
        part.start_row = V;
    }
    amx_single(&part, step, mr);
    for (ptrdiff_t r = 0; r < mr; r++)
        v_store_n(t->c + r * t->c_row, v_load(sums + r * V), n);
}

/* Adds the products of the words that fill no tile register to C, for four rows at a
 * time. */
static __attribute__((noinline)) void amx_left(const tile_args *t, amx_operand o,
                                               ptrdiff_t mr, ptrdiff_t n)
{
    enum { AT_ONCE = 4 };
    const ptrdiff_t tiles = t->K / AMX_WORDS, left = t->K % AMX_WORDS;
    const ptrdiff_t b_first = tiles * AMX_WORDS * t->b_row;
    for (ptrdiff_t v = 0; v < n; v += V)
        for (ptrdiff_t r0 = 0; r0 < mr; r0 += AT_ONCE) {
            vreal sum[AT_ONCE];
            const real *row[AT_ONCE]; /* the last one is repeated */
            for (ptrdiff_t i = 0; i < AT_ONCE; i++) {
                const ptrdiff_t r = min_size(r0 + i, mr - 1);
                sum[i] = v_load_n(t->c + r * t->c_row + v, n - v);
                row[i] = t->a + tiles * o.step + r * o.left_row;
            }
            for (ptrdiff_t s = 0; s < t->n_segments; s++) {
                const real *b = t->b + s * t->K * t->b_row + b_first + v;
                const ptrdiff_t from = s * t->a_segment;
                for (ptrdiff_t k = 0; k < left; k++)
                    for (ptrdiff_t i = 0; i < AT_ONCE; i++)
                        sum[i] = v_multiply_add(
                            v_set1_operand(row[i] + from + k * o.left_step),
                            v_load(b + k * t->b_row), sum[i]);
                if (t->half_left) /* the upper halves are floats */
                    for (ptrdiff_t i = 0; i < AT_ONCE; i++)
                        sum[i] =
                            v_fma(v_upper_half(v_set1_operand(row[i] + from +
                                                              left * o.left_step)),
                                  v_upper_half(v_load(b + left * t->b_row)), sum[i]);
            }
            for (ptrdiff_t i = 0; i < min_size(AT_ONCE, mr - r0); i++)
                v_store_n(t->c + (r0 + i) * t->c_row + v, sum[i], n - v);
        }
}

/* Computes mr <= 32 rows of n columns of C. */
static __attribute__((noinline)) void amx_tile(const tile_args *args, amx_operand o,
                                               ptrdiff_t mr, ptrdiff_t n)
{
    tile_args t = *args;
    configure_tiles((int)mr);
    for (ptrdiff_t v = 0; v < n;) {
        const ptrdiff_t columns = n - v;
        t.b = args->b + v;
        t.c = args->c + v;
        t.start = args->start ? args->start + v : NULL;
        if (columns >= 2 * V)
            amx_pair(&t, o.step, mr);
        else if (columns >= V)
            amx_single(&t, o.step, mr);
        else
            amx_part(&t, o.step, mr, columns);
        v += columns >= 2 * V ? 2 * V : V;
        t.next_step = 0; /* all has been fetched */
    }
    if (args->K % AMX_WORDS || args->half_left)
        amx_left(args, o, mr, n);
}

/* The same for A in rows. */
INLINE void amx_rows_tile(const tile_args *t, ptrdiff_t mr, ptrdiff_t n)
{
    amx_tile(t, (amx_operand){AMX_WORDS, t->a_row, 1}, mr, n);
}

/* C += A B for a packed A of K rows, in which turn_packed_a() was. */
INLINE void amx_sum_tile(const real *a, const real *b, ptrdiff_t b_row, ptrdiff_t K,
                         real *c, ptrdiff_t c_row, ptrdiff_t mr, ptrdiff_t n)
{
    const tile_args t = {.a = a,
                         .a_row = AMX_WORDS,
                         .n_segments = 1,
                         .K = K / PAIR,
                         .b = b,
                         .b_row = b_row,
                         .c = c,
                         .c_row = c_row,
                         .start = c,
                         .start_row = c_row,
                         .half_left = K % PAIR};
    amx_tile(&t, (amx_operand){AMX_WORDS * A_LANES, 1, A_LANES}, mr, n);
}

/* Turns each AMX_WORDS words of a packed A of K rows, (words, A_LANES), which are complete,
 * into what a tile register takes: (A_LANES, words). */
static __attribute__((noinline)) void turn_packed_a(real *packed, ptrdiff_t K)
{
    for (ptrdiff_t k = PAIR * AMX_WORDS; k <= K; k += PAIR * AMX_WORDS) {
        vreal low[AMX_WORDS], high[AMX_WORDS];
        for (ptrdiff_t r = 0; r < AMX_WORDS; r++) {
            low[r] = v_load(packed + r * A_LANES);
            high[r] = v_load(packed + r * A_LANES + V);
        }
        transpose(low);
        transpose(high);
        for (ptrdiff_t r = 0; r < AMX_WORDS; r++) {
            v_store(packed + r * V, low[r]);
            v_store(packed + (AMX_WORDS + r) * V, high[r]);
        }
        packed += AMX_WORDS * A_LANES;
    }
}

#endif
