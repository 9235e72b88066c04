# SPDX-License-Identifier: BSD-3-Clause
"""Ranks as threads of one process: a communicator that needs no MPI."""

import copy
import threading

import numpy as np


class Aborted(BaseException):
    """What `Rank.Abort` ends the other threads with."""


class Rank:
    """One thread's communicator.

    Parameters
    ----------
    rank, size : int
    table : list
        Of `size` places, shared by all ranks.
    barrier : threading.Barrier
    """

    def __init__(self, rank, size, table, barrier):
        self.rank, self.size = rank, size
        self._table, self._barrier = table, barrier
        self.calls, self.bytes = [], 0

    def _exchange(self, name, value):
        self.calls.append(name)
        self._table[self.rank] = value
        self._wait()
        found = list(self._table)
        self._wait()
        return found

    def _wait(self):
        try:
            self._barrier.wait(30)  # seconds: a rank waits for one that has ended
        except threading.BrokenBarrierError:
            raise Aborted from None

    def bcast(self, obj, root=0):
        return copy.deepcopy(self._exchange("bcast", obj)[root])

    def allgather(self, obj):
        return copy.deepcopy(self._exchange("allgather", obj))

    def Alltoall(self, sendbuf, recvbuf):
        self._check(sendbuf, recvbuf)
        self.bytes += sendbuf.nbytes * (self.size - 1) // self.size
        for q, sent in enumerate(self._exchange("Alltoall", sendbuf.copy())):
            recvbuf[q] = sent[self.rank]

    def Allgather(self, sendbuf, recvbuf):
        self._check(sendbuf, recvbuf)
        self.bytes += sendbuf.nbytes * (self.size - 1)
        for q, sent in enumerate(self._exchange("Allgather", sendbuf.copy())):
            recvbuf[q] = sent

    @staticmethod
    def _check(*buffers):
        assert all(one.flags.c_contiguous for one in buffers)

    def Abort(self, errorcode=0):
        self.calls.append(f"Abort {errorcode}")
        self._barrier.abort()
        raise Aborted


def run(size, program):
    """What ``program(comm)`` returns on each of `size` ranks, or the exception.

    Returns
    -------
    list
        In order of ranks.
    """
    table, barrier = [None] * size, threading.Barrier(size)
    found = [None] * size

    def work(rank):
        try:
            found[rank] = program(Rank(rank, size, table, barrier))
        except BaseException as error:
            found[rank] = error

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def results(size, program):
    """What ``program(comm)`` returns on each rank; an exception is raised here."""
    found = run(size, program)
    errors = [one for one in found if isinstance(one, BaseException)]
    for error in sorted(errors, key=lambda error: isinstance(error, Aborted)):
        raise error
    return found


def same_bits(arrays):
    """Whether all arrays have the same bytes."""
    return len({np.asarray(one).tobytes() for one in arrays}) == 1
