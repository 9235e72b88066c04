# SPDX-License-Identifier: BSD-3-Clause
"""bench/cells.py: each cell is compared with the loop that computes the same, tiny."""

import pytest

torch = pytest.importorskip("torch")

TINY = "T5-B3-I4-H8"


@pytest.fixture
def cells(bench):
    before = torch.get_num_threads()
    yield bench("cells")
    torch.set_num_threads(before)
    torch.set_flush_denormal(False)


def test_results_are_compared_and_timed(cells, capsys):
    arguments = ["--shape", TINY, "--rounds", "2", "--block", "0", "--threads", "1"]
    cells.main([*arguments, "--only", "MGU,SLSTM"])
    out = capsys.readouterr().out
    assert "| MGU() |" in out
    assert "| SLSTM() |" in out
    case = next(case for case in cells.CASES if case.kind == "MGU")
    module = cells.module_of("MGU", cells.Shape.parse(TINY))
    loop = cells.Loop(case._replace(loop="ligru"), module)
    x = torch.ones(5, 3, 4, requires_grad=True)
    dy, parameters = torch.ones(5, 3, 8), [*module.parameters()]
    steps = [cells.training_step(call, x, dy, parameters) for call in (module, loop)]
    with pytest.raises(ArithmeticError, match=r"MGU\(\): results differ by"):
        cells.check(case, *steps)


def test_a_class_that_is_not_there_is_refused(cells, capsys):
    with pytest.raises(SystemExit):
        cells.main(["--only", "Nothing"])
    assert "--only must name some of" in capsys.readouterr().err
