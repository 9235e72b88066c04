# SPDX-License-Identifier: BSD-3-Clause
"""Digests of what the kernels compute, recorded once and compared everywhere.

Every target with fused multiply-adds gives the same bits (csrc/README.md, "One order of
summation"), so one record serves x86-64 and aarch64, any compiler and any number of
threads. Inputs are fractions of whole numbers, which NumPy draws alike on every
machine. What a C library has a hand in is left out: losses (log) and norms of an odd
order (pow).

    python tests/support/recorded_bits.py            compares, and names what differs
    python tests/support/recorded_bits.py --write    records, after a change of bits

A change of the record is a change of published bits, and goes into the changelog.
"""

import argparse
import hashlib
import json
import sys
import zlib
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn.native import celltable, core
from fastrnn.recurrent import table

RECORD = Path(__file__).with_name("recorded_bits.json")
DTYPES = ("float32", "float64")
# (T, B, I, H): single elements; sizes odd beside every vector; rows and units enough
# for several tiles, panels and blocks.
SHAPES = [
    (1, 1, 1, 1),
    (5, 3, 9, 17),
    (3, 37, 6, 70),
    (270, 2, 5, 19),
    (2, 3, 130, 259),
]
OPTIONS = [
    {"bias": False},
    {"num_layers": 2, "bidirectional": True},
    {"cell_clip": 0.75},
    {"activation": "softsign", "recurrent_activation": "hard_sigmoid"},
    {"proj_size": 7},
    {"peephole": True},
    {"input_forget": True},
    {"reset_after": False},
]
LENGTHS = [5, 0, 2]
N_FLAT = 1003  # elements of a flat buffer: no multiple of any vector's lanes


def fused_targets():
    """Targets of this processor whose bits the record has: those with FMA."""
    wide = {"x86_v3", "x86_v4", "x86_v4_bf16"}
    if wide & set(core.BUILT):
        return [name for name in core.SUPPORTED if name in wide]
    return list(core.SUPPORTED) if fma_is_fused() else []


def fma_is_fused():
    """Whether the active kernels round once in a fused multiply-add.

    (1 + e)(1 - e) - 1 is -e^2; a product that is rounded first is 1, and leaves 0.
    """
    e = 2.0**-30
    layer = fastrnn.Linear(2, 1, bias=False, dtype="float64", seed=0)
    layer.flat_parameters[:] = [-1, 1 - e]
    return layer(np.array([[1, 1 + e]]))[0, 0] != 0


class Numbers:
    """Whole numbers divided by 512, about as large as layers meet them."""

    def __init__(self, name):
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))

    def __call__(self, shape, dtype, scale=1.0):
        whole = self.rng.integers(-1023, 1024, shape)
        return (whole * (scale / 512)).astype(dtype)


def digest(arrays):
    """Of the bits of arrays, in order; None stands for no array."""
    found = hashlib.sha256()
    for array in arrays:
        if array is not None:
            found.update(np.ascontiguousarray(array).astype(array.dtype).tobytes())
    return found.hexdigest()[:16]


def parts(state):
    return state if isinstance(state, tuple) else (state,)


def recurrent_layers():
    """Name, class, sizes, options and lengths of each recorded recurrent layer."""
    for cell in celltable.CELLS:
        about = celltable.cell(cell)
        cls = getattr(fastrnn, about.layer)
        several = len(table.cells_of(about.layer)) > 1
        own = {"nonlinearity": about.activations[0]} if several else {}
        for shape in SHAPES:
            yield f"{cell} {shape}", cls, shape, own, None
        for options in OPTIONS:
            unknown = {"proj_size", "peephole", "input_forget", "reset_after"}
            if any(name in unknown and not hasattr(cls, name) for name in options):
                continue
            if "activations" not in about.options and (
                {"activation", "cell_clip"} & options.keys()
            ):
                continue
            if several and "activation" in options:
                continue  # the functions of these cells are what tells them apart
            if "recurrent_activation" in options and len(about.gates) < 2:
                continue
            yield f"{cell} {options}", cls, SHAPES[1], {**own, **options}, None
        yield f"{cell} ragged", cls, SHAPES[1], own, LENGTHS


