# SPDX-License-Identifier: BSD-3-Clause
"""Our own files with anything in them: bounds that hold before anything is allocated,
and errors that name the file and act on no terminal."""

import json
import os
import re
import sys

import damaged_files
import numpy as np
import pytest
import safetensors.numpy
from damaged_files import bounded, packed, unpacked

import fastrnn
from fastrnn import _check, _files, _schema, cli, text
from fastrnn._printable import printable
from fastrnn.build import MOST_NESTED
from fastrnn.callbacks import CSVLogger, EarlyStopping, ModelCheckpoint
from fastrnn.charmodel import CharModel
from fastrnn.history import History
from fastrnn.tokenizers import Tokenizer
from fastrnn.vocabulary import CharVocabulary

ESCAPE = "\x1b]0;owned\x07\x9b2J\u202e"


def refused(path, message, read=fastrnn.load_model):
    """Reading must fail with the path and the message, and take little memory."""
    with bounded(path), pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert printable(str(caught.value)) == str(caught.value)
    return str(caught.value)


@pytest.fixture
def model_file(tmp_path):
    """A saved model's path, and a function that changes what the file says."""
    path = tmp_path / "model"
    damaged_files.small_model().save(path)

    def change(**rest):
        arrays, key, meta = unpacked(path)
        packed(path, arrays, key, meta | rest)

    return path, change


@pytest.fixture
def checkpoint_file(tmp_path):
    path = tmp_path / "run.safetensors"
    damaged_files.write_checkpoint(path)

    def change(edit):
        arrays, key, meta = unpacked(path)
        edit(meta)
        packed(path, arrays, key, meta)

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
        (layer("RNN", input_size=1, hidden_size=10**400), "more than 10\\*\\*24"),
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
    with pytest.raises(
        ValueError, match=f"nested at most {MOST_NESTED} deep to be sav"
    ):
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
        _check.real_in("f", "x", 10**400, "(0, inf)")


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


# -- runs that go on -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {"history": {"epoch": [0], "history": {"loss": []}}},
            "a figure of each epoch",
        ),
        ({"history": {"epoch": [3], "history": {}}}, "history.epoch must be 0, 1, ..."),
        (
            {"history": {"epoch": [0], "history": {"loss": [10**400]}}},
            "a float can hold",
        ),
        ({"seed": -1}, r"run.seed must be in \[0, inf\], got -1"),
        ({"seed": None}, "run.seed is of the wrong type, NoneType"),
        ({"generators": [{"training": {}}]}, "is shorter|longer|generators must be"),
        ({"callbacks": []}, "callbacks must be"),
        ({"options": {ESCAPE: 1}}, "the run's options must be"),
    ],
)
def test_runs_of_another_form(tmp_path, part, message):
    path = tmp_path / "run"
    damaged_files.fitted(path, seed=1)
    arrays, key, meta = unpacked(path)
    packed(path, arrays, key, meta | {"run": meta["run"] | part})
    with pytest.raises(ValueError, match=message) as caught:
        damaged_files.fitted(path, epochs=2, resume=path)
    assert str(path) in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_file_sets_no_attribute_of_a_callback_but_its_state(tmp_path):
    path, other = tmp_path / "run", tmp_path / "other"
    damaged_files.fitted(path, seed=1)
    arrays, key, meta = unpacked(path)
    meta["run"]["callbacks"][0][1]["path"] = str(other)
    packed(path, arrays, key, meta)
    with pytest.raises(
        ValueError, match="ModelCheckpoint: a checkpoint must have best"
    ):
        damaged_files.fitted(path, epochs=2, resume=path)
    assert not other.exists()


def test_states_of_callbacks_are_checked():
    early, model = EarlyStopping(), fastrnn.Linear(2, 1, seed=0)
    early.model = model
    state = early.state() | {"best_weights": np.zeros(1, "f")}
    with pytest.raises(ValueError, match="best_weights must be float32 of shape"):
        early.load_state(state)
    with pytest.raises(
        ValueError, match=r"EarlyStopping\.wait is of the wrong type, str"
    ):
        early.load_state(early.state() | {"wait": "2"})
    with pytest.raises(ValueError, match=r"ModelCheckpoint\.best is missing"):
        ModelCheckpoint("x").load_state({})
    early.load_state(early.state() | {"wait": 2})
    assert early.wait == 2


