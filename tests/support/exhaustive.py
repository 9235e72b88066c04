# SPDX-License-Identifier: BSD-3-Clause
"""Every sequence that a tiny model can write, and the best: what searches must find."""

import itertools

import numpy as np


def log_softmax(logits):
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


def likeliest(score_steps, size, end, max_length, length_penalty):
    """The best sequence by log p / length**length_penalty among those that end.

    Parameters
    ----------
    score_steps : callable
        Logits (n, size) of the n tokens of a sequence, given the sequence.
    size : int
        Tokens.
    end : int or None
        Ends a sequence and counts in its length; None: only max_length does.

    Returns
    -------
    tokens : tuple of int
        Without the end.
    log_p : float
    """
    others = [token for token in range(size) if token != end]
    found = []
    for n in range(max_length):
        if end is None and n < max_length - 1:
            continue
        for tokens in itertools.product(others, repeat=n):
            for last in others if end is None else [end]:
                whole = (*tokens, last)
                log_p = log_softmax(score_steps(whole))
                log_p = log_p[np.arange(n + 1), whole].sum()
                kept = whole if end is None else tokens
                found.append((log_p / (n + 1) ** length_penalty, kept, log_p))
    _, tokens, log_p = max(found)
    return tokens, log_p
