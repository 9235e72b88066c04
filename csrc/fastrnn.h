/* SPDX-License-Identifier: BSD-3-Clause */
/* fastrnn.h -- everything that Cython sees: argument structs, the kernel table,
 * dispatch.
 *
 * One table of function pointers exists per (target, dtype); arrays are `void *` here
 * because the same struct serves float and double.  Sizes and strides are counted in
 * elements, never in bytes.  Letters: T steps, B batch rows, I inputs, H hidden units,
 * G gates of a cell (fr_cell says how many, and their order), P parameters.
 * csrc/README.md states layouts, accumulation, aliasing and threads.
 */
#ifndef FASTRNN_H
#define FASTRNN_H

#include <stddef.h>
#include <stdint.h>

/* ONNX's and Keras's activation functions; alpha and beta where the function has them:
 * hard sigmoid max(0, min(1, alpha x + beta)), ELU alpha (e^x - 1), leaky ReLU alpha x,
 * thresholded ReLU x > alpha, affine alpha x + beta, scaled tanh alpha tanh(beta x). */
enum fr_activation_kind {
    FR_TANH,
    FR_SIGMOID,
    FR_RELU,
    FR_HARD_SIGMOID,
    FR_HARD_TANH,
    FR_SOFTSIGN,
    FR_SOFTPLUS,
    FR_ELU,
    FR_LEAKY_RELU,
    FR_THRESHOLDED_RELU,
    FR_AFFINE,
    FR_SCALED_TANH,
    FR_GELU,
    FR_N_ACTIVATIONS
};

typedef struct {
    int kind;
    double alpha, beta;
} fr_activation;

#define FR_MOST_GATES 4

/* A cell that is not the plain one.  Its specialised kernels are not the plain ones. */
typedef struct {
    fr_activation gate[FR_MOST_GATES + 1]; /* in the cell's gate order; then of c_t */
    double clip;      /* pre-activations into [-clip, clip]; 0 for none */
    int input_forget; /* LSTM: f = 1 - i, f's own weights unused */
    int peephole;     /* LSTM: P_i, P_f look at c_{t-1}, P_o at c_t */
    int reset_before; /* GRU: (r * h_{t-1}) R_n in place of r * (h_{t-1} R_n) */
} fr_cell_options;

/* What may be asked of a cell: the fields of fr_cell_options that it knows, and a state
 * narrower than the cell. */
enum fr_option {
    FR_OPTION_ACTIVATIONS = 1,
    FR_OPTION_CLIP = 2,
    FR_OPTION_INPUT_FORGET = 4,
    FR_OPTION_PEEPHOLE = 8,
    FR_OPTION_RESET_BEFORE = 16,
    FR_OPTION_PROJECTION = 32
};

/* What a cell is, for everybody who has to know: one entry of the table of cells, which
 * kernels/cells.h lists and fr_kernels.cell() reads.  fr_shape.cell is an index into that
 * table.  Gates are counted in the order in which their parts of W, R and the biases
 * follow each other. */
typedef struct {
    const char *name;  /* of the cell: "lstm" */
    const char *layer; /* name of the class of layers made of it: "LSTM" */
    const char *gates; /* a letter for each gate, with spaces between: "i f g o" */
    int n_gates;       /* G, 1 to FR_MOST_GATES */
    int n_states;      /* 1: h; 2: h and c */
    enum fr_activation_kind activations[FR_MOST_GATES]; /* the plain cell's, by gate */
    int output_activation; /* the plain cell's function of c_t; -1 where there is none */
    /* The gate whose b_hh the plain cell does not simply add to its b_ih; or -1. */
    int bias_apart;
    unsigned options;  /* of enum fr_option, those that the cell knows */
    const char *paper; /* the publication that introduced the cell */
} fr_cell;

/* What a recurrent call works on.  Element (t, b) of a time-batch array starts at
 * t * step + b * row when `offsets` is NULL (all rows live for all T steps), and at
 * (offsets[t] + b) * row when it is not: then offsets[t + 1] - offsets[t] rows, sorted
 * by length, are active at step t (PyTorch's PackedSequence).  When `padded`, these
 * rows lie where they would without `offsets`: what follows them is not read in x and
 * dy, and set to zero in y and in a dx that is not accumulated. */
