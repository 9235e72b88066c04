# SPDX-License-Identifier: BSD-3-Clause
"""The estimators in joblib's processes: the threads of each, and equal results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from fastrnn.native import core

pytestmark = pytest.mark.skipif(not core.THREADING, reason="a build without threads")
PROGRAM = Path(__file__).parents[1] / "support" / "joblib_workers.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the program found, in an environment that says nothing of threads."""
    file = tmp_path_factory.mktemp("joblib") / "found.json"
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_THREADS")}
    subprocess.run(
        [sys.executable, "-W", "ignore", str(PROGRAM), str(file)],
        env=environment | {"OMP_DYNAMIC": "false"},
        check=True,
        timeout=300,
    )
    return json.loads(file.read_text(encoding="utf-8"))


def is_team_of(probe, n):
    """Whether a process might use n threads, and did; one is there from the start."""
    return probe["may"] == n and probe["new"] in (n - 1, 0)


@pytest.mark.parametrize("at", range(4))
def test_a_worker_of_loky_has_its_share_of_the_processors(found, at):
    """joblib sets OMP_NUM_THREADS in its workers, and they follow it."""
    probe, share = found["loky"][at], max(found["cpus"] // 2, 1)
    assert probe["environment"] == str(share)
    assert is_team_of(probe, share)
    for n in (1, 2):
        assert is_team_of(found[f"inner {n}"][at], n)


def test_threadpoolctl_limits_the_default(found):
    """What `set_num_threads` set counts more, as it does before OMP_NUM_THREADS."""
    assert found["limited"]["may"] == 1
    assert found["limited"]["new"] == 0
    assert found["alone"]["may"] == found["cpus"]
    assert found["set"] == 2


@pytest.mark.parametrize("at", range(4))
def test_forked_workers_have_one_thread(found, at):
    """No deadlock: the pool of threads that the parent had does not outlive a fork."""
    if found["cpus"] > 1:  # else the parent had no pool
        assert is_team_of(found["forked late"][at], 1)


def test_two_processes_find_what_one_finds(found):
    assert found["search"][0] == found["search"][1]
    assert found["scores"][0] == found["scores"][1]
