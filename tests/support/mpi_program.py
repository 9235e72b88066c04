# SPDX-License-Identifier: BSD-3-Clause
"""What `test_mpi.py` has mpiexec run: ``mpi_program.py WHAT FOLDER``."""

import json
import os
import signal
import sys
import zlib
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn.callbacks import Callback, ModelCheckpoint
from fastrnn.distributed import world


def model(dtype="float64"):
    made = fastrnn.Sequential(
        fastrnn.Masking(),
        fastrnn.Dropout(0.2, seed=3),
        fastrnn.LSTM(3, 8, seed=1, dtype=dtype),
        fastrnn.BatchNormalization(dtype=dtype),
        fastrnn.Linear(8, 2, seed=2, dtype=dtype),
    )
    made.compile("mse", "adam", ["mae"], lr=1e-2)
    return made


def data():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((21, 6, 3)), rng.standard_normal((21, 6, 2))
    for i in range(21):
        x[i, 1 + i % 6 :] = 0
    return x, y


def fit(made, comm=None, epochs=3, **options):
    history = made.fit(
        *data(), 5, epochs, 0, seed=4, clip_norm=0.1, validation_split=0.2,
        distributed=comm, **options,
    )  # fmt: skip
    return history.history


def equal(comm, folder):
    """Two runs, a shard of each process's own, and evaluation."""
    found = {}
    for name in ("one", "two"):
        made = model()
        found[name] = fit(made, comm)
        found[f"{name} bits"] = zlib.crc32(made.flat_parameters.tobytes())
    found["parameters"] = made.flat_parameters.tolist()
    found["evaluated"] = made.evaluate(*data(), distributed=comm)
    fit(model("float32"), comm, sharded=True, gradient_accumulation_steps=2)
    return found


def threads(comm, folder):
    """Threads that a process has in a run, and after it."""

    class Noting(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            noted.append(fastrnn.get_num_threads())

    noted = [fastrnn.get_num_threads()]
    fit(model(), comm, 1, callbacks=[Noting()])
    return [*noted, fastrnn.get_num_threads()]


class Lost(Callback):
    """In the fourth epoch one process is gone."""

    def on_train_batch_begin(self, batch, logs=None):
        if (self.run.reduction.rank, len(self.run.history.epoch), batch) == (1, 3, 1):
            self.go()

    def go(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Failing(Lost):
    def go(self):
        raise OSError("disk full")


def lost(comm, folder, callback=Lost):
    fit(model(), comm, 5, callbacks=[ModelCheckpoint(folder / "run"), callback()])


def failing(comm, folder):
    lost(comm, folder, Failing)


class Nothing(Lost):
    def go(self):
        """Stay."""


def resumed(comm, folder):
    """The bits of a run that goes on, and of one that was never broken."""
    bits = []
    for resume in (folder / "run", None):
        made = model()
        kept = [ModelCheckpoint(folder / "again"), Nothing()]
        if resume is not None:
            Nothing.__name__ = "Lost"  # a checkpoint knows its callbacks by name
        fit(made, comm, 5, callbacks=kept, resume=resume)
        bits.append(zlib.crc32(made.flat_parameters.tobytes()))
    return bits


if __name__ == "__main__":
    comm, folder = world(), Path(sys.argv[2])
    found = globals()[sys.argv[1]](comm, folder)
    (folder / f"{comm.rank}.json").write_text(json.dumps(found))
