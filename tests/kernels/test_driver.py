# SPDX-License-Identifier: BSD-3-Clause
"""forward.c and backward.c through _core: ragged batches, strides, no write outside.

The layers call these kernels on dense batches; here rows end (or, reversed, begin) at
different steps, every buffer lies between guard words, and outputs start as NaN.
"""

import cells
import gradcheck
import numpy as np
import pytest

from fastrnn.native import celltable, core, single

GUARD = 64  # elements; more than a vector
FLOPS_PER_THREAD = 4e5  # of csrc/fastrnn.h: smaller calls get fewer threads


class Buffers:
    """Arrays for a call, each between guard words, NaN where a call is to write."""

    def __init__(self, dtype):
        self.dtype = np.dtype(dtype)
        self.rooms = []

    def take(self, *shape):
        size = int(np.prod(shape))
        # Room to start on a cache line, as workspaces must.
        room = np.full(size + 2 * GUARD + 64, 7, self.dtype)
        start = GUARD + (-room[GUARD:].ctypes.data % 64) // self.dtype.itemsize
        self.rooms.append((room, start, start + size))
        room[start : start + size] = np.nan
        return room[start : start + size].reshape(shape)

    def copy(self, array):
        taken = self.take(*array.shape)
        taken[...] = array
        return taken

    def assert_guards_stand(self):
        for room, start, stop in self.rooms:
            assert (room[:start] == 7).all()
            assert (room[stop:] == 7).all()


def call(case, dtype, n_threads, reverse=False, lengths=None, padding=0):
    """Forward and backward of one layer in one direction, straight through core.

    Sequences of `lengths` (descending) are packed step by step, as the kernels take
    them; None means all have T steps.  Rows of x, y and their gradients lie `padding`
    elements apart.  Returns outputs and gradients by name, y and dx as lists of one
    array for each row.
    """
    d, kernels, room = cells.data(case), core.kernels(dtype), Buffers(dtype)
    T, B, I, H = case.T, case.B, case.I, case.H
    cell, has_c = celltable.CELLS[case.cell], cells.N_STATES[case.cell] > 1
    alive = np.arange(T)[:, None] < (T if lengths is None else np.array(lengths))
    alive = np.broadcast_to(alive, (T, B))
    offsets = None
    if lengths is not None:
        offsets = np.concatenate([[0], alive.sum(axis=1).cumsum()]).astype(np.intp)
    shape = single.Shape(cell, reverse, T, B, I, H, offsets)
    n_rows = int(alive.sum())

    def series(width, values=None):
        """Room for a (rows, width) array whose rows lie apart, both ways."""
        array = room.take(n_rows, width + padding)
        array[:, width:] = 5
        if values is not None:
            array[:, :width] = values[alive]
        step = B * (width + padding)
        return array, single.StridedArray(array, 0, step, width + padding)

    weights = {
        letter: room.copy(a)
        for letter, a in cells.by_letter(case.cell, d.parameters).items()
    }
    given = [weights.get(letter) for letter in ("W", "R", "b_ih", "b_hh")]
    packed = [room.take(single.packed_size(kernels, b, shape)) for b in (False, True)]
    for backward in (False, True):
        single.pack(
            kernels, backward, shape, *given, packed[backward], weights.get("P")
        )
    (_, x), (y_array, y) = series(I, d.x), series(H)
    (_, dy), (dx_array, dx) = series(H, d.dy), series(I)
    h0, dh_n = room.copy(d.h0[0]), room.copy(d.dh_n[0])
    h_n, dh0 = room.take(B, H), room.take(B, H)
    c0 = c_n = dc_n = dc0 = None
    if has_c:
        c0 = room.copy(np.stack(d.start[1:])[:, 0])
        dc_n = room.copy(np.stack(d.d_end[1:])[:, 0])
        c_n, dc0 = room.take(*c0.shape), room.take(*c0.shape)
    tape = room.take(single.tape_size(kernels, shape))
    work = [
        room.take(single.work_size(kernels, b, shape, n_threads)) for b in (False, True)
    ]
    grads = {name: room.copy(np.zeros(a.shape)) for name, a in weights.items()}
    wanted = [grads.get(letter) for letter in ("W", "R", "b_ih", "b_hh")]

    before = [(array, array.copy()) for array in (*weights.values(), h0, dh_n)]
    single.forward(
        kernels, shape, n_threads, x, packed[0], h0, c0, y, h_n, c_n, tape, work[0]
    )
    single.backward(
        kernels, shape, n_threads, x, packed[1], h0, y, tape, dy, dh_n, dc_n,
        dx, False, dh0, dc0, *wanted, work[1], grads.get("P"),
    )  # fmt: skip
    room.assert_guards_stand()
    for array, copy in before:
        np.testing.assert_array_equal(array, copy)
    for array, width in ((y_array, H), (dx_array, I)):
        assert (array[:, width:] == 5).all()

    def rows(array, width):
        full = np.full((T, B, width), np.nan, dtype)
        full[alive] = array[:, :width]
        return [full[alive[:, b], b] for b in range(B)]

    ends, starts = [h_n, *(c_n if has_c else ())], [dh0, *(dc0 if has_c else ())]
    outputs = {"y": rows(y_array, H), **cells.named(case.cell, "_n", ends)}
    gradients = {"x": rows(dx_array, I), **cells.named(case.cell, "0", starts)}
    return outputs, gradients | dict(zip(d.parameters, grads.values(), strict=True))


