# SPDX-License-Identifier: BSD-3-Clause
"""examples/tutorial.md: its Python runs and prints what the text says it does."""

import contextlib
import io
import re
from pathlib import Path

import pytest

import fastrnn

PATH = Path(__file__).resolve().parents[2] / "examples" / "tutorial.md"
TEXT = PATH.read_text(encoding="utf-8")
# A block of Python and what stands right below it as its output.
BLOCK = re.compile(
    r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@pytest.fixture(autouse=True)
def _one_thread():
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(1)  # small arrays
    yield
    fastrnn.set_num_threads(before)


def assert_prints(printed, promised):
    """The same words, and numbers that agree but for the rounding of a target."""
    assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", promised).split()
    pairs = zip(NUMBER.findall(printed), NUMBER.findall(promised), strict=True)
    for got, expected in pairs:
        digits = len(expected.partition("e")[0].partition(".")[2])
        exponent = int(expected.partition("e")[2] or 0)
        last = 10.0 ** (exponent - digits)
        assert float(got) == pytest.approx(float(expected), rel=0.1, abs=2 * last), (
            f"{printed!r} where {promised!r} is promised"
        )


def test_tutorial_prints_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it draws pictures
    namespace = {"__name__": "tutorial"}
    blocks = BLOCK.findall(TEXT)
    assert len(blocks) == len(re.findall("^```python", TEXT, re.MULTILINE)) > 15
    for code, promised in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(PATH), "exec"), namespace)
        assert_prints(printed.getvalue(), promised)
    check_what_the_prose_says(namespace)


def check_what_the_prose_says(names):
    curves = names["curves"]
    assert curves["RNN, uniform"][49] < 1e-10
    assert curves["RNN, as it comes"][99] > 0.3
    steps = curves["RNN, gain 2"][1:] / curves["RNN, gain 2"][:-1]
    assert steps.mean() > 1.1
    factors = curves["RNN, gain 0.9"][1:] / curves["RNN, gain 0.9"][:-1]
    assert 0.85 < factors.min() <= factors.max() < 0.9 + 1e-9
    assert curves["LSTM, forget bias 0"][99] < 1e-15
    assert curves["LSTM, forget bias 5"][99] > curves["LSTM, forget bias 5"][0]


def test_every_number_in_the_prose_is_in_code_or_output():
    """But years, and counts written as 0 to 9; formulas are no prose."""
    code = "".join(re.findall(r"^```\w+\n.*?^```", TEXT, re.MULTILINE | re.DOTALL))
    shown = set(NUMBER.findall(code))
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"\$.*?\$|^#.*$|`[^`]*`", "", prose, flags=re.MULTILINE)
    prose = prose[: prose.index("- S. Hochreiter, *")]
    for number in re.findall(r"\d+(?:\.\d+)?", prose):
        is_year = re.fullmatch("(19|20)\\d\\d", number)
        assert is_year or len(number) == 1 or number in shown, number


def test_picture(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.chdir(tmp_path)
    drawing = next(code for code, _ in BLOCK.findall(TEXT) if "def draw" in code)
    namespace = {"LAGS": range(1, 4), "curves": {"a": [1.0, 0.5, 0.25]}}
    exec(compile(drawing, str(PATH), "exec"), namespace)
    assert (tmp_path / "forgetting.png").stat().st_size > 5000
