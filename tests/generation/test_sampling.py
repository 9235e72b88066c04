# SPDX-License-Identifier: BSD-3-Clause
"""`sample`: frequencies against the softmax, what is left out, messages."""

import numpy as np
import pytest

from fastrnn import sample

N = 20_000


def frequencies(logits, **options):
    draws = sample(np.tile(logits, (N, 1)), seed=0, **options)
    return np.bincount(draws, minlength=len(logits)) / N


def softmax(logits):
    p = np.exp(logits - np.max(logits))
    return p / p.sum()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_frequencies_are_those_of_the_softmax(temperature, rng):
    logits = rng.normal(size=7) * 2
    want = softmax(logits / temperature)
    got = frequencies(logits, temperature=temperature)
    assert np.abs(got - want).max() < 4 * 0.5 / np.sqrt(N)


@pytest.mark.parametrize("k", [1, 3, 7, 50])
def test_top_k(k, rng):
    logits = rng.normal(size=7)
    want = softmax(logits)
    want[np.argsort(-logits)[k:]] = 0
    got = frequencies(logits, top_k=k)
    assert np.abs(got - want / want.sum()).max() < 4 * 0.5 / np.sqrt(N)
    assert not got[want == 0].any()


@pytest.mark.parametrize(
    ("p", "kept"),
    [(0.01, 1), (0.4, 1), (0.45, 2), (0.69, 2), (0.71, 3), (0.95, 4), (1.0, 4)],
)
def test_top_p_keeps_the_smallest_set_that_reaches_it(p, kept):
    probabilities = np.array([0.1, 0.4, 0.2, 0.3])
    want = np.where(probabilities >= np.sort(probabilities)[-kept], probabilities, 0)
    got = frequencies(np.log(probabilities), top_p=p)
    assert np.abs(got - want / want.sum()).max() < 4 * 0.5 / np.sqrt(N)
    assert not got[want == 0].any()


def test_top_p_counts_after_temperature_and_top_k():
    logits = np.log([0.5, 0.3, 0.2])
    # At a high temperature all are alike: 0.6 takes two of three, or two of two.
    assert (frequencies(logits, temperature=1e6, top_p=0.6) > 0).sum() == 2
    assert (frequencies(logits, top_k=2, top_p=0.6) > 0).tolist() == [1, 0, 0]
    assert (frequencies(logits, top_k=2, top_p=0.63) > 0).tolist() == [1, 1, 0]


def test_equals_are_taken_in_order():
    logits = np.zeros((1000, 5))
    assert not sample(logits, temperature=0).any()
    assert set(sample(logits, top_k=2, seed=0).tolist()) == {0, 1}


def test_classes_of_minus_infinity_are_never_drawn(dtype):
    logits = np.full((N, 4), -np.inf, dtype)
    logits[:, 2] = -500
    assert (sample(logits, seed=0) == 2).all()
    assert (sample(logits, temperature=1e-300, seed=0) == 2).all()


def test_a_row_is_drawn_alone_as_in_a_batch(rng):
    """One number a row: the draws of a seed do not depend on the options."""
    logits = rng.normal(size=(4, 3, 6))
    whole = sample(logits, seed=3)
    assert whole.shape == (4, 3)
    assert whole.dtype == np.int64
    generator = np.random.default_rng(3)
    alone = [[sample(row, seed=generator) for row in rows] for rows in logits]
    np.testing.assert_array_equal(whole, alone)
    generator = np.random.default_rng(3)
    sample(logits, temperature=0, seed=generator)
    after = generator.random()
    generator = np.random.default_rng(3)
    sample(logits, top_k=2, top_p=0.5, seed=generator)
    assert generator.random() == after


MESSAGES = [
    ({"temperature": -1}, ValueError, "temperature must be a number in [0, inf), "),
    ({"top_k": 0}, ValueError, "top_k must be a positive integer, got 0"),
    ({"top_k": 1.0}, TypeError, "top_k must be a positive integer, got 1.0"),
    ({"top_p": 0}, ValueError, "top_p must be a number in (0, 1], got 0"),
    ({"top_p": 1.5}, ValueError, "top_p must be a number in (0, 1], got 1.5"),
    ({"seed": -1}, ValueError, "seed must be None, a non-negative integer or a "),
    ({"logits": np.zeros((3, 0))}, ValueError, "logits must have shape (..., classes"),
    ({"logits": 1.0}, ValueError, "logits must have shape (..., classes) with at le"),
    ({"logits": ["a"]}, TypeError, "logits must be real numbers, got dtype <U1"),
    ({"logits": [np.nan, 0]}, ValueError, "logits must be finite or -inf, and not "),
    ({"logits": [np.inf, 0]}, ValueError, "logits must be finite or -inf, and not "),
    ({"logits": [-np.inf] * 2}, ValueError, "logits must be finite or -inf, and no"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), MESSAGES)
def test_messages(arguments, error, message):
    with pytest.raises(error) as caught:
        sample(**{"logits": [0.0, 1.0], **arguments})
    assert str(caught.value).startswith(f"sample: {message}")
