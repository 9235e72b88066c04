# SPDX-License-Identifier: BSD-3-Clause
"""`Embedding(sparse=True)` against the dense one: the same bits, whoever looks when."""

import copy
import gc
import math
import pickle
import threading

import numpy as np
import pytest
from optimizer_cases import CASES, IDS

import fastrnn
from fastrnn.native import core, optimizers
from fastrnn.nn import sparse
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.layers import Linear
from fastrnn.nn.module import Module
from fastrnn.train import optim
from fastrnn.train.clip import clip_grad_norm_, clip_grad_value_


class Model(Module):
    """Two tables that are no multiple of a vector wide, and dense layers around."""

    def __init__(self, sparse, dtype="float32", rows=(57, 23), width=67):
        def table(n, seed, padding=None):
            return Embedding(n, width, padding, sparse=sparse, dtype=dtype, seed=seed)

        self.first = Linear(3, 2, dtype=dtype, seed=1)
        self.words = table(rows[0], 2, padding=4)
        self.middle = Linear(5, 1, bias=False, dtype=dtype, seed=3)
        self.tags = table(rows[1], 4)
        self.rows = rows

    def forward(self, words, tags):
        return self.words(words), self.tags(tags)

    def backward(self, d_words, d_tags):
        self.words.backward(d_words)
        self.tags.backward(d_tags)
        for layer in (self.first, self.middle):
            layer._grad["weight"][...] = d_words.flat[0]


def twins(dtype="float32", **sizes):
    return Model(False, dtype, **sizes), Model(True, dtype, **sizes)


def batch(model, rng, size=6):
    """Indices, some of them more than once, and gradients of what they give."""
    dtype, width = model.dtype, model.words.embedding_dim
    words, tags = (rng.integers(0, n, size) for n in model.rows)
    dy = rng.standard_normal((2, size, width)).astype(dtype) / 4
    return (words, tags), dy


def train_step(model, optimizer, indices, dy):
    model.zero_grad()
    y = model(*indices)
    model.backward(*dy)
    norm = clip_grad_norm_(model, 1.5)
    optimizer.step()
    return [a.tobytes() for a in y], norm


def same_bits(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def assert_same(dense, sparse, *optimizers):
    for name, value in dense.state_dict().items():
        assert same_bits(value, sparse.state_dict()[name]), name
    assert same_bits(dense.flat_grads, sparse.flat_grads)
    if optimizers:
        one, other = (o.state_dict() for o in optimizers)
        for name, value in one.items():
            assert same_bits(value, other[name]), name


def lags(model):
    """Whether some row has yet to take a step that was taken."""
    lag = model.words._table._lag
    return lag is not None and bool((lag.seen < lag.steps.now).any())


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_same_bits_over_many_steps(name, options, dtype, isa, rng, monkeypatch):
    monkeypatch.setattr(sparse, "CAPACITY", 7)  # rows are brought forward in turn
    models = twins(dtype)
    optimizers = [getattr(optim, name)(model, **options) for model in models]
    for step in range(25):
        indices, dy = batch(models[0], rng)
        for optimizer in optimizers:
            optimizer.lr *= 0.9 if step % 3 else 1.2
        results = [
            train_step(m, o, indices, dy)
            for m, o in zip(models, optimizers, strict=True)
        ]
        assert results[0] == results[1]
        assert lags(models[1])
    assert_same(*models, *optimizers)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_same_bits_on_several_threads(name, options, n_threads, rng):
    models = twins(rows=(500, 300), width=40)
    optimizers = [getattr(optim, name)(model, **options) for model in models]
    for _ in range(4):
        indices, dy = batch(models[0], rng, size=150)
        results = [
            train_step(m, o, indices, dy)
            for m, o in zip(models, optimizers, strict=True)
        ]
        assert results[0] == results[1]
    assert lags(models[1])
    assert_same(*models, *optimizers)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_rows_that_miss_very_many_steps(name, options, rng):
    models = twins()
    optimizers = [getattr(optim, name)(model, **options) for model in models]
    indices, dy = batch(models[0], rng)
    for model, optimizer in zip(models, optimizers, strict=True):
        train_step(model, optimizer, indices, dy)
        model.zero_grad()
        for _ in range(1500):
            optimizer.step()
    assert_same(*models, *optimizers)


OPTION_CHANGES = [
    ("SGD", {"momentum": 0.9}, "momentum", [0.5, 0, 0.9]),
    ("SGD", {"momentum": 0.9}, "weight_decay", [0.1, 0]),
    ("RMSprop", {"centered": True}, "centered", [False, True]),
    ("Adagrad", {}, "eps", [1e-3]),
    ("Adam", {"amsgrad": True}, "amsgrad", [False, True]),
    ("Adam", {}, "betas", [(0.5, 0.9), (0.9, 0.99)]),
    ("Adam", {}, "lr", [0.0, 1e38, 0.1]),
    ("AdamW", {}, "weight_decay", [0.5]),
    ("Adam", {}, "maximize", [True]),
]


@pytest.mark.parametrize(("name", "options", "option", "values"), OPTION_CHANGES)
def test_steps_missed_are_taken_with_the_options_of_their_time(
    name, options, option, values, rng
):
    models = twins()
    optimizers = [getattr(optim, name)(model, **options) for model in models]
    for value in [None, *values]:
        for optimizer in optimizers:
            if value is not None:
                setattr(optimizer, option, value)
        for _ in range(3):
            indices, dy = batch(models[0], rng)
            for model, optimizer in zip(models, optimizers, strict=True):
                train_step(model, optimizer, indices, dy)
    assert_same(*models, *optimizers)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, math.inf, 3.0])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, math.inf])
