/* SPDX-License-Identifier: BSD-3-Clause */
/* fastrnn.h -- everything that Cython sees of the C code: the table of cells, the
 * argument structs, the table of kernels, and which of those tables this processor can
 * run.
 *
 * There is one table of kernels for each pair of a target (a set of processor
 * instructions) and a dtype.  Arrays are `void *` here because the same struct serves
 * float32 and float64.  Sizes and strides count elements, never bytes.  Most lines of
 * this file say what a field is; they stand here and nowhere else, which is why the
 * file is long.
 *
 * Letters: T time steps, B batch rows, I inputs, H hidden units, S width of the state h
 * (H, or the width of an LSTM's projection), G gates (fr_cell says how many and in
 * which order), P parameters.  csrc/README.md explains layouts, accumulation, aliasing,
 * threads, and the words panel, pack, tape, team, call, row and slot.
 */
#ifndef FASTRNN_H
#define FASTRNN_H

#include <stddef.h>
#include <stdint.h>

/* Places a thread-local variable in memory that every thread has from its start, so
 * that the first use of the variable allocates nothing and cannot fail. */
#if defined(__GLIBC__)
#define STATIC_TLS __attribute__((tls_model("initial-exec")))
#else
#define STATIC_TLS
#endif

/* --- cells ----------------------------------------------------------------------- */

/* The activation functions of ONNX and Keras.  Some have parameters, alpha and beta:
 * hard sigmoid max(0, min(1, alpha x + beta)), ELU alpha (e^x - 1) for x < 0, leaky
 * ReLU alpha x for x < 0, thresholded ReLU x where x > alpha, affine alpha x + beta,
 * scaled tanh alpha tanh(beta x).  The exponential function is bounded where it would
 * overflow. */
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
    FR_EXPONENTIAL,
    FR_N_ACTIVATIONS
};

typedef struct {
    int kind; /* of enum fr_activation_kind */
    double alpha, beta;
} fr_activation;

#define FR_MOST_GATES 4
#define FR_MOST_STATES 4

/* Which rows a normalised cell normalises: N(row) = gamma * (row - mean) / sqrt(variance
 * + 1e-5), or with fr_cell_options.rms, gamma * row / sqrt(mean of squares + 1e-5).  Rows
 * are those of one row of the batch at one step, and have all gates side by side.  The
 * biases are added behind the norm.  csrc/kernels/norm.h has the equations. */
enum fr_norm {
    FR_NO_NORM,
    FR_NORM_INPUT,    /* N(x W) + h R */
    FR_NORM_APART,    /* N(x W) + N(h R) */
    FR_NORM_CELL,     /* that, and the output takes N(c_t) + beta in place of c_t */
    FR_NORM_CARRIED,  /* that, and N(c_t) + beta is the c_t that goes on as well */
    FR_NORM_PER_GATE, /* N(x W + h R) for each gate by itself, and FR_NORM_CARRIED's c */
    FR_NORM_JOINT,    /* N(x W + h R) */
    FR_N_NORMS
};

/* The options of a general cell.  The plain cell has none of them, and kernels of its
 * own in which none of them is looked at.  The fields that a cell knows are those that
 * its fr_cell.options lists; the others are zero. */
typedef struct {
    fr_activation gate[FR_MOST_GATES + 1]; /* of each gate in order; then that of c_t */
    double clip; /* pre-activations are brought into [-clip, clip]; 0: they are not */
    int input_forget; /* LSTM, 1: f = 1 - i, and the weights of f are not used */
    int peephole;     /* LSTM, 1: P_i and P_f multiply c_{t-1}, P_o multiplies c_t */
    int reset_before; /* GRU, 1: (r * h_{t-1}) R_n in place of r * (h_{t-1} R_n) */
    int log_space; /* MinGRU and MinLSTM, 1: the candidate is g(a), which is positive */
    double skip_scale; /* SRU: what multiplies x on its way past the cell; 0 for 1 */
    int exp_forget;    /* sLSTM, 1: f = e^a in place of sigmoid(a) */
    /* (n_vectors, H), numbers that take the place of P, which is then no parameter of
     * the cell; NULL: P is one.  The caller's, read when weights are packed. */
    const double *fixed_vectors;
    /* 1: the fields above are not looked at, since they would say what the plain cell
     * does; the fields below are. */
    int plain;
    /* Probabilities of what a call leaves out at random; see kernels/masks.h. */
    double zoneout_h, zoneout_c; /* units of h_t and c_t that keep their value */
    double recurrent_dropout;    /* what recurrent_mode says */
    int recurrent_mode;          /* of enum fr_recurrent_mode */
    double input_dropout;        /* elements of x, in all steps */
    double noise; /* leaky, of a call that draws: standard deviation of what is added to
                   * each pre-activation at each step */
    enum fr_norm norm; /* what is normalised, row by row; FR_NO_NORM: nothing is */
    int rms; /* with a norm, 1: rows keep their mean, and are divided by their RMS */
} fr_cell_options;

