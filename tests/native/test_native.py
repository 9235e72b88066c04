# SPDX-License-Identifier: BSD-3-Clause
"""Sizes that come from data never reach unchecked pointers: random native calls.

The long form is ``python tests/support/native_calls.py``, see CONTRIBUTING.md.
"""

import native_calls
import numpy as np
import pytest
from native_fuzz import Fuzz, Tensor

from fastrnn.native import (
    addresses,
    arrays,
    celltable,
    core,
    memory,
    optimizers,
    single,
    tensors,
    weights,
)
from fastrnn.native.layout import Layout
from fastrnn.native.weights import Packer, Use

HUGE = 2**62


def test_random_calls_of_everything_native():
    """Results and exceptions only, and nothing written outside an array."""
    f = Fuzz(0)
    native_calls.run(f, 12_000)
    names = native_calls.public_names()
    assert names  # of which none is left out
    assert names == set(f.results) | set(f.exceptions)
    assert f.exceptions.total() > 1000
    assert f.results.total() > 1000


def test_a_write_outside_an_array_is_seen():
    f = Fuzz(0)
    array = f.array(3, "f")

    def overrun():
        np.lib.stride_tricks.as_strided(array, (4,))[3] = 1

    with pytest.raises(AssertionError, match="wrote outside"):
        f.call("overrun", overrun, p=0.0)
    with pytest.raises(AssertionError, match="left elements"):
        f.written("nothing", True, f.array(3, "f", "nan"))


def refused(call, *args, match=None, **options):
    with pytest.raises((ValueError, TypeError), match=match):
        call(*args, **options)


@pytest.fixture
def kernels():
    return core.kernels("float32")


class TestProductsOfSizes:
    """Products that would wrap around to something small, or to nothing."""

    def test_shapes(self, kernels):
        for sizes in (
            (HUGE, 4, 1, 1),
            (1, HUGE, 1, 1),
            (1, 1, HUGE, 4),
            (1, 1, 1, HUGE),
        ):
            refused(single.Shape, 2, False, *sizes, match="no memory holds")
        refused(Layout, "gru", 2**40, 2**40, 1, 1, True, match="no memory")

    def test_linear(self, kernels):
        empty = np.zeros(0, "f")
        for sizes in ((4, 0, 3), (4, 3, 0), (-1, 3, 3), (HUGE, 4, 4), (0, HUGE, HUGE)):
            refused(kernels.linear_work_size, True, *sizes, 1, match="linear: ")
            refused(
                kernels.linear_forward, 1, *sizes, empty, empty, None, empty, empty,
                match="linear: ",
            )  # fmt: skip

    def test_tables(self, kernels):
        empty, none = np.zeros(0, "f"), np.zeros(0, "q")
        for rows, width in ((HUGE, 4), (2**32, 2**32)):
            refused(
                kernels.embedding_forward, 1, 0, rows, width, none, empty, empty,
                match="embedding: ",
            )  # fmt: skip
            refused(
                kernels.cross_entropy, 1, rows, width, empty, none, 0, 1.0, empty,
                match="cross_entropy: ",
            )  # fmt: skip

    def test_series(self, kernels):
        shape = single.Shape(0, False, 5, 1, 1, 1)
        one = np.zeros(1, "f")
        # 4 HUGE wraps around to 0.
        x = single.StridedArray(np.zeros(5, "f"), 0, HUGE, 1)
        refused(
            single.forward, kernels, shape, 1, x, one, one, None, x, one, None, None,
            one, match="x: ",
        )  # fmt: skip
        refused(single.StridedArray, None, 0, 1, 1)

    def test_offsets(self):
        for offsets in ([0, 1, -(2**63)], [0, 2, 2**63 - 1], [0, 2, 1]):
            refused(
                single.Shape, 0, False, 2, 2, 1, 1, np.array(offsets), match="sizes"
            )


