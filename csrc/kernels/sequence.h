/* SPDX-License-Identifier: BSD-3-Clause */
/* sequence.h -- what forward.c and backward.c share: the cell of a call, its steps and
 * their active rows, and how the workspace is handed out.
 *
 * Steps are counted in the order in which forward goes through them: step s is time s,
 * or time T - 1 - s when the call is reversed.  In a ragged batch, whose rows are
 * sorted by length, step s has n_s active rows, and no others are touched; a dense
 * batch is the case n_s = B.  Row b has a predecessor at step s if it was active in
 * step s - 1, that is if b < n_{s-1}.  Otherwise its first step is s, and its h_{t-1}
 * is h0.
 */
#ifndef FR_SEQUENCE_H
#define FR_SEQUENCE_H

#include "cell.h"
#include "norm.h"
#include "parallel.h"

#include "cells.h"

/* Whether a cell of these options has weights that multiply unit by unit. */
INLINE int has_vectors(const fr_cell *about, const fr_cell_options *o)
{
    return !(about->options & FR_OPTION_PEEPHOLE) || (o && o->peephole);
}

/* Whether options ask for other functions than the plain cell's, or for more of them
 * than a norm. */
INLINE int is_general(const fr_cell *about, const fr_cell_options *o)
{
    int others = o->clip > 0 || o->input_forget || o->peephole;
    for (int g = 0; g < about->n_gates; g++)
        others |= o->gate[g].kind != (int)about->activations[g];
    if (about->output_activation >= 0)
        others |= o->gate[about->n_gates].kind != about->output_activation;
    return others;
}

static row_norms get_row_norms(const fr_cell_options *o)
{
    const enum fr_norm n = o ? o->norm : FR_NO_NORM;
    const int joint = n == FR_NORM_PER_GATE || n == FR_NORM_JOINT;
    const int c = n == FR_NORM_CELL || n == FR_NORM_CARRIED || n == FR_NORM_PER_GATE;
    return (row_norms){
        .any = n != FR_NO_NORM,
        .input = n != FR_NO_NORM && !joint,
        .recurrent = n == FR_NORM_APART || n == FR_NORM_CELL || n == FR_NORM_CARRIED,
        .joint = joint,
        .per_gate = n == FR_NORM_PER_GATE,
        .c = c,
        .rms = o && o->rms,
    };
}

static fr_norm_parts get_norm_parts(const fr_cell_options *o)
{
    const row_norms n = get_row_norms(o);
    return (fr_norm_parts){
        .ih = n.any, .hh = n.recurrent, .c = n.c, .c_bias = n.c && !n.rms};
}

/* The way of computing a cell that its options ask for. */
static const cell_ops *choose_ops(const cell_entry *entry, const fr_cell_options *o)
{
    const int is_masked =
        o && o->recurrent_dropout > 0 && o->recurrent_mode == FR_DROP_CANDIDATE;
    if (o == NULL || o->plain)
        return is_masked ? entry->candidate : entry->plain;
    if (o->reset_before)
        return entry->reset_before;
    const int general = o->norm == FR_NO_NORM || is_general(&entry->about, o);
    const cell_ops *plain = is_masked ? entry->candidate : entry->plain;
    if (get_row_norms(o).c)
        return general ? entry->norm_c_general : entry->norm_c;
    if (o->norm == FR_NORM_JOINT && entry->joint)
        return general ? entry->joint_general : entry->joint;
    return general ? entry->general : plain;
}

static cell get_cell(const fr_shape *shape)
{
    const cell_entry *entry = cell_table[shape->cell];
    const fr_cell_options *o = shape->options;
    const cell_ops *ops = choose_ops(entry, o);
    const row_norms norm = get_row_norms(o);
    const int skips = entry->about.skips && shape->I == shape->H;
    const int gates = entry->about.n_gates - skips;
    const ptrdiff_t heads = max_size(1, shape->heads);
    const int has_late_gate = ops->forward_second != NULL && !norm.c;
    /* What is added to the late gate's product can be added to its x W just as well. */
    const int is_late = has_late_gate && ops->late_gate == entry->about.bias_apart;
    const int cell_slot = norm.any ? gates + norm.recurrent * ops->R_gates : 0;
    return (cell){
        .ops = ops,
        .norm = norm,
        .options = o,
        .bias_apart = is_late || norm.joint ? NO_GATE : entry->about.bias_apart,
        .gates = gates,
        .skips = skips,
        .biased = entry->about.n_biased ? entry->about.n_biased : gates,
        .other_states = entry->about.n_states - 1,
        .n_vectors = has_vectors(&entry->about, o) ? entry->about.n_vectors : 0,
        .has_projection = shape->S != shape->H,
        .has_late_gate = has_late_gate,
        .keeps_h = ops->reads_h && o && o->zoneout_h > 0,
        .I = shape->I,
        .H = shape->H,
        .S = shape->S,
        .heads = heads,
        .head_size = shape->S / heads,
        .H_padded = round_up(shape->H, V),
        .S_padded = round_up(shape->S, V),
        .half = !FR_DOUBLE && shape->half,
        .I_words = operand_size(shape->I),
        .H_words = operand_size(shape->H),
        .S_words = operand_size(shape->S),
        .first_R_slot = norm.recurrent ? gates
                        : norm.joint   ? 0
                                       : cell_slot + ops->first_R_slot,
        .cell_slot = cell_slot,
        .writes_behind = norm.recurrent || norm.joint,
        .product_slots =
            norm.recurrent || norm.joint ? cell_slot : cell_slot + ops->da_slots,
    };
}

