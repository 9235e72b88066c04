# SPDX-License-Identifier: BSD-3-Clause
"""The programs of Keras whose training steps are timed as a user runs them.

A program is recurrent layers and a `Dense` on the last output, compiled with the mean
squared error and Adam. A call is ``train_on_batch`` of one batch of NumPy arrays.
"""

from typing import NamedTuple

LAYERS = {"lstm": "LSTM", "gru": "GRU", "rnn": "SimpleRNN"}
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
LR = 1e-3  # Keras's own for Adam


class Program(NamedTuple):
    """The sizes of a program: its layers have H units each, the first has E inputs.

    The attributes that `bench.models.Model` has mean the same here.
    """

    name: str
    cell: str
    E: int
    H: int
    layers: int
    T: int
    B: int

    V = 0
    classes = 1
    steps = 1

    @property
    def gates(self):
        """The number of gates of the cell."""
        return GATES[self.cell]

    @property
    def windows(self):
        """The number of sequences, which are one batch."""
        return self.B

    @property
    def label(self):
        """The layers as a table names them: ``LSTM(50) x3``."""
        times = f" x{self.layers}" if self.layers > 1 else ""
        return f"{LAYERS[self.cell]}({self.H}){times}"

    @property
    def flops(self):
        """The operations of one call: products of layers and `Dense` times three."""
        widths = [self.E] + [self.H] * (self.layers - 1)
        recurrent = sum(2 * self.T * self.gates * self.H * (w + self.H) for w in widths)
        return 3 * self.B * (recurrent + 2 * self.H)


PROGRAMS = (
    Program("lstm-H128", "lstm", 32, 128, 1, 100, 64),
    Program("gru-H128", "gru", 32, 128, 1, 100, 64),
    Program("lstm-H50x3", "lstm", 1, 50, 3, 100, 64),
    Program("rnn-H128", "rnn", 32, 128, 1, 100, 64),
)
CHECK_PROGRAMS = (
    Program("check-lstm", "lstm", 5, 17, 2, 6, 8),
    Program("check-gru", "gru", 5, 17, 1, 6, 8),
    Program("check-rnn", "rnn", 5, 17, 1, 6, 8),
)


def by_name(name):
    """The program of a name; for any other text ValueError lists the names."""
    found = {program.name: program for program in (*PROGRAMS, *CHECK_PROGRAMS)}
    if name not in found:
        raise ValueError(
            f"bench: program must be one of {', '.join(found)}, got {name!r}"
        )
    return found[name]