class TestSmallArguments:
    def test_threads(self, kernels):
        x = np.zeros(3, "f")
        for n in (0, -1, 1025, 2**31 - 1):
            refused(kernels.scale, n, x, 1.0, match="n_threads")
            refused(kernels.fma_peak, n, 1, match="n_threads")
            refused(kernels.fingerprint, x, n, match="n_threads")

    def test_enumerations(self, kernels):
        x = np.zeros(3, "f")
        refused(kernels.activation, "relu", x, x, match="name must be")
        refused(celltable.CellOptions, [("no function", 0, 0)], match="activation")
        refused(Layout, "no cell", 1, 1, 1, 1, True, match="cell")
        refused(Layout, "gru", 1, 1, 0, 1, True, match="n_layers")
        refused(Layout, "gru", 1, 1, 1, 3, True, match="n_directions")
        gru = [("tanh", 0, 0)] * 3
        for options in (
            celltable.CellOptions(gru[:2]),
            celltable.CellOptions(gru, peephole=True),
            celltable.CellOptions(gru, input_forget=True),
        ):
            refused(single.Shape, celltable.CELLS["gru"], 0, 1, 1, 1, 1, None, options)

    def test_nobody_makes_kernels(self):
        refused(core.Kernels, match="kernels")
        refused(core.Kernels.__new__, core.Kernels, match="kernels")

    def test_what_was_checked_stays(self):
        """A second `__init__`, which might change sizes, changes nothing."""
        shape = single.Shape(0, False, 2, 2, 1, 1)
        shape.__init__(0, False, 9, 9, 9, 9)
        assert shape.rows == 4
        layout = Layout("gru", 2, 3, 1, 1, True)
        plan = arrays.ArrayPlan(
            core.kernels("float32"), 1, layout, 2, 2, offsets=np.array([0, 2, 3])
        )
        plan.offsets[:] = 10**6
        assert plan.x_shape == (3, 2)
        assert not hasattr(layout, "__setstate_cython__")


class TestArrays:
    def test_none_where_an_array_has_to_be(self, kernels):
        shape = single.Shape(0, False, 1, 1, 2, 3)
        size = single.packed_size(kernels, False, shape)
        W, R, packed = (np.zeros(n, "f") for n in (6, 9, size))
        for some in ((None, R, packed), (W, None, packed), (W, R, None)):
            refused(
                single.pack, kernels, False, shape, *some[:2], None, None, some[2],
                match="must be an array",
            )  # fmt: skip

    def test_an_address_between_elements(self, kernels):
        odd = memoryview(bytearray(13))[1:].cast("f")
        refused(kernels.scale, 1, odd, 2.0, match="multiple of 4 bytes")

    def test_types_of_several_parts(self, kernels):
        refused(kernels.scale, 1, np.zeros(3, "f,f"), 2.0, match="buffer format")
        refused(kernels.scale, 1, np.zeros(3, "V0"), 2.0, match="buffer format")

    def test_a_stream_keeps_its_arrays_where_they_are(self, kernels):
        """An array that can grow would move away from under the next step."""
        shape = single.Shape(0, False, 1, 1, 2, 3)
        packed = np.zeros(single.packed_size(kernels, False, shape), "f")
        work = np.zeros(single.work_size(kernels, False, shape, 1), "f")
        memory = bytearray(12)
        one = single.OneStep(
            kernels, shape, 1, packed, memoryview(memory).cast("f"), None,
            np.zeros(3, "f"), work,
        )  # fmt: skip
        with pytest.raises(BufferError):
            memory.extend(b"0" * 10**6)
        assert (one.step(np.ones(2, "f")) == 0).all()

    def test_rows_that_change_after_they_were_checked(self, kernels):
        rows, seen = np.array([0, 1]), np.zeros(2, "q")
        which = optimizers.TableRows(2, rows, seen, 1, np.ones((1, 3), "f"), True)
        p, g = np.zeros(4, "f"), np.ones(4, "f")
        rows[1] = 10**9
        call = (
            optimizers.sgd,
            kernels,
            1,
            p,
            g,
            [None],
            [0.1],
            0.0,
            False,
            0.0,
            0.0,
            False,
            True,
        )
        refused(*call, which, match="rows must ascend")
        assert (p == 0).all()
        refused(optimizers.TableRows, 2, rows[:1], seen, 1, np.ones((0, 3), "f"), True)


