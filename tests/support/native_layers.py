# SPDX-License-Identifier: BSD-3-Clause
"""Scenarios of native calls: layers over NumPy's arrays and over tensors."""

import math

from native_draws import (
    GATES,
    N_STATES,
    TABLES,
    draw_of,
    kind_of,
    norm_shapes,
    options_of,
    ragged,
    threads,
    weight_shapes,
)
from native_fuzz import Tensor

from fastrnn.native import arrays, celltable, layout, memory, tensors, weights


def layout_of(f, may_merge=True):
    """A `Layout`, and what it was made of."""
    cell, I, H = f.random.choice(list(GATES)), f.size(6), f.size(6)
    L, D = f.random.randint(1, 3), f.random.randint(1, 2)
    given = options_of(f, cell, H)
    options = None if given is None else celltable.CellOptions(**given)
    merged = may_merge and D == 2 and f.chance(0.2)
    made = f.make(
        "layout.Layout", layout.Layout, cell, I, H, L, D, f.chance(0.7), options,
        merged,
    )  # fmt: skip
    f.call("layout.Layout.__reduce__", made.__reduce__)
    return made, cell, options


def n_parameters(layout, cell, options, bias):
    """Parameters of all cells."""
    H, S, n = layout.H, layout.S, 0
    for k in range(layout.n_cells):
        inputs = S if layout.merged else layout.n_directions * S
        inputs = layout.I if k < layout.n_directions else inputs
        shapes = weight_shapes(cell, inputs, H, S, bias, options)
        shapes += norm_shapes(cell, H, options).values()
        n += sum(math.prod(shape) for shape in shapes if shape is not None)
    return n