/* Which of the parameters of a norm a cell has: see fr_pack_args. */
typedef struct {
    int ih, hh, c, c_bias;
} fr_norm_parts;

/* What recurrent_dropout drops, the same in all steps. */
enum fr_recurrent_mode {
    FR_DROP_H,        /* elements of h_{t-1}, for all gates alike */
    FR_DROP_PER_GATE, /* elements of h_{t-1}, for each gate other ones */
    FR_DROP_CANDIDATE /* units of the candidate, that which goes into the state */
};

/* What may be asked of a cell: each option is a bit of fr_cell.options. */
enum fr_option {
    FR_OPTION_ACTIVATIONS = 1,      /* other functions than the plain cell's */
    FR_OPTION_CLIP = 2,             /* fr_cell_options.clip */
    FR_OPTION_INPUT_FORGET = 4,     /* fr_cell_options.input_forget */
    FR_OPTION_PEEPHOLE = 8,         /* fr_cell_options.peephole */
    FR_OPTION_RESET_BEFORE = 16,    /* fr_cell_options.reset_before */
    FR_OPTION_PROJECTION = 32,      /* a width S of h that is smaller than H */
    FR_OPTION_HEADS = 64,           /* fr_shape.heads */
    FR_OPTION_LOG_SPACE = 128,      /* fr_cell_options.log_space */
    FR_OPTION_SKIP_SCALE = 256,     /* fr_cell_options.skip_scale */
    FR_OPTION_MASKS = 1024,         /* zoneout, dropout of h_{t-1} and of x */
    FR_OPTION_CANDIDATE = 2048,     /* FR_DROP_CANDIDATE */
    FR_OPTION_FIXED_VECTORS = 4096, /* fr_cell_options.fixed_vectors */
    FR_OPTION_EXP_FORGET = 8192,    /* fr_cell_options.exp_forget */
    FR_OPTION_NOISE = 16384         /* fr_cell_options.noise */
};

/* What a cell is, for everybody who has to know: an entry of the table of cells, which
 * kernels/cells.h lists and fr_kernels.cell() reads.  fr_shape.cell is an index into
 * that table.  A cell's gates are counted from 0, in the order of their parts in W, in
 * R and in the biases. */
typedef struct {
    const char *name;  /* of the cell, for example "lstm" */
    const char *layer; /* the name of the class of layers made of it, "LSTM" */
    const char *gates; /* a letter for each gate, with spaces between, "i f g o" */
    int n_gates;       /* G, from 1 to FR_MOST_GATES */
    /* A letter for each array of the state, of at most FR_MOST_STATES, with spaces
     * between, "h c": h first, which is what the cell puts out.  c stands for all the
     * others wherever a field's name has a c in it. */
    const char *states;
    int n_states;
    enum fr_activation_kind activations[FR_MOST_GATES]; /* the plain cell's, by gate */
    int output_activation; /* the plain cell's function of c_t; -1: it has none */
    /* The gate whose b_hh the plain cell does not simply add to its b_ih; -1: none. */
    int bias_apart;
    unsigned options; /* bits of enum fr_option: what the cell knows */
    /* 1: the recurrence is elementwise.  The cell has no R, and a single bias, b_ih. */
    int is_scan;
    /* Gates, the first ones, that have a bias; 0 where all gates have. */
    int n_biased;
    /* 1: the last gate of x W takes the place of x itself where x is not H wide, and
     * the cell does not have that gate where it is. */
    int skips;
    /* Weights that multiply unit by unit, each a vector of H numbers: how many rows P
     * has, and the parameter's name in a layer.  A cell that knows FR_OPTION_PEEPHOLE
     * has them where that is asked for; any other cell always has them, be it as
     * parameters or as fr_cell_options.fixed_vectors. */
    int n_vectors;
    const char *vectors;
    unsigned norms;    /* bits 1 << n for each n of enum fr_norm that the cell knows */
    const char *paper; /* the publication that introduced the cell */
} fr_cell;

