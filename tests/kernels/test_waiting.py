# SPDX-License-Identifier: BSD-3-Clause
"""csrc/kernels/wait.h and csrc/wait.c: threads that wait for another one sleep."""

import os
import subprocess
import sys

# One thread packs the only panel of the weights, and another one waits for it. OpenMP's
# own threads do not spin in this process.
CODE = """
import time
import numpy as np
import fastrnn

layer, x = fastrnn.Linear(1_000_000, 8, seed=0).eval(), np.ones((1, 1_000_000), "f")

def seconds(n_threads):
    fastrnn.set_num_threads(n_threads, dynamic=False)
    layer(x)
    begin = time.process_time()
    for _ in range(3):
        layer(x)
    return time.process_time() - begin

print(min(seconds(2) / seconds(1) for _ in range(3)))
"""


def test_a_thread_that_waits_takes_no_processor_time():
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) < 1.5
