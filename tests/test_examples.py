# SPDX-License-Identifier: BSD-3-Clause
"""The examples run, with `--quick`, where the packages that carry their data are."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NEEDS = {
    "share_price": ("matplotlib", "sklearn"),
    "weather": ("matplotlib", "pandas", "sklearn", "vega_datasets"),
    "japanese_vowels": ("matplotlib", "aeon"),
    "tagging": ("matplotlib",),
    "text_generation": ("matplotlib",),
    "translation": ("matplotlib", "babel", "django", "sacrebleu"),
    "speech": ("matplotlib", "espeakng_loader"),
    "music": ("matplotlib", "music21"),
    "sentiment": ("matplotlib", "pandas", "sklearn", "scattertext"),
    "captions": ("matplotlib", "sklearn"),
    "dna": ("matplotlib", "sklearn", "pyrodigal"),
    "long_memory": ("matplotlib",),
}
SAYS = {
    "share_price": "last value",
    "weather": "seasonal-naive",
    "japanese_vowels": "nearest neighbour",
    "tagging": "most frequent tag",
    "text_generation": "best n-gram",
    "translation": "nearest training pair",
    "speech": "without recurrence",
    "music": "bigram",
    "sentiment": "bag-of-words",
    "captions": "nearest training image",
    "dna": "k-mer logistic regression",
    "long_memory": "no memory",
}


@pytest.mark.parametrize("name", NEEDS)
def test_example(name, tmp_path):
    missing = [need for need in NEEDS[name] if importlib.util.find_spec(need) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), "--quick"],
        cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert SAYS[name] in done.stdout
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_own_prices(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    days = pandas.date_range("2020-01-01", periods=400)
    table = pandas.DataFrame({"date": days, "close": range(1, 401)})
    table.to_csv(tmp_path / "own.csv", index=False)
    script = str(EXAMPLES / "share_price.py")
    done = subprocess.run(
        [sys.executable, script, "--quick", "--data", "own.csv"],
        cwd=tmp_path, env={**os.environ, "KERAS_BACKEND": "torch"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "on 140 days held out" in done.stdout
