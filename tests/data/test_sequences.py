# SPDX-License-Identifier: BSD-3-Clause
"""Padding, packing, batches by length, and losses that ignore padding."""

import math

import numpy as np
import pytest

import fastrnn
from fastrnn import BucketSampler, mask_from_lengths, pack, pad_sequences, unpack


def ragged(rng, lengths, F=2, dtype="f"):
    return [rng.normal(size=(n, F)).astype(dtype) for n in lengths]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_padding(batch_first, dtype, rng):
    lengths = [3, 1, 0, 5]
    sequences = [s.astype(dtype) for s in ragged(rng, lengths)]
    padded, found = pad_sequences(sequences, batch_first, value=7)
    assert found.tolist() == lengths
    assert padded.dtype == dtype
    assert padded.flags.c_contiguous
    assert padded.shape == ((4, 5, 2) if batch_first else (5, 4, 2))
    for b, sequence in enumerate(sequences):
        row = padded[b] if batch_first else padded[:, b]
        np.testing.assert_array_equal(row[: len(sequence)], sequence)
        assert (row[len(sequence) :] == 7).all()


@pytest.mark.parametrize(
    ("options", "expected", "lengths"),
    [
        ({"maxlen": 2}, [[1, 2], [4, 0]], [2, 1]),
        ({"maxlen": 2, "truncating": "pre"}, [[2, 3], [4, 0]], [2, 1]),
        ({"padding": "pre"}, [[1, 2, 3], [0, 0, 4]], [3, 1]),
        ({"maxlen": 4, "padding": "pre"}, [[0, 1, 2, 3], [0, 0, 0, 4]], [3, 1]),
    ],
)
def test_both_ends(options, expected, lengths):
    padded, found = pad_sequences([[1, 2, 3], [4]], batch_first=True, **options)
    assert padded.tolist() == expected
    assert found.tolist() == lengths


def test_padding_refuses():
    for call, message in [
        (
            lambda: pad_sequences([]),
            "pad_sequences: sequences must be a list of at lea",
        ),
        (
            lambda: pad_sequences([np.ones((2, 3)), np.ones((2, 4))]),
            r"pad_sequences: sequences must differ in length alone, got",
        ),
        (
            lambda: pad_sequences([[1]], maxlen=0),
            "maxlen must be a positive integer, g",
        ),
        (lambda: pad_sequences([[1]], value=0.5), "value must fit in int64, got 0.5"),
        (
            lambda: pad_sequences([[1]], padding="left"),
            "padding must be one of 'post', ",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(
        TypeError, match=r"sequences\[0\] must be real numbers, got dtype"
    ):
        pad_sequences([["a"]])


def test_packing_and_unpacking(rng):
    sequences = ragged(rng, [3, 0, 5, 1])
    packed = pack(sequences)
    assert packed.lengths.tolist() == [3, 0, 5, 1]
    np.testing.assert_array_equal(packed.data, np.concatenate(sequences))
    views = unpack(packed)
    for view, sequence in zip(views, sequences, strict=True):
        np.testing.assert_array_equal(view, sequence)
        assert np.may_share_memory(view, packed.data) or not len(view)
    assert pack(views).data is packed.data
    # Parts in another order, or not all of them, are copied.
    assert pack(views[::-1]).data is not packed.data
    np.testing.assert_array_equal(pack(views[2:]).data, packed.data[3:])
    with pytest.raises(
        ValueError, match=r"^unpack: lengths must be at least 0 and sum up"
    ):
        unpack((packed.data, [3, 3]))


def test_masks():
    mask = mask_from_lengths([2, 0, 3])
    assert mask.T.tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1]]
    assert mask_from_lengths([1], 3, batch_first=True).tolist() == [
        [True, False, False]
    ]
    with pytest.raises(
        ValueError, match=r"lengths must be in \[0, T\] = \[0, 2\], got 3"
    ):
        mask_from_lengths([3], 2)
    with pytest.raises(TypeError, match="lengths must be integers, got dtype float64"):
        mask_from_lengths([1.5])


# -- batches -------------------------------------------------------------------------