def run_arrays(f):
    """`Packer`, `ArrayPlan`: NumPy's layers."""
    kernels, n = f.random.choice(TABLES), threads(f)
    kind = kind_of(kernels)
    layout, cell, options = layout_of(f)
    bias, start = layout.__reduce__()[1][5], f.random.choice((0, 3))
    pool = f.make("memory.Pool", memory.Pool, f.random.randint(0, 4))
    f.call("memory.Pool.__reduce__", pool.__reduce__)
    packer = f.make("weights.Packer", weights.Packer, layout, pool)
    size = start + n_parameters(layout, cell, options, bias)
    parameters, grads = f.array(size, kind), f.array(size, kind, 0)
    f.call("weights.Packer.__reduce__", packer.__reduce__)
    given = (kernels, n, parameters, start, True)
    for _ in range(2):  # the second time nothing is packed
        use = f.make("weights.Packer.take", packer.take, *given)
    assert len(packer.current) == layout.n_cells
    if f.chance(0.5):
        f.call("weights.Use.keep_forward", use.keep_forward)

    T, B = f.random.randint(1, 6), f.size(5)
    more = {"batch_first": f.chance(0.5), "length": f.random.choice((0, T + 2))}
    if layout.merged or f.chance(0.3):  # one cell
        more |= {"first": f.random.randrange(layout.n_cells), "n_cells": 1}
        more["y_inside"] = f.chance(0.5)
    if f.chance(0.4):
        more |= {"offsets": ragged(f, T, B), "padded": f.chance(0.5)}
        more["batch_first"] &= more["padded"]
    plan = f.make(
        "arrays.ArrayPlan", arrays.ArrayPlan, kernels, n, layout, T, B, **more
    )
    part = plan
    if plan.offsets is not None:
        begin = f.random.randrange(T)
        which = more.get("first", 0), more.get("n_cells", 0)
        part = f.make("arrays.ArrayPlan.part", plan.part, begin, T, *which, n, False)
        assert part.T + begin == T
    n_cells = 1 if "n_cells" in more else layout.n_cells
    states, B, H = (n_cells, B, layout.H), plan.B, layout.H
    width, beside_h = layout.n_directions * layout.S, N_STATES[cell] - 1
    x = f.array(plan.x_shape, kind)
    x_end = plan.length * B * plan.x_shape[-1] + 8
    y_end = plan.length * B * width + 8
    f.call("arrays.ArrayPlan.fits", plan.fits, kernels, n, plan.batch_first, x)
    x, y = f.array(x_end, kind), f.array(y_end, kind, "nan")
    dy, dx = f.array(y_end, kind), f.array(x_end, kind, 0)
    f.call("arrays.ArrayPlan.takes_dy", plan.takes_dy, dy)
    h0 = f.random.choice((None, f.array(states, kind)))
    others = (beside_h, *states)
    c0 = f.random.choice((None, f.array(others, kind))) if beside_h else None
    inner = (layout.n_layers if n_cells > 1 or "n_cells" not in more else 1) - 1
    seeds = f.array(inner, "q", range(1, 9)) if f.chance(0.3) else None
    own_y, end = f.chance(0.3), f.array((1 + beside_h, *states), kind, "nan")
    given_y, x_at, y_at = None if own_y else y, *f.random.choices((0, 2), k=2)
    forward = (pool, use, x, x_at, h0, c0, seeds, 0.5, given_y, y_at, end)
    assert plan.keeps in (True, False)
    assert plan.inner_shape
    active = plan.offsets is not None and not plan.padded
    draw = draw_of(f, B, int(plan.offsets[-1]) if active else None)
    fitted, _ = f.call("arrays.ArrayPlan.forward", plan.forward, *forward, own_y, draw)
    f.written("arrays.ArrayPlan.forward", fitted, *[end] * (layout.S == H))
    f.call("memory.Pool.take", pool.take, f.random.randint(0, 4096))
    f.call("memory.Pool.array", pool.array, f.random.randint(0, 4096), "float32")
    kept = f.make("arrays.ArrayPlan.forward", plan.forward, *forward, True, draw)
    gradient = f.random.choice((None, f.array(states, kind)))
    block, open_ = None, False
    if f.chance(0.4):
        block = f.make("arrays.ArrayPlan.take_block", plan.take_block, pool)
        open_ = f.chance(0.5)
    flow, flow_at = None, f.random.choice((0, 3))
    if f.chance(0.3):
        flow = f.array(n_cells * plan.length * B + 3, "d", 0)
    d_start = f.array((1 + beside_h, *states), kind, "nan")
    dc_n = f.random.choice((None, f.array(others, kind))) if beside_h else None
    fitted, _ = f.call(
        "arrays.ArrayPlan.backward", plan.backward, pool, use, kept, x, x_at, seeds,
        0.5, given_y, y_at, f.random.choice((None, dy)), gradient,
        dc_n, dx, d_start, grads, start, block, open_,
        flow, flow_at, draw,
    )  # fmt: skip
    f.written("arrays.ArrayPlan.backward", fitted, *[d_start] * (layout.S == H))
    # The forward form may have gone; that has to be an exception, not a crash.
    try:
        part.forward(*forward, True, draw)
        f.results["arrays.ArrayPlan.forward"] += 1
    except ValueError:
        f.exceptions["arrays.ArrayPlan.forward"] += 1
    f.look("arrays.ArrayPlan.forward")


