# SPDX-License-Identifier: BSD-3-Clause
"""Random sequences of a layer's calls: each gives what the equations say.

Whatever was called before, a forward gives what the float64 reference gives, a backward
what the reference's derivative by complex step is, an optimiser's step what its formula
is. A call that has to fail does so with an error that names the layer, and changes
nothing. FASTRNN_FUZZ_EXAMPLES=10000 makes that many sequences.
"""

import collections
import copy
import os
import pickle
import tempfile
from pathlib import Path
from typing import ClassVar

import cells
import faults
import gradcheck
import numpy as np
import pytest
import reference
import tolerances
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from machines import run_machine

import fastrnn

SEQUENCES = int(os.environ.get("FASTRNN_FUZZ_EXAMPLES", "20"))
RATE, MOMENTUM = 0.05, 0.9

sizes = st.integers(1, 3)
seeds = st.integers(0, 2**32 - 1)

# What a forward must refuse in place of x; I is the layer's number of inputs.
BAD_X = [
    lambda I: None,
    lambda I: "words",
    lambda I: np.zeros((2, 2, I + 1)),
    lambda I: np.zeros((0, 2, I)),
    lambda I: np.zeros((2, 0, I)),
    lambda I: np.zeros(I),
    lambda I: np.zeros((1, 2, 2, I)),
    lambda I: np.zeros((2, 2, I), complex),
    lambda I: np.full((2, 2, I), None),
    lambda I: [[1.0], [1.0, 2.0]],
]
# What it must refuse beside an x of 3 steps and 2 sequences.
BAD_OPTIONS = [
    {"lengths": [1, 4]},
    {"lengths": [-1, 3]},
    {"lengths": [3]},
    {"lengths": [1.0, 2.0]},
    {"lengths": "32"},
    {"mask": np.ones((3, 2), bool)},
    {"mask": np.ones((2, 3))},
    {"resets": np.ones((2, 3), bool)},
    {"hx": np.zeros((9, 2, 2))},
    {"hx": "zero"},
]


# What a step of an optimiser brings back into a range is judged elsewhere.
FREE = [cell for cell in cells.CELLS if cell not in reference.VECTORS]
STATES = ("h0", "c0", "n0", "m0")


