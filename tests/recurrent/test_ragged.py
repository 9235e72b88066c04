# SPDX-License-Identifier: BSD-3-Clause
"""`lengths`, `mask` and `resets` of recurrent layers: the steps that are computed.

The judge is the layer itself on each stretch alone, which test_cells.py checks, and
PyTorch's packed sequences.
"""

import copy
import tracemalloc

import numpy as np
import pytest
from cells import CELLS, PEERS, Case, assert_same_bits, data, nonlinearity_of

import fastrnn
from fastrnn.native import celltable

T = 6
LENGTHS = {
    "mixed": [3, 6, 0, 1, 6, 2, 4],
    "shorter than T": [2, 5, 5, 1, 2, 3, 1],
    "sorted": [6, 5, 4, 3, 2, 1, 0],
    "sorted, shorter than T": [5, 5, 3, 3, 1, 0, 0],
    "none": [0] * 7,
}
STACKS = {
    "single": {},
    "bidirectional": {"bidirectional": True},
    "stack": {"num_layers": 3},
    "both": {"num_layers": 2, "bidirectional": True, "bias": False},
}


@pytest.fixture(params=[1, 2], ids=lambda n: f"{n}thr")
def n_threads(request):
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(request.param)
    yield request.param
    fastrnn.set_num_threads(before)


def as_list(state):
    return list(state) if isinstance(state, tuple) else [state]


def as_given(parts):
    return tuple(parts) if len(parts) > 1 else parts[0]


class Problem:
    """A case in a dtype: its layer, data, and gradients of the results."""

    def __init__(self, case, dtype, **options):
        d = data(case)
        self.case, self.layer = case, case.layer(dtype, **options)
        self.x, self.dy = d.x.astype(dtype), d.dy.astype(dtype)
        self.state = as_list(d.state(dtype))
        self.d_state = as_list(d.d_state(dtype))

    def run(self, **arguments):
        """Results of a forward and its backward, by name."""
        return run(self.layer, self.x, self.state, self.dy, self.d_state, **arguments)


def run(layer, x, state, dy, d_state, **arguments):
    layer.zero_grad()
    first = layer.batch_first
    x, dy = (a.swapaxes(0, 1) if first else a for a in (x, dy))
    y, end = layer(x, as_given(state), **arguments)
    dx, start = layer.backward(dy, as_given(d_state))
    y, dx = (a.swapaxes(0, 1) if first else a for a in (y, dx))
    return {
        "y": y,
        "dx": dx,
        **{f"end {i}": a for i, a in enumerate(as_list(end))},
        **{f"d_start {i}": a for i, a in enumerate(as_list(start))},
        **{f"d{name}": g.copy() for name, g in layer.grads.items()},
    }


def alone(problem, lengths):
    """What `run` gives, one sequence at a time; parameter gradients summed."""
    p, layer = problem, problem.layer
    n = p.x.shape[1]
    result = {"y": np.zeros_like(p.dy), "dx": np.zeros_like(p.x)}
    for i in range(len(p.state)):
        result[f"end {i}"] = p.state[i].copy()
        result[f"d_start {i}"] = p.d_state[i].copy()
    grads = {f"d{name}": np.zeros(g.shape) for name, g in layer.grads.items()}
    for b in range(n):
        if lengths[b] == 0:
            continue
        one, steps = slice(b, b + 1), slice(0, lengths[b])
        got = run(
            layer,
            p.x[steps, one],
            [a[:, one] for a in p.state],
            p.dy[steps, one],
            [a[:, one] for a in p.d_state],
        )
        for name in ("y", "dx"):
            result[name][steps, one] = got[name]
        for name in list(result)[2:]:
            result[name][:, one] = got[name]
        for name in grads:
            grads[name] += got[name]
    return result, grads


