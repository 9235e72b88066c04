# SPDX-License-Identifier: BSD-3-Clause
"""`pad_sequences`, as Keras has it."""

from typing import TYPE_CHECKING

from fastrnn.data.keras_padding import pad_sequences
from fastrnn.keras._absent import answers

__all__ = ["pad_sequences"]

if not TYPE_CHECKING:  # a checker that saw this would believe in every name
    __getattr__ = answers("preprocessing.sequence", globals())