@pytest.mark.parametrize("special", [None, math.nan, math.inf, -math.inf])
def test_clipping(norm_type, max_norm, special, dtype, isa, rng):
    models = twins(dtype)
    optimizers = [optim.Adam(model) for model in models]
    for step in range(3):
        indices, dy = batch(models[0], rng)
        if special is not None and step == 1:
            dy[0, 3, 5] = special
        norms = []
        for model, optimizer in zip(models, optimizers, strict=True):
            model.zero_grad()
            model(*indices)
            model.backward(*dy)
            norms.append(clip_grad_norm_(model, max_norm, norm_type))
            optimizer.step()
            clip_grad_value_(model, 0.01)
        assert same_bits(*norms)
        assert_same(*models, *optimizers)


def test_norm_has_the_same_bits_with_any_spans(dtype, isa, rng):
    kernels = core.kernels(dtype)
    for size in (1, 31, 32, 33, 64 * 32 + 7, 3 * 16384 + 13):
        cuts = np.sort(rng.integers(0, size + 1, 2 * min(size, 40)))
        spans = cuts.reshape(-1, 2)
        x = np.zeros(size, dtype)
        for begin, end in spans:
            x[begin:end] = rng.standard_normal(end - begin)
        poisoned = np.full(size, np.nan, dtype)  # what is outside is not even read
        for begin, end in spans:
            poisoned[begin:end] = x[begin:end]
        for power in (2.0, 1.0, math.inf, 3.0):
            want = kernels.norm(1, x, power)
            for n in (1, 2, 7):
                assert same_bits(kernels.norm(n, poisoned, power, spans), want)
        outside = np.isnan(poisoned)
        for method, value in [("scale", [0.3]), ("clamp", [0.2]), ("clear", [])]:
            for n in (1, 2):
                dense, sparse = x.copy(), poisoned.copy()
                getattr(kernels, method)(n, dense, *value)
                getattr(kernels, method)(n, sparse, *value, spans)
                assert np.isnan(sparse[outside]).all()
                assert same_bits(dense[~outside], sparse[~outside])


def test_only_rows_in_use_are_touched(rng):
    """The other rows' memory is not written, and what it holds is not read."""
    model = Embedding(50, 8, sparse=True, seed=0)
    optimizer = optim.Adam(model)
    used = np.array([3, 7, 7, 20])
    for _ in range(2):
        model.zero_grad()
        model(used)
        model.backward(np.ones((4, 8)))
        optimizer.step()
    others = np.setdiff1d(np.arange(50), [0, 1, 2, 3, 7, 20])  # some come in turn
    model._param["weight"][others] = np.nan
    model._grad["weight"][others] = np.nan
    before = model._param["weight"].copy()
    model.zero_grad()
    y = model(used)
    model.backward(np.ones((4, 8)))
    assert np.isfinite(clip_grad_norm_(model, 1.0))
    clip_grad_value_(model, 1.0)
    optimizer.step()
    assert np.isfinite(y).all()
    assert np.isnan(model._grad["weight"][others]).all()
    changed = (model._param["weight"] != before).any(axis=1)
    assert changed[[3, 7, 20]].all()
    np.testing.assert_array_equal(model._param["weight"][others], before[others])


# -- arrays that a user holds ----------------------------------------------------------


HELD = {
    "parameters": lambda model: model.parameters["words.weight"],
    "own parameters": lambda model: model.words.parameters["weight"],
    "flat_parameters": lambda model: model.flat_parameters,
    "a view of a view": lambda model: model.flat_parameters[8:][::2].T,
    "a memoryview": lambda model: memoryview(model.words.parameters["weight"]),
    "the mapping": lambda model: model.parameters,
}