def assert_alone(problem, lengths, got):
    want, grads = alone(problem, lengths)
    summed = {name: got.pop(name) for name in grads}
    assert_same_bits("", got, want)
    tolerance = problem.case.tolerance(problem.layer.dtype, backward=True)
    for name, gradient in grads.items():
        scale = max(np.abs(gradient).max(), 1)
        assert np.abs(summed[name] - gradient).max() <= tolerance * scale, name


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("cell", CELLS)
def test_lengths_give_each_sequence_its_bits_alone(isa, dtype, cell, lengths, stack):
    problem = Problem(Case(cell, T, 7, 5, 19, **stack), dtype)
    problem.x[np.arange(T)[:, None] >= np.array(lengths)] = np.nan
    assert_alone(problem, lengths, problem.run(lengths=lengths))


@pytest.mark.parametrize("cell", CELLS)
def test_lengths_on_several_threads(isa, dtype, cell, n_threads):
    case = Case(cell, 12, 33, 9, 70, num_layers=2, bidirectional=True)
    lengths = [(7 * b) % 13 for b in range(33)]
    problem = Problem(case, dtype)
    assert_alone(problem, lengths, problem.run(lengths=lengths))


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("cell", CELLS)
def test_inference_has_the_bits_of_training(dtype, cell, stack):
    problem = Problem(Case(cell, T, 7, 5, 19, **stack), dtype)
    x, state = problem.x, as_given(problem.state)
    y, end = problem.layer(x, state, lengths=LENGTHS["mixed"])
    y_2, end_2 = problem.layer.eval()(x, state, lengths=LENGTHS["mixed"])
    np.testing.assert_array_equal(y, y_2)
    np.testing.assert_array_equal(as_list(end), as_list(end_2))


@pytest.mark.parametrize("every", [1, 2, 4, 5])
@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("cell", CELLS)
def test_checkpoints_change_no_bit(dtype, cell, stack, every):
    mask = np.random.default_rng(3).random((7, T)) < 0.8
    got, want = (
        Problem(Case(cell, T, 7, 5, 19, **stack), dtype, checkpoint_every=k).run(
            lengths=LENGTHS["mixed"], mask=mask
        )
        for k in (every, None)
    )
    assert_same_bits(f"every {every}", got, want)


@pytest.mark.parametrize("cell", CELLS)
def test_batch_first_changes_no_bit(dtype, cell):
    rng = np.random.default_rng(4)
    mask, resets = rng.random((7, T)) < 0.7, rng.random((T, 7)) < 0.3
    for more in ({}, {"mask": mask}, {"mask": mask, "resets": resets}):
        got, want = (
            Problem(Case(cell, T, 7, 5, 19, 2), dtype, batch_first=first).run(
                lengths=LENGTHS["mixed"],
                **more | ({"resets": resets.T} if first and "resets" in more else {}),
            )
            for first in (True, False)
        )
        assert_same_bits("batch first", got, want)


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("every", [None, 2])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_sorted_batch_has_the_bits_of_a_shuffled_one(
    n_threads, cell, stack, first, every, return_sequences
):
    """The kernels run it in the caller's arrays, another after it was gathered."""
    options = {"checkpoint_every": every, "return_sequences": return_sequences}
    case = Case(cell, 9, 7, 5, 40, **stack)
    lengths, order = np.array([8, 7, 5, 4, 2, 1, 0]), [3, 0, 6, 2, 5, 1, 4]
    found = []
    for rows in (list(range(7)), order):
        p = Problem(case, "float32", batch_first=first, **options)
        layer, x, dy = p.layer, p.x[:, rows], p.dy[:, rows]
        dy = dy[0] if not return_sequences else dy.swapaxes(0, 1) if first else dy
        x = x.swapaxes(0, 1) if first else x
        state, d_state = (
            as_given([part[:, rows] for part in parts])
            for parts in (p.state, p.d_state)
        )
        for training in (False, True):
            y, end = layer.train(training)(x, state, lengths=lengths[rows])
            y = y.swapaxes(0, 1) if first and return_sequences else y
            found.append({"y": y} | {f"end {i}": a for i, a in enumerate(as_list(end))})
        dx, start, flow = layer.backward(
            np.ascontiguousarray(dy), d_state, record_flow=True
        )
        found[-1] |= {f"start {i}": a for i, a in enumerate(as_list(start))}
        dx = dx.swapaxes(0, 1) if first else dx
        for result in found[-2:]:
            for name, array in result.items():
                axis = 0 if array.ndim == 2 else 1
                result[name] = np.take(array, np.argsort(rows), axis)
        found[-1] |= {"dx": np.take(dx, np.argsort(rows), 1), "flow": flow}
        found[-1] |= {f"d{name}": g.copy() for name, g in layer.grads.items()}
    np.testing.assert_allclose(found[1]["flow"], found[3].pop("flow"), rtol=1e-12)
    del found[1]["flow"]
    for got, want in zip(found[:2], found[2:], strict=True):
        assert_same_bits("", got, want)


