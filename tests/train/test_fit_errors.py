# SPDX-License-Identifier: BSD-3-Clause
"""What `fit` cannot do it refuses before the first step, and nothing has changed."""

import re

import numpy as np
import pytest

import fastrnn
from fastrnn.callbacks import Callback, CSVLogger, EarlyStopping, ModelCheckpoint
from fastrnn.schedules import CosineLR, ReduceLROnPlateau
from fastrnn.train import saving
from fastrnn.util import container

SPARSE = "sparse_categorical_crossentropy"
N, T, F, K = 12, 5, 3, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, T, F)).astype("f")
CLASSES = RNG.integers(K, size=N)
BINARY = CLASSES % 2


def compiled(loss=SPARSE, outputs=K, metrics=(), **options):
    model = fastrnn.Sequential(
        fastrnn.LSTM(F, 6, return_sequences=False, dropout=0.0, seed=0, **options),
        fastrnn.Dropout(0.3, seed=1),
        fastrnn.Linear(6, outputs, seed=2),
    )
    model.compile(loss, "adam", metrics=metrics, lr=0.05)
    return model


def everything(model):
    """All that a run changes, for comparison."""
    optimizer = model.optimizer.state_dict()
    return {
        "parameters": model.flat_parameters.copy(),
        "gradients": model.flat_grads.copy(),
        **{f"optimizer.{name}": value for name, value in optimizer.items()},
        "generator": str(model[1].generator.bit_generator.state),
        "history": model.history,
        "modes": [module.training for module in model.modules()],
        "states": [getattr(module, "state", None) for module in model.modules()],
    }


def unchanged(model, before):
    after = everything(model)
    assert after.keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


def steps(counts):
    class Count(Callback):
        def on_gradients(self, batch):
            counts.append(batch)

    return Count()


LATE = np.append(CLASSES[:-1], K)  # the last sample's class is one too many


@pytest.mark.parametrize(
    ("make", "data", "options", "message"),
    [
        ({}, (X, np.ones((N, T), int)), {}, "y must have the shape of the model's out"),
        ({}, (X, LATE), {"batch_size": 4}, r"y must be in \[0, 4\), got 4"),
        (
            {"loss": "binary_crossentropy", "outputs": 1},
            (X, np.append(BINARY[:-1], 2)), {"batch_size": 4}, r"y must be in \[0, 1\]",
        ),
        (
            {}, (X, CLASSES), {"validation_data": (X, np.ones((N, 2), int))},
            "fit: validation: sparse_categorical_crossentropy: y must have the shape",
        ),
        (
            {}, (X, CLASSES), {"validation_data": (X, LATE), "batch_size": 4},
            r"fit: validation: sparse_categorical_crossentropy: y must be in \[0, 4\)",
        ),
        (
            {}, (X, CLASSES), {"validation_data": (X[..., :2], CLASSES)},
            r"fit: validation: LSTM: x must have shape \(B, T, input_size\) = \(B, T,",
        ),
        (
            {"loss": "mse", "outputs": 1, "metrics": ["perplexity"]},
            (X, X[:, 0, 0]), {}, "y must be integers, got dtype float32",
        ),
        (
            # As in Keras: the largest number of each row is the right one, or not.
            {"loss": "mse", "metrics": ["accuracy"]}, (X, X[:, 0, [0, 1, 2, 0]]), {},
            None,
        ),
        (
            {}, (X, CLASSES), {"sample_weight": np.ones((N, T))},
            "sample_weight must have shape",
        ),
        (
            {"stateful": True}, (X, CLASSES), {"batch_size": 5, "shuffle": False},
            "fit: batch_size must leave no smaller batch for a stateful model, whose la"
            "yers go on from batch to batch, got batches of 2 and 5 of 12 samples with",
        ),
        (
            {"stateful": True}, (X, CLASSES),
            {"batch_size": 4, "shuffle": False, "validation_data": (X[:6], BINARY[:6])},
            "fit: validation: batch_size must leave no smaller batch for a stateful",
        ),
        (
            {"stateful": True}, (X, CLASSES),
            {"batch_size": 4, "shuffle": False, "validation_split": 0.25 + 1 / 12},
            None,
        ),
        (
            {}, (X, CLASSES), {"callbacks": [EarlyStopping("val_loss")]},
            "EarlyStopping: monitor must be one of loss, lr, got 'val_loss'",
        ),
        (
            {"metrics": ["accuracy"]}, (X, CLASSES),
            {"callbacks": [ReduceLROnPlateau("acc")], "validation_split": 0.5},
            "ReduceLROnPlateau: monitor must be one of loss, accuracy, val_loss, val",
        ),
        (
            {}, (X, CLASSES),
            {"callbacks": [ModelCheckpoint("no/such/folder/x")]},
            "ModelCheckpoint: path must be in a folder that exists, got 'no/such",
        ),
        (
            {}, (X, CLASSES),
            {"callbacks": [ModelCheckpoint("x", "auc", save_best_only=True)]},
            "ModelCheckpoint: monitor must be one of loss, lr, got 'auc'",
        ),
    ],
)  # fmt: skip
def test_what_cannot_go_on_is_known_before_the_first_step(make, data, options, message):
    model, counts = compiled(**make), []
    before = everything(model)
    options = {"verbose": 0, "epochs": 2, **options}
    options["callbacks"] = [*options.get("callbacks", []), steps(counts)]
    if message is None:
        assert model.fit(*data, **options).epoch == [0, 1]
        return
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(*data, **options)
    assert counts == []
    unchanged(model, before)


