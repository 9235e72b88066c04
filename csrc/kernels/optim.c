/* SPDX-License-Identifier: BSD-3-Clause */
/* optim.c -- one step of SGD, RMSprop, Adagrad and Adam over flat buffers.
 *
 * p are the parameters (P,), g is their gradient, and d = +-g + weight_decay p, where
 * the sign is - to maximise.
 *
 *   SGD       b = momentum b + (1 - dampening) d          (first step: b = d)
 *             p -= lr b;       Nesterov: p -= lr (d + momentum b)
 *   RMSprop   s = alpha s + (1 - alpha) d^2
 *             a = alpha a + (1 - alpha) d                 (centered; else a = 0)
 *             u = d / (sqrt(s - a^2) + eps);   b = momentum b + u;   p -= lr b
 *   Adagrad   s += d^2
 *             p -= lr / (1 + (step - 1) lr_decay) * d / (sqrt(s) + eps)
 *   Adam      m = beta1 m + (1 - beta1) d;     s = beta2 s + (1 - beta2) d^2
 *             p -= lr / (1 - beta1^step) * m / (sqrt(s / (1 - beta2^step)) + eps)
 *             AMSGrad puts the largest s so far in place of s
 *   AdamW     d = +-g;   p *= 1 - lr weight_decay;   then Adam
 *
 * A step is one pass over the buffers, and memory bounds its speed.  Where the buffers
 * fit level 2, the divider bounds Adam and RMSprop, which take a square root and a
 * quotient of each vector.  The threads share the elements.  No product is fused with a
 * sum, and no sum runs over elements, so the bits are the same on every target and for
 * any number of threads.  The formulas are PyTorch's.
 *
 * A row of an embedding's table whose gradient was zero for some steps can miss these
 * steps and make up for them later (fr_rows): the kernel then computes each missed step
 * with the operations of the dense step, while the row stays in registers.  Here the
 * threads share the rows.
 *
 * Source: Robbins & Monro 1951; Nesterov 1983; Tieleman & Hinton 2012; Duchi et al.
 * 2011; Kingma & Ba 2015; Reddi et al. 2018; Loshchilov & Hutter 2019.
 */
#include "fastrnn.h"
#include "target.h"
#include "simd.h"
#include "parallel.h"
#include "flat.h"

/* One vector of parameters, and the same elements of each state array. */
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

/* Each optimiser defines one such function, which takes the elements *x through one
 * step with gradient g.  `args` points to the caller's local copy of the optimiser's
 * struct: no store to an array can change that copy, so what the compiler derives from
 * it stays in registers. */
typedef void update_function(const void *args, const vreal *rates, vreal g,
                             elements *x);

/* Takes this thread's share of all elements through one step. */
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

/* Loads the rates of step t from the ring that holds those of the latest steps. */
INLINE void rates_of(const fr_rows *rows, int64_t t, vreal *rates)
{
    const real *at = (const real *)rows->rates + t % rows->capacity * FR_N_RATES;
    for (int i = 0; i < FR_N_RATES; i++)
        rates[i] = v_set1(at[i]);
}

/* Brings this thread's share of the rows forward to step rows.now.  `settled` says that
 * a step with gradient zero changes nothing after another such step, so that one of
 * them stands for all that a row has missed. */
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

/* Returns d of the equations above. */
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

/* Defines an optimiser's team body for all elements, that for rows, and its kernel. */
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

/* A row may have many steps to make up for, so each of its elements counts as much as
 * eight elements of a dense step. */
INLINE int row_threads(const fr_step *step)
{
    return flat_threads(step->n_threads, 8 * step->rows->n * step->rows->width);
}

OPTIMISER(sgd, step->weight_decay == 0 && step->state[0] == NULL)
OPTIMISER(rmsprop, 0)
OPTIMISER(adagrad, step->weight_decay == 0)
OPTIMISER(adam, 0)
