# SPDX-License-Identifier: BSD-3-Clause
"""Say in words what a picture shows: "a thin wide seven leaning right".

The 1797 handwritten digits that scikit-learn carries. A caption is the digit's label
and what the pixels measure: ink, width and slant, each in words if it is among the
lowest or highest quarter of the training images. A linear layer reads the image and
makes the first state of a GRU that writes the words. Beside it: the most frequent
caption, and that of the nearest training image.

    python examples/captions.py [--quick] [--data FILE.npz] [--plot FILE.png]

`--data` takes a NumPy file of your own with arrays ``images`` (N, height, width),
numbers from 0 up, and ``captions`` (N,), strings.
"""

import argparse
import time
from collections import Counter

import numpy as np
from digits import load

import fastrnn

START, END = "<s>", "</s>"


class Captioner(fastrnn.Module):
    """A hidden layer over the pixels, whose values start a `Generator`."""

    def __init__(self, pixels, vocabulary):
        self.see = fastrnn.Linear(pixels, 256, seed=0)
        self.dropout = fastrnn.Dropout(0.2, seed=1)
        self.say = fastrnn.Generator(
            len(vocabulary), fastrnn.GRU(32, 128, seed=2), vector_size=256,
            start=vocabulary[START], end=vocabulary[END], seed=3,
        )  # fmt: skip

    def forward(self, images, tokens):
        self.seen = np.maximum(self.see(images), 0)
        return self.say(tokens, self.dropout(self.seen))[0]

    def backward(self, dlogits):
        dseen = self.dropout.backward(self.say.backward(dlogits))
        self.see.backward(dseen * (self.seen > 0))

    def write(self, images):
        self.eval()
        seen = np.maximum(self.see(images), 0)
        tokens = self.say.generate(vector=seen, beam_width=3, max_length=12).tokens
        self.train()
        return tokens


def plot(path, images, right, got):
    """Captions written for held-out images; wrong ones are red."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(4, 6, figsize=(13, 9.5), layout="constrained")
    for axis, image, truth, said in zip(axes.flat, images, right, got, strict=False):
        axis.imshow(image, cmap="gray_r")
        axis.set(xticks=[], yticks=[])
        axis.set_title(said, fontsize=9, color="black" if said == truth else "C3")
        if said != truth:
            axis.set_xlabel(f"right: {truth}", fontsize=8, color="0.4")
    figure.suptitle("Written for images held out; wrong ones in red")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--data", metavar="FILE", help="a .npz of images and captions")
    parser.add_argument("--plot", metavar="FILE", default="captions.png")
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    images, captions, n_train = load(options.data, rng)
    pixels = images.reshape(len(images), -1)
    words = [caption.split() for caption in captions]
    vocabulary = fastrnn.Vocabulary.of(words[:n_train], specials=("<unk>", START, END))
    sequences = [vocabulary.encode(row) for row in words[:n_train]]

    model = Captioner(pixels.shape[1], vocabulary)
    optimizer = fastrnn.Adam(model, lr=3e-3)
    epochs, start = 5 if options.quick else 120, time.perf_counter()
    for epoch in range(epochs):
        losses = []
        for rows in np.array_split(rng.permutation(n_train), -(-n_train // 32)):
            inputs, targets = fastrnn.teacher_forcing(
                [sequences[i] for i in rows], model.say.start, model.say.end
            )
            logits = model(pixels[rows], inputs)
            loss, dlogits = fastrnn.cross_entropy(logits, targets)
            model.zero_grad()
            model.backward(dlogits)
            fastrnn.clip_grad_norm_(model, 1.0)
            optimizer.step()
            losses.append(loss)
        optimizer.lr = 3e-3 * (1 - (epoch + 1) / epochs) + 1e-6
        if (epoch + 1) % max(1, epochs // 6) == 0:
            print(f"epoch {epoch + 1:3}  loss {np.mean(losses):.4f} nats per word")
    trained = time.perf_counter() - start

    right = captions[n_train:]
    written = model.write(pixels[n_train:])
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
    plot(options.plot, images[n_train:], right, got)
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