/* --- recurrent calls -------------------------------------------------------------- */

/* What a recurrent call works on.
 *
 * A time-batch array is one with a part for each time step t and row b.  Where
 * `offsets` is NULL all B rows are active in all T steps, and element (t, b) of such an
 * array begins t * step + b * row elements from its start.  With `offsets` the batch is
 * ragged: its rows are sorted by length, the longest first, and step t has offsets[t +
 * 1] - offsets[t] active rows, the first ones.  Then arrays hold active rows only
 * (PyTorch's PackedSequence), and element (t, b) begins at (offsets[t] + b) * row;
 * unless `padded` is set, when arrays have room for all B rows of each step, and
 * element (t, b) begins where it would in a dense batch.  Rows of a padded array that
 * are not active are not read in x and dy, and are set to zero in y, and in dx unless
 * dx is accumulated. */
typedef struct {
    int cell;    /* index into the table of cells */
    int reverse; /* 1: time runs from the last step to the first */
    ptrdiff_t T, B, I, H;
    ptrdiff_t S; /* width of h: H, or less for a cell with a projection */
    /* The units of each gate are in so many heads of H / heads units, and R takes the h
     * of a head to the gates of the same head only.  0 is 1: all to all. */
    ptrdiff_t heads;
    /* (T + 1,), or NULL for a dense batch; the caller's, read during the call. */
    const ptrdiff_t *offsets;
    int padded; /* 1, with offsets only: arrays have room for all B rows */
    /* NULL for the plain cell; the caller's, read during the call. */
    const fr_cell_options *options;
    /* Bytes of level-2 cache that each thread has, or 0 where that is not known.  They
     * decide what threads share, never a result. */
    ptrdiff_t level2;
    /* 1: the operands of products are rounded to bfloat16 (kernels/half.h); what
     * fr_kernels.half says of the table that is called.  Packs are others then. */
    int half;
} fr_shape;

/* Where the random choices of a call come from: draw.h makes numbers of these.
 *
 * A caller's sequences are steps by rows.  A call may have some of them, in another
 * order, so it is told the numbers that the caller gave them: time t has step
 * first_step + t, and row b is row first_row + b, unless there are arrays. */
typedef struct {
    int on;       /* 1: choices are made; 0: they have their expectations */
    int cell;     /* the number of the cell in its layer, by layers and directions */
    uint64_t key; /* of the layer's call */
    int64_t first_step, first_row;
    /* With offsets that are not padded, the step of element (t, b) at offsets[t] + b;
     * NULL: first_step + t for all rows. */
    const int64_t *steps;
    const int64_t *rows; /* (B,), the rows; NULL: first_row + b */
} fr_draw;

/* A forward call.
 *
 * Every array belongs to the caller, before the call and after it: a kernel keeps no
 * address.  A field may be NULL only where its comment says so.  An array that is only
 * read may be used by several calls at once.  What "until backward" means: the backward
 * call of this forward call reads the array, so that nobody may change it before. */
typedef struct {
    fr_shape shape;
    int n_threads; /* >= 1, most threads that the call may use */

    /* (T, B, I), a time-batch array, read; to be kept until backward. */
    const void *x;
    ptrdiff_t x_step, x_row; /* elements between time steps, and between rows */
    /* packed_forward_size() elements, written by pack_forward() of the same target,
     * read. Many calls may use one pack.  It may be overwritten when the call has
     * returned: backward reads a pack of its own. */
    const void *packed;
    /* (B, S), contiguous, the state before the first step, read; to be kept until
     * backward. */
    const void *h0;
    /* The same of the other states, read: an array (B, H), contiguous, for each, with
     * c_step elements between the beginnings of two arrays.  NULL for a cell with one
     * state. */
    const void *c0;
    ptrdiff_t c_step; /* of c0 and c_n; any number where there is one other state */
    /* (T, B, S), a time-batch array, written: h_t of every step.  It may overlap
     * nothing else.  To be kept until backward, which takes h_{t-1} from it. */
    void *y;
    ptrdiff_t y_step, y_row;
    /* (B, S), contiguous, written: the state after each row's last step.  May be h0
     * itself, where no backward follows. */
    void *h_n;
    /* Written: the same of the other states, arranged as c0 is.  May be c0 itself, which
     * backward does not read.  NULL for a cell with one state. */
    void *c_n;
    /* tape_size() elements, written: what backward needs besides x, y and h0.  Room for
     * it need not be cleared; the content is to be kept until backward.  NULL in
     * inference, where no backward follows, and only there. */
    void *tape;
    /* forward_work_size() elements of scratch, which need not be cleared, at a multiple
     * of 8 bytes and for speed from the start of a cache line.  Free for another use
     * when the call has returned; calls that run at the same time need one each. */
    void *work;
    /* Steps that were gone through with this pack before, by a caller who goes through a
     * sequence step by step; else 0.  Every other step reads the pack from its end,
     * which the step before has left in the caches.  No result depends on it. */
    ptrdiff_t steps_before;
    fr_draw draw;
} fr_forward_args;

