# SPDX-License-Identifier: BSD-3-Clause
"""Tag every character of Python source: a BiLSTM with a CRF on top.

The text is Python's own standard library and the tags are those of its `tokenize`, so
they are right by definition. Files that are held out are never trained on.

    python examples/tagging.py [--quick] [--data FILE.py] [--plot FILE.png]
"""

import argparse
import keyword
import sysconfig
import time
import tokenize
from pathlib import Path

import numpy as np

import fastrnn

TAGS = "space keyword defined name number string comment operator".split()  # noqa: SIM905
KINDS = {getattr(tokenize, n.upper()): n for n in ("number", "string", "comment")}
KINDS[tokenize.OP] = "operator"
LENGTH, BATCH, OTHER = 128, 32, 127  # OTHER stands for all that is not ASCII


def tag_file(path):
    """Characters and tags of a source file, as two integer arrays."""
    with tokenize.open(path) as file:
        lines = file.readlines()
    starts = np.cumsum([0, *map(len, lines)])
    text = "".join(lines)
    tags = np.zeros(len(text), np.int64)
    previous = ""
    with open(path, "rb") as file:
        for token in tokenize.tokenize(file.readline):
            kind = KINDS.get(token.type)
            if token.type == tokenize.NAME:
                kind = "keyword" if keyword.iskeyword(token.string) else "name"
                kind = "defined" if previous in ("def", "class") else kind
            elif tokenize.tok_name[token.type].startswith("FSTRING"):
                kind = "string"  # Python 3.12 takes f-strings apart
            if kind:
                (row, column), (end_row, end_column) = token.start, token.end
                span = slice(starts[row - 1] + column, starts[end_row - 1] + end_column)
                tags[span] = TAGS.index(kind)
            previous = token.string
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.int64)
    return np.minimum(codes, OTHER), tags


def load(data, quick):
    """Characters and tags to train on and to test on."""
    if data:
        x, y = tag_file(data)
        cut = len(x) * 9 // 10
        return (x[:cut], y[:cut]), (x[cut:], y[cut:])
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[
        : 12 if quick else None
    ]
    files = [tag_file(path) for path in paths]
    held_out = files[::10]
    rest = [file for i, file in enumerate(files) if i % 10]
    return [tuple(map(np.concatenate, zip(*p, strict=True))) for p in (rest, held_out)]


class Tagger(fastrnn.Module):
    def __init__(self):
        self.embedding = fastrnn.Embedding(128, 32, seed=0)
        self.lstm = fastrnn.LSTM(32, 96, bidirectional=True, seed=1)
        self.head = fastrnn.Linear(192, len(TAGS), seed=2)
        self.crf = fastrnn.CRF(len(TAGS), seed=3)

    def emissions(self, x):
        return self.head(self.lstm(self.embedding(x))[0])

    def step(self, x, y):
        loss = self.crf(self.emissions(x), y)
        dx, _ = self.lstm.backward(self.head.backward(self.crf.backward()))
        self.embedding.backward(dx)
        return loss


def predict(model, x):
    """Tags of a long text, in windows of LENGTH."""
    model.eval()
    windows = np.resize(x, (-(-len(x) // LENGTH), LENGTH)).T
    tags, _ = model.crf.decode(model.emissions(windows))
    model.train()
    return tags.T.reshape(-1)[: len(x)]


def plot(path, x, right, got):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(11, 7))
    lines = "".join(map(chr, x)).split("\n")[:35]
    at = 0
    for row, line in enumerate(lines):
        for column, letter in enumerate(line[:95]):
            tag, wrong = got[at + column], got[at + column] != right[at + column]
            box = {"facecolor": "#ffb0b0", "edgecolor": "none", "pad": 1}
            style = {"family": "monospace", "size": 9, "bbox": box if wrong else None}
            axes.text(column, -row, letter, color=f"C{tag}", **style)
        at += len(line) + 1
    axes.set(xlim=(-1, 97), ylim=(-35, 1), title="Held-out source; errors on red")
    axes.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--data", metavar="FILE", help="Python source to tag instead")
    parser.add_argument("--plot", metavar="FILE", default="tagging.png")
    args = parser.parse_args()
    began = time.perf_counter()
    (x, y), (test_x, test_y) = load(args.data, args.quick)
    test_x, test_y = test_x[:200_000], test_y[:200_000]
    counts = np.zeros((128, len(TAGS)))
    np.add.at(counts, (x, y), 1)
    baseline = (counts.argmax(1)[test_x] == test_y).mean()

    model = Tagger()
    steps = 40 if args.quick else 1500
    optimizer = fastrnn.Adam(model, lr=3e-3)
    rng = np.random.default_rng(0)
    for step in range(steps):
        starts = rng.integers(0, max(1, len(x) - LENGTH), BATCH)
        at = np.minimum(starts + np.arange(LENGTH)[:, None], len(x) - 1)
        model.zero_grad()
        loss = model.step(x[at], y[at])
        fastrnn.clip_grad_norm_(model, 5.0)
        optimizer.lr = 3e-3 * (1 - step / steps)
        optimizer.step()
        if step % (steps // 5) == 0:
            print(f"step {step:5}  loss {loss / LENGTH:.4f} nats per character")
    got = predict(model, test_x)
    print(f"{len(x):,} characters to train on, {len(test_x):,} held out")
    print(f"most frequent tag of each character  {baseline:.2%}")
    print(f"BiLSTM-CRF                           {(got == test_y).mean():.2%}")
    print(f"time                                 {time.perf_counter() - began:.0f} s")
    middle = len(test_x) // 2 + test_x[len(test_x) // 2 :].tolist().index(ord("\n")) + 1
    plot(args.plot, test_x[middle:], test_y[middle:], got[middle:])


if __name__ == "__main__":
    main()
