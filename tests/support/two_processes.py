# SPDX-License-Identifier: BSD-3-Clause
"""A program of two processes, which train networks of the drop-in and of torch.nn.

``python -m torch.distributed.run --nproc-per-node 2 two_processes.py FILE`` writes what
it finds to the file, as JSON, and then runs ``examples/drop_in/ddp.py``;
`tests/torch/test_distributed.py` judges it.
"""

import datetime
import json
import os
import runpy
import socket
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import state_dict as states
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fastrnn.torch
from fastrnn.torch import _stack, accelerate, explain, restore

EXAMPLE = Path(__file__).parents[2] / "examples" / "drop_in" / "ddp.py"
T, B, STEPS = 6, 4, 3
_calls = 0


def count_calls():
    """Count the forwards that the kernels run, in `_calls`."""
    forward = _stack.forward

    def counted(*args):
        global _calls
        _calls += 1
        return forward(*args)

    _stack.forward = counted


class Net(torch.nn.Module):
    """A recurrent layer between two others."""

    def __init__(self, library, name="LSTM", packed=False, **options):
        super().__init__()
        self.first, self.packed = torch.nn.Linear(3, 6), packed
        self.layer = getattr(library, name)(6, 8, **options)
        width = options.get("proj_size", 8) * (2 if "bidirectional" in options else 1)
        self.last = torch.nn.Linear(width, 2)

    def forward(self, x):
        x = torch.tanh(self.first(x))
        if self.packed:
            x = pack_padded_sequence(x, torch.tensor([T, T - 2])[: x.shape[1]])
        y, _ = self.layer(x)
        return self.last(pad_packed_sequence(y)[0] if self.packed else y)


class Shared(torch.nn.Module):
    """Two layers that have two parameters in common."""

    def __init__(self, library):
        super().__init__()
        self.one, self.two = library.LSTM(3, 3), library.LSTM(3, 3)
        self.two.weight_ih_l0 = self.one.weight_ih_l0
        self.two.weight_hh_l0 = self.one.weight_hh_l0

    def forward(self, x):
        return self.two(self.one(x)[0])[0]


class Cells(torch.nn.Module):
    """Two cells, one step at a time."""

    def __init__(self, library):
        super().__init__()
        self.one, self.two = library.GRUCell(3, 6), library.LSTMCell(6, 5)

    def forward(self, x):
        h, state, outputs = None, None, []
        for step in x:
            h = self.one(step, h)
            state = self.two(h, state)
            outputs.append(state[0])
        return torch.stack(outputs)


class Written(torch.nn.Module):
    """Writes to a layer's outputs, which it has batch first."""

    def __init__(self, library):
        super().__init__()
        self.layer = library.GRU(3, 8, batch_first=True)

    def forward(self, x):
        y, _ = self.layer(x.transpose(0, 1))
        y += 1.0
        return y


class Unused(Net):
    """A network with a layer that no loss depends on."""

    def __init__(self, library):
        super().__init__(library)
        self.other = library.GRU(3, 4)


def normalised(library):
    net = Net(library, "GRU")
    torch.nn.utils.parametrizations.weight_norm(net.layer, "weight_hh_l0")
    return net


def sharded(net, **options):
    """Every layer in a shard of its own, then the rest."""
    for child in net.children():
        fully_shard(child, **options)
    return fully_shard(net, **options)


