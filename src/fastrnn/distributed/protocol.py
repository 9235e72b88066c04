# SPDX-License-Identifier: BSD-3-Clause
"""`Communicator`: the little that is asked of one, a part of what mpi4py's have."""

from __future__ import annotations

from typing import Any, NoReturn, Protocol

from fastrnn.util.typing import Array


class Communicator(Protocol):
    """Processes that work together: ``mpi4py.MPI.COMM_WORLD``, or an object like it.

    Each method is called by all processes, in the same order, but for ``Abort``.
    """

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""

    @property
    def size(self) -> int:
        """How many processes there are."""

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """The object of the process `root`."""

    def allgather(self, obj: Any) -> list[Any]:
        """The objects of all processes, in order of their ranks."""

    def Alltoall(self, sendbuf: Array, recvbuf: Array) -> None:
        """Row q of `sendbuf` goes to process q, whose `recvbuf` has it in row `rank`.

        Arrays (size, ...) of bytes, contiguous, of one shape everywhere.
        """

    def Allgather(self, sendbuf: Array, recvbuf: Array) -> None:
        """The `sendbuf` of process q goes to row q of every process's `recvbuf`."""

    def Abort(self, errorcode: int = 0) -> NoReturn:
        """End all processes; does not return."""


_METHODS = ("bcast", "allgather", "Alltoall", "Allgather", "Abort")


def check(who: str, comm: Any) -> Communicator:
    """Refuse what is no communicator.

    Raises
    ------
    TypeError
        If a method is missing, or rank and size are no integers.
    """
    missing = [name for name in _METHODS if not callable(getattr(comm, name, None))]
    for name in ("rank", "size"):
        if not isinstance(getattr(comm, name, None), int):
            missing.append(name)
    if missing:
        raise TypeError(
            f"{who}: distributed must be a communicator such as "
            f"mpi4py.MPI.COMM_WORLD, got {type(comm).__name__}, which has no "
            f"{', '.join(missing)}"
        )
    return comm
