/* SPDX-License-Identifier: BSD-3-Clause */
/* optim.c -- one step of SGD, RMSprop, Adagrad and Adam over flat buffers.
 *
 * With p the parameters (P,), g their gradient, d = +-g (- to maximise) + weight_decay p:
 *
 *   SGD       b = momentum b + (1 - dampening) d          (first step: b = d)
 *             p -= lr b;       Nesterov: p -= lr (d + momentum b)
 *   RMSprop   s = alpha s + (1 - alpha) d^2
 *             a = alpha a + (1 - alpha) d                 (centered, else 0)
 *             u = d / (sqrt(s - a^2) + eps);   b = momentum b + u;   p -= lr b
 *   Adagrad   s += d^2
 *             p -= lr / (1 + (step - 1) lr_decay) * d / (sqrt(s) + eps)
 *   Adam      m = beta1 m + (1 - beta1) d;     s = beta2 s + (1 - beta2) d^2
 *             p -= lr / (1 - beta1^step) * m / (sqrt(s / (1 - beta2^step)) + eps)
 *             AMSGrad takes the largest s so far
 *   AdamW     d = +-g;   p *= 1 - lr weight_decay;   then Adam
 *
 * One pass over memory, whose speed bounds it; where all lies in level 2, and for missed
 * steps, Adam and RMSprop are bound by the divider: a root and a quotient a vector.
 * Threads take ranges of elements.  Nothing is fused or summed, so
 * every target and thread count gives the same bits.  Formulas as PyTorch has them.
 *
 * Rows of a table whose gradient was zero for some steps can be brought forward later
 * (fr_rows): each of those steps is then computed as it would have been, but in
 * registers.  Threads take rows.
 * Source: Robbins & Monro 1951; Nesterov 1983; Tieleman & Hinton 2012; Duchi et al. 2011;
 * Kingma & Ba 2015; Reddi et al. 2018; Loshchilov & Hutter 2019.
 */
#include "fastrnn.h"
#include "target.h"
#include "simd.h"
#include "parallel.h"
#include "flat.h"

/* Vectors of the same elements of all flat arrays. */
typedef struct {
    vreal p, state[FR_N_STATE];
} elements;

INLINE elements elements_load(const fr_step *step, ptrdiff_t k, ptrdiff_t n)
{
    elements x = {.p = v_load_n((const real *)step->p + k, n)};
#pragma GCC unroll 3
    for (int i = 0; i < FR_N_STATE; i++)
        if (step->state[i] != NULL)
            x.state[i] = v_load_n((const real *)step->state[i] + k, n);
    return x;
}

INLINE void elements_store(const fr_step *step, ptrdiff_t k, ptrdiff_t n,
                           const elements *x)
{
    v_store_n((real *)step->p + k, x->p, n);
#pragma GCC unroll 3
    for (int i = 0; i < FR_N_STATE; i++)
        if (step->state[i] != NULL)
            v_store_n((real *)step->state[i] + k, x->state[i], n);
}

/* What each optimiser defines: one step of some elements with gradient g.  `args` is a
 * local copy of its struct, so that the compiler keeps what it derives from it. */
typedef void update_function(const void *args, const vreal *rates, vreal g,
                             elements *x);

/* One step of this thread's share of all elements. */
INLINE void step_all(const team *self, const fr_step *step, const void *args,
                     update_function *update)
{
    const real *g = step->g;
    vreal rates[FR_N_RATES];
    for (int i = 0; i < FR_N_RATES; i++)
        rates[i] = v_set1((real)step->rates[i]);
    ptrdiff_t k, end;
    flat_share(self, step->P, &k, &end);
    for (; k + V <= end; k += V) {
        elements x = elements_load(step, k, V);
        update(args, rates, v_load(g + k), &x);
        elements_store(step, k, V, &x);
    }
    if (k < end) {
        elements x = elements_load(step, k, end - k);
        update(args, rates, v_load_n(g + k, end - k), &x);
        elements_store(step, k, end - k, &x);
    }
}

/* Rates of step t. */
INLINE void rates_of(const fr_rows *rows, int64_t t, vreal *rates)
{
    const real *at = (const real *)rows->rates + t % rows->capacity * FR_N_RATES;
    for (int i = 0; i < FR_N_RATES; i++)
        rates[i] = v_set1(at[i]);
}

/* This thread's share of rows, brought forward.  `settled`: a second step with gradient
 * zero changes nothing that the first has not. */
