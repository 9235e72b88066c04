# SPDX-License-Identifier: BSD-3-Clause
"""fastrnn.quantize: models of small weights predict, are saved, and do not train."""

import copy
import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn import (
    GRU,
    LSTM,
    MGU,
    RNN,
    BatchNormalization,
    Bidirectional,
    Dense,
    Linear,
    Masking,
    Sequential,
    SimpleRNN,
    TimeDistributed,
)
from fastrnn.train import saving
from fastrnn.util import container

FORMATS = ("int8", "bfloat16")


def chain():
    return Sequential(
        LSTM(3, 40, batch_first=True, seed=0), Linear(40, 2, activation="tanh", seed=1)
    )


def masked():
    return Sequential(
        Masking(),
        Bidirectional(GRU(3, 9, batch_first=True, seed=0), "sum"),
        MGU(9, 8, batch_first=True, seed=0),
        TimeDistributed(Linear(8, 2, seed=1)),
    )


def kerass():
    return Sequential(
        SimpleRNN(33, return_sequences=True, input_shape=(8, 3)),
        BatchNormalization(),
        RNN(33, 40, batch_first=True, seed=4),
        Dense(2),
    )


def nested():
    inner = Sequential(LSTM(3, 3, batch_first=True, seed=0))
    shared = Linear(3, 3, seed=0)
    return Sequential(shared, inner, shared, Linear(3, 2, seed=2))


MODELS = [chain, masked, kerass, nested]


def data(rng):
    x = rng.standard_normal((6, 8, 3)).astype("f")
    x[2, 5:] = 0
    return x


def relative(y, want):
    return np.sqrt(np.mean((y - want) ** 2) / np.mean(want**2))


