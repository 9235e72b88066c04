/* SPDX-License-Identifier: BSD-3-Clause */
/* agrees.c -- whether the instruction for pairs of bfloat16 computes as two fused
 * multiply-adds do, which half.h relies on; with AMX, whether its tiles compute what
 * amx.h says.
 */

#if FR_AMX
/* A small whole number for row r and number k of an operand: all sums of products of
 * these are exact in any order. */
static int whole_number(ptrdiff_t r, ptrdiff_t k)
{
    return (int)((7 * r + 5 * k + r * k) % 17) - 8;
}

/* Compares a product of such numbers, of more rows than a tile register has, a part of a
 * vector of columns, and words that are left over. */
static int pairs_agree(void)
{
    enum { ROWS = 19, COLUMNS = 21, WORDS = 19, WIDTH = 32 };
    real a[ROWS * WORDS], b[WORDS * WIDTH] = {0}, c[ROWS * COLUMNS];
    const uint64_t mode = subnormals_flush();
    for (ptrdiff_t k = 0; k < WORDS; k++) {
        for (ptrdiff_t r = 0; r < ROWS; r++) {
            const vreal pair = v_pair(v_set1((real)whole_number(r, 2 * k)),
                                      v_set1((real)whole_number(r, 2 * k + 1)));
            v_store_n(a + r * WORDS + k, pair, 1);
        }
        for (ptrdiff_t n = 0; n < COLUMNS; n++) {
            const vreal pair = v_pair(v_set1((real)whole_number(n + 31, 2 * k)),
                                      v_set1((real)whole_number(n + 31, 2 * k + 1)));
            v_store_n(b + k * WIDTH + n, pair, 1);
        }
    }
    const tile_args t = {.a = a,
                         .a_row = WORDS,
                         .n_segments = 1,
                         .K = WORDS,
                         .b = b,
                         .b_row = WIDTH,
                         .c = c,
                         .c_row = COLUMNS};
    amx_rows_tile(&t, ROWS, COLUMNS);
    release_tiles();
    subnormals_restore(mode);
    for (ptrdiff_t r = 0; r < ROWS; r++)
        for (ptrdiff_t n = 0; n < COLUMNS; n++) {
            int expected = 0;
            for (ptrdiff_t k = 0; k < 2 * WORDS; k++)
                expected += whole_number(r, k) * whole_number(n + 31, k);
            if (c[r * COLUMNS + n] != (real)expected)
                return 0;
        }
    return 1;
}
#else
/* A next number of a sequence that looks random (xorshift, Marsaglia 2003). */
static uint32_t next_number(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* Compares the two on some thousand words of pairs: numbers of all signs, with
 * exponents from the smallest to such that no sum overflows. */
static int pairs_agree(void)
{
    enum { ROUNDS = 256 };
    const uint64_t mode = subnormals_flush();
    uint32_t state = 2463534242u;
    vreal sum = {0};
    int agree = 1;
    for (int round = 0; round < ROUNDS && agree; round++) {
        real a[16], b[16];
        for (int lane = 0; lane < 16; lane++) {
            const uint32_t narrow = round % 2 ? 0x87ffu : 0x1fffu;
            const uint32_t middle = round % 2 ? 0x3c003c00u : 0x30003000u;
            const uint32_t both = narrow << 16 | narrow;
            const uint32_t x = (next_number(&state) & both) ^ middle;
            const uint32_t y = (next_number(&state) & both) ^ middle;
            memcpy(a + lane, &x, sizeof x);
            memcpy(b + lane, &y, sizeof y);
        }
        const vreal va = v_load(a), vb = v_load(b);
        const vreal low_a = (vreal)_mm512_slli_epi32((__m512i)va, 16);
        const vreal low_b = (vreal)_mm512_slli_epi32((__m512i)vb, 16);
        const vreal first = v_fma(v_upper_half(va), v_upper_half(vb), sum);
        const vreal expected = v_fma(low_a, low_b, first);
        sum = v_multiply_add(va, vb, sum);
        agree = _mm512_cmpneq_epi32_mask((__m512i)sum, (__m512i)expected) == 0;
        if (round % 16 == 15)
            sum = (vreal){0};
    }
    subnormals_restore(mode);
    return agree;
}
#endif
