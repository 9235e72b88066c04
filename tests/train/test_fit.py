# SPDX-License-Identifier: BSD-3-Clause
"""`Model.fit`, `evaluate`, `predict`, `summary`: Keras's arithmetic, written out."""

import functools
import os
import re
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
from tqdm import tqdm

import fastrnn
from fastrnn.callbacks import Callback

SPARSE = "sparse_categorical_crossentropy"


def sequences(rng, n=24, T=6, F=3, dtype="f"):
    x = rng.normal(size=(n, T, F)).astype(dtype)
    return x, x.sum(axis=1)[:, :2]


def model(seed=0, outputs=2, return_sequences=False, dtype="float32", **options):
    cell = fastrnn.LSTM(
        None, 5, return_sequences=return_sequences, seed=seed, dtype=dtype, **options
    )
    return fastrnn.Sequential(
        cell, fastrnn.Linear(None, outputs, seed=seed, dtype=dtype)
    )


class Batches(Callback):
    """Notes what the model is given."""

    def on_train_begin(self, logs=None):
        self.seen, forward = [], self.model.forward

        def noted(x):
            if self.model.training:
                self.seen.append(np.array(x))
            return forward(x)

        self.model.forward = noted

    def on_train_end(self, logs=None):
        del self.model.forward


# -- the loop ------------------------------------------------------------------------


def test_an_epoch_is_the_loop_written_out(rng):
    x, y = sequences(rng)
    ours, theirs = model(), model()
    ours.compile("mse", "adam", lr=0.01)
    history = ours.fit(
        x, y, epochs=3, batch_size=7, shuffle=False, clip_norm=0.1, seed=0, verbose=0
    )
    theirs[0].batch_first = True
    theirs(x[:1])
    optimizer, losses = fastrnn.Adam(theirs, lr=0.01), []
    for _ in range(3):
        total = 0
        for start in range(0, 24, 7):
            batch = slice(start, start + 7)
            loss, dy = fastrnn.mse_loss(theirs(x[batch]), y[batch])
            theirs.zero_grad()
            theirs.backward(dy)
            fastrnn.clip_grad_norm_(theirs, 0.1)
            optimizer.step()
            total += loss * len(x[batch])
        losses.append(total / 24)
    assert history.history["loss"] == losses
    np.testing.assert_array_equal(ours.flat_parameters, theirs.flat_parameters)
    np.testing.assert_array_equal(ours.predict(x), theirs(x))
    assert not ours[0].batch_first


