# SPDX-License-Identifier: BSD-3-Clause
"""Tag every character of Python source: a BiLSTM with a CRF on top
================================================================

The text is Python's own standard library and the tags are those of its `tokenize`, so
they are right by definition. Files that are held out are never trained on.

::

    python examples/tagging.py [--quick] [--data FILE.py] [--plot FILE.png]
"""

# sphinx_gallery_thumbnail_path = 'pictures/tagging_quick.png'

import argparse
import keyword
import sysconfig
import time
import tokenize
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

import fastrnn

TAGS = "space keyword defined name number string comment operator".split()  # noqa: SIM905
KINDS = {getattr(tokenize, n.upper()): n for n in ("number", "string", "comment")}
KINDS[tokenize.OP] = "operator"
COLORS = ("#999999", "#cf222e", "#8250df", "#0969da", "#24292f", "#1a7f37", "#9a6700",
          "#bf3989")  # fmt: skip
LENGTH, OTHER = 128, 127  # OTHER stands for all that is not ASCII


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


def in_windows(array):
    """A long array as rows of LENGTH; what is left at its end is left out."""
    return array[: len(array) // LENGTH * LENGTH].reshape(-1, LENGTH)


def network():
    """Characters to emissions, which the CRF makes tags of."""
    return fastrnn.Sequential(
        fastrnn.Embedding(128, 32, seed=0),
        fastrnn.Bidirectional(fastrnn.LSTM(96, return_sequences=True, seed=1)),
        fastrnn.Dense(len(TAGS), seed=2),
        fastrnn.CRF(len(TAGS), seed=3),
    )


def plot(path, x, right, got, title):
    """Letters in the colour of their tag; a wrong one stands on the right one's."""
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(11, 7.5), layout="constrained")
    lines = "".join(map(chr, x)).split("\n")[:35]
    at = 0
    for row, line in enumerate(lines):
        for column, letter in enumerate(line[:95]):
            tag, truth = got[at + column], right[at + column]
            style: dict[str, Any] = {
                "family": "monospace",
                "size": 9,
                "color": COLORS[tag],
            }
            if tag != truth:
                box = {"facecolor": COLORS[truth], "alpha": 0.35, "edgecolor": "none"}
                style["bbox"] = {**box, "pad": 1}
                letter = letter.replace(" ", "_") if tag else letter
            axes.text(column, -row, letter, **style)
        at += len(line) + 1
    axes.set(xlim=(-1, 97), ylim=(-35, 1), title=title)
    axes.axis("off")
    key = [
        plt.Line2D([], [], color=color, marker="s", linestyle="none", label=tag)
        for tag, color in zip(TAGS, COLORS, strict=True)
    ]
    figure.legend(handles=key, ncols=len(TAGS), loc="outside lower center")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--data", metavar="FILE", help="Python source to tag instead")
    parser.add_argument("--plot", metavar="FILE", default="tagging.png")
    args = parser.parse_args()
    began = time.perf_counter()
    (x, y), (test_x, test_y) = load(args.data, args.quick)
    x, y = x[: 60_000 if args.quick else None], y[: 60_000 if args.quick else None]
    end = min(len(test_x), 200_000) // LENGTH * LENGTH
    test_x, test_y = test_x[:end], test_y[:end]
    counts = np.zeros((128, len(TAGS)))
    np.add.at(counts, (x, y), 1)
    baseline = (counts.argmax(1)[test_x] == test_y).mean()

    model, epochs = network(), 3 if args.quick else 2
    model.compile("crf", "adam", ["accuracy"], lr=3e-3)
    model.fit(
        in_windows(x), in_windows(y), epochs=epochs, batch_size=32, clip_norm=5.0,
        callbacks=[fastrnn.schedules.CosineLR()], seed=4, verbose=2,
    )  # fmt: skip
    got = model.predict(in_windows(test_x)).ravel()
    print(f"{len(x):,} characters to train on, {len(test_x):,} held out")
    print(f"most frequent tag of each character  {baseline:.2%}")
    print(f"BiLSTM-CRF                           {(got == test_y).mean():.2%}")
    print(f"time                                 {time.perf_counter() - began:.0f} s")
    middle = len(test_x) // 2 + test_x[len(test_x) // 2 :].tolist().index(ord("\n")) + 1
    title = "Held-out source: a letter has the colour of its tag, an error stands on "
    title += "the colour of the right one" + (" (quick)" if args.quick else "")
    plot(args.plot, test_x[middle:], test_y[middle:], got[middle:], title)
    print(f"plot: {args.plot}")


if __name__ == "__main__":
    main()
