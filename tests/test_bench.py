# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark works: its arithmetic, its check, its report, and that it runs."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastrnn import _core

PROJECT = Path(__file__).resolve().parents[1]
TINY = "T5-B3-I7-H17"


@pytest.fixture
def bench(monkeypatch):
    """Import a module of bench/, which is not installed."""
    monkeypatch.syspath_prepend(str(PROJECT))
    return lambda name: importlib.import_module(f"bench.{name}")


def run_bench(*arguments):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "bench", *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_ids_are_unique_and_flops_follow_the_formula(bench):
    cases = bench("cases")
    grid = cases.cases()
    assert len({case.id for case in grid}) == len(grid) == 3 * 2 * 6
    case = cases.Case("lstm", "train", cases.Shape.parse("T100-B64-I512-H256"))
    assert case.id == "lstm/train/T100-B64-I512-H256"
    assert case.flops == 3 * 2 * 100 * 64 * 4 * 256 * (512 + 256)


@pytest.mark.parametrize("text", ["", "T1-B1-I1", "T1-B0-I1-H1", "T1-B1-I1-H1-"])
def test_a_wrong_shape_is_refused(bench, text):
    with pytest.raises(ValueError, match=f"bench: a shape must look like .*{text!r}"):
        bench("cases").Shape.parse(text)


def test_quartiles(bench):
    quartiles = bench("timing").quartiles
    assert quartiles([5, 1, 3, 2, 4]) == {"q1": 2, "median": 3, "q3": 4}
    assert quartiles([7]) == {"q1": 7, "median": 7, "q3": 7}


def test_interleaving_times_each_call_in_each_round(bench, monkeypatch):
    timing = bench("timing")
    order = []
    monkeypatch.setattr(timing, "block_time", lambda call: order.append(call()) or 1.0)
    times = timing.interleave({"a": lambda: "a", "b": lambda: "b"}, rounds=3)
    assert times == {"a": [1.0] * 3, "b": [1.0] * 3}
    assert "".join(order) == "abbaab"


def test_fma_peak_counts_the_operations_of_the_whole_team(isa, dtype):
    kernels = _core.kernels(dtype)
    one = kernels.fma_peak(1, 10)
    assert one > 0
    assert one % (2 * kernels.lanes * 10) == 0  # a whole number of chains of vectors
    assert kernels.fma_peak(1, 30) == 3 * one
    assert kernels.fma_peak(2, 10) in {one, 2 * one}  # the team may be smaller
    assert kernels.fma_peak(1, 0) == 0


def result(bench, ours, theirs):
    """A result file's content with one case."""
    case = bench("cases").cases(shapes=bench("cases").CHECK_SHAPES)[0]
    quartiles = bench("timing").quartiles
    record = {
        "id": case.id,
        "cell": case.cell,
        "pass": case.direction,
        **case.shape._asdict(),
        "flops": case.flops,
        "error": 1e-7,
        "fastrnn_ms": quartiles([ours]),
        "fastrnn_gflops": case.flops / ours / 1e6,
        "torch_ms": quartiles([theirs]),
        "ratio": quartiles([theirs / ours]),
    }
    machine = {"cpu": "a CPU", "isa": "x86_v3", "fastrnn": "1", "torch": "2"}
    return {
        "machine": {**machine, "python": "3"},
        "settings": {"threads": 2, "dtype": "float32", "rounds": 11},
        "date": "2026-01-02T03:04:05+00:00",
        "peak_gflops": 2 * record["fastrnn_gflops"],
        "cases": [record],
    }


def test_the_table_says_time_share_and_ratio(bench):
    text = bench("report").tables(result(bench, 2.0, 5.0))
    assert "| T5 B3 I7 H17 | 2 ms, 50%, **2.50x** |" in text
    assert "a CPU, 2 threads, x86_v3, float32" in text


def test_compare_says_what_changed(bench):
    old, new = result(bench, 2.0, 5.0), result(bench, 1.0, 5.0)
    line = bench("report").compare(old, new)
    assert line.split()[1:] == ["2.000", "->", "1.000", "ms", "(-50.0%)"]
    assert "within the spread" in bench("report").compare(old, old)


def test_wrong_results_are_not_timed(bench):
    pytest.importorskip("torch", reason="bench compares with PyTorch")
    check = bench("layers").check
    good = {"y": np.ones(3, "f")}
    assert check(good, good, "float32", "id") == 0
    wrong = [
        ({"y": np.array([1, 1, 1.001], "f")}, "id: y differs from PyTorch's by"),
        ({"y": np.array([1, 1, np.nan], "f")}, "id: y differs from PyTorch's by nan"),
        ({"y": np.ones(4, "f")}, "id: y has shape"),
        ({"z": np.ones(3, "f")}, "id: results .* against"),
    ]
    for bad, message in wrong:
        with pytest.raises(ArithmeticError, match=message):
            check(bad, good, "float32", "id")


def test_every_case_agrees_with_pytorch():
    pytest.importorskip("torch", reason="bench compares with PyTorch")
    text = run_bench("--check")
    assert text.count("results agree to") == 6
    assert "losses agree" in text
    assert run_bench("--check", "--dtype", "float64").count("results agree to") == 6


def test_a_run_writes_json_and_prints_the_table(tmp_path):
    pytest.importorskip("torch", reason="bench compares with PyTorch")
    file = tmp_path / "result.json"
    text = run_bench(
        *("--quick", "--table", "--json", str(file)),
        *("--cells", "gru", "--shapes", TINY, "--threads", "1"),
    )
    assert text.startswith(json.loads(file.read_text())["machine"]["cpu"])
    assert "| Training step | GRU |" in text
    found = json.loads(file.read_text())
    assert found["settings"]["threads"] == 1
    assert [case["id"] for case in found["cases"]] == [
        f"gru/forward/{TINY}",
        f"gru/train/{TINY}",
    ]
    for case in found["cases"]:
        assert case["ratio"]["q1"] <= case["ratio"]["median"] <= case["ratio"]["q3"]
    assert found["peak_gflops"] > 0
