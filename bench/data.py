# SPDX-License-Identifier: BSD-3-Clause
"""The weights and the data of a case, which one seed makes the same in every process.

The weights have the names and layouts that PyTorch and fastrnn have in common. Data are
time-major.
"""

import numpy as np

from bench.cases import new_layer

SEED = 20260101
N_BATCHES = 8  # a language model is trained on these in turn


def _recurrent(rng, prefix, gates, I, H, layers, dtype):
    weights = {}
    for layer in range(layers):
        columns = {"weight_ih": I if layer == 0 else H, "weight_hh": H}
        for name, width in columns.items():
            weights[f"{prefix}{name}_l{layer}"] = (gates * H, width)
        for name in ("bias_ih", "bias_hh"):
            weights[f"{prefix}{name}_l{layer}"] = (gates * H,)
    return {k: _uniform(rng, shape, H, dtype) for k, shape in weights.items()}


def _uniform(rng, shape, fan_in, dtype):
    """Numbers from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), as layers are initialised."""
    bound = fan_in**-0.5
    return ((2 * rng.random(shape, dtype) - 1) * bound).astype(dtype, copy=False)


def layer(case, dtype):
    """Of a layer's case: weights by name, x (T, B, I), the gradient of y (T, B, H)."""
    rng = np.random.default_rng(SEED)
    T, B, I, H = case.shape
    shapes = {k: p.shape for k, p in new_layer(case.cell, I, H).parameters.items()}
    weights = {k: _uniform(rng, shape, H, dtype) for k, shape in shapes.items()}
    x = rng.standard_normal((T, B, I), dtype)
    return weights, x, rng.standard_normal((T, B, H), dtype)


def model(spec, dtype):
    """Of a model or a program: weights by name, a list of batches (inputs, targets).

    The inputs of a language model are tokens, (T, B) integers, and its targets are the
    tokens one step later. The inputs of a window model are windows, (T, B, 1), with
    targets (B, 1); its last batch has the windows that remain, fewer than B.
    """
    rng = np.random.default_rng(SEED)
    weights = {}
    if spec.V:
        weights["embedding.weight"] = rng.standard_normal((spec.V, spec.E), dtype)
    weights |= _recurrent(
        rng, "recurrent.", spec.gates, spec.E, spec.H, spec.layers, dtype
    )
    weights["head.weight"] = _uniform(rng, (spec.classes, spec.H), spec.H, dtype)
    weights["head.bias"] = _uniform(rng, (spec.classes,), spec.H, dtype)
    if spec.V:
        streams = rng.integers(0, spec.V, (N_BATCHES, spec.T + 1, spec.B))
        return weights, [(tokens[:-1], tokens[1:]) for tokens in streams]
    prices = rng.standard_normal((spec.windows, spec.T, spec.E), dtype)
    targets = rng.standard_normal((spec.windows, 1), dtype)
    batches = [
        (
            np.ascontiguousarray(prices[at : at + spec.B].transpose(1, 0, 2)),
            targets[at : at + spec.B],
        )
        for at in range(0, spec.windows, spec.B)
    ]
    return weights, batches
