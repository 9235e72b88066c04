# SPDX-License-Identifier: BSD-3-Clause
"""The tests that each cell must pass; tests/recurrent/test_cells.py names the cells."""

import pickle
from copy import deepcopy

import gradcheck
import numpy as np
import pytest
import tolerances
from cells import (
    LARGE_SHAPE_IDS,
    LARGE_SHAPES,
    N_STATES,
    SHAPE_IDS,
    SHAPES,
    STACKS,
    Case,
    assert_all_close,
    assert_correct,
    assert_correct_along_directions,
    assert_same_bits,
    data,
    expected_gradients,
    expected_outputs,
    parts_of,
    run,
    run_backward,
    run_forward,
    size,
    state_of,
)

from fastrnn.native import core


class CellSuite:
    """Subclasses set `cell`."""

    cell = None

    def case(self, T=3, B=2, I=5, H=6, **stack):
        return Case(self.cell, T, B, I, H, **stack)

    @pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
    def test_outputs_and_gradients(self, isa, dtype, shape, n_threads):
        T, B, I, H = shape
        case = self.case(T, B, size(I, dtype), size(H, dtype))
        assert_correct(case, dtype, *run(case, dtype))

    @pytest.mark.parametrize("shape", LARGE_SHAPES, ids=LARGE_SHAPE_IDS)
    def test_large_shapes(self, isa, shape):
        """float64 against the reference, float32 entry by entry against float64.

        On the default number of threads: test_threads.py shows that it does not matter.
        """
        case = self.case(*shape)
        outputs, gradients = run(case, "float64")
        tolerance = case.tolerance("float64", backward=False)
        assert_all_close("output", outputs, expected_outputs(case), tolerance)
        assert_correct_along_directions(case, "float64", gradients)

        outputs_32, gradients_32 = run(case, "float32")
        tolerance = case.tolerance("float32", backward=False)
        assert_all_close("float32 output", outputs_32, outputs, tolerance)
        tolerance = case.tolerance("float32", backward=True)
        assert_all_close("float32 gradient", gradients_32, gradients, tolerance)

    def test_every_remainder(self, isa, dtype):
        """Each I and each H up to four vectors and one, each B up to 25 rows."""
        n_sizes = 4 * core.kernels(dtype).lanes + 1
        for n in range(n_sizes):
            # 7 has no factor in common with 9, 17, 33 and 65: H takes every value, too.
            case = self.case(2, 1 + n % 25, 1 + n, 1 + 7 * n % n_sizes)
            outputs, gradients = run(case, dtype)
            tolerance = case.tolerance(dtype, backward=False)
            # The terms of a sum are of size one, and in a small layer they may cancel.
            assert_all_close(
                repr(case), outputs, expected_outputs(case), tolerance, least_scale=0.1
            )
            assert_correct_along_directions(case, dtype, gradients)

    @pytest.mark.parametrize("stack", STACKS)
    @pytest.mark.parametrize(("T", "B"), [(1, 1), (4, 3)])
    def test_stacks(self, isa, dtype, stack, T, B):
        case = self.case(T, B, H=size("V+1", dtype), **STACKS[stack])
        assert_correct(case, dtype, *run(case, dtype))

    def test_batch_first(self, dtype):
        case = self.case(num_layers=2, bidirectional=True)
        d, layer = data(case), case.layer(dtype, batch_first=True)
        x, dy = (a.swapaxes(0, 1).astype(dtype) for a in (d.x, d.dy))
        outputs = run_forward(layer, x, d.state(dtype))
        gradients = run_backward(layer, dy, d.d_state(dtype))
        outputs["y"] = outputs["y"].swapaxes(0, 1)
        gradients["x"] = gradients["x"].swapaxes(0, 1)
        assert_correct(case, dtype, outputs, gradients)

    @pytest.mark.parametrize("batch_first", [False, True])
    def test_unbatched(self, dtype, batch_first):
        case = self.case(B=1, num_layers=2, bidirectional=True)
        d, layer = data(case), case.layer(dtype, batch_first=batch_first)

        def without_batch(state):
            return state_of([a[:, 0] for a in parts_of(state)])

        outputs = run_forward(
            layer, d.x[:, 0].astype(dtype), without_batch(d.state(dtype))
        )
        gradients = run_backward(
            layer, d.dy[:, 0].astype(dtype), without_batch(d.d_state(dtype))
        )
        outputs = {name: array[:, None] for name, array in outputs.items()}
        for name in {"x", "h0", "c0", "n0", "m0"} & gradients.keys():
            gradients[name] = gradients[name][:, None]
        assert_correct(case, dtype, outputs, gradients)

    def test_no_initial_state_is_zero_state(self, dtype):
        case = self.case(num_layers=2)
        d, layer = data(case), case.layer(dtype)
        x, dy = d.x.astype(dtype), d.dy.astype(dtype)
        zero = np.zeros_like(d.h0, dtype)
        state = state_of([zero] * N_STATES[case.cell])
        outputs = run_forward(layer, x, state)
        gradients = run_backward(layer, dy, d.d_state(dtype))
        layer.zero_grad()
        assert_same_bits("output", run_forward(layer, x, None), outputs)
        again = run_backward(layer, dy, d.d_state(dtype))
        assert_same_bits("gradient", again, gradients)

    def test_parameter_gradients_accumulate_and_data_gradients_do_not(self, dtype):
        case = self.case(num_layers=2)
        layer = case.layer(dtype)
        run(case, dtype, layer)
        _, twice = run(case, dtype, layer)
        for name in layer.grads:
            twice[name] /= 2
        assert_all_close(
            "gradient", twice, expected_gradients(case), case.tolerance(dtype, True)
        )
        layer.zero_grad()
        assert not any(gradient.any() for gradient in layer.grads.values())

    def test_backward_from_the_last_state_only(self, isa, dtype):
        case = self.case(num_layers=2, bidirectional=True)
        d, layer = data(case), case.layer(dtype)
        run_forward(layer, d.x.astype(dtype), d.state(dtype))
        gradients = run_backward(layer, None, d.d_state(dtype))
        want = expected_gradients(case, with_dy=False)
        assert_all_close("gradient", gradients, want, case.tolerance(dtype, True))

    def test_backward_from_y_only(self, isa, dtype):
        case = self.case(num_layers=2)
        d, layer = data(case), case.layer(dtype)
        zero = np.zeros_like(d.h0, dtype)
        dy, d_state = d.dy.astype(dtype), state_of([zero] * N_STATES[case.cell])
        run_forward(layer, d.x.astype(dtype), d.state(dtype))
        given = run_backward(layer, dy, d_state)
        layer.zero_grad()
        run_forward(layer, d.x.astype(dtype), d.state(dtype))
        assert_same_bits("gradient", run_backward(layer, dy, None), given)

    def test_nothing_given_is_changed(self, dtype):
        case = self.case(num_layers=2, bidirectional=True)
        d, layer = data(case), case.layer(dtype)
        x, dy = d.x.astype(dtype), d.dy.astype(dtype)
        state, d_state = d.state(dtype), d.d_state(dtype)
        arrays = [x, dy, layer.flat_parameters]
        for group in (state, d_state):
            arrays += group if isinstance(group, tuple) else [group]
        before = [array.copy() for array in arrays]
        outputs = run_forward(layer, x, state)
        kept = {name: array.copy() for name, array in outputs.items()}
        gradients = run_backward(layer, dy, d_state)
        for array, copy in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(array, copy)
        assert_same_bits("output", outputs, kept)
        results = [*outputs.values(), *(gradients[k] for k in ("x", "h0"))]
        for result in results:
            assert not any(np.shares_memory(result, array) for array in arrays)

    def test_a_later_call_leaves_earlier_results_alone(self, dtype):
        case = self.case()
        d, layer = data(case), case.layer(dtype)
        outputs, gradients = run(case, dtype, layer)
        kept_outputs = {name: array.copy() for name, array in outputs.items()}
        kept_gradients = {name: array.copy() for name, array in gradients.items()}
        run_forward(layer, 2 * d.x.astype(dtype), None)
        layer.backward(3 * d.dy.astype(dtype))
        assert_same_bits("output", outputs, kept_outputs)
        assert_same_bits("gradient", gradients, kept_gradients)

    def test_inputs_that_can_be_converted_are(self, dtype, rng):
        case = self.case(T=4)
        d, layer = data(case), case.layer(dtype)
        x = rng.integers(-2, 3, d.x.shape)
        want = run_forward(layer, x.astype(dtype), d.state(dtype))
        wide = np.zeros((4, 2, 10), dtype)
        wide[:, :, ::2] = x
        other = "float64" if dtype == "float32" else "float32"
        readonly = x.astype(dtype)
        readonly.flags.writeable = False
        swapped = x.astype(np.dtype(dtype).newbyteorder(">"))
        for same in (
            x,
            x.tolist(),
            wide[:, :, ::2],
            x.astype(other),
            readonly,
            swapped,
        ):
            assert_same_bits("output", run_forward(layer, same, d.state(dtype)), want)
        backwards = np.asfortranarray(x.astype(dtype))
        assert_same_bits("output", run_forward(layer, backwards, d.state(other)), want)

    def test_evaluation_keeps_nothing_and_gives_the_same(self, isa, dtype):
        case = self.case(num_layers=2, bidirectional=True)
        d, layer = data(case), case.layer(dtype)
        x = d.x.astype(dtype)
        want = run_forward(layer, x, d.state(dtype))
        assert layer.context is not None
        assert layer.eval() is layer
        assert_same_bits("output", run_forward(layer, x, d.state(dtype)), want)
        assert layer.context is None
        with pytest.raises(
            RuntimeError, match="backward needs a forward in training mode"
        ):
            layer.backward(d.dy.astype(dtype))

    def test_second_backward_raises_and_changes_nothing(self, dtype):
        case = self.case()
        d, layer = data(case), case.layer(dtype)
        _, gradients = run(case, dtype, layer)
        with pytest.raises(RuntimeError, match="backward"):
            layer.backward(d.dy.astype(dtype))
        for name, gradient in layer.grads.items():
            np.testing.assert_array_equal(gradient, gradients[name])

    def test_backward_without_forward_raises(self, dtype):
        layer = self.case().layer(dtype)
        with pytest.raises(RuntimeError, match="forward in training mode"):
            layer.backward(data(self.case()).dy.astype(dtype))

    def test_contexts_make_several_forwards_before_their_backwards(self, dtype):
        case = self.case(num_layers=2)
        d, layer = data(case), case.layer(dtype)
        run_forward(layer, d.x.astype(dtype), d.state(dtype))
        first = layer.context
        run_forward(layer, 2 * d.x.astype(dtype), None)
        assert layer.context is not first
        layer.backward(d.dy.astype(dtype))
        layer.zero_grad()
        gradients = run_backward(
            layer, d.dy.astype(dtype), d.d_state(dtype), context=first
        )
        want = expected_gradients(case)
        assert_all_close("gradient", gradients, want, case.tolerance(dtype, True))
        with pytest.raises(RuntimeError, match="backward"):
            layer.backward(d.dy.astype(dtype), context=first)

    def test_nan_goes_through_as_nan(self, isa, dtype):
        case = self.case(T=4, B=3)
        d, layer = data(case), case.layer(dtype)
        x = d.x.astype(dtype)
        x[2, 1, 0] = np.nan
        y = run_forward(layer, x, d.state(dtype))["y"]
        want = expected_outputs(case)["y"]
        assert np.isnan(y[2:, 1]).all()
        clean = np.ones(y.shape, bool)
        clean[2:, 1] = False
        gradcheck.assert_close(
            "y beside NaN", y[clean], want[clean], case.tolerance(dtype, False)
        )

    def test_dropout_acts_between_layers_in_training_only(self, rng):
        case = self.case(T=20, B=4, H=16, num_layers=2)
        d = data(case)
        want = run_forward(case.layer("float64"), d.x, d.state("float64"))
        layer = case.layer("float64", dropout=0.5, seed=3)
        outputs = run_forward(layer, d.x, d.state("float64"))
        # Layer 0 comes before any dropout; layer 1 sees it.
        np.testing.assert_array_equal(outputs["h_n"][0], want["h_n"][0])
        alive = want["y"] != 0  # relu gives many zeros either way
        assert np.mean(outputs["y"][alive] == want["y"][alive]) < 0.1
        layer.eval()
        outputs = run_forward(layer, d.x, d.state("float64"))
        assert_same_bits("output", outputs, want)

    def test_gradient_with_dropout(self, rng):
        """Along random directions: a layer made anew with one seed has one mask."""
        case = self.case(T=3, B=2, num_layers=3)
        d = data(case)

        def fresh():
            return case.layer("float64", dropout=0.4, seed=11)

        def value(x, flat):
            layer = fresh()
            layer.flat_parameters[:] = flat
            outputs = run_forward(layer, x, d.state("float64"))
            ends = [array for name, array in outputs.items() if name != "y"]
            total = (outputs["y"] * d.dy).sum()
            return total + sum((np.stack(ends) * np.stack(d.d_end)).ravel())

        layer = fresh()
        flat = layer.flat_parameters.copy()
        run_forward(layer, d.x, d.state("float64"))
        dx, _ = layer.backward(d.dy, d.d_state("float64"))
        step = tolerances.CENTRAL_STEP
        for _ in range(4):
            u, v = rng.standard_normal(d.x.shape), rng.standard_normal(flat.shape)
            ahead = value(d.x + step * u, flat + step * v)
            behind = value(d.x - step * u, flat - step * v)
            numeric = (ahead - behind) / (2 * step)
            analytic = (dx * u).sum() + (layer.flat_grads * v).sum()
            assert analytic == pytest.approx(numeric, rel=1e-6, abs=1e-6)

    def test_dropout_of_everything(self, dtype):
        """p = 1 is allowed, as in PyTorch: layer 1 sees zeros, not 0 / 0."""
        case = self.case(num_layers=2)
        d, layer = data(case), case.layer(dtype, dropout=1.0, seed=1)
        outputs = run_forward(layer, d.x.astype(dtype), d.state(dtype))
        above = Case(self.cell, case.T, case.B, case.H, case.H).layer(dtype)
        for name, view in above.parameters.items():
            view[...] = layer.parameters[name.replace("_l0", "_l1")]
        state = d.state(dtype)
        top = state_of([a[1:] for a in parts_of(state)])
        zeros = np.zeros((case.T, case.B, case.H), dtype)
        want = run_forward(above, zeros, top)["y"]
        assert_same_bits("y", {"y": outputs["y"]}, {"y": want})
        dx, _ = layer.backward(d.dy.astype(dtype))
        assert np.isfinite(dx).all()

    def test_memory_used_again_leaves_no_trace(self, isa, dtype):
        """Buffers full of NaN from a call before do not reach the next one."""
        case = self.case(T=3, B=5, H=size("V+1", dtype), num_layers=2)
        d, layer = data(case), case.layer(dtype)
        want = run(case, dtype, layer)
        layer(np.full(d.x.shape, np.nan))
        layer.backward(np.full(d.dy.shape, np.nan))
        layer.zero_grad()
        for got, expected in zip(run(case, dtype, layer), want, strict=True):
            assert_same_bits("second run", got, expected)

    def test_copies_are_independent(self, dtype):
        case = self.case(num_layers=2)
        layer = case.layer(dtype)
        want = run(case, dtype, layer)
        for copy in (deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert copy.context is None
            copy.zero_grad()
            for got, expected in zip(run(case, dtype, copy), want, strict=True):
                assert_same_bits("copy", got, expected)
            copy.flat_parameters[:] = 0
        assert (layer.flat_parameters != 0).any()

    def test_seed_makes_the_same_weights(self, dtype):
        kind = type(self.case().layer(dtype))
        flat = [
            kind(3, 4, init="torch", dtype=dtype, seed=s).flat_parameters
            for s in (1, 1, 2)
        ]
        np.testing.assert_array_equal(flat[0], flat[1])
        assert (flat[0] != flat[2]).all()
        # PyTorch's default: uniform within 1 / sqrt(H).
        assert np.abs(flat[0]).max() <= 0.5