def test_an_end_that_wraps_around_is_outside():
    """The bytes before 2^61 + 8 elements of eight are few again."""
    for begin, end in ((8, 2**61 + 8), (0, 2**63 - 1), (26, 26), (-1, 1), (2, 1)):
        assert not addresses.is_clear(np.zeros(25), begin, end)
    assert addresses.is_clear(np.zeros(25), 0, 25)
    assert not addresses.is_clear(np.ones(25), 0, 25)
    assert not addresses.is_clear(np.zeros(25, "V0"), 0, 25)


class TestPlans:
    """What belongs to another layout, plan or moment."""

    def layout(self, H=3, layers=2):
        return Layout("gru", 2, H, layers, 1, True)

    def packed(self, layout, kernels):
        packer = weights.Packer(layout, memory.Pool(4))
        return packer.take(kernels, 1, np.zeros(9999, "f"), 0, True)

    def test_stacks(self, kernels):
        layout, pool = self.layout(), memory.Pool(4)
        use = self.packed(layout, kernels)
        plan = arrays.ArrayPlan(kernels, 1, layout, 4, 2)
        x, y, end = (np.zeros(s, "f") for s in ((4, 2, 2), (4, 2, 3), (1, 2, 2, 3)))

        def forward(plan, use, x_at=0, y_at=0):
            return plan.forward(
                pool, use, x, x_at, None, None, None, 0.0, y, y_at, end, True
            )

        def backward(plan, kept, grads_start=0, block=None, open=False):
            plan.backward(
                pool, use, kept, x, 0, None, 0.0, y, 0, y, None, None, x.copy(),
                end.copy(), np.zeros(9999, "f"), grads_start, block, open,
            )  # fmt: skip

        kept = forward(plan, use)
        backward(plan, kept)
        other = self.layout(H=7)
        refused(forward, plan, self.packed(other, kernels), match="layout")
        refused(forward, plan, weights.Use(), match="layout")
        for at in (-1, -HUGE, HUGE, 1):
            refused(forward, plan, use, x_at=at)
            refused(forward, plan, use, y_at=at)
        for at in (-1, -HUGE, HUGE):
            refused(backward, plan, kept, grads_start=at)
        shorter = forward(arrays.ArrayPlan(kernels, 1, layout, 2, 2), use)
        refused(backward, plan, shorter, match="kept")
        refused(backward, plan, memory.Loan(), match="kept")
        wider = arrays.ArrayPlan(kernels, 1, layout, 4, 3).take_block(pool)
        one = arrays.ArrayPlan(kernels, 1, layout, 4, 2, first=1, n_cells=1)
        for block in (wider, one.take_block(pool), arrays.OpenBlock()):
            refused(backward, plan, kept, block=block, match="block")
        refused(backward, plan, kept, open=True, match="block")
        refused(
            arrays.ArrayPlan, kernels, 1, layout, 4, 2, first=1, match="no such cells"
        )
        refused(plan.part, 0, 2, match="ragged")

    def test_a_forward_form_that_backward_took(self, kernels):
        """Weights of 4 MiB and more take turns in one room."""
        layout, pool = self.layout(H=700, layers=1), memory.Pool(4)
        packer = weights.Packer(layout, pool)
        parameters = np.zeros(3 * 700 * 704, "f")
        use = packer.take(kernels, 1, parameters, 0, True)
        plan = arrays.ArrayPlan(kernels, 1, layout, 1, 1)
        x, y, end = (np.zeros(s, "f") for s in ((1, 1, 2), (1, 1, 700), (1, 1, 1, 700)))
        forward = pool, use, x, 0, None, None, None, 0.0, y, 0, end, True
        kept = plan.forward(*forward)
        grads = np.zeros_like(parameters)
        plan.backward(
            pool, use, kept, x, 0, None, 0.0, y, 0, y, None, None, x, end, grads, 0
        )
        refused(plan.forward, *forward, match="keep_forward")

    def test_directions_that_are_merged(self, kernels):
        layout = Layout("gru", 2, 3, 1, 2, True, None, True)
        use, pool = self.packed(layout, kernels), memory.Pool(4)
        plan = arrays.ArrayPlan(kernels, 1, layout, 1, 1)
        x, y, end = (np.zeros(s, "f") for s in ((1, 1, 2), (1, 1, 3), (1, 2, 1, 3)))
        refused(
            plan.forward, pool, use, x, 0, None, None, None, 0.0, y, 0, end, True,
            match="merged",
        )  # fmt: skip
        refused(tensors.TensorPlan, kernels, layout, 1, 1, match="merged")


