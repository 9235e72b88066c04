# SPDX-License-Identifier: BSD-3-Clause
""".ci/wheel, which looks at what is published, finds what must not be."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECK = Path(__file__).resolve().parents[2] / ".ci" / "wheel"
OLD = b"\x7fELF GLIBC_2.5\0GLIBC_2.17\0"

pytestmark = pytest.mark.skipif(
    not CHECK.exists(), reason="a source distribution has no .ci"
)


def check(tmp_path, tag="linux_x86_64", **files):
    """What the check prints on standard error, and its exit status."""
    path = tmp_path / f"fastrnn-1-cp311-abi3-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(f"fastrnn/native/{name}", content)
    done = subprocess.run(
        [sys.executable, CHECK, path], capture_output=True, text=True, check=False
    )
    return done.stderr, done.returncode


def test_a_wheel_as_it_should_be(tmp_path):
    files = {"core.abi3.so": OLD, "config.py": "", "core.pyi": ""}
    assert check(tmp_path, "manylinux_2_17_x86_64", **files) == ("", 0)


@pytest.mark.parametrize("name", ["core.pyx", "core.pxd", "core.c", "fastrnn.h"])
def test_sources_are_refused(tmp_path, name):
    told, status = check(tmp_path, **{name: ""})
    assert status == 1
    assert f"fastrnn/native/{name} is a source" in told


def test_a_large_wheel_is_refused(tmp_path):
    told, status = check(tmp_path, **{"core.abi3.so": bytes(2_500_001)})
    assert status == 1
    assert "are more than 2,500,000" in told


def test_the_runtime_of_openmp_is_not_counted(tmp_path):
    assert check(tmp_path, **{"libgomp.so.1": bytes(2_500_001)}) == ("", 0)


def test_a_tag_that_claims_an_older_glibc_is_refused(tmp_path):
    files = {"core.abi3.so": OLD + b"GLIBC_2.34\0"}
    told, status = check(tmp_path, "manylinux_2_28_x86_64", **files)
    assert status == 1
    assert "the tag claims glibc 2.28" in told
