# SPDX-License-Identifier: BSD-3-Clause
"""Draw the pictures of the guide's page on truncation and clipping.

    python docs/guide/pictures/draw.py [FOLDER]

writes vanishing.svg, exploding.svg and clipping.svg beside this file, or into FOLDER.
It needs matplotlib. What the lines show is measured on fastrnn's layers, and is the
same in every run.
"""

import sys
from pathlib import Path

import numpy as np

import fastrnn

STEPS = 100  # of the sequences whose gradients are followed


def of_last_step(y):
    """A loss of the last output alone, and its gradient."""
    dy = np.zeros_like(y)
    dy[-1] = 1
    return float(y[-1].sum()), dy


def vanishing():
    """Norm of the gradient by lag, from `fastrnn.diagnose`, for layers of 64 units."""
    x = 0.5 * np.random.default_rng(0).normal(size=(STEPS, 8, 4))
    layers = {
        "RNN, PyTorch's first values": fastrnn.RNN(4, 64, init="torch", seed=0),
        "GRU": fastrnn.GRU(4, 64, seed=0),
        "LSTM": fastrnn.LSTM(4, 64, seed=0),
        "RNN, orthogonal": fastrnn.RNN(4, 64, seed=0),
        "LSTM, forget_bias=3": fastrnn.LSTM(4, 64, forget_bias=3, seed=0),
    }
    return {
        name: fastrnn.diagnose(layer, x, of_last_step).flows[0].norms
        for name, layer in layers.items()
    }


def with_gain(gain, **options):
    """An RNN of 64 units whose recurrent matrix is orthogonal, times `gain`."""
    layer = fastrnn.RNN(4, 64, seed=0, **options)
    fastrnn.init.orthogonal_(layer.parameters["weight_hh_l0"], gain, seed=0)
    return layer


def exploding():
    """Norm of the gradient by lag, from ``backward(record_flow="lag")``."""
    x = 0.1 * np.random.default_rng(0).normal(size=(STEPS, 8, 4))
    layers = {
        "gain 2": with_gain(2),
        "gain 1.5": with_gain(1.5),
        "gain 1": with_gain(1),
        "gain 0.8": with_gain(0.8),
        "gain 2, clip_state_grad": with_gain(2, clip_state_grad=("norm", 1)),
    }
    lines = {}
    for name, layer in layers.items():
        y, _ = layer(x)
        _, _, flow = layer.backward(of_last_step(y)[1], record_flow="lag")
        lines[name] = flow[0]
    return lines


def losses(max_norm):
    """Loss of 150 steps of SGD on a network whose gradients explode at first."""
    rng = np.random.default_rng(0)
    rnn = fastrnn.RNN(1, 32, return_sequences=False, seed=0)
    fastrnn.init.orthogonal_(rnn.parameters["weight_hh_l0"], 1.5, seed=0)
    model = fastrnn.Sequential(rnn, fastrnn.Linear(32, 1, seed=1))
    optimizer, found = fastrnn.SGD(model, lr=0.1), []
    for _ in range(150):
        x = rng.normal(size=(64, 40, 1))
        loss, dy = fastrnn.mse_loss(model(x), 2 * x[:, :5].mean(axis=1))
        optimizer.zero_grad()
        model.backward(dy)
        fastrnn.clip_grad_norm_(model, max_norm)
        optimizer.step()
        found.append(loss)
    return np.array(found)


def clipping():
    """Losses with and without a bound on the norm of the gradient."""
    return {"not clipped": losses(np.inf), "norm at most 1": losses(1.0)}


PICTURES = {  # name: (what it shows, label across, label upwards)
    "vanishing": (vanishing, "lag, steps before the loss", "norm of dL/dh"),
    "exploding": (exploding, "lag, steps before the loss", "norm of dL/dh"),
    "clipping": (clipping, "step of the optimiser", "loss"),
}


def draw(folder):
    """Write all pictures into a folder."""
    import matplotlib  # noqa: PLC0415 - the lines are there without it
    from matplotlib.figure import Figure  # noqa: PLC0415

    # Ids and dates that differ from run to run would change the files.
    fixed = {"svg.hashsalt": "fastrnn", "svg.fonttype": "path", "font.size": 10}
    with matplotlib.rc_context(fixed):
        for name, (lines, across, upwards) in PICTURES.items():
            figure = Figure(figsize=(7.5, 3.6), layout="constrained")
            ax = figure.subplots()
            for label, values in lines().items():
                ax.semilogy(values, label=label, gid=f"line: {label}")
            ax.set(xlabel=across, ylabel=upwards)
            ax.grid(alpha=0.3)
            ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
            figure.savefig(
                folder / f"{name}.svg", metadata={"Date": None, "Creator": None}
            )


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
