# SPDX-License-Identifier: BSD-3-Clause
"""`fit`, `evaluate`, `predict` and their like as a Keras program calls them."""

import copy
import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn.callbacks import Callback

X = np.random.default_rng(0).normal(size=(24, 6, 3)).astype("f")
Y = X[:, -1, :1]


def compiled(*metrics, **options):
    model = fastrnn.Sequential([fastrnn.LSTM(5, seed=0, **options), fastrnn.Dense(1)])
    model[1].layer_arguments["seed"] = 1
    model.compile(optimizer="adam", loss="mse", metrics=list(metrics))
    return model


# -- evaluate ------------------------------------------------------------------------


def test_evaluate_returns_a_number_or_a_list():
    loss = compiled().evaluate(X, Y)
    assert isinstance(loss, float)
    both = compiled("mae", "mse").evaluate(X, Y, verbose=0)
    assert isinstance(both, list)
    assert len(both) == 3
    assert both[0] == loss == pytest.approx(both[2])
    found = compiled("mae").evaluate(X, Y, return_dict=True)
    assert found == {"loss": loss, "mae": both[1]}
    assert type(found) is dict


def test_the_dict_that_it_returned_warns():
    for result in (compiled().evaluate(X, Y), compiled("mae").evaluate(X, Y)):
        with pytest.warns(
            FutureWarning, match=r"^evaluate: \['loss'\] .* return_dict="
        ):
            assert result["loss"] == (
                result if isinstance(result, float) else result[0]
            )
        with pytest.warns(FutureWarning, match=r"^evaluate: items\(\) is of the dict"):
            assert next(iter(result.items()))[0] == "loss"
        for again in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
            assert again == result
    with pytest.warns(FutureWarning), pytest.raises(KeyError):
        result["mse"]


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_verbose(name, capsys):
    model = compiled("mae")
    given = (X, Y) if name == "evaluate" else (X,)
    for verbose, out, err in ((0, "", ""), (1, "", name), (2, name, ""), ("auto",) * 3):
        getattr(model, name)(*given, verbose=verbose)
        found = capsys.readouterr()
        if verbose != "auto":
            assert (found.out[:7], found.err[:7]) == (out[:7], err[:7])
        else:
            assert found.out == found.err == ""
    with pytest.raises(ValueError, match=f"^{name}: verbose must be 0, 1, 2 or 'auto'"):
        getattr(model, name)(*given, verbose=3)


# -- steps one by one ------------------------------------------------------------------


def test_a_loop_of_steps_is_fit():
    ours, theirs = compiled("mae"), compiled("mae")
    ours.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for _ in range(2):
        for i in range(0, 24, 8):
            before = theirs.test_on_batch(X[i : i + 8], Y[i : i + 8])
            found = theirs.train_on_batch(X[i : i + 8], Y[i : i + 8])
            assert found == pytest.approx(before)
    np.testing.assert_array_equal(ours.flat_parameters, theirs.flat_parameters)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict_on_batch(X))
    assert theirs.training  # as it was
    found = theirs.test_on_batch(X, Y, return_dict=True)
    assert found == theirs.evaluate(X, Y, 24, return_dict=True)


def test_weights_of_a_step():
    model = compiled()
    weight = np.arange(24.0)
    want = model.evaluate(X, Y, sample_weight=weight, batch_size=24)
    assert model.train_on_batch(X, Y, weight) == want
    model = fastrnn.Sequential([fastrnn.Dense(2)])
    model.compile("sparse_categorical_crossentropy")
    x, y = X[:, 0], np.arange(24) % 2
    both = [model.test_on_batch(x[y == c], y[y == c]) for c in (0, 1)]
    found = model.train_on_batch(x, y, class_weight={0: 2.0, 1: 0.5})
    assert found == pytest.approx((2 * both[0] + 0.5 * both[1]) / 2, rel=1e-6)


# -- what gives batches ----------------------------------------------------------------


class Keras:
    """As a PyDataset of Keras's: it need not be iterable."""

    def __init__(self):
        self.ended = 0

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return X[8 * i : 8 * i + 8], Y[8 * i : 8 * i + 8]

    def on_epoch_end(self):
        self.ended += 1


