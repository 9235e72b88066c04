# SPDX-License-Identifier: BSD-3-Clause
"""What a case is: one layer's work, or the training of a whole model.

Workers that run another library import this and not `bench.cases`, because that one
asks fastrnn which cells there are.  Letters as everywhere: T time steps, B batch rows,
I inputs, H hidden units, G gates.
"""

import re
from typing import NamedTuple

from bench import models

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
    """One cell, one pass, one shape; and how many gates the cell has."""

    cell: str
    direction: str
    shape: Shape
    gates: int

    @property
    def id(self):
        return f"{self.cell}/{self.direction}/{self.shape}"

    @property
    def flops(self):
        """Operations: ``2 T B G H (I + H)`` forward, three times that in training.

        The products only, an FMA being two; activations are not counted.
        """
        T, B, I, H = self.shape
        forward = 2 * T * B * self.gates * H * (I + H)
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