@pytest.mark.parametrize("held", HELD)
def test_a_view_held_across_steps_is_always_up_to_date(held, rng):
    models = twins()
    optimizers = [optim.Adam(model, lr=0.1) for model in models]

    def steps(n):
        for _ in range(n):
            indices, dy = batch(models[0], rng)
            for model, optimizer in zip(models, optimizers, strict=True):
                train_step(model, optimizer, indices, dy)
            yield

    def values(view):
        if held == "the mapping":
            return b"".join(a.tobytes() for a in view.values())
        return np.asarray(view).tobytes()

    for _ in steps(3):
        assert lags(models[1])
    views = [HELD[held](model) for model in models]
    assert not lags(models[1])
    assert values(views[0]) == values(views[1])
    for _ in steps(3):
        assert values(views[0]) == values(views[1])
    del views
    gc.collect()
    for _ in steps(3):
        assert lags(models[1])  # nobody looks any more
    assert_same(*models, *optimizers)


def test_writing_through_views(rng):
    models = twins()
    optimizers = [optim.Adam(model, lr=0.1) for model in models]

    def write_parameters(model):
        model.parameters["words.weight"][10:20] = 0.5

    def write_gradients(model):
        model.grads["words.weight"][30] += 0.25

    def scale_all(model):
        model.flat_grads[:] *= 2
        model.flat_parameters[:] *= 0.99

    for _ in range(2):
        for change in (write_parameters, write_gradients, scale_all):
            for _ in range(3):
                indices, dy = batch(models[0], rng)
                for model, optimizer in zip(models, optimizers, strict=True):
                    train_step(model, optimizer, indices, dy)
                    change(model)
                    optimizer.step()
    assert lags(models[1]) is False
    assert_same(*models, *optimizers)


def test_gradients_held_across_zero_grad(rng):
    models = twins()
    optimizers = [optim.Adam(model) for model in models]
    held = [model.grads["words.weight"] for model in models]
    for step in range(3):
        indices, dy = batch(models[0], rng)
        norms = []
        for model, optimizer, grad in zip(models, optimizers, held, strict=True):
            model.zero_grad()
            model(*indices)
            model.backward(*dy)
            grad[step::7] += 0.5
            norms.append(clip_grad_norm_(model, 0.5))
            optimizer.step()
        assert same_bits(*norms)
        assert same_bits(*held)
    del held, grad
    for model, optimizer in zip(models, optimizers, strict=True):
        train_step(model, optimizer, indices, dy)
    assert lags(models[1])
    assert_same(*models, *optimizers)


def test_views_of_a_dense_layer_beside_it_cost_nothing(rng):
    model = Model(True)
    held = model.first.parameters["weight"], model.first.flat_grads
    train_step(model, optim.Adam(model), *batch(model, rng))
    assert lags(model)
    assert held[0].base is not None


# -- other ways to look ----------------------------------------------------------------


def through_pickle(pair):
    return pickle.loads(pickle.dumps(pair))


def through_deepcopy(pair):
    return copy.deepcopy(pair)


def through_copies_apart(pair):
    model, optimizer = pair
    other = copy.deepcopy(model)
    fresh = type(optimizer)(other)
    fresh.load_state_dict(optimizer.state_dict())
    return other, fresh


def through_state_dicts(pair):
    model, optimizer = pair
    other = Model(model.words.sparse)
    fresh = type(optimizer)(other)
    other.load_state_dict(model.state_dict())
    fresh.load_state_dict(optimizer.state_dict())
    other.zero_grad()
    return other, fresh


def through_files(pair, path):
    model, optimizer = pair
    model.save(path)
    other = Model(model.words.sparse)
    other.load(path)
    fresh = type(optimizer)(other)
    fresh.load_state_dict(optimizer.state_dict())
    return other, fresh


@pytest.mark.parametrize(
    "move",
    [
        through_pickle,
        through_deepcopy,
        through_copies_apart,
        through_state_dicts,
        through_files,
    ],
)
@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adagrad", "Adam", "AdamW"])
def test_resumed_in_the_middle(name, move, rng, tmp_path):
    steps = [batch(Model(False), rng) for _ in range(8)]

    def begin(sparse):
        model = Model(sparse)
        return model, getattr(optim, name)(model)

    unbroken, broken = begin(False), begin(True)
    for indices, dy in steps[:4]:
        train_step(*unbroken, indices, dy)
        train_step(*broken, indices, dy)
    assert lags(broken[0])
    arguments = (tmp_path / "model",) if move is through_files else ()
    moved = move(broken, *arguments)
    for indices, dy in steps[4:]:
        train_step(*unbroken, indices, dy)
        train_step(*broken, indices, dy)
        train_step(*moved, indices, dy)
        assert lags(moved[0])
    assert_same(unbroken[0], broken[0], unbroken[1], broken[1])
    assert_same(unbroken[0], moved[0], unbroken[1], moved[1])


