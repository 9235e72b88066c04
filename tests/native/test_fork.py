# SPDX-License-Identifier: BSD-3-Clause
"""Threads in a forked process: one, unless it is known that no pool can have existed.

Every case is a program of its own: a process that has run tests has had threads.
"""

from forks import NEEDED, run_program

pytestmark = NEEDED
RUN = """
def run():
    fastrnn.LSTM(128, 128, seed=0).eval()(np.ones((9, 32, 128), "f"))
"""


def program(*parts):
    """Run the parts as one program on two threads."""
    run_program(["import numpy as np", *parts], OMP_NUM_THREADS="2")


def test_several_threads_where_no_pool_existed():
    program(
        "import fastrnn",
        RUN,
        "def in_child():\n    assert fastrnn.get_num_threads() == 2\n    run()",
        "fork(in_child)",
    )


def test_one_thread_in_a_child_of_a_child():
    program(
        "import fastrnn",
        RUN,
        "run()",
        "def grandchild():\n    assert fastrnn.get_num_threads() == 1\n    run()",
        "fork(lambda: fork(grandchild))",
    )


def test_one_thread_for_a_stream_that_was_made_before():
    program(
        "import fastrnn",
        "fastrnn.set_num_threads(2, dynamic=False)",
        "x = np.ones((8, 512), 'f')",
        "stream = fastrnn.LSTM(512, 1024, seed=0).stream(8)",
        "kept = stream.step(x).copy()",
        "stream.reset()",
        "def in_child():\n    assert (stream.step(x) == kept).all()",
        "fork(in_child)",
        "assert (stream.step(x) == kept).all()",
    )


def test_one_thread_where_others_have_the_runtime():
    """`openmp_is_shared` finds out; test_drop_in_fork.py has PyTorch do it."""
    program(
        "import fastrnn\nfrom fastrnn.native import core",
        "assert core.openmp_is_shared() is False",
        "core.openmp_is_shared = lambda: True",
        RUN,
        "def in_child():\n    assert fastrnn.get_num_threads() == 1\n    run()\n"
        "    try:\n        fastrnn.set_num_threads(2)\n"
        "    except RuntimeError as error:\n        assert 'spawn' in str(error)\n"
        "    else:\n        raise AssertionError",
        "fork(in_child)",
        "assert fastrnn.get_num_threads() == 2",
    )