NETS = {
    "lstm": Net,
    "gru": lambda library: Net(library, "GRU", num_layers=2),
    "bidirectional": lambda library: Net(library, bidirectional=True, num_layers=2),
    "projected": lambda library: Net(library, proj_size=3),
    "packed": lambda library: Net(library, packed=True, bidirectional=True),
    "shared": Shared,
    "cells": Cells,
    "written": Written,
    "unused": Unused,
    "weight norm": normalised,
}
WRAPS = {
    "DDP": DDP,
    "DDP static": lambda net: DDP(net, static_graph=True),
    "DDP unused": lambda net: DDP(net, find_unused_parameters=True),
    "DDP views": lambda net: DDP(net, gradient_as_bucket_view=True),
    "FSDP2": lambda net: sharded(net, reshard_after_forward=True),
    "FSDP2 kept": lambda net: sharded(net, reshard_after_forward=False),
    "FSDP2 whole": fully_shard,
    "FSDP2 bfloat16": lambda net: sharded(
        net, mp_policy=MixedPrecisionPolicy(torch.bfloat16, torch.float32)
    ),
}
# The nets of each wrap; the others would take time and tell nothing new.
CASES = [
    *[("DDP", net) for net in NETS if net not in ("unused", "weight norm")],
    *[("FSDP2", net) for net in ("lstm", "projected", "packed", "written", "unused")],
    ("DDP static", "unused"),
    ("DDP unused", "unused"),
    ("DDP views", "lstm"),
    ("FSDP2 kept", "lstm"),
    ("FSDP2 whole", "shared"),
    ("FSDP2 whole", "cells"),
    ("FSDP2 bfloat16", "lstm"),
]


def data(step, rank):
    """The sequences (T, B, 3) of a step: this process's half, or all if rank is -1."""
    x = torch.sin(torch.arange(float(T * B * 3)) * 0.37 + step).reshape(T, B, 3)
    return x if rank < 0 else x[:, rank * B // 2 : (rank + 1) * B // 2]


def train(model, rank, accumulate=False):
    """Train for `STEPS` steps; the mean loss of both processes at each of them.

    With `accumulate`, a step has two forwards and backwards, and the processes take the
    mean of their gradients in the second backward only.
    """
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.05), []

    def run(step):
        # Of a net of packed sequences, a joint batch is run as the two that it is of.
        loss = model(data(step, rank)).square().mean()
        with torch.no_grad():
            mean = loss.clone()
            if rank >= 0:
                dist.all_reduce(mean)
                mean /= 2
            losses.append(mean.item())
        return loss

    for step in range(STEPS):
        optimizer.zero_grad()
        if accumulate:
            if isinstance(model, DDP):
                with model.no_sync():
                    run(100 + step).backward()
            else:
                if isinstance(model, FSDPModule):
                    model.set_requires_gradient_sync(False)
                run(100 + step).backward()
                if isinstance(model, FSDPModule):
                    model.set_requires_gradient_sync(True)
        run(step).backward()
        optimizer.step()
    with torch.no_grad():
        run(STEPS)
    return losses


class Joint(torch.nn.Module):
    """A net of packed sequences on the joint batch: it takes the halves one by one."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return torch.cat([self.net(half) for half in x.chunk(2, dim=1)], 1)


def seeded(make, library):
    torch.manual_seed(0)
    return make(library)


def one_case(wrap, name, how, rank, accumulate=False):
    """The losses of the joint batch, of torch.nn and of ours; and ours's calls."""
    global _calls
    make, wrap = NETS[name], WRAPS[wrap]
    joint = train(Joint(seeded(make, torch.nn)), -1, accumulate)
    theirs = train(wrap(seeded(make, torch.nn)), rank, accumulate)
    _calls = 0
    net = seeded(make, fastrnn.torch if how == "class" else torch.nn)
    if how == "before":
        accelerate(net, verbose=False)
    model = wrap(net)
    if how == "after":
        accelerate(model, verbose=False)
    ours = train(model, rank, accumulate)
    return {"joint": joint, "theirs": theirs, "ours": ours, "calls": _calls}


def full_state(model):
    return states.get_model_state_dict(
        model, options=states.StateDictOptions(full_state_dict=True)
    )


