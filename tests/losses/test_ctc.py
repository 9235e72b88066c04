# SPDX-License-Identifier: BSD-3-Clause
"""CTC against every alignment there is and PyTorch's; decoders; messages."""

import itertools
import math

import numpy as np
import pytest
from gradcheck import assert_close
from slopes import slopes
from tolerances import CENTRAL_RTOL, relative

from fastrnn import ctc_beam_search, ctc_greedy_decode, ctc_loss

REDUCTIONS = ["mean", "sum", "none"]


def collapse(alignment, blank):
    """Merge repeats, then take blanks out."""
    merged = [k for k, _ in itertools.groupby(alignment)]
    return tuple(k for k in merged if k != blank)


def all_labels(logits, blank):
    """Probability of every label sequence that (T, C) logits can stand for."""
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    found = {}
    for alignment in itertools.product(range(p.shape[1]), repeat=len(p)):
        labels = collapse(alignment, blank)
        probability = math.prod(p[t, k] for t, k in enumerate(alignment))
        found[labels] = found.get(labels, 0) + probability
    return found


# -- loss -----------------------------------------------------------------------------

CASES = [
    # targets, input lengths, target lengths
    ([[1, 2], [2, 2], [1, 1]], [5, 5, 4], [2, 2, 1]),
    ([[1, 1, 2], [2, 1, 1]], [5, 4], [3, 0]),
    ([[2], [1]], [1, 5], [1, 1]),
]


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize(("targets", "inputs", "lengths"), CASES)
def test_loss_and_gradient_against_all_alignments(targets, inputs, lengths, blank, rng):
    targets = np.array(targets)
    targets = np.where(targets == blank, 0, targets)
    logits = rng.normal(size=(5, len(targets), 3))

    def losses():
        return [
            -np.log(all_labels(logits[:n, b], blank)[tuple(targets[b, :m])])
            for b, (n, m) in enumerate(zip(inputs, lengths, strict=True))
        ]

    loss, dlogits = ctc_loss(logits, targets, inputs, lengths, blank, "none")
    assert_close("losses", loss, np.array(losses()), 1e-12)
    want = slopes(lambda: sum(losses()), logits)
    assert_close("dlogits", dlogits, want, CENTRAL_RTOL)
    total, dtotal = ctc_loss(logits, targets, inputs, lengths, blank, "sum")
    assert_close("sum", total, sum(losses()), 1e-12)
    np.testing.assert_array_equal(dtotal, dlogits)
    mean, dmean = ctc_loss(logits, targets, inputs, lengths, blank)
    scale = np.array([len(targets) * max(m, 1) for m in lengths])
    assert_close("mean", mean, (losses() / scale).sum(), 1e-12)
    assert_close("dmean", dmean, dlogits / scale[:, None], 1e-12)


@pytest.mark.parametrize("one_row", [False, True])
@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_same_results_as_torch(reduction, zero_infinity, one_row, dtype, rng):
    torch = pytest.importorskip("torch", reason="compares with torch.nn.functional")
    T, B, C = 40, 6, 9
    logits = (rng.normal(size=(T, B, C)) * 3).astype(dtype)
    inputs, lengths = np.array([40, 33, 12, 25, 6, 9]), np.array([12, 0, 3, 12, 5, 4])
    targets = rng.integers(0, C - 1, (B, 12))
    targets[4, :5] = [1, 2, 3, 4, 5]
    if zero_infinity:
        targets[4, :5] = 1  # five equal labels need nine steps, and there are six
    blank = C - 1
    x = torch.tensor(logits, requires_grad=True)
    peer = torch.nn.functional.ctc_loss(
        x.log_softmax(-1),
        torch.tensor(targets),
        torch.tensor(inputs),
        torch.tensor(lengths),
        blank,
        reduction,
        zero_infinity,
    )
    peer.sum().backward()
    if one_row:
        targets = targets[np.arange(12) < lengths[:, None]]
    loss, dlogits = ctc_loss(
        logits, targets, inputs, lengths, blank, reduction, zero_infinity
    )
    assert dlogits.dtype == dtype
    assert_close("loss", loss, peer.detach().numpy(), relative(dtype, T))
    # PyTorch's logarithms of about -3 T round to eps of that: so do their exponentials.
    assert_close("dlogits", dlogits, x.grad.numpy(), 3 * T * relative(dtype, T))
    assert not dlogits[12:, 2].any()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_labels_that_do_not_fit(reduction):
    logits = np.zeros((3, 2, 3))
    arguments = ([[1, 1], [1, 2]], [2, 3], [2, 2], 0, reduction)
    loss, dlogits = ctc_loss(logits, *arguments)
    assert np.isposinf(np.max(loss))
    assert np.isnan(dlogits[:2, 0]).all()
    assert np.isfinite(dlogits[:, 1]).all()
    loss, cleared = ctc_loss(logits, *arguments, zero_infinity=True)
    assert np.isfinite(loss).all()
    assert not cleared[:, 0].any()
    np.testing.assert_array_equal(cleared[:, 1], dlogits[:, 1])


