# SPDX-License-Identifier: BSD-3-Clause
"""Copies of chosen rows of arrays, and the gradients of such copies.

The kernels' embedding does both: it copies rows of a table, and its backward adds
gradients to the rows that they belong to, in a fixed order whatever the number of
threads.
"""

import numpy as np


def gather(plan, array, indices):
    """Copy rows of an array of any number of axes, which is taken as (rows, width).

    Parameters
    ----------
    plan : arrays.ArrayPlan
        Its kernels and threads do the work.
    indices : ndarray of int64
        Which rows; -1 gives a row of zeros.
    """
    width = array.shape[-1]
    result = np.empty((len(indices), width), array.dtype)
    plan.kernels.embedding_forward(
        plan.n_threads, len(indices), array.size // width, width, indices, array,
        result, True,
    )  # fmt: skip
    return result


def gather_directions(plan, array, indices):
    """Copy rows, each direction's part of a row from a row of its own.

    Parameters
    ----------
    array : ndarray, shape (N, D * S)
        Outputs of D directions side by side.
    indices : ndarray of int64, shape (D, M) or (1, M)
        Which row each of M results has of each direction; with one row of indices the
        directions agree.

    Returns
    -------
    ndarray, shape (M, D * S)
    """
    width = array.shape[-1]
    parts = array.reshape(-1, width // len(indices))
    return gather(plan, parts, _of_parts(indices)).reshape(-1, width)


def add_directions(plan, d_result, indices, n_rows):
    """Gradient (n_rows, D * S) of the array that `gather_directions` copied from.

    A row that was copied several times has the sum of the copies' gradients.
    """
    width, D = d_result.shape[-1], len(indices)
    d_array = np.zeros((n_rows, width), d_result.dtype)
    parts = _of_parts(indices)
    plan.kernels.embedding_backward(
        plan.n_threads, len(parts), n_rows * D, width // D, parts, -1, d_result, d_array
    )
    return d_array


def _of_parts(indices):
    """Indices of rows that hold one direction's part each, from those of whole rows."""
    D = len(indices)
    if D == 1:
        return indices[0]
    parts = indices.T * D + np.arange(D)
    parts[indices.T < 0] = -1
    return parts.ravel()
