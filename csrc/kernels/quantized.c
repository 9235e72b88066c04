/* SPDX-License-Identifier: BSD-3-Clause */
/* quantized.c -- recurrent cells with weights of one byte or two, in inference.
 *
 * Cells are those of the table, and do with the pre-activations what they always do;
 * the driver here differs from forward.c in its products (quantized.h), and is shorter,
 * since there is no tape, no second product, no norm and no mask.  Each thread owns rows
 * of the batch for all steps.
 *
 * W and R have one kind of panels: as many gates side by side as the cell has, of one
 * vector of units, or of several for a cell with one gate or two.
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

/* --- a call ----------------------------------------------------------------------- */

/* Rows that products take: of x, of a thread's rows and steps; and of h. */
typedef struct {
    real *h, *c; /* (B, H_padded); (other states, B, H_padded) */
    real *h_rows, *h_scale;
    real *x_rows, *x_scale;
    ptrdiff_t h_row, x_row; /* floats */
    real *ax;               /* (HOISTED_ROWS, columns) of each thread */
    real *tiles;            /* (2, TILE_SIZE) of each thread */
} quantized_work;

/* Floats that an operand of K elements takes. */
INLINE ptrdiff_t operand_floats(int kind, ptrdiff_t K)
{
    return kind == FR_INT8 ? round_up(K, V) / 2 : K;
}

static quantized_work carve_quantized(const fr_shape *shape, const cell *c,
                                      const quantized_pack *q, int n_threads, arena *a)
{
    const ptrdiff_t B = shape->B, H_padded = round_up(c->H, MAX_NV * V);
    const ptrdiff_t x_rows = n_threads * HOISTED_ROWS + B;
    quantized_work w;
    w.h_row = operand_floats(q->kind, c->S);
    w.x_row = operand_floats(q->kind, c->I);
    w.h = take(a, B * H_padded);
    w.c = take(a, c->other_states * B * H_padded);
    w.h_rows = take(a, B * w.h_row);
    w.h_scale = take(a, B);
    w.x_rows = take(a, x_rows * w.x_row);
    w.x_scale = take(a, x_rows);
    w.ax = take(a, n_threads * HOISTED_ROWS * q->columns);
    w.tiles = take(a, n_threads * 2 * TILE_SIZE);
    return w;
}

static ptrdiff_t quantized_work_size(const fr_shape *shape, int n_threads, int kind)
{
    const cell c = get_cell(shape);
    const quantized_pack q = get_quantized_pack(&c, kind);
    arena a = {NULL, 0};
    carve_quantized(shape, &c, &q, n_threads, &a);
    return a.used;
}

/* What one thread does of a call. */
typedef struct {
    const fr_forward_args *a;
    cell c;
    quantized_pack q;
    quantized_work w;
    int bytes;        /* whether products are of bytes */
    real *ax, *tiles; /* this thread's */
} quantized_run;

/* Brings a row of K elements into the form that products take. */
INLINE void make_operand(const quantized_run *f, ptrdiff_t K, const real *x, real least,
                         real *to, real *scale)
{
    if (f->q.kind == FR_TWO_BYTES)
        memcpy(to, x, (size_t)K * sizeof(real));
    else if (f->bytes)
        quantize_row(1, K, x, least, to, scale);
    else
        quantize_row(0, K, x, least, to, scale);
}

