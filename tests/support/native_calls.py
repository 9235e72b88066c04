# SPDX-License-Identifier: BSD-3-Clause
"""Random calls of everything that the compiled modules offer, straight past Python.

``python tests/support/native_calls.py --calls 1000000`` is the long form, to be run on
a build with sanitizers (CONTRIBUTING.md); `test_native.py` has a short one.  Each
scenario makes a few calls that belong together, with arguments that fit and with spoilt
ones.
"""

import argparse
import pickle
import time

import compiled
import numpy as np
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
from native_fuzz import Fuzz
from native_layers import run_arrays, run_tensors
from native_quantized import (
    run_quantized_layers,
    run_quantized_linear,
    small_kernels,
    small_weights,
)

from fastrnn.native import (
    addresses,
    arrays,
    calls,
    celltable,
    core,
    memory,
    optimizers,
    single,
    weights,
)


def public_names():
    """Functions, classes and their methods and properties, by dotted name."""
    names = set()
    for module in compiled.MODULES:
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", "") != (
                module.__name__
            ):
                continue
            short = f"{module.__name__.removeprefix('fastrnn.native.')}.{name}"
            if callable(value):
                names.add(short)
            if isinstance(value, type):
                own = {m for m in vars(value) if m == "__reduce__" or m[:1] != "_"}
                names |= {f"{short}.{m}" for m in own if callable(getattr(value, m))}
    return names


# -- recurrent layers, one direction ---------------------------------------------------


class Cell:
    """A drawn cell, its sizes and weights."""

    def __init__(self, f):
        self.kernels = f.random.choice(TABLES)
        self.kind, self.name = kind_of(self.kernels), f.random.choice(list(GATES))
        self.I, self.H = f.size(), f.size()
        self.number, self.options, self.S = celltable.CELLS[self.name], None, self.H
        if (given := options_of(f, self.kernels, self.name, self.H)) is not None:
            self.options = f.make(
                "celltable.CellOptions", celltable.CellOptions, **given
            )
            self.S = self.options.proj_size or self.H
            assert pickle.loads(pickle.dumps(self.options)).general == (
                self.options.general
            )
            f.call("celltable.CellOptions.__reduce__", self.options.__reduce__)
            f.call("celltable.CellOptions.in_inference", self.options.in_inference)
        H, S = self.H, self.S
        bias = f.chance(0.7)
        shapes = weight_shapes(self.name, self.I, H, S, bias, self.options)
        self.weights = [
            None if shape is None else f.array(shape, self.kind) for shape in shapes[:4]
        ]
        self.P = None if shapes[4] is None else f.array(shapes[4], self.kind)
        self.W_hr = f.array((S, H), self.kind) if S != H else None
        shapes = norm_shapes(self.name, H, self.options)
        self.norm = {name: f.array(shape, self.kind) for name, shape in shapes.items()}

    def packed(self, f, backward, forward=None):
        shape = single.Shape(
            self.number, False, 1, 1, self.I, self.H, None, self.options
        )
        which = self.kernels, backward, shape
        size = f.make("single.packed_size", single.packed_size, *which)
        packed = f.array(size, self.kind, "nan")
        f.make(
            "single.pack", single.pack, *which, *self.weights, packed, self.P,
            self.W_hr, threads(f), forward, **self.norm,
        )  # fmt: skip
        return packed


def series(f, shape, T, B, width, rows, kind, fill="normal"):
    """A (T, B, width) array with room between steps and rows, as a `StridedArray`."""
    row = width + f.random.choice((0, 0, 1, 3))
    step = B * row + f.random.choice((0, 0, 2))
    first = f.random.choice((0, 0, 5))
    last = (rows - 1) * row if shape == "ragged" else (T - 1) * step + (B - 1) * row
    array = f.array(first + last + width, kind, fill)
    return array, f.make(
        "single.StridedArray", single.StridedArray, array, first, step, row
    )


