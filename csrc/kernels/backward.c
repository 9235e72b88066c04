/* SPDX-License-Identifier: BSD-3-Clause */
/* backward.c -- back-propagation through time (BPTT) for any cell.
 *
 * Blocks of steps, last first: (1) the cell's backward and dh = da R, step by step;
 * (2) dx = da W, and the block's x, h_{t-1} and da packed for (3) dW += da^T x,
 * dR += da^T h_{t-1} and db += da^T 1, whose sums run over steps descending, then rows
 * ascending, from one block into the next.  A barrier stands between (1), (2) and (3),
 * none after (3): the next block's (1) writes only da, which (3) does not read.
 * Source: Werbos 1990.
 */
#include "sequence.h"

/* A row of a block: slots of H_padded with da, then what else is summed over rows (the
 * addends of dP) or multiplied (rh), then dh_t where it goes through a projection. */
typedef struct {
    real *dh, *carry, *dc; /* running gradients of the states, rows padded */
    real *between;         /* (B, H_padded), what came through a second product */
    real *da;              /* (block, da_row) */
    ptrdiff_t da_row;
    ptrdiff_t sum_slots, projection; /* slots that are summed; where dh_t begins */
    ptrdiff_t block;                 /* most rows in a block */
    real *x, *h, *a; /* the block packed for dW: x and h_{t-1} as B, da as A */
    real *second_a, *second_b; /* the same for the matrix of a second product */
    real *db;                  /* (sum_slots, H_padded) sums of da */
    ptrdiff_t *dx_offset;      /* (block,) */
} backward_work;

/* One more vector than da needs: rows then start in different cache sets. */
static backward_work carve_backward(const fr_shape *shape, const cell *c, arena *a)
{
    const cell_ops *ops = c->ops;
    const ptrdiff_t B = shape->B, H_padded = c->H_padded;
    const ptrdiff_t pointers = (ptrdiff_t)(sizeof(void *) / sizeof(real));
    backward_work w;
    w.block = max_size(B, min_size(total_rows(shape), BLOCK_ROWS / B * B));
    w.dh = take(a, B * c->S_padded);
    w.carry = ops->has_carry ? take(a, B * H_padded) : NULL;
    w.dc = ops->has_c ? take(a, B * H_padded) : NULL;
    w.between = has_second(c) ? take(a, B * H_padded) : NULL;
    w.sum_slots = ops->da_slots + (c->has_peephole ? 3 : 0);
    w.projection = (w.sum_slots + (c->resets_before ? 1 : 0)) * H_padded;
    w.da_row = w.projection + (c->has_projection ? c->S_padded : 0) + V;
    w.da = take(a, w.block * w.da_row + A_LANES);
    w.x = take(a, packed_size(w.block, shape->I));
    w.h = take(a, packed_size(w.block, shape->S));
    w.a = take(a, ops->da_slots * packed_a_size(shape->H, w.block));
    w.second_a = c->has_projection ? take(a, packed_a_size(shape->S, w.block)) : w.a;
    w.second_b = has_second(c) ? take(a, packed_size(w.block, shape->H)) : NULL;
    w.db = take(a, w.sum_slots * H_padded);
    w.dx_offset = (ptrdiff_t *)(void *)take(a, w.block * pointers);
    return w;
}

static ptrdiff_t backward_work_size(const fr_shape *shape, int n_threads)
{
    (void)n_threads;
    const cell c = get_cell(shape);
    arena a = {NULL, 0};
    carve_backward(shape, &c, &a);
    return a.used;
}

/* One thread's part of a call. */
typedef struct {
    const team *self;
    const fr_backward_args *a;
    cell cell;
    backward_pack pack;
    backward_work w;
    grid_cell g;
    panel_range state;  /* its panels of dh = da R */
    panel_range second; /* of a second product, whose columns are units */
    panel_range units;  /* its units: those of one of the two */
} backward_run;

/* --- (1) a step ------------------------------------------------------------------ */

