# SPDX-License-Identifier: BSD-3-Clause
"""How the outputs of a bidirectional layer's two directions become one output."""

import numpy as np

MERGE_MODES = ("concat", "sum", "mean", "ave", "mul")


def merge(mode, both):
    """The output that a merge mode makes of both directions' outputs.

    Parameters
    ----------
    mode : str
        One of `MERGE_MODES`; "ave" is another name of "mean".
    both : ndarray, shape (..., 2 * S)
        The two directions' outputs side by side. With one direction and "concat" the
        width is S.

    Returns
    -------
    ndarray, shape (..., S)
        For "concat" it is `both` itself.
    """
    if mode == "concat":
        return both
    one, other = np.split(both, 2, axis=-1)
    if mode == "mul":
        return one * other
    merged = one + other
    if mode != "sum":
        merged *= merged.dtype.type(0.5)
    return merged


def merge_backward(mode, both, d_merged):
    """The gradient of `both` from that of what `merge` made of it."""
    if mode == "concat":
        return d_merged
    if mode == "mul":
        one, other = np.split(both, 2, axis=-1)
        return np.concatenate([d_merged * other, d_merged * one], axis=-1)
    if mode != "sum":
        d_merged = d_merged * d_merged.dtype.type(0.5)
    return np.concatenate([d_merged, d_merged], axis=-1)