def test_every_sample_comes_once_and_little_is_padded(rng):
    lengths = rng.integers(1, 200, size=1003)
    sampler = BucketSampler(lengths, 16, bucket_size=20, seed=3)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 63
    assert sorted(np.concatenate(batches).tolist()) == list(range(1003))

    def padded(batches):
        return sum(lengths[batch].max() * len(batch) for batch in batches)

    plain = padded(list(BucketSampler(lengths, 16, bucket_size=1)))
    assert padded(batches) < lengths.sum() * 1.2 < plain
    again, other = BucketSampler(lengths, 16, bucket_size=20, seed=3), list(sampler)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))
    assert any(
        set(a.tolist()) != set(b.tolist()) for a, b in zip(batches, other, strict=True)
    )
    assert all((a == b).all() for a, b in zip(other, again, strict=True))


def test_the_rest_can_be_dropped_and_the_order_fixed(rng):
    lengths = rng.integers(1, 9, size=10)
    sampler = BucketSampler(lengths, 4, drop_last=True)
    assert [len(batch) for batch in sampler] == [4, 4]
    fixed = BucketSampler(lengths, 4, shuffle=False)
    assert (np.diff(lengths[np.concatenate(list(fixed))]) <= 0).all()
    with pytest.raises(
        ValueError, match=r"^BucketSampler: lengths must have shape \(N,\)"
    ):
        BucketSampler([[1]], 4)


# -- losses --------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_ignore_padding(batch_first, reduction, rng):
    """Padding changes nothing: as if the steps that count were all there is."""
    lengths = [3, 1, 4]
    logits = ragged(rng, lengths, 5, "d")
    labels = [rng.integers(5, size=n) for n in lengths]
    padded, _ = pad_sequences(logits, batch_first, value=np.nan)
    targets, _ = pad_sequences(labels, batch_first, value=99)
    options = {"lengths": lengths, "batch_first": batch_first}
    flat, flat_targets = np.concatenate(logits), np.concatenate(labels)
    mask = mask_from_lengths(lengths, batch_first=batch_first)

    loss, d = fastrnn.cross_entropy(padded, targets, -100, reduction, **options)
    want, d_want = fastrnn.cross_entropy(flat, flat_targets, -100, reduction)
    assert loss == pytest.approx(want, rel=1e-12)
    by_sequence = d if batch_first else d.swapaxes(0, 1)
    got = np.concatenate([s[:n] for s, n in zip(by_sequence, lengths, strict=True)])
    np.testing.assert_allclose(got, d_want, rtol=1e-12)
    assert not d[~mask].any()
    again, _ = fastrnn.cross_entropy(padded, targets, -100, reduction, mask=mask)
    assert again == loss

    real, _ = pad_sequences([x + 1 for x in logits], batch_first, value=5)
    loss, d = fastrnn.mse_loss(padded, real, reduction, **options)
    assert loss == pytest.approx(1 if reduction == "mean" else flat.size)
    np.testing.assert_allclose(d[mask], -2 / (flat.size if reduction == "mean" else 1))
    assert not d[~mask].any()


def test_masks_of_elements_and_of_nothing():
    pred, target = np.array([[1.0, 2.0], [3.0, 4.0]]), np.zeros((2, 2))
    loss, d = fastrnn.mse_loss(pred, target, mask=[[1, 0], [0, 1]])
    assert (loss, d.tolist()) == (8.5, [[1, 0], [0, 4]])
    loss, d = fastrnn.mse_loss(pred, target, mask=[False, False])
    assert math.isnan(loss)
    assert not d.any()
    assert math.isnan(fastrnn.cross_entropy(pred, [0, 1], mask=[0, 0])[0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"lengths": [2], "mask": [1]},
            ValueError,
            "lengths and mask must not both be",
        ),
        (
            {"lengths": [2, 3, 1]},
            ValueError,
            r"lengths must have shape \(B,\) = \(2,\)",
        ),
        (
            {"lengths": [2, 4]},
            ValueError,
            r"lengths must be in \[0, T\] = \[0, 3\], got 4",
        ),
        ({"mask": np.ones(3)}, TypeError, "mask must be booleans, got dtype float64"),
        ({"mask": np.ones((2, 3), bool)}, ValueError, "mask must have shape "),
    ],
)
def test_lengths_and_masks_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        fastrnn.mse_loss(np.ones((3, 2, 4)), np.ones((3, 2, 4)), **options)
    with pytest.raises(error, match=message):
        fastrnn.cross_entropy(np.ones((3, 2, 4)), np.ones((3, 2), int), **options)
