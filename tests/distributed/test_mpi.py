# SPDX-License-Identifier: BSD-3-Clause
"""Processes that an installed MPI starts; skipped without mpi4py or mpiexec."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mpi_program
import numpy as np
import pytest

import fastrnn
from fastrnn.text import checkpoint

PROGRAM = Path(mpi_program.__file__)


@pytest.fixture
def mpiexec():
    """The words that start n processes of a program."""
    pytest.importorskip("mpi4py")
    found = shutil.which("mpiexec")
    if found is None:
        pytest.skip("mpi4py is installed, but no mpiexec")

    def command(n, *words):
        return [found, "-n", str(n), *options, sys.executable, *map(str, words)]

    version = subprocess.run([found, "--version"], capture_output=True, text=True)
    open_mpi = "open" in version.stdout.lower()
    # More processes than processors, and the superuser, as in a container.
    options = ["--oversubscribe", "--allow-run-as-root"] if open_mpi else []
    return command


def environment(**changes):
    own = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI", "OMP_"))}
    return own | changes


def run(command, check=True, **changes):
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120,
        env=environment(**changes),
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stderr
    return done


def results(folder, n):
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(n)]


@pytest.mark.whole_grid
@pytest.mark.parametrize("n", [2, 4])
def test_processes_train_as_one(mpiexec, n, tmp_path):
    run(mpiexec(n, PROGRAM, "equal", tmp_path), OMP_NUM_THREADS="1")
    found = results(tmp_path, n)
    assert all(one == found[0] for one in found)
    made = mpi_program.model()
    history = mpi_program.fit(made)
    own = found[0]
    assert own["one"] == own["two"]
    assert own["one bits"] == own["two bits"]
    np.testing.assert_allclose(
        own["parameters"], made.flat_parameters, rtol=0, atol=1e-12
    )
    for name, values in history.items():
        np.testing.assert_allclose(own["one"][name], values, rtol=1e-11)
    want = made.evaluate(*mpi_program.data())
    np.testing.assert_allclose(own["evaluated"], want, rtol=1e-11)


def test_processes_of_a_machine_share_its_processors(mpiexec, tmp_path):
    run(mpiexec(2, PROGRAM, "threads", tmp_path))
    for before, during, after in results(tmp_path, 2):
        assert before == after
        assert 1 <= during <= max(1, (os.cpu_count() or 1) // 2)


def test_a_lost_process_ends_the_job_and_the_checkpoint_goes_on(mpiexec, tmp_path):
    done = run(mpiexec(3, PROGRAM, "lost", tmp_path), check=False)
    assert done.returncode != 0
    said = (done.stderr + done.stdout).lower()
    assert "rank 1" in said or "pid" in said  # Open MPI, MPICH
    assert "signal 9" in said or "signal: 9" in said
    assert len(fastrnn.load_model(tmp_path / "run").flat_parameters)
    run(mpiexec(3, PROGRAM, "resumed", tmp_path))
    for again, unbroken in results(tmp_path, 3):
        assert again == unbroken


def test_an_error_of_one_process_ends_the_job_with_its_name(mpiexec, tmp_path):
    done = run(mpiexec(3, PROGRAM, "failing", tmp_path), check=False)
    assert done.returncode != 0
    assert "fastrnn: rank 1 of 3 ends the job: OSError: disk full" in done.stderr


TRAIN = ("--hidden-size", 8, "--seq-length", 8, "--batch-size", 4, "--seed", 1)


def test_the_command_trains_one_model(mpiexec, tmp_path):
    text = tmp_path / "text"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 30)
    words = ("-m", "fastrnn", "train", "--text", text, *TRAIN, "--epochs", 2, "--out")
    paths = [tmp_path / name for name in ("alone", "once", "twice")]
    run([sys.executable, *map(str, words), paths[0]])
    for path in paths[1:]:
        done = run(mpiexec(2, *words, path))
        assert done.stdout.count("threads in each of 2 processes") == 1
        assert done.stdout.count("bits/char held out after") == 1
    assert paths[1].read_bytes() == paths[2].read_bytes()
    (alone, _), (once, _) = map(checkpoint.read, paths[:2])
    for name, array in alone.items():
        np.testing.assert_allclose(once[name], array, rtol=0, atol=2e-3)
    done = run(mpiexec(2, *words, paths[1]), check=False)
    assert done.returncode == 2
    assert done.stderr.count("already exists") == 1


def test_ctrl_c_ends_all(mpiexec, tmp_path):
    path = tmp_path / "run"
    words = ("-m", "fastrnn", "train", *TRAIN, "--epochs", 500, "--out", path)
    job = subprocess.Popen(
        mpiexec(2, *words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=environment(),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not path.exists():  # it is written before the first window
        assert time.monotonic() < deadline
        assert job.poll() is None, job.stdout.read()
        time.sleep(0.05)
    job.send_signal(signal.SIGINT)
    job.communicate(timeout=60)
    assert job.returncode != 0
    assert checkpoint.load_model(path).recurrent.hidden_size == 8