def test_padding_may_be_anything(rng):
    logits, targets = rng.normal(size=(6, 2, 4)), np.array([[1, 2, 3], [3, 1, 1]])
    inputs, lengths = [6, 4], [3, 1]
    want = ctc_loss(logits, targets, inputs, lengths)
    logits[4:, 1] = np.nan
    targets[1, 1:] = -100
    got = ctc_loss(logits, targets, inputs, lengths)
    assert got[0] == want[0]
    np.testing.assert_array_equal(got[1], want[1])
    assert not got[1][4:, 1].any()


def test_long_sequences_neither_overflow_nor_vanish(dtype):
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(1500, 2, 20)) * 20).astype(dtype)
    loss, dlogits = ctc_loss(logits, rng.integers(1, 20, (2, 100)), reduction="sum")
    assert 1e4 < loss < 1e6
    assert np.isfinite(dlogits).all()
    assert_close("rows", dlogits.sum(2), np.zeros((1500, 2)), 1e-5, scale=1)


def test_no_labels_at_all(rng):
    logits = rng.normal(size=(5, 2, 3))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for targets in (np.zeros((2, 0), int), np.ones((2, 4), int)):
        loss, _ = ctc_loss(logits, targets, target_lengths=[0, 0], reduction="none")
        assert_close("loss", loss, -np.log(p[..., 0]).sum(0), 1e-12)


# -- decoding -------------------------------------------------------------------------


@pytest.mark.parametrize("blank", [0, 3])
def test_greedy_collapses_the_best_class_of_each_step(blank, rng):
    logits = rng.normal(size=(12, 5, 4))
    lengths = np.array([12, 1, 7, 12, 3])
    got = ctc_greedy_decode(logits, lengths, blank)
    for b, n in enumerate(lengths):
        assert tuple(got[b]) == collapse(logits[:n, b].argmax(-1), blank)


@pytest.mark.parametrize("blank", [0, 2])
def test_a_wide_beam_finds_the_likeliest_labels(blank, dtype, rng):
    logits = (rng.normal(size=(6, 8, 3)) * 2).astype(dtype)
    lengths = np.array([6, 5, 6, 1, 2, 6, 4, 3])
    labels, log_p = ctc_beam_search(logits, lengths, blank, beam_width=200)
    for b, n in enumerate(lengths):
        every = all_labels(logits[:n, b].astype(float), blank)
        best = max(every, key=every.get)
        assert tuple(labels[b]) == best
        assert_close("log p", log_p[b], np.log(every[best]), 1e-9, scale=1)


def plain_beam_search(p, blank, width):
    """Hannun's algorithm for one sequence, with dictionaries."""
    beam = {(): (1.0, 0.0)}
    for row in p:
        grown = {}
        for prefix, (with_blank, with_label) in beam.items():
            for k, now in enumerate(row):
                if k == blank:
                    key, add = prefix, ((with_blank + with_label) * now, 0)
                elif prefix and k == prefix[-1]:
                    kept = grown.get(prefix, (0, 0))
                    grown[prefix] = kept[0], kept[1] + with_label * now
                    key, add = (*prefix, k), (0, with_blank * now)
                else:
                    key, add = (*prefix, k), (0, (with_blank + with_label) * now)
                kept = grown.get(key, (0, 0))
                grown[key] = kept[0] + add[0], kept[1] + add[1]
        ranked = sorted(grown.items(), key=lambda item: -sum(item[1]))
        beam = dict(ranked[:width])
    best = max(beam, key=lambda prefix: sum(beam[prefix]))
    return best, sum(beam[best])


