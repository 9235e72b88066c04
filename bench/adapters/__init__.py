# SPDX-License-Identifier: BSD-3-Clause
"""One module for each library; each runs in a process of its own (`bench.worker`).

A module has ``start(n_threads, dtype)``, which sets the threads and gives versions and
settings as plain values, and ``variants(case, dtype)``, which gives the ways to run a
case: a dict from a variant's name to a function that makes its side. A side has
``run()``, the call that is timed, and ``results()``, which gives every output and
gradient as a dict of NumPy arrays in fastrnn's names and layouts.
"""

PEERS = {
    "torch": "PyTorch",
    "keras": "Keras",
    "jax": "JAX",
    "onnxruntime": "ONNX Runtime",
}
NAMES = {"fastrnn": "fastrnn", **PEERS}
N_STEPS = 4  # calls of a step case whose outputs are compared, from a zero state


class UnsupportedError(Exception):
    """This library cannot run this case; the message says why."""


def form_of(forms, case):
    """What a library has for a case's cell, out of a dict by the cell's name.

    Raises
    ------
    UnsupportedError
        If it has nothing.
    """
    if case.cell not in forms:
        raise UnsupportedError(f"it has no layer of the cell {case.cell}")
    return forms[case.cell]


def module_of(name):
    """Where the adapter of a library is."""
    return f"bench.adapters.{name}"
