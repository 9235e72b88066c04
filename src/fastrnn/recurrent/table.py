# SPDX-License-Identifier: BSD-3-Clause
"""Which classes of recurrent layers there are, and which cells each is made of.

What a cell is, its C file says; `fastrnn.native.celltable.cell` reads that.  A class of
layers is found there by its name: ``class GRU(Recurrent)`` is made of the cell whose
`layer` is "GRU".  Several cells may belong to one class, which then has an argument
`nonlinearity` that chooses: the cell whose gate has the function of that name.
"""

from fastrnn.native import celltable

_classes = {}  # by name, those that have been defined


def cells_of(name):
    """The cells of a class of layers, in the table's order.

    Parameters
    ----------
    name : str
        Of the class.

    Returns
    -------
    tuple of celltable.Cell

    Raises
    ------
    TypeError
        If the table has no cell for such a class.
    """
    every = [celltable.cell(cell) for cell in celltable.CELLS]
    found = tuple(cell for cell in every if cell.layer == name)
    if not found:
        known = dict.fromkeys(cell.layer for cell in every)
        raise TypeError(
            f"{name}: a class of recurrent layers must have the name that a cell gives "
            f"its layers, one of {', '.join(known)}, or derive from such a class"
        )
    return found


def nonlinearities(cells):
    """The cells of one class by the function of their only gate, the default first."""
    return {cell.activations[0]: cell for cell in cells}


def choose(cells, nonlinearity=None):
    """The cell that a layer is made of, of those of its class.

    Parameters
    ----------
    cells : tuple of celltable.Cell
        What `cells_of` gives.
    nonlinearity : str, optional
        The layer's argument of that name, where its class has one.
    """
    if nonlinearity is None:
        return cells[0]
    return nonlinearities(cells)[nonlinearity]


def register(cls):
    """Keep a class of recurrent layers, for `classes`."""
    _classes[cls.__name__] = cls


def classes():
    """The classes of recurrent layers by the lower-case names that users type.

    The class of most gates comes first, as in "lstm, gru, rnn", and those without a
    matrix of recurrent weights come last.
    """

    def place(name):
        cell = cells_of(name)[0]
        return cell.is_scan, -len(cell.gates)

    names = sorted(_classes, key=place)
    return {name.lower(): _classes[name] for name in names}


def kinds():
    """Names of these classes in the order of the table of cells."""
    layers = dict.fromkeys(celltable.cell(cell).layer for cell in celltable.CELLS)
    return [name for name in layers if name in _classes]


def named():
    """The names of these classes for an error: "RNN, LSTM or GRU"."""
    *others, last = kinds()
    return f"{', '.join(others)} or {last}"