typedef struct {
    int cell;    /* index into the table of cells */
    int reverse; /* 1: run from the last step to the first */
    ptrdiff_t T, B, I, H;
    ptrdiff_t S;                    /* width of h: H, or an LSTM's projection */
    const ptrdiff_t *offsets;       /* (T + 1,) or NULL */
    int padded;                     /* with offsets: arrays are (T, B, ...) */
    const fr_cell_options *options; /* NULL for the plain cell */
} fr_shape;

typedef struct {
    fr_shape shape;
    int n_threads;
    const void *x; /* (T, B, I) */
    ptrdiff_t x_step, x_row;
    const void *packed; /* pack_forward() of the weights */
    const void *h0;     /* (B, S) */
    const void *c0;     /* (B, H), LSTM only */
    void *y;            /* (T, B, S) */
    ptrdiff_t y_step, y_row;
    void *h_n;  /* (B, S); may be h0 itself */
    void *c_n;  /* (B, H), LSTM only; may be c0 itself */
    void *tape; /* tape_size() elements, kept for backward; NULL in inference */
    void *work; /* forward_work_size() elements, 64-byte aligned */
} fr_forward_args;

typedef struct {
    fr_shape shape;
    int n_threads;
    const void *x;
    ptrdiff_t x_step, x_row;
    const void *packed; /* pack_backward() of the weights */
    const void *h0;
    const void *y; /* what forward wrote */
    ptrdiff_t y_step, y_row;
    const void *tape; /* what forward kept */
    const void *dy;   /* (T, B, S) or NULL for zero */
    ptrdiff_t dy_step, dy_row;
    const void *dh_n; /* (B, S) or NULL for zero */
    const void *dc_n; /* (B, H) or NULL for zero; LSTM only */
    void *dx;         /* (T, B, I) or NULL when not wanted */
    ptrdiff_t dx_step, dx_row;
    int dx_accumulate; /* 1: dx += (second direction of a bidirectional layer) */
    void *dh0;         /* (B, S), overwritten */
    void *dc0;         /* (B, H), overwritten; LSTM only */
    /* Accumulated; NULL where not wanted. */
    void *dW;    /* (G, H, I) */
    void *dR;    /* (G, H, S) */
    void *db_ih; /* (G, H) */
    void *db_hh; /* (G, H) */
    void *dP;    /* (3, H), with peepholes */
    void *dW_hr; /* (S, H), with a projection */
    /* Bounds on each row's gradient of the loss with respect to h_t, before it goes
     * back through the cell: every element by value, or the row's norm; 0 for none. */
    double clip_value, clip_norm;
    double *flow; /* (T, B), squared norms of those gradients, unclipped; or NULL */
    /* For a sequence in several calls, last steps first, with the bits of one call: the
     * sums of da go on in db_sums, 7 (H + 64) elements, and are added by the last. */
    void *db_sums;  /* or NULL for a call alone */
    int db_started; /* 1: those of the steps after these are in db_sums */
    int db_open;    /* 1: the steps before these follow; db_ih, db_hh, dP wait */
    void *work;     /* backward_work_size() elements, 64-byte aligned */
} fr_backward_args;

#define FR_MOST_AT_ONCE 8 /* calls, see fr_kernels; more layers would hardly ever pay */

/* Weights as PyTorch stores them, and the private form the kernels read. */
typedef struct {
    fr_shape shape; /* cell, I, H, S and options count */
    int n_threads;
    const void *W;    /* (G, H, I) */
    const void *R;    /* (G, H, S) */
    const void *b_ih; /* (G, H) or NULL */
    const void *b_hh; /* (G, H) or NULL */
    const void *P;    /* (3, H), order i o f, with peepholes */
    const void *W_hr; /* (S, H), with a projection */
    /* pack_backward: a forward pack to take the weights from, in place of those above; or
     * NULL */
    const void *forward;
    void *packed; /* packed_forward_size() or packed_backward_size(), 64-byte aligned */
} fr_pack_args;

/* Rows of the table that the flat arrays are, brought forward lazily: each has taken
 * seen[row] steps and is to have taken `now`.  The steps it missed had gradient zero; the
 * last one's is g if with_gradient. */
