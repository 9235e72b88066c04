# SPDX-License-Identifier: BSD-3-Clause
"""Write text from a prompt: a character LSTM against an n-gram model.

The text is the English that Python carries, the help topics of `pydoc`; the last tenth
is held out. Both models are scored in bits per character there.

    python examples/text_generation.py [--quick] [--data FILE.txt] [--plot FILE.png]
"""

import argparse
import time
from collections import Counter

import numpy as np

import fastrnn
from fastrnn.text import StreamBatches, default_text, read_text
from fastrnn.text.vocabulary import CharVocabulary

BATCH, WINDOW = 32, 100


def n_gram_bits(train, test, orders, size):
    """Bits per character of interpolated n-gram models (Witten and Bell's weights).

    P_n(c | h) = (count(h c) + kinds(h) P_{n-1}(c | h')) / (count(h) + kinds(h)), where
    h' is h without its first character and kinds(h) what has followed h.
    """
    p = np.full(len(test), 1 / size)
    bits = {}
    for n in range(max(orders) + 1):  # n characters of context
        pairs = Counter(train[i : i + n + 1] for i in range(len(train) - n))
        total, kinds = Counter(), Counter()
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


def loss_bits(model, batches):
    """Bits per character over all windows, the state carried on."""
    total, state = 0.0, None
    with model._evaluating():
        for inputs, targets in batches:
            logits, state = model(inputs.T, state=state)
            total += fastrnn.cross_entropy(logits, targets.T, reduction="sum")[0]
    return total / batches.n_characters / np.log(2)


def train(model, batches, held_out, epochs):
    optimizer = fastrnn.Adam(model, lr=3e-3)
    history, done, steps = [], 0, epochs * len(batches)
    for epoch in range(epochs):
        state = None
        for inputs, targets in batches:
            logits, state = model(inputs.T, state=state)  # streams as rows
            _, dlogits = fastrnn.cross_entropy(logits, targets.T)
            model.zero_grad()
            model.backward(dlogits)
            fastrnn.clip_grad_norm_(model, 1.0)
            optimizer.lr = 3e-3 * (1 - done / steps)
            optimizer.step()
            done += 1
        history.append(loss_bits(model, held_out))
        print(f"epoch {epoch + 1:2}  {history[-1]:.3f} bits per character, held out")
    return history


def plot(path, history, n_grams):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    axes.plot(range(1, len(history) + 1), history, "o-", color="#0550ae", label="LSTM")
    best = min(n_grams, key=n_grams.get)
    for n, bits in list(n_grams.items())[: list(n_grams).index(best) + 1]:
        axes.axhline(bits, color="gray", lw=1, ls="--")
        axes.text(
            len(history), bits, f"{n}-gram", va="bottom", ha="right", color="gray"
        )
    axes.set(
        xlabel="epoch", ylabel="bits per character, held out", title="Text generation"
    )
    axes.legend()
    figure.tight_layout()
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

    hidden, epochs = (64, 2) if args.quick else (384, 12)
    recurrent = fastrnn.LSTM(64, hidden, seed=0)
    model = fastrnn.Generator(len(vocabulary), recurrent, seed=1)
    batches = StreamBatches(tokens[:cut], BATCH, WINDOW)
    held_out = StreamBatches(tokens[cut:], 8, WINDOW)
    history = train(model, batches, held_out, epochs)

    prompt = vocabulary.encode(args.prompt, replace=True)
    for name, options in {
        "greedy": {"temperature": 0},
        "temperature 0.7": {"temperature": 0.7, "seed": 0},
        "top-k 10": {"top_k": 10, "seed": 0},
        "top-p 0.9": {"top_p": 0.9, "seed": 0},
        "beam of 8": {"beam_width": 8},
    }.items():
        written = model.generate(prompt, max_length=120, **options).tokens[0]
        print(f"-- {name}: {args.prompt}{vocabulary.decode(written)!r}")
    best = min(n_grams, key=n_grams.get)
    print(f"{cut:,} characters to train on, {len(text) - cut:,} held out")
    print(f"best n-gram model ({best}-gram)  {n_grams[best]:.3f} bits per character")
    print(f"LSTM                       {history[-1]:.3f} bits per character")
    print(f"time                       {time.perf_counter() - began:.0f} s")
    plot(args.plot, history, n_grams)


if __name__ == "__main__":
    main()
