# SPDX-License-Identifier: BSD-3-Clause
"""What a recurrent layer keeps between calls: packed weights, pool memory, contexts.

Whatever is written to a parameter, the next forward uses it; whatever changes between a
forward and its backward, backward is the derivative of the forward that ran.
"""

import concurrent.futures
import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from cells import CELLS, Case, assert_same_bits, data, run_backward, run_forward

import fastrnn
from fastrnn.native import core

# Weights enough that elements share the lanes of a fingerprint.
SHAPE = (3, 2, 20, 33)
NAMES = ["weight_ih_l0", "weight_hh_l1_reverse", "bias_ih_l0", "bias_hh_l1"]


def case_of(cell):
    return Case(cell, *SHAPE, num_layers=2, bidirectional=True)


def forward(layer, case):
    d, dtype = data(case), layer.dtype
    return run_forward(layer, d.x.astype(dtype), d.state(dtype))


def backward(layer, case, context=None):
    """Gradients of one call alone, whatever was accumulated before."""
    d, dtype = data(case), layer.dtype
    layer.zero_grad()
    return run_backward(layer, d.dy.astype(dtype), d.d_state(dtype), context)


def fresh(case, layer):
    """A layer with the same weights that has not run yet."""
    other = case.layer(layer.dtype)
    other.load_state_dict(layer.state_dict())
    return other.train(layer.training)


def assert_runs_like_a_fresh_one(case, layer):
    other = fresh(case, layer)
    assert_same_bits("output", forward(layer, case), forward(other, case))
    if layer.training:
        assert_same_bits("gradient", backward(layer, case), backward(other, case))


def packed(layer):
    """What is packed of each layer and direction at the moment."""
    current = layer._runtime.packed_weights.current
    return dict(zip(layer._suffixes, current, strict=True))


# -- ways to change weights -----------------------------------------------------------


def there(layer, name):
    """The parameter, or of a cell without R another one to change."""
    lacking = {"weight_hh": "weight_ih", "bias_hh": "bias_ih"}
    kind, _, suffix = name.partition("_l")
    own = layer.parameters
    if name not in own or own[name].ndim < (2 if kind == "weight_hh" else 1):
        name = f"{lacking[kind]}_l{suffix}"
    return own[name]


def negate(name, *index):
    def change(layer):
        there(layer, name)[index] *= -1

    return change


def swap(name, first, second):
    def change(layer):
        parameter = there(layer, name)
        parameter[[first, second]] = parameter[[second, first]]

    return change


def flip_two_signs(distance):
    def change(layer):
        layer.flat_parameters[[7, 7 + distance]] *= -1

    return change


def swap_two_elements(distance):
    def change(layer):
        flat = layer.flat_parameters
        flat[[7, 7 + distance]] = flat[[7 + distance, 7]]

    return change


def one_ulp(name):
    def change(layer):
        flat = there(layer, name).reshape(-1)
        flat[-1] = np.nextafter(flat[-1], np.inf, dtype=flat.dtype)

    return change


def negate_all(layer):
    layer.flat_parameters[:] *= -1


def step_an_optimizer(layer):
    layer.flat_grads[:] = 1
    fastrnn.SGD(layer, lr=1e-3).step()


def load(layer):
    layer.load_state_dict({k: v[::-1] for k, v in layer.state_dict().items()})


def through_a_parent(layer):
    model = fastrnn.Sequential(fastrnn.Linear(3, 20, dtype=layer.dtype), layer)
    model.flat_parameters[:] *= 0.5


CHANGES = {
    "negate-W": negate("weight_ih_l0"),
    "negate-R": negate("weight_hh_l1_reverse"),
    "negate-b": negate("bias_hh_l1"),
    "negate-column": negate("weight_ih_l1", slice(None), 5),
    "negate-row": negate("weight_hh_l0", 5),
    "swap-rows": swap("weight_ih_l0", 1, 17),
    "swap-rows-R": swap("weight_hh_l0_reverse", 0, 32),
    # 64 words are the lanes of the fingerprint: 64 float32, 32 float64.
    **{f"flip-signs-{n}": flip_two_signs(n) for n in (1, 16, 32, 64, 128, 256)},
    **{f"swap-elements-{n}": swap_two_elements(n) for n in (1, 32, 64)},
    **{f"one-ulp-{name}": one_ulp(name) for name in NAMES},
    "negate-all": negate_all,
    "optimizer": step_an_optimizer,
    "load-state-dict": load,
    "parent": through_a_parent,
}
with_changes = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("cell", CELLS)
@with_changes
def test_changed_weights_are_packed_again(isa, dtype, cell, mode, change):
    case = case_of(cell)
    layer = getattr(case.layer(dtype), mode)()
    forward(layer, case)
    before, old = packed(layer), layer.state_dict()
    change(layer)
    changed = {
        name.partition("_l")[2]
        for name, array in layer.parameters.items()
        if not np.array_equal(array, old[name])
    }
    assert changed  # or the test is not one
    assert_runs_like_a_fresh_one(case, layer)
    after = packed(layer)
    assert {k[2:] for k in after if after[k] is not before[k]} == changed


