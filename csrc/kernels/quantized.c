/* SPDX-License-Identifier: BSD-3-Clause */
/* quantized.c -- recurrent cells with weights of one byte or two, in inference.
 *
 * Cells are those of the table, and do with the pre-activations what they always do;
 * the driver here differs from forward.c in its products (quantized.h), and is shorter,
 * since there is no tape, no second product, no norm and no mask.  Groups of threads own
 * rows of the batch for all steps.  A group is one thread where rows are enough; where
 * not, its threads share the units, and wait for each other after each step.  Longer than
 * most files, since the driver is one function over all that it prepares.
 */
#include "quantized_pack.c"

/* --- a call ----------------------------------------------------------------------- */

/* Most rows of a group whose threads share the units of each step. */
#define SHARED_ROWS 4

/* Rows that products take are of x, of a thread's rows and steps; and of h, of a thread
 * that owns rows, or of one that shares the units of SHARED_ROWS of them or fewer. */
typedef struct {
    real *team; /* what the threads of the call wait on */
    /* h_{t-1} and h_t, in turns, (2, B, H_padded); (other states, B, H_padded) */
    real *h, *c;
    real *h_rows, *h_scale;
    real *x_rows, *x_scale;
    ptrdiff_t h_row, x_row; /* floats */
    real *ax;               /* (HOISTED_ROWS, columns) of each thread */
    real *tiles;            /* (2, TILE_SIZE) of each thread */
    /* Of each thread: panels of W and of R, widened; or TILE_SUMS of sums. */
    real *wide;
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
    const ptrdiff_t h_rows = n_threads * SHARED_ROWS + B;
    quantized_work w;
    w.h_row = operand_floats(q->kind, c->S);
    w.x_row = operand_floats(q->kind, c->I);
    w.team = take_team_room(a, n_threads);
    w.h = take(a, 2 * B * H_padded);
    w.c = take(a, c->other_states * B * H_padded);
    w.h_rows = take(a, (h_rows + TILE_OVERRUN) * w.h_row);
    w.h_scale = take(a, h_rows);
    w.x_rows = take(a, (x_rows + TILE_OVERRUN) * w.x_row);
    w.x_scale = take(a, x_rows);
    w.ax = take(a, n_threads * HOISTED_ROWS * q->columns);
    w.tiles = take(a, n_threads * 2 * TILE_SIZE);
    w.wide_W = wide_floats(q, c->I);
    w.wide_size = max_size(w.wide_W + wide_floats(q, c->S), TILE_SUMS);
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
    /* The thread's group owns rows b0 .. b1 - 1; the thread computes panels p0 .. p1 - 1
     * of these, which are units j0 .. j1 - 1. */
    team group;
    ptrdiff_t b0, b1, p0, p1, j0, j1;
} quantized_run;

/* Rows for which widening a panel pays. */
#define WIDE_ROWS (V_REGISTERS == 32 ? 8 : 12)

