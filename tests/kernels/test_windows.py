# SPDX-License-Identifier: BSD-3-Clause
"""The kernels compiled for Windows, under Wine: the bits that this system's have.

Calls are recorded here with inputs and outputs, and made again there. It takes minutes
to compile everything, so this is for `--grid`.
"""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

WINDOWS = Path(__file__).resolve().parents[1] / "support" / "windows"
NEEDED = ("wine", "gcc", "objdump")
MISSING = [name for name in NEEDED if shutil.which(name) is None]
MISSING += [
    name
    for name in ("ziglang", "Cython", "setuptools")
    if importlib.util.find_spec(name) is None
]
TARGETS = ("baseline", "x86_v3", "x86_v4")

pytestmark = [
    pytest.mark.only_grid,
    pytest.mark.skipif(bool(MISSING), reason=f"without {', '.join(MISSING)}"),
    pytest.mark.skipif(
        platform.machine() != "x86_64" or sys.platform != "linux",
        reason="records on Linux, x86-64, what Windows is to repeat",
    ),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with `replay` and `replay.exe`; FASTRNN_REPLAY names one to keep."""
    folder = os.environ.get("FASTRNN_REPLAY") or tmp_path_factory.mktemp("replay")
    subprocess.run([sys.executable, WINDOWS / "crossbuild.py", folder], check=True)
    return Path(folder)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("target", TARGETS)
def test_recorded_calls_have_the_same_bits(built, tmp_path, target, dtype):
    record = tmp_path / "record"
    done = subprocess.run(
        [built / "replay", "record", target, dtype, record],
        capture_output=True,
        text=True,
    )
    if done.returncode == 2:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr
    for n_threads in (1, 2, 3):
        again = ["check", target, dtype, record, str(n_threads)]
        done = subprocess.run(
            ["wine", built / "replay.exe", *again],
            env={**os.environ, "WINEDEBUG": "-all"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(
            rf"{target} {dtype}, {n_threads} threads of fastrnn: \d{{3}} calls, "
            r"\d{8} bytes compared, 0 outputs different",
            done.stdout,
        )


def test_a_byte_that_differs_is_found(built, tmp_path):
    record = tmp_path / "record"
    words = [built / "replay", "record", "baseline", "float32", record]
    subprocess.run(words, check=True, capture_output=True)
    content = bytearray(record.read_bytes())
    content[-1] ^= 1  # of the last output
    record.write_bytes(content)
    words = [built / "replay", "check", "baseline", "float32", record, "1"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    assert "embedding: another dweight" in done.stdout
    assert "1 outputs different" in done.stdout


def wide_stack_moves(code):
    """By function: aligned moves of wide vectors on its stack, and if it aligns that.

    Parameters
    ----------
    code : str
        What objdump shows of a file.
    """
    moves, aligned, name = {}, set(), None
    for line in code.splitlines():
        if start := re.match(r"[0-9a-f]+ <(.*)>:", line):
            name = start[1]
        elif re.search(r"\band\s+\$0xf{14}(e0|c0|80),%rsp", line):
            aligned.add(name)
        elif re.search(r"\bvmov(aps|apd|dqa\w*)\s.*%[yz]mm", line) and re.search(
            r"\(%r(sp|bp)", line
        ):
            moves[name] = moves.get(name, 0) + 1
    return {name: (n, name in aligned) for name, n in moves.items()}


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("target", ["x86_v3", "x86_v4"])
def test_stacks_are_aligned_for_the_vectors_on_them(built, target, bits):
    code = subprocess.run(
        ["objdump", "-d", built / "windows" / f"{target}-float{bits}.o"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = wide_stack_moves(code)
    assert found  # else the test looks at nothing
    assert [name for name, (_, aligned) in found.items() if not aligned] == []


def test_a_stack_that_is_not_aligned_would_be_found():
    code = """
0000 <good>:
  0: 48 83 e4 e0  and    $0xffffffffffffffe0,%rsp
  4: c5 fc 29 04  vmovaps %ymm0,0x20(%rsp)
0010 <bad>:
  0: c5 fc 29 04  vmovaps %ymm0,0x20(%rsp)
0020 <small>:
  0: c5 f8 29 04  vmovaps %xmm0,0x20(%rsp)
"""
    assert wide_stack_moves(code) == {"good": (1, True), "bad": (1, False)}
