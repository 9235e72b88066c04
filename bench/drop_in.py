# SPDX-License-Identifier: BSD-3-Clause
"""Training steps of `fastrnn.torch` against the PyTorch modules that it replaces.

    python -m bench.drop_in                    # two threads, some minutes
    python -m bench.drop_in --threads 1 --rounds 5 --kinds LSTM
    python -m bench.drop_in --overhead         # only what surrounds the kernels

A step clears the gradients, runs forward and backward through autograd, and yields the
gradients of the input and of every parameter. Both modules have the same weights and
run in one process in turns; the ratio is PyTorch's time by ours in the same round, and
median and quartiles over the rounds are printed as Markdown. A packed case is a batch
of sequences of 20 to 200 steps, 0.55 of the whole on average, in both directions.

The overhead is that of one layer, one thread, few steps of one row: what a forward call
and `torch.autograd.grad` take beyond forward and backward of the same `fastrnn` layer
on NumPy arrays. Beside it stand the floors: an autograd function that does nothing with
as many tensors in, saved and out, and `torch.autograd.grad` of `2 * x`.
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
STEPS = (1, 10)  # of the overhead


def pair(kind, H, **options):
    """PyTorch's module and ours, with the same weights; as many inputs as units."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(H, H, **options)
    ours = getattr(fastrnn.torch, kind)(H, H, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def training_step(module, x, dy, lengths=None):
    """One step as a call; returns the gradients of the input and the parameters."""
    x = x.clone().requires_grad_()
    leaves = [x, *module.parameters()]

    def step():
        for leaf in leaves:
            leaf.grad = None
        if lengths is None:
            y, _ = module(x)
        else:
            y = module(pack_padded_sequence(x, lengths, enforce_sorted=False))[0].data
        y.backward(dy)
        return [leaf.grad for leaf in leaves]

    return step


def dense_case(kind, B, H, steps=T):
    """Its name, and a step of each library."""
    generator = torch.Generator().manual_seed(1)
    x, dy = (torch.randn(steps, B, H, generator=generator) for _ in range(2))
    name = f"{kind} T{steps} B{B} H{H}"
    return name, *[training_step(module, x, dy) for module in pair(kind, H)]


def packed_case(kind, steps, B, H):
    """Its name, and a step of each library."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.from_numpy(ragged_lengths(steps, B))
    x = torch.randn(steps, B, H, generator=generator)
    dy = torch.randn(int(lengths.sum()), 2 * H, generator=generator)
    name = f"{kind} packed, T{steps} B{B} H{H} bidirectional"
    modules = pair(kind, H, bidirectional=True)
    return name, *[training_step(module, x, dy, lengths) for module in modules]


def check(name, theirs, ours):
    """RuntimeError unless both libraries' gradients agree."""
    for want, got in zip(theirs(), ours(), strict=True):
        difference = (got - want).norm() / want.norm()
        if not difference < 1e-4:
            raise RuntimeError(f"bench.drop_in: {name}: differ by {difference:.1e}")


def compare(name, theirs, ours, rounds):
    """A line of the table of speeds."""
    check(name, theirs, ours)
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
    """As many tensors as a layer has, and nothing computed."""

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
    """Forward and backward of each side, as pairs of calls."""
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
    """Microseconds of forward and of backward: medians of n."""
    times = []
    for _ in range(n):
        start = time.perf_counter()
        y = forward()
        middle = time.perf_counter()
        backward(y)
        times.append((middle - start, time.perf_counter() - middle))
    return [1e6 * statistics.median(column) for column in zip(*times, strict=True)]


def overhead(kind, steps, rounds, n=300):
    """A line of the table of overheads."""
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
    """Print the first lines of a Markdown table."""
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
    parser.add_argument("--overhead", action="store_true", help="measure only that")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if not options.overhead:
        table(f"training step, threads: {options.threads}", "PyTorch", "ours", "ratio")
        for kind in options.kinds:
            for B, H in DENSE:
                line(compare(*dense_case(kind, B, H), options.rounds))
            if kind != "RNN":
                line(compare(*packed_case(kind, *PACKED), options.rounds))
        print()
    torch.set_num_threads(1)
    fastrnn.set_num_threads(1)
    sides = overhead_sides("RNN", 1)
    table("forward + backward, microseconds", *sides, "ours beyond NumPy layer")
    for kind in options.kinds:
        for steps in STEPS:
            line(overhead(kind, steps, options.rounds))


if __name__ == "__main__":
    main()
