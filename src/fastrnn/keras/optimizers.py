# SPDX-License-Identifier: BSD-3-Clause
"""Optimisers under Keras's names; without a model they have Keras's defaults."""

from typing import TYPE_CHECKING

from fastrnn.keras._absent import answers
from fastrnn.train.optim import SGD, Adagrad, Adam, AdamW, RMSprop
from fastrnn.train.optimizer import Optimizer

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
]

if not TYPE_CHECKING:  # a checker that saw this would believe in every name
    __getattr__ = answers("optimizers", globals())
