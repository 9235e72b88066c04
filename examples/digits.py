# SPDX-License-Identifier: BSD-3-Clause
"""Pictures of digits and captions that say what was measured, for captions.py: no
example."""

import numpy as np

DIGITS = "zero one two three four five six seven eight nine".split()  # noqa: SIM905


def measure(images):
    """Ink, width and slant of images (N, 8, 8); a positive slant leans right."""
    height, width = images.shape[1:]
    up, right = np.mgrid[height - 1 : -1 : -1, :width].astype(float)
    ink = images.sum((1, 2))
    share = images / ink[:, None, None]
    right = right - (share * right).sum((1, 2))[:, None, None]
    up = up - (share * up).sum((1, 2))[:, None, None]
    slant = (share * right * up).sum((1, 2)) / (share * up**2).sum((1, 2))
    return ink, np.sqrt((share * right**2).sum((1, 2))), slant


def describe(images, labels, n_train):
    """A caption for each image; what counts as thin is found in the first `n_train`."""
    words = []
    for value, low, high in zip(
        measure(images),
        ("thin", "narrow", "leaning left"),
        ("bold", "wide", "leaning right"),
        strict=True,
    ):
        below, above = np.quantile(value[:n_train], (0.25, 0.75))
        words.append(np.where(value < below, low, np.where(value > above, high, "")))
    return [
        " ".join(word for word in ("a", ink, width, DIGITS[label], slant) if word)
        for ink, width, slant, label in zip(*words, labels, strict=True)
    ]


def load(path, rng):
    """Images in [0, 1] and captions in random order, and how many to train on."""
    if path is None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        order = rng.permutation(len(digits.images))
        images, n_train = digits.images[order], len(order) * 4 // 5
        captions = describe(images, digits.target[order], n_train)
    else:
        with np.load(path) as file:
            images, captions = file["images"], file["captions"]
        order = rng.permutation(len(images))
        images, n_train = images[order], len(order) * 4 // 5
        captions = [str(captions[i]) for i in order]
    return (images / images.max()).astype("f"), captions, n_train
