# SPDX-License-Identifier: BSD-3-Clause
"""Weights and data of a case: the same numbers in every process, from one seed.

Names and layouts of the weights are PyTorch's and fastrnn's; data is time-major.
"""

import numpy as np

SEED = 20260101
N_BATCHES = 8  # a language model sees these in turns


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
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), as recurrent layers are initialised."""
    bound = fan_in**-0.5
    return ((2 * rng.random(shape, dtype) - 1) * bound).astype(dtype, copy=False)


def layer(case, dtype):
    """Weights by name, x (T, B, I) and the gradient of y (T, B, H) of a layer case."""
    rng = np.random.default_rng(SEED)
    T, B, I, H = case.shape
    weights = _recurrent(rng, "", case.gates, I, H, 1, dtype)
    x = rng.standard_normal((T, B, I), dtype)
    return weights, x, rng.standard_normal((T, B, H), dtype)


def model(spec, dtype):
    """Weights by name, and a list of batches (inputs, targets), of a model.

    Tokens are (T, B) integers, and the targets are the tokens one step later; windows
    are (T, B, 1) with targets (B, 1), the last batch being what is left over.
    """
    rng = np.random.default_rng(SEED)
    weights = {}
    if spec.V:
        weights["embedding.weight"] = rng.standard_normal((spec.V, spec.E), dtype)
    weights |= _recurrent(rng, "recurrent.", 4, spec.E, spec.H, spec.layers, dtype)
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
