/* SPDX-License-Identifier: BSD-3-Clause */
/* gradients.c -- parts (2) and (3) of backward.c, which are for a whole block of steps.
 *
 * Part (2) computes dx = da W and packs x, h_{t-1} and da of the block.  Part (3) adds
 * the products of what is packed to the gradients of the parameters, dW += da^T x and
 * dR += da^T h_{t-1}, and for the biases sums of da over rows.  All these sums go
 * through the steps in descending order, and in each step through the rows in ascending
 * order.  Those of a block are complete before they are added to what there is: the
 * rounding errors of one sum over all blocks would grow with the sequence.
 */
#include "backward_masks.c"

/* Which rows of some steps a thread packs, and computes dx of.  Where threads own rows
 * of the batch, these are the rows whose da it has computed, which are still in its
 * cache.  Where threads share the units of a row, they are an even share of all rows.
 */
typedef struct {
    ptrdiff_t s0, s1; /* the steps */
    /* Rows are counted from the first that this call adds to the block. */
    ptrdiff_t first;  /* the one that is row 0 of step s1 - 1 */
    int by_batch;     /* 1: threads own rows of the batch */
    ptrdiff_t b0, b1; /* with by_batch: the thread's rows of every step */
    ptrdiff_t k0, k1; /* without: the thread's rows */
} block_share;

/* The thread's rows [*b0, *b1) of step s, whose row 0 is row `first` of the block. */
INLINE void own_rows(const block_share *own, const fr_shape *shape, ptrdiff_t s,
                     ptrdiff_t first, ptrdiff_t *b0, ptrdiff_t *b1)
{
    const ptrdiff_t n = step_rows(shape, s);
    *b0 = own->by_batch ? own->b0 : max_size(0, own->k0 - first);
    *b1 = min_size(n, own->by_batch ? own->b1 : own->k1 - first);
}

/* Elements of the packed h_{t-1} of a head. */
INLINE ptrdiff_t packed_head_size(const backward_work *w, const cell *c)
{
    return packed_size(operand_size(w->block), c->head_size);
}

/* Whether row k of a block is packed together with another one of rows [begin, end),
 * which the same thread packs and which lie side by side. */
typedef enum { ALONE, FIRST_OF_TWO, SECOND_OF_TWO } pair_place;

INLINE pair_place place_in_pair(ptrdiff_t k, ptrdiff_t begin, ptrdiff_t end)
{
    if (has_pair(k, end))
        return FIRST_OF_TWO;
    return FR_PAIRS && k % 2 == 1 && k > begin ? SECOND_OF_TWO : ALONE;
}

/* Packs row k of a block: n numbers; those of the next row are `distance` further on. */
INLINE void pack_block_row(const backward_run *f, real *packed, ptrdiff_t k,
                           pair_place place, const real *row, ptrdiff_t distance,
                           ptrdiff_t n)
{
    if (place == FIRST_OF_TWO)
        pack_two_rows(packed, operand_size(f->w.block), k / 2, row, row + distance, n,
                      SUM_NV);
    else if (place == ALONE)
        pack_row_operand(f->cell.half, packed, f->w.block, k, row, n, SUM_NV);
}

/* Part (2): notes where dx of some rows of step s begins, and packs their x and
 * h_{t-1}.  Row 0 of the step is row `first` of the block. */
static void pack_inputs(const backward_run *f, ptrdiff_t s, ptrdiff_t first,
                        ptrdiff_t low, ptrdiff_t high)
{
    const fr_backward_args *a = f->a;
    const fr_shape *shape = &a->shape;
    const backward_work *w = &f->w;
    const cell *c = &f->cell;
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
            const ptrdiff_t k = f->before + first + b;
            w->dx_offset[first + b] = dx + b * a->dx_row;
            if (w->row_of)
                w->row_of[first + b] = b;
            const ptrdiff_t begin = k + b0 - b, end = k + b1 - b;
            if (a->dW)
                pack_block_row(
                    f, w->x, k, w->masks.input ? ALONE : place_in_pair(k, begin, end),
                    masked_input(f, (const real *)a->x + x + b * a->x_row, b), a->x_row,
                    shape->I);
            for (int g = 0; a->dR && g < max_size(1, w->masks.operands); g++) {
                const real *h = masked_operand(f, h_prev.start + b * h_prev.row, g, b);
                for (ptrdiff_t head = 0; head < c->heads; head++)
                    pack_block_row(
                        f, w->h + (g * c->heads + head) * packed_head_size(w, c), k,
                        w->masks.operands ? ALONE : place_in_pair(k, begin, end),
                        h + head * c->head_size, h_prev.row, c->head_size);
            }
        }
    }
}

