# SPDX-License-Identifier: BSD-3-Clause
"""Peak memory of training steps of fastrnn and PyTorch, each in its own process.

    python -m bench.memory                     # the default shapes
    python -m bench.memory T1000-B8-I128-H128  # one shape
    python -m bench.memory --threads 1 --checkpoint-every 100 T1000-B8-I128-H128
    python -m bench.memory --accumulate        # no optimiser between the steps

The figure is the highest memory of a process less the memory that it had after a step
of a small layer: that of weights and their gradients, of x, y and their gradients, and
of what is kept between forward and backward. Two steps are run, so that memory that is
kept from one step to the next counts, too. Each step ends with plain SGD, which has no
memory of its own but changes the weights. This works on Linux only, since the figures
are those of /proc/self/status.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from bench.case import Shape

# The layers that PyTorch has, too.
CLASSES = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
SHAPES = (
    "T1000-B8-I128-H128",
    "T100-B64-I256-H256",
    "T100-B64-I512-H512",
    "T35-B20-I1024-H1024",
    "T100-B1-I1024-H1024",
)
WARM = Shape(20, 4, 32, 32)
STEPS = 2
LR = 1e-6


def resident(name):
    """The bytes of a line of /proc/self/status.

    VmRSS is the memory of the process now, VmHWM the highest that it had.
    """
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) * 1024


def train_ours(cell, shape, n_threads, every, layers, accumulate):
    """Run training steps of a new fastrnn layer."""
    import numpy as np

    import fastrnn

    fastrnn.set_num_threads(n_threads)
    layer = getattr(fastrnn, CLASSES[cell])(
        shape.I, shape.H, layers, checkpoint_every=every, seed=0
    )
    x = np.ones((shape.T, shape.B, shape.I), "f")
    dy = np.ones((shape.T, shape.B, shape.H), "f")
    optimizer = fastrnn.SGD(layer, lr=LR)
    for _ in range(STEPS):
        y, _ = layer(x)
        dx, _ = layer.backward(dy)
        if not accumulate:
            optimizer.step()
            optimizer.zero_grad()
    return y, dx


def train_torch(cell, shape, n_threads, every, layers, accumulate):
    """Run training steps of a new PyTorch layer."""
    import torch

    torch.set_num_threads(n_threads)
    layer = getattr(torch.nn, CLASSES[cell])(shape.I, shape.H, layers)
    x = torch.ones((shape.T, shape.B, shape.I), requires_grad=True)
    dy = torch.ones((shape.T, shape.B, shape.H))
    optimizer = torch.optim.SGD(layer.parameters(), lr=LR)
    for _ in range(STEPS):
        x.grad = None
        y, _ = layer(x)
        y.backward(dy)
        if not accumulate:
            optimizer.step()
            optimizer.zero_grad()
    return y, x.grad


SIDES = {"fastrnn": train_ours, "PyTorch": train_torch}


def measure(side, cell, shape, *settings):
    """The peak in bytes of this process, which must not have measured before."""
    SIDES[side](cell, WARM, *settings)
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to what VmRSS is now
    before = resident("VmRSS")
    results = SIDES[side](cell, shape, *settings)
    del results
    return resident("VmHWM") - before


def in_new_process(*arguments):
    """Call `measure` in a fresh interpreter."""
    command = [sys.executable, "-m", "bench.memory", "--measure", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"bench.memory: {arguments} failed:\n{done.stderr}")
    return int(done.stdout)


def main():
    parser = argparse.ArgumentParser(
        prog="python -m bench.memory", description=__doc__.split("\n")[0]
    )
    parser.add_argument("shapes", nargs="*", default=SHAPES, help="T100-B64-I512-H512")
    parser.add_argument("--cells", nargs="+", choices=CLASSES, default=tuple(CLASSES))
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoint-every", type=int, help="ours only")
    parser.add_argument("--accumulate", action="store_true", help="no optimiser")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        side, cell, shape, *settings = json.loads(options.measure)
        print(measure(side, cell, Shape(*shape), *settings))
        return
    settings = options.threads, options.checkpoint_every, options.layers
    settings += (options.accumulate,)
    for text in options.shapes:
        shape = Shape.parse(text)
        for cell in options.cells:
            ours, theirs = (in_new_process(s, cell, shape, *settings) for s in SIDES)
            print(
                f"{cell:4}  {shape}  fastrnn {ours / 2**20:7.1f} MiB  "
                f"PyTorch {theirs / 2**20:7.1f} MiB  {ours / theirs:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
