# SPDX-License-Identifier: BSD-3-Clause
"""What a cell learns in 20 seconds: normalised and scan cells at equal time
=========================================================================

Cells differ in what an update of their weights brings, and in what it costs. Here every
network gets the same seconds of training on the help topics of `pydoc`, character by
character, and is scored on the tenth of them that is held out: an LSTM, the same with
layer normalisation [1]_, a GRU, and stacks of cells whose recurrence is elementwise
(minGRU [2]_, SRU [3]_), of which there are three layers. Each has the best of three
learning rates, and of its epochs: differences of a hundredth mean nothing.

::

    python examples/equal_time.py [--quick] [--seconds S] [--plot FILE.png]

.. [1] J. Ba, J. Kiros, G. Hinton, "Layer Normalization", arXiv:1607.06450, 2016.
.. [2] L. Feng et al., "Were RNNs All We Needed?", arXiv:2410.01201, 2024.
.. [3] T. Lei et al., "Simple Recurrent Units for Highly Parallelizable Recurrence",
   EMNLP 2018.
"""

# sphinx_gallery_thumbnail_path = 'pictures/equal_time.png'

import argparse
import time
from typing import NamedTuple

import matplotlib
import numpy as np

import fastrnn
from fastrnn.text import default_text
from fastrnn.text.vocabulary import CharVocabulary

WINDOW, STREAMS = 100, 32  # characters that gradients go back through; rows of a batch
WIDTH = 64  # of the characters' embedding
RATES = (1e-3, 3e-3, 1e-2)  # of Adam


def networks(units):
    """A function for each network that makes its recurrent part."""
    return {
        "LSTM": lambda: fastrnn.LSTM(WIDTH, units, seed=0),
        "LSTM, normalised": lambda: fastrnn.LSTM(WIDTH, units, layer_norm=True, seed=0),
        "GRU": lambda: fastrnn.GRU(WIDTH, units, seed=0),
        "minGRU, 3 layers": lambda: fastrnn.MinGRU(WIDTH, units, 3, seed=0),
        "SRU, 3 layers": lambda: fastrnn.SRU(WIDTH, units, 3, seed=0),
    }


class Clock(fastrnn.callbacks.Callback):
    """Ends training when its time is over, and keeps the time at each epoch's end.

    The held-out text is scored within that time.
    """

    def __init__(self, seconds):
        self.seconds, self.at = seconds, []

    def on_train_begin(self, logs=None):
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.at.append(time.perf_counter() - self.began)
        self.model.stop_training = self.at[-1] >= self.seconds


class Curve(NamedTuple):
    """What one run learned: bits per character of the held-out text, and when."""

    rate: float
    seconds: list
    bits: list


def in_streams(tokens, n):
    """Tokens as n streams, each the first token and those that go on from it."""
    streams = tokens[: len(tokens) // n * n].reshape(n, -1)
    return streams[:, :1], streams[:, 1:]


def train(make, rate, size, train_tokens, test_tokens, seconds):
    """The curve of a network that trains for so many seconds at one rate."""
    model = fastrnn.Generator(size, make(), seed=1)
    model.compile(optimizer="adam", lr=rate)
    clock = Clock(seconds)
    fitted = model.fit(
        *in_streams(train_tokens, STREAMS), batch_size=STREAMS, tbptt=WINDOW,
        validation_data=in_streams(test_tokens, 8), epochs=10_000, clip_norm=1.0,
        callbacks=[clock], seed=2, verbose=0,
    )  # fmt: skip
    bits = [nats / np.log(2) for nats in fitted.history["val_loss"]]
    return Curve(rate, clock.at, bits)


def plot(path, curves, quick):
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name, curve in curves.items():
        axes.plot(curve.seconds, curve.bits, label=f"{name} (Adam at {curve.rate:g})")
    every = [bits for curve in curves.values() for bits in curve.bits]
    axes.set(
        xlabel="seconds",
        ylabel="bits per character, held out",
        ylim=(min(every) - 0.05, min(max(every), min(every) + 1.5)),
    )
    axes.set_title("equal time" + (" (quick: small, little text)" if quick else ""))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--seconds", type=float, default=20, help="for each network")
    parser.add_argument("--plot", metavar="FILE", default="equal_time.png")
    args = parser.parse_args()
    text = default_text()
    text = text[:40_000] if args.quick else text
    units, rates = (32, RATES[1:2]) if args.quick else (128, RATES)
    seconds = 0.3 if args.quick else args.seconds
    cut = len(text) * 9 // 10
    vocabulary = CharVocabulary.of(text)
    tokens = vocabulary.encode(text).astype(np.int64)
    print(f"{'network':<18} {'rate':>6} {'epochs':>7} {'seconds':>8} {'bits':>6}")
    best = {}
    for name, make in networks(units).items():
        runs = [
            train(make, rate, len(vocabulary), tokens[:cut], tokens[cut:], seconds)
            for rate in rates
        ]
        for run in runs:
            print(
                f"{name:<18} {run.rate:6g} {len(run.bits):7} {run.seconds[-1]:8.1f} "
                f"{min(run.bits):6.3f}", flush=True,
            )  # fmt: skip
        best[name] = min(runs, key=lambda run: min(run.bits))
    for name, run in sorted(best.items(), key=lambda item: min(item[1].bits)):
        print(f"at equal time: {name:<18} {min(run.bits):.3f} bits per character")
    plot(args.plot, best, args.quick)
    print(f"plot: {args.plot}")


if __name__ == "__main__":
    main()
