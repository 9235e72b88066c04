/* SPDX-License-Identifier: BSD-3-Clause */
/* linear.c -- the dense layer.
 *
 *   y = x W^T + b                     x (N, I), W (O, I), b (O,), y (N, O)
 *
 * Backward, from dy (N, O):
 *   dx = dy W;    dW += dy^T x;    db += sum of rows of dy
 *
 * How rows are summed is in gemm.h: dW of a block of them, which is then added to dW.
 *
 * y and dx are products C = A B, where A is x or dy, k runs over the columns of A, and
 * B is W^T or W in packed panels.  I or O may be a vocabulary, so A and B are cut to
 * fit the caches: a tile takes a block of k, so that its rows of A stay in level 1
 * while the tile passes along some panels of B, and these stay in level 2 for all
 * tiles.  The next block of k continues the sums that it finds in C, so each element of
 * C is one sum over k, in order, as it would be without blocks.
 *
 * Threads: they share the packing of W; then the rows of y or dx, or the columns where
 * rows are few; then the rows of dW.  Barriers separate the three.
 */
#include "gemm.h"
#include "parallel.h"

#define BLOCK_K 512               /* most columns of A in a block of k */
#define BLOCK_B_BYTES (512 << 10) /* of packed B at a time: a quarter of level 2 */
#define PANEL_NV 2                /* vectors in a panel: 12x2 tiles read B least */

/* --- C = A B, A in rows -- */

/* The arguments of a tile that takes one block of k. */
typedef struct {
    tile_args tile;
    int resume;       /* 1: the sums begin with what C holds, 0: with zero */
    const real *bias; /* [nv * V], added to the finished sums, or NULL */
} block_args;

INLINE void block_tile(const int mr, const int nv, const block_args *t)
{
    tile(mr, nv, 0, t->resume ? RESUME : OVERWRITE, t->bias, &t->tile);
}

typedef void block_function(const block_args *);

#if FR_AMX
/* One tile of n columns, which may be less than its vectors have. */
INLINE void run_block_tile(const block_args *t, ptrdiff_t mr, ptrdiff_t n)
{
    tile_args args = t->tile;
    if (t->resume) {
        args.start = args.c;
        args.start_row = args.c_row;
    }
    amx_rows_tile(&args, mr, n);
    for (ptrdiff_t r = 0; t->bias && r < mr; r++)
        for (ptrdiff_t v = 0; v < n; v += V) {
            real *to = args.c + r * args.c_row + v;
            v_store_n(to, v_load_n(to, n - v) + v_load_n(t->bias + v, n - v), n - v);
        }
}
#else
/* clang-format off */
/* block_tiles[nv - 1][mr - 1], as tall as tile_rows(nv) */
TILES_12(block, block_args, 1)
#if V_REGISTERS == 32
TILES_12(block, block_args, 2)
static block_function *const block_tiles[PANEL_NV][MAX_MR] = {
    {NAMES_12(block, 1)}, {NAMES_12(block, 2)}};
#else
TILES_6(block, block_args, 2)
static block_function *const block_tiles[PANEL_NV][MAX_MR] = {
    {NAMES_12(block, 1)}, {NAMES_6(block, 2)}};
#endif
/* clang-format on */
#endif

/* The operands of C (rows, N) = A (rows, K) B (K, N) + bias. */
typedef struct {
    const real *a, *b; /* b in panels of PANEL_NV vectors */
    const real *bias;  /* (N,) or NULL */
    real *c;
    ptrdiff_t K, N;  /* K counts the words of an operand (half.h) */
    ptrdiff_t a_row; /* words between rows of A */
} product;

/* Copies n columns of mr rows, between C and a tile whose rows are whole vectors. */
INLINE void copy_tile(real *to, ptrdiff_t to_row, const real *from, ptrdiff_t from_row,
                      ptrdiff_t mr, ptrdiff_t n)
{
    for (ptrdiff_t r = 0; r < mr; r++)
        memcpy(to + r * to_row, from + r * from_row, (size_t)n * sizeof(real));
}

/* Adds the products of one block of k, [k0, k1), to mr rows of panel q of C.  Meanwhile
 * the memory from `next` on is brought into level 2, a cache line for each k. */