def run_sequence(f):
    """`Shape`, `StridedArray`, and a forward and a backward of one direction."""
    cell, T, B = Cell(f), f.random.randint(1, 6), f.size(6)
    kernels, kind, H, S, I = cell.kernels, cell.kind, cell.H, cell.S, cell.I
    offsets = ragged(f, T, B) if f.chance(0.4) else None
    shape = f.make(
        "single.Shape", single.Shape, cell.number, f.chance(0.5), T, B, I, H, offsets,
        cell.options,
    )  # fmt: skip
    n = threads(f)
    tape = f.array(
        f.make("single.tape_size", single.tape_size, kernels, shape), kind, "nan"
    )
    sizes = [
        f.make("single.work_size", single.work_size, kernels, backward, shape, n)
        for backward in (False, True)
    ]
    works = [f.array(size, kind, "nan") for size in sizes]
    layout = "dense" if offsets is None else "ragged"
    x = series(f, layout, T, B, I, shape.rows, kind)[1]
    y_array, y = series(f, layout, T, B, S, shape.rows, kind, 7)
    has_c = N_STATES[cell.name] > 1
    state, c_state = (B, S), (N_STATES[cell.name] - 1, B, H)
    h0, h_n = f.array(state, kind), f.array(state, kind, "nan")
    c0 = f.array(c_state, kind) if has_c else None
    c_n = f.array(c_state, kind, "nan") if has_c else None
    forward_pack = cell.packed(f, False)
    draw = draw_of(f, B, None if offsets is None else shape.rows)
    f.make(
        "single.forward", single.forward, kernels, shape, n, x, forward_pack, h0, c0, y,
        h_n, c_n, tape, works[0], draw,
    )  # fmt: skip
    f.written("single.forward", True, h_n, y_array, *[c_n] * has_c)
    packed = cell.packed(f, True, f.random.choice((None, forward_pack)))
    dy = f.random.choice((None, series(f, layout, T, B, S, shape.rows, kind)[1]))
    dx = f.random.choice((None, series(f, layout, T, B, I, shape.rows, kind, 0)[1]))
    gradients = [
        None if w is None or f.chance(0.2) else f.array(w.shape, kind, 0)
        for w in (*cell.weights, cell.P, cell.W_hr)
    ]
    of_norm = {
        f"d{name}": None if f.chance(0.2) else f.array(w.shape, kind, 0)
        for name, w in cell.norm.items()
    }
    dh_n = f.random.choice((None, f.array(state, kind)))
    dc_n = f.array(c_state, kind) if has_c and f.chance(0.5) else None
    dh0 = f.array(state, kind, "nan")
    dc0 = f.array(c_state, kind, "nan") if has_c else None
    flow = f.array((T, B), "d", 0) if f.chance(0.3) else None
    fitted, _ = f.call(
        "single.backward", single.backward, kernels, shape, n, x, packed, h0, y, tape,
        dy, dh_n, dc_n, dx, f.chance(0.3), dh0, dc0, *gradients[:4], works[1],
        *gradients[4:], f.random.choice((0.0, 0.5)), f.random.choice((0.0, 0.5)), flow,
        draw=draw, **of_norm,
    )  # fmt: skip
    f.written("single.backward", fitted, dh0)


def run_one_step(f):
    """A `OneStep`, some steps."""
    cell, B, n = Cell(f), f.size(5), threads(f)
    shape = single.Shape(cell.number, False, 1, B, cell.I, cell.H, None, cell.options)
    work = f.array(single.work_size(cell.kernels, False, shape, n), cell.kind, "nan")
    h, y = f.array((B, cell.S), cell.kind), f.array((B, cell.S), cell.kind, "nan")
    beside_h = N_STATES[cell.name] - 1
    c = f.array((beside_h, B, cell.H), cell.kind) if beside_h else None
    one = f.make(
        "single.OneStep", single.OneStep, cell.kernels, shape, n, cell.packed(f, False),
        h, c, y, work,
    )  # fmt: skip
    for _ in range(3):
        x = f.array((B, cell.I), cell.kind)
        fitted, result = f.call("single.OneStep.step", one.step, x)
        f.written("single.OneStep.step", fitted, y)
        assert result is y or not fitted