INLINE weight_form choose_form(int kind, ptrdiff_t rows)
{
    if (kind == FR_INT8 && rows >= TILE_ROWS && has_tiles())
        return IN_TILES;
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
    else if (form == IN_TILES)
        quantize_row(AS_PLANES, K, x, least, to, scale);
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
#if HAS_TILES
    if (m->form == IN_TILES) {
        t.rows = rows;
        t.row_scale = row_scale;
        t.start = start.start;
        t.c = c;
        multiply_in_tiles(n, nv, &t, next.start, next.bytes, (int32_t *)f->wide);
        return;
    }
#endif
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

/* Bytes of weights that a step of a thread has at least where it waits after each. */
#define SHARED_BYTES (768 << 10)

/* Groups of rows, and the threads of each. */
typedef struct {
    ptrdiff_t groups, size;
} thread_grid;

/* Where the weights do not fit a thread's cache, a few rows are better read for by
 * several threads, each of which reads a part of the weights only. */
static thread_grid get_thread_grid(const fr_shape *shape, const cell *c,
                                   const quantized_pack *q, ptrdiff_t threads)
{
    const ptrdiff_t floats =
        q->panels * q->nv *
        (weight_floats(q->kind, c->I) + weight_floats(q->kind, c->S));
    const ptrdiff_t bytes = floats * (ptrdiff_t)sizeof(real);
    ptrdiff_t groups = max_size(1, min_size(threads, shape->B));
    if (bytes > cached_weights(shape))
        groups = min_size(groups, max_size(1, n_parts(shape->B, SHARED_ROWS)));
    const ptrdiff_t most = min_size(q->panels, max_size(1, bytes / SHARED_BYTES));
    return (thread_grid){groups, min_size(threads / groups, most)};
}

/* Sets which rows and units a thread has; returns 0 for a thread without any. */
static int take_share(quantized_run *f, const team *self)
{
    const fr_shape *shape = &f->a->shape;
    const quantized_pack *q = &f->q;
    const thread_grid grid = get_thread_grid(shape, &f->c, q, self->size);
    const ptrdiff_t group = self->rank / grid.size;
    if (group >= grid.groups)
        return 0;
    f->group = team_group(self, (int)grid.size);
    f->b0 = part_start(shape->B, grid.groups, group);
    f->b1 = part_start(shape->B, grid.groups, group + 1);
    team_share(&f->group, q->panels, &f->p0, &f->p1);
    f->j0 = min_size(f->c.H, f->p0 * q->lanes);
    f->j1 = min_size(f->c.H, f->p1 * q->lanes);
    f->ax = f->w.ax + self->rank * HOISTED_ROWS * q->columns;
    f->tiles = f->w.tiles + self->rank * 2 * TILE_SIZE;
    f->wide = f->w.wide + self->rank * f->w.wide_size;
    /* These arrays are this thread's from here on. */
    const ptrdiff_t first_x = self->rank * HOISTED_ROWS + f->b0;
    const ptrdiff_t first_h =
        grid.size == 1 ? f->b0 : shape->B + self->rank * SHARED_ROWS;
    f->w.x_rows += first_x * f->w.x_row;
    f->w.x_scale += first_x;
    f->w.h_rows += first_h * f->w.h_row;
    f->w.h_scale += first_h;
    return 1;
}

/* Sets the states of the thread's rows and units to the initial ones. */
static void begin_states(const quantized_run *f)
{
    const fr_forward_args *a = f->a;
    const ptrdiff_t H = f->c.H, B = a->shape.B, H_padded = round_up(H, MAX_NV * V);
    const size_t bytes = (size_t)(f->j1 - f->j0) * sizeof(real);
    for (ptrdiff_t b = f->b0; b < f->b1; b++) {
        const real *h0 = (const real *)a->h0 + b * H + f->j0;
        real *h = f->w.h + b * H_padded + f->j0;
        memcpy(h, h0, bytes);
        memcpy(h + B * H_padded, h0, bytes);
        if (b >= step_rows(&a->shape, 0) && a->h_n != a->h0)
            memcpy((real *)a->h_n + b * H + f->j0, h0, bytes);
        for (int n = 0; n < f->c.other_states; n++)
            memcpy(f->w.c + (n * B + b) * H_padded + f->j0,
                   (const real *)a->c0 + n * a->c_step + b * H + f->j0, bytes);
    }
}

/* Brings x of steps [s0, s1) into the form that products take; returns the rows. */
static ptrdiff_t take_inputs(const quantized_run *f, ptrdiff_t s0, ptrdiff_t s1)
{
    const fr_forward_args *a = f->a;
    const fr_shape *shape = &a->shape;
    ptrdiff_t n = 0;
    for (ptrdiff_t s = s0; s < s1; s++) {
        const real *x = (const real *)a->x + step_offset(shape, s, a->x_step, a->x_row);
        for (ptrdiff_t b = f->b0; b < f->b1; b++, n++) {
            real *row = f->w.x_rows + n * f->w.x_row;
            if (b < step_rows(shape, s)) {
                make_operand(f, f->W_form, f->c.I, x + b * a->x_row, LEAST_X, row,
                             f->w.x_scale + n);
            } else { /* nobody reads what becomes of it */
                memset(row, 0, (size_t)f->w.x_row * sizeof(real));
                f->w.x_scale[n] = 0;
            }
        }
    }
    return n;
}

/* Brings h_{t-1} of the thread's rows up to row `end` into that form, whole, also where
 * threads share units. */
static void take_states(const quantized_run *f, ptrdiff_t s, const real *h_prev,
                        ptrdiff_t h_prev_row, ptrdiff_t end)
{
    const fr_forward_args *a = f->a;
    const real least = least_of_h(&f->c);
    const ptrdiff_t started = step_rows(&a->shape, s - 1), H = f->c.H;
    for (ptrdiff_t b = f->b0; b < end; b++)
        make_operand(
            f, f->R_form, f->c.S,
            b < started ? h_prev + b * h_prev_row : (const real *)a->h0 + b * H, least,
            f->w.h_rows + (b - f->b0) * f->w.h_row, f->w.h_scale + b - f->b0);
}

static void quantized_thread(const team *self, const void *args)
{
    quantized_run run = *(const quantized_run *)args, *f = &run;
    const fr_forward_args *a = f->a;
    const fr_shape *shape = &a->shape;
    const cell *c = &f->c;
    const quantized_pack *q = &f->q;
    const real *packed = a->packed;
    const ptrdiff_t H = c->H, H_padded = round_up(H, MAX_NV * V), B = shape->B;
    clear_padding(self, shape, a->y, a->y_step, a->y_row, c->S);
    if (!take_share(f, self))
        return;
    begin_states(f);
    const ptrdiff_t b0 = f->b0, b1 = f->b1, rows_owned = b1 - b0;
    const size_t h_bytes = (size_t)(f->j1 - f->j0) * sizeof(real);
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
    const int hoisted = shape->T > 1 && rows_owned < 4;
    const ptrdiff_t block = hoisted ? HOISTED_ROWS / max_size(1, rows_owned) : 1;
    f->W_form =
        choose_form(q->kind, rows_owned * (hoisted ? min_size(block, shape->T) : 1));
    f->R_form = choose_form(q->kind, rows_owned);
    const quantized_matrix W = get_matrix(f, 0), R = get_matrix(f, 1);
    const int in_tiles = W.form == IN_TILES || R.form == IN_TILES;
    const ptrdiff_t chunk = in_tiles ? TILE_HEIGHT : CHUNK_ROWS;
    if (in_tiles)
        begin_tiles();
    const ptrdiff_t width = q->nv * V;
    const sums_start zero = {NULL, 0};
    for (ptrdiff_t s = 0, first = 0; s < shape->T; s++) {
        if (s % block == 0) {
            first = s;
            const ptrdiff_t n = take_inputs(f, s, min_size(shape->T, s + block));
            for (ptrdiff_t p = f->p0; hoisted && p < f->p1; p++) {
                const sums_start bias = {packed + q->bias + p * width, 0};
                const memory_range next =
                    next_part(f, &W, min_size(p + 1, f->p1 - 1), 0, n, n);
                widen_panel(f, &W, p);
                multiply_quantized(f, &W, p, f->w.x_rows, f->w.x_scale, n, bias, next,
                                   f->ax + p * width, q->columns);
            }
        }
        const ptrdiff_t end = min_size(b1, step_rows(shape, s));
        const real *h_prev = f->w.h + s % 2 * B * H_padded;
        real *h = f->w.h + (s + 1) % 2 * B * H_padded;
        take_states(f, s, h_prev, H_padded, end);
        step.t = step_time(shape, s);
        for (ptrdiff_t n = f->p0; n < f->p1; n++) {
            const ptrdiff_t turn = a->steps_before + s;
            const ptrdiff_t p = back_and_forth(turn, f->p0, f->p1, n);
            const ptrdiff_t p_next = back_and_forth(turn, f->p0, f->p1, n + 1);
            step.j = p * q->lanes;
            step.units = min_size(q->lanes, H - step.j);
            if (!hoisted)
                widen_panel(f, &W, p);
            widen_panel(f, &R, p);
            for (ptrdiff_t b = b0; b < end; b += chunk) {
                const ptrdiff_t mr = min_size(chunk, end - b), row = b - b0;
                sums_start ax = {f->tiles, width};
                if (hoisted) {
                    ax.row = q->columns;
                    ax.start =
                        f->ax + ((s - first) * rows_owned + row) * ax.row + p * width;
                } else {
                    const sums_start bias = {packed + q->bias + p * width, 0};
                    multiply_quantized(
                        f, &W, p, f->w.x_rows + row * f->w.x_row, f->w.x_scale + row,
                        mr, bias, next_part(f, &W, p_next, row, row + mr, end - b0),
                        f->tiles, width);
                }
                real *ah = f->tiles + TILE_SIZE;
                multiply_quantized(f, &R, p, f->w.h_rows + row * f->w.h_row,
                                   f->w.h_scale + row, mr, has_one_sum(c) ? ax : zero,
                                   next_part(f, &R, p_next, row, row + mr, end - b0),
                                   ah, width);
                step.b = b;
                step.rows = mr;
                step.ax = ax.start;
                step.ax_row = ax.row;
                step.ah = ah;
                step.h = h + b * H_padded;
                step.h_prev = h_prev + b * H_padded;
                step.c = f->w.c + b * H_padded;
                c->ops->forward(&step);
            }
        }
        real *y = (real *)a->y + step_offset(shape, s, a->y_step, a->y_row);
        for (ptrdiff_t b = b0; b < end; b++)
            memcpy(y + b * a->y_row + f->j0, h + b * H_padded + f->j0, h_bytes);
        team_barrier(&f->group);
        /* Rows that are not active in the next step end here.  Their h_n may be written
         * even where it is h0 itself, since all threads have passed the barrier. */
        for (ptrdiff_t b = max_size(b0, step_rows(shape, s + 1)); b < end; b++)
            memcpy((real *)a->h_n + b * H + f->j0, h + b * H_padded + f->j0, h_bytes);
    }
    for (int n = 0; n < c->other_states; n++)
        for (ptrdiff_t b = b0; b < b1; b++)
            memcpy((real *)a->c_n + n * a->c_step + b * H + f->j0,
                   f->w.c + (n * B + b) * H_padded + f->j0, h_bytes);
    if (in_tiles)
        end_tiles();
}

static void quantized_forward(const fr_forward_args *a, int kind)
{
    quantized_run f = {.a = a, .c = get_cell(&a->shape)};
    arena workspace = {a->work, 0};
    f.q = get_quantized_pack(&f.c, kind);
    f.w = carve_quantized(&a->shape, &f.c, &f.q, a->n_threads, &workspace);
    const thread_grid grid = get_thread_grid(&a->shape, &f.c, &f.q,
                                             sequence_threads(&a->shape, a->n_threads));
    team_run_within((int)(grid.groups * grid.size), f.w.team, quantized_thread, &f);
}