# -- masks and resets -----------------------------------------------------------------


def step_by_step(problem, lengths, mask, resets, zero_output=False):
    """Forward in words: a Python loop over steps of the layers of one direction."""
    p, layer = problem, problem.layer
    n_steps, n = p.x.shape[:2]
    state = [a.copy() for a in p.state]
    y = np.zeros((n_steps, n, layer.hidden_size), layer.dtype)
    for b in range(n):
        one, shown = slice(b, b + 1), 0
        for t in range(lengths[b]):
            if resets[t, b]:
                for part in state:
                    part[:, one] = 0
            if mask[b, t]:
                given = as_given([part[:, one] for part in state])
                shown, end = layer(p.x[t : t + 1, one], given)
                for part, now in zip(state, as_list(end), strict=True):
                    part[:, one] = now
                y[t, b] = shown
            elif not zero_output:
                y[t, b] = shown
    return {"y": y, **{f"end {i}": a for i, a in enumerate(state)}}


SETS = {
    "mask": (0.6, 0.0),
    "resets": (1.0, 0.4),
    "both": (0.6, 0.4),
    "mostly masked": (0.15, 0.2),
}


def choices(name, n_steps, n, seed=5):
    rng = np.random.default_rng(seed)
    share, resets = SETS[name]
    mask, resets = rng.random((n, n_steps)) < share, rng.random((n_steps, n)) < resets
    if resets.any():
        resets[0, :2] = True  # the given state is nobody's
        resets[-1, 1:3] = True
    return mask, resets


@pytest.mark.parametrize("lengths", [[T] * 7, LENGTHS["mixed"]], ids=["all", "mixed"])
@pytest.mark.parametrize("zero_output", [False, True])
@pytest.mark.parametrize("what", SETS)
@pytest.mark.parametrize("cell", CELLS)
def test_masks_and_resets_against_a_loop(dtype, cell, what, zero_output, lengths):
    problem = Problem(Case(cell, T, 7, 5, 19, num_layers=2), dtype)
    mask, resets = choices(what, T, 7)
    got = problem.run(
        lengths=lengths, mask=mask, resets=resets, zero_output_for_mask=zero_output
    )
    want = step_by_step(problem, lengths, mask, resets, zero_output)
    assert_same_bits(what, {name: got[name] for name in want}, want)