/* The product of `rows` rows by panel p of W or of R. */
static void multiply_quantized(const quantized_run *f, ptrdiff_t p, int recurrent,
                               const real *rows, const real *row_scale, ptrdiff_t n,
                               const real *start, ptrdiff_t start_row, real *c,
                               ptrdiff_t c_row)
{
    const quantized_pack *q = &f->q;
    const real *packed = f->a->packed;
    const ptrdiff_t K = recurrent ? f->c.S : f->c.I, column = p * q->nv * V;
    quantized_tile t = {
        .K = K,
        .row = recurrent ? f->w.h_row : f->w.x_row,
        .weights =
            packed + (recurrent ? q->R : q->W) + p * q->nv * weight_floats(q->kind, K),
        .sums =
            (const int32_t *)(packed + (recurrent ? q->R_sums : q->W_sums)) + column,
        .sums_step = q->columns,
        .scale = packed + (recurrent ? q->R_scale : q->W_scale) + column,
        .start_row = start_row,
        .c_row = c_row,
    };
    const ptrdiff_t most = quantized_rows(q->nv);
    for (ptrdiff_t r = 0; r < n;) {
        const ptrdiff_t mr = min_size(most, n - r);
        t.rows = rows + r * t.row;
        t.row_scale = row_scale + r;
        t.start = start ? start + r * start_row : NULL;
        t.c = c + r * c_row;
        if (q->kind == FR_TWO_BYTES)
            bfloat16_tiles(mr, q->nv, &t);
#if defined(__AVX512BW__)
        else if (f->bytes)
            bytes_tiles(mr, q->nv, &t);
#endif
        else
            pairs_tiles(mr, q->nv, &t);
        r += mr;
    }
}

/* Smallest bound that a row of x, or of h, is brought into integers with.  An h that is
 * bounded has one and the same unless it begins with a larger one. */
#define LEAST_X ((real)1e-30)

INLINE real least_of_h(const cell *c)
{
    const int bounded = c->ops == lstm_cell.plain || c->ops == gru_cell.plain ||
                        c->ops == rnn_tanh_cell.plain;
    return bounded ? 1 : LEAST_X;
}

