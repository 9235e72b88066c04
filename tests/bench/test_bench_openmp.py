# SPDX-License-Identifier: BSD-3-Clause
"""bench/openmp.py; and that a process with PyTorch has one OpenMP runtime."""

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

PROJECT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def openmp(bench, monkeypatch):
    """`bench.openmp`, whose processes look for bench/ here."""
    monkeypatch.chdir(PROJECT)
    return bench("openmp")


@pytest.mark.parametrize("at", [0, 1])
def test_one_runtime_whoever_is_imported_first(openmp, at):
    order = openmp.ORDERS[at]
    found = openmp.in_new_process("", *order, 2, 1)
    assert len({os.stat(path).st_ino for path in found["runtimes"]}) == 1
    assert found["alone"] > 0
    assert found["slower"] > 0
    assert openmp.row("mine", order[0], found)[:2] == ("mine", order[0])


def test_a_failure_is_shown(openmp):
    with pytest.raises(RuntimeError, match="No module named 'abacus'"):
        openmp.in_new_process("", "abacus", "torch", 1, 1)
