# SPDX-License-Identifier: BSD-3-Clause
"""Products of bfloat16: what they gain, and what they cost in accuracy.

    python -m bench.half                       # one thread, some minutes
    python -m bench.half --kinds LSTM --sizes 32x64 64x256 --rounds 3

For each case, a layer of T = 100 steps with as many inputs as units, five ways take
turns: fastrnn in float32 and with ``compute="bfloat16"``; PyTorch in float32, under
autocast to bfloat16, and with bfloat16 parameters. A way that a machine cannot run is
left out, with PyTorch's reason below the table. Columns are GFLOP/s of inference and of
a training step (forward and backward), the median of the rounds; the gain of training
over the same library's float32 in the same rounds; and the relative errors, as roots of
mean squares, of y and of the gradient of R against PyTorch in float64. Printed as
Markdown.
"""

import argparse
import contextlib
import statistics

import numpy as np
import torch

import fastrnn
from bench.timing import block_time, turns
from fastrnn.native import core

KINDS = {"LSTM": 4, "GRU": 3, "RNN": 1}
T = 100
SIZES = ("32x64", "64x128", "64x256", "64x512", "64x1024")  # B x H
HALF = torch.bfloat16


class Own:
    """A way of fastrnn's."""

    def __init__(self, kind, values, x, dy, compute):
        H = x.shape[-1]
        self.layer = getattr(fastrnn, kind)(H, H, compute=compute)
        self.layer.load_state_dict({k: v.numpy() for k, v in values.items()})
        self.x, self.dy = x.numpy(), dy.numpy()

    def infer(self):
        self.layer.eval()
        return self.layer(self.x)[0]

    def train(self):
        self.layer.train()
        self.layer.zero_grad()
        y, _ = self.layer(self.x)
        self.layer.backward(self.dy)
        return y, self.layer.grads["weight_hh_l0"]


class Theirs:
    """A way of PyTorch's: with a type of parameters, and autocast or not."""

    def __init__(self, kind, values, x, dy, dtype, autocast):
        H = x.shape[-1]
        self.layer = getattr(torch.nn, kind)(H, H).to(dtype)
        self.layer.load_state_dict({k: v.to(dtype) for k, v in values.items()})
        self.x, self.dy = x.to(dtype).requires_grad_(), dy.to(dtype)
        self.autocast = autocast

    def _forward(self):
        how = contextlib.nullcontext()
        if self.autocast:
            how = torch.autocast("cpu", HALF)
        with how:
            return self.layer(self.x)[0]

    def infer(self):
        with torch.no_grad():
            return self._forward()

    def train(self):
        self.layer.zero_grad()
        self.x.grad = None
        y = self._forward()
        y.backward(self.dy.to(y.dtype))
        return y.detach(), self.layer.weight_hh_l0.grad


def distance(a, exact):
    """The relative error of a, as a root of mean squares."""
    a = a.double().numpy() if isinstance(a, torch.Tensor) else np.asarray(a, float)
    return float(np.sqrt(((a - exact) ** 2).sum() / (exact**2).sum()))


def ways(kind, B, H, steps=T):
    """The ways of a case by name, y and dR in float64, and why ways are missing."""
    torch.manual_seed(0)
    values = getattr(torch.nn, kind)(H, H).state_dict()
    x, dy = torch.randn(steps, B, H), torch.randn(steps, B, H)
    exact = Theirs(kind, values, x, dy, torch.float64, False).train()
    makers = {
        "fastrnn float32": lambda: Own(kind, values, x, dy, None),
        "fastrnn bfloat16": lambda: Own(kind, values, x, dy, "bfloat16"),
        "PyTorch float32": lambda: Theirs(kind, values, x, dy, torch.float32, False),
        "PyTorch autocast": lambda: Theirs(kind, values, x, dy, torch.float32, True),
        "PyTorch bfloat16": lambda: Theirs(kind, values, x, dy, HALF, False),
    }
    found, missing = {}, {}
    for name, make in makers.items():
        way = make()
        try:
            way.infer()
            way.train()
        except RuntimeError as error:
            missing[name] = str(error).splitlines()[0]
            continue
        found[name] = way
    return found, [part.numpy() for part in exact], missing


def compare(kind, B, H, rounds, steps=T):
    """The lines of a case's table, and why ways are missing."""
    found, (y, dR), missing = ways(kind, B, H, steps)
    flops = 2 * KINDS[kind] * 2 * H * H * steps * B
    times = {name: ([], []) for name in found}
    for name in turns(found, rounds):
        for i, call in enumerate((found[name].infer, found[name].train)):
            times[name][i].append(block_time(call)[0])
    lines = []
    for name, way in found.items():
        infer, train = times[name]
        base = times[f"{name.split()[0]} float32"][1]
        gain = statistics.median(a / b for a, b in zip(base, train, strict=True))
        ours_y, ours_dR = way.train()
        lines.append(
            f"| {kind} B{B} H{H} | {name} "
            f"| {flops / statistics.median(infer) / 1e9:.0f} "
            f"| {3 * flops / statistics.median(train) / 1e9:.0f} | {gain:.2f} "
            f"| {distance(ours_y, y):.1e} | {distance(ours_dR, dR):.1e} |"
        )
    return lines, missing


def main(arguments=None):
    parser = argparse.ArgumentParser("python -m bench.half", description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="BxH")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    fastrnn.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    print(f"Target {core.active_target()}, {options.threads} thread(s), T{T}.\n")
    print("| case | way | inference | training | gain | error of y | error of dR |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    reasons = {}
    for kind in options.kinds:
        for size in options.sizes:
            B, H = map(int, size.split("x"))
            lines, missing = compare(kind, B, H, options.rounds)
            reasons |= {f"{kind} {name}": why for name, why in missing.items()}
            print(*lines, sep="\n", flush=True)
    for name, why in reasons.items():
        print(f"\n{name}: {why}")


if __name__ == "__main__":
    main()