/* --- steps and rows -------------------------------------------------------------- */

INLINE ptrdiff_t step_time(const fr_shape *shape, ptrdiff_t s)
{
    return shape->reverse ? shape->T - 1 - s : s;
}

/* n_s, the active rows of step s; 0 before the first step and after the last. */
INLINE ptrdiff_t step_rows(const fr_shape *shape, ptrdiff_t s)
{
    if (s < 0 || s >= shape->T)
        return 0;
    const ptrdiff_t t = step_time(shape, s);
    return shape->offsets ? shape->offsets[t + 1] - shape->offsets[t] : shape->B;
}

/* Where row 0 of step s begins in a time-batch array of the caller, which has these
 * strides. */
INLINE ptrdiff_t step_offset(const fr_shape *shape, ptrdiff_t s, ptrdiff_t step,
                             ptrdiff_t row)
{
    const ptrdiff_t t = step_time(shape, s);
    return shape->offsets && !shape->padded ? shape->offsets[t] * row : t * step;
}

/* Where row 0 of step s begins in the tape, which has active rows only, of `row`
 * elements. */
INLINE ptrdiff_t tape_offset(const fr_shape *shape, ptrdiff_t s, ptrdiff_t row)
{
    const ptrdiff_t t = step_time(shape, s);
    return (shape->offsets ? shape->offsets[t] : t * shape->B) * row;
}

INLINE ptrdiff_t total_rows(const fr_shape *shape)
{
    return shape->offsets ? shape->offsets[shape->T] : shape->T * shape->B;
}

/* Sets the rows of a padded array that are not active to zero. */
static void clear_padding(const team *self, const fr_shape *shape, real *to,
                          ptrdiff_t step, ptrdiff_t row, ptrdiff_t width)
{
    ptrdiff_t s0, s1;
    if (!shape->padded)
        return;
    team_share(self, shape->T, &s0, &s1);
    for (ptrdiff_t s = s0; s < s1; s++)
        for (ptrdiff_t b = step_rows(shape, s); b < shape->B; b++)
            memset(to + step_offset(shape, s, step, row) + b * row, 0,
                   (size_t)width * sizeof(real));
}

/* The active rows of a step are of two kinds, whose h_{t-1} is in different arrays. */
typedef enum {
    FROM_Y, /* rows that have a predecessor, which is in y */
    FROM_H0 /* rows that start at this step, from h0 */
} row_origin;

typedef struct {
    const real *start;
    ptrdiff_t row;
} rows_at;

/* Where h_{t-1} of the rows of one kind of step s is: that of row 0, and the distance
 * between rows. */
INLINE rows_at previous_h(const fr_shape *shape, ptrdiff_t s, row_origin from,
                          const real *y, ptrdiff_t y_step, ptrdiff_t y_row,
                          const real *h0)
{
    if (from == FROM_H0)
        return (rows_at){h0, shape->S};
    return (rows_at){y + step_offset(shape, s - 1, y_step, y_row), y_row};
}

/* Which of the rows [low, high) are of one kind at step s: [*b0, *b1). */
INLINE void rows_with_start(const fr_shape *shape, ptrdiff_t s, row_origin from,
                            ptrdiff_t low, ptrdiff_t high, ptrdiff_t *b0, ptrdiff_t *b1)
{
    const ptrdiff_t n = step_rows(shape, s), old = min_size(n, step_rows(shape, s - 1));
    *b0 = max_size(low, from == FROM_H0 ? old : 0);
    *b1 = min_size(high, from == FROM_H0 ? n : old);
}

/* p + n, or NULL where p is NULL. */
INLINE real *advance(real *p, ptrdiff_t n)
{
    return p ? p + n : NULL;
}

/* --- memory ----------------------------------------------------------------------- */

/* Hands out pieces of a workspace, each from the start of a cache line.  With base NULL
 * it only counts how many elements a workspace needs. */
typedef struct {
    real *base;
    ptrdiff_t used;
} arena;

INLINE real *take(arena *a, ptrdiff_t size)
{
    real *piece = a->base ? a->base + a->used : NULL;
    a->used += round_up(size, 64 / (ptrdiff_t)sizeof(real));
    return piece;
}

/* The piece of a workspace that has what the threads of a call wait on.  team_room()
 * says how large it is. */
INLINE real *take_team_room(arena *a, int n_threads)
{
    return take(a, team_room(n_threads) / (ptrdiff_t)sizeof(real));
}

/* The tape begins with the slots of all rows.  With a projection m_t of all rows
 * follows, H_padded elements each, and so does h_t before zoneout, for a cell that reads
 * it backward; with a norm the records of all rows (norm.h). */
INLINE ptrdiff_t records_in_tape(const fr_shape *shape, const cell *c)
{
    return total_rows(shape) * (c->ops->tape_slots + c->has_projection + c->keeps_h) *
           c->H_padded;
}

static ptrdiff_t tape_size(const fr_shape *shape)
{
    const cell c = get_cell(shape);
    return records_in_tape(shape, &c) + total_rows(shape) * get_norm_record(&c).row;
}

#endif
