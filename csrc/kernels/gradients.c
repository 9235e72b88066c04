/* SPDX-License-Identifier: BSD-3-Clause */
/* gradients.c -- parts (2) and (3) of backward.c, which are for a whole block of steps.
 *
 * Part (2) computes dx = da W and packs x, h_{t-1} and da of the block.  Part (3) adds
 * the products of what is packed to the gradients of the parameters, dW += da^T x and
 * dR += da^T h_{t-1}, and for the biases sums of da over rows.  All these sums go
 * through the steps in descending order, and in each step through the rows in ascending
 * order; they go on from one block to the next.
 */
#include "backward.h"

/* Which rows of some steps a thread packs, and computes dx of.  Where threads own rows
 * of the batch, these are the rows whose da it has computed, which are still in its
 * cache.  Where threads share the units of a row, they are an even share of all rows.
 */
typedef struct {
    ptrdiff_t s0, s1; /* the steps */
    ptrdiff_t first;  /* the row of the block that is row 0 of step s1 - 1 */
    int by_batch;     /* 1: threads own rows of the batch */
    ptrdiff_t b0, b1; /* with by_batch: the thread's rows of every step */
    ptrdiff_t k0, k1; /* without: the thread's rows of the block */
} block_share;

/* The thread's rows [*b0, *b1) of step s, whose row 0 is row `first` of the block. */
INLINE void own_rows(const block_share *own, const fr_shape *shape, ptrdiff_t s,
                     ptrdiff_t first, ptrdiff_t *b0, ptrdiff_t *b1)
{
    const ptrdiff_t n = step_rows(shape, s);
    *b0 = own->by_batch ? own->b0 : max_size(0, own->k0 - first);
    *b1 = min_size(n, own->by_batch ? own->b1 : own->k1 - first);
}

/* Part (2): notes where dx of some rows of step s begins, and packs their x and
 * h_{t-1}.  Row 0 of the step is row `first` of the block. */
static void pack_inputs(const backward_run *f, ptrdiff_t s, ptrdiff_t first,
                        ptrdiff_t low, ptrdiff_t high)
{
    const fr_backward_args *a = f->a;
    const fr_shape *shape = &a->shape;
    const backward_work *w = &f->w;
    const ptrdiff_t x = step_offset(shape, s, a->x_step, a->x_row);
    const ptrdiff_t dx = step_offset(shape, s, a->dx_step, a->dx_row);
    for (row_origin from = FROM_Y; from <= FROM_H0; from++) {
        ptrdiff_t b0, b1;
        rows_with_start(shape, s, from, low, high, &b0, &b1);
        if (b0 >= b1)
            continue;
        const rows_at h_prev =
            previous_h(shape, s, from, a->y, a->y_step, a->y_row, a->h0);
        for (ptrdiff_t b = b0; b < b1; b++) {
            const ptrdiff_t k = first + b;
            w->dx_offset[k] = dx + b * a->dx_row;
            if (a->dW)
                pack_row(w->x, w->block, k, (const real *)a->x + x + b * a->x_row,
                         shape->I, SUM_NV);
            if (a->dR)
                pack_row(w->h, w->block, k, h_prev.start + b * h_prev.row, shape->S,
                         SUM_NV);
        }
    }
}

/* Whether a gradient is wanted that is a sum over rows of da, which is then packed. */
INLINE int sums_da(const fr_backward_args *a)
{
    return a->dW || a->dR || a->db_ih || a->db_hh;
}

/* Packs rows [k0, k1) of da, and what the gradient of a second product's matrix needs:
 * dh_t with a projection, forward's `between` with a late gate. */
static void pack_da(const backward_run *f, ptrdiff_t k0, ptrdiff_t k1)
{
    const backward_work *w = &f->w;
    const cell *c = &f->cell;
    const ptrdiff_t H = c->H, H_padded = c->H_padded, size = packed_a_size(H, w->block);
    for (ptrdiff_t slot = 0; sums_da(f->a) && slot < c->ops->da_slots; slot++)
        pack_a(w->a + slot * size, w->block, w->da + slot * H_padded, w->da_row, H, k0,
               k1);
    if (c->has_projection && f->a->dW_hr)
        pack_a(w->second_a, w->block, w->da + w->projection, w->da_row, c->S, k0, k1);
    for (ptrdiff_t k = k0; c->has_late_gate && f->a->dR && k < k1; k++)
        pack_row(w->second_b, w->block, k,
                 w->da + k * w->da_row + c->ops->da_slots * H_padded, H, SUM_NV);
}

