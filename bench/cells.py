# SPDX-License-Identifier: BSD-3-Clause
"""Cells and options of cells, beside the plain cell and beside a loop in PyTorch.

    python -m bench --suite cells              # two threads, minutes
    python -m bench --suite cells --threads 1 --shapes T50-B32-I64-H64
    python -m bench.cells --only SLSTM,MinGRU --compile

A call is a training step: forward and backward, with the gradients of the input and of
all parameters, of a module of `fastrnn.torch.layers`. The first ratio is its time by
that of the plain cell: the same class without the option, or an LSTM for a class of
other cells. The others are the time of the same cell as a PyTorch user writes it, a
Python loop over time whose product with the input is done for all steps at once, by
ours: eager, under `torch.jit.script`, and with `--compile` under `torch.compile`, which
takes minutes for each cell. The loops are those of tests/support/torch_loops.py, which
judge the kernels in the tests. Two calls are timed in turns, and a ratio is the median
over the rounds. Before, the results of both are compared in evaluation, where zoneout
is its expectation. While it is timed, ours draws, and the loop goes on with that.
"""

import argparse
import statistics
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import torch

from bench.case import Shape
from bench.drop_in import line, table
from bench.options import ratio
from fastrnn.torch import layers

# The tests' judges are the benchmark's peers: the same loops, in one place.
sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
import torch_cells  # noqa: F401  (fills torch_loops.CELLS)
import torch_loops

SHAPES = (Shape(50, 32, 64, 64), Shape(50, 32, 256, 256))
LIMIT = 1e-3  # of a difference, relative to the norm; norms of rows enlarge rounding
OPTIONS_OF = ("LSTM", "GRU", "RNN")  # the classes whose options are compared


class CellCase(NamedTuple):
    """A module, and the cell of `torch_loops.CELLS` that computes the same.

    `more` are the numbers that the loop's cell is given besides the parameters.
    """

    kind: str
    options: dict
    loop: str | None
    more: dict = {}  # noqa: RUF012  (never written to)

    @property
    def name(self):
        words = [f"{name}={value!r}" for name, value in self.options.items()]
        return f"{self.kind}({', '.join(words)})"

    @property
    def plain(self):
        """The class of the plain cell that this one is compared with."""
        return self.kind if self.kind in OPTIONS_OF else "LSTM"


def _normalised(kind, cell, form):
    return [
        CellCase(kind, {norm: form}, f"{norm}_{cell}_{form}")
        for norm in ("layer_norm", "rms_norm")
    ]


CASES = [
    *[
        case
        for form in ("cell", "gates", "carried", "per_gate")
        for case in _normalised("LSTM", "lstm", form)
    ],
    *_normalised("GRU", "gru", "apart"),
    *_normalised("GRU", "gru", "joint"),
    *_normalised("RNN", "rnn_tanh", "apart"),
    CellCase(
        "LSTM",
        {"zoneout": (0.1, 0.05)},
        "lstm",
        {"zoneout_c": 0.1, "zoneout_h": 0.05},
    ),
    CellCase("GRU", {"zoneout": 0.1}, "gru", {"zoneout_h": 0.1}),
    CellCase("RNN", {"zoneout": 0.1}, "rnn_tanh", {"zoneout_h": 0.1}),
    *[
        CellCase(kind, option, loop)
        for kind, loop in (("LSTM", "lstm"), ("GRU", "gru"))
        for option in (
            {"recurrent_dropout": 0.2},
            {"recurrent_dropout": 0.2, "recurrent_dropout_mode": "per_gate"},
            {"recurrent_dropout": 0.2, "recurrent_dropout_mode": "candidate"},
            {"input_dropout": 0.2},
            {"weight_drop": 0.2},
            {"heads": 4},
        )
    ],
    CellCase("MGU", {}, "mgu"),
    CellCase("LiGRU", {}, "ligru"),
    CellCase("LiGRU", {"layer_norm": True}, "layer_norm_ligru"),
    CellCase("LeakyRNN", {"alpha": 0.2}, "leaky_tanh", {"alpha": 0.2}),
    CellCase("SLSTM", {}, "slstm_sigmoid"),
    CellCase("IndRNN", {}, "indrnn"),
    CellCase("MinGRU", {}, "mingru"),
    CellCase("MinLSTM", {}, "minlstm"),
    CellCase("SRU", {"rescale": False}, "sru"),
]


