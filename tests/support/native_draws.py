# SPDX-License-Identifier: BSD-3-Clause
"""What scenarios of native calls draw: kernels, options, ragged batches."""

import numpy as np

from fastrnn.native import celltable, core, draws

GATES = {name: len(celltable.cell(name).gates) for name in celltable.CELLS}
N_STATES = {name: celltable.cell(name).n_states for name in celltable.CELLS}
TABLES = []
for _name in core.SUPPORTED:
    with core.use_isa(_name):
        _kinds = ("float32", "float64", "bfloat16", "bfloat16-fast")
        TABLES += dict.fromkeys(core.kernels(name) for name in _kinds)


def kind_of(kernels):
    return "d" if kernels.dtype == "float64" else "f"


def threads(f):
    return f.random.choice((1,) * 18 + (2, 3))


def ragged(f, T, B):
    """Offsets of T steps of at most B rows that never grow."""
    sizes = sorted((f.random.randint(1, B) for _ in range(T)), reverse=True)
    return f.array(T + 1, "q", np.cumsum([0, *sizes]))


def vectors_of(cell, options):
    """Rows of the parameters that multiply unit by unit."""
    about = celltable.cell(cell)
    made_of = None if options is None else options.__reduce__()[1]
    if "peephole" in about.options:
        return about.n_vectors if made_of and options.general and made_of[3] else 0
    return about.n_vectors if made_of is None or made_of[10] is None else 0


def draw_of(f, B, active=None):
    """What a call draws: rows of B, and steps of `active` rows where they are given."""
    if f.chance(0.4):
        return None
    steps = f.array(active, "q", range(9)) if active and f.chance(0.5) else None
    rows = f.array(B, "q", range(9)) if f.chance(0.5) else None
    draw = f.make("draws.Draw", draws.Draw, 12345, 3, 2, steps, rows)
    place = 0 if steps is None else f.random.randint(0, len(steps))
    f.call("draws.Draw.part", draw.part, 2, place)
    assert draw.key == 12345
    return draw


def options_of(f, kernels, cell, H):
    """Keyword arguments of `celltable.CellOptions`, or None for the plain cell."""
    if f.chance(0.5):
        return None
    options, about = {}, celltable.cell(cell)
    if f.chance(0.6):
        n = len(about.activations)
        names = list(about.activations)
        if "activations" in about.options:
            names = f.random.choices(list(celltable.ACTIVATIONS), k=n)
        options["activations"] = [(name, 0.5, 0.25) for name in names]
        options["clip"] = f.random.choice((0.0, 1.5)) * ("clip" in about.options)
        if "fixed_vectors" in about.options and f.chance(0.5):
            options["fixed_vectors"] = f.array((about.n_vectors, H), "d", 0.25)
        for name, p in (
            ("input_forget", 0.3),
            ("peephole", 0.5),
            ("reset_before", 0.5),
            ("exp_forget", 0.5),
            ("log_space", 1.0),
            ("skip_scale", 1.0),
        ):
            options[name] = name in about.options and f.chance(p)
        if about.is_scan and not (options["log_space"] or options["skip_scale"]):
            return None
    if "proj_size" in about.options and H > 1 and f.chance(0.5):
        options["proj_size"] = f.random.randint(1, H - 1)
    if (
        "heads" in about.options
        and not kernels.half  # which have no products for heads
        and f.chance(0.3)
        and not (options.get("proj_size") or options.get("reset_before"))
    ):
        options["heads"] = f.random.choice([n for n in range(1, H + 1) if H % n == 0])
    if (
        options.get("activations")
        and about.norms
        and f.chance(0.5)
        and not (options["input_forget"] or options["reset_before"])
    ):
        options["norm"], options["rms"] = f.random.choice(about.norms), f.chance(0.5)
    if "masks" in about.options and f.chance(0.4):
        some = (0.0, 0.5, 1.0)
        options["zoneout"] = tuple(f.random.choice(some[:2]) for _ in "hc")
        if about.n_states == 1:
            options["zoneout"] = (0.0, options["zoneout"][1])
        options["recurrent_dropout"] = f.random.choice(some)
        modes = ["h", "per_gate"] + ["candidate"] * ("candidate" in about.options)
        options["recurrent_mode"] = f.random.choice(modes)
        options["input_dropout"] = f.random.choice(some)
    return options


def norm_shapes(cell, H, options):
    """Of the parameters of a norm, by name."""
    norm, rms = (None, False) if options is None else options.__reduce__()[1][-2:]
    gates = (GATES[cell], H)
    shapes = {
        "norm_ih": gates if norm else None,
        "norm_hh": gates if norm in ("apart", "cell", "carried") else None,
        "norm_c": (H,) if norm in ("cell", "carried", "per_gate") else None,
    }
    shapes["norm_c_bias"] = None if rms else shapes["norm_c"]
    return {name: shape for name, shape in shapes.items() if shape}


def weight_shapes(cell, I, H, S, bias, options):
    """Of W, R, b_ih, b_hh, P, W_hr of a cell; None of what it lacks."""
    about = celltable.cell(cell)
    G, vectors = len(about.gates) - (about.skips and I == H), vectors_of(cell, options)
    heads = 1 if options is None else options.heads
    n = min(G, len(about.biased))
    return [
        (G, H, I),
        None if about.is_scan else (G, H, S // heads),
        (n, H) if bias else None,
        (n, H) if bias and not about.is_scan else None,
        (vectors, H) if vectors else None,
        (S, H) if S != H else None,
    ]