/* Part (2): packs this thread's rows of some steps for part (3). */
static void pack_block(const backward_run *f, const block_share *own)
{
    const fr_backward_args *a = f->a;
    const fr_shape *shape = &a->shape;
    const cell *c = &f->cell;
    const ptrdiff_t H_padded = c->H_padded;
    const real *m =
        (const real *)a->tape + total_rows(shape) * c->ops->tape_slots * H_padded;
    ptrdiff_t first = own->first;
    for (ptrdiff_t s = own->s1 - 1; s >= own->s0; first += step_rows(shape, s--)) {
        ptrdiff_t low, high;
        own_rows(own, shape, s, first, &low, &high);
        if (low >= high)
            continue;
        pack_inputs(f, s, first, low, high);
        if (own->by_batch)
            pack_da(f, first + low, first + high);
        for (ptrdiff_t b = low; c->has_projection && a->dW_hr && b < high; b++)
            pack_row(f->w.second_b, f->w.block, first + b,
                     m + tape_offset(shape, s, H_padded) + b * H_padded, c->H, SUM_NV);
    }
    if (!own->by_batch)
        pack_da(f, own->k0, own->k1);
}

/* Part (2): dx = da W for rows [k0, k1) of the block and panel p of W.  Meanwhile part
 * i of n of the next panel is fetched. */
static void backward_x_rows(const backward_run *f, ptrdiff_t p, ptrdiff_t k0,
                            ptrdiff_t k1, ptrdiff_t i, ptrdiff_t n)
{
    const fr_backward_args *a = f->a;
    const backward_work *w = &f->w;
    const cell *c = &f->cell;
    const ptrdiff_t I = c->I, H = c->H, K = c->gates * H;
    const real *W = (const real *)a->packed + f->pack.W;
    const ptrdiff_t widest = f->pack.W_widest, panels = n_panels(I, widest);
    const panel q = get_panel(I, widest, p);
    const panel next = get_panel(I, widest, p + 1 < panels ? p + 1 : 0);
    const row_chunks chunks = get_chunks(k1 - k0, q.nv);
    real *const sums = w->tiles + f->self->rank * DX_TILE;
    for (ptrdiff_t chunk = 0; chunk < chunks.n; chunk++) {
        const ptrdiff_t k = k0 + chunk_start(&chunks, k1 - k0, chunk);
        const ptrdiff_t mr = k0 + chunk_start(&chunks, k1 - k0, chunk + 1) - k;
        multiply_rows(w->da + k * w->da_row, w->da_row, c->gates, c->H_padded, H,
                      W + q.column * K, q.nv,
                      panel_part(W + next.column * K, K, q.nv, i * chunks.n + chunk,
                                 n * chunks.n),
                      sums, MAX_WIDTH, mr);
        for (ptrdiff_t r = 0; r < mr; r++) {
            real *dx = (real *)a->dx + w->dx_offset[k + r] + q.column;
            for (ptrdiff_t v = 0; v < q.n; v += V) {
                const ptrdiff_t lanes = min_size(V, q.n - v);
                vreal sum = v_load(sums + r * MAX_WIDTH + v);
                if (a->dx_accumulate)
                    sum = v_load_n(dx + v, lanes) + sum;
                v_store_n(dx + v, sum, lanes);
            }
        }
    }
}

static void backward_x(const backward_run *f, const block_share *own)
{
    const fr_shape *shape = &f->a->shape;
    for (ptrdiff_t p = 0; p < n_panels(shape->I, f->pack.W_widest); p++) {
        ptrdiff_t first = own->first, b0, b1;
        if (!own->by_batch) {
            backward_x_rows(f, p, own->k0, own->k1, 0, 1);
            continue;
        }
        for (ptrdiff_t s = own->s1 - 1; s >= own->s0; first += step_rows(shape, s--)) {
            own_rows(own, shape, s, first, &b0, &b1);
            if (b0 < b1)
                backward_x_rows(f, p, first + b0, first + b1, own->s1 - 1 - s,
                                own->s1 - own->s0);
        }
    }
}

INLINE int is_late_slot(const cell *c, ptrdiff_t slot)
{
    return c->has_late_gate && slot == c->ops->late_slot;
}

/* The gate of R whose gradient slot `slot` of da gives; NO_GATE for a slot that belongs
 * to x W alone. */
INLINE ptrdiff_t R_gate(const cell *c, ptrdiff_t slot)
{
    const ptrdiff_t gate = slot - c->ops->first_R_slot;
    if (is_late_slot(c, slot))
        return c->ops->late_gate;
    return gate >= 0 && gate < c->ops->R_gates ? gate : NO_GATE;
}

/* Part (3): adds the rows of da to the biases' sums, for tiles [begin, end) of the
 * packed da.  The loop goes through eight vectors of da side by side.  Eight
 * independent sums hide how long an addition takes, and eight streams of loads hide how
 * long it takes to fetch da from the cache of the thread that packed it. */
