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
    real *wide;             /* panels of W and of R, widened, of each thread */
    ptrdiff_t wide_W, wide_size;
} quantized_work;

/* Floats that an operand of K elements takes. */
INLINE ptrdiff_t operand_floats(int kind, ptrdiff_t K)
{
    return kind == FR_INT8 ? integer_floats(K) : K;
}

/* Floats that a widened panel of K rows takes. */
INLINE ptrdiff_t wide_floats(const quantized_pack *q, ptrdiff_t K)
{
    return q->nv * V * (q->kind == FR_INT8 ? 2 * n_parts(K, 4) : K);
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
    w.wide_W = wide_floats(q, c->I);
    w.wide_size = w.wide_W + wide_floats(q, c->S);
    w.wide = take(a, n_threads * w.wide_size);
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
    real *ax, *tiles, *wide; /* this thread's */
    /* How the weights of W and of R are read: panels are widened for many rows. */
    weight_form W_form, R_form;
} quantized_run;

/* Rows for which widening a panel pays. */
#define WIDE_ROWS (V_REGISTERS == 32 ? 8 : 12)

INLINE weight_form choose_form(int kind, ptrdiff_t rows)
{
    if (kind == FR_INT8 && multiplies_bytes())
        return IN_BYTES;
    return rows < WIDE_ROWS ? IN_PAIRS : WIDENED;
}

/* Brings a row of K elements into the form that products take. */
INLINE void make_operand(const quantized_run *f, weight_form form, ptrdiff_t K,
                         const real *x, real least, real *to, real *scale)
{
    if (f->q.kind == FR_TWO_BYTES)
        memcpy(to, x, (size_t)K * sizeof(real));
    else if (form == IN_BYTES)
        quantize_row(AS_BYTES, K, x, least, to, scale);
    else
        quantize_row(AS_PAIRS, K, x, least, to, scale);
}

/* One of the two matrices of a cell, and the rows that it multiplies. */
typedef struct {
    ptrdiff_t K;
    weight_form form;
    const real *weights, *scale;
    const int32_t *sums;
    real *wide;    /* the panel that is in use, widened */
    ptrdiff_t row; /* floats of a row */
} quantized_matrix;

INLINE quantized_matrix get_matrix(const quantized_run *f, int recurrent)
{
    const quantized_pack *q = &f->q;
    const real *packed = f->a->packed;
    if (recurrent)
        return (quantized_matrix){f->c.S,
                                  f->R_form,
                                  packed + q->R,
                                  packed + q->R_scale,
                                  (const int32_t *)(packed + q->R_sums),
                                  f->wide + f->w.wide_W,
                                  f->w.h_row};
    return (quantized_matrix){f->c.I,
                              f->W_form,
                              packed + q->W,
                              packed + q->W_scale,
                              (const int32_t *)(packed + q->W_sums),
                              f->wide,
                              f->w.x_row};
}

/* Makes panel p ready for the rows of a step, or of several. */
static void widen_panel(const quantized_run *f, const quantized_matrix *m, ptrdiff_t p)
{
    const ptrdiff_t width = f->q.nv * V;
    const real *from = m->weights + p * f->q.nv * weight_floats(f->q.kind, m->K);
    if (m->form != WIDENED)
        return;
    if (f->q.kind == FR_TWO_BYTES) {
        for (ptrdiff_t n = 0; n < m->K * width; n += V)
            v_store(m->wide + n, v_load_bfloat16((const uint16_t *)from + n));
        return;
    }
    for (ptrdiff_t k = 0; k < m->K; k += 4)
        for (ptrdiff_t v = 0; v < width; v += V) {
            const vbits w = *(const vbits_unaligned *)(from + k / 4 * width + v);
            real *to = m->wide + k / 2 * width + v;
            *(vbits_unaligned *)to = (vbits)((vint16)((vint16)w << 8) >> 8);
            *(vbits_unaligned *)(to + width) = (vbits)((vint16)w >> 8);
        }
}

/* What is fetched while rows begin .. end - 1 of n are multiplied: their part of the
 * panel that comes next. */
INLINE memory_range next_part(const quantized_run *f, const quantized_matrix *m,
                              ptrdiff_t p_next, ptrdiff_t begin, ptrdiff_t end,
                              ptrdiff_t n)
{
    const ptrdiff_t floats = f->q.nv * weight_floats(f->q.kind, m->K);
    const char *panel_start = (const char *)(m->weights + p_next * floats);
    const ptrdiff_t bytes = floats * (ptrdiff_t)sizeof(real);
    return (memory_range){panel_start + bytes * begin / n, bytes * (end - begin) / n};
}

