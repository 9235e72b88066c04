# SPDX-License-Identifier: BSD-3-Clause
"""What is measured: every case has an id, and `find` gives the case of an id.

A layer's id is cell, pass and shape, ``lstm/train/T100-B64-I512-H512``; a whole model's
is ``model/train/`` and its name in `bench.models`. Letters as everywhere: T time steps,
B batch rows, I inputs, H hidden units, G gates.
"""

import re
from typing import NamedTuple

from bench import models

GATES = {"rnn": 1, "rnn_relu": 1, "gru": 3, "lstm": 4}
CELLS = ("lstm", "gru", "rnn")  # of the standard grid
# forward: inference of a whole sequence.  train: zero_grad, forward, and backward with
# the gradients of x and of every parameter.  step: inference of one time step, the
# state carried over from the call before.
PASSES = ("forward", "train", "step")
_SHAPE = re.compile(r"T(\d+)-B(\d+)-I(\d+)-H(\d+)")


class Shape(NamedTuple):
    """Sizes of one recurrent layer's work."""

    T: int
    B: int
    I: int
    H: int

    def __str__(self):
        return f"T{self.T}-B{self.B}-I{self.I}-H{self.H}"

    @classmethod
    def parse(cls, text):
        """Read ``T100-B64-I512-H512``; ValueError for anything else or a zero size."""
        found = _SHAPE.fullmatch(text)
        sizes = [int(size) for size in found.groups()] if found else [0]
        if not all(sizes):
            raise ValueError(
                "bench: a shape must look like T100-B64-I512-H512 with positive "
                f"sizes, got {text!r}"
            )
        return cls(*sizes)


class LayerCase(NamedTuple):
    """One cell, one pass, one shape."""

    cell: str
    direction: str
    shape: Shape

    @property
    def id(self):
        return f"{self.cell}/{self.direction}/{self.shape}"

    @property
    def flops(self):
        """Operations: ``2 T B G H (I + H)`` forward, three times that in training.

        The products only, an FMA being two; activations are not counted.
        """
        T, B, I, H = self.shape
        forward = 2 * T * B * GATES[self.cell] * H * (I + H)
        return forward * (3 if self.direction == "train" else 1)

    def describe(self):
        """Plain values for the JSON file."""
        return {
            "id": self.id,
            "kind": "layer",
            "cell": self.cell,
            "pass": self.direction,
            **self.shape._asdict(),
            "flops": self.flops,
        }


class ModelCase(NamedTuple):
    """Whole training of one model of `bench.models`."""

    model: models.Model
    direction = "train"

    @property
    def id(self):
        return f"model/train/{self.model.name}"

    @property
    def flops(self):
        return self.model.flops

    def describe(self):
        """Plain values for the JSON file."""
        return {
            "id": self.id,
            "kind": "model",
            "pass": "train",
            **self.model._asdict(),
            "items": self.model.items,
            "unit": self.model.unit,
            "flops": self.flops,
        }


def _shapes(*texts):
    return tuple(Shape.parse(text) for text in texts)


# Batches from small to large, then what is bound by latency.
SHAPES = _shapes(
    "T100-B32-I64-H64",
    "T100-B64-I128-H128",
    "T100-B64-I256-H256",
    "T100-B64-I512-H512",
    "T25-B64-I1024-H1024",
    "T32-B1-I32-H32",
    "T100-B1-I128-H128",
    "T100-B1-I512-H512",
    "T100-B1-I1024-H1024",
)
STEP_SHAPES = _shapes("T1-B1-I64-H64")
QUICK_SHAPES = _shapes("T100-B32-I64-H64", "T100-B1-I128-H128")
CHECK_SHAPES = _shapes("T5-B3-I7-H17")
CHECK_STEP_SHAPES = _shapes("T1-B3-I7-H17")


def grid(cells=CELLS, directions=PASSES, shapes=SHAPES):
    """Every case of cells, passes and shapes; ``step`` takes the shapes with T = 1."""
    return [
        LayerCase(cell, direction, shape)
        for direction in directions
        for cell in cells
        for shape in shapes
        if direction != "step" or shape.T == 1
    ]


def standard():
    """The suite behind the README's figures."""
    return [
        *grid(directions=("train", "forward")),
        *grid(directions=("forward", "step"), shapes=STEP_SHAPES),
        *(ModelCase(model) for model in models.MODELS),
    ]


def quick():
    """A few small cases of every kind."""
    return [
        *grid(directions=("train", "forward"), shapes=QUICK_SHAPES),
        *grid(directions=("step",), shapes=STEP_SHAPES),
        ModelCase(models.by_name("char-H128")),
    ]


def check():
    """The smallest cases with every feature, one of each kind."""
    return [
        *grid((*CELLS, "rnn_relu"), ("train", "forward"), CHECK_SHAPES),
        *grid((*CELLS, "rnn_relu"), ("step",), CHECK_STEP_SHAPES),
        *(ModelCase(model) for model in models.CHECK_MODELS),
    ]


def find(case_id):
    """The case of an id; ValueError that says what an id looks like."""
    head, _, rest = case_id.partition("/")
    direction, _, last = rest.partition("/")
    if head == "model" and direction == "train":
        return ModelCase(models.by_name(last))
    if head not in GATES or direction not in PASSES:
        raise ValueError(
            "bench: a case's id must look like lstm/train/T100-B64-I512-H512 or "
            f"model/train/char-H128, got {case_id!r}"
        )
    shape = Shape.parse(last)
    if direction == "step" and shape.T != 1:
        raise ValueError(f"bench: pass step needs a shape with T1, got {case_id!r}")
    return LayerCase(head, direction, shape)
