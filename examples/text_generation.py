# SPDX-License-Identifier: BSD-3-Clause
"""Write text from a prompt: a character LSTM against an n-gram model
==================================================================

The text is the English that Python carries, the help topics of `pydoc`; the last tenth
is held out. Both models are scored in bits per character there.

::

    python examples/text_generation.py [--quick] [--data FILE.txt] [--plot FILE.png]
"""

# sphinx_gallery_thumbnail_path = 'pictures/text_generation_quick.png'

import argparse
import time
from collections import Counter
from typing import Any

import matplotlib
import numpy as np

import fastrnn
from fastrnn.text import default_text, read_text
from fastrnn.text.vocabulary import CharVocabulary

WINDOW = 100  # characters that gradients go back through


def n_gram_bits(train, test, orders, size):
    """Bits per character of interpolated n-gram models (Witten and Bell's weights).

    P_n(c | h) = (count(h c) + kinds(h) P_{n-1}(c | h')) / (count(h) + kinds(h)), where
    h' is h without its first character and kinds(h) what has followed h.
    """
    p = np.full(len(test), 1 / size)
    bits = {}
    for n in range(max(orders) + 1):  # n characters of context
        pairs = Counter(train[i : i + n + 1] for i in range(len(train) - n))
        total: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        for gram, count in pairs.items():
            total[gram[:-1]] += count
            kinds[gram[:-1]] += 1
        for i in range(n, len(test)):
            h = test[i - n : i]
            if total[h]:
                gram = test[i - n : i + 1]
                p[i] = (pairs[gram] + kinds[h] * p[i]) / (total[h] + kinds[h])
        bits[n + 1] = -np.log2(p).mean()
    return {n: bits[n] for n in orders}


def in_streams(tokens, n):
    """Tokens as n streams, each the first token and those that go on from it."""
    streams = tokens[: len(tokens) // n * n].reshape(n, -1)
    return streams[:, :1], streams[:, 1:]


def plot(path, history, n_grams, quick):
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 4.5), sharey=True, width_ratios=[3, 2], layout="constrained"
    )
    best = min(n_grams, key=n_grams.get)
    left.plot(range(1, len(history) + 1), history, "o-", color="#0550ae", label="LSTM")
    left.axhline(n_grams[best], color="0.5", ls="--", label=f"best n-gram: {best}-gram")
    left.set(xlabel="epoch", ylabel="bits per character, held out")
    left.set_title("LSTM" + (" (quick: small, little text)" if quick else ""))
    right.plot(list(n_grams), list(n_grams.values()), "s--", color="0.5")
    white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    for n, bits in n_grams.items():
        place = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
        right.annotate(f"{bits:.2f}", (n, bits), bbox=white, **place)
    right.axhline(history[-1], color="#0550ae", zorder=0)
    right.set(xlabel="n", title="n-grams, and the LSTM in the end")
    right.margins(x=0.12)
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3, axis="y")
    every = [*history, *n_grams.values()]
    left.set_ylim(min(every) - 0.3, max(every) + 0.3)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--data", metavar="FILE", help="a text file to learn instead")
    parser.add_argument("--plot", metavar="FILE", default="text_generation.png")
    parser.add_argument("--prompt", default="The value of the ")
    args = parser.parse_args()
    began = time.perf_counter()
    text = read_text(args.data) if args.data else default_text()
    text = text[:40_000] if args.quick else text
    cut = len(text) * 9 // 10
    vocabulary = CharVocabulary.of(text)
    tokens = vocabulary.encode(text).astype(np.int64)
    n_grams = n_gram_bits(text[:cut], text[cut:], (2, 3, 4, 5, 6, 7), len(vocabulary))

    hidden, epochs, streams = (96, 8, 8) if args.quick else (384, 12, 32)
    recurrent = fastrnn.LSTM(64, hidden, seed=0)
    model = fastrnn.Generator(len(vocabulary), recurrent, seed=1)
    model.compile(optimizer="adam", lr=3e-3)
    # All streams are one batch, which is cut into windows: a step of Adam for each.
    fitted = model.fit(
        *in_streams(tokens[:cut], streams), batch_size=streams, tbptt=WINDOW,
        validation_data=in_streams(tokens[cut:], 8), epochs=epochs, clip_norm=1.0,
        callbacks=[fastrnn.schedules.CosineLR()], seed=2, verbose=2,
    )  # fmt: skip
    history = [nats / np.log(2) for nats in fitted.history["val_loss"]]

    prompt = vocabulary.encode(args.prompt, replace=True)
    ways: dict[str, dict[str, Any]] = {
        "greedy": {"temperature": 0},
        "temperature 0.7": {"temperature": 0.7, "seed": 0},
        "top-k 10": {"top_k": 10, "seed": 0},
        "top-p 0.9": {"top_p": 0.9, "seed": 0},
        "beam of 8": {"beam_width": 8},
    }
    for name, options in ways.items():
        written = model.generate(prompt, max_length=120, **options).tokens[0]
        print(f"-- {name}: {args.prompt}{vocabulary.decode(written)!r}")
    best = min(n_grams, key=n_grams.get)
    print(f"{cut:,} characters to train on, {len(text) - cut:,} held out")
    print(f"best n-gram model ({best}-gram)  {n_grams[best]:.3f} bits per character")
    print(f"LSTM                       {history[-1]:.3f} bits per character")
    print(f"time                       {time.perf_counter() - began:.0f} s")
    plot(args.plot, history, n_grams, args.quick)
    print(f"plot: {args.plot}")


if __name__ == "__main__":
    main()