def test_pytorch_trains_to_the_same_losses(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, y = sequences(rng, dtype="float64")
    ours = model(num_layers=2, bidirectional=True, dtype="float64").build((6, 3))
    lstm = torch.nn.LSTM(3, 5, 2, batch_first=True, bidirectional=True).double()
    head = torch.nn.Linear(10, 2).double()
    peers = torch.nn.ModuleList([lstm, head])
    state = {name: torch.tensor(value) for name, value in ours.state_dict().items()}
    peers.load_state_dict(state)
    ours.compile("huber", "adamw", lr=0.01)
    history = ours.fit(
        x, y, epochs=3, batch_size=10, shuffle=False, clip_norm=0.1, verbose=0
    )
    optimizer, losses = torch.optim.AdamW(peers.parameters(), lr=0.01), []
    for _ in range(3):
        total = 0.0
        for batch in (slice(0, 10), slice(10, 20), slice(20, 24)):
            h = lstm(torch.tensor(x[batch]))[1][0]
            pred = head(torch.cat([h[-2], h[-1]], dim=1))
            loss = torch.nn.functional.huber_loss(pred, torch.tensor(y[batch]))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(peers.parameters(), 0.1)
            optimizer.step()
            total += loss.item() * len(pred)
        losses.append(total / 24)
    assert history.history["loss"] == pytest.approx(losses, rel=1e-9)


def test_clip_value_comes_before_clip_norm(rng):
    x, y = sequences(rng)
    norms = []

    class Norm(Callback):
        def on_train_batch_end(self, batch, logs=None):
            norms.append(np.linalg.norm(self.model.flat_grads))
            assert abs(self.model.flat_grads).max() <= 1e-4

    m = model()
    m.compile("mse", "sgd")
    m.fit(x, 100 * y, clip_value=1e-4, clip_norm=5e-4, callbacks=[Norm()], verbose=0)
    assert norms[0] <= 5e-4 * (1 + 1e-4)


def test_the_same_seed_gives_the_same_weights_for_any_number_of_threads(rng):
    x, y = sequences(rng, n=40)
    found = []
    before = fastrnn.get_num_threads()
    try:
        for n_threads, seed in ((1, 3), (2, 3), (7, 3), (1, 4)):
            fastrnn.set_num_threads(n_threads)
            m = model(num_layers=2, dropout=0.3)
            m.compile("mse", "adam", lr=0.01)
            m.fit(x, y, epochs=2, batch_size=16, seed=seed, verbose=0)
            found.append(m.flat_parameters.copy())
    finally:
        fastrnn.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert (found[0] != found[3]).any()


def test_every_epoch_has_an_order_of_its_own(rng):
    x = np.arange(12.0).reshape(12, 1)
    batches = Batches()
    m = fastrnn.Sequential(fastrnn.Linear(None, 1, seed=0))
    m.compile("mse", "sgd", lr=0)
    m.fit(x, x, epochs=2, batch_size=5, callbacks=[batches], seed=1, verbose=0)
    seen = [batch.ravel().tolist() for batch in batches.seen]
    assert [len(batch) for batch in seen] == [5, 5, 2, 5, 5, 2]
    first, second = ([*a, *b, *c] for a, b, c in (seen[:3], seen[3:]))
    assert sorted(first) == sorted(second) == x.ravel().tolist()
    assert first != second
    assert first == np.random.default_rng([1, 0]).permutation(12).tolist()


def test_the_validation_split_is_the_last_part_and_never_trained_on(rng):
    x = np.arange(10.0).reshape(10, 1)
    batches = Batches()
    m = fastrnn.Sequential(fastrnn.Linear(None, 1, seed=0))
    m.compile("mse", "sgd", metrics=["mae"], lr=0)
    history = m.fit(
        x, 2 * x, validation_split=0.25, callbacks=[batches], seed=0, verbose=0
    )
    # Keras: floor(10 * 0.75) = 7 samples to train on.
    assert sorted(np.concatenate(batches.seen).ravel().tolist()) == list(range(7))
    expected = m.evaluate(x[7:], 2 * x[7:], return_dict=True)
    assert history.last["val_loss"] == expected["loss"]
    assert history.last["val_mae"] == expected["mae"]


def test_weights_are_samples_repeated(rng):
    """A weight of 2 is the sample twice, but for what the sum is divided by."""
    x, _ = sequences(rng, n=6, dtype="float64")
    labels = np.array([0, 1, 1, 0, 1, 0])
    weight = np.array([1, 2, 1, 0, 1, 3])
    grads = []

    class Grads(Callback):
        def on_gradients(self, batch):
            grads.append(self.model.flat_grads.copy())

    def train(x, y, **options):
        m = model(dtype="float64")
        m.compile(SPARSE, "sgd")
        m.fit(x, y, shuffle=False, callbacks=[Grads()], verbose=0, **options)

    train(x, labels, sample_weight=weight)
    train(np.repeat(x, weight, axis=0), np.repeat(labels, weight))
    np.testing.assert_allclose(grads[0] * 6 / 8, grads[1], rtol=1e-9, atol=1e-15)
    # Weights by class, alone and multiplied with the samples'.
    train(x, labels, class_weight={1: 3})
    train(x, labels, sample_weight=np.where(labels == 1, 3, 1))
    np.testing.assert_array_equal(grads[2], grads[3])
    train(x, labels, class_weight={1: 3}, sample_weight=weight)
    train(x, labels, sample_weight=weight * np.where(labels == 1, 3, 1))
    np.testing.assert_array_equal(grads[4], grads[5])


def test_weights_of_steps(rng):
    x, _ = sequences(rng, n=4)
    y = rng.integers(2, size=(4, 6))
    weight = rng.uniform(size=(4, 6))
    m = model(return_sequences=True)
    m.compile(SPARSE, "sgd", lr=0)
    m.fit(x, y, verbose=0)
    logits = m.predict(x).astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    rows = -np.log(np.take_along_axis(p, y[..., None], -1))[..., 0]
    for w, given in ((weight, {"sample_weight": weight}), (1, {})):
        assert m.evaluate(x, y, **given, return_dict=True)["loss"] == pytest.approx(
            np.sum(w * rows) / 24, rel=1e-6
        )
    by_class = np.where(y == 1, 5.0, 1.0)
    history = m.fit(x, y, class_weight={1: 5}, sample_weight=np.ones(4), verbose=0)
    assert history.last["loss"] == pytest.approx(np.sum(by_class * rows) / 24, rel=1e-6)


def test_truncated_back_propagation(rng):
    x = rng.normal(size=(4, 7, 3)).astype("f")
    y = rng.normal(size=(4, 7, 2)).astype("f")
    ours, theirs = (model(return_sequences=True) for _ in range(2))
    ours.compile("mse", "sgd", lr=0.1)
    ours.fit(x, y, tbptt=3, shuffle=False, verbose=0)
    theirs[0].batch_first = True
    theirs(x[:1])
    optimizer, state = fastrnn.SGD(theirs, lr=0.1), None
    for window in (slice(0, 3), slice(3, 6), slice(6, 7)):
        h, state = theirs[0](x[:, window], state)
        _, dy = fastrnn.mse_loss(theirs[1](h), y[:, window])
        theirs.zero_grad()
        theirs[0].backward(theirs[1].backward(dy))
        optimizer.step()
    np.testing.assert_array_equal(ours.flat_parameters, theirs.flat_parameters)


def test_sequences_of_many_lengths_are_not_padded(rng):
    lengths = rng.integers(2, 6, size=20)
    x = [rng.normal(size=(length, 3)).astype("f") for length in lengths]
    y = rng.integers(2, size=20)
    batches = Batches()
    m = model()
    m.compile(SPARSE, "adam", metrics=["accuracy"])
    m.fit(x, y, epochs=2, batch_size=4, callbacks=[batches], seed=0, verbose=0)
    assert all(len(batch) <= 4 for batch in batches.seen)
    assert sum(len(batch) for batch in batches.seen) == 40
    alone = np.concatenate([m.predict(one[None]) for one in x])
    np.testing.assert_array_equal(m.predict(x), alone)
    found = m.evaluate(x, y, return_dict=True)
    assert found["accuracy"] == np.mean(alone.argmax(-1) == y)


def test_targets_for_every_step_of_many_lengths(rng):
    x = [rng.normal(size=(length, 3)).astype("f") for length in (4, 2, 4, 3)]
    y = [one[:, :1] for one in x]
    m = model(outputs=1, return_sequences=True)
    m.compile("mse")
    m.fit(x, y, verbose=0)
    assert [len(one) for one in m.predict(x)] == [4, 2, 4, 3]
    with pytest.raises(
        ValueError, match=r"^fit: y\[1\] must have a target for each of "
    ):
        m.fit(x, [y[0], y[0], y[2], y[3]], verbose=0)


def test_weights_of_steps_of_many_lengths(rng):
    lengths = (5, 2, 5, 3)
    x = [rng.normal(size=(n, 3)).astype("f") for n in lengths]
    y = [rng.integers(2, size=n) for n in lengths]
    by_class = [np.where(one == 1, 3.0, 1.0) for one in y]
    m = model(return_sequences=True)
    m.compile(SPARSE, "sgd", lr=0)
    found = m.fit(x, y, class_weight={1: 3}, verbose=0).last["loss"]
    assert found == pytest.approx(
        m.evaluate(x, y, sample_weight=by_class, return_dict=True)["loss"]
    )
    rows = []
    for one, classes, weight in zip(m.predict(x), y, by_class, strict=True):
        p = np.exp(one - one.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        rows += list(-np.log(p[np.arange(len(p)), classes]) * weight)
    assert found == pytest.approx(np.mean(rows), rel=1e-5)
    both = m.fit(x, y, class_weight={1: 3}, sample_weight=[2.0] * 4, verbose=0)
    assert both.last["loss"] == pytest.approx(2 * found, rel=1e-6)
    with pytest.raises(
        ValueError, match=r"sample_weight\[1\] must have a weight for each of the 2 s"
    ):
        m.evaluate(
            x, y, sample_weight=[by_class[0], [1.0], *by_class[2:]], return_dict=True
        )


def test_several_inputs(rng):
    class Sum(fastrnn.Model):
        def __init__(self):
            self.a = fastrnn.Linear(None, 1, seed=0)
            self.b = fastrnn.Linear(None, 1, seed=1)

        def forward(self, x, z):
            return self.a(x) + self.b(z)

        def backward(self, dy):
            self.a.backward(dy)
            self.b.backward(dy)

    x, z = rng.normal(size=(64, 2)), rng.normal(size=(64, 3))
    target = x[:, :1] - z[:, 2:]
    m = Sum()
    m.compile("mse", "adam", lr=0.05)
    history = m.fit((x, z), target, epochs=60, seed=0, verbose=0)
    assert history.last["loss"] < 0.01
    assert m.predict((x, z)).shape == (64, 1)
    assert m.evaluate((x, z), target, return_dict=True)["loss"] < 0.01


def test_indices_frames_and_lists_go_in(rng):
    tokens = rng.integers(5, size=(16, 4))
    m = fastrnn.Sequential(
        fastrnn.Embedding(5, 3, seed=0),
        fastrnn.Bidirectional(fastrnn.GRU(None, 4, return_sequences=False, seed=1)),
        fastrnn.Dropout(0.2, seed=3),
        fastrnn.Linear(None, 1, seed=2),
    )
    m.compile("binary_crossentropy", "rmsprop", metrics="accuracy", lr=0.02)
    target = (tokens[:, 0] > 2).tolist()
    history = m.fit(tokens.tolist(), target, epochs=60, seed=0, verbose=0)
    assert history.last["accuracy"] > 0.9


def test_fit_leaves_modes_and_predict_changes_nothing(rng):
    x, y = sequences(rng)
    m = model()
    m.compile("mse")
    m.eval()
    m.fit(x, y, verbose=0)
    assert not m.training
    m.train()
    y_before = m(x.swapaxes(0, 1))
    m.predict(x)
    m.evaluate(x, y, return_dict=True)
    assert m.training
    m.backward(np.ones_like(y_before))


def test_batch_size_does_not_change_predictions(rng):
    x, _ = sequences(rng)
    m = model()
    np.testing.assert_array_equal(m.predict(x), m.predict(x, batch_size=5))


def test_a_run_that_diverges_stops_and_keeps_its_parameters(rng):
    x, y = sequences(rng)
    x[3] = np.nan
    m = model()
    m.compile("mse")
    m.build((6, 3))
    before = m.flat_parameters.copy()
    with pytest.raises(
        FloatingPointError, match=r"^fit: training diverged in epoch 1, b"
    ):
        m.fit(x, y, verbose=0)
    np.testing.assert_array_equal(m.flat_parameters, before)


# -- Ctrl-C --------------------------------------------------------------------------

# A job started in the background ignores SIGINT, and its children inherit that.
INTERRUPTED = """
import signal
import numpy as np, fastrnn
from fastrnn.callbacks import Callback

signal.signal(signal.SIGINT, signal.default_int_handler)

class Note(Callback):
    kept = {}
    def on_epoch_end(self, epoch, logs):
        self.kept[epoch] = self.model.flat_parameters.copy()
        if epoch == 2:  # what is learnt from now on is worse
            self.model.optimizer.lr = 10.0
        print(epoch, flush=True)

x = np.random.default_rng(0).normal(size=(512, 20, 3))
gru = fastrnn.GRU(None, 16, return_sequences=False, seed=0)
model = fastrnn.Sequential(gru, fastrnn.Linear(None, 1, seed=0))
model.compile("mse", "adam", lr=0.01)
note = Note()
history = model.fit(
    x, x.sum(1)[:, :1], epochs=10**6, batch_size=64, callbacks=[note], seed=0,
    verbose=0, validation_split=0.2, clip_norm=1.0,
)
assert history.interrupted
n = len(history.epoch)
assert all(len(values) == n for values in history.history.values()), history.history
best = int(np.argmin(history.history["val_loss"]))
assert best < n - 1
assert (model.flat_parameters == note.kept[best]).all()
assert model.predict(x).shape == (512, 1)
print("clean", flush=True)
"""


def test_ctrl_c_ends_cleanly_with_the_best_weights():
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    for line in process.stdout:
        if int(line) == 5:
            process.send_signal(signal.SIGINT)
            break
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert rest.split()[-1] == "clean"


# -- text ----------------------------------------------------------------------------


def test_what_is_shown(rng, capsys, monkeypatch):
    x, y = sequences(rng)
    m = model()
    m.compile("mse", metrics=["mae"])
    m.fit(x, y, epochs=2, verbose=2, seed=0)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2  loss ")
    assert "  mae " in lines[1]
    assert err == ""
    monkeypatch.setattr("fastrnn.train.progress.LINE_SECONDS", 0)
    m.fit(x, y, epochs=2, batch_size=12, seed=0)
    out, err = capsys.readouterr()
    assert out == ""
    assert "epoch 2/2  loss " in err
    assert "batches/s" in err
    assert " left" in err


@pytest.mark.parametrize("columns", [60, 80, 132])
def test_a_bar_on_a_terminal(columns, rng, capsys, monkeypatch):
    x, y = sequences(rng)
    m = model()
    m.compile("mse", metrics=["mae", "mean_squared_error"])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("fastrnn.train.fit._BAR_SECONDS", 0)
    monkeypatch.setattr(
        "fastrnn.train.progress._bar_class",
        lambda: functools.partial(tqdm, mininterval=0),
    )
    history = m.fit(x, y, epochs=2, batch_size=4, validation_split=0.5, seed=0)
    shown = capsys.readouterr().err
    bars = [part for part in re.split(r"[\r\n]", shown) if "|" in part]
    lines = [line.split("\r")[-1] for line in shown.rstrip().split("\n")]
    assert max(map(len, bars)) <= columns
    whole = [bar for bar in bars if "100%|" in bar]
    assert len(whole) == 2
    assert all(re.match(r"epoch \d/2  loss [\d.]+ .* left", bar) for bar in whole)
    assert ("mean_" in whole[0]) == (columns > 80)
    assert ("batches/s" in whole[0]) == (columns > 60)
    assert len(lines) == 2
    for name, value in history.last.items():
        assert f"  {name} {value:.4g}  " in lines[1]


def test_a_bar_in_a_notebook(rng, monkeypatch, capsys):
    made = []

    class Widget(tqdm):
        def __init__(self, *args, **kwargs):
            made.append(self)
            super().__init__(*args, **kwargs)

    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=Widget))
    m = model()
    m.compile("mse")
    m.fit(*sequences(rng), epochs=3, seed=0)
    assert [bar.total for bar in made] == [1, 1, 1]
    lines = capsys.readouterr().err.splitlines()
    assert [line[:9] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]


