# SPDX-License-Identifier: BSD-3-Clause
"""Sums over many rows: how far from the exact ones, and that blocks change no bit.

csrc/README.md, "One order of summation", says how gradients of parameters are summed.
A single chain over all rows, as they once were, fails every test of accuracy here.
"""

import cells
import gradcheck
import numpy as np
import pytest
from cells import CELLS, Case, assert_same_bits, data

import fastrnn
from fastrnn.native import core

# What sums of 64 rows and of a hundred such sums lose, in parts that cancel, and what
# the cells' functions have lost before: up to 6 eps are found. One chain over all rows
# loses 19 eps or more.
WORST = 8 * float(np.finfo("f").eps)


def error(got, exact):
    """Norm of the difference, relative to the exact array's."""
    difference = got.astype(np.float64) - exact
    return np.linalg.norm(difference) / np.linalg.norm(exact)


@pytest.mark.parametrize("cell", CELLS)
def test_weights_and_biases_of_a_cell(cell):
    """Judged by complex steps through the equations, in double."""
    case = Case(cell, T=4, B=5000, I=2, H=2)
    layer = case.layer("float32")
    _, got = cells.run(case, "float32", layer)
    exact = gradcheck.complex_step(cells.loss(case), cells.inputs(case), layer.grads)
    for name, array in exact.items():
        assert error(got[name], array) < WORST, name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_and_biases_of_a_linear_layer(rng, dtype):
    x = (rng.standard_normal((60_000, 5)) + 1).astype(dtype)
    dy = (rng.standard_normal((60_000, 19)) + 1).astype(dtype)
    layer = fastrnn.Linear(5, 19, dtype=dtype)
    layer(x)
    layer.backward(dy)
    exact = {
        "weight": dy.T.astype(np.longdouble) @ x.astype(np.longdouble),
        "bias": dy.sum(0, dtype=np.longdouble),
    }
    eps = np.finfo(dtype).eps
    for name, limit in (("weight", 2), ("bias", 0.5)):
        difference = np.linalg.norm((layer.grads[name] - exact[name]).astype(float))
        assert difference < limit * eps * np.linalg.norm(exact[name].astype(float))


def test_weights_and_biases_of_a_norm(rng):
    x, dy = (rng.standard_normal((60_000, 9)).astype("f") + 1 for _ in range(2))
    layer = fastrnn.LayerNorm(9)
    layer(x)
    layer.backward(dy)
    wide = x.astype(np.float64)
    normed = (wide - wide.mean(1, keepdims=True)) / np.sqrt(
        wide.var(1, keepdims=True) + layer.eps
    )
    exact = {"weight": (dy * normed).sum(0), "bias": dy.sum(0, dtype=np.float64)}
    for name, array in exact.items():
        assert error(layer.grads[name], array) < WORST / 4, name


def test_norms_of_the_flow_are_summed_in_double(rng):
    """At the last step the gradient of h is dy itself."""
    dy = (rng.standard_normal((1, 4, 1000)) + 1).astype("f")
    layer = fastrnn.GRU(2, 1000, seed=0)
    layer(np.zeros((1, 4, 2), "f"))
    _, _, flow = layer.backward(dy, record_flow=True)
    exact = np.linalg.norm(dy.astype(np.float64))
    np.testing.assert_allclose(np.asarray(flow).reshape(-1), exact, rtol=1e-13)


def test_an_overflow_is_infinite():
    """What an infinite sum has lost is not a number, and is left out."""
    layer = fastrnn.Linear(1, 1)
    layer(np.ones((40, 1), "f"))
    layer.backward(np.full((40, 1), 3e38, "f"))
    assert np.isposinf(layer.grads["bias"]).all()


def gradients(case, dtype, every=None, **options):
    """Of parameters, on top of gradients that are there already."""
    layer, d = case.layer(dtype, checkpoint_every=every), data(case)
    layer.flat_grads[:] = np.linspace(-1, 1, layer.flat_grads.size)
    layer(d.x.astype(dtype), d.state(dtype), **options)
    return cells.run_backward(layer, d.dy.astype(dtype), d.d_state(dtype))


# (T, B): one sequence; blocks that end in the middle of a call; steps of most of a
# block, of more than one, of more rows than are summed at a time; and one step alone.
ROWS = [(600, 1), (100, 7), (9, 129), (5, 257), (3, 1100), (1, 300)]


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_calls_threads_and_targets_change_no_bit(dtype, cell, rows, ragged):
    case = Case(cell, *rows, 3, 21)
    options = {}
    if ragged:
        T, B = rows
        options["lengths"] = [1 + (7 * b + T - 1) % T for b in range(B)]
    before = fastrnn.get_num_threads()
    try:
        fastrnn.set_num_threads(1)
        want = gradients(case, dtype, **options)
        for n_threads, every in ((2, None), (7, None), (1, 1), (2, 37), (1, 4)):
            fastrnn.set_num_threads(n_threads)
            got = gradients(case, dtype, every, **options)
            assert_same_bits(f"{n_threads} threads, every {every}:", got, want)
        fastrnn.set_num_threads(1)
        for isa in set(core.SUPPORTED) - {"baseline"}:
            with core.use_isa(isa):
                assert_same_bits(isa, gradients(case, dtype, 37, **options), want)
    finally:
        fastrnn.set_num_threads(before)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LSTM", {"peephole": True, "proj_size": 5}),
        ("LSTM", {"num_layers": 3, "bidirectional": True}),
        ("GRU", {"reset_after": False, "num_layers": 2}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_calls_change_no_bit_of_other_cells(rng, kind, options):
    x, found = rng.standard_normal((90, 11, 4)).astype("f"), []
    for every in (None, 1, 29):
        layer = getattr(fastrnn, kind)(4, 18, seed=0, checkpoint_every=every, **options)
        y, _ = layer(x)
        dx, _ = layer.backward(np.cos(y))
        found.append({"dx": dx, **layer.grads})
    for got in found[1:]:
        assert_same_bits("", got, found[0])


def test_peepholes(rng):
    """Judged by the kernels in double, which test_general_cells.py judges."""
    layer = fastrnn.LSTM(1, 2, peephole=True, dtype="float32", seed=0)
    exact = fastrnn.LSTM(1, 2, peephole=True, dtype="float64", seed=0)
    exact.load_state_dict({k: v.astype(float) for k, v in layer.state_dict().items()})
    x = rng.standard_normal((3, 20_000, 1)).astype("f")
    dy = (rng.standard_normal((3, 20_000, 2)) + 1).astype("f")
    for one in (layer, exact):
        one(x.astype(one.dtype))
        one.backward(dy.astype(one.dtype))
    for name, array in exact.grads.items():
        assert error(layer.grads[name], array) < WORST, name
