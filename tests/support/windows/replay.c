/* SPDX-License-Identifier: BSD-3-Clause */
/* replay.c -- records calls of kernels, and makes the recorded calls again elsewhere.
 *
 *     replay record TARGET DTYPE FILE      inputs and outputs of each call go to FILE
 *     replay check TARGET DTYPE FILE N     with N threads; every output must be the same
 *
 * Recording takes inputs from a generator of random numbers and writes them to the file
 * with what the kernels make of them.  Checking takes the inputs from the file, makes
 * the same calls in the same order, and compares every byte of every output.  The last
 * line says how many calls and bytes were compared; the exit code is 0 if all were
 * equal, 2 if this processor lacks the target, and 1 otherwise.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastrnn.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#error "the harness is compiled with the baseline's flags"
#endif

static FILE *file;
static int recording, is_double, n_threads = 1;
static const fr_kernels *k;
static long calls, different;
static long long compared;
static const char *making = ""; /* the call that is being made */

static void give_up(const char *why)
{
    fprintf(stderr, "replay: %s (%s)\n", why, making);
    exit(1);
}

/* --- memory ----------------------------------------------------------------------- */

/* All arrays of one call, from the starts of cache lines; freed after the call. */
static void *blocks[64];
static int n_blocks;

static void *room(ptrdiff_t n_bytes)
{
    char *block = calloc(1, (size_t)n_bytes + 64);
    if (block == NULL || n_blocks == 64)
        give_up("no memory");
    blocks[n_blocks++] = block;
    return (void *)(((uintptr_t)block + 63) & ~(uintptr_t)63);
}

static ptrdiff_t itemsize(void)
{
    return is_double ? 8 : 4;
}

static void *reals(ptrdiff_t n)
{
    return room(n * itemsize());
}

static void begin_call(const char *what)
{
    making = what;
    calls++;
}

static void end_call(void)
{
    while (n_blocks)
        free(blocks[--n_blocks]);
}

/* --- what goes to and comes from the file ------------------------------------------ */

static uint64_t state = 20240607;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void save(const void *bytes, size_t n)
{
    if (fwrite(bytes, 1, n, file) != n)
        give_up("cannot write");
}

static void load(void *bytes, size_t n)
{
    if (fread(bytes, 1, n, file) != n)
        give_up("the file is too short");
}

static void exchange(void *bytes, ptrdiff_t n)
{
    if (recording)
        save(bytes, (size_t)n);
    else
        load(bytes, (size_t)n);
}

/* n numbers in [-scale, scale). */
static void *input(ptrdiff_t n, double scale)
{
    void *at = reals(n);
    for (ptrdiff_t i = 0; recording && i < n; i++) {
        const double a = scale * ((double)(next() >> 11) / (double)(1ull << 52) - 1);
        if (is_double)
            ((double *)at)[i] = a;
        else
            ((float *)at)[i] = (float)a;
    }
    exchange(at, n * itemsize());
    return at;
}

/* n integers in [0, limit). */
static int64_t *integers(ptrdiff_t n, int64_t limit)
{
    int64_t *at = room(n * 8);
    for (ptrdiff_t i = 0; recording && i < n; i++)
        at[i] = (int64_t)(next() % (uint64_t)limit);
    exchange(at, n * 8);
    return at;
}

static void output_bytes(const char *name, const void *at, ptrdiff_t n)
{
    if (recording) {
        save(at, (size_t)n);
        return;
    }
    char *want = malloc((size_t)n + 1);
    if (want == NULL)
        give_up("no memory");
    load(want, (size_t)n);
    compared += n;
    if (memcmp(want, at, (size_t)n)) {
        different++;
        printf("%s: another %s\n", making, name);
    }
    free(want);
}

static void output(const char *name, const void *at, ptrdiff_t n)
{
    output_bytes(name, at, n * itemsize());
}

/* --- cells ------------------------------------------------------------------------- */

typedef struct {
    ptrdiff_t T, B, I, H;
    int reverse, ragged;
} size;

