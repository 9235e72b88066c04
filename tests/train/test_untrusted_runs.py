# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints with anything in them: runs that go on from one, the command line, and
what it shows."""

import os
import re
import sys

import damaged_files
import numpy as np
import pytest
from damaged_files import ESCAPE, packed, refused, unpacked

import fastrnn
from fastrnn import text
from fastrnn.callbacks import CSVLogger, EarlyStopping, ModelCheckpoint
from fastrnn.text import cli
from fastrnn.text.model import CharModel
from fastrnn.text.vocabulary import CharVocabulary
from fastrnn.util.printable import printable


@pytest.fixture
def checkpoint_file(tmp_path):
    path = tmp_path / "run.safetensors"
    damaged_files.write_checkpoint(path)

    def change(edit):
        arrays, key, meta = unpacked(path)
        edit(meta)
        packed(path, arrays, key, meta)

    return path, change


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
    refused(path, message, fastrnn.text.checkpoint.load_model)
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


def test_a_character_model_s_vocabulary_is_as_long_as_its_table(checkpoint_file):
    path, change = checkpoint_file
    change(lambda meta: meta.update(vocabulary="".join(map(chr, range(10**6)))))
    with pytest.raises(ValueError, match="no larger than what is stored"):
        fastrnn.text.checkpoint.load_model(path)
    assert len(CharModel(CharVocabulary("ab"), seed=0).vocabulary) == 3


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
    model = fastrnn.text.checkpoint.load_model(path)
    assert "".join(model.generate(length=200, temperature=0.8, seed=0)) != written


def test_a_sample_in_training_writes_nothing_that_acts(capsys):
    from types import SimpleNamespace

    from fastrnn.train.progress import Reporter

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
