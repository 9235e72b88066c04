# SPDX-License-Identifier: BSD-3-Clause
"""Stretches of a GenBank file, where they code, and a baseline, for dna.py: no example.

Without a file: the chloroplast genome of thale cress in the source distribution of
Biopython, which lies in the working folder.
"""

import io
import tarfile
from pathlib import Path

import numpy as np

WINDOW = 1200
CHLOROPLAST = "Tests/GenBank/NC_000932.gb"


def load(path):
    """Bases 0 to 3, and where each strand is coding: (n,) and (2, n)."""
    from Bio import SeqIO

    if path is None:
        path = next(iter(sorted(Path().glob("biopython-*.tar.gz"))), None)
    if path is None:
        raise SystemExit(
            "dna: pip download --no-binary :all: --no-deps biopython, or --data FILE"
        )
    if str(path).endswith(".tar.gz"):
        with tarfile.open(path) as archive:
            name = next(n for n in archive.getnames() if n.endswith(CHLOROPLAST))
            source = archive.extractfile(name).read().decode()
    else:
        source = Path(path).read_text(encoding="utf-8")
    record = next(SeqIO.parse(io.StringIO(source), "genbank"))
    letters = np.frombuffer(str(record.seq).upper().encode(), np.uint8)
    bases = np.argmax(letters[:, None] == np.frombuffer(b"ACGT", np.uint8), axis=1)
    coding = np.zeros((2, len(bases)), int)
    for feature in record.features:
        if feature.type == "CDS":
            for part in feature.location.parts:
                coding[int(part.strand == -1), int(part.start) : int(part.end)] = 1
    return bases, coding


def words(bases, k):
    """The number of the word of k bases that starts at each position."""
    number = np.zeros_like(bases[..., k - 1 :])
    for i in range(k):
        number = 4 * number + bases[..., i : bases.shape[-1] - k + 1 + i]
    return number


def inside(flags, k):
    """Whether the k flags from each position on are all set."""
    total = np.cumsum(np.concatenate([[0], flags]))
    return total[k:] - total[:-k] == k


def new(bases, held_out):
    """Which words of 24 bases are in no training block, on neither strand."""
    forward = words(bases, 24)
    backward = words(3 - bases[::-1], 24)[::-1]  # of the other strand, same place
    train = inside(~held_out, 24)
    return ~np.isin(forward, np.union1d(forward[train], backward[train]))


def read(genome, starts, strands):
    """Stretches (n, WINDOW) along their strand, and which of their bases are coding."""
    bases, coding = genome
    at, back = starts[:, None] + np.arange(WINDOW), strands[:, None] == 1
    x, y = bases[at], coding[strands[:, None], at]
    return np.where(back, 3 - x[:, ::-1], x), np.where(back, y[:, ::-1], y)


def draw(rng, genome, starts, n):
    return read(genome, rng.choice(starts, n), rng.integers(2, size=n))


def count_words(train_set, valid, test):
    """Answers of a logistic regression to `test`; validation chooses its C, and whether
    it sees the whole stretches or the middle half of them."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.linear_model import LogisticRegression

    def counts(x, width):
        x, parts = x[:, (WINDOW - width) // 2 : (WINDOW + width) // 2], []
        for k in 3, 4, 5, 6:
            found = words(x, k)
            rows = np.arange(len(x) + 1) * found.shape[1]
            ones = np.ones(found.size, "f")
            parts.append(csr_matrix((ones, found.ravel(), rows), (len(x), 4**k)))
            parts[-1].sum_duplicates()
        return hstack(parts, "csr")

    best = 0, None
    for width in WINDOW // 2, WINDOW:
        x, x_valid = counts(train_set[0], width), counts(valid[0], width)
        for c in 1e-4, 1e-3:
            # Some do not quite converge in these steps, to no harm.
            model = LogisticRegression(C=c, max_iter=150).fit(x, train_set[1])
            score = model.score(x_valid, valid[1])
            if score > best[0]:
                best = score, model.predict(counts(test, width))
    return best[1]