def run_tensors(f):
    """`Packer`, `TensorPlan`: layers over another library's tensors, or its arrays."""
    kernels, n = f.random.choice(TABLES), threads(f)
    kind = kind_of(kernels)
    layout, cell, options = layout_of(f, may_merge=False)
    tensor = f.random.choice((Tensor, lambda array: array))
    bias, H, S = layout.__reduce__()[1][5], layout.H, layout.S
    D, L, has_c = layout.n_directions, layout.n_layers, N_STATES[cell] > 1
    shapes = []
    for k in range(layout.n_cells):
        I = layout.I if k < D else D * S
        *found, P, W_hr = weight_shapes(cell, I, H, S, bias, options)
        of_norm = norm_shapes(cell, H, options).values()
        shapes += [s for s in (*found, W_hr, P, *of_norm) if s is not None]
    held = [tensor(f.array(shape, kind)) for shape in shapes]
    versions = f.random.choice((None, [-1] * len(held), [0] * len(held)))
    pool = memory.Pool(4)
    packer = f.make("weights.Packer", weights.Packer, layout, pool)
    training = f.chance(0.8)
    use = f.make(
        "weights.Packer.take_tensors", packer.take_tensors, kernels, n, held, versions,
        True, training,
    )  # fmt: skip
    assert len(packer.current) == layout.n_cells
    T, B = f.random.randint(1, 6), f.size(5)
    offsets = ragged(f, T, B) if f.chance(0.4) else None
    rows = T * B if offsets is None else int(offsets[-1])
    draw = draw_of(f, B, None if offsets is None else rows)
    plan = f.make(
        "tensors.TensorPlan", tensors.TensorPlan, kernels, layout, T, B, offsets
    )
    f.make("tensors.TensorPlan.layers_at_once", plan.layers_at_once, n)
    batch_first = offsets is None and f.chance(0.5)

    def sequence(width, fill="normal", first=False):
        if offsets is not None:
            return tensor(f.array((rows, width), kind, fill))
        if first and batch_first:
            return tensor(f.array((B, T, width), kind, fill))
        if first and f.chance(0.3):  # the other order in memory
            return tensor(f.array((B, T, width), kind, fill).swapaxes(0, 1))
        return tensor(f.array((T, B, width), kind, fill))

    def state(width, fill="normal", n=1):
        return tensor(f.array((n * layout.n_cells, B, width), kind, fill))

    beside_h = N_STATES[cell] - 1

    x, outputs = sequence(layout.I, first=True), []
    for _ in range(L):
        outputs.append(sequence(D * S, "nan"))
    f.call("tensors.is_series", tensors.is_series, x, kernels)
    f.call("tensors.is_contiguous", tensors.is_contiguous, x, kernels)
    inputs = [x, *outputs[:-1]]
    h0, c0 = (
        f.random.choice((None, state(width, n=n)))
        for width, n in ((S, 1), (H, beside_h))
    )
    h_n, c_n = state(S, "nan"), state(H, "nan", beside_h) if has_c else None
    tapes = tensor(f.array(plan.tape_size, kind, "nan")) if training else None
    c0 = c0 if has_c else None
    f.make(
        "tensors.TensorPlan.forward", plan.forward, pool, 0, n, use, inputs,
        batch_first, h0, c0, outputs, h_n, c_n, tapes, draw,
    )  # fmt: skip
    written = [t for t in (*outputs, h_n, c_n) if t is not None]
    written = [t.array if isinstance(t, Tensor) else t for t in written]
    f.written("tensors.TensorPlan.forward", True, *written)
    if not training:
        return
    f.call("weights.Use.can_run_again", use.can_run_again, 0, use)
    f.make("weights.Use.make_backward", use.make_backward, kernels, n, held)
    some = slice(f.random.choice((0, L - 1)), L)  # all layers, or the last alone
    dinputs = [sequence(layout.I, 0, first=True)]
    dinputs += [sequence(D * S, 0) for _ in range(L - 1)]
    if some.start == 0 and f.chance(0.2):
        dinputs[0] = None
    dweights = [
        None if f.chance(0.2) else tensor(f.array(shape, kind, "nan"))
        for shape in shapes
    ]
    f.call(
        "tensors.TensorPlan.backward", plan.backward, pool, some.start, n, use,
        inputs[some], batch_first and some.start == 0, h0, outputs[some], tapes,
        f.random.choice((None, sequence(D * S))), f.random.choice((None, state(S))),
        f.random.choice((None, state(H, n=beside_h))) if has_c else None, dinputs[some],
        f.random.choice((None, state(S, "nan"))),
        state(H, "nan", beside_h) if has_c and f.chance(0.5) else None, dweights, draw,
    )  # fmt: skip
