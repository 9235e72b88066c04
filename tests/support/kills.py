# SPDX-License-Identifier: BSD-3-Clause
"""Runs that are killed at many moments, and have to go on as if nothing had been.

``python tests/support/kills.py train|fit [--moments 300] [--seed 0]`` makes a run of
`fastrnn train`, or of ``fit`` with `ModelCheckpoint` and `CSVLogger`, that writes its
checkpoint after every window or epoch. The run is killed, resumed, and perhaps killed
again. Every other moment is one of the clock; the others are calls of the system that
concern files: the process ends before the call, or when a write has written half.

After each kill the checkpoint loads, if there is one, and at most one temporary file
lies beside it. The run that is then left alone ends with every byte that the unbroken
run has written, and no temporary file is left.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn.text import checkpoint, cli, default_text, training

SECONDS = 60  # for a run that is left alone, on a busy machine
MOST_KILLS = 3  # of one run

# -- what is run, in a folder of its own ----------------------------------------------


def train():
    """`fastrnn train`, begun or resumed: a small model, a checkpoint a window."""
    training.CHECKPOINT_SECONDS, training.SAMPLE_LENGTH = 0, 20
    book = Path("../book.txt")  # one file for all runs, whose checkpoints name it
    if not book.exists():
        book.write_text(default_text()[:900], encoding="utf-8")
    options = ["--threads", "1", "--out", "run"]
    if os.path.exists("run"):
        options.append("--resume")
    else:
        options += ["--hidden-size", "8", "--batch-size", "4", "--seq-length", "20"]
        options += ["--epochs", "3", "--text", str(book)]
    status = cli.main(["train", *options])
    assert status == 0, status


def fit():
    """``fit``, begun or resumed: dropout, shuffled samples, a checkpoint an epoch."""
    callbacks = [
        fastrnn.callbacks.CSVLogger("log.csv"),
        fastrnn.callbacks.EarlyStopping("loss", patience=50),
        fastrnn.callbacks.ModelCheckpoint("run", "loss"),
    ]
    model = fastrnn.Sequential(
        fastrnn.GRU(2, 8, seed=1, dropout=0.2, num_layers=2),
        fastrnn.Linear(8, 1, seed=2),
    )
    model.compile("mse", "adam", lr=1e-2)
    x = np.sin(np.arange(40 * 6 * 2)).reshape(40, 6, 2)
    options = {"resume": "run"} if os.path.exists("run") else {"seed": 3}
    model.fit(
        x, x[:, :, :1], 8, epochs=20, verbose=0, callbacks=callbacks, **options
    )  # fmt: skip


# By name: what is run, what reads its checkpoint, and the files of a run.
PROGRAMS = {
    "train": (train, checkpoint.load_model, ("run",)),
    "fit": (fit, fastrnn.load_model, ("log.csv", "run")),
}

# -- moments --------------------------------------------------------------------------

FILE_CALLS = ("open", "write", "fsync", "replace", "link", "remove", "close", "fchmod")


def counted_calls(die_at=None):
    """Count this process's file calls from now on; it is killed at the `die_at`-th.

    Returns
    -------
    list of int
        How many there were.
    """
    count = [0]

    def watched(name, call):
        def counting(*arguments, **options):
            count[0] += 1
            if count[0] == die_at:
                if name == "write":
                    descriptor, data = arguments
                    call(descriptor, bytes(data)[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return counting

    for name in FILE_CALLS:
        setattr(os, name, watched(name, getattr(os, name)))
    return count


def started(program, folder, die_at=None):
    """A process that runs a program in a folder."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.alarm(SECONDS)
        os.chdir(folder)
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if die_at is not None:
            counted_calls(die_at)
        program()
        sys.stdout.flush()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def ended(child):
    """The exit status of a process, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def files_of(folder, names):
    return {name: (folder / name).read_bytes() for name in names}


def temporaries(folder):
    return [name for name in os.listdir(folder) if name.startswith(".fastrnn-")]


# -- the judge ------------------------------------------------------------------------


class Unbroken:
    """The run that nobody kills: its files, seconds and file calls."""

    def __init__(self, name, folder):
        self.program, self.load, self.names = PROGRAMS[name]
        folder.mkdir()
        began = time.monotonic()
        self.left_alone(folder)
        self.seconds = time.monotonic() - began
        self.files = files_of(folder, self.names)
        counting = folder.with_name("counting")
        counting.mkdir()

        def count():
            n = counted_calls()
            self.program()
            Path("calls.txt").write_text(str(n[0]))

        child = started(count, counting)
        assert ended(child) == 0, (counting / "log.txt").read_text()
        self.calls = int((counting / "calls.txt").read_text())
        assert files_of(counting, self.names) == self.files

    def left_alone(self, folder):
        status = ended(started(self.program, folder))
        log = (folder / "log.txt").read_text()
        assert status == 0, f"a run that was left alone ended with {status}: {log}"

    def kill(self, folder, rng, by_clock):
        """Run in a folder until a moment; whether the run was killed, and as it wrote.

        A run that ends before the moment has not been killed.
        """
        if by_clock:
            child = started(self.program, folder)
            time.sleep(rng.uniform(0, 1.05 * self.seconds))
            os.kill(child, signal.SIGKILL)
        else:
            child = started(self.program, folder, rng.randint(1, self.calls))
        status = ended(child)
        log = (folder / "log.txt").read_text()
        assert status in (0, -signal.SIGKILL), f"ended with {status}: {log}"
        left = temporaries(folder)
        assert len(left) <= 1, f"temporary files pile up: {left}"
        if (folder / "run").exists():
            self.load(folder / "run")
        return status != 0, bool(left)


def main(name, moments, seed, folder=None, show=print):
    """Kill runs at so many moments; how many of these found a file being written."""
    rng = random.Random(f"{name} {seed}")
    folder = Path(tempfile.mkdtemp(dir=folder))
    unbroken = Unbroken(name, folder / "unbroken")
    kills = writing = runs = 0
    while kills < moments:
        runs += 1
        place = folder / "run"
        place.mkdir()
        for _ in range(rng.randint(1, MOST_KILLS)):
            killed, wrote = unbroken.kill(place, rng, by_clock=kills % 2 == 0)
            kills, writing = kills + killed, writing + wrote
            if not killed or kills == moments:
                break
        unbroken.left_alone(place)
        found = files_of(place, unbroken.names)
        different = [n for n in found if found[n] != unbroken.files[n]]
        assert not different, f"run {runs}, {kills} kills: {different} in {place}"
        assert temporaries(place) == []
        shutil.rmtree(place)
    shutil.rmtree(folder)
    show(f"{name}: killed {kills} times in {runs} runs, {writing} of them in a write")
    return writing


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("--moments", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    main(given.program, given.moments, given.seed)
