# SPDX-License-Identifier: BSD-3-Clause
"""The faults that `planted` plants: each has a place in the files as they are now."""

import planted
import pytest

TESTS = planted.PROJECT / "tests"


@pytest.mark.parametrize("fault", planted.FAULTS.values(), ids=planted.FAULTS)
def test_a_fault_has_its_place_and_its_tests(fault):
    source = (planted.PROJECT / fault.file).read_text(encoding="utf-8")
    assert source.count(fault.old) == 1
    for name in fault.first.split():
        assert list(TESTS.rglob(f"test_{name}.py")), name
