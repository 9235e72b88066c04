# SPDX-License-Identifier: BSD-3-Clause
"""Packed weights of which both forms take turns in one room, as large ones do.

Nobody can tell but by the memory: gradients have the bits of a layer that has had its
weights to itself, whatever happens between a forward and its backward.
"""

import concurrent.futures
import functools
import threading
import tracemalloc

import numpy as np
import option_cells
import pytest
from cells import KINDS, Case, assert_same_bits, data, run_backward, run_forward

import fastrnn
from fastrnn.native import celltable, core, single, weights
from fastrnn.recurrent import table

# Forms of somewhat more than `SMALL` in float32, units and inputs not whole vectors.
SMALL = 1 << 16  # bytes from which forms take turns in these tests, but for the last
BY_GATES = {1: (93, 92), 2: (66, 65), 3: (57, 55), 4: (46, 49)}
SIZES = {
    # Without R the same bytes take twice as many inputs.
    cell.name: (I * (2 if cell.is_scan else 1), H)
    for cell in (table.cells_of(kind)[0] for kind in KINDS)
    for I, H in [BY_GATES[len(cell.gates)]]
}
CELLS = {
    **{cell: (Case(cell, 3, 2, *sizes), {}) for cell, sizes in SIZES.items()},
    "projected": (Case("lstm", 3, 2, 75, 51), {"proj_size": 25, "peephole": True}),
    "before": (Case("gru", 3, 2, *SIZES["gru"]), {"reset_after": False}),
    "stack": (Case("gru", 3, 2, 57, 55, 2, True), {}),
    "merged": (
        Case("rnn_tanh", 3, 2, *SIZES["rnn_tanh"], 2, True),
        {"merge_mode": "sum"},
    ),
}
FORM = 4 << 20  # bytes from which forms take turns unless a test says otherwise
LARGE = {1: (740, 741), 2: (530, 523), 3: (450, 447), 4: (370, 391)}
with_cells = pytest.mark.parametrize("which", CELLS)


@pytest.fixture(autouse=True)
def turns_from():
    """Let small forms take turns: what is tested is the same, and takes less time."""
    before = weights.set_turns_from(SMALL)
    yield before
    weights.set_turns_from(before)


@pytest.fixture(params=[1, 2], ids=lambda n: f"{n}thr")
def n_threads(request):
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(request.param)
    yield request.param
    fastrnn.set_num_threads(before)


class Run:
    """A layer of cells whose forms take turns, and calls of it."""

    def __init__(self, which, dtype):
        self.case, options = CELLS[which]
        self.layer = getattr(fastrnn, celltable.cell(self.case.cell).layer)(
            self.case.I,
            self.case.H,
            self.case.num_layers,
            bidirectional=self.case.bidirectional,
            dtype=dtype,
            seed=1,
            **options,
        )

    def forward(self, scale=1):
        """Outputs of an input of its own for each `scale`."""
        x = data(self.case).x * scale
        return run_forward(self.layer, x.astype(self.layer.dtype), None)

    def backward(self, context=None, clear=True):
        """Gradients of the call alone, unless `clear` is false."""
        if clear:
            self.layer.zero_grad()
        y_size = self.layer._y_size
        dy = data(self.case).dy[..., :y_size]
        dy = np.resize(dy, (*dy.shape[:2], y_size)).astype(self.layer.dtype)
        return run_backward(self.layer, dy, None, context)

    def forms(self):
        """Of each cell: whether its forward form is there, and its backward form."""
        return [
            (p.forward is not None, p.backward is not None)
            for p in self.layer._runtime.packed_weights.current
        ]


def wanted(which, dtype, change=None, scale=1):
    """Outputs and gradients of a layer that has not run before."""
    return _wanted(which, dtype, change, scale, core.active_target())


@functools.lru_cache(32)  # tests of one layer ask for the same, and change nothing
def _wanted(which, dtype, change, scale, target):
    run = Run(which, dtype)
    if change:
        change(run.layer)
    return run.forward(scale), run.backward()


def halve(layer):
    layer.flat_parameters[:] *= 0.5


def step(layer):
    layer.flat_grads[:] = 1
    fastrnn.SGD(layer, lr=1e-2).step()


def nudge(layer):
    """One weight, by as little as can be."""
    has_R = not celltable.cell(layer._cell).is_scan
    weight = layer.parameters["weight_hh_l0" if has_R else "weight_ih_l0"]
    weight[-1, -1] = np.nextafter(weight[-1, -1], np.inf, dtype=weight.dtype)