INLINE void multiply_tile(const product *m, panel q, ptrdiff_t k0, ptrdiff_t k1,
                          ptrdiff_t row, ptrdiff_t mr, const char *next)
{
    const ptrdiff_t width = q.nv * V, N = m->N;
    real *c = m->c + row * N + q.column;
    block_args t = {.tile = {.a = m->a + row * m->a_row + k0,
                             .a_row = m->a_row,
                             .n_segments = 1,
                             .K = k1 - k0,
                             .b = m->b + q.column * m->K + k0 * width,
                             .b_row = width,
                             .c = c,
                             .c_row = N,
                             .next = next,
                             .next_step = 64},
                    .resume = k0 > 0,
                    .bias = m->bias && k1 == m->K ? m->bias + q.column : NULL};
#if FR_AMX
    run_block_tile(&t, mr, q.n);
#else
    if (q.n == width) {
        block_tiles[q.nv - 1][mr - 1](&t);
        return;
    }
    real sums[MAX_MR * PANEL_NV * V_BYTES / sizeof(real)] __attribute__((aligned(64)));
    real bias[PANEL_NV * V_BYTES / sizeof(real)] = {0};
    if (t.bias) {
        memcpy(bias, t.bias, (size_t)q.n * sizeof(real));
        t.bias = bias;
    }
    t.tile.c = sums;
    t.tile.c_row = width;
    if (t.resume) {
        memset(sums, 0, sizeof sums);
        copy_tile(sums, width, c, N, mr, q.n);
    }
    block_tiles[q.nv - 1][mr - 1](&t);
    copy_tile(c, N, sums, width, mr, q.n);
#endif
}

/* Where block i of k begins: with AMX, where a tile register does. */
INLINE ptrdiff_t k_block_start(ptrdiff_t K, ptrdiff_t blocks, ptrdiff_t i)
{
    const ptrdiff_t start = part_start(K, blocks, i);
    return FR_AMX && i < blocks ? start / 16 * 16 : start;
}

/* Computes rows [r0, r1) of panels [p0, p1) of C. */
static void multiply_blocks(const product *m, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t p0,
                            ptrdiff_t p1)
{
    const ptrdiff_t tiles = n_row_tiles(r1 - r0, PANEL_NV);
    const ptrdiff_t k_blocks = n_parts(m->K, BLOCK_K);
    const ptrdiff_t longest = n_parts(m->K, k_blocks);
    const ptrdiff_t group =
        max_size(1, BLOCK_B_BYTES / (longest * PANEL_NV * V_BYTES)); /* panels */
    for (ptrdiff_t block = 0; block < k_blocks; block++) {
        const ptrdiff_t k0 = k_block_start(m->K, k_blocks, block);
        const ptrdiff_t k1 = k_block_start(m->K, k_blocks, block + 1);
        for (ptrdiff_t first = p0; first < p1; first += group)
            for (ptrdiff_t i = 0; i < tiles; i++) {
                const ptrdiff_t row = r0 + part_start(r1 - r0, tiles, i);
                const ptrdiff_t mr = r0 + part_start(r1 - r0, tiles, i + 1) - row;
                for (ptrdiff_t p = first; p < min_size(p1, first + group); p++) {
                    const panel q = get_panel(m->N, PANEL_NV, p);
                    /* Level 2 will next hold the panel one group further on, or after
                     * the last group this panel's next block of k.  The first tiles
                     * fetch it: each k takes PANEL_NV lines, and a tile fetches one. */
                    const int same_k = p + group < p1;
                    const panel q_next =
                        get_panel(m->N, PANEL_NV, same_k ? p + group : p);
                    const real *next = m->b + q_next.column * m->K +
                                       (same_k ? k0 : k1) * q_next.nv * V;
                    const char *at = (const char *)next + i * (k1 - k0) * 64;
                    multiply_tile(m, q, k0, k1, row, mr,
                                  i < PANEL_NV ? at : (const char *)m->b);
                }
            }
    }
}

/* Computes this thread's share of C: some of the rows, or of the panels where rows are
 * too few for all threads. */
static void multiply_share(const team *self, const product *m, ptrdiff_t rows)
{
    const ptrdiff_t panels = n_panels(m->N, PANEL_NV);
    ptrdiff_t begin, end;
    if (n_row_tiles(rows, PANEL_NV) < 4 * self->size && panels >= self->size) {
        team_share(self, panels, &begin, &end);
        multiply_blocks(m, 0, rows, begin, end);
    } else {
        team_share(self, rows, &begin, &end);
        if (begin < end)
            multiply_blocks(m, begin, end, 0, panels);
    }
}

/* --- workspace -- */

/* Returns how many rows of x and dy are summed into dW at a time: as many as let the
 * packed rows of x stay in level 2, in equal blocks. */
