/* SPDX-License-Identifier: BSD-3-Clause */
/* functions.h -- the activation functions of ONNX and Keras, which a general cell may
 * be given in place of its own, and their derivatives.
 *
 * v_activate and v_slope branch on the kind of function once for each vector.  The
 * branch always goes the same way, and costs little beside the product that made the
 * vector.  Plain cells, which have no options, do not use this file.
 */
#ifndef FR_FUNCTIONS_H
#define FR_FUNCTIONS_H

#include "activations.h"
#include "fastrnn.h"

/* exp(y) - 1 for y <= 0, exact near zero. */
INLINE vreal v_expm1_negative(vreal y)
{
    vreal scale;
    const vreal p = v_exp_parts(v_min(v_set1(EXP_LIMIT), -y), &scale);
    return v_fma(scale, p, scale - v_set1(1));
}

/* log(1 + e) for e in [0, 1].  It is 2 atanh(s) for s = e / (2 + e), which is at most
 * 1/3, and is taken from the power series of that. */
INLINE vreal v_log1p_unit(vreal e)
{
    enum { TERMS = FR_DOUBLE ? 17 : 8 };
    const vreal s = e / (v_set1(2) + e), square = s * s;
    vreal sum = v_set1((real)1 / (2 * TERMS - 1));
    for (int k = TERMS - 2; k > 0; k--)
        sum = v_fma(sum, square, v_set1((real)1 / (2 * k + 1)));
    return v_fma(s * square * v_set1(2), sum, s * v_set1(2));
}

/* The cumulative normal distribution at x.  With z = |x| / sqrt(2) it is erfc(z) / 2
 * for x <= 0, and 1 - erfc(z) / 2 for positive x.  erfc(z) is computed as exp(-z^2) t
 * q(2 t - 1), where t = 1 / (1 + z / 2) and q is a Chebyshev approximation (relative
 * error 2e-9 in float32, 5e-16 in float64). */
INLINE vreal v_normal_cdf(vreal x)
{
#if FR_DOUBLE
    static const real q_coefficients[] = {
        -0x1.301434822757fp-29, 0x1.c6d2b91ff7335p-28,  0x1.1e43c1257b27cp-27,
        -0x1.bb0f7454f9741p-25, 0x1.0c54de15a38b1p-25,  0x1.422c6b3166cc6p-23,
        -0x1.569377ec9c989p-22, 0x1.066ece5729346p-26,  0x1.12ca300a9f79fp-20,
        -0x1.ec7e000fafcc2p-20, -0x1.33c646785d993p-21, 0x1.0eade06b4c219p-17,
        -0x1.6be4626cc7633p-17, -0x1.1e7f35315cf4ap-16, 0x1.2ef96b90b7fefp-14,
        -0x1.205233f14ddc4p-16, -0x1.5ba4324a1de60p-12, 0x1.b6fbf5bf766bap-12,
        0x1.9517bb5558b27p-10,  -0x1.a89eafef97f86p-9,  -0x1.606e41550d604p-7,
        0x1.2a88e61074082p-6,   0x1.1e2deea6b112ep-3,   0x1.5fd386754f010p-2,
        0x1.058671b52c776p-1};
#else
    static const real q_coefficients[] = {
        -0x1.2759fcp-17f, -0x1.5362fp-20f, 0x1.1f96dap-14f, -0x1.15e164p-15f,
        -0x1.5912bp-12f,  0x1.bff278p-12f, 0x1.94e59p-10f,  -0x1.a8ed32p-9f,
        -0x1.606d74p-7f,  0x1.2a8a16p-6f,  0x1.1e2deep-3f,  0x1.5fd386p-2f,
        0x1.058672p-1f};
#endif
    const vreal one = v_set1(1), half = v_set1((real)0.5);
    const vreal z = v_abs(x) * v_set1((real)0.70710678118654752440);
    const vreal t = one / v_fma(half, z, one), s = v_fma(t, v_set1(2), -one);
    vreal q = v_set1(q_coefficients[0]);
    for (size_t k = 1; k < sizeof q_coefficients / sizeof *q_coefficients; k++)
        q = v_fma(q, s, v_set1(q_coefficients[k]));
    const vreal tail = half * t * q * v_exp_negative(x * x * v_set1((real)-0.5));
    return v_select_negative(x, tail, one - tail);
}

/* exp(y), bounded at both ends where it would overflow or be subnormal. */
INLINE vreal v_exp_bounded(vreal y)
{
    const vreal limit = v_set1(EXP_LIMIT);
    vreal scale;
    const vreal p = v_exp_parts(v_clamp(-y, -limit, limit), &scale);
    return v_fma(scale, p, scale);
}

/* log(sigmoid(y)) */
INLINE vreal v_log_sigmoid(vreal y)
{
    return v_min((vreal){0}, y) - v_log1p_unit(v_exp_negative(v_minus_abs(y)));
}