def run_quantized(f):
    """A forward of a cell whose weights have fewer bytes, or some steps of it."""
    cell, T, B, n = Cell(f), f.random.randint(1, 6), f.size(6), threads(f)
    kind, G, H, I = cell.kind, GATES[cell.name], cell.H, cell.I
    weights = f.random.choice(list(core.WEIGHTS))
    offsets = ragged(f, T, B) if f.chance(0.4) else None
    shape = single.Shape(cell.number, f.chance(0.5), T, B, I, H, offsets, cell.options)
    kernels = small_kernels(f, weights)
    which = kernels, False, shape
    if kind != "f":  # the cell's arrays are none of these kernels'
        return
    try:
        size = single.packed_size(*which)
    except ValueError:  # a cell or an option that has no such kernels
        return
    packed = f.array(size, kind, "nan")
    (W, W_scale), (R, R_scale) = (small_weights(f, (G, H, K), weights) for K in (I, H))
    f.make(
        "single.pack_quantized", single.pack_quantized, kernels, shape, W, R,
        W_scale, R_scale, *cell.weights[2:], packed, cell.P,
    )  # fmt: skip
    work = f.array(single.work_size(*which, n), kind, "nan")
    others = N_STATES[cell.name] - 1
    layout = "dense" if offsets is None else "ragged"
    x = series(f, layout, T, B, I, shape.rows, kind)[1]
    y_array, y = series(f, layout, T, B, H, shape.rows, kind, 7)
    h0, h_n = f.array((B, H), kind), f.array((B, H), kind, "nan")
    c0 = f.array((others, B, H), kind) if others else None
    c_n = f.array((others, B, H), kind, "nan") if others else None
    f.make(
        "single.forward", single.forward, kernels, shape, n, x, packed, h0, c0, y,
        h_n, c_n, None, work,
    )  # fmt: skip
    f.written("single.forward", True, h_n, y_array, *[c_n] * bool(others))


# -- everything flat ---------------------------------------------------


