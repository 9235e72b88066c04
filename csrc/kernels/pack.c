/* SPDX-License-Identifier: BSD-3-Clause */
/* pack.c -- packs the weights of a cell, forward and backward, as pack.h lays them out.
 *
 * Threads share the panels, or the rows, of both matrices; the first thread packs what
 * only some cells have.
 */
#include "pack.h"
#include "parallel.h"
#include "sequence.h"

/* Moving a number from memory to memory takes about as long as sixteen operations on
 * numbers that are in the cache. */
static int packing_threads(const fr_pack_args *a)
{
    const fr_shape *s = &a->shape;
    const double size = (double)(get_cell(s).gates * s->H) *
                        (double)(s->I + s->S / max_size(1, s->heads));
    return useful_threads(16 * size, a->n_threads);
}

/* --- forward pack ----------------------------------------------------------------- */

/* Panel p of W or of R from the rows of the matrix.  Lanes without a unit are set to
 * zero, because numbers such as NaN and subnormals would slow the products down. */
INLINE void pack_gates(int half, real *to, const real *from, int gates, ptrdiff_t H,
                       ptrdiff_t K, ptrdiff_t p)
{
    const unit_panel q = get_unit_panel(gates, H, p);
    const ptrdiff_t width = q.nv * V, words = operand_size(K);
    real *panel_start = to + q.column * words;
    if (gates * q.units < width)
        memset(panel_start, 0, (size_t)(words * width) * sizeof(real));
    for (ptrdiff_t g = 0; g < gates; g++)
        pack_operand(half, panel_start + g * q.lanes, width, from + (g * H + q.j) * K,
                     K, q.units, K);
}

/* Panel p of R, of a cell with several heads, from rows of head_size elements. */
static void pack_heads(const cell *c, real *to, const real *R, ptrdiff_t R_rows,
                       ptrdiff_t p)
{
    const ptrdiff_t H = c->H, size = c->head_size;
    const unit_panel q = get_R_panel(c, p);
    const head_range rows = get_heads(c, q.j, q.units, c->S);
    const ptrdiff_t width = q.nv * V;
    real *panel_start = to + q.column * R_rows;
    memset(panel_start, 0, (size_t)(rows.n * width) * sizeof(real));
    for (ptrdiff_t k = rows.begin; k < rows.begin + rows.n; k += size) {
        const ptrdiff_t u = max_size(k, q.j), n = min_size(k + size, q.j + q.units) - u;
        for (ptrdiff_t g = 0; g < c->ops->R_gates; g++)
            pack_transposed(panel_start + (k - rows.begin) * width + g * q.lanes + u -
                                q.j,
                            width, R + (g * H + u) * size, size, n, size);
    }
}

/* The weights that multiply unit by unit, from P or, where they are no parameters, from
 * the options. */
static void pack_vectors(real *to, const fr_pack_args *a, const cell *c)
{
    const real *P = a->P;
    const double *fixed = a->shape.options ? a->shape.options->fixed_vectors : NULL;
    memset(to, 0, (size_t)(c->n_vectors * c->H_padded) * sizeof(real));
    for (ptrdiff_t n = 0; n < c->n_vectors; n++)
        for (ptrdiff_t j = 0; j < c->H; j++)
            to[n * c->H_padded + j] =
                fixed ? (real)fixed[n * c->H + j] : P[n * c->H + j];
}

/* The parameters of a norm; those that a cell lacks are zero. */
static void pack_norm(real *to, const fr_pack_args *a, const cell *c)
{
    const norm_pack n = get_norm_pack(c);
    const struct {
        const real *from;
        ptrdiff_t to, rows;
    } parts[] = {
        {a->norm_ih, n.ih, c->gates},
        {a->norm_hh, n.hh, c->norm.recurrent ? c->ops->R_gates : 0},
        {a->norm_c, n.c, c->norm.c},
        {a->norm_c_bias, n.c_bias, c->norm.c && !c->norm.rms},
    };
    memset(to, 0, (size_t)n.size * sizeof(real));
    for (ptrdiff_t i = 0; c->norm.any && i < 4; i++)
        for (ptrdiff_t g = 0; g < parts[i].rows; g++)
            memcpy(to + parts[i].to + g * c->H_padded, parts[i].from + g * c->H,
                   (size_t)c->H * sizeof(real));
}

/* The part of R that belongs to the late gate, (H, H). */
INLINE const real *late_matrix(const cell *c, const real *R)
{
    return R + c->ops->late_gate * c->H * c->H;
}

