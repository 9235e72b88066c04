# SPDX-License-Identifier: BSD-3-Clause
"""Does the middle of these 1200 bases code for a protein, on this strand?
=======================================================================

The chloroplast genome of thale cress: 154,478 bases, 85 coding regions annotated by
people. It is a test file in Biopython's source distribution; its wheel has none::

    pip download --no-binary :all: --no-deps biopython
    python examples/dna.py [--quick] [--data FILE] [--plot FILE.png]

`--data` takes another GenBank file, or the archive where it lies elsewhere. A
bidirectional GRU reads the codons of all three frames, one-hot, three bases at a step,
and answers at every step while it learns; its answer at the middle counts. Beside it: a
logistic regression on the counts of words of three to six bases, in all the stretch or
its middle half. Every fifth block of the genome is held out in turn, less what also
occurs in the rest (cross-validation).
"""

# sphinx_gallery_thumbnail_path = 'pictures/dna_quick.png'

import argparse
import time

import numpy as np
from genome import WINDOW, count_words, draw, inside, load, new, read, words

import fastrnn

BLOCK, FOLDS, BATCH, CODONS, STEPS = 6000, 5, 32, 3 * 64, 400


def codons(x):
    """The codons that start at three bases (n, T, 192), and the third base's place."""
    at = np.arange(0, WINDOW - 4, 3)
    tokens = words(x, 3)[:, at[:, None] + np.arange(3)] + 64 * np.arange(3)
    hot = np.zeros((len(x), len(at), CODONS), "f")
    np.put_along_axis(hot, tokens, 1, axis=2)
    return hot, at + 2


def batches(genome, starts, rng):
    """Codons and what each base codes, of stretches never drawn before, for ever."""
    while True:
        x, y = draw(rng, genome, starts, BATCH)
        hot, at = codons(x)
        yield hot, y[:, at]


def train(genome, starts, steps, seed):
    """A GRU in both directions, with an answer at every step."""
    # With the first weights that README.md's figures are of: the default's do as well.
    gru = fastrnn.GRU(CODONS, 32, init="torch", seed=seed + 1)
    model = fastrnn.Sequential(
        fastrnn.Dropout(0.15, seed=seed),
        fastrnn.Bidirectional(gru),
        fastrnn.Dropout(0.5, seed=seed + 2),
        fastrnn.Linear(64, 2, activation="softmax", init="torch", seed=seed + 3),
    )
    loss, metrics = "sparse_categorical_crossentropy", ["accuracy"]
    model.compile(loss, "adamw", metrics, lr=3e-3, weight_decay=0.05)
    epochs = 2 if steps < 100 else 8
    model.fit(
        batches(genome, starts, np.random.default_rng(seed)),
        epochs=epochs,
        steps_per_epoch=steps // epochs,
        callbacks=[fastrnn.schedules.CosineLR()],
        clip_norm=1.0,
        verbose=0,
    )
    return model


def chance(model, x):
    """Probability that the middle of each stretch is coding."""
    parts = [x[i : i + 256] for i in range(0, len(x), 256)]  # one-hot they are large
    said = [model.predict(codons(part)[0]) for part in parts]
    return np.concatenate([part[:, part.shape[1] // 2, 1] for part in said])


def middle(stretches):
    return stretches[0], stretches[1][:, WINDOW // 2]


def fold(genome, number, quick):
    """Accuracies of most frequent answer, words and GRU on a fold; seconds; the GRU."""
    block = np.arange(len(genome[0])) // BLOCK % FOLDS
    test, valid = block == number, block == (number + 1) % FOLDS
    own = inside(new(genome[0], test | valid), WINDOW - 23)
    every = 120 if quick else 12
    tests, valids = (
        np.repeat(np.flatnonzero(inside(part, WINDOW) & own)[::every], 2)
        for part in (test, valid)
    )
    starts = np.flatnonzero(inside(~(test | valid), WINDOW))
    (x, y), valid_set = (
        middle(read(genome, part, np.arange(len(part)) % 2)) for part in (tests, valids)
    )
    rng = np.random.default_rng(number)
    train_set = middle(draw(rng, genome, starts, 500 if quick else 6000))
    counted = np.mean(count_words(train_set, valid_set, x) == y)
    start = time.perf_counter()
    model = train(genome, starts, 20 if quick else STEPS, 10 * number)
    seconds = time.perf_counter() - start
    right = np.mean((chance(model, x) > 0.5) == y)
    print(f"fold {number + 1}: words {counted:.2%}, GRU {right:.2%}", flush=True)
    return (max(y.mean(), 1 - y.mean()), counted, right), seconds, model


def plot(path, genome, model, first, quick):
    """The model's answers along a block held out, over what people annotated."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    starts = np.arange(first, first + BLOCK - WINDOW, 10)
    figure, axes = plt.subplots(
        2, 1, figsize=(13, 6), sharex=True, sharey=True, layout="constrained"
    )
    at = (starts + WINDOW // 2) / 1000
    for strand, axis in enumerate(axes):
        x, real = middle(read(genome, starts, np.full(len(starts), strand)))
        said = chance(model, x)
        axis.fill_between(
            at, 0, real, step="mid", color="C2", alpha=0.3, label="codes (annotation)"
        )
        axis.plot(at, said, color="C0", linewidth=1, label="said by the GRU")
        axis.axhline(0.5, color="0.5", linewidth=0.8, linestyle=":")
        right = np.mean((said > 0.5) == real)
        axis.set(ylabel="probability of coding", ylim=(0, 1), xlim=(at[0], at[-1]))
        axis.set_title(f"{('forward', 'reverse')[strand]} strand: {right:.0%} right")
    axes[0].legend(loc="upper left", bbox_to_anchor=(1, 1))
    axes[1].set_xlabel("place in the genome, thousands of bases; a block held out")
    if quick:
        figure.suptitle("After 20 steps only (--quick)")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument(
        "--data", metavar="FILE", help="GenBank file, or Biopython's sdist"
    )
    parser.add_argument("--plot", metavar="FILE", default="dna.png")
    options = parser.parse_args()
    genome = load(options.data)
    print(f"{len(genome[0]):,} bases, {genome[1].mean():.0%} of both strands coding")
    folds = [fold(genome, number, options.quick) for number in range(FOLDS)]
    scores = np.array([scores for scores, _, _ in folds])
    names = "more frequent answer", "k-mer logistic regression", "bidirectional GRU"
    for name, part in zip(names, scores.T, strict=True):
        print(f"{name:<27} {part.mean():7.2%}")
    seconds = sum(seconds for _, seconds, _ in folds)
    print(f"the GRU was trained {FOLDS} times, in {seconds:.1f} s")
    plot(options.plot, genome, folds[-1][2], (FOLDS - 1) * BLOCK, options.quick)
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