/* C = A B for this thread's rows of a step and panels of B. */
static void step_product(const backward_run *f, ptrdiff_t s, ptrdiff_t rows,
                         const real *A, ptrdiff_t segments, ptrdiff_t segment,
                         ptrdiff_t K, const real *B, ptrdiff_t N, ptrdiff_t widest,
                         const panel_range *own, real *C, ptrdiff_t c_row)
{
    const ptrdiff_t all = segments * K, p0 = own->p0, p1 = own->p1;
    for (ptrdiff_t n = p0; n < p1; n++) {
        const panel q = get_panel(N, widest, back_and_forth(s, p0, p1, n));
        const panel next = get_panel(N, widest, back_and_forth(s, p0, p1, n + 1));
        multiply_rows(A + f->g.b0 * f->w.da_row, f->w.da_row, segments, segment, K,
                      B + q.column * all, q.nv,
                      panel_part(B + next.column * all, all, q.nv, 0, 1),
                      C + f->g.b0 * c_row + q.column, c_row, rows);
    }
}

/* Sum of squares of n elements: sixteen partial sums, whatever the vector's width. */
static double row_norm2(const real *row, ptrdiff_t n)
{
    enum { LANES = 16, VECTORS = LANES * sizeof(real) / V_BYTES };
    vreal partial[VECTORS] = {{0}};
    real lanes[LANES];
    double sum = 0;
    for (ptrdiff_t j = 0; j < n; j += LANES)
        for (ptrdiff_t v = 0; v < (ptrdiff_t)VECTORS && j + v * V < n; v++) {
            const vreal a = v_load_n(row + j + v * V, n - j - v * V);
            partial[v] = v_fma(a, a, partial[v]);
        }
    for (ptrdiff_t v = 0; v < (ptrdiff_t)VECTORS; v++)
        v_store(lanes + v * V, partial[v]);
    for (ptrdiff_t i = 0; i < LANES; i++)
        sum += (double)lanes[i];
    return sum;
}

/* dh_t whole, dy and what came past R included, in w.dh; recorded and clipped.  Before
 * and after, threads that share the rows have each their own columns. */
static void gather_state_gradient(const backward_run *f, ptrdiff_t s, ptrdiff_t rows)
{
    const fr_backward_args *a = f->a;
    const backward_work *w = &f->w;
    const ptrdiff_t S = f->cell.S, width = f->cell.S_padded;
    const real *dy =
        a->dy ? (const real *)a->dy + step_offset(&a->shape, s, a->dy_step, a->dy_row)
              : NULL;
    for (ptrdiff_t b = f->g.b0; b < f->g.b0 + rows; b++)
        for (ptrdiff_t j = f->state.begin; j < f->state.end; j += V) {
            real *at = w->dh + b * width + j;
            vreal dh = v_load(at);
            if (w->carry) {
                dh = dh + v_load(w->carry + b * width + j);
                v_store(w->carry + b * width + j, (vreal){0});
            }
            if (dy)
                dh = dh + v_load_n(dy + b * a->dy_row + j, f->state.end - j);
            v_store(at, dh);
        }
    if (!a->flow && a->clip_value <= 0 && a->clip_norm <= 0)
        return;
    team_barrier(&f->g.group);
    ptrdiff_t b0, b1;
    team_share(&f->g.group, rows, &b0, &b1);
    for (ptrdiff_t b = f->g.b0 + b0; b < f->g.b0 + b1; b++) {
        real *dh = w->dh + b * width;
        const double norm2 = a->flow || a->clip_norm > 0 ? row_norm2(dh, S) : 0;
        if (a->flow)
            a->flow[step_time(&a->shape, s) * a->shape.B + b] = norm2;
        const vreal limit = v_set1((real)a->clip_value);
        for (ptrdiff_t j = 0; a->clip_value > 0 && j < S; j += V)
            v_store(dh + j, v_min(limit, v_max(-limit, v_load(dh + j))));
        if (a->clip_norm > 0 && norm2 > a->clip_norm * a->clip_norm) {
            const vreal factor = v_set1((real)(a->clip_norm / __builtin_sqrt(norm2)));
            for (ptrdiff_t j = 0; j < S; j += V)
                v_store(dh + j, v_load(dh + j) * factor);
        }
    }
    team_barrier(&f->g.group);
}

