# SPDX-License-Identifier: BSD-3-Clause
"""Programs that fork: a process that has run tests has had threads, and is no judge."""

import os
import subprocess
import sys

import pytest

from fastrnn.native import core

# The mark of files whose programs fork.
NEEDED = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork"),
    pytest.mark.skipif(
        not core.THREADING, reason="a build without threads has no pool"
    ),
]
# A part of a program: ``fork(run)`` calls `run` in a child, and fails where that does.
FORK = """
import os, signal


def fork(run):
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that hangs is killed by its own clock
        try:
            run()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"child: {status}"
"""


def run_program(parts, *arguments, **environment):
    """Run parts of a program as one, `FORK` first; its assertions are the test's."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join([FORK, *parts]), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