def recurrent(name, cls, shape, options, lengths, dtype):
    """Outputs, last states and all gradients of one layer."""
    T, B, I, H = shape
    draw = Numbers(name)
    layer = cls(I, H, dtype=dtype, seed=0, **options)
    # Pre-activations of about one, where functions are neither linear nor saturated.
    scale = 2.0 ** -round(np.log2(I + H) / 2)
    layer.flat_parameters[:] = draw(layer.flat_parameters.shape, dtype, scale)
    y, state = layer(draw((T, B, I), dtype), lengths=lengths)
    dx, d_state = layer.backward(draw(y.shape, dtype))
    return [y, *parts(state), dx, *parts(d_state), *layer.grads.values()]


def linear(dtype):
    draw = Numbers("linear")
    for N, I, O in ((1, 3, 5), (37, 19, 70), (600, 9, 33)):
        layer = fastrnn.Linear(I, O, dtype=dtype, seed=0)
        layer.flat_parameters[:] = draw(layer.flat_parameters.shape, dtype, 0.25)
        y = layer(draw((N, I), dtype))
        yield from (y, layer.backward(draw(y.shape, dtype)), *layer.grads.values())


def functions(dtype):
    """Sigmoid and tanh from tail to tail; every function and slope, in a GRU's gate."""
    x = np.concatenate([np.arange(-40, 40, 1 / 64), [0.0, -0.0]]).astype(dtype)
    for name in ("sigmoid", "tanh"):
        y = np.empty_like(x)
        core.kernels(dtype).activation(name, x, y)
        yield y
    for name in celltable.ACTIVATIONS:
        options = {"activation": name}
        yield from recurrent(name, fastrnn.GRU, SHAPES[1], options, None, dtype)


def flat(dtype):
    """Three steps of each optimiser, norms, dropout, and the gradient of a softmax."""
    draw = Numbers("flat")
    for optimizer, options in (
        (fastrnn.SGD, {"momentum": 0.875, "nesterov": True}),
        (fastrnn.RMSprop, {"momentum": 0.5}),
        (fastrnn.Adagrad, {}),
        (fastrnn.Adam, {"weight_decay": 0.125}),
    ):
        layer = fastrnn.Linear(17, 59, dtype=dtype, seed=0)
        layer.flat_parameters[:] = draw(layer.flat_parameters.shape, dtype)
        steps = optimizer(layer, lr=0.0625, **options)
        for _ in range(3):
            layer.flat_grads[:] = draw(layer.flat_grads.shape, dtype)
            steps.step()
        yield layer.flat_parameters.copy()
    kernels, x = core.kernels(dtype), draw((N_FLAT,), dtype)
    yield np.array([kernels.norm(1, x, power) for power in (1, 2, np.inf)])
    y = np.empty_like(x)
    kernels.dropout(1, 7, 0.25, x, y)
    yield y
    logits, gradient = draw((17, 59), dtype), np.empty((17, 59), dtype)
    targets = np.arange(17, dtype="int64")
    kernels.cross_entropy(1, 17, 59, logits, targets, -100, 0.125, gradient)
    yield gradient
    gradient = np.empty_like(x)
    yield np.array(kernels.mse(1, N_FLAT, x, y, 0.125, gradient))
    yield gradient


def digests():
    """By name and dtype, what this machine's active target computes."""
    found = {}
    for dtype in DTYPES:
        for name, *about in recurrent_layers():
            found[f"{name} {dtype}"] = digest(recurrent(name, *about, dtype))
        for part in (linear, functions, flat):
            found[f"{part.__name__} {dtype}"] = digest(part(dtype))
    return found


def recorded():
    return json.loads(RECORD.read_text(encoding="utf-8"))


def differences(found, wanted):
    """Names of what is not as recorded, missing and unknown names included."""
    return sorted(k for k in found.keys() | wanted if found.get(k) != wanted.get(k))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="record these bits")
    write = parser.parse_args().write
    targets = fused_targets()
    if not targets:
        sys.exit("recorded_bits: no target with fused multiply-adds runs here")
    failed = False
    for target in targets:
        with core.use_isa(target):
            found = digests()
        if write:
            text = json.dumps(found, indent=0, sort_keys=True)
            RECORD.write_text(text + "\n", encoding="utf-8")
            print(f"{len(found)} digests of {target} recorded in {RECORD.name}")
            return
        wrong = differences(found, recorded())
        failed |= bool(wrong)
        print(
            f"{target}: {len(found)} digests, {len(wrong)} differ", *wrong, sep="\n  "
        )
    sys.exit(failed)


if __name__ == "__main__":
    main()
