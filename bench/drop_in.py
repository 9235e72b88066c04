# SPDX-License-Identifier: BSD-3-Clause
"""Training steps of `fastrnn.torch` against the PyTorch modules that it replaces.

    python -m bench.drop_in                    # two threads, some minutes
    python -m bench.drop_in --threads 1 --rounds 5 --kinds LSTM
    python -m bench.drop_in --overhead         # only what surrounds the kernels
    python -m bench.drop_in --compiled         # only loops over cells, torch.compile
    python -m bench.drop_in --autocast         # only autocast to bfloat16

A step clears the gradients, runs forward and backward through autograd, and yields the
gradients of the input and of every parameter. The modules of both libraries have the
same weights and run in one process in turns. A ratio is PyTorch's time divided by
fastrnn's in the same round; its median and quartiles over the rounds are printed as
Markdown. A packed case is a batch of sequences of 20 to 200 steps, 0.55 of the longest
on average, in both directions.

A compiled case is a loop over a cell of 8 steps, compiled as a whole by
`torch.compile`. Each case is compiled for both libraries, which takes a minute. The
sizes of the autocast cases are on both sides of the size from which calls go to PyTorch
on a CPU that multiplies bfloat16. Compiled and autocast cases are timed in training and
in inference.

The overhead is measured for one layer on one thread, with few steps of one row. It is
the time that a forward call and `torch.autograd.grad` take beyond forward and backward
of the same `fastrnn` layer on NumPy arrays. Two more columns show the least that such
calls take in PyTorch: an autograd function that computes nothing, with as many inputs,
saved tensors and outputs as the layer, and `torch.autograd.grad` of `2 * x`.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence

import fastrnn
import fastrnn.torch
from bench.options import ragged_lengths
from bench.timing import block_time, quartiles, turns

KINDS = ("LSTM", "GRU", "RNN")
T = 100
DENSE = ((64, 128), (64, 512), (32, 64))  # B, H
PACKED = (200, 32, 128)  # T, B, H
STEPS = (1, 10)  # the time steps for which the overhead is measured
COMPILED = (8, ((16, 32), (64, 256)))  # T; B, H
HALF = 0.1  # how much results of bfloat16 may differ, relative to their norm
AUTOCAST = ((8, 64), (64, 128), (64, 512))  # B, H


def pair(kind, H, **options):
    """A module of PyTorch and fastrnn's with the same weights; both have H inputs."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(H, H, **options)
    ours = getattr(fastrnn.torch, kind)(H, H, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def training_step(module, x, dy, lengths=None):
    """A function that runs one training step, and returns all gradients."""
    x = x.clone().requires_grad_()
    leaves = [x, *module.parameters()]

    def step():
        for leaf in leaves:
            leaf.grad = None
        if lengths is None:
            y, _ = module(x)
        else:
            y = module(pack_padded_sequence(x, lengths, enforce_sorted=False))[0].data
        y.backward(dy.to(y.dtype))
        return [leaf.grad for leaf in leaves]

    return step


def dense_case(kind, B, H, steps=T):
    """The name of a case, and a step of each library for it."""
    generator = torch.Generator().manual_seed(1)
    x, dy = (torch.randn(steps, B, H, generator=generator) for _ in range(2))
    name = f"{kind} T{steps} B{B} H{H}"
    return name, *[training_step(module, x, dy) for module in pair(kind, H)]


def packed_case(kind, steps, B, H):
    """The name of a case, and a step of each library for it."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.from_numpy(ragged_lengths(steps, B))
    x = torch.randn(steps, B, H, generator=generator)
    dy = torch.randn(int(lengths.sum()), 2 * H, generator=generator)
    name = f"{kind} packed, T{steps} B{B} H{H} bidirectional"
    modules = pair(kind, H, bidirectional=True)
    return name, *[training_step(module, x, dy, lengths) for module in modules]


class Loop(torch.nn.Module):
    """Runs a cell over all steps of an input, and returns what a layer would."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x):
        hx, outputs = None, []
        for x_t in x:
            hx = self.cell(x_t, hx)
            outputs.append(hx[0] if isinstance(hx, tuple) else hx)
        return torch.stack(outputs), hx


def inference(module, x):
    """A function that runs forward without gradients, and returns the outputs."""

    def step():
        with torch.no_grad():
            return [module(x)[0]]

    return step


def compiled_cases(kind, B, H, steps=COMPILED[0]):
    """For training and for inference: a name, and a step of each library."""
    generator = torch.Generator().manual_seed(1)
    x, dy = (torch.randn(steps, B, H, generator=generator) for _ in range(2))
    torch._dynamo.reset()
    loops = [
        torch.compile(Loop(cell), dynamic=False) for cell in pair(f"{kind}Cell", H)
    ]
    name = f"{kind}Cell compiled, T{steps} B{B} H{H}"
    yield f"{name} training", *[training_step(loop, x, dy) for loop in loops]
    yield f"{name} inference", *[inference(loop, x) for loop in loops]


def autocast_cases(kind, B, H, steps=T):
    """For training and for inference: a name, and a step of each library."""

    def inside(step):
        def run():
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return step()

        return run

    generator = torch.Generator().manual_seed(1)
    x, dy = (torch.randn(steps, B, H, generator=generator) for _ in range(2))
    modules = pair(kind, H)
    name = f"{kind} autocast, T{steps} B{B} H{H}"
    trained = [inside(training_step(module, x, dy)) for module in modules]
    yield f"{name} training", *trained
    yield f"{name} inference", *[inside(inference(module, x)) for module in modules]


def check(name, theirs, ours, limit=1e-4):
    """Raise RuntimeError unless the results of both libraries agree."""
    for want, got in zip(theirs(), ours(), strict=True):
        difference = (got - want).norm() / want.norm()
        if not difference < limit:
            raise RuntimeError(f"bench.drop_in: {name}: differ by {difference:.1e}")


def compare(name, theirs, ours, rounds, limit=1e-4):
    """The cells of a line in the table of speeds."""
    check(name, theirs, ours, limit)
    calls, times = {"theirs": theirs, "ours": ours}, {"theirs": [], "ours": []}
    for side in turns(calls, rounds):
        times[side].append(block_time(calls[side])[0])
    ratio = quartiles([a / b for a, b in zip(*times.values(), strict=True)])
    milliseconds = [1e3 * statistics.median(values) for values in times.values()]
    return (
        name,
        *[f"{value:.2f} ms" for value in milliseconds],
        f"**{ratio['median']:.2f}x** ({ratio['q1']:.2f} - {ratio['q3']:.2f})",
    )


class Empty(torch.autograd.Function):
    """A function with as many tensors as a layer has, which computes nothing."""

    @staticmethod
    def forward(ctx, has_c, x, h0, c0, *weights):
        T, B, H = x.shape
        y = x.new_empty(T, B, H)
        states = [x.new_empty(1, B, H) for _ in range(1 + has_c)]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, h0, c0, *weights, y)
        return y, *states

    @staticmethod
    def backward(ctx, *gradients):
        x, _, _, *weights, _ = ctx.saved_tensors
        return None, torch.empty_like(x), None, None, *map(torch.empty_like, weights)