/* The product of n rows by panel p; `next` is fetched meanwhile. */
static void multiply_quantized(const quantized_run *f, const quantized_matrix *m,
                               ptrdiff_t p, const real *rows, const real *row_scale,
                               ptrdiff_t n, sums_start start, memory_range next,
                               real *c, ptrdiff_t c_row)
{
    const quantized_pack *q = &f->q;
    const ptrdiff_t nv = q->nv, column = p * nv * V;
    if (m->form == WIDENED && q->kind == FR_TWO_BYTES) {
        multiply_rows_from(start, rows, m->row, 1, 0, m->K, m->wide, nv, next, c, c_row,
                           n);
        return;
    }
    quantized_tile t = {
        .K = m->K,
        .row = m->row,
        .weights = m->form == WIDENED
                       ? m->wide
                       : m->weights + p * nv * weight_floats(q->kind, m->K),
        .sums = m->sums + column,
        .sums_step = q->columns,
        .scale = m->scale + column,
        .start_row = start.row,
        .c_row = c_row,
    };
    const ptrdiff_t most = m->form == WIDENED ? tile_rows(nv) : quantized_rows(nv);
    const ptrdiff_t n_tiles = max_size(1, n_parts(n, most));
    const even_split tiles = split_evenly(n, n_tiles);
    t.next = next.start;
    t.next_step = next.bytes / max_size(1, n_tiles * 2 * n_parts(m->K, 4));
    for (ptrdiff_t i = 0, r = 0; r < n; i++) {
        const ptrdiff_t mr = tiles.each + (i < tiles.longer);
        t.rows = rows + r * t.row;
        t.row_scale = row_scale + r;
        t.start = start.start ? start.start + r * start.row : NULL;
        t.c = c + r * c_row;
        if (q->kind == FR_TWO_BYTES)
            bfloat16_tiles(mr, nv, &t);
        else if (m->form == WIDENED)
            wide_tiles[nv - 1][mr - 1](&t);
#if defined(__AVX512BW__)
        else if (m->form == IN_BYTES)
            bytes_tiles(mr, nv, &t);
#endif
        else
            pairs_tiles(mr, nv, &t);
        t.next += t.next_step * 2 * n_parts(m->K, 4);
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
    f->wide = f->w.wide + self->rank * f->w.wide_size;
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
    f->W_form =
        choose_form(q->kind, rows_owned * (hoisted ? min_size(block, shape->T) : 1));
    f->R_form = choose_form(q->kind, rows_owned);
    const quantized_matrix W = get_matrix(f, 0), R = get_matrix(f, 1);
    const int one_sum = has_one_sum(c);
    const ptrdiff_t width = q->nv * V;
    const sums_start zero = {NULL, 0};
    for (ptrdiff_t s = 0, first = 0; s < shape->T; s++) {
        if (s % block == 0) {
            ptrdiff_t n = 0;
            first = s;
            for (ptrdiff_t i = s; i < min_size(shape->T, s + block); i++) {
                const real *x =
                    (const real *)a->x + step_offset(shape, i, a->x_step, a->x_row);
                for (ptrdiff_t b = b0; b < b1; b++, n++)
                    if (b < step_rows(shape, i)) {
                        make_operand(f, W.form, c->I, x + b * a->x_row, LEAST_X,
                                     x_rows + n * f->w.x_row, x_scale + n);
                    } else { /* nobody reads what becomes of it */
                        memset(x_rows + n * f->w.x_row, 0,
                               (size_t)f->w.x_row * sizeof(real));
                        x_scale[n] = 0;
                    }
            }
            for (ptrdiff_t p = 0; hoisted && p < q->panels; p++) {
                const sums_start bias = {packed + q->bias + p * width, 0};
                widen_panel(f, &W, p);
                const memory_range next =
                    next_part(f, &W, min_size(p + 1, q->panels - 1), 0, n, n);
                multiply_quantized(f, &W, p, x_rows, x_scale, n, bias, next,
                                   f->ax + p * width, q->columns);
            }
        }
        const ptrdiff_t end = min_size(b1, step_rows(shape, s));
        for (ptrdiff_t b = b0; b < end; b++)
            make_operand(f, R.form, c->S, f->w.h + b * H_padded, least,
                         f->w.h_rows + b * f->w.h_row, f->w.h_scale + b);
        step.t = step_time(shape, s);
        for (ptrdiff_t n = 0; n < q->panels; n++) {
            const ptrdiff_t p = back_and_forth(a->steps_before + s, 0, q->panels, n);
            const ptrdiff_t p_next =
                back_and_forth(a->steps_before + s, 0, q->panels, n + 1);
            step.j = p * q->lanes;
            step.units = min_size(q->lanes, H - step.j);
            if (!hoisted)
                widen_panel(f, &W, p);
            widen_panel(f, &R, p);
            for (ptrdiff_t b = b0; b < end; b += CHUNK_ROWS) {
                const ptrdiff_t mr = min_size(CHUNK_ROWS, end - b);
                sums_start ax = {f->tiles, width};
                if (hoisted) {
                    ax.row = q->columns;
                    ax.start = f->ax + ((s - first) * rows_owned + b - b0) * ax.row +
                               p * width;
                } else {
                    const sums_start bias = {packed + q->bias + p * width, 0};
                    multiply_quantized(
                        f, &W, p, x_rows + (b - b0) * f->w.x_row, x_scale + b - b0, mr,
                        bias, next_part(f, &W, p_next, b - b0, b + mr - b0, end - b0),
                        f->tiles, width);
                }
                real *ah = f->tiles + TILE_SIZE;
                multiply_quantized(
                    f, &R, p, f->w.h_rows + b * f->w.h_row, f->w.h_scale + b, mr,
                    one_sum ? ax : zero,
                    next_part(f, &R, p_next, b - b0, b + mr - b0, end - b0), ah, width);
                step.b = b;
                step.rows = mr;
                step.ax = ax.start;
                step.ax_row = ax.row;
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
    quantized_run f = {.a = a, .c = get_cell(&a->shape)};
    arena workspace = {a->work, 0};
    f.q = get_quantized_pack(&f.c, kind);
    f.w = carve_quantized(&a->shape, &f.c, &f.q, a->n_threads, &workspace);
    const int n = sequence_threads(&a->shape, a->n_threads);
    team_run((int)min_size(n, a->shape.B), quantized_thread, &f);
}
