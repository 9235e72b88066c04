# SPDX-License-Identifier: BSD-3-Clause
"""Random sequences of a model's calls, beside a twin that only does what changes it.

One model is also asked, saved, loaded, copied, shown, given what does not fit, and run
in two halves with a file between them. The other one just trains. Both have the same
bits all the time: of parameters, of the optimiser, and of what they predict.
FASTRNN_FUZZ_EXAMPLES=10000 makes that many sequences.
"""

import collections
import contextlib
import copy
import io
import os
import pickle
import tempfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)
from machines import run_machine

import fastrnn

SEQUENCES = int(os.environ.get("FASTRNN_FUZZ_EXAMPLES", "10"))
LAYERS = {"rnn": fastrnn.RNN, "lstm": fastrnn.LSTM, "gru": fastrnn.GRU}
OPTIMIZERS = [("sgd", {"momentum": 0.9}), ("adam", {}), ("rmsprop", {})]
X = np.sin(np.arange(9 * 4 * 2)).reshape(9, 4, 2).astype("f")
Y = np.cos(X[:, :, :1])

# Arguments of fit that must be refused.
BAD_FITS = [
    {"x": X, "y": Y[:5]},
    {"x": X[:, :, :1], "y": Y},
    {"x": X, "y": Y[..., 0].tolist()[:-1]},
    {"x": X, "y": Y, "batch_size": 0},
    {"x": X, "y": Y, "epochs": -1},
    {"x": X, "y": Y, "epochs": 2.5},
    {"x": X, "y": Y, "callbacks": ["EarlyStopping"]},
    {"x": X, "y": Y, "validation_split": 1.5},
    {"x": X, "y": Y, "sample_weight": np.ones(3)},
    {"x": X, "y": Y, "clip_norm": -1.0},
    {"x": X, "y": Y, "seed": -1},
    {"x": X, "y": Y, "tbptt": 0},
    {"x": X.astype(complex), "y": Y},
    {"x": X[:0], "y": Y[:0]},
    {"x": None, "y": Y},
]


class Interrupt(fastrnn.callbacks.Callback):
    """Ctrl-C after a batch."""

    def __init__(self, batch):
        self.batch = batch

    def on_batch_end(self, batch, logs=None):
        if batch == self.batch:
            raise KeyboardInterrupt