static void describe(fr_shape *s, fr_cell_options *o, int cell, unsigned options,
                     const size *n)
{
    const fr_cell *about = k->cell(cell);
    *s = (fr_shape){.cell = cell,
                    .reverse = n->reverse,
                    .T = n->T,
                    .B = n->B,
                    .I = n->I,
                    .H = n->H,
                    .S = options & FR_OPTION_PROJECTION ? n->H / 2 + 1 : n->H};
    *o = (fr_cell_options){.input_forget = !!(options & FR_OPTION_INPUT_FORGET),
                           .peephole = !!(options & FR_OPTION_PEEPHOLE),
                           .reset_before = !!(options & FR_OPTION_RESET_BEFORE),
                           .clip = options & FR_OPTION_CLIP ? 0.75 : 0};
    for (int g = 0; g < about->n_gates; g++)
        o->gate[g].kind = about->activations[g];
    o->gate[FR_MOST_GATES].kind = about->output_activation;
    /* Numbers stay finite over many steps where the functions are bounded. */
    static const int bounded[] = {FR_TANH,      FR_SIGMOID,  FR_HARD_SIGMOID,
                                  FR_HARD_TANH, FR_SOFTSIGN, FR_SCALED_TANH};
    if (options & FR_OPTION_ACTIVATIONS)
        for (int g = 0; g <= FR_MOST_GATES; g++) {
            const int any = (int)(next() % FR_N_ACTIVATIONS);
            const int kind = n->T > 5 ? bounded[any % 6] : any;
            o->gate[g] = (fr_activation){kind, 0.3, 0.6};
        }
    if (options & ~(unsigned)FR_OPTION_PROJECTION)
        s->options = o;
    exchange(o, sizeof *o);
}

static ptrdiff_t *make_offsets(const size *n)
{
    ptrdiff_t *offsets = room((n->T + 1) * (ptrdiff_t)sizeof *offsets);
    for (ptrdiff_t t = 0; t < n->T; t++)
        offsets[t + 1] = offsets[t] + (n->B - t * (n->B - 1) / n->T);
    return offsets;
}

/* Forward and backward of one cell. */
static void run_cell(int cell, unsigned options, const size *n)
{
    const fr_cell *about = k->cell(cell);
    fr_cell_options o;
    fr_shape s;
    char what[160];
    snprintf(what, sizeof what, "%s, options %u, T %d B %d I %d H %d%s%s", about->name,
             options, (int)n->T, (int)n->B, (int)n->I, (int)n->H,
             n->reverse ? ", reverse" : "", n->ragged ? ", ragged" : "");
    begin_call(what);
    describe(&s, &o, cell, options, n);
    ptrdiff_t rows = n->T * n->B;
    if (n->ragged) {
        ptrdiff_t *offsets = make_offsets(n);
        s.offsets = offsets;
        rows = offsets[n->T];
    }
    const int two = about->n_states == 2;
    const ptrdiff_t G = about->n_gates, I = s.I, H = s.H, S = s.S, B = s.B;
    fr_pack_args p = {.shape = s, .n_threads = n_threads};
    p.W = input(G * H * I, 0.5);
    p.R = input(G * H * S, 0.5);
    p.b_ih = input(G * H, 0.5);
    p.b_hh = input(G * H, 0.5);
    p.P = o.peephole ? input(3 * H, 0.5) : NULL;
    p.W_hr = S != H ? input(S * H, 0.5) : NULL;
    p.packed = reals(k->packed_forward_size(&s));
    k->pack_forward(&p);

    fr_forward_args f = {.shape = s, .n_threads = n_threads, .packed = p.packed};
    f.x = input(rows * I, 1);
    f.x_row = I, f.x_step = B * I;
    f.h0 = input(B * S, 1);
    f.c0 = two ? input(B * H, 1) : NULL;
    f.y = reals(rows * S);
    f.y_row = S, f.y_step = B * S;
    f.h_n = reals(B * S);
    f.c_n = two ? reals(B * H) : NULL;
    f.tape = reals(k->tape_size(&s));
    f.work = reals(k->forward_work_size(&s, n_threads));
    k->forward(&f, 1, 0);
    output("y", f.y, rows * S);
    output("h_n", f.h_n, B * S);
    if (two)
        output("c_n", f.c_n, B * H);

    fr_pack_args q = p;
    q.packed = reals(k->packed_backward_size(&s));
    q.forward = p.packed;
    k->pack_backward(&q);
    fr_backward_args b = {.shape = s,
                          .n_threads = n_threads,
                          .x = f.x,
                          .x_step = f.x_step,
                          .x_row = f.x_row,
                          .packed = q.packed,
                          .h0 = f.h0,
                          .y = f.y,
                          .y_step = f.y_step,
                          .y_row = f.y_row,
                          .tape = f.tape,
                          .dy_step = B * S,
                          .dy_row = S,
                          .dx_step = B * I,
                          .dx_row = I};
    b.dy = input(rows * S, 1);
    b.dh_n = input(B * S, 1);
    b.dc_n = two ? input(B * H, 1) : NULL;
    b.dx = reals(rows * I);
    b.dh0 = reals(B * S);
    b.dc0 = two ? reals(B * H) : NULL;
    b.dW = reals(G * H * I);
    b.dR = reals(G * H * S);
    b.db_ih = reals(G * H);
    b.db_hh = reals(G * H);
    b.dP = o.peephole ? reals(3 * H) : NULL;
    b.dW_hr = S != H ? reals(S * H) : NULL;
    b.clip_norm = n->reverse ? 0.5 : 0;
    b.flow = room(n->T * B * 8);
    b.work = reals(k->backward_work_size(&s, n_threads));
    k->backward(&b, 1, 0);
    output("dx", b.dx, rows * I);
    output("dh0", b.dh0, B * S);
    if (two)
        output("dc0", b.dc0, B * H);
    output("dW", b.dW, G * H * I);
    output("dR", b.dR, G * H * S);
    output("db_ih", b.db_ih, G * H);
    output("db_hh", b.db_hh, G * H);
    if (b.dP)
        output("dP", b.dP, 3 * H);
    if (b.dW_hr)
        output("dW_hr", b.dW_hr, S * H);
    end_call();
}

