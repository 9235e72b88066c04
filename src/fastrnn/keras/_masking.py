# SPDX-License-Identifier: BSD-3-Clause
"""`MaskedSequential`, a name that is in files of saved models."""

from fastrnn.sequential import Sequential


class MaskedSequential(Sequential):
    """A `Sequential`, which sees to masks itself; older versions wrote this name."""