def test_a_log_that_is_no_table(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b"epoch,\xff\n")
    model = damaged_files.small_model()
    x = np.zeros((9, 6), int)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: must be a CSV file"):
        model.fit(x, x[:, 0], callbacks=[CSVLogger(path, append=True)], verbose=0)


# -- checkpoints and the command line --------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (
            "model.hidden_size",
            20_000,
            "the model must be no larger than what is stored",
        ),
        ("model.num_layers", 10**7, "a layer must have at most 1,000,000 arrays"),
        ("model.num_layers", 2**63, "model.num_layers must be in "),
        ("model.embedding_dim", 10**400, "must be in .*one of more than 63 bits"),
        ("settings.lr", 10**400, "settings.lr must be a number that a float can hold"),
        ("settings.epochs", 0, r"settings.epochs must be in \[1, "),
        (
            "progress.evaluations",
            [["a", 1, 2]],
            r"progress.evaluations\[0\]\[0\] is of",
        ),
        (
            "progress.evaluations",
            [3],
            r"progress.evaluations\[0\] is of the wrong type",
        ),
        (
            "progress.loss_sum",
            float("nan"),
            "progress.loss_sum must be finite, got nan",
        ),
        ("model.cell", ESCAPE, r"cell must be one of 'lstm', .*got '\\x1b"),
    ],
)
def test_checkpoints_of_another_form(
    checkpoint_file, capsys, monkeypatch, place, value, message
):
    path, change = checkpoint_file

    def edit(meta):
        *above, last = place.split(".")
        for key in above:
            meta = meta[key]
        meta[last] = value

    change(edit)
    refused(path, message, fastrnn.checkpoint.load_model)
    for command in (["info"], ["generate"], ["train", "--resume", "--out"]):
        assert cli.main([*command, str(path)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"fastrnn: error: {path}: ")
        assert err.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="asks for Linux's devices")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/dev/zero", "/dev/zero: must be a regular file, got a device"),
        ("pipe", "pipe: must be a regular file, got a pipe"),
        (".", "Is a directory"),
        ("large", "large: must have at most 6,003 bytes, got 1,099,511,627,776"),
        ("/proc/self/environ", "must stay as it is while it is read"),
    ],
)
def test_a_text_that_a_checkpoint_names(
    checkpoint_file, tmp_path, monkeypatch, capsys, source, message
):
    path, change = checkpoint_file
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with open("large", "wb") as file:
        file.truncate(2**40)  # with nothing in it
    change(lambda meta: meta["text"].update(source=source))
    assert cli.main(["train", "--resume", "--out", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_a_user_s_pipe_is_read(tmp_path):
    """As a shell gives one: ``--text <(zcat book.gz)``."""
    read, write = os.pipe()
    os.write(write, b"to be")
    os.close(write)
    assert text.read_text(f"/dev/fd/{read}") == "to be"
    os.close(read)


@pytest.mark.parametrize(
    "read",
    [
        fastrnn.load_model,
        fastrnn.checkpoint.load_model,
        fastrnn.Linear(1, 1, seed=0).load,
        fastrnn.Vocabulary.load,
        Tokenizer.load,
    ],
)
def test_only_regular_files_are_read(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: must be a regular file, got a pipe"):
        read(tmp_path / "pipe")
    with pytest.raises(
        ValueError, match="/dev/zero: must be a regular file, got a dev"
    ):
        read("/dev/zero")
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


# -- text from files on a terminal -----------------------------------------------------


def test_printable():
    assert printable("Größe ☃ \u00a0\u3000") == "Größe ☃ \u00a0\u3000"
    assert printable("a\nb\tc", keep="\n") == "a\nb\\tc"
    assert printable(ESCAPE) == r"\x1b]0;owned\x07\x9b2J\u202e"
    assert printable("\ud800\u2028\u2066\x7f\r") == r"\ud800\u2028\u2066\x7f\r"


def test_info_and_generate_write_nothing_that_acts(checkpoint_file, capsys):
    path, change = checkpoint_file
    n = len(unpacked(path)[2]["vocabulary"])
    # Every character that the model can write acts on a terminal.
    characters = "".join(map(chr, [*range(1, 9), 11, 12, *range(14, 32)]))
    characters += "".join(map(chr, range(0x7F, 0x7F + n - len(characters))))
    assert len(characters) == n

    def edit(meta):
        meta["vocabulary"] = characters
        meta["text"]["source"] = f"book{ESCAPE}\n"

    change(edit)
    assert cli.main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert r"book\x1b]0;owned\x07\x9b2J\u202e\n, 1,500 characters" in out
    assert cli.main(["generate", str(path), "--length", "200", "--seed", "0"]) == 0
    written = capsys.readouterr().out
    assert printable(written, keep="\n") == written
    # From Python the text comes as it is.
    model = fastrnn.checkpoint.load_model(path)
    assert "".join(model.generate(length=200, temperature=0.8, seed=0)) != written


def test_a_sample_in_training_writes_nothing_that_acts(capsys):
    from types import SimpleNamespace

    from fastrnn.progress import Reporter

    trainer = SimpleNamespace(
        settings=SimpleNamespace(epochs=1),
        batches=SimpleNamespace(n_characters=1),
        characters_done=0,
    )
    found = SimpleNamespace(
        epoch=1.0, held_out_bits=1.0, train_bits=1.0, sample=f"a{ESCAPE}\nb"
    )
    reporter = Reporter(trainer)
    reporter.evaluation(trainer, found)
    reporter.close()
    out = capsys.readouterr().out
    assert "    | a\\x1b]0;owned\\x07\\x9b2J\\u202e\n    | b\n" in out


# -- the parts -------------------------------------------------------------------------


def test_reading_lets_errors_that_name_the_file_pass_and_wraps_the_others():
    with (
        pytest.raises(ValueError, match=r"^f: x: must be a$"),
        _files.reading("f: x", "b"),
    ):
        raise ValueError("f: x: must be a")
    with (
        pytest.raises(ValueError, match=r"^f: x: a$") as caught,
        _files.reading("f: x", "b"),
    ):
        raise ValueError("a")
    assert str(caught.value.__cause__) == "a"
    with (
        pytest.raises(ValueError, match=r"^f: x: must be b, got .* make: KeyError: 1$"),
        _files.reading("f: x", "b"),
    ):
        raise KeyError(1)
    with pytest.raises(MemoryError), _files.reading("f: x", "b"):
        raise MemoryError
    with (
        pytest.raises(ValueError, match=r"^f: x: a+ \.\.\.$"),
        _files.reading("f: x", "b"),
    ):
        raise ValueError("a" * 10**6)


def test_schema():
    rule = {"a": _schema.list_of(_schema.row_of(_schema.integer(1, 3), bool))}
    _schema.check({"a": [[1, True]], "b": None}, rule)
    for value, message in (
        ({"a": [[True, True]]}, r"^a\[0\]\[0\] is of the wrong type, bool$"),
        ({"a": [[4, True]]}, r"^a\[0\]\[0\] must be in \[1, 3\], got 4$"),
        ({"a": [[1, 1]]}, r"^a\[0\]\[1\] is of the wrong type, int$"),
        ({}, "^a is missing$"),
        ([], "^its description is of the wrong type, list$"),
    ):
        with pytest.raises(ValueError, match=message):
            _schema.check(value, rule)


def test_a_character_model_s_vocabulary_is_as_long_as_its_table(checkpoint_file):
    path, change = checkpoint_file
    change(lambda meta: meta.update(vocabulary="".join(map(chr, range(10**6)))))
    with pytest.raises(ValueError, match="no larger than what is stored"):
        fastrnn.checkpoint.load_model(path)
    assert len(CharModel(CharVocabulary("ab"), seed=0).vocabulary) == 3
