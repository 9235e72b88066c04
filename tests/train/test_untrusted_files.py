# SPDX-License-Identifier: BSD-3-Clause
"""Our own files with anything in them: bounds that hold before anything is allocated,
and errors that name the file and act on no terminal."""

import json
import os

import damaged_files
import numpy as np
import pytest
import safetensors.numpy
from damaged_files import ESCAPE, bounded, packed, refused, unpacked

import fastrnn
from fastrnn.nn.describe import MOST_NESTED
from fastrnn.text.tokenizers import Tokenizer
from fastrnn.train.history import History
from fastrnn.util import checks, files, schema


@pytest.fixture
def model_file(tmp_path):
    """A saved model's path, and a function that changes what the file says."""
    path = tmp_path / "model"
    damaged_files.small_model().save(path)

    def change(**rest):
        arrays, key, meta = unpacked(path)
        packed(path, arrays, key, meta | rest)

    return path, change


def layer(name, **arguments):
    return {"class": name, "arguments": arguments}


def nested(depth, inner):
    for _ in range(depth):
        inner = layer("Sequential", layers=[inner])
    return inner


def shared(levels):
    """2 ** levels ways to one layer."""
    found = layer("Dropout", p=0.5)
    for level in range(levels):
        found = layer("Sequential", layers=[found, {"again": levels - level}])
    return found


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (layer("Linear", in_features=20_000, out_features=20_000), "no larger than"),
        (layer("LSTM", input_size=4, hidden_size=20_000), "no larger than what is sto"),
        (
            layer("GRU", input_size=1, hidden_size=1, num_layers=10**7),
            "at most 1,000,0",
        ),
        (layer("GRU", input_size=1, hidden_size=1, num_layers=10**5), "no larger than"),
        (layer("RNN", input_size=1, hidden_size=10**400), "more than 10\\*\\*30"),
        (layer("Embedding", num_embeddings=10**9, embedding_dim=9), "no larger than"),
        (layer("LayerNorm", normalized_shape=[10**4, 10**5]), "no larger than what is"),
        (layer("CRF", num_tags=40_000), "no larger than what is stored"),
        (layer("Dropout", p=10**400), "must be a number in"),
        ({"class": "Dropout", "arguments": None}, "described by class and arguments"),
        ({"class": ["Dropout"], "arguments": {}}, "described by class and arguments"),
        (layer("Sequential", layers=3), "layers must be a list"),
        (layer("Sequential", layers=[{"again": 0.0}]), "described before its use"),
        (nested(300, layer("Dropout", p=0.5)), f"nested at most {MOST_NESTED} deep"),
        (shared(28), "use its layers at most 100,000 times"),
    ],
)
def test_models_that_a_file_cannot_have(model_file, model, message):
    path, change = model_file
    change(model=nested(1, model) if model["class"] != "Sequential" else model)
    refused(path, message)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"model": None}, "model is of the wrong type, NoneType"),
        ({"model": layer("Linear", in_features=1, out_features=1)}, "must be a Model"),
        ({"seen": [[[10**6, 10**6], "float32"]]}, "seen must have at most 67,108,864"),
        ({"seen": [[[2**63], "float32"]]}, r"seen\[0\]\[0\]\[0\] must be in \[0, "),
        ({"seen": [[[1, -1], "float32"]]}, r"seen\[0\]\[0\]\[1\] must be in \[0, "),
        ({"seen": [[[2], "O"]]}, r"seen\[0\]\[1\] must be a type of numbers, got 'O'"),
        ({"seen": [[]]}, r"seen\[0\] must have 2, got 0"),
        ({"seen": 7}, "seen is of the wrong type, int"),
        ({"compiled": {"loss": "mse"}}, "compiled.loss_options is missing"),
        ({"compiled": []}, "compiled is of the wrong type, list"),
        ({"run": 1}, "run is of the wrong type, int"),
    ],
)
def test_descriptions_of_another_form(model_file, part, message):
    path, change = model_file
    change(**part)
    refused(path, message)


