# SPDX-License-Identifier: BSD-3-Clause
"""How far back can a network remember? The adding problem and the copying task.

Adding: of 300 numbers two are marked, and their sum is asked for after the last [1]_.
Copying: ten letters are to be repeated after 60 blank steps. An RNN of rectified linear
units that starts as the identity [2]_, a plain RNN, LSTM and GRU are trained on both.
Beside them: always answering 1, and guessing letters. How the gradient fares on its way
back through time is drawn below the learning curves.

    python examples/long_memory.py [--quick] [--steps N] [--plot FILE.png]

.. [1] S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8),
   1997.
.. [2] Q. Le, N. Jaitly, G. Hinton, "A Simple Way to Initialize Recurrent Networks of
   Rectified Linear Units", arXiv:1504.00941, 2015.
"""

import argparse
import math
import time

import numpy as np
from pytorch_time import compare

import fastrnn

LETTERS, WORD = 8, 10  # the copying task's letters, and how many come
BATCH, TEST = 16, 256
CHANCE = {"adding": 1 / 6, "copying": math.log(LETTERS)}
# Optimiser, learning rate and hidden units of each; all gradients are clipped to 1.
NETWORKS = {
    "identity RNN": (fastrnn.SGD, {"lr": 3e-3, "momentum": 0.9}, 100),
    "tanh RNN": (fastrnn.SGD, {"lr": 3e-3, "momentum": 0.9}, 100),
    "LSTM": (fastrnn.Adam, {"lr": 3e-3}, 64),
    "GRU": (fastrnn.Adam, {"lr": 3e-3}, 64),
}


def adding(rng, T, B):
    """Numbers and marks (T, B, 2), and the sum of the two marked numbers (B, 1)."""
    x = np.zeros((T, B, 2), "f")
    x[..., 0] = rng.random((T, B))
    first, second = rng.integers(0, T // 2, B), rng.integers(T // 2, T, B)
    rows = np.arange(B)
    x[first, rows, 1] = x[second, rows, 1] = 1
    return x, (x[first, rows, 0] + x[second, rows, 0])[:, None]


def copying(rng, T, B):
    """One-hot letters, blanks and a sign to start (T + 20, B, 10); letters (10, B)."""
    letters = rng.integers(LETTERS, size=(WORD, B))
    tokens = np.full((T + 2 * WORD, B), LETTERS)
    tokens[:WORD], tokens[-WORD - 1] = letters, LETTERS + 1
    return fastrnn.one_hot(tokens, LETTERS + 2).astype("f"), letters


def make(name, inputs, outputs, every_step):
    """A network of one layer and a linear head on its last steps or step."""
    H = NETWORKS[name][2]
    options = {"return_sequences": every_step, "seed": 0}
    if name == "identity RNN":
        layer = fastrnn.RNN(inputs, H, nonlinearity="relu", **options)
        fastrnn.init.identity_(layer.parameters["weight_hh_l0"])
        for bias in "bias_ih_l0", "bias_hh_l0":
            layer.parameters[bias][...] = 0
    elif name == "tanh RNN":
        layer = fastrnn.RNN(inputs, H, **options)
    else:
        layer = {"LSTM": fastrnn.LSTM, "GRU": fastrnn.GRU}[name](inputs, H, **options)
    if name == "LSTM":
        fastrnn.init.forget_gate_bias_(layer, 1.0)
    return fastrnn.Sequential(layer, fastrnn.Linear(H, outputs, seed=1))


def loss_of(model, task, x, y):
    """Loss and its gradient with respect to all that the model says."""
    said = model(x)
    if task == "adding":
        return fastrnn.mse_loss(said, y)
    loss, last = fastrnn.cross_entropy(np.ascontiguousarray(said[-WORD:]), y)
    dsaid = np.zeros_like(said)
    dsaid[-WORD:] = last
    return loss, dsaid


def flow(layer, x):
    """Norm of dL/dh_t against the lag T - t, for L of the last state alone."""
    before, layer.return_sequences = layer.return_sequences, False
    last, _ = layer(x)
    dlast = np.full_like(last, 1 / math.sqrt(last.size))
    norms = layer.backward(dlast, record_flow=True)[2][0, ::-1]
    layer.return_sequences = before
    layer.zero_grad()
    return norms


def train(name, task, T, steps):
    """Learning curve on held-out sequences, and the gradient's flow before training."""
    draw = {"adding": adding, "copying": copying}[task]
    sizes = (2, 1) if task == "adding" else (LETTERS + 2, LETTERS)
    model = make(name, *sizes, every_step=task == "copying")
    cls, options, _ = NETWORKS[name]
    optimizer, rng = cls(model, **options), np.random.default_rng(0)
    test = draw(np.random.default_rng(1), T, TEST)
    found = flow(model[0], test[0][:, :BATCH])
    curve, start = [], time.perf_counter()
    for step in range(1, steps + 1):
        _, dsaid = loss_of(model, task, *draw(rng, T, BATCH))
        model.zero_grad()
        model.backward(dsaid)
        fastrnn.clip_grad_norm_(model, 1.0)
        optimizer.step()
        if step % max(1, steps // 60) == 0:
            model.eval()
            curve.append((step, loss_of(model, task, *test)[0]))
            model.train()
            if curve[-1][1] < 0.02 * CHANCE[task]:
                break
    seconds = time.perf_counter() - start
    print(f"{task:<8} {name:<13} {curve[-1][1]:9.5f} {step:7} steps {seconds:6.0f} s")
    return curve, found


def plot(path, results, lengths):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(12, 8), layout="constrained")
    for column, (task, chance) in zip(axes.T, CHANCE.items(), strict=True):
        for name in NETWORKS:
            curve, found = results[task, name]
            column[0].plot(*zip(*curve, strict=True), label=name)
            column[1].semilogy(np.maximum(found, 1e-30), label=name)
        column[0].axhline(chance, color="0.5", linestyle=":", label="no memory")
        column[0].set(
            title=f"{task}, T = {lengths[task]}",
            xlabel="steps of training",
            ylabel="loss on held-out sequences",
            ylim=(0, 1.6 * chance),
        )
        column[1].set(xlabel="steps back in time", ylim=(1e-12, 1e3),
                      ylabel="norm of the gradient, before training")  # fmt: skip
        column[0].legend()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--steps", type=int, default=12_000, help="at most")
    parser.add_argument("--plot", metavar="FILE", default="long_memory.png")
    options = parser.parse_args()
    lengths = {"adding": 300, "copying": 60}
    if options.quick:
        lengths, options.steps = {"adding": 30, "copying": 5}, 120
    results = {}
    for task, T in lengths.items():
        print(f"{task:<8} {'no memory':<13} {CHANCE[task]:9.5f}, T = {T}")
        for name in NETWORKS:
            results[task, name] = train(name, task, T, options.steps)
    for name in NETWORKS:
        compare(make(name, 2, 1, False)[0], lengths["adding"], BATCH, 100)
    plot(options.plot, results, lengths)
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
