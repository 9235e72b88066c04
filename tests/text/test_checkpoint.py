# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints: whole or not there, exact, and refused when they are not ours."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import safetensors.numpy

import fastrnn
from fastrnn.text import checkpoint, default_text, training
from fastrnn.text.model import CELLS
from fastrnn.text.settings import Settings
from fastrnn.text.training import Trainer, train

TEXT = default_text()[:6000]
SETTINGS = Settings(batch_size=5, seq_length=17, epochs=3, seed=7)
SHAPE = {"embedding_dim": 8, "hidden_size": 12}


class Silent:
    """A reporter that keeps what it is told, and interrupts where it is asked to."""

    def __init__(self, interrupt_at=None):
        self.interrupt_at = interrupt_at
        self.evaluations = []

    def window(self, trainer, n_characters):
        if trainer.step == self.interrupt_at:
            raise KeyboardInterrupt

    def evaluation(self, trainer, found):
        self.evaluations.append(found)


def resumed(path, **rest):
    return Trainer.resume(path, checkpoint.read(path), TEXT, **rest)


@pytest.fixture
def trained(tmp_path):
    """The checkpoint of a run that ends in the middle of an epoch."""
    path = tmp_path / "run.safetensors"
    trainer = Trainer.start(TEXT, SETTINGS, num_layers=2, **SHAPE)
    for _ in range(5):
        trainer.train_window()
    trainer.save(path)
    return path


@pytest.fixture(autouse=True)
def _short_samples(monkeypatch):
    monkeypatch.setattr(training, "SAMPLE_LENGTH", 20)


@pytest.mark.parametrize("cell", CELLS)
def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch, cell):
    """Stopped after the first window, within an epoch, and round an epoch's end."""
    whole = tmp_path / "whole"
    unbroken = Silent()
    trainer = Trainer.start(TEXT, SETTINGS, cell=cell, **SHAPE)
    assert len(trainer.batches) == 64
    train(trainer, whole, unbroken)
    assert len(unbroken.evaluations) == 4

    for stop in (1, 64, 65, 150):
        broken = tmp_path / str(stop)
        first, second = Silent(interrupt_at=stop), Silent()
        trainer = Trainer.start(TEXT, SETTINGS, cell=cell, **SHAPE)
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
        with pytest.raises(KeyboardInterrupt):
            train(trainer, broken, first)
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 5)
        again = resumed(broken)
        assert again.step == stop - 1
        train(again, broken, second)
        assert broken.read_bytes() == whole.read_bytes()
        assert first.evaluations + second.evaluations == unbroken.evaluations


def test_the_run_depends_on_its_seed(tmp_path):
    ends = set()
    for seed in (0, 0, 1):
        settings = Settings(batch_size=5, seq_length=17, epochs=1, seed=seed)
        trainer = Trainer.start(TEXT, settings, **SHAPE)
        train(trainer, tmp_path / "run", Silent())
        ends.add((tmp_path / "run").read_bytes())
    assert len(ends) == 2


def test_any_number_of_threads_gives_the_same_file(tmp_path):
    files = set()
    before = fastrnn.get_num_threads()
    for n in (1, 2, 3):
        fastrnn.set_num_threads(n)
        settings = Settings(batch_size=24, seq_length=20, epochs=1)
        train(Trainer.start(TEXT, settings, hidden_size=70), tmp_path / "run", Silent())
        files.add((tmp_path / "run").read_bytes())
    fastrnn.set_num_threads(before)
    assert len(files) == 1


def test_epochs_can_be_added(tmp_path):
    path = tmp_path / "run"
    settings = Settings(batch_size=5, seq_length=17, epochs=1)
    train(Trainer.start(TEXT, settings, **SHAPE), path, Silent())
    trainer = resumed(path, epochs=2)
    assert (trainer.step, trainer.total_steps) == (64, 128)
    train(trainer, path, Silent())
    assert resumed(path).step == 128
    with pytest.raises(
        ValueError,
        match=re.escape(
            f"{path}: epochs must be at least the 2.0 that it has been trained for, "
            "got 1"
        ),
    ):
        resumed(path, epochs=1)


