# SPDX-License-Identifier: BSD-3-Clause
"""Cells with options, through _core: activations, clip, peepholes, coupled gates, reset
before the product, projection; recorded and clipped state gradients; frozen parameters.

The judge is a float64 forward written from the equations, differentiated by central
differences.
"""

import numpy as np
import pytest
from cells import CELLS, GATES, N_STATES
from option_cells import CASES, Cell, differences, loss

from fastrnn.native import celltable, core, single


def run(
    cell, v, d, dtype, n_threads=1, without=(), reverse=False, lengths=None, **more
):
    """Forward and backward through _core: outputs and gradients by name.

    `without` names parameters that get no gradient. Sequences of `lengths`, descending,
    are packed step by step.
    """
    kernels = core.kernels(dtype)
    T, B, I = v["x"].shape
    H, S = v["W"].shape[0] // GATES[cell.kind], v["h0"].shape[1]
    kind = celltable.CELLS[cell.kind]
    alive = np.arange(T)[:, None] < np.array(lengths if lengths else [T] * B)
    offsets = np.concatenate([[0], alive.sum(1).cumsum()]).astype(np.intp)
    shape = single.Shape(
        kind, reverse, T, B, I, H, offsets if lengths else None, cell.core
    )
    a = {name: np.ascontiguousarray(value, dtype) for name, value in v.items()}
    da = {name: np.ascontiguousarray(value, dtype) for name, value in d.items()}
    for arrays, name in ((a, "x"), (da, "y")):
        arrays[name] = np.ascontiguousarray(arrays[name][alive])

    def room(size):
        raw = np.full(size + 16, np.nan, dtype)
        return raw[-raw.ctypes.data % 64 // raw.itemsize :][:size]

    def series(array):
        width = array.shape[-1]
        return single.StridedArray(array, 0, B * width, width)

    packed = []
    for backward in (False, True):
        packed.append(room(single.packed_size(kernels, backward, shape)))
        single.pack(
            kernels, backward, shape, a["W"], a.get("R"), a["b_ih"], a.get("b_hh"),
            packed[-1],
            a.get("P"), a.get("W_hr"),
        )  # fmt: skip
    out = {
        "y": np.full((len(a["x"]), S), np.nan, dtype),
        "h_n": np.full((B, S), np.nan, dtype),
    }
    grads = {name: np.zeros_like(value) for name, value in a.items()}
    for name in ("x", "h0", "c0"):
        if name in grads:
            grads[name][...] = np.nan
    if "c0" in a:
        out["c_n"] = np.full_like(a["c0"], np.nan)
    tape = room(single.tape_size(kernels, shape))
    single.forward(
        kernels, shape, n_threads, series(a["x"]), packed[0], a["h0"], a.get("c0"),
        series(out["y"]), out["h_n"], out.get("c_n"), tape,
        room(single.work_size(kernels, False, shape, n_threads)),
    )  # fmt: skip
    inference = {name: np.full_like(value, np.nan) for name, value in out.items()}
    single.forward(
        kernels, shape, n_threads, series(a["x"]), packed[0], a["h0"], a.get("c0"),
        series(inference["y"]), inference["h_n"], inference.get("c_n"), None,
        room(single.work_size(kernels, False, shape, n_threads)),
    )  # fmt: skip
    for name in out:
        np.testing.assert_array_equal(out[name], inference[name])
    wanted = {name: None if name in without else g for name, g in grads.items()}
    single.backward(
        kernels, shape, n_threads, series(a["x"]), packed[1], a["h0"],
        series(out["y"]), tape, series(da["y"]), da["h_n"], da.get("c_n"),
        series(grads["x"]), False,
        grads["h0"], grads.get("c0"), wanted["W"], wanted.get("R"), wanted["b_ih"],
        wanted.get("b_hh"), room(single.work_size(kernels, True, shape, n_threads)),
        wanted.get("P"), wanted.get("W_hr"), **more,
    )  # fmt: skip
    return out, grads, alive


@pytest.fixture(params=CASES.values(), ids=CASES)
def cell(request):
    kind, activations, options = request.param
    return Cell(kind, activations, **options)


def test_values_and_gradients(isa, cell):
    v, d = cell.data()
    out, grads, _ = run(cell, v, d, "float64")
    for got, want in zip(out.values(), cell.forward(v), strict=False):
        np.testing.assert_allclose(
            got.reshape(want.shape), want, rtol=1e-10, atol=1e-11
        )
    rng = np.random.default_rng(1)
    for name, value in v.items():
        at = rng.choice(value.size, min(value.size, 25), replace=False)
        want = differences(cell, v, d, name, at)
        np.testing.assert_allclose(
            grads[name].flat[at], want, rtol=2e-6, atol=2e-7, err_msg=name
        )


def test_float32_is_near_float64(isa, cell):
    v, d = cell.data()
    found = [run(cell, v, d, dtype)[:2] for dtype in ("float32", "float64")]
    for part in (0, 1):
        for name, want in found[1][part].items():
            got = found[0][part][name]
            bound = 2e-5 * max(1, np.abs(want).max())
            np.testing.assert_allclose(got, want, rtol=0, atol=bound, err_msg=name)


@pytest.mark.parametrize("sizes", [(9, 40, 33, 70), (6, 3, 40, 260)], ids=str)
def test_same_bits_for_any_number_of_threads(dtype, cell, sizes):
    v, d = cell.data(sizes)
    for array in v.values():
        array *= 0.3
    want = run(cell, v, d, dtype)
    for n_threads in (2, 3, 5):
        got = run(cell, v, d, dtype, n_threads)
        for part in (0, 1):
            for name in want[part]:
                np.testing.assert_array_equal(got[part][name], want[part][name], name)


def test_same_bits_on_every_target_with_fma(dtype, cell):
    found = []
    v, d = cell.data((4, 7, 5, 37))
    for isa in core.SUPPORTED:
        if isa != "baseline" or len(core.SUPPORTED) == 1:
            with core.use_isa(isa):
                found.append(run(cell, v, d, dtype))
    for other in found[1:]:
        for part in (0, 1):
            for name, want in found[0][part].items():
                np.testing.assert_array_equal(other[part][name], want, name)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_ragged_rows_have_the_bits_they_have_alone(isa, cell, reverse):
    lengths = [6, 6, 4, 1]
    v, d = cell.data((6, 4, 3, 18))
    out, grads, alive = run(cell, v, d, "float32", reverse=reverse, lengths=lengths)
    for b, length in enumerate(lengths):
        row = slice(b, b + 1)
        v1 = dict(v, x=v["x"][:length, row], h0=v["h0"][row])
        d1 = dict(d, y=d["y"][:length, row], h_n=d["h_n"][row])
        if N_STATES[cell.kind] == 2:
            v1["c0"], d1["c_n"] = v["c0"][row], d["c_n"][row]
        out1, grads1, _ = run(cell, v1, d1, "float32", reverse=reverse)
        for got, want, key in ((out, out1, "y"), (grads, grads1, "x")):
            full = np.zeros((*alive.shape, want[key].shape[-1]), "f")
            full[alive] = got[key]
            np.testing.assert_array_equal(full[:length, b], want[key])
        np.testing.assert_array_equal(out["h_n"][row], out1["h_n"])
        np.testing.assert_array_equal(grads["h0"][row], grads1["h0"])


def test_a_frozen_parameter_gets_nothing_and_changes_nothing(isa, cell):
    v, d = cell.data()
    want = run(cell, v, d, "float32")[1]
    for name in sorted({"W", "R", "b_ih", "b_hh", "P", "W_hr"} & set(v)):
        got = run(cell, v, d, "float32", without=[name])[1]
        assert not got[name].any()
        for other in set(v) - {name}:
            np.testing.assert_array_equal(got[other], want[other], other)
    nothing = run(
        cell, v, d, "float32", without=["W", "R", "b_ih", "b_hh", "P", "W_hr"]
    )
    np.testing.assert_array_equal(nothing[1]["x"], want["x"])


# --- the gradient of the state ---------------------------------------------------

PLAIN_CELLS = {
    **{name: Cell(name) for name in CELLS},
    "lstm peephole": Cell("lstm", peephole=True),
    "lstm projection": Cell("lstm", proj_size=7),
    "gru before": Cell("gru", reset_before=True),
}


def state_gradients(cell, v, d):
    """dL/dh_t, (T, B, S), by central differences: h_t moved before step t + 1."""
    T, B, _ = v["x"].shape
    S = v["h0"].shape[1]
    found = np.zeros((T, B, S))
    for t in range(T):
        head, tail = dict(v, x=v["x"][: t + 1]), dict(v, x=v["x"][t + 1 :])
        _, h, c = cell.forward(head)

        def rest(moved, t=t, tail=tail, c=c):
            total = (moved * d["y"][t]).sum()
            if t == T - 1:
                last_c = 0 if c is None else (c * d["c_n"]).sum()
                return total + (moved * d["h_n"]).sum() + last_c
            inputs = dict(tail, h0=moved)
            if c is not None:
                inputs["c0"] = c
            return total + loss(cell, inputs, dict(d, y=d["y"][t + 1 :]))

        for k in range(B * S):
            step = np.zeros(B * S)
            step[k] = 1e-6
            step = step.reshape(B, S)
            found[t].flat[k] = (rest(h + step) - rest(h - step)) / 2e-6
    return found


@pytest.mark.parametrize("cell", PLAIN_CELLS.values(), ids=PLAIN_CELLS)
def test_flow_is_the_squared_norm_of_the_gradient_of_each_state(isa, cell):
    v, d = cell.data((4, 3, 2, 9))
    flow = np.full((4, 3), np.nan)
    without = run(cell, v, d, "float64")
    recorded = run(cell, v, d, "float64", flow=flow)
    for part in (0, 1):
        for name, want in without[part].items():
            np.testing.assert_allclose(
                recorded[part][name], want, rtol=1e-13, atol=1e-14
            )
    want = (state_gradients(cell, v, d) ** 2).sum(axis=-1)
    np.testing.assert_allclose(flow, want, rtol=1e-6)


@pytest.mark.parametrize("cell", PLAIN_CELLS.values(), ids=PLAIN_CELLS)
@pytest.mark.parametrize("bound", [{"clip_value": 0.4}, {"clip_norm": 1.1}], ids=str)
def test_clipped_gradients_are_those_of_single_steps_with_clipping_between(cell, bound):
    v, d = cell.data((5, 3, 2, 9))
    for array in d.values():
        array *= 0.5
    _, got, _ = run(cell, v, d, "float64", **bound)

    def bounded(g):
        if "clip_value" in bound:
            return np.clip(g, -bound["clip_value"], bound["clip_value"])
        norm = np.sqrt((g**2).sum(axis=-1, keepdims=True))
        return g * np.minimum(1, bound["clip_norm"] / norm)

    states = [(v["h0"], v.get("c0"))]
    for t in range(5):
        now = dict(v, x=v["x"][t : t + 1], h0=states[-1][0])
        if "c0" in v:
            now["c0"] = states[-1][1]
        states.append(cell.forward(now)[1:])
    totals = {name: np.zeros_like(value) for name, value in v.items()}
    dh, dc = d["h_n"], d.get("c_n")
    for t in reversed(range(5)):
        now = dict(v, x=v["x"][t : t + 1], h0=states[t][0])
        later = {"y": np.zeros((1, *dh.shape)), "h_n": bounded(dh + d["y"][t])}
        if dc is not None:
            now["c0"], later["c_n"] = states[t][1], dc
        grads = run(cell, now, later, "float64")[1]
        dh, dc = grads["h0"], grads.get("c0")
        totals["x"][t] = grads["x"]
        for name in set(v) - {"x", "h0", "c0"}:
            totals[name] += grads[name]
    totals["h0"] = dh
    if dc is not None:
        totals["c0"] = dc
    for name, want in totals.items():
        np.testing.assert_allclose(
            got[name].reshape(want.shape), want, rtol=1e-9, atol=1e-12, err_msg=name
        )
    free = run(cell, v, d, "float64")[1]
    assert not np.allclose(free["x"], got["x"])


@pytest.mark.parametrize("cell", PLAIN_CELLS.values(), ids=PLAIN_CELLS)
def test_flow_and_clip_have_the_same_bits_for_any_number_of_threads(dtype, cell):
    for sizes in ((7, 40, 33, 70), (6, 3, 40, 260)):
        v, d = cell.data(sizes)
        found = []
        for n_threads in (1, 2, 3):
            flow = np.full(sizes[:2], np.nan)
            got = run(cell, v, d, dtype, n_threads, flow=flow, clip_norm=0.5)
            found.append((flow, got[1]["x"], got[1]["W"], got[1]["h0"]))
        for other in found[1:]:
            for a, b in zip(found[0], other, strict=True):
                np.testing.assert_array_equal(a, b)


# --- errors ----------------------------------------------------------------------


def test_options_that_do_not_go_together():
    gru, lstm = celltable.CELLS["gru"], celltable.CELLS["lstm"]
    with pytest.raises(ValueError, match="proj_size is an option of lstm, not of gru"):
        single.Shape(gru, 0, 1, 1, 1, 4, None, celltable.CellOptions(proj_size=2))
    with pytest.raises(ValueError, match=r"in \[1, 4\)"):
        single.Shape(lstm, 0, 1, 1, 1, 4, None, celltable.CellOptions(proj_size=4))
    with pytest.raises(ValueError, match="activations are needed"):
        celltable.CellOptions(clip=1)
