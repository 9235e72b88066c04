# SPDX-License-Identifier: BSD-3-Clause
"""Does the middle of these 180 bases belong to a gene on this strand?

The chromosome of Corynebacterium diphtheriae that pyrodigal carries, 2.46 million
bases; what is a gene is what pyrodigal's gene finder calls one. Stretches of both
strands go through a bidirectional GRU as words of five bases, three bases apart. Every
fifth block of the chromosome is held out, less what also occurs in the rest. Beside it:
a logistic regression on the counts of the 4096 words of six bases.

    python examples/dna.py [--quick] [--data FILE.gb] [--plot FILE.png]

`--data` takes a GenBank file with coding regions, annotated by people, or the source
distribution of Biopython, which has the chloroplast genome of thale cress in its tests:

    pip download --no-binary :all: --no-deps biopython
    python examples/dna.py --data biopython-*.tar.gz
"""

import argparse
import gzip
import io
import tarfile
import time
from importlib import resources
from pathlib import Path

import numpy as np
from pytorch_time import compare

import fastrnn

WINDOW, WORD, STEP, BLOCK = 180, 5, 3, 6000
CHLOROPLAST = "Tests/GenBank/NC_000932.gb"


def load(path):
    """Bases, and for each strand where it is coding: (n,) and (2, n), all read left
    to right."""
    regions = []
    if path is None:
        import pyrodigal

        folder = resources.files("pyrodigal") / "tests" / "data"
        file = folder / "GCF_001457455.1_NCTC11397_genomic.fna.gz"
        lines = gzip.decompress(file.read_bytes()).decode().split("\n")
        text = "".join(lines[1:])
        finder = pyrodigal.GeneFinder()
        finder.train(text)
        for gene in finder.find_genes(text):
            regions.append((gene.begin - 1, gene.end, gene.strand))
    else:
        from Bio import SeqIO

        if str(path).endswith(".tar.gz"):
            with tarfile.open(path) as archive:
                name = next(n for n in archive.getnames() if n.endswith(CHLOROPLAST))
                source = archive.extractfile(name).read().decode()
        else:
            source = Path(path).read_text(encoding="utf-8")
        record = next(SeqIO.parse(io.StringIO(source), "genbank"))
        text = str(record.seq)
        for feature in record.features:
            if feature.type == "CDS":
                for part in feature.location.parts:
                    regions.append((int(part.start), int(part.end), part.strand))
    letters = np.frombuffer(text.upper().encode(), np.uint8)
    bases = np.argmax(letters[:, None] == np.frombuffer(b"ACGT", np.uint8), axis=1)
    coding = np.zeros((2, len(bases)), bool)
    for start, end, strand in regions:
        coding[0 if strand == 1 else 1, start:end] = True
    return bases, coding


def words(bases, k):
    """The number of the word of k bases that starts at each position."""
    number = 0
    for i in range(k):
        number = 4 * number + bases[..., i : bases.shape[-1] - k + 1 + i]
    return number


def counts(flags, k):
    """How many of the k flags from each position on are set."""
    total = np.cumsum(np.concatenate([[0], flags]))
    return total[k:] - total[:-k]


def repeated(bases, held_out):
    """Which words of 24 bases are in the training blocks too, on either strand."""
    forward = words(bases, 24)
    backward = words(3 - bases[::-1], 24)[::-1]  # of the other strand, same place
    train = counts(held_out, 24) == 0
    return np.isin(forward, np.union1d(forward[train], backward[train]))