@pytest.mark.parametrize("cell", CELLS)
def test_a_mask_in_both_directions(cell):
    """The second direction's output before a masked step is that of a later one."""
    problem = Problem(Case(cell, T, 7, 5, 8, bidirectional=True), "float64")
    mask, _ = choices("mask", T, 7)
    got = problem.run(mask=mask)
    want = np.zeros_like(got["y"])
    for b in range(7):
        steps = np.flatnonzero(mask[b])
        state = as_given([a[:, b : b + 1] for a in problem.state])
        y, end = problem.layer(problem.x[steps, b : b + 1], state)
        for t in range(T):
            before, after = steps[steps <= t], steps[steps >= t]
            if before.size:
                want[t, b, :8] = y[len(before) - 1, 0, :8]
            if after.size:
                want[t, b, 8:] = y[len(steps) - len(after), 0, 8:]
        for i, part in enumerate(as_list(end)):
            np.testing.assert_array_equal(got[f"end {i}"][:, b], part[:, 0])
    np.testing.assert_array_equal(got["y"], want)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("what", SETS)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_by_central_differences(cell, what, bidirectional):
    case = Case(cell, 5, 3, 2, 3, num_layers=2, bidirectional=bidirectional)
    problem = Problem(case, "float64")
    mask, resets = choices(what, 5, 3)
    arguments = {"lengths": [3, 5, 4], "mask": mask}
    if not bidirectional:
        arguments["resets"] = resets
    got, layer = problem.run(**arguments), problem.layer
    layer.eval()

    def loss():
        y, end = layer(problem.x, as_given(problem.state), **arguments)
        pairs = zip(as_list(end), problem.d_state, strict=True)
        return (y * problem.dy).sum() + sum((a * d).sum() for a, d in pairs)

    arrays = {"dx": problem.x}
    arrays |= {f"d_start {i}": a for i, a in enumerate(problem.state)}
    arrays |= {f"d{name}": a for name, a in layer.parameters.items()}
    for name, array in arrays.items():
        want = np.empty_like(array)
        for at in np.ndindex(array.shape):
            kept, ends = array[at], []
            for step in (1e-6, -1e-6):
                array[at] = kept + step
                ends.append(loss())
            array[at] = kept
            want[at] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(got[name], want, rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", PEERS)
def test_against_packed_sequences_of_torch(cell, bidirectional):
    torch = pytest.importorskip("torch")
    case = Case(cell, T, 7, 5, 8, num_layers=2, bidirectional=bidirectional)
    problem = Problem(case, "float64")
    lengths = [3, 6, 1, 1, 6, 2, 4]
    kind = getattr(torch.nn, celltable.cell(cell).layer)
    options = nonlinearity_of(cell)
    theirs = kind(5, 8, 2, bidirectional=bidirectional, dtype=torch.float64, **options)
    theirs.load_state_dict(
        {name: torch.tensor(a) for name, a in problem.layer.parameters.items()}
    )
    leaves = [torch.tensor(a, requires_grad=True) for a in (problem.x, *problem.state)]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        leaves[0], torch.tensor(lengths), enforce_sorted=False
    )
    y, end = theirs(packed, as_given(leaves[1:]))
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(y)
    loss = (y * torch.tensor(problem.dy)).sum()
    for part, d in zip(as_list(end), problem.d_state, strict=True):
        loss = loss + (part * torch.tensor(d)).sum()
    loss.backward()
    got = problem.run(lengths=torch.tensor(lengths))
    want = {"y": y, "dx": leaves[0].grad}
    want |= {f"end {i}": a for i, a in enumerate(as_list(end))}
    want |= {f"d_start {i}": a.grad for i, a in enumerate(leaves[1:])}
    want |= {f"d{name}": a.grad for name, a in theirs.named_parameters()}
    for name, array in want.items():
        np.testing.assert_allclose(
            got[name], array.detach().numpy(), rtol=1e-9, atol=1e-11, err_msg=name
        )


def test_dropout_between_layers_is_differentiated():
    problem = Problem(Case("gru", T, 7, 5, 8, num_layers=2), "float64", dropout=0.4)
    layer, lengths = problem.layer, LENGTHS["mixed"]
    layers = [copy.deepcopy(layer) for _ in range(3)]
    dx = run(
        layers[0], problem.x, problem.state, problem.dy, problem.d_state,
        lengths=lengths,
    )["dx"]  # fmt: skip
    ends, step = [], 1e-6 * np.cos(np.arange(problem.x.size)).reshape(problem.x.shape)
    for same, x in zip(layers[1:], (problem.x + step, problem.x - step), strict=True):
        y, end = same(x, as_given(problem.state), lengths=lengths)
        ends.append((y * problem.dy).sum() + (end * problem.d_state[0]).sum())
    np.testing.assert_allclose((ends[0] - ends[1]) / 2, (dx * step).sum(), rtol=1e-6)


