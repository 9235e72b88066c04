/* SPDX-License-Identifier: BSD-3-Clause */
/* quantized_linear.c -- the dense layer with weights of one byte or two, in inference.
 *
 *   y = x W^T + b                     x (N, I), W (O, I), b (O,), y (N, O)
 *
 * W is packed as that of a cell with one gate and O units (quantized_pack.c), and
 * multiplied in the same ways (quantized.c).  Threads share the rows of y, or the panels
 * of W where rows are few.
 */
#include "quantized.c"

#define LINEAR_ROWS 96 /* of x that are multiplied at a time */

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

/* What a thread works in. */
typedef struct {
    real *rows, *scale; /* x as products take it */
    real *y;            /* (LINEAR_ROWS, width of a panel) */
    real *wide;         /* a panel, widened; or TILE_SUMS of sums */
} linear_scratch;

static linear_scratch carve_linear(ptrdiff_t I, int kind, arena *a)
{
    const quantized_pack widest = {.kind = kind, .nv = MAX_NV};
    linear_scratch s;
    s.rows = take(a, (LINEAR_ROWS + TILE_OVERRUN) * operand_floats(kind, I));
    s.scale = take(a, LINEAR_ROWS);
    s.y = take(a, LINEAR_ROWS * MAX_NV * V);
    s.wide = take(a, max_size(wide_floats(&widest, I), TILE_SUMS));
    return s;
}

static ptrdiff_t quantized_linear_work_size(ptrdiff_t I, int n_threads, int kind)
{
    arena a = {NULL, 0};
    for (int i = 0; i < n_threads; i++)
        carve_linear(I, kind, &a);
    return a.used;
}

static void quantized_linear_thread(const team *self, const void *args)
{
    const fr_quantized_linear_args *a = args;
    const fr_forward_args packed = {.packed = a->packed};
    quantized_run f = {.a = &packed, .c = get_linear_cell(a->I, a->O)};
    arena workspace = {a->work, 0};
    linear_scratch s = carve_linear(a->I, a->kind, &workspace);
    for (int i = 0; i < self->rank; i++)
        s = carve_linear(a->I, a->kind, &workspace);
    f.q = get_quantized_pack(&f.c, a->kind);
    f.w.x_row = operand_floats(a->kind, a->I);
    f.wide = s.wide;
    const ptrdiff_t width = f.q.nv * V, O = a->O;
    const real *bias = (const real *)a->packed + f.q.bias;
    ptrdiff_t r0 = 0, r1 = a->N, p0 = 0, p1 = f.q.panels;
    if (a->N >= self->size * LINEAR_ROWS)
        team_share(self, a->N, &r0, &r1);
    else
        team_share(self, f.q.panels, &p0, &p1);
    f.W_form = choose_form(a->kind, r1 - r0);
    const quantized_matrix m = get_matrix(&f, 0);
    if (f.W_form == IN_TILES)
        begin_tiles();
    for (ptrdiff_t r = r0; r < r1 && p0 < p1; r += LINEAR_ROWS) {
        const ptrdiff_t n = min_size(LINEAR_ROWS, r1 - r);
        for (ptrdiff_t i = 0; i < n; i++)
            make_operand(&f, f.W_form, a->I, (const real *)a->x + (r + i) * a->I,
                         LEAST_X, s.rows + i * m.row, s.scale + i);
        for (ptrdiff_t p = p0; p < p1; p++) {
            const memory_range next =
                next_part(&f, &m, p + 1 < p1 ? p + 1 : p0, 0, n, n);
            widen_panel(&f, &m, p);
            multiply_quantized(&f, &m, p, s.rows, s.scale, n,
                               (sums_start){bias + p * width, 0}, next, s.y, width);
            real *y = (real *)a->y + r * O + p * width;
            const ptrdiff_t columns = min_size(width, O - p * width);
            for (ptrdiff_t i = 0; i < n; i++)
                memcpy(y + i * O, s.y + i * width, (size_t)columns * sizeof(real));
        }
    }
    if (f.W_form == IN_TILES)
        end_tiles();
}

static void quantized_linear(const fr_quantized_linear_args *a)
{
    const double flops = 2.0 * (double)a->N * (double)a->I * (double)a->O;
    team_run(useful_threads(flops, a->n_threads), quantized_linear_thread, a);
}