/* Whether a gradient is wanted that is a sum over rows of da, which is then packed. */
INLINE int sums_da(const fr_backward_args *a)
{
    return a->dW || a->dR || a->db_ih || a->db_hh || a->dP || a->dnorm_ih ||
           a->dnorm_hh || a->dnorm_c || a->dnorm_c_bias;
}

/* The slots of a row of da that are packed: those of dP lie behind the slots of da. */
INLINE ptrdiff_t packed_slots(const backward_run *f)
{
    if (f->cell.norm.any)
        return f->cell.product_slots;
    return f->a->dP ? f->w.sum_slots : f->cell.ops->da_slots;
}

/* Packs rows [k0, k1) of da, and what the gradient of a second product's matrix needs:
 * dh_t with a projection, forward's `between` with a late gate. */
static void pack_da(const backward_run *f, ptrdiff_t k0, ptrdiff_t k1)
{
    const backward_work *w = &f->w;
    const cell *c = &f->cell;
    const ptrdiff_t H = c->H, H_padded = c->H_padded, size = packed_a_size(H, w->block);
    const ptrdiff_t before = f->before * A_LANES;
    for (ptrdiff_t slot = 0; sums_da(f->a) && slot < packed_slots(f); slot++)
        pack_a(w->a + slot * size + before, w->block, w->da + slot * H_padded,
               w->da_row, H, k0, k1);
    const ptrdiff_t half_size = packed_a_size(H, operand_size(w->block));
    for (ptrdiff_t slot = 0; c->half && sums_da(f->a) && slot < c->product_slots;
         slot++)
        pack_a_half(w->a_operand + slot * half_size, w->block, w->da + slot * H_padded,
                    w->da_row, H, f->before, k0, k1);
    if (c->has_projection && f->a->dW_hr && c->half)
        pack_a_half(w->second_a, w->block, w->da + w->projection, w->da_row, c->S,
                    f->before, k0, k1);
    else if (c->has_projection && f->a->dW_hr)
        pack_a(w->second_a + before, w->block, w->da + w->projection, w->da_row, c->S,
               k0, k1);
    for (ptrdiff_t k = k0; c->has_late_gate && f->a->dR && k < k1; k++)
        pack_row_operand(c->half, w->second_b, w->block, f->before + k,
                         w->da + k * w->da_row + c->ops->da_slots * H_padded, H,
                         SUM_NV);
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
            pack_row_operand(c->half, f->w.second_b, f->w.block, f->before + first + b,
                             m + tape_offset(shape, s, H_padded) + b * H_padded, c->H,
                             SUM_NV);
    }
    if (!own->by_batch)
        pack_da(f, own->k0, own->k1);
}

/* Part (2): dx = da W for rows [k0, k1) of da and panel p of W.  Meanwhile part
 * i of n of the next panel is fetched. */
