/* SPDX-License-Identifier: BSD-3-Clause */
/* draw.h -- random numbers that are a function of where they are used.
 *
 * Nothing that is drawn is stored.  The numbers of a vector of units follow from the
 * key of the layer's call, the cell (layer and direction), what they are for, the
 * caller's row and step, and the unit.  Backward draws them again.  They do not depend
 * on threads, on the target, on the dtype, or on which rows and steps one call of the
 * kernels works on.
 *
 * Units 2 m and 2 m + 1 have the lower and the upper half of output number m of
 * splitmix64 (Steele, Lea & Flood 2014), which starts from a number that the same
 * function has mixed of all the rest.
 */
#ifndef FR_DRAW_H
#define FR_DRAW_H

#include "fastrnn.h"
#include "simd.h"

#define GOLDEN 0x9e3779b97f4a7c15u

typedef uint64_t v_u64 __attribute__((vector_size(V_BYTES)));
typedef uint32_t v_u32 __attribute__((vector_size(V_BYTES)));

/* splitmix64's output function, on a number or on each lane of a vector. */
#define SPLITMIX(z)                                                                    \
    do {                                                                               \
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;                                     \
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;                                     \
        z = z ^ (z >> 31);                                                             \
    } while (0)

/* What numbers are for.  Each gate may have masks of its own, which come last. */
typedef enum {
    DRAW_ZONEOUT_H,
    DRAW_ZONEOUT_C,
    DRAW_INPUT,
    DRAW_NOISE,
    DRAW_RECURRENT,
    DRAW_PURPOSES = DRAW_RECURRENT + FR_MOST_GATES
} draw_purpose;

/* Number n of those that follow from z. */
INLINE uint64_t draw_next(uint64_t z, uint64_t n)
{
    z += (n + 1) * GOLDEN;
    SPLITMIX(z);
    return z;
}

/* What the numbers of one purpose begin with, for row b of a call. */
INLINE uint64_t draw_row(const fr_draw *d, draw_purpose purpose, ptrdiff_t b)
{
    const uint64_t which = (uint64_t)d->cell * DRAW_PURPOSES + purpose;
    const int64_t row = d->rows ? d->rows[b] : d->first_row + b;
    return draw_next(draw_next(d->key, which), (uint64_t)row);
}

/* The caller's step of row b at time t of a call. */
INLINE int64_t draw_time(const fr_draw *d, const fr_shape *shape, ptrdiff_t t,
                         ptrdiff_t b)
{
    return d->steps ? d->steps[shape->offsets[t] + b] : d->first_step + t;
}

/* 32 random bits, as a number from 0 on, in each lane of the vector of units that begins
 * with unit j, a multiple of V.  `start` is draw_row(), or draw_next() of it and a step.
 */
INLINE vbits v_draw(uint64_t start, ptrdiff_t j)
{
    v_u64 z;
    /* A lane of 64 bits has the output for two floats.  It lies beside one double only,
     * so with doubles two neighbouring lanes have the same output, and the second takes
     * the upper half. */
    for (ptrdiff_t lane = 0; lane < VD; lane++)
        z[lane] = (uint64_t)(FR_DOUBLE ? lane / 2 : lane) * GOLDEN;
    z += start + (uint64_t)(j / 2) * GOLDEN;
    SPLITMIX(z);
#if FR_DOUBLE
    v_u64 shift;
    for (ptrdiff_t lane = 0; lane < VD; lane++)
        shift[lane] = (uint64_t)(lane % 2 * 32);
    return (vbits)(z >> shift & 0xffffffffu);
#else
    return (vbits)z;
#endif
}

/* A choice that is made with probability p. */
typedef struct {
    uint32_t bound; /* of 32 bits below p 2^32 */
    int always;
} draw_choice;

INLINE draw_choice draw_with(double p)
{
    return (draw_choice){p >= 1 ? 0 : (uint32_t)(p * 0x1p32), p >= 1};
}

/* All bits of the lanes for which the choice was made. */
INLINE vbits v_chosen(draw_choice choice, uint64_t start, ptrdiff_t j)
{
    const vbits every = (vbits){0} - choice.always;
#if FR_DOUBLE
    return every | (vbits)((v_u64)v_draw(start, j) < (uint64_t)choice.bound);
#else
    return every | (vbits)((v_u32)v_draw(start, j) < choice.bound);
#endif
}

/* What dropout with probability p multiplies by: 0, or 1 / (1 - p). */
INLINE vreal v_dropout(double p, uint64_t start, ptrdiff_t j)
{
    const vreal gain = v_set1(p >= 1 ? 0 : (real)(1 / (1 - p)));
    return v_from_bits(~v_chosen(draw_with(p), start, j) & v_as_bits(gain));
}

/* log(a) of a normal number a > 0: the exponent, and 2 atanh(s), s = (m - 1) / (m + 1),
 * of a mantissa m between sqrt(1/2) and sqrt(2). */
INLINE vreal v_log(vreal a)
{
    const int shift = FR_DOUBLE ? 52 : 23;
    const vbits low = v_as_bits(v_set1((real)0.70710678118654752440));
    const vbits exponent = (v_as_bits(a) - low) >> shift;
    const vreal m = v_from_bits(v_as_bits(a) - (exponent << shift));
    const vreal s = (m - v_set1(1)) / (m + v_set1(1)), square = s * s;
    vreal sum = v_set1((real)(1.0 / 9));
    for (int k = 3; k >= 0; k--)
        sum = v_fma(sum, square, v_set1((real)(1.0 / (2 * k + 1))));
    return v_fma(__builtin_convertvector(exponent, vreal),
                 v_set1((real)0.69314718055994530942), v_set1(2) * s * sum);
}

/* Standard normal numbers, one for each lane.  The upper 24 of 32 bits say where in (-1,
 * 1) a number x lies, the same in both dtypes, and the result is sqrt(2) erfinv(x) by
 * the polynomials of Giles, "Approximating the erfinv function", 2011: relative error
 * 1e-7, largest result 5.4. */
INLINE vreal v_draw_normal(uint64_t start, ptrdiff_t j)
{
    static const real centre[] = {
        (real)2.81022636e-08,  (real)3.43273939e-07, (real)-3.5233877e-06,
        (real)-4.39150654e-06, (real)0.00021858087,  (real)-0.00125372503,
        (real)-0.00417768164,  (real)0.246640727,    (real)1.50140941};
    static const real tail[] = {
        (real)-0.000200214257, (real)0.000100950558, (real)0.00134934322,
        (real)-0.00367342844,  (real)0.00573950773,  (real)-0.0076224613,
        (real)0.00943887047,   (real)1.00167406,     (real)2.83297682};
    const vbits bits = v_draw(start, j);
#if FR_DOUBLE
    const vbits place = bits >> 8;
#else
    const vbits place = (vbits)((v_u32)bits >> 8);
#endif
    const vreal one = v_set1(1);
    const vreal x = __builtin_convertvector(2 * place + 1 - (1 << 24), vreal) *
                    v_set1((real)0x1p-24);
    const vreal w = -v_log((one - x) * (one + x));
    const vreal in_tail = w - v_set1(5);
    const vreal near = w - v_set1((real)2.5), far = v_sqrt(w) - v_set1(3);
    vreal p = v_set1(centre[0]), q = v_set1(tail[0]);
    for (size_t k = 1; k < sizeof centre / sizeof *centre; k++) {
        p = v_fma(p, near, v_set1(centre[k]));
        q = v_fma(q, far, v_set1(tail[k]));
    }
    return v_set1((real)1.41421356237309504880) * x * v_select_positive(in_tail, q, p);
}

#endif
