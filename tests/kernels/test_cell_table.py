# SPDX-License-Identifier: BSD-3-Clause
"""What a cell is, as the table of cells in C says and Python reads it."""

import pickle

import numpy as np
import pytest
import reference

from fastrnn.native import celltable, core, layout, single

# The gate whose recurrent bias the reset gate multiplies: from the paper of the cell.
APART = {"gru": "n"}


@pytest.mark.parametrize("name", list(celltable.CELLS))
def test_cell_is_what_its_paper_says(name):
    """As the reference states it, which is written from the paper."""
    cell, paper = celltable.cell(name), reference.CELLS[name]
    assert (cell.gates, cell.activations) == (paper.gates, paper.functions)
    assert cell.bias_apart == APART.get(name)
    assert "".join(cell.states) == reference.STATES.get(name, "h")
    assert cell.n_states == len(cell.states)
    assert cell.vectors == reference.VECTORS.get(name, cell.vectors)
    assert cell.name == name
    assert cell.index == celltable.CELLS[name]


def test_every_cell_has_a_reference():
    assert set(reference.CELLS) == set(celltable.CELLS)


def test_every_cell_is_described():
    """Whatever the table holds: one function a gate, and another of c_t."""
    for name in celltable.CELLS:
        cell = celltable.cell(name)
        assert len(set(cell.gates)) == len(cell.gates)
        assert len(cell.activations) - len(cell.gates) in (0, 1)
        assert set(cell.activations) <= set(celltable.ACTIVATIONS)
        assert cell.layer
        assert cell.paper
        assert pickle.loads(pickle.dumps(cell)) == cell
    assert sorted(celltable.CELLS.values()) == list(range(len(celltable.CELLS)))


def test_unknown_cell():
    with pytest.raises(
        ValueError, match=r"^cell: name must be among rnn_tanh, .*'xyz'$"
    ):
        celltable.cell("xyz")


@pytest.mark.parametrize("name", list(celltable.CELLS))
def test_a_cell_has_its_options_and_no_others(name):
    """`CellOptions.check` lets through what the table lists, and refuses the rest."""
    cell = celltable.cell(name)
    functions = [(function, 0.0, 0.0) for function in cell.activations]
    values = {"clip": 1.0, "input_forget": True, "peephole": True, "reset_before": True}
    values |= {"log_space": True, "skip_scale": 2.0}
    for option in (*values, "proj_size"):
        if option == "proj_size":
            options = celltable.CellOptions(proj_size=2)
        else:
            options = celltable.CellOptions(functions, **{option: values[option]})
        if option in cell.options:
            single.Shape(cell.index, False, 1, 1, 1, 4, None, options)
            layout.Layout(name, 1, 4, 1, 1, True, options)
            continue
        with pytest.raises(
            ValueError, match=f"{option} is an option of .*, not of {name}"
        ):
            single.Shape(cell.index, False, 1, 1, 1, 4, None, options)
        with pytest.raises(
            ValueError, match=f"{option} is an option of .*, not of {name}"
        ):
            layout.Layout(name, 1, 4, 1, 1, True, options)


@pytest.mark.parametrize("name", list(celltable.CELLS))
def test_weights_have_a_part_for_each_gate(name):
    cell, kernels, H = celltable.cell(name), core.kernels("float64"), 3
    n = len(cell.gates) * H
    shape = single.Shape(cell.index, False, 1, 1, 2, H)
    packed = np.empty(single.packed_size(kernels, False, shape))
    W, R, b = np.zeros(n * 2), np.zeros(n * H), np.zeros(n)
    has_vectors = cell.n_vectors and "peephole" not in cell.options
    P = np.zeros(cell.n_vectors * H) if has_vectors else None
    if cell.is_scan:
        with pytest.raises(ValueError, match="R and b_hh must be None for a cell with"):
            single.pack(kernels, False, shape, W, R, b, b, packed)
        b = np.zeros(len(cell.biased) * H)
        single.pack(kernels, False, shape, W, None, b, None, packed, P)
        return
    single.pack(kernels, False, shape, W, R, b, b, packed, P)
    with pytest.raises(ValueError, match=f"W must have {n * 2} elements"):
        single.pack(kernels, False, shape, np.zeros(n * 2 + H), R, b, b, packed, P)