# -- options of the layer --------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("what", ["dense", "lengths", "mask"])
@pytest.mark.parametrize("cell", CELLS)
def test_the_last_output_alone(dtype, cell, what, stack, training):
    case = Case(cell, T, 7, 5, 19, **stack)
    mask, _ = choices("mask", T, 7)
    lengths = LENGTHS["mixed"]
    arguments = {"dense": {}, "lengths": {"lengths": lengths}, "mask": {"mask": mask}}
    for first in (False, True):
        whole = Problem(case, dtype)
        last = Problem(case, dtype, return_sequences=False, batch_first=first)
        last.layer.train(training)
        x = last.x.swapaxes(0, 1) if first else last.x
        y, end = last.layer(x, as_given(last.state), **arguments[what])
        all_y, want_end = whole.layer(whole.x, as_given(whole.state), **arguments[what])
        np.testing.assert_array_equal(as_list(end), as_list(want_end))
        want, dy = np.zeros_like(y), np.zeros_like(all_y)
        d_last = np.cos(np.arange(want.size, dtype=dtype)).reshape(want.shape)
        H = 19
        for b in range(7):
            steps = (
                np.flatnonzero(mask[b])
                if what == "mask"
                else np.arange(lengths[b] if what == "lengths" else T)
            )
            if steps.size:
                want[b, :H] = all_y[steps[-1], b, :H]
                want[b, H:] = all_y[steps[0], b, H:]
                dy[steps[-1], b, :H] = d_last[b, :H]
                dy[steps[0], b, H:] = d_last[b, H:]
        np.testing.assert_array_equal(y, want)
        if training:
            dx, _ = last.layer.backward(d_last, as_given(last.d_state))
            want_dx, _ = whole.layer.backward(dy, as_given(whole.d_state))
            dx = dx.swapaxes(0, 1) if first else dx
            tolerance = case.tolerance(dtype, backward=True)
            np.testing.assert_allclose(dx, want_dx, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("what", ["dense", "lengths", "both"])
@pytest.mark.parametrize("cell", CELLS)
def test_going_backwards(dtype, cell, what):
    """What the layer gives on sequences that were turned around by hand."""
    case = Case(cell, T, 7, 5, 19, num_layers=2)
    back, plain = Problem(case, dtype, go_backwards=True), Problem(case, dtype)
    lengths = [T] * 7 if what == "dense" else LENGTHS["mixed"]
    mask, resets = choices("both", T, 7)
    turned = {"x": plain.x.copy(), "mask": mask.copy(), "resets": resets.copy()}
    for b, n in enumerate(lengths):
        turned["x"][:n, b] = plain.x[:n, b][::-1]
        turned["mask"][b, :n] = mask[b, :n][::-1]
        turned["resets"][:n, b] = resets[:n, b][::-1]
    plain.x = turned.pop("x")
    given = {"mask": mask, "resets": resets} if what == "both" else {}
    got = back.run(lengths=lengths, **given)
    want = plain.run(lengths=lengths, **{name: turned[name] for name in given})
    for b, n in enumerate(lengths):
        want["dx"][:n, b] = want["dx"][:n, b][::-1].copy()
    assert_same_bits("", got, want)


@pytest.mark.parametrize("cell", CELLS)
def test_a_stateful_layer_goes_on(dtype, cell):
    problem = Problem(Case(cell, T, 7, 5, 19, num_layers=2), dtype, stateful=True)
    layer, x = problem.layer, problem.x
    y, end = copy.deepcopy(layer)(x)
    first, _ = layer(x[:4])
    second, last = layer(x[4:], lengths=[2, 2, 2, 1, 2, 2, 0])
    np.testing.assert_array_equal(first, y[:4])
    np.testing.assert_array_equal(second[0, :6], y[4, :6])
    for a, b in zip(as_list(end), as_list(last), strict=True):
        np.testing.assert_array_equal(a[:, :3], b[:, :3])
    layer.reset_state(np.arange(7) < 2)
    y, _ = layer(x[:1])
    fresh, _ = problem.case.layer(dtype)(x[:1])
    np.testing.assert_array_equal(y[:, :2], fresh[:, :2])
    assert not np.array_equal(y[:, 2:], fresh[:, 2:])
    with pytest.raises(ValueError, match=r"x must have B = 7.*got 3"):
        layer(x[:, :3])
    layer.reset_state()
    assert layer.state is None
    layer(x[:, :3])


def test_unbatched():
    layer = fastrnn.LSTM(3, 4, seed=0)
    x = np.random.default_rng(0).standard_normal((5, 3)).astype("f")
    for lengths in (3, [3], np.array(3)):
        y, (h_n, _) = layer(x, lengths=lengths)
        want, (h_want, _) = layer(x[:3])
        np.testing.assert_array_equal(y[:3], want)
        np.testing.assert_array_equal(h_n, h_want)
        assert not y[3:].any()
    y, _ = layer(x, mask=[True, False, True, True, True], resets=[False] * 5)
    np.testing.assert_array_equal(y[0], y[1])
    dx, _ = layer.backward(np.ones_like(y))
    assert dx.shape == x.shape
    assert not dx[1].any()


BAD = [
    ({"lengths": [1, 2, 7]}, ValueError, r"lengths must be in \[0, T\] = \[0, 6\].*7"),
    ({"lengths": [1, -2, 5]}, ValueError, r"lengths must be in .*got -2"),
    ({"lengths": [1, 2]}, ValueError, r"lengths must have shape \(B,\) = \(3,\)"),
    ({"lengths": [1.0, 2.0, 3.0]}, TypeError, "lengths must be integers"),
    ({"lengths": [True, True, True]}, TypeError, "lengths must be integers"),
    ({"lengths": 3}, ValueError, "lengths must have shape"),
    ({"mask": np.ones((6, 3), bool)}, ValueError, r"mask must have shape \(B, T\)"),
    ({"mask": np.ones((3, 6))}, TypeError, "mask must be bool"),
    ({"resets": np.ones((3, 6), bool)}, ValueError, r"resets must have shape \(T, B\)"),
    ({"resets": np.ones((6, 3), int)}, TypeError, "resets must be bool"),
    ({"zero_output_for_mask": 1, "lengths": [1, 2, 3]}, TypeError, "zero_output"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_what_is_refused(arguments, error, message):
    layer = fastrnn.GRU(2, 3, seed=0, stateful=True)
    layer(np.ones((6, 3, 2), "f"))
    context, state = layer.context, layer.state
    with pytest.raises(error, match=f"GRU: {message}"):
        layer(np.ones((6, 3, 2), "f"), **arguments)
    assert layer.context is context
    assert layer.state is state


def test_both_directions_take_no_resets():
    layer = fastrnn.GRU(2, 3, seed=0, bidirectional=True)
    with pytest.raises(ValueError, match="GRU: resets need a layer that is not bidir"):
        layer(np.ones((6, 3, 2), "f"), resets=np.zeros((6, 3), bool))
    with pytest.raises(ValueError, match="GRU: go_backwards and bidirectional"):
        fastrnn.GRU(2, 3, bidirectional=True, go_backwards=True)


def test_inference_without_outputs_of_all_steps_needs_no_memory_for_them():
    """In bytes: x is 1/16 of y, and neither a copy of y nor half of one is made."""
    T, B, H = 4000, 8, 64
    x = np.ones((T, B, 4), "f")
    y_bytes = T * B * H * 4
    for options in ({}, {"num_layers": 2}, {"bidirectional": True}):
        for lengths in (None, [T - 7 * b for b in range(B)]):
            layer = fastrnn.LSTM(4, H, return_sequences=False, seed=0, **options).eval()
            tracemalloc.start()
            layer(x, lengths=lengths)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < y_bytes / 2
            layer.return_sequences = True
            tracemalloc.start()
            layer(x, lengths=lengths)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak > y_bytes


def test_a_sorted_batch_is_not_copied():
    x = np.ones((500, 8, 64), "f")
    layer, lengths = fastrnn.GRU(64, 8, seed=0).eval(), np.arange(480, 400, -10)
    for order, copies in ((lengths, False), (lengths[::-1], True)):
        layer(x, lengths=order)
        tracemalloc.start()
        layer(x, lengths=order)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (peak > x.nbytes / 2) == copies


def test_a_stream_needs_a_layer_that_goes_forward():
    with pytest.raises(ValueError, match=r"LSTM\.stream: the layer must not go backw"):
        fastrnn.LSTM(2, 3, go_backwards=True).stream()
