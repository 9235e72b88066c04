# SPDX-License-Identifier: BSD-3-Clause
"""A process forked after PyTorch's own threads ran: GNU OpenMP's pool is for both."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from forks import NEEDED, run_program  # noqa: E402

pytestmark = NEEDED
# `early` and `late` are where fastrnn is imported: before PyTorch's threads, or in the
# child alone; `deep` forks once more.
PROGRAM = """
import sys
import numpy as np
import torch

kind, when, depth = sys.argv[1:]
torch.set_num_threads(2)
if when == "early":
    import fastrnn.torch
a = torch.randn(700, 700)
a @ a
torch.nn.LSTM(256, 256)(torch.randn(20, 32, 256))


def run():
    import fastrnn.torch

    if kind == "numpy":
        fastrnn.GRU(128, 128)(np.ones((9, 32, 128), "f"))
    elif kind == "torch":
        # So few rows that PyTorch's own operators around it use one thread: they hang.
        layer, x = fastrnn.torch.LSTM(128, 128), torch.randn(9, 16, 128)
        layer(x)[0].sum().backward()
    else:
        torch.set_num_threads(2)
        fastrnn.torch.LSTMCell(256, 256)(torch.randn(64, 256))
    assert fastrnn.get_num_threads() == 1


fork(run if depth == "flat" else lambda: fork(run))
"""


@pytest.mark.parametrize(
    ("kind", "when", "depth"),
    [
        ("torch", "early", "flat"),
        ("numpy", "early", "flat"),
        ("cell", "early", "deep"),
        ("torch", "late", "deep"),
        ("numpy", "late", "flat"),
    ],
)
def test_the_child_runs_on_one_thread(kind, when, depth):
    run_program([PROGRAM], kind, when, depth)


def test_the_runtime_that_pytorch_needs_is_known():
    """Where its wheel names the same one: elsewhere there are two, and no trouble."""
    code = (
        "from fastrnn.native import core\n"
        "alone = core.openmp_is_shared()\n"
        "import ctypes, torch\n"
        "names = {line.split('/')[-1].strip() for line in open('/proc/self/maps')\n"
        "         if 'libgomp' in line or 'libomp' in line or 'libiomp' in line}\n"
        "print(alone, core.openmp_is_shared(), len(names))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    alone, shared, n_runtimes = done.stdout.split()
    assert alone == "False"
    assert shared == str(int(n_runtimes) == 1)
