# SPDX-License-Identifier: BSD-3-Clause
"""How far back can a network remember? The adding problem and the copying task.

Adding: of 100 or 300 numbers two are marked, and their sum is asked for after the last
[1]_. Copying: ten letters are to be repeated after 100 blank steps. An RNN of rectified
linear units that starts as the identity [2]_, a plain RNN, LSTM and GRU of 100 units
are trained on all three. Beside them: always answering 1, and guessing letters. How the
gradient fares on its way back through time is drawn below the learning curves.

    python examples/long_memory.py [--quick] [--adding T [T ...]] [--copying T]
                                   [--steps N] [--plot FILE.png]

.. [1] S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8),
   1997.
.. [2] Q. Le, N. Jaitly, G. Hinton, "A Simple Way to Initialize Recurrent Networks of
   Rectified Linear Units", arXiv:1504.00941, 2015.
"""

import argparse
import math
import time

import numpy as np
from memory_tasks import LETTERS, adding, copying, loss_of

import fastrnn

H, BATCH, TEST = 100, 16, 256
CHANCE = {"adding": 1 / 6, "copying": math.log(LETTERS)}
# Adam's first learning rate; it falls linearly, and gradients are clipped to norm 1.
# The identity RNN learned nothing of T = 300 with 1e-3, 1e-4 or SGD (see README.md).
NETWORKS = {"identity RNN": 3e-4, "tanh RNN": 3e-4, "LSTM": 3e-3, "GRU": 3e-3}


def make(name, inputs, outputs, every_step):
    """A network of one layer and a linear head on its last steps or step."""
    options = {"return_sequences": every_step, "seed": 0}
    head = fastrnn.Linear(H, outputs, seed=1)
    if name == "identity RNN":
        layer = fastrnn.RNN(inputs, H, nonlinearity="relu", **options)
        fastrnn.init.identity_(layer.parameters["weight_hh_l0"])
        # As published: all other weights are next to nothing, biases nothing.
        fastrnn.init.normal_(layer.parameters["weight_ih_l0"], std=1e-3, seed=5)
        fastrnn.init.normal_(head.parameters["weight"], std=1e-3, seed=6)
        for bias in "bias_ih_l0", "bias_hh_l0":
            layer.parameters[bias][...] = 0
        head.parameters["bias"][...] = 0
    elif name == "tanh RNN":
        layer = fastrnn.RNN(inputs, H, **options)
    else:
        layer = {"LSTM": fastrnn.LSTM, "GRU": fastrnn.GRU}[name](inputs, H, **options)
    if name == "LSTM":
        fastrnn.init.forget_gate_bias_(layer, 1.0)
    return fastrnn.Sequential(layer, head)


def flow(layer, x):
    """Norm of dL/dh_t against the lag T - t, for L of the last state alone."""
    before, layer.return_sequences = layer.return_sequences, False
    last, _ = layer(x.swapaxes(0, 1))  # by itself the layer takes time first
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
    rate, rng = NETWORKS[name], np.random.default_rng(0)
    optimizer = fastrnn.Adam(model, lr=rate)
    test = draw(np.random.default_rng(1), T, TEST)
    found = flow(model[0], test[0][:BATCH])
    curve, start = [], time.perf_counter()
    for step in range(1, steps + 1):
        _, dsaid = loss_of(model, task, *draw(rng, T, BATCH))
        model.zero_grad()
        model.backward(dsaid)
        fastrnn.clip_grad_norm_(model, 1.0)
        optimizer.lr = rate * max(0.05, 1 - step / steps)
        optimizer.step()
        if step % max(1, steps // 60) == 0:
            model.eval()
            curve.append((step, loss_of(model, task, *test)[0]))
            model.train()
            if curve[-1][1] < 0.02 * CHANCE[task]:
                break
    seconds = time.perf_counter() - start
    print(f"{task:<8} {T:>5} {name:<13} {curve[-1][1]:9.5f} {step:7} steps "
          f"{seconds:6.0f} s", flush=True)  # fmt: skip
    return curve, found


def plot(path, results, cases):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    size = {"figsize": (5 * len(cases), 8), "squeeze": False}
    figure, axes = plt.subplots(2, len(cases), layout="constrained", **size)
    for column, (task, T) in zip(axes.T, cases, strict=True):
        chance = CHANCE[task]
        for name in NETWORKS:
            curve, found = results[task, T, name]
            column[0].plot(*zip(*curve, strict=True), label=name)
            column[1].semilogy(np.maximum(found, 1e-30), label=name)
        column[0].axhline(chance, color="0.5", linestyle=":", label="no memory")
        column[0].set(
            title=f"{task}, T = {T}",
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
    parser.add_argument("--adding", type=int, nargs="+", default=[100, 300],
                        metavar="T", help="numbers")  # fmt: skip
    parser.add_argument("--copying", type=int, default=100, metavar="T", help="blanks")
    parser.add_argument("--steps", type=int, default=40_000,
                        help="at most, a quarter of it for copying")  # fmt: skip
    parser.add_argument("--plot", metavar="FILE", default="long_memory.png")
    options = parser.parse_args()
    if options.quick:
        options.adding, options.copying, options.steps = [30], 5, 120
    cases = [("adding", T) for T in options.adding] + [("copying", options.copying)]
    results = {}
    for task, T in cases:
        print(f"{task:<8} {T:>5} {'no memory':<13} {CHANCE[task]:9.5f}")
        steps = options.steps // (1 if task == "adding" else 4)
        for name in NETWORKS:
            results[task, T, name] = train(name, task, T, steps)
    plot(options.plot, results, cases)
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
