# SPDX-License-Identifier: BSD-3-Clause
"""Processes that train one character model: `Team`, or `Solo` for a single one.

The streams of text that a batch consists of are shared out among the processes. The
checkpoint is that of one process: a run may go on with another number of them.
"""

import contextlib

import numpy as np

from fastrnn.distributed import launch
from fastrnn.distributed.exchange import Exchange
from fastrnn.distributed.shares import stretch


class ElsewhereError(Exception):
    """Another process has failed, and said so."""


class Solo:
    """A process alone."""

    main, size = True, 1

    def from_main(self, make):
        """What ``make()`` gives on the first process."""
        return make()

    def of_run(self):
        """Within this context the model is trained."""
        return contextlib.nullcontext()

    def check(self, settings):
        """Refuse settings that do not go with so many processes."""

    def columns(self, array):
        """This process's part of the streams of an array (T, B) or (layers, B, H)."""
        return array

    def joined(self, array):
        """The whole of an array (layers, B, H) of which each process has a part."""
        return array

    def settle(self, model):
        """Let all processes have one model."""

    def reduce(self, model, loss, n, late):
        """Gradients of the mean over all targets, that mean, their number, and `late`.

        Parameters
        ----------
        model : CharModel
            With the gradients of `loss`.
        loss : float
            Mean over this process's `n` targets.
        n : int
        late : bool
            As the first process says: whether a checkpoint is due.
        """
        return loss, n, late

    def total(self, value):
        """The sum of a number over all processes."""
        return value


class Team(Solo):
    """One process of several.

    Parameters
    ----------
    comm : Communicator
    """

    def __init__(self, comm):
        self._comm, self.size = comm, comm.size
        self.main, self._exchange = comm.rank == 0, None

    def from_main(self, make):
        """What ``make()`` gives on the first process; `ElsewhereError` if it raises."""
        if not self.main:
            done, value = self._comm.bcast(None)
            if not done:
                raise ElsewhereError
            return value
        try:
            value = make()
        except BaseException:
            self._comm.bcast((False, None))
            raise
        self._comm.bcast((True, value))
        return value

    @contextlib.contextmanager
    def of_run(self):
        with (
            launch.own_threads(self._comm),
            launch.ending_together(self._comm, FloatingPointError),
        ):
            yield

    def check(self, settings):
        if settings.batch_size < self.size:
            raise ValueError(
                f"argument --batch-size: must be at least {self.size}, the number of "
                f"processes, which each have some streams, got {settings.batch_size}"
            )

    def columns(self, array):
        begin, end = stretch(array.shape[1], self.size, self._comm.rank)
        return array[:, begin:end]

    def joined(self, array):
        return np.concatenate(self._comm.allgather(array), axis=1)

    def settle(self, model):
        model.flat_parameters[...] = self._comm.bcast(model.flat_parameters.copy())

    def reduce(self, model, loss, n, late):
        grads = model.flat_grads
        if self._exchange is None:
            self._exchange = Exchange(self._comm, grads.size, 3, grads.dtype)
        heads = self._exchange(
            [grads], [n, n * loss, late], lambda heads: heads[:, 0] / heads[:, 0].sum()
        )
        total, sum_of_losses = heads[:, 0].sum(), 0.0
        for one in heads[:, 1].tolist():
            sum_of_losses += one
        return sum_of_losses / float(total), int(total), bool(heads[0, 2])

    def total(self, value):
        found = 0.0
        for one in self._comm.allgather(value):
            found += one
        return found


def of_this_process():
    """The team that ``mpiexec`` started with this process, or `Solo`.

    Raises
    ------
    ModuleNotFoundError, RuntimeError
        If it did, and its processes cannot find one another: each would train a model
        of its own and write the same file.
    """
    n = launch.launched()
    return Solo() if n == 1 else Team(launch.world(f"one of {n} processes of mpiexec"))