@pytest.mark.parametrize("cell", CELLS)
def test_unchanged_weights_are_not_packed_again(isa, dtype, cell):
    case = case_of(cell)
    layer = case.layer(dtype)
    forward(layer, case)
    before = packed(layer)
    backward(layer, case)
    forward(layer.eval(), case)
    layer.train().flat_parameters[:] += 0
    forward(layer, case)
    layer.flat_grads[:] = 1
    fastrnn.SGD(layer, lr=0.0).step()
    forward(layer, case)
    after = packed(layer)
    assert list(after) == list(before)
    assert all(after[k] is before[k] for k in before)


@pytest.mark.parametrize("cell", CELLS)
def test_training_after_eval_packs_for_backward(isa, dtype, cell):
    case = case_of(cell)
    layer = case.layer(dtype).eval()
    forward(layer, case)
    before = packed(layer)
    layer.train()
    assert_runs_like_a_fresh_one(case, layer)
    assert all(packed(layer)[k] is before[k] for k in before)


# -- between a forward and its backward -----------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
@with_changes
def test_backward_is_that_of_the_weights_that_ran(isa, dtype, cell, change):
    case = case_of(cell)
    layer, steady = case.layer(dtype), case.layer(dtype)
    assert_same_bits("output", forward(layer, case), forward(steady, case))
    want = backward(steady, case)
    context = layer.context
    change(layer)
    # Other calls take what memory there is, and pack the new weights.
    forward(layer, case)
    backward(layer, case)
    forward(layer.eval(), case)
    layer.train()
    assert_same_bits("gradient", backward(layer, case, context), want)
    assert_runs_like_a_fresh_one(case, layer)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("cell", CELLS)
def test_contexts_in_use_do_not_share_memory(isa, dtype, cell, first):
    """Two forwards, then their backwards in either order, as if each ran alone."""
    case = case_of(cell)
    layer, d = case.layer(dtype), data(case)
    inputs = [(s * d.x).astype(dtype) for s in (1, -0.5)]
    dys = [(s * d.dy).astype(dtype) for s in (1, 2)]

    def back(k, context=None):
        layer.zero_grad()
        return run_backward(layer, dys[k], d.d_state(dtype), context)

    wants = []
    for k in range(2):
        out = run_forward(layer, inputs[k], d.state(dtype))
        wants.append((out, back(k)))
    for _ in range(2):  # the second time out of memory that was given back
        contexts = []
        for k in range(2):
            got = run_forward(layer, inputs[k], d.state(dtype))
            assert_same_bits("output", got, wants[k][0])
            contexts.append(layer.context)
        for k in (first, 1 - first):
            assert_same_bits(f"gradient {k}", back(k, contexts[k]), wants[k][1])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("first", core.SUPPORTED)
@pytest.mark.parametrize("then", core.SUPPORTED)
def test_a_context_stays_on_its_target(dtype, cell, first, then):
    case = case_of(cell)
    layer = case.layer(dtype)
    with core.use_isa(first):
        steady = case.layer(dtype)
        want = forward(steady, case), backward(steady, case)
        got = forward(layer, case)
    context = layer.context
    with core.use_isa(then):
        assert_runs_like_a_fresh_one(case, layer)  # packed again for this target
        assert_same_bits("gradient", backward(layer, case, context), want[1])
    assert_same_bits("output", got, want[0])
    with core.use_isa(first):
        assert_runs_like_a_fresh_one(case, layer)