/* A backward call, which goes back through the steps of one forward call.
 *
 * What fr_forward_args says of owners, NULL and arrays that are read holds here, too.
 * Gradients of parameters are added to what their arrays hold; all other gradients are
 * written over what was there. */
typedef struct {
    fr_shape shape; /* that of the forward call */
    int n_threads;  /* >= 1, most threads that the call may use */
    fr_draw draw;   /* that of the forward call */

    /* (T, B, I), what the forward call read.  It is read for dW only. */
    const void *x;
    ptrdiff_t x_step, x_row;
    /* packed_backward_size() elements, written by pack_backward() of the same target
     * from the weights of the forward call, read.  Many calls may use one pack. */
    const void *packed;
    const void *h0; /* (B, S), contiguous, what the forward call read */
    const void *y;  /* (T, B, S), what the forward call wrote */
    ptrdiff_t y_step, y_row;
    /* tape_size() elements, what the forward call wrote.  The content is still there
     * when the call has returned, so that a second backward can read it. */
    const void *tape;
    /* (T, B, S), a time-batch array, read: gradient of the loss with respect to y.
     * NULL stands for zero. */
    const void *dy;
    ptrdiff_t dy_step, dy_row;
    /* (B, S), contiguous, read: gradient with respect to h_n.  NULL stands for zero. */
    const void *dh_n;
    /* Read: gradient with respect to c_n, arranged like that, with c_step elements
     * between the beginnings of two arrays.  NULL stands for zero, and is what a cell
     * with one state has. */
    const void *dc_n;
    ptrdiff_t c_step; /* of dc_n and dc0; see fr_forward_args */
    /* (T, B, I), a time-batch array: gradient with respect to x, overwritten unless
     * dx_accumulate is set.  NULL: it is not wanted, and not computed. */
    void *dx;
    ptrdiff_t dx_step, dx_row;
    /* 1: dx is added to what its array holds, as for the second direction of a
     * bidirectional layer, which has the same x as the first. */
    int dx_accumulate;
    /* (B, S), contiguous, overwritten: gradient with respect to h0.  May be dh_n
     * itself, which is read before. */
    void *dh0;
    /* Overwritten: gradient with respect to c0, arranged as dc_n is.  May be dc_n
     * itself.  NULL for a cell with one state. */
    void *dc0;

    /* Gradients of the parameters, contiguous, added to.  Each may be NULL: it is not
     * wanted, and as far as nothing else needs it, not computed.  Calls that run at the
     * same time need arrays of their own. */
    void *dW;    /* (G, H, I) */
    void *dR;    /* (G, H, S), or (G, H, H / heads); NULL for a cell without R */
    void *db_ih; /* (G, H) */
    void *db_hh; /* (G, H); NULL for a cell without R */
    void *dP;    /* (n_vectors, H); NULL for a cell without such weights */
    void *dW_hr; /* (S, H); NULL for a cell without a projection */
    /* Of the parameters of a norm, see fr_pack_args. */
    void *dnorm_ih;     /* (G, H) */
    void *dnorm_hh;     /* (G, H) */
    void *dnorm_c;      /* (H,) */
    void *dnorm_c_bias; /* (H,) */

    /* Bounds on the gradient of the loss with respect to each row of h_t, which hold
     * before that gradient goes back through the cell: on the absolute value of every
     * element, and on the row's norm.  0: no bound. */
    double clip_value, clip_norm;
    /* (T, B), contiguous, written: the squared norms of those gradients before they are
     * bounded.  NULL: they are not wanted. */
    double *flow;

    /* A long sequence may be gone through in several calls, of which the first has the
     * last steps.  The gradients of parameters then get the bits of one call by way of
     * `block`: backward_block_size() elements, laid out like a workspace, which the
     * calls hand on, and which nobody else may change between the first and the last of
     * them.  It has the rows of the block that a call could not complete, and the sums
     * for the biases.  Its content means nothing after the last call.  NULL for a call
     * alone, with both flags 0.  B, I, the cell and the gradients that are wanted are
     * the same in all of the calls. */
    void *block;
    int started; /* 1: `block` holds what the call before has left */
    /* 1: another call follows, with the steps before those of this call.  The last one,
     * for which this is 0, adds what is in `block` to the gradients. */
    int open;
    /* backward_work_size() elements of scratch; see fr_forward_args.work. */
    void *work;
} fr_backward_args;

