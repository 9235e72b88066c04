# SPDX-License-Identifier: BSD-3-Clause
"""A training loop of JAX made faster by one line
==============================================

An LSTM that is written with ``jax.lax.scan``, as JAX's users write theirs, a loss,
``jax.value_and_grad``, and Adam on a tree of parameters. Of 50 random numbers two are
marked, and the network is to say their sum (Hochreiter and Schmidhuber's adding
problem). The loop runs with that LSTM and with `fastrnn.jax.lstm` in its place, from
the same weights on the same sequences, and the losses of both are compared.

::

    pip install "fastrnn[data,jax]"
    python examples/jax_one_line.py [--quick] [--plot FILE.png]
"""

# sphinx_gallery_thumbnail_path = 'pictures/jax_one_line.png'

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import fastrnn.jax

BATCH, RATE, BETAS, EPSILON = 64, 5e-3, (0.9, 0.999), 1e-8


def scan_lstm(params, x):
    """h (T, B, H) after each step of x (T, B, I), and the last h and c."""
    rows = x @ params["weight_ih"].T + params["bias_ih"] + params["bias_hh"]

    def step(state, row):
        h, c = state
        i, f, g, o = jnp.split(row + h @ params["weight_hh"].T, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zero = jnp.zeros((x.shape[1], params["weight_hh"].shape[1]))
    state, y = jax.lax.scan(step, (zero, zero), rows)
    return y, state


def initial(key, hidden_size):
    """Parameters: uniform within 1 / sqrt(H), and 1 for the bias of the forget gate."""
    sizes = {
        "weight_ih": (4 * hidden_size, 2),
        "weight_hh": (4 * hidden_size, hidden_size),
        "bias_ih": (4 * hidden_size,),
        "bias_hh": (4 * hidden_size,),
    }
    of_head, *keys = jax.random.split(key, 1 + len(sizes))
    bound = hidden_size**-0.5
    draw = partial(jax.random.uniform, minval=-bound, maxval=bound)
    lstm = {
        name: draw(key, size)
        for key, (name, size) in zip(keys, sizes.items(), strict=True)
    }
    forget = slice(hidden_size, 2 * hidden_size)
    lstm["bias_ih"] = lstm["bias_ih"].at[forget].add(1)
    return {"lstm": lstm, "head": draw(of_head, (hidden_size,))}


def sequences(key, length):
    """Numbers and marks (T, B, 2), and the sums (B,) of the numbers that are marked."""
    of_numbers, of_marks = jax.random.split(key)
    numbers = jax.random.uniform(of_numbers, (length, BATCH))
    ranks = jax.random.uniform(of_marks, (length, BATCH)).argsort(axis=0)
    marks = (ranks < 2).astype(numbers.dtype)
    return jnp.stack([numbers, marks], axis=-1), (numbers * marks).sum(axis=0)


def loss_of(lstm, params, x, sums):
    y, _ = lstm(params["lstm"], x)
    return jnp.mean((y[-1] @ params["head"] - sums) ** 2)


@partial(jax.jit, static_argnums=(0, 5))
def train_step(lstm, params, moments, n, key, length):
    """One step of Adam on sequences of this key: parameters, moments and the loss."""
    x, sums = sequences(key, length)
    loss, grads = jax.value_and_grad(partial(loss_of, lstm))(params, x, sums)
    b1, b2 = BETAS
    first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, moments[0], grads)
    second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, moments[1], grads)
    rate = RATE * jnp.sqrt(1 - b2**n) / (1 - b1**n)
    params = jax.tree.map(
        lambda p, m, v: p - rate * m / (jnp.sqrt(v) + EPSILON), params, first, second
    )
    return params, (first, second), loss


def train(options, accelerated):
    """The loss of each step, the milliseconds of each, and the held-out loss."""
    lstm = scan_lstm
    if accelerated:
        lstm = fastrnn.jax.lstm  # the one line
    params = initial(jax.random.key(0), options.hidden_size)
    moments = (jax.tree.map(jnp.zeros_like, params),) * 2
    losses, milliseconds = [], []
    for n in range(options.steps):
        start = time.perf_counter()
        key = jax.random.key(1 + n)
        params, moments, loss = train_step(
            lstm, params, moments, n + 1, key, options.length
        )
        losses.append(float(loss))
        milliseconds.append(1e3 * (time.perf_counter() - start))
    held_out = [sequences(jax.random.key(10**6 + k), options.length) for k in range(8)]
    test = jax.jit(partial(loss_of, lstm))
    error = np.mean([float(test(params, *batch)) for batch in held_out])
    return losses, milliseconds, error


def plot(path, results, title):
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 4), layout="constrained", width_ratios=[3, 2]
    )
    for k, (name, (losses, milliseconds, _)) in enumerate(results.items()):
        left.plot(losses, color=f"C{k}", linestyle=("-", "--")[k], label=name)
        right.plot(milliseconds[1:], color=f"C{k}", linewidth=1)
    left.set(ylabel="squared error", yscale="log", title="the losses of both")
    right.set(ylabel="milliseconds of the step", yscale="log", title="the time of both")
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    figure.legend(
        *left.get_legend_handles_labels(), ncols=2, loc="outside lower center"
    )
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--plot", metavar="FILE", default="jax_one_line.png")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.length, options.hidden_size = 30, 20, 32

    T, H = options.length, options.hidden_size
    print(f"LSTM of {H} units, {T} steps, batches of {BATCH}, {options.steps} of them")
    print("always saying the mean: squared error 0.1667")
    results = {
        name: train(options, accelerated)
        for name, accelerated in (("lax.scan", False), ("fastrnn.jax", True))
    }
    for name, (losses, milliseconds, error) in results.items():
        print(
            f"{name}: loss {losses[0]:.6f} at first, held out {error:.6f} at the end, "
            f"{np.median(milliseconds[1:]):.2f} ms a step"
        )
    differences = abs(np.subtract(*(losses for losses, _, _ in results.values())))
    print(
        f"losses differ by {differences[:10].max():.1e} in ten steps, "
        f"{differences.max():.1e} in all"
    )
    scan, ours = (np.median(found[1][1:]) for found in results.values())
    print(f"a step with the one line: {scan / ours:.1f} times as fast")
    title = "A loop of JAX, without and with the one line"
    plot(options.plot, results, title + (" (quick)" if options.quick else ""))
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
