# SPDX-License-Identifier: BSD-3-Clause
"""Few combinations of options in which every few of them meet."""

import itertools


def covering(factors, strength):
    """Rows such that any values of any `strength` factors occur together in one.

    Parameters
    ----------
    factors : dict of sequence
        Values of each.
    strength : int
        2 for all pairs, 3 for all triples.

    Returns
    -------
    list of tuple
        One value of each factor per row, the same rows in every run.
    """
    sizes = [len(values) for values in factors.values()]
    groups = list(itertools.combinations(range(len(sizes)), strength))
    missing = {
        (group, levels): None  # a dict for its order
        for group in groups
        for levels in itertools.product(*[range(sizes[i]) for i in group])
    }
    rows = []
    while missing:
        # Each row begins with what nobody has had, and goes on with what adds most.
        group, levels = next(iter(missing))
        row = dict(zip(group, levels, strict=True))
        for i in range(len(sizes)):
            if i not in row:
                own = [g for g in groups if i in g and set(g) <= {*row, i}]
                row[i] = max(
                    range(sizes[i]),
                    # Where nothing is new, values take turns.
                    key=lambda level: (
                        sum(_part({**row, i: level}, g) in missing for g in own),
                        (level + len(rows)) % sizes[i],
                    ),
                )
        for g in groups:
            missing.pop(_part(row, g), None)
        rows.append(row)
    names = list(factors)
    return [
        tuple([factors[names[i]][row[i]] for i in range(len(names))]) for row in rows
    ]


def _part(row, group):
    return group, tuple([row[i] for i in group])
