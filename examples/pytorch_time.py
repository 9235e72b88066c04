# SPDX-License-Identifier: BSD-3-Clause
"""How long the recurrent layer of an epoch takes here and in PyTorch: no example."""

import statistics
import time
from importlib.util import find_spec

import numpy as np

import fastrnn


def compare(layer, T, batch, steps):
    """Print seconds of `steps` training steps of a layer, forward and backward.

    Both get the same weights, input, gradient and number of threads, and take turns;
    the median of seven steps each counts. Nothing is printed without PyTorch.
    """
    if find_spec("torch") is None:
        return
    import torch

    torch.set_num_threads(fastrnn.get_num_threads())
    options = {"bidirectional": layer.bidirectional}
    if isinstance(layer, fastrnn.RNN):
        options["nonlinearity"] = layer.nonlinearity
    make = getattr(torch.nn, type(layer).__name__)
    twin = make(layer.input_size, layer.hidden_size, layer.num_layers, **options)
    twin.load_state_dict(
        {name: torch.tensor(value) for name, value in layer.parameters.items()}
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(T, batch, layer.input_size)).astype("f")
    given = torch.tensor(x, requires_grad=True)
    layer.train()
    sequences, layer.return_sequences = layer.return_sequences, True
    dy = np.full_like(layer(x)[0], 1e-3)
    gradient = torch.tensor(dy)

    def ours():
        layer(x)
        layer.backward(dy)

    def theirs():
        twin(given)[0].backward(gradient)

    times = {ours: [], theirs: []}
    for _ in range(8):
        for step, taken in times.items():
            start = time.perf_counter()
            step()
            taken.append(time.perf_counter() - start)
    here, there = (steps * statistics.median(taken[1:]) for taken in times.values())
    layer.return_sequences = sequences
    layer.zero_grad()
    name = f"{type(layer).__name__} of one epoch, {steps} steps"
    print(f"{name}: {here:.2f} s here, {there:.2f} s in PyTorch")