static void pack_forward_weights(const team *self, const cell *c, const fr_pack_args *a)
{
    const ptrdiff_t H = c->H;
    const forward_pack f = get_forward_pack(c);
    const real *W = a->W, *R = a->R, *b_ih = a->b_ih, *b_hh = a->b_hh;
    real *packed = a->packed;

    ptrdiff_t begin, end;
    if (self->rank == 0)
        memset(packed + f.bias, 0, (size_t)(f.vectors - f.bias) * sizeof(real));
    team_barrier(self);
    team_share(self, n_unit_panels(c->ops->R_gates, H), &begin, &end);
    for (ptrdiff_t p = begin; p < end; p++)
        if (c->heads == 1)
            pack_gates(c->half, packed + f.R, R, c->ops->R_gates, H, c->S, p);
        else
            pack_heads(c, packed + f.R, R, f.R_rows, p);
    team_share(self, n_unit_panels(c->gates, H), &begin, &end);
    for (ptrdiff_t p = begin; p < end; p++) {
        const unit_panel q = get_W_panel(c, p);
        pack_gates(c->half, packed, W, c->gates, H, c->I, p);
        for (ptrdiff_t g = 0; b_ih && g < c->biased; g++) {
            const ptrdiff_t row = g * H + q.j;
            real *bias = packed + f.bias + q.column + g * q.lanes;
            const int apart = g == c->bias_apart;
            for (ptrdiff_t u = 0; u < q.units; u++) {
                bias[u] =
                    apart || !b_hh ? b_ih[row + u] : b_ih[row + u] + b_hh[row + u];
                if (apart)
                    packed[f.bias_apart + q.j + u] = b_hh[row + u];
            }
        }
    }
    if (self->rank > 0)
        return;
    pack_vectors(packed + f.vectors, a, c);
    pack_norm(packed + f.norm, a, c);
    if (c->has_projection)
        pack_columns(c->half, packed + f.second, a->W_hr, c->S, H);
    if (c->has_late_gate)
        pack_columns(c->half, packed + f.second, late_matrix(c, R), H, H);
}

static ptrdiff_t packed_forward_size(const fr_shape *shape)
{
    const cell c = get_cell(shape);
    return get_forward_pack(&c).size;
}

static void pack_forward_thread(const team *self, const void *args)
{
    const fr_pack_args *a = args;
    const cell c = get_cell(&a->shape);
    pack_forward_weights(self, &c, a);
}

static void pack_forward(const fr_pack_args *a)
{
    team_run(packing_threads(a), pack_forward_thread, a);
}

/* --- backward pack ---------------------------------------------------------------- */

/* W or R of a backward pack from panels begin .. end - 1 of a forward pack, with the
 * gates in `order`, slot by slot.  The outer loop is over what is written, so that each
 * panel that is written stays in the cache until it is full. */
static void repack_gates(real *packed, const real *forward, int gates, const int *order,
                         ptrdiff_t H, ptrdiff_t K, ptrdiff_t widest, ptrdiff_t begin,
                         ptrdiff_t end)
{
    for (ptrdiff_t n = 0; n < n_panels(K, widest); n++) {
        const panel to = get_panel(K, widest, n);
        for (ptrdiff_t p = begin; p < end; p++) {
            const unit_panel from = get_unit_panel(gates, H, p);
            const ptrdiff_t words = operand_size(H);
            for (ptrdiff_t slot = 0; slot < gates; slot++)
                pack_from_panel(packed, gates * words, slot * words + from.j / PAIR, to,
                                forward + from.column * operand_size(K) +
                                    order[slot] * from.lanes,
                                from.nv * V, from.units);
        }
    }
}

/* Where the part of the backward pack of R begins that has unit u and column k, of a
 * cell with several heads. */
INLINE real *backward_head(const cell *c, const backward_pack *b, real *packed,
                           const panel *q, ptrdiff_t slot, ptrdiff_t u, ptrdiff_t k)
{
    const head_range units = get_heads(c, q->column, q->n, c->H);
    return packed + q->column * c->ops->R_gates * b->R_rows +
           (slot * units.n + u - units.begin) * q->nv * V + k - q->column;
}

/* Sets this thread's panels of R in a backward pack to zero, where several heads may
 * leave some of it as it is. */
static void clear_heads(const team *self, const cell *c, const backward_pack *b,
                        real *packed)
{
    ptrdiff_t begin, end;
    team_share(self, c->heads == 1 ? 0 : b->W, &begin, &end);
    memset(packed + begin, 0, (size_t)(end - begin) * sizeof(real));
    team_barrier(self);
}

/* Unit u of R in a backward pack, from its row of head_size elements. */
static void pack_head_rows(const cell *c, const backward_pack *b, real *packed,
                           const real *R, ptrdiff_t slot, ptrdiff_t u)
{
    const ptrdiff_t size = c->head_size, k0 = u / size * size;
    for (ptrdiff_t p = 0; p < n_panels(c->S, b->R_widest); p++) {
        const panel q = get_panel(c->S, b->R_widest, p);
        const ptrdiff_t begin = max_size(k0, q.column);
        const ptrdiff_t end = min_size(k0 + size, q.column + q.n);
        if (begin < end)
            memcpy(backward_head(c, b, packed, &q, slot, u, begin),
                   R + (slot * c->H + u) * size + begin - k0,
                   (size_t)(end - begin) * sizeof(real));
    }
}

