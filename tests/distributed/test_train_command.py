# SPDX-License-Identifier: BSD-3-Clause
"""`fastrnn train` by several processes: one process with all streams judges."""

import sys

import numpy as np
import pytest
import ranks

from fastrnn.text import checkpoint, team, training
from fastrnn.text.cli import main
from fastrnn.text.settings import Settings
from fastrnn.text.training import Trainer, train

TEXT = "the quick brown fox jumps over the lazy dog; " * 20
SHAPE = {"hidden_size": 6, "embedding_dim": 4, "dtype": "float64"}


@pytest.fixture(autouse=True)
def short_samples(monkeypatch):
    monkeypatch.setattr(training, "SAMPLE_LENGTH", 20)


class Reporter:
    """Notes what a process is told."""

    def __init__(self):
        self.characters, self.evaluations = 0, []

    def window(self, trainer, n_characters):
        self.characters += n_characters

    def evaluation(self, trainer, found):
        self.evaluations.append((found.train_bits, found.held_out_bits, found.sample))


def trained(path, comm=None, epochs=2, resume=False, cell="lstm"):
    crew, reporter = team.Solo() if comm is None else team.Team(comm), Reporter()
    settings = Settings(batch_size=5, seq_length=7, epochs=epochs)
    if resume:
        contents = crew.from_main(lambda: checkpoint.read(path))
        trainer = Trainer.resume(path, contents, TEXT, epochs=epochs)
    else:
        trainer = Trainer.start(TEXT, settings, cell=cell, **SHAPE)
    with crew.of_run():
        trainer.join(crew)
        train(trainer, path, reporter)
    return trainer.model.flat_parameters.copy(), reporter


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_processes_train_as_one_and_write_its_checkpoint(cell, one_thread, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    parameters, told = trained(alone, cell=cell)
    found = ranks.results(3, lambda comm: trained(together, comm, cell=cell))
    assert ranks.same_bits([one for one, _ in found])
    np.testing.assert_allclose(found[0][0], parameters, rtol=0, atol=1e-12)
    for _, reporter in found:
        assert reporter.characters == told.characters
        for own, want in zip(reporter.evaluations, told.evaluations, strict=True):
            np.testing.assert_allclose(own[:2], want[:2], rtol=1e-12)
    samples = [[one[2] for one in reporter.evaluations] for _, reporter in found]
    assert samples[0] == [one[2] for one in told.evaluations]
    assert samples[1] == samples[2] == [""] * len(samples[0])
    (arrays, meta), (want, wanted) = map(checkpoint.read, (together, alone))
    for name, array in want.items():
        np.testing.assert_allclose(arrays[name], array, rtol=0, atol=1e-11)
    assert meta["settings"] == wanted["settings"]
    assert meta["rng"] == wanted["rng"]


def test_a_run_goes_on_with_the_bits_of_an_unbroken_one(one_thread, tmp_path):
    """Also a run whose checkpoint is due in the middle, with states of all streams."""
    path = tmp_path / "run"
    settings = Settings(batch_size=5, seq_length=7, epochs=2)

    def stopped(comm):
        crew = team.Team(comm)
        trainer = Trainer.start(TEXT, settings, **SHAPE)
        trainer.join(crew)
        for _ in range(4):
            trainer.train_window()
        trainer.save(path)

    whole = ranks.results(2, lambda comm: trained(tmp_path / "whole", comm))
    ranks.results(2, stopped)
    again = ranks.results(2, lambda comm: trained(path, comm, resume=True))
    assert ranks.same_bits([one for one, _ in whole + again])
    ranks.results(2, stopped)  # and another number of processes may go on
    (other,) = ranks.results(1, lambda comm: trained(path, comm, resume=True))
    np.testing.assert_allclose(other[0], whole[0][0], rtol=0, atol=1e-12)


def test_the_first_process_says_when_a_checkpoint_is_due(one_thread):
    def program(comm):
        trainer = Trainer.start(TEXT, Settings(batch_size=4, seq_length=7), **SHAPE)
        trainer.join(team.Team(comm))
        said = []
        for late in (comm.rank == 0, comm.rank == 1):
            trainer.train_window(late)
            said.append(trainer.late)
        return said

    assert ranks.results(2, program) == [[True, False]] * 2


def test_an_error_of_the_first_process_is_told_once():
    def program(comm):
        team.Team(comm).from_main(lambda: int("x"))

    first, second = ranks.run(2, program)
    assert isinstance(first, ValueError)
    assert isinstance(second, team.ElsewhereError)


def test_each_process_needs_a_stream():
    def program(comm):
        team.Team(comm).check(Settings(batch_size=2))

    for error in ranks.run(3, program):
        assert "argument --batch-size: must be at least 3, the number" in str(error)
    ranks.results(2, program)


def test_processes_that_cannot_find_one_another(monkeypatch, capsys, tmp_path):
    """Each would train a model of its own and write the same file."""
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    path = tmp_path / "run.safetensors"
    assert main(["train", "--out", str(path)]) == 2
    assert capsys.readouterr().err == (
        "fastrnn: error: one of 4 processes of mpiexec: needs the package mpi4py, "
        "which is not installed: pip install 'fastrnn[mpi]'\n"
    )
    assert not path.exists()


def test_the_launcher_s_mpi_must_be_that_of_mpi4py(monkeypatch, capsys, tmp_path):
    class World:
        rank, size = 0, 1

    mpi = type(sys)("mpi4py.MPI")
    mpi.COMM_WORLD = World()
    mpi.Get_library_version = lambda: "MPICH Version: 4.1\nand more"
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setitem(sys.modules, "mpi4py", type(sys)("mpi4py"))
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", mpi)
    assert main(["train", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "which started 4 processes, but finds itself alone" in error
    assert error.endswith("installed for: MPICH Version: 4.1\n")