static void run_cells(void)
{
    static const size sizes[] = {
        {1, 1, 1, 1, 0, 0},    {5, 3, 7, 17, 0, 0},    {9, 4, 12, 33, 1, 1},
        {20, 8, 16, 64, 0, 1}, {12, 40, 24, 96, 1, 0},
    };
    for (int cell = 0; k->cell(cell); cell++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            const unsigned knows = k->cell(cell)->options;
            run_cell(cell, 0, &sizes[i]);
            for (unsigned option = 1; option <= FR_OPTION_PROJECTION; option *= 2)
                if (knows & option)
                    run_cell(cell, option, &sizes[i]);
            run_cell(cell, knows & ~(unsigned)FR_OPTION_PROJECTION, &sizes[i]);
        }
}

/* --- the other kernels -------------------------------------------------------------- */

static void run_linear(ptrdiff_t N, ptrdiff_t I, ptrdiff_t O)
{
    begin_call("linear");
    fr_linear_args a = {.n_threads = n_threads, .N = N, .I = I, .O = O};
    a.x = input(N * I, 1);
    a.W = input(O * I, 1);
    a.b = input(O, 1);
    a.dy = input(N * O, 1);
    a.y = reals(N * O);
    a.dx = reals(N * I);
    a.dW = reals(O * I);
    a.db = reals(O);
    a.work = reals(k->linear_work_size(0, N, I, O, n_threads));
    k->linear_forward(&a);
    a.work = reals(k->linear_work_size(1, N, I, O, n_threads));
    k->linear_backward(&a);
    output("y", a.y, N * O);
    output("dx", a.dx, N * I);
    output("dW", a.dW, O * I);
    output("db", a.db, O);
    end_call();
}

static fr_step step_of(ptrdiff_t P, int n_state)
{
    fr_step s = {.P = P, .n_threads = n_threads, .weight_decay = 0.01};
    s.p = input(P, 1);
    s.g = input(P, 1);
    for (int i = 0; i < n_state; i++) {
        s.state[i] = reals(P);
        memset(s.state[i], 0, (size_t)(P * itemsize()));
    }
    s.rates[0] = 0.01, s.rates[1] = 0.9, s.rates[2] = 0.99;
    return s;
}

static void check_step(const char *name, const fr_step *s)
{
    output(name, s->p, s->P);
    for (int i = 0; i < FR_N_STATE; i++)
        if (s->state[i])
            output(name, s->state[i], s->P);
    end_call();
}

static void run_optimisers(ptrdiff_t P)
{
    begin_call("sgd");
    fr_sgd_args sgd = {step_of(P, 1), 0.9, 0.1, 0, 1};
    k->sgd(&sgd);
    sgd.first = 0;
    k->sgd(&sgd);
    check_step("sgd", &sgd.step);
    begin_call("rmsprop");
    fr_rmsprop_args rmsprop = {step_of(P, 3), 0.9, 1e-8, 0.5};
    k->rmsprop(&rmsprop);
    k->rmsprop(&rmsprop);
    check_step("rmsprop", &rmsprop.step);
    begin_call("adagrad");
    fr_adagrad_args adagrad = {step_of(P, 1), 1e-10};
    k->adagrad(&adagrad);
    k->adagrad(&adagrad);
    check_step("adagrad", &adagrad.step);
    begin_call("adam");
    fr_adam_args adam = {step_of(P, 3), 0.9, 0.999, 1e-8};
    k->adam(&adam);
    k->adam(&adam);
    check_step("adam", &adam.step);
}

