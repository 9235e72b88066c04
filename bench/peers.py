# SPDX-License-Identifier: BSD-3-Clause
"""`Worker`: a library in a process of its own, seen from the parent's side.

A pool of threads that has just worked may spin for a long time on the cores that
another library needs. So the parent stops every worker by SIGSTOP except the one that
it asks: a stopped process uses no CPU at all, whatever its threads were doing.
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
_TAIL = 2000  # how many characters of a dead worker's output an error shows


class WorkerError(RuntimeError):
    """A worker failed, died or did not answer."""


class Worker:
    """One library in its own process.

    Parameters
    ----------
    name : str
        The short name of the library.
    n_threads : int
        How many threads the library gets.
    dtype : {"float32", "float64"}
    python : str, optional
        The interpreter that has the library. Default: the one that runs this.
    module : str, optional
        The module of the adapter. Default: the adapter of `name`.
    n_cpus : int, optional
        How many CPUs the process may use. Default: as many as threads.

    Attributes
    ----------
    about : dict
        Versions and settings, as the adapter's ``start`` returned them.
    absent : str or None
        Why the library cannot be imported; None if it can.

    Raises
    ------
    WorkerError
        If the process fails for another reason than a missing library.
    """

    def __init__(self, name, n_threads, dtype, python=None, module=None, n_cpus=None):
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
                    (str(n_threads), dtype, str(n_cpus or n_threads)),
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
                    **adapters.environment_of(self.name),
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
        """The id of the process."""
        return self._process.pid

    def ask(self, request, argument):
        """Let the worker run, ask it, and stop it again; return its answer, a dict.

        ``prepare`` takes a case's id. The worker is sent the case itself, because only
        fastrnn knows which cells there are, and the worker's interpreter may lack it.
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
        """End the process, whether it is stopped or not."""
        self._close()

    def _end(self):
        self._process.kill()
        self._process.wait()

    def _signal(self, number):
        # A process that has ended is no error here: `_receive` notices it.
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
    """A context that starts the workers of libraries, and ends them when it ends.

    It gives two dicts by name: the workers of the libraries that are installed, with
    fastrnn's first, and the reasons why the others are absent.
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