#define FR_N_RATES 3
typedef struct {
    ptrdiff_t n, width;
    const int64_t *rows; /* (n,) ascending, each once */
    int64_t *seen;       /* (rows of the table,); becomes now */
    int64_t now;         /* > seen[row] - capacity */
    int with_gradient;
    ptrdiff_t capacity;
    const void *rates; /* (capacity, FR_N_RATES): of step t at t % capacity */
} fr_rows;

/* One optimiser step over P parameters; g is only read.  With `rows`, only those, and as
 * many steps as each has missed. */
#define FR_N_STATE 3
typedef struct {
    ptrdiff_t P;
    int n_threads;
    int maximize;             /* 1: ascend */
    void *p;                  /* (P,), updated */
    const void *g;            /* (P,) */
    void *state[FR_N_STATE];  /* (P,) each, or NULL; which is what, see below */
    double weight_decay;      /* that joins the gradient */
    double rates[FR_N_RATES]; /* what changes from step to step, see below */
    const fr_rows *rows;      /* or NULL */
} fr_step;

typedef struct {
    fr_step step; /* state: buffer, NULL without momentum; rates: lr */
    double momentum, dampening;
    int nesterov;
    int first; /* 1: buffer has no value yet */
} fr_sgd_args;

typedef struct {
    fr_step step; /* state: mean of squares; mean, NULL when not centered; buffer, NULL
                     without momentum; rates: lr */
    double alpha, eps, momentum;
} fr_rmsprop_args;

typedef struct {
    fr_step step; /* state: sum of squares; rates: lr, decayed already */
    double eps;
} fr_adagrad_args;

typedef struct {
    fr_step step; /* state: mean; mean of squares; the largest of those, NULL without
                     AMSGrad; rates: lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t), and what
                     the parameters are multiplied by first (AdamW), else 1 */
    double beta1, beta2, eps;
} fr_adam_args;

/* n elements, of which only those in the spans are read or written: the others are zero,
 * and what is done to them leaves them so. */
typedef struct {
    ptrdiff_t n;
    int n_threads;
    ptrdiff_t n_spans;
    const int64_t *spans; /* (n_spans, 2): begin and end, ascending; NULL: all of n */
} fr_extent;

/* Losses: weight times the sum is returned, its gradient overwritten. */
typedef struct {
    ptrdiff_t rows, classes;
    int n_threads;
    const void *logits;     /* (rows, classes) */
    const int64_t *targets; /* (rows,) in [0, classes), or ignore_index */
    int64_t ignore_index;
    double weight;
    void *dlogits; /* (rows, classes) */
} fr_cross_entropy_args;

typedef struct {
    ptrdiff_t n;
    int n_threads;
    const void *prediction; /* (n,) */
    const void *target;     /* (n,) */
    double weight;
    void *dprediction; /* (n,) */
} fr_mse_args;

typedef struct {
    ptrdiff_t n, rows, width;
    int n_threads;
    const int64_t *indices; /* (n,) in [0, rows), or -1 for zero, forward */
    int64_t padding;        /* backward leaves this index out; -1 for none */
    const void *weight;     /* (rows, width), forward */
    void *y;                /* (n, width), forward */
    const void *dy;         /* (n, width), backward */
    void *dweight;          /* (rows, width), backward, accumulated */
} fr_embedding_args;

typedef struct {
    ptrdiff_t n;
    int n_threads;
    double p; /* in [0, 1] */
    uint64_t seed;
    const void *x; /* (n,) */
    void *y;       /* (n,), may be x */
} fr_dropout_args;

/* Dense layer, forward (x W b -> y) and backward (x W dy -> dx dW db). */
typedef struct {
    int n_threads;
    ptrdiff_t N, I, O;
    const void *x;  /* (N, I) */
    const void *W;  /* (O, I) */
    const void *b;  /* (O,) or NULL; forward */
    void *y;        /* (N, O); forward */
    const void *dy; /* (N, O); backward */
    void *dx;       /* (N, I) or NULL when not wanted; backward */
    void *dW;       /* (O, I) or NULL, accumulated; backward */
    void *db;       /* (O,) or NULL, accumulated; backward */
    void *work;     /* linear_work_size() elements, 64-byte aligned */
} fr_linear_args;