class Fits(RuleBasedStateMachine):
    """A model that is disturbed, and its twin."""

    count: ClassVar = collections.Counter()

    @initialize(layer=st.sampled_from(sorted(LAYERS)), how=st.sampled_from(OPTIMIZERS))
    def make(self, layer, how):
        self.layer, self.how = LAYERS[layer], how
        self.model, self.twin = self.made(), self.made()
        self.folder = tempfile.TemporaryDirectory()

    def made(self):
        model = fastrnn.Sequential(
            self.layer(2, 3, num_layers=2, dropout=0.3, seed=1),
            fastrnn.BatchNormalization(num_features=3),
            fastrnn.Dropout(0.2, seed=2),
            fastrnn.Linear(3, 1, seed=3),
        )
        name, options = self.how
        model.compile("mse", name, ["mae"], lr=0.02, **options)
        return model.build((4, 2))

    def teardown(self):
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @property
    def path(self):
        return Path(self.folder.name, "file")

    # -- what both do ------------------------------------------------------------------

    @rule(
        seed=st.integers(0, 99), batch_size=st.integers(1, 10),
        clip=st.sampled_from([None, 0.1]), tbptt=st.sampled_from([None, None, 2]),
        interrupted=st.sampled_from([None, None, 0, 1]),
    )  # fmt: skip
    def fit(self, seed, batch_size, clip, tbptt, interrupted):
        for model in (self.model, self.twin):
            callbacks = [] if interrupted is None else [Interrupt(interrupted)]
            model.fit(
                X, Y, batch_size, 2, 0, seed=seed, clip_norm=clip, tbptt=tbptt,
                callbacks=callbacks,
            )  # fmt: skip
        assert self.model.history.history == self.twin.history.history
        self.count["fits"] += 1

    @rule(seed=st.integers(0, 99))
    def fit_in_two_halves(self, seed):
        """The second half by a new model, which has everything from the file."""
        half, whole = self.path, self.path.with_name("whole")
        for model, path, epochs in (self.twin, whole, 2), (self.model, half, 1):
            checkpoint = fastrnn.callbacks.ModelCheckpoint(path, "loss")
            model.fit(X, Y, 4, epochs, 0, seed=seed, callbacks=[checkpoint])
        self.model = self.made()
        checkpoint = fastrnn.callbacks.ModelCheckpoint(half, "loss")
        self.model.fit(X, Y, 4, 2, 0, resume=half, callbacks=[checkpoint])
        assert half.read_bytes() == whole.read_bytes()
        self.count["resumed fits"] += 1

    @rule(
        first=st.integers(0, 6), number=st.integers(0, 3), frozen=st.booleans(),
        load=st.booleans(), how=st.sampled_from([None, *OPTIMIZERS]),
    )  # fmt: skip
    def change(self, first, number, frozen, load, how):
        """Frozen layers, other parameters, another optimiser, and a step alone."""
        rng = np.random.default_rng(first)
        state = {
            name: np.abs(rng.standard_normal(array.shape)) / 2
            for name, array in self.twin.state_dict().items()
        }
        self.how = how or self.how
        for model in (self.model, self.twin):
            list(model)[number].trainable = not frozen
            if load:
                model.load_state_dict(state)
            if how:
                model.compile("mse", how[0], ["mae"], lr=0.02, **how[1])
        figures = [
            model.train_on_batch(X[first:], Y[first:])
            for model in (self.model, self.twin)
        ]
        np.testing.assert_array_equal(*figures)

    # -- what changes nothing ----------------------------------------------------------

    @rule(batch_size=st.sampled_from([None, 2]), n_threads=st.integers(1, 3))
    def ask(self, batch_size, n_threads):
        fastrnn.set_num_threads(n_threads)
        whole = self.model.predict(X)
        np.testing.assert_array_equal(self.model.predict(X, batch_size), whole)
        loss, mae = self.model.evaluate(X, Y, verbose=0)
        assert loss == pytest.approx(np.square(whole - Y).mean(), rel=1e-4)
        assert mae == pytest.approx(np.abs(whole - Y).mean(), rel=1e-4)
        with contextlib.redirect_stdout(io.StringIO()):
            self.model.summary()
        assert "Linear" in repr(self.model)

    @rule()
    def save_and_load(self):
        self.model.save(self.path)
        loaded = fastrnn.load_model(self.path)
        np.testing.assert_array_equal(loaded.predict(X), self.model.predict(X))
        weights = self.path.with_name("weights")
        fastrnn.Module.save(self.model, weights)
        other = self.made()
        other.load(weights)
        np.testing.assert_array_equal(other.predict(X), self.model.predict(X))

    @rule(by_pickle=st.booleans())
    def copy(self, by_pickle):
        if by_pickle:
            self.model = pickle.loads(pickle.dumps(self.model))
        else:
            self.model = copy.deepcopy(self.model)

    @rule(number=st.integers(0, len(BAD_FITS) - 1))
    def what_must_fail(self, number):
        model = self.model
        with pytest.raises((ValueError, TypeError)) as raised:
            model.fit(**BAD_FITS[number], verbose=0)
        assert str(raised.value)
        for call in (
            lambda: model.predict(np.zeros((2, 3, 5))),
            lambda: model.evaluate(X, Y[:1], verbose=0),
            lambda: model.compile("mean"),
            lambda: model.compile("mse", "steepest"),
            lambda: model.load_state_dict({"weight": np.ones(3)}),
            lambda: model.train_on_batch(X, Y[:, :, :, None]),
        ):
            with pytest.raises((ValueError, TypeError)) as raised:
                call()
            assert str(raised.value)
        with pytest.raises(OSError, match="none"):
            model.save(self.path.with_name("none") / "file")
        with pytest.raises(OSError, match="none"):
            model.load(self.path.with_name("none"))
        self.count["refused"] += 10

    # -- what holds after each ---------------------------------------------------------

    @invariant()
    def are_twins(self):
        if not hasattr(self, "model"):
            return
        one, other = self.model, self.twin
        for name, array in other.state_dict().items():
            np.testing.assert_array_equal(one.state_dict()[name], array)
        states = one.optimizer.state_dict(), other.optimizer.state_dict()
        assert states[0].keys() == states[1].keys()
        for name, array in states[1].items():
            np.testing.assert_array_equal(states[0][name], array)
        assert one.training == other.training
        assert [m.trainable for m in one.modules()] == [
            m.trainable for m in other.modules()
        ]
        np.testing.assert_array_equal(one.predict(X), other.predict(X))
        self.count["comparisons"] += 1


def test_any_sequence_of_fits(tried):
    before = fastrnn.get_num_threads()
    Fits.count.clear()
    try:
        run_machine(Fits, SEQUENCES, 20)
    finally:
        fastrnn.set_num_threads(before)
    assert len(Fits.count) == 4, Fits.count
    assert min(Fits.count.values()) > SEQUENCES // 2, Fits.count
    kinds = ", ".join(f"{n} {what}" for what, n in Fits.count.most_common())
    tried(SEQUENCES, f"sequences of a model's calls: {kinds}")
