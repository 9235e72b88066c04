# SPDX-License-Identifier: BSD-3-Clause
"""Random layers fed with random arrays: right results or a clear error, never a crash.

Good input comes in every dtype, order and stride that can be converted, and must give
what the reference gives.  Bad input has one thing wrong and must raise ValueError or
TypeError that names the layer, and change nothing.  The examples are the same in every
run; FASTRNN_FUZZ_EXAMPLES=10000 tries that many of each.
"""

import os

import cells
import gradcheck
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

fuzz = settings(
    max_examples=int(os.environ.get("FASTRNN_FUZZ_EXAMPLES", "100")),
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

DTYPES = ["<f4", "<f8", ">f4", ">f8", "f2", "i1", "u1", "<i8", ">i2", "u8"]
TERMS = 1.0  # inputs are whole numbers: terms are of this size where sums are small
LAYOUTS = ["C", "F", "every second", "reversed", "broadcast", "read-only", "list"]
NOT_NUMBERS = [
    lambda shape: np.zeros(shape, complex),
    lambda shape: np.full(shape, "1.5"),
    lambda shape: np.full(shape, None),
    lambda shape: np.zeros(shape, "datetime64[s]"),
    lambda shape: object(),
    lambda shape: {"x": 1},
]


@st.composite
def calls(draw):
    """A case, and whether its layer is batch-first and its input without a batch."""
    T, B, I, H = (draw(st.integers(1, n)) for n in (4, 4, 9, 9))
    unbatched = draw(st.booleans())
    case = cells.Case(
        draw(st.sampled_from(cells.CELLS)),
        T,
        1 if unbatched else B,
        I,
        H,
        num_layers=draw(st.integers(1, 2)),
        bidirectional=draw(st.booleans()),
        bias=draw(st.booleans()),
    )
    dtype = draw(st.sampled_from(["float32", "float64"]))
    return case, dtype, draw(st.booleans()), unbatched


@st.composite
def good_arrays(draw, shape):
    """Small whole numbers of `shape`, which every dtype holds, in any layout."""
    dtype, layout = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(LAYOUTS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low = 0 if np.dtype(dtype).kind == "u" else -2
    array = rng.integers(low, 3, shape).astype(dtype)
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "every second":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if layout == "reversed":
        return array[::-1, ..., ::-1]
    if layout == "broadcast":
        return np.broadcast_to(array[:1], shape)
    if layout == "read-only":
        array.flags.writeable = False
    return array.tolist() if layout == "list" else array


@st.composite
def bad_arrays(draw, shape, ranks, may_be_none):
    """Something that is not numbers of `shape`, nor of any shape of `ranks` axes."""
    options = ["size", "rank", "empty", "not numbers", "ragged"]
    kind = draw(st.sampled_from(options if may_be_none else [*options, "none"]))
    if kind == "none":
        return None
    if kind == "not numbers":
        return draw(st.sampled_from(NOT_NUMBERS))(shape)
    if kind == "ragged":
        return [[1.0], [1.0, 2.0]]
    sizes = list(shape)
    if kind == "rank":
        n = draw(st.sampled_from([n for n in range(6) if n not in ranks]))
        sizes = (sizes + [2] * 6)[:n]
    elif kind == "empty":
        sizes[draw(st.integers(0, len(sizes) - 1))] = 0
    else:
        sizes[-1] += draw(st.sampled_from([-1, 1, 7]))
    return np.ones(sizes, draw(st.sampled_from(DTYPES)))


def shapes(case, batch_first, unbatched):
    """Of x, y and a state, as the layer's caller sees them."""
    width = case.directions * case.H
    states = case.num_layers * case.directions
    if unbatched:
        return (case.T, case.I), (case.T, width), (states, case.H)
    lead = (case.B, case.T) if batch_first else (case.T, case.B)
    return (*lead, case.I), (*lead, width), (states, case.B, case.H)


def copies(values):
    """Copies of all arrays within nested tuples and lists."""
    if isinstance(values, tuple):
        return tuple(copies(value) for value in values)
    return np.array(values) if isinstance(values, np.ndarray | list) else None


def assert_unchanged(now, before):
    if isinstance(now, tuple):
        for one, other in zip(now, before, strict=True):
            assert_unchanged(one, other)
    elif before is not None:
        np.testing.assert_array_equal(now, before)


@fuzz
@given(st.data())
def test_good_input_gives_correct_results(source):
    case, dtype, batch_first, unbatched = source.draw(calls())
    layer = case.layer(dtype, batch_first=batch_first)
    shape_x, shape_y, shape_state = shapes(case, batch_first, unbatched)
    x = source.draw(good_arrays(shape_x))
    dy = source.draw(good_arrays(shape_y))
    n_states = cells.N_STATES[case.cell]
    state = tuple(source.draw(good_arrays(shape_state)) for _ in range(n_states))
    if "n" in cells.STATES[case.cell]:  # a normaliser, which divides, is positive
        k = cells.STATES[case.cell].index("n")
        state = (*state[:k], np.abs(state[k]) + 0.5, *state[k + 1 :])
    d_state = tuple(source.draw(good_arrays(shape_state)) for _ in range(n_states))
    given_values = (x, dy, state, d_state)
    before = copies(given_values)

    outputs = cells.run_forward(layer, x, cells.state_of(state))
    gradients = cells.run_backward(layer, dy, cells.state_of(d_state))
    assert_unchanged(given_values, before)

    # To the reference's form: time first, with a batch, float64.
    def sequence(values):
        array = np.asarray(values, np.float64)
        if unbatched:
            return array[:, None]
        return array.swapaxes(0, 1) if batch_first else array

    def states(values):
        array = np.asarray(values, np.float64)
        return array[:, None] if unbatched else array

    arrays = {"x": sequence(x), **cells.data(case).parameters}
    arrays |= cells.named(case.cell, "0", map(states, state))
    weights = cells.named(case.cell, "_n", map(states, d_state))
    weights["y"] = sequence(dy)

    def outputs_of(arrays):
        y, end = cells.reference_forward(case, arrays)
        return {"y": y, **cells.named(case.cell, "_n", end)}

    def loss(arrays):
        results = outputs_of(arrays)
        axes = (-3, -2, -1)
        return sum((results[k] * w).sum(axis=axes) for k, w in weights.items())

    want = outputs_of(arrays)
    forms = {"x": sequence, "y": sequence}
    for end in ("0", "_n"):
        forms |= dict.fromkeys(cells.named(case.cell, end, state), states)
    outputs = {name: forms[name](got) for name, got in outputs.items()}
    want = {name: want[name] for name in outputs}
    tolerance = case.tolerance(dtype, backward=False)
    cells.assert_all_close("output", outputs, want, tolerance, TERMS)
    gradients = {
        name: forms.get(name, np.asarray)(got) for name, got in gradients.items()
    }
    expected = gradcheck.complex_step(loss, arrays, arrays)
    tolerance = case.tolerance(dtype, backward=True)
    cells.assert_all_close("gradient", gradients, expected, tolerance, TERMS)


@fuzz
@given(st.data())
def test_bad_input_raises_and_changes_nothing(source):
    case, dtype, batch_first, unbatched = source.draw(calls())
    layer = case.layer(dtype, batch_first=batch_first)
    shape_x, shape_y, shape_state = shapes(case, batch_first, unbatched)
    n_states = cells.N_STATES[case.cell]
    good_state = np.ones(shape_state)
    argument = (good_state,) * n_states if n_states > 1 else good_state
    good = {"x": np.ones(shape_x), "hx": argument}
    good |= {"dy": np.ones(shape_y), "d_state": argument}

    name = source.draw(st.sampled_from(list(good)))
    if name in ("x", "dy"):
        shape, ranks = (shape_x, (2, 3)) if name == "x" else (shape_y, (len(shape_y),))
        bad = source.draw(bad_arrays(shape, ranks, may_be_none=name == "dy"))
    else:
        ranks = (len(shape_state),)
        bad = source.draw(bad_arrays(shape_state, ranks, may_be_none=True))
        if n_states > 1:
            others = (good_state,) * (n_states - 1)
            tuples = [(bad, *others), (*others, bad), [good_state], good_state[0, 0]]
            bad = source.draw(st.sampled_from(tuples))
    values = good | {name: bad}

    before = layer.flat_parameters.copy()
    expectation = pytest.raises((TypeError, ValueError), match=type(layer).__name__)
    if name in ("x", "hx"):
        with expectation:
            layer(values["x"], values["hx"])
        assert layer.context is None
    layer(good["x"], good["hx"])
    if name in ("dy", "d_state"):
        with expectation:
            layer.backward(values["dy"], values["d_state"])
    assert not layer.flat_grads.any()
    # What went wrong left the context as it was: the right call still works.
    layer.backward(good["dy"], good["d_state"])
    assert np.isfinite(layer.flat_grads).all()
    np.testing.assert_array_equal(layer.flat_parameters, before)
