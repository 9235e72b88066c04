# SPDX-License-Identifier: BSD-3-Clause
"""Norms of the gradients of states, step by step: what ``record_flow`` gives."""

import numpy as np


def norms(flow, rows, n_directions, T, by_lag):
    """The norm of dL/dh over batch and units, for each cell and step.

    Parameters
    ----------
    flow : ndarray of float64, shape (n_cells, steps, rows)
        Squared norms that the kernels wrote, for each step of each row.
    rows : Rows or None
        The rows that were computed; None where they are the caller's sequences.
    T : int
        Steps of the caller's arrays.
    by_lag : bool
        Whether to count steps from the end of each row, where a direction ends, and not
        as they are in x.

    Returns
    -------
    ndarray of float64, shape (n_cells, T)
        With `by_lag` and rows, as many steps as the longest row has.
    """
    if rows is None or (rows.padded and not by_lag):
        result = np.sqrt(flow.sum(axis=2))
        if by_lag:  # the second direction ends with the first step
            for cell in range(0, len(result), n_directions):
                result[cell] = result[cell, ::-1].copy()
        return result
    counts = np.diff(rows.offsets)
    total = np.zeros((len(flow), len(counts) if by_lag else T))
    step = np.repeat(np.arange(len(counts)), counts)
    row = np.arange(rows.n_steps) - rows.offsets[step]
    last = np.bincount(row) - 1  # of each row
    for cell, (into, found) in enumerate(zip(total, flow, strict=True)):
        if not by_lag:
            at = rows.order % T if rows.batch_first else rows.order // rows.B
        else:
            at = step if cell % n_directions else last[row] - step
        np.add.at(into, at, found[step, row])
    return np.sqrt(total)
