/* SPDX-License-Identifier: BSD-3-Clause */
/* kernels.c -- all kernels in one translation unit, compiled once per target and dtype.
 *
 * Everything that this file includes is static, so the linker cannot merge a function
 * built with AVX-512 into another target's code.  Only the table at the end of this
 * file has a symbol.
 */
#include "fastrnn.h"
#include "target.h"
#include "simd.h"
#include "activations.h"
#include "parallel.h"
#include "pack.c"
#include "forward.c"
#include "backward.c"
#if FR_DOUBLE || FR_PAIRS /* weights of fewer bytes are for float32 as it is */
#define QUANTIZED(function) NULL
#else
#include "quantized_linear.c"
#define QUANTIZED(function) function
#endif
#include "linear.c"
#if FR_PAIRS /* its table takes from x86_v4's what has no products (dispatch.c) */
#define WITHOUT_PRODUCTS
#else
#include "fingerprint.c"
#include "peak.c"
#include "optim.c"
#include "clip.c"
#include "loss.c"
#include "embedding.c"
#include "dropout.c"

static void activation(enum fr_activation_kind f, ptrdiff_t n, const void *x, void *y)
{
    const uint64_t mode = subnormals_flush();
    for (ptrdiff_t k = 0; k < n; k += V) {
        const ptrdiff_t lanes = min_size(V, n - k);
        const vreal a = v_load_n((const real *)x + k, lanes);
        v_store_n((real *)y + k, f == FR_TANH ? v_tanh(a) : v_sigmoid(a), lanes);
    }
    subnormals_restore(mode);
}

/* clang-format off */
#define WITHOUT_PRODUCTS \
    .fingerprint = fingerprint, \
    .activation = activation, \
    .fma_peak = fma_peak, \
    .sgd = sgd, \
    .rmsprop = rmsprop, \
    .adagrad = adagrad, \
    .adam = adam, \
    .norm = norm, \
    .scale = scale, \
    .clamp = clamp, \
    .clear = clear, \
    .cross_entropy = cross_entropy, \
    .mse = mse, \
    .embedding_forward = embedding_forward, \
    .embedding_backward = embedding_backward, \
    .dropout = dropout,
/* clang-format on */
#endif

static const fr_cell *describe_cell(int index)
{
    const int n = sizeof cell_table / sizeof *cell_table;
    return index < 0 || index >= n ? NULL : &cell_table[index]->about;
}

#if FR_PAIRS
#include "agrees.c"
#else
#define pairs_agree NULL
#endif

/* clang-format off */
#define TABLE(is_half) { \
    .target = FR_STRING(FR_TARGET), \
    .dtype = FR_STRING(FR_DTYPE), \
    .lanes = (int)V, \
    .half = is_half, \
    .agrees = pairs_agree, \
    .cell = describe_cell, \
    .norm_parts = get_norm_parts, \
    .pack_forward = pack_forward, \
    .pack_backward = pack_backward, \
    .forward = forward, \
    .backward = backward, \
    .calls_at_once = calls_at_once, \
    .packed_forward_size = packed_forward_size, \
    .packed_backward_size = packed_backward_size, \
    .tape_size = tape_size, \
    .forward_work_size = forward_work_size, \
    .backward_work_size = backward_work_size, \
    .backward_block_size = backward_block_size, \
    .pack_quantized = is_half ? NULL : QUANTIZED(pack_quantized), \
    .quantized_forward = is_half ? NULL : QUANTIZED(quantized_forward), \
    .quantized_packed_size = is_half ? NULL : QUANTIZED(quantized_packed_size), \
    .quantized_work_size = is_half ? NULL : QUANTIZED(quantized_work_size), \
    .pack_quantized_linear = is_half ? NULL : QUANTIZED(pack_quantized_linear), \
    .quantized_linear = is_half ? NULL : QUANTIZED(quantized_linear), \
    .quantized_linear_packed_size = \
        is_half ? NULL : QUANTIZED(quantized_linear_packed_size), \
    .quantized_linear_work_size = \
        is_half ? NULL : QUANTIZED(quantized_linear_work_size), \
    .linear_forward = linear_forward, \
    .linear_backward = linear_backward, \
    .linear_work_size = linear_work_size, \
    WITHOUT_PRODUCTS \
}
/* clang-format on */

#if !FR_PAIRS
extern const fr_kernels FR_PASTE(fr_kernels, FR_TARGET, FR_DTYPE);
const fr_kernels FR_PASTE(fr_kernels, FR_TARGET, FR_DTYPE) = TABLE(0);
#endif
#if !FR_DOUBLE
extern const fr_kernels FR_PASTE(fr_kernels, FR_TARGET, bfloat16);
const fr_kernels FR_PASTE(fr_kernels, FR_TARGET, bfloat16) = TABLE(1);
#endif
