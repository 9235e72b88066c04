# SPDX-License-Identifier: BSD-3-Clause
"""Tell nine speakers apart by how they say two vowels
===================================================

JapaneseVowels, which aeon carries: 270 utterances to train on and 370 to test, 12
cepstral coefficients at 7 to 29 steps each, nothing padded. Beside the recurrent
network: the nearest neighbour under dynamic time warping.

::

    python examples/japanese_vowels.py [--quick] [--data FILE.ts] [--plot FILE.png]

`--data` takes sequences of classes of your own in the .ts format that aeon reads; every
third is held out.
"""

# sphinx_gallery_thumbnail_path = 'pictures/japanese_vowels.png'

import argparse
import time

import matplotlib
import numpy as np

import fastrnn


def load(path):
    """Sequences (T, features) and classes from 0, to train on and to test."""
    from aeon.datasets import load_from_ts_file, load_japanese_vowels

    if path is None:
        parts = [load_japanese_vowels(split=split) for split in ("train", "test")]
    else:
        x, y = load_from_ts_file(path)
        held_out = np.arange(len(x)) % 3 == 2
        parts = [
            ([x[i] for i in np.flatnonzero(part)], y[part])
            for part in (~held_out, held_out)
        ]
    names = np.unique(parts[0][1])
    return [
        ([np.ascontiguousarray(s.T, "f") for s in x], np.searchsorted(names, y))
        for x, y in parts
    ]


def warping_distance(a, b):
    """Dynamic time warping between two sequences, squared Euclidean steps."""
    cost = ((a[:, None] - b) ** 2).sum(-1)
    total = np.full((len(a) + 1, len(b) + 1), np.inf)
    total[0, 0] = 0
    for i, row in enumerate(cost):
        for j, step in enumerate(row):
            best = min(total[i, j], total[i, j + 1], total[i + 1, j])
            total[i + 1, j + 1] = step + best
    return total[-1, -1]


def nearest(x, y, queries):
    """The class of the training sequence nearest to each query."""
    found = [np.argmin([warping_distance(query, s) for s in x]) for query in queries]
    return y[found]


def plot(path, x, y, found, classes, title):
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import PowerNorm

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 5), layout="constrained", width_ratios=[3, 2]
    )
    for speaker in range(classes):
        own = [s for s, label in zip(x, y, strict=True) if label == speaker][:12]
        for k, sequence in enumerate(own):
            label = f"speaker {speaker + 1}" if k == 0 else None
            left.plot(*sequence[:, :2].T, color=f"C{speaker}", alpha=0.5, label=label)
    left.set(
        xlabel="coefficient 1, in deviations", ylabel="coefficient 2, in deviations"
    )
    left.set_title("up to 12 test utterances of each speaker")
    figure.legend(fontsize=8, ncols=9, loc="outside lower center")
    table = np.zeros((classes, classes), int)
    np.add.at(table, (y, found), 1)
    image = right.imshow(table, cmap="Blues", norm=PowerNorm(0.5))
    figure.colorbar(image, ax=right, label="test utterances", shrink=0.8)
    for (i, j), count in np.ndenumerate(table):
        if count:
            color = "white" if image.norm(count) > 0.5 else "black"
            right.text(j, i, count, ha="center", va="center", color=color, fontsize=8)
    right.set(
        xlabel="speaker that the network says", ylabel="true speaker", title=title
    )
    right.set_xticks(range(classes), range(1, classes + 1))
    right.set_yticks(range(classes), range(1, classes + 1))
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--data", metavar="FILE", help="a .ts file instead")
    parser.add_argument("--plot", metavar="FILE", default="japanese_vowels.png")
    options = parser.parse_args()

    (x, y), (x_test, y_test) = load(options.data)
    classes = int(y.max()) + 1
    everything = np.concatenate(x)
    mean, deviation = everything.mean(0), everything.std(0)
    x, x_test = ([(s - mean) / deviation for s in part] for part in (x, x_test))

    model = fastrnn.Sequential(
        fastrnn.Bidirectional(fastrnn.GRU(64, seed=0)),
        fastrnn.Dropout(0.5, seed=1),
        fastrnn.Dense(classes, seed=2),
    )
    model.compile("sparse_categorical_crossentropy", "adam", ["accuracy"], lr=3e-3)
    epochs, start = 5 if options.quick else 60, time.perf_counter()
    model.fit(
        x, y, epochs=epochs, batch_size=16, clip_norm=1.0, seed=3,
        callbacks=[fastrnn.schedules.CosineLR()],
    )  # fmt: skip
    trained = time.perf_counter() - start
    found = model.predict(x_test).argmax(-1)
    some = slice(None, None, 20 if options.quick else 1)
    start = time.perf_counter()
    neighbour = nearest(x, y, x_test[some])
    searched = time.perf_counter() - start
    lengths = f"{min(map(len, x_test))} to {max(map(len, x_test))} steps"
    print(f"{len(x)} utterances to train on, {len(x_test)} to test, {lengths}")
    share = np.mean(neighbour == y_test[some])
    print(f"nearest neighbour  {share:7.2%} of {len(neighbour)}, {searched:.1f} s")
    share = np.mean(found == y_test)
    print(f"bidirectional GRU  {share:7.2%}, {epochs} epochs in {trained:.1f} s")
    title = f"{share:.1%} right" + (" (quick: 5 epochs)" if options.quick else "")
    plot(options.plot, x_test, y_test, found, classes, title)
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
