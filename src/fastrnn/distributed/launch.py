# SPDX-License-Identifier: BSD-3-Clause
"""Processes that ``mpiexec`` started: whether this is one, its peers, its threads."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from fastrnn.distributed.protocol import Communicator
from fastrnn.native import threads
from fastrnn.util import extras

# How many processes there are, as the launchers say: Open MPI's, then MPICH's, Intel
# MPI's and others that speak its protocol, then MVAPICH's.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")

_FAILED, _INTERRUPTED = 1, 130


def launched() -> int:
    """How many processes the launcher started of which this is one; 1 without one.

    Examples
    --------
    >>> launched()
    1
    """
    for name in _SIZES:
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > 0:
            return int(value)
    return 1


def world(who: str = "world") -> Any:
    """The communicator of all processes that ``mpiexec`` started.

    Parameters
    ----------
    who : str
        Whom errors name.

    Returns
    -------
    mpi4py.MPI.Comm

    Raises
    ------
    ModuleNotFoundError
        If mpi4py is not installed.
    RuntimeError
        If the MPI that mpi4py found is not that of the launcher, so that every process
        would believe itself alone.
    """
    extras.require(who, "mpi4py", "mpi")
    comm = extras.require(who, "mpi4py.MPI", "mpi").COMM_WORLD
    n = launched()
    if n > 1 and comm.size == 1:
        raise RuntimeError(
            f"{who}: mpi4py must use the MPI of the launcher, which started {n} "
            "processes, but finds itself alone; start them with the mpiexec of the MPI "
            f"that it was installed for: {_library(comm)}"
        )
    return comm


def _library(comm):
    version = sys.modules["mpi4py.MPI"].Get_library_version()
    return version.split(",")[0].split("\n")[0]


@contextlib.contextmanager
def own_threads(comm: Communicator) -> Iterator[None]:
    """Within the body, the ranks of a machine share its CPUs instead of using all each.

    A number that somebody chose, by `set_num_threads` or ``OMP_NUM_THREADS``, stays. A
    communicator that cannot tell who shares a machine changes nothing.
    """
    split = getattr(comm, "Split_type", None)
    if split is None or comm.size == 1 or threads.is_chosen():
        yield
        return
    here = split(sys.modules["mpi4py.MPI"].COMM_TYPE_SHARED)
    mine = threads.allowed_cpus()
    peers = here.allgather((mine, threads.get_num_threads()))
    here.Free()
    # A launcher that binds ranks to CPUs gives each some that no other has.
    sharing = sum(1 for cpus, _ in peers if not cpus.isdisjoint(mine))
    threads.set_num_threads(max(1, threads.get_num_threads() // sharing))
    try:
        yield
    finally:
        threads.forget_chosen()


@contextlib.contextmanager
def ending_together(
    comm: Communicator, expected: type[BaseException]
) -> Iterator[None]:
    """An error of this rank alone ends all ranks: the others would wait for ever.

    Parameters
    ----------
    comm : Communicator
    expected : type
        What all ranks raise at the same time, which goes on as it is.
    """
    try:
        yield
    except expected:
        raise
    except BaseException as error:
        if comm.size > 1:
            code = _say_why(comm, error)
            comm.Abort(code)
        raise


def _say_why(comm, error):
    """Print which rank ends the job, and why; the exit code for it."""
    interrupted = isinstance(error, KeyboardInterrupt)
    if not interrupted:
        traceback.print_exception(error, file=sys.stderr)
    what = "Ctrl-C" if interrupted else f"{type(error).__name__}: {error}"
    print(
        f"fastrnn: rank {comm.rank} of {comm.size} ends the job: {what}",
        file=sys.stderr,
        flush=True,
    )
    return _INTERRUPTED if interrupted else _FAILED


def agree(who: str, comm: Communicator, error: BaseException | None) -> None:
    """Raise on all ranks if one has an error, before anything has changed.

    Raises
    ------
    RuntimeError
        On the ranks that have no error of their own; those that have raise theirs.
    """
    text = None if error is None else f"{type(error).__name__}: {error}"
    found = comm.allgather(text)
    if error is not None:
        raise error
    for rank, one in enumerate(found):
        if one is not None:
            raise RuntimeError(f"{who}: rank {rank} of {comm.size} failed: {one}")


def same(who: str, comm: Communicator, facts: dict[str, Any]) -> None:
    """Refuse to go on, on all ranks, where these do not have the same facts.

    Raises
    ------
    ValueError
        If they have not; it names the first fact that differs.
    """
    found = comm.allgather(facts)
    for name, value in found[0].items():
        for rank, other in enumerate(found):
            if other[name] != value:
                raise ValueError(
                    f"{who}: all ranks must have the same {name}, got {value!r} on "
                    f"rank 0 and {other[name]!r} on rank {rank}"
                )
