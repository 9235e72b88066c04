# SPDX-License-Identifier: BSD-3-Clause
"""What a small step costs besides the kernels, counted: functions of ours in Python.

A call of a Python function takes about a tenth of a microsecond, and the kernels of a
small network's training step some twenty. The bounds are what there is today: whoever
needs one more call raises a bound here, knowingly.
"""

import copy
import gc
import sys
import weakref

import numpy as np
import pytest

import fastrnn


def calls_of(function):
    """How many of this package's Python functions are called meanwhile."""
    found = []

    def see(frame, event, _):
        name = frame.f_globals.get("__name__", "")
        if event == "call" and name.partition(".")[0] == "fastrnn":
            found.append(frame.f_code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        function()
    finally:
        sys.setprofile(before)
    return found


def layer():
    return fastrnn.LSTM(4, 5, seed=0)


def sequential():
    return fastrnn.Sequential(layer())


def two_layers():
    return fastrnn.Sequential(layer(), fastrnn.Linear(5, 2, seed=1))


@pytest.mark.parametrize(
    ("make", "most"), [(layer, 27), (sequential, 49), (two_layers, 83)]
)
def test_a_training_step_calls_few_functions(make, most):
    model, x = make(), np.ones((1, 8, 4), "f")

    def step():
        model.zero_grad()
        y = model(x)
        model.backward(y[0] if isinstance(y, tuple) else y)

    step()
    found = calls_of(step)
    assert len(found) <= most, found


def test_inference_of_a_layer_calls_few_functions():
    model, x = layer().eval(), np.ones((1, 1, 4), "f")
    model(x)
    found = calls_of(lambda: model(x))
    assert len(found) <= 10, found


def test_a_batch_of_fit_calls_few_functions():
    model = fastrnn.Sequential(
        fastrnn.LSTM(4, 5, return_sequences=False, seed=0), fastrnn.Linear(5, 1, seed=1)
    )
    model.compile("mse", "adam")
    x, y = np.ones((24, 8, 4), "f"), np.ones((24, 1), "f")

    def fit(n):
        return lambda: model.fit(x[:n], y[:n], batch_size=1, verbose=0, seed=0)

    fit(2)()
    more = len(calls_of(fit(24))) - len(calls_of(fit(12)))
    assert more / 12 <= 196


class TestPartsThatWereFoundBefore:
    """Which modules have parameters is kept from one step to the next."""

    def test_a_new_child_is_found(self):
        model = fastrnn.Sequential(layer())
        model.zero_grad()
        model.add(fastrnn.Linear(5, 2, seed=1))
        model.flat_grads[...] = 1
        model.zero_grad()
        assert model.flat_grads.size == layer().flat_grads.size + 12
        assert not model.flat_grads.any()

    def test_a_part_that_gets_a_child_is_found(self):
        inner = fastrnn.Sequential(layer())
        model = fastrnn.Sequential(inner)
        model.zero_grad()
        inner.add(fastrnn.Linear(5, 2, seed=1))
        assert model.flat_parameters.size == layer().flat_parameters.size + 12

    def test_a_child_in_place_of_another_is_found(self):
        model = fastrnn.Module()
        model.part = fastrnn.Linear(3, 2, seed=0)
        assert model.flat_parameters.size == 8
        model.part = fastrnn.Linear(4, 2, seed=0)
        assert model.flat_parameters.size == 10
        del model.part
        assert model.flat_parameters.size == 0

    def test_a_layer_that_is_built_later_is_found(self):
        model = fastrnn.Sequential(fastrnn.Linear(None, 2, seed=0))
        with pytest.raises(ValueError, match="input size is not known"):
            model.zero_grad()
        model(np.ones((1, 3), "f"))
        model.zero_grad()
        assert model.flat_parameters.size == 8

    def test_a_copy_finds_its_own(self):
        model = fastrnn.Sequential(layer())
        model.flat_grads[...] = 1
        model.zero_grad()
        model.flat_grads[...] = 1
        other = copy.deepcopy(model)
        other.zero_grad()
        assert not other.flat_grads.any()
        assert model.flat_grads.all()

    def test_what_was_handed_out_is_the_callers(self):
        """Whoever makes it read-only has not changed the layer's own."""
        model = layer()
        model.flat_grads.flags.writeable = False
        model.flat_parameters.flags.writeable = False
        assert model.flat_grads.flags.writeable
        assert model.flat_parameters.flags.writeable

    @pytest.mark.parametrize("make", [layer, sequential])
    def test_nothing_holds_a_model_that_nobody_has(self, make):
        model = make().eval()
        model.zero_grad()
        gone = weakref.ref(model)
        gc.disable()
        try:
            del model
            assert gone() is None
        finally:
            gc.enable()

    def test_a_layer_that_joins_a_model_leaves_its_old_buffer(self):
        part = layer()
        part.zero_grad()
        old = weakref.ref(part._buffers[1])
        fastrnn.Sequential(part, fastrnn.Linear(5, 2, seed=1)).zero_grad()
        assert old() is None