class Calls(RuleBasedStateMachine):
    """A layer, and what it ought to hold."""

    count: ClassVar = collections.Counter()

    @initialize(
        cell=st.sampled_from(FREE), I=sizes, H=sizes, seed=seeds,
        num_layers=st.integers(1, 2), bidirectional=st.booleans(), bias=st.booleans(),
        dtype=st.sampled_from(["float32", "float64"]),
        every=st.sampled_from([None, None, 1, 2]),
    )  # fmt: skip
    def make(self, cell, I, H, num_layers, bidirectional, bias, seed, dtype, every):
        self.case = cells.Case(cell, 1, 1, I, H, num_layers, bidirectional, bias)
        self.layer = self.case.layer(dtype, checkpoint_every=every)
        self.dtype, self.rng = dtype, np.random.default_rng(seed)
        self.parameters = as_float64(self.layer.parameters)
        self.grads = {name: np.zeros_like(p) for name, p in self.parameters.items()}
        self.velocity = copy.deepcopy(self.grads)
        self.training = self.trainable = True
        self.contexts = []  # those that are not spent, each with its arrays
        self.last = None  # the context that a backward without one takes
        self.held = []  # results, which later calls must leave alone
        self.stream = None
        self.optimizer = fastrnn.SGD(self.layer, lr=RATE, momentum=MOMENTUM)

    def numbers(self, *shape):
        return self.rng.standard_normal(shape).astype(self.dtype)

    def done(self, what):
        self.count[what] += 1

    def hold(self, *arrays):
        self.held = [*self.held, *((array, array.copy()) for array in arrays)][-8:]

    def close(self, what, got, want, T, scale=None):
        """Fail unless each array has the numbers that it should have."""
        case = self.case
        terms = tolerances.chain_terms(
            T, 3, case.I, case.H, cells.GATES[case.cell], case.num_layers,
            case.directions, backward=True,
        )  # fmt: skip
        for name, array in want.items():
            gradcheck.assert_close(
                f"{what} {name}",
                got[name],
                array,
                tolerances.relative(self.dtype, terms),
                max(1.0, np.abs(array).max(initial=0), scale or 0),
            )

    def refused(self, call, *types):
        with pytest.raises(types or (ValueError, TypeError)) as raised:
            call()
        assert type(self.layer).__name__ in str(raised.value), raised.value
        self.done("refused")

    # -- forward and backward ----------------------------------------------------------

    @rule(
        T=st.integers(1, 4), B=sizes, ragged=st.booleans(), with_state=st.booleans(),
        and_back=st.booleans(), failing=st.sampled_from([0, 0, 0, 0, 1, 2]),
    )  # fmt: skip
    def forward(self, T, B, ragged, with_state, and_back, failing):
        case = self.case
        arrays = {"x": self.numbers(T, B, case.I)}
        n = case.num_layers * case.directions
        names = STATES[: cells.N_STATES[case.cell]]
        for name in names:
            made = (
                self.numbers(n, B, case.H) if with_state else np.zeros((n, B, case.H))
            )
            if with_state and name == "n0":  # a normaliser, which divides, is positive
                made = np.abs(made) + 0.5
            arrays[name] = made.astype(self.dtype)
        lengths = self.rng.integers(0, T + 1, B) if ragged else None
        hx = cells.state_of([arrays[name] for name in names]) if with_state else None
        y, state = self.layer(arrays["x"], hx, lengths=lengths)
        got = {"y": y, **dict(zip(names, cells.parts_of(state), strict=True))}
        arrays = {**as_float64(arrays), **copy.deepcopy(self.parameters)}
        self.close("output", got, outputs(case, arrays, lengths), T)
        self.hold(*got.values())
        self.last = None
        if self.training:
            self.last = self.layer.context, arrays, lengths
            self.contexts = [*self.contexts, self.last][-3:]
        assert (self.layer.context is None) == (not self.training)
        self.done("forward")
        if and_back and self.training:
            self.backward_of(self.last, True, failing)

    @precondition(lambda self: self.contexts)
    @rule(
        number=st.integers(0, 2), implied=st.booleans(),
        failing=st.sampled_from([0, 0, 0, 0, 1, 2]),
    )  # fmt: skip
    def backward(self, number, implied, failing):
        implied = implied and self.training and self.is_kept(self.last)
        kept = self.last if implied else self.contexts[number % len(self.contexts)]
        self.backward_of(kept, implied, failing)

    def is_kept(self, kept):
        return any(other is kept for other in self.contexts)

    def backward_of(self, kept, implied, failing):
        context, arrays, lengths = kept
        names = STATES[: cells.N_STATES[self.case.cell]]
        T, B = arrays["x"].shape[:2]
        dy = self.numbers(T, B, self.case.directions * self.case.H)
        d_state = {name: self.numbers(*arrays[name].shape) for name in names}
        pair = cells.state_of(list(d_state.values()))

        def call():
            return self.layer.backward(dy, pair, *(() if implied else (context,)))

        if failing:
            with faults.failing_allocation(failing) as count:
                try:
                    result = call()
                except MemoryError:
                    self.done("out of memory")
                    assert count.failed
                    return  # with everything as it was, as the invariants see
        else:
            result = call()

        def loss(moved):
            found = outputs(self.case, moved, lengths)
            return sum(
                (found[name] * weight).sum(axis=(-3, -2, -1))
                for name, weight in {"y": dy, **d_state}.items()
            )

        want = gradcheck.complex_step(loss, arrays, arrays)
        dx, d_hx = result
        got = {"x": dx, **dict(zip(names, cells.parts_of(d_hx), strict=True))}
        scale = max(np.abs(array).max(initial=0) for array in want.values())
        self.close("gradient", got, {n: want[n] for n in got}, T, scale)
        if self.trainable:
            summed = {n: g + want[n] for n, g in self.grads.items()}
            self.close("gradient", self.layer.grads, summed, T, scale)
            self.grads = as_float64(self.layer.grads)
        self.contexts = [other for other in self.contexts if other is not kept]
        self.hold(*got.values())
        self.refused(lambda: self.layer.backward(dy, pair, context), RuntimeError)
        self.done("backward")

    @rule(
        x=st.sampled_from(BAD_X), options=st.sampled_from(BAD_OPTIONS),
        name=st.sampled_from(["training", "batch_first", "dropout", "hidden_size"]),
        extra=st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 0, 1)]),
        how=st.sampled_from(["missing", "unknown", "shape", "kind", "none"]),
    )  # fmt: skip
    def what_must_fail(self, x, options, name, extra, how):
        layer, I = self.layer, self.case.I
        self.refused(lambda: layer(x(I)))
        self.refused(lambda: layer(np.ones((3, 2, I)), **options))
        self.refused(lambda: setattr(layer, name, "often"), Exception)
        self.refused(lambda: layer.load_state_dict(self.unfit_state(how)))
        if not self.training or not self.is_kept(self.last):
            self.refused(lambda: layer.backward(np.zeros((1, 1, 1))), RuntimeError)
        if self.contexts:
            context, arrays, _ = self.contexts[0]
            width = self.case.directions * self.case.H
            dy = np.ones(np.add((*arrays["x"].shape[:2], width), extra))
            self.refused(lambda: layer.backward(dy, context=context))
            self.refused(lambda: layer.backward(None, context=context))
            self.refused(lambda: layer.backward("dy", context=context), TypeError)

    def unfit_state(self, how):
        """A state that is not one of the layer's."""
        state = {name: p + 1 for name, p in self.layer.state_dict().items()}
        name = sorted(state)[-1]
        if how == "missing":
            del state[name]
        elif how == "unknown":
            state["weight"] = state[name]
        elif how == "shape":
            state[name] = state[name][:-1]
        else:
            state[name] = np.full(state[name].shape, "one") if how == "kind" else None
        return state

    # -- what is set -------------------------------------------------------------------

    @rule(
        mode=st.sampled_from([True, True, False]),
        trainable=st.booleans(),
        n_threads=st.integers(1, 3),
    )
    def set(self, mode, trainable, n_threads):
        self.layer.train(mode)
        self.layer.trainable = trainable
        fastrnn.set_num_threads(n_threads)
        self.training, self.trainable = mode, trainable

    # -- parameters --------------------------------------------------------------------

    @rule(zero_first=st.booleans())
    def optimizer_step(self, zero_first):
        if zero_first:
            self.layer.zero_grad()
            self.grads = {name: 0 * g for name, g in self.grads.items()}
        self.optimizer.step()
        if self.trainable:
            for name, g in self.grads.items():
                self.velocity[name] = MOMENTUM * self.velocity[name] + g
            want = {n: p - RATE * self.velocity[n] for n, p in self.parameters.items()}
            scale = max(np.abs(v).max() for v in self.velocity.values())
            self.close("parameter", self.layer.parameters, want, 1, scale)
            self.parameters = as_float64(self.layer.parameters)
        self.done("optimiser's steps")

    @rule(by=st.sampled_from(["load_state_dict", "file", "hand"]))
    def new_parameters(self, by):
        new = {
            name: 0.5 * self.numbers(*p.shape) for name, p in self.parameters.items()
        }
        if by == "load_state_dict":
            self.layer.load_state_dict(new)
        elif by == "file":
            other = copy.deepcopy(self.layer)
            other.load_state_dict(new)
            with tempfile.TemporaryDirectory() as folder:
                other.save(Path(folder, "weights"))
                self.layer.load(Path(folder, "weights"))
        else:
            for name, p in self.layer.parameters.items():
                p[...] = new[name]
        self.parameters = as_float64(new)

    @rule(by_pickle=st.booleans())
    def copy(self, by_pickle):
        old = self.layer
        made = pickle.loads(pickle.dumps(old)) if by_pickle else copy.deepcopy(old)
        if self.contexts:
            self.refused(
                lambda: made.backward(None, context=self.contexts[0][0]), ValueError
            )
        self.optimizer = fastrnn.SGD(made, lr=RATE, momentum=MOMENTUM)
        self.velocity = {name: 0 * g for name, g in self.grads.items()}
        self.layer, self.contexts, self.last = made, [], None

    # -- streams -----------------------------------------------------------------------

    @rule(B=sizes, anew=st.booleans())
    def step(self, B, anew):
        if self.case.bidirectional:
            self.refused(lambda: self.layer.stream(B), ValueError)
            return
        if anew or not self.stream:
            shape = self.case.num_layers, B, self.case.H
            n_states = cells.N_STATES[self.case.cell]
            zeros = [np.zeros(shape) for _ in range(n_states)]
            state = cells.named(self.case.cell, "0", zeros)
            self.stream = self.layer.stream(B), copy.deepcopy(self.parameters), state
        stream, parameters, state = self.stream
        x = self.numbers(*stream.h.shape[1:2], self.case.I)
        y = stream.step(x)
        arrays = {"x": x[None].astype("f8"), **state, **parameters}
        want = outputs(self.case, arrays, None)
        parts = stream.state if isinstance(stream.state, tuple) else (stream.state,)
        got = {"y": y[None], **cells.named(self.case.cell, "0", parts)}
        self.close("stream", got, want, 4)
        self.stream = stream, parameters, {k: got[k].astype("f8") for k in state}
        with pytest.raises((ValueError, TypeError), match=r"Stream\.step|x_t"):
            stream.step(np.zeros((7, 1)))
        self.done("steps of a stream")

    @precondition(lambda self: self.stream)
    @rule(whole=st.booleans())
    def reset_stream(self, whole):
        stream, _, state = self.stream
        mask = self.rng.random(stream.h.shape[1]) < 0.5
        stream.reset(None if whole else mask)
        for part in state.values():
            part[:, slice(None) if whole else mask] = 0

    # -- what holds after each ---------------------------------------------------------

    @invariant()
    def is_as_it_ought_to_be(self):
        if not hasattr(self, "layer"):
            return
        for array, before in self.held:
            np.testing.assert_array_equal(array, before)
        for name, p in self.layer.parameters.items():
            np.testing.assert_array_equal(p, self.parameters[name])
            np.testing.assert_array_equal(self.layer.grads[name], self.grads[name])
        assert self.layer.training == self.training
        assert self.layer.trainable == self.trainable
        if self.stream:
            stream, _, state = self.stream
            np.testing.assert_array_equal(stream.h, state["h0"])