def test_loading_drops_what_was_pending(rng):
    models = twins()
    optimizers = [optim.Adam(model) for model in models]
    start = models[0].state_dict(), optimizers[0].state_dict()
    for _ in range(3):
        for again in range(2):
            indices, dy = batch(models[0], rng)
            for model, optimizer in zip(models, optimizers, strict=True):
                train_step(model, optimizer, indices, dy)
                if again:
                    model.load_state_dict(start[0])
    assert_same(*models, *optimizers)
    for model, optimizer in zip(models, optimizers, strict=True):
        train_step(model, optimizer, indices, dy)
        optimizer.load_state_dict(start[1])
        train_step(model, optimizer, indices, dy)
    assert_same(*models, *optimizers)


def test_optimisers_that_take_turns(rng):
    models = twins()
    pairs = [(optim.Adam(m), optim.SGD(m.words, momentum=0.9)) for m in models]
    for step in range(9):
        indices, dy = batch(models[0], rng)
        for model, pair in zip(models, pairs, strict=True):
            train_step(model, pair[step % 3 == 2], indices, dy)
    assert_same(*models, *(adam for adam, _ in pairs))
    # one that is gone leaves nothing undone
    for model, pair in zip(models, pairs, strict=True):
        optimizer = optim.RMSprop(model, momentum=0.5)
        train_step(model, optimizer, indices, dy)
        train_step(model, optimizer, *batch(model, np.random.default_rng(5)))
        del optimizer
        train_step(model, pair[0], indices, dy)
    assert_same(*models, *(adam for adam, _ in pairs))


@pytest.mark.parametrize("held", [False, True])
def test_part_of_a_larger_model_later(held, rng):
    wholes, stale = [], []
    steps = [batch(Model(False), rng) for _ in range(4)]
    for model in twins():
        optimizer = optim.Adam(model)
        train_step(model, optimizer, *steps[0])
        if held:  # a view of memory that nobody will use any more
            stale.append(model.parameters["words.weight"])
        train_step(model, optimizer, *steps[1])
        if model.words.sparse:
            assert lags(model) != held
        whole = Module()
        whole.before, whole.body = Linear(3, 3, seed=0), model
        assert whole._flat()[0].size > model._flat()[0].size
        for step in steps:
            train_step(model, optimizer, *step)
        train_step(whole.body, optim.Adam(whole), *steps[0])
        wholes.append(whole)
    assert lags(model)
    assert_same(*wholes)


def test_a_table_taken_out_of_its_model(rng):
    results = []
    for model in twins():
        adam = optim.Adam(model)
        train_step(model, adam, *batch(model, np.random.default_rng(2)))
        words = model.words
        del model.words
        with pytest.raises(ValueError, match=r"Adam\.step: the model has"):
            adam.step()
        results.append(words.state_dict()["weight"])
    assert same_bits(*results)


def test_steps_without_zero_grad_and_late_backwards(rng):
    models = twins()
    optimizers = [optim.Adam(model) for model in models]
    for _ in range(3):
        steps = [batch(models[0], rng) for _ in range(2)]
        for model, optimizer in zip(models, optimizers, strict=True):
            model.zero_grad()
            kept = []
            for indices, _ in steps:
                model(*indices)
                kept.append((model.words.context, model.tags.context))
            optimizer.step()
            for (_, dy), contexts in zip(steps, kept, strict=True):
                model.words.backward(dy[0], context=contexts[0])
                model.tags.backward(dy[1], context=contexts[1])
                optimizer.step()
            optimizer.zero_grad()
            optimizer.step()
    assert lags(models[1])
    assert_same(*models, *optimizers)


def test_one_layer_used_twice(rng):
    models = twins()
    optimizers = [optim.Adam(model) for model in models]
    for _ in range(3):
        (one, _), dy = batch(models[0], rng)
        two = rng.integers(0, 57, (2, 3))
        for model, optimizer in zip(models, optimizers, strict=True):
            model.zero_grad()
            model.words(one)
            kept = model.words.context
            model.words(two)
            model.words.backward(dy[0].reshape(2, 3, -1))
            model.words.backward(dy[1], context=kept)
            optimizer.step()
    assert_same(*models, *optimizers)