/* The units of panel p of R in a forward pack, in a backward pack. */
static void repack_heads(const cell *c, const backward_pack *b, real *packed,
                         const real *forward, ptrdiff_t R_rows, ptrdiff_t p)
{
    const ptrdiff_t size = c->head_size;
    const unit_panel from = get_R_panel(c, p);
    const head_range rows = get_heads(c, from.j, from.units, c->S);
    const ptrdiff_t width = from.nv * V;
    for (ptrdiff_t n = 0; n < n_panels(c->S, b->R_widest); n++) {
        const panel q = get_panel(c->S, b->R_widest, n);
        for (ptrdiff_t k0 = rows.begin; k0 < rows.begin + rows.n; k0 += size) {
            const ptrdiff_t begin = max_size(k0, q.column);
            const ptrdiff_t end = min_size(k0 + size, q.column + q.n);
            const ptrdiff_t u = max_size(k0, from.j);
            const ptrdiff_t units = min_size(k0 + size, from.j + from.units) - u;
            for (ptrdiff_t g = 0; begin < end && g < c->ops->R_gates; g++)
                pack_transposed(backward_head(c, b, packed, &q, g, u, begin), q.nv * V,
                                forward + from.column * R_rows +
                                    (begin - rows.begin) * width + g * from.lanes + u -
                                    from.j,
                                width, end - begin, units);
        }
    }
}

/* The backward pack of the weights that a forward pack holds. */
static void repack_for_backward(const team *self, const cell *c, const real *forward,
                                real *packed)
{
    static const int as_they_are[FR_MOST_GATES] = {0, 1, 2, 3};
    const ptrdiff_t H = c->H, S = c->S, widest = widest_panel(c->H_words);
    const forward_pack f = get_forward_pack(c);
    const backward_pack b = get_backward_pack(c);
    ptrdiff_t begin, end;
    team_share(self, n_unit_panels(c->ops->R_gates, H), &begin, &end);
    if (c->heads == 1)
        repack_gates(packed, forward + f.R, c->ops->R_gates, as_they_are, H, S,
                     b.R_widest, begin, end);
    else
        for (ptrdiff_t p = begin; p < end; p++)
            repack_heads(c, &b, packed, forward + f.R, f.R_rows, p);
    team_share(self, n_unit_panels(c->gates, H), &begin, &end);
    repack_gates(packed + b.W, forward, c->gates, c->ops->w_gate, H, c->I, b.W_widest,
                 begin, end);
    if (self->rank > 0)
        return;
    /* The parameters of a norm lie behind the vectors in both packs. */
    memcpy(packed + b.vectors, forward + f.vectors,
           (size_t)(f.second - f.vectors) * sizeof(real));
    for (ptrdiff_t p = 0; has_second(c) && p < n_panels(S, widest); p++) {
        const panel q = get_panel(S, widest, p);
        for (ptrdiff_t n = 0; n < n_panels(H, b.second_widest); n++)
            pack_from_panel(packed + b.second, c->S_words, q.column / PAIR,
                            get_panel(H, b.second_widest, n),
                            forward + f.second + q.column * c->H_words, q.nv * V, q.n);
    }
}

/* Packs row k of W or of R in the order of slots, from row `word` of a gate (see
 * pack_word_row). */
INLINE void pack_rows(const cell *c, real *packed, ptrdiff_t K, ptrdiff_t k,
                      const real *matrix, ptrdiff_t gate, ptrdiff_t word, ptrdiff_t N,
                      ptrdiff_t widest)
{
    pack_word_row(c->half, packed, K, k, matrix + gate * c->H * N, c->H, word, N,
                  widest);
}

static void pack_backward_weights(const team *self, const cell *c,
                                  const fr_pack_args *a)
{
    const ptrdiff_t H = c->H, S = c->S, I = c->I, words = c->H_words;
    const ptrdiff_t K = c->gates * words, R_K = c->ops->R_gates * words;
    const backward_pack b = get_backward_pack(c);
    const real *W = a->W, *R = a->R, *W_hr = a->W_hr;
    real *packed = a->packed;
    ptrdiff_t begin, end;
    clear_heads(self, c, &b, packed);
    if (a->forward) {
        repack_for_backward(self, c, a->forward, packed);
        return;
    }
    team_share(self, R_K, &begin, &end);
    for (ptrdiff_t k = begin; k < end; k++)
        if (c->heads == 1)
            pack_rows(c, packed, R_K, k, R, k / words, k % words, S, b.R_widest);
        else
            pack_head_rows(c, &b, packed, R, k / H, k % H);
    team_share(self, K, &begin, &end);
    for (ptrdiff_t k = begin; k < end; k++)
        pack_rows(c, packed + b.W, K, k, W, c->ops->w_gate[k / words], k % words, I,
                  b.W_widest);
    if (self->rank > 0)
        return;
    pack_vectors(packed + b.vectors, a, c);
    pack_norm(packed + b.norm, a, c);
    if (has_second(c)) {
        const real *second = c->has_projection ? W_hr : late_matrix(c, R);
        for (ptrdiff_t k = 0; k < c->S_words; k++)
            pack_word_row(c->half, packed + b.second, c->S_words, k, second, S, k, H,
                          b.second_widest);
    }
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
