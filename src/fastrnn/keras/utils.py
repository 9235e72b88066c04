# SPDX-License-Identifier: BSD-3-Clause
"""Helpers under Keras's names."""

import random
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.data.keras_padding import pad_sequences
from fastrnn.data.series import one_hot as to_categorical
from fastrnn.keras._absent import answers
from fastrnn.util import checks
from fastrnn.util.seeds import set_seed

__all__ = ["pad_sequences", "set_random_seed", "to_categorical"]


def set_random_seed(seed: int) -> None:
    """Let all random numbers repeat: `fastrnn.set_seed`, and Python's and NumPy's.

    Parameters
    ----------
    seed : int
        From 0 to 2^32 - 1, as NumPy takes it.

    Raises
    ------
    TypeError, ValueError
        If `seed` is nothing of the kind.

    Examples
    --------
    >>> set_random_seed(1)
    >>> first = np.random.rand(), fastrnn.Linear(2, 2).parameters["weight"]
    >>> set_random_seed(1)
    >>> first[0] == np.random.rand()
    True
    >>> np.array_equal(first[1], fastrnn.Linear(2, 2).parameters["weight"])
    True
    >>> fastrnn.set_seed(None)
    """
    checks.not_negative("set_random_seed", "seed", seed)
    if seed >= 2**32:
        raise ValueError(f"set_random_seed: seed must be below 2^32, got {seed}")
    np.random.seed(seed)  # noqa: NPY002  programs of Keras's draw from it
    random.seed(seed)
    set_seed(seed)


if not TYPE_CHECKING:  # a checker that saw this would believe in every name
    __getattr__ = answers("utils", globals())