class Loader:
    """As a DataLoader of PyTorch's, or a data set of TensorFlow's."""

    def __init__(self, length=3):
        self.length = length

    def __len__(self):
        if self.length is None:
            raise TypeError("the length is unknown")
        return self.length

    def __iter__(self):
        return (list(Keras()[i]) for i in range(3))


def forever():
    while True:
        yield from Loader()


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (Keras, None),
        (Loader, None),
        (lambda: Loader(None), None),
        (Loader, 3),
        (forever, 3),
    ],
)
def test_batches_are_as_arrays(make, steps):
    ours, theirs = compiled("mae"), compiled("mae")
    options = {"epochs": 2, "verbose": 0}
    found = ours.fit(
        make(), steps_per_epoch=steps, validation_data=make(), validation_steps=steps,
        **options,
    )  # fmt: skip
    want = theirs.fit(
        X, Y, batch_size=8, shuffle=False, validation_data=(X, Y), **options
    )
    assert found.history == want.history
    np.testing.assert_array_equal(ours.flat_parameters, theirs.flat_parameters)
    assert ours.evaluate(make(), steps=steps) == theirs.evaluate(X, Y, 8)
    np.testing.assert_array_equal(ours.predict(make(), steps=steps), ours.predict(X))


def test_an_epoch_goes_on_where_the_one_before_ended(capsys):
    sizes = []

    class Look(Callback):
        def on_epoch_end(self, epoch, logs=None):
            sizes.append(self.run.steps)

    model, rows = compiled(), []

    def note():
        for i in range(24):
            rows.append(i)
            yield X[i : i + 1], Y[i : i + 1]

    model.fit(note(), steps_per_epoch=5, epochs=3, callbacks=Look())
    assert rows == list(range(15))
    assert sizes == [5, 5, 5]
    assert capsys.readouterr().err.count("epoch") == 3
    again = Loader()
    model.fit(again, steps_per_epoch=2, epochs=3, verbose=0)  # twice round
    source = Keras()
    model.fit(source, epochs=2, verbose=0)
    assert source.ended == 2


def test_a_schedule_before_the_number_of_steps_is_known():
    model, rates = compiled(), []

    class Look(Callback):
        def on_train_batch_end(self, batch, logs=None):
            rates.append(self.model.optimizer.lr)

    model.optimizer.lr = 1.0
    schedule = fastrnn.schedules.CosineLR()
    model.fit(Loader(None), epochs=2, callbacks=[schedule, Look()], verbose=0)
    want = [1.0] * 3 + [0.5 * (1 + np.cos(np.pi * s / 6)) for s in (3, 4, 5)]
    assert rates == pytest.approx(want)


def test_weights_and_classes_of_batches():
    x, y, w = X[:, 0], np.arange(24) % 2, np.linspace(0, 1, 24)

    def make():
        model = fastrnn.Sequential([fastrnn.Dense(2, seed=0)])
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    ours, theirs = make(), make()
    given = {"class_weight": {0: 2.0, 1: 0.5}, "verbose": 0}
    ours.fit(iter([(x[:8], y[:8], w[:8]), (x[8:16], y[8:16], w[8:16])]), **given)
    theirs.fit(x[:16], y[:16], 8, sample_weight=w[:16], shuffle=False, **given)
    np.testing.assert_array_equal(ours.flat_parameters, theirs.flat_parameters)
    np.testing.assert_array_equal(
        ours.predict(iter([x[:5], (x[5:],), (x[5:7], y[5:7])])),
        ours.predict(np.concatenate([x, x[5:7]])),
    )


def test_a_generator_teaches_a_model_that_writes():
    def make():
        model = fastrnn.Generator(12, fastrnn.GRU(8, 16, seed=0), start=10, seed=1)
        model.compile(optimizer="adam")
        return model

    ours, theirs = make(), make()
    prompts, rest = [[10, 1], [10, 2]], [[2, 3], [3, 4]]
    ours.fit(iter([(prompts, rest)]), verbose=0)
    theirs.fit(prompts, rest, shuffle=False, verbose=0)
    np.testing.assert_array_equal(ours.flat_parameters, theirs.flat_parameters)


