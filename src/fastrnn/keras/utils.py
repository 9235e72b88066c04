# SPDX-License-Identifier: BSD-3-Clause
"""Helpers under Keras's names."""

from typing import TYPE_CHECKING

from fastrnn.data.keras_padding import pad_sequences
from fastrnn.data.series import one_hot as to_categorical
from fastrnn.keras._absent import answers

__all__ = ["pad_sequences", "to_categorical"]

if not TYPE_CHECKING:  # a checker that saw this would believe in every name
    __getattr__ = answers("utils", globals())
