# SPDX-License-Identifier: BSD-3-Clause
"""What a person who comes from Keras tries first: it works, or says what to write."""

import subprocess
import sys

import numpy as np
import pytest

import fastrnn
from fastrnn.callbacks import Callback
from fastrnn.train.history import History

SPARSE = "sparse_categorical_crossentropy"


def data(rng, n=24, T=6, F=3):
    x = rng.normal(size=(n, T, F)).astype("f")
    return x, x[:, -1, :1]


def test_layers_are_added(rng):
    x, y = data(rng)
    ours = fastrnn.Sequential()
    ours.add(fastrnn.LSTM(None, 5, return_sequences=False, seed=0))
    ours.add(fastrnn.Linear(None, 1, seed=1))
    theirs = fastrnn.Sequential(
        fastrnn.LSTM(None, 5, return_sequences=False, seed=0),
        fastrnn.Linear(None, 1, seed=1),
    )
    for model in (ours, theirs):
        model.compile("mean_squared_error", "Adam")
        model.fit(x, y, seed=0, verbose=0)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    with pytest.raises(
        RuntimeError, match=r"^Sequential.add: layers must be added before compile"
    ):
        ours.add(fastrnn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"layer 0 must be a Module, got str"):
        fastrnn.Sequential().add("LSTM")


@pytest.mark.parametrize("loss", ["mse", SPARSE])
def test_one_target_for_a_sequence_and_an_output_for_every_step(loss, rng):
    x, y = data(rng)
    y = y if loss == "mse" else np.zeros(len(x), int)
    model = fastrnn.Sequential(fastrnn.LSTM(None, 5), fastrnn.Linear(None, 1))
    model.compile(loss)
    with pytest.raises(
        ValueError,
        match=r"must have the shape of .* \(24, 6(, 1)?\), got \(24(, 1|,)\); where a "
        "sequence has one target, its last recurrent layer has return_sequences=False",
    ):
        model.fit(x, y, verbose=0)


@pytest.mark.parametrize("wrap", [fastrnn.Bidirectional, lambda layer: layer])
def test_a_recurrent_layer_after_the_last_output_alone(wrap, rng):
    x, y = data(rng)
    model = fastrnn.Sequential(
        wrap(fastrnn.GRU(None, 5, return_sequences=False)),
        fastrnn.Dropout(0.1),
        wrap(fastrnn.GRU(None, 5, return_sequences=False)),
        fastrnn.Linear(None, 1),
    )
    model.compile("mse")
    with pytest.raises(
        ValueError,
        match=r"^Sequential: layer 2 must be given sequences, and layer 0 gives",
    ):
        model.fit(x, y, verbose=0)


def test_a_layer_norm_finds_its_size(rng):
    x, y = data(rng)
    model = fastrnn.Sequential(
        fastrnn.LayerNorm(None, eps=1e-3),
        fastrnn.LSTM(None, 5, return_sequences=False),
        fastrnn.LayerNorm(None),
        fastrnn.Linear(None, 1),
    )
    assert repr(model[0]) == "LayerNorm(None, eps=0.001)"
    assert repr(model[2]) == "LayerNorm(None)"
    model.compile("mse")
    model.fit(x, y, verbose=0)
    assert model[0].normalized_shape == (3,)
    assert model[2].normalized_shape == (5,)


@pytest.mark.parametrize("form", ["objects", "series"])
def test_sequences_of_many_lengths_in_a_column(form, rng):
    rows = [rng.integers(0, 9, n) for n in (2, 4, 1, 4)]
    x = np.empty(4, object)
    x[:] = rows
    if form == "series":
        pd = pytest.importorskip("pandas", reason="pandas is not installed")
        x = pd.Series([row.tolist() for row in rows], index=[7, 3, 2, 9])
    model = fastrnn.Sequential(
        fastrnn.Embedding(9, 4, seed=0),
        fastrnn.GRU(None, 5, return_sequences=False, seed=1),
        fastrnn.Linear(None, 1, seed=2),
    )
    model.compile("mse")
    np.testing.assert_array_equal(model.predict(x), model.predict(rows))
    y = np.ones(4)
    assert model.evaluate(x, y, return_dict=True) == model.evaluate(
        rows, y, return_dict=True
    )


