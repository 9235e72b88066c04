# SPDX-License-Identifier: BSD-3-Clause
"""Hindi to English, letter by letter: an encoder-decoder with attention
=====================================================================

Names of places, languages, currencies and scripts that Babel has in both languages, and
the short messages that Django has. Most are one name in two scripts, so the model has
to learn how Devanagari sounds, and English spelling. A tenth is held out.

::

    python examples/translation.py [--quick] [--data FILE.csv] [--plot FILE.png]

`--data` takes a CSV file of two columns, source and target, with a header.
"""

# sphinx_gallery_thumbnail_path = 'pictures/translation_quick.png'

import argparse
import csv
import time

import numpy as np
from hindi import hindi_english, sound

import fastrnn

START, END = "<s>", "</s>"
BLEUS = "13a", "char"  # of words and of letters


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return [tuple(row[:2]) for row in list(csv.reader(file))[1:]]


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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--data", metavar="FILE", help="a CSV of source and target")
    parser.add_argument("--plot", metavar="FILE", default="translation.png")
    args = parser.parse_args()
    began = time.perf_counter()
    pairs = read(args.data) if args.data else hindi_english()
    pairs = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]
    cut = len(pairs) // 10
    test, train = pairs[:cut], pairs[cut:]

    source = fastrnn.Vocabulary.of(s for s, _ in train)  # of letters
    target = fastrnn.Vocabulary.of(
        (t for _, t in train), specials=("<unk>", START, END)
    )
    model = fastrnn.EncoderDecoder(
        fastrnn.LSTM(64, 128, bidirectional=True, seed=0),
        fastrnn.LSTM(64, 256, seed=1),
        len(source), len(target), start=target[START], end=target[END],
        attention="additive", units=128, dropout=0.3, seed=2,
    )  # fmt: skip
    model.compile(optimizer="adam", lr=2e-3)
    model.fit(
        [source.encode(s) for s, _ in train],
        [target.encode(t) for _, t in train],
        epochs=2 if args.quick else 40,
        callbacks=[fastrnn.schedules.CosineLR()],
        clip_norm=1.0,
        seed=0,
    )

    # As `predict`, but that it gives what each letter looked at, too.
    x, lengths = fastrnn.pad_sequences(
        [source.encode(s) for s, _ in test], batch_first=True
    )
    result = model.translate(x, lengths, max_length=40, beam_width=5)
    letters = [target.decode(tokens) for tokens in result.tokens]
    got = ["".join(row) for row in letters]
    right = [t for _, t in test]
    for (s, t), g in list(zip(test, got, strict=True))[:12]:
        print(f"   {s}  ->  {g}" + ("" if g == t else f"   (right: {t})"))
    print(f"{len(train)} pairs to train on, {len(test)} held out")
    report("nearest training pair", nearest(train, [s for s, _ in test]), right)
    report("encoder-decoder", got, right)
    print(f"time {time.perf_counter() - began:.0f} s")
    plot(args.plot, test, letters, result.weights, args.quick)


def plot(path, test, letters, weights, quick):
    """What each letter written looked at, for the longest four, right ones first."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    got = ["".join(row) for row in letters]
    order = sorted(range(len(test)), key=lambda i: (got[i] != test[i][1], -len(got[i])))
    figure, axes = plt.subplots(2, 2, figsize=(13, 12), layout="constrained")
    for axis, i in zip(axes.flat, order, strict=False):
        source, target = test[i]
        axis.imshow(weights[i].T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axis.set_xticks(range(len(letters[i])), letters[i])
        axis.set_yticks(range(len(source)), map(sound, source), fontsize=8)
        verdict = "right" if got[i] == target else f"right: {target}"
        axis.set(xlabel="letter written", ylabel="letter read, by its name in Unicode")
        axis.set_title(f"{got[i]}   ({verdict})", fontsize=10)
    figure.colorbar(
        axes[0, 0].images[0], ax=axes, shrink=0.5, label="share of the attention"
    )
    figure.suptitle(
        "Attention: which letter of the source each letter comes from"
        + (", after two epochs only (--quick)" if quick else "")
    )
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