def test_evaluation_from_several_threads(rng):
    dense, sparse = twins(rows=(400, 30))
    for model in (dense, sparse):
        optimizer = optim.Adam(model)
        generator = np.random.default_rng(3)
        for _ in range(20):
            train_step(model, optimizer, *batch(model, generator))
    assert lags(sparse)
    dense.eval()
    sparse.eval()
    jobs = [rng.integers(0, 400, 100) for _ in range(16)]
    found = [None] * len(jobs)

    def look_up(first):
        for i in range(first, len(jobs), 4):
            found[i] = sparse.words(jobs[i])

    threads = [threading.Thread(target=look_up, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for job, y in zip(jobs, found, strict=True):
        assert same_bits(dense.words(job), y)


def test_special_numbers_in_unused_rows(isa):
    """Dense steps make -0, subnormals and NaN of their own of some rows."""
    for name, options in CASES:
        results = []
        for model in twins(rows=(9, 5), width=8):
            weight = model.parameters["words.weight"]
            weight[5:] = -0.0, 1e-40, np.inf, np.nan, 0, -1e-40, 3e38, -np.inf
            del weight
            optimizer = getattr(optim, name)(model, **{"lr": 0.1} | options)
            for _ in range(3):
                indices = np.array([0, 1]), np.array([2])
                train_step(
                    model, optimizer, indices, (np.ones((2, 8)), np.ones((1, 8)))
                )
            results.append(model.state_dict()["words.weight"])
        assert same_bits(*results), name


def test_sequential_recurrent_training(rng):
    def run(sparse):
        model = fastrnn.Sequential(
            Embedding(300, 16, sparse=sparse, seed=1),
            fastrnn.LSTM(16, 24, seed=2),
            Linear(24, 300, seed=3),
        )
        optimizer = optim.AdamW(model, lr=0.01)
        generator = np.random.default_rng(0)
        for _ in range(6):
            words = generator.integers(0, 300, (9, 4))
            loss, dy = fastrnn.cross_entropy(model(words[:-1]), words[1:])
            optimizer.zero_grad()
            model.backward(dy)
            clip_grad_norm_(model, 0.25)
            optimizer.step()
            yield loss
        yield model.flat_parameters.tobytes()

    assert list(run(False)) == list(run(True))


# -- arguments -------------------------------------------------------------------------


def test_repr_and_flag():
    assert repr(Embedding(3, 2, sparse=True)) == "Embedding(3, 2, sparse=True)"
    with pytest.raises(TypeError, match="Embedding: sparse must be True or False"):
        Embedding(3, 2, sparse=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width must be >= 1, got 0"),
        ({"rows": np.array([1, 1])}, r"rows must ascend in \[0, 4\), got 1"),
        ({"rows": np.array([2, 4])}, r"rows must ascend in \[0, 4\), got 4"),
        ({"rows": np.array([-1])}, r"got -1"),
        ({"now": 9}, "row 1 has seen 0 steps, and only the last 5 of 9 are known"),
        ({"seen": np.full(4, -1)}, "has seen -1 steps"),
    ],
)
def test_rows_are_checked(change, message):
    arguments = {
        "width": 3,
        "rows": np.array([1, 2]),
        "seen": np.zeros(4, np.int64),
        "now": 2,
        "rates": np.zeros((5, optimizers.N_RATES), np.float32),
        "with_gradient": False,
    }
    with pytest.raises(ValueError, match=f"Rows: .*{message}"):
        optimizers.TableRows(**arguments | change)


def test_what_does_not_fit_the_flat_arrays_is_refused():
    kernels = core.kernels("float32")
    p = np.zeros(12, np.float32)
    rates = np.zeros((5, optimizers.N_RATES), np.float32)
    rows = optimizers.TableRows(
        3, np.array([1]), np.zeros(5, np.int64), 1, rates, False
    )
    with pytest.raises(ValueError, match="the table has 15 elements, and p 12"):
        optimizers.sgd(
            kernels, 1, p, p, (None,), (), 0, False, 0, 0, False, False, rows
        )
    with pytest.raises(ValueError, match="state must be buffer"):
        optimizers.sgd(kernels, 1, p, p, (), (0.1,), 0, False, 0, 0, False, False)
    with pytest.raises(TypeError, match="square must be an array, got None"):
        optimizers.adagrad(kernels, 1, p, p, (None,), (0.1,), 0, False, 0)
    for spans in ([[0, 13]], [[5, 4]], [[0, 4], [3, 5]], [[-1, 3]]):
        with pytest.raises(ValueError, match=r"spans must ascend within \[0, 12\]"):
            kernels.norm(1, p, 2.0, np.array(spans))
