# SPDX-License-Identifier: BSD-3-Clause
"""`compute="bfloat16"` with the options of every cell.

The judge of values is the float64 layer, whose distance is that of rounding to eight
bits; bits are those of one thread on one target.
"""

import copy

import numpy as np
import pytest
from cells import KINDS, assert_same_bits

import fastrnn
from fastrnn.native import core

OPTIONS = {
    "LSTM": [
        {},
        {"proj_size": 7},
        {"peephole": True, "cell_clip": 2.0},
        {"zoneout": (0.2, 0.1), "recurrent_dropout": 0.3, "input_dropout": 0.2},
        {"recurrent_dropout": 0.3, "recurrent_dropout_mode": "per_gate"},
        {"recurrent_dropout": 0.3, "recurrent_dropout_mode": "candidate"},
        {"weight_drop": 0.3},
        {"layer_norm": True, "recurrent_dropout": 0.3},
        {"layer_norm": "gates", "zoneout": (0.2, 0.1)},
        {"rms_norm": "per_gate", "proj_size": 7},
    ],
    "GRU": [{}, {"reset_after": False}, {"layer_norm": True}, {"layer_norm": "joint"}],
    "LiGRU": [{}, {"layer_norm": True}],
}
CASES = [
    pytest.param(kind, options, id="-".join([kind, *options]))
    for kind in KINDS
    for options in OPTIONS.get(kind, [{}])
]


def layer(kind, I=7, H=19, **options):
    return getattr(fastrnn, kind)(I, H, seed=3, compute="bfloat16", **options)


def results(layer, T=9, B=5, **given):
    """All results of a training step, by name."""
    rng = np.random.default_rng(1)
    shape = (B, T) if layer.batch_first else (T, B)
    x = rng.standard_normal((*shape, layer.input_size)).astype("f")
    fastrnn.set_seed(5)
    layer.zero_grad()
    y, state = layer(x, **given)
    dx, d_state = layer.backward(rng.standard_normal(y.shape).astype("f"))
    found = {"y": y, "dx": dx, **{k: g.copy() for k, g in layer.grads.items()}}
    for name, parts in (("state", state), ("d_state", d_state)):
        parts = parts if isinstance(parts, tuple) else (parts,)
        found |= {f"{name} {k}": part for k, part in enumerate(parts)}
    return found


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_errors_are_those_of_eight_bits(kind, options):
    """Relative to float64: y <= 4e-3 and gradients <= 6e-3, in the norm.

    A norm of few units enlarges them.
    """
    half = layer(kind, **options)
    exact = getattr(fastrnn, kind)(7, 19, seed=3, dtype="float64", **options)
    exact.load_state_dict(half.state_dict())
    exact._dropout_seeds = copy.deepcopy(half._dropout_seeds)
    exact._runtime.dropout_seeds = exact._dropout_seeds
    got, want = results(half), results(exact)
    normed = 3 if {"layer_norm", "rms_norm"} & set(options) else 1
    for name in ("y", "dx", *half.grads):
        error = np.linalg.norm(got[name] - want[name]) / np.linalg.norm(want[name])
        limit = normed * (4e-3 if name == "y" else 6e-3)
        assert error < limit, (name, error)
        assert name not in ("y", "dx") or error > 1e-5


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_bits_depend_on_no_schedule(kind, options, n_threads):
    """Odd numbers of rows and columns; targets, threads, and blocks of steps."""
    options = {"num_layers": 2, "bidirectional": True, **options}

    def of(**more):
        return results(layer(kind, **options, **more))

    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(1)
    want = of()
    fastrnn.set_num_threads(before)
    assert_same_bits("threads:", of(), want)
    assert_same_bits("in blocks:", of(checkpoint_every=4), want)
    for isa in core.SUPPORTED:
        if core.SUPPORTED[0] != "baseline" and isa != "baseline":
            with core.use_isa(isa):
                assert_same_bits(isa, of(), want)
