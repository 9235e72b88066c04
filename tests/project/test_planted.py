# SPDX-License-Identifier: BSD-3-Clause
"""Every fault that planted.py plants fits the files as they are today."""

import planted
import pytest


@pytest.mark.parametrize("name", planted.FAULTS)
def test_a_fault_can_be_planted(name):
    fault = planted.FAULTS[name]
    assert fault.new in fault.planted(planted.PROJECT)
    assert fault.first_tests(planted.PROJECT)


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "sums.py").write_text("total = a + b\ntotal = a + c\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_sums.py").write_text("")
    return tmp_path


def test_what_planting_does(tree):
    fault = planted.Fault("sums.py", "a + b", "a - b", "sums")
    assert fault.planted(tree) == "total = a - b\ntotal = a + c\n"
    assert fault.first_tests(tree) == [tree / "tests" / "test_sums.py"]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("sum.py", "a + b", "a - b", "no such file"),
        ("sums.py", "a * b", "a - b", "has 0"),
        ("sums.py", "a +", "a -", "has 2"),
        ("sums.py", "a + b", "a + b", "changes nothing"),
        ("sums.py", "a + b", "a + ", "no Python"),
    ],
)
def test_a_fault_that_does_not_fit(tree, file, old, new, message):
    with pytest.raises(ValueError, match=message):
        planted.Fault(file, old, new, "sums").planted(tree)


@pytest.mark.parametrize("first", ["sum", "sums sum"])
def test_a_fault_without_its_tests(tree, first):
    with pytest.raises(ValueError, match=r"one test_sum\.py"):
        planted.Fault("sums.py", "a + b", "a - b", first).first_tests(tree)