/* Returns f(x).  The function is not inlined: a cell calls it from a dozen places, and
 * each of them would hold the code of thirteen functions. */
static __attribute__((noinline)) vreal v_activate(const fr_activation *f, vreal x)
{
    const vreal zero = {0}, one = v_set1(1);
    const vreal alpha = v_set1((real)f->alpha), beta = v_set1((real)f->beta);
    switch (f->kind) {
    case FR_SIGMOID:
        return v_sigmoid(x);
    case FR_RELU:
        return v_relu(x);
    case FR_HARD_SIGMOID:
        return v_clamp(v_fma(alpha, x, beta), zero, one);
    case FR_HARD_TANH:
        return v_clamp(x, -one, one);
    case FR_SOFTSIGN:
        return x / (one + v_abs(x));
    case FR_SOFTPLUS:
        return v_relu(x) + v_log1p_unit(v_exp_negative(v_minus_abs(x)));
    case FR_ELU:
        return v_select_positive(x, x, alpha * v_expm1_negative(v_min(zero, x)));
    case FR_LEAKY_RELU:
        return v_select_positive(x, x, alpha * x);
    case FR_THRESHOLDED_RELU:
        return v_select_positive(x - alpha, x, v_clamp(x, zero, zero)); /* NaN stays */
    case FR_AFFINE:
        return v_fma(alpha, x, beta);
    case FR_SCALED_TANH:
        return alpha * v_tanh(beta * x);
    case FR_GELU:
        return x * v_normal_cdf(x);
    case FR_EXPONENTIAL:
        return v_exp_bounded(x);
    default:
        return v_tanh(x);
    }
}

/* Returns f'(x), given y = f(x).  At a corner the slope is the one that PyTorch takes:
 * zero where the function is flat on either side, and else the slope to the left. */
static __attribute__((noinline)) vreal v_slope(const fr_activation *f, vreal x, vreal y)
{
    const vreal zero = {0}, one = v_set1(1);
    const vreal alpha = v_set1((real)f->alpha), beta = v_set1((real)f->beta);
    switch (f->kind) {
    case FR_SIGMOID:
        return d_sigmoid_from(y);
    case FR_RELU:
        return v_select_positive(x, one, zero);
    case FR_HARD_SIGMOID: /* where 0 < y < 1 */
        return v_select_positive(y * (one - y), alpha, zero);
    case FR_HARD_TANH:
        return v_select_positive(d_tanh_from(y), one, zero);
    case FR_SOFTSIGN: {
        const vreal a = one - v_abs(y); /* 1 / (1 + |x|) */
        return a * a;
    }
    case FR_SOFTPLUS:
        return v_sigmoid(x);
    case FR_ELU:
        return v_select_positive(x, one, y + alpha);
    case FR_LEAKY_RELU:
        return v_select_positive(x, one, alpha);
    case FR_THRESHOLDED_RELU:
        return v_select_positive(x - alpha, one, zero);
    case FR_AFFINE:
        return alpha;
    case FR_SCALED_TANH: {
        const vreal inner = v_tanh(beta * x);
        return alpha * beta * d_tanh_from(inner);
    }
    case FR_GELU: {
        const vreal density = v_exp_negative(x * x * v_set1((real)-0.5)) *
                              v_set1((real)0.39894228040143267794);
        return v_fma(x, density, v_normal_cdf(x));
    }
    case FR_EXPONENTIAL:
        return y;
    default:
        return d_tanh_from(y);
    }
}

/* The function that makes a candidate positive where a recurrence is computed in log
 * space: g(a) = a + 1/2 for a >= 0, and sigmoid(a) below (Feng et al. 2024). */
INLINE vreal v_positive(vreal a)
{
    return v_select_negative(a, v_sigmoid(a), a + v_set1((real)0.5));
}

/* The derivative of v_positive(a), from y = v_positive(a). */
INLINE vreal d_positive_from(vreal y)
{
    return v_select_negative(y - v_set1((real)0.5), d_sigmoid_from(y), v_set1(1));
}

/* Limits a pre-activation to [-clip, clip] where the cell has a clip. */
INLINE vreal v_clip(const fr_cell_options *o, vreal a)
{
    const vreal limit = v_set1((real)o->clip);
    return o->clip > 0 ? v_clamp(a, -limit, limit) : a;
}

/* The value y of gate g of a general cell, from its pre-activation a. */
INLINE vreal v_gate(const fr_cell_options *o, int g, vreal a)
{
    return v_activate(&o->gate[g], v_clip(o, a));
}

/* The derivative of gate g with respect to its pre-activation a, from a and the value y
 * of the gate. */
INLINE vreal v_gate_slope(const fr_cell_options *o, int g, vreal a, vreal y)
{
    const vreal inside = v_slope(&o->gate[g], v_clip(o, a), y);
    if (o->clip <= 0)
        return inside;
    return v_select_positive(v_abs(a) - v_set1((real)o->clip), (vreal){0}, inside);
}

#endif