def test_tags_and_labels_are_known_before_the_first_step():
    tagger = fastrnn.Sequential(
        fastrnn.GRU(F, 4, seed=0), fastrnn.Linear(4, K, seed=1), fastrnn.CRF(K, seed=2)
    )
    tagger.compile("crf")
    speller = fastrnn.Sequential(
        fastrnn.GRU(F, 4, seed=0), fastrnn.Linear(4, K, seed=1)
    )
    speller.compile("ctc")
    tags = RNG.integers(K, size=(N, T))
    tags[-1, 2] = K
    for model, y in ((tagger, tags), (speller, 1 + tags[:, 2:3] % (K - 1))):
        before = model.flat_parameters.copy()
        y[-1] = K
        with pytest.raises(ValueError, match=r"y must be in \[0, 4\), got 4"):
            model.fit(X, y, batch_size=4, verbose=0)
        np.testing.assert_array_equal(model.flat_parameters, before)


def test_a_function_that_fails_as_metric_fails_before_the_first_step():
    def odd(pred, target):
        raise ValueError("no")

    model = compiled(metrics=[odd])
    before = model.flat_parameters.copy()
    with pytest.raises(ValueError, match=r"^no$"):
        model.fit(X, CLASSES, verbose=0)
    np.testing.assert_array_equal(model.flat_parameters, before)
    assert model.optimizer.n_steps == 0


def test_a_file_is_not_emptied_for_a_run_that_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("precious")
    with pytest.raises(ValueError, match=r"^EarlyStopping: monitor must be"):
        compiled().fit(X, CLASSES, callbacks=[CSVLogger(path), EarlyStopping("f1")])
    assert path.read_text() == "precious"


