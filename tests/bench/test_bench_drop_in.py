# SPDX-License-Identifier: BSD-3-Clause
"""bench/drop_in.py: its cases run both libraries, agree and make tables."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture
def drop_in(bench):
    return bench("drop_in")


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_comparison_is_a_line_of_the_table(drop_in, monkeypatch, kind):
    monkeypatch.setattr(drop_in, "block_time", lambda call: (call() and 1e-3, 1.0))
    for case in (
        drop_in.dense_case(kind, 2, 5, 7),
        drop_in.packed_case(kind, 20, 3, 5),
    ):
        cells = drop_in.compare(*case, rounds=2)
        assert cells[0].startswith(f"{kind} ")
        assert cells[1:] == ("1.00 ms", "1.00 ms", "**1.00x** (1.00 - 1.00)")


def test_cases_in_the_modes_of_pytorch(drop_in, monkeypatch):
    """Both libraries run them and agree; the compiler's own backend is not needed."""
    monkeypatch.setattr(drop_in, "block_time", lambda call: (call() and 1e-3, 1.0))
    compiled = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda m, **options: compiled(m, backend="eager", **options)
    )
    names = []
    for case in drop_in.compiled_cases("LSTM", 2, 5, 3):
        names.append(drop_in.compare(*case, rounds=1)[0])
    for case in drop_in.autocast_cases("GRU", 2, 5, 7):
        names.append(drop_in.compare(*case, rounds=1, limit=drop_in.HALF)[0])
    assert names == [
        "LSTMCell compiled, T3 B2 H5 training",
        "LSTMCell compiled, T3 B2 H5 inference",
        "GRU autocast, T7 B2 H5 training",
        "GRU autocast, T7 B2 H5 inference",
    ]


def test_other_gradients_are_an_error(drop_in):
    name, theirs, _ = drop_in.dense_case("GRU", 2, 5, 7)
    with pytest.raises(RuntimeError, match=r"bench\.drop_in: GRU T7 B2 H5: differ by"):
        drop_in.check(name, theirs, lambda: [2 * gradient for gradient in theirs()])


def test_the_overhead_is_beyond_the_numpy_layer(drop_in, monkeypatch):
    taken = {"NumPy layer": [3.0, 4.0], "fastrnn.torch": [10.0, 30.0]}
    sides = dict.fromkeys(taken, (None, None))
    times = iter([taken["NumPy layer"], taken["fastrnn.torch"]])
    monkeypatch.setattr(drop_in, "overhead_sides", lambda *_: sides)
    monkeypatch.setattr(drop_in, "split_times", lambda *_: next(times))
    assert drop_in.overhead("LSTM", 1, rounds=1) == (
        "LSTM T1 B1 H16",
        "3.0 + 4.0",
        "10.0 + 30.0",
        "**7.0 + 26.0**",
    )


def test_every_side_of_the_overhead_runs(drop_in):
    for forward, backward in drop_in.overhead_sides("LSTM", 2).values():
        assert len(drop_in.split_times(forward, backward, 2)) == 2