class TestTensors:
    """Tensors that do not fit, and what was made for others."""

    @pytest.fixture
    def layout(self):
        return Layout("gru", 2, 3, 2, 1, False)

    @pytest.fixture
    def weights(self):
        return [Tensor(np.ones(s, "f")) for s in ((9, 2), (9, 3), (9, 3), (9, 3))]

    def test_forward(self, kernels, layout, weights):
        pool, plan = memory.Pool(4), tensors.TensorPlan(kernels, layout, 4, 5)
        packer = Packer(layout, pool)
        use = packer.take_tensors(kernels, 1, weights, [0] * 4, True, True)

        def tensor(*shape, dtype="f"):
            return Tensor(np.zeros(shape, dtype))

        def forward(**changed):
            y = [tensor(4, 5, 3), tensor(4, 5, 3)]
            given = {"pool": pool, "first": 0, "n_threads": 1, "use": use}
            given |= {"inputs": [tensor(4, 5, 2), y[0]], "batch_first": False}
            given |= {"h0": None, "c0": None, "outputs": y, "h_n": None, "c_n": None}
            given |= {"tapes": None} | changed
            plan.forward(**given)

        forward()
        good, inner = tensor(4, 5, 2), tensor(4, 5, 3)
        for bad in (
            tensor(3, 5, 2),
            tensor(4, 4, 2),
            tensor(4, 5, 1),
            tensor(20, 2),
            tensor(4, 5, 2, dtype="d"),
            Tensor(np.zeros((4, 5, 4), "f")[..., ::2]),
            Tensor(np.zeros((4, 5, 2), "f")[::-1]),
            Tensor(np.zeros((4, 5, 2), "f"), is_cpu=False),
            None,
            5,
        ):
            refused(forward, inputs=[bad, inner], match="an input")
        refused(forward, inputs=[good], match="inputs")
        refused(forward, outputs=[], inputs=[], match="layers")
        refused(forward, first=1, match="layers")
        refused(forward, first=-1, match="layers")
        refused(forward, outputs=[inner, tensor(5, 4, 3)], match="an output")
        refused(forward, h0=tensor(2, 4, 3), match="h0")
        refused(forward, h_n=tensor(1, 5, 3), match="h_n")
        refused(forward, tapes=tensor(plan.tape_size - 1), match="tapes")
        refused(forward, n_threads=0, match="n_threads")
        refused(forward, use=Use(), match="use")
        other = Packer(Layout("gru", 2, 3, 2, 1, False), pool)
        use_of_other = other.take_tensors(kernels, 1, weights, [0] * 4, True, True)
        refused(forward, use=use_of_other, match="layout")

    def test_weights(self, kernels, layout, weights):
        packer = Packer(layout, memory.Pool(4))
        take = packer.take_tensors, kernels, 1
        for bad in (weights[:3], [*weights[:3], None], [*weights[:3], weights[0]]):
            refused(*take, bad, [0] * 4, True, True, match="weight|tensors")
        refused(*take, weights, [0] * 3, True, True, match="versions")
        use = packer.take_tensors(kernels, 1, weights, [0] * 4, True, False)
        refused(use.make_backward, kernels, 1, weights[:1], match="tensors")
        refused(use.make_backward, core.kernels("float64"), 1, weights)
        refused(Use().make_backward, kernels, 1, weights, match="Packer")

    def test_offsets_of_a_pack(self):
        for sizes, rows, want in (
            ([3, 2], 5, [0, 3, 5]),
            ([3, 2], 6, None),
            ([3, 3], 5, None),
            ([2, 3], 5, None),
            ([3, 2, 0], 5, None),
            ([], 0, None),
            ([2**63 - 1, 2], 1, None),
            ([-1], -1, None),
        ):
            found = addresses.offsets_of(np.array(sizes, np.int64), rows)
            assert found is None if want is None else found.tolist() == want