static void sum_da(const backward_run *f, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t K)
{
    enum { AT_ONCE = 8, VECTORS = A_LANES / V };
    const backward_work *w = &f->w;
    const ptrdiff_t tiles = n_row_tiles(f->cell.H, SUM_NV), last = end * VECTORS - 1;
    const even_split rows = sum_split(f->cell.H);
    for (ptrdiff_t u = begin * VECTORS; u <= last; u += AT_ONCE) {
        const real *da[AT_ONCE];
        real *db[AT_ONCE];
        ptrdiff_t lanes[AT_ONCE];
        vreal sum[AT_ONCE];
        /* Where fewer than eight vectors are left, the last one is repeated. */
        for (ptrdiff_t i = 0; i < AT_ONCE; i++) {
            const ptrdiff_t at = min_size(u + i, last), lane = at % VECTORS * V;
            const ptrdiff_t item = at / VECTORS, slot = item / tiles,
                            tile = item % tiles;
            da[i] = w->a + item * w->block * A_LANES + lane;
            db[i] = w->db + slot * f->cell.H_padded + share_start(rows, tile) + lane;
            lanes[i] = max_size(0, rows.each + (tile < rows.longer) - lane);
            sum[i] = v_load_n(db[i], lanes[i]);
        }
        for (ptrdiff_t k = 0; k < K; k++)
            for (ptrdiff_t i = 0; i < AT_ONCE; i++)
                sum[i] = sum[i] + v_load(da[i] + k * A_LANES);
        for (ptrdiff_t i = 0; i < AT_ONCE && u + i <= last; i++)
            v_store_n(db[i], sum[i], lanes[i]);
    }
}

/* Part (3): this thread's share of the sums over the K rows of a block. */
static void backward_weights(const backward_run *f, ptrdiff_t K)
{
    const fr_backward_args *a = f->a;
    const backward_work *w = &f->w;
    const cell *c = &f->cell;
    const cell_ops *ops = c->ops;
    const ptrdiff_t I = c->I, H = c->H, S = c->S, tiles = n_row_tiles(H, SUM_NV);
    const even_split rows = sum_split(H), S_rows = sum_split(S);
    ptrdiff_t begin, end;
    team_share(f->self, ops->da_slots * tiles, &begin, &end);
    if (a->db_ih || a->db_hh)
        sum_da(f, begin, end, K);
    for (ptrdiff_t item = begin; sums_da(a) && item < end; item++) {
        const ptrdiff_t slot = item / tiles, i = item % tiles;
        const ptrdiff_t row = share_start(rows, i), mr = rows.each + (i < rows.longer);
        const ptrdiff_t gate = R_gate(c, slot);
        const real *packed_a = w->a + item * w->block * A_LANES;
        const real *next = packed_a + w->block * A_LANES;
        if (a->dW && slot < c->gates)
            add_product(packed_a, w->x, w->block, K,
                        panel_part(next, K, A_LANES / V, 0, 2),
                        (real *)a->dW + (ops->w_gate[slot] * H + row) * I, mr, I);
        if (a->dR && gate != NO_GATE)
            add_product(packed_a, is_late_slot(c, slot) ? w->second_b : w->h, w->block,
                        K, panel_part(next, K, A_LANES / V, 1, 2),
                        (real *)a->dR + (gate * H + row) * S, mr, S);
    }
    if (!c->has_projection || !a->dW_hr)
        return;
    const ptrdiff_t hr_tiles = n_row_tiles(S, SUM_NV);
    team_share(f->self, hr_tiles, &begin, &end);
    for (ptrdiff_t i = begin; i < end; i++) {
        const ptrdiff_t row = share_start(S_rows, i);
        const real *packed_a = w->second_a + i * w->block * A_LANES;
        add_product(packed_a, w->second_b, w->block, K,
                    panel_part(packed_a, K, A_LANES / V, 0, 1),
                    (real *)a->dW_hr + row * H, S_rows.each + (i < S_rows.longer), H);
    }
}

/* Adds vectors v0 .. v1 - 1 of the sums over all rows to the gradients: the sums of the
 * slots of da to db_ih and db_hh, and the sums of the slots behind these to dP. */
static void add_sums(const backward_run *f, ptrdiff_t v0, ptrdiff_t v1)
{
    const fr_backward_args *a = f->a;
    const cell *c = &f->cell;
    const ptrdiff_t H = c->H;
    for (ptrdiff_t v = v0; v < v1; v++) {
        const ptrdiff_t slot = v * V / c->H_padded, j = v * V % c->H_padded;
        const ptrdiff_t lanes = min_size(V, H - j);
        const vreal sum = v_load(f->w.db + v * V);
        real *to[3] = {NULL, NULL, NULL};
        if (slot >= c->ops->da_slots) {
            if (a->dP)
                to[2] = (real *)a->dP + (slot - c->ops->da_slots) * H + j;
        } else {
            if (a->db_ih && slot < c->gates)
                to[0] = (real *)a->db_ih + c->ops->w_gate[slot] * H + j;
            if (a->db_hh && R_gate(c, slot) != NO_GATE)
                to[1] = (real *)a->db_hh + R_gate(c, slot) * H + j;
        }
        for (int i = 0; i < 3; i++)
            if (to[i])
                v_store_n(to[i], v_load_n(to[i], lanes) + sum, lanes);
    }
}
