# SPDX-License-Identifier: BSD-3-Clause
"""Comparison of two libraries' results; nothing is timed unless they agree."""

import numpy as np

# The largest error that is allowed, relative to the largest element of an array.
# Results differ by rounding: gradients of weights are sums over T * B products, and
# each library sums in another order.
TOLERANCE = {"float32": 2e-4, "float64": 1e-10}
# For a whole model the allowed error is larger by this factor, because its gradients go
# through several layers, the loss and the embedding.
MODEL_FACTOR = 10
# Where a sum is 0 but for rounding, one library may see it above 0 and another below,
# and ReLU's gradient of that unit is then 1 in one and 0 in the other. Gradients of a
# ReLU are therefore compared as vectors: this is the error relative to their norm.
RELU_GRADIENT = 5e-3
# Keras's LSTM has one bias where the other libraries' have two, and Adam moves each of
# the two as far as the one, so the losses after the first step differ, on any backend.
# The gradients and the first loss of Keras are compared as those of all others.
ONE_BIAS = {("keras", "later losses"): 2e-2}
# The largest error, as roots of mean squares, of a library with float32 numbers beside
# the equations in float64, and of one with narrower numbers. The second is so large
# that it finds only what is no result at all: how exact narrow numbers are, the tables
# say (those of PyTorch 2.13 on a CPU with AMX show gradients of an LSTM of 1024 units
# that are off by a fifth).
AGAINST_EXACT = {"float32": 1e-4, "narrow": 0.5}


def _error(got, expected, by_norm):
    """The difference of two arrays relative to the size of the expected one.

    It is 0 only if both are equal, and NaN if either is not finite.
    """
    size = np.linalg.norm if by_norm else (lambda array: np.abs(array).max(initial=0))
    difference = float(size((got - expected).ravel()))
    return difference / float(size(expected.ravel())) if difference else 0.0


def compare(results, name, ours, case, dtype, our_name="fastrnn"):
    """Check that the results of a peer and of fastrnn agree.

    Parameters
    ----------
    results, ours : dict of str to ndarray
        What ``results()`` of the peer's side and of fastrnn's side returned.
    name : str
        The name of the peer, for errors.
    our_name : str
        The name of the side that `ours` are of: fastrnn's, or a program that runs on
        fastrnn, whose results are compared with those of the same program without it.
    case : bench.case.LayerCase, bench.case.ModelCase or bench.case.ProgramCase
    dtype : {"float32", "float64"}

    Returns
    -------
    float
        The largest relative error of any array.

    Raises
    ------
    ArithmeticError
        If names, shapes or values differ.
    """
    if results.keys() != ours.keys():
        raise ArithmeticError(
            f"{case.id}: {our_name} gave {sorted(ours)}, {name} {sorted(results)}"
        )
    is_model = case.id.startswith(("model/", "keras/"))
    library = name.partition("_")[0]  # "keras_torch" is Keras, too
    one_bias = ONE_BIAS if our_name == "fastrnn" else {}
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
        allowed = RELU_GRADIENT if by_norm else one_bias.get((library, key), allowed)
        error = _error(got, expected, by_norm)
        if not error <= allowed:
            raise ArithmeticError(
                f"{case.id}: {key} differs from that of {name} by {error:.2e} of its "
                f"{'norm' if by_norm else 'largest element'}, allowed {allowed:.0e}"
            )
        worst = max(worst, error)
    return worst


def distances(results, name, exact, case, is_narrow):
    """The errors of a library's results beside those of the equations in float64.

    Parameters
    ----------
    results, exact : dict of str to ndarray
        What ``results()`` of a library's side and of the side of
        `bench.adapters.exact` returned. Only what the second has is compared.
    name : str
        The name of the library, for errors.
    case : bench.case.LayerCase
    is_narrow : bool
        Whether the library's numbers are narrower than float32.

    Returns
    -------
    dict of str to float
        By name of a result its relative error: the norm of the difference, divided by
        the norm of the exact result.

    Raises
    ------
    ArithmeticError
        If a shape differs, or an error is larger than `AGAINST_EXACT` allows.
    """
    allowed = AGAINST_EXACT["narrow" if is_narrow else "float32"]
    errors = {}
    for key, expected in exact.items():
        got = results[key]
        if got.shape != expected.shape:
            raise ArithmeticError(
                f"{case.id}: {key} of {name} has shape {got.shape}, not "
                f"{expected.shape}"
            )
        errors[key] = _error(got, expected, by_norm=True)
        if not errors[key] <= allowed:
            raise ArithmeticError(
                f"{case.id}: {key} of {name} is off by {errors[key]:.2e} of its norm, "
                f"allowed {allowed:.0e}"
            )
    return errors
