/* SPDX-License-Identifier: BSD-3-Clause */
/* dropout.c -- elements set to zero at random, the others scaled by 1 / (1 - p).
 *
 * No mask is kept: element k's 32 random bits are a function of (seed, k) alone, so
 * backward calls the same function on the gradient with the same seed, and a process
 * that has some rows of an array makes the choices of who has all.  Elements 2 m
 * and 2 m + 1 have the lower and the upper half of output number m of splitmix64
 * (Steele, Lea & Flood 2014), started from the mixed seed.  An element is dropped when
 * its bits, as an integer, are below p 2^32.  The mask is the same for both dtypes, on
 * every target and for any number of threads.
 */
#include "fastrnn.h"
#include "target.h"
#include "draw.h"
#include "parallel.h"
#include "flat.h"

typedef struct {
    uint64_t key;
    uint32_t bound;
    real gain;
} choices;

/* An element of odd number, alone. */
static void drop_odd(const choices *c, uint64_t number, const real *x, real *y)
{
    uint64_t z = c->key + number / 2 * GOLDEN;
    SPLITMIX(z);
    *y = ((uint32_t)(z >> 32) >= c->bound ? c->gain : 0) * *x;
}

/* n elements beside one another, the first of which has an even number. */
static void drop_even(const choices *c, uint64_t number, ptrdiff_t n, const real *x,
                      real *y)
{
    const vreal gain = v_set1(c->gain);
    /* A lane of 64 bits has the output for two floats.  It lies beside one double only,
     * so with doubles two neighbouring lanes have the same output. */
    v_u64 counter;
    for (ptrdiff_t lane = 0; lane < VD; lane++) {
        const uint64_t pair = (number + (uint64_t)(FR_DOUBLE ? lane : 2 * lane)) / 2;
        counter[lane] = c->key + pair * GOLDEN;
    }
#if FR_DOUBLE
    v_u64 shift; /* odd elements take the upper half of an output */
    for (ptrdiff_t lane = 0; lane < VD; lane++)
        shift[lane] = (uint64_t)(lane % 2 * 32);
#endif
    for (ptrdiff_t k = 0; k < n; k += V) {
        const ptrdiff_t some = min_size(V, n - k);
        v_u64 z = counter;
        SPLITMIX(z);
        counter += (uint64_t)V / 2 * GOLDEN;
#if FR_DOUBLE
        const vbits kept = (vbits)((z >> shift & 0xffffffffu) >= c->bound);
#else
        const vbits kept = (vbits)((v_u32)z >= c->bound);
#endif
        /* Dropped elements are multiplied by zero, not masked, so that NaN stays
         * NaN. */
        const vreal factor = v_from_bits(kept & v_as_bits(gain));
        v_store_n(y + k, factor * v_load_n(x + k, some), some);
    }
}

static void dropout_body(const team *self, const void *argument)
{
    const fr_dropout_args *args = argument;
    const real *x = args->x;
    real *y = args->y;
    const int all = args->p >= 1;
    choices c = {args->seed + GOLDEN, /* SPLITMIX maps 0 to 0 */
                 all ? 0 : (uint32_t)(args->p * 0x1p32),
                 all ? 0 : (real)(1 / (1 - args->p))};
    SPLITMIX(c.key);
    ptrdiff_t begin, end;
    flat_share(self, args->n, &begin, &end);
    while (begin < end) {
        const ptrdiff_t inside = begin % args->block;
        const ptrdiff_t stop = min_size(end, begin - inside + args->block);
        uint64_t number = (uint64_t)args->first + (uint64_t)inside +
                          (uint64_t)(begin / args->block) * (uint64_t)args->stride;
        if (number % 2) {
            drop_odd(&c, number, x + begin, y + begin);
            number++, begin++;
        }
        drop_even(&c, number, stop - begin, x + begin, y + begin);
        begin = stop;
    }
}

static void dropout(const fr_dropout_args *args)
{
    team_run(flat_threads(args->n_threads, args->n), dropout_body, args);
}