def overhead_sides(kind, steps, H=16):
    """By name of a side, a pair of functions: its forward and its backward."""
    theirs, ours = pair(kind, H)
    layer = getattr(fastrnn, kind)(H, H, seed=0)
    x, dy = torch.randn(steps, 1, H).requires_grad_(), torch.ones(steps, 1, H)
    array, darray = x.detach().numpy(), np.ones((steps, 1, H), "f")

    def sides_of(function, weights):
        inputs = (x, *weights)
        return function, lambda y: torch.autograd.grad(y, inputs, dy)

    weights = list(ours.parameters())
    return {
        "NumPy layer": (lambda: layer(array), lambda _: layer.backward(darray)),
        "fastrnn.torch": sides_of(lambda: ours(x)[0], weights),
        "torch.nn": sides_of(lambda: theirs(x)[0], list(theirs.parameters())),
        "empty function": sides_of(
            lambda: Empty.apply(kind == "LSTM", x, None, None, *weights)[0], weights
        ),
        "2 * x": sides_of(lambda: 2 * x, []),
    }


def split_times(forward, backward, n):
    """The microseconds of forward and of backward, each the median of n calls."""
    times = []
    for _ in range(n):
        start = time.perf_counter()
        y = forward()
        middle = time.perf_counter()
        backward(y)
        times.append((middle - start, time.perf_counter() - middle))
    return [1e6 * statistics.median(column) for column in zip(*times, strict=True)]


def overhead(kind, steps, rounds, n=300):
    """The cells of a line in the table of overheads."""
    sides = overhead_sides(kind, steps)
    found = {name: [] for name in sides}
    for name in turns(sides, rounds):
        found[name].append(split_times(*sides[name], n))
    medians = {
        name: [statistics.median(column) for column in zip(*values, strict=True)]
        for name, values in found.items()
    }
    of_numpy, of_ours = medians["NumPy layer"], medians["fastrnn.torch"]
    beyond = [b - a for a, b in zip(of_numpy, of_ours, strict=True)]
    return (
        f"{kind} T{steps} B1 H16",
        *[f"{a:.1f} + {b:.1f}" for a, b in medians.values()],
        f"**{beyond[0]:.1f} + {beyond[1]:.1f}**",
    )


def table(*head):
    """Print the head of a Markdown table."""
    line(head)
    line(["---"] * len(head))


def line(cells):
    print(f"| {' | '.join(cells)} |", flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m bench.drop_in", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    for part in ("overhead", "compiled", "autocast"):
        parser.add_argument(f"--{part}", action="store_true", help="measure only that")
    options = parser.parse_args(arguments)
    everything = not (options.overhead or options.compiled or options.autocast)
    torch.set_num_threads(options.threads)
    heads = f"threads: {options.threads}", "PyTorch", "ours", "ratio"
    if everything:
        table(f"training step, {heads[0]}", *heads[1:])
        for kind in options.kinds:
            for B, H in DENSE:
                line(compare(*dense_case(kind, B, H), options.rounds))
            if kind != "RNN":
                line(compare(*packed_case(kind, *PACKED), options.rounds))
        print()
    if everything or options.compiled:
        table(f"loop over a cell, compiled, {heads[0]}", *heads[1:])
        for kind in options.kinds:
            for B, H in COMPILED[1]:
                for case in compiled_cases(kind, B, H):
                    line(compare(*case, options.rounds))
        print()
    if everything or options.autocast:
        table(f"autocast to bfloat16, {heads[0]}", *heads[1:])
        for kind in options.kinds:
            for B, H in AUTOCAST:
                for case in autocast_cases(kind, B, H):
                    line(compare(*case, options.rounds, HALF))
        print()
    if everything or options.overhead:
        overheads(options)


def overheads(options):
    """Print the table of the time that calls take outside of the kernels."""
    torch.set_num_threads(1)
    fastrnn.set_num_threads(1)
    sides = overhead_sides("RNN", 1)
    table("forward + backward, microseconds", *sides, "ours beyond NumPy layer")
    for kind in options.kinds:
        for steps in STEPS:
            line(overhead(kind, steps, options.rounds))


if __name__ == "__main__":
    main()
