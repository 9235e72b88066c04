# SPDX-License-Identifier: BSD-3-Clause
"""The types of cases: the work of one layer, the training of a model or a program.

Workers that run another library import this module instead of `bench.cases`, which
needs fastrnn to know which cells there are. In a shape, T is the number of time steps,
B of batch rows, I of inputs and H of hidden units; G is the number of gates.
"""

import re
from typing import NamedTuple

from bench import models, programs

_SHAPE = re.compile(r"T(\d+)-B(\d+)-I(\d+)-H(\d+)")


class Shape(NamedTuple):
    """The sizes of one case of a recurrent layer."""

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
    """The case of one layer: a cell, with what its work depends on, pass and shape."""

    cell: str
    direction: str
    shape: Shape
    gates: int
    is_scan: bool = False

    @property
    def id(self):
        return f"{self.cell}/{self.direction}/{self.shape}"

    @property
    def flops(self):
        """The operations: ``2 T B G H (I + H)``, and three times that in training.

        A cell whose recurrence is elementwise has no product with h.
        Only the matrix products are counted, where an FMA is two operations;
        activations are not.
        """
        T, B, I, H = self.shape
        forward = 2 * T * B * self.gates * H * (I + (0 if self.is_scan else H))
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
    """The case of a whole training step, or epoch, of one model of `bench.models`."""

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


class ProgramCase(NamedTuple):
    """The case of one ``train_on_batch`` of a program of `bench.programs`."""

    program: programs.Program
    direction = "train"

    @property
    def id(self):
        return f"keras/train/{self.program.name}"

    @property
    def flops(self):
        return self.program.flops

    def describe(self):
        """Plain values for the JSON file."""
        return {
            "id": self.id,
            "kind": "program",
            "pass": "train",
            **self.program._asdict(),
            "label": self.program.label,
            "flops": self.flops,
        }
