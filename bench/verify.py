# SPDX-License-Identifier: BSD-3-Clause
"""Are two libraries' results the same? Nothing is timed before they are."""

import numpy as np

# Largest error allowed, relative to the largest element of the array: weight gradients
# are sums over T * B products, in another order in each library.
TOLERANCE = {"float32": 2e-4, "float64": 1e-10}
# Gradients of a whole model go through several layers, the loss and the embedding.
MODEL_FACTOR = 10
# A sum within rounding of 0 may fall on either side of ReLU's kink, and then one unit's
# whole gradient is there or not: its gradients are compared as vectors, by norm.
RELU_GRADIENT = 5e-3
# Keras's LSTM has one bias where the others have two, and Adam moves each of the two as
# far as the one. Its gradients and first loss are compared like all others.
ONE_BIAS = {("keras", "later losses"): 2e-2}


def _error(got, expected, by_norm):
    """How far apart, relative to the expected; 0 only if equal, NaN if not finite."""
    size = np.linalg.norm if by_norm else (lambda array: np.abs(array).max(initial=0))
    difference = float(size((got - expected).ravel()))
    return difference / float(size(expected.ravel())) if difference else 0.0


def compare(results, name, ours, case, dtype):
    """Raise unless a peer gave what fastrnn gave; returns the largest error.

    Parameters
    ----------
    results, ours : dict of str to ndarray
        What ``results()`` gave for the peer and for fastrnn.
    name : str
        The peer, for the message.
    case : bench.case.LayerCase or bench.case.ModelCase
    dtype : {"float32", "float64"}

    Returns
    -------
    float
        Largest relative error of any array.

    Raises
    ------
    ArithmeticError
        If names, shapes or values differ.
    """
    if results.keys() != ours.keys():
        raise ArithmeticError(
            f"{case.id}: fastrnn gave {sorted(ours)}, {name} {sorted(results)}"
        )
    is_model = case.id.startswith("model/")
    worst = 0.0
    for key, expected in results.items():
        got = ours[key]
        if got.shape != expected.shape:
            raise ArithmeticError(
                f"{case.id}: {key} has shape {got.shape}, that of {name} "
                f"{expected.shape}"
            )
        by_norm = case.id.startswith("rnn_relu/") and key != "y"
        allowed = TOLERANCE[dtype] * (MODEL_FACTOR if is_model else 1)
        allowed = RELU_GRADIENT if by_norm else ONE_BIAS.get((name, key), allowed)
        error = _error(got, expected, by_norm)
        if not error <= allowed:
            raise ArithmeticError(
                f"{case.id}: {key} differs from that of {name} by {error:.2e} of its "
                f"{'norm' if by_norm else 'largest element'}, allowed {allowed:.0e}"
            )
        worst = max(worst, error)
    return worst