def module_of(kind, shape, **options):
    """A module whose weights PyTorch's seed decides."""
    torch.manual_seed(0)
    return getattr(layers, kind)(shape.I, shape.H, **options)


class Loop:
    """The loop over time that computes what a module does, with its parameters."""

    def __init__(self, case, module, compiler=None):
        self._cell, self._weights = case.loop, dict(module.named_parameters())
        self._more = {k: torch.tensor(v) for k, v in case.more.items()}
        run = torch_loops.loop(case.loop)
        self._run = compiler(run) if compiler else run

    def __call__(self, x):
        weights = torch_loops.named(self._weights) | self._more
        H = torch_loops.units(self._cell, weights)
        start = torch_loops.zeros(self._cell, x.shape[1], H, x)
        return self._run(x, start, weights)


def training_step(call, x, dy, parameters):
    """A function that runs one step and returns y and all gradients."""
    leaves = [x, *parameters]

    def step():
        y, _ = call(x)
        return [y, *torch.autograd.grad(y, leaves, dy)]

    return step


def check(case, ours, theirs):
    """Raise ArithmeticError unless the results of both agree."""
    for got, want in zip(ours(), theirs(), strict=True):
        difference = (got - want).norm() / want.norm()
        if not difference < LIMIT:
            raise ArithmeticError(f"{case.name}: results differ by {difference:.1e}")


def script(run):
    """The loop under torch.jit.script."""
    with warnings.catch_warnings():  # a peer that PyTorch has called old
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(run)


COMPILERS = {"eager": None, "script": script, "compile": torch.compile}


def measure(case, shape, ways, rounds, block):
    """Milliseconds of ours, its ratio to the plain cell, and each way's to ours."""
    module = module_of(case.kind, shape, **case.options)
    plain = module_of(case.plain, shape)
    x = torch.randn(shape.T, shape.B, shape.I, requires_grad=True)
    dy = torch.randn(shape.T, shape.B, shape.H)
    ours = training_step(module, x, dy, [*module.parameters()])
    beside = training_step(plain, x, dy, [*plain.parameters()])
    milliseconds, cost = ratio(ours, beside, rounds, block)
    found = []
    for way in ways:
        loop = Loop(case, module, COMPILERS[way])
        theirs = training_step(loop, x, dy, [*module.parameters()])
        module.eval()
        check(case, ours, theirs)
        module.train()
        found.append(ratio(theirs, ours, rounds, block)[1])
    return milliseconds, cost, found


def run(cases, shapes, ways, rounds, block, threads):
    """Print a table for each shape."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # fastrnn's kernels flush subnormals, too
    for shape in shapes:
        table(
            f"training step, {shape}, threads: {threads}", "ours", "by the plain cell",
            *[f"{way} by ours" for way in ways],
        )  # fmt: skip
        lower = []
        for case in cases:
            ms, cost, found = measure(case, shape, ways, rounds, block)
            lower.append(min(found))
            line(
                [
                    case.name,
                    f"{ms:.2f} ms",
                    f"{cost:.2f}x",
                    *[f"{r:.1f}x" for r in found],
                ]
            )
        line(["median of the fastest loop", "", "", f"{statistics.median(lower):.1f}x"])
        print()


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m bench.cells", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--shape", type=Shape.parse, action="append")
    parser.add_argument("--only", help="classes, separated by commas")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--block", type=float, default=0.05, help="seconds")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    only = options.only.split(",") if options.only else None
    cases = [case for case in CASES if only is None or case.kind in only]
    if not cases:
        parser.error(f"--only must name some of {', '.join(layers.CLASSES)}")
    ways = ["eager", "script"] + ["compile"] * options.compile
    run(
        cases, options.shape or SHAPES, ways, options.rounds, options.block,
        options.threads,
    )  # fmt: skip


if __name__ == "__main__":
    main()