@pytest.mark.parametrize("width", [1, 2, 5, 16])
def test_beam_search_against_a_plain_one(width, rng):
    logits = rng.normal(size=(15, 20, 5)) * 2
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    labels, log_p = ctc_beam_search(logits, beam_width=width)
    for b in range(20):
        want, probability = plain_beam_search(p[:, b], 0, width)
        assert tuple(labels[b]) == want
        assert_close("log p", log_p[b], np.log(probability), 1e-9, scale=1)


def test_a_beam_beats_the_best_alignment():
    # A beam may lose the best labels: it does not with these numbers.
    logits = np.random.default_rng(1).normal(size=(20, 30, 6))
    greedy = ctc_greedy_decode(logits)
    labels, _ = ctc_beam_search(logits, beam_width=20)
    losses = []
    for found in (greedy, labels):
        lengths = np.array([len(one) for one in found])
        targets = np.concatenate(found)
        losses.append(ctc_loss(logits, targets, None, lengths, reduction="none")[0])
    assert (losses[1] <= losses[0] + 1e-9).all()
    assert losses[1].sum() < losses[0].sum() - 1


# -- messages -------------------------------------------------------------------------

X = np.zeros((4, 2, 3))
Y = np.ones((2, 2), int)
MESSAGES = [
    (
        lambda: ctc_loss(X[0], Y),
        ValueError,
        "ctc_loss: logits must have shape (T, B, c",
    ),
    (lambda: ctc_loss(X[:0], Y), ValueError, "ctc_loss: logits must have T >= 1, got"),
    (
        lambda: ctc_loss(X, Y[:1]),
        ValueError,
        "ctc_loss: targets must have shape (B, S) = (2, S), got (1, 2)",
    ),
    (
        lambda: ctc_loss(X, Y * 3),
        ValueError,
        "ctc_loss: targets must be in [0, classes) = [0, 3) and not blank = 0, got 3",
    ),
    (lambda: ctc_loss(X, Y * 0), ValueError, "ctc_loss: targets must be in [0, "),
    (lambda: ctc_loss(X, -Y), ValueError, "ctc_loss: targets must be in [0, classes) "),
    (lambda: ctc_loss(X, Y * 1.0), TypeError, "ctc_loss: targets must be integers, go"),
    (
        lambda: ctc_loss(X, Y, [5, 1]),
        ValueError,
        "ctc_loss: input_lengths must be in [1, 4], got 5",
    ),
    (
        lambda: ctc_loss(X, Y, None, [3, 1]),
        ValueError,
        "ctc_loss: target_lengths must be in [0, 2], got 3",
    ),
    (
        lambda: ctc_loss(X, Y[0]),
        ValueError,
        "ctc_loss: target_lengths must be given when targets are in one row",
    ),
    (
        lambda: ctc_loss(X, Y[0], None, [1, 0]),
        ValueError,
        "ctc_loss: target_lengths must sum to the 2 targets, got 1",
    ),
    (lambda: ctc_loss(X, Y, blank=3), ValueError, "ctc_loss: blank must be in [0, 3),"),
    (
        lambda: ctc_loss(X, Y, reduction="max"),
        ValueError,
        "ctc_loss: reduction must be one of 'mean', 'sum', 'none', got 'max'",
    ),
    (
        lambda: ctc_loss(X, Y, zero_infinity=1),
        TypeError,
        "ctc_loss: zero_infinity must be True or False, got 1",
    ),
    (
        lambda: ctc_greedy_decode(X, blank=-1),
        ValueError,
        "ctc_greedy_decode: blank must be in [0, 3), got -1",
    ),
    (
        lambda: ctc_beam_search(X, beam_width=0),
        ValueError,
        "ctc_beam_search: beam_width must be a positive integer, got 0",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_messages(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)
