# SPDX-License-Identifier: BSD-3-Clause
"""The cost of cell options, ragged batches and float64, as ratios on one thread.

    python -m bench.options                   # all three tables, about three minutes
    python -m bench.options cells             # options against the plain cell
    python -m bench.options ragged            # lengths= against the dense batch
    python -m bench.options peer              # against PyTorch, off its fast path
    python -m bench.options cells --shape T50-B32-I64-H64 --rounds 9

Two calls are timed in turns in one process with one thread, one block of each in a
round. Each round has a ratio, and the figure is the median of these. Before fastrnn is
timed against PyTorch, their results are compared. For a ragged batch, the call of
PyTorch packs the padded batch and pads the result, as fastrnn's call does.
"""

import argparse
import statistics
from typing import NamedTuple

import numpy as np

import fastrnn
from bench import verify
from bench.case import Shape
from bench.timing import block_time, turns
from fastrnn.recurrent import arguments
from fastrnn.recurrent.table import cells_of, classes, nonlinearities

SHAPES = {
    "cells": [Shape(50, 32, 256, 256)],
    "ragged": [Shape(200, 32, 128, 128), Shape(100, 32, 64, 64)],
    "peer": None,  # each `PeerCase` has its own shape
}
FILL = 0.55  # the mean length of a ragged batch's sequences, as a share of the longest

# A value for each option of cells, with which training is timed.
VALUES = {
    "cell_clip": 3.0,
    "activation": "relu",
    "recurrent_activation": "hard_sigmoid",
    "peephole": True,
    "input_forget": True,
    "proj_size": None,  # `measure_cells` makes it half of H
    "reset_after": False,
}


def _options_of(cells):
    """The options of `VALUES` that a class of layers has, given the class's cells."""
    known = arguments.of_cell(cells[0])
    values = {name: value for name, value in VALUES.items() if name in known}
    if values.get("activation") in nonlinearities(cells):
        # A plain cell with this function exists, so the option would change nothing.
        values["activation"] = "softsign"
    return {**values, "learn_initial_state": True}


CELLS = [
    (cls.__name__, {name: value})
    for cls in classes().values()
    for name, value in _options_of(cells_of(cls.__name__)).items()
]


class PeerCase(NamedTuple):
    """A layer of both libraries, and how many times as fast fastrnn's should be."""

    cell: str
    shape: Shape
    options: dict
    ragged: bool
    dtype: str
    goal: float

    @property
    def id(self):
        words = [f"{k}={v}" for k, v in self.options.items()]
        words += ["lengths="] * self.ragged + [self.dtype] * (self.dtype != "float32")
        return f"{self.cell} {self.shape} {' '.join(words)}"


LONG, SHORT = Shape(200, 32, 128, 128), Shape(100, 32, 128, 128)
PEER = [
    PeerCase("LSTM", LONG, {"bidirectional": True}, True, "float32", 9),
    PeerCase("GRU", LONG, {"bidirectional": True}, True, "float32", 6),
    PeerCase("LSTM", SHORT, {"proj_size": 64}, False, "float32", 4.5),
    PeerCase("LSTM", SHORT, {}, False, "float64", 4),
]


class Row(NamedTuple):
    """A line of the output: a ratio of times, and the goal for it."""

    what: str
    milliseconds: float
    ratio: float
    relation: str
    goal: float

    def __str__(self):
        met = self.ratio <= self.goal if self.relation == "<=" else None
        met = self.ratio >= self.goal if met is None else met
        return (
            f"{self.what:58} {self.milliseconds:9.3f} ms  {self.ratio:5.2f}  "
            f"{self.relation} {self.goal:<4} {'' if met else 'MISSED'}".rstrip()
        )


class Side:
    """A layer of fastrnn with its data; `forward` and `train` are what is timed."""

    def __init__(self, cell, shape, dtype="float32", lengths=None, **options):
        T, B, I, H = shape
        self.layer = getattr(fastrnn, cell)(I, H, seed=0, dtype=dtype, **options)
        width = self.layer._y_size
        rng = np.random.default_rng(1)
        self.x = rng.standard_normal((T, B, I)).astype(dtype)
        self.dy = rng.standard_normal((T, B, width)).astype(dtype)
        self.given = {} if lengths is None else {"lengths": lengths}

    def forward(self):
        return self.layer.eval()(self.x, **self.given)[0]

    def train(self):
        self.layer.train().zero_grad()
        y, _ = self.layer(self.x, **self.given)
        return y, self.layer.backward(self.dy)[0]

    def results(self):
        y, dx = self.train()
        return {"y": y, "dx": dx} | {f"d{n}": g for n, g in self.layer.grads.items()}


