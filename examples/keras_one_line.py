# SPDX-License-Identifier: BSD-3-Clause
"""A model of Keras made faster by one line, on each of Keras's backends
======================================================================

The character model of Keras's text generation tutorial: an LSTM of 128 units over 40
characters says which comes next. The text is that of Python's own help, which the
standard library carries; the last tenth is held out. The same program is trained in
plain Keras and with the line, from the same weights, on the same batches in the same
order, and the losses of both are compared.

::

    pip install "fastrnn[data]" keras torch
    KERAS_BACKEND=torch python examples/keras_one_line.py [--quick] [--plot FILE.png]

The backend may also be tensorflow or jax, where these are installed.
"""

# sphinx_gallery_thumbnail_path = 'pictures/keras_one_line.png'

import argparse
import time
from pydoc_data.topics import topics

import keras
import matplotlib
import numpy as np
from keras import layers

import fastrnn.keras

LENGTH, STEP, BATCH = 40, 3, 128


def windows(n_characters):
    """One-hot windows (N, LENGTH, V) of the text, and the character after each (N, V).

    The fewer than 40 characters that are not ASCII are left out.
    """
    text = "".join(topics.values()).lower()[:n_characters]
    text = np.array([ord(letter) for letter in text if letter.isascii()])
    known, text = np.unique(text, return_inverse=True)
    starts = np.arange(0, len(text) - LENGTH, STEP)
    one_hot = np.eye(len(known), dtype=bool)
    return one_hot[text[starts[:, None] + np.arange(LENGTH)]], one_hot[
        text[starts + LENGTH]
    ]


def network(length, n_letters):
    """The tutorial's model."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(shape=(length, n_letters)),
            layers.LSTM(128),
            layers.Dense(n_letters, activation="softmax"),
        ]
    )
    optimizer = keras.optimizers.RMSprop(learning_rate=0.01)
    model.compile(loss="categorical_crossentropy", optimizer=optimizer)
    return model


def train(models, x, y, epochs):
    """The loss, the held-out loss and the seconds of each epoch, of each model.

    The models take turns, so that what else the machine does slows both.
    """
    results = {name: {"loss": [], "val_loss": [], "seconds": []} for name in models}
    for epoch in range(epochs):
        for name, model in models.items():
            keras.utils.set_random_seed(epoch)  # the same order of batches for both
            start = time.perf_counter()
            history = model.fit(
                x, y, batch_size=BATCH, validation_split=0.1, verbose=0
            ).history
            results[name]["seconds"].append(time.perf_counter() - start)
            for key, values in history.items():
                results[name][key] += values
    return results


def plot(path, results, title):
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 4), layout="constrained", width_ratios=[3, 2]
    )
    for k, (name, found) in enumerate(results.items()):
        epochs = range(1, len(found["loss"]) + 1)
        style = {"color": f"C{k}", "linestyle": ("-", "--")[k], "marker": "os"[k]}
        left.plot(epochs, found["val_loss"], label=name, **style)
        right.plot(epochs, found["seconds"], label=name, **style)
    left.set(ylabel="held-out loss, nats", title="the losses of both")
    right.set(ylabel="seconds of the epoch", ylim=(0, None), title="the time of both")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.set_xticks(epochs)
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    figure.legend(
        *left.get_legend_handles_labels(), ncols=2, loc="outside lower center"
    )
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--plot", metavar="FILE", default="keras_one_line.png")
    options = parser.parse_args()

    x, y = windows(5_000 if options.quick else 40_000)
    epochs, backend = 2 if options.quick else 3, keras.backend.backend()
    print(f"{len(x)} windows of {LENGTH} characters, {epochs} epochs, on {backend}")
    plain, faster = (network(*x.shape[1:]) for _ in range(2))
    fastrnn.keras.accelerate(faster)  # the one line
    results = train({"plain Keras": plain, "accelerated": faster}, x, y, epochs)
    for name, found in results.items():
        # The first epoch also traces or compiles the model.
        typical = np.median(found["seconds"][1:])
        print(
            f"{name}: held-out loss {found['val_loss'][0]:.6f} after an epoch, "
            f"{found['val_loss'][-1]:.6f} at the end, {typical:.3f} s an epoch"
        )
    both = [(found["loss"], found["seconds"][1:]) for found in results.values()]
    losses, seconds = zip(*both, strict=True)
    first, *_, last = abs(np.subtract(*losses))
    print(f"losses differ by {first:.1e} after an epoch, {last:.1e} at the end")
    ratio = np.median(np.divide(*seconds))
    print(f"an epoch with the one line: {ratio:.1f} times as fast")
    title = f"Keras on {backend}, without and with the one line"
    plot(options.plot, results, title + (" (quick)" if options.quick else ""))
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