@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("make", MODELS)
def test_a_model_predicts_evaluates_and_is_saved(make, weights, rng, tmp_path):
    model, x = make(), data(rng)
    model.compile("mse", "adam", ["mae"])
    want = model.predict(x)
    small = fastrnn.quantize(model, weights)
    y = small.predict(x)
    assert 0 < relative(y, want) < 2e-2
    counts = slice(None) if make is not masked else (x != 0).any(axis=2)
    error = np.mean((y - want)[counts] ** 2)
    assert small.evaluate(x, want)[0] == pytest.approx(error, 1e-3)
    np.testing.assert_array_equal(model.predict(x), want)
    path = tmp_path / "small.safetensors"
    small.save(path)
    loaded = fastrnn.load_model(path)
    assert repr(loaded) == repr(small)
    assert loaded.evaluate(x, want) == small.evaluate(x, want)
    for again in (loaded, copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        np.testing.assert_array_equal(again.predict(x), y)
    again.set_weights(small.get_weights())
    np.testing.assert_array_equal(again.predict(x), y)


def test_files_and_summaries_are_small(rng, tmp_path):
    model = Sequential(LSTM(64, 256, batch_first=True, seed=0), Linear(256, 64, seed=0))
    model.predict(rng.standard_normal((1, 2, 64)))
    small = fastrnn.quantize(model)
    model.save(tmp_path / "whole.safetensors")
    small.save(tmp_path / "small.safetensors")
    sizes = [(tmp_path / f"{n}.safetensors").stat().st_size for n in ("small", "whole")]
    assert sizes[0] < 0.3 * sizes[1]


def test_the_summary_counts_small_weights(rng, capsys):
    small = fastrnn.quantize(chain())
    small.predict(data(rng))
    small.summary()
    shown = capsys.readouterr().out
    n = sum(array.size for array in small.state_dict().values())
    assert f"{n:,} in layers for inference" in shown
    assert f"0 are trainable, {n:,} are not" in shown


def test_layers_are_made_small_by_themselves():
    assert fastrnn.quantize(GRU(3, 4)).quantized == "int8"
    assert fastrnn.quantize(Linear(3, 4), "bfloat16").quantized == "bfloat16"


def test_layers_that_have_no_such_kernels_stay(rng):
    model = Sequential(
        LSTM(3, 8, proj_size=4, batch_first=True, seed=0),
        GRU(4, 4, heads=2, batch_first=True, seed=1),
        LSTM(4, 4, compute="bfloat16", batch_first=True, seed=2),
    )
    small = fastrnn.quantize(model)
    assert [layer.quantized for layer in small] == [None, None, "int8"]
    with pytest.raises(ValueError, match="model must have an RNN, LSTM, GRU or Linear"):
        fastrnn.quantize(Sequential(*list(model)[:2]))
    with pytest.raises(ValueError, match="model must have an RNN, LSTM, GRU or Linear"):
        fastrnn.quantize(fastrnn.quantize(chain()))


class Narrow(Linear):
    """A layer of a user's, with arguments of its own."""

    def __init__(self, n):
        self.n = n
        super().__init__(3, n, seed=0)


def test_classes_that_derive_from_layers_stay(rng):
    model = Sequential(Linear(3, 3, seed=0), Narrow(4))
    assert [layer.quantized for layer in fastrnn.quantize(model)] == ["int8", None]


def test_layers_without_weights_yet_are_refused():
    with pytest.raises(ValueError, match=r"LSTM\.quantize: the input size must be"):
        LSTM(5).quantize()


def test_training_is_refused_before_anything_changes(rng):
    x = data(rng)
    small = fastrnn.quantize(masked())
    y, before = small.predict(x), small.state_dict()
    small.compile("mse", "adam")  # of the layers that stay as they are
    for train in (
        lambda: small.fit(x, y, verbose=0),
        lambda: small.train_on_batch(x, y),
    ):
        with pytest.raises(ValueError, match="must have whole weights, got GRU"):
            train()
    for name, value in small.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    with pytest.raises(ValueError, match="optimizer=None for a model"):
        fastrnn.quantize(chain()).compile("mse")


def test_a_model_without_an_optimizer_is_evaluated_alone(rng):
    model, x = chain(), data(rng)
    model.compile("mse", None)
    assert model.evaluate(x, model.predict(x)) == 0
    with pytest.raises(RuntimeError, match="compiled with an optimizer, got None"):
        model.fit(x, model.predict(x), verbose=0)
    with pytest.raises(ValueError, match="must not be given without one, got lr"):
        model.compile("mse", None, lr=0.1)


@pytest.mark.parametrize(
    ("model", "weights", "error", "match"),
    [
        (3, "int8", TypeError, "model must be a Module, got int"),
        (chain(), "int4", ValueError, "weights must be"),
        (chain(), None, TypeError, "weights must be"),
        (Sequential(LSTM(None, 4)), "int8", ValueError, "input sizes must be known"),
    ],
)
def test_bad_arguments_are_refused(model, weights, error, match):
    with pytest.raises((error, ValueError), match=match):
        fastrnn.quantize(model, weights)


class Own(fastrnn.Model):
    """A class of a user's, which makes its layers itself."""

    def __init__(self, units):
        self.units = units
        self.body = LSTM(3, units, batch_first=True, seed=0)
        self.head = Linear(units, 2, seed=1)

    def forward(self, x):
        return self.head(self.body(x)[0])


def test_models_that_make_their_layers_themselves_are_saved(rng, tmp_path):
    x, tokens = data(rng), rng.integers(0, 12, (3, 5))
    translator = fastrnn.EncoderDecoder(
        LSTM(8, 16, batch_first=True, bidirectional=True, seed=0),
        LSTM(8, 16, batch_first=True, seed=1),
        12,
        11,
        start=1,
        end=2,
        seed=0,
    )
    writer = fastrnn.Generator(12, GRU(16, 32, seed=0), start=1, end=2, seed=0)
    for model, inputs in (
        (Own(9), (x,)),
        (translator, (tokens, tokens % 11)),
        (writer, (tokens,)),
    ):
        small = fastrnn.quantize(model)
        want = small(*inputs)
        want = want[0] if isinstance(want, tuple) else want
        small.save(tmp_path / "small.safetensors")
        loaded = fastrnn.load_model(tmp_path / "small.safetensors", {"Own": Own})
        assert repr(loaded) == repr(small)
        got = loaded.eval()(*inputs)
        got = got[0] if isinstance(got, tuple) else got
        np.testing.assert_array_equal(got, want)
        whole = model.eval()(*inputs)
        whole = whole[0] if isinstance(whole, tuple) else whole
        assert 0 < relative(want, whole) < 2e-2


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        ([["hood", "int8"]], "name layers for inference, got 'hood'"),
        ([["", "int8"]], "name layers for inference, got ''"),
        ([["head", "int4"]], r"quantized\[0\]\[1\] must be"),
        ([["head"]], r"quantized\[0\] must have 2"),
        ({"head": "int8"}, "quantized is of the wrong type"),
        ([], "no larger than what is stored"),
        ([["head", "bfloat16"]], "head.weight must be of type uint16, got int8"),
    ],
)
def test_a_file_that_names_other_layers_is_refused(parts, match, tmp_path):
    path = tmp_path / "small.safetensors"
    fastrnn.quantize(Own(9)).save(path)
    arrays, meta = saving.read("test", path)
    container.write(path, arrays, saving.KIND, meta | {"quantized": parts})
    with pytest.raises(ValueError, match=rf"small\.safetensors: .*{match}"):
        fastrnn.load_model(path, {"Own": Own})