/* One of the cell's functions on this thread's rows and units of step s. */
static void run_cell(const backward_run *f, void (*function)(const backward_step *),
                     ptrdiff_t s, real *da_s, int gathered)
{
    const fr_backward_args *a = f->a;
    const fr_shape *shape = &a->shape;
    const cell *c = &f->cell;
    const backward_work *w = &f->w;
    const ptrdiff_t H_padded = c->H_padded;
    const ptrdiff_t tape_row = c->ops->tape_slots * H_padded;
    const real *y_s = (const real *)a->y + step_offset(shape, s, a->y_step, a->y_row);
    const real *tape_s = (const real *)a->tape + tape_offset(shape, s, tape_row);
    const real *dy_s =
        a->dy && !gathered
            ? (const real *)a->dy + step_offset(shape, s, a->dy_step, a->dy_row)
            : NULL;

    for (int which = 0; which < 2; which++) {
        ptrdiff_t b0, b1;
        rows_with_start(shape, s, which, f->g.b0, f->g.b1, &b0, &b1);
        if (b0 >= b1)
            continue;
        const rows_at h_prev =
            previous_h(shape, s, which, a->y, a->y_step, a->y_row, a->h0);
        const real *dh = c->has_projection ? w->between : w->dh;
        const backward_step step = {
            .options = shape->options,
            .rows = b1 - b0,
            .j = f->units.begin,
            .units = f->units.end - f->units.begin,
            .H_padded = H_padded,
            .dy = dy_s ? dy_s + b0 * a->dy_row : NULL,
            .dy_row = a->dy_row,
            .dh = dh + b0 * H_padded,
            .dh_row = H_padded,
            .carry = w->carry ? w->carry + b0 * H_padded : NULL,
            .dc = w->dc ? w->dc + b0 * H_padded : NULL,
            .between = w->between ? w->between + b0 * H_padded : NULL,
            .peephole = (const real *)a->packed + f->pack.peephole,
            .h_prev = h_prev.start + b0 * h_prev.row,
            .h_prev_row = h_prev.row,
            .h = y_s + b0 * a->y_row,
            .h_row = a->y_row,
            .tape = tape_s + b0 * tape_row,
            .tape_row = tape_row,
            .da = da_s + b0 * w->da_row,
            .da_row = w->da_row,
        };
        function(&step);
    }
}

/* One step of BPTT for this thread's rows and units; da goes to da_s. */
static void backward_one_step(const backward_run *f, ptrdiff_t s, real *da_s)
{
    const fr_backward_args *a = f->a;
    const cell *c = &f->cell;
    const cell_ops *ops = c->ops;
    const backward_work *w = &f->w;
    const real *packed = a->packed, *M = packed + f->pack.second;
    const ptrdiff_t H = c->H, S = c->S;
    const ptrdiff_t rows =
        max_size(0, min_size(f->g.b1, step_rows(&a->shape, s)) - f->g.b0);
    const int gathered =
        c->has_projection || a->flow || a->clip_value > 0 || a->clip_norm > 0;

    if (gathered)
        gather_state_gradient(f, s, rows);
    if (c->has_projection) { /* dm = dh W_hr */
        for (ptrdiff_t b = f->g.b0; b < f->g.b0 + rows; b++)
            memcpy(da_s + b * w->da_row + w->projection + f->state.begin,
                   w->dh + b * c->S_padded + f->state.begin,
                   (size_t)(f->state.end - f->state.begin) * sizeof(real));
        team_barrier(&f->g.group);
        step_product(f, s, rows, da_s + w->projection, 1, 0, S, M, H,
                     f->pack.second_widest, &f->second, w->between, c->H_padded);
    }
    if (c->resets_before) { /* drh = da_n R_n */
        run_cell(f, ops->backward_first, s, da_s, gathered);
        team_barrier(&f->g.group);
        step_product(f, s, rows, da_s, 1, 0, H, M, H, f->pack.second_widest, &f->second,
                     w->between, c->H_padded);
    }
    run_cell(f, ops->backward, s, da_s, gathered);
    team_barrier(&f->g.group);
    /* Rows that start at this step get the gradient of their h0 here, for good. */
    step_product(f, s, rows, da_s + ops->first_R_slot * c->H_padded, ops->R_gates,
                 c->H_padded, H, packed, S, f->pack.R_widest, &f->state, w->dh,
                 c->S_padded);
}

/* --- (2) and (3), a block -------------------------------------------------------- */

/* Which of some steps' rows are a thread's to pack: those it computed, still in its own
 * cache, where threads own rows of the batch; an even share where they own units. */
typedef struct {
    ptrdiff_t s0, s1;
    ptrdiff_t first; /* row of the block that is row 0 of step s1 - 1 */
    int by_batch;
    ptrdiff_t b0, b1; /* by_batch: these rows of every step */
    ptrdiff_t k0, k1; /* else these rows of the block */
} block_share;