class TorchSide:
    """A layer of PyTorch with the weights and the data of a `Side`."""

    def __init__(self, ours, case, lengths):
        import torch

        self._torch, self.lengths = torch, lengths
        shape, dtype = case.shape, getattr(torch, case.dtype)
        kind = getattr(torch.nn, case.cell)
        self.layer = kind(shape.I, shape.H, dtype=dtype, **case.options)
        parameters = ours.layer.parameters.items()
        self.layer.load_state_dict({n: torch.tensor(p) for n, p in parameters})
        self.x = torch.tensor(ours.x, requires_grad=True)
        self.dy = torch.tensor(ours.dy)

    def _run(self):
        if self.lengths is None:
            return self.layer(self.x)[0]
        rnn = self._torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(self.x, self.lengths, enforce_sorted=False)
        y, _ = self.layer(packed)
        return rnn.pad_packed_sequence(y, total_length=len(self.x))[0]

    def forward(self):
        self.layer.eval()
        with self._torch.inference_mode():
            return self._run()

    def train(self):
        self.layer.train().zero_grad(set_to_none=True)
        self.x.grad = None
        y = self._run()
        y.backward(self.dy)
        return y

    def results(self):
        y = self.train().detach().numpy()
        grads = {f"d{n}": p.grad.numpy() for n, p in self.layer.named_parameters()}
        return {"y": y, "dx": self.x.grad.numpy(), **grads}


def ragged_lengths(T, B):
    """B unsorted lengths of which the longest is T and the mean is about FILL * T."""
    spread = np.linspace(2 * FILL - 1, 1, B) * T
    return np.random.default_rng(2).permutation(np.rint(spread).clip(1).astype(int))


def ratio(call, other, rounds, block):
    """The milliseconds of `call`, and its time divided by that of `other`: medians."""
    times = {"call": [], "other": []}
    for name in turns(times, rounds):
        times[name].append(block_time({"call": call, "other": other}[name], block)[0])
    pairs = zip(times["call"], times["other"], strict=True)
    found = statistics.median(a / b for a, b in pairs)
    return statistics.median(times["call"]) * 1e3, found


def measure_cells(shape, rounds, block):
    """Rows of training with each cell option, against the plain cell."""
    for cell, option in CELLS:
        goal = 1.3
        if "proj_size" in option:
            option, goal = {"proj_size": shape.H // 2}, 1.6
        found = ratio(
            Side(cell, shape, **option).train, Side(cell, shape).train, rounds, block
        )
        words = " ".join(f"{name}={value}" for name, value in option.items())
        yield Row(f"{cell} {shape} train {words}", *found, "<=", goal)


def measure_ragged(shape, rounds, block):
    """Rows of a ragged batch against a dense one: unsorted, sorted, both passes."""
    lengths = ragged_lengths(shape.T, shape.B)
    orders = {"lengths=": lengths, "lengths= sorted": np.sort(lengths)[::-1]}
    for cell in ("LSTM", "GRU"):
        for way in ("forward", "train"):
            dense = Side(cell, shape)
            for name, order in orders.items():
                ragged = Side(cell, shape, lengths=order)
                found = ratio(getattr(ragged, way), getattr(dense, way), rounds, block)
                yield Row(f"{cell} {shape} {way} {name}", *found, "<=", 0.65)


def measure_peer(case, rounds, block, n_threads=1):
    """Rows of one `PeerCase`: PyTorch's time divided by fastrnn's."""
    import torch

    torch.set_num_threads(n_threads)
    torch.set_flush_denormal(True)  # fastrnn's kernels flush subnormals, too
    lengths = ragged_lengths(case.shape.T, case.shape.B) if case.ragged else None
    ours = Side(case.cell, case.shape, case.dtype, lengths, **case.options)
    theirs = TorchSide(ours, case, None if lengths is None else lengths.tolist())
    verify.compare(theirs.results(), "torch", ours.results(), case, case.dtype)
    for way in ("forward", "train"):
        theirs_ms, found = ratio(
            getattr(theirs, way), getattr(ours, way), rounds, block
        )
        yield Row(f"{case.id} {way}", theirs_ms / found, found, ">=", case.goal)


def measure(table, shape, rounds, block, n_threads=1):
    """Rows of a table, for one shape, or for the table's own shapes with None."""
    if table == "peer":
        for case in PEER:
            if shape is not None:
                case = case._replace(shape=shape)
            yield from measure_peer(case, rounds, block, n_threads)
        return
    for one in [shape] if shape else SHAPES[table]:
        of_shape = {"cells": measure_cells, "ragged": measure_ragged}[table]
        yield from of_shape(one, rounds, block)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m bench.options", description=__doc__.split("\n")[0]
    )
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--shape", type=Shape.parse, help="T100-B64-I512-H512")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--block", type=float, default=0.1, help="seconds")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    for table in options.tables:
        if table not in SHAPES:
            parser.error(f"a table must be one of {', '.join(SHAPES)}, got {table}")
    fastrnn.set_num_threads(options.threads)
    for table in options.tables or SHAPES:
        for row in measure(
            table, options.shape, options.rounds, options.block, options.threads
        ):
            print(row, flush=True)


if __name__ == "__main__":
    main()
