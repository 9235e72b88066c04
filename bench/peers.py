# SPDX-License-Identifier: BSD-3-Clause
"""The parent's side of the workers: start, ask, and keep idle ones stopped.

A pool of threads that has just worked may spin for a long time on the cores that
another library wants. So every worker but the one that was asked is stopped by the
system (SIGSTOP): it uses no CPU at all, whatever its threads were doing.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import adapters, cases

PROJECT = Path(__file__).resolve().parents[1]
LONGEST_ANSWER = 1800.0
_TAIL = 2000  # characters of a dead worker's output that are shown


class WorkerError(RuntimeError):
    """A worker failed, died or did not answer."""


class Worker:
    """One library in its own process.

    Parameters
    ----------
    name : str
        Short name of the library.
    n_threads : int
        Threads it gets, and CPUs it may use.
    dtype : {"float32", "float64"}
    python : str, optional
        Interpreter that has the library. Default: this one.
    module : str, optional
        The adapter. Default: that of `name`.

    Attributes
    ----------
    about : dict
        Versions and settings, as the adapter gave them.
    absent : str or None
        Why the library is not there.

    Raises
    ------
    WorkerError
        If the process fails for another reason than a missing library.
    """

    def __init__(self, name, n_threads, dtype, python=None, module=None):
        self.name, self.absent = name, None
        with contextlib.ExitStack() as stack:
            self._connection, child = multiprocessing.Pipe()
            stack.callback(self._connection.close)
            self._output = stack.enter_context(tempfile.TemporaryFile())
            with child:
                self._process = self._start(
                    python or sys.executable,
                    module or adapters.module_of(name),
                    child.fileno(),
                    (str(n_threads), dtype),
                )
            stack.callback(self._end)
            self.about = self._receive("start")
            self.absent = self.about.get("absent")
            self._close = stack.pop_all().close
        if self.absent:
            self.close()
        else:
            self._signal(signal.SIGSTOP)

    def _start(self, python, module, descriptor, settings):
        threads = settings[0]
        try:
            return subprocess.Popen(
                [python, "-m", "bench.worker", module, str(descriptor), *settings],
                cwd=PROJECT,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": threads,
                    "OPENBLAS_NUM_THREADS": threads,
                    "MKL_NUM_THREADS": threads,
                    "TF_CPP_MIN_LOG_LEVEL": "3",
                },
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise WorkerError(
                f"bench: {self.name}: cannot run {python}: {error}"
            ) from None

    @property
    def pid(self):
        """Number of the process."""
        return self._process.pid

    def ask(self, request, argument):
        """Let the worker run, ask it and stop it again; its answer as a dict.

        ``prepare`` takes a case's id. The worker is sent the case, because it may run
        where fastrnn, which says what there is of that id, is not installed.
        """
        sent = cases.find(argument) if request == "prepare" else argument
        self._signal(signal.SIGCONT)
        try:
            self._connection.send((request, sent))
        except BrokenPipeError:
            self._died(request)
        answer = self._receive(f"{request} {argument}")
        self._signal(signal.SIGSTOP)
        return answer

    def close(self):
        """End the process, stopped or not."""
        self._close()

    def _end(self):
        self._process.kill()
        self._process.wait()

    def _signal(self, number):
        # A process that has ended is noticed where its answer is missing.
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _receive(self, what):
        try:
            if not self._connection.poll(LONGEST_ANSWER):
                raise WorkerError(
                    f"bench: {self.name}: {what}: no answer in {LONGEST_ANSWER:.0f} s"
                )
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._died(what)
        if "error" in answer:
            raise WorkerError(f"bench: {self.name}: {what} failed:\n{answer['error']}")
        return answer

    def _died(self, what):
        status = self._process.wait()
        self._output.seek(0)
        tail = self._output.read().decode(errors="replace")[-_TAIL:].strip()
        raise WorkerError(
            f"bench: {self.name}: {what}: the worker died with exit status {status}; "
            f"it wrote: {tail or 'nothing'}"
        ) from None


@contextlib.contextmanager
def team(names, n_threads, dtype, pythons=None):
    """Workers by name, fastrnn's first, ended on the way out.

    Gives the workers that are there, and why the others are absent.
    """
    workers, absent = {}, {}
    with contextlib.ExitStack() as stack:
        for name in ("fastrnn", *names):
            worker = Worker(name, n_threads, dtype, (pythons or {}).get(name))
            if worker.absent:
                absent[name] = worker.absent
                continue
            stack.callback(worker.close)
            workers[name] = worker
        if "fastrnn" in absent:
            raise WorkerError(f"bench: fastrnn is not there: {absent['fastrnn']}")
        yield workers, absent
