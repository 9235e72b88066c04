/* SPDX-License-Identifier: BSD-3-Clause */
/* activations.h -- vector sigmoid and tanh, the same bits on every target that has FMA.
 *
 *   sigmoid(x) = 1 / (1 + e),                e = exp(-x)
 *   tanh(x)    = sign(x) * a / (2 - a),      a = 1 - exp(-2|x|) = -expm1(-2|x|)
 *
 * exp(-u) splits -u = n ln 2 - r with |r| <= ln(2)/2, where ln 2 is kept in two parts
 * (Cody & Waite 1980), and takes expm1(-r) = r^2 q(-r) - r with a minimax polynomial q,
 * whose coefficients, found by Remez's algorithm, are below.
 *
 * Both divide.  IEEE 754 rounds a quotient in one way only, so that all targets agree,
 * and the unit that divides works beside those that multiply and add: a reciprocal made
 * of these takes longer.  The quotient is then corrected once, since its denominator
 * was rounded, too; without that the errors would be 2.45 and 2.50.
 *
 * Maximum error over every float32 whose result is normal, in units of the last place,
 * on targets with FMA: sigmoid 1.96, tanh 1.94.  Without FMA and in float64 it is below
 * 3.  (tests/kernels/test_activations.py measures it; FASTRNN_EXHAUSTIVE=1 makes it try
 * every float32.)  Subnormal results are flushed to zero, as everywhere in a kernel;
 * without FMA, normal results close to the subnormals are flushed, too.  +-inf give the
 * limits, NaN gives NaN.
 */
#ifndef FR_ACTIVATIONS_H
#define FR_ACTIVATIONS_H

#include "simd.h"

/* The exponents u of exp(-u) are limited to [-EXP_LIMIT, EXP_LIMIT].  At the upper end
 * 2^n is no longer normal, the exponent field that is made for it is 0, and the result
 * is zero.  At the lower end the result is finite, and its reciprocal subnormal.  Adding
 * EXP_MAGIC to -u / ln 2 rounds it to the integer n and leaves n plus the exponent's
 * bias in the low bits. */
#if FR_DOUBLE
#define EXP_LIMIT 709.2
#define EXP_MAGIC (0x1.8p52 + 1023)
#define EXP_SHIFT 52
#define LN2_HIGH 0x1.62e42feep-1
#define LN2_LOW 0x1.a39ef35793c76p-33
#else
#define EXP_LIMIT 88.0f
#define EXP_MAGIC (0x1.8p23f + 127)
#define EXP_SHIFT 23
#define LN2_HIGH 0x1.63p-1f
#define LN2_LOW -0x1.bd0106p-13f
#endif

/* For |u| <= EXP_LIMIT sets *scale to 2^n and returns p = expm1(-r), so that exp(-u) is
 * *scale * (1 + p). */
INLINE vreal v_exp_parts(vreal u, vreal *scale)
{
    const vreal shifted =
        v_fma(u, v_set1((real)-0x1.71547652b82fep0), v_set1(EXP_MAGIC));
    const vreal n = shifted - v_set1(EXP_MAGIC);
    vreal r = v_fma(n, v_set1(LN2_HIGH), u);
    r = v_fma(n, v_set1(LN2_LOW), r);
    /* The coefficients of q(-r), whose signs alternate, the highest power first. */
#if FR_DOUBLE /* relative error 5e-19 */
    static const real q_coefficients[] = {0x1.1f8b79f010983p-29,
                                          -0x1.af4e19c6f079fp-26,
                                          0x1.27e4ccb333741p-22,
                                          -0x1.71de021a5b605p-19,
                                          0x1.a01a01ad05c2bp-16,
                                          -0x1.a01a01abef536p-13,
                                          0x1.6c16c16c151dfp-10,
                                          -0x1.11111111100cep-7,
                                          0x1.5555555555558p-5,
                                          -0x1.5555555555557p-3,
                                          0x1.0p-1};
#else /* relative error of expm1 1e-8 */
    static const real q_coefficients[] = {0x1.6bec06p-10f, -0x1.122776p-7f,
                                          0x1.555674p-5f, -0x1.5554bp-3f,
                                          0x1.fffffep-2f};
#endif
    vreal q = v_set1(q_coefficients[0]);
    for (size_t k = 1; k < sizeof q_coefficients / sizeof *q_coefficients; k++)
        q = v_fma(q, r, v_set1(q_coefficients[k]));
    *scale = v_from_bits(v_as_bits(shifted) << EXP_SHIFT);
    return v_fma(r * r, q, -r);
}

/* exp(y) for y <= 0: zero where the result is subnormal. */
INLINE vreal v_exp_negative(vreal y)
{
    vreal scale;
    const vreal p = v_exp_parts(v_min(v_set1(EXP_LIMIT), -y), &scale);
    return v_fma(scale, p, scale);
}

/* The residual 1 - q (1 + e) of a quotient q is about its relative error. */
INLINE vreal v_sigmoid(vreal x)
{
    const vreal one = v_set1(1);
    vreal scale;
    const vreal p =
        v_exp_parts(v_clamp(x, v_set1(-EXP_LIMIT), v_set1(EXP_LIMIT)), &scale);
    const vreal e = v_fma(scale, p, scale);
    const vreal quotient = one / (one + e);
    const vreal residual = v_fma(-e, quotient, one - quotient);
    return v_fma(residual, quotient, quotient);
}

/* The residual a - q (2 - a) of a quotient q is its error times a denominator between 1
 * and 2.  Two thirds stand for the reciprocal of that, which is near enough: a third of
 * the error at most is left. */
INLINE vreal v_tanh(vreal x)
{
    const vreal one = v_set1(1), two = v_set1(2);
    vreal scale;
    const vreal p = v_exp_parts(v_min(v_set1(EXP_LIMIT), v_abs(x) * two), &scale);
    const vreal a = v_fma(-scale, p, one - scale);
    const vreal quotient = a / (two - a);
    const vreal residual = v_fma(a, quotient, v_fma(-two, quotient, a));
    return v_copysign(v_fma(residual, v_set1((real)(2.0 / 3)), quotient), x);
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
