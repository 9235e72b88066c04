# SPDX-License-Identifier: BSD-3-Clause
"""Damaged files of every format: refused by a ValueError with the path, or read.

Each format's copies are read in a process of its own, which ends at the first that
raises anything else, takes more than ten times the file and 64 MiB of memory, or does
not come back. FASTRNN_FUZZ_EXAMPLES=3000 tries that many of each format;
`tests/support/fuzz_files.py` lets a fuzzer look for them that sees which lines they
reach.
"""

import os
import subprocess
import sys
import time

import damaged_files
import pytest

N = int(os.environ.get("FASTRNN_FUZZ_EXAMPLES", "60"))
NEEDS = {
    "h5": "h5py",
    "keras": "h5py",
    "functional": "h5py",
    "onnx": "onnx",
    "quantized": "onnx",
}


@pytest.mark.parametrize("kind", ["h5", "keras", "functional"])
def test_a_file_is_the_same_in_every_run(tmp_path, kind, monkeypatch):
    """Damaged copies are given by their numbers: a crash can be looked at again."""
    pytest.importorskip("h5py", reason="h5py is not installed")
    write = damaged_files.FORMATS[kind][0]
    write(tmp_path / "one")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 10**6)
    write(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize("kind", damaged_files.FORMATS)
def test_damaged_copies_are_refused_or_read(tmp_path, kind, tried):
    if kind in NEEDS:
        pytest.importorskip(NEEDS[kind], reason=f"{NEEDS[kind]} is not installed")
    whole = tmp_path / "whole"
    damaged_files.FORMATS[kind][0](whole)
    done = subprocess.run(
        [sys.executable, damaged_files.__file__, kind, str(whole), str(N)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    refused = int(done.stdout.split()[0])
    assert N // 4 < refused <= N
    tried(N, f"damaged files of the kind {kind}, {refused} of them refused")