/* Rows [*b0, *b1) of step s, whose row 0 is row `first` of the block. */
INLINE void own_rows(const block_share *own, const fr_shape *shape, ptrdiff_t s,
                     ptrdiff_t first, ptrdiff_t *b0, ptrdiff_t *b1)
{
    const ptrdiff_t n = step_rows(shape, s);
    *b0 = own->by_batch ? own->b0 : max_size(0, own->k0 - first);
    *b1 = min_size(n, own->by_batch ? own->b1 : own->k1 - first);
}

/* (2) Where this thread's rows of the block lie, and their packed copies: of x and
 * h_{t-1}, then of da. */
static void pack_inputs(const backward_run *f, ptrdiff_t s, ptrdiff_t first,
                        ptrdiff_t low, ptrdiff_t high)
{
    const fr_backward_args *a = f->a;
    const fr_shape *shape = &a->shape;
    const backward_work *w = &f->w;
    const ptrdiff_t x = step_offset(shape, s, a->x_step, a->x_row);
    const ptrdiff_t dx = step_offset(shape, s, a->dx_step, a->dx_row);
    for (int which = 0; which < 2; which++) {
        ptrdiff_t b0, b1;
        rows_with_start(shape, s, which, low, high, &b0, &b1);
        if (b0 >= b1)
            continue;
        const rows_at h_prev =
            previous_h(shape, s, which, a->y, a->y_step, a->y_row, a->h0);
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

/* Whether anything is summed over rows of da, and da therefore packed. */
INLINE int sums_da(const fr_backward_args *a)
{
    return a->dW || a->dR || a->db_ih || a->db_hh;
}

/* Rows [k0, k1) of da as A, and of what else a second product has in its gradient. */
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
    for (ptrdiff_t k = k0; c->resets_before && f->a->dR && k < k1; k++)
        pack_row(w->second_b, w->block, k, w->da + k * w->da_row + 3 * H_padded, H,
                 SUM_NV);
}

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

/* (2) dx = da W for rows [k0, k1) of the block and panel p; meanwhile part i of n of the
 * next panel is fetched. */
static void backward_x_rows(const backward_run *f, ptrdiff_t p, ptrdiff_t k0,
                            ptrdiff_t k1, ptrdiff_t i, ptrdiff_t n)
{
    const fr_backward_args *a = f->a;
    const backward_work *w = &f->w;
    const cell *c = &f->cell;
    const ptrdiff_t I = c->I, H = c->H, K = c->ops->gates * H;
    const real *W = (const real *)a->packed + f->pack.W;
    const ptrdiff_t widest = f->pack.W_widest, panels = n_panels(I, widest);
    const panel q = get_panel(I, widest, p);
    const panel next = get_panel(I, widest, p + 1 < panels ? p + 1 : 0);
    const row_chunks chunks = get_chunks(k1 - k0, q.nv);
    real sums[CHUNK_ROWS * MAX_WIDTH] __attribute__((aligned(64)));
    for (ptrdiff_t chunk = 0; chunk < chunks.n; chunk++) {
        const ptrdiff_t k = k0 + chunk_start(&chunks, k1 - k0, chunk);
        const ptrdiff_t mr = k0 + chunk_start(&chunks, k1 - k0, chunk + 1) - k;
        multiply_rows(w->da + k * w->da_row, w->da_row, c->ops->gates, c->H_padded, H,
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

/* Gate of h R that a slot of da belongs to, or -1.  Where the reset comes before the
 * product, da_n is that of both products. */
INLINE ptrdiff_t R_gate(const cell *c, ptrdiff_t slot)
{
    if (c->resets_before && slot == 0)
        return 2;
    return slot - c->ops->first_R_slot;
}

/* (3) db += da^T 1 for tiles [begin, end) of the packed da.  Eight sums at once hide how
 * long an addition takes, and eight streams how far another thread's da is. */
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
        for (ptrdiff_t i = 0; i < AT_ONCE;
             i++) { /* past the last one, that one again */
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

/* (3) This thread's share of what is summed over rows. */
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
        if (a->dW && slot < ops->gates)
            add_product(packed_a, w->x, w->block, K,
                        panel_part(next, K, A_LANES / V, 0, 2),
                        (real *)a->dW + (ops->w_gate[slot] * H + row) * I, mr, I);
        if (a->dR && gate >= 0)
            add_product(packed_a, c->resets_before && slot == 0 ? w->second_b : w->h,
                        w->block, K, panel_part(next, K, A_LANES / V, 1, 2),
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

/* Sums over rows, in slots, to where they belong: db, and dP after the slots of da. */
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
            if (a->db_ih && slot < c->ops->gates)
                to[0] = (real *)a->db_ih + c->ops->w_gate[slot] * H + j;
            if (a->db_hh && R_gate(c, slot) >= 0)
                to[1] = (real *)a->db_hh + R_gate(c, slot) * H + j;
        }
        for (int i = 0; i < 3; i++)
            if (to[i])
                v_store_n(to[i], v_load_n(to[i], lanes) + sum, lanes);
    }
}

/* (1) and (2) for steps [s0, s1), rows [k0, k1) of the block; ends without a barrier. */
static void backward_steps(const backward_run *f, ptrdiff_t s0, ptrdiff_t s1,
                           ptrdiff_t k0, ptrdiff_t k1)
{
    const fr_backward_args *a = f->a;
    const backward_work *w = &f->w;
    const cell *c = &f->cell;
    const ptrdiff_t P_begin = c->ops->da_slots * c->H_padded;
    const ptrdiff_t P_vectors = (w->sum_slots * c->H_padded - P_begin) / V;
    ptrdiff_t k = k0, v0, v1;
    for (ptrdiff_t s = s1 - 1; s >= s0; k += step_rows(&a->shape, s--))
        backward_one_step(f, s, w->da + k * w->da_row);
    team_barrier(f->self); /* da of all rows and units is there */
    block_share own = {.s0 = s0, .s1 = s1, .first = k0, .b0 = f->g.b0, .b1 = f->g.b1};
    own.by_batch = f->self->size > 1 && f->g.group.size == 1;
    team_share(f->self, k1 - k0, &own.k0, &own.k1);
    own.k0 += k0;
    own.k1 += k0;
    pack_block(f, &own);
    if (a->dx)
        backward_x(f, &own);
    if (a->dP) {
        team_share(f->self, P_vectors, &v0, &v1);
        add_row_sums(w->db + P_begin + v0 * V,
                     w->da + k0 * w->da_row + P_begin + v0 * V, w->da_row,
                     (v1 - v0) * V, k1 - k0);
    }
}

/* --- a call ---------------------------------------------------------------------- */

/* A running gradient: what is given, else zero. */
INLINE void set_state(real *to, const real *from, ptrdiff_t at, size_t bytes)
{
    if (from)
        memcpy(to, from + at, bytes);
    else
        memset(to, 0, bytes);
}

/* What a thread does of a call, with the threads of its part. */
static void backward_part(const team_part *part, const fr_backward_args *a)
{
    const team *self = &part->own;
    const fr_shape *shape = &a->shape;
    const cell c = get_cell(shape);
    const cell_ops *ops = c.ops;
    const ptrdiff_t H = c.H, S = c.S, H_padded = c.H_padded, S_padded = c.S_padded;
    arena workspace = {a->work, 0};
    backward_run f = {.self = self, .a = a, .cell = c, .pack = get_backward_pack(&c)};
    f.w = carve_backward(shape, &c, &workspace);
    if (a->db_sums)
        f.w.db = a->db_sums;
    f.g = get_grid_cell(self, shape, &c, n_panels(S, f.pack.R_widest));
    f.state = own_panels(&f.g, S, f.pack.R_widest);
    f.second = own_panels(&f.g, H, f.pack.second_widest);
    f.units = c.has_projection ? f.second : f.state;
    const grid_cell g = f.g;
    const backward_work w = f.w;
    const ptrdiff_t j0 = f.units.begin, k0 = f.state.begin;
    const size_t c_bytes = (size_t)(f.units.end - j0) * sizeof(real);
    const size_t h_bytes = (size_t)(f.state.end - k0) * sizeof(real);
    const ptrdiff_t handed_on =
        part->follows || part->leads ? chained_steps(shape->B) : shape->T;
    ptrdiff_t v0, v1;

    /* Gradients of the last states; zero where none are given. */
    for (ptrdiff_t b = g.b0; b < g.b1; b++) {
        set_state(w.dh + b * S_padded + k0, a->dh_n, b * S + k0, h_bytes);
        if (ops->has_c)
            set_state(w.dc + b * H_padded + j0, a->dc_n, b * H + j0, c_bytes);
        if (ops->has_carry)
            set_state(w.carry + b * H_padded + j0, NULL, 0, c_bytes);
    }
    if (a->dx && !a->dx_accumulate)
        clear_padding(self, shape, a->dx, a->dx_step, a->dx_row, shape->I);
    team_share(self, w.sum_slots * H_padded / V, &v0, &v1);
    if (!a->db_started)
        memset(w.db + v0 * V, 0, (size_t)((v1 - v0) * V) * sizeof(real));

    for (ptrdiff_t s1 = shape->T, s0; s1 > 0; s1 = s0) {
        ptrdiff_t K = 0;
        for (s0 = s1; s0 > 0 && K + step_rows(shape, s0 - 1) <= w.block;) {
            const ptrdiff_t end = s0, first = K;
            do
                K += step_rows(shape, --s0);
            while (s0 > 0 && end - s0 < handed_on &&
                   K + step_rows(shape, s0 - 1) <= w.block);
            follow_steps(part, shape->T - s0);
            backward_steps(&f, s0, end, first, K);
            lead_steps(part, shape->T - s0);
        }
        team_barrier(self); /* all is packed, da may be overwritten */
        backward_weights(&f, K);
    }

    for (ptrdiff_t b = g.b0; b < g.b1; b++) {
        for (ptrdiff_t k = k0; k < f.state.end; k++) {
            const ptrdiff_t at = b * S_padded + k;
            ((real *)a->dh0)[b * S + k] =
                ops->has_carry ? w.dh[at] + w.carry[at] : w.dh[at];
        }
        if (ops->has_c)
            memcpy((real *)a->dc0 + b * H + j0, w.dc + b * H_padded + j0, c_bytes);
    }
    team_barrier(self); /* all of db is there */
    if (!a->db_open)
        add_sums(&f, v0, v1);
}

/* a[0].dx += a[1].dx, this thread's share of the steps. */
static void add_second_dx(const team *self, const fr_backward_args *a)
{
    const fr_shape *shape = &a->shape;
    ptrdiff_t s0, s1;
    team_share(self, shape->T, &s0, &s1);
    for (ptrdiff_t s = s0; s < s1; s++)
        for (ptrdiff_t b = 0; b < step_rows(shape, s); b++) {
            const ptrdiff_t at = step_offset(shape, s, a->dx_step, a->dx_row);
            real *dx = (real *)a[0].dx + at + b * a->dx_row;
            const real *second = (const real *)a[1].dx + at + b * a->dx_row;
            for (ptrdiff_t i = 0; i < shape->I; i += V) {
                const ptrdiff_t n = min_size(V, shape->I - i);
                v_store_n(dx + i, v_load_n(dx + i, n) + v_load_n(second + i, n), n);
            }
        }
}

typedef struct {
    const fr_backward_args *calls;
    int n, chained;
} backward_calls;

static void backward_thread(const team *self, const void *args)
{
    const backward_calls *all = args;
    if (all->n > 1 && self->size >= all->n) {
        const team_part part = get_team_part(self, all->n, all->chained);
        backward_part(&part, &all->calls[part.call]);
        team_barrier(self);
    } else {
        const team_part part = whole_team(self);
        for (int i = 0; i < all->n; i++) {
            backward_part(&part, &all->calls[i]);
            team_barrier(self);
        }
    }
    if (all->n == 2 && !all->chained && all->calls->dx)
        add_second_dx(self, all->calls);
}

static void backward(const fr_backward_args *calls, int n, int chained)
{
    const backward_calls all = {calls, n, chained};
    team_run(sequence_threads(&calls->shape, calls->n_threads), backward_thread, &all);
}

static ptrdiff_t packed_backward_size(const fr_shape *shape)
{
    const cell c = get_cell(shape);
    return get_backward_pack(&c).size;
}

static void pack_backward_thread(const team *self, const void *args)
{
    const fr_pack_args *a = args;
    const cell c = get_cell(&a->shape);
    pack_backward_weights(self, &c, a);
}

static void pack_backward(const fr_pack_args *a)
{
    team_run(packing_threads(a), pack_backward_thread, a);
}