def test_summary(capsys, rng):
    m = fastrnn.Sequential(
        fastrnn.Embedding(10, 4), fastrnn.LSTM(None, 8), fastrnn.Linear(None, 3)
    ).build((7,))
    m.compile(SPARSE, "adam")
    m.summary()
    text = capsys.readouterr().out
    assert "1 LSTM          (N, 7, 8)         448" in text
    assert (
        "515 parameters, float32: 2.0 KiB, and as much for gradients; Adam keeps"
        in text
    )
    own = fastrnn.Sequential(fastrnn.Linear(2, 3))
    own.summary()
    assert "0 Linear             ?           9" in capsys.readouterr().out


# -- errors --------------------------------------------------------------------------


def compiled():
    m = model()
    m.compile("mse")
    return m


X, Y = np.zeros((4, 6, 3), "f"), np.zeros((4, 2), "f")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "fit: epochs must be a positive integer, got 0"),
        ({"batch_size": 0}, "fit: batch_size must be a positive integer, got 0"),
        ({"verbose": 3}, "fit: verbose must be 0, 1, 2 or .auto., got 3"),
        ({"validation_split": 1.0}, r"fit: validation_split must be a number in"),
        ({"validation_split": 0.99}, "fit: validation_split must leave samples"),
        ({"clip_norm": 0.0}, r"fit: clip_norm must be a number in \(0, inf\], got 0.0"),
        ({"sample_weight": np.ones(3)}, "fit: sample_weight must have as many"),
        ({"sample_weight": -np.ones(4)}, "fit: sample_weight must be finite and >= 0"),
        ({"class_weight": {0: 1}}, "fit: class_weight needs a loss with classes"),
        ({"tbptt": 2}, r"fit: tbptt needs a target for every step: y"),
        ({"seed": -1}, "fit: seed must be None, a non-negative integer"),
        (
            {"validation_split": 0.5, "validation_data": (X, Y)},
            "fit: validation_data and validation_split must not both be given",
        ),
        (
            {"validation_data": (X, Y[:3])},
            "fit: validation_data: y must have as many samples as x, 4, got 3",
        ),
    ],
)  # fmt: skip
def test_options_that_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        compiled().fit(X, Y, **options)


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (X, Y[:3], ValueError, "fit: y must have as many samples as x, 4, got 3"),
        (X, None, TypeError, "fit: y must be targets, got None"),
        (X[:0], Y[:0], ValueError, "fit: x must have samples, got none"),
        (X.astype(str), Y, TypeError, "fit: x must be real numbers, got dtype <U"),
        (1.0, Y, ValueError, "fit: x must have an axis of samples, got a number"),
        (
            [np.zeros((2, 3)), np.zeros((3, 2))],
            Y[:2],
            ValueError,
            r"fit: x must have sequences that differ in length alone, got",
        ),
        (
            [np.zeros((2, 3)), np.zeros((0, 3))],
            Y[:2],
            ValueError,
            "fit: x must have sequences with steps, got length 0",
        ),
        (
            X,
            np.zeros((4, 3)),
            ValueError,
            "mse: y must have the shape of the model's out",
        ),
    ],
)
def test_arrays_that_are_refused(x, y, error, message):
    with pytest.raises(error, match=f"^{message}"):
        compiled().fit(x, y, verbose=0)


