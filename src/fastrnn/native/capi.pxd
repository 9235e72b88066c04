# SPDX-License-Identifier: BSD-3-Clause
# fastrnn.h for Cython, field by field.

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "fastrnn.h" nogil:
    enum fr_activation_kind:
        FR_TANH
        FR_SIGMOID
        FR_RELU
        FR_HARD_SIGMOID
        FR_HARD_TANH
        FR_SOFTSIGN
        FR_SOFTPLUS
        FR_ELU
        FR_LEAKY_RELU
        FR_THRESHOLDED_RELU
        FR_AFFINE
        FR_SCALED_TANH
        FR_GELU
        FR_EXPONENTIAL
        FR_N_ACTIVATIONS

    ctypedef struct fr_activation:
        int kind
        double alpha, beta

    enum: FR_MOST_GATES
    enum: FR_MOST_STATES

    enum fr_norm:
        FR_NO_NORM
        FR_NORM_INPUT
        FR_NORM_APART
        FR_NORM_CELL
        FR_NORM_CARRIED
        FR_NORM_PER_GATE
        FR_NORM_JOINT

    ctypedef struct fr_cell_options:
        fr_activation gate[5]
        double clip
        int input_forget
        int peephole
        int reset_before
        int log_space
        double skip_scale
        int exp_forget
        const double *fixed_vectors
        int plain
        double zoneout_h, zoneout_c
        double recurrent_dropout
        int recurrent_mode
        double input_dropout
        double noise
        fr_norm norm
        int rms

    ctypedef struct fr_norm_parts:
        bint ih, hh, c, c_bias

    enum:
        FR_DROP_H
        FR_DROP_PER_GATE
        FR_DROP_CANDIDATE

    enum:
        FR_OPTION_ACTIVATIONS
        FR_OPTION_CLIP
        FR_OPTION_INPUT_FORGET
        FR_OPTION_PEEPHOLE
        FR_OPTION_RESET_BEFORE
        FR_OPTION_PROJECTION
        FR_OPTION_FIXED_VECTORS
        FR_OPTION_EXP_FORGET
        FR_OPTION_NOISE
        FR_OPTION_MASKS
        FR_OPTION_CANDIDATE
        FR_OPTION_HEADS
        FR_OPTION_LOG_SPACE
        FR_OPTION_SKIP_SCALE

    ctypedef struct fr_cell:
        const char *name
        const char *layer
        const char *gates
        int n_gates
        const char *states
        int n_states
        fr_activation_kind activations[4]
        int output_activation
        int bias_apart
        unsigned options
        int is_scan
        int n_biased
        int skips
        int n_vectors
        const char *vectors
        unsigned norms
        const char *paper

    ctypedef struct fr_shape:
        int cell
        int reverse
        ptrdiff_t T, B, I, H, S, heads
        const ptrdiff_t *offsets
        int padded
        const fr_cell_options *options
        ptrdiff_t level2
        int half

    ctypedef struct fr_draw:
        int on
        int cell
        uint64_t key
        int64_t first_step, first_row
        const int64_t *steps
        const int64_t *rows

    ctypedef struct fr_forward_args:
        fr_shape shape
        int n_threads
        const void *x
        ptrdiff_t x_step, x_row
        const void *packed
        const void *h0
        const void *c0
        ptrdiff_t c_step
        void *y
        ptrdiff_t y_step, y_row
        void *h_n
        void *c_n
        void *tape
        void *work
        ptrdiff_t steps_before
        fr_draw draw

    ctypedef struct fr_backward_args:
        fr_shape shape
        int n_threads
        fr_draw draw
        const void *x
        ptrdiff_t x_step, x_row
        const void *packed
        const void *h0
        const void *y
        ptrdiff_t y_step, y_row
        const void *tape
        const void *dy
        ptrdiff_t dy_step, dy_row
        const void *dh_n
        const void *dc_n
        ptrdiff_t c_step
        void *dx
        ptrdiff_t dx_step, dx_row
        int dx_accumulate
        void *dh0
        void *dc0
        void *dW
        void *dR
        void *db_ih
        void *db_hh
        void *dP
        void *dW_hr
        void *dnorm_ih
        void *dnorm_hh
        void *dnorm_c
        void *dnorm_c_bias
        double clip_value, clip_norm
        double *flow
        void *block
        int started, open
        void *work

    enum: FR_MOST_AT_ONCE

    ctypedef struct fr_pack_args:
        fr_shape shape
        int n_threads
        const void *W
        const void *R
        const void *b_ih
        const void *b_hh
        const void *P
        const void *W_hr
        const void *norm_ih
        const void *norm_hh
        const void *norm_c
        const void *norm_c_bias
        const void *forward
        void *packed

    enum:
        FR_WHOLE
        FR_INT8
        FR_TWO_BYTES
        FR_N_WEIGHTS

    ctypedef struct fr_quantized_args:
        fr_shape shape
        int kind
        const void *W
        const void *R
        const void *W_scale
        const void *R_scale
        const void *b_ih
        const void *b_hh
        const void *P
        void *packed

    ctypedef struct fr_quantized_linear_args:
        int kind, n_threads
        ptrdiff_t N, I, O
        const void *W
        const void *W_scale
        const void *b
        void *packed
        const void *x
        void *y
        void *work

    enum: FR_N_RATES
    enum: FR_N_STATE

    ctypedef struct fr_rows:
        ptrdiff_t n, width
        const int64_t *rows
        int64_t *seen
        int64_t now
        int with_gradient
        ptrdiff_t capacity
        const void *rates

    ctypedef struct fr_step:
        ptrdiff_t P
        int n_threads
        int maximize
        void *p
        const void *g
        void *state[3]
        double weight_decay
        double rates[3]
        const fr_rows *rows

    ctypedef struct fr_sgd_args:
        fr_step step
        double momentum, dampening
        int nesterov
        int first

    ctypedef struct fr_rmsprop_args:
        fr_step step
        double alpha, eps, momentum

    ctypedef struct fr_adagrad_args:
        fr_step step
        double eps

    ctypedef struct fr_adam_args:
        fr_step step
        double beta1, beta2, eps

    ctypedef struct fr_extent:
        ptrdiff_t n
        int n_threads
        ptrdiff_t n_spans
        const int64_t *spans

    ctypedef struct fr_cross_entropy_args:
        ptrdiff_t rows, classes
        int n_threads
        const void *logits
        const int64_t *targets
        int64_t ignore_index
        double weight
        void *dlogits

    ctypedef struct fr_mse_args:
        ptrdiff_t n
        int n_threads
        const void *prediction
        const void *target
        double weight
        void *dprediction

    ctypedef struct fr_embedding_args:
        ptrdiff_t n, rows, width
        int n_threads
        const int64_t *indices
        int64_t padding
        const void *weight
        void *y
        const void *dy
        void *dweight

    ctypedef struct fr_dropout_args:
        ptrdiff_t n
        int n_threads
        double p
        uint64_t seed
        ptrdiff_t block, first, stride
        const void *x
        void *y

    ctypedef struct fr_linear_args:
        int n_threads
        int half
        ptrdiff_t N, I, O
        const void *x
        const void *W
        const void *b
        void *y
        const void *dy
        void *dx
        void *dW
        void *db
        void *work

    ctypedef struct fr_kernels:
        const char *target
        const char *dtype
        int lanes
        int half
        const fr_cell *(*cell)(int index) noexcept nogil
        void (*pack_forward)(const fr_pack_args *) noexcept nogil
        void (*pack_backward)(const fr_pack_args *) noexcept nogil
        void (*forward)(const fr_forward_args *, int n, int chained) noexcept nogil
        void (*backward)(const fr_backward_args *, int n, int chained) noexcept nogil
        fr_norm_parts (*norm_parts)(const fr_cell_options *) noexcept nogil
        int (*calls_at_once)(const fr_shape *, int n_threads, int most,
                             int chained) noexcept nogil
        ptrdiff_t (*packed_forward_size)(const fr_shape *) noexcept nogil
        ptrdiff_t (*packed_backward_size)(const fr_shape *) noexcept nogil
        ptrdiff_t (*tape_size)(const fr_shape *) noexcept nogil
        ptrdiff_t (*forward_work_size)(const fr_shape *, int n_threads) noexcept nogil
        ptrdiff_t (*backward_work_size)(const fr_shape *, int n_threads) noexcept nogil
        ptrdiff_t (*backward_block_size)(const fr_shape *) noexcept nogil
        void (*pack_quantized)(const fr_quantized_args *) noexcept nogil
        void (*quantized_forward)(const fr_forward_args *, int kind) noexcept nogil
        ptrdiff_t (*quantized_packed_size)(const fr_shape *, int kind) noexcept nogil
        ptrdiff_t (*quantized_work_size)(
            const fr_shape *, int n_threads, int kind) noexcept nogil
        void (*pack_quantized_linear)(
            const fr_quantized_linear_args *) noexcept nogil
        void (*quantized_linear)(const fr_quantized_linear_args *) noexcept nogil
        ptrdiff_t (*quantized_linear_packed_size)(
            ptrdiff_t I, ptrdiff_t O, int kind) noexcept nogil
        ptrdiff_t (*quantized_linear_work_size)(
            ptrdiff_t I, int n_threads, int kind) noexcept nogil
        void (*linear_forward)(const fr_linear_args *) noexcept nogil
        void (*linear_backward)(const fr_linear_args *) noexcept nogil
        ptrdiff_t (*linear_work_size)(
            int half, int backward_pass, ptrdiff_t N, ptrdiff_t I, ptrdiff_t O,
            int n_threads) noexcept nogil
        void (*fingerprint)(
            ptrdiff_t n_bytes, const void *memory, int n_threads,
            uint32_t *result) noexcept nogil
        void (*activation)(
            fr_activation_kind f, ptrdiff_t n, const void *x, void *y) noexcept nogil
        double (*fma_peak)(int n_threads, ptrdiff_t n) noexcept nogil
        void (*sgd)(const fr_sgd_args *) noexcept nogil
        void (*rmsprop)(const fr_rmsprop_args *) noexcept nogil
        void (*adagrad)(const fr_adagrad_args *) noexcept nogil
        void (*adam)(const fr_adam_args *) noexcept nogil
        double (*norm)(const fr_extent *, const void *x, double power) noexcept nogil
        void (*scale)(const fr_extent *, void *x, double factor) noexcept nogil
        void (*clamp)(const fr_extent *, void *x, double limit) noexcept nogil
        void (*clear)(const fr_extent *, void *x) noexcept nogil
        double (*cross_entropy)(const fr_cross_entropy_args *) noexcept nogil
        double (*mse)(const fr_mse_args *) noexcept nogil
        void (*embedding_forward)(const fr_embedding_args *) noexcept nogil
        void (*embedding_backward)(const fr_embedding_args *) noexcept nogil
        void (*dropout)(const fr_dropout_args *) noexcept nogil

    enum:
        FR_TEAM_READY, FR_TEAM_NO_MEMORY, FR_TEAM_NO_THREADS, FR_TEAM_SMALL_STACK,
        FR_TEAM_SMALL_STACKS, FR_STACK

    ctypedef struct fr_team_report:
        ptrdiff_t needed, found
        int alone

    int fr_team_prepare(int n_threads, fr_team_report *report) noexcept nogil
    ptrdiff_t fr_stack_left() noexcept nogil

    ctypedef struct fr_pace:
        int n_threads, calls
        double seconds, waited, flops
    double fr_seconds() noexcept nogil
    void fr_pace_add(int n_threads, double seconds, double flops) noexcept nogil
    int fr_pace_take(double seconds, fr_pace *pace) noexcept nogil
    const double FR_FLOPS_PER_THREAD

    int fr_n_targets() noexcept nogil
    const char *fr_target_name(int i) noexcept nogil
    int fr_target_supported(int i) noexcept nogil
    int fr_target_slow(int i) noexcept nogil
    ctypedef enum fr_computing:
        FR_FLOAT32, FR_FLOAT64, FR_BFLOAT16, FR_BFLOAT16_FAST
    const fr_kernels *fr_target_kernels(int i, fr_computing) noexcept nogil
    int fr_tiles() noexcept nogil
    const char *fr_compiler() noexcept nogil
    const char *fr_threading() noexcept nogil
    ptrdiff_t fr_level2_bytes() noexcept nogil
    int fr_allowed_cpus() noexcept nogil
    int fr_openmp_max_threads() noexcept nogil
    int fr_openmp_is_shared() noexcept nogil
    int fr_openmp_processors() noexcept nogil
