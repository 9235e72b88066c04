# SPDX-License-Identifier: BSD-3-Clause
"""bench/memory.py: what it counts."""

import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
T, B, I, H = SHAPE = (2000, 4, 16, 64)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def in_new_process(bench, monkeypatch):
    """`bench.memory.in_new_process`, whose processes look for bench/ here."""
    monkeypatch.chdir(PROJECT)
    return bench("memory").in_new_process


def test_peak_of_a_step_is_counted_whole(in_new_process):
    arrays = 4 * 2 * T * B * (I + H)  # x, y, dx, dy
    tape = 4 * T * B * 5 * H
    whole, in_blocks = (
        in_new_process("fastrnn", "lstm", SHAPE, 1, every, 1, False)
        for every in (None, 50)
    )
    assert arrays + tape < whole < 1.5 * (arrays + tape)
    assert arrays < in_blocks < whole - tape / 2


def test_a_failure_is_shown(in_new_process):
    with pytest.raises(RuntimeError, match="KeyError: 'abacus'"):
        in_new_process("abacus", "lstm", SHAPE, 1, None, 1, False)
