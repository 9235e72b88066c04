# SPDX-License-Identifier: BSD-3-Clause
"""Data-parallel training in several processes, with and without fastrnn
======================================================================

::

    pip install "fastrnn[torch]"
    torchrun --nproc-per-node 2 ddp.py [--sharded] [--quick]

The net finds the sum of the steps that are marked among random ones (Hochreiter and
Schmidhuber's adding problem). Each process has its own part of the sequences, over
gloo: whole models in `DistributedDataParallel`, or with ``--sharded`` parts of one
model by `fully_shard` (FSDP2). The one line is marked. Both runs have the same seed.
"""

import argparse
import time

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import fastrnn.torch


class Adder(torch.nn.Module):
    """An LSTM over the sequences, and a line from its last output."""

    def __init__(self, hidden_size):
        super().__init__()
        self.lstm = torch.nn.LSTM(2, hidden_size, batch_first=True)
        self.line = torch.nn.Linear(hidden_size, 1)

    def forward(self, x):
        y, _ = self.lstm(x)
        return self.line(y[:, -1])[:, 0]


def sequences(step, B, T):
    """A process's own sequences (B, T, 2) of a step, and the sums (B,) to find."""
    draw = torch.Generator().manual_seed(step * dist.get_world_size() + dist.get_rank())
    numbers = torch.rand(B, T, generator=draw)
    marked = torch.stack([torch.randperm(T, generator=draw)[:2] for _ in range(B)])
    marks = torch.zeros(B, T).scatter(1, marked, 1.0)
    return torch.stack([numbers, marks], -1), (numbers * marks).sum(1)


def train(arguments, accelerated):
    """The mean loss of all processes at each step, and the seconds of a step."""
    torch.manual_seed(0)
    model = Adder(arguments.hidden_size)
    if accelerated:
        fastrnn.torch.accelerate(model, verbose=False)  # the one line
    if arguments.sharded:
        fully_shard(model.lstm)
        model = fully_shard(model)
    else:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses, begin = [], time.perf_counter()
    for step in range(arguments.steps):
        x, sums = sequences(step, arguments.batch_size, arguments.length)
        loss = (model(x) - sums).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            dist.all_reduce(loss)
        losses.append(loss.item() / dist.get_world_size())
    seconds = (time.perf_counter() - begin) / arguments.steps
    # The weights under torch.nn's names, whole: any process of any kind can load them.
    whole = StateDictOptions(full_state_dict=True)
    return losses, seconds, get_model_state_dict(model, options=whole)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sharded", action="store_true", help="FSDP2 in place of DDP")
    parser.add_argument("--quick", action="store_true", help="a few small steps")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=64, help="of each process")
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--hidden-size", type=int, default=128)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps, arguments.batch_size, arguments.hidden_size = 5, 8, 16
    dist.init_process_group("gloo")
    results = {
        name: train(arguments, name == "fastrnn") for name in ("torch", "fastrnn")
    }
    if dist.get_rank() == 0:
        n, threads = dist.get_world_size(), torch.get_num_threads()
        print(f"{n} processes, {threads} thread(s) each")
        for name, (losses, seconds, state) in results.items():
            tail = losses[-max(len(losses) // 10, 1) :]
            print(
                f"{name}: loss {losses[0]:.6f} at first, {sum(tail) / len(tail):.6f} "
                f"at the end, {1e3 * seconds:.1f} ms a step"
            )
            if state:  # of shards, the first process alone has the whole
                Adder(arguments.hidden_size).load_state_dict(state)
        pairs = zip(*(losses[:10] for losses, _, _ in results.values()), strict=True)
        print(
            f"largest difference in ten steps: {max(abs(a - b) for a, b in pairs):.1e}"
        )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
