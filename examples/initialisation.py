# SPDX-License-Identifier: BSD-3-Clause
"""Which first values learn better? Keras's and PyTorch's, on eight tasks
======================================================================

Each task trains one small model with every scheme and three seeds, and judges it after
every epoch by data that it is not trained on.

::

    python examples/initialisation.py [--quick] [--plot FILE.png] [--tasks NAME,NAME]
"""

# sphinx_gallery_thumbnail_path = 'pictures/initialisation_quick.png'

import argparse
import time

import japanese_vowels
import matplotlib
import memory_tasks
import numpy as np
import reviews
import share_price
import tagging
import weather
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import fastrnn
from fastrnn.text import default_text
from fastrnn.text.vocabulary import CharVocabulary

# For recurrent and linear layers, and for embeddings.
SCHEMES = {
    "keras": ("keras", "keras"),
    "torch": ("torch", "torch"),
    "keras, embedding of torch": ("keras", "torch"),
}
SEEDS = 3


def recall(rng, quick):
    """The first of 20 numbers, after all of them."""
    x = rng.random((3000, 20, 1)).astype("f")
    return x[:2000], x[:2000, 0], x[2000:], x[2000:, 0]


def adding(rng, quick):
    """The sum of the two numbers of 50 that are marked."""
    parts = []
    for n in (5000, 1000):
        parts += memory_tasks.adding(rng, 50, n)
    return parts


def shares(rng, quick):
    """Tomorrow's scaled price, from 100 days."""
    _, prices = share_price.load(None)
    train, test = fastrnn.split_by_time(prices[:, None], test_size=0.35, overlap=100)
    scaler = MinMaxScaler().fit(train)
    parts = (scaler.transform(part).astype("f") for part in (train, test))
    return [array for part in parts for array in fastrnn.windows(part, 100)]


def days(rng, quick):
    """Tomorrow's weather, on each of 60 days."""
    table = weather.load(None)
    values = table.to_numpy()
    n = len(values) - weather.YEAR
    scaler = StandardScaler().fit(values[:n])
    x, y = weather.features(table, scaler), scaler.transform(values).astype("f")
    inputs, _ = fastrnn.windows(x[:-1], 60, stride=3)
    targets = np.stack([y[k + 1 : k + 61] for k in range(0, 3 * len(inputs), 3)])
    cut = (n - 60) // 3
    return inputs[:cut], targets[:cut], inputs[cut + 20 :], targets[cut + 20 :]


def vowels(rng, quick):
    """The speaker of an utterance, of nine."""
    (x, y), (x_test, y_test) = japanese_vowels.load(None)
    everything = np.concatenate(x)
    mean, deviation = everything.mean(0), everything.std(0)
    x, x_test = ([(s - mean) / deviation for s in part] for part in (x, x_test))
    return x, y, x_test, y_test


def source(rng, quick):
    """What each of 128 characters of Python source belongs to, of eight kinds."""
    parts = []
    for (x, y), n in zip(tagging.load(None, quick), (2000, 500), strict=True):
        at = rng.integers(0, len(x) - 128, n)[:, None] + np.arange(128)
        parts += [x[at], y[at]]
    return parts


def letters(rng, quick):
    """The next character of English, at each of 100."""
    tokens = CharVocabulary.of(default_text()).encode(default_text()).astype(np.int64)
    cut = len(tokens) * 9 // 10
    parts = []
    for part, n in ((tokens[:cut], 2000), (tokens[cut:], 300)):
        at = rng.integers(0, len(part) - 101, n)[:, None] + np.arange(101)
        parts += [part[at][:, :-1], part[at][:, 1:]]
    return parts


def films(rng, quick):
    """Praise or blame in a sentence about a film."""
    texts, y, groups, _ = reviews.load(None)
    train, _, test = reviews.split(groups)
    tokenizer = fastrnn.WordTokenizer(lower=True)
    words = tokenizer.fit([t for t, k in zip(texts, train, strict=True) if k],
                          min_count=2)  # fmt: skip
    parts = []
    for part in (train, test):
        chosen = [i for i in np.flatnonzero(part) if words.split(texts[i])]
        parts += [[words.encode(texts[i]) for i in chosen], y[chosen]]
    return parts


def body(task, n_in, n_out, layer, embedding, seed):
    """The model of a task."""
    one = {"init": layer, "seed": seed}
    last = {"return_sequences": False}
    head = fastrnn.Linear(None, n_out, **one)
    table = [fastrnn.Embedding(n_in, 64, init=embedding, seed=seed)] if n_in else []
    LSTM, GRU = fastrnn.LSTM, fastrnn.GRU
    layers = {
        "recall": [LSTM(None, 32, **last, **one)],
        "adding": [GRU(None, 64, **last, **one)],
        "shares": [LSTM(None, 50, 2, **last, **one)],
        "days": [GRU(None, 48, **one)],
        "vowels": [LSTM(None, 48, bidirectional=True, **last, **one)],
        "source": [LSTM(None, 64, bidirectional=True, **one)],
        "letters": [LSTM(None, 128, **one)],
        "films": [GRU(None, 48, **last, **one)],
    }
    return fastrnn.Sequential(*table, *layers[task], head)


