# SPDX-License-Identifier: BSD-3-Clause
"""Say in words what a picture shows: "a thin wide seven leaning right"
====================================================================

The 1797 handwritten digits that scikit-learn carries. A caption is the digit's label
and what the pixels measure: ink, width and slant, each in words if it is among the
lowest or highest quarter of the training images. A `Generator` writes the words: a
linear layer makes its GRU's first state of the pixels. Beside it: the most frequent
caption, and that of the nearest training image.

::

    python examples/captions.py [--quick] [--data FILE.npz] [--plot FILE.png]

`--data` takes a NumPy file of your own with arrays ``images`` (N, height, width),
numbers from 0 up, and ``captions`` (N,), strings.
"""

# sphinx_gallery_thumbnail_path = 'pictures/captions.png'

import argparse
import textwrap
import time
from collections import Counter

import numpy as np
from digits import load

import fastrnn

START, END = "<s>", "</s>"


def plot(path, images, right, got, quick):
    """Captions written for held-out images, above the right ones."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(4, 6, figsize=(14, 11), layout="constrained")
    for axis, image, truth, said in zip(axes.flat, images, right, got, strict=False):
        axis.imshow(image, cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        color = "black" if said == truth else "C3"
        axis.set_title("\n".join(textwrap.wrap(said, 26)), fontsize=9, color=color)
        verdict = "right" if said == truth else f"right: {truth}"
        axis.set_xlabel("\n".join(textwrap.wrap(verdict, 28)), fontsize=8, color="0.4")
    figure.suptitle(
        "Captions written for images held out; wrong ones are red"
        + (", after five epochs only (--quick)" if quick else "")
    )
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--data", metavar="FILE", help="a .npz of images and captions")
    parser.add_argument("--plot", metavar="FILE", default="captions.png")
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    images, captions, n_train = load(options.data, rng)
    pixels = images.reshape(len(images), -1)
    words = [caption.split() for caption in captions]
    vocabulary = fastrnn.Vocabulary.of(words[:n_train], specials=("<unk>", START, END))
    model = fastrnn.Generator(
        len(vocabulary), fastrnn.GRU(32, 128, seed=0), vector_size=pixels.shape[1],
        start=vocabulary[START], end=vocabulary[END], seed=1,
    )  # fmt: skip
    model.compile(optimizer="adam", lr=3e-3)
    epochs, start = 5 if options.quick else 60, time.perf_counter()
    model.fit(
        pixels[:n_train],
        [vocabulary.encode(row) for row in words[:n_train]],
        epochs=epochs,
        callbacks=[fastrnn.schedules.CosineLR()],
        clip_norm=1.0,
        seed=0,
    )
    trained = time.perf_counter() - start

    right = captions[n_train:]
    written = model.predict(pixels[n_train:], beam_width=3, max_length=12)
    got = [" ".join(vocabulary.decode(tokens)) for tokens in written]
    common = Counter(captions[:n_train]).most_common(1)[0][0]
    train, test = pixels[:n_train], pixels[n_train:]
    distance = (test**2).sum(1)[:, None] - 2 * test @ train.T + (train**2).sum(1)
    near = [captions[i] for i in distance.argmin(1)]
    kinds = len(set(captions))
    print(f"{n_train} images to train on, {len(right)} held out, {kinds} captions")
    for name, said in (
        (f"most frequent: {common!r}", [common] * len(right)),
        ("nearest training image", near),
        ("linear layer and GRU", got),
    ):
        exact = np.mean([a == b for a, b in zip(said, right, strict=True)])
        print(f"{name:<34} exact {exact:6.1%}")
    print(f"{epochs} epochs in {trained:.1f} s")
    plot(options.plot, images[n_train:], right, got, options.quick)
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