def test_compile_and_build_refuse():
    m = model()
    for call in (m.fit, m.evaluate):
        with pytest.raises(
            RuntimeError, match=r": the model must be compiled first: mod"
        ):
            call(X, Y)
    with pytest.raises(
        ValueError, match=r"^Sequential.compile: optimizer must be one of"
    ):
        m.compile("mse", "lion")
    with pytest.raises(
        TypeError, match=r"^Sequential.compile: optimizer must be a name,"
    ):
        m.compile("mse", 3)
    with pytest.raises(TypeError, match=r"\.compile\(\) has no argument 'rate'; it "):
        m.compile("mse", "adam", rate=1)
    with pytest.raises(
        ValueError, match=r"^Sequential.compile: an optimizer must be one "
    ):
        m.compile("mse", fastrnn.Adam(fastrnn.Linear(1, 1)))
    with pytest.raises(
        TypeError, match=r"^fit: callbacks must be objects of fastrnn.cal"
    ):
        compiled().fit(X, Y, callbacks=[print])
    with pytest.raises(
        TypeError, match=r"^Sequential.build: input_shape must be a tuple"
    ):
        m.build(3)
    with pytest.raises(TypeError, match=r"^fit: validation_data must be \(x, y\) or"):
        compiled().fit(X, Y, validation_data=X)