# By task: data, whether it is a class that is asked for, epochs, learning rate.
TASKS = {
    "recall": (recall, False, 20, 3e-3),
    "adding": (adding, False, 20, 3e-3),
    "shares": (shares, False, 20, 1e-3),
    "days": (days, False, 20, 3e-3),
    "vowels": (vowels, True, 20, 3e-3),
    "source": (source, True, 6, 3e-3),
    "letters": (letters, True, 10, 3e-3),
    "films": (films, True, 4, 1e-3),
}


def curve(task, data, scheme, seed, epochs):
    """Held-out loss after each epoch of one training."""
    x, y, x_test, y_test = data
    _, is_class, _, lr = TASKS[task]
    tokens = is_class and np.asarray(x[0]).dtype.kind == "i"
    size = 1 + max(int(np.max(s)) for s in (*x, *x_test)) if tokens else 0
    n_out = 1 + int(np.max(y)) if is_class else y.shape[-1]
    model = body(task, size, n_out, *SCHEMES[scheme], seed)
    model.compile("sparse_categorical_crossentropy" if is_class else "mse", "adam",
                  lr=lr)  # fmt: skip
    history = model.fit(x, y, epochs=epochs, batch_size=32, clip_norm=1.0, seed=seed,
                        validation_data=(x_test, y_test), verbose=0)  # fmt: skip
    return history.history["val_loss"]


NAMES = {
    "recall": "recall: the first of 20 numbers",
    "adding": "adding: two marked numbers of 50",
    "shares": "shares: tomorrow's price",
    "days": "days: tomorrow's weather",
    "vowels": "vowels: who of nine speaks",
    "source": "source: tags of Python's characters",
    "letters": "letters: the next character",
    "films": "films: praise or blame",
}


def plot(path, curves, quick):
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1 + 3.6 * columns, 0.8 + 3.3 * rows), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, (task, schemes) in zip(axes.flat, curves.items(), strict=False):
        for color, (scheme, losses) in enumerate(schemes.items()):
            epochs = np.arange(1, losses.shape[1] + 1)
            axis.fill_between(epochs, losses.min(0), losses.max(0), color=f"C{color}",
                              alpha=0.2)  # fmt: skip
            axis.plot(epochs, losses.mean(0), color=f"C{color}", label=scheme)
        unit = "cross-entropy, nats" if TASKS[task][1] else "mean squared error"
        every = np.concatenate([losses.ravel() for losses in schemes.values()])
        far = every.max() > 5 * every.min()
        axis.set(xlabel="epoch", ylabel=f"{unit}, held out")
        axis.set_yscale("log" if far else "linear")
        axis.set_title(NAMES[task], fontsize=10)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")
    found = (axis.get_legend_handles_labels() for axis in axes.flat)
    handles, labels = max(found, key=lambda pair: len(pair[1]))
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    title = "Mean of three seeds, from the least to the greatest"
    figure.suptitle(title + (" (quick: 2 epochs)" if quick else ""))
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--tasks", metavar="NAMES", default=",".join(TASKS))
    parser.add_argument("--plot", metavar="FILE", default="initialisation.png")
    options = parser.parse_args()
    chosen = options.tasks.split(",")
    curves: dict[str, dict[str, np.ndarray]] = {}
    for task in chosen[:2] if options.quick else chosen:
        make, _, epochs, _ = TASKS[task]
        data = make(np.random.default_rng(0), options.quick)
        words = task in ("source", "letters", "films")
        start, curves[task] = time.perf_counter(), {}
        for scheme in list(SCHEMES)[: 3 if words else 2]:
            epochs = 2 if options.quick else epochs
            losses = np.array([curve(task, data, scheme, seed, epochs)
                               for seed in range(SEEDS)])  # fmt: skip
            curves[task][scheme] = losses
            early = max(1, epochs // 3)
            third = losses[:, early - 1].mean()
            each = " ".join(f"{loss:.4f}" for loss in losses[:, -1])
            best = " ".join(f"{loss:.4f}" for loss in losses.min(1))
            print(f"{task:8} {scheme:26} after {early} epochs {third:.4f}, "
                  f"after {epochs} {each}, at best {best}", flush=True)  # fmt: skip
        print(f"{task:8} {time.perf_counter() - start:.0f} s", flush=True)
    plot(options.plot, curves, options.quick)
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
