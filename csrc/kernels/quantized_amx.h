/* SPDX-License-Identifier: BSD-3-Clause */
/* quantized_amx.h -- products of bytes on the tiles of AMX, for many rows.
 *
 * A tile of the processor has 16 rows of 64 bytes.  One instruction multiplies 16 rows
 * of 64 signed bytes by 64 rows of 16 columns, and adds the products to 16 by 16 sums of
 * 32 bits.  An integer a of 14 bits is 128 * (a >> 7) + (a & 127), both parts of which
 * are signed bytes.  So two such products give the exact sum, whose bits are those of
 * other processors.  The instruction reads weights in the order that panels have, [k /
 * 4][nv * V][4].  Where K is no multiple of 64, rows end with zeros, and it does not
 * matter what weights these are multiplied by.  Where rows are no multiple of 16, nobody
 * looks at the results of the others.
 */
#ifndef FR_QUANTIZED_AMX_H
#define FR_QUANTIZED_AMX_H

#define TILE_HEIGHT 16

#if defined(__AVX512BW__) && defined(__linux__) &&                                     \
    ((defined(__clang__) && __clang_major__ >= 12) ||                                  \
     (!defined(__clang__) && __GNUC__ >= 11))
#define HAS_TILES 1
#else
#define HAS_TILES 0
#endif

/* Rows, of x or h or of fours of a panel, that a tile may read past the last. */
#define TILE_OVERRUN (HAS_TILES ? TILE_HEIGHT - 1 : 0)
/* Words of the sums of the four tiles that are in use at a time. */
#define TILE_SUMS (4 * TILE_HEIGHT * 16)
/* Rows from which on tiles are the fastest way. */
#define TILE_ROWS 4

#if HAS_TILES
#define AMX_TARGET __attribute__((target("amx-tile,amx-int8")))

INLINE int has_tiles(void)
{
    return fr_tiles() & FR_TILES_INT8;
}

/* Tells the processor the shape of a thread's tiles. */
AMX_TARGET static void begin_tiles(void)
{
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {
        .palette = 1,
        .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
        .rows = {16, 16, 16, 16, 16, 16, 16, 16},
    };
    _tile_loadconfig(&shape);
}

AMX_TARGET static void end_tiles(void)
{
    _tile_release();
}

/* The products of 16 rows, whose parts are `plane` bytes apart, by a vector of columns,
 * or by two: sums[0] of the upper and sums[1] of the lower parts, and for the second
 * vector sums[2] and sums[3].  Meanwhile fetches `next`. */
AMX_TARGET static void tile_sums(int two, ptrdiff_t K, const char *rows,
                                 ptrdiff_t plane, ptrdiff_t row, const char *b,
                                 ptrdiff_t b_row, const char *next, ptrdiff_t next_step,
                                 int32_t *sums)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (ptrdiff_t k = 0; k < K; k += 64, b += 16 * b_row, next += next_step) {
        for (ptrdiff_t i = 0; i < next_step; i += 64)
            __builtin_prefetch(next + i, 0, 2);
        _tile_loadd(4, rows + k, row);
        _tile_loadd(5, rows + plane + k, row);
        _tile_loadd(6, b, b_row);
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 5, 6);
        if (two) {
            _tile_loadd(7, b + 64, b_row);
            _tile_dpbssd(2, 4, 7);
            _tile_dpbssd(3, 5, 7);
        }
    }
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + TILE_HEIGHT * 16, 64);
    _tile_stored(2, sums + 2 * TILE_HEIGHT * 16, 64);
    _tile_stored(3, sums + 3 * TILE_HEIGHT * 16, 64);
}

/* The product of n rows by a panel; `next_bytes` at `next` are fetched meanwhile. */
static void multiply_in_tiles(ptrdiff_t n, ptrdiff_t nv, const quantized_tile *t,
                              const char *next, ptrdiff_t next_bytes, int32_t *sums)
{
    const ptrdiff_t row = t->row * (ptrdiff_t)sizeof(real), plane = row / 2;
    const ptrdiff_t passes = n_parts(n, TILE_HEIGHT) * n_parts(nv, 2);
    const ptrdiff_t steps = max_size(1, passes * n_parts(t->K, 64));
    const ptrdiff_t next_step = n_parts(next_bytes / steps, 64) * 64;
    quantized_tile one = *t;
    for (ptrdiff_t first = 0; first < n; first += TILE_HEIGHT)
        for (ptrdiff_t v = 0; v < nv; v += 2) {
            const int two = v + 1 < nv;
            for (ptrdiff_t k = 0; k < t->K; k += MOST_ROWS) {
                const ptrdiff_t depth = min_size(MOST_ROWS, t->K - k);
                const char *weights = (const char *)t->weights + k * nv * V;
                tile_sums(two, depth, (const char *)t->rows + first * row + k, plane,
                          row, weights + v * V_BYTES, nv * V_BYTES, next, next_step,
                          sums);
                next += n_parts(depth, 64) * next_step;
                for (ptrdiff_t r = 0; r < min_size(TILE_HEIGHT, n - first); r++)
                    for (ptrdiff_t u = 0; u < 1 + two; u++) {
                        const int32_t *above = sums + (2 * u * TILE_HEIGHT + r) * 16;
                        const int32_t *below = above + TILE_HEIGHT * 16;
                        vbits exact[MAX_MR][MAX_NV];
                        exact[0][0] = (*(const vbits_unaligned *)above << 7) +
                                      *(const vbits_unaligned *)below;
                        one.c = t->c + (first + r) * t->c_row + (v + u) * V;
                        one.scale = t->scale + (v + u) * V;
                        one.row_scale = t->row_scale + first + r;
                        one.start = t->start ? t->start + (first + r) * t->start_row +
                                                   (v + u) * V
                                             : NULL;
                        put_sums(1, 1, &one, k, exact);
                    }
            }
        }
}
#else
INLINE int has_tiles(void)
{
    return 0;
}

INLINE void begin_tiles(void)
{
}
INLINE void end_tiles(void)
{
}
#endif

#endif
