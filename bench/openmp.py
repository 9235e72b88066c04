# SPDX-License-Identifier: BSD-3-Clause
"""Whether the threads of PyTorch and fastrnn slow each other down in one process.

    python -m bench.openmp                                 # the installed fastrnn
    python -m bench.openmp plain=DIR own-copy=DIR2 ...     # wheels unpacked in folders

Both libraries share loops among OpenMP threads. A process with two OpenMP runtimes has
two pools of threads, and the threads of one pool wait actively for a while on the CPUs
that the other pool needs. A PyTorch operator and a fastrnn layer are timed, each many
times in a row and then both in turns, in a new process for each wheel and each order of
imports. The slowdown is the time in turns divided by the sum of the times alone. This
works on Linux only, since runtimes and threads are counted in /proc/self.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ORDERS = (("torch", "fastrnn"), ("fastrnn", "torch"))
HEAD = ["wheel", "first", "runtimes", "threads", "alone", "in turns", "slower"]


def runtimes():
    """The files of OpenMP runtimes that are mapped into this process."""
    text = Path("/proc/self/maps").read_text()
    return sorted(set(re.findall(r"/\S*(?:gomp|iomp|libomp)\S*\.so\S*", text)))


def work(n_threads):
    """A PyTorch operator and a fastrnn layer, of a tenth of a millisecond a call."""
    import numpy as np
    import torch

    import fastrnn

    torch.set_num_threads(n_threads)
    fastrnn.set_num_threads(n_threads)
    data = torch.ones(400_000)
    layer = fastrnn.GRU(64, 64, seed=0).eval()
    x = np.ones((10, 32, 64), "f")
    return lambda: torch.exp(data), lambda: layer(x)


def per_call(calls, n):
    """The seconds that one round of `calls` takes: the median of n rounds."""
    times = []
    for _ in range(n):
        start = time.perf_counter()
        for call in calls:
            call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(first, second, n_threads, rounds):
    """Import two modules in this order, time both libraries and count threads."""
    __import__(first)
    __import__(second)
    both = work(n_threads)
    alone, turns = [], []
    for _ in range(rounds):
        alone.append(sum([per_call([call], 50) for call in both]))
        turns.append(per_call(both, 50))
    return {
        "runtimes": runtimes(),
        "threads": len(os.listdir("/proc/self/task")),
        "alone": statistics.median(alone),
        "turns": statistics.median(turns),
        "slower": statistics.median([b / a for a, b in zip(alone, turns, strict=True)]),
    }


def in_new_process(folder, *arguments):
    """Call `measure` in a fresh interpreter that imports from `folder` first."""
    command = [sys.executable, "-m", "bench.openmp", "--measure", json.dumps(arguments)]
    paths = [folder, os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"bench.openmp: {arguments} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def row(name, first, found):
    """The cells of a line in the table."""
    return (
        name,
        first,
        ", ".join([Path(path).name for path in found["runtimes"]]),
        str(found["threads"]),
        f"{found['alone'] * 1e6:.0f} us",
        f"{found['turns'] * 1e6:.0f} us",
        f"{found['slower']:.2f}x",
    )


def main():
    parser = argparse.ArgumentParser(
        prog="python -m bench.openmp", description=__doc__.split("\n")[0]
    )
    parser.add_argument("wheels", nargs="*", help="NAME=DIR; what is installed if none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*json.loads(options.measure))))
        return
    for line in (HEAD, ["---"] * len(HEAD)):
        print(f"| {' | '.join(line)} |")
    for wheel in options.wheels or ["installed="]:
        name, _, folder = wheel.partition("=")
        for order in ORDERS:
            found = in_new_process(folder, *order, options.threads, options.rounds)
            print(f"| {' | '.join(row(name, order[0], found))} |", flush=True)


if __name__ == "__main__":
    main()
