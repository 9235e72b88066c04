/* SPDX-License-Identifier: BSD-3-Clause */
/* fastrnn.h -- everything that Cython sees: argument structs, the kernel table,
 * dispatch.
 *
 * One table of function pointers exists per (target, dtype); arrays are `void *` here
 * because the same struct serves float and double.  Sizes and strides are counted in
 * elements, never in bytes.  Letters: T steps, B batch rows, I inputs, H hidden units,
 * G gates (RNN 1, LSTM 4 in order i f g o, GRU 3 in order r z n), P parameters.
 * csrc/README.md states layouts, accumulation, aliasing and threads.
 */
#ifndef FASTRNN_H
#define FASTRNN_H

#include <stddef.h>
#include <stdint.h>

enum { FR_CELL_RNN_TANH, FR_CELL_RNN_RELU, FR_CELL_LSTM, FR_CELL_GRU, FR_N_CELLS };

/* What a recurrent call works on.  Element (t, b) of a time-batch array starts at
 * t * step + b * row when `offsets` is NULL (all rows live for all T steps), and at
 * (offsets[t] + b) * row when it is not: then offsets[t + 1] - offsets[t] rows, sorted
 * by length, are active at step t (PyTorch's PackedSequence). */
typedef struct {
    int cell;
    int reverse; /* 1: run from the last step to the first */
    ptrdiff_t T, B, I, H;
    const ptrdiff_t *offsets; /* (T + 1,) or NULL */
} fr_shape;

typedef struct {
    fr_shape shape;
    int n_threads;
    const void *x; /* (T, B, I) */
    ptrdiff_t x_step, x_row;
    const void *packed; /* pack_forward() of the weights */
    const void *h0;     /* (B, H) */
    const void *c0;     /* (B, H), LSTM only */
    void *y;            /* (T, B, H) */
    ptrdiff_t y_step, y_row;
    void *h_n;  /* (B, H); may be h0 itself */
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
    const void *dy;   /* (T, B, H) or NULL for zero */
    ptrdiff_t dy_step, dy_row;
    const void *dh_n; /* (B, H) or NULL for zero */
    const void *dc_n; /* (B, H) or NULL for zero; LSTM only */
    void *dx;         /* (T, B, I) or NULL when not wanted */
    ptrdiff_t dx_step, dx_row;
    int dx_accumulate; /* 1: dx += (second direction of a bidirectional layer) */
    void *dh0;         /* (B, H), overwritten */
    void *dc0;         /* (B, H), overwritten; LSTM only */
    void *dW;          /* (G, H, I), accumulated */
    void *dR;          /* (G, H, H), accumulated */
    void *db_ih;       /* (G, H), accumulated, or NULL without bias */
    void *db_hh;       /* (G, H), accumulated, or NULL without bias */
    void *work;        /* backward_work_size() elements, 64-byte aligned */
} fr_backward_args;

/* Weights as PyTorch stores them, and the private form the kernels read. */
typedef struct {
    int cell;
    ptrdiff_t I, H;
    const void *W;    /* (G, H, I) */
    const void *R;    /* (G, H, H) */
    const void *b_ih; /* (G, H) or NULL */
    const void *b_hh; /* (G, H) or NULL */
    void *packed; /* packed_forward_size() or packed_backward_size(), 64-byte aligned */
} fr_pack_args;

/* One optimiser step over P parameters; g is only read. */
typedef struct {
    ptrdiff_t P;
    int n_threads;
    int maximize;  /* 1: ascend */
    void *p;       /* (P,), updated */
    const void *g; /* (P,) */
    double lr, weight_decay;
} fr_step;

typedef struct {
    fr_step step;
    double momentum, dampening;
    int nesterov;
    int first;    /* 1: buffer has no value yet */
    void *buffer; /* (P,) or NULL without momentum */
} fr_sgd_args;

typedef struct {
    fr_step step;
    double alpha, eps, momentum;
    void *square; /* (P,) mean of squares */
    void *mean;   /* (P,) or NULL when not centered */
    void *buffer; /* (P,) or NULL without momentum */
} fr_rmsprop_args;

typedef struct {
    fr_step step; /* its lr decayed already */
    double eps;
    void *square; /* (P,) sum of squares */
} fr_adagrad_args;

typedef struct {
    fr_step step;
    double beta1, beta2, eps;
    double correction1, correction2; /* 1 - beta^step */
    int decoupled;                   /* 1: AdamW's weight decay */
    void *mean;                      /* (P,) */
    void *square;                    /* (P,) */
    void *largest;                   /* (P,) or NULL without AMSGrad */
} fr_adam_args;

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
    const int64_t *indices; /* (n,) in [0, rows) */
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
    void *dW;       /* (O, I), accumulated; backward */
    void *db;       /* (O,) or NULL, accumulated; backward */
    void *work;     /* linear_work_size() elements, 64-byte aligned */
} fr_linear_args;

typedef struct {
    const char *target;
    const char *dtype; /* "float32" or "float64" */
    int lanes;         /* elements in a vector */

    void (*pack_forward)(const fr_pack_args *);
    void (*pack_backward)(const fr_pack_args *);
    void (*forward)(const fr_forward_args *);
    void (*backward)(const fr_backward_args *);
    ptrdiff_t (*packed_forward_size)(int cell, ptrdiff_t I, ptrdiff_t H);
    ptrdiff_t (*packed_backward_size)(int cell, ptrdiff_t I, ptrdiff_t H);
    ptrdiff_t (*tape_size)(const fr_shape *);
    ptrdiff_t (*forward_work_size)(const fr_shape *, int n_threads);
    ptrdiff_t (*backward_work_size)(const fr_shape *, int n_threads);

    void (*linear_forward)(const fr_linear_args *);
    void (*linear_backward)(const fr_linear_args *);
    ptrdiff_t (*linear_work_size)(int backward_pass, ptrdiff_t N, ptrdiff_t I,
                                  ptrdiff_t O);

    /* 64 words that change when the bytes do; see fingerprint.c */
    void (*fingerprint)(ptrdiff_t n_bytes, const void *memory, uint32_t *result);

    /* n results of activation `which` (0 sigmoid, 1 tanh): for the ULP test */
    void (*activation)(int which, ptrdiff_t n, const void *x, void *y);

    /* n rounds of FMAs in registers on n_threads threads: the operations done */
    double (*fma_peak)(int n_threads, ptrdiff_t n);

    void (*sgd)(const fr_sgd_args *);
    void (*rmsprop)(const fr_rmsprop_args *);
    void (*adagrad)(const fr_adagrad_args *);
    void (*adam)(const fr_adam_args *);
    /* n elements: (sum |x|^power)^(1/power), power > 0 or infinite; x *= factor;
     * x into [-limit, limit] */
    double (*norm)(ptrdiff_t n, const void *x, double power, int n_threads);
    void (*scale)(ptrdiff_t n, void *x, double factor, int n_threads);
    void (*clamp)(ptrdiff_t n, void *x, double limit, int n_threads);
    double (*cross_entropy)(const fr_cross_entropy_args *);
    double (*mse)(const fr_mse_args *);
    void (*embedding_forward)(const fr_embedding_args *);
    void (*embedding_backward)(const fr_embedding_args *);
    void (*dropout)(const fr_dropout_args *);
} fr_kernels;

/* dispatch.c: targets best first; n_targets() were built, supported(i) runs here. */
int fr_n_targets(void);
const char *fr_target_name(int i);
int fr_target_supported(int i);
const fr_kernels *fr_target_kernels(int i, int is_double);
const char *fr_compiler(void);
int fr_has_openmp(void);

#endif
