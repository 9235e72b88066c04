# SPDX-License-Identifier: BSD-3-Clause
"""Lightning trains the drop-in in two processes as it trains torch.nn's layers.

It needs ``pip install 'fastrnn[lightning-tests]'``.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("lightning", reason="Lightning is not installed")

PROGRAM = Path(__file__).parents[1] / "support" / "lightning_program.py"


@pytest.mark.parametrize(
    ("strategy", "precision", "allowed"),
    [("ddp", "32-true", 2e-6), ("ddp", "bf16-mixed", 2e-2), ("ddp_spawn", "32", 2e-6)],
)
def test_two_processes_train_save_and_go_on(tmp_path, strategy, precision, allowed):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", PROGRAM, tmp_path, strategy, precision],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    found = {}
    for file in tmp_path.glob("*.json"):
        one = json.loads(file.read_text(encoding="utf-8"))
        found[one["run"], one["rank"]] = one
    assert len(found) == 2 * 5
    for rank in (0, 1):
        want = found["torch", rank]["losses"]
        assert len(want) == 3
        for run in ("fastrnn", "accelerated"):
            got = found[run, rank]
            assert got["losses"] == pytest.approx(want, abs=allowed)
            assert got["class"] == "fastrnn.torch.modules"
        on = found["torch on", rank], found["fastrnn on", rank]
        assert on[1]["losses"] == pytest.approx(on[0]["losses"], abs=allowed)
        assert len(on[0]["losses"]) == 3
        assert on[0]["losses"] != want
    summaries = [(tmp_path / f"{run}.txt").read_text() for run in ("torch", "fastrnn")]
    assert summaries[0] == summaries[1]
    assert "LSTM" in summaries[0]
