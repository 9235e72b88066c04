/* SPDX-License-Identifier: BSD-3-Clause */
/* quantized_linear.c -- the dense layer with weights of one byte or two, in inference.
 *
 *   y = x W^T + b                     x (N, I), W (O, I), b (O,), y (N, O)
 *
 * W is packed as that of a cell with one gate and O units (quantized.c), and multiplied
 * by the same tiles.  Threads share the rows of y, or the panels of W where rows are few.
 */
#include "quantized.c"

/* A cell whose x W^T + b_ih is the layer's y; it has no state. */
INLINE cell get_linear_cell(ptrdiff_t I, ptrdiff_t O)
{
    const cell c = {.gates = 1, .I = I, .H = O, .bias_apart = NO_GATE};
    return c;
}

static ptrdiff_t quantized_linear_packed_size(ptrdiff_t I, ptrdiff_t O, int kind)
{
    const cell c = get_linear_cell(I, O);
    return get_quantized_pack(&c, kind).size;
}

static void pack_quantized_linear(const fr_quantized_linear_args *a)
{
    const cell c = get_linear_cell(a->I, a->O);
    const quantized_pack q = get_quantized_pack(&c, a->kind);
    real *to = a->packed;
    memset(to, 0, (size_t)q.size * sizeof(real));
    if (a->b)
        memcpy(to + q.bias, a->b, (size_t)a->O * sizeof(real));
    pack_quantized_matrix(&q, a->O, a->I, a->W, a->W_scale, to + q.W, to + q.W_scale,
                          (int32_t *)(to + q.W_sums));
}

/* Rows of x as products take them, their scales, and a tile: of each thread. */
static ptrdiff_t quantized_linear_scratch(ptrdiff_t I, int kind)
{
    return round_up(CHUNK_ROWS * operand_floats(kind, I), V) + round_up(CHUNK_ROWS, V) +
           TILE_SIZE;
}

static ptrdiff_t quantized_linear_work_size(ptrdiff_t I, int n_threads, int kind)
{
    return n_threads * quantized_linear_scratch(I, kind);
}

static void quantized_linear_thread(const team *self, const void *args)
{
    const fr_quantized_linear_args *a = args;
    const fr_forward_args packed = {.packed = a->packed};
    quantized_run f = {
        .a = &packed, .c = get_linear_cell(a->I, a->O), .bytes = multiplies_bytes()};
    f.q = get_quantized_pack(&f.c, a->kind);
    f.w.x_row = operand_floats(a->kind, a->I);
    const ptrdiff_t width = f.q.nv * V, O = a->O;
    real *rows = (real *)a->work + self->rank * quantized_linear_scratch(a->I, a->kind);
    real *scale = rows + round_up(CHUNK_ROWS * f.w.x_row, V);
    real *tile = scale + round_up(CHUNK_ROWS, V);
    const real *bias = (const real *)a->packed + f.q.bias;
    ptrdiff_t r0 = 0, r1 = a->N, p0 = 0, p1 = f.q.panels;
    if (a->N >= self->size * CHUNK_ROWS)
        team_share(self, a->N, &r0, &r1);
    else
        team_share(self, f.q.panels, &p0, &p1);
    for (ptrdiff_t r = r0; r < r1 && p0 < p1; r += CHUNK_ROWS) {
        const ptrdiff_t mr = min_size(CHUNK_ROWS, r1 - r);
        for (ptrdiff_t i = 0; i < mr; i++)
            make_operand(&f, a->I, (const real *)a->x + (r + i) * a->I, LEAST_X,
                         rows + i * f.w.x_row, scale + i);
        for (ptrdiff_t p = p0; p < p1; p++) {
            multiply_quantized(&f, p, 0, rows, scale, mr, bias + p * width, 0, tile,
                               width);
            real *y = (real *)a->y + r * O + p * width;
            const ptrdiff_t n = min_size(width, O - p * width);
            for (ptrdiff_t i = 0; i < mr; i++)
                memcpy(y + i * O, tile + i * width, (size_t)n * sizeof(real));
        }
    }
}

static void quantized_linear(const fr_quantized_linear_args *a)
{
    const double flops = 2.0 * (double)a->N * (double)a->I * (double)a->O;
    team_run(useful_threads(flops, a->n_threads), quantized_linear_thread, a);
}
