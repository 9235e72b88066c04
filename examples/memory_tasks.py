# SPDX-License-Identifier: BSD-3-Clause
"""The adding problem and the copying task, for long_memory.py: no example."""

import numpy as np

import fastrnn

LETTERS, WORD = 8, 10  # the copying task's letters, and how many come


def adding(rng, T, B):
    """Numbers and marks (B, T, 2), and the sum of the two marked numbers (B, 1)."""
    x = np.zeros((T, B, 2), "f")
    x[..., 0] = rng.random((T, B))
    first, second = rng.integers(0, T // 2, B), rng.integers(T // 2, T, B)
    rows = np.arange(B)
    x[first, rows, 1] = x[second, rows, 1] = 1
    total = x[first, rows, 0] + x[second, rows, 0]
    return np.ascontiguousarray(x.swapaxes(0, 1)), total[:, None]


def copying(rng, T, B):
    """One-hot letters, blanks and a sign to start (B, T + 20, 10), and the letters
    (B, T + 20) that the last ten steps are to answer; -100 at the others."""
    letters = rng.integers(LETTERS, size=(WORD, B))
    tokens = np.full((T + 2 * WORD, B), LETTERS)
    tokens[:WORD], tokens[-WORD - 1] = letters, LETTERS + 1
    answers = np.full((B, T + 2 * WORD), -100)  # which losses do not count
    answers[:, -WORD:] = letters.T
    return fastrnn.one_hot(tokens.T, LETTERS + 2).astype("f"), answers