def spans_of(f, n):
    if f.chance(0.5):
        return None
    ends = sorted(f.random.randint(0, n) for _ in range(2 * f.random.randint(0, 3)))
    return f.array((len(ends) // 2, 2), "q", ends or 0)


def run_flat(f):
    """Loops over buffers: clipping, losses, embedding, dropout, functions."""
    kernels, n_threads = f.random.choice(TABLES), threads(f)
    kind, n = kind_of(kernels), f.random.choice((0, 1, 7, 33, 100, 5000))
    x, y = f.array(n, kind), f.array(n, kind, "nan")
    of = kernels
    name = f.random.choice(("sigmoid", "tanh"))
    fitted, _ = f.call("core.Kernels.activation", of.activation, name, x, y)
    f.written("core.Kernels.activation", fitted, y)
    f.call("core.Kernels.fingerprint", of.fingerprint, x, n_threads)
    spans = spans_of(f, n)
    power = f.random.choice((1.0, 2.0, 3.0, float("inf")))
    f.call("core.Kernels.norm", of.norm, n_threads, x, power, spans)
    f.call("core.Kernels.scale", of.scale, n_threads, x, 0.5, spans)
    f.call("core.Kernels.clamp", of.clamp, n_threads, x, 0.5, spans)
    place = f.random.choice(((0, 0, 0), (1, 3, 2), (n, 5, 0)))
    f.call("core.Kernels.dropout", of.dropout, n_threads, 5, 0.5, x, y, *place)
    f.call("core.Kernels.mse", of.mse, n_threads, n, x, f.array(n, kind), 1.0, y)
    f.call("core.Kernels.clear", of.clear, n_threads, x, spans)
    # A round takes time: no wild numbers of them.
    f.call("core.Kernels.fma_peak", of.fma_peak, n_threads, 3, p=0.0)
    bad = f.random.choice(((1, -1), (1, -(2**63)), (0, 3), (2000, 3), (1, "x")))
    refused(f, "core.Kernels.fma_peak", of.fma_peak, *bad)
    rows, width, n = f.size(), f.size(), f.random.randint(0, 9)
    logits, targets = f.array((n, width), kind), f.array(n, "q", range(width))
    f.call(
        "core.Kernels.cross_entropy", of.cross_entropy, n_threads, n, width, logits,
        targets, -100, 1.0, f.array((n, width), kind, "nan"),
    )  # fmt: skip
    indices, table = f.array(n, "q", range(rows)), f.array((rows, width), kind)
    f.call(
        "core.Kernels.embedding_forward", of.embedding_forward, n_threads, n, rows,
        width, indices, table, f.array((n, width), kind, "nan"), f.chance(0.5),
    )  # fmt: skip
    f.call(
        "core.Kernels.embedding_backward", of.embedding_backward, n_threads, n, rows,
        width, indices, f.random.choice((-1, 0)), f.array((n, width), kind), table,
    )  # fmt: skip


def refused(f, name, function, *args):
    """A call that has to raise."""
    try:
        function(*args)
    except (ValueError, TypeError):
        f.exceptions[name] += 1
    else:
        raise AssertionError(f"{name} took {args}")


def run_linear(f):
    kernels, n = f.random.choice(TABLES), threads(f)
    kind, N, I, O = kind_of(kernels), f.random.randint(0, 20), f.size(), f.size()
    x, W, b = f.array((N, I), kind), f.array((O, I), kind), f.array(O, kind)
    y, of = f.array((N, O), kind, "nan"), kernels
    works = []
    for back in (False, True):
        size = f.make(
            "core.Kernels.linear_work_size", of.linear_work_size, back, N, I, O, n
        )
        works.append(f.array(size, kind, "nan"))
    fitted, _ = f.call(
        "core.Kernels.linear_forward", of.linear_forward, n, N, I, O, x, W,
        f.random.choice((None, b)), y, works[0],
    )  # fmt: skip
    f.written("core.Kernels.linear_forward", fitted, y)
    dx = f.random.choice((None, f.array((N, I), kind, "nan")))
    fitted, _ = f.call(
        "core.Kernels.linear_backward", of.linear_backward, n, N, I, O, x, W,
        f.array((N, O), kind), dx, f.array((O, I), kind, 0),
        f.random.choice((None, f.array(O, kind, 0))), works[1],
    )  # fmt: skip
    f.written("core.Kernels.linear_backward", fitted, *[dx] * (dx is not None))


def run_optimisers(f):
    kernels, n = f.random.choice(TABLES), threads(f)
    kind, width, size = kind_of(kernels), f.size(), f.size()
    P, rows = width * size, None
    if f.chance(0.5):
        capacity, now = f.random.randint(1, 5), f.random.randint(0, 9)
        some = sorted(f.random.sample(range(size), f.random.randint(0, size)))
        rows = f.make(
            "optimizers.TableRows", optimizers.TableRows, width,
            f.array(len(some), "q", some or 0),
            f.array(size, "q", max(0, now - f.random.randint(0, capacity))), now,
            f.array((capacity, optimizers.N_RATES), kind, 0.1), f.chance(0.5),
        )  # fmt: skip
    p, g = f.array(P, kind), f.array(P, kind)
    states = [f.array(P, kind, 1.0) for _ in range(3)]
    some_or_none = [f.random.choice((None, state)) for state in states]
    start = (kernels, n, p, g)
    common = ([0.1, 1.0, 1.0], 0.01, f.chance(0.5))
    f.call(
        "optimizers.sgd", optimizers.sgd, *start, some_or_none[:1], *common, 0.9, 0.1,
        f.chance(0.5), f.chance(0.5), rows,
    )  # fmt: skip
    f.call(
        "optimizers.rmsprop", optimizers.rmsprop, *start,
        [states[0], *some_or_none[1:]], *common, 0.9, 1e-8, 0.9, rows,
    )  # fmt: skip
    f.call(
        "optimizers.adagrad", optimizers.adagrad, *start, states[:1], *common, 1e-8,
        rows,
    )  # fmt: skip
    f.call(
        "optimizers.adam", optimizers.adam, *start, [*states[:2], some_or_none[2]],
        *common, 0.9, 0.99, 1e-8, rows,
    )  # fmt: skip


# -- everything ---------------------------------------------------


def run_rest(f):
    """What has no memory to speak of, and objects that nobody made."""
    f.call("core.active_target", core.active_target)
    name = f.random.choice(core.SUPPORTED)
    f.call("core.use_isa", core.use_isa, name, p=0.0)
    f.call("core.kernels", core.kernels, "float32", p=0.0)
    f.call("core.openmp_is_shared", core.openmp_is_shared)
    f.call("core.openmp_max_threads", core.openmp_max_threads)
    f.call("core.openmp_processors", core.openmp_processors)
    f.call("core.stack_left", core.stack_left)
    f.call("core.system_level2_bytes", core.system_level2_bytes)
    f.call("core.system_allowed_cpus", core.system_allowed_cpus)
    before = core.set_level2_bytes(0)
    f.call(
        "core.set_level2_bytes", core.set_level2_bytes, f.random.choice([0, 1 << 16])
    )
    core.set_level2_bytes(before)
    before = weights.set_turns_from(0)
    f.call("weights.set_turns_from", weights.set_turns_from, f.random.choice([0, 99]))
    weights.set_turns_from(before)
    most = core.set_most_threads(1)
    f.call("core.set_most_threads", core.set_most_threads, f.random.choice([1, 2]))
    core.set_most_threads(most)
    f.call("core.set_observer", core.set_observer, None, p=0.0)  # as the suite has it
    f.call("core.prepare", core.prepare, f.random.randint(1, 3))
    zeros = f.array(f.size(), f.random.choice("fd"), 0)
    fitted, clear = f.call(
        "addresses.is_clear", addresses.is_clear, zeros, 0, len(zeros)
    )
    assert not fitted or clear
    for module, text in ((core, "x"), (core, "float16")):
        try:
            module.kernels(text)
        except KeyError:
            f.exceptions["core.kernels"] += 1
    sizes = sorted((f.size() for _ in range(f.size())), reverse=True)
    total, given = sum(sizes), f.array(len(sizes), "q", sizes)
    fitted, found = f.call("addresses.offsets_of", addresses.offsets_of, given, total)
    assert not fitted or found.tolist() == np.cumsum([0, *sizes]).tolist()
    refused(f, "core.Kernels", core.Kernels)
    for module in compiled.MODULES:
        if module.__name__ == "fastrnn.native.xla":  # built only where headers are
            f.call("xla.target", module.target)
            refused(f, "xla.set_function", module.set_function)
    name = f.random.choice(list(GATES))
    norm = f.random.choice((None, *celltable.NORMS))
    f.call("celltable.norm_parts", celltable.norm_parts, norm, f.chance(0.5))
    fitted, found = f.call("celltable.cell", celltable.cell, name)
    assert not fitted or found.index == celltable.CELLS[name]
    f.call("celltable.Cell", celltable.Cell, *celltable.cell(name))
    f.call("memory.aligned", memory.aligned, 3, "float32", p=0.0)
    f.call("memory.lock_anew", memory.lock_anew, memory.Locked(), p=0.0)
    f.call("memory.shared_pool", memory.shared_pool, "a test's", f.random.randint(0, 4))
    for kind in (arrays.OpenBlock, calls.Plan, calls.Run, memory.Loan, memory.Locked,
                 memory.Room, weights.PackedCell, weights.Source, weights.Use,
                 ):  # fmt: skip
        short = f"{kind.__module__.removeprefix('fastrnn.native.')}.{kind.__name__}"
        f.call(short, kind, p=0.0)
        f._keep(kind())


SCENARIOS = (
    run_sequence,
    run_sequence,
    run_one_step,
    run_quantized,
    run_quantized_layers,
    run_quantized_linear,
    run_flat,
    run_linear,
    run_optimisers,
    run_arrays,
    run_arrays,
    run_tensors,
    run_tensors,
    run_rest,
)


def run(f, most_calls, seconds=None):
    """Scenarios until there have been so many calls."""
    stop = None if seconds is None else time.monotonic() + seconds
    while f.n_calls < most_calls and (stop is None or time.monotonic() < stop):
        f.random.choice(SCENARIOS)(f)
        f.forget()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.monotonic()
    runs = [Fuzz(2 * arguments.seed + guarded, guarded) for guarded in (False, True)]
    n = 0
    while n < arguments.calls:
        for f in runs:
            run(f, f.n_calls + 5000)
        n = sum(f.n_calls for f in runs)
        results = sum(f.results.total() for f in runs)
        print(
            f"{n} calls: {results} results, {n - results} exceptions "
            f"({time.monotonic() - began:.0f} s)",
            flush=True,
        )
    raised = sum((f.raised for f in runs), start=type(runs[0].raised)())
    print(", ".join(f"{count} {name}" for name, count in raised.most_common()))


if __name__ == "__main__":
    main()
