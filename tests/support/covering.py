# SPDX-License-Identifier: BSD-3-Clause
"""Few of many combinations, such that any few values that can meet do meet."""

import heapq
import itertools
import zlib


def covering(rows, strength=2):
    """Choose rows so that values which meet in some row meet in a chosen row.

    Each row of the choice has to have something that no row before it has, and the row
    that has most comes first (a greedy cover).

    Parameters
    ----------
    rows : sequence of sequence
        All combinations, each with one hashable value for every factor.
    strength : int
        How many factors are looked at together: 2 keeps every pair of values, 3 every
        triple. Where there are fewer factors, all different rows are kept.

    Returns
    -------
    list of int
        Positions in `rows`, ascending. They depend on `rows` alone.

    Examples
    --------
    >>> product = list(itertools.product("ab", "xy", "12"))
    >>> ["".join(product[k]) for k in covering(product)]
    ['ax2', 'ay1', 'bx1', 'by2']
    """
    if not rows:
        return []
    n_factors = len(rows[0])
    groups = list(itertools.combinations(range(n_factors), min(strength, n_factors)))
    missing = [
        {(group, tuple([row[i] for i in group])) for group in groups} for row in rows
    ]
    # What a row adds can only shrink, so a stale entry of the heap is an upper bound.
    # Rows that add as much take a scattered order, or the first values of every factor
    # would be chosen more often than the last.
    heap = [
        (-len(parts), zlib.crc32(str(k).encode()), k) for k, parts in enumerate(missing)
    ]
    heapq.heapify(heap)
    met, chosen = set(), []
    while heap:
        known, order, k = heapq.heappop(heap)
        missing[k] -= met
        if not missing[k]:
            continue
        if len(missing[k]) < -known:
            heapq.heappush(heap, (-len(missing[k]), order, k))
            continue
        met |= missing[k]
        chosen.append(k)
    return sorted(chosen)
