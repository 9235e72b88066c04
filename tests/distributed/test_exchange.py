# SPDX-License-Identifier: BSD-3-Clause
"""The reduction: sums in a fixed order of ranks, few messages, few bytes."""

import numpy as np
import pytest
import ranks

from fastrnn.distributed.exchange import Exchange

# Neighbours in this order cancel, so that another order gives other bits.
BUFFERS = np.float64([[1e16, 1.0], [3.0, 1e16], [-1e16, 3.0], [5.0, -1e16]])


def summed(buffers, weights, dtype, parts=1):
    """The sum that each rank ends with, the numbers of all, and what was sent."""

    def program(comm):
        own = buffers[comm.rank].astype(dtype)
        exchange = Exchange(comm, own.size, 2, own.dtype)
        heads = exchange(
            np.array_split(own, parts),
            [weights[comm.rank], comm.rank],
            lambda heads: heads[:, 0],
        )
        return own, heads, comm.calls, comm.bytes

    return ranks.results(len(buffers), program)


def test_sums_are_in_float64_and_in_ascending_order_of_ranks():
    found = summed(BUFFERS, np.ones(4), np.float64)
    want = [((1e16 + 3.0) - 1e16) + 5.0, ((1.0 + 1e16) + 3.0) - 1e16]
    for own, heads, _, _ in found:
        assert own.tolist() == want
        assert heads[:, 1].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 16, 1000, 40_001])
def test_float32_is_rounded_once(n, size, rng):
    buffers = rng.standard_normal((n, size)).astype("f")
    weights = rng.random(n)
    found = summed(buffers, weights, np.float32, parts=3)
    total = np.zeros(size)
    for weight, one in zip(weights, buffers, strict=True):
        total += weight * one.astype(np.float64)
    for own, *_ in found:
        np.testing.assert_array_equal(own, total.astype("f"))


def test_two_messages_and_the_fewest_bytes():
    n, size = 4, 64_000
    found = summed(np.zeros((n, size), "f"), np.ones(n), np.float32)
    least = 2 * (n - 1) / n * size * 4
    for _, _, calls, sent in found:
        assert calls == ["Alltoall", "Allgather"]
        assert least <= sent < 1.01 * least


def test_what_weighs_nothing_is_not_looked_at():
    buffers = np.float64([[1.0, 2.0], [np.nan, np.inf]])
    for own, *_ in summed(buffers, [3.0, 0.0], np.float64):
        assert own.tolist() == [3.0, 6.0]


def test_a_sum_that_overflows_is_infinite():
    for own, *_ in summed(np.full((2, 1), 3e38), np.ones(2), np.float32):
        assert own.tolist() == [np.inf]