def test_what_a_compiled_model_was_compiled_with(model_file):
    path, change = model_file
    compiled = unpacked(path)[2]["compiled"]
    for part, message in (
        ({"loss": ESCAPE}, "compiled.loss must be "),
        ({"options": {"lr": 10**400}}, "lr must be a number"),
        ({"options": {"model": 1}}, "model"),
        ({"optimizer": "none"}, "optimizer must be one of"),
    ):
        change(compiled=compiled | part)
        refused(path, message)


def test_a_sample_that_was_seen_is_not_allocated(model_file):
    path, change = model_file
    change(seen=[[[1, 2**26], "int64"]])
    with bounded(path):
        model = fastrnn.load_model(path)
    assert model._seen[0].shape == (1, 2**26)


def test_models_nested_as_deep_as_can_be_read_are_saved_and_no_deeper(tmp_path):
    model = fastrnn.Dropout(0.5)
    for _ in range(MOST_NESTED - 1):
        model = fastrnn.Sequential(model)
    model.save(tmp_path / "deep")
    assert fastrnn.load_model(tmp_path / "deep")[0][0][0] is not None
    with pytest.raises(ValueError, match=f"nested at most {MOST_NESTED} deep to be"):
        fastrnn.Sequential(model).save(tmp_path / "deeper")
    assert os.listdir(tmp_path) == ["deep"]


def test_layers_of_a_plain_call_have_bounds_too():
    with pytest.raises(
        ValueError, match="LSTM: a layer must have at most 1,000,000 arr"
    ):
        fastrnn.LSTM(1, 1, num_layers=10**9)
    with pytest.raises(
        ValueError, match="RNN: a layer must have at most 1,000,000,000"
    ):
        fastrnn.RNN(10**400, 1)
    with pytest.raises(
        ValueError, match=r"f: x must be a number in \(0, inf\), got 1000"
    ):
        checks.real_in("f", "x", 10**400, "(0, inf)")


class Wide(fastrnn.Model):
    """A model of a user's, with a size that it does not know."""

    def __init__(self, units):
        self.units = units
        self.norm = fastrnn.LayerNorm(None)
        self.cell = fastrnn.LSTM(None, units, seed=0, return_sequences=False)

    def forward(self, x):
        return self.cell(self.norm(x))[0]

    def backward(self, dy):
        return self.norm.backward(self.cell.backward(dy)[0])


def test_sizes_that_a_model_does_not_know_come_from_its_weights(tmp_path):
    model, x = Wide(3), np.ones((2, 5, 4))
    y = model.predict(x)
    model.save(tmp_path / "m")
    arrays, key, meta = unpacked(tmp_path / "m")
    packed(tmp_path / "m", arrays, key, meta | {"seen": []})
    again = fastrnn.load_model(tmp_path / "m", {"Wide": Wide})
    np.testing.assert_array_equal(again.predict(x), y)
    arrays["cell.other"] = arrays.pop("cell.weight_ih_l0")
    packed(tmp_path / "m", arrays, key, meta)
    refused(
        tmp_path / "m",
        "the parameter cell.weight_ih_l0 must be a stored array",
        lambda path: fastrnn.load_model(path, {"Wide": Wide}),
    )


@pytest.mark.parametrize(
    "read",
    [
        fastrnn.load_model,
        fastrnn.text.checkpoint.load_model,
        fastrnn.Linear(1, 1, seed=0).load,
        fastrnn.Vocabulary.load,
        Tokenizer.load,
    ],
)
def test_only_regular_files_are_read(tmp_path, read):
    with pytest.raises(
        ValueError, match="/dev/null: must be a regular file, got a dev"
    ):
        read("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: must be a regular file, got a pipe"):
        read(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")


# -- other files -----------------------------------------------------------------------

VOCABULARY = {"tokens": ["a"], "specials": ["<unk>"], "unknown": "<unk>"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("1" * 5000, "Exceeds the limit"),
        ("[]", "of the wrong type, list"),
        ({"vocabulary": None}, "vocabulary is of the wrong type, NoneType"),
        ({"vocabulary": VOCABULARY | {"tokens": "abc"}}, "tokens is of the wrong type"),
        ({"vocabulary": VOCABULARY | {"tokens": [[]]}}, r"tokens\[0\] is of the wrong"),
        ({"vocabulary": VOCABULARY | {"unknown": {}}}, "unknown is of the wrong type"),
        ({"vocabulary": VOCABULARY | {"unknown": ESCAPE}}, "unknown must be one of"),
        ({"vocabulary": VOCABULARY | {"tokens": [ESCAPE, ESCAPE]}}, "more than once"),
    ],
)
def test_vocabularies_of_another_form(tmp_path, data, message):
    path = tmp_path / "words.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    refused(path, message, fastrnn.Vocabulary.load)
    refused(path, "must be a tokeniser's file", Tokenizer.load)