def test_stateful_layers_go_on_from_batch_to_batch(rng):
    """Two halves of sequences in two batches are the sequences in windows."""
    x = rng.normal(size=(4, 10, 3)).astype("f")
    y = rng.normal(size=(4, 10, 2)).astype("f")

    def make(**options):
        model = fastrnn.Sequential(
            fastrnn.LSTM(None, 5, seed=0, **options), fastrnn.Linear(None, 2, seed=1)
        )
        model.compile("mse", "sgd", lr=0.1)
        return model

    ours, theirs = make(stateful=True), make()
    halves = np.concatenate([x[:, :5], x[:, 5:]]), np.concatenate([y[:, :5], y[:, 5:]])
    checked = []

    class Look(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.reset_states()
            self.model.predict(x)  # of another length; the next epoch begins anew
            checked.append(self.model[0].state[0].shape)

    options = {"epochs": 2, "batch_size": 4, "shuffle": False, "verbose": 0}
    ours.fit(*halves, validation_data=halves, callbacks=[Look()], **options)
    theirs.fit(x, y, tbptt=5, **options)
    np.testing.assert_array_equal(ours.flat_parameters, theirs.flat_parameters)
    assert checked == [(1, 4, 5)] * 2
    ours.reset_states()
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))


class Pooled(fastrnn.Model):
    """A model whose parts find their own sizes."""

    def __init__(self, width):
        self.width = width
        self.body = fastrnn.Bidirectional(fastrnn.LSTM(None, width, seed=0))
        self.head = fastrnn.Linear(None, 1, seed=1)

    def forward(self, x):
        self.shape = (y := self.body(x)).shape
        return self.head(y.mean(axis=1))

    def backward(self, dy):
        d = self.head.backward(dy)[:, None] / self.shape[1]
        return self.body.backward(np.broadcast_to(d, self.shape))


ELSEWHERE = """
import sys, numpy as np, fastrnn
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/../support"]
from test_fit_habits import Pooled
model = fastrnn.load_model(sys.argv[2], custom_layers={"Pooled": Pooled})
np.save(sys.argv[4], model.predict(np.load(sys.argv[3])))
model.summary()
"""


def test_a_model_of_ones_own_is_saved_whole(tmp_path, rng, capsys):
    x, y = data(rng)
    model = Pooled(4)
    model.compile("mse")
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "model.safetensors")
    np.save(tmp_path / "x.npy", x)
    here = __file__.rpartition("/")[0]
    files = [str(tmp_path / name) for name in ("model.safetensors", "x.npy", "y.npy")]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, here, *files], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(files[2]), model.predict(x))
    model.summary()
    shown = capsys.readouterr().out
    assert "body Bidirectional (N, 6, 8)" in " ".join(shown.split())
    assert shown.splitlines()[:4] == done.stdout.splitlines()[:4]


def test_every_epoch_leaves_a_line_without_a_terminal(rng, capsys):
    x, y = data(rng)
    model = fastrnn.Sequential(fastrnn.Linear(None, 1))
    model.compile("mse", metrics=["mae"])
    model.fit(x[:, 0], y, epochs=3, validation_split=0.5)
    out, err = capsys.readouterr()
    assert out == ""
    starts = [line[:16] for line in err.splitlines()]
    assert starts == [f"epoch {epoch}/3  loss " for epoch in (1, 2, 3)]
    for name in ("  mae ", "  val_loss ", "  val_mae "):
        assert name in err


def test_a_history_draws_one_figure_by_name(rng):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed").use("Agg")
    history = History()
    history.add(0, {"loss": 2.0, "mae": 1.0}, 0.1)
    lines = history.plot("mae").get_lines()
    assert [line.get_label() for line in lines] == ["mae"]
    assert not History().plot().get_lines()  # of a run that ended at once