/* Most calls that may run at once, see fr_kernels.forward: running more layers of a
 * stack at once would hardly ever pay. */
#define FR_MOST_AT_ONCE 8

/* Packing: weights as PyTorch stores them are brought into a private form, the pack,
 * which is what forward and backward read.  All arrays are contiguous, belong to the
 * caller and, but for `packed`, are only read; nobody needs them for the pack when the
 * call has returned. */
typedef struct {
    fr_shape shape; /* only cell, I, H, S, heads and options are looked at */
    int n_threads;
    const void *W;    /* (G, H, I); may be NULL where `forward` is given */
    const void *R;    /* (G, H, S), or (G, H, H / heads), likewise; NULL without R */
    const void *b_ih; /* (G, H), or NULL for zero; backward needs no biases */
    /* (G, H), or NULL for zero; NULL where b_ih is and for a cell without R, and only
     * there. */
    const void *b_hh;
    const void *P;    /* (n_vectors, H); NULL for a cell without such weights */
    const void *W_hr; /* (S, H); NULL for a cell without a projection */
    /* The parameters of a norm (enum fr_norm), each NULL where there is none. */
    const void *norm_ih;     /* (G, H), gamma of x W, or of x W + h R */
    const void *norm_hh;     /* (G, H), gamma of a norm of h R alone */
    const void *norm_c;      /* (H,), gamma of c_t */
    const void *norm_c_bias; /* (H,), beta of c_t; there is none with `rms` */
    /* pack_backward() only: a forward pack, from which the weights are taken in place
     * of the arrays above.  NULL: they are taken from the arrays. */
    const void *forward;
    /* packed_forward_size() or packed_backward_size() elements, written, from the start
     * of a cache line for speed.  May not overlap `forward`. */
    void *packed;
} fr_pack_args;

/* Weights in fewer bytes than an element has, for inference in float32.  A cell may
 * have options, but no projection, late gate, heads, norm, zoneout, and no random
 * choices. */
enum fr_weights {
    FR_WHOLE,     /* weights are elements, and calls are those above */
    FR_INT8,      /* bytes from -127 to 127, times a scale for each row of W or R */
    FR_TWO_BYTES, /* the upper halves of float32 numbers */
    FR_N_WEIGHTS
};

/* What fr_pack_args is to pack_forward().  All arrays are contiguous and only read, but
 * for `packed`. */
typedef struct {
    fr_shape shape;      /* only cell, I, H, S and options are looked at */
    int kind;            /* of enum fr_weights, not FR_WHOLE */
    const void *W, *R;   /* (G, H, I) and (G, H, H), of one byte or of two */
    const void *W_scale; /* (G, H); NULL but for FR_INT8 */
    const void *R_scale; /* likewise */
    const void *b_ih;    /* (G, H), or NULL for zero */
    const void *b_hh;    /* likewise; NULL where b_ih is, and only there */
    const void *P;       /* (n_vectors, H); NULL for a cell without such weights */
    void *packed;        /* quantized_packed_size() elements, written */
} fr_quantized_args;

/* y = x W^T + b with such weights; arrays are contiguous.  `packed` is written by
 * pack_quantized_linear() and read by quantized_linear(). */