def test_learning_falls_below_the_frequencies_of_characters(tmp_path):
    settings = Settings(batch_size=8, seq_length=25, epochs=8, lr=1e-2)
    silent = Silent()
    train(Trainer.start(TEXT, settings, hidden_size=40), tmp_path / "run", silent)
    counts = np.array([TEXT.count(c) for c in set(TEXT)]) / len(TEXT)
    entropy = -(counts * np.log2(counts)).sum()
    assert silent.evaluations[-1].held_out_bits < entropy - 0.8
    assert silent.evaluations[-1].train_bits < entropy - 1.2


def test_a_run_that_diverges_stops_and_keeps_its_checkpoint(tmp_path):
    path = tmp_path / "run"
    trainer = Trainer.start(TEXT, SETTINGS, **SHAPE)
    trainer.model.parameters["head.bias"][2] = np.inf
    before = trainer.model.flat_parameters.copy()
    with pytest.raises(
        FloatingPointError,
        match=r"^training diverged in window 1 of 192: loss nan, gradient norm nan; "
        r"lower the learning rate \(0.004\)$",
    ):
        train(trainer, path, Silent())
    assert np.array_equal(trainer.model.flat_parameters, before)
    assert checkpoint.read(path)[1]["progress"]["step"] == 0


def test_what_is_written_is_read_back(trained):
    arrays, meta = checkpoint.read(trained)
    again = trained.with_name("again")
    checkpoint.write(again, arrays, meta)
    assert again.read_bytes() == trained.read_bytes()
    model = checkpoint.load_model(trained)
    assert not model.training
    for name, view in model.parameters.items():
        assert np.array_equal(view, arrays[f"model.{name}"])


def test_a_write_that_fails_leaves_the_file_and_no_other(trained, monkeypatch):
    before = trained.read_bytes()
    trainer = resumed(trained)
    trainer.train_window()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        trainer.save(trained)
    assert caught.value.filename == str(trained)
    assert trained.read_bytes() == before
    assert os.listdir(trained.parent) == [trained.name]


CHILD = """
import sys
from fastrnn.text import cli, training
training.CHECKPOINT_SECONDS, training.SAMPLE_LENGTH = 0, 20
sys.exit(cli.main(sys.argv[1:]))
"""


def step_in(path):
    """Where the checkpoint stands; reading it is the test that it is whole."""
    return checkpoint.read(path)[1]["progress"]["step"] if path.exists() else -1


def test_a_killed_run_leaves_a_whole_file_and_resumes_exactly(tmp_path):
    (tmp_path / "text").write_text(TEXT, encoding="utf-8")
    options = ["--text", "text", "--epochs", "4", "--hidden-size", "24"]
    options += ["--batch-size", "5", "--seq-length", "17", "--threads", "1"]

    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, "train", *arguments],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
        )

    assert start(*options, "--out", "whole").wait(60) == 0
    broken = tmp_path / "broken"
    options += ["--out", "broken"]
    stops = []
    for least in (3, 70, 150):
        child = start(*options)
        options = ["--resume", "--out", "broken"]
        deadline = time.monotonic() + 30
        while step_in(broken) < least and time.monotonic() < deadline:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL
        stops.append(step_in(broken))
    assert [k for k, step in zip((3, 70, 150), stops, strict=True) if step < k] == []
    assert stops[-1] < 4 * 64
    assert start(*options).wait(60) == 0
    assert broken.read_bytes() == (tmp_path / "whole").read_bytes()


def test_every_truncation_is_refused(trained):
    data = trained.read_bytes()
    for length in [*range(0, 4000, 37), *range(4000, len(data), 997), len(data) - 1]:
        trained.write_bytes(data[:length])
        with pytest.raises(ValueError, match=f"^{re.escape(str(trained))}: "):
            checkpoint.read(trained)


