# SPDX-License-Identifier: BSD-3-Clause
"""Adapters: one module for each library, each in its own process (`bench.worker`).

An adapter has two functions. ``start(n_threads, dtype)`` sets the number of threads and
returns versions and settings as plain values. ``variants(case, dtype)`` returns the
ways in which the library can run a case: a dict from the name of a variant to a
function that makes its side. A side has ``run()``, the call that is timed, and
``results()``, which returns every output and gradient as a dict of NumPy arrays, with
fastrnn's names and layouts.
"""

PEERS = {
    "torch": "PyTorch",
    "keras": "Keras",
    "jax": "JAX",
    "onnxruntime": "ONNX Runtime",
}
NAMES = {"fastrnn": "fastrnn", **PEERS}
# How many calls of a case of the pass "step" have their outputs compared; the first
# starts from a zero state.
N_STEPS = 4


class UnsupportedError(Exception):
    """Raised if a library cannot run a case; the message says why."""


def form_of(forms, case):
    """The entry of a case's cell in a dict of what a library has for each cell.

    Raises
    ------
    UnsupportedError
        If the library has nothing for this cell.
    """
    if case.cell not in forms:
        raise UnsupportedError(f"it has no layer of the cell {case.cell}")
    return forms[case.cell]


def module_of(name):
    """The name of the module that is the adapter of a library."""
    return f"bench.adapters.{name}"
