/* SPDX-License-Identifier: BSD-3-Clause */
/* quantized_pack.c -- how weights of one byte or two are packed.
 *
 * W and R have one kind of panels: as many gates side by side as the cell has, of one
 * vector of units, or of several for a cell with one gate.
 */
#include "forward.h"
#include "quantized.h"

/* A panel's columns are [gate][lanes], of units p * lanes on. */
typedef struct {
    int kind;
    ptrdiff_t gates, lanes, nv, panels, columns;
    /* Floats from the start of the pack; bytes of weights are counted as floats. */
    ptrdiff_t bias, bias_apart, vectors, W_scale, R_scale, W_sums, R_sums, W, R, size;
} quantized_pack;

/* Floats that K rows of a panel of one vector take. */
INLINE ptrdiff_t weight_floats(int kind, ptrdiff_t K)
{
    return kind == FR_INT8 ? n_parts(K, 4) * V : n_parts(K, 2) * V;
}

static quantized_pack get_quantized_pack(const cell *c, int kind)
{
    quantized_pack q = {.kind = kind, .gates = c->gates};
    const ptrdiff_t H_padded = round_up(c->H, MAX_NV * V);
    arena a = {NULL, 0};
    /* Only the simple network's functions take several vectors of units. */
    q.lanes = c->gates == 1 && c->H > V ? MAX_NV * V : V;
    q.nv = c->gates * q.lanes / V;
    q.panels = n_parts(c->H, q.lanes);
    q.columns = q.panels * q.nv * V;
    const ptrdiff_t W_sums = kind == FR_INT8 ? n_parts(c->I, MOST_ROWS) * q.columns : 0;
    const ptrdiff_t R_sums = kind == FR_INT8 ? n_parts(c->S, MOST_ROWS) * q.columns : 0;
#define PLACE(field, n)                                                                \
    q.field = a.used;                                                                  \
    take(&a, n)
    PLACE(bias, q.columns);
    PLACE(bias_apart, H_padded);
    PLACE(vectors, c->n_vectors * H_padded);
    PLACE(W_scale, q.columns);
    PLACE(R_scale, q.columns);
    PLACE(W_sums, W_sums);
    PLACE(R_sums, R_sums);
    PLACE(W, q.panels * q.nv * weight_floats(kind, c->I));
    PLACE(R, q.panels * q.nv * weight_floats(kind, c->S));
#undef PLACE
    take(&a, TILE_OVERRUN * q.nv * V);
    q.size = a.used;
    return q;
}

static ptrdiff_t quantized_packed_size(const fr_shape *shape, int kind)
{
    const cell c = get_cell(shape);
    return get_quantized_pack(&c, kind).size;
}

/* Column of a row of all panels that has gate g of unit j. */
INLINE ptrdiff_t quantized_column(const quantized_pack *q, ptrdiff_t g, ptrdiff_t j)
{
    return j / q->lanes * q->nv * V + g * q->lanes + j % q->lanes;
}

/* Packs a matrix (G, H, K); what its panels lack is zero already. */
static void pack_quantized_matrix(const quantized_pack *q, ptrdiff_t H, ptrdiff_t K,
                                  const void *M, const real *scale, real *to,
                                  real *scale_to, int32_t *sums)
{
    const ptrdiff_t width = q->nv * V;
    for (ptrdiff_t g = 0; g < q->gates; g++)
        for (ptrdiff_t j = 0; j < H; j++) {
            const ptrdiff_t column = quantized_column(q, g, j), first = (g * H + j) * K;
            const ptrdiff_t in_panel = column % width;
            real *panel_at = to + column / width * q->nv * weight_floats(q->kind, K);
            if (q->kind == FR_TWO_BYTES) {
                const uint16_t *from = (const uint16_t *)M + first;
                uint16_t *at = (uint16_t *)panel_at + in_panel;
                for (ptrdiff_t k = 0; k < K; k++)
                    at[k * width] = from[k];
                continue;
            }
            const int8_t *from = (const int8_t *)M + first;
            int8_t *at = (int8_t *)panel_at + in_panel * 4;
            scale_to[column] = scale[g * H + j];
            for (ptrdiff_t k = 0; k < K; k++) {
                at[k / 4 * width * 4 + k % 4] = from[k];
                sums[k / MOST_ROWS * q->columns + column] += from[k];
            }
        }
}

static void pack_quantized(const fr_quantized_args *a)
{
    const cell c = get_cell(&a->shape);
    const quantized_pack q = get_quantized_pack(&c, a->kind);
    const ptrdiff_t H = c.H, H_padded = round_up(H, MAX_NV * V);
    const real *b_ih = a->b_ih, *b_hh = a->b_hh, *P = a->P;
    real *to = a->packed;
    memset(to, 0, (size_t)q.size * sizeof(real));
    for (ptrdiff_t g = 0; b_ih && g < q.gates; g++)
        for (ptrdiff_t j = 0; j < H; j++) {
            const ptrdiff_t n = g * H + j;
            const int apart = g == c.bias_apart;
            to[q.bias + quantized_column(&q, g, j)] =
                apart ? b_ih[n] : b_ih[n] + b_hh[n];
            if (apart)
                to[q.bias_apart + j] = b_hh[n];
        }
    for (ptrdiff_t n = 0; n < c.n_vectors; n++)
        memcpy(to + q.vectors + n * H_padded, P + n * H, (size_t)H * sizeof(real));
    pack_quantized_matrix(&q, H, c.I, a->W, a->W_scale, to + q.W, to + q.W_scale,
                          (int32_t *)(to + q.W_sums));
    pack_quantized_matrix(&q, H, c.S, a->R, a->R_scale, to + q.R, to + q.R_scale,
                          (int32_t *)(to + q.R_sums));
}
