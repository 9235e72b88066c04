# SPDX-License-Identifier: BSD-3-Clause
"""`Tokenizer`, as Keras has it."""

from typing import TYPE_CHECKING

from fastrnn.keras._absent import answers
from fastrnn.text.keras_tokenizer import Tokenizer

__all__ = ["Tokenizer"]

if not TYPE_CHECKING:  # a checker that saw this would believe in every name
    __getattr__ = answers("preprocessing.text", globals())
