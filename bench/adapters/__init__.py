# SPDX-License-Identifier: BSD-3-Clause
"""Adapters: one module for each library, each in its own process (`bench.worker`).

An adapter has two functions. ``start(n_threads, dtype)`` sets the number of threads and
returns versions and settings as plain values. ``variants(case, dtype)`` returns the
ways in which the library can run a case: a dict from the name of a variant to a
function that makes its side. A side has ``run()``, the call that is timed, and
``results()``, which returns every output and gradient as a dict of NumPy arrays, with
fastrnn's names and layouts.

An adapter may have two functions more: ``peak(n_threads, dtype)``, the rate of FMAs
alone, and ``weight_bytes(side)``, the bytes of the weights that a side computes with.

An adapter of programs runs the cases of `bench.programs`, and may run no others: its
``CASES`` says which types of cases it takes; without that it takes layers and models.
"""

from typing import NamedTuple

PEERS = {
    "torch": "PyTorch",
    "keras": "Keras",
    "jax": "JAX",
    "onnxruntime": "ONNX Runtime",
}


class _Program(NamedTuple):
    """A library as its users run it: a title, an adapter, and its process's variables.

    The adapter finds in the variable FASTRNN_BENCH_ACCELERATE whether the one line is
    there that lets the program run on fastrnn's kernels.
    """

    title: str
    module: str
    environment: dict[str, str]


# The one line is there in those whose names end in "+fastrnn". What comes before the
# "+" is the same program without it, or JAX without our functions.
_PLAIN = {
    f"keras_{backend}": _Program(
        f"Keras on {title}", "keras_program", {"KERAS_BACKEND": backend}
    )
    for backend, title in {
        "torch": "PyTorch",
        "tensorflow": "TensorFlow",
        "jax": "JAX",
    }.items()
}
_ACCELERATED = {
    f"{name}+fastrnn": plain._replace(
        title=f"{plain.title}, accelerated",
        environment={**plain.environment, "FASTRNN_BENCH_ACCELERATE": "1"},
    )
    for name, plain in _PLAIN.items()
} | {"jax+fastrnn": _Program("fastrnn.jax", "jax_fastrnn", {})}
_PROGRAMS = _PLAIN | _ACCELERATED


def _way(title, module, name):
    """A library with numbers narrower than float32; its adapter finds which by name."""
    return _Program(title, module, {"FASTRNN_BENCH_WAY": name.partition("-")[2]})


# Each starts with the name of a library, whose own numbers are float32.
_NARROW = {
    name: _way(title, module, name)
    for module, ways in {
        "fastrnn_narrow": {
            "fastrnn-compute-bfloat16": 'fastrnn `compute="bfloat16"`',
            "fastrnn-compute-bfloat16-fast": 'fastrnn `compute="bfloat16-fast"`',
            "fastrnn-weights-bfloat16": 'fastrnn `quantize("bfloat16")`',
            "fastrnn-weights-int8": 'fastrnn `quantize("int8")`',
        },
        "torch_narrow": {
            "torch-autocast": "PyTorch autocast bfloat16",
            "torch-bfloat16": "PyTorch `.to(bfloat16)`",
            "torch-int8": "PyTorch int8",
        },
        "onnxruntime_int8": {"onnxruntime-int8": "ONNX Runtime int8"},
    }.items()
    for name, title in ways.items()
}
FLOAT32_OF = {name: name.partition("-")[0] for name in _NARROW}
EXACT = "exact"
_OTHERS = _PROGRAMS | _NARROW | {EXACT: _Program("float64", "exact", {})}

# Of each library with the one line in its program, the library without.
PLAIN_OF = {name: name.removesuffix("+fastrnn") for name in _ACCELERATED}
ONE_LINE = (*_PLAIN, "jax", *_ACCELERATED)
NAMES = {
    "fastrnn": "fastrnn",
    **PEERS,
    **{name: program.title for name, program in _OTHERS.items()},
}
# By name of what may gain, the library without that.
GAINS = PLAIN_OF | FLOAT32_OF
# What runs on fastrnn, and verifies nothing.
OWN = {"fastrnn", *PLAIN_OF, *(n for n, lib in FLOAT32_OF.items() if lib == "fastrnn")}
# Of each suite that has others than `PEERS`, with what fastrnn is compared.
OF_SUITE = {
    "one-line": ONE_LINE,
    "bf16": (
        "fastrnn-compute-bfloat16",
        "fastrnn-compute-bfloat16-fast",
        "torch",
        "torch-autocast",
        "torch-bfloat16",
    ),
    "int8": (
        "fastrnn-weights-bfloat16",
        "fastrnn-weights-int8",
        "onnxruntime",
        "onnxruntime-int8",
        "torch",
        "torch-int8",
    ),
}
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
    module = _OTHERS[name].module if name in _OTHERS else name
    return f"bench.adapters.{module}"


def environment_of(name):
    """The variables that the process of a library needs beside the usual ones."""
    return _OTHERS[name].environment if name in _OTHERS else {}