static void quantized_thread(const team *self, const void *args)
{
    quantized_run run = *(const quantized_run *)args, *f = &run;
    const fr_forward_args *a = f->a;
    const fr_shape *shape = &a->shape;
    const cell *c = &f->c;
    const quantized_pack *q = &f->q;
    const real *packed = a->packed, *h0 = a->h0, *c0 = a->c0;
    const ptrdiff_t H = c->H, H_padded = round_up(H, MAX_NV * V), B = shape->B;
    const real least = least_of_h(c);
    ptrdiff_t b0, b1;
    team_share(self, B, &b0, &b1);
    clear_padding(self, shape, a->y, a->y_step, a->y_row, c->S);
    f->ax = f->w.ax + self->rank * HOISTED_ROWS * q->columns;
    f->tiles = f->w.tiles + self->rank * 2 * TILE_SIZE;
    real *const x_rows = f->w.x_rows + (self->rank * HOISTED_ROWS + b0) * f->w.x_row;
    real *const x_scale = f->w.x_scale + self->rank * HOISTED_ROWS + b0;
    for (ptrdiff_t b = b0; b < b1; b++) {
        memcpy(f->w.h + b * H_padded, h0 + b * H, (size_t)H * sizeof(real));
        for (int n = 0; n < c->other_states; n++)
            memcpy(f->w.c + (n * B + b) * H_padded, c0 + n * a->c_step + b * H,
                   (size_t)H * sizeof(real));
    }
    forward_step step = {
        .options = shape->options,
        .draw = &a->draw,
        .shape = shape,
        .h_prev_row = H_padded,
        .c_row = H_padded,
        .c_state = B * H_padded,
        .h_row = H_padded,
        .bias_apart = packed + q->bias_apart,
        .vectors = packed + q->vectors,
        .lanes = q->lanes,
        .ah_row = q->nv * V,
    };
    const ptrdiff_t rows_owned = b1 - b0;
    const int hoisted = shape->T > 1 && rows_owned < 4;
    const ptrdiff_t block = hoisted ? HOISTED_ROWS / max_size(1, rows_owned) : 1;
    const int one_sum = has_one_sum(c);
    for (ptrdiff_t s = 0, first = 0; s < shape->T; s++) {
        if (s % block == 0) {
            ptrdiff_t n = 0;
            first = s;
            for (ptrdiff_t i = s; i < min_size(shape->T, s + block); i++) {
                const real *x =
                    (const real *)a->x + step_offset(shape, i, a->x_step, a->x_row);
                for (ptrdiff_t b = b0; b < b1; b++, n++)
                    if (b < step_rows(shape, i)) {
                        make_operand(f, c->I, x + b * a->x_row, LEAST_X,
                                     x_rows + n * f->w.x_row, x_scale + n);
                    } else { /* nobody reads what becomes of it */
                        memset(x_rows + n * f->w.x_row, 0,
                               (size_t)f->w.x_row * sizeof(real));
                        x_scale[n] = 0;
                    }
            }
            for (ptrdiff_t p = 0; hoisted && p < q->panels; p++)
                multiply_quantized(f, p, 0, x_rows, x_scale, n,
                                   packed + q->bias + p * q->nv * V, 0,
                                   f->ax + p * q->nv * V, q->columns);
        }
        const ptrdiff_t end = min_size(b1, step_rows(shape, s));
        for (ptrdiff_t b = b0; b < end; b++)
            make_operand(f, c->S, f->w.h + b * H_padded, least,
                         f->w.h_rows + b * f->w.h_row, f->w.h_scale + b);
        step.t = step_time(shape, s);
        for (ptrdiff_t n = 0; n < q->panels; n++) {
            const ptrdiff_t p = back_and_forth(a->steps_before + s, 0, q->panels, n);
            step.j = p * q->lanes;
            step.units = min_size(q->lanes, H - step.j);
            for (ptrdiff_t b = b0; b < end; b += CHUNK_ROWS) {
                const ptrdiff_t mr = min_size(CHUNK_ROWS, end - b);
                const ptrdiff_t width = q->nv * V;
                const real *ax = f->tiles;
                ptrdiff_t ax_row = width;
                if (hoisted) {
                    ax_row = q->columns;
                    ax = f->ax + ((s - first) * rows_owned + b - b0) * ax_row +
                         p * width;
                } else {
                    multiply_quantized(
                        f, p, 0, x_rows + (b - b0) * f->w.x_row, x_scale + b - b0, mr,
                        packed + q->bias + p * width, 0, f->tiles, width);
                }
                real *ah = f->tiles + TILE_SIZE;
                multiply_quantized(f, p, 1, f->w.h_rows + b * f->w.h_row,
                                   f->w.h_scale + b, mr, one_sum ? ax : NULL, ax_row,
                                   ah, width);
                step.b = b;
                step.rows = mr;
                step.ax = ax;
                step.ax_row = ax_row;
                step.ah = ah;
                step.h = f->w.h + b * H_padded;
                step.h_prev = step.h;
                step.c = f->w.c + b * H_padded;
                c->ops->forward(&step);
            }
        }
        real *y = (real *)a->y + step_offset(shape, s, a->y_step, a->y_row);
        for (ptrdiff_t b = b0; b < end; b++)
            memcpy(y + b * a->y_row, f->w.h + b * H_padded, (size_t)H * sizeof(real));
    }
    for (ptrdiff_t b = b0; b < b1; b++) {
        memcpy((real *)a->h_n + b * H, f->w.h + b * H_padded, (size_t)H * sizeof(real));
        for (int n = 0; n < c->other_states; n++)
            memcpy((real *)a->c_n + n * a->c_step + b * H,
                   f->w.c + (n * B + b) * H_padded, (size_t)H * sizeof(real));
    }
}

static void quantized_forward(const fr_forward_args *a, int kind)
{
    quantized_run f = {.a = a, .c = get_cell(&a->shape), .bytes = multiplies_bytes()};
    arena workspace = {a->work, 0};
    f.q = get_quantized_pack(&f.c, kind);
    f.w = carve_quantized(&a->shape, &f.c, &f.q, a->n_threads, &workspace);
    const int n = sequence_threads(&a->shape, a->n_threads);
    team_run((int)min_size(n, a->shape.B), quantized_thread, &f);
}
