# SPDX-License-Identifier: BSD-3-Clause
"""Writing sequences with a model that steps: greedy, by drawing, by beam search.

A *writer*, such as `fastrnn.generation.decoding.Writer`, runs N rows together.
``step(tokens)`` takes the last token of each row, (N,), and gives the logits of the
next, (N, V), and the attention weights, (N, S) or None; ``reorder(rows)`` puts row
``rows[n]``'s state in place of row n's.
"""

from dataclasses import dataclass

import numpy as np

from fastrnn.generation import sampling
from fastrnn.util import checks
from fastrnn.util.functions import largest, log_normalised
from fastrnn.util.typing import Array


@dataclass(frozen=True, slots=True, eq=False)
class Generated:
    """Sequences that a model has written.

    Attributes
    ----------
    tokens : list of ndarray of int64
        One array for each sequence, without start and end tokens.
    log_probabilities : ndarray of float64, shape (B,)
        Of the tokens of each sequence and of its end, under the model itself, whatever
        the temperature.
    ended : ndarray of bool, shape (B,)
        Whether the end token came; if not, the greatest length did.
    weights : list of ndarray, or None
        Attention weights of each sequence, (tokens, source steps), from a model with
        attention.

    Examples
    --------
    >>> model = fastrnn.Generator(9, fastrnn.GRU(4, 8, seed=0), start=0, end=1, seed=0)
    >>> written = model.generate(max_length=5, seed=0)
    >>> [len(tokens) for tokens in written.tokens], written.ended
    ([5], array([False]))
    """

    tokens: list[Array]
    log_probabilities: Array
    ended: Array
    weights: list[Array] | None


class SearchOptions:
    """How to write: the checked arguments of a ``generate`` method."""

    __slots__ = (
        "beam_width",
        "length_penalty",
        "max_length",
        "rng",
        "temperature",
        "top_k",
        "top_p",
        "who",
    )

    def __init__(
        self,
        who,
        default_temperature,
        max_length,
        temperature,
        top_k,
        top_p,
        beam_width,
        length_penalty,
        seed,
    ):
        self.who = who
        self.max_length = checks.positive_int(who, "max_length", max_length)
        if beam_width is not None:
            beam_width = checks.positive_int(who, "beam_width", beam_width)
            for name, value in (
                ("temperature", temperature),
                ("top_k", top_k),
                ("top_p", top_p),
            ):
                if value is not None:
                    raise ValueError(
                        f"{who}: {name} must be None with beam_width, got {value!r}"
                    )
        if temperature is None:
            temperature = default_temperature
        self.temperature, self.top_k, self.top_p = sampling.check_options(
            who, temperature, top_k, top_p
        )
        self.beam_width = beam_width
        self.length_penalty = checks.real_in(
            who, "length_penalty", length_penalty, "[0, inf)"
        )
        self.rng = checks.generator(who, seed)


def write(writer, first, end, options):
    """Write one sequence after each first token.

    Parameters
    ----------
    writer : object
        See above; N = B * beam_width rows, those of one sequence side by side.
    first : ndarray of int, shape (B,)
    end : int or None
    options : SearchOptions

    Returns
    -------
    Generated
    """
    if options.beam_width is None:
        return _draw(writer, first, end, options)
    return _search(writer, first, end, options)


def _draw(writer, tokens, end, options):
    B = len(tokens)
    b, running = np.arange(B), np.ones(B, bool)
    score, lengths = np.zeros(B), np.zeros(B, np.int64)
    written, looked = [], []
    for _ in range(options.max_length):
        logits, weights = writer.step(tokens)
        tokens = sampling.draw(
            options.who,
            logits,
            options.temperature,
            options.top_k,
            options.top_p,
            options.rng,
        )
        score += np.where(running, log_normalised(logits)[b, tokens], 0)
        if end is not None:
            running &= tokens != end
        lengths += running
        written.append(tokens)
        looked.append(weights)
        if not running.any():
            break
    return _generated(np.array(written), looked, lengths, score, ~running)


