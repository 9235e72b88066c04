# SPDX-License-Identifier: BSD-3-Clause
"""`Model.summary`: a table of layers."""

from fastrnn.nn.observing import calls_told_to
from fastrnn.train.stateful import states_of_their_own


def _bytes(n):
    """A number of bytes in a unit that keeps it short."""
    if n < 1024:
        return f"{n:,} B"
    for unit in ("KiB", "MiB"):
        n /= 1024
        if n < 1024:
            return f"{n:.1f} {unit}"
    return f"{n / 1024:,.1f} GiB"


def _outputs(model):
    """Name, layer and output shape of each part, for samples as the model last saw."""
    with model._evaluating(), states_of_their_own(model):
        for name, layer, y in model._outputs(model._seen):
            if y is None:
                shape = "?"
            elif isinstance(y, list):  # a recurrent layer's states
                shape = ", ".join(_shape(part, 1) for part in y)
            else:
                shape = _shape(y, 0)
            yield name, layer, shape


def noted_outputs(model, inputs):
    """Name, layer and output of each part, as a call of the model shows them.

    Parameters
    ----------
    model : Model
    inputs : tuple or None
        Of the call; without one, and of parts that it does not call, outputs are None.
    """
    found = {}

    def note(layer, y):
        found[id(layer)] = y[0] if isinstance(y, tuple) else y

    if inputs is not None:
        with calls_told_to(note):
            model(*inputs)
    children = model._children.items()
    return [(name, layer, found.get(id(layer))) for name, layer in children]


def _shape(y, axis):
    """A shape with N in place of the axis of samples."""
    sizes = [*map(str, y.shape)]
    sizes[axis] = "N"
    return f"({', '.join(sizes)})"


def _fixed(module):
    """Numbers that no training changes, such as weights of a byte; and their bytes."""
    arrays = [array for one in module.modules() for array in one._fixed.values()]
    return sum(array.size for array in arrays), sum(array.nbytes for array in arrays)


def table(model):
    """What each layer is, gives and holds.

    Parameters
    ----------
    model : Model
        With all input sizes known.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If an input size is not known yet.

    Examples
    --------
    >>> lstm = fastrnn.LSTM(None, 8, return_sequences=False)
    >>> model = fastrnn.Sequential(lstm, fastrnn.Linear(None, 1)).build((100, 3))
    >>> print(table(model))
    layer     output shape  parameters   memory
    -------------------------------------------
    0 LSTM          (N, 8)         416  1.6 KiB
    1 Linear        (N, 1)           9     36 B
    -------------------------------------------
    425 parameters, float32: 1.7 KiB, and as much for gradients
    425 are trainable, 0 are not
    """
    total = model.flat_parameters  # raises where a size is not known
    rows = [("layer", "output shape", "parameters", "memory")]
    for name, layer, shape in _outputs(model):
        own, head = layer.flat_parameters, f"{name} {type(layer).__name__}"
        fixed, n_bytes = _fixed(layer)
        n, n_bytes = own.size + fixed, own.nbytes + n_bytes
        rows.append((head, shape, f"{n:,}", _bytes(n_bytes)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    rule = "-" * len(lines[0])
    end = f"{total.size:,} parameters, {model.dtype}: {_bytes(total.nbytes)}, and as "
    end += "much for gradients"
    if model.optimizer is not None:
        kept = sum(array.nbytes for array in model.optimizer._state.values())
        name = type(model.optimizer).__name__
        end += f"; {name} keeps {_bytes(kept)}"
    trained = sum(leaf._size for _, leaf in model._leaves()[0] if leaf._trainable)
    fixed, n_bytes = _fixed(model)
    if fixed:
        end += f"\n{fixed:,} in layers for inference: {_bytes(n_bytes)}"
    shares = f"{trained:,} are trainable, {total.size + fixed - trained:,} are not"
    return "\n".join([lines[0], rule, *lines[1:], rule, end, shares])