INLINE ptrdiff_t sum_block(ptrdiff_t N, ptrdiff_t I)
{
    const ptrdiff_t fit = (ptrdiff_t)((1 << 20) / sizeof(real)) / I;
    const ptrdiff_t most = min_size(LONGEST_SUM, max_size(BLOCK_ROWS, fit));
    return n_parts(N, max_size(1, n_parts(N, most)));
}

/* Words between rows of n numbers that are rounded. */
INLINE ptrdiff_t operand_row(ptrdiff_t n)
{
    return round_up(operand_size(n), V);
}

/* Rounds this thread's share of N rows of n numbers each. */
static void round_rows(const team *self, real *to, const real *from, ptrdiff_t N,
                       ptrdiff_t n)
{
    ptrdiff_t begin, end;
    team_share(self, N, &begin, &end);
    for (ptrdiff_t k = begin; k < end; k++)
        round_row(to + k * operand_row(n), from + k * n, n);
}

/* What backward keeps in its workspace, in elements from its start: W packed, at 0; a
 * block of x packed; the sums for db and what rounding took from them, in tiles of
 * columns; for each thread a tile of columns of the same block of dy, as it is and where
 * operands are rounded, so; and then all of dy. */
typedef struct {
    ptrdiff_t block;       /* rows of x and dy in a block */
    ptrdiff_t rounded;     /* start of dy as bfloat16, where that is asked for */
    ptrdiff_t x;           /* start of the packed x */
    ptrdiff_t sum, lost;   /* start of the sums, and of what they lost */
    ptrdiff_t dy, dy_size; /* start of the first thread's tile, and size of each */
    ptrdiff_t size;        /* of the workspace */
} linear_room;

INLINE linear_room get_linear_room(int half, ptrdiff_t N, ptrdiff_t I, ptrdiff_t O,
                                   int n_threads)
{
    linear_room room = {.block = sum_block(N, I)};
    room.x = packed_size(operand_size(O), I);
    room.sum = room.x + round_up(packed_size(operand_size(room.block), I), 64);
    room.lost = room.sum + round_up(n_row_tiles(O, SUM_NV) * A_LANES, 64);
    room.dy = room.lost + room.lost - room.sum;
    room.dy_size = round_up(room.block * A_LANES, 64) * (half ? 2 : 1);
    room.rounded = room.dy + n_threads * room.dy_size;
    room.size = room.rounded + (half ? N * operand_row(O) : 0);
    return room;
}

static ptrdiff_t linear_work_size(int half, int backward_pass, ptrdiff_t N, ptrdiff_t I,
                                  ptrdiff_t O, int n_threads)
{
    if (!backward_pass)
        return packed_size(operand_size(I), O) + (half ? N * operand_row(I) : 0);
    return get_linear_room(half, N, I, O, n_threads).size;
}

/* --- passes -- */

static void linear_forward_thread(const team *self, const void *args)
{
    const fr_linear_args *a = args;
    const int half = !FR_DOUBLE && a->half;
    const ptrdiff_t words = operand_size(a->I);
    real *packed = a->work, *rounded = packed + packed_size(words, a->O);
    ptrdiff_t begin, end;
    team_share(self, n_panels(a->O, PANEL_NV), &begin, &end);
    for (ptrdiff_t p = begin; p < end; p++) {
        const panel q = get_panel(a->O, PANEL_NV, p);
        pack_panel(half, packed + q.column * words, q,
                   (const real *)a->W + q.column * a->I, a->I);
    }
    if (half)
        round_rows(self, rounded, a->x, a->N, a->I);
    team_barrier(self);
    const product m = {.a = half ? rounded : a->x,
                       .b = packed,
                       .bias = a->b,
                       .c = a->y,
                       .K = words,
                       .N = a->O,
                       .a_row = half ? operand_row(a->I) : a->I};
    multiply_share(self, &m, a->N);
}

/* Packs columns [first, first + A_LANES) of K rows of dy as one packed A (tile.h).  The
 * columns after these are prefetched. */
INLINE void pack_tile(real *to, const real *dy, ptrdiff_t O, ptrdiff_t first,
                      ptrdiff_t K)
{
    const ptrdiff_t left = O - first;
    for (ptrdiff_t k = 0; k < K; k++) {
        const real *from = dy + k * O + first;
        __builtin_prefetch(from + A_LANES + A_ROWS);
#pragma GCC unroll 4
        for (ptrdiff_t v = 0; v < A_LANES; v += V)
            v_store(to + k * A_LANES + v, v_load_n(from + v, max_size(0, left - v)));
    }
}