INLINE void catch_up_rows(const team *self, const fr_step *step, const void *args,
                          update_function *update, int settled)
{
    const fr_rows rows = *step->rows;
    const int64_t now = rows.now, missed = now - (rows.with_gradient ? 1 : 0);
    vreal rates[FR_N_RATES];
    ptrdiff_t begin, end;
    team_share(self, rows.n, &begin, &end);
    for (ptrdiff_t i = begin; i < end; i++) {
        const int64_t row = rows.rows[i];
        int64_t seen = rows.seen[row];
        if (seen >= now)
            continue;
        rows.seen[row] = now;
        if (settled && seen < missed)
            seen = missed - 1;
        const ptrdiff_t start = row * rows.width, stop = start + rows.width;
        for (ptrdiff_t k = start; k < stop; k += V) {
            const ptrdiff_t n = min_size(V, stop - k);
            elements x = elements_load(step, k, n);
            for (int64_t t = seen; t < missed; t++) {
                rates_of(&rows, t, rates);
                update(args, rates, (vreal){0}, &x);
            }
            if (rows.with_gradient) {
                rates_of(&rows, missed, rates);
                update(args, rates, v_load_n((const real *)step->g + k, n), &x);
            }
            elements_store(step, k, n, &x);
        }
    }
}

/* The gradient to descend along. */
INLINE vreal step_direction(const fr_step *step, vreal p, vreal g)
{
    if (step->maximize)
        g = -g;
    return step->weight_decay == 0 ? g : g + v_set1((real)step->weight_decay) * p;
}

INLINE void sgd_update(const void *argument, const vreal *rates, vreal g, elements *x)
{
    const fr_sgd_args *args = argument;
    vreal d = step_direction(&args->step, x->p, g);
    if (args->step.state[0] != NULL) {
        const vreal momentum = v_set1((real)args->momentum);
        const vreal gain = v_set1((real)(1 - args->dampening));
        const vreal b = args->first ? d : momentum * x->state[0] + gain * d;
        x->state[0] = b;
        d = args->nesterov ? d + momentum * b : b;
    }
    x->p = x->p - rates[0] * d;
}

INLINE void rmsprop_update(const void *argument, const vreal *rates, vreal g,
                           elements *x)
{
    const fr_rmsprop_args *args = argument;
    const vreal rest = v_set1((real)(1 - args->alpha));
    const vreal d = step_direction(&args->step, x->p, g);
    vreal s = v_set1((real)args->alpha) * x->state[0] + rest * d * d;
    x->state[0] = s;
    if (args->step.state[1] != NULL) {
        const vreal a = x->state[1] + rest * (d - x->state[1]);
        x->state[1] = a;
        s = s - a * a;
    }
    vreal u = d / (v_sqrt(s) + v_set1((real)args->eps));
    if (args->step.state[2] != NULL) {
        u = v_set1((real)args->momentum) * x->state[2] + u;
        x->state[2] = u;
    }
    x->p = x->p - rates[0] * u;
}

INLINE void adagrad_update(const void *argument, const vreal *rates, vreal g,
                           elements *x)
{
    const fr_adagrad_args *args = argument;
    const vreal d = step_direction(&args->step, x->p, g);
    const vreal s = x->state[0] + d * d;
    x->state[0] = s;
    x->p = x->p - rates[0] * d / (v_sqrt(s) + v_set1((real)args->eps));
}

INLINE void adam_update(const void *argument, const vreal *rates, vreal g, elements *x)
{
    const fr_adam_args *args = argument;
    const vreal d = step_direction(&args->step, x->p, g);
    const vreal rest1 = v_set1((real)(1 - args->beta1));
    const vreal rest2 = v_set1((real)(1 - args->beta2));
    const vreal m = x->state[0] + rest1 * (d - x->state[0]);
    vreal s = v_set1((real)args->beta2) * x->state[1] + rest2 * d * d;
    x->state[0] = m;
    x->state[1] = s;
    if (args->step.state[2] != NULL)
        x->state[2] = s = v_max(x->state[2], s);
    x->p = rates[2] * x->p -
           rates[0] * m / (v_sqrt(s) * rates[1] + v_set1((real)args->eps));
}

/* The body of a team for all elements, the one for rows, and the kernel. */
#define OPTIMISER(name, is_settled)                                                    \
    static void name##_all(const team *self, const void *argument)                     \
    {                                                                                  \
        const fr_##name##_args args = *(const fr_##name##_args *)argument;             \
        step_all(self, &args.step, &args, name##_update);                              \
    }                                                                                  \
                                                                                       \
    static void name##_rows(const team *self, const void *argument)                    \
    {                                                                                  \
        const fr_##name##_args args = *(const fr_##name##_args *)argument;             \
        const fr_step *step = &args.step;                                              \
        catch_up_rows(self, step, &args, name##_update, is_settled);                   \
    }                                                                                  \
                                                                                       \
    static void name(const fr_##name##_args *args)                                     \
    {                                                                                  \
        const fr_step *step = &args->step;                                             \
        if (step->rows == NULL)                                                        \
            team_run(flat_threads(step->n_threads, step->P), name##_all, args);        \
        else                                                                           \
            team_run(row_threads(step), name##_rows, args);                            \
    }

/* Rows may have many steps to make up for, so they count as some times their width. */
INLINE int row_threads(const fr_step *step)
{
    return flat_threads(step->n_threads, 8 * step->rows->n * step->rows->width);
}

OPTIMISER(sgd, step->weight_decay == 0 && step->state[0] == NULL)
OPTIMISER(rmsprop, 0)
OPTIMISER(adagrad, step->weight_decay == 0)
OPTIMISER(adam, 0)