def test_every_flipped_bit_is_noticed(trained):
    data = bytearray(trained.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    # Spaces at the end of the header only fill it up to a multiple of eight bytes.
    used = len(bytes(data[:header]).rstrip(b" "))
    for at in [*range(0, used, 11), *range(header, len(data), 501)]:
        data[at] ^= 1 << at % 8
        trained.write_bytes(data)
        with pytest.raises(ValueError, match=f"^{re.escape(str(trained))}: "):
            checkpoint.load_model(trained)
        data[at] ^= 1 << at % 8


def test_files_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"hello world, this is no checkpoint")
    with pytest.raises(
        ValueError,
        match=f"^{re.escape(str(path))}: must be a checkpoint of fastrnn train, got a "
        r"file that is damaged or of another kind \(",
    ):
        checkpoint.read(path)
    for metadata in (None, {"format": "pt"}):
        path.write_bytes(safetensors.numpy.save({"x": np.zeros(2)}, metadata))
        with pytest.raises(
            ValueError,
            match=f"^{re.escape(str(path))}: must be a checkpoint of fastrnn train, "
            "got a safetensors file of something else$",
        ):
            checkpoint.read(path)
    with pytest.raises(FileNotFoundError):
        checkpoint.read(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged: its description is not JSON"),
        ("[" * 100_000, "damaged: its description is not JSON"),
        ("[]", "must be a checkpoint of version 1, got None"),
        ('{"version": 2}', "must be a checkpoint of version 1, got 2"),
        ('{"version": 1}', "damaged: its checksum is not that of its contents"),
    ],
)
def test_descriptions_that_are_not_ours(tmp_path, text, message):
    path = tmp_path / "file"
    metadata = {"fastrnn-charmodel": text}
    path.write_bytes(safetensors.numpy.save({"x": np.zeros(2)}, metadata))
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {message}')}$"):
        checkpoint.read(path)


def changed(path, change):
    """Rewrite a checkpoint, checksum included, after `change(arrays, meta)`."""
    arrays, meta = checkpoint.read(path)
    arrays = dict(arrays)
    change(arrays, meta)
    checkpoint.write(path, arrays, meta)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, m: m.pop("rng"), "damaged: rng is missing"),
        (
            lambda a, m: m["model"].update(hidden_size="12"),
            "damaged: model.hidden_size is of the wrong type, str",
        ),
        (
            lambda a, m: m["progress"].pop("step"),
            "damaged: progress.step is missing",
        ),
        (
            lambda a, m: m["settings"].update(epochs=True),
            "damaged: settings.epochs is of the wrong type, bool",
        ),
        (lambda a, m: m.update(text=[]), "damaged: text is of the wrong type, list"),
        (
            lambda a, m: m["model"].update(hidden_size=13),
            "damaged or of another architecture: Linear: the model must be no larger "
            "than what is stored, ",
        ),
        (
            lambda a, m: m["model"].update(cell="gru"),
            "damaged or of another architecture: CharModel.load_state_dict: ",
        ),
        (
            lambda a, m: m["model"].update(cell="elman"),
            "damaged or of another architecture: CharModel: cell must be one of ",
        ),
        (
            lambda a, m: m.update(vocabulary="aa"),
            "damaged or of another architecture: CharVocabulary: characters must be ",
        ),
        (
            lambda a, m: a.pop("optimizer.step"),
            "damaged: Adam.load_state_dict: ",
        ),
        (
            lambda a, m: a.update({"state.c": np.zeros((2, 5, 13), "f")}),
            "damaged: state must be h and c of shape (2, 5, 12), got ",
        ),
        (lambda a, m: m.update(rng={}), "damaged: "),
        (
            lambda a, m: m["settings"].update(lr=-1),
            "damaged: Settings: lr must be a number in (0, inf), got -1",
        ),
        (
            lambda a, m: m["text"].update(sha256="", characters=9),
            "must be resumed on the text it was trained on (9 characters), got another "
            "(6000 characters)",
        ),
        (
            lambda a, m: m["progress"].update(step=10**6),
            "epochs must be at least the 15625.0 that it has been trained for, got 3",
        ),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(trained, change, message):
    changed(trained, change)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{trained}: {message}')}"):
        resumed(trained)


def test_the_checksum_is_crc_32(trained):
    """Written out once more, so that other programs can be told what it is."""
    arrays, meta = checkpoint.read(trained)
    value = zlib.crc32(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(arrays):
        head = f"{name} {arrays[name].dtype} {arrays[name].shape}".encode()
        value = zlib.crc32(arrays[name].tobytes(), zlib.crc32(head, value))
    data = trained.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["fastrnn-charmodel"])["checksum"] == value
