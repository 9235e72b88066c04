# SPDX-License-Identifier: BSD-3-Clause
"""bench/options.py: what it compares with what, tiny."""

import math

import numpy as np
import pytest

import fastrnn

TINY = "T5-B3-I4-H6"


@pytest.fixture
def bench(bench):
    """`bench.options`, on one thread."""
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(1)
    yield bench("options")
    fastrnn.set_num_threads(before)


@pytest.fixture
def tiny(bench):
    return bench.Shape.parse(TINY)


def test_every_option_is_compared_with_the_plain_cell(bench, tiny, monkeypatch):
    compared = []

    def ratio(call, other, rounds, block):
        compared.append((call.__self__.layer, other.__self__.layer))
        call()
        other()
        return 1.0, 1.4

    monkeypatch.setattr(bench, "ratio", ratio)
    rows = list(bench.measure("cells", tiny, 1, 0))
    assert len(rows) == len(bench.CELLS) == len(compared)
    for row, (layer, plain) in zip(rows, compared, strict=True):
        assert type(layer) is type(plain)
        assert repr(plain) == f"{type(plain).__name__}(4, 6)"
        assert repr(layer) != repr(plain)
        assert row.goal == (1.6 if layer._h_size != 6 else 1.3)
        assert str(row).endswith("MISSED") == (layer._h_size == 6)


def test_a_ragged_batch_is_compared_with_the_dense_one(bench, tiny):
    rows = list(bench.measure("ragged", tiny, 2, 0))
    assert [row.what.split(" train ")[-1] for row in rows if " train " in row.what] == [
        "lengths=",
        "lengths= sorted",
    ] * 2
    assert all(0 < row.ratio < math.inf and row.milliseconds > 0 for row in rows)
    lengths = bench.ragged_lengths(200, 32)
    assert lengths.max() == 200
    assert np.mean(lengths) / 200 == pytest.approx(bench.FILL, abs=0.005)
    assert (np.diff(lengths) > 0).any()
    assert (np.diff(lengths) < 0).any()


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_results_are_those_of_torch_before_any_time(bench, tiny, monkeypatch, request):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    n_threads = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_flush_denormal(False))
    request.addfinalizer(lambda: torch.set_num_threads(n_threads))
    rows = list(bench.measure("peer", tiny._replace(H=70), 1, 0))
    assert [row.goal for row in rows] == [9, 9, 6, 6, 4.5, 4.5, 4, 4]
    assert all(0 < row.ratio < math.inf and row.relation == ">=" for row in rows)

    def wrong(side, run=bench.Side.results):
        return run(side) | {"dx": np.ones_like(side.x)}

    monkeypatch.setattr(bench.Side, "results", wrong)
    with pytest.raises(ArithmeticError, match=r"LSTM T5-.* lengths=: dx differs"):
        next(bench.measure("peer", tiny, 1, 0))


def test_a_ratio_is_the_median_of_the_rounds(bench, monkeypatch):
    seconds = {"slow": [2.0, 9.0, 4.0], "fast": [1.0, 3.0, 4.0]}
    monkeypatch.setattr(bench, "block_time", lambda name, _: (seconds[name].pop(), 1))
    assert bench.ratio("slow", "fast", 3, 0) == (4000, 2)


def test_the_command(bench, capsys):
    bench.main(["ragged", "--shape", TINY, "--rounds", "1", "--block", "0"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert lines[0].startswith(f"LSTM {TINY} forward lengths=")
    with pytest.raises(SystemExit):
        bench.main(["rows"])
    assert "a table must be one of cells, ragged, peer" in capsys.readouterr().err
