# SPDX-License-Identifier: BSD-3-Clause
"""How far back can a network remember? The adding problem and the copying task
============================================================================

Adding: of 100 or 300 numbers two are marked, and their sum is asked for after the last
[1]_. Copying: ten letters are to be repeated after 100 blank steps. An RNN of rectified
linear units that starts as the identity [2]_, a plain RNN, LSTM, GRU, and two layers of
IndRNN [3]_, of 100 units each, are trained on all three. Beside them: always answering
1, and guessing letters. How the gradient fares on its way back through time is drawn
below the learning curves.

::

    python examples/long_memory.py [--quick] [--adding T [T ...]] [--copying T]
                                   [--networks NAME [NAME ...]] [--steps N]
                                   [--plot FILE.png]

.. [1] S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8),
   1997.
.. [2] Q. Le, N. Jaitly, G. Hinton, "A Simple Way to Initialize Recurrent Networks of
   Rectified Linear Units", arXiv:1504.00941, 2015.
.. [3] S. Li, W. Li, C. Cook, C. Zhu, Y. Gao, "Independently Recurrent Neural Network
   (IndRNN): Building A Longer and Deeper RNN", arXiv:1803.04831, 2018.
"""

# sphinx_gallery_thumbnail_path = 'pictures/long_memory_quick.png'

import argparse
import math
import time
from typing import Any

import numpy as np
from memory_tasks import LETTERS, adding, copying

import fastrnn

H, BATCH, TEST, EPOCHS = 100, 16, 256, 60
CHANCE = {"adding": 1 / 6, "copying": math.log(LETTERS)}
# Adam's first learning rate; it falls linearly, and gradients are clipped to norm 1.
# The identity RNN learned nothing of T = 300 with 1e-3, 1e-4 or SGD (see README.md).
NETWORKS = {"identity RNN": 3e-4, "tanh RNN": 3e-4, "LSTM": 3e-3, "GRU": 3e-3}
NETWORKS |= {"IndRNN": 3e-3}


def small(seed):
    """An initialiser: as published, next to nothing."""
    return lambda weight: fastrnn.init.normal_(weight, std=1e-3, seed=seed)


def make(name, inputs, outputs, every_step, T):
    """A network of one layer, or two, and a linear head on its last steps or step.

    All but the identity RNN and the IndRNN begin with PyTorch's uniform weights, as the
    figures in README.md do: fastrnn's own default, an orthogonal matrix, helps a plain
    RNN. The IndRNN's recurrent weights are bounded by the T steps to remember.
    """
    init: Any = "torch"
    head_init: Any = "torch"
    if name == "identity RNN":
        init = {"weight_hh": fastrnn.init.identity_, "weight_ih": small(5)}
        init |= {"bias_ih": 0, "bias_hh": 0}
        head_init = {"weight": small(6), "bias": 0}
    layer: fastrnn.RNN | fastrnn.LSTM | fastrnn.GRU | fastrnn.IndRNN
    options: dict[str, Any] = {"return_sequences": every_step, "init": init, "seed": 0}
    if name == "LSTM":
        layer = fastrnn.LSTM(inputs, H, **options)
        fastrnn.init.forget_gate_bias_(layer, 1.0)
    elif name == "GRU":
        layer = fastrnn.GRU(inputs, H, **options)
    elif name == "IndRNN":
        options["init"] = head_init = "keras"
        layer = fastrnn.IndRNN(inputs, H, 2, time_steps=T, **options)
    else:
        nonlinearity = "relu" if name == "identity RNN" else "tanh"
        layer = fastrnn.RNN(inputs, H, nonlinearity=nonlinearity, **options)
    head = fastrnn.Linear(H, outputs, init=head_init, seed=1)
    return fastrnn.Sequential(layer, head)


def last_state(y):
    """A loss that depends on the last state alone; its gradient has norm 1."""
    dy = np.zeros_like(y)
    last = dy[-1:] if y.ndim == 3 else dy  # a layer by itself takes time first
    last[...] = 1 / math.sqrt(last.size)
    return float(y.sum()), dy


