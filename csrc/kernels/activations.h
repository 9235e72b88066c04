/* SPDX-License-Identifier: BSD-3-Clause */
/* activations.h -- vector sigmoid and tanh, the same bits on every target that has FMA.
 *
 * Both are built on e = exp(-|x|) (sigmoid) or exp(-2|x|) (tanh), which cannot
 * overflow, and on a denominator 1 + e in [1, 2]:
 *
 *   sigmoid(x) = (x < 0 ? e : 1) / (1 + e)
 *   tanh(x)    = sign(x) * (1 - e) / (1 + e),  1 - e = -expm1(-2|x|)
 *
 * exp(y) splits y = n ln 2 + r with |r| <= ln(2)/2, where ln 2 is kept in two parts
 * (Cody & Waite 1980), and takes expm1(r) = r + r^2 q(r) with a minimax polynomial q,
 * whose coefficients, found by Remez's algorithm, are below.
 *
 * Maximum error over every float32 whose result is normal, in units of the last place,
 * on targets with FMA: sigmoid 1.48, tanh 1.91.  Without FMA and in float64 it is below
 * 3.  (tests/kernels/test_activations.py measures it; FASTRNN_EXHAUSTIVE=1 makes it try
 * every float32.)  Subnormal results are flushed to zero, as everywhere in a kernel;
 * without FMA, normal results close to the subnormals are flushed, too.  +-inf give the
 * limits, NaN gives NaN.
 */
#ifndef FR_ACTIVATIONS_H
#define FR_ACTIVATIONS_H

#include "simd.h"

/* Arguments below EXP_LOWEST are raised to it: there 2^n is no longer normal, the
 * exponent field that is made for it is 0, and the result is zero.  Adding EXP_MAGIC to
 * y / ln 2 rounds it to the integer n and leaves n plus the exponent's bias in the low
 * bits. */
#if FR_DOUBLE
#define EXP_LOWEST -709.2
#define EXP_MAGIC (0x1.8p52 + 1023)
#define EXP_SHIFT 52
#define LN2_HIGH 0x1.62e42feep-1
#define LN2_LOW 0x1.a39ef35793c76p-33
#else
#define EXP_LOWEST -88.0f
#define EXP_MAGIC (0x1.8p23f + 127)
#define EXP_SHIFT 23
#define LN2_HIGH 0x1.63p-1f
#define LN2_LOW -0x1.bd0106p-13f
#endif

/* For y <= 0 sets *scale to 2^n and returns p = expm1(r), so that exp(y) is
 * *scale * (1 + p). */
INLINE vreal v_exp_parts(vreal y, vreal *scale)
{
    y = v_max(v_set1((real)EXP_LOWEST), y);
    const vreal shifted =
        v_fma(y, v_set1((real)0x1.71547652b82fep0), v_set1(EXP_MAGIC));
    const vreal n = shifted - v_set1(EXP_MAGIC);
    vreal r = v_fma(n, v_set1(-LN2_HIGH), y);
    r = v_fma(n, v_set1(-LN2_LOW), r);
#if FR_DOUBLE /* relative error 5e-19 */
    static const real q_coefficients[] = {0x1.1f8b79f010983p-29,
                                          0x1.af4e19c6f079fp-26,
                                          0x1.27e4ccb333741p-22,
                                          0x1.71de021a5b605p-19,
                                          0x1.a01a01ad05c2bp-16,
                                          0x1.a01a01abef536p-13,
                                          0x1.6c16c16c151dfp-10,
                                          0x1.11111111100cep-7,
                                          0x1.5555555555558p-5,
                                          0x1.5555555555557p-3,
                                          0x1.0p-1};
#else /* relative error 5e-10 */
    static const real q_coefficients[] = {
        0x1.a17e58758966fp-13f, 0x1.6d4365e333918p-10f, 0x1.1110ab40ea8f6p-7f,
        0x1.5554e8d611adap-5f,  0x1.5555557444a49p-3f,  0x1.0000000b99336p-1f};
#endif
    vreal q = v_set1(q_coefficients[0]);
    for (size_t k = 1; k < sizeof q_coefficients / sizeof *q_coefficients; k++)
        q = v_fma(q, r, v_set1(q_coefficients[k]));
    *scale = v_from_bits(v_as_bits(shifted) << EXP_SHIFT);
    return v_fma(r * r, q, r);
}

/* exp(y) for y <= 0: zero where the result is subnormal. */
INLINE vreal v_exp_negative(vreal y)
{
    vreal scale;
    const vreal p = v_exp_parts(y, &scale);
    return v_fma(scale, p, scale);
}

/* Returns 1 / (1 + e) for e in [0, 1].  In float32 a division would be slow, so a
 * Newton step (relative error 6e-6) follows a cubic (0.0024), and the caller corrects
 * the quotient that it makes of the result.  The cubic is exact at e = 0 and at e = 1,
 * since there the quotient may be so tiny that the correction would underflow. */
INLINE vreal v_reciprocal_1_plus(vreal e)
{
    const vreal one = v_set1(1);
#if FR_DOUBLE
    return one / (one + e);
#else
    vreal y = v_fma(e, v_set1(-0.2265625f), v_set1(0.6796875f));
    y = v_fma(e, y, v_set1(-0.953125f));
    y = v_fma(e, y, one);
    return v_fma(y, v_fma(-e, y, one - y), y);
#endif
}

INLINE vreal v_sigmoid(vreal x)
{
    vreal scale;
    const vreal p = v_exp_parts(v_minus_abs(x), &scale);
    const vreal e = v_fma(scale, p, scale);
    const vreal numerator = v_select_negative(x, e, v_set1(1));
    const vreal y = v_reciprocal_1_plus(e), quotient = numerator * y;
    const vreal remainder = v_fma(-e, quotient, numerator - quotient);
    return v_fma(remainder, y, quotient);
}

INLINE vreal v_tanh(vreal x)
{
    vreal scale;
    const vreal p = v_exp_parts(v_minus_abs(x) * v_set1(2), &scale);
    const vreal a = v_fma(-scale, p, v_set1(1) - scale); /* 1 - e, so 1 + e = 2 - a */
    const vreal y = v_reciprocal_1_plus(v_fma(scale, p, scale)), quotient = a * y;
    const vreal remainder = v_fma(a, quotient, v_fma(v_set1(-2), quotient, a));
    return v_copysign(v_fma(remainder, y, quotient), x);
}

/* The derivative of sigmoid(x), from y = sigmoid(x). */
INLINE vreal d_sigmoid_from(vreal y)
{
    return y * (v_set1(1) - y);
}

/* The derivative of tanh(x), from y = tanh(x). */
INLINE vreal d_tanh_from(vreal y)
{
    return v_fma(-y, y, v_set1(1));
}

#endif