def _search(writer, first, end, options):
    """Beam search; a finished sequence is scored log p / length**length_penalty.

    A row is done once no live beam can still overtake its best finished sequence:
    log-probabilities only fall, and the longest sequence is divided by most.
    """
    B, K = len(first), options.beam_width
    b = np.arange(B)
    tokens = np.repeat(first, K)
    live = np.full((B, K), -np.inf)
    live[:, 0] = 0
    # Of the best finished sequence: score, log p, the beam it ends, and its tokens.
    best, best_log_p = np.full(B, -np.inf), np.full(B, -np.inf)
    best_beam, lengths = np.zeros(B, np.int64), np.zeros(B, np.int64)
    most = options.max_length**options.length_penalty
    came_from, written, looked = [], [], []
    for t in range(options.max_length):
        logits, weights = writer.step(tokens)
        if not np.isfinite(logits.max(axis=1)).all():
            raise ValueError(f"{options.who}: the model's logits are not finite")
        total = live[..., None] + log_normalised(logits).reshape(B, K, -1)
        V = total.shape[2]
        flat = total.reshape(B, K * V)
        # Twice as many as go on: at most K of them end.
        top = largest(flat, min(2 * K, K * V))
        beam, token, log_p = top // V, top % V, np.take_along_axis(flat, top, 1)
        ends = np.zeros(top.shape, bool) if end is None else token == end
        score = np.where(ends, log_p, -np.inf)[:, :K] / (t + 1) ** (
            options.length_penalty
        )
        rank = score.argmax(1)
        better = score[b, rank] > best
        best = np.where(better, score[b, rank], best)
        best_log_p = np.where(better, log_p[b, rank], best_log_p)
        best_beam = np.where(better, beam[b, rank], best_beam)
        lengths = np.where(better, t, lengths)
        # The K best that go on, in order; where there are fewer, the rest are dead.
        log_p = np.where(ends, -np.inf, log_p)
        onward = np.argsort(ends, axis=1, kind="stable")[:, :K]
        live = np.take_along_axis(log_p, onward, 1)
        beam = np.take_along_axis(beam, onward, 1)
        token = np.take_along_axis(token, onward, 1)
        if onward.shape[1] < K:
            missing = ((0, 0), (0, K - onward.shape[1]))
            live = np.pad(live, missing, constant_values=-np.inf)
            beam, token = np.pad(beam, missing), np.pad(token, missing)
        came_from.append(beam)
        written.append(token)
        looked.append(weights)
        if (best >= live.max(axis=1) / most).all():
            break
        writer.reorder((b[:, None] * K + beam).reshape(-1))
        tokens = token.reshape(-1)
    ended = best > -np.inf
    lengths = np.where(ended, lengths, len(written))
    best_beam = np.where(ended, best_beam, live.argmax(1))
    score = np.where(ended, best_log_p, live.max(1))
    return _trace(came_from, written, looked, best_beam, lengths, score, ended)


def _trace(came_from, written, looked, beam, lengths, score, ended):
    """Follow each best sequence from its end to its start."""
    B, K = written[0].shape
    b = np.arange(B)
    tokens = np.zeros((len(written), B), np.int64)
    weights = [None] * len(written)
    for t in range(len(written) - 1, -1, -1):
        inside = t < lengths
        tokens[t] = np.where(inside, written[t][b, beam], 0)
        beam = np.where(inside, came_from[t][b, beam], beam)
        if looked[t] is not None:
            weights[t] = looked[t].reshape(B, K, -1)[b, beam]
    return _generated(tokens, weights, lengths, score, ended)


def _generated(tokens, looked, lengths, score, ended):
    """`Generated` from (T, B) tokens and T times (B, S) weights or None."""
    weights = None
    if looked[0] is not None:
        looked = np.array(looked)
        weights = [looked[:n, b].copy() for b, n in enumerate(lengths)]
    cut = [tokens[:n, b].copy() for b, n in enumerate(lengths)]
    return Generated(cut, score, ended, weights)