# Ties, a row of length zero at the end, rows enough for several tiles and threads.
LENGTHS = {
    "few": [5, 5, 3, 1],
    "with a zero": [5, 4, 4, 2, 0],
    "many": sorted((1 + 7 * k % 5 for k in range(40)), reverse=True),
}
LENGTHS["many"][0] = 5


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("cell", cells.CELLS)
@pytest.mark.parametrize("H", [17, 90])
def test_ragged_rows_have_the_bits_they_have_alone(
    isa, dtype, cell, lengths, reverse, H
):
    case = cells.Case(cell, 5, len(lengths), 6, H)
    check_ragged(case, dtype, lengths, reverse, 3)


# Work for three threads on every schedule: I and H of an RNN, and the lengths.
THREADED = {
    "rows": (12, 70, LENGTHS["many"]),
    "rows, some of length 0": (60, 70, [9] * 8 + [0] * 8),
    "rows, x W hoisted": (8192, 40, [3] + [1] * 15),
    "rows, x W hoisted, two blocks": (8192, 40, [16, 15] + [1] * 14),
    "units, as rows are few": (20, 300, [6, 4, 1, 1]),
    "units, x W hoisted, several blocks": (9, 70, [100, 90, 30]),
    "units, as R is large": (9, 530, [3, 3, 2] + [1] * 14),
}


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize(("I", "H", "lengths"), THREADED.values(), ids=THREADED)
@pytest.mark.parametrize("cell", cells.CELLS)
def test_ragged_rows_on_several_threads(isa, dtype, cell, lengths, reverse, I, H):
    G = cells.GATES[cell]  # the schedule goes by the size of the weights
    I, H = (I // G, H) if I > H else (I, int(H / G**0.5))
    case = cells.Case(cell, lengths[0], len(lengths), I, H)
    assert_work_for(3, case, sum(lengths))
    check_ragged(case, dtype, lengths, reverse, 2, 3)


@pytest.mark.parametrize(
    "lengths", [None, [4, 4, 3, 3, 2, 2] * 4], ids=["dense", "ragged"]
)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_groups_of_threads_that_share_units_keep_the_bits(isa, dtype, cell, lengths):
    """R is larger than CACHED_WEIGHTS of schedule.h: four threads are two groups of two
    and more are groups of two to four.
    """
    case = cells.Case(cell, 4, 24, 20, 310)
    lengths = lengths and sorted(lengths, reverse=True)
    assert cells.GATES[cell] * 310 * 310 * 4 > 1 << 20
    want = flattened(*call(case, dtype, 1, False, lengths))
    for n_threads in (4, 6, 8):
        assert_work_for(n_threads, case, 4 * 24 / 2)
        got = flattened(*call(case, dtype, n_threads, False, lengths))
        cells.assert_same_bits(f"{n_threads} threads", got, want)


def assert_work_for(n_threads, case, n_rows):
    """Or the test would run on fewer threads than it says."""
    columns = cells.GATES[case.cell] * case.H
    assert 2 * n_rows * columns * (case.I + case.H) >= n_threads * FLOPS_PER_THREAD


def flattened(outputs, gradients):
    """All results of a call by name, each row of y and dx by itself."""
    arrays = outputs | {f"d{name}": array for name, array in gradients.items()}
    for name in ("y", "dx"):
        arrays |= {f"{name} {b}": row for b, row in enumerate(arrays.pop(name))}
    return arrays


def check_ragged(case, dtype, lengths, reverse, *threads):
    """Every row has the bits it has alone, on one thread and on any of `threads`."""
    outputs, gradients = call(case, dtype, 1, reverse, lengths)
    for n_threads in threads:
        got = flattened(*call(case, dtype, n_threads, reverse, lengths, padding=3))
        want = flattened(outputs, gradients)
        cells.assert_same_bits(f"{n_threads} threads", got, want)

    # The layer runs each row alone, time reversed where it runs backward.
    d, layer = cells.data(case), case.layer(dtype)
    for b, length in enumerate(lengths):
        letters = cells.STATES[case.cell]
        if length == 0:
            for letter, first, last in zip(letters, d.start, d.d_end, strict=True):
                end, start = outputs[f"{letter}_n"][b], gradients[f"{letter}0"][b]
                np.testing.assert_array_equal(end, first[0, b].astype(dtype))
                np.testing.assert_array_equal(start, last[0, b].astype(dtype))
            continue
        order = slice(None, None, -1 if reverse else 1)
        one = slice(b, b + 1)
        x, dy = (a[:length, one][order].astype(dtype) for a in (d.x, d.dy))
        start, d_end = (
            cells.as_state([a[:, one] for a in parts], dtype)
            for parts in (d.start, d.d_end)
        )
        alone = cells.run_forward(layer, x, start)
        alone |= cells.run_backward(layer, dy, d_end)
        ragged = {"y": outputs["y"][b][order], "x": gradients["x"][b][order]}
        for letter in letters:
            ragged[f"{letter}_n"] = outputs[f"{letter}_n"][b]
            ragged[f"{letter}0"] = gradients[f"{letter}0"][b]
        cells.assert_same_bits(
            f"row {b}",
            ragged,
            {name: alone[name].reshape(a.shape) for name, a in ragged.items()},
        )
    tolerance = case.tolerance(dtype, backward=True)
    for name, want in layer.grads.items():  # accumulated over the rows
        gradcheck.assert_close(name, gradients[name], want, tolerance)


@pytest.mark.parametrize("cell", cells.CELLS)
@pytest.mark.parametrize("padding", [0, 1, 40])
def test_strides_and_guard_words(isa, dtype, cell, padding):
    """The kernels touch their own elements only, for every remainder of H."""
    lanes = core.kernels(dtype).lanes
    for H in range(1, 2 * lanes + 2):
        case = cells.Case(cell, 2, 3, 1 + H % 5, H)
        outputs, gradients = call(case, dtype, 2, padding=padding)
        outputs["y"] = np.stack(outputs["y"], axis=1)
        gradients["x"] = np.stack(gradients["x"], axis=1)
        want = cells.expected_outputs(case)
        outputs = {name: outputs[name].reshape(a.shape) for name, a in want.items()}
        tolerance = case.tolerance(dtype, backward=False)
        cells.assert_all_close("output", outputs, want, tolerance)
        for name in {"h0", "c0"} & gradients.keys():
            gradients[name] = gradients[name][None]
        cells.assert_correct_along_directions(case, dtype, gradients)


@pytest.mark.parametrize("shape", [*cells.LARGE_SHAPES, (3, 16, 2048, 16)], ids=str)
@pytest.mark.parametrize("cell", cells.CELLS)
def test_strides_and_guard_words_on_several_threads(isa, dtype, cell, shape):
    case = cells.Case(cell, *shape)
    assert_work_for(3, case, case.T * case.B)
    want = flattened(*call(case, dtype, 1))
    for n_threads, padding in ((2, 1), (3, 0), (3, 40)):
        got = flattened(*call(case, dtype, n_threads, padding=padding))
        cells.assert_same_bits(f"{n_threads} threads, rows {padding} apart", got, want)


class TestRefusals:
    """What `Shape`, `StridedArray` and the calls refuse before C sees it."""

    @pytest.mark.parametrize("sizes", [(0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 1, -1)])
    def test_sizes(self, sizes):
        with pytest.raises(ValueError, match="T, B, I, H must be >= 1"):
            single.Shape(0, False, *sizes)

    @pytest.mark.parametrize("cell", [-1, 99])
    def test_cell(self, cell):
        with pytest.raises(ValueError, match="cell must be in"):
            single.Shape(cell, False, 1, 1, 1, 1)

    @pytest.mark.parametrize(
        "offsets", [[0, 2], [1, 3, 4], [0, 2, 5], [0, 3, 4], [0, 2, 2]]
    )
    def test_offsets(self, offsets):
        """T = 2, B = 2: too few, not from 0, growing, more than B, an empty step."""
        with pytest.raises(ValueError, match="Shape: "):
            single.Shape(0, False, 2, 2, 1, 1, np.array(offsets, np.intp))

    @pytest.mark.parametrize(
        ("name", "bad"),
        [
            ("h0", None),
            ("h0", np.ones(5, "f")),
            ("packed", np.ones(3, "f")),
            ("work", np.ones(3, "f")),
            ("tape", np.ones(3, "f")),
            ("h_n", np.ones(6)),
            ("x", single.StridedArray(np.ones(5, "f"), 0, 2, 1)),
            ("y", single.StridedArray(np.ones(24, "f"), 1, 6, 3)),
            ("y", single.StridedArray(np.ones(24, "f"), 0, -6, 3)),
            ("n_threads", 0),
        ],
    )
    def test_forward(self, name, bad):
        kernels, shape = core.kernels("float32"), single.Shape(0, False, 4, 2, 1, 3)
        arguments = {
            "kernels": kernels,
            "shape": shape,
            "n_threads": 1,
            "x": single.StridedArray(np.ones(8, "f"), 0, 2, 1),
            "packed": np.ones(single.packed_size(kernels, False, shape), "f"),
            "h0": np.ones(6, "f"),
            "c0": None,
            "y": single.StridedArray(np.ones(24, "f"), 0, 6, 3),
            "h_n": np.ones(6, "f"),
            "c_n": None,
            "tape": np.ones(single.tape_size(kernels, shape), "f"),
            "work": np.ones(single.work_size(kernels, False, shape, 1), "f"),
        }
        single.forward(*arguments.values())  # the right ones do
        arguments["h_n"][:] = 7
        arguments[name] = bad
        with pytest.raises((TypeError, ValueError), match=name):
            single.forward(*arguments.values())
        assert name == "h_n" or (arguments["h_n"] == 7).all()

    def test_an_lstm_needs_a_cell_state(self):
        kernels = core.kernels("float32")
        shape = single.Shape(celltable.CELLS["lstm"], False, 1, 1, 1, 1)
        one = np.ones(1, "f")
        packed = np.ones(single.packed_size(kernels, False, shape), "f")
        work = np.ones(single.work_size(kernels, False, shape, 1), "f")
        x = single.StridedArray(one, 0, 1, 1)
        for c0, c_n in ((None, one.copy()), (one, None)):
            with pytest.raises(TypeError, match=r"c0|c_n"):
                single.forward(
                    kernels, shape, 1, x, packed, one, c0, x, one, c_n, None, work
                )