/* The same of bfloat16, from a tile that is packed as it is. */
static void round_tile(real *to, const real *from, ptrdiff_t K)
{
    for (ptrdiff_t k = 0; k < K; k++) {
        const int pairs = has_pair(k, K);
        for (ptrdiff_t v = 0; v < A_LANES; v += V) {
            const real *at = from + k * A_LANES + v;
            if (pairs)
                v_store_two_rows(to + v, A_LANES, k, v_round_half(v_load(at)),
                                 v_round_half(v_load(at + A_LANES)));
            else
                v_store_row(to + v, A_LANES, k, v_round_half(v_load(at)));
        }
        k += pairs;
    }
}

static void linear_backward_thread(const team *self, const void *args)
{
    const fr_linear_args *a = args;
    const ptrdiff_t N = a->N, I = a->I, O = a->O;
    const int half = !FR_DOUBLE && a->half;
    const linear_room room = get_linear_room(half, N, I, O, a->n_threads);
    const ptrdiff_t block = room.block;
    real *weights = a->work, *packed_x = weights + room.x;
    real *packed_dy = weights + room.dy + self->rank * room.dy_size;
    real *operand = half ? packed_dy + room.dy_size / 2 : packed_dy;
    real *sum = weights + room.sum, *lost = weights + room.lost;
    const real *x = a->x, *dy = a->dy;
    const ptrdiff_t tiles = n_row_tiles(O, SUM_NV);
    const even_split split = sum_split(O);
    ptrdiff_t begin, end;

    if (a->dx) {
        const ptrdiff_t words = operand_size(O);
        real *rounded = weights + room.rounded;
        team_share(self, words, &begin, &end);
        for (ptrdiff_t k = begin; k < end; k++)
            pack_word_row(half, weights, words, k, a->W, O, k, I, PANEL_NV);
        if (half)
            round_rows(self, rounded, dy, N, O);
        team_barrier(self);
        const product m = {.a = half ? rounded : dy,
                           .b = weights,
                           .c = a->dx,
                           .K = words,
                           .N = I,
                           .a_row = half ? operand_row(O) : O};
        multiply_share(self, &m, N);
    }
    team_share(self, tiles, &begin, &end);
    const size_t sum_bytes = (size_t)((end - begin) * A_LANES) * sizeof(real);
    memset(sum + begin * A_LANES, 0, sum_bytes);
    memset(lost + begin * A_LANES, 0, sum_bytes);
    for (ptrdiff_t row = 0; (a->dW || a->db) && row < N; row += block) {
        const ptrdiff_t K = min_size(block, N - row);
        team_share(self, K, &begin, &end);
        for (ptrdiff_t k = begin; a->dW && k < end; k++) {
            const real *at = x + (row + k) * I;
            if (half && has_pair(k, end))
                pack_two_rows(packed_x, operand_size(block), k++ / 2, at, at + I, I,
                              SUM_NV);
            else
                pack_row_operand(half, packed_x, block, k, at, I, SUM_NV);
        }
        team_barrier(self);
        team_share(self, tiles, &begin, &end);
        for (ptrdiff_t i = begin; i < end; i++) {
            const ptrdiff_t first = share_start(split, i),
                            mr = split.each + (i < split.longer);
            pack_tile(packed_dy, dy + row * O, O, first, K);
            if (a->db)
                add_row_sums(sum + i * A_LANES, lost + i * A_LANES, packed_dy, block, K,
                             0, A_LANES / V);
            const memory_range next = {(const char *)packed_dy, 0}; /* already cached */
            if (a->dW && half)
                round_tile(operand, packed_dy, K);
            finish_packed_a(half && a->dW, operand, K);
            if (a->dW)
                add_product(half, operand, packed_x, block, K, next,
                            (real *)a->dW + first * I, mr, I);
        }
        team_barrier(self);
    }
    team_share(self, tiles, &begin, &end);
    for (ptrdiff_t i = begin; a->db && i < end; i++) {
        real *db = (real *)a->db + share_start(split, i);
        const ptrdiff_t mr = split.each + (i < split.longer);
        for (ptrdiff_t v = 0; v < mr; v += V) {
            const ptrdiff_t at = i * A_LANES + v;
            const vreal total = sum_and_lost(sum + at, lost + at);
            v_store_n(db + v, v_load_n(db + v, mr - v) + total, mr - v);
        }
    }
}

static int linear_threads(const fr_linear_args *a)
{
    return useful_threads(2.0 * (double)a->N * (double)a->I * (double)a->O,
                          a->n_threads);
}

static void linear_forward(const fr_linear_args *a)
{
    team_run(linear_threads(a), linear_forward_thread, a);
}

static void linear_backward(const fr_linear_args *a)
{
    team_run(linear_threads(a), linear_backward_thread, a);
}
