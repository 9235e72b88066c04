# SPDX-License-Identifier: BSD-3-Clause
"""bench/convergence.py: each task runs, and both ways begin alike."""

import pytest


def test_the_table_has_a_row_for_each_task(bench, capsys):
    bench("convergence").main(["--quick"])
    rows = capsys.readouterr().out.splitlines()[2:]
    tasks = [row.split(" | ")[0] for row in rows]
    assert tasks == ["| characters", "| adding", "| waves"]
    for row in rows:
        whole, half, difference = map(float, row.strip("| ").split(" | ")[2:])
        assert half - whole == pytest.approx(difference, abs=2e-4)
        assert abs(difference) < 0.01