typedef struct {
    int kind, n_threads;
    ptrdiff_t N, I, O;
    /* pack_quantized_linear() only: */
    const void *W;       /* (O, I), of one byte or of two */
    const void *W_scale; /* (O,); NULL but for FR_INT8 */
    const void *b;       /* (O,), or NULL for zero */
    void *packed;        /* quantized_linear_packed_size() elements */
    /* quantized_linear() only: */
    const void *x; /* (N, I) */
    void *y;       /* (N, O), written */
    void *work;    /* quantized_linear_work_size() elements of scratch */
} fr_quantized_linear_args;

/* --- optimisers, losses and other layers ------------------------------------------ */

/* Some rows of a table of parameters, such as an embedding's, of which an optimiser
 * computes all steps only when somebody needs the row.  Row r has taken seen[r] steps,
 * and is to have taken `now` steps afterwards.  In the steps that a row has missed its
 * gradient was zero; in the last of them it is g, if with_gradient is set. */
#define FR_N_RATES 3
typedef struct {
    ptrdiff_t n, width;  /* rows to be brought forward; elements in a row */
    const int64_t *rows; /* (n,), which rows: ascending, each once */
    int64_t *seen;       /* (rows of the table,); becomes `now` for those n rows */
    int64_t now;         /* no row has missed more than `capacity` steps */
    int with_gradient;
    ptrdiff_t capacity;
    const void *rates; /* (capacity, FR_N_RATES); those of step t are at t % capacity */
} fr_rows;

/* One step of an optimiser over P parameters; g is only read.  With `rows`, instead,
 * all steps that those rows of the parameters have missed. */
#define FR_N_STATE 3
typedef struct {
    ptrdiff_t P;
    int n_threads;
    int maximize;            /* 1: ascend */
    void *p;                 /* (P,), updated */
    const void *g;           /* (P,) */
    void *state[FR_N_STATE]; /* (P,) each, or NULL; each optimiser says what they are */
    double weight_decay;     /* times p, it is added to the gradient */
    double rates[FR_N_RATES]; /* what changes from step to step, said there too */
    const fr_rows *rows;      /* NULL: all parameters take one step */
} fr_step;

typedef struct {
    fr_step step; /* state: buffer, NULL without momentum; rates: lr */
    double momentum, dampening;
    int nesterov;
    int first; /* 1: this is the first step, and the buffer has no value yet */
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

/* A flat buffer of n elements, of which only those in the spans are read or written.
 * The other elements are zero, and the operation would leave them zero. */
typedef struct {
    ptrdiff_t n;
    int n_threads;
    ptrdiff_t n_spans;
    const int64_t *spans; /* (n_spans, 2): begin and end, ascending; NULL: all of n */
} fr_extent;

/* A loss returns `weight` times a sum over the rows or elements, and writes the
 * gradient of that over what was in its array. */
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
    const int64_t *indices; /* (n,) in [0, rows); forward: -1 for a row of zeros */
    int64_t padding;        /* backward leaves this index out; -1 for none */
    const void *weight;     /* (rows, width), forward */
    void *y;                /* (n, width), forward */
    const void *dy;         /* (n, width), backward */
    void *dweight;          /* (rows, width), backward, accumulated */
} fr_embedding_args;

/* x may be part of a larger array, some rows of each of its steps, say: `block` elements
 * beside one another, the first of all being element `first` of the larger array, and
 * the next block `stride` elements further on.  Choices are those of the larger array.
 * An array that is no part of another has block n, and first 0. */
typedef struct {
    ptrdiff_t n;
    int n_threads;
    double p; /* in [0, 1] */
    uint64_t seed;
    ptrdiff_t block, first, stride; /* block > 0 where n > 0 */
    const void *x;                  /* (n,) */
    void *y;                        /* (n,), may be x */
} fr_dropout_args;

/* A fully connected layer: forward reads x, W and b and writes y, backward reads x, W
 * and dy and computes dx, dW and db. */
