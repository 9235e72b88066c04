# SPDX-License-Identifier: BSD-3-Clause
"""Two processes train as one: DistributedDataParallel and FSDP2, over gloo."""

import json
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("torch.distributed.fsdp", reason="PyTorch without distributed")

import two_processes  # noqa: E402

HOWS = ("accelerated before", "accelerated after", "accumulated")
CASES = [
    *(f"{wrap}, {net}" for wrap, net in two_processes.CASES),
    *(f"{wrap}, {how}" for wrap in ("DDP", "FSDP2") for how in HOWS),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the two processes found, and what they printed: see `two_processes`."""
    file = tmp_path_factory.mktemp("two") / "found.json"
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "torch.distributed.run"),
            *("--standalone", "--nproc-per-node", "2"),
            *(two_processes.__file__, file),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    found = json.loads(file.read_text(encoding="utf-8"))
    return {**found, "output": done.stdout}


def close(got, want, allowed=2e-6):
    assert len(got) == len(want) > 0
    assert max(abs(a - b) for a, b in zip(got, want, strict=True)) < allowed


@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_of_torch_nn_and_of_one_process(found, case):
    """Step after step: weights that were packed of an earlier step would show."""
    losses = found[case]
    # PyTorch's sums of bfloat16 are others, and one process has float32.
    bfloat16 = "bfloat16" in case
    close(losses["ours"], losses["theirs"], 1e-2 if bfloat16 else 1e-6)
    close(losses["ours"], losses["joint"], 1e-2 if bfloat16 else 2e-6)
    assert max(losses["ours"]) > min(losses["ours"]) + 1e-3  # it did learn
    assert losses["calls"] > two_processes.STEPS


def test_torchrun_gives_each_process_one_thread(found):
    assert found["threads"] == 1


def test_checkpoints_of_shards_are_torch_nns(found):
    """Saved by ours under FSDP2; loaded by torch.nn's, whole and in shards."""
    parts = found["checkpoints"]
    assert parts["plain"] < 1e-6
    close(parts["ours"], parts["theirs"])


@pytest.mark.parametrize("how", ["before", "after"])
def test_what_accelerate_explain_and_restore_say_of_shards(found, how):
    said, ours = found["words"][how], "fastrnn: float32 on the CPU"
    assert said["classes"] == [["FSDPLSTM", "FSDPModule", "LSTM"]] * 2
    assert said["paths"] == [
        ours,
        f"layer: {ours}",
        "layer: PyTorch: LSTM is not one of fastrnn.torch's modules",
    ]
    close(said["losses"], found["words"]["theirs"])


def test_a_layer_of_a_sharded_model_is_explained_by_the_model(found):
    assert found["words"]["part"] == (
        "PyTorch: a weight is a DTensor, not a plain tensor; fully_shard gathers this "
        "layer's weights only while the model runs that it was called with: explain "
        "that model"
    )


def test_the_example_trains_equally_with_both_libraries(found):
    """In whole models, and in shards."""
    reports = found["output"].split("2 processes, 1 thread(s) each\n")[1:]
    assert len(reports) == 2
    for report in reports:
        theirs, ours, difference = report.strip().splitlines()
        assert theirs.startswith("torch: loss ")
        assert ours.startswith("fastrnn: loss ")
        assert float(difference.split()[-1]) < 2e-6
