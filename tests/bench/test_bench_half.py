# SPDX-License-Identifier: BSD-3-Clause
"""bench/half.py: its ways agree, and a way that cannot run is left out."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture
def half(bench):
    return bench("half")


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_case_is_some_lines_of_the_table(half, monkeypatch, kind):
    monkeypatch.setattr(half, "block_time", lambda call: (call() is None or 1e-3, 1.0))
    lines, _ = half.compare(kind, 8, 16, 2, steps=6)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    by_way = {way: rest for _, way, *rest in cells}
    assert {"fastrnn float32", "fastrnn bfloat16", "PyTorch float32"} <= set(by_way)
    for way, (_, _, gain, error_y, error_dR) in by_way.items():
        assert gain == "1.00"
        assert float(error_y) < (1e-5 if way.endswith("32") else 1e-2)
        assert float(error_dR) < (1e-5 if way.endswith("32") else 5e-2)
    assert float(by_way["fastrnn bfloat16"][3]) < 4e-3


def test_a_way_that_cannot_run_is_left_out(half, monkeypatch):
    def train(self):
        if self.layer.weight_hh_l0.dtype is torch.bfloat16:
            raise RuntimeError("could not create a primitive descriptor\nmore")
        return original(self)

    original = half.Theirs.train
    monkeypatch.setattr(half.Theirs, "train", train)
    found, _, missing = half.ways("LSTM", 2, 5, steps=3)
    assert "PyTorch bfloat16" not in found
    assert missing["PyTorch bfloat16"] == "could not create a primitive descriptor"
