/* SPDX-License-Identifier: BSD-3-Clause */
/* embedding.c -- rows of a table looked up, and their gradients added back.
 *
 *   forward   y[i] = W[indices[i]], zero where indices[i] = -1
 *   backward  dW[indices[i]] += dy[i], for i ascending, without indices[i] = padding
 *
 * W (rows, width), indices (n,), y (n, width).  Backward reads and writes only those
 * rows of dW whose index occurs.  Forward, the threads share the rows of y.  Backward,
 * they share the columns: each element of dW then has one owner and one order of
 * summation, however often its row occurs.
 */
#include "fastrnn.h"
#include "target.h"
#include "simd.h"
#include "parallel.h"
#include "flat.h"

static void embedding_forward_body(const team *self, const void *argument)
{
    const fr_embedding_args *args = argument;
    const ptrdiff_t width = args->width;
    ptrdiff_t begin, end;
    team_share(self, args->n, &begin, &end);
    const size_t bytes = (size_t)width * sizeof(real);
    for (ptrdiff_t i = begin; i < end; i++) {
        real *y = (real *)args->y + i * width;
        if (args->indices[i] < 0)
            memset(y, 0, bytes);
        else
            memcpy(y, (const real *)args->weight + args->indices[i] * width, bytes);
    }
}

static void embedding_backward_body(const team *self, const void *argument)
{
    const fr_embedding_args *args = argument;
    const ptrdiff_t width = args->width;
    ptrdiff_t begin, end;
    flat_share(self, width, &begin, &end);
    for (ptrdiff_t i = 0; i < args->n; i++) {
        if (args->indices[i] == args->padding)
            continue;
        const real *dy = (const real *)args->dy + i * width;
        real *dW = (real *)args->dweight + args->indices[i] * width;
        for (ptrdiff_t k = begin; k < end; k += V) {
            const ptrdiff_t n = min_size(V, end - k);
            v_store_n(dW + k, v_load_n(dW + k, n) + v_load_n(dy + k, n), n);
        }
    }
}

static void embedding_forward(const fr_embedding_args *args)
{
    team_run(flat_threads(args->n_threads, args->n * args->width),
             embedding_forward_body, args);
}

static void embedding_backward(const fr_embedding_args *args)
{
    const ptrdiff_t lines = n_parts(args->width, CACHE_LINE);
    team_run(flat_threads((int)min_size(args->n_threads, lines), args->n * args->width),
             embedding_backward_body, args);
}
