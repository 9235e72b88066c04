# SPDX-License-Identifier: BSD-3-Clause
"""What a cell is, as the table of cells in C says and Python reads it."""

import pickle

import numpy as np
import pytest
import reference

from fastrnn.native import core, weights

# The gate whose recurrent bias the reset gate multiplies: from the paper of the cell.
APART = {"gru": "n"}


@pytest.mark.parametrize("name", list(core.CELLS))
def test_cell_is_what_its_paper_says(name):
    """As the reference states it, which is written from the paper."""
    cell, paper = core.cell(name), reference.CELLS[name]
    assert (cell.gates, cell.activations) == (paper.gates, paper.functions)
    assert cell.bias_apart == APART.get(name)
    assert cell.n_states == 1 + (len(paper.functions) > len(paper.gates))
    assert cell.name == name
    assert cell.index == core.CELLS[name]


def test_every_cell_has_a_reference():
    assert set(reference.CELLS) == set(core.CELLS)


def test_every_cell_is_described():
    """Whatever the table holds: one function a gate, and another of c_t."""
    for name in core.CELLS:
        cell = core.cell(name)
        assert len(set(cell.gates)) == len(cell.gates)
        assert len(cell.activations) - len(cell.gates) in (0, 1)
        assert set(cell.activations) <= set(core.ACTIVATIONS)
        assert cell.layer
        assert cell.paper
        assert pickle.loads(pickle.dumps(cell)) == cell
    assert sorted(core.CELLS.values()) == list(range(len(core.CELLS)))


def test_unknown_cell():
    with pytest.raises(
        ValueError, match=r"^cell: name must be among rnn_tanh, .*'xyz'$"
    ):
        core.cell("xyz")


@pytest.mark.parametrize("name", list(core.CELLS))
def test_a_cell_has_its_options_and_no_others(name):
    """`Options.check` lets through what the table lists, and refuses the rest."""
    cell = core.cell(name)
    functions = [(function, 0.0, 0.0) for function in cell.activations]
    values = {"clip": 1.0, "input_forget": True, "peephole": True, "reset_before": True}
    for option in (*values, "proj_size"):
        if option == "proj_size":
            options = core.Options(proj_size=2)
        else:
            options = core.Options(functions, **{option: values[option]})
        if option in cell.options:
            core.Shape(cell.index, False, 1, 1, 1, 4, None, options)
            weights.Layout(name, 1, 4, 1, 1, True, options)
            continue
        with pytest.raises(
            ValueError, match=f"{option} is an option of .*, not of {name}"
        ):
            core.Shape(cell.index, False, 1, 1, 1, 4, None, options)
        with pytest.raises(
            ValueError, match=f"{option} is an option of .*, not of {name}"
        ):
            weights.Layout(name, 1, 4, 1, 1, True, options)


@pytest.mark.parametrize("name", list(core.CELLS))
def test_weights_have_a_part_for_each_gate(name):
    cell, kernels, H = core.cell(name), core.kernels("float64"), 3
    n = len(cell.gates) * H
    packed = np.empty(kernels.packed_size(False, cell.index, 2, H))
    W, R, b = np.zeros(n * 2), np.zeros(n * H), np.zeros(n)
    kernels.pack(False, cell.index, 2, H, W, R, b, b, packed)
    with pytest.raises(ValueError, match=f"W must have {n * 2} elements"):
        kernels.pack(False, cell.index, 2, H, np.zeros(n * 2 + H), R, b, b, packed)
