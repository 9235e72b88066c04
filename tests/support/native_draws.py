# SPDX-License-Identifier: BSD-3-Clause
"""What scenarios of native calls draw: kernels, options, ragged batches."""

import numpy as np

from fastrnn.native import celltable, core

GATES = {name: len(celltable.cell(name).gates) for name in celltable.CELLS}
N_STATES = {name: celltable.cell(name).n_states for name in celltable.CELLS}
TABLES = []
for _name in core.SUPPORTED:
    with core.use_isa(_name):
        TABLES += [core.kernels("float32"), core.kernels("float64")]


def kind_of(kernels):
    return "d" if kernels.dtype == "float64" else "f"


def threads(f):
    return f.random.choice((1,) * 18 + (2, 3))


def ragged(f, T, B):
    """Offsets of T steps of at most B rows that never grow."""
    sizes = sorted((f.random.randint(1, B) for _ in range(T)), reverse=True)
    return f.array(T + 1, "q", np.cumsum([0, *sizes]))


def options_of(f, cell, H):
    """Keyword arguments of `celltable.CellOptions`, or None for the plain cell."""
    if f.chance(0.5):
        return None
    options, about = {}, celltable.cell(cell)
    if f.chance(0.6):
        n = len(about.activations)
        names = f.random.choices(list(celltable.ACTIVATIONS), k=n)
        options["activations"] = [(name, 0.5, 0.25) for name in names]
        options["clip"] = f.random.choice((0.0, 1.5))
        for name, p in (
            ("input_forget", 0.3),
            ("peephole", 0.5),
            ("reset_before", 0.5),
            ("log_space", 1.0),
            ("skip_scale", 1.0),
        ):
            options[name] = name in about.options and f.chance(p)
        if "activations" not in about.options:
            if not (options["log_space"] or options["skip_scale"]):
                return None
            options["activations"] = [(n, 0.0, 0.0) for n in about.activations]
            options["clip"] = 0.0
    if "proj_size" in about.options and H > 1 and f.chance(0.5):
        options["proj_size"] = f.random.randint(1, H - 1)
    return options


def weight_shapes(cell, I, H, S, bias, options):
    """Of W, R, b_ih, b_hh, P, W_hr of a cell; None of what it lacks."""
    about = celltable.cell(cell)
    peephole = options is not None and options.__reduce__()[1][3]
    G = len(about.gates) - (about.skips and I == H)
    n = min(G, len(about.biased))
    has_P = about.vectors and (peephole or "peephole" not in about.options)
    return [
        (G, H, I),
        None if about.is_scan else (G, H, S),
        (n, H) if bias else None,
        (n, H) if bias and not about.is_scan else None,
        (about.n_vectors, H) if has_P else None,
        (S, H) if S != H else None,
    ]