def test_a_data_loader_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    loader = torch.utils.data.DataLoader(data, batch_size=8)
    ours, theirs = compiled(), compiled()
    ours.fit(loader, epochs=2, validation_data=loader, verbose=0)
    theirs.fit(X, Y, 8, 2, 0, shuffle=False)
    np.testing.assert_array_equal(ours.flat_parameters, theirs.flat_parameters)
    np.testing.assert_array_equal(ours.predict(loader), ours.predict(X))
    assert ours.evaluate(loader) == ours.evaluate(X, Y, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: m.fit(forever(), epochs=2),
            "^fit: epochs must be 1 where x is an it",
        ),
        (
            lambda m: m.fit(Loader(), Y),
            "^fit: y must not be given where x gives batches",
        ),
        (
            lambda m: m.fit(Loader(), batch_size=8),
            "^fit: batch_size must be None where",
        ),
        (
            lambda m: m.fit(Loader(), validation_split=0.5),
            "validation_split must not be",
        ),
        (
            lambda m: m.fit(Loader(), class_weight="balanced"),
            "class_weight must not be",
        ),
        (
            lambda m: m.fit(Loader(), resume="a"),
            "resume must not be given where x gives",
        ),
        (lambda m: m.fit(iter([])), "^fit: x must give batches, got none"),
        (
            lambda m: m.fit(iter(Loader()), steps_per_epoch=2, epochs=2),
            "^fit: x must give 2 batches in every epoch, got 1 after 2 before; an iter",
        ),
        (
            lambda m: m.fit(X, Y, steps_per_epoch=2),
            "^fit: steps_per_epoch must be None",
        ),
        (
            lambda m: m.fit(X, Y, validation_steps=2),
            "^fit: validation_steps must be None",
        ),
        (
            lambda m: m.fit(X, Y, validation_data=(X, Y), validation_steps=2),
            "^fit: validation_steps must be None where validation_data is arrays",
        ),
        (
            lambda m: m.evaluate(X, Y, steps=2),
            "^evaluate: steps must be None where x is",
        ),
        (
            lambda m: m.evaluate(Loader(), batch_size=2),
            "^evaluate: batch_size must be N",
        ),
    ],
)
def test_what_does_not_go_with_batches(call, message):
    with pytest.raises(ValueError, match=message):
        call(compiled())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: m.fit(iter([X])),
            r"^fit: x must give batches \(x, y\) or .*, got n",
        ),
        (
            lambda m: m.fit(forever),
            r"^fit: x must be .*, got the .* call it: forever\(\)",
        ),
        (lambda m: m.fit(X), "^fit: y must be targets, got None"),
        (
            lambda m: m.fit(X, Y, initial_epoch=3),
            r"^fit\(\) .*; fit\(resume=path\) goes",
        ),
        (lambda m: m.fit(X, Y, workers=4), "'workers'; leave it out: batches are made"),
        (
            lambda m: m.fit(X, Y, epoch=2),
            r"^fit\(\) has no .* 'epoch'; did you mean epo",
        ),
        (lambda m: m.evaluate(X, Y, callbacks=[1]), "^evaluate.*; callbacks are those"),
        (lambda m: m.predict(X, callbacks=[1]), "^predict.*'callbacks'; callbacks are"),
        (lambda m: m.predict(X, batchsize=1), "^predict.*'batchsize'; did you mean ba"),
        (lambda m: m.train_on_batch(X, Y, reset_metrics=False), "of this batch alone"),
        (lambda m: m.save("a", save_format="h5"), "^save.*'save_format'; it is safet"),
    ],
)
def test_answers(call, message):
    with pytest.raises(TypeError, match=message):
        call(compiled())


def test_words_that_change_nothing():
    compiled().fit(
        X, Y, verbose="auto", callbacks=None, initial_epoch=0, validation_freq=1,
        workers=1, use_multiprocessing=False,
    )  # fmt: skip
