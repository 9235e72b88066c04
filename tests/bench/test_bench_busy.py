# SPDX-License-Identifier: BSD-3-Clause
"""bench/busy.py."""

import contextlib
import os
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def busy(bench):
    return bench("busy")


def test_a_quick_table(busy, monkeypatch, capsys):
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(busy, "cpus", lambda: 2)
    busy.main(["--quick", "--others", "1"])
    head, dashes, all_cpus, one = capsys.readouterr().out.splitlines()
    assert head.count("|") == dashes.count("|") == 8
    assert "beside 1 busy" in head
    case, library, n_threads, idle, by_ours, crowded, _ = all_cpus.strip("| ").split(
        " | "
    )
    assert (case, library, n_threads) == ("lstm/train/T20-B16-I50-H50", "fastrnn", "2")
    assert by_ours == "1.00"
    assert float(idle.removesuffix(" ms")) > 0
    assert float(crowded.removesuffix(" ms")) > 0
    assert one.startswith("| lstm/train/T20-B16-I50-H50 | fastrnn | 1 |")


def test_others_run_only_when_they_may(busy):
    before = children()
    with busy.others(1) as let:
        (pid,) = set(children()) - set(before)
        wait_for(pid, "T")
        let(True)
        wait_for(pid, "RS")
        let(False)
        wait_for(pid, "T")
    assert pid not in children()


def children():
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(pid) for pid in text.split()]


def wait_for(pid, states):
    """Wait until a process is in one of the states of /proc; signals take a moment."""
    for _ in range(1000):
        text = Path(f"/proc/{pid}/stat").read_text()
        if text.rpartition(")")[2].split()[0] in states:
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} never came to be in {states}: {text}")


def test_a_missing_peer_is_left_out(busy, bench, monkeypatch):
    class Absent:
        def __init__(self, name, n_threads, dtype, n_cpus):
            self.absent = None if name == "fastrnn" else "no such library"

        def close(self):
            pass

    monkeypatch.setattr(bench("peers"), "Worker", Absent)
    monkeypatch.setattr(busy, "cpus", lambda: 2)
    with contextlib.ExitStack() as stack:
        team, absent = busy.workers(["abacus"], stack)
    assert list(team) == [("fastrnn", 2), ("fastrnn", 1)]
    assert absent == {"abacus": "no such library"}


def test_the_mean_counts_stalls(bench, monkeypatch):
    timing, now = bench("timing"), iter([0.0, 1.0, 9.0, 9.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(now))
    done = []
    assert timing.mean_time(lambda: done.append(1), 5.0) == (2, 9.0)
    assert len(done) == 3