def move(layer):
    """Into a larger model, and so into other memory, where the weights change."""
    fastrnn.Sequential(fastrnn.Linear(2, 2, dtype=layer.dtype), layer)
    layer.flat_parameters[:] *= 0.5


CHANGES = {change.__name__: change for change in (halve, step, nudge, move)}


@with_cells
def test_gradients_are_the_same_in_a_room_of_its_own(isa, dtype, n_threads, which):
    """Somebody else uses the forward form, which has to stay."""
    want = wanted(which, dtype)
    run = Run(which, dtype)
    assert_same_bits("output", run.forward(), want[0])
    buffer, start = run.layer._buffers[0], run.layer._start
    kernels = core.kernels(dtype)
    packed = run.layer._runtime.packed_weights
    other = packed.take(kernels, n_threads, buffer, start, True)
    assert_same_bits("gradient", run.backward(), want[1])
    assert set(run.forms()) == {(True, True)}
    del other


@with_cells
def test_backward_takes_the_forward_forms_room(isa, dtype, which):
    run = Run(which, dtype)
    run.forward()
    assert set(run.forms()) == {(True, False)}
    run.backward()
    assert set(run.forms()) == {(False, True)}
    halve(run.layer)
    run.forward()
    assert set(run.forms()) == {(True, False)}
    run.backward()
    assert set(run.forms()) == {(False, True)}


@with_cells
def test_the_forms_of_weights_that_stay_stay_both(which):
    run = Run(which, "float32")
    want = run.forward(), run.backward()
    for _ in range(2):
        got = run.forward(), run.backward()
        assert_same_bits("output", got[0], want[0])
        assert_same_bits("gradient", got[1], want[1])
        assert set(run.forms()) == {(True, True)}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@with_cells
def test_backward_is_that_of_the_weights_that_ran(isa, which, change):
    want = wanted(which, "float32")
    run = Run(which, "float32")
    assert_same_bits("output", run.forward(), want[0])
    change(run.layer)
    assert_same_bits("gradient", run.backward(), want[1])
    want = wanted(which, "float32", change)
    assert_same_bits("output", run.forward(), want[0])
    assert_same_bits("gradient", run.backward(), want[1])


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("first", [0, 1])
@with_cells
def test_two_contexts_alive(which, first, changes):
    """Their backwards in either order, with the same weights or with others."""
    change = halve if changes else None
    wants = [wanted(which, "float32"), wanted(which, "float32", change, scale=-0.5)]
    run, contexts = Run(which, "float32"), []
    for k in range(2):
        got = run.forward([1, -0.5][k])
        assert_same_bits("output", got, wants[k][0])
        contexts.append(run.layer.context)
        if changes and k == 0:
            halve(run.layer)
    for k in (first, 1 - first):
        assert_same_bits(f"gradient {k}", run.backward(contexts[k]), wants[k][1])


@with_cells
def test_inference_between_forward_and_backward(which):
    want = wanted(which, "float32")
    run = Run(which, "float32")
    run.forward()
    context = run.layer.context
    assert_same_bits("inference", run.forward(), want[0])
    run.layer.eval()
    assert_same_bits("inference", run.forward(), want[0])
    run.layer.train()
    assert_same_bits("gradient", run.backward(context), want[1])
    run.layer.eval()
    assert_same_bits("inference", run.forward(), want[0])


@with_cells
def test_accumulated_gradients(dtype, which):
    """Forward, backward, forward, backward without a step."""
    run = Run(which, dtype)
    want = {}
    for scale in (1, -0.5, 2):
        _, one = wanted(which, dtype, scale=scale)
        run.forward(scale)
        got = run.backward(clear=False)
        for name, gradient in one.items():
            if name in run.layer.grads:
                want[name] = want.get(name, 0) + gradient
        small = 1e-4 if dtype == "float32" else 1e-12
        for name, total in want.items():
            limit = small * np.abs(total).max()
            np.testing.assert_allclose(got[name], total, rtol=0, atol=limit)


@with_cells
def test_blocks_run_forward_again_after_a_part_of_backward(which):
    want = wanted(which, "float32")
    run = Run(which, "float32")
    run.layer.checkpoint_every = 1
    for _ in range(2):
        assert_same_bits("output", run.forward(), want[0])
        assert_same_bits("gradient", run.backward(), want[1])


