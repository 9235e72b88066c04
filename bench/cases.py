# SPDX-License-Identifier: BSD-3-Clause
"""What is measured: the one list of cases, each with an id such as
``lstm/train/T100-B64-I512-H512``.

Letters as everywhere: T time steps, B batch rows, I inputs, H hidden units, G gates.
"""

import re
from typing import NamedTuple

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
# forward: in inference, nothing kept.  train: zero_grad, forward, and backward with the
# gradients of x and of every parameter.
PASSES = ("forward", "train")
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


class Case(NamedTuple):
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


# Small to large, then the two that are bound by latency.
SHAPES = tuple(
    Shape.parse(text)
    for text in (
        "T100-B32-I64-H64",
        "T100-B64-I128-H128",
        "T100-B64-I256-H256",
        "T100-B64-I512-H512",
        "T32-B1-I32-H32",
        "T100-B1-I128-H128",
    )
)
QUICK_SHAPES = (SHAPES[0], SHAPES[1], SHAPES[4])
CHECK_SHAPES = (Shape(5, 3, 7, 17),)
CELLS = ("lstm", "gru", "rnn")


def cases(cells=CELLS, directions=PASSES, shapes=SHAPES):
    """Every case of a grid, training steps last, as they are printed."""
    return [
        Case(cell, direction, shape)
        for direction in directions
        for cell in cells
        for shape in shapes
    ]