def test_an_optimizer_made_before(rng):
    x, y = sequences(rng)
    m = model().build((6, 3))
    optimizer = fastrnn.SGD(m, lr=0.1, momentum=0.9)
    m.compile("mse", optimizer)
    m.fit(x, y, verbose=0)
    assert m.optimizer is optimizer
    assert optimizer.n_steps == 1


def test_tbptt_needs_layers_that_go_forward_alone(rng):
    x = rng.normal(size=(4, 6, 3))
    m = fastrnn.Sequential(fastrnn.GRU(3, 2, bidirectional=True), fastrnn.Linear(4, 2))
    m.compile("mse")
    with pytest.raises(
        ValueError, match=r"^Sequential: layer 0 is bidirectional, so it "
    ):
        m.fit(x, x[..., :2], tbptt=2, verbose=0)
    with pytest.raises(ValueError, match=r"^fit: tbptt needs x to be one array"):
        m.fit([x[0], x[1, :3]], [x[0, :, :2], x[1, :3, :2]], tbptt=2, verbose=0)


@pytest.mark.parametrize("wrap", [lambda layer: layer, fastrnn.Bidirectional])
@pytest.mark.parametrize("size", [None, 5])
def test_a_batch_without_features_is_not_one_sequence(wrap, size):
    model = fastrnn.Sequential(wrap(fastrnn.LSTM(size, 4)), fastrnn.Linear(None, 1))
    model.compile("mse")
    x, y = np.ones((8, 5)), np.ones((8, 1))
    calls = [
        lambda: model.fit(x, y, verbose=0),
        lambda: model.evaluate(x, y, return_dict=True),
        lambda: model.predict(x),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"x must have shape \(N, T, features\)"):
            call()


def test_an_unknown_option_of_the_optimizer_is_named():
    model = fastrnn.Sequential(fastrnn.Linear(1, 1))
    with pytest.raises(
        TypeError, match=r"compile.. has no argument 'rate'; it takes .* lr, "
    ):
        model.compile("mse", "sgd", rate=1)


def test_parts_that_need_a_package_are_attributes():
    assert fastrnn.keras.Activation("relu").function == "relu"
    assert {"keras", "onnx", "sklearn", "torch"} <= set(dir(fastrnn))
    with pytest.raises(AttributeError, match="'fastrnn' has no attribute 'flax'"):
        fastrnn.flax  # noqa: B018


def test_sequential_takes_a_list():
    layers = [fastrnn.Linear(1, 2), fastrnn.Linear(2, 1)]
    assert fastrnn.Sequential(layers).layers == tuple(layers)
    with pytest.raises(TypeError, match="Sequential: layer 0 must be a Module, got li"):
        fastrnn.Sequential([layers])