@pytest.mark.parametrize("dropout", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("ran_with", [0.0, 0.5])
def test_backward_is_that_of_the_dropout_that_ran(dtype, ran_with, dropout):
    d, results = data(case_of("gru")), []
    for after in (ran_with, dropout):
        layer = fastrnn.GRU(20, 33, num_layers=2, dropout=ran_with, dtype=dtype, seed=1)
        y, _ = layer(d.x)
        layer.dropout = after
        layer.zero_grad()
        dx, d_hx = layer.backward(np.ones_like(y))
        results.append({"dx": dx, "d_hx": d_hx, **layer.grads})
    assert_same_bits("gradient", results[1], results[0])


@pytest.mark.parametrize("p", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("ran_with", [0.0, 0.5])
def test_dropout_layers_backward_is_that_of_the_p_that_ran(dtype, ran_with, p):
    layer = fastrnn.Dropout(ran_with, seed=0)
    y = layer(np.ones(1000, dtype))
    layer.p = p
    np.testing.assert_array_equal(layer.backward(np.ones(1000, dtype)), y)


@pytest.mark.parametrize("before_after", [(1, 3), (3, 1), (2, 7)])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", [(20, 33, 5, 70), (12, 2, 20, 300)], ids=str)
def test_threads_may_change_before_backward(isa, dtype, cell, shape, before_after):
    case, threads = Case(cell, *shape), fastrnn.get_num_threads()
    layer = case.layer(dtype)
    want = forward(layer, case), backward(layer, case)
    try:
        fastrnn.set_num_threads(before_after[0])
        got = forward(layer, case)
        fastrnn.set_num_threads(before_after[1])
        gradients = backward(layer, case)
    finally:
        fastrnn.set_num_threads(threads)
    assert_same_bits("output", got, want[0])
    assert_same_bits("gradient", gradients, want[1])


# -- copies ---------------------------------------------------------------------------


def pickled(layer):
    return pickle.loads(pickle.dumps(layer))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
@pytest.mark.parametrize("cell", CELLS)
def test_a_copy_has_packed_weights_and_memory_of_its_own(isa, dtype, cell, duplicate):
    case = case_of(cell)
    layer, steady = case.layer(dtype), case.layer(dtype)
    forward(steady, case)
    want = backward(steady, case)
    forward(layer, case)
    backward(layer, case)  # the pool has memory now
    forward(layer, case)
    other = duplicate(layer)  # while a context is open
    assert other.context is None
    assert not any(packed(other).values())
    assert_runs_like_a_fresh_one(case, other)
    other.flat_parameters[:] *= -1
    assert_runs_like_a_fresh_one(case, other)
    assert_same_bits("gradient", backward(layer, case), want)
    assert_runs_like_a_fresh_one(case, layer)


# -- memory ---------------------------------------------------------------------------


@pytest.mark.parametrize("finish", ["backward", "drop"])
def test_memory_is_used_again(finish):
    """Also that of contexts which no backward ever takes."""
    layer = fastrnn.LSTM(64, 256, seed=0)
    x = np.ones((100, 8, 64), "f")
    tracemalloc.start()
    try:
        for k in range(6):
            y, _ = layer(x)
            if finish == "backward":
                layer.backward(y)
            if k == 1:
                settled, _ = tracemalloc.get_traced_memory()
        del y
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after <= 1.01 * settled  # a tape is a hundred times that


def held_after(lengths):
    """Bytes that a layer holds when it has trained on sequences of these lengths."""
    layer = fastrnn.GRU(8, 32, seed=0)
    tracemalloc.start()
    try:
        for T in lengths:
            y, _ = layer(np.ones((T, 16, 8), "f"))
            layer.backward(y)
        del y
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_lengths_that_change_do_not_pile_up(rng):
    lengths = rng.integers(50, 800, 200)
    assert held_after(lengths) <= 2.2 * held_after([800, 800])


@pytest.mark.parametrize("cell", CELLS)
def test_new_weights_in_concurrent_python_threads(cell):
    """All find that the weights have changed, one packs them, all use them."""
    case = case_of(cell)
    layer = case.layer("float32").eval()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for factor in (0.5, -2, 1.5, -1, 0.25) * 4:
            layer.flat_parameters[:] *= factor
            want = forward(fresh(case, layer), case)
            for got in pool.map(forward, [layer] * 8, [case] * 8):
                assert_same_bits(f"factor {factor}", got, want)


@pytest.mark.parametrize("batch_first", [False, True])
def test_dropout_does_not_depend_on_the_layout(batch_first):
    """Inner outputs are time first whatever the layer's own arrays are."""
    layer = fastrnn.GRU(5, 7, 2, dropout=0.5, seed=0, batch_first=batch_first)
    x = np.random.default_rng(0).standard_normal((6, 3, 5)).astype("f")
    y, _ = layer(x.swapaxes(0, 1) if batch_first else x)
    reference = fastrnn.GRU(5, 7, 2, dropout=0.5, seed=0)
    want, _ = reference(x)
    np.testing.assert_array_equal(y.swapaxes(0, 1) if batch_first else y, want)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(">f4"),
        lambda x: x.astype("d"),
        np.asfortranarray,
        lambda x: x.tolist(),
        np.ma.masked_array,
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x.view(),
    ],
    ids=["big-endian", "double", "Fortran", "list", "masked", "strided", "view"],
)
def test_what_is_not_taken_as_it_is_gives_the_same(change, rng):
    """After a call of the same shape, which is what the short way looks for."""
    layer = fastrnn.LSTM(5, 7, seed=0)
    x, dy = rng.standard_normal((2, 6, 5, 5)).astype("f")
    dy = np.concatenate([dy, dy[..., :2]], axis=2)
    want = layer(x)[0], layer.backward(dy)[0]
    np.testing.assert_array_equal(layer(change(x))[0], want[0])
    np.testing.assert_array_equal(layer.backward(change(dy))[0], want[1])
    with pytest.raises(TypeError, match="LSTM: x must be real numbers"):
        layer(np.zeros((6, 5, 5), "M8[s]"))


def test_large_memory_has_one_fingerprint_for_any_number_of_threads(isa, rng):
    kernels = core.kernels("float32")
    x = rng.standard_normal(900_001, dtype="f")  # in four parts, the last one short
    want = kernels.fingerprint(x)
    for n_threads in (2, 3, 8):
        assert kernels.fingerprint(x, n_threads) == want
    for at in (0, 262_143, 262_144, 600_000, 900_000):
        x[at] = -x[at]
        assert kernels.fingerprint(x, 2) != want
        x[at] = -x[at]
    x[[5, 262_144 + 5]] = x[[262_144 + 5, 5]]  # parts are not interchangeable
    assert kernels.fingerprint(x, 2) != want