def test_tokenisers_of_another_form(tmp_path):
    path = tmp_path / "words.json"
    whole = {"tokenizer": "word", "lower": True, "specials": ["<unk>"]}
    whole["vocabulary"] = VOCABULARY
    for part, message in (
        ({"tokenizer": []}, "tokenizer is of the wrong type, list"),
        ({"tokenizer": ESCAPE}, "tokenizer must be char or word"),
        ({"lower": 1}, "lower is of the wrong type, int"),
        ({"specials": ["<pad>"]}, "specials must be those of the vocabulary"),
        ({"vocabulary": 3}, "vocabulary is of the wrong type, int"),
    ):
        path.write_text(json.dumps(whole | part))
        refused(path, message, Tokenizer.load)
    path.write_text(json.dumps(whole))
    assert Tokenizer.load(path).encode("a b").tolist() == [1, 0]


def test_figures_of_another_form():
    good = {"epoch": [0, 1], "history": {"loss": [2.0, 1.0], "val_loss": [1.0]}}
    assert History.from_json(good).last == {"loss": 1.0, "val_loss": 1.0}
    for bad in (None, [], {"epoch": [0]}, good | {"epoch": [0, True]}):
        with pytest.raises(ValueError, match="history"):
            History.from_json(bad)


def test_a_description_nested_too_deeply_in_a_whole_file(tmp_path):
    path = tmp_path / "m"
    metadata = {"fastrnn-model": "[" * 10**6}
    path.write_bytes(safetensors.numpy.save({"x": np.zeros(2)}, metadata))
    refused(path, "damaged: its description is not JSON")


# -- the parts -------------------------------------------------------------------------


def test_reading_lets_errors_that_name_the_file_pass_and_wraps_the_others():
    with (
        pytest.raises(ValueError, match=r"^f: x: must be a$"),
        files.reading("f: x", "b"),
    ):
        raise ValueError("f: x: must be a")
    with (
        pytest.raises(ValueError, match=r"^f: x: a$") as caught,
        files.reading("f: x", "b"),
    ):
        raise ValueError("a")
    assert str(caught.value.__cause__) == "a"
    with (
        pytest.raises(ValueError, match=r"^f: x: must be b, got .* make: KeyError: 1$"),
        files.reading("f: x", "b"),
    ):
        raise KeyError(1)
    with pytest.raises(MemoryError), files.reading("f: x", "b"):
        raise MemoryError
    with (
        pytest.raises(ValueError, match=r"^f: x: a+ \.\.\.$"),
        files.reading("f: x", "b"),
    ):
        raise ValueError("a" * 10**6)


def test_schema():
    rule = {"a": schema.list_of(schema.row_of(schema.integer(1, 3), bool))}
    schema.check({"a": [[1, True]], "b": None}, rule)
    for value, message in (
        ({"a": [[True, True]]}, r"^a\[0\]\[0\] is of the wrong type, bool$"),
        ({"a": [[4, True]]}, r"^a\[0\]\[0\] must be in \[1, 3\], got 4$"),
        ({"a": [[1, 1]]}, r"^a\[0\]\[1\] is of the wrong type, int$"),
        ({}, "^a is missing$"),
        ([], "^its description is of the wrong type, list$"),
    ):
        with pytest.raises(ValueError, match=message):
            schema.check(value, rule)
