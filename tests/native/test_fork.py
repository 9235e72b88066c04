# SPDX-License-Identifier: BSD-3-Clause
"""Threads in a forked process: one, unless it is known that no pool can have existed.

Every case is a program of its own: a process that has run tests has had threads.
"""

import os
import subprocess
import sys

import pytest

from fastrnn.native import core

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork"),
    pytest.mark.skipif(not core.OPENMP, reason="a build without threads has no pool"),
]
IN_CHILD = """
child = os.fork()
if child == 0:
    signal.alarm(60)  # a child that hangs is killed by its own clock
    try:
        in_child()
        os._exit(0)
    finally:
        os._exit(1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert status == 0, f"child: {status}"
"""
RUN = """
def run():
    fastrnn.LSTM(128, 128, seed=0).eval()(np.ones((9, 32, 128), "f"))
"""


def program(*parts):
    """Run the parts as one program on two threads; its assertions are the test's."""
    head = "import os, signal\nimport numpy as np\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", head + "\n".join(parts)],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_several_threads_where_no_pool_existed():
    program(
        "import fastrnn",
        RUN,
        "def in_child():\n    assert fastrnn.get_num_threads() == 2\n    run()",
        IN_CHILD,
    )


def test_one_thread_in_a_child_of_a_child():
    program(
        "import fastrnn",
        RUN,
        "run()",
        "def grandchild():\n    assert fastrnn.get_num_threads() == 1\n    run()",
        "def in_child():\n    parts = dict(globals(), in_child=grandchild)\n"
        "    exec(IN_CHILD, parts)",
        f"IN_CHILD = {IN_CHILD!r}",
        IN_CHILD,
    )


def test_one_thread_where_others_have_the_runtime():
    """`openmp_is_shared` finds out; drop_in/test_drop_in_fork.py has PyTorch do it."""
    program(
        "import fastrnn\nfrom fastrnn.native import core",
        "assert core.openmp_is_shared() is False",
        "core.openmp_is_shared = lambda: True",
        RUN,
        "def in_child():\n    assert fastrnn.get_num_threads() == 1\n    run()\n"
        "    try:\n        fastrnn.set_num_threads(2)\n"
        "    except RuntimeError as error:\n        assert 'spawn' in str(error)\n"
        "    else:\n        raise AssertionError",
        IN_CHILD,
        "assert fastrnn.get_num_threads() == 2",
    )