typedef struct {
    const char *target;
    const char *dtype; /* "float32" or "float64" */
    int lanes;         /* elements in a vector */

    /* Entry `index` of the table of cells, the same in every fr_kernels; NULL where the
     * table has no such entry. */
    const fr_cell *(*cell)(int index);

    void (*pack_forward)(const fr_pack_args *);
    void (*pack_backward)(const fr_pack_args *);
    /* One call (n = 1), or n calls of one shape, I aside, that may run at once.  Two that
     * are not chained are a layer's directions: what a[1].dx points to is room laid out
     * like a[0].dx, to which it is added in the end.  Chained are layers of a stack, in
     * the order in which they run: x (backward: dy) of each but the first is y (dx) of
     * the one before. */
    void (*forward)(const fr_forward_args *a, int n, int chained);
    void (*backward)(const fr_backward_args *a, int n, int chained);
    /* How many of `most` calls, which would run one after the other on n_threads, to run
     * at once: as many as make that faster; 1 to FR_MOST_AT_ONCE. */
    int (*calls_at_once)(const fr_shape *, int n_threads, int most, int chained);
    ptrdiff_t (*packed_forward_size)(const fr_shape *);
    ptrdiff_t (*packed_backward_size)(const fr_shape *);
    ptrdiff_t (*tape_size)(const fr_shape *);
    ptrdiff_t (*forward_work_size)(const fr_shape *, int n_threads);
    ptrdiff_t (*backward_work_size)(const fr_shape *, int n_threads);

    void (*linear_forward)(const fr_linear_args *);
    void (*linear_backward)(const fr_linear_args *);
    ptrdiff_t (*linear_work_size)(int backward_pass, ptrdiff_t N, ptrdiff_t I,
                                  ptrdiff_t O, int n_threads);

    /* 64 words that change when the bytes do; see fingerprint.c */
    void (*fingerprint)(ptrdiff_t n_bytes, const void *memory, int n_threads,
                        uint32_t *result);

    /* y = f(x) for n elements, by the code that the plain cells run; f is the sigmoid or
     * tanh.  For the test that counts units in the last place. */
    void (*activation)(enum fr_activation_kind f, ptrdiff_t n, const void *x, void *y);

    /* n rounds of FMAs in registers on n_threads threads: the operations done */
    double (*fma_peak)(int n_threads, ptrdiff_t n);

    void (*sgd)(const fr_sgd_args *);
    void (*rmsprop)(const fr_rmsprop_args *);
    void (*adagrad)(const fr_adagrad_args *);
    void (*adam)(const fr_adam_args *);
    /* (sum |x|^power)^(1/power), power > 0 or infinite; x *= factor; x into
     * [-limit, limit]; x = 0 */
    double (*norm)(const fr_extent *, const void *x, double power);
    void (*scale)(const fr_extent *, void *x, double factor);
    void (*clamp)(const fr_extent *, void *x, double limit);
    void (*clear)(const fr_extent *, void *x);
    double (*cross_entropy)(const fr_cross_entropy_args *);
    double (*mse)(const fr_mse_args *);
    void (*embedding_forward)(const fr_embedding_args *);
    void (*embedding_backward)(const fr_embedding_args *);
    void (*dropout)(const fr_dropout_args *);
} fr_kernels;

/* team.c: a caller asks whether it may call kernels with so many threads, on the stack
 * that it has; kernels, for the team that they are about to form, whether it can be: 1
 * where the memory for it is not there. */
enum {
    FR_TEAM_READY,
    FR_TEAM_NO_MEMORY,
    FR_TEAM_NO_THREADS,
    FR_TEAM_SMALL_STACK, /* the caller's */
    FR_TEAM_SMALL_STACKS /* those of OpenMP's threads */
};
typedef struct {
    ptrdiff_t needed, found; /* bytes of stack */
    int alone; /* calls since the last report that a team could not be formed for */
} fr_team_report;
int fr_team_prepare(int n_threads, fr_team_report *report);
int fr_team_size(int n_threads);

/* Most stack that a kernel uses, its caller's frame aside; csrc/README.md. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FR_STACK (64 << 10)
#else
#define FR_STACK (8 << 10)
#endif

/* dispatch.c: targets best first; n_targets() were built, supported(i) runs here. */
int fr_n_targets(void);
const char *fr_target_name(int i);
int fr_target_supported(int i);
const fr_kernels *fr_target_kernels(int i, int is_double);
const char *fr_compiler(void);
int fr_has_openmp(void);

/* runtime.c: whether another library in this process needs the same OpenMP runtime. */
int fr_openmp_is_shared(void);

#endif
