/* SPDX-License-Identifier: BSD-3-Clause */
/* linear.c -- the dense layer.
 *
 *   y = x W^T + b                     x (N, I), W (O, I), b (O,), y (N, O)
 *
 * Backward, from dy (N, O):
 *   dx = dy W;    dW += dy^T x, summed over rows in order;    db += sum of rows of dy
 *
 * Threads: packing is shared out, then rows of y and dx, then rows of dW, with a
 * barrier between the three.
 */
#include "gemm.h"
#include "parallel.h"

typedef struct {
    real *weights; /* W^T or W packed */
    real *x, *dy;  /* a block packed for dW */
} linear_work;

/* Rows packed for dW at a time. */
INLINE ptrdiff_t linear_block(ptrdiff_t N)
{
    return min_size(N, BLOCK_ROWS);
}

static linear_work carve_linear(const fr_linear_args *a, int backward_pass, real *base)
{
    const ptrdiff_t block = linear_block(a->N);
    linear_work w = {base, NULL, NULL};
    w.x = base + (backward_pass ? packed_size(a->O, a->I) : packed_size(a->I, a->O));
    w.dy = w.x + packed_size(block, a->I);
    return w;
}

static ptrdiff_t linear_work_size(int backward_pass, ptrdiff_t N, ptrdiff_t I,
                                  ptrdiff_t O)
{
    if (!backward_pass)
        return packed_size(I, O);
    const ptrdiff_t block = linear_block(N);
    return packed_size(O, I) + packed_size(block, I) + packed_a_size(O, block);
}

/* Rows [r0, r1) of C = A B + bias, for all panels of B. */
static void linear_rows(const real *a, ptrdiff_t K, const real *b, const real *bias,
                        real *c, ptrdiff_t N, ptrdiff_t r0, ptrdiff_t r1)
{
    real sums[CHUNK_ROWS * MAX_WIDTH] __attribute__((aligned(64)));
    for (ptrdiff_t p = 0; p < n_panels(N, MAX_NV); p++) {
        const panel q = get_panel(N, MAX_NV, p);
        const panel next =
            get_panel(N, MAX_NV, p + 1 < n_panels(N, MAX_NV) ? p + 1 : 0);
        const ptrdiff_t width = q.nv * V, chunks = n_chunks(r1 - r0, q.nv);
        for (ptrdiff_t i = 0; i < chunks; i++) {
            const ptrdiff_t row = r0 + chunk_start(r1 - r0, q.nv, i);
            const ptrdiff_t mr = r0 + chunk_start(r1 - r0, q.nv, i + 1) - row;
            multiply_rows(a + row * K, K, 1, 0, K, b + q.column * K, q.nv,
                          panel_part(b + next.column * K, K, q.nv, i, chunks), sums,
                          width, mr);
            for (ptrdiff_t v = 0; v < q.n; v += V) {
                const ptrdiff_t lanes = q.n - v, column = q.column + v;
                const vreal vb = bias ? v_load_n(bias + column, lanes) : (vreal){0};
                for (ptrdiff_t r = 0; r < mr; r++)
                    v_store_n(c + (row + r) * N + column,
                              v_load(sums + r * width + v) + vb, lanes);
            }
        }
    }
}

static void linear_forward_thread(const team *self, const void *args)
{
    const fr_linear_args *a = args;
    const linear_work w = carve_linear(a, 0, a->work);
    ptrdiff_t begin, end;
    team_share(self, n_panels(a->O, MAX_NV), &begin, &end);
    for (ptrdiff_t p = begin; p < end; p++) {
        const panel q = get_panel(a->O, MAX_NV, p);
        real *packed = w.weights + q.column * a->I;
        if (q.n < q.nv * V)
            memset(packed, 0, (size_t)(a->I * q.nv * V) * sizeof(real));
        pack_transposed(packed, q.nv * V, (const real *)a->W + q.column * a->I, a->I,
                        q.n, a->I);
    }
    team_barrier(self);
    team_share(self, a->N, &begin, &end);
    linear_rows(a->x, a->I, w.weights, a->b, a->y, a->O, begin, end);
}

static void linear_backward_thread(const team *self, const void *args)
{
    const fr_linear_args *a = args;
    const ptrdiff_t N = a->N, I = a->I, O = a->O, block = linear_block(N);
    const linear_work w = carve_linear(a, 1, a->work);
    const real *x = a->x, *dy = a->dy;
    const ptrdiff_t tiles = n_row_tiles(O, SUM_NV);
    ptrdiff_t begin, end;

    if (a->dx) {
        team_share(self, O, &begin, &end);
        for (ptrdiff_t k = begin; k < end; k++)
            pack_row(w.weights, O, k, (const real *)a->W + k * I, I, MAX_NV);
        team_barrier(self);
        team_share(self, N, &begin, &end);
        linear_rows(dy, O, w.weights, NULL, a->dx, I, begin, end);
    }
    for (ptrdiff_t row = 0; row < N; row += block) {
        const ptrdiff_t K = min_size(block, N - row);
        team_share(self, K, &begin, &end);
        for (ptrdiff_t k = begin; k < end; k++)
            pack_row(w.x, block, k, x + (row + k) * I, I, SUM_NV);
        pack_a(w.dy, block, dy + row * O, O, O, O, begin, end);
        team_barrier(self);
        team_share(self, tiles, &begin, &end);
        for (ptrdiff_t i = begin; i < end; i++) {
            const ptrdiff_t first = part_start(O, tiles, i);
            const real *packed_a = w.dy + i * block * A_LANES;
            add_product(packed_a, w.x, block, K,
                        panel_part(packed_a + block * A_LANES, K, A_LANES / V, 0, 1),
                        (real *)a->dW + first * I, part_start(O, tiles, i + 1) - first,
                        I);
        }
        if (a->db) {
            const ptrdiff_t j0 = part_start(O, tiles, begin),
                            j1 = part_start(O, tiles, end);
            add_row_sums((real *)a->db + j0, dy + row * O + j0, O, j1 - j0, K);
        }
        team_barrier(self);
    }
}

static int linear_threads(const fr_linear_args *a)
{
    return useful_threads(2.0 * (double)a->N * (double)a->I * (double)a->O,
                          a->n_threads);
}

static void linear_forward(const fr_linear_args *a)
{
    team_run(linear_threads(a), linear_forward_thread, a);
}

static void linear_backward(const fr_linear_args *a)
{
    team_run(linear_threads(a), linear_backward_thread, a);
}
