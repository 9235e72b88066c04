# SPDX-License-Identifier: BSD-3-Clause
"""`Settings`: what can be chosen about the training of a character model."""

from dataclasses import dataclass

from fastrnn.util import checks


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes
    ----------
    batch_size : int
        Parallel streams that the text is cut into.
    seq_length : int
        Steps that gradients go back through; the state goes on from window to window.
    epochs : int
        Passes over the training text.
    lr : float > 0
        Adam's learning rate at the start; it falls linearly to zero.
    clip_norm : float > 0
        Gradients are scaled down to this norm.
    seed : int >= 0
        For initial weights and samples.

    Raises
    ------
    ValueError, TypeError
        If a value is not as described.
    """

    batch_size: int = 32
    seq_length: int = 64
    epochs: int = 12
    lr: float = 4e-3
    clip_norm: float = 1.0
    seed: int = 0

    def __post_init__(self):
        who = type(self).__name__
        for name in ("batch_size", "seq_length", "epochs"):
            checks.positive_int(who, name, getattr(self, name))
        for name in ("lr", "clip_norm"):
            checks.real_in(who, name, getattr(self, name), "(0, inf)")
        checks.generator(who, checks.integer(who, "seed", self.seed))