def sample(rng, starts, bases, coding, n):
    """Stretches (n, WINDOW), read along their strand, and whether they are coding."""
    starts = rng.choice(starts, n)
    strands = rng.integers(2, size=n)
    stretches = bases[starts[:, None] + np.arange(WINDOW)]
    stretches = np.where(strands[:, None] == 1, 3 - stretches[:, ::-1], stretches)
    return stretches, coding[strands, starts + WINDOW // 2].astype(int)


def scan(model, bases, coding, span):
    """Probability of coding along both strands, every ten bases, and the truth."""
    starts = np.arange(span.start, span.stop - WINDOW, 10)
    windows = bases[starts[:, None] + np.arange(WINDOW)]
    found = []
    for stretches in (windows, 3 - windows[:, ::-1]):
        logits = model.predict(words(stretches, WORD)[:, ::STEP], batch_size=256)
        found.append(1 / (1 + np.exp(logits[:, 0] - logits[:, 1])))
    return starts + WINDOW // 2, found, coding[:, starts + WINDOW // 2]


def plot(path, at, found, truth):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, 1, figsize=(12, 5), sharex=True, sharey=True, layout="constrained"
    )
    titles = "forward strand", "reverse strand"
    for axis, share, real, title in zip(axes, found, truth, titles, strict=True):
        axis.fill_between(at, 0, real, step="mid", color="C2", alpha=0.3, label="gene")
        axis.plot(at, share, color="C0", linewidth=1, label="said by the GRU")
        axis.set(ylabel="probability", title=title)
    axes[0].legend(loc="center right")
    axes[1].set_xlabel("base, in a block that was held out")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--data", metavar="FILE", help="a GenBank file instead")
    parser.add_argument("--plot", metavar="FILE", default="dna.png")
    options = parser.parse_args()
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    bases, coding = load(options.data)
    held_out = np.arange(len(bases)) // BLOCK % 5 == 4
    seen = repeated(bases, held_out)
    # A stretch counts as held out if all of it is, and none of it is anywhere else.
    own, twice = counts(held_out, WINDOW), counts(seen, WINDOW - 23)
    train_starts = np.flatnonzero(own == 0)
    test_starts = np.flatnonzero((own == WINDOW) & (twice == 0))
    rng = np.random.default_rng(0)
    n = 2000 if options.quick else min(40_000, len(bases) // 8)
    x, y = sample(rng, train_starts, bases, coding, n)
    x_test, y_test = sample(rng, test_starts, bases, coding, n // 5)

    start = time.perf_counter()
    texts, test_texts = (
        ["".join("ACGT"[base] for base in row) for row in part] for part in (x, x_test)
    )
    counter = CountVectorizer(analyzer="char", ngram_range=(6, 6))
    regression = LogisticRegression(C=0.01, max_iter=200)
    regression.fit(counter.fit_transform(texts), y)
    guess = regression.predict(counter.transform(test_texts))
    counted = time.perf_counter() - start

    gru = fastrnn.GRU(None, 64, return_sequences=False, seed=0)
    model = fastrnn.Sequential(
        fastrnn.Embedding(4**WORD, 32, seed=1),
        fastrnn.Bidirectional(gru),
        fastrnn.Dropout(0.3, seed=2),
        fastrnn.Linear(None, 2, seed=3),
    )
    model.compile("sparse_categorical_crossentropy", "adam", ["accuracy"], lr=3e-3)
    epochs, start = 2 if options.quick else 6, time.perf_counter()
    model.fit(
        words(x, WORD)[:, ::STEP], y, epochs=epochs, batch_size=64, clip_norm=1.0,
        seed=4, callbacks=[fastrnn.schedules.CosineLR()],
    )  # fmt: skip
    trained = time.perf_counter() - start
    said = model.predict(words(x_test, WORD)[:, ::STEP]).argmax(-1)
    print(f"{len(bases):,} bases; {n:,} stretches to train on, {n // 5:,} held out")
    most = max(np.mean(y_test), 1 - np.mean(y_test))
    print(f"more frequent answer         {most:7.2%}")
    share = np.mean(guess == y_test)
    print(f"k-mer logistic regression    {share:7.2%}, {counted:.1f} s")
    share = np.mean(said == y_test)
    print(
        f"bidirectional GRU            {share:7.2%}, {epochs} epochs in {trained:.1f} s"
    )
    compare(model[1].layer, (WINDOW - WORD) // STEP + 1, 64, -(-n // 64))
    plot(options.plot, *scan(model, bases, coding, range(4 * BLOCK, 5 * BLOCK)))
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