static void backward_x_rows(const backward_run *f, ptrdiff_t p, ptrdiff_t k0,
                            ptrdiff_t k1, ptrdiff_t i, ptrdiff_t n)
{
    const fr_backward_args *a = f->a;
    const backward_work *w = &f->w;
    const cell *c = &f->cell;
    const ptrdiff_t I = c->I, H = c->H_words, K = c->gates * H;
    const ptrdiff_t row = w->da_row / PAIR;
    const real *W = (const real *)a->packed + f->pack.W;
    const ptrdiff_t widest = f->pack.W_widest, panels = n_panels(I, widest);
    const panel q = get_panel(I, widest, p);
    const panel next = get_panel(I, widest, p + 1 < panels ? p + 1 : 0);
    const row_chunks chunks = get_chunks(k1 - k0, q.nv);
    real *const sums = w->tiles + f->self->rank * DX_TILE;
    for (ptrdiff_t chunk = 0; chunk < chunks.n; chunk++) {
        const ptrdiff_t k = k0 + chunk_start(&chunks, k1 - k0, chunk);
        const ptrdiff_t mr = k0 + chunk_start(&chunks, k1 - k0, chunk + 1) - k;
        multiply_rows(w->da_operand + k * row, row, c->gates, c->H_padded / PAIR, H,
                      W + q.column * K, q.nv,
                      panel_part(W + next.column * K, K, q.nv, i * chunks.n + chunk,
                                 n * chunks.n),
                      sums, MAX_WIDTH, mr);
        for (ptrdiff_t r = 0; r < mr; r++) {
            real *dx = (real *)a->dx + w->dx_offset[k + r] + q.column;
            for (ptrdiff_t v = 0; v < q.n; v += V) {
                const ptrdiff_t lanes = min_size(V, q.n - v);
                vreal sum = v_load(sums + r * MAX_WIDTH + v);
                if (w->masks.input)
                    sum = sum * v_load(w->masks.input + q.column + v +
                                       w->row_of[k + r] * w->masks.input_row);
                if (c->skips) /* what x is given past the product: a slot behind */
                    sum = sum + v_load(w->da + (k + r) * w->da_row +
                                       c->gates * c->H_padded + q.column + v);
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
    const ptrdiff_t gate = slot - c->first_R_slot;
    if (is_late_slot(c, slot))
        return c->ops->late_gate;
    return gate >= 0 && gate < c->ops->R_gates ? gate : NO_GATE;
}

/* This thread's tiles whose sums over rows are wanted: [*begin, *end) of the tiles of
 * all slots that are summed. */
INLINE void own_sums(const backward_run *f, ptrdiff_t *begin, ptrdiff_t *end)
{
    const fr_backward_args *a = f->a;
    const int any_norm = f->cell.norm.any;
    const int wanted = a->db_ih || a->db_hh || a->dP || any_norm;
    const ptrdiff_t slots = any_norm ? f->w.sum_slots : packed_slots(f);
    team_share(f->self, wanted ? slots * n_row_tiles(f->cell.H, SUM_NV) : 0, begin,
               end);
}

/* Part (3) of a normalised cell: adds up the sums over the steps of chains, ROW_CHAIN
 * rows at a time, for tiles [begin, end) of all slots. */
static void add_chains(const backward_run *f, ptrdiff_t begin, ptrdiff_t end)
{
    const backward_work *w = &f->w;
    const ptrdiff_t H = f->cell.H, tiles = n_row_tiles(H, SUM_NV), row = w->chain_row;
    const ptrdiff_t n = f->place->first + f->place->rows;
    const even_split rows = sum_split(H);
    for (ptrdiff_t item = begin; item < end; item++) {
        const ptrdiff_t slot = item / tiles, i = item % tiles;
        const ptrdiff_t mr = rows.each + (i < rows.longer);
        const real *from = w->chains + f->place->half * w->chains_size +
                           slot * f->cell.H_padded + share_start(rows, i);
        for (ptrdiff_t v = 0; v < mr; v += V)
            for (ptrdiff_t k0 = 0; k0 < n; k0 += ROW_CHAIN) {
                vreal sum = v_load(from + k0 * row + v);
                for (ptrdiff_t k = k0 + 1; k < min_size(n, k0 + ROW_CHAIN); k++)
                    sum = sum + v_load(from + k * row + v);
                add_and_keep_lost(w->sum + item * A_LANES + v,
                                  w->lost + item * A_LANES + v, sum);
            }
    }
}

/* Part (3): dR += da^T h_{t-1} for units row .. row + mr - 1 of a gate, those of one tile
 * of da, and of each unit's head.  Meanwhile `next` is fetched. */
static void add_head_products(const backward_run *f, const real *packed_a, ptrdiff_t K,
                              memory_range next, ptrdiff_t gate, ptrdiff_t row,
                              ptrdiff_t mr)
{
    const cell *c = &f->cell;
    const backward_work *w = &f->w;
    const ptrdiff_t size = c->head_size, units = c->H / c->heads;
    const ptrdiff_t operand = w->masks.operands > 1 ? gate : 0;
    const real *h = w->h + operand * c->heads * packed_head_size(w, c);
    for (ptrdiff_t j = row; j < row + mr;) {
        const ptrdiff_t head = j / units, end = min_size(row + mr, (head + 1) * units);
        add_product(c->half, packed_a + j - row, h + head * packed_head_size(w, c),
                    w->block, K, next, (real *)f->a->dR + (gate * c->H + j) * size,
                    end - j, size);
        j = end;
    }
}

/* Part (3): this thread's share of the sums over the K rows of a block. */
static void backward_weights(const backward_run *f, ptrdiff_t K)
{
    const fr_backward_args *a = f->a;
    const backward_work *w = &f->w;
    const cell *c = &f->cell;
    const ptrdiff_t I = c->I, H = c->H, S = c->S, tiles = n_row_tiles(H, SUM_NV);
    const even_split rows = sum_split(H), S_rows = sum_split(S);
    ptrdiff_t begin, end;
    own_sums(f, &begin, &end);
    if (c->norm.any)
        add_chains(f, begin, end);
    else
        add_row_sums(w->sum, w->lost, w->a, w->block, K, begin * A_LANES / V,
                     end * A_LANES / V);
    team_share(f->self, c->product_slots * tiles, &begin, &end);
    for (ptrdiff_t item = begin; sums_da(a) && item < end; item++) {
        const ptrdiff_t slot = item / tiles, i = item % tiles;
        const ptrdiff_t row = share_start(rows, i), mr = rows.each + (i < rows.longer);
        const ptrdiff_t gate = R_gate(c, slot);
        const ptrdiff_t words = operand_size(w->block), K_words = operand_size(K);
        real *packed_a = w->a_operand + item * words * A_LANES;
        const real *next = packed_a + words * A_LANES;
        finish_packed_a(c->half, packed_a, K);
        if (a->dW && slot < c->gates)
            add_product(c->half, packed_a, w->x, w->block, K,
                        panel_part(next, K_words, A_LANES / V, 0, 2),
                        (real *)a->dW + (c->ops->w_gate[slot] * H + row) * I, mr, I);
        if (a->dR && is_late_slot(c, slot))
            add_product(c->half, packed_a, w->second_b, w->block, K,
                        panel_part(next, K_words, A_LANES / V, 1, 2),
                        (real *)a->dR + (gate * H + row) * S, mr, S);
        else if (a->dR && gate != NO_GATE)
            add_head_products(f, packed_a, K,
                              panel_part(next, K_words, A_LANES / V, 1, 2), gate, row,
                              mr);
    }
    if (!c->has_projection || !a->dW_hr)
        return;
    const ptrdiff_t hr_tiles = n_row_tiles(S, SUM_NV);
    team_share(f->self, hr_tiles, &begin, &end);
    for (ptrdiff_t i = begin; i < end; i++) {
        const ptrdiff_t row = share_start(S_rows, i);
        real *packed_a = w->second_a + i * operand_size(w->block) * A_LANES;
        finish_packed_a(c->half, packed_a, K);
        add_product(c->half, packed_a, w->second_b, w->block, K,
                    panel_part(packed_a, operand_size(K), A_LANES / V, 0, 1),
                    (real *)a->dW_hr + row * H, S_rows.each + (i < S_rows.longer), H);
    }
}

/* Sets this thread's sums over rows to zero. */
static void clear_sums(const backward_run *f)
{
    ptrdiff_t begin, end;
    own_sums(f, &begin, &end);
    const size_t bytes = (size_t)((end - begin) * A_LANES) * sizeof(real);
    memset(f->w.sum + begin * A_LANES, 0, bytes);
    memset(f->w.lost + begin * A_LANES, 0, bytes);
}

/* The n-th of the two gradients that the sum of a slot goes to; NULL for none.  Those
 * of a slot of da that the cell has written are parts of db_ih and db_hh. */
static real *gradient_of_sum(const backward_run *f, ptrdiff_t slot, int n)
{
    const fr_backward_args *a = f->a;
    const cell *c = &f->cell;
    const cell_ops *ops = c->ops;
    const row_sums norm = get_row_sums(c);
    const ptrdiff_t behind = slot - ops->da_slots;
    ptrdiff_t row = NO_GATE;
    void *to = NULL;
    if (behind < 0) {
        const ptrdiff_t R_slot = slot - ops->first_R_slot;
        if (n == 0) {
            to = a->db_ih;
            row = slot < c->biased ? ops->w_gate[slot] : NO_GATE;
        } else {
            to = a->db_hh;
            row = is_late_slot(c, slot)                  ? ops->late_gate
                  : R_slot >= 0 && R_slot < ops->R_gates ? R_slot
                                                         : NO_GATE;
        }
    } else if (n == 0) {
        const int vectors = behind < c->n_vectors;
        row = vectors          ? behind
              : slot < norm.hh ? ops->w_gate[slot - norm.ih]
              : slot < norm.c  ? slot - norm.hh
                               : 0;
        to = vectors              ? a->dP
             : slot < norm.hh     ? a->dnorm_ih
             : slot < norm.c      ? a->dnorm_hh
             : slot < norm.c_bias ? a->dnorm_c
                                  : a->dnorm_c_bias;
    }
    return to && row != NO_GATE ? (real *)to + row * c->H : NULL;
}

/* Adds this thread's sums over all rows to the gradients. */
static void add_sums(const backward_run *f)
{
    const ptrdiff_t H = f->cell.H, tiles = n_row_tiles(H, SUM_NV);
    const even_split rows = sum_split(H);
    ptrdiff_t begin, end;
    own_sums(f, &begin, &end);
    for (ptrdiff_t item = begin; item < end; item++) {
        const ptrdiff_t slot = item / tiles, i = item % tiles;
        const ptrdiff_t j = share_start(rows, i), mr = rows.each + (i < rows.longer);
        real *to[2];
        for (int n = 0; n < 2; n++) {
            real *gradient = gradient_of_sum(f, slot, n);
            to[n] = gradient ? gradient + j : NULL;
        }
        for (ptrdiff_t v = 0; v < mr; v += V) {
            const ptrdiff_t at = item * A_LANES + v;
            const vreal sum = sum_and_lost(f->w.sum + at, f->w.lost + at);
            for (int n = 0; n < 2; n++)
                if (to[n])
                    v_store_n(to[n] + v, v_load_n(to[n] + v, mr - v) + sum, mr - v);
        }
    }
}