def checkpoints(rank, folder):
    """Save what ours has learned under FSDP2, and go on from it with torch.nn's.

    Returns the losses of torch.nn's from there, and of ours from there; and, on the
    first process, the largest difference of outputs of a plain torch.nn net.
    """
    found, model = {}, sharded(seeded(Net, fastrnn.torch))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    model(data(0, rank)).square().mean().backward()
    optimizer.step()
    of_model, of_optimizer = states.get_state_dict(model, optimizer)
    dcp.save({"model": of_model, "optimizer": of_optimizer}, checkpoint_id=folder)
    whole = full_state(model)
    y = model(data(1, -1)).detach()
    if rank == 0:
        plain = Net(torch.nn)
        plain.load_state_dict(whole)
        found["plain"] = (plain(data(1, -1)) - y).abs().max().item()
    for key, library in (("theirs", torch.nn), ("ours", fastrnn.torch)):
        torch.manual_seed(1)
        model = sharded(Net(library))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        model(data(0, rank))  # whatever it has packed is not what it loads
        of_model, of_optimizer = states.get_state_dict(model, optimizer)
        loaded = {"model": of_model, "optimizer": of_optimizer}
        dcp.load(loaded, checkpoint_id=folder)
        states.set_state_dict(
            model,
            optimizer,
            model_state_dict=loaded["model"],
            optim_state_dict=loaded["optimizer"],
        )
        found[key] = train(model, rank)
    return found


def names(model):
    return [cls.__name__ for cls in type(model.layer).__mro__[:3]]


def words(rank):
    """What `accelerate`, `explain` and `restore` say and do under FSDP2."""
    found, x = {}, data(0, rank)
    for how in ("before", "after"):
        net = seeded(Net, torch.nn)
        if how == "before":
            accelerate(net, verbose=False)
        model = sharded(net, reshard_after_forward=True)
        if how == "after":
            accelerate(model, verbose=False)
        inside = [names(model)]
        of_layer = explain(model.layer, torch.zeros(T, 2, 6))
        paths = [str(of_layer), str(explain(model, x))]
        losses = train(model, rank)
        restore(model)
        inside.append(names(model))
        paths.append(str(explain(model, x)))
        losses += train(model, rank)
        found[how] = {"classes": inside, "paths": paths, "losses": losses}
    model = sharded(seeded(Net, torch.nn), reshard_after_forward=True)
    found["theirs"] = train(model, rank) + train(model, rank)
    whole = fully_shard(seeded(Net, fastrnn.torch))
    found["part"] = str(explain(whole.layer, torch.zeros(T, 2, 6)))
    return found


def run_examples(*options):
    """Run the example with each of the options.

    It makes a group of processes, so the present one ends here. torchrun's own store
    knows that by the names that the new one would have: each gets a port of its own.
    """
    sockets = [socket.socket() for _ in options]
    for free in sockets:
        free.bind(("localhost", 0))
    ports = [free.getsockname()[1] for free in sockets]
    for free in sockets:
        free.close()
    dist.broadcast_object_list(ports)
    dist.destroy_process_group()
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
    for option, port in zip(options, ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        sys.argv = [str(EXAMPLE), "--quick", *option]
        runpy.run_path(sys.argv[0], run_name="__main__")


def main(file):
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    rank = dist.get_rank()
    count_calls()
    warnings.simplefilter("ignore")  # of projections
    # PyTorch: writing to outputs that are views drops the hooks that gather weights.
    warnings.filterwarnings("error", r".*\(FSDP(LSTM|GRU|RNN)\) returned a view")
    found = {"threads": torch.get_num_threads()}
    for wrap, name in CASES:
        found[f"{wrap}, {name}"] = one_case(wrap, name, "class", rank)
    for wrap in ("DDP", "FSDP2"):
        for how in ("before", "after"):
            key = f"{wrap}, accelerated {how}"
            found[key] = one_case(wrap, "weight norm", how, rank)
        found[f"{wrap}, accumulated"] = one_case(wrap, "lstm", "class", rank, True)
    folder = [tempfile.mkdtemp()]
    dist.broadcast_object_list(folder)
    found["checkpoints"] = checkpoints(rank, folder[0])
    found["words"] = words(rank)
    if rank == 0:
        with open(file, "w", encoding="utf-8") as out:
            json.dump(found, out)
    warnings.simplefilter("ignore")  # the example has torch.nn.LSTM with such views
    run_examples([], ["--sharded"])


if __name__ == "__main__":
    main(sys.argv[1])
