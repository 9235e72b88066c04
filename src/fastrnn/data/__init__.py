# SPDX-License-Identifier: BSD-3-Clause
"""Data on its way to a model: series, sequences, samples."""

from fastrnn.data.series import one_hot, split_by_time, windows

__all__ = ["one_hot", "split_by_time", "windows"]
