# SPDX-License-Identifier: BSD-3-Clause
"""Hindi to English, letter by letter: an encoder-decoder with attention.

Names of places, languages, currencies and scripts that Babel has in both languages, and
the short messages that Django has. Most are one name in two scripts, so the model has
to learn how Devanagari sounds, and English spelling. A tenth is held out.

    python examples/translation.py [--quick] [--data FILE.csv] [--plot FILE.png]

`--data` takes a CSV file of two columns, source and target, with a header.
"""

import argparse
import csv
import time

import numpy as np
from hindi import hindi_english, sound

import fastrnn

START, END, FIRST = 0, 1, 2  # target tokens; letters from FIRST on
BLEUS = "13a", "char"  # of words and of letters


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return [tuple(row[:2]) for row in list(csv.reader(file))[1:]]


class Letters:
    """Numbers from `first` on for the letters of some texts."""

    def __init__(self, texts, first):
        self.letters = sorted(set("".join(texts)))
        self.index = {letter: first + i for i, letter in enumerate(self.letters)}
        self.first, self.size = first, first + len(self.letters)

    def encode(self, text):
        known = [self.index[letter] for letter in text if letter in self.index]
        return np.array(known or [self.first])

    def decode(self, tokens):
        return "".join(self.letters[max(0, token - self.first)] for token in tokens)


def padded(rows):
    lengths = np.array([len(row) for row in rows])
    array = np.zeros((len(rows), lengths.max()), np.int64)
    for b, row in enumerate(rows):
        array[b, : len(row)] = row
    return array, lengths


def nearest(train, sources):
    """The target of the training source that shares most pairs of letters."""
    pairs = [{s[i : i + 2] for i in range(len(s))} for s, _ in train]

    def like(source):
        own = {source[i : i + 2] for i in range(len(source))}
        shared = [len(own & other) / len(own | other) for other in pairs]
        return train[int(np.argmax(shared))][1]

    return [like(source) for source in sources]


def report(name, got, right):
    import sacrebleu

    exact = np.mean([a == b for a, b in zip(got, right, strict=True)])
    bleu = [sacrebleu.corpus_bleu(got, [right], tokenize=t).score for t in BLEUS]
    print(
        f"{name:<22} BLEU {bleu[0]:4.1f}  of letters {bleu[1]:4.1f}  exact {exact:.1%}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--data", metavar="FILE", help="a CSV of source and target")
    parser.add_argument("--plot", metavar="FILE", default="translation.png")
    args = parser.parse_args()
    began = time.perf_counter()
    pairs = read(args.data) if args.data else hindi_english()
    pairs = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]
    cut = len(pairs) // 10
    test, train = pairs[:cut], pairs[cut:]
    source, target = (
        Letters([pair[side] for pair in train], FIRST if side else 0) for side in (0, 1)
    )
    model = fastrnn.EncoderDecoder(
        fastrnn.LSTM(64, 128, bidirectional=True, seed=0),
        fastrnn.LSTM(64, 256, seed=1),
        source.size, target.size, start=START, end=END,
        attention="additive", units=128, dropout=0.3, seed=2,
    )  # fmt: skip
    sources = [source.encode(s) for s, _ in train]
    targets = [target.encode(t) for _, t in train]
    optimizer = fastrnn.Adam(model, lr=2e-3)
    rng = np.random.default_rng(0)
    epochs, batch = (2, 32) if args.quick else (40, 32)
    order = np.argsort([len(s) for s in sources], kind="stable")
    batches = np.array_split(order, max(1, len(train) // batch))
    for epoch in range(epochs):
        losses = []
        for rows in rng.permutation(len(batches)):
            x, lengths = padded([sources[i] for i in batches[rows]])
            wanted = [targets[i] for i in batches[rows]]
            inputs, outputs = fastrnn.teacher_forcing(wanted, START, END)
            logits, _ = model(x, inputs, lengths)
            loss, dlogits = fastrnn.cross_entropy(logits, outputs)
            model.zero_grad()
            model.backward(dlogits)
            fastrnn.clip_grad_norm_(model, 1.0)
            optimizer.step()
            losses.append(loss)
        optimizer.lr = 2e-3 * (1 - (epoch + 1) / epochs) + 1e-5
        if (epoch + 1) % max(1, epochs // 8) == 0:
            print(f"epoch {epoch + 1:3}  loss {np.mean(losses):.3f} nats per letter")

    x, lengths = padded([source.encode(s) for s, _ in test])
    result = model.translate(x, lengths, max_length=40, beam_width=5)
    got, right = [target.decode(t) for t in result.tokens], [t for _, t in test]
    for (s, t), g in list(zip(test, got, strict=True))[:12]:
        print(f"   {s}  ->  {g}" + ("" if g == t else f"   (right: {t})"))
    print(f"{len(train)} pairs to train on, {len(test)} held out")
    report("nearest training pair", nearest(train, [s for s, _ in test]), right)
    report("encoder-decoder", got, right)
    print(f"time {time.perf_counter() - began:.0f} s")
    plot(args.plot, test, got, result.weights)


def plot(path, test, got, weights):
    """What each letter written looked at, for the longest four, right ones first."""
    import matplotlib.pyplot as plt

    order = sorted(range(len(test)), key=lambda i: (got[i] != test[i][1], -len(got[i])))
    figure, axes = plt.subplots(2, 2, figsize=(10, 9), squeeze=False)
    for axis, i in zip(axes.flat, order, strict=False):
        axis.imshow(weights[i].T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axis.set_xticks(range(len(got[i])), got[i])
        axis.set_yticks(range(len(test[i][0])), map(sound, test[i][0]))
        axis.set_xlabel("written")
    figure.suptitle("Attention: which letter of the source each letter comes from")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
