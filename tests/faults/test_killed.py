# SPDX-License-Identifier: BSD-3-Clause
"""Runs killed at any moment, disks that are full, several writers of one file.

FASTRNN_KILLS=300 kills each kind of run so often. FASTRNN_SMALL_DISK=/mnt/small names a
folder on a file system of a few megabytes, which the tests then fill.
"""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import damaged_files
import kills
import numpy as np
import pytest

import fastrnn
from fastrnn.text import checkpoint
from fastrnn.text.training import Trainer
from fastrnn.util.writing import append_whole, write_atomically

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")

KILLS = int(os.environ.get("FASTRNN_KILLS", "6"))


@pytest.mark.parametrize("program", kills.PROGRAMS)
def test_a_killed_run_goes_on_with_the_same_bytes(program, tried):
    done = subprocess.run(
        [sys.executable, kills.__file__, program, "--moments", str(KILLS)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{program}: killed {KILLS} times in ")
    tried(KILLS, f"moments at which a run of {program} was killed")


# -- full disks ------------------------------------------------------------------------

# What writes a file in one step, by name.
WRITERS = {
    "model": damaged_files.write_model,
    "parameters": damaged_files.write_parameters,
    "checkpoint": damaged_files.write_checkpoint,
    "vocabulary": damaged_files.write_vocabulary,
    "tokenizer": damaged_files.write_tokenizer,
}

# Files may have no more than so many bytes: to a program, as if the disk were full.
LIMITED = """
import os, resource, sys
sys.path[:0] = sys.argv[1:3]
import test_killed
resource.setrlimit(resource.RLIMIT_FSIZE, (40, resource.RLIM_INFINITY))
test_killed.fails_on_a_full_disk(sys.argv[3])
"""


def fails_on_a_full_disk(folder):
    """Everything that writes a file, where there is no room; files are as they were."""
    folder = Path(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name, write in WRITERS.items():
        for path in (folder / name, folder / f"new {name}"):
            refused(path, lambda write=write, path=path: write(path))
    trainer_goes_on(folder)
    fit_is_resumed(folder)
    log = folder / "log.csv"
    refused(log, lambda: append_whole(log, bytes(9000)))
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after == before, sorted(after)


def refused(path, call):
    with pytest.raises(OSError, match=f"(?i)too large|no space.*{path.name}") as raised:
        call()
    assert raised.value.filename == str(path)


def trainer_goes_on(folder):
    """A checkpoint that fails changes nothing in the run."""
    one, other = (
        Trainer.start(damaged_files.WORDS, damaged_files.SETTINGS, hidden_size=5)
        for _ in range(2)
    )
    for trainer in (one, other):
        trainer.train_window()
    refused(folder / "checkpoint", lambda: one.save(folder / "checkpoint"))
    for trainer in (one, other):
        trainer.train_window()
        trainer.evaluate()
    np.testing.assert_array_equal(
        one.model.flat_parameters, other.model.flat_parameters
    )
    assert one.evaluations == other.evaluations


def fit_is_resumed(folder):
    """The run ends at the checkpoint that fails; the one before is still the file's.

    The model has the epoch that could not be written, and may be saved elsewhere.
    """
    model = damaged_files.small_model()
    x = np.arange(54).reshape(9, 6) % 9
    path = folder / "run"
    refused(
        path,
        lambda: model.fit(
            x, x[:, 0] % 3, epochs=4, verbose=0, resume=path,
            callbacks=[fastrnn.callbacks.ModelCheckpoint(path, "loss"),
                       fastrnn.callbacks.GradientMonitor()],
        ),
    )  # fmt: skip
    assert model.history.epoch == [0, 1]
    assert np.isfinite(model.predict(x)).all()


def prepared(folder):
    """A folder with a file of each kind, a run, and a log."""
    for name, write in WRITERS.items():
        write(folder / name)
    damaged_files.fitted(folder / "run", seed=1)
    (folder / "log.csv").write_bytes(b"epoch,loss\r\n" + b"1,0.5\r\n" * 5)


def test_a_full_disk_leaves_files_and_runs_as_they_were(tmp_path, tried):
    prepared(tmp_path)
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, here, here.parent / "support", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("model", "run"):
        fastrnn.load_model(tmp_path / name)
    checkpoint.load_model(tmp_path / "checkpoint")
    tried(2 * len(WRITERS) + 3, "files that a full disk had no room for")


@pytest.mark.skipif(
    "FASTRNN_SMALL_DISK" not in os.environ, reason="FASTRNN_SMALL_DISK names no folder"
)
def test_a_small_disk_that_is_full():
    folder = Path(os.environ["FASTRNN_SMALL_DISK"]) / "tried"
    folder.mkdir()
    prepared(folder)
    ballast = folder.with_name("ballast")
    with ballast.open("wb", 0) as file, pytest.raises(OSError, match="No space left"):
        file.writelines(itertools.repeat(bytes(512)))
    fails_on_a_full_disk(folder)
    ballast.unlink()


# -- several writers -------------------------------------------------------------------

WRITER = """
import sys
from fastrnn.util.writing import write_atomically
for k in range(int(sys.argv[3])):
    write_atomically(sys.argv[1], bytes([int(sys.argv[2])]) * 100_000)
"""


def test_a_file_with_several_writers_is_always_one_of_theirs(tmp_path, tried):
    path, n = tmp_path / "file", 10 * KILLS
    write_atomically(path, bytes(100_000))
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, str(k), str(n)])
        for k in (1, 2)
    ]
    reads, seen = 0, set()
    while any(writer.poll() is None for writer in writers) or not reads:
        data = path.read_bytes()
        assert len(data) == 100_000
        assert data == data[:1] * 100_000
        reads, seen = reads + 1, seen | {data[0]}
    assert [writer.wait() for writer in writers] == [0, 0]
    assert seen & {1, 2}
    assert os.listdir(tmp_path) == ["file"]
    tried(reads, f"reads of a file while two processes wrote it {n} times each")
