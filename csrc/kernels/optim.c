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
 * One pass over memory; threads take ranges of elements.  Nothing is fused or summed, so
 * every target and thread count gives the same bits.  Formulas as PyTorch has them.
 * Source: Robbins & Monro 1951; Nesterov 1983; Tieleman & Hinton 2012; Duchi et al. 2011;
 * Kingma & Ba 2015; Reddi et al. 2018; Loshchilov & Hutter 2019.
 */
#include "fastrnn.h"
#include "target.h"
#include "simd.h"
#include "parallel.h"
#include "flat.h"

/* The gradient to descend along. */
INLINE vreal step_direction(const fr_step *step, vreal p, vreal g, double weight_decay)
{
    if (step->maximize)
        g = -g;
    return weight_decay == 0 ? g : g + v_set1((real)weight_decay) * p;
}

static void sgd_body(const team *self, const void *argument)
{
    const fr_sgd_args *args = argument;
    const fr_step *step = &args->step;
    real *p = step->p, *buffer = args->buffer;
    const real *g = step->g;
    const vreal lr = v_set1((real)step->lr), momentum = v_set1((real)args->momentum);
    const vreal gain = v_set1((real)(1 - args->dampening));
    ptrdiff_t begin, end;
    flat_share(self, step->P, &begin, &end);
    for (ptrdiff_t k = begin; k < end; k += V) {
        const ptrdiff_t n = min_size(V, end - k);
        const vreal vp = v_load_n(p + k, n);
        vreal d = step_direction(step, vp, v_load_n(g + k, n), step->weight_decay);
        if (buffer != NULL) {
            vreal b = d;
            if (!args->first)
                b = momentum * v_load_n(buffer + k, n) + gain * d;
            v_store_n(buffer + k, b, n);
            d = args->nesterov ? d + momentum * b : b;
        }
        v_store_n(p + k, vp - lr * d, n);
    }
}

static void rmsprop_body(const team *self, const void *argument)
{
    const fr_rmsprop_args *args = argument;
    const fr_step *step = &args->step;
    real *p = step->p, *square = args->square, *mean = args->mean,
         *buffer = args->buffer;
    const real *g = step->g;
    const vreal lr = v_set1((real)step->lr), momentum = v_set1((real)args->momentum);
    const vreal alpha = v_set1((real)args->alpha),
                rest = v_set1((real)(1 - args->alpha));
    const vreal eps = v_set1((real)args->eps);
    ptrdiff_t begin, end;
    flat_share(self, step->P, &begin, &end);
    for (ptrdiff_t k = begin; k < end; k += V) {
        const ptrdiff_t n = min_size(V, end - k);
        const vreal vp = v_load_n(p + k, n);
        const vreal d =
            step_direction(step, vp, v_load_n(g + k, n), step->weight_decay);
        vreal s = alpha * v_load_n(square + k, n) + rest * d * d;
        v_store_n(square + k, s, n);
        if (mean != NULL) {
            vreal a = v_load_n(mean + k, n);
            a = a + rest * (d - a);
            v_store_n(mean + k, a, n);
            s = s - a * a;
        }
        vreal u = d / (v_sqrt(s) + eps);
        if (buffer != NULL) {
            u = momentum * v_load_n(buffer + k, n) + u;
            v_store_n(buffer + k, u, n);
        }
        v_store_n(p + k, vp - lr * u, n);
    }
}

static void adagrad_body(const team *self, const void *argument)
{
    const fr_adagrad_args *args = argument;
    const fr_step *step = &args->step;
    real *p = step->p, *square = args->square;
    const real *g = step->g;
    const vreal lr = v_set1((real)step->lr), eps = v_set1((real)args->eps);
    ptrdiff_t begin, end;
    flat_share(self, step->P, &begin, &end);
    for (ptrdiff_t k = begin; k < end; k += V) {
        const ptrdiff_t n = min_size(V, end - k);
        const vreal vp = v_load_n(p + k, n);
        const vreal d =
            step_direction(step, vp, v_load_n(g + k, n), step->weight_decay);
        const vreal s = v_load_n(square + k, n) + d * d;
        v_store_n(square + k, s, n);
        v_store_n(p + k, vp - lr * d / (v_sqrt(s) + eps), n);
    }
}

static void adam_body(const team *self, const void *argument)
{
    const fr_adam_args *args = argument;
    const fr_step *step = &args->step;
    real *p = step->p, *mean = args->mean, *square = args->square;
    real *largest = args->largest;
    const real *g = step->g;
    const vreal rest1 = v_set1((real)(1 - args->beta1));
    const vreal beta2 = v_set1((real)args->beta2);
    const vreal rest2 = v_set1((real)(1 - args->beta2));
    const vreal size = v_set1((real)(step->lr / args->correction1));
    const vreal widen = v_set1((real)(1 / __builtin_sqrt(args->correction2)));
    const vreal eps = v_set1((real)args->eps);
    const double coupled = args->decoupled ? 0 : step->weight_decay;
    const vreal shrink =
        v_set1((real)(args->decoupled ? 1 - step->lr * step->weight_decay : 1));
    ptrdiff_t begin, end;
    flat_share(self, step->P, &begin, &end);
    for (ptrdiff_t k = begin; k < end; k += V) {
        const ptrdiff_t n = min_size(V, end - k);
        const vreal vp = v_load_n(p + k, n);
        const vreal d = step_direction(step, vp, v_load_n(g + k, n), coupled);
        vreal m = v_load_n(mean + k, n);
        m = m + rest1 * (d - m);
        v_store_n(mean + k, m, n);
        vreal s = beta2 * v_load_n(square + k, n) + rest2 * d * d;
        v_store_n(square + k, s, n);
        if (largest != NULL) {
            s = v_max(v_load_n(largest + k, n), s);
            v_store_n(largest + k, s, n);
        }
        v_store_n(p + k, shrink * vp - size * m / (v_sqrt(s) * widen + eps), n);
    }
}

static void sgd(const fr_sgd_args *args)
{
    team_run(flat_threads(args->step.n_threads, args->step.P), sgd_body, args);
}

static void rmsprop(const fr_rmsprop_args *args)
{
    team_run(flat_threads(args->step.n_threads, args->step.P), rmsprop_body, args);
}

static void adagrad(const fr_adagrad_args *args)
{
    team_run(flat_threads(args->step.n_threads, args->step.P), adagrad_body, args);
}

static void adam(const fr_adam_args *args)
{
    team_run(flat_threads(args->step.n_threads, args->step.P), adam_body, args);
}