def test_figures_that_a_callback_adds_may_be_watched():
    class Add(Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["f1"] = float(epoch)

    stop = EarlyStopping("f1", mode="max")
    compiled().fit(X, CLASSES, callbacks=[Add(), stop], epochs=3, verbose=0)
    assert stop.best == 2.0


# -- weights by class ----------------------------------------------------------------


def test_class_weights_are_of_what_is_trained_on():
    """Validation is what `evaluate` says of its samples, to the bit."""
    y = np.array([0, 0, 0, 1, 0, 1, 1, 1, 2, 2, 3, 3])
    weight = RNG.uniform(0.5, 2, N)
    options = {"validation_split": 0.5, "epochs": 2, "seed": 0, "verbose": 0}
    for class_weight in ({0: 9.0, 1: 3.0}, "balanced"):
        for sample_weight in (None, weight):
            model = compiled(metrics=["accuracy"])
            last = model.fit(
                X, y, class_weight=class_weight, sample_weight=sample_weight, **options
            ).last
            tail = None if sample_weight is None else weight[6:]
            found = model.evaluate(X[6:], y[6:], sample_weight=tail, return_dict=True)
            assert last["val_loss"] == found["loss"]
            assert last["val_accuracy"] == found["accuracy"]
    # "balanced" counts the six that are trained on: 4 of class 0 and 2 of class 1.
    ours, theirs = compiled(), compiled()
    ours.fit(X, y, class_weight="balanced", **options)
    theirs.fit(X, y, class_weight={0: 6 / 8, 1: 6 / 4}, **options)
    np.testing.assert_array_equal(ours.flat_parameters, theirs.flat_parameters)


@pytest.mark.parametrize("ragged", [True, False])
def test_class_weights_of_steps_are_of_what_is_trained_on(ragged):
    x = [X[i, : 2 + i % 4] if ragged else X[i] for i in range(N)]
    y = [RNG.integers(3, size=len(one)) for one in x]
    for one in y:
        one[-1] = -100
    if not ragged:
        x, y = np.array(x), np.array(y)
    model = fastrnn.Sequential(fastrnn.GRU(F, 4, seed=0), fastrnn.Linear(4, 3, seed=1))
    model.compile(SPARSE)
    last = model.fit(
        x, y, class_weight={0: 7, 1: 3}, validation_split=0.25, verbose=0, seed=0
    ).last
    assert last["val_loss"] == model.evaluate(x[9:], y[9:], return_dict=True)["loss"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras's own
def test_class_weights_as_in_keras(keras):
    theirs = keras.Sequential([keras.Input((F,)), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs.compile(keras.optimizers.SGD(0.0), loss)
    ours = fastrnn.Sequential(fastrnn.Linear(F, 2, seed=0))
    ours.compile(SPARSE, "sgd", lr=0.0)
    kernel, bias = (np.asarray(w) for w in theirs.get_weights())
    ours.load_state_dict({"0.weight": kernel.T, "0.bias": bias})
    options = {"validation_split": 0.4, "batch_size": 4, "verbose": 0}
    for weights in (
        {"class_weight": {0: 5.0, 1: 0.5}},
        {"sample_weight": RNG.uniform(0.5, 2, N)},
    ):
        found = ours.fit(X[:, 0], BINARY, **weights, **options).last
        right = theirs.fit(X[:, 0], BINARY, **weights, **options).history
        assert found["val_loss"] == pytest.approx(right["val_loss"][0], rel=1e-5)


# -- a refused resume ----------------------------------------------------------------


class Picky(Callback):
    """A callback that does not like its state."""

    def __init__(self, refuses=False):
        self.refuses, self.seen = refuses, 0

    def on_epoch_end(self, epoch, logs=None):
        self.seen += 1

    def state(self):
        return {"seen": self.seen}

    def load_state(self, state):
        self.seen = state["seen"]
        if self.refuses:
            raise ValueError("no, thank you")


def begin(path):
    model = compiled()
    callbacks = [EarlyStopping("loss", patience=9), Picky(), ModelCheckpoint(path)]
    model.fit(X, CLASSES, epochs=2, callbacks=callbacks, seed=3, verbose=0)


def damaged(path, change):
    """The checkpoint with something in it changed."""
    arrays, meta = container.read(path, saving.KIND)
    change(arrays, meta["run"])
    container.write(path, arrays, saving.KIND, meta)


def _set(where, *path):
    *way, last, value = path
    for key in way:
        where = where[key]
    where[last] = value


REFUSED = {
    "history": lambda arrays, run: _set(run, "history", {"epoch": [0, 1]}),
    "seed": lambda arrays, run: _set(run, "seed", "three"),
    "generator": lambda arrays, run: _set(
        run, "generators", 2, "generator", "state", {"state": "much", "inc": 1}
    ),
    "another generator": lambda arrays, run: _set(
        run, "generators", 2, {"somebody": {}}
    ),
    "fewer generators": lambda arrays, run: run["generators"].pop(),
    "step": lambda arrays, run: _set(arrays, "training.optimizer.step", np.array(-4)),
    "array": lambda arrays, run: _set(
        arrays, "training.optimizer.exp_avg", np.zeros(3, "f")
    ),
    "callback": lambda arrays, run: _set(run, "callbacks", 1, ["Picky", {}]),
    "parameter": lambda arrays, run: arrays.pop("2.bias"),
}


@pytest.mark.parametrize("what", [*REFUSED, "refusal", "seed given", "options"])
def test_a_refused_resume_changes_nothing(tmp_path, what):
    path = tmp_path / "run"
    begin(path)
    if what in REFUSED:
        damaged(path, REFUSED[what])
    model, stop = compiled(), EarlyStopping("loss", patience=9)
    picky = Picky(what == "refusal")
    model.fit(X, CLASSES, callbacks=[stop, picky], seed=8, verbose=0)
    before = everything(model)
    kept = stop.state(), picky.seen
    options = {"seed": 4} if what == "seed given" else {}
    options |= {"batch_size": 3} if what == "options" else {}
    callbacks = [stop, picky, ModelCheckpoint(tmp_path / "other")]
    with pytest.raises(ValueError, match=r"^fit: (cannot go on from|seed must be)"):
        model.fit(
            X, CLASSES, epochs=4, callbacks=callbacks, resume=path, verbose=0, **options
        )
    unchanged(model, before)
    assert (stop.state(), picky.seen) == kept


def test_a_resume_that_is_refused_for_its_data_changes_nothing(tmp_path):
    path = tmp_path / "run"
    begin(path)
    model = compiled()
    before = everything(model)
    callbacks = [EarlyStopping("loss", patience=9), Picky(), ModelCheckpoint(path)]
    with pytest.raises(ValueError, match=r" must be in \[0, .*got 4"):
        model.fit(X, LATE, epochs=4, callbacks=callbacks, resume=path, verbose=0)
    unchanged(model, before)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"nesterov": np.array(True)}, ValueError),
        ({"lr": np.array(-1.0)}, ValueError),
        ({"momentum_buffer": np.ones(2, complex)}, TypeError),
        ({"momentum_buffer": np.ones(2)}, None),
        (None, TypeError),
    ],
)
def test_an_optimizer_that_refuses_a_state_keeps_its_own(change, error):
    layer = fastrnn.Linear(1, 1, seed=0)
    optimizer = fastrnn.SGD(layer, lr=0.1, momentum=0.9)
    layer.flat_grads[:] = 1
    optimizer.step()
    before = optimizer.state_dict()
    given = ["step"] if change is None else before | {"lr": np.array(0.5)} | change
    if change is not None and "nesterov" in change:
        given["dampening"] = np.array(0.5)  # the two do not go together
    if error is None:
        optimizer.load_state_dict(given)
        assert optimizer.lr == 0.5
        return
    with pytest.raises(error, match=re.escape("SGD.load_state_dict: ")):
        optimizer.load_state_dict(given)
    for name, value in optimizer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_schedule_is_tried_before_the_first_step():
    class Odd(fastrnn.schedules.Schedule):
        def factor(self, epochs_done):
            return 1.0 if epochs_done < 2 else float("nan")

    model = compiled()
    before = everything(model)
    with pytest.raises(
        ValueError, match=r"^Odd: factor must be a number in \[0, inf\), got nan"
    ):
        model.fit(X, CLASSES, epochs=4, callbacks=[CosineLR(), Odd()], verbose=0)
    unchanged(model, before)
