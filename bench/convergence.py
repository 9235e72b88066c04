# SPDX-License-Identifier: BSD-3-Clause
"""Where training with products of bfloat16 ends, beside float32.

    python -m bench.convergence             # three tasks, three seeds: some minutes
    python -m bench.convergence --quick     # some seconds, too short to say anything

Each task is trained twice from each seed, once with ``compute="bfloat16"``; all else is
the same. The tasks: the next character of pydoc's topics (cross-entropy, nats), the
adding problem (squared error; 0.167 says always the mean), and which of four noisy
waves a sequence is (cross-entropy). Losses are of held-out data, after the last epoch.
Printed as Markdown.
"""

import argparse
import pydoc_data.topics

import numpy as np

import fastrnn

SEEDS = (0, 1, 2)


def characters(quick):
    """Windows of 50 characters, and those that follow each of them."""
    text = "".join(pydoc_data.topics.topics.values())[: 20_000 if quick else 400_000]
    letters, indices = np.unique(list(text), return_inverse=True)
    n = (len(indices) - 1) // 50 * 50
    x, y = indices[:n].reshape(-1, 50), indices[1 : n + 1].reshape(-1, 50)

    def model(seed):
        return fastrnn.Sequential(
            fastrnn.Embedding(len(letters), 64, seed=seed),
            fastrnn.LSTM(64, 128, batch_first=True, seed=seed + 1),
            fastrnn.Linear(128, len(letters), seed=seed + 2),
        )

    return model, "sparse_categorical_crossentropy", x, y, 1 if quick else 10


def adding(quick):
    """Two numbers of fifty are marked: what is their sum?"""
    rng = np.random.default_rng(0)
    n, T = (500, 50) if quick else (20_000, 50)
    x = np.zeros((n, T, 2), "f")
    x[..., 0] = rng.random((n, T))
    rows = np.arange(n)
    marked = rng.integers(0, T // 2, n), rng.integers(T // 2, T, n)
    for steps in marked:
        x[rows, steps, 1] = 1
    y = sum(x[rows, steps, 0] for steps in marked)[:, None]

    def model(seed):
        return fastrnn.Sequential(
            fastrnn.GRU(2, 64, batch_first=True, return_sequences=False, seed=seed),
            fastrnn.Linear(64, 1, seed=seed + 1),
        )

    return model, "mse", x, y, 1 if quick else 12


def waves(quick):
    """Sines, squares, triangles and saws of any frequency and phase, in noise."""
    rng = np.random.default_rng(1)
    n, T = (400 if quick else 8_000), 100
    y = rng.integers(0, 4, n)
    phase = rng.uniform(0, 1, (n, 1)) + rng.uniform(0.02, 0.08, (n, 1)) * np.arange(T)
    part = phase % 1
    shapes = np.array(
        [
            np.sin(2 * np.pi * part),
            np.sign(part - 0.5),
            4 * np.abs(part - 0.5) - 1,
            2 * part - 1,
        ]
    )
    x = shapes[y, np.arange(n)] + rng.normal(scale=0.7, size=(n, T))

    def model(seed):
        return fastrnn.Sequential(
            fastrnn.LSTM(1, 48, batch_first=True, bidirectional=True, seed=seed),
            fastrnn.GlobalAveragePooling1D(),
            fastrnn.Linear(96, 4, seed=seed + 1),
        )

    return model, "sparse_categorical_crossentropy", x[..., None], y, 1 if quick else 15


TASKS = {"characters": characters, "adding": adding, "waves": waves}


def final_loss(task, seed, compute, quick):
    """The held-out loss of a task after its last epoch."""
    make, loss, x, y, epochs = task(quick)
    model = make(seed)
    model.compile(loss, "adam", lr=2e-3, compute=compute)
    n = len(x) * 9 // 10
    model.fit(x[:n], y[:n], 64, epochs, clip_norm=1.0, seed=seed, verbose=0)
    return model.evaluate(x[n:], y[n:])


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    given = parser.parse_args(arguments)
    print("| task | seed | float32 | bfloat16 | difference |")
    print("| --- | --- | ---: | ---: | ---: |")
    for name in given.tasks:
        for seed in SEEDS[: 1 if given.quick else None]:
            losses = [
                final_loss(TASKS[name], 10 * seed, compute, given.quick)
                for compute in ("float32", "bfloat16")
            ]
            whole, half = losses
            print(
                f"| {name} | {seed} | {whole:.4f} | {half:.4f} | {half - whole:+.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
