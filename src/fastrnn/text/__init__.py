# SPDX-License-Identifier: BSD-3-Clause
"""Text: the command line and its model of characters, vocabularies, tokenisers."""

from fastrnn.text.streams import (
    StreamBatches,
    check_length,
    default_text,
    read_text,
    split_held_out,
)

__all__ = [
    "StreamBatches",
    "check_length",
    "default_text",
    "read_text",
    "split_held_out",
]
