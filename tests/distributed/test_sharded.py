# SPDX-License-Identifier: BSD-3-Clause
"""Samples of which every rank has its own: one process with joint batches judges."""

import numpy as np
import pytest
import ranks

import fastrnn
from fastrnn.distributed.shares import stretch

T, F = 4, 3
F64 = {"dtype": "float64"}


def made(*before, **options):
    model = fastrnn.Sequential(
        *before,
        fastrnn.LSTM(F, 4, seed=1, **F64, **options),
        fastrnn.Linear(4, 2, seed=2, **F64),
    )
    model.compile("mse", "adam", ["mae"], lr=1e-2)
    return model


def shards(counts, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal((n, T, F)), rng.standard_normal((n, T, 2)))
            for n in counts]  # fmt: skip


def assert_close(found, parameters, history):
    assert ranks.same_bits([p for p, _ in found])
    np.testing.assert_allclose(found[0][0], parameters, rtol=0, atol=1e-12)
    for name, values in history.items():
        np.testing.assert_allclose(found[0][1][name], values, rtol=1e-11)


@pytest.mark.parametrize("counts", [(8, 8), (3, 9, 1)])
def test_joint_batches_are_what_ranks_have_of_each_number(counts, one_thread):
    """Without shuffling: the judge is given the joint batches one by one."""
    parts, held_out, size = shards(counts), shards(counts, seed=1), 5
    dropout = fastrnn.Dropout(0.3, seed=3)

    def program(comm):
        model = made(fastrnn.Dropout(0.3, seed=3))
        history = model.fit(
            *parts[comm.rank], size, 2, 0, validation_data=held_out[comm.rank],
            shuffle=False, distributed=comm, sharded=True,
        )  # fmt: skip
        return model.flat_parameters.copy(), history.history

    steps = -(-sum(counts) // size)
    batches = [
        tuple(
            np.concatenate([
                one[i][slice(*stretch(n, steps, j))]
                for one, n in zip(parts, counts, strict=True)
            ])
            for i in (0, 1)
        )
        for j in range(steps)
    ]  # fmt: skip

    class Given:
        def __iter__(self):
            return iter(batches)

    judge = made(dropout)
    joint = tuple(np.concatenate([one[i] for one in held_out]) for i in (0, 1))
    history = judge.fit(Given(), epochs=2, verbose=0, validation_data=joint).history
    assert_close(ranks.results(len(counts), program), judge.flat_parameters, history)


def test_shuffled_shards_are_all_seen_in_every_epoch(one_thread):
    counts, seen = (7, 2), [[], []]

    def program(comm):
        model = made()
        forward = model.forward

        def noting(x):
            if model.training:
                seen[comm.rank].append(np.array(x[:, 0, 0]))
            return forward(x)

        vars(model)["forward"] = noting
        model.fit(
            *parts[comm.rank], 3, 2, 0, seed=5, distributed=comm, sharded=True
        )  # fmt: skip

    parts = shards(counts)
    ranks.results(2, program)
    for rows, (x, _) in zip(seen, parts, strict=True):
        assert set(np.concatenate(rows)) == set(x[:, 0, 0])
    first, second = np.split(np.concatenate(seen[0]), 2)
    assert sorted(first) == sorted(second)
    assert first.tolist() != second.tolist()


def test_ranks_with_fewer_batches_of_their_own_wait_for_the_others(one_thread):
    """Iterables of 1 and 3 batches: three steps, the judge's batches being joined."""
    (x, y), (u, v) = shards((6, 2))
    own = [[(u, v)], [(x[:2], y[:2]), (x[2:4], y[2:4]), (x[4:], y[4:])]]

    class Given:
        def __init__(self, batches):
            self.batches = batches

        def __iter__(self):
            return iter(self.batches)

    def program(comm):
        model = made()
        history = model.fit(
            Given(own[comm.rank]), epochs=2, verbose=0, distributed=comm, sharded=True
        )
        return model.flat_parameters.copy(), history.history

    joint = [tuple(map(np.concatenate, zip((u, v), own[1][0], strict=True)))]
    judge = made()
    history = judge.fit(Given(joint + own[1][1:]), epochs=2, verbose=0).history
    assert_close(ranks.results(2, program), judge.flat_parameters, history)


def test_shards_of_many_lengths(one_thread):
    """Each rank's batches have lengths of their own; the mean is over all steps."""
    rng = np.random.default_rng(0)
    own = [
        [rng.standard_normal((length, F)) for length in lengths]
        for lengths in ((2, 2, 5), (3, 3))
    ]

    def program(comm):
        model = made()
        x = own[comm.rank]
        found = model.fit(
            x, [one[:, :2] for one in x], 4, 1, 0, shuffle=False,
            distributed=comm, sharded=True,
        )  # fmt: skip
        return model.flat_parameters.copy(), found.history

    # By hand: steps of (5), (3, 3) and then (2, 2) and nothing.
    judge = made()
    judge.build((None, F))
    optimizer = fastrnn.Adam(judge, lr=1e-2)
    losses = []
    for group in ([own[0][2:], own[1]], [own[0][:2]]):
        rows = sum(len(x) for part in group for x in part)
        judge.zero_grad()
        total = 0.0
        for part in group:
            for x in part:
                error = judge(x[None]) - x[None, :, :2]
                total += float(np.sum(error**2)) / 2
                judge.backward(error / rows)
        losses.append((total / rows, rows))
        optimizer.step()
    loss = sum(a * n for a, n in losses) / sum(n for _, n in losses)
    found = ranks.results(2, program)
    assert ranks.same_bits([p for p, _ in found])
    np.testing.assert_allclose(found[0][0], judge.flat_parameters, atol=1e-12)
    np.testing.assert_allclose(found[0][1]["loss"], [loss], rtol=1e-12)


def test_evaluate_is_of_all_shards(one_thread):
    parts = shards((7, 2))
    whole = tuple(np.concatenate([one[i] for one in parts]) for i in (0, 1))
    want = made().evaluate(*whole)
    for sharded in (True, False):

        def program(comm, sharded=sharded):
            given = parts[comm.rank] if sharded else whole
            return made().evaluate(*given, distributed=comm, sharded=sharded)

        for found in ranks.results(2, program):
            np.testing.assert_allclose(found, want, rtol=1e-12)