typedef struct {
    int n_threads;
    int half; /* see fr_shape.half: x, W and dy are rounded */
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
    const char *dtype; /* "float32" or "float64", of arrays */
    int lanes;         /* elements in a vector */
    int half; /* 1: the table for operands of bfloat16; fr_shape.half must be that */
    /* Whether this processor computes as the other tables do; NULL: it does. */
    int (*agrees)(void);

    /* Entry `index` of the table of cells, the same in every fr_kernels; NULL where the
     * table has no such entry. */
    const fr_cell *(*cell)(int index);
    /* Which parameters of a norm such options ask for; NULL is the plain cell. */
    fr_norm_parts (*norm_parts)(const fr_cell_options *);

    void (*pack_forward)(const fr_pack_args *);
    void (*pack_backward)(const fr_pack_args *);
    /* One call (n = 1), or n calls that may run at once, whose shapes differ in I and
     * reverse at most. Two calls that are not chained are the directions of one layer;
     * in backward a[1].dx is then scratch laid out like a[0].dx, and is added to
     * a[0].dx in the end.  Chained calls are layers of a stack, in the order in which
     * they run: x of each call but the first is y of the call before, or in backward,
     * dy of each but the first is dx of the call before. */
    void (*forward)(const fr_forward_args *a, int n, int chained);
    void (*backward)(const fr_backward_args *a, int n, int chained);
    /* The caller has `most` calls of this shape to run on n_threads threads.  The
     * result, from 1 to FR_MOST_AT_ONCE, is how many of them run fastest at once. */
    int (*calls_at_once)(const fr_shape *, int n_threads, int most, int chained);
    ptrdiff_t (*packed_forward_size)(const fr_shape *);
    ptrdiff_t (*packed_backward_size)(const fr_shape *);
    ptrdiff_t (*tape_size)(const fr_shape *);
    ptrdiff_t (*forward_work_size)(const fr_shape *, int n_threads);
    ptrdiff_t (*backward_work_size)(const fr_shape *, int n_threads);
    ptrdiff_t (*backward_block_size)(const fr_shape *);

    /* In inference, with weights of fewer bytes: NULL for float64.  quantized_forward()
     * is like forward(), of one call. */
    void (*pack_quantized)(const fr_quantized_args *);
    void (*quantized_forward)(const fr_forward_args *, int kind);
    ptrdiff_t (*quantized_packed_size)(const fr_shape *, int kind);
    ptrdiff_t (*quantized_work_size)(const fr_shape *, int n_threads, int kind);

    void (*pack_quantized_linear)(const fr_quantized_linear_args *);
    void (*quantized_linear)(const fr_quantized_linear_args *);
    ptrdiff_t (*quantized_linear_packed_size)(ptrdiff_t I, ptrdiff_t O, int kind);
    ptrdiff_t (*quantized_linear_work_size)(ptrdiff_t I, int n_threads, int kind);

    void (*linear_forward)(const fr_linear_args *);
    void (*linear_backward)(const fr_linear_args *);
    ptrdiff_t (*linear_work_size)(int half, int backward_pass, ptrdiff_t N, ptrdiff_t I,
                                  ptrdiff_t O, int n_threads);

    /* Writes 64 words to `result` that are others when the bytes of the memory are
     * others; fingerprint.c says how surely. */
    void (*fingerprint)(ptrdiff_t n_bytes, const void *memory, int n_threads,
                        uint32_t *result);

    /* y = f(x) for n elements, by the code that the plain cells run; f is the sigmoid
     * or tanh.  For the test that counts units in the last place. */
    void (*activation)(enum fr_activation_kind f, ptrdiff_t n, const void *x, void *y);

    /* Runs n rounds of fused multiply-adds in registers on n_threads threads, and
     * returns how many floating-point operations those were. */
    double (*fma_peak)(int n_threads, ptrdiff_t n);

    void (*sgd)(const fr_sgd_args *);
    void (*rmsprop)(const fr_rmsprop_args *);
    void (*adagrad)(const fr_adagrad_args *);
    void (*adam)(const fr_adam_args *);
    /* norm() returns (sum |x|^power)^(1/power) for a power > 0 or infinite; scale()
     * multiplies x by a factor, clamp() brings it into [-limit, limit], clear() sets it
     * to zero. */
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

/* --- threads and targets --------------------------------------------------------- */

/* team.c: the caller of a kernel asks fr_team_prepare() first whether calls with so
 * many threads can be made, and on the stack that is left.  Kernels ask fr_team_size()
 * how many threads the team that they are about to form can have; the answer is 1 where
 * there is no memory for more. */
enum {
    FR_TEAM_READY,
    FR_TEAM_NO_MEMORY,
    FR_TEAM_NO_THREADS,
    FR_TEAM_SMALL_STACK, /* the calling thread has too little stack left */
    FR_TEAM_SMALL_STACKS /* the threads that OpenMP makes have too little stack */
};
typedef struct {
    ptrdiff_t needed, found; /* bytes of stack */
    int alone; /* calls since the last report that ran alone for want of memory */
} fr_team_report;
int fr_team_prepare(int n_threads, fr_team_report *report);
/* Bytes left on the calling thread's stack; PTRDIFF_MAX where nobody can tell. */
ptrdiff_t fr_stack_left(void);
int fr_team_size(int n_threads);
/* Processors that OpenMP has for its threads, 0 without OpenMP.  Where the environment
 * asks for bound threads, the calling thread is bound to some of them alone. */
int fr_openmp_processors(void);

/* pool.c, in builds with FR_POOL: the threads of the calling thread's pool, itself
 * included, and a larger pool, as one of the FR_TEAM_ results.  fr_pool_run() calls
 * member(rank, n_threads, data) on each of n_threads threads that the pool has, rank 0
 * on the calling thread, and returns when all have returned, with the seconds that the
 * calling thread waited for the others. */
int fr_pool_size(void);
int fr_pool_grow(int n_threads);
double fr_pool_run(int n_threads, void (*member)(int rank, int size, void *data),
                   void *data);

/* wait.c: sleeps until fr_wake_word() is called, unless the word has another value than
 * that already.  May return before.  fr_yield() lets another thread run first. */
void fr_wait_on_word(_Atomic int *word, int value);
void fr_wake_word(_Atomic int *word);
void fr_yield(void);

/* machine.c: what the system tells of the processors.  Bytes of level-2 cache that each
 * has for itself, and how many this process may use; 0 where it does not tell, or
 * Python can read it from files. */
ptrdiff_t fr_level2_bytes(void);
int fr_allowed_cpus(void);

/* pace.c: what calls take.  Kernels tell how many of a call's seconds the calling
 * thread waited for the threads of its team; the caller tells how long the call took,
 * on at most so many threads, and how much arithmetic it did.  Both are added up for
 * the calling thread, until fr_pace_take() hands the sums over. */
typedef struct {
    int n_threads; /* that all of these calls were allowed to use */
    int calls;
    double seconds, waited;
    double flops;
} fr_pace;
double fr_seconds(void); /* on the clock, since some moment */
void fr_team_waited(double seconds);
void fr_pace_add(int n_threads, double seconds, double flops);
/* Sets *pace to the sums if they are of that many seconds or more, and begins anew.
 * Returns whether they are. */
int fr_pace_take(double seconds, fr_pace *pace);

/* A thread that has less arithmetic than this costs more time than it saves. */
#define FR_FLOPS_PER_THREAD 400000.0

/* The most bytes of stack that a kernel uses, not counting its caller's frame;
 * csrc/README.md says how that was measured. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FR_STACK (64 << 10)
#else
#define FR_STACK (8 << 10)
#endif

/* amx.c: which products this process may take on the tiles of AMX; 0 for none.  The
 * first call asks the system for the tiles. */
enum { FR_TILES_INT8 = 1, FR_TILES_BF16 = 2 };
int fr_tiles(void);
/* Bytes of stack that a signal takes more once the process has the tiles. */
ptrdiff_t fr_tile_frame(void);

/* dispatch.c: the targets that were built, the fastest first, and whether this
 * processor can run target i. */
int fr_n_targets(void);
const char *fr_target_name(int i);
int fr_target_supported(int i);
/* Whether a later target with the same bits is faster here. */
int fr_target_slow(int i);
enum fr_computing {
    FR_FLOAT32,
    FR_FLOAT64,
    FR_BFLOAT16, /* float32, with the operands of products rounded: fr_shape.half */
    /* The same with sums in the order that is the fastest here: AMX's table where there
     * is one and the processor and the system let the process have it, and the table of
     * FR_BFLOAT16 elsewhere. */
    FR_BFLOAT16_FAST
};
const fr_kernels *fr_target_kernels(int i, enum fr_computing);
const char *fr_compiler(void);
/* Whose threads run the teams: "OpenMP", "fastrnn" (pool.c), or "" where none do. */
const char *fr_threading(void);
/* Threads that a parallel region of the calling thread gets which asks for no number;
 * INT_MAX without OpenMP. */
int fr_openmp_max_threads(void);

/* runtime.c: whether another library in this process needs the same OpenMP runtime. */
int fr_openmp_is_shared(void);

#endif
