# SPDX-License-Identifier: BSD-3-Clause
"""A training step of each example's network here and in PyTorch: no example.

The same layers, shapes, loss, clipping and Adam on one thread, taking turns; medians of
processor time count, so that other jobs on the machine do not. What is no layer of
PyTorch (CRF, CTC, the attention between encoder and decoder) is left out on both sides:
there the loss is the cross entropy of every step. share_price.py has a comparison of
its own, with Keras too.

    python examples/pytorch_time.py [--rounds N]
"""

import argparse
import statistics
import time
from typing import NamedTuple

import numpy as np

import fastrnn


class Network(NamedTuple):
    """Embedding of `inputs` tokens in `width`, if that is not 0; recurrent layers, and
    a linear layer on every step or only the last."""

    cell: str
    inputs: int
    width: int
    hidden: int
    layers: int
    both: bool
    outputs: int
    every: bool
    T: int
    B: int


NETWORKS = {
    "weather": Network("GRU", 6, 0, 48, 1, False, 4, True, 60, 32),
    "japanese_vowels": Network("GRU", 12, 0, 64, 1, True, 9, False, 16, 16),
    "tagging": Network("LSTM", 128, 32, 96, 1, True, 8, True, 128, 32),
    "text_generation": Network("LSTM", 100, 64, 384, 1, False, 100, True, 100, 32),
    "translation, source": Network("LSTM", 80, 64, 128, 1, True, 60, True, 12, 32),
    "translation, target": Network("LSTM", 60, 64, 256, 1, False, 60, True, 12, 32),
    "speech": Network("LSTM", 120, 0, 96, 1, True, 28, True, 60, 16),
    "music": Network("LSTM", 129, 48, 256, 2, False, 129, True, 511, 16),
    "sentiment": Network("GRU", 10_000, 100, 48, 1, True, 2, False, 21, 32),
    "captions": Network("GRU", 25, 32, 128, 1, False, 25, True, 7, 32),
    "dna": Network("GRU", 192, 0, 32, 1, True, 2, True, 399, 32),
    "long_memory, identity RNN": Network("RNN", 2, 0, 100, 1, False, 1, False, 300, 16),
    "long_memory, LSTM": Network("LSTM", 2, 0, 100, 1, False, 1, False, 300, 16),
    "long_memory, GRU": Network("GRU", 2, 0, 100, 1, False, 1, False, 300, 16),
}


def data(net):
    """Input, and what is to be said of it."""
    rng = np.random.default_rng(0)
    shape = (net.T, net.B) if net.every else (net.B,)
    if net.outputs == 1:
        target = rng.random((*shape, 1)).astype("f")
    else:
        target = rng.integers(net.outputs, size=shape)
    if net.width:
        return rng.integers(net.inputs, size=(net.T, net.B)), target
    return rng.normal(size=(net.T, net.B, net.inputs)).astype("f"), target


def options(net):
    relu = {"nonlinearity": "relu"} if net.cell == "RNN" else {}
    return {"num_layers": net.layers, "bidirectional": net.both, **relu}


def ours(net):
    """A training step in fastrnn."""
    size = net.width or net.inputs
    first = [fastrnn.Embedding(net.inputs, size)] if net.width else []
    layer = getattr(fastrnn, net.cell)(
        size, net.hidden, return_sequences=net.every, **options(net)
    )
    head = fastrnn.Linear(net.hidden * (1 + net.both), net.outputs)
    model = fastrnn.Sequential(*first, layer, head)
    optimizer = fastrnn.Adam(model, lr=1e-4)
    loss_of = fastrnn.mse_loss if net.outputs == 1 else fastrnn.cross_entropy
    x, target = data(net)
    x = np.ascontiguousarray(x.swapaxes(0, 1))  # a model takes samples first
    target = np.ascontiguousarray(target.swapaxes(0, 1)) if net.every else target

    def step():
        _, dsaid = loss_of(model(x), target)
        model.zero_grad()
        model.backward(dsaid)
        fastrnn.clip_grad_norm_(model, 1.0)
        optimizer.step()

    return step


def theirs(net):
    """The same in PyTorch."""
    import torch

    size, width = net.width or net.inputs, net.hidden * (1 + net.both)
    embed = torch.nn.Embedding(net.inputs, size) if net.width else torch.nn.Identity()
    layer = getattr(torch.nn, net.cell)(size, net.hidden, **options(net))
    model = torch.nn.ModuleList([embed, layer, torch.nn.Linear(width, net.outputs)])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    name = "mse_loss" if net.outputs == 1 else "cross_entropy"
    loss_of = getattr(torch.nn.functional, name)
    x, target = map(torch.tensor, data(net))

    def step():
        y = layer(embed(x))[0]
        said = model[2](y if net.every else y[-1])
        if name == "cross_entropy":
            said, wanted = said.flatten(0, -2), target.flatten()
        else:
            wanted = target
        optimizer.zero_grad()
        loss_of(said, wanted).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="steps that are timed")
    rounds = parser.parse_args().rounds
    import torch

    fastrnn.set_num_threads(1)
    torch.set_num_threads(1)
    print("milliseconds of a training step    here  PyTorch  ratio")
    for name, net in NETWORKS.items():
        taken = {ours(net): [], theirs(net): []}
        for _ in range(rounds + 1):
            for step, times in taken.items():
                start = time.process_time()
                step()
                times.append(1e3 * (time.process_time() - start))
        here, there = (statistics.median(times[1:]) for times in taken.values())
        print(f"{name:<30} {here:8.2f} {there:8.2f} {there / here:5.2f}x", flush=True)


if __name__ == "__main__":
    main()
