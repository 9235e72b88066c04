# SPDX-License-Identifier: BSD-3-Clause
"""Scenarios of native calls: layers whose weights take fewer bytes than an element."""

import numpy as np
from native_draws import GATES, options_of, ragged, threads, weight_shapes

from fastrnn.native import arrays, celltable, core, layout, memory, single, weights


def small_kernels(f, name):
    """The kernels of some target for weights of a format."""
    with core.use_isa(f.random.choice(core.SUPPORTED)):
        return core.kernels("float32", name)


def small_weights(f, shape, name):
    """A weight of a format, and the scales of its rows, or None.

    They are small: with some functions in place of a gate's, states of large weights
    would grow until nothing is left of them.
    """
    stored, values = ("b", np.arange(-127, 128)) if name == "int8" else ("H", 0x3A00)
    M = np.resize(values, shape).astype(stored) + f.array(shape, stored, 0)
    return M, f.array(shape[:-1], "f", 5e-4) if name == "int8" else None


def run_quantized_layers(f):
    """`Packer.take_packed`, and a forward of layers, or of some of their steps."""
    name, n = f.random.choice(list(core.WEIGHTS)), threads(f)
    kernels = small_kernels(f, name)
    cell, I, H = f.random.choice(("lstm", "gru", "rnn_tanh")), f.size(6), f.size(6)
    L, D, bias = f.random.randint(1, 3), f.random.randint(1, 2), f.chance(0.7)
    given = options_of(f, core.kernels("float32"), cell, H)
    options = None if given is None else celltable.CellOptions(**given)
    made = layout.Layout(cell, I, H, L, D, bias, options)
    pool, forms = memory.Pool(4), []
    packer = weights.Packer(made, pool)
    for k in range(made.n_cells):
        K = I if k < D else D * made.S
        shape = single.Shape(celltable.CELLS[cell], False, 1, 1, K, H, None, options)
        try:
            form = pool.take(4 * single.packed_size(kernels, False, shape))
        except ValueError:  # an option that has no such kernels
            return
        _, _, b_ih, b_hh, P, _ = weight_shapes(cell, K, H, H, bias, options)
        (W, W_scale), (R, R_scale) = (
            small_weights(f, (GATES[cell], H, width), name) for width in (K, H)
        )
        b_ih, b_hh, P = (
            None if one is None else f.array(one, "f") for one in (b_ih, b_hh, P)
        )
        single.pack_quantized(
            kernels, shape, W, R, W_scale, R_scale, b_ih, b_hh,
            np.frombuffer(form, "f"), P,
        )  # fmt: skip
        forms.append(form)
    use = f.make("weights.Packer.take_packed", packer.take_packed, kernels, forms)
    T, B = f.random.randint(1, 6), f.size(5)
    more = {"batch_first": f.chance(0.5), "length": f.random.choice((0, T + 2))}
    if f.chance(0.4):
        more |= {"offsets": ragged(f, T, B), "padded": f.chance(0.5)}
        more["batch_first"] &= more["padded"]
    plan = f.make("arrays.ArrayPlan", arrays.ArrayPlan, kernels, n, made, T, B, **more)
    x, y = f.array(plan.x_shape, "f"), f.array(plan.y_shape, "f", "nan")
    x = f.array(plan.length * B * I + 8, "f")
    y = f.array(plan.length * B * D * H + 8, "f", "nan")
    states = made.n_states, made.n_cells, B, H
    end = f.array(states, "f", "nan")
    args = (pool, use, x, 0, None, None, None, 0.0, y, 0, end)
    f.make("arrays.ArrayPlan.forward", plan.forward, *args, False)
    f.written("arrays.ArrayPlan.forward", True, end)
    for refused in (
        lambda: plan.forward(*args, True),
        lambda: use.make_backward(kernels, n, []),
    ):
        try:
            refused()
        except ValueError:
            f.exceptions["arrays.ArrayPlan.forward"] += 1
        else:
            raise AssertionError("there is no backward")


def run_quantized_linear(f):
    """A dense layer."""
    name, n = f.random.choice(list(core.WEIGHTS)), threads(f)
    kernels = small_kernels(f, name)
    N, I, O = f.random.randint(0, 60), f.size(), f.size()
    short = "core.Kernels"
    size = f.make(
        f"{short}.quantized_linear_packed_size", kernels.quantized_linear_packed_size,
        I, O,
    )  # fmt: skip
    packed = f.array(size, "f", "nan")
    W, scale = small_weights(f, (O, I), name)
    f.make(
        f"{short}.pack_quantized_linear", kernels.pack_quantized_linear, I, O, W, scale,
        f.random.choice((None, f.array(O, "f"))), packed,
    )  # fmt: skip
    size = f.make(
        f"{short}.quantized_linear_work_size", kernels.quantized_linear_work_size, I, n
    )
    x, y, work = f.array((N, I), "f"), f.array((N, O), "f", "nan"), f.array(size, "f")
    fitted, _ = f.call(
        f"{short}.quantized_linear", kernels.quantized_linear, n, N, I, O, x, packed, y,
        work,
    )  # fmt: skip
    f.written(f"{short}.quantized_linear", fitted, y)