class Falling(fastrnn.schedules.Schedule):
    """The learning rate falls linearly, to a twentieth."""

    def factor(self, epochs_done):
        return max(0.05, 1 - epochs_done / EPOCHS)


def batches(draw, T):
    """Sequences never drawn before, for ever."""
    rng = np.random.default_rng(0)
    while True:
        yield draw(rng, T, BATCH)


def train(name, task, T, steps):
    """Learning curve on held-out sequences, and the gradient's flow before training."""
    draw = {"adding": adding, "copying": copying}[task]
    sizes = (2, 1) if task == "adding" else (LETTERS + 2, LETTERS)
    model = make(name, *sizes, every_step=task == "copying", T=T)
    loss = "mse" if task == "adding" else "sparse_categorical_crossentropy"
    model.compile(loss, "adam", lr=NETWORKS[name])
    test = draw(np.random.default_rng(1), T, TEST)
    found = fastrnn.diagnose(model[0], test[0][:BATCH].swapaxes(0, 1), last_state)

    def stop(epoch, logs):
        model.stop_training = logs["val_loss"] < 0.02 * CHANCE[task]

    start = time.perf_counter()
    history = model.fit(
        batches(draw, T),
        epochs=EPOCHS,
        steps_per_epoch=max(1, steps // EPOCHS),
        validation_data=test,
        callbacks=[Falling(), fastrnn.callbacks.LambdaCallback(on_epoch_end=stop)],
        clip_norm=1.0,
        verbose=0,
    )
    seconds = time.perf_counter() - start
    losses = history.history["val_loss"]
    at = (np.arange(len(losses)) + 1) * max(1, steps // EPOCHS)
    print(f"{task:<8} {T:>5} {name:<13} {losses[-1]:9.5f} {at[-1]:7} steps "
          f"{seconds:6.0f} s", flush=True)  # fmt: skip
    return at, losses, found.flows[0]


def plot(path, results, cases, networks, quick):
    """Learning curves, and below them the gradient on its way back."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(cases), squeeze=False,
        figsize=(4.5 * len(cases) + 2, 8), layout="constrained",
    )  # fmt: skip
    for (curves, flows), (task, T) in zip(axes.T, cases, strict=True):
        for color, name in enumerate(networks):
            at, losses, flow = results[task, T, name]
            curves.plot(at, losses, label=name, color=f"C{color}")
            norms = np.where(flow.norms > 0, flow.norms, np.nan)
            flows.semilogy(norms, color=f"C{color}")
            flows.set_xlim(-0.05 * T, 1.05 * len(norms))  # also where nothing is left
            if flow.underflow is not None:
                end = flow.underflow - 1
                flows.semilogy(end, norms[end], "x", color=f"C{color}")
        curves.axhline(CHANCE[task], color="0.5", linestyle=":", label="no memory")
        of = "squared error" if task == "adding" else "nats per letter"
        curves.set(
            title=f"{task}, T = {T}",
            xlabel="steps of training",
            ylabel=f"loss on held-out sequences, {of}",
            ylim=(0, 1.6 * CHANCE[task]),
        )
        flows.set(
            xlabel="steps back in time (x: below, float32 underflows)",
            ylabel="norm of the gradient, before training",
            ylim=(1e-20, 1e3),
        )
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper")
    if quick:
        figure.suptitle("A few steps only (--quick)")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--adding", type=int, nargs="+", default=[100, 300],
                        metavar="T", help="numbers")  # fmt: skip
    parser.add_argument("--copying", type=int, default=100, metavar="T", help="blanks")
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS], choices=NETWORKS,
                        metavar="NAME", help=", ".join(NETWORKS))  # fmt: skip
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
        for name in options.networks:
            results[task, T, name] = train(name, task, T, steps)
    plot(options.plot, results, cases, options.networks, options.quick)
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
