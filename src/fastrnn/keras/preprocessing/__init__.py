# SPDX-License-Identifier: BSD-3-Clause
"""`sequence.pad_sequences` and `text.Tokenizer`, where Keras has them."""

from typing import TYPE_CHECKING

from fastrnn.keras._absent import answers
from fastrnn.keras.preprocessing import sequence, text

__all__ = ["sequence", "text"]

if not TYPE_CHECKING:  # a checker that saw this would believe in every name
    __getattr__ = answers("preprocessing", globals())
