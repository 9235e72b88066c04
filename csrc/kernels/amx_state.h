/* SPDX-License-Identifier: BSD-3-Clause */
/* amx_state.h -- the shapes of a thread's tile registers, in a unit with FR_AMX.
 *
 * Setting these takes some hundred cycles, as long as a small product does.  So they
 * stay from one product to the next, until the thread leaves the kernel: registers in
 * use would make every switch of threads slower.  They are the only state that kernels
 * keep, and it is the processor's.
 */
#ifndef FR_AMX_STATE_H
#define FR_AMX_STATE_H

#include "target.h"

#if FR_AMX
#include <immintrin.h>

/* Rows that the registers are set for; 0: they are not in use. */
static _Thread_local int rows_of_tiles;

/* The layout that ldtilecfg reads. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_shapes;

/* Sets the registers for products of mr rows: C in 0 to 3, A in 4 and 5, B in 6 and 7.
 * Numbers 2, 3 and 5 have the rows from row 16 on. */
static __attribute__((noinline)) void set_tiles(int mr)
{
    tile_shapes shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        const int is_high = i == 2 || i == 3 || i == 5, is_b = i >= 6;
        shapes.row_bytes[i] = 64;
        shapes.rows[i] = (uint8_t)(is_b                 ? 16
                                   : is_high && mr > 16 ? mr - 16
                                                        : min_size(mr, 16));
    }
    /* The compiler knows of the first bytes alone that they are read. */
    __asm__ volatile("" ::"r"(&shapes) : "memory");
    _tile_loadconfig(&shapes);
    rows_of_tiles = mr;
}

INLINE void configure_tiles(int mr)
{
    if (rows_of_tiles != mr)
        set_tiles(mr);
}

INLINE void release_tiles(void)
{
    if (rows_of_tiles)
        _tile_release();
    rows_of_tiles = 0;
}
#else
INLINE void release_tiles(void)
{
}
#endif

#endif