@pytest.mark.parametrize("first", core.SUPPORTED)
@pytest.mark.parametrize("then", core.SUPPORTED)
@with_cells
def test_a_context_stays_on_its_target(which, first, then):
    run = Run(which, "float32")
    with core.use_isa(first):
        want = wanted(which, "float32")
        assert_same_bits("output", run.forward(), want[0])
    with core.use_isa(then):
        assert_same_bits("gradient", run.backward(), want[1])
        want = wanted(which, "float32")
        assert_same_bits("output", run.forward(), want[0])
        assert_same_bits("gradient", run.backward(), want[1])


@pytest.mark.parametrize("which", [*SIZES, "stack"])
def test_forwards_and_backwards_of_several_threads(which):
    """One thread's backward may want the room that another's forward has just found."""
    scales = [1, -0.5, 2, 0.25]
    run = Run(which, "float32")
    wants = {scale: wanted(which, "float32", scale=scale) for scale in scales}
    forwards, backwards = threading.Lock(), threading.Lock()  # context, grads: one each

    def train(scale):
        for _ in range(6):
            with forwards:
                got = run.forward(scale)
                context = run.layer.context
            with backwards:
                gradients = run.backward(context)
            assert_same_bits("output", got, wants[scale][0])
            assert_same_bits("gradient", gradients, wants[scale][1])

    with concurrent.futures.ThreadPoolExecutor(len(scales)) as pool:
        list(pool.map(train, scales))


@pytest.mark.parametrize("which", SIZES)
def test_training_needs_room_for_one_form(which, turns_from):
    assert turns_from == FORM
    weights.set_turns_from(FORM)
    cell = celltable.cell(which)
    I, H = LARGE[len(cell.gates)]
    # Without R the same bytes take twice as many inputs.
    case = Case(which, 3, 2, 2 * I if cell.is_scan else I, H)
    layer = case.layer("float32")
    x = data(case).x.astype("f")
    optimizer = fastrnn.SGD(layer, lr=1e-3)
    tracemalloc.start()
    try:
        for _ in range(3):
            y, _ = layer(x)
            layer.backward(np.ones_like(y))
            optimizer.step()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    one = 4 * layer.flat_parameters.size
    assert FORM <= one < most < 1.5 * one


# -- the backward form out of the forward form ----------------------------------------

PLAIN = {name: (name, None, {}) for name in SIZES}
OPTIONS = {
    name: case
    for name, case in option_cells.CASES.items()
    if not name.startswith("rnn") or name == "rnn_tanh clip"
}
# I, H: less than a vector, all that may be left of one, panels of every width, and
# enough for two threads.
I_H = [(1, 2), (3, 5), (4, 4), (7, 18), (16, 33), (37, 9), (65, 50), (90, 131)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("I", "H"), I_H)
@pytest.mark.parametrize("name", PLAIN | OPTIONS)
def test_backward_form_from_the_forward_form(isa, dtype, name, I, H, threads, rng):
    kind, activations, options = (PLAIN | OPTIONS)[name]
    if options.get("proj_size"):
        options = {**options, "proj_size": H // 2}
    cell = option_cells.Cell(kind, activations, **options)
    v, _ = cell.data((1, 1, I, H))
    parts = [
        np.ascontiguousarray(v[key], dtype) if key in v else None
        for key in ("W", "R", "b_ih", "b_hh", "P", "W_hr")
    ]
    parts[0][0, 0] = -0.0  # numbers are moved, not added
    parts[0 if parts[1] is None else 1][-1, -1] = np.nan
    kernels, which = core.kernels(dtype), celltable.CELLS[kind]

    def pack(backward, forward=None):
        shape = single.Shape(which, False, 1, 1, I, H, None, cell.core)
        size = single.packed_size(kernels, backward, shape)
        raw = np.full(size + 16, 7, dtype)
        packed = raw[-raw.ctypes.data % 64 // raw.itemsize :][:size]
        single.pack(
            kernels, backward, shape, *parts[:4], packed, *parts[4:], threads,
            forward,
        )  # fmt: skip
        return packed

    forward, want = pack(False), pack(True)
    for array in parts:
        if array is not None:
            array[...] = 3  # of which nothing may be read
    assert pack(True, forward).tobytes() == want.tobytes()