static void run_flat(ptrdiff_t n)
{
    const fr_extent all = {.n = n, .n_threads = n_threads};
    begin_call("norm, scale, clamp");
    void *x = input(n, 3);
    const double two = k->norm(&all, x, 2), most = k->norm(&all, x, 1.0 / 0.0);
    const double one = k->norm(&all, x, 1);
    output_bytes("norm", &two, sizeof two);
    output_bytes("largest", &most, sizeof most);
    output_bytes("norm of power 1", &one, sizeof one);
    k->scale(&all, x, 0.7);
    output("scaled", x, n);
    k->clamp(&all, x, 0.5);
    output("clamped", x, n);
    uint32_t print[64];
    k->fingerprint(n * itemsize(), x, n_threads, print);
    output_bytes("fingerprint", print, sizeof print);
    end_call();

    begin_call("sigmoid, tanh, dropout");
    void *y = reals(n);
    x = input(n, 20);
    k->activation(FR_SIGMOID, n, x, y);
    output("sigmoid", y, n);
    k->activation(FR_TANH, n, x, y);
    output("tanh", y, n);
    const fr_dropout_args d = {n, n_threads, 0.3, 12345, x, y};
    k->dropout(&d);
    output("dropout", y, n);
    end_call();
}

static void run_losses(ptrdiff_t rows, ptrdiff_t classes)
{
    begin_call("cross_entropy, mse");
    fr_cross_entropy_args c = {.rows = rows,
                               .classes = classes,
                               .n_threads = n_threads,
                               .ignore_index = 2,
                               .weight = 0.5};
    c.logits = input(rows * classes, 5);
    c.targets = integers(rows, classes);
    c.dlogits = reals(rows * classes);
    double loss = k->cross_entropy(&c);
    output("dlogits", c.dlogits, rows * classes);
    output_bytes("cross entropy", &loss, sizeof loss);
    fr_mse_args m = {.n = rows * classes, .n_threads = n_threads, .weight = 0.5};
    m.prediction = c.logits;
    m.target = input(m.n, 1);
    m.dprediction = reals(m.n);
    loss = k->mse(&m);
    output("dprediction", m.dprediction, m.n);
    output_bytes("mse", &loss, sizeof loss);
    end_call();

    begin_call("embedding");
    fr_embedding_args e = {
        .n = rows, .rows = classes, .width = 37, .n_threads = n_threads, .padding = 1};
    e.indices = integers(rows, classes);
    e.weight = input(classes * e.width, 1);
    e.dy = input(rows * e.width, 1);
    e.y = reals(rows * e.width);
    e.dweight = reals(classes * e.width);
    k->embedding_forward(&e);
    k->embedding_backward(&e);
    output("y", e.y, rows * e.width);
    output("dweight", e.dweight, classes * e.width);
    end_call();
}

static const fr_kernels *find(const char *target)
{
    for (int i = 0; i < fr_n_targets(); i++)
        if (strcmp(fr_target_name(i), target) == 0) {
            if (!fr_target_supported(i)) {
                printf("this processor cannot run %s\n", target);
                exit(2);
            }
            return fr_target_kernels(i, is_double);
        }
    give_up("not a built target");
    return NULL;
}

int main(int n, char **words)
{
    if (n < 5 || (n < 6 && strcmp(words[1], "record")))
        give_up("replay record|check TARGET DTYPE FILE [THREADS]");
    recording = strcmp(words[1], "record") == 0;
    is_double = strcmp(words[3], "float64") == 0;
    n_threads = recording ? 1 : atoi(words[5]);
    k = find(words[2]);
    file = fopen(words[4], recording ? "wb" : "rb");
    if (file == NULL)
        give_up("cannot open the file");
    fr_team_report report;
    if (fr_team_prepare(n_threads, &report) != FR_TEAM_READY)
        give_up("cannot have the threads");
    run_cells();
    run_linear(1, 1, 1);
    run_linear(33, 47, 29);
    run_linear(300, 64, 200);
    run_optimisers(13);
    run_optimisers(100003);
    run_flat(5);
    run_flat(200003);
    run_losses(700, 83);
    fclose(file);
    printf("%s %s, %d threads of %s: %ld calls, %lld bytes compared, %ld outputs "
           "different\n",
           words[2], words[3], n_threads, fr_threading(), calls, compared, different);
    return different != 0;
}