def as_float64(arrays):
    return {name: np.array(array, "f8") for name, array in arrays.items()}


def outputs(case, arrays, lengths):
    """What the reference gives, each sequence alone where they have lengths."""
    found = {}
    T = arrays["x"].shape[-3]
    if lengths is None:
        y, end = cells.reference_forward(case, arrays)
        return {"y": y, **cells.named(case.cell, "0", end)}
    rows = collections.defaultdict(list)
    for b, length in enumerate(lengths):
        row = dict(arrays)
        for name in {"x", *STATES} & arrays.keys():
            row[name] = arrays[name][..., b : b + 1, :]
        row["x"] = row["x"][..., :length, :, :]
        if length:
            found = outputs(case, row, None)
        else:
            found = {name: row[name] for name in STATES if name in row}
            found["y"] = np.zeros((0, 1, case.directions * case.H))
        found["y"] = np.pad(
            found["y"],
            [(0, 0)] * (found["y"].ndim - 3) + [(0, T - length), *[(0, 0)] * 2],
        )
        for name, array in found.items():
            rows[name].append(array)
    copies = leading_axes(arrays)
    return {
        name: np.concatenate(
            [np.broadcast_to(part, (*copies, *part.shape[-3:])) for part in parts], -2
        )
        for name, parts in rows.items()
    }


def leading_axes(arrays):
    """The axis of perturbed copies that one of some named arrays may have."""
    ranks = {"weight": 2, "bias": 1}
    found = [
        a.shape[: a.ndim - ranks.get(n.split("_")[0], 3)] for n, a in arrays.items()
    ]
    return max(found, key=len)


def test_any_sequence_of_calls(tried):
    before = fastrnn.get_num_threads()
    Calls.count.clear()
    try:
        run_machine(Calls, SEQUENCES, 40)
    finally:
        fastrnn.set_num_threads(before)
    # Each kind of call came about, also those that need others before them.
    assert len(Calls.count) == 6, Calls.count
    kinds = ", ".join(f"{n} {what}" for what, n in Calls.count.most_common())
    tried(SEQUENCES, f"sequences of a layer's calls: {kinds}")
